"""Sources that fail, and what waits for them.

Rules of this file: while a source fails the pause is the source's, not each change's. When it has answered anything
again, what waits for it is due at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio

from artifactfs.vfs.overlay import Job, Overlay


@dataclass(slots=True)
class Outages:
    """Which sources fail at this moment.

    Attributes:
        well_at: says when a source last answered, in seconds since the epoch.
        until: no try of a source that fails before this time, on trio's clock.
        failed_at: when a source failed last, in seconds since the epoch.
        ends_since: since when the mount ends (epoch), -inf if it leaves everything to the next one.
    """

    overlay: Overlay
    well_at: Callable[[str], float] = lambda _source: 0.0
    until: dict[str, float] = field(default_factory=dict)
    failed_at: dict[str, float] = field(default_factory=dict)
    ends_since: float = math.inf

    def failed(self, job: Job) -> None:
        """Let what waits for the source of a change wait until that is tried again."""
        self.until[job.source] = job.due_at
        self.failed_at[job.source] = time.time()
        for other in self.overlay.jobs():
            other.has_waited = other.has_waited or other.source == job.source

    def succeeded(self, job: Job) -> None:
        """Have at once what waits for the source of a change."""
        if self.until.pop(job.source, None) is not None:
            for other in self.overlay.jobs():
                if other.source == job.source and other.tries and other.due_at < math.inf:
                    other.due_at = trio.current_time()

    def notice_recovery(self, busy: Mapping[str, int]) -> bool:
        """Try at once what waits for a source that has answered something else meanwhile; tell whether any has."""
        now, found = trio.current_time(), False
        for source, until in list(self.until.items()):
            waiting = [job for job in self.overlay.jobs() if job.source == source and job.due_at < math.inf]
            if not waiting and not busy.get(source):
                del self.until[source]  # what failed was taken back, or refused: who comes next finds out
            elif until > now and self.well_at(source) > self.failed_at.get(source, math.inf):
                self.until[source], found = now, True
                for job in waiting:
                    job.due_at = now
        return found

    def has_failed(self, job: Job, since: float) -> bool:
        """Tell whether a change was tried in vain since a time (epoch), or need not be."""
        # Where one change fails because its source does, the others wait for that source.
        return max(job.failed_at, self.failed_at.get(job.source, 0.0)) >= since

    def is_awaited(self, job: Job, since: float) -> bool:
        """Tell whether who waits since a time (epoch) still waits for a change; for its second try nobody does."""
        if job.is_under_way:
            return job.failed_at < since
        return job.due_at < math.inf and not self.has_failed(job, since)

    def is_left(self, job: Job) -> bool:
        """Tell whether a change is the next mount's: this one ends, and has tried it, or is not to."""
        return self.has_failed(job, self.ends_since)
