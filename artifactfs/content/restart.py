"""Where in an archive decoding can be started anew, and how.

A restart point is the beginning of a deflate block with the last 32 KiB before it (its window). Points stand before
files that are worth a request of their own; the block map says where the compressed bytes of a file end.

Rules of this file: no I/O; windows are kept by somebody else, compressed, one behind the other, in the order of the
points.
"""

from __future__ import annotations

import zlib
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from artifactfs.content.gunzip import MAX_PIECE, Gunzip
from artifactfs.errors import CorruptContent

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from artifactfs.model.limits import Limits

# Smaller files are pinned instead: 2 % of an archive's bytes are 79 % of its files (measured).
MIN_FILE = 64 * 1024
# Of the archive, for windows; with index and block map it stays below 1 %.
SHARE = 0.007
# A point this near behind another one, in compressed bytes, would save less than a request costs.
MIN_GAP = 64 * 1024
_FORMAT = b"AFSPTS1\n"
COLUMNS = ("begin", "bit", "out", "at", "length")
_TRAILER = 8  # CRC-32 and length behind a gzip member


@dataclass(frozen=True, slots=True)
class Point:
    """A restart point: as ``Border``, with the place of its compressed window among the windows."""

    begin: int
    bit: int
    out: int
    at: int
    length: int


@dataclass(slots=True)
class RestartMap:
    """The points of an archive by column, and its block map; ``size`` is that of the archive, in bytes."""

    points: dict[str, array[int]] = field(default_factory=lambda: {name: array("Q") for name in COLUMNS})
    ends_in: array[int] = field(default_factory=lambda: array("Q"))
    ends_out: array[int] = field(default_factory=lambda: array("Q"))
    size: int = 0
    windows_key: str = ""

    def __len__(self) -> int:
        return len(self.points["out"])

    def point_before(self, offset: int) -> Point | None:
        """Return the last point at or before an offset of the decompressed stream."""
        at = bisect_right(self.points["out"], offset) - 1
        return None if at < 0 else Point(*(self.points[name][at] for name in COLUMNS))

    def end_of(self, offset: int) -> int:
        """Return how many bytes of the archive hold all that decompresses to what is before ``offset``."""
        at = bisect_left(self.ends_out, offset)
        return min(self.size, self.ends_in[at] + 1) if at < len(self.ends_out) else self.size

    def reach_of(self, offset: int) -> int:
        """Return how far those bytes of the archive decompress."""
        at = bisect_left(self.ends_out, offset)
        return self.ends_out[at] if at < len(self.ends_out) else offset

    def dump(self) -> bytes:
        """Serialise."""
        columns = [*(self.points[name] for name in COLUMNS), self.ends_in, self.ends_out]
        head = array("Q", [self.size, *(len(column) for column in columns)]).tobytes()
        body = b"".join(column.tobytes() for column in columns)
        return _FORMAT + zlib.compress(head + body + self.windows_key.encode())

    @classmethod
    def load(cls, data: bytes) -> RestartMap:
        """Read what ``dump`` wrote.

        Raises:
            CorruptContent: it is not that.
        """
        if not data.startswith(_FORMAT):
            raise CorruptContent("stored restart points have another format")
        try:
            raw = memoryview(zlib.decompress(data[len(_FORMAT) :]))
            head = array("Q", raw[: 8 * (len(COLUMNS) + 3)].tobytes())
            columns, at = [], 8 * len(head)
            for length in head[1:]:
                columns.append(array("Q", raw[at : at + 8 * length].tobytes()))
                at += 8 * length
            key = raw[at:].tobytes().decode()
            points = dict(zip(COLUMNS, columns[: len(COLUMNS)], strict=True))
            return cls(points, columns[-2], columns[-1], head[0], key)
        except (zlib.error, ValueError, IndexError) as error:
            raise CorruptContent("stored restart points are damaged") from error


# ------------------------------------------------------------------------------------------------ restarting


def _bits() -> tuple[tuple[int, int], tuple[int, int]]:
    """Return two empty deflate blocks as (bits, how many), the first bit lowest: 10 of them, and 93."""
    value = count = 0

    def put(bits: int, length: int) -> None:
        nonlocal value, count
        value |= bits << count
        count += length

    # Not final, dynamic; 257 literals, 1 distance, 19 code lengths in the order of RFC 1951: 18 and 1 get one bit.
    for bits, length in ((0, 1), (2, 2), (0, 5), (0, 5), (15, 4)):
        put(bits, length)
    for symbol in (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15):
        put(1 if symbol in (1, 18) else 0, 3)
    # 138 and 118 zeros (symbol 18, code 1), a length of 1 for the end (symbol 1, code 0) and for the distance; the end.
    for bits, length in ((1, 1), (127, 7), (1, 1), (107, 7), (0, 1), (0, 1), (0, 1)):
        put(bits, length)
    # Not final, fixed codes, the end of the block.
    return (2, 10), (value, count)


_EVEN, _ODD = _bits()


def _prefix(bit: int) -> tuple[int, int]:
    """Return harmless blocks that end at this bit of a byte: with them in front, nothing behind needs a shift."""
    value, count = _ODD if bit % 2 else (0, 0)
    while count % 8 != bit:
        value |= _EVEN[0] << count
        count += _EVEN[1]
    return value, count


def begin_at(bit: int, data: bytes) -> bytes:
    """Return deflate data whose first block begins at this bit of ``data``."""
    value, count = _prefix(bit)
    first = (data[0] >> bit << bit) | (value >> (count - bit))
    return (value & ((1 << (count - bit)) - 1)).to_bytes(count // 8, "little") + bytes([first]) + data[1:]


class Restarted:
    """A decoder that begins at a point; fed with the archive's bytes from ``point.begin`` on."""

    def __init__(self, point: Point, window: bytes, limits: Limits) -> None:
        """``window`` is that of the point, decompressed."""
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS, zdict=window)
        self._bit = point.bit
        self._trailer = b""
        self._begun = False
        self._following = Gunzip(limits)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decode what follows, in pieces.

        Raises:
            CorruptContent: it is damaged, or the point does not belong to it.
        """
        if data and not self._begun:
            self._begun = True
            data = begin_at(self._bit, data)
        if not self._inflater.eof:
            data = yield from self._inflate(data)
        if data:
            yield from self._behind(data)

    def _inflate(self, data: bytes) -> Generator[bytes, None, bytes]:
        """Decode within the member; returns what stands behind it."""
        while True:
            try:
                piece = self._inflater.decompress(data, MAX_PIECE)
            except zlib.error as error:
                raise CorruptContent(f"the archive cannot be read from within: {error}") from error
            if piece:
                yield piece
            if self._inflater.eof:
                return self._inflater.unused_data
            data = self._inflater.unconsumed_tail
            if not data and len(piece) < MAX_PIECE:
                return b""

    def _behind(self, data: bytes) -> Iterator[bytes]:
        """Go on in the next gzip member."""
        missing = _TRAILER - len(self._trailer)
        self._trailer += data[:missing]
        yield from self._following.feed(data[missing:])
