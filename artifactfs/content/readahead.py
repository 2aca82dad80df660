"""How far ahead of a reader to fetch. Pure: a plan is a value.

Rules of this file: a reader in order gets a window that doubles; a reader at random gets what it asked for. The head of
a large file must stay cheap: the first window is small.
"""

from __future__ import annotations

from dataclasses import dataclass

# The first window: one request's worth that a warm connection delivers in about 1.5 round trips (measured at 20 ms).
FIRST = 1 << 20
# The largest: enough for 8 streams' worth of the 1-2 MiB ranges beyond which nothing was gained at 20 ms.
LARGEST = 16 << 20


@dataclass(slots=True)
class Pattern:
    """What one open file's reads looked like so far."""

    expected: int = 0
    window: int = FIRST
    fetched_to: int = 0


def plan(pattern: Pattern, offset: int, length: int, size: int) -> int:
    """Return the offset up to which to fetch now (at least the end of the read), and remember the read.

    The kernel keeps several reads of one reader in flight and sends them in any order; a read within the first window
    of the expected place counts as in order.
    """
    end = min(offset + length, size)
    in_order = abs(offset - pattern.expected) <= FIRST
    if not in_order:
        pattern.expected, pattern.window, pattern.fetched_to = end, FIRST // 2, end
        return end
    pattern.expected = max(end, pattern.expected)
    if end + pattern.window // 2 > pattern.fetched_to:
        pattern.fetched_to = min(size, max(pattern.fetched_to, end) + pattern.window)
        if offset > 0:
            pattern.window = min(LARGEST, pattern.window * 2)
    return max(end, pattern.fetched_to)
