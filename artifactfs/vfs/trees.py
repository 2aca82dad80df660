"""The files of a version, as directories.

Rules of this file: a version's files are asked for once; the table is kept laid out for as long as there is room. What
is below a version id never changes; the present tree of an artifact that this mount may change follows its newest
version. Of an archive that is still on its way a name is shown as soon as its header is here; what its end says
otherwise of such a name, the kernel is told. An inode that was shown so stands for its content before anybody is shown
the whole tree, who would be told another number for it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

import trio
from cachetools import LRUCache

from artifactfs import errors
from artifactfs.content.archive_flight import ArchiveFlight
from artifactfs.content.reader import ContentReader
from artifactfs.model.entry import Archive, Artifact, Empty, SingleFile, Tree, TreeMember, Version
from artifactfs.tree import names, versions
from artifactfs.tree.layout import Level
from artifactfs.tree.nodes import Kind, Node, VersionDir
from artifactfs.vfs.history import History
from artifactfs.vfs.sources import Source

log = logging.getLogger(__name__)

# Trees of versions kept laid out; one of 2,000 files takes about 2 MB.
TREES = 64


Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Early:
    """A name that was shown before its archive had been read to its end: in which tree and directory, and what as."""

    tree: Key
    directory: Node
    place: VersionDir
    node: Node
    shown: tuple[object, ...]


def _shown(node: Node) -> tuple[object, ...]:
    """Return what the kernel may have been told of a node that is in an archive."""
    return (versions.apart_from_content(node.identity), node.size, node.mtime_ns, node.executable)


async def _nothing(_ino: int) -> None:
    """Do nothing."""


@dataclass(slots=True)
class Trees:
    """The trees of every version of a mount.

    ``confirmed`` is told of nodes that were shown early and are what they were shown as, with what they are called
    now; ``changed`` of names that stand for something else than they were shown as, ``spoiled`` of inodes whose
    bytes may be wrong.
    """

    sources: Mapping[str, Source]
    content: ContentReader
    history: History
    changed: Callable[[int, str], None] = lambda _parent, _name: None
    spoiled: Callable[[int], Awaitable[None]] = _nothing
    confirmed: Callable[[Node, Node], None] = lambda _early, _node: None
    _trees: LRUCache[Key, dict[str, Level]] = field(default_factory=lambda: LRUCache(TREES))
    _early: dict[str, dict[tuple[int, str], Early]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Hear of every archive that has arrived."""
        self.content.archives.landed = self._compare

    def forget(self, source: str, artifact: Artifact) -> None:
        """Lay the present trees of an artifact out anew: their nodes go on living as what was saved over them."""
        own = ("True", "edited", source, artifact.key)
        for known in [known for known in self._trees if known[2:6] == own]:
            del self._trees[known]

    async def level(self, node: Node, place: VersionDir) -> Level:
        """Return a directory of a version."""
        return await self._level(node, await self._newest(node, place))

    async def _newest(self, node: Node, place: VersionDir) -> VersionDir:
        """Return the place that a directory of the present has in the newest version."""
        if not (place.present and node.writable):
            return place
        artifact = await self.history.current(node.source, place.artifact)
        return VersionDir(artifact, artifact.current, place.path, present=True)

    async def _level(self, node: Node, place: VersionDir) -> Level:
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

    async def lookup(self, node: Node, place: VersionDir, name: str) -> Node | None:
        """Return what a name stands for in a directory of a version, None if for nothing."""
        place = await self._newest(node, place)
        content = place.version.content if place.version is not None else None
        if isinstance(content, Archive) and self._key(node, place, place.version) not in self._trees:
            flight = await self.content.arriving(content.ref)
            found = None if flight is None else await self._arrived(flight, content, node, place, name)
            if found is not None:
                return found
        level = await self._level(node, place)
        return level.children.get(name) or level.hidden.get(name)

    async def _arrived(
        self, flight: ArchiveFlight, archive: Archive, node: Node, place: VersionDir, name: str
    ) -> Node | None:
        """Wait for the header of a name alone; None if only the whole archive can tell what it stands for."""
        title = names.decode(name)
        if not title:
            return None
        member = await flight.child(list(filter(None, place.path.split("/"))), title)
        key = self._key(node, place, place.version)
        if member is None or flight.landed.is_set() or key in self._trees:
            return None
        shown = self.content.tree_member(archive.ref, member, flight.number)
        found = versions.member_node(self._tree_root(node, place), shown, name)
        found.immutable = False  # not before the archive has been verified
        self._early.setdefault(flight.number, {})[(node.ino, name)] = Early(key, node, place, found, _shown(found))
        return found

    async def _compare(self, flight: ArchiveFlight) -> None:
        """Have the kernel forget what it was shown of an archive and is not so, or is not sure any more."""
        for (parent, name), early in self._early.get(flight.number, {}).items():
            if not await self._is_laid_out(flight, early):
                self.changed(parent, name)
            if flight.error is not None:
                await self.spoiled(early.node.ino)
        self._early.pop(flight.number, None)

    async def _is_laid_out(self, flight: ArchiveFlight, early: Early) -> bool:
        if flight.error is not None:
            return False
        try:
            await self._tree(early.directory, early.place, early.place.version)
        except errors.ArtifactFSError as error:
            log.info("what was shown of an archive cannot be compared with its end: %s", error)
            return False
        return True

    def _lay_out(self, key: Key, levels: dict[str, Level]) -> None:
        """Show a tree from now on; what was shown of it stands for what that is, or the kernel forgets it."""
        self._trees[key] = levels
        of_it = [(at, one) for shown in self._early.values() for at, one in shown.items() if one.tree == key]
        for (parent, name), early in of_it:
            level = levels.get(early.place.path)
            node = level.children.get(name) if level is not None else None
            if node is None or _shown(node) != early.shown:
                self.changed(parent, name)
            elif node.identity != early.node.identity:
                self.confirmed(early.node, node)

    async def _tree(self, node: Node, place: VersionDir, version: Version | None) -> dict[str, Level]:
        key = self._key(node, place, version)
        levels = self._trees.get(key)
        if levels is None:
            members = await self.members(node.source, place.artifact, version)
            root = self._tree_root(node, place)
            levels = await trio.to_thread.run_sync(versions.tree_levels, root, members)
            self._lay_out(key, levels)
        return levels

    def _key(self, node: Node, place: VersionDir, version: Version | None) -> Key:
        # Both places of a version show the same files as different inodes: the present one may be edited.
        return (node.source, version.id if version else "", str(place.present), *self._root_identity(node, place))

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

    async def members(self, source: str, artifact: Artifact, version: Version | None) -> list[TreeMember]:
        """Return the files, directories and symlinks of a version."""
        match version.content if version is not None else None:
            case Archive(ref):
                index = await self.content.index(ref)
                return [self.content.tree_member(ref, member) for member in index.members]
            case Tree(locator):
                return list(await self.sources[source].provider.tree(artifact, locator))
            case _:
                return []
