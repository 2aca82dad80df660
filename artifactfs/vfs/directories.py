"""What stands in a directory, and what a name in it stands for.

Rules of this file: ``DirectoryKind`` is matched here and nowhere else. A complete listing answers a look-up of an
absent name without a request.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import assert_never

from artifactfs import errors
from artifactfs.content.reader import ContentReader
from artifactfs.model.entry import Artifact, ArtifactKind, Role
from artifactfs.tree import names, versions
from artifactfs.tree.inodes import ROOT, number
from artifactfs.tree.layout import CONTROL, Level, Place, id_link, lay_out, present_node
from artifactfs.tree.nodes import (
    ArtifactDir,
    ControlDir,
    IdShelf,
    Kind,
    Listed,
    MountRoot,
    Node,
    VersionDir,
    VersionsDir,
)
from artifactfs.vfs.history import History
from artifactfs.vfs.ids import Ids
from artifactfs.vfs.listings import Listings
from artifactfs.vfs.sources import Source, source_node
from artifactfs.vfs.trees import Trees


class Directories:
    """All directories of one mount."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        content: ContentReader,
        control: Callable[[Node], Level],
        *,
        show_ids: bool = False,
    ) -> None:
        """Wire what directories are made of."""
        self.sources = sources
        self.content = content
        self.control = control
        self.history = History(sources, content)
        self.trees = Trees(sources, content, self.history)
        self.history.changed = self._version_changed
        self.trees.changed = lambda parent, name: self.listings.changed(parent, name)  # noqa: PLW0108 - it is set later
        self.ids = Ids(sources, self.history)
        self.listings = Listings(
            sources, content, self.ids.shelve, unshelve=self.ids.unshelve, show_ids=show_ids
        )  # fmt: skip
        self.ids.wire(self.listings)
        self.listings.own.reshelve = self.ids.reshelve
        self.history.settled = self.listings.announcer.trees_told
        self._is_saving = False

    async def children(self, node: Node) -> Level:
        """Return the current content of a directory."""
        match node.directory:
            case MountRoot():
                return self._mount_root(node)
            case Listed() as place:
                return await self._listed(node, place)
            case IdShelf() as place:
                return await self.ids.level(node, place)
            case ArtifactDir(artifact):
                return await self.history.artifact_level(node, artifact)
            case VersionsDir(artifact):
                known = await self.history.versions_of(node.source, artifact)
                return versions.versions_level(node, known.ordered, complete=known.complete)
            case VersionDir() as place:
                return await self.trees.level(node, place)
            case ControlDir():
                return self.control(node)
            case None:
                raise errors.NotADirectory(subject=node.name)
            case _:
                assert_never(node.directory)

    async def lookup(self, node: Node, name: str) -> Node | None:
        """Return what a name stands for in a directory, None if for nothing."""
        if node.ino == ROOT and name == CONTROL:
            return control_node(node)  # whether the service at the root answers or not: it is then that somebody looks
        if isinstance(node.directory, IdShelf):
            artifact = await self.ids.find(node.source, node.directory, name)
            return None if artifact is None else versions.shelf_node(artifact, name, node.mtime_ns, node.source)
        if isinstance(node.directory, VersionDir):
            return await self.trees.lookup(node, node.directory, name)
        level = await self.children(node)
        found = level.children.get(name) or level.hidden.get(name)
        if found is not None:
            return found
        if isinstance(node.directory, Listed):
            return await self._unlisted(node, node.directory, level, name)
        if isinstance(node.directory, VersionsDir):
            return await self.history.by_id(node, node.directory.artifact, name)
        return None

    def absent_ttl_s(self, node: Node, name: str) -> float:
        """Return how long a name that was not found in a directory will not be there, in seconds.

        Not at all where this machine makes what is listed: a save here, or of another mount, is to be seen at once.
        """
        source = self.sources.get(node.source)
        if source is None or source.provider.is_here:
            return 0.0
        match node.directory:
            # A tree that is edited in place is the same inode in its next version.
            case VersionDir(artifact=artifact, present=True) if node.writable:
                return self.history.believed_s(node.source, artifact)
            # The files of a version: another version is another inode.
            case VersionDir(version=version) if version is not None:
                return math.inf
            # Ids resolve without being listed, and one that is made later is not announced.
            case Listed() as place if (title := names.decode(name)) and not source.provider.is_artifact_id(title):
                return self.listings.believed_s(place)
            case _:
                return 0.0

    def _mount_root(self, node: Node) -> Level:
        level = Level()
        given = names.assign((names.Claim(name, name, name, folder=True) for name in self.sources), reserved={CONTROL})
        for name, source in self.sources.items():
            level.children[given[name]] = source_node(source, given[name])
        level.hidden[CONTROL] = control_node(node)
        return level

    async def _listed(self, node: Node, place: Listed) -> Level:
        self.listings.announcer.stands_at(place, node.ino)
        known = await self.listings.get(node, place)
        level = known.levels.get(place.prefix)
        if level is None:
            raise errors.NotFound(subject=node.name)
        if node.ino == ROOT and CONTROL not in level.hidden:
            level.hidden[CONTROL] = control_node(node)
        return level

    async def _unlisted(self, node: Node, place: Listed, level: Level, name: str) -> Node | None:
        title = names.decode(name)
        if title is None:
            return None
        provider = self.sources[node.source].provider
        if place.role is Role.WORKFLOW and (
            provider.is_artifact_id(title) or name in await self.ids.shelf(place).by_name()
        ):
            shelf = IdShelf(place.ref, place.prefix)
            if await self.ids.find(node.source, shelf, name) is not None:
                return id_link(place.ref, place.prefix, title, node.mtime_ns)
        if place.prefix or level.complete:
            return None
        folder = await self.content.flights.run(
            ("resolve", place.ref, title), lambda: provider.resolve(place.ref, title)
        )
        if folder is None:
            return None
        spot = Place(
            place.ref, place.role, place.accepts, place.workflow, node.mtime_ns, provider.is_artifact_id
        )  # fmt: skip
        found = next(iter(lay_out([folder], spot, complete=True)[()].children.items()))[1]
        found.name = name
        return found

    def _version_changed(self, source: str, before: Artifact | None, artifact: Artifact) -> None:
        """Show the current version of an artifact; the kernel has seen what this mount has saved itself."""
        self.trees.forget(source, artifact)
        is_other = before is not None and before.current != artifact.current
        if is_other and artifact.kind is ArtifactKind.TREE and not self._is_saving:
            self.listings.announcer.tree_changed(source, artifact.key)

    def apply_artifact(self, source: str, artifact: Artifact) -> None:
        """Take over what a save made of an artifact."""
        self._is_saving = True
        self.history.apply_artifact(source, artifact)
        self._is_saving = False
        if self.sources[source].provider.is_here:
            self.listings.own.forget_source(source)
        else:
            self.listings.own.unkeep(source, artifact)

    def gone(self, node: Node, inode: Callable[[int], Node | None], error: errors.NotFound) -> errors.StaleContent:
        """Take note that a service does not have what it listed; return the error for who has it open.

        Its listing is asked for again by whoever looks next.
        """
        if error.status is not None:
            shown, above = node, inode(node.parent)
            while above is not None and not isinstance(above.directory, Listed) and above is not shown:
                shown, above = above, inode(above.parent)
            if above is not None and isinstance(above.directory, Listed):
                self.listings.doubt(above.directory.ref)
                self.listings.changed(above.ino, shown.name)
        message = f"what was opened is gone: {error}"
        return errors.StaleContent(message, provider=error.provider, status=error.status)

    def apply_saved(self, source: str, place: Listed, name: str, artifact: Artifact, mtime_ns: int) -> None:
        """Take over what a save made of an artifact that a listing shows, or will show when it is asked for again."""
        self.apply_artifact(source, artifact)
        self.listings.own.put(place, name, artifact, present_node(artifact, name, mtime_ns, source))

    def apply_removed(self, source: str, place: Listed, artifact: Artifact) -> None:
        """Take over that an artifact is in a listing no more."""
        self.listings.own.remove(place, artifact)
        if self.sources[source].provider.is_here:
            self.listings.own.forget_source(source)


def control_node(root: Node) -> Node:
    """Return ``.artifactfs``, which resolves at the top of the mount."""
    identity = ("control",)
    return Node(
        number(identity), identity, Kind.DIRECTORY, CONTROL, directory=ControlDir(), mtime_ns=root.mtime_ns
    )  # fmt: skip
