"""What happened, for people and for programs: log set-up, counters and recent errors of each source.

Rules of this file: nothing secret is ever passed in; URLs arrive without their query.
"""

from __future__ import annotations

import collections
import contextvars
import logging
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from artifactfs.model.text import printable

operation: contextvars.ContextVar[str] = contextvars.ContextVar("operation", default="-")
"""What the running task is doing, such as ``read 7``; shown in every log line."""

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
    """What one source has been asked, since the mount began."""

    requests: int = 0
    failures: int = 0
    bytes_received: int = 0
    last_success: float | None = None
    last_incident: Incident | None = None
    last_failed_request: Incident | None = None
    by_route: collections.Counter[str] = field(default_factory=collections.Counter)

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
    """Collects counters and incidents of all sources of one mount."""

    def __init__(self) -> None:
        """Start with nothing seen."""
        self.sources: dict[str, SourceCounters] = {}
        self.incidents: collections.deque[Incident] = collections.deque(maxlen=RECENT_ERRORS)

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


class _Operation(logging.Filter):
    """Adds the running operation to each record."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.operation = operation.get()
        return True


class _Harmless(logging.Formatter):
    """Writes what a terminal may be shown, a record a line: messages hold names and words of others."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name that logging calls
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: ANN401, N802 - what logging calls it with
        return "\n".join(map(printable, super().formatException(ei).splitlines()))


def set_up_logging(level: str, path: str | None = None) -> None:
    """Send the package's log to ``path``, or to stderr; libraries only from WARNING up."""
    handler: logging.Handler
    handler = logging.FileHandler(path, encoding="utf-8") if path else logging.StreamHandler(sys.stderr)
    handler.addFilter(_Operation())
    handler.setFormatter(_Harmless("%(asctime)s %(levelname)s %(name)s [%(operation)s] %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("artifactfs").setLevel(level.upper())
