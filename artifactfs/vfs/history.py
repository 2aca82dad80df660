"""Versions of artifacts, and the files of a version.

Rules of this file: a version's files are asked for once; the table is kept laid out for as long as there is room. What
is below a version id never changes; the present tree of an artifact that this mount may change follows its newest
version.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import trio
from cachetools import LRUCache

from artifactfs import errors
from artifactfs.content.reader import ContentReader
from artifactfs.model.entry import Archive, Artifact, Empty, SingleFile, Tree, TreeMember, Version
from artifactfs.tree import versions
from artifactfs.tree.layout import Level
from artifactfs.tree.nodes import Kind, Node, VersionDir
from artifactfs.vfs.listings import MAX_PAGES, TRANSIENT
from artifactfs.vfs.sources import Source

# Trees of versions kept laid out; one of 2,000 files takes about 2 MB.
TREES = 64


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
    _trees: LRUCache[tuple[str, ...], dict[str, Level]] = field(default_factory=lambda: LRUCache(TREES))
    _newest: dict[tuple[str, str], Artifact] = field(default_factory=dict)
    _newest_at: dict[tuple[str, str], float] = field(default_factory=dict)

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
            # Their nodes go on living as what was saved over them: laid out anew if such a version comes back.
            own = ("True", "edited", source, artifact.key)
            for known in [known for known in self._trees if known[2:6] == own]:
                del self._trees[known]

    async def _current(self, source: str, artifact: Artifact) -> Artifact:
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

    async def version_level(self, node: Node, place: VersionDir) -> Level:
        """Return a directory of a version."""
        if place.present and node.writable:
            artifact = await self._current(node.source, place.artifact)
            place = VersionDir(artifact, artifact.current, place.path, present=True)
        version = place.version
        if version is None or isinstance(version.content, Empty):
            return Level()
        if isinstance(version.content, SingleFile):
            return versions.file_level(node, place)
        levels = await self._tree(node, place, version)
        level = levels.get(place.path)
        if level is None:
            raise errors.NotFound(subject=place.path)
        return level

    async def _tree(self, node: Node, place: VersionDir, version: Version) -> dict[str, Level]:
        # Both places of a version show the same files as different inodes: the present one may be edited.
        key = (node.source, version.id, str(place.present), *self._root_identity(node, place))
        levels = self._trees.get(key)
        if levels is None:
            members = await self._members(node.source, place.artifact, version)
            root = self._tree_root(node, place)
            levels = await trio.to_thread.run_sync(versions.tree_levels, root, members)
            self._trees[key] = levels
        return levels

    @staticmethod
    def _root_identity(node: Node, place: VersionDir) -> tuple[str, ...]:
        identity = node.identity
        return identity[: identity.index("/")] if place.path and "/" in identity else identity

    def _tree_root(self, node: Node, place: VersionDir) -> Node:
        """Return a node that stands for the root of the tree that ``node`` is in."""
        identity = self._root_identity(node, place)
        return Node(
            node.ino, identity, Kind.DIRECTORY, node.name,
            directory=VersionDir(place.artifact, place.version, "", place.present),
            # Not the time of ``node``, which may be any directory of the tree: the first one asked would decide.
            mtime_ns=(place.version and place.version.created_at_ns) or node.mtime_ns,
            immutable=node.immutable, artifact=node.artifact, version=node.version, writable=node.writable,
            source=node.source,
        )  # fmt: skip

    async def _members(self, source: str, artifact: Artifact, version: Version) -> list[TreeMember]:
        match version.content:
            case Archive(ref):
                index = await self.content.index(ref)
                return [self.content.tree_member(ref, index, member) for member in index.members]
            case Tree(locator):
                return list(await self.sources[source].provider.tree(artifact, locator))
            case _:
                return []
