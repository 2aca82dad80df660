"""How far ahead of programs that go from file to file."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactfs.content.prefetch import (
    AHEAD_BYTES,
    FILES,
    GUESS_BYTES,
    LEAST_BYTES,
    NEAR,
    PAUSE_S,
    WASTE_FREE_BYTES,
    Ledger,
    Order,
    Ramp,
    Track,
)

# Numbers as inodes are: in no order that a name or a listing has.
NUMBERS = [(at * 7919) % 10_007 for at in range(1, 101)]
NAMES = [f"{(at * 37) % 100:03}.txt" for at in range(100)]


def track() -> Track:
    return Track(NUMBERS, NAMES)


def test_one_open_earns_nothing() -> None:
    assert track().visit(NUMBERS[0], 0).due(FILES) == 0


def test_the_same_file_again_earns_nothing() -> None:
    way = track()
    for _ in range(5):
        assert way.visit(NUMBERS[0], 0).due(FILES) == 0


@pytest.mark.parametrize("order", Order)
def test_the_second_open_in_any_order_earns_the_first_window(order: Order) -> None:
    way = track()
    line = way.line(order)
    way.visit(line[0], 0)
    cursor = way.visit(line[1], 0)
    assert cursor.due(FILES) == FILES.first
    assert cursor.orders == (order,)
    assert list(way.after(cursor.orders[0], cursor.at))[:3] == line[2:5]


def test_the_window_doubles_up_to_the_largest() -> None:
    numbers = list(range(2000))
    way = Track(numbers, [f"{number:05}" for number in numbers])
    asked = [count for number in numbers if (count := way.visit(number, 0).due(FILES))]
    assert asked[:4] == [6, 12, 24, 48]
    assert max(asked) == FILES.largest
    # Never half the window from running dry, once it is at its largest.
    assert len(asked) < 30


def test_opens_at_random_earn_nothing() -> None:
    order = list(range(1000))
    random.Random(5).shuffle(order)
    way = Track(order, [f"{(at * 7) % 1000:04}" for at in range(1000)])
    # With 1,000 members two that are near each other by accident are rare.
    earned = sum(bool(way.visit(number, 0).due(FILES)) for number in random.Random(6).sample(order, 20))
    assert earned <= 2


def test_a_pause_ends_a_way() -> None:
    way = track()
    way.visit(NUMBERS[0], 0)
    assert way.visit(NUMBERS[1], PAUSE_S + 1).due(FILES) == 0
    assert way.visit(NUMBERS[2], PAUSE_S + 1).due(FILES) == FILES.first


def test_a_jump_ends_a_way_and_opens_there_earn_anew() -> None:
    way = track()
    for number in NUMBERS[:20]:
        way.visit(number, 0).due(FILES)
    assert way.visit(NUMBERS[70], 0).due(FILES) == 0
    assert way.visit(NUMBERS[71], 0).due(FILES) == FILES.first


def test_programs_side_by_side_do_not_disturb_each_other() -> None:
    way = track()
    for first, second, third in zip(NUMBERS[0:20], NUMBERS[40:60], NUMBERS[75:95], strict=True):
        cursors = [way.visit(number, 0) for number in (first, second, third)]
    assert len({id(cursor) for cursor in cursors}) == 3
    assert [cursor.run for cursor in cursors] == [20, 20, 20]


def test_a_program_with_threads_is_still_in_order() -> None:
    way = track()
    for at in (0, 2, 1, 4, 3, 5, 7, 6, 8):
        cursor = way.visit(NUMBERS[at], 0)
    assert cursor.run >= 5
    assert cursor.at == NUMBERS[8]


def test_skipped_members_do_not_end_a_way() -> None:
    way = track()
    for number in NUMBERS[::NEAR]:
        cursor = way.visit(number, 0)
    assert cursor.run == len(NUMBERS[::NEAR])


def test_who_comes_from_the_directory_before_goes_on_with_the_first_open() -> None:
    way = track()
    way.begin((Order.LISTED,), 48, 0)
    assert way.visit(NUMBERS[0], 0).due(FILES) == 48


def test_what_is_no_member_is_no_visit_in_order() -> None:
    way = track()
    way.visit(NUMBERS[0], 0)
    assert way.visit(-1, 0).due(FILES) == 0
    assert list(way.after(Order.LISTED, -1)) == []


def test_a_cautious_window_does_not_grow() -> None:
    way = track()
    asked = [count for number in NUMBERS if (count := way.visit(number, 0).due(FILES, cautious=True))]
    assert set(asked) == {FILES.first}


@given(
    visits=st.lists(st.tuples(st.integers(0, 59), st.floats(0, 20)), max_size=80),
    ramp=st.builds(Ramp, st.integers(1, 8), st.integers(8, 64)),
)
def test_whatever_is_opened_the_rules_hold(visits: list[tuple[int, float]], ramp: Ramp) -> None:
    """Nothing is earned by one file alone, windows keep their bounds, and what is ahead was asked for."""
    way = Track(range(60), [f"{at:02}" for at in range(60)])
    now, distinct = 0.0, set[int]()
    for number, pause in visits:
        now += pause
        distinct.add(number)
        cursor = way.visit(number, now)
        count = cursor.due(ramp)
        assert count == 0 or (len(distinct) > 1 and cursor.run > 1 and ramp.first <= count <= ramp.largest)
        assert 0 <= cursor.ahead <= ramp.largest
        assert cursor.due(ramp) == 0  # asked for once


def test_the_cap_of_bytes_holds_until_something_is_used() -> None:
    ledger = Ledger(cap=1000)
    ledger.begin("a", 600, 0)
    assert ledger.has_room
    ledger.begin("b", 600, 0)
    assert not ledger.has_room
    ledger.use("a")
    assert ledger.has_room
    assert ledger.bytes == 600


def test_a_size_nobody_knew_counts_as_a_guess_until_it_is_here() -> None:
    ledger = Ledger()
    ledger.begin("a", None, 0)
    assert ledger.bytes == GUESS_BYTES
    ledger.land("a", 10)
    assert ledger.bytes == 10


def test_what_was_here_already_or_did_not_come_is_not_ahead() -> None:
    ledger = Ledger()
    ledger.begin("a", 5, 0)
    ledger.land("a", 0)
    assert (len(ledger), ledger.bytes) == (0, 0)


def test_what_lands_after_it_was_used_is_not_ahead() -> None:
    ledger = Ledger()
    ledger.begin("a", 5, 0)
    ledger.use("a")
    ledger.land("a", 5)
    assert (len(ledger), ledger.bytes) == (0, 0)


def test_waste_makes_cautious_and_use_ends_it() -> None:
    ledger = Ledger()
    wasted = WASTE_FREE_BYTES // LEAST_BYTES + 1
    for number in range(wasted):
        ledger.begin(number, 1, 0)
    ledger.expire(PAUSE_S / 2)
    assert len(ledger) == wasted
    assert not ledger.is_cautious
    ledger.expire(PAUSE_S + 1)
    assert (len(ledger), ledger.bytes) == (0, 0)
    assert ledger.is_cautious
    for number in range(wasted):
        ledger.begin(number, 1, 0)
        ledger.use(number)
    assert not ledger.is_cautious


@given(
    st.lists(
        st.tuples(st.sampled_from(["begin", "land", "use", "expire"]), st.integers(0, 5), st.integers(0, AHEAD_BYTES)),
        max_size=60,
    )
)
def test_the_books_balance(steps: list[tuple[str, int, int]]) -> None:
    ledger = Ledger()
    for now, (step, key, size) in enumerate(steps):
        match step:
            case "begin":
                ledger.begin(key, size, now)
            case "land":
                ledger.land(key, size)
            case "use":
                ledger.use(key)
            case _:
                ledger.expire(now)
        assert ledger.bytes >= 0
        assert len(ledger) or ledger.bytes == 0
