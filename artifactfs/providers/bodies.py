"""What is sent with a request: bytes in memory, and files that are read as they are sent.

Rules of this file: a body knows its length before its first byte is read, and is sent once. It holds no more of a file
than one piece.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import BinaryIO

import trio

from artifactfs import errors

# One piece of a file on its way: large enough that a thread for each costs nothing, a few of them fit a socket.
PIECE_BYTES = 256 * 1024


class Bytes:
    """A body in memory."""

    def __init__(self, data: bytes) -> None:
        """Send ``data``."""
        self.length = len(data)
        self._data = data

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Return it, in pieces that each have the time of one to arrive."""
        for start in range(0, self.length, PIECE_BYTES):
            yield self._data[start : start + PIECE_BYTES]


class FileBody:
    """A file that does not change any more, with what stands before and behind it."""

    def __init__(self, path: Path, size: int, *, before: bytes = b"", behind: bytes = b"") -> None:
        """Send ``before``, the ``size`` bytes at ``path``, and ``behind``."""
        self.length = len(before) + size + len(behind)
        self._path, self._size = path, size
        self._before, self._behind = before, behind

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Return it in pieces; each is read in a thread.

        Raises:
            CorruptContent: the file cannot be read, or is not of its size: then less is sent than was announced.
        """
        if self._before:
            yield self._before
        left = self._size
        file = await trio.to_thread.run_sync(self._open)
        try:
            while left and (piece := await trio.to_thread.run_sync(self._read, file, min(left, PIECE_BYTES))):
                left -= len(piece)
                yield piece
        finally:
            file.close()
        if left:
            message = f"what was to be sent is {left} bytes shorter than it was"
            raise errors.CorruptContent(message, subject=str(self._path))
        if self._behind:
            yield self._behind

    def _open(self) -> BinaryIO:
        try:
            return self._path.open("rb", buffering=0)
        except OSError as error:
            raise self._unreadable(error) from error

    def _read(self, file: BinaryIO, size: int) -> bytes:
        try:
            return file.read(size)
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> errors.CorruptContent:
        message = f"what was to be sent cannot be read: {error.strerror}"
        return errors.CorruptContent(message, subject=str(self._path))


def file_pieces(path: Path, size: int) -> Iterator[bytes]:
    """Return a file in pieces of at most ``size`` bytes; to be used in a thread.

    Raises:
        CorruptContent: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            while piece := file.read(size):
                yield piece
    except OSError as error:
        message = f"what was to be saved cannot be read: {error.strerror}"
        raise errors.CorruptContent(message, subject=str(path)) from error
