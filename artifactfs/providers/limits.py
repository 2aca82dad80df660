"""How many requests a source may be sent, shared by everything one mount does.

Rules of this file: time comes from ``trio.current_time``; a waiter that would have to wait longer than it may is
refused at once, before anything is sent.
"""

from __future__ import annotations

import contextlib
import enum
import heapq
import itertools
import math
from collections.abc import Iterator
from contextvars import ContextVar

import trio

from artifactfs import errors


class Lane(enum.IntEnum):
    """Who goes first when requests are scarce."""

    FOREGROUND = 0
    """Somebody is waiting in a system call."""
    PUBLISHING = 1
    """What was saved is on its way: nobody waits for it in a system call, but it is safe on one disk only."""
    BACKGROUND = 2
    """Readahead, refreshes, prefetch."""


lane: ContextVar[Lane] = ContextVar("lane", default=Lane.FOREGROUND)
"""The lane of the requests that a task sends; a task that is started inherits it."""


@contextlib.contextmanager
def _on(one: Lane) -> Iterator[None]:
    token = lane.set(one)
    try:
        yield
    finally:
        lane.reset(token)


def background() -> contextlib.AbstractContextManager[None]:
    """Send what is asked for in this block, and in tasks started in it, when nobody else waits."""
    return _on(Lane.BACKGROUND)


def publishing() -> contextlib.AbstractContextManager[None]:
    """Send what is asked for in this block when nobody in the foreground waits, but before the background."""
    return _on(Lane.PUBLISHING)


class Line:
    """Whether a task waits in line at this moment: it has not sent its request, and may be sent to another line."""

    __slots__ = ("waits",)

    def __init__(self) -> None:
        """Begin outside."""
        self.waits = False


line: ContextVar[Line | None] = ContextVar("line", default=None)
"""Set by who wants to know whether its task waits for leave, in a budget or for a connection."""


@contextlib.contextmanager
def in_line() -> Iterator[None]:
    """Let it be known that the task waits for leave in this block."""
    mine = line.get()
    if mine is None:
        yield
        return
    mine.waits = True
    try:
        yield
    finally:
        mine.waits = False


class Budget:
    """A token bucket: ``rate_per_s`` requests a second on average, ``burst`` at once."""

    def __init__(self, rate_per_s: float = math.inf, burst: float = math.inf) -> None:
        """Start full."""
        self.rate_per_s = rate_per_s
        self.burst = max(1.0, burst)
        self._tokens = self.burst
        self._stamp = -math.inf
        self._waiting: list[tuple[Lane, int]] = []
        self._order = itertools.count()
        self._changed = trio.Event()

    def __repr__(self) -> str:
        """Tell what is left."""
        return f"<Budget {self.left():.1f} of {self.burst} left, {len(self._waiting)} waiting>"

    def left(self) -> float:
        """Return how many requests could be sent at this moment."""
        if math.isinf(self.rate_per_s):
            return math.inf
        if self._stamp > -math.inf:
            self._refill()
        return max(0.0, self._tokens)

    def spare(self) -> float:
        """Return which share of what may be sent at once could be sent at this moment, 0 to 1."""
        return 1.0 if math.isinf(self.rate_per_s) else self.left() / self.burst

    def _refill(self) -> None:
        now = trio.current_time()
        if self._stamp > -math.inf:
            self._tokens = min(self.burst, self._tokens + (now - self._stamp) * self.rate_per_s)
        self._stamp = now

    async def take(self, lane: Lane = Lane.FOREGROUND, max_wait_s: float = math.inf) -> None:
        """Wait for leave to send one request.

        Raises:
            QuotaExceeded: the wait would be longer than ``max_wait_s`` seconds.
        """
        if math.isinf(self.rate_per_s):
            return
        self._refill()
        ahead = sum(1 for other, _ in self._waiting if other <= lane)
        wait_s = (1 + ahead - self._tokens) / self.rate_per_s
        # Who goes first may still come, so what was estimated is not promised.
        with trio.move_on_after(max_wait_s):
            if wait_s <= max_wait_s:
                with in_line():
                    await self._wait(lane)
                return
        message = f"the request budget is used up; the next request may be sent in {wait_s:.0f} s"
        raise errors.QuotaExceeded(message)

    async def _wait(self, lane: Lane) -> None:
        me = (lane, next(self._order))
        heapq.heappush(self._waiting, me)
        try:
            while self._waiting[0] != me or not self._try_take():
                await self._pause(me)
        finally:
            self._waiting.remove(me)
            heapq.heapify(self._waiting)
            self._changed.set()
            self._changed = trio.Event()

    def _try_take(self) -> bool:
        self._refill()
        # A hair of tolerance: sleeping exactly until a token is whole can wake with 0.9999999 of it.
        if self._tokens < 1 - 1e-9:
            return False
        self._tokens -= 1
        return True

    async def _pause(self, me: tuple[Lane, int]) -> None:
        changed = self._changed
        if self._waiting[0] != me:
            await changed.wait()
            return
        with trio.move_on_after(max(0.0, (1 - self._tokens) / self.rate_per_s)):
            await changed.wait()
