"""Leave to use a connection: so many at once, the foreground first.

Rules of this file: it decides, what it grants is the caller's to give back. The fast way has no checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping

import trio

from artifactfs.providers.limits import Lane, in_line


class Slots:
    """A semaphore with lanes, the last ``reserve`` slots of which only the foreground gets."""

    def __init__(self, limit: int, reserve: int = 0) -> None:
        """Grant ``limit`` at once."""
        self.limit = limit
        self._usable = {lane: limit if lane is Lane.FOREGROUND else max(1, limit - reserve) for lane in Lane}
        self._waiting = {lane: trio.lowlevel.ParkingLot() for lane in Lane}
        self.busy = 0

    def __repr__(self) -> str:
        """Tell how many are in use and waited for."""
        waiting = ", ".join(f"{len(lot)} {lane.name.lower()}" for lane, lot in self._waiting.items())
        return f"<Slots {self.busy} of {self.limit} in use, waiting: {waiting}>"

    def gauges(self) -> Mapping[str, float]:
        """Return how many there are, are in use, and are waited for."""
        waiting = sum(map(len, self._waiting.values()))
        return {"pool_slots": self.limit, "pool_slots_busy": self.busy, "pool_waiting": waiting}

    async def take(self, lane: Lane) -> None:
        """Wait for a slot."""
        if self.busy < self._usable[lane] and not self._waiting[lane]:
            self.busy += 1
            return
        with in_line():
            await self._waiting[lane].park()  # give() has counted it for us

    def give(self) -> None:
        """Give a slot back: to the foreground, then to the lanes behind it, in the order they came."""
        self.busy -= 1
        for lane, lot in self._waiting.items():
            if lot and self.busy < self._usable[lane]:
                self.busy += 1
                lot.unpark()
                return
