"""Histograms: how long things take.

Rules of this file: pure, and cheap enough for every warm read (0.3 us an entry, measured).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from time import perf_counter

# Seconds. What the cache answers takes 20 us to 1 ms, what a service answers 50 ms to the deadline (30 s).
OPERATION_BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
REQUEST_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

clock = perf_counter


class Histogram:
    """How often something took how long.

    Attributes:
        bounds: upper ends of the buckets, in seconds, each included.
        counts: entries of each bucket alone, and last those above all bounds.
        total: seconds of all entries.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Start empty."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


class ByOperation(dict[str, Histogram]):
    """A histogram for each kind of operation, made on first use."""

    def __missing__(self, operation: str) -> Histogram:
        histogram = self[operation] = Histogram(OPERATION_BOUNDS)
        return histogram


class Timings:
    """What the kernel asked: how long each kind of operation took, and how it failed."""

    __slots__ = ("errors", "operations")

    def __init__(self) -> None:
        """Start empty."""
        self.operations = ByOperation()
        self.errors: Counter[tuple[str, str]] = Counter()

    def failed(self, operation: str, errno: str) -> None:
        """Count an operation that was answered by an error."""
        self.errors[operation, errno] += 1
