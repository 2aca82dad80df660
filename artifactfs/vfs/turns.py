"""Changes of a source one after another.

Rules of this file: a change runs in a task of the mount, so the kernel's deadline ends a wait for it and never the
change. Between the call and the first await it counts as under way: a look-up that the kernel sends after a release
finds it so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from artifactfs.concurrency import SingleFlight

T = TypeVar("T")

# How long whoever looks at a source waits for its changes. A save takes milliseconds; one of gigabytes must not stop
# the rest of the mount, which shows it as an edit until it is done.
SETTLE_S = 5.0


class Turns:
    """The order of the changes of one mount."""

    def __init__(self, flights: SingleFlight) -> None:
        """Run changes among ``flights``."""
        self._flights = flights
        self._under_way = 0
        self._idle = trio.Event()
        self._order = trio.Lock()

    def __repr__(self) -> str:
        """Tell how many are under way."""
        return f"<Turns {self._under_way} under way>"

    @property
    def busy(self) -> bool:
        """Tell whether a change is under way."""
        return self._under_way > 0

    async def settled(self) -> None:
        """Wait until no change is under way, but not for a long one."""
        if self._under_way:
            with trio.move_on_after(SETTLE_S):
                await self._idle.wait()

    async def all_done(self) -> None:
        """Wait until no change is under way."""
        if self._under_way:
            await self._idle.wait()

    async def take(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run a change after those that were begun before; return what it returns."""
        if not self._under_way:
            self._idle = trio.Event()
        self._under_way += 1

        async def ordered() -> T:
            try:
                async with self._order:
                    return await work()
            finally:
                self._under_way -= 1
                if not self._under_way:
                    self._idle.set()

        return await self._flights.run(object(), ordered)
