"""Chooses the restart points of an archive while it passes.

Rules of this file: no I/O, meant for one worker thread. Windows may take ``SHARE`` of the archive and not more: a point
that would cost more is not made, and the one before it serves, at the price of some more bytes. Of the compressed
stream only what a window still needs is held, and at most ``MAX_HELD`` of it.
"""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING

from artifactfs.content.restart import COLUMNS, RestartMap
from artifactfs.content.sparse_window import sparse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from artifactfs.content.inflate_blocks import Border

# Of the archive, for windows; with index and block map it stays below 1 %.
SHARE = 0.007
# A point this near behind another one, in compressed bytes, would save less than a request costs, and take the time in
# which so much is unpacked.
MIN_GAP = 128 * 1024
# Blocks are some 20 KiB long; where they are so much longer, windows are kept whole.
MAX_HELD = 1024 * 1024


class PointsBuilder:
    """The points of one archive."""

    def __init__(self) -> None:
        self.map = RestartMap()
        self.windows: list[bytes] = []
        self._spent = 0
        self._candidate: Border | None = None
        self._chosen: deque[Border] = deque()
        self._last = -MIN_GAP
        self._recent = bytearray()
        self._recent_begin = 0

    def hold(self, compressed: bytes) -> None:
        """Note what is to be unpacked next; borders are in it or before it."""
        keep = [border.begin for border in (self._candidate, *list(self._chosen)[:1]) if border is not None]
        keep_from = min(keep, default=self._recent_begin + len(self._recent))
        keep_from = max(keep_from, self._recent_begin + len(self._recent) - MAX_HELD)
        del self._recent[: keep_from - self._recent_begin]
        self._recent_begin = keep_from
        self._recent += compressed

    def take(self, borders: Iterable[Border], offsets: Iterable[int]) -> None:
        """Note borders, and have points before these offsets; both ascending, and of the same piece of the stream."""
        candidates = [] if self._candidate is None else [self._candidate]
        for border in borders:
            self.map.ends_in.append(border.begin)
            self.map.ends_out.append(border.out)
            candidates.append(border)
            if not border.window:
                self._choose(border)
        for offset in offsets:
            at = bisect_right(candidates, offset, key=lambda border: border.out) - 1
            if at >= 0:
                self._choose(candidates[at])
        self._candidate = candidates[-1] if candidates else None
        while self._chosen and self._settle(self._chosen[0], last=False):
            self._chosen.popleft()

    def finish(self) -> None:
        """Say that the archive has ended."""
        while self._chosen:
            self._settle(self._chosen.popleft(), last=True)

    def _choose(self, border: Border) -> None:
        if border.begin >= self._last + MIN_GAP:
            self._last = border.begin
            self._chosen.append(border)

    def _settle(self, border: Border, *, last: bool) -> bool:
        """Make a chosen border a point, or not if it costs too much; False if that cannot be told yet."""
        window = b""
        if border.window:
            at = border.begin - self._recent_begin
            found = sparse(border.window, border.bit, bytes(self._recent[at:])) if 0 <= at < len(self._recent) else None
            if found is None and not last and at >= 0 and len(self._recent) < MAX_HELD:
                return False
            window = zlib.compress(border.window if found is None else found)
        if self._spent + len(window) <= SHARE * border.begin or not window:
            values = (border.begin, border.bit, border.out, self._spent, len(window))
            for name, value in zip(COLUMNS, values, strict=True):
                self.map.points[name].append(value)
            self._spent += len(window)
            if window:
                self.windows.append(window)
        return True
