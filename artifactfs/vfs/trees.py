"""The files of a version, as directories.

Rules of this file: a version's files are asked for once; the table is kept laid out for as long as there is room. What
is below a version id never changes; the present tree of an artifact that this mount may change follows its newest
version.
"""

from __future__ import annotations

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
from artifactfs.vfs.history import History
from artifactfs.vfs.sources import Source

# Trees of versions kept laid out; one of 2,000 files takes about 2 MB.
TREES = 64


@dataclass(slots=True)
class Trees:
    """The trees of every version of a mount."""

    sources: Mapping[str, Source]
    content: ContentReader
    history: History
    _trees: LRUCache[tuple[str, ...], dict[str, Level]] = field(default_factory=lambda: LRUCache(TREES))

    def forget(self, source: str, artifact: Artifact) -> None:
        """Lay the present trees of an artifact out anew: their nodes go on living as what was saved over them."""
        own = ("True", "edited", source, artifact.key)
        for known in [known for known in self._trees if known[2:6] == own]:
            del self._trees[known]

    async def level(self, node: Node, place: VersionDir) -> Level:
        """Return a directory of a version."""
        if place.present and node.writable:
            artifact = await self.history.current(node.source, place.artifact)
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
