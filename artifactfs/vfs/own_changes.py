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
from artifactfs.tree.layout import Path
from artifactfs.tree.nodes import Listed, Node
from artifactfs.vfs.known import KnownListings
from artifactfs.vfs.sources import Source

# Entries of a listing that takes longer than a moment: a store on this machine gives some 20,000 in a second.
LARGE = 5000

Reshelve = Callable[[Listed, Path, Artifact | None, Artifact | None], None]
"""Told of a listing's top, of where in it, of the artifact that was shown there, and of the one that is now."""


@dataclass(slots=True)
class OwnChanges:
    """Puts the changes of this mount into what is known of listings.

    Attributes:
        known: what is known.
        tops: by listing point, the directory that shows it.
        reshelve: told of each artifact that is shown otherwise now.
        changes: how often a listing was changed here.
        changed_sources: whose listings were given up altogether.
        made: what was saved into listings of which a service shows only a part.
    """

    sources: Mapping[str, Source]
    facts: Facts
    known: KnownListings
    tops: Mapping[DirRef, tuple[Node, Listed]]
    reshelve: Reshelve = lambda _top, _prefix, _gone, _made: None
    changes: Counter[DirRef] = field(default_factory=Counter)
    changed_sources: set[str] = field(default_factory=set)
    made: dict[DirRef, dict[str, Artifact]] = field(default_factory=dict)

    def has_changed(self, ref: DirRef) -> bool:
        """Tell whether what was kept of a listing may be from before a change of this mount."""
        return ref in self.changes or ref.source in self.changed_sources

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
        gone = level.take_out(artifact.key)
        level.put(name, node)
        self._shelved(place, gone, artifact)
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
            gone = level.take_out(artifact.key)
            if gone is not None:
                self._shelved(place, gone, None)

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

    def _shelved(self, place: Listed, gone: Artifact | None, made: Artifact | None) -> None:
        top = self.tops.get(place.ref)
        if top is not None:
            self.reshelve(top[1], place.prefix, gone, made)

    def unkeep(self, source: str, artifact: Artifact) -> None:
        """See that no listing that shows an artifact as it was before its save is kept for the next mount."""
        for ref, known in self.known:
            if ref.source == source and any(level.of(artifact.key) is not None for level in known.levels.values()):
                self._unkept(ref)

    def forget_source(self, source: str) -> None:
        """Ask for every listing of a source again at the next look.

        A large one, which has the change itself by now, is believed for as long as it was to be: else each of many
        saves would wait until it is listed anew.
        """
        self.changed_sources.add(source)
        for ref, known in self.known:
            if ref.source == source and known.count() > LARGE:
                self.changes[ref] += 1
            elif ref.source == source:
                self.forget(ref)

    def forget(self, ref: DirRef) -> None:
        """Ask for a listing again at the next look: this mount has changed it."""
        self.changes[ref] += 1
        known = self.known.peek(ref)
        if known is not None:
            known.fetched_at, known.retry_at = -math.inf, -math.inf
