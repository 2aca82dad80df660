"""What to fetch ahead of a program that goes from file to file. Pure: visits come in, how far to go comes out.

Rules of this file: ahead is earned by visits in order, two at least, and lost by a pause or a visit elsewhere. Programs
go through a directory as it was listed (``grep -r``, ``tar``), by name (a shell's ``*``, ``rsync``) or by inode number
(``cp -r``); several may do so at once, and those with threads come slightly out of order. Members are told by number.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

# Visits in a row from which on something is fetched ahead.
EARNED = 2
# Two visits so far apart in an order are still in a row: what was skipped is nothing to the program, or comes later.
NEAR = 4
# A program that did not come for so long has stopped, or needs no help; a slow service's answer takes less.
PAUSE_S = 10.0
# Programs told apart in one directory.
CURSORS = 4
# A directory of more members is only followed as it was listed: sorting 10,000 takes about 10 ms.
SORTED_MAX = 10_000
# Fetched ahead and not opened yet, at most, in bytes: what a fast program reads in the time of ten round trips.
AHEAD_BYTES = 32 << 20
# What counts for a content of unknown size until it is here: most artifacts are smaller.
GUESS_BYTES = 64 << 10
# A small file wasted is a request wasted; it counts for so many bytes.
LEAST_BYTES = 32 << 10
# So much may be wasted before it counts at all, and so much is remembered.
WASTE_FREE_BYTES, WASTE_KEPT_BYTES = 4 << 20, 64 << 20


class Order(enum.Enum):
    """An order in which programs go through a directory; the likeliest first."""

    LISTED = "listed"
    NAME = "name"
    NUMBER = "number"


ALL = tuple(Order)


@dataclass(frozen=True, slots=True)
class Ramp:
    """How many to fetch ahead: at first, and at most; doubling."""

    first: int
    largest: int


# Measured on a prototype at 20 ms: 6 growing to 400 reads 2,000 files in 1.9 s, at the limit of 32 connections.
FILES = Ramp(6, 400)
# A size of a small file costs the file: it is earned as slowly, and fewer are of use before somebody looks.
SIZES = Ramp(6, 128)
# A listing is a request or more; 32 ahead are one round trip for 50 directories' second half.
DIRECTORIES = Ramp(4, 32)


@dataclass(slots=True)
class Cursor:
    """One program's way through a directory.

    Attributes:
        at: the member furthest on; None is before the first.
        orders: those that every visit fits, the likeliest first.
        window: how many to fetch ahead the next time.
        run: visits in a row.
        ahead: how many are fetched ahead, or will be, of those to come.
        seen_at: when it was here last, in seconds.
    """

    at: int | None
    orders: tuple[Order, ...]
    window: int
    seen_at: float
    run: int = 1
    ahead: int = 0

    def due(self, ramp: Ramp, *, cautious: bool = False) -> int:
        """Return how far ahead of it to fetch now, in members; 0 while enough is ahead, or nothing is earned.

        ``cautious``: most of what was fetched ahead was wasted.
        """
        if self.run < EARNED:
            return 0
        window = ramp.first if cautious else min(max(self.window, ramp.first), ramp.largest)
        if 2 * self.ahead >= window:
            return 0
        self.ahead = window
        self.window = window if cautious else min(ramp.largest, 2 * window)
        return window


class Track:
    """How the members of one directory are gone through."""

    __slots__ = ("_cursors", "_lines", "_names", "_numbers", "_ranks")

    def __init__(self, numbers: Sequence[int], names: Sequence[str]) -> None:
        """Follow members in the order in which they are listed; nothing is sorted before a second visit."""
        self._numbers = numbers
        self._names = names
        self._lines: dict[Order, list[int]] = {}
        self._ranks: dict[Order, dict[int, int]] = {}
        self._cursors: list[Cursor] = []

    def __len__(self) -> int:
        """Return how many members there are."""
        return len(self._numbers)

    def line(self, order: Order) -> list[int]:
        """Return the members in an order."""
        found = self._lines.get(order)
        if found is None:
            pairs = zip(self._numbers, self._names, strict=True)
            if order is Order.LISTED or len(self._numbers) > SORTED_MAX:
                found = list(self._numbers)
            elif order is Order.NAME:
                found = [number for number, _ in sorted(pairs, key=lambda pair: pair[1])]
            else:
                found = sorted(self._numbers)
            self._lines[order] = found
        return found

    def _rank(self, order: Order, number: int | None) -> int | None:
        """Return the place of a member in an order, None if it is no member."""
        if number is None:
            return -1
        ranks = self._ranks.get(order)
        if ranks is None:
            ranks = self._ranks[order] = {member: rank for rank, member in enumerate(self.line(order))}
        return ranks.get(number)

    def after(self, order: Order, number: int | None) -> Iterator[int]:
        """Go through the members that come after one in an order; through none if it is no member."""
        rank = self._rank(order, number)
        line = self.line(order)
        return (line[at] for at in range(len(line) if rank is None else rank + 1, len(line)))

    def is_last(self, cursor: Cursor) -> bool:
        """Tell whether a program is at the end."""
        return self._rank(cursor.orders[0], cursor.at) == len(self._numbers) - 1

    def begin(self, orders: tuple[Order, ...], window: int, now: float) -> None:
        """Expect a program that has come through the directories before in this order: its first visit goes on."""
        if not self._cursors or self._cursors[0].at is None:
            self._cursors[:1] = [Cursor(None, orders, window, now)]

    def visit(self, number: int, now: float) -> Cursor:
        """Note a visit; return the way it belongs to."""
        for place, cursor in enumerate(self._cursors):
            if self._is_next(cursor, number, now):
                if place:
                    self._cursors.insert(0, self._cursors.pop(place))
                return cursor
        cursor = Cursor(number, ALL, 0, now)
        self._cursors.insert(0, cursor)
        del self._cursors[CURSORS:]
        return cursor

    def _is_next(self, cursor: Cursor, number: int, now: float) -> bool:
        """Tell whether a visit goes on a way, and step on if so."""
        if now - cursor.seen_at > PAUSE_S:
            return False
        if cursor.at == number:  # again, which says nothing
            cursor.seen_at = now
            return True
        steps = {order: self._step(order, cursor.at, number) for order in cursor.orders}
        least = 1 if cursor.run < EARNED else -NEAR
        fitting = tuple(order for order, step in steps.items() if least <= step <= NEAR)
        if not fitting:
            return False
        cursor.orders, cursor.seen_at = fitting, now
        step = steps[fitting[0]]
        if step > 0:
            cursor.at = number
            cursor.run += 1
            cursor.ahead = max(0, cursor.ahead - step)
        return True

    def _step(self, order: Order, before: int | None, number: int) -> int:
        old, new = self._rank(order, before), self._rank(order, number)
        return len(self._numbers) + NEAR if old is None or new is None else new - old


class Ledger:
    """What was fetched ahead and has not been used yet, and how much of it is never used."""

    def __init__(self, cap: int = AHEAD_BYTES) -> None:
        """Allow ``cap`` bytes ahead."""
        self.cap = cap
        self.bytes = 0
        self._ahead: dict[Hashable, tuple[int, float]] = {}
        self._used = 0
        self._wasted = 0

    def __len__(self) -> int:
        """Return how many contents are ahead."""
        return len(self._ahead)

    @property
    def has_room(self) -> bool:
        """Tell whether more may be fetched ahead."""
        return self.bytes < self.cap

    @property
    def is_cautious(self) -> bool:
        """Tell whether most of what was fetched ahead was wasted."""
        return self._wasted > WASTE_FREE_BYTES and self._wasted > self._used

    def begin(self, key: Hashable, size: int | None, now: float) -> None:
        """Note that a content is fetched ahead; ``size`` in bytes, None if nobody knows."""
        self._drop(key)
        weight = GUESS_BYTES if size is None else size
        self._ahead[key] = (weight, now)
        self.bytes += weight

    def land(self, key: Hashable, size: int) -> None:
        """Note how many bytes it was; 0 if it was here, or did not come."""
        _, begun_at = self._ahead.get(key, (0, 0.0))
        if self._drop(key) is not None and size:
            self._ahead[key] = (size, begun_at)
            self.bytes += size

    def use(self, key: Hashable) -> None:
        """Note that somebody came for it."""
        weight = self._drop(key)
        if weight is not None:
            self._used += max(LEAST_BYTES, weight)
            self._age()

    def expire(self, now: float) -> None:
        """Give up on what nobody came for."""
        while self._ahead:
            key, (weight, begun_at) = next(iter(self._ahead.items()))
            if now - begun_at <= PAUSE_S:
                return
            self._drop(key)
            self._wasted += max(LEAST_BYTES, weight)
            self._age()

    def _drop(self, key: Hashable) -> int | None:
        weight, _ = self._ahead.pop(key, (None, 0.0))
        self.bytes -= weight or 0
        return weight

    def _age(self) -> None:
        if self._used + self._wasted > WASTE_KEPT_BYTES:
            self._used, self._wasted = self._used // 2, self._wasted // 2
