"""Listings of the sources, made current when somebody looks.

Rules of this file: one flight per listing, however many look. A transient failure never empties or shortens what is
known: the old listing is served and its age shown; without an old listing the failure is the answer.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from artifactfs import errors
from artifactfs.content.reader import ContentReader
from artifactfs.model.entry import Artifact, DirRef, Entry
from artifactfs.tree.layout import CONTROL, Level, Path, Place, directory_identity, lay_out
from artifactfs.tree.nodes import Listed, Node
from artifactfs.vfs.sources import Source

log = logging.getLogger(__name__)

# After a failed refresh the old listing is served this long before the next try, so that a command over many names does
# not wait for the failing service once per name.
RETRY_S = 5.0
# A page that never says it is the last would never end; 10,000 pages of 100 are a million artifacts.
MAX_PAGES = 10_000

TRANSIENT = (errors.Unavailable, errors.Unreachable, errors.TimedOut, errors.QuotaExceeded)

Changed = Callable[[int, str], None]
Shelve = Callable[[Listed, Mapping[Path, Level]], None]


@dataclass(slots=True)
class Known:
    """What is known of one listing point."""

    levels: dict[Path, Level]
    fetched_at: float
    ttl_s: float
    complete: bool
    note: str | None
    retry_at: float = -math.inf
    failure: errors.ArtifactFSError | None = None

    def is_fresh(self, now: float) -> bool:
        """Tell whether it is still believed without asking."""
        return now < self.fetched_at + self.ttl_s or now < self.retry_at


@dataclass(slots=True)
class Listings:
    """What is known of every listing point of a mount.

    ``shelve`` is told of each new listing; ``changed`` of each name that stands for something else than before,
    unless ``is_known`` says that the kernel has heard of it: what was saved through this mount.
    """

    sources: Mapping[str, Source]
    content: ContentReader
    shelve: Shelve
    show_ids: bool = False
    changed: Changed = lambda _parent, _name: None
    is_known: Callable[[Node], bool] = lambda _node: False
    _known: dict[DirRef, Known] = field(default_factory=dict)
    _numbers: dict[tuple[str, ...], int] = field(default_factory=dict)
    _tops: dict[DirRef, tuple[Node, Listed]] = field(default_factory=dict)
    _changes: dict[DirRef, int] = field(default_factory=dict)

    def stands_at(self, place: Listed, ino: int) -> None:
        """Remember which inode shows a level, for invalidations."""
        self._numbers[directory_identity(place.ref, place.prefix)] = ino

    def peek(self, ref: DirRef) -> Known | None:
        """Return what is known of a listing without asking."""
        return self._known.get(ref)

    async def get(self, node: Node, place: Listed) -> Known:
        """Return what is known of a listing point, asked for again if it is no longer fresh."""
        # A listing is laid out as its point says, also when somebody looks into a folder inside of it.
        if not place.prefix:
            self._tops[place.ref] = (node, place)
        known = self._known.get(place.ref)
        if known is not None and known.is_fresh(trio.current_time()):
            return known
        top = self._tops.get(place.ref, (node, place))
        # Who looks after a change must not join a flight that left before it.
        key = ("list", place.ref, self._changes.get(place.ref, 0))
        return await self.content.flights.run(key, lambda: self._refresh(*top))

    async def again(self, ref: DirRef) -> Known | None:
        """Return what is known of a listing that was asked for before, made current; None if it never was."""
        top = self._tops.get(ref)
        return None if top is None else await self.get(*top)

    async def _refresh(self, node: Node, place: Listed) -> Known:
        old = self._known.get(place.ref)
        changes = self._changes.get(place.ref, 0)
        try:
            fresh = await self._fetch(node, place)
        except TRANSIENT as error:
            if old is None:
                raise
            log.info("serving an older listing of %s: %s", place.ref.kind, error)
            old.failure, old.retry_at = error, trio.current_time() + RETRY_S
            return old
        if changes != self._changes.get(place.ref, 0):
            fresh.fetched_at = -math.inf  # asked for before a change that may not be in it
        self._known[place.ref] = fresh
        if old is not None:
            self._announce(place.ref, old, fresh)
        return fresh

    async def _fetch(self, node: Node, place: Listed) -> Known:
        source = self.sources[node.source]
        entries: list[Entry] = []
        cursor: str | None = None
        seen: set[str] = set()
        for _ in range(MAX_PAGES):
            page = await source.provider.list(place.ref, cursor)
            entries.extend(page.entries)
            cursor = page.next_cursor
            if cursor is None or cursor in seen:
                break
            seen.add(cursor)
        complete = page.complete and cursor is None
        # A folder without a listing point of its own is described by its ancestor's; what is below is laid out there.
        timeless = [
            entry.key
            for entry in entries
            if isinstance(entry, Artifact) and entry.updated_at_ns is None and entry.created_at_ns is None
        ]
        first_seen = self._first_seen(source, timeless)
        spot = Place(
            place.ref, place.role, place.accepts, place.workflow, node.mtime_ns or source.first_seen_ns,
            source.provider.is_artifact_id, self.show_ids,
            frozenset({CONTROL}) if node.ino == 1 or place.ref == source.top else frozenset(), first_seen,
        )  # fmt: skip
        levels = lay_out(entries, spot, complete=complete)
        self.shelve(place, levels)
        ttl = source.provider.listing_ttl_s if page.ttl_s is None else page.ttl_s
        return Known(levels, trio.current_time(), ttl, complete, page.note)

    def _first_seen(self, source: Source, keys: list[str]) -> dict[str, int]:
        if not keys:
            return {}
        prefixed = {f"{source.fingerprint}/{key}": key for key in keys}
        found = self.content.facts.first_seen(prefixed)
        return {prefixed[whole]: ns for whole, ns in found.items()}

    def _announce(self, ref: DirRef, old: Known, fresh: Known) -> None:
        """Tell the kernel which names of a listing stand for something else now."""
        for prefix, level in old.levels.items():
            parent = self._numbers.get(directory_identity(ref, prefix))
            if parent is None:
                continue
            now = fresh.levels.get(prefix, Level()).children
            for name, node in level.children.items():
                other = now.get(name)
                if other is None or (other.identity != node.identity and not self.is_known(other)):
                    self.changed(parent, name)

    def forget_source(self, source: str) -> None:
        """Ask for every listing of a source again at the next look."""
        for ref in self._known:
            if ref.source == source:
                self.forget(ref)

    def forget(self, ref: DirRef) -> None:
        """Ask for a listing again at the next look: this mount has changed it."""
        self._changes[ref] = self._changes.get(ref, 0) + 1
        known = self._known.get(ref)
        if known is not None:
            known.fetched_at, known.retry_at = -math.inf, -math.inf

    def age_s(self, ref: DirRef) -> float | None:
        """Return how old what is known of a listing is, in seconds."""
        known = self._known.get(ref)
        return None if known is None else trio.current_time() - known.fetched_at

    def report(self) -> list[dict[str, Any]]:
        """Return what ``status`` shows of the listings: age, completeness, the failure behind an old one."""
        now = trio.current_time()
        return [
            {
                "source": ref.source,
                "directory": "/".join((ref.kind, *ref.args)),
                "age_s": round(now - known.fetched_at, 1) if known.fetched_at > -math.inf else None,
                "complete": known.complete,
                "note": known.note,
                "stale_because": str(known.failure) if known.failure else None,
            }
            for ref, known in self._known.items()
        ]
