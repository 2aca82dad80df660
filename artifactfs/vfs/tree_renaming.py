"""What a rename inside of a tree does.

Rules of this file: it is durable here, in one step, and published with the next version. A directory takes along all
that it shows. Inodes keep their numbers.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import trio

from artifactfs import errors
from artifactfs.journal.records import Record
from artifactfs.providers.base import Change
from artifactfs.tree.nodes import Kind, Node, VersionDir
from artifactfs.vfs import intents
from artifactfs.vfs.directories import Directories
from artifactfs.vfs.moves import Move, path_at
from artifactfs.vfs.namespace import Namespace
from artifactfs.vfs.overlay import Overlay, WorkTree, is_below, join, stays_here
from artifactfs.vfs.removing import Remover
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
            tree = self.writer.work_trees.tree(move.new_parent)
            replaced = self.overlay.edits.get(move.target.ino) if move.target is not None else None
            moved = self.overlay.edits.get(move.node.ino)
            if moved is not None and replaced is not None:
                moved.replace(replaced)
            below = await self._all_below(move.node) if move.node.kind is Kind.DIRECTORY else []
            for parent, child in ((move.old_parent, move.node), *below):
                await self._detach(parent, child)
            records = self._put(tree, move.new_parent, move.new_name, move.node)
            for parent, child in below:
                records += self._put(tree, parent, child.name, child)
            left, dropped = await self.remover.vacated(move.old_parent, tree, move.old_name)
            dropped += self._clear(tree, path_at(move.old_parent, move.old_name), move.node)
            records += [*left, intents.of_tree(tree)]
            # At once: after a kill it has the old name or the new one.
            await trio.to_thread.run_sync(lambda: tree.home.journal.put(*records, drop=dropped))
            if replaced is not None:
                await self.writer.lineage.orphan(replaced)
            self.namespace.changed(tree)

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
            entries += [self.overlay.saved.get(c.identity, c) for n, c in level.children.items() if n not in own]
        for entry in entries:
            found.append((top, entry))
            if entry.kind is Kind.DIRECTORY:
                found += await self._all_below(entry)
        return found

    async def _detach(self, parent: Node, node: Node) -> None:
        """Let the version that lists a node keep it as it is: the inode goes on under another name."""
        if self.overlay.hides_base(parent):
            return
        listed = (await self.directories.children(parent)).children
        if listed.get(node.name) is node:
            listed[node.name] = copy(node)

    def _put(self, tree: WorkTree, parent: Node, name: str, node: Node) -> list[Record]:
        """Let a node stand at a name of a tree; return what has to be written down of it."""
        place = parent.directory
        if not isinstance(place, VersionDir):
            raise TypeError(parent)
        path = join(place.path, name)
        self.overlay.leave(node)
        edit = self.overlay.edits.get(node.ino)
        if edit is not None:
            self.overlay.hide(edit)
            edit.directory, edit.is_local = place, True
        node.name, node.tree_path = name, path
        node.parent = parent.ino or node.parent
        if edit is None:
            node.identity = ("moved", tree.source, tree.base.key, path, str(node.ino))
        if node.kind is Kind.DIRECTORY:
            node.directory = VersionDir(tree.base, tree.base.current, path, present=True)
            tree.opaque.add(path)
        tree.names.setdefault(place.path, {})[name] = node
        if edit is not None:
            edit.shown = join(tree.shown, path) if tree.shown else edit.shown
            return intents.of_all(edit)
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
