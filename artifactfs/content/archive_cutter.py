"""The bytes of an archive's files, cut into blocks and hashed as the decompressed stream passes.

Rules of this file: no I/O, meant for one worker thread. At most one block of one file is held, unless the file's hash
is known before: then a file of up to ``HELD`` bytes is held whole, so that nobody sees a byte of it that does not
verify.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from artifactfs.content import inflate_blocks
from artifactfs.content.archive_index import ArchiveReader, Limits
from artifactfs.content.extents import BLOCK
from artifactfs.content.restart import MIN_FILE
from artifactfs.content.restart_points import PointsBuilder
from artifactfs.errors import StaleContent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from artifactfs.content.archive_index import ArchiveIndex, GrowingTree, RawMember
    from artifactfs.content.restart import RestartMap

# Larger files are handed on block by block and judged at their end: whoever reads their head should not wait for that.
HELD = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class End:
    """A file that has passed whole: its offset in the stream, its size in bytes, its SHA-256 in hex."""

    offset: int
    size: int
    sha256: str


@dataclass(slots=True)
class Batch:
    """What one piece of the stream brought.

    Attributes:
        members: headers that have passed.
        blocks: of files, as (the file's offset in the stream, the block's number in the file, bytes).
        ends: files that are whole.
        windows: of restart points, compressed.
        position: bytes of the stream that have passed.
    """

    members: list[RawMember] = field(default_factory=list)
    blocks: list[tuple[int, int, bytes]] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    windows: list[bytes] = field(default_factory=list)
    position: int = 0


class Cutter:
    """Cuts files out of a stream."""

    def __init__(self, expected: Mapping[int, str] | None = None) -> None:
        """``expected`` are the hashes of the files by their offsets, where they are known."""
        self._expected = expected
        self._files: deque[tuple[int, int]] = deque()
        self._begin()

    def __repr__(self) -> str:
        return f"<Cutter {len(self._files)} files to come>"

    def _begin(self) -> None:
        self._done, self._number = 0, 0
        self._hash = hashlib.sha256()
        self._buffer = bytearray()
        self._held: list[tuple[int, int, bytes]] = []

    def expect(self, offset: int, size: int) -> None:
        """Cut out what stands there; offsets ascend."""
        if size:
            self._files.append((offset, size))

    def cut(self, begin: int, piece: bytes, batch: Batch) -> None:
        """Take the next piece, which begins so far into the stream.

        Raises:
            StaleContent: a file is not what it was.
        """
        view, stop = memoryview(piece), begin + len(piece)
        batch.position = stop
        while self._files and self._files[0][0] + self._done < stop:
            offset, size = self._files[0]
            chunk = view[offset + self._done - begin : min(stop, offset + size) - begin]
            self._hash.update(chunk)
            self._done += len(chunk)
            self._blocks(offset, chunk, size)
            if self._done < size:
                break
            self._files.popleft()
            self._end(End(offset, size, self._hash.hexdigest()), batch)
            self._begin()
        if self._held and self._files and not self._holds(self._files[0][1]):
            batch.blocks += self._held
            self._held = []

    def _holds(self, size: int) -> bool:
        return self._expected is not None and size <= HELD

    def _blocks(self, offset: int, chunk: memoryview, size: int) -> None:
        while chunk:
            room = BLOCK - len(self._buffer)
            self._buffer += chunk[:room]
            chunk = chunk[room:]
            if len(self._buffer) == BLOCK or (not chunk and self._done == size):
                self._held.append((offset, self._number, bytes(self._buffer)))
                self._number += 1
                self._buffer.clear()

    def _end(self, end: End, batch: Batch) -> None:
        if self._expected is not None and self._expected.get(end.offset) != end.sha256:
            raise StaleContent("a file of the archive is not what it was when the archive was read first")
        batch.blocks += self._held
        batch.ends.append(end)


class Unpacker:
    """Compressed bytes in, what they hold out; then the index and the restart points."""

    def __init__(self, limits: Limits, expected: Mapping[int, str] | None = None) -> None:
        """Begin an archive; ``expected`` as for ``Cutter``."""
        self._inflater = inflate_blocks.make()
        make = {} if self._inflater is None else {"make_inflater": self._inflater.begin}
        self._reader = ArchiveReader(limits, **make)
        self._cutter = Cutter(expected)
        self._points = PointsBuilder()
        self._sha256: dict[int, str] = {}

    @property
    def members_seen(self) -> int:
        return self._reader.members_seen

    def feed(self, compressed: bytes) -> Iterator[Batch]:
        """Unpack what follows; must be iterated to its end before the next call.

        Raises:
            CorruptContent, LimitExceeded: as ``ArchiveReader.feed``.
            StaleContent: a file is not what it was.
        """
        if self._inflater is not None:
            self._points.hold(compressed)
        for piece in self._reader.feed(compressed):
            batch = Batch(self._reader.take_members())
            files = [raw for raw in batch.members if raw.kind == "file"]
            for raw in files:
                self._cutter.expect(raw.offset, raw.size)
            self._cutter.cut(self._reader.bytes_out - len(piece), piece, batch)
            self._sha256.update((end.offset, end.sha256) for end in batch.ends)
            if self._inflater is not None:
                self._points.take(self._inflater.borders, [raw.offset for raw in files if raw.size >= MIN_FILE])
                self._inflater.borders.clear()
                batch.windows, self._points.windows = self._points.windows, []
            yield batch

    def finish(self, tree: GrowingTree, windows_key: str) -> tuple[ArchiveIndex, RestartMap, list[bytes]]:
        """Say that the archive has ended; get its index, its restart points, and the last of their windows.

        Raises:
            CorruptContent, LimitExceeded: as ``ArchiveReader.finish``. Nothing handed out may be believed.
        """
        index = self._reader.finish(tree, self._sha256)
        self._points.finish()
        self._points.map.size, self._points.map.windows_key = self._reader.bytes_in, windows_key
        return index, self._points.map, self._points.windows
