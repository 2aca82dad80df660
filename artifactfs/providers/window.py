"""A request budget for services that count by the minute.

Rules of this file: what such a service allows may be sent at once, but never more of it in any minute; a token bucket
of that size and rate would let twice as much through in the first one.
"""

from __future__ import annotations

import collections

import trio

from artifactfs.providers.limits import Budget

MINUTE_S = 60.0
# A request may reach the service this much later than the one after it, and still both are in the minute it counts.
MARGIN_S = 1.0


class MinuteBudget(Budget):
    """At most ``per_minute`` requests in any minute; of less than one, a request in more than a minute."""

    def __init__(self, per_minute: float) -> None:
        """Start with nothing sent."""
        self.limit = max(1, int(per_minute))
        self.window_s = MINUTE_S * max(1.0, 1 / per_minute) + MARGIN_S
        super().__init__(self.limit / self.window_s, self.limit)
        self._sent: collections.deque[float] = collections.deque()

    def _refill(self) -> None:
        self._stamp = now = trio.current_time()
        while self._sent and self._sent[0] + self.window_s <= now:
            self._sent.popleft()
        free = self.limit - len(self._sent)
        # Without a free one, as much of a token as makes the wait for the next one come out right.
        self._tokens = free if free > 0 else 1 - (self._sent[0] + self.window_s - now) * self.rate_per_s

    def _try_take(self) -> bool:
        self._refill()
        if len(self._sent) >= self.limit:
            return False
        self._sent.append(trio.current_time())
        self._tokens -= 1
        return True
