"""The hand-made trio primitives of the project.

Rules of this file: an owner task never raises into the nursery it runs in (a bug in one request must not unmount);
it stores an outcome which the waiters unwrap. A waiter may be cancelled, the owner is not.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, TypeVar

import outcome
import trio

from artifactfs import errors

log = logging.getLogger(__name__)

T = TypeVar("T")


class Flight:
    """One running piece of work that any number of tasks wait for."""

    __slots__ = ("_done", "result")

    def __init__(self) -> None:
        """Start without a result."""
        self._done = trio.Event()
        self.result: outcome.Outcome[Any] | None = None

    def land(self, result: outcome.Outcome[Any]) -> None:
        """Store the outcome and wake the waiters."""
        self.result = result
        self._done.set()

    async def wait(self) -> Any:  # noqa: ANN401 - what the work of the flight returns
        """Wait for the outcome; return its value or raise its error (a fresh traceback for each waiter)."""
        await self._done.wait()
        result = self.result
        if isinstance(result, outcome.Error):
            # The same exception object reaches every waiter; its traceback must not grow with each of them.
            raise result.error.with_traceback(None)
        if not isinstance(result, outcome.Value):  # pragma: no cover - the event is set only by land()
            message = "a flight landed without an outcome"
            raise TypeError(message)
        return result.value


# Entries that are gone through at once on the event loop: 1 to 4 ms.
SLICE = 2000


async def in_slices(items: Sequence[T], work: Callable[[Sequence[T]], object]) -> None:
    """Do what takes long for many items part by part; before each part but the first, others have a turn."""
    for begin in range(0, len(items), SLICE):
        if begin:
            await trio.lowlevel.checkpoint()
        work(items[begin : begin + SLICE])


class SingleFlight:
    """Runs at most one piece of work per key at a time, in a nursery that outlives its callers."""

    def __init__(self, nursery: trio.Nursery) -> None:
        """Own the work in ``nursery``."""
        self._nursery = nursery
        self._flights: dict[Hashable, Flight] = {}

    def __repr__(self) -> str:
        """Tell how many flights are in the air."""
        return f"<SingleFlight {len(self._flights)} in flight>"

    async def run(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """Join the flight of ``key``, or start one with ``work``; return its value."""
        return await self.start(key, work).wait()  # type: ignore[no-any-return]  # a key is only used with one T

    def start(self, key: Hashable, work: Callable[[], Awaitable[Any]]) -> Flight:
        """Return the flight of ``key``, started with ``work`` if there is none; nobody need wait for it."""
        flight = self._flights.get(key)
        if flight is None:
            flight = Flight()
            self._nursery.start_soon(self._fly, key, flight, work)
            self._flights[key] = flight
        return flight

    async def to_the_end(self, work: Callable[[], Awaitable[T]], undo: Callable[[T], Awaitable[object]]) -> T:
        """Do work that must not stop half-way; return its value, which ``undo`` takes back if nobody waits any more."""
        flight = self.start(object(), work)
        try:
            return await flight.wait()  # type: ignore[no-any-return]  # it is that of the work
        except trio.Cancelled:
            self._nursery.start_soon(self._left_alone, flight, undo)
            raise

    @staticmethod
    async def _left_alone(flight: Flight, undo: Callable[[Any], Awaitable[object]]) -> None:
        """See to the end of work for which nobody waits."""
        try:
            await undo(await flight.wait())
        except (errors.ArtifactFSError, OSError) as error:
            log.info("what nobody waited for any more failed: %s", error)
        except Exception:
            log.exception("what nobody waited for any more failed in an unforeseen way")

    async def _fly(self, key: Hashable, flight: Flight, work: Callable[[], Awaitable[Any]]) -> None:
        # What the waiters get if neither of the next two lines is reached: only the end of the mount cancels a flight.
        result: outcome.Outcome[Any] = outcome.Error(errors.Unavailable("the mount is ending"))
        try:
            result = outcome.Value(await work())
        except Exception as error:  # noqa: BLE001 - the waiters get it, the nursery must not
            result = outcome.Error(error)
        except BaseExceptionGroup as group:
            # The mount is ending, and something failed on top of it: the nursery gets the one, the waiters the other.
            failed, ending = group.split(Exception)
            if failed is not None:
                result = outcome.Error(failed)
            if ending is not None:
                raise ending from None
        finally:
            self._flights.pop(key, None)
            flight.land(result)
