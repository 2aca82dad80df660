"""What this mount itself has changed in listings.

Rules of this file: a change of ours is shown without asking for its listing again, and no listing from before it is
taken for the present one: neither one that is on its way, nor one that was kept for the next mount.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from artifactfs.content.facts import Facts
from artifactfs.model.entry import Artifact, DirRef
from artifactfs.tree.layout import Level, Path
from artifactfs.tree.nodes import Listed, Node
from artifactfs.vfs.known import Known, KnownListings
from artifactfs.vfs.sources import Source

Shelve = Callable[[Listed, Mapping[Path, Level]], None]


@dataclass(slots=True)
class OwnChanges:
    """Puts the changes of this mount into what is known of listings.

    Attributes:
        known: what is known.
        tops: by listing point, the directory that shows it.
        shelve: told of each listing that is another one now.
        changes: how often a listing was changed here.
        changed_sources: whose listings were given up altogether.
        made: what was saved into listings of which a service shows only a part.
    """

    sources: Mapping[str, Source]
    facts: Facts
    known: KnownListings
    tops: Mapping[DirRef, tuple[Node, Listed]]
    shelve: Shelve
    changes: Counter[DirRef] = field(default_factory=Counter)
    changed_sources: set[str] = field(default_factory=set)
    made: dict[DirRef, dict[str, Artifact]] = field(default_factory=dict)

    def names(self, place: Listed) -> set[str]:
        """Return the names that are known in a directory."""
        known = self.known.peek(place.ref)
        level = known.levels.get(place.prefix) if known else None
        return set() if level is None else {*level.children, *level.hidden}

    def has_writable(self, place: Listed) -> bool:
        """Tell whether a directory is known to list something that can be saved."""
        known = self.known.peek(place.ref)
        level = known.levels.get(place.prefix) if known else None
        return level is not None and any(node.writable for node in level.children.values())

    def put(self, place: Listed, name: str, artifact: Artifact, node: Node) -> None:
        """Show an artifact that this mount has saved, without asking for the listing again."""
        self._unkept(place.ref)
        known = self.known.peek(place.ref)
        level = known.levels.get(place.prefix) if known else None
        if known is None or level is None:
            return
        self._take_out(level, artifact)
        level.children[name] = node
        self._shelved(place, known)
        if not known.complete:
            # A service that shows only some of its artifacts may never list this one.
            self.made.setdefault(place.ref, {})[artifact.key] = artifact

    def remove(self, place: Listed, artifact: Artifact) -> None:
        """Show an artifact no more that this mount has removed."""
        self._unkept(place.ref)
        self.made.get(place.ref, {}).pop(artifact.key, None)
        known = self.known.peek(place.ref)
        level = known.levels.get(place.prefix) if known else None
        if known is not None and level is not None:
            self._take_out(level, artifact)
            self._shelved(place, known)

    @staticmethod
    def _take_out(level: Level, artifact: Artifact) -> None:
        for name, node in list(level.children.items()):
            if node.artifact is not None and node.artifact.key == artifact.key:
                del level.children[name]

    def _unkept(self, ref: DirRef) -> None:
        """See that no listing from before a change is taken for the present one."""
        self.changes[ref] += 1
        source = self.sources[ref.source]
        if source.keeps_listings:
            self.facts.metadata.drop_listing(source.fingerprint, ref)

    async def durable(self, source: str) -> None:
        """Wait until no listing from before a change would be found after a kill."""
        if self.sources[source].keeps_listings:
            await self.facts.metadata.dropped()

    def _shelved(self, place: Listed, known: Known) -> None:
        top = self.tops.get(place.ref)
        if top is not None:
            self.shelve(top[1], known.levels)

    def unkeep(self, source: str, artifact: Artifact) -> None:
        """See that no listing that shows an artifact as it was before its save is kept for the next mount."""
        for ref, known in self.known:
            shown = (node.artifact for level in known.levels.values() for node in level.children.values())
            if ref.source == source and any(one is not None and one.key == artifact.key for one in shown):
                self._unkept(ref)

    def forget_source(self, source: str) -> None:
        """Ask for every listing of a source again at the next look."""
        self.changed_sources.add(source)
        for ref, _ in self.known:
            if ref.source == source:
                self.forget(ref)

    def forget(self, ref: DirRef) -> None:
        """Ask for a listing again at the next look: this mount has changed it."""
        self.changes[ref] += 1
        known = self.known.peek(ref)
        if known is not None:
            known.fetched_at, known.retry_at = -math.inf, -math.inf
