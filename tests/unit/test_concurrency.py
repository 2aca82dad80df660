"""Single flights: one piece of work for many waiters, that belongs to none of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import outcome
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from artifactfs import errors
from artifactfs.concurrency import SingleFlight


class Work:
    """Something that takes a second; counts how often it was begun and ended."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun = self.ended = 0
        self.error = error

    async def __call__(self) -> int:
        self.begun += 1
        await trio.sleep(1)
        self.ended += 1
        if self.error:
            raise self.error
        return self.ended


async def test_many_waiters_one_flight(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """All get its value; another key flies by itself; a later call flies again."""
    flights, work, other = SingleFlight(nursery), Work(), Work()
    results: list[int] = []

    async def wait(key: str, what: Work) -> None:
        results.append(await flights.run(key, what))

    async with trio.open_nursery() as waiters:
        for _ in range(50):
            waiters.start_soon(wait, "a", work)
        waiters.start_soon(wait, "b", other)
        await wait_all_tasks_blocked()
        assert "2 in flight" in repr(flights)
    assert (work.begun, other.begun, results) == (1, 1, [1] * 51)
    assert await flights.run("a", work) == 2
    assert "0 in flight" in repr(flights)


async def test_an_error_reaches_everyone_and_is_not_kept(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """The same error for all who wait; whoever comes later has a try of their own; the nursery goes on."""
    flights, work = SingleFlight(nursery), Work(errors.Unavailable("down"))
    results: list[outcome.Outcome[int]] = []

    async def wait() -> None:
        results.append(await outcome.acapture(flights.run, "a", work))

    async with trio.open_nursery() as waiters:
        for _ in range(3):
            waiters.start_soon(wait)
    assert [type(result.error) for result in results if isinstance(result, outcome.Error)] == [errors.Unavailable] * 3
    assert work.begun == 1
    with pytest.raises(errors.Unavailable):
        await flights.run("a", work)
    assert work.begun == 2


async def test_a_waiter_that_leaves_ends_nothing(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Not even if it began the flight, or is the only one: what was asked for comes, for the next."""
    flights, work = SingleFlight(nursery), Work()
    with trio.move_on_after(0.5) as scope:
        await flights.run("a", work)
    assert scope.cancelled_caught
    assert await flights.run("a", work) == 1
    assert (work.begun, work.ended) == (1, 1)


async def at_the_end_of_the_mount(work: Callable[[], Awaitable[int]]) -> BaseException:
    """Return what a waiter gets that is outside of what ends."""
    results: list[outcome.Outcome[int]] = []

    async def wait(flights: SingleFlight) -> None:
        results.append(await outcome.acapture(flights.run, "a", work))

    async with trio.open_nursery() as waiters, trio.open_nursery() as owner:
        waiters.start_soon(wait, SingleFlight(owner))
        await wait_all_tasks_blocked(0.01)
        owner.cancel_scope.cancel()
    (result,) = results
    assert isinstance(result, outcome.Error)
    return result.error


async def test_the_end_of_the_mount_is_an_error_of_ours(autojump_clock: MockClock) -> None:
    """Waiters get one they can show, and do not wait for ever."""
    error = await at_the_end_of_the_mount(Work())
    assert isinstance(error, errors.Unavailable)
    assert "ending" in str(error)


async def test_a_failure_on_top_of_the_end_lands_too(autojump_clock: MockClock) -> None:
    """Clean-up that fails while the mount ends is the waiters' to hear of, and does not end the mount in disorder."""

    async def fails_at_the_end() -> int:
        async with trio.open_nursery() as inner:
            inner.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError
        return 0

    error = await at_the_end_of_the_mount(fails_at_the_end)
    assert isinstance(error, ExceptionGroup)
    assert isinstance(error.exceptions[0], ValueError)


async def test_after_the_end_nothing_begins() -> None:
    """And nobody is left waiting for what did not."""
    async with trio.open_nursery() as owner:
        flights = SingleFlight(owner)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await flights.run("b", Work())
