"""Ranges and blocks: what is covered, cut and missing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from artifactfs.content.extents import BLOCK, count, cover, cut

SIZES = st.integers(0, 5 * BLOCK + 3)


@given(size=SIZES)
def test_count_is_the_blocks_that_a_content_fills(size: int) -> None:
    """As many blocks as it takes, none for nothing."""
    assert count(size) == len(range(0, size, BLOCK))


@given(offset=SIZES, length=SIZES)
def test_cover_is_exactly_the_blocks_that_a_range_touches(offset: int, length: int) -> None:
    """No block too few, none too many, also at the borders of blocks."""
    touched = {at // BLOCK for at in (offset, offset + length - 1)} if length else set()
    covered = cover(offset, length)
    assert set(covered) == set(range(min(touched), max(touched) + 1)) if touched else not covered


@given(data=st.data(), size=st.integers(1, 3 * BLOCK + 5))
def test_the_cuts_of_the_covering_blocks_are_the_range(data: st.DataObject, size: int) -> None:
    """Joined, what each block gives is the range, byte for byte."""
    content = bytes(at * 31 % 251 for at in range(1024)) * (size // 1024 + 1)
    content = content[:size]
    offset = data.draw(st.integers(0, size - 1))
    length = data.draw(st.integers(1, size - offset))
    parts = [cut(at, content[at * BLOCK : (at + 1) * BLOCK], offset, length) for at in cover(offset, length)]
    assert b"".join(parts) == content[offset : offset + length]
