"""Making, removing and renaming through the mount.

Rules of this file: what a place accepts is asked before anything is done; what is done is decided in its turn among
the changes, because the one before may have saved, moved or removed what a look-up has found.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from artifactfs import errors
from artifactfs.model.entry import Accepts, Artifact, Role
from artifactfs.tree import names
from artifactfs.tree.layout import BY_ID, CONTROL, LATEST, SHELF
from artifactfs.tree.nodes import Kind, Listed, Node, VersionDir
from artifactfs.vfs.directories import Directories
from artifactfs.vfs.overlay import Edit
from artifactfs.vfs.publishing import join
from artifactfs.vfs.renaming import Move, Renamer, changeable
from artifactfs.vfs.writing import Writer

RESERVED = frozenset({BY_ID, CONTROL, LATEST, SHELF})


def check_name(name: str) -> None:
    """Refuse a name that could not be given back as it was typed.

    Raises:
        NameTooLong: over 255 bytes.
        NameNotAllowed: not legal text.
    """
    if len(name.encode("utf-8", "surrogateescape")) > names.NAME_MAX:
        message = "a name has at most 255 bytes"
        raise errors.NameTooLong(message)
    if not names.is_legal(name):
        message = "this name cannot be kept as it is"
        raise errors.NameNotAllowed(message)


@dataclass(slots=True)
class Namespace:
    """Changes of names for the sources that take writes."""

    directories: Directories
    writer: Writer
    renamer: Renamer

    # -- what a place takes ----------------------------------------------------------------------------------

    def _accepting(self, parent: Node, name: str, what: Accepts) -> None:
        """Refuse a place that takes no such thing, and a name that it cannot have.

        Raises:
            ReadOnly, NotPermitted: of the place.
            NameTooLong, NameNotAllowed: of the name.
        """
        match parent.directory:
            case Listed(accepts=accepts):
                if not accepts:
                    message = "nothing can be made here"
                    raise errors.ReadOnly(message)
                if not accepts & what:
                    message = "a file needs a workflow to be in" if what & Accepts.FILES else "not in this place"
                    raise errors.NotPermitted(message)
                self._not_reserved(parent, name)
            case VersionDir(present=True) if parent.writable:
                pass
            case _:
                message = "nothing can be made here"
                raise errors.ReadOnly(message)
        check_name(name)

    def _not_reserved(self, parent: Node, name: str) -> None:
        if name in RESERVED or self.directories.sources[parent.source].provider.is_artifact_id(name):
            message = f"{name} is a name of the tree itself"
            raise errors.NameNotAllowed(message)

    # -- making ----------------------------------------------------------------------------------------------

    def create(self, parent: Node, name: str, *, executable: bool) -> Edit:
        """Begin a new file."""
        self._accepting(parent, name, Accepts.FILES)
        return self.writer.create(parent, name, executable=executable)

    async def mkdir(self, parent: Node, name: str) -> None:
        """Make a workflow, a tree artifact, or a directory in a tree."""
        self._accepting(parent, name, Accepts.WORKFLOWS | Accepts.TREES)
        await self.writer.turns.take(partial(self._mkdir, parent, name))

    async def _mkdir(self, parent: Node, name: str) -> None:
        publisher = self.writer.publisher(parent.source)
        match parent.directory:
            case Listed(accepts=accepts, ref=ref, prefix=prefix):
                if accepts & Accepts.WORKFLOWS:
                    await publisher.make_workflow(name)
                else:
                    await publisher.create_tree(ref, (*prefix, name))
                self._forget(parent)
            case VersionDir() as place:
                await self._change_tree(parent, place.artifact, {}, made=[join(place.path, name)])
            case _:  # pragma: no cover - _accepting has refused everything else
                raise errors.ReadOnly

    async def _change_tree(
        self, node: Node, artifact: Artifact, changes: dict[str, None], made: list[str] | None = None
    ) -> None:
        newest = self.directories.history.newest(node.source, artifact)
        changed = await self.writer.publisher(node.source).change_tree(newest, changes, made or [])
        self.directories.apply_artifact(node.source, changed)

    def _forget(self, node: Node) -> None:
        if isinstance(node.directory, Listed):
            self.directories.listings.forget(node.directory.ref)

    # -- removing --------------------------------------------------------------------------------------------

    async def unlink(self, parent: Node, name: str, node: Node) -> None:
        """Remove a file from the present; who has it open keeps it."""
        self.writer.publisher(parent.source)
        await self.writer.turns.take(partial(self._unlink, parent, name, node))

    async def _unlink(self, parent: Node, name: str, node: Node) -> None:
        edit = self.writer.overlay.edits.get(node.ino)
        if edit is not None and edit.is_local:
            if edit.base is not None and isinstance(parent.directory, Listed):
                self.writer.overlay.reserve(parent, name, edit.base)
        else:
            await self._take_out(parent, name, node)
        if edit is not None:
            self.writer.overlay.orphan(edit)

    async def _take_out(self, parent: Node, name: str, node: Node) -> None:
        """Remove what is listed under a name."""
        artifact = changeable(node)
        if node.tree_path:
            await self._change_tree(parent, artifact, {node.tree_path: None})
            return
        await self.writer.publisher(node.source).remove(artifact)
        self.writer.overlay.reserve(parent, name, artifact)
        self._forget(parent)

    async def rmdir(self, parent: Node, name: str, node: Node) -> None:
        """Remove an empty directory: of a tree, a tree artifact, or a workflow."""
        self.writer.publisher(parent.source)
        await self.writer.turns.take(partial(self._rmdir, parent, name, node))

    async def _rmdir(self, parent: Node, name: str, node: Node) -> None:
        publisher = self.writer.publisher(parent.source)
        if self.writer.overlay.names(node):
            raise errors.DirectoryNotEmpty(subject=name)
        match node.directory:
            case VersionDir(present=True, artifact=artifact, path=path) if node.writable:
                if (await self.directories.children(node)).children:
                    raise errors.DirectoryNotEmpty(subject=name)
                if path:
                    await self._change_tree(node, artifact, {path: None})
                else:
                    await publisher.remove(artifact)
            case Listed(ref=ref, role=Role.WORKFLOW):
                await publisher.remove_workflow(ref)  # says itself whether it is empty
            case Listed():
                message = "only workflows and trees can be removed"
                raise errors.NotPermitted(message)
            case _:
                message = "this cannot be removed"
                raise errors.ReadOnly(message)
        self._forget(parent)

    # -- renaming files --------------------------------------------------------------------------------------

    async def rename(self, move: Move) -> None:
        """Give a file or directory another name or place, instead of what is there."""
        node, target = move.node, move.target
        self.writer.publisher(move.old_parent.source)
        if target is node:
            return
        if move.old_parent.source != move.new_parent.source:
            raise errors.CrossesArtifacts
        if isinstance(node.directory, Listed):
            message = "only a tree, what is in it, and files can be renamed"
            raise errors.NotPermitted(message)
        self._accepting(move.new_parent, move.new_name, Accepts.FILES | Accepts.TREES)
        if target is not None and (target.kind is Kind.DIRECTORY) != (node.kind is Kind.DIRECTORY):
            raise errors.IsADirectory if target.kind is Kind.DIRECTORY else errors.NotADirectory
        await self.writer.turns.take(partial(self.renamer.rename, move))
