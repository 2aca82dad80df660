"""How far ahead is fetched, and over how many streams."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from artifactfs.content.readahead import (
    FIRST,
    LARGEST,
    LARGEST_NEAR,
    STREAMS,
    STREAMS_NEAR,
    Pace,
    Pattern,
    plan,
    ranges,
)

READ = 128 * 1024
SIZE = 256 << 20


def read_in_order(pattern: Pattern, begin: int, end: int, *, waiting: bool = True, largest: int = LARGEST) -> int:
    """Read from ``begin`` to ``end``; return how far ahead was fetched."""
    reached = begin
    for offset in range(begin, end, READ):
        pattern.waited = pattern.waited or waiting
        planned = plan(pattern, offset, READ, SIZE, largest)
        assert not planned or planned.start == reached
        reached = planned.stop if planned else reached
        assert reached >= min(SIZE, offset + READ)
    return reached


def test_the_first_reads_fetch_little() -> None:
    """The head of a large file costs one small window, and each byte of it is asked for once."""
    assert read_in_order(Pattern(), 0, 2 * READ) <= FIRST


def test_a_reader_in_order_gets_windows_that_grow_up_to_the_largest() -> None:
    """The window grows while the reader waits, and stops at the largest; nothing is asked for twice or left out."""
    pattern = Pattern()
    read_in_order(pattern, 0, 64 << 20)
    assert pattern.window == LARGEST


def test_a_reader_who_never_waits_keeps_the_first_window() -> None:
    """Who reads slower than the bytes come, or from the cache, needs no more."""
    pattern = Pattern()
    assert read_in_order(pattern, 0, 16 << 20, waiting=False) <= (16 << 20) + 2 * FIRST
    assert pattern.window == FIRST


def test_the_window_stays_within_what_the_source_deserves() -> None:
    """Near sources and slow lines set a limit, and it may come down."""
    pattern = Pattern()
    read_in_order(pattern, 0, 16 << 20)
    assert pattern.window == LARGEST
    reached = read_in_order(pattern, 64 << 20, 96 << 20, largest=2 * FIRST)
    assert reached - (96 << 20) <= 2 * FIRST


def test_a_reader_at_random_gets_what_it_asks_for() -> None:
    """Jumps fetch nothing more, and the reader who settles down starts small again."""
    pattern = Pattern()
    for offset in (0, 100 << 20, 3 << 20, 77 << 20):
        planned = plan(pattern, offset, READ, SIZE)
    assert planned == range(77 << 20, (77 << 20) + READ)
    assert not pattern.in_order
    assert len(plan(pattern, planned.stop, READ, SIZE)) <= FIRST


def test_reads_slightly_out_of_order_count_as_in_order() -> None:
    """The kernel sends neighbouring reads in any order."""
    pattern = Pattern()
    for offset in (0, 2 * READ, READ, 4 * READ, 3 * READ):
        plan(pattern, offset, READ, SIZE)
        assert pattern.in_order
    assert pattern.fetched_to >= 5 * READ


@given(
    reads=st.lists(st.tuples(st.integers(0, 20 << 20), st.integers(1, 1 << 20)), max_size=30),
    size=st.integers(1, 21 << 20),
)
def test_a_plan_never_passes_the_end_nor_names_bytes_twice(reads: list[tuple[int, int]], size: int) -> None:
    """Whatever was read before; and a jump is planned as it is."""
    pattern = Pattern()
    for offset, length in reads:
        before = pattern.fetched_to
        pattern.waited = True
        planned = plan(pattern, offset, length, size)
        if not planned:
            continue
        assert planned.stop <= max(size, min(offset + length, size))
        assert planned.start >= before if pattern.in_order else planned == range(offset, min(offset + length, size))


def test_an_answer_that_begins_at_once_is_from_next_door() -> None:
    """The quickest of the last few tells: on a busy machine the others had to wait."""
    pace = Pace()
    assert (pace.largest, pace.streams) == (LARGEST, STREAMS)
    for after_s in (0.2, 0.003, 0.05):
        pace.began(after_s)
    assert (pace.largest, pace.streams) == (LARGEST_NEAR, STREAMS_NEAR)
    for _ in range(8):
        pace.began(0.02)
    assert (pace.largest, pace.streams) == (LARGEST, STREAMS)


def test_a_slow_line_is_not_filled_with_what_is_far_ahead() -> None:
    """No more is fetched than comes in a few seconds, and never less than the first window."""
    pace = Pace()
    pace.began(0.05)
    for _ in range(20):
        pace.brought(1 << 20, 4)
    assert FIRST < pace.largest < 4 * FIRST
    for _ in range(20):
        pace.brought(1 << 20, 400)
    assert pace.largest == FIRST


@given(start=st.integers(0, 100), length=st.integers(1, 300), least=st.integers(1, 16), streams=st.integers(1, 20))
def test_parts_are_the_whole_in_order(start: int, length: int, least: int, streams: int) -> None:
    """No block twice, none left out, not too many parts, none too small but where there is too little."""
    parts = ranges(range(start, start + length), least, streams)
    assert [index for part in parts for index in part] == list(range(start, start + length))
    assert len(parts) <= streams
    assert len(parts) == 1 or length // len(parts) >= least
