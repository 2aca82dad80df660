"""A service on a bad day: answers come late, fail, or are lost on their way."""

from __future__ import annotations

import random
from collections import Counter

from tests.support.lab import Fault

# Seconds: as far as a service is across an ocean, without making a run long.
MAX_DELAY_S = 0.05
# One request in so many fails in some way: enough that each kind of request fails in each way within a run.
SHARE = 0.12
STATUSES = (500, 502, 503)
# A status; nothing done; done, but no answer; done, and the answer cut off behind its head.
KINDS = ("status", "refused", "unanswered", "cut")


class BadDay:
    """Weather for ``Lab``; ``calm`` ends it for a while."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.calm = False
        self.counted: Counter[str] = Counter()

    def __call__(self, where: str) -> Fault | None:
        """Return what happens to the next request."""
        if self.calm:
            return None
        fault = Fault("", delay_s=self.chance.uniform(0, MAX_DELAY_S))
        if self.chance.random() < SHARE:
            kind = self.chance.choice(KINDS)
            self.counted[kind] += 1
            if kind == "status":
                fault.status = self.chance.choice(STATUSES)
            fault.refuse, fault.swallow, fault.lose_answer = kind == "refused", kind == "unanswered", kind == "cut"
        return fault
