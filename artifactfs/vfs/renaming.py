"""What a rename does.

Rules of this file: a rename between two artifacts is refused as a rename (``mv`` then copies), except of what is only
on this machine. Inodes keep their numbers over a rename: the kernel goes on using them under the new name. An artifact
is renamed at its service at once.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace

import trio

from artifactfs import errors
from artifactfs.journal.droppings import is_dropping
from artifactfs.model.entry import Accepts, Artifact
from artifactfs.providers.base import Change
from artifactfs.tree.names import raw_name
from artifactfs.tree.nodes import Kind, Listed, Node, VersionDir
from artifactfs.vfs import attempts, intents
from artifactfs.vfs.directories import Directories
from artifactfs.vfs.edit_locks import all_locked
from artifactfs.vfs.moves import Move
from artifactfs.vfs.namespace import Namespace, changeable, path_in_tree, standing
from artifactfs.vfs.overlay import Edit, Overlay, Removal, Spot, join
from artifactfs.vfs.removing import Remover
from artifactfs.vfs.tree_records import write_tree
from artifactfs.vfs.tree_renaming import TreeRenamer
from artifactfs.vfs.writing import Writer


@dataclass(slots=True)
class Renamer:
    """Renames for the sources that take writes."""

    directories: Directories
    writer: Writer
    namespace: Namespace
    remover: Remover
    in_tree: TreeRenamer = field(init=False)

    def __post_init__(self) -> None:
        """Wire what renames in trees."""
        self.in_tree = TreeRenamer(self.directories, self.writer, self.namespace, self.remover)

    @property
    def overlay(self) -> Overlay:
        """Return the changes of the mount."""
        return self.writer.overlay

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
        what = Accepts.TREES if node.kind is Kind.DIRECTORY else Accepts.FILES
        if target is None or not target.writable:
            self.namespace.accepting(move.new_parent, move.new_name, what)
        if target is not None and (target.kind is Kind.DIRECTORY) != (node.kind is Kind.DIRECTORY):
            raise errors.IsADirectory if target.kind is Kind.DIRECTORY else errors.NotADirectory
        edit, known_as = self.overlay.edits.get(node.ino), node.name
        await self.namespace.idle(edit)  # it may be no edit any more then
        move = replace(move, old_name=self.namespace.name_now(move.old_parent, move.old_name, node, known_as))
        edit = self.overlay.edits.get(node.ino)
        if self._same_tree(move):
            await self.in_tree.rename(move)
        elif edit is not None and edit.is_local and (edit.base is None or edit.in_tree):
            await self._place(edit, move)
        else:
            await self._rename_artifact(move)

    @staticmethod
    def _same_tree(move: Move) -> bool:
        old, new = move.old_parent.directory, move.new_parent.directory
        return (
            isinstance(old, VersionDir) and isinstance(new, VersionDir) and old.artifact.key == new.artifact.key
        )  # fmt: skip

    def _alone(self, move: Move) -> AbstractAsyncContextManager[None]:
        """Change names while nothing of a rename is published, nor what went from its new name a moment ago.

        Until the end of that is known what takes the name could not go on with it, and would be another file beside it.
        """
        place = move.new_parent.directory
        ghost = self.overlay.doomed_at(place, move.node.source, move.new_name) if isinstance(place, Listed) else None
        return self.namespace.alone(move.node, move.target, None if ghost is None else ghost.node)

    # -- what is only here -----------------------------------------------------------------------------------

    async def _place(self, edit: Edit, move: Move) -> None:
        """Give a file that is only on this machine another name; over a listed one it becomes its next version."""
        await self.in_tree.vet(move)
        async with self._alone(move):
            if self.overlay.edits.get(move.node.ino) is edit and edit.is_local:
                tree = self.overlay.tree_of(edit.directory, edit.source)
                if tree is not None and not {edit.staged, edit.in_flight}.isdisjoint(tree.sending):
                    raise errors.CrossesArtifacts  # it is on its way: its bytes are the tree's until that has ended
                await self._place_in_order(edit, move)
                return
        await self._rename_artifact(move)  # it has just been published

    async def _place_in_order(self, edit: Edit, move: Move, removal: Removal | None = None) -> None:
        """Give an edit another place; what is to be removed from the old one is so in the same step."""
        place = move.new_parent.directory
        if not isinstance(place, Listed | VersionDir):
            raise errors.ReadOnly
        replaced, ghost = self.namespace.displaced(move.target), await self._left_behind(edit)
        try:
            async with all_locked([replaced]):  # else it could become durable meanwhile, and have the name again
                async with edit.lock:  # so could this one, under its old name
                    await self._put(edit, move, place, replaced)
                await self._make_durable(edit, ghost, replaced, removal)
        except BaseException:
            if ghost is not None:
                self.writer.lineage.rejoin(ghost, edit)
            raise
        finally:
            if ghost is not None and ghost.held is not None:
                ghost.held.set()
                ghost.held = None
                self.writer.writeback.wake()
        if not edit.staged.writers:
            self.writer.writeback.schedule(edit)

    async def _put(self, edit: Edit, move: Move, place: Spot, replaced: Edit | None) -> None:
        node = edit.node
        if isinstance(place, VersionDir):
            tree = self.writer.work_trees.tree(move.new_parent)
            self.writer.beginnings.note(tree, place.path, move.new_name, move.target)
            if tree.since_ns and tree.began:
                await write_tree(tree)
        old_tree = self.overlay.tree_of(edit.directory, edit.source)
        if old_tree is not None:
            self.writer.beginnings.note(old_tree, path_in_tree(move.old_parent), move.old_name, node)
        self.overlay.hide(edit)
        if old_tree is not None:
            await self.remover.vacate(move.old_parent, old_tree, move.old_name)
        edit.is_unhashed = False  # what its writer began with stood under another name
        edit.directory, edit.node.name, edit.node.parent = place, move.new_name, move.new_parent.ino
        if old_tree is not None:
            await self.writer.lineage.untried(edit)
            self.namespace.changed(old_tree)
        if isinstance(place, VersionDir):
            edit.base, edit.base_sha256 = self.writer.work_trees.tree(move.new_parent).base, None
            known = move.target.tree_path if move.target else ""
            node.artifact, node.tree_path = place.artifact, join(place.path, raw_name(move.new_name, known))
        else:
            self._stand_for(edit, move.target, replaced)
        if replaced is not None:
            edit.over = tuple(replaced.saves)
        self.overlay.show(edit)

    async def _left_behind(self, edit: Edit) -> Edit | None:
        """Leave what may be at the service under the old name; it is not taken back before all else is durable."""
        if not edit.tries or edit.in_tree:
            return None
        lineage = self.writer.lineage
        if edit.in_flight in {None, edit.staged}:
            await lineage.copied(edit)
        ghost = lineage.ghost_of(edit)
        ghost.held = trio.Event()
        lineage.leave_to(ghost, edit)
        return ghost

    async def _make_durable(
        self, edit: Edit, ghost: Edit | None, replaced: Edit | None, removal: Removal | None
    ) -> None:
        """Make the new place of an edit durable before others are forgotten: a crash in between must find one."""
        removed = [intents.of_removal(removal)] if removal is not None and ghost is None else []
        if ghost is not None and self.writer.sealing.is_sealed_again(edit):
            removed = [intents.of_edit(ghost)]  # else not before what it was is kept behind the edit
        await self.writer.sealing.seal_again(edit, *removed)
        if ghost is not None:
            await self.writer.lineage.doom_moved(ghost, edit)
        if replaced is not None:
            async with edit.lock:
                await self.writer.lineage.keep_behind(edit, replaced)
            await self.writer.lineage.orphan(replaced)

    def _stand_for(self, edit: Edit, target: Node | None, replaced: Edit | None) -> None:
        """Let an edit in a listed directory be the next version of what has its name, if anything has."""
        node = edit.node
        if replaced is not None and self.writer.lineage.inherit(edit, replaced):
            return
        if target is not None and not (replaced and replaced.is_local):
            edit.base, edit.is_local = changeable(target), False
            edit.base_sha256 = (
                replaced.base_sha256 if replaced else self.writer.beginner.sha256_of(target.content)
            )  # fmt: skip
            # Of the listed file it stands for now: an unlink must take that out too.
            node.artifact, node.tree_path = target.artifact, target.tree_path
            return
        # Of what it held under its old name the one that it replaces has nothing.
        edit.base, edit.base_sha256 = replaced.base if replaced else None, None
        if replaced is not None and replaced.base is None:
            # A try of it may have reached the service in spite of its failure: what that made is this one's.
            edit.tries, edit.facts = replaced.tries, dict(replaced.facts)
        edit.is_local, node.artifact, node.tree_path = True, None, ""
        if replaced is not None and replaced.replaces is not None:
            edit.replaces, replaced.replaces = replaced.replaces, None
            edit.replaces.given_to = edit
        else:
            self.writer.lineage.take_name(edit, node.name)

    # -- artifacts -------------------------------------------------------------------------------------------

    async def _rename_artifact(self, move: Move) -> None:
        node, old, new = move.node, move.old_parent.directory, move.new_parent.directory
        edit = self.overlay.edits.get(node.ino)
        standing(node, edit)  # or it cannot be changed
        if not isinstance(old, Listed) or not isinstance(new, Listed):
            raise errors.CrossesArtifacts
        publisher = self.writer.publisher(node.source)
        if node.kind is Kind.DIRECTORY:
            if move.target is not None:
                if await self.namespace.shown_in(move.target):
                    raise errors.DirectoryNotEmpty(subject=move.new_name)
                await publisher.remove(changeable(move.target))
        elif is_dropping(move.new_name) or move.target is not None or (edit is not None and edit.is_local):
            await publisher.permits(Change.REMOVE)
            await self._rename_by_copy(move)
            return
        await publisher.permits(Change.RENAME)
        await self.namespace.free(new, node.source, move.new_name)
        async with self.namespace.unsaved(node):
            artifact = standing(node, self.overlay.edits.get(node.ino))
            renamed = await publisher.rename(artifact, new.ref, (*new.prefix, move.new_name))
            async with self.namespace.alone(node):
                edit = self.overlay.edits.get(node.ino)
                self.directories.apply_removed(node.source, old, artifact)
                self.directories.apply_saved(node.source, new, move.new_name, renamed, node.mtime_ns)
                await self._follow(move, edit, renamed)

    async def _follow(self, move: Move, edit: Edit | None, renamed: Artifact) -> None:
        """Let a renamed inode, and what is being written to it, stand under its new name."""
        node = move.node
        node.artifact = renamed
        if edit is not None:
            shown = self.overlay.names(move.old_parent).get(move.old_name) is node
            self.overlay.hide(edit)
            edit.directory, edit.base = move.new_parent.directory, renamed  # type: ignore[assignment]  # it is Listed
            node.name = move.new_name
            if shown:
                self.overlay.show(edit)
            async with edit.lock:
                await attempts.write_down(edit)  # of what may be at the service, too
            await self.writer.sealing.seal_again(edit)
        node.name, node.parent = move.new_name, move.new_parent.ino

    async def _rename_by_copy(self, move: Move) -> None:
        """Keep the content here under the new name, then take the old name out of the present."""
        node = move.node
        edit = await self.writer.begin(node, copy=True)
        await self.in_tree.vet(move)
        async with self._alone(move):
            if self.overlay.edits.get(node.ino) is not edit:
                raise errors.StaleContent("it was published in the same moment; try again")
            artifact = standing(node, edit)  # now: it may have been saved meanwhile
            edit.staged.touched = edit.staged.dirty = True
            self.overlay.hide(edit)
            self.overlay.leave(node)
            node.identity = ("draft", node.source, str(edit.staged.path))
            given, edit.replaces = edit.replaces, None
            removal = given or self.remover.removal_of(move.old_parent, move.old_name, artifact)
            was_tried = edit.tries > 0
            if not was_tried:
                removal.given_to = None
            edit.is_local = True
            await self._place_in_order(edit, move, removal)
            if not was_tried:  # else what it has become is found out first, and then that is removed: by nothing else
                await self.remover.remove_later(removal)
            elif given is not None:
                await self.remover.forget(given)
