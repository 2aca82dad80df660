"""How far ahead of a reader to fetch, and over how many streams. Pure: a plan is a value, and the caller has the clock.

Rules of this file: a reader in order gets a window that grows while it waits; a reader at random gets what it asked
for. The head of a large file must stay cheap: the first window is small. Offsets and lengths in bytes.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

# The first window: one request's worth that a warm connection delivers in about 1.5 round trips (measured at 20 ms).
FIRST = 1 << 20
# The largest: 16 ranges of 2 MiB, beyond which little was gained at 20 ms; no more than stays in memory meanwhile.
LARGEST = 32 << 20
# The largest where answers begin at once: one stream is then as fast as this process, a second fills its pauses.
LARGEST_NEAR = 8 << 20
# What a range should have at least: below 2 MiB a new connection spends its time on growing its window.
RANGE = 2 << 20
STREAMS = 16
STREAMS_NEAR = 2
# A window grows by this factor: new connections are slow at first, so it pays to begin with many of them early.
GROWTH = 16
# Answers that begin within this are from next door, in seconds: the same machine or building, not another town.
NEAR_S = 0.006
# No more is fetched ahead than comes in so many seconds: on a slow line what comes next must not wait for what is far.
AHEAD_S = 8.0
# A file up to this size of which so many blocks were missed at random is fetched as a whole: at 20 ms a random read of
# what is here takes 0.7 ms, of what is not 20 to 90.
PROMOTED = 64 << 20
MISSES = 4
NOTHING = range(0)


@dataclass(slots=True)
class Pattern:
    """What one open file's reads looked like so far.

    ``waited``: a read had to wait for bytes since the window last grew; the reader of the file says so.
    ``misses``: of reads at random.
    ``revision``: which of the bytes that the service had there, one after the other, are read; those of the first read
    if it is None.
    """

    expected: int = 0
    window: int = FIRST
    fetched_to: int = 0
    run_from: int = 0
    in_order: bool = True
    waited: bool = False
    misses: int = 0
    revision: int | None = None


class Pace:
    """How fast a source was of late, and what follows from that.

    ``largest`` is the largest window that makes sense now, ``streams`` over how many at most: read far more often than
    they change.
    """

    def __init__(self) -> None:
        """Know nothing: suppose that it is far away."""
        self._begins_s: deque[float] = deque(maxlen=8)
        self._rate = math.inf
        self.largest = LARGEST
        self.streams = STREAMS

    def __repr__(self) -> str:
        """Tell what is known."""
        begins = f"{min(self._begins_s) * 1000:.0f} ms" if self._begins_s else "unknown"
        return f"<Pace begins after {begins}, {self._rate / 1e6:.1f} MB/s a stream>"

    def began(self, after_s: float) -> None:
        """Note how long an answer took to begin, in seconds."""
        self._begins_s.append(after_s)
        self._conclude()

    def brought(self, length: int, within_s: float) -> None:
        """Note what one stream brought, from its being asked for."""
        rate = length / max(within_s, 1e-6)
        self._rate = rate if math.isinf(self._rate) else (self._rate + rate) / 2
        self._conclude()

    def _conclude(self) -> None:
        # The quickest of the last few tells: others had to wait their turn.
        is_near = bool(self._begins_s) and min(self._begins_s) < NEAR_S
        self.streams = STREAMS_NEAR if is_near else STREAMS
        self.largest = LARGEST_NEAR if is_near else int(max(FIRST, min(LARGEST, self._rate * AHEAD_S)))


def plan(pattern: Pattern, offset: int, length: int, size: int, largest: int = LARGEST) -> range:
    """Return which bytes to begin to fetch now, none where enough is on its way, and remember the read.

    The kernel keeps several reads of one reader in flight and sends them in any order; a read within the first window
    of the expected place counts as in order. What an earlier plan named is not named again.
    """
    end = min(offset + length, size)
    pattern.in_order = abs(offset - pattern.expected) <= FIRST
    if not pattern.in_order:
        pattern.expected, pattern.window, pattern.fetched_to, pattern.run_from = end, FIRST // 2, end, offset
        return range(offset, end)
    pattern.expected = max(end, pattern.expected)
    if pattern.fetched_to >= size:
        return NOTHING
    window = min(pattern.window, max(largest, FIRST))
    if pattern.waited and end - pattern.run_from > window // 4:
        window = min(max(largest, FIRST), window * GROWTH)
    if end + window // 2 <= pattern.fetched_to:
        return NOTHING
    begin = max(offset, pattern.fetched_to)
    pattern.window, pattern.waited = window, False
    pattern.fetched_to = min(size, max(end, offset + window))
    return range(begin, pattern.fetched_to)


def ranges(blocks: range, least: int, streams: int) -> list[range]:
    """Cut a run of blocks into at most ``streams`` parts of at least ``least`` blocks, except where it has fewer."""
    parts = max(1, min(streams, len(blocks) // least))
    step = -(-len(blocks) // parts)
    return [blocks[at : at + step] for at in range(0, len(blocks), step)]
