"""What a rename does, once it is its turn.

Rules of this file: a rename between two artifacts is refused as a rename (``mv`` then copies), except of what is only
on this machine. Inodes keep their numbers over a rename: the kernel goes on using them under the new name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from artifactfs import errors
from artifactfs.journal.droppings import is_dropping
from artifactfs.model.entry import Artifact
from artifactfs.tree.nodes import Kind, Listed, Node, VersionDir
from artifactfs.vfs.directories import Directories
from artifactfs.vfs.overlay import Edit, is_below
from artifactfs.vfs.publishing import join
from artifactfs.vfs.writing import Writer


@dataclass(frozen=True, slots=True)
class Move:
    """A rename: from directory and name to directory and name."""

    old_parent: Node
    old_name: str
    node: Node
    new_parent: Node
    new_name: str
    target: Node | None


def changeable(node: Node) -> Artifact:
    """Return the artifact of a node that can be changed.

    Raises:
        ReadOnly: it cannot.
    """
    if not node.writable or node.artifact is None:
        message = "this cannot be changed"
        raise errors.ReadOnly(message)
    return node.artifact


@dataclass(slots=True)
class Renamer:
    """Renames for the sources that take writes; ``known_nodes`` are those the kernel knows."""

    directories: Directories
    writer: Writer
    known_nodes: Callable[[], Iterable[Node]]

    async def rename(self, move: Move) -> None:
        """Do a rename that its place accepts, inside of a change."""
        edit = self.writer.overlay.edits.get(move.node.ino)
        if move.node.kind is Kind.DIRECTORY:
            await self._rename_directory(move)
        elif edit is not None and edit.is_local:
            await self._place(edit, move)
        else:
            await self._rename_listed(move, edit)
        for parent in (move.old_parent, move.new_parent):
            if isinstance(parent.directory, Listed):
                self.directories.listings.forget(parent.directory.ref)

    async def _place(self, edit: Edit, move: Move) -> None:
        """Give a file that is only on this machine another name; over a listed one it becomes its next version."""
        overlay, node, target = self.writer.overlay, edit.node, move.target
        replaced = overlay.edits.get(target.ino) if target is not None else None
        overlay.hide(edit)
        if target is not None and not (replaced and replaced.is_local):
            artifact = changeable(target)
            edit.base, _ = await self.writer.beginner.freshen(move.new_parent, target, artifact)
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
        await self.writer.seal_again(edit)
        if not edit.staged.writers and edit.saving is None:
            await self.writer.settle(edit, in_turn=True)

    async def _rename_listed(self, move: Move, edit: Edit | None) -> None:
        node, place = move.node, move.new_parent.directory
        artifact = changeable(node)
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
            await self._repath(node, node.tree_path, path, changed)
        elif isinstance(place, Listed):
            node.artifact = await publisher.rename(artifact, place.ref, (*place.prefix, move.new_name))
            self.directories.apply_artifact(node.source, node.artifact)
        if replaced is not None:
            self.writer.overlay.orphan(replaced)
        self.writer.overlay.take_reserved(move.new_parent, move.new_name)  # the name is another artifact's now
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
            newest = self.directories.history.newest(node.source, artifact)
            changed = await self.writer.publisher(node.source).change_tree(newest, {path: None})
            self.directories.apply_artifact(node.source, changed)
        else:
            await self.writer.publisher(node.source).remove(artifact)
            overlay.reserve(move.old_parent, move.old_name, artifact)

    # -- renaming directories --------------------------------------------------------------------------------

    async def _rename_directory(self, move: Move) -> None:
        node, place, goal, target = move.node, move.node.directory, move.new_parent.directory, move.target
        if not isinstance(place, VersionDir):
            raise errors.NotPermitted
        changeable(node)
        if target is not None and (
            self.writer.overlay.names(target) or (await self.directories.children(target)).children
        ):
            raise errors.DirectoryNotEmpty(subject=move.new_name)
        publisher = self.writer.publisher(node.source)
        artifact = self.directories.history.newest(node.source, place.artifact)
        if place.path and isinstance(goal, VersionDir) and goal.artifact.key == artifact.key:
            path = join(goal.path, move.new_name)
            changed = await publisher.rename_in_tree(artifact, place.path, path)
            await self._repath(node, place.path, path, changed)
        elif not place.path and isinstance(goal, Listed):
            if target is not None and target.artifact is not None:
                await publisher.remove(target.artifact)
            changed = await publisher.rename(artifact, goal.ref, (*goal.prefix, move.new_name))
            self.directories.apply_artifact(node.source, changed)
        else:
            raise errors.CrossesArtifacts
        node.name, node.parent = move.new_name, move.new_parent.ino

    async def _repath(self, moved: Node, old: str, new: str, changed: Artifact) -> None:
        """Let the inodes of a tree at or below a path stand at another: the kernel keeps them over a rename."""
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
                await self.writer.seal_again(edit)

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
