"""The line that no exception crosses.

Rules of this file: pyfuse3 answers a request only on success or on ``FUSEError``; anything else leaves the caller
hanging and ends the mount. So every handler is wrapped: every exception becomes an errno, and every operation has a
deadline, a short one behind who has waited in vain (``followers.py``). Cancellation alone passes (the mount is ending).
Each is timed and counted, and has an id in the log; both together cost a warm read 1 us (measured).
"""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import pyfuse3
import trio

from artifactfs import errors, observe
from artifactfs.fuse.errno_map import errno_of
from artifactfs.fuse.followers import LONG_S, Followers
from artifactfs.observe import clock
from artifactfs.observe.operations import Describing, Operation

log = logging.getLogger(__name__)
begin = observe.operation.set

P = ParamSpec("P")
R = TypeVar("R")


Call = tuple[str, tuple[Any, ...]]
"""The name of an operation, and its arguments."""


class HasDeadline(Protocol):
    """What the wrapper needs of the object whose method it wraps.

    ``timeout_s`` is how long an operation may take; ``running`` has the scopes of those that have not been answered,
    with what they are. ``timings`` counts them, and ``subjects`` tells what each is about. ``followers`` knows who is
    behind whom.
    """

    timeout_s: float
    running: dict[trio.CancelScope, Call | None]
    timings: observe.Timings
    followers: Followers

    @property
    def subjects(self) -> Describing | None:
        """Tell what an operation is about."""

    def failed(self, operation: str, subject: object, error: errors.ArtifactFSError) -> None:
        """Keep a failure where ``why`` finds it."""


S = TypeVar("S", bound=HasDeadline)
Handler = Callable[Concatenate[S, P], Coroutine[Any, Any, R]]


LATER: Any = object()
"""What ``at_once`` answers where waiting may be needed."""


def handler(method: Handler[S, P, R]) -> Handler[S, P, R]:
    """Wrap a handler: deadline, errno, log context, timing."""
    name = getattr(method, "__name__", "operation")
    carries_bytes = name == "write"

    @functools.wraps(method)
    async def guarded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        began = clock()
        begin(Operation(name, self.subjects, args[:1] if carries_bytes else args))
        call: Call | None = (name, args)
        behind = self.followers.behind(name, args) if self.followers else None
        try:
            with trio.move_on_after(self.timeout_s if behind is None else behind[0]) as scope:
                self.running[scope] = call
                try:
                    return await method(self, *args, **kwargs)
                finally:
                    call = self.running.pop(scope)
        except pyfuse3.FUSEError as error:
            self.timings.failed(name, _name_of(error.errno))
            raise
        except Exception as error:  # noqa: BLE001 - the line that nothing crosses
            has_waited = behind or trio.current_time() > scope.deadline - self.timeout_s + LONG_S
            if has_waited and isinstance(error, errors.ArtifactFSError):
                self.followers.waited(name, args, error, behind=behind is not None)
            raise _answer(self, name, args, error) from None
        finally:
            self.timings.operations[name].add(clock() - began)
            if log.isEnabledFor(logging.DEBUG):
                _tell(began)
        if call is None:
            self.timings.failed(name, _name_of(errno.EINTR))
            log.debug("%s %r: who asked has been told to end", name, args[0] if args else None)
            raise pyfuse3.FUSEError(errno.EINTR)
        if trio.current_time() < scope.deadline:
            raise _answer(self, name, args, errors.TimedOut("given up, because the mount is to end"))
        failure = errors.TimedOut(f"no answer within {self.timeout_s:.0f} s") if behind is None else behind[1]
        self.followers.waited(name, args, failure, behind=behind is not None)
        raise _answer(self, name, args, failure)

    return guarded


def at_once(
    quick: Callable[Concatenate[S, P], R],
) -> Callable[
    [Callable[Concatenate[S, P], Coroutine[Any, Any, R]]], Callable[Concatenate[S, P], Coroutine[Any, Any, R]]
]:
    """Wrap a handler that can often be answered without waiting: then ``quick`` does it, and needs no deadline.

    ``quick`` returns ``LATER`` where it cannot. A deadline costs 6 us (measured), a warm open 20 in all.
    """

    def wrap(method: Handler[S, P, R]) -> Handler[S, P, R]:
        guarded = handler(method)
        name = method.__name__

        @functools.wraps(method)
        async def answered(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
            began = clock()
            begin(Operation(name, self.subjects, args))
            try:
                answer = quick(self, *args, **kwargs)
            except Exception as error:  # noqa: BLE001 - the line that nothing crosses
                self.timings.operations[name].add(clock() - began)
                raise _answer(self, name, args, error) from None
            if answer is LATER:
                return await guarded(self, *args, **kwargs)
            self.timings.operations[name].add(clock() - began)
            if log.isEnabledFor(logging.DEBUG):
                _tell(began)
            return answer

        return answered

    return wrap


def interrupt(running: Collection[trio.CancelScope], timeout_s: float, older_than_s: float) -> int:
    """Have operations answered now that have been waiting for so long; return how many.

    A program in such an operation cannot be killed, and keeps the mount busy.
    """
    latest = trio.current_time() + timeout_s - older_than_s
    waiting = [scope for scope in running if scope.deadline <= latest]
    for scope in waiting:
        scope.cancel()
    return len(waiting)


def _answer(self: HasDeadline, name: str, args: tuple[Any, ...], error: Exception) -> pyfuse3.FUSEError:
    number = errno_of(error)
    self.timings.failed(name, _name_of(number))
    subject = args[0] if args else None
    if isinstance(error, errors.ArtifactFSError):
        log.debug("%s %r: %s -> %s", name, subject, error, _name_of(number))
        self.failed(name, subject, error)
    elif isinstance(error, OSError) and number != errno.EIO:
        log.info("%s %r: %s", name, subject, error)
    elif isinstance(error, OSError) and error.errno == errno.EIO:
        log.warning("%s %r: this machine's disk says: %s", name, subject, error)
    else:
        log.error("%s %r failed in an unforeseen way", name, subject, exc_info=error)
    return pyfuse3.FUSEError(number)


def _tell(began: float) -> None:
    log.debug("ended after %.1f ms", (clock() - began) * 1000)


def _name_of(number: int) -> str:
    return errno.errorcode.get(number, str(number))
