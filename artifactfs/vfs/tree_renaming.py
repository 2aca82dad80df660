"""What a rename inside of a tree does.

Rules of this file: it is durable here, in one step, and published with the next version. A directory takes along all
that it shows. Inodes keep their numbers.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from copy import copy
from dataclasses import dataclass

import trio

from artifactfs import errors
from artifactfs.journal.records import Record
from artifactfs.providers.base import Change
from artifactfs.tree.names import encoded, raw_name
from artifactfs.tree.nodes import Kind, Node, VersionDir
from artifactfs.vfs import intents
from artifactfs.vfs.directories import Directories
from artifactfs.vfs.edit_locks import all_locked
from artifactfs.vfs.moves import Move, path_at
from artifactfs.vfs.namespace import Namespace, path_in_tree
from artifactfs.vfs.overlay import Edit, Gone, Overlay, WorkTree, is_below, join, stays_here
from artifactfs.vfs.removing import Remover
from artifactfs.vfs.tree_records import write_tree
from artifactfs.vfs.writing import Writer


@dataclass(slots=True)
class TreeRenamer:
    """Renames what is in a tree within it."""

    directories: Directories
    writer: Writer
    namespace: Namespace
    remover: Remover

    @property
    def overlay(self) -> Overlay:
        """Return the changes of the mount."""
        return self.writer.overlay

    async def rename(self, move: Move) -> None:
        if not move.node.writable:
            message = "this cannot be changed"
            raise errors.ReadOnly(message)
        await self.writer.publisher(move.node.source).permits(Change.SAVE)
        if move.node.kind is Kind.DIRECTORY:
            if is_below(path_at(move.new_parent, move.new_name), move.node.tree_path):
                message = "a directory cannot go into itself"
                raise errors.InvalidRequest(message)
            if move.target is not None and await self.namespace.shown_in(move.target):
                raise errors.DirectoryNotEmpty(subject=move.new_name)
        await self.vet(move)
        await self._know(move)
        async with self.namespace.alone(move.node, move.target):
            self._check_stands(move)
            tree = self.writer.work_trees.tree(move.new_parent)
            replaced = self.namespace.displaced(move.target)
            moved = self.overlay.edits.get(move.node.ino)
            if moved is not None and replaced is not None:
                moved.over = tuple(replaced.saves)
            below = await self._all_below(move.node) if move.node.kind is Kind.DIRECTORY else []
            async with AsyncExitStack() as held:
                await held.enter_async_context(all_locked([replaced]))
                await self._hold(move, below, held)
                await self._move(move, tree, below, replaced)
                if replaced is not None:
                    if moved is not None:
                        await self.writer.lineage.keep_behind(moved, replaced)
                    await self.writer.lineage.orphan(replaced)
            self.namespace.changed(tree)

    def _check_stands(self, move: Move) -> None:
        """See that what is to be moved has its name still: its save may have come to nothing, or be kept beside.

        Raises:
            StaleContent: it has not; the kernel looks the name up again.
        """
        node = move.node
        is_nothing = node.kind is Kind.FILE and node.content is None and node.ino not in self.overlay.edits
        if is_nothing or node.name != move.old_name:
            raise errors.StaleContent("it was published, or given up, in the same moment")

    async def _hold(self, move: Move, below: list[tuple[Node, Node]], held: AsyncExitStack) -> None:
        """Keep what is moved at rest, and what is made in it and opened meanwhile, too: neither waits for a rename."""
        fresh, known = [(move.old_parent, move.node), *below], set[int]()
        while True:
            for parent, child in fresh:
                await self._detach(parent, child)
            fresh = self._made_since(move.node, below)
            below += fresh
            inos = [one.ino for one in (move.node, *(child for _, child in below)) if one.ino not in known]
            begun = [edit for ino in inos if (edit := self.overlay.edits.get(ino)) is not None]
            if not begun:
                return  # nothing is awaited between this and the new names
            known.update(edit.node.ino for edit in begun)
            await held.enter_async_context(all_locked(begun))

    def _made_since(self, top: Node, below: list[tuple[Node, Node]]) -> list[tuple[Node, Node]]:
        """Return the new files that a directory shows and that are not among what was found below it."""
        known = {child.ino for _, child in below}
        parents = [one for one in (top, *(child for _, child in below)) if one.kind is Kind.DIRECTORY]
        entries = ((parent, entry) for parent in parents for entry in self.overlay.names(parent).values())
        return [(parent, one) for parent, one in entries if isinstance(one, Node) and one.ino not in known]

    async def _move(
        self, move: Move, tree: WorkTree, below: list[tuple[Node, Node]], replaced: Edit | None
    ) -> None:  # fmt: skip
        """Let a node, and all below it, stand in its new place; ``replaced`` is the edit of what had its new name."""
        begun = [(move.new_parent, move.new_name, move.target), (move.old_parent, move.old_name, move.node)]
        for parent, name, node in (*begun, *((parent, child.name, child) for parent, child in below)):
            self.writer.beginnings.note(tree, path_in_tree(parent), name, node)
        old = join(path_in_tree(move.old_parent), raw_name(move.old_name, move.node.tree_path))
        known = move.target.tree_path if move.target is not None else ""
        records = self._put(tree, move.new_parent, move.new_name, move.node, known)
        # As long as nothing of what is moved is durable, what was saved under its new name is kept behind it.
        forgotten = replaced.saves if replaced is not None and records else []
        for parent, child in below:
            records += self._put(tree, parent, child.name, child, child.tree_path)
        left, dropped = await self.remover.vacated(move.old_parent, tree, move.old_name)
        dropped += self._clear(tree, old, move.node)
        # At once: after a kill it has the old name or the new one, and stands there itself.
        await write_tree(tree, *records, *left, drop=[*dropped, *forgotten])

    async def _know(self, move: Move) -> None:
        """Ask for what will be looked at, before others of the source have to wait for this rename."""
        if not self.overlay.hides_base(move.old_parent):
            await self.directories.children(move.old_parent)
        if move.node.kind is Kind.DIRECTORY:
            await self._all_below(move.node)

    async def _all_below(self, top: Node) -> list[tuple[Node, Node]]:
        """Return everything that a directory of a tree shows, each with its directory, from the top down."""
        found: list[tuple[Node, Node]] = []
        own = self.overlay.names(top)
        entries = [entry for entry in own.values() if isinstance(entry, Node)]
        if not self.overlay.hides_base(top):
            level = await self.directories.children(top)
            entries += [self._standing(top, c) for n, c in level.children.items() if n not in own]
        for entry in entries:
            found.append((top, entry))
            if entry.kind is Kind.DIRECTORY:
                found += await self._all_below(entry)
        return found

    def _standing(self, parent: Node, listed: Node) -> Node:
        """Return the inode of what a listing has: that of what is written to it, or was, or that the kernel knows."""
        edit = self.overlay.edits.get(listed.ino)
        found = edit.node if edit is not None else self.overlay.saved.get(listed.identity)
        if found is not None:
            return found
        listed.parent = parent.ino or listed.parent
        return self.writer.context.settle(listed)

    async def _detach(self, parent: Node, node: Node) -> None:
        """Let the version that lists a node keep it as it is: the inode goes on under another name."""
        if self.overlay.hides_base(parent):
            return
        listed = (await self.directories.children(parent)).children
        if listed.get(node.name) is node:
            listed[node.name] = copy(node)

    def _put(self, tree: WorkTree, parent: Node, name: str, node: Node, known: str) -> list[Record]:
        """Let a node stand at a name of a tree; return what has to be written down of it.

        ``known`` is a raw path that is shown under that name, if there is one.
        """
        place = parent.directory
        if not isinstance(place, VersionDir):
            raise TypeError(parent)
        path = join(place.path, raw_name(name, known))
        self.overlay.leave(node)
        edit = self.overlay.edits.get(node.ino)
        if edit is not None:
            self.overlay.hide(edit)
            # What its writer began with stood under another name: of what stands under this one it says nothing.
            edit.directory, edit.is_local, edit.base_sha256, edit.is_unhashed = place, True, None, False
            edit.shown = join(tree.shown, encoded(path)) if tree.shown else edit.shown
        node.name, node.tree_path = name, path
        node.parent = parent.ino or node.parent
        # Whatever will be listed where it was is not this.
        node.identity = ("moved", tree.source, tree.base.key, path, str(node.ino))
        if node.kind is Kind.DIRECTORY:
            node.directory = VersionDir(tree.base, tree.base.current, path, present=True)
            tree.opaque.add(path)
        names = tree.names.setdefault(place.path, {})
        before, names[name] = names.get(name), node
        if edit is not None and ((records := intents.of_all(edit)) or node.content is None):
            edit.covers = before if isinstance(before, Gone) else None
            return records
        # Whether somebody has it open or not, there is nothing else of it here that would be found again.
        tree.records.setdefault((place.path, name), tree.home.next_number())
        return [intents.of_name(tree, place.path, name, node)]

    @staticmethod
    def _clear(tree: WorkTree, old: str, node: Node) -> list[int]:
        """Forget what was changed below the old path of a directory: it was taken along; return its records."""
        if node.kind is not Kind.DIRECTORY:
            return []
        tree.opaque = {path for path in tree.opaque if not is_below(path, old)}
        for path in [path for path in tree.names if is_below(path, old)]:
            del tree.names[path]
        return [tree.records.pop(at) for at in list(tree.records) if is_below(at[0], old)]

    async def vet(self, move: Move) -> None:
        """Refuse what has stayed here until now and could not be stored under its new name."""
        edit = self.overlay.edits.get(move.node.ino)
        if edit is not None and not stays_here(path_at(move.new_parent, move.new_name)):
            publisher, staged = self.writer.publisher(edit.source), edit.staged
            await trio.to_thread.run_sync(publisher.vet, move.new_name, staged.path, staged.size)
