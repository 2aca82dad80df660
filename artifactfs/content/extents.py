"""Ranges and blocks. Pure arithmetic; offsets and lengths in bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

# 256 KiB: twice the largest read the kernel sends by default (128 KiB), so a block is verified and copied at most a few
# times while a file is read in order, and a small file costs no more than it is long.
BLOCK = 256 * 1024


def count(size: int) -> int:
    """Return how many blocks ``size`` bytes fill."""
    return -(-size // BLOCK)


def cover(offset: int, length: int) -> range:
    """Return the indexes of the blocks that hold ``length`` bytes from ``offset``."""
    if length <= 0:
        return range(0)
    return range(offset // BLOCK, (offset + length - 1) // BLOCK + 1)


def cut(index: int, block: bytes, offset: int, length: int) -> bytes:
    """Return what block ``index`` gives to the range."""
    begin = index * BLOCK
    return block[max(0, offset - begin) : max(0, offset + length - begin)]


def runs(wanted: range, present: Callable[[int], bool]) -> Iterator[range]:
    """Return the longest runs of wanted blocks that are not present."""
    start: int | None = None
    for index in wanted:
        if present(index):
            if start is not None:
                yield range(start, index)
            start = None
        elif start is None:
            start = index
    if start is not None:
        yield range(start, wanted.stop)
