"""The request budget, by the virtual clock."""

from __future__ import annotations

import math
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from artifactfs import errors
from artifactfs.providers.limits import Budget, Lane, Line, line
from artifactfs.providers.slots import Slots


async def test_without_a_limit_nobody_waits(autojump_clock: MockClock) -> None:
    """And there is always something left."""
    budget = Budget()
    for _ in range(1000):
        await budget.take()
    assert budget.left() == math.inf
    assert trio.current_time() == 0


async def test_a_burst_and_then_the_rate(autojump_clock: MockClock) -> None:
    """Ten at once, then one every two seconds; what is not used fills up again, to the burst and no further."""
    budget = Budget(0.5, 10)
    times = []
    for _ in range(13):
        await budget.take()
        times.append(trio.current_time())
    assert times == [pytest.approx(0)] * 10 + [pytest.approx(at) for at in (2, 4, 6)]
    await trio.sleep(1000)
    assert budget.left() == pytest.approx(10)
    begin = trio.current_time()
    for _ in range(10):
        await budget.take()
    assert trio.current_time() == begin
    assert "0 waiting" in repr(budget)


async def test_the_foreground_goes_first(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """In each lane in the order of coming."""
    budget, order = Budget(1, 1), []

    async def take(name: str, lane: Lane) -> None:
        await budget.take(lane)
        order.append(name)

    await budget.take()
    async with trio.open_nursery() as takers:
        for name, lane in (
            ("b1", Lane.BACKGROUND),
            ("b2", Lane.BACKGROUND),
            ("p1", Lane.PUBLISHING),
            ("f1", Lane.FOREGROUND),
            ("f2", Lane.FOREGROUND),
        ):
            takers.start_soon(take, name, lane)
            await wait_all_tasks_blocked()
    assert order == ["f1", "f2", "p1", "b1", "b2"]


async def test_connections_go_to_the_foreground_then_to_what_is_published(nursery: trio.Nursery) -> None:
    """And the last of them only to the foreground."""
    slots, order = Slots(2, 1), []

    async def take(lane: Lane) -> None:
        await slots.take(lane)
        order.append(lane)

    await take(Lane.FOREGROUND)
    for lane in (Lane.BACKGROUND, Lane.PUBLISHING):
        nursery.start_soon(take, lane)
        await wait_all_tasks_blocked()
    slots.give()
    await wait_all_tasks_blocked()
    assert order == [Lane.FOREGROUND, Lane.PUBLISHING]
    slots.give()
    await wait_all_tasks_blocked()
    assert order[2:] == [Lane.BACKGROUND]


async def test_a_wait_that_would_be_too_long_is_refused_at_once(autojump_clock: MockClock) -> None:
    """Nothing is sent, nothing is taken, and it says how long."""
    budget = Budget(1 / 60, 1)
    await budget.take()
    with pytest.raises(errors.QuotaExceeded, match="60 s"):
        await budget.take(max_wait_s=30)
    assert trio.current_time() == 0
    await budget.take(max_wait_s=61)
    assert trio.current_time() == pytest.approx(60)


async def test_those_in_the_queue_count(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """The third in a row at one a second waits three; who may only wait two is told at once."""
    budget = Budget(1, 1)
    await budget.take()
    nursery.start_soon(budget.take)
    nursery.start_soon(budget.take)
    await wait_all_tasks_blocked()
    with pytest.raises(errors.QuotaExceeded):
        await budget.take(max_wait_s=2.5)
    await budget.take(max_wait_s=3.5)
    assert trio.current_time() == pytest.approx(3)


async def test_what_was_estimated_is_kept_even_if_others_push_ahead(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A background request behind a stream of foreground ones is refused when its time is up, not never."""
    budget = Budget(1, 1)
    await budget.take()

    async def foreground() -> None:
        while True:
            nursery.start_soon(budget.take, Lane.FOREGROUND)
            await trio.sleep(0.5)

    nursery.start_soon(foreground)
    await wait_all_tasks_blocked()
    with pytest.raises(errors.QuotaExceeded):
        await budget.take(Lane.BACKGROUND, max_wait_s=10)
    assert trio.current_time() == pytest.approx(10)
    nursery.cancel_scope.cancel()


async def test_who_leaves_the_queue_holds_nobody_up(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Its place goes to the next."""
    budget = Budget(1, 1)
    await budget.take()
    with trio.move_on_after(0.25):
        await budget.take()
    await budget.take()
    assert trio.current_time() == pytest.approx(1)


async def test_who_waits_in_line_is_seen_there(nursery: trio.Nursery) -> None:
    """For a request of the budget and for a connection, by tasks of its own too; not before, nor after."""
    budget, slots, mine = Budget(0.001, 1), Slots(1), Line()
    for take in (budget.take, partial(slots.take, Lane.FOREGROUND)):
        token = line.set(mine)
        await take()
        assert not mine.waits
        with trio.CancelScope() as scope:
            nursery.start_soon(_cancel_when_all_wait, scope, mine)
            await take()
        assert scope.cancelled_caught
        assert not mine.waits
        line.reset(token)


async def _cancel_when_all_wait(scope: trio.CancelScope, mine: Line) -> None:
    await wait_all_tasks_blocked()
    assert mine.waits
    scope.cancel()
