"""What happened at the sources: counters and recent errors of each.

Rules of this file: nothing secret is ever passed in; URLs arrive without their query.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from artifactfs.observe.measures import REQUEST_BOUNDS, Histogram, Timings

# Enough that one source failing at every name of a long command does not push out what another said a minute ago.
RECENT_ERRORS = 1000


@dataclass(slots=True)
class Incident:
    """One failure as ``status``, ``why`` and ``.artifactfs/errors`` show it."""

    at: float
    source: str
    subject: str
    message: str
    status: int | None = None
    request_id: str | None = None
    times: int = 1

    def is_again(self, other: Incident) -> bool:
        """Tell whether the other is the same failure once more."""
        mine, its = (self.source, self.subject, self.message), (other.source, other.subject, other.message)
        return mine == its

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON; the time as seconds since the epoch."""
        return {
            "at": self.at,
            "source": self.source,
            "subject": self.subject,
            "message": self.message,
            "status": self.status,
            "request_id": self.request_id,
            "times": self.times,
        }


@dataclass(slots=True)
class SourceCounters:
    """What one source has been asked, since the mount began.

    Attributes:
        requests: sent, each try of one.
        failures: requests that failed for good.
        bytes_received: of bodies.
        by_route: requests by method and path pattern.
        latency: seconds from a request to the head of its answer, or to its failure.
        answers: by HTTP status; "none" where no answer came.
        saves: tries to publish a change, by what became of it.
    """

    requests: int = 0
    failures: int = 0
    bytes_received: int = 0
    last_success: float | None = None
    last_incident: Incident | None = None
    last_failed_request: Incident | None = None
    by_route: collections.Counter[str] = field(default_factory=collections.Counter)
    latency: Histogram = field(default_factory=lambda: Histogram(REQUEST_BOUNDS))
    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    saves: collections.Counter[str] = field(default_factory=collections.Counter)

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "requests": self.requests,
            "failures": self.failures,
            "bytes_received": self.bytes_received,
            "last_success": self.last_success,
            "last_error": self.last_incident.as_dict() if self.last_incident else None,
            "by_route": dict(self.by_route),
        }


class Observer:
    """Collects counters and incidents of all sources of one mount.

    ``gauges`` give the state of a source's connections at this moment, by name; its client puts them there.
    """

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.sources: dict[str, SourceCounters] = {}
        self.incidents: collections.deque[Incident] = collections.deque(maxlen=RECENT_ERRORS)
        self.timings = Timings()
        self.gauges: dict[str, Callable[[], Mapping[str, float]]] = {}

    def counters(self, source: str) -> SourceCounters:
        """Return the counters of a source, made on first use."""
        return self.sources.setdefault(source, SourceCounters())

    def sent(self, source: str, route: str) -> None:
        """Count one request; ``route`` is method and path pattern without ids or query."""
        counters = self.counters(source)
        counters.requests += 1
        counters.by_route[route] += 1

    def succeeded(self, source: str) -> None:
        """Note that the source answered."""
        self.counters(source).last_success = time.time()

    def failed(
        self, source: str, subject: str, message: str, *, status: int | None = None, request_id: str | None = None
    ) -> None:
        """Count a request that failed for good, and keep it where people look for it."""
        counters = self.counters(source)
        counters.failures += 1
        self.noticed(source, subject, message, status=status, request_id=request_id)
        counters.last_failed_request = counters.last_incident

    def noticed(
        self, source: str, subject: str, message: str, *, status: int | None = None, request_id: str | None = None
    ) -> None:
        """Keep a failure of an operation; one that repeats itself does not push the others out."""
        incident = Incident(time.time(), source, subject, message, status, request_id)
        self.counters(source).last_incident = incident
        if self.incidents and self.incidents[-1].is_again(incident):
            incident.times += self.incidents.pop().times
        self.incidents.append(incident)
