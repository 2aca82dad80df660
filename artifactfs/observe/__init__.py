"""What happened, for people and for programs: counters, timings, the operations that log lines belong to, the log.

Rules of this package: nothing secret is ever passed in; URLs arrive without their query. Whatever text a service or an
agent made leaves with its control characters escaped.
"""

from artifactfs.observe.logs import (
    IN_LINES,
    LEVELS,
    BoundedLog,
    counts,
    describe_log,
    hide,
    level,
    set_level,
    set_up_logging,
)
from artifactfs.observe.measures import Histogram, Timings, clock
from artifactfs.observe.observer import RECENT_ERRORS, Incident, Observer, SourceCounters
from artifactfs.observe.operations import Operation, begin, operation

__all__ = [
    "IN_LINES",
    "LEVELS",
    "RECENT_ERRORS",
    "BoundedLog",
    "Histogram",
    "Incident",
    "Observer",
    "Operation",
    "SourceCounters",
    "Timings",
    "begin",
    "clock",
    "counts",
    "describe_log",
    "hide",
    "level",
    "operation",
    "set_level",
    "set_up_logging",
]
