"""Versions of artifacts: which there are, and which is the current one.

Rules of this file: what this mount saves is known at once, whatever an older listing says. A transient failure never
empties or shortens what is known. What an earlier mount knew is known, and as old as it is; who looks waits for what is
no longer believed only a moment, as ``listings`` does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import trio
from cachetools import LRUCache

from artifactfs import errors
from artifactfs.content.metadata import KeptVersions
from artifactfs.content.reader import ContentReader
from artifactfs.model.entry import Artifact, ArtifactKind, Version
from artifactfs.tree import versions
from artifactfs.tree.layout import Level
from artifactfs.tree.nodes import Node
from artifactfs.vfs.listings import GRACE_S, MAX_PAGES, RETRY_S, TRANSIENT
from artifactfs.vfs.sources import Source

# Versions in memory, about 0.5 kB each (measured); an artifact of more than these is asked for anew.
MAX_VERSIONS = 20_000


@dataclass(slots=True)
class KnownVersions:
    """What is known of the versions of one artifact.

    Attributes:
        ordered: oldest first.
        complete: False if there may be more.
        fetched_at: when the service gave them, by trio's clock.
        current: id of the version that was current then.
        retry_at: until then they are served without asking, since asking has failed, or is under way.
    """

    ordered: list[Version]
    complete: bool
    fetched_at: float
    current: str | None
    retry_at: float = -math.inf


@dataclass(slots=True)
class History:
    """The versions of every artifact of a mount.

    ``changed`` is told of source, artifact as it was known, and artifact, whenever that is news; ``settled`` that it is
    all for now.
    """

    sources: Mapping[str, Source]
    content: ContentReader
    _versions: LRUCache[tuple[str, str], KnownVersions] = field(
        default_factory=lambda: LRUCache(MAX_VERSIONS, lambda known: 1 + len(known.ordered))
    )
    _newest: dict[tuple[str, str], Artifact] = field(default_factory=dict)
    _newest_at: dict[tuple[str, str], float] = field(default_factory=dict)
    changed: Callable[[str, Artifact | None, Artifact], None] = lambda _source, _before, _artifact: None
    settled: Callable[[], None] = lambda: None

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
        known = self._versions.get(key) or await self._recall(key)
        if known is None or known.current != current:
            return await self._ask(key, artifact, known)
        now = trio.current_time()
        if now < known.fetched_at + self.sources[source].provider.listing_ttl_s or now < known.retry_at:
            return known
        with trio.move_on_after(GRACE_S):
            return await self._ask(key, artifact, known)
        known.retry_at = trio.current_time() + RETRY_S
        return known

    async def _ask(self, key: tuple[str, str], artifact: Artifact, known: KnownVersions | None) -> KnownVersions:
        try:
            return await self.content.flights.run(("versions", key), lambda: self._fetch_versions(key, artifact))
        except TRANSIENT:
            if known is None:
                raise
            known.retry_at = trio.current_time() + RETRY_S
            return known

    async def _recall(self, key: tuple[str, str]) -> KnownVersions | None:
        """Return the versions as an earlier mount knew them, or this one before they fell out of memory."""
        source = self.sources[key[0]]
        if not source.keeps_listings:
            return None
        kept = await self.content.facts.metadata.versions(source.fingerprint, key[1])
        if kept is None or key in self._versions:
            return self._versions.get(key)
        age_s = time.time() - kept.fetched_at
        fetched_at = trio.current_time() - age_s if age_s >= 0 else -math.inf  # the clock was set back
        known = KnownVersions(list(kept.ordered), kept.complete, fetched_at, kept.current)
        self._remember(key, known)
        return known

    def _remember(self, key: tuple[str, str], known: KnownVersions) -> None:
        if len(known.ordered) < MAX_VERSIONS:
            self._versions[key] = known

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
        self._remember(key, known)
        source = self.sources[key[0]]
        if source.keeps_listings:
            kept = KeptVersions(known.ordered, time.time(), known.complete, known.current)
            self.content.facts.metadata.keep_versions(source.fingerprint, key[1], kept)
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
            self.changed(source, before, artifact)

    def apply_listed(self, source: str, artifacts: Iterable[Artifact | None]) -> None:
        """Take over what a listing says of the artifacts that this mount may change.

        A file that has one version for ever is only remembered once it was saved here: nobody asks for others of it.
        """
        for artifact in artifacts:
            if artifact is None or not artifact.writable:
                continue
            if not _is_ever_the_same(artifact) or (source, artifact.key) in self._newest:
                self.apply_artifact(source, artifact)

    def let_go(self, source: str, artifacts: Iterable[Artifact | None]) -> None:
        """Forget what was only known from a listing that there is no room for; what this mount saved stays."""
        for artifact in artifacts:
            if artifact is None or not artifact.writable:
                continue
            key = (source, artifact.key)
            if self._newest.get(key) is artifact:
                del self._newest[key]
                self._newest_at.pop(key, None)

    def removed(self, source: str, artifact: Artifact) -> None:
        """Forget a file that this mount has removed, or replaced by another: its key does not come back."""
        key = (source, artifact.key)
        if artifact.kind is ArtifactKind.FILE:
            self._newest.pop(key, None)
            self._newest_at.pop(key, None)
            self._versions.pop(key, None)

    async def current(self, source: str, artifact: Artifact) -> Artifact:
        """Return an artifact as it was at most a listing's lifetime ago.

        Who works inside a tree never looks at the listing that would tell of other mounts' saves.
        """
        key = (source, artifact.key)
        known = self.sources[source]
        if trio.current_time() < self._newest_at.get(key, -math.inf) + known.provider.listing_ttl_s:
            return self.newest(source, artifact)
        flight = self.content.flights.start(("current", key), lambda: known.provider.refresh(artifact))
        found: Artifact | None = self.newest(source, artifact)
        # Nobody waits longer than a moment to see what was seen before.
        with trio.move_on_after(GRACE_S):
            try:
                found = await flight.wait()
            except TRANSIENT:
                self._newest_at[key] = trio.current_time() - known.provider.listing_ttl_s + RETRY_S
                return self.newest(source, artifact)
        if flight.result is None:
            self._newest_at[key] = trio.current_time() - known.provider.listing_ttl_s + RETRY_S
            return self.newest(source, artifact)
        if found is None or not found.writable:
            raise errors.NotFound(subject=artifact.path[-1])
        self.apply_artifact(source, found)
        self.settled()
        return self.newest(source, artifact)

    def believed_s(self, source: str, artifact: Artifact) -> float:
        """Return how much longer an artifact's current version is believed to be that, in seconds."""
        known_at = self._newest_at.get((source, artifact.key), -math.inf)
        return max(0.0, known_at + self.sources[source].provider.listing_ttl_s - trio.current_time())


def _is_ever_the_same(artifact: Artifact) -> bool:
    return artifact.only_version and artifact.kind is ArtifactKind.FILE
