"""What a push sends: JSON, and an archive in a file without a name."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

import trio

from artifactfs import errors
from artifactfs.providers.bodies import PIECE_BYTES, Bytes


@dataclass(frozen=True, slots=True)
class OpenFile:
    """The first ``length`` bytes of an open file, read without moving its position; it stays its owner's to close."""

    file: BinaryIO
    length: int

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Return them; each piece is read in a thread.

        Raises:
            Unavailable: the disk failed, or there are fewer.
        """
        at = 0
        while at < self.length:
            want = min(PIECE_BYTES, self.length - at)
            try:
                data = await trio.to_thread.run_sync(os.pread, self.file.fileno(), want, at)
            except OSError as error:
                raise errors.Unavailable(f"the packed archive cannot be read: {error.strerror}") from error
            if not data:
                raise errors.Unavailable("the packed archive is shorter than it was")
            at += len(data)
            yield data


def json_of(files: Iterable[Mapping[str, object]]) -> bytes:
    """Return a JSON array; made piece by piece, as one call for 50,000 files would let no other thread run (60 ms)."""
    return b"[" + b",".join(json.dumps(file, separators=(",", ":")).encode("ascii") for file in files) + b"]"


def with_files(said: Mapping[str, object], files: bytes) -> Bytes:
    """Return a JSON object of what is said, which is not nothing, and of ``files``, a JSON array."""
    head = json.dumps({key: value for key, value in said.items() if value is not None}, separators=(",", ":"))
    return Bytes(head[:-1].encode("ascii") + b',"files":' + files + b"}")
