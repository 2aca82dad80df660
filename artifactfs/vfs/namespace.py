"""Making, removing and renaming through the mount.

Rules of this file: what a place accepts is asked before anything is done; what is done is decided in its turn among the
changes (``Writer.change``), because the one before may have saved, moved or removed what a look-up has found. A rename
between two artifacts is refused as a rename (``mv`` then copies), except of what is only on this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import trio

from artifactfs import errors
from artifactfs.journal.droppings import is_dropping
from artifactfs.model.entry import Accepts, Artifact, Role
from artifactfs.tree import names
from artifactfs.tree.layout import BY_ID, CONTROL, LATEST, SHELF
from artifactfs.tree.nodes import Kind, Listed, Node, VersionDir
from artifactfs.vfs.directories import Directories
from artifactfs.vfs.overlay import Edit, is_below
from artifactfs.vfs.publishing import intent_of, join
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


@dataclass(frozen=True, slots=True)
class Move:
    """A rename: from directory and name to directory and name."""

    old_parent: Node
    old_name: str
    node: Node
    new_parent: Node
    new_name: str
    target: Node | None


@dataclass(slots=True)
class Namespace:
    """Changes of names for the sources that take writes; ``known_nodes`` are those the kernel knows."""

    directories: Directories
    writer: Writer
    known_nodes: Callable[[], Iterable[Node]]

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

    @staticmethod
    def _changeable(node: Node) -> Artifact:
        """Return the artifact of a node that can be changed.

        Raises:
            ReadOnly: it cannot.
        """
        if not node.writable or node.artifact is None:
            message = "this cannot be changed"
            raise errors.ReadOnly(message)
        return node.artifact

    # -- making ----------------------------------------------------------------------------------------------

    def create(self, parent: Node, name: str, *, executable: bool) -> Edit:
        """Begin a new file."""
        self._accepting(parent, name, Accepts.FILES)
        return self.writer.create(parent, name, executable=executable)

    async def mkdir(self, parent: Node, name: str) -> None:
        """Make a workflow, a tree artifact, or a directory in a tree."""
        self._accepting(parent, name, Accepts.WORKFLOWS | Accepts.TREES)
        await self.writer.change(partial(self._mkdir, parent, name))

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
        await self.writer.change(partial(self._unlink, parent, name, node))

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
        artifact = self._changeable(node)
        if node.tree_path:
            await self._change_tree(parent, artifact, {node.tree_path: None})
            return
        await self.writer.publisher(node.source).remove(artifact)
        self.writer.overlay.reserve(parent, name, artifact)
        self._forget(parent)

    async def rmdir(self, parent: Node, name: str, node: Node) -> None:
        """Remove an empty directory: of a tree, a tree artifact, or a workflow."""
        self.writer.publisher(parent.source)
        await self.writer.change(partial(self._rmdir, parent, name, node))

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
        await self.writer.change(partial(self._rename, move))

    async def _rename(self, move: Move) -> None:
        edit = self.writer.overlay.edits.get(move.node.ino)
        if move.node.kind is Kind.DIRECTORY:
            await self._rename_directory(move)
        elif edit is not None and edit.is_local:
            await self._place(edit, move)
        else:
            await self._rename_listed(move, edit)
        self._forget(move.old_parent)
        self._forget(move.new_parent)

    async def _place(self, edit: Edit, move: Move) -> None:
        """Give a file that is only on this machine another name; over a listed one it becomes its next version."""
        overlay, node, target = self.writer.overlay, edit.node, move.target
        replaced = overlay.edits.get(target.ino) if target is not None else None
        overlay.hide(edit)
        if target is not None and not (replaced and replaced.is_local):
            artifact = self._changeable(target)
            edit.base = await self.writer.freshen(move.new_parent, target, artifact)
            # Of the listed file it stands for now: an unlink must take that out too.
            edit.is_local, node.artifact, node.tree_path = False, target.artifact, target.tree_path
        else:
            edit.base = replaced.base if replaced else self.writer.base_at(move.new_parent, move.new_name)
            edit.is_local, node.artifact, node.tree_path = True, None, ""
        if replaced is not None:
            overlay.orphan(replaced)
        await self._settle_at(edit, move)

    async def _settle_at(self, edit: Edit, move: Move, *, shown: bool = True) -> None:
        """Let an edit stand in its new place; make that durable, and save it if nobody writes any more."""
        place = move.new_parent.directory
        if not isinstance(place, Listed | VersionDir):
            raise errors.ReadOnly
        edit.directory, edit.node.name, edit.node.parent = place, move.new_name, move.new_parent.ino
        if shown:
            self.writer.overlay.show(edit)
        staged = edit.staged
        if staged.touched and (staged.sealed or staged.size):
            staged.intent = intent_of(edit, self.directories.sources[edit.node.source])
            await trio.to_thread.run_sync(self.writer.staging.seal, staged)
        if not staged.writers and edit.saving is None:
            await self.writer.settle(edit, in_turn=True)

    async def _rename_listed(self, move: Move, edit: Edit | None) -> None:
        node, place = move.node, move.new_parent.directory
        artifact = self._changeable(node)
        old_place = move.old_parent.directory
        in_tree = isinstance(place, VersionDir) and isinstance(old_place, VersionDir)
        if isinstance(place, VersionDir) != isinstance(old_place, VersionDir):
            raise errors.CrossesArtifacts
        if in_tree and isinstance(place, VersionDir) and place.artifact.key != artifact.key:
            raise errors.CrossesArtifacts
        replaced = self.writer.overlay.edits.get(move.target.ino) if move.target is not None else None
        target = None if replaced and replaced.is_local else move.target
        if is_dropping(move.new_name) or (target is not None and not in_tree):
            await self._rename_by_copy(move, artifact)
            return
        publisher = self.writer.publisher(node.source)
        if isinstance(place, VersionDir):
            newest = self.directories.history.newest(node.source, artifact)
            path = join(place.path, move.new_name)
            changed = await publisher.rename_in_tree(newest, node.tree_path, path)
            self._repath(node, node.tree_path, path, changed)
        elif isinstance(place, Listed):
            node.artifact = await publisher.rename(artifact, place.ref, (*place.prefix, move.new_name))
            self.directories.apply_artifact(node.source, node.artifact)
        if replaced is not None:
            self.writer.overlay.orphan(replaced)
        await self._follow(move, edit)

    async def _follow(self, move: Move, edit: Edit | None) -> None:
        """Let a renamed inode, and what is being written to it, stand under its new name."""
        if edit is not None:
            shown = move.old_name in self.writer.overlay.names(move.old_parent)
            self.writer.overlay.hide(edit)
            await self._settle_at(edit, move, shown=shown)
        move.node.name, move.node.parent = move.new_name, move.new_parent.ino

    async def _rename_by_copy(self, move: Move, artifact: Artifact) -> None:
        """Keep the content here under the new name, then take the old name out of the present."""
        overlay, node, path = self.writer.overlay, move.node, move.node.tree_path
        if node.ino not in overlay.edits:
            await self.writer.begin(node, copy=True)
        edit = overlay.edits[node.ino]
        edit.staged.touched = edit.staged.dirty = True
        overlay.hide(edit)
        overlay.leave(node)
        node.identity = ("draft", node.source, str(edit.staged.path))
        await self._place(edit, move)
        if path:
            await self._change_tree(move.old_parent, artifact, {path: None})
        else:
            await self.writer.publisher(node.source).remove(artifact)
            overlay.reserve(move.old_parent, move.old_name, artifact)

    # -- renaming directories --------------------------------------------------------------------------------

    async def _rename_directory(self, move: Move) -> None:
        node, place, goal, target = move.node, move.node.directory, move.new_parent.directory, move.target
        if not isinstance(place, VersionDir):
            raise errors.NotPermitted
        self._changeable(node)
        if target is not None and (
            self.writer.overlay.names(target) or (await self.directories.children(target)).children
        ):
            raise errors.DirectoryNotEmpty(subject=move.new_name)
        publisher = self.writer.publisher(node.source)
        artifact = self.directories.history.newest(node.source, place.artifact)
        if place.path and isinstance(goal, VersionDir) and goal.artifact.key == artifact.key:
            path = join(goal.path, move.new_name)
            changed = await publisher.rename_in_tree(artifact, place.path, path)
            self._repath(node, place.path, path, changed)
        elif not place.path and isinstance(goal, Listed):
            if target is not None and target.artifact is not None:
                await publisher.remove(target.artifact)
            changed = await publisher.rename(artifact, goal.ref, (*goal.prefix, move.new_name))
            self.directories.apply_artifact(node.source, changed)
        else:
            raise errors.CrossesArtifacts
        node.name, node.parent = move.new_name, move.new_parent.ino

    def _repath(self, moved: Node, old: str, new: str, changed: Artifact) -> None:
        """Let the inodes of a tree that stand at or below a path stand at another: the kernel keeps them over a rename."""
        self.directories.apply_artifact(moved.source, changed)
        for node in list(self.known_nodes()):
            if node.source == moved.source and node.writable and node.artifact and node.artifact.key == changed.key:
                self._repath_one(node, old, new)
        for edit, place in self.writer.overlay.in_tree(moved.source, changed.key):
            if not is_below(join(place.path, edit.node.name), old):
                continue
            # The path in the version it began from is another one: whether somebody overtook it is asked from here on.
            edit.base = changed
            if is_below(place.path, old):
                moved_to = VersionDir(place.artifact, place.version, new + place.path[len(old) :], present=True)
                self.writer.overlay.move(edit, moved_to)

    def _repath_one(self, node: Node, old: str, new: str) -> None:
        place = node.directory
        path = place.path if isinstance(place, VersionDir) and place.present else node.tree_path
        if not path or not is_below(path, old):
            return
        path = new + path[len(old) :]
        overlay = self.writer.overlay
        overlay.leave(node)
        # As member_node writes it: (..., "/", path, kind, what marks its content).
        at = node.identity.index("/") if "/" in node.identity else None
        if at is not None:
            node.identity = (*node.identity[: at + 1], path, *node.identity[at + 2 :])
            overlay.saved[node.identity] = node
        node.tree_path = path
        if isinstance(place, VersionDir):
            node.directory = VersionDir(place.artifact, place.version, path, place.present)
