"""Versions of artifacts: which there are, and which is the current one.

Rules of this file: what this mount saves is known at once, whatever an older listing says. A transient failure never
empties or shortens what is known.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio

from artifactfs import errors
from artifactfs.content.reader import ContentReader
from artifactfs.model.entry import Artifact, Version
from artifactfs.tree import versions
from artifactfs.tree.layout import Level
from artifactfs.tree.nodes import Node
from artifactfs.vfs.listings import MAX_PAGES, TRANSIENT
from artifactfs.vfs.sources import Source


@dataclass(slots=True)
class KnownVersions:
    """What is known of the versions of one artifact."""

    ordered: list[Version]
    complete: bool
    fetched_at: float
    current: str | None


@dataclass(slots=True)
class History:
    """The versions of every artifact of a mount."""

    sources: Mapping[str, Source]
    content: ContentReader
    _versions: dict[tuple[str, str], KnownVersions] = field(default_factory=dict)
    _newest: dict[tuple[str, str], Artifact] = field(default_factory=dict)
    _newest_at: dict[tuple[str, str], float] = field(default_factory=dict)
    changed: Callable[[str, Artifact], None] = lambda _source, _artifact: None

    async def artifact_level(self, node: Node, artifact: Artifact) -> Level:
        """Return an artifact's own directory."""
        # Saved since the directory was looked up, perhaps: what is shown is what is true now.
        artifact = node.artifact = self.newest(node.source, artifact)
        known = await self.versions_of(node.source, artifact)
        latest = versions.latest_name(known.ordered, artifact.current)
        return versions.artifact_level(node, self.sources[node.source].provider.service, latest)

    async def versions_of(self, source: str, artifact: Artifact) -> KnownVersions:
        """Return the versions of an artifact, oldest first."""
        artifact = self.newest(source, artifact)
        current = artifact.current.id if artifact.current else None
        if artifact.only_version:
            only = [artifact.current] if artifact.current else []
            return KnownVersions(only, complete=True, fetched_at=math.inf, current=current)
        key = (source, artifact.key)
        known = self._versions.get(key)
        ttl = self.sources[source].provider.listing_ttl_s
        if known and known.current == current and trio.current_time() < known.fetched_at + ttl:
            return known
        try:
            return await self.content.flights.run(("versions", key), lambda: self._fetch_versions(key, artifact))
        except TRANSIENT:
            if known is None:
                raise
            return known

    async def _fetch_versions(self, key: tuple[str, str], artifact: Artifact) -> KnownVersions:
        provider = self.sources[key[0]].provider
        found: list[Version] = []
        cursor: str | None = None
        seen: set[str] = set()
        for _ in range(MAX_PAGES):
            page = await provider.versions(artifact, cursor)
            found.extend(page.versions)
            cursor = page.next_cursor
            if cursor is None or cursor in seen:
                break
            seen.add(cursor)
        current = artifact.current
        known = KnownVersions(
            versions.in_order(found, current),
            page.complete and cursor is None,
            trio.current_time(),
            current.id if current else None,
        )
        self._versions[key] = known
        return known

    async def by_id(self, node: Node, artifact: Artifact, name: str) -> Node | None:
        """Return the symlink for a version id or a unique prefix of one."""
        known = await self.versions_of(node.source, artifact)
        link = versions.by_prefix(node, known.ordered, name)
        if link is not None or known.complete:
            return link
        provider = self.sources[node.source].provider
        full = await self.content.flights.run(
            ("version", node.source, artifact.key, name), lambda: provider.find_version(artifact, name)
        )
        return None if full is None else versions.by_prefix(node, known.ordered, full)

    def newest(self, source: str, artifact: Artifact) -> Artifact:
        """Return the latest that is known of an artifact that this mount may change."""
        known = self._newest.get((source, artifact.key), artifact)
        return known if (known.updated_at_ns or 0) >= (artifact.updated_at_ns or 0) else artifact

    def apply_artifact(self, source: str, artifact: Artifact) -> None:
        """Take over what a listing or a save says of an artifact that this mount may change."""
        key = (source, artifact.key)
        self._newest_at[key] = trio.current_time()
        before = self._newest.get(key)
        if before is not None and (artifact.updated_at_ns or 0) < (before.updated_at_ns or 0):
            return  # a listing that was under way while the artifact was saved
        self._newest[key] = artifact
        if before is None or (before.current, before.updated_at_ns) != (artifact.current, artifact.updated_at_ns):
            self._versions.pop(key, None)
            self.changed(source, artifact)

    async def current(self, source: str, artifact: Artifact) -> Artifact:
        """Return an artifact as it was at most a listing's lifetime ago.

        Who works inside a tree never looks at the listing that would tell of other mounts' saves.
        """
        key = (source, artifact.key)
        known = self.sources[source]
        if trio.current_time() < self._newest_at.get(key, -math.inf) + known.provider.listing_ttl_s:
            return self.newest(source, artifact)
        try:
            found = await self.content.flights.run(
                ("current", key), lambda: known.provider.find(known.top, artifact.id)
            )
        except TRANSIENT:
            return self.newest(source, artifact)
        if found is None or not found.writable:
            raise errors.NotFound(subject=artifact.path[-1])
        self.apply_artifact(source, found)
        return self.newest(source, artifact)
