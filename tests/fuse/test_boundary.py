"""The line that no exception crosses: whatever a handler does, pyfuse3 sees a value or a FUSEError, in time."""

from __future__ import annotations

import errno
import logging
from typing import Any

import outcome
import pyfuse3
import pytest
import trio
from trio.testing import MockClock

from artifactfs import errors, observe
from artifactfs.fuse.boundary import LATER, at_once, handler, interrupt
from artifactfs.fuse.followers import Followers
from tests.support.log_guard import LogGuard


class Handlers:
    """An object with handlers that do what a test says."""

    def __init__(self, timeout_s: float = 30.0) -> None:
        self.timeout_s = timeout_s
        self.running: dict[trio.CancelScope, Any] = {}
        self.timings = observe.Timings()
        self.subjects = None
        self.followers = Followers(lambda handle: handle)
        self.kept: list[tuple[str, object, errors.ArtifactFSError]] = []

    def failed(self, operation: str, subject: object, error: errors.ArtifactFSError) -> None:
        self.kept.append((operation, subject, error))

    @handler
    async def lookup(self, inode: int, does: Any) -> Any:
        """Do it."""
        return await does()

    def _quick(self, inode: int, does: Any) -> Any:
        if inode < 0:
            raise errors.StaleContent
        return LATER if inode else "quick"

    @at_once(_quick)
    async def getattr(self, inode: int, does: Any) -> Any:
        """Do it, if it cannot be done at once."""
        return await does()


async def number_of(handlers: Handlers, does: Any) -> int:
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await handlers.lookup(7, does)
    assert not handlers.running
    number: int = caught.value.errno
    return number


def raising(error: BaseException) -> Any:
    async def does() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    return does


async def test_values_and_errnos_pass_through() -> None:
    """What a handler returns, and a FUSEError that it raises itself, are the answer."""
    handlers = Handlers()

    async def value() -> str:
        await trio.lowlevel.checkpoint()
        return f"{observe.operation.get()} done"

    assert await handlers.lookup(7, value) == "lookup done"
    assert await number_of(handlers, raising(pyfuse3.FUSEError(errno.ENODATA))) == errno.ENODATA
    assert handlers.kept == []
    assert not handlers.running


async def test_our_errors_become_their_errno_and_are_kept(expected_logs: LogGuard) -> None:
    """With operation and subject, for `why`; and are nothing to warn of."""
    handlers = Handlers()
    error = errors.AccessDenied("no", status=403)
    assert await number_of(handlers, raising(error)) == errno.EACCES
    assert handlers.kept == [("lookup", 7, error)]
    group = ExceptionGroup("from a nursery", [errors.Unreachable("gone")])
    expected_logs("unforeseen", level=logging.ERROR)
    assert await number_of(handlers, raising(group)) == errno.EHOSTUNREACH


@pytest.mark.parametrize("error", [ValueError("bug"), KeyError("x"), ExceptionGroup("g", [TypeError("y")])], ids=repr)
async def test_what_nobody_foresaw_is_eio_and_an_error_in_the_log(error: Exception, expected_logs: LogGuard) -> None:
    """The mount goes on; a person can find out."""
    seen = expected_logs("lookup 7 failed in an unforeseen way", level=logging.ERROR)
    assert await number_of(Handlers(), raising(error)) == errno.EIO
    assert [record.levelno for record in seen.seen] == [logging.ERROR]
    assert seen.seen[0].exc_info


async def test_a_full_disk_is_said_to_be_one() -> None:
    """Without an error in the log: nothing is wrong with us."""
    assert await number_of(Handlers(), raising(OSError(errno.ENOSPC, "full"))) == errno.ENOSPC


async def test_the_deadline_is_an_answer(autojump_clock: MockClock) -> None:
    """Also if the handler waits in nurseries and shields nothing: ETIMEDOUT, on time, and kept."""
    handlers = Handlers(timeout_s=30)

    async def waits() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(trio.sleep, 1000)

    begin = trio.current_time()
    assert await number_of(handlers, waits) == errno.ETIMEDOUT
    assert trio.current_time() - begin == pytest.approx(30)
    assert isinstance(handlers.kept[0][2], errors.TimedOut)
    assert "30 s" in str(handlers.kept[0][2])


async def test_an_error_while_the_deadline_passes_is_not_lost(
    autojump_clock: MockClock, expected_logs: LogGuard
) -> None:
    """Clean-up that fails when it is cancelled comes in a group with the cancellation."""
    expected_logs("unforeseen", level=logging.ERROR)

    async def fails_at_the_end() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise errors.Unavailable("too late")

    assert await number_of(Handlers(timeout_s=1), fails_at_the_end) == errno.EIO


async def test_a_value_at_the_last_moment_counts(autojump_clock: MockClock) -> None:
    """Nothing that was done is thrown away."""

    async def just_in_time() -> int:
        await trio.sleep(30)
        return 5

    assert await Handlers(timeout_s=30.001).lookup(7, just_in_time) == 5


async def test_cancellation_from_outside_passes() -> None:
    """The mount is ending: that is not the handler's error, and no answer is owed."""
    handlers = Handlers()
    result: outcome.Outcome[Any] | None = None

    async def call() -> None:
        nonlocal result
        result = await outcome.acapture(handlers.lookup, 7, trio.sleep_forever)

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await trio.testing.wait_all_tasks_blocked()
            assert len(handlers.running) == 1
            scope.cancel()
    assert isinstance(result, outcome.Error)
    assert isinstance(result.error, trio.Cancelled)
    assert not handlers.running
    assert handlers.kept == []


async def test_those_who_have_waited_long_can_be_answered_early(autojump_clock: MockClock) -> None:
    """For umount: those who wait for a service are given up, those who have just come are not."""
    handlers = Handlers(timeout_s=30)
    answers: list[tuple[str, float]] = []

    async def call(name: str) -> None:
        with pytest.raises(pyfuse3.FUSEError) as caught:
            await handlers.lookup(7, trio.sleep_forever)
        assert caught.value.errno == errno.ETIMEDOUT
        answers.append((name, trio.current_time() - begin))

    begin = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, "old")
        await trio.sleep(5)
        nursery.start_soon(call, "new")
        await trio.sleep(0.5)
        assert interrupt(handlers.running, handlers.timeout_s, older_than_s=1.0) == 1
    assert [name for name, _ in answers] == ["old", "new"]
    assert [after_s for _, after_s in answers] == [pytest.approx(5.5), pytest.approx(35)]
    assert "mount is to end" in str(handlers.kept[0][2])
    assert "no answer within 30 s" in str(handlers.kept[1][2])


async def test_what_needs_no_waiting_is_answered_at_once() -> None:
    """The rest goes the guarded way; a failure becomes an errno either way."""
    handlers = Handlers()
    assert await handlers.getattr(0, None) == "quick"
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await handlers.getattr(-1, None)
    assert caught.value.errno == errno.ESTALE
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await handlers.getattr(1, raising(errors.NotFound()))
    assert caught.value.errno == errno.ENOENT
    assert [operation for operation, _, _ in handlers.kept] == ["getattr", "getattr"]


async def test_every_answer_is_counted_once_by_what_it_was(autojump_clock: MockClock) -> None:
    """Values, errors, the deadline, and the callers that were told to end; each has its time."""
    handlers = Handlers(timeout_s=30)

    async def told_to_end() -> None:
        (scope,) = handlers.running
        handlers.running[scope] = None
        scope.cancel()
        await trio.sleep_forever()

    assert await handlers.getattr(0, None) == "quick"
    assert await number_of(handlers, trio.sleep_forever) == errno.ETIMEDOUT
    assert await number_of(handlers, told_to_end) == errno.EINTR
    assert await number_of(handlers, raising(pyfuse3.FUSEError(errno.ENODATA))) == errno.ENODATA
    assert await number_of(handlers, raising(errors.NotFound("x"))) == errno.ENOENT
    assert handlers.timings.errors == {
        ("lookup", name): 1 for name in ("ETIMEDOUT", "EINTR", "ENODATA", "ENOENT")
    }  # fmt: skip
    counted = {name: sum(histogram.counts) for name, histogram in handlers.timings.operations.items()}
    assert counted == {"getattr": 1, "lookup": 4}
