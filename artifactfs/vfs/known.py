"""What is known of listings, as much as there is room for.

Rules of this file: no request and no await. What falls out is in the cache's database or is asked for again; nodes that
the kernel holds live on in the inode table.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from artifactfs import errors
from artifactfs.model.entry import DirRef
from artifactfs.tree.layout import Level, Path

# Entries in memory: about 1.6 kB each with their nodes, names and artifacts (measured), so about 50 MB.
MAX_ENTRIES = 32_768
# A listing that is larger than that alone has room of its own, one at a time, and until so long after the last look:
# making it again takes a minute for a million.
LARGE_S = 600.0


@dataclass(slots=True)
class Known:
    """What is known of one listing point.

    Attributes:
        levels: its directories, by raw prefix.
        fetched_at: when the service gave it, by trio's clock; -inf if what has happened since may have changed it.
        ttl_s: how long it is believed without asking, in seconds.
        complete, note: as ``model.entry.Listing`` has them.
        retry_at: until then it is served without asking, since asking has failed.
        failure: of the last attempt to renew it.
        revalidating: it is being renewed at this moment, and served meanwhile.
        doubtful: something may have changed it that this machine did: shown only while nobody can be asked.
        looked_at: when somebody looked at it last, by trio's clock.
        revision: of its source, when it was asked; None where the source tells none.
    """

    levels: dict[Path, Level]
    fetched_at: float
    ttl_s: float
    complete: bool
    note: str | None
    retry_at: float = -math.inf
    failure: errors.ArtifactFSError | None = None
    revalidating: bool = False
    doubtful: bool = False
    looked_at: float = -math.inf
    revision: int | None = None

    def is_fresh(self, now: float) -> bool:
        """Tell whether it is still believed without asking."""
        return (now < self.fetched_at + self.ttl_s and not self.doubtful) or now < self.retry_at

    def may_be_shown(self) -> bool:
        """Tell whether it may be shown while it is renewed: nothing is known to have changed it."""
        return self.fetched_at > -math.inf and not self.doubtful

    def age_s(self, now: float) -> float | None:
        """Return how old it is in seconds, None if it must be asked for again."""
        return now - self.fetched_at if self.fetched_at > -math.inf else None

    def count(self) -> int:
        """Return how many entries it has."""
        return 1 + sum(len(level.children) for level in self.levels.values())


class KnownListings:
    """The listings in memory, the latest used ones; ``dropped`` is told of those that fall out."""

    def __init__(self, dropped: Callable[[DirRef, Known], None], max_entries: int) -> None:
        """Start empty."""
        self._dropped = dropped
        self._max = max_entries
        self._known: OrderedDict[DirRef, tuple[Known, int]] = OrderedDict()
        self._entries = 0
        self._large: DirRef | None = None

    def __len__(self) -> int:
        """Return how many listings are in memory."""
        return len(self._known)

    def __iter__(self) -> Iterator[tuple[DirRef, Known]]:
        """Go through those in memory."""
        return ((ref, known) for ref, (known, _) in self._known.items())

    def peek(self, ref: DirRef) -> Known | None:
        """Return a listing without counting it as used."""
        found = self._known.get(ref)
        return None if found is None else found[0]

    def get(self, ref: DirRef) -> Known | None:
        """Return a listing."""
        found = self._known.get(ref)
        if found is None:
            return None
        self._known.move_to_end(ref)
        return found[0]

    def put(self, ref: DirRef, known: Known) -> None:
        """Keep a listing, in the place of what was known before; the one kept last is never dropped."""
        self.pop(ref)
        count = known.count()
        large = None if self._large is None else self._known[self._large][0]
        if large is not None and (count > self._max or known.looked_at > large.looked_at + LARGE_S):
            self.drop(self._large)
        self._known[ref] = (known, count)
        if count > self._max:
            self._large = ref
            return
        self._entries += count
        while self._entries > self._max:
            self.drop(next(oldest for oldest in self._known if oldest != self._large))

    def drop(self, ref: DirRef | None) -> None:
        """Let a listing fall out, and tell of it."""
        found = None if ref is None else self.peek(ref)
        if ref is not None and found is not None:
            self.pop(ref)
            self._dropped(ref, found)

    def pop(self, ref: DirRef) -> None:
        """Forget a listing."""
        found = self._known.pop(ref, None)
        if ref == self._large:
            self._large = None
        elif found is not None:
            self._entries -= found[1]
