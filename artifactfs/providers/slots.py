"""Leave to use a connection: so many at once, the foreground first, and for no kind of question all of them.

Rules of this file: it decides, what it grants is the caller's to give back. The fast way has no checkpoint.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import trio

from artifactfs.providers.limits import Lane, in_line

# One in so many slots is for other kinds than the one that has all the others: four of 32.
KEPT_SHARE = 8


class Slots:
    """A semaphore with lanes, the last ``reserve`` slots of which only the foreground gets.

    No kind of question gets all: what a service hangs in, its content perhaps, takes no connection from what it still
    answers, its lists perhaps.
    """

    def __init__(self, limit: int, reserve: int = 0) -> None:
        """Grant ``limit`` at once."""
        self.limit = limit
        self._usable = {lane: limit if lane is Lane.FOREGROUND else max(1, limit - reserve) for lane in Lane}
        self._most = limit - limit // KEPT_SHARE
        self._waiting: dict[Lane, dict[str, trio.lowlevel.ParkingLot]] = {lane: {} for lane in Lane}
        self._held: Counter[str] = Counter()
        self.busy = 0

    def __repr__(self) -> str:
        """Tell how many are in use and waited for."""
        waiting = ", ".join(f"{sum(map(len, lots.values()))} {lane.name.lower()}" for lane, lots in self._lots())
        return f"<Slots {self.busy} of {self.limit} in use, waiting: {waiting}>"

    def _lots(self) -> list[tuple[Lane, dict[str, trio.lowlevel.ParkingLot]]]:
        return list(self._waiting.items())

    def gauges(self) -> Mapping[str, float]:
        """Return how many there are, are in use, and are waited for."""
        waiting = sum(len(lot) for lots in self._waiting.values() for lot in lots.values())
        return {"pool_slots": self.limit, "pool_slots_busy": self.busy, "pool_waiting": waiting}

    def _has_room(self, lane: Lane, kind: str) -> bool:
        return self.busy < self._usable[lane] and self._held[kind] < self._most

    async def take(self, lane: Lane, kind: str = "") -> None:
        """Wait for a slot for a question of some kind."""
        lot = self._waiting[lane].get(kind)
        if not lot and self._has_room(lane, kind):
            self._grant(kind)
            return
        with in_line():
            await self._waiting[lane].setdefault(kind, trio.lowlevel.ParkingLot()).park()  # give() counts it for us

    def _grant(self, kind: str) -> None:
        self.busy += 1
        self._held[kind] += 1

    def give(self, kind: str = "") -> None:
        """Give a slot back: to the foreground, then to the lanes behind it; there to each kind in turn."""
        self.busy -= 1
        self._held[kind] -= 1
        if not self._held[kind]:
            del self._held[kind]
        for lane, lots in self._lots():
            for waits, lot in list(lots.items()):
                if lot and not self._has_room(lane, waits):
                    continue
                del lots[waits]
                if lot:
                    lots[waits] = lot  # behind the others
                    self._grant(waits)
                    lot.unpark()
                    return
