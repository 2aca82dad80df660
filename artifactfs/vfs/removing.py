"""Removing through the mount.

Rules of this file: what is removed inside a tree, and the removal of an artifact, is durable here when the call returns
and published later; trees and workflows are removed at the service at once. Who has a file open keeps it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import trio

from artifactfs import errors
from artifactfs.journal.records import Record
from artifactfs.journal.states import State
from artifactfs.model.entry import Artifact, Role
from artifactfs.providers.base import Change
from artifactfs.tree.nodes import Listed, Node, VersionDir
from artifactfs.vfs import intents, removals
from artifactfs.vfs.directories import Directories
from artifactfs.vfs.edit_locks import all_locked
from artifactfs.vfs.namespace import Namespace, changeable, path_in_tree, standing
from artifactfs.vfs.overlay import Edit, Gone, Overlay, Removal, WorkTree
from artifactfs.vfs.tree_records import write_tree
from artifactfs.vfs.tree_taken import path_of
from artifactfs.vfs.writing import Writer


@dataclass(slots=True)
class Remover:
    """Removes, for the sources that take writes."""

    directories: Directories
    writer: Writer
    namespace: Namespace

    @property
    def overlay(self) -> Overlay:
        """Return the changes of the mount."""
        return self.writer.overlay

    async def unlink(self, parent: Node, name: str, node: Node) -> None:
        """Remove a file from the present; who has it open keeps it."""
        edit = self.overlay.edits.get(node.ino)
        if edit is None or not edit.is_local:
            self._may_remove(parent, node)
        if isinstance(parent.directory, VersionDir):
            await self.writer.publisher(parent.source).permits(Change.SAVE)
            async with self.namespace.alone(node):
                await self._unlink_in_tree(parent, name, node)
            return
        asked, known_as = edit is None or not edit.is_local, node.name
        if asked:  # before others of the source have to wait: its service may be asked
            await self.writer.publisher(parent.source).permits(Change.REMOVE)
        async with self.namespace.alone(node):
            edit = self.overlay.edits.get(node.ino)
            if not asked and (edit is None or not edit.is_local):  # it has just been published
                await self.writer.publisher(parent.source).permits(Change.REMOVE)
            name = self.namespace.name_now(parent, name, node, known_as)
            await self._unlink_listed(parent, name, node, self.namespace.displaced(node))

    @staticmethod
    def _may_remove(parent: Node, node: Node) -> None:
        changeable(node)
        if not isinstance(parent.directory, Listed | VersionDir):
            message = "this cannot be removed"
            raise errors.ReadOnly(message)

    async def _unlink_in_tree(self, parent: Node, name: str, node: Node) -> None:
        tree, edit = self.writer.work_trees.tree(parent), self.namespace.displaced(node)
        async with all_locked([edit]):
            self.writer.beginnings.note(tree, path_in_tree(parent), name, node)
            await self.vacate(parent, tree, name)
            if edit is not None:
                await self.writer.lineage.orphan(edit)
        self.namespace.changed(tree)

    async def vacate(self, parent: Node, tree: WorkTree, name: str) -> None:
        """Let a name in a tree stand for nothing, durably."""
        records, gone = await self.vacated(parent, tree, name)
        if records:
            await write_tree(tree, *records, drop=gone)
        else:
            await trio.to_thread.run_sync(lambda: tree.home.journal.put(drop=gone))

    async def vacated(self, parent: Node, tree: WorkTree, name: str) -> tuple[list[Record], list[int]]:
        """Let a name in a tree stand for nothing; return what has to be written down of it, and what dropped."""
        path = path_in_tree(parent)
        dropped = tree.records.pop((path, name), None)
        level = tree.names.setdefault(path, {})
        was = level.pop(name, None)
        records: list[Record] = []
        base = None if path in tree.opaque else await self._in_base(parent, name)
        whole = path_of(path, name, base or was or Gone())
        if base is not None or tree.may_be_sent(whole):
            level[name] = Gone(base.tree_path if base is not None else whole)
            tree.records[path, name] = tree.home.next_number()
            records = [intents.of_name(tree, path, name, level[name])]
        if not level:
            del tree.names[path]
        return records, [dropped] if dropped is not None else []

    async def _in_base(self, parent: Node, name: str) -> Node | None:
        try:
            return await self.directories.lookup(parent, name)
        except errors.NotFound:
            return None

    async def _unlink_listed(self, parent: Node, name: str, node: Node, edit: Edit | None) -> None:
        given = edit.replaces if edit is not None else None
        removal = given
        if given is None and (edit is None or not edit.is_local or edit.base is not None):
            removal = self.removal_of(parent, name, standing(node, edit))
        if edit is not None:
            edit.replaces = None
            if edit.tries and edit.in_flight in {None, edit.staged} and node.handles:
                await self.writer.lineage.copied(edit)
        async with all_locked([edit]):
            if edit is not None and edit.tries:
                await self.writer.lineage.doom(edit, given)  # what it has become is found out, and then that is removed
            elif removal is not None:
                removal.given_to = None
                # In one step: of both the next mount would show the file, and remove its artifact under whatever name.
                await self.remove_later(removal, drop=edit.saves if edit is not None else ())
            if edit is not None:
                await self.writer.lineage.orphan(edit)

    def removal_of(self, parent: Node, name: str, artifact: Artifact) -> Removal:
        """Return the removal of an artifact from its place."""
        if not isinstance(parent.directory, Listed):
            message = "this cannot be removed"
            raise errors.ReadOnly(message)
        home = self.writer.homes[parent.source]
        removal = Removal(
            source=parent.source, home=home, number=home.next_number(), state=State.SEALED, artifact=artifact,
            directory=parent.directory, name=name, shown=f"{self.writer.context.path_of(parent)}/{name}",
        )  # fmt: skip
        removal.acknowledged()
        return removal

    async def remove_later(self, removal: Removal, drop: Collection[int] = ()) -> None:
        """Take an artifact's name away here, durably; its service hears of it when the name is not taken again.

        At once with it, some records are forgotten.
        """
        await trio.to_thread.run_sync(partial(removal.home.journal.put, intents.of_removal(removal), drop=drop))
        removals.add(self.overlay, removal)
        self.overlay.put(removal.directory, removal.source, removal.name, Gone())
        self.writer.writeback.schedule_removal(removal)

    async def forget(self, removal: Removal) -> None:
        """Let go of a removal whose artifact goes in another way."""
        await trio.to_thread.run_sync(partial(removal.home.journal.put, drop=[removal.number]))
        removals.drop(self.overlay, removal)

    async def rmdir(self, parent: Node, name: str, node: Node) -> None:
        """Remove an empty directory: of a tree, a tree artifact, or a workflow."""
        publisher = self.writer.publisher(parent.source)
        match node.directory:
            case VersionDir(present=True, artifact=artifact, path=path) if node.writable:
                if await self.namespace.shown_in(node):
                    raise errors.DirectoryNotEmpty(subject=name)
                if path:
                    await publisher.permits(Change.SAVE)
                    async with self.writer.order(parent.source):
                        await self._rmdir_in_tree(parent, name, node, path)
                    return
                await publisher.permits(Change.REMOVE)
                await self.namespace.idle(self.overlay.tree_of(node.directory, node.source))
                await publisher.remove(artifact)
                await self._forget_tree(node)
            case Listed(ref=ref, role=Role.WORKFLOW):
                if await self.namespace.shown_in(node):
                    raise errors.DirectoryNotEmpty(subject=name)
                for removal in list(self.overlay.removals.values()):
                    if removal.directory.ref == ref and removal.given_to is None:
                        await self.writer.writeback.now(removal)
                await publisher.remove_workflow(ref)  # says itself whether it is empty
            case Listed():
                message = "only workflows and trees can be removed"
                raise errors.NotPermitted(message)
            case _:
                message = "this cannot be removed"
                raise errors.ReadOnly(message)
        if isinstance(parent.directory, Listed):
            self.directories.listings.own.forget(parent.directory.ref)

    async def _rmdir_in_tree(self, parent: Node, name: str, node: Node, path: str) -> None:
        tree = self.writer.work_trees.tree(parent)
        self.writer.beginnings.note(tree, path_in_tree(parent), name, node)
        tree.opaque.discard(path)
        below = tree.names.pop(path, {})
        dropped = [number for child in below if (number := tree.records.pop((path, child), None)) is not None]
        await self.vacate(parent, tree, name)
        await write_tree(tree, drop=dropped)
        self.namespace.changed(tree)

    async def _forget_tree(self, node: Node) -> None:
        tree = self.overlay.tree_of(node.directory, node.source)
        if tree is not None:
            del self.overlay.trees[tree.source, tree.base.key]
            numbers = [tree.number, *tree.records.values()]
            await trio.to_thread.run_sync(lambda: tree.home.journal.put(drop=numbers))
