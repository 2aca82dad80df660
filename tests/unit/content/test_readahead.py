"""How far ahead is fetched."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from artifactfs.content.readahead import FIRST, LARGEST, Pattern, plan

READ = 128 * 1024
SIZE = 256 << 20


def test_the_first_read_fetches_little() -> None:
    """The head of a large file costs one small window."""
    assert plan(Pattern(), 0, READ, SIZE) <= FIRST + READ


def test_a_reader_in_order_gets_windows_that_double_up_to_the_largest() -> None:
    """The window grows with each one that is used, and stops at the largest."""
    pattern = Pattern()
    ends = [plan(pattern, offset, READ, SIZE) - offset for offset in range(0, 128 << 20, READ)]
    assert pattern.window == LARGEST
    assert max(ends) <= 2 * LARGEST
    assert min(ends) >= READ


def test_a_reader_at_random_gets_what_it_asks_for() -> None:
    """Jumps fetch nothing more, and the reader who settles down starts small again."""
    pattern = Pattern()
    for offset in (0, 100 << 20, 3 << 20, 77 << 20):
        end = plan(pattern, offset, READ, SIZE)
    assert end == (77 << 20) + READ
    assert plan(pattern, end, READ, SIZE) <= end + READ + FIRST


def test_reads_slightly_out_of_order_count_as_in_order() -> None:
    """The kernel sends neighbouring reads in any order."""
    pattern = Pattern()
    for offset in (0, 2 * READ, READ, 4 * READ, 3 * READ):
        assert plan(pattern, offset, READ, SIZE) > offset + READ


@given(
    reads=st.lists(st.tuples(st.integers(0, 20 << 20), st.integers(1, 1 << 20)), max_size=30),
    size=st.integers(1, 21 << 20),
)
def test_a_plan_always_covers_the_read_and_never_passes_the_end(reads: list[tuple[int, int]], size: int) -> None:
    """Whatever was read before, what is asked for now is fetched, and nothing behind the end."""
    pattern = Pattern()
    for offset, length in reads:
        end = plan(pattern, offset, length, size)
        assert min(offset + length, size) <= end
        assert end <= max(size, min(offset + length, size))
