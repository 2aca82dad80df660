"""Making and removing through the mount.

Rules of this file: what a place accepts is asked before anything is done. What is made or removed inside a tree, and
the removal of an artifact, is durable here when the call returns and published later; workflows and new trees are made
at the service at once. Names change one at a time (``Writer.order``).
"""

from __future__ import annotations

import os
import posixpath
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from artifactfs import errors
from artifactfs.journal.droppings import is_dropping, is_passing
from artifactfs.journal.records import Record
from artifactfs.journal.states import State
from artifactfs.model.content import Exact
from artifactfs.model.entry import Accepts, Artifact, Role
from artifactfs.providers.base import Change
from artifactfs.tree import names
from artifactfs.tree.layout import BY_ID, CONTROL, LATEST, SHELF
from artifactfs.tree.nodes import Kind, Listed, Node, VersionDir
from artifactfs.vfs import intents
from artifactfs.vfs.directories import Directories
from artifactfs.vfs.overlay import Edit, Gone, Job, Overlay, Removal, WorkTree, key_of
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


def changeable(node: Node) -> Artifact:
    """Return the artifact of a node that can be changed.

    Raises:
        ReadOnly: it cannot.
    """
    if not node.writable or node.artifact is None:
        message = "this cannot be changed"
        raise errors.ReadOnly(message)
    return node.artifact


def standing(node: Node, edit: Edit | None) -> Artifact:
    """Return the artifact that goes when the name of a listed file does: of a file made in its place, the one before.

    Raises:
        ReadOnly: it cannot be changed.
    """
    if edit is not None and edit.is_local and edit.base is not None:
        return edit.base
    return changeable(node)


@dataclass(slots=True)
class Namespace:
    """Changes of names for the sources that take writes."""

    directories: Directories
    writer: Writer

    @property
    def overlay(self) -> Overlay:
        """Return the changes of the mount."""
        return self.writer.overlay

    # -- what a place takes ----------------------------------------------------------------------------------

    def accepting(self, parent: Node, name: str, what: Accepts) -> None:
        """Refuse a place that takes no such thing, and a name that it cannot have.

        Raises:
            ReadOnly, NotPermitted: of the place.
            NameTooLong, NameNotAllowed: of the name.
        """
        self.writer.publisher(parent.source)
        match parent.directory:
            case Listed(accepts=accepts) as place:
                if not accepts & what and what & Accepts.FILES and self._is_for_a_save(parent, place, name):
                    pass
                elif not accepts:
                    message = "nothing can be made here"
                    raise errors.ReadOnly(message)
                elif not accepts & what:
                    message = "a file needs a workflow to be in" if what & Accepts.FILES else "not in this place"
                    raise errors.NotPermitted(message)
                self._not_reserved(parent, name)
            case VersionDir(present=True) if parent.writable:
                pass
            case _:
                message = "nothing can be made here"
                raise errors.ReadOnly(message)
        check_name(name)

    def _is_for_a_save(self, parent: Node, place: Listed, name: str) -> bool:
        """Tell whether a new file is part of saving one that is there, where no other can be made.

        A temporary name that will be renamed onto it, litter of its editor, or the file itself, removed a moment ago.
        """
        if self.overlay.removal_at(place, parent.source, name) is not None:
            return True
        return (is_dropping(name) or is_passing(name)) and self.directories.listings.has_writable(place)

    def _not_reserved(self, parent: Node, name: str) -> None:
        if name in RESERVED or self.directories.sources[parent.source].provider.is_artifact_id(name):
            message = f"{name} is a name of the tree itself"
            raise errors.NameNotAllowed(message)

    # -- making ----------------------------------------------------------------------------------------------

    async def create(self, parent: Node, name: str, *, executable: bool) -> Edit:
        """Begin a new file."""
        self.accepting(parent, name, Accepts.FILES)
        in_tree = isinstance(parent.directory, VersionDir)
        publisher = self.writer.publisher(parent.source)
        await publisher.permits(Change.SAVE if in_tree else Change.CREATE)
        if not (is_dropping(name) or is_passing(name)):
            # The name alone, of nothing: who closes a file does not always ask whether that went well.
            await trio.to_thread.run_sync(publisher.vet, name, Path(os.devnull), 0)
        await self.found_out(parent, name)
        return self.writer.create(parent, name, executable=executable)

    async def found_out(self, parent: Node, name: str) -> None:
        """Wait until it is known what became of a save of this name that is being taken back at this moment."""
        if isinstance(parent.directory, Listed):
            while (ghost := self.overlay.doomed_at(parent.directory, parent.source, name)) and ghost.is_under_way:
                await self.idle(ghost)

    async def mkdir(self, parent: Node, name: str) -> None:
        """Make a workflow, a tree artifact, or a directory in a tree."""
        self.accepting(parent, name, Accepts.WORKFLOWS | Accepts.TREES)
        publisher = self.writer.publisher(parent.source)
        match parent.directory:
            case Listed(accepts=accepts, ref=ref, prefix=prefix) as place:
                await self.free(place, parent.source, name)
                if accepts & Accepts.WORKFLOWS:
                    await publisher.make_workflow(name)
                    self.directories.listings.forget(ref)
                else:
                    await publisher.permits(Change.MAKE_TREE)
                    made = await publisher.create_tree(ref, (*prefix, name))
                    self.directories.apply_saved(parent.source, place, name, made, time.time_ns())
            case _:
                await publisher.permits(Change.SAVE)
                async with self.writer.order:
                    tree = self.writer.work_trees.tree(parent)
                    node = intents.made_node(tree, self._path(parent), name, Kind.DIRECTORY, time.time_ns())
                    tree.opaque.add(node.tree_path)
                    await self.put(parent, tree, name, node)

    async def symlink(self, parent: Node, name: str, target: str) -> None:
        """Make a symlink in a tree; one that leads out of it is not made.

        Raises:
            NotPermitted: it leads out, or this is no tree.
        """
        self.accepting(parent, name, Accepts.FILES)
        await self.writer.publisher(parent.source).permits(Change.SAVE)
        leads_out = posixpath.normpath(posixpath.join(self._path(parent), target)).startswith("..")
        if not isinstance(parent.directory, VersionDir) or not target or target.startswith("/") or leads_out:
            message = "a symlink can only be made in a tree, and leads to what is in it"
            raise errors.NotPermitted(message)
        async with self.writer.order:
            tree = self.writer.work_trees.tree(parent)
            node = intents.made_node(tree, self._path(parent), name, Kind.SYMLINK, time.time_ns())
            node.target, node.size = target, Exact(len(target.encode("utf-8", "surrogateescape")))
            await self.put(parent, tree, name, node)

    async def free(self, place: Listed, source: str, name: str) -> None:
        """Have an artifact removed now whose name was taken away here: another one wants it.

        Raises:
            ArtifactFSError: its service did not remove it.
        """
        ghost = self.overlay.doomed_at(place, source, name)
        if ghost is not None:
            await self.writer.writeback.now(ghost)
        removal = self.overlay.removals.get((key_of(place, source), name))
        if removal is not None and removal.given_to is None:
            await self.writer.writeback.now(removal)

    @staticmethod
    def _path(parent: Node) -> str:
        return parent.directory.path if isinstance(parent.directory, VersionDir) else ""

    async def put(self, parent: Node, tree: WorkTree, name: str, entry: Node | Gone) -> None:
        """Let a name in a tree stand for something, durably."""
        path = self._path(parent)
        tree.names.setdefault(path, {})[name] = entry
        tree.records.setdefault((path, name), tree.home.next_number())
        records = [intents.of_tree(tree), intents.of_name(tree, path, name, entry)]
        await trio.to_thread.run_sync(tree.home.journal.put, *records)
        self.changed(tree)

    def changed(self, tree: WorkTree) -> None:
        """Have a version made of a tree."""
        self.writer.writeback.schedule_tree(tree)

    # -- removing --------------------------------------------------------------------------------------------

    async def unlink(self, parent: Node, name: str, node: Node) -> None:
        """Remove a file from the present; who has it open keeps it."""
        edit = self.overlay.edits.get(node.ino)
        if edit is None or not edit.is_local:
            self._may_remove(parent, node)
        if isinstance(parent.directory, VersionDir):
            await self.writer.publisher(parent.source).permits(Change.SAVE)
            async with self.alone(node):
                await self._unlink_in_tree(parent, name, self.overlay.edits.get(node.ino))
            return
        async with self.alone(node):
            edit = self.overlay.edits.get(node.ino)
            if edit is None or not edit.is_local:
                await self.writer.publisher(parent.source).permits(Change.REMOVE)
            await self._unlink_listed(parent, name, node, edit)

    @staticmethod
    def _may_remove(parent: Node, node: Node) -> None:
        changeable(node)
        if not isinstance(parent.directory, Listed | VersionDir):
            message = "this cannot be removed"
            raise errors.ReadOnly(message)

    async def idle(self, job: Job | None) -> None:
        """Wait until a change is not being published: what becomes of it decides what a name stands for."""
        while job is not None and job.under_way is not None:
            await job.under_way.wait()

    @asynccontextmanager
    async def alone(self, *nodes: Node | None) -> AsyncIterator[None]:
        """Change names while the block runs, with none of these nodes being published."""
        inos = [node.ino for node in nodes if node is not None]
        while True:
            for ino in inos:
                edit = self.overlay.edits.get(ino)
                await self.idle(edit)
                if edit is not None:
                    async with edit.lock:  # it may just be made durable, under the name it has had
                        pass
            await self.writer.order.acquire()
            edits = [edit for ino in inos if (edit := self.overlay.edits.get(ino)) is not None]
            if not any(edit.is_under_way or edit.lock.locked() for edit in edits):
                break
            self.writer.order.release()  # something has begun in between
        try:
            yield
        finally:
            self.writer.order.release()

    async def _unlink_in_tree(self, parent: Node, name: str, edit: Edit | None) -> None:
        tree = self.writer.work_trees.tree(parent)
        await self.vacate(parent, tree, name)
        if edit is not None:
            await self.writer.lineage.orphan(edit)
        self.changed(tree)

    async def vacate(self, parent: Node, tree: WorkTree, name: str) -> None:
        """Let a name in a tree stand for nothing, durably."""
        records, gone = await self.vacated(parent, tree, name)
        await trio.to_thread.run_sync(lambda: tree.home.journal.put(*records, drop=gone))

    async def vacated(self, parent: Node, tree: WorkTree, name: str) -> tuple[list[Record], list[int]]:
        """Let a name in a tree stand for nothing; return what has to be written down of it, and what dropped."""
        path = self._path(parent)
        dropped = tree.records.pop((path, name), None)
        level = tree.names.setdefault(path, {})
        level.pop(name, None)
        records: list[Record] = []
        base = None if path in tree.opaque else await self._in_base(parent, name)
        if base is not None:
            level[name] = Gone(base.tree_path)
            tree.records[path, name] = tree.home.next_number()
            records = [intents.of_tree(tree), intents.of_name(tree, path, name, level[name])]
        if not level:
            del tree.names[path]
        return records, [dropped] if dropped is not None else []

    async def _in_base(self, parent: Node, name: str) -> Node | None:
        try:
            return await self.directories.lookup(parent, name)
        except errors.NotFound:
            return None

    async def _unlink_listed(self, parent: Node, name: str, node: Node, edit: Edit | None) -> None:
        removal: Removal | None = None
        if edit is not None and edit.replaces is not None:
            removal, edit.replaces = edit.replaces, None
            removal.given_to = None
        elif edit is None or not edit.is_local or edit.base is not None:
            removal = self.removal_of(parent, name, standing(node, edit))
        if edit is not None and edit.tries:
            removal = None  # what it has become is found out first, and then that is removed
            if edit.in_flight in {None, edit.staged} and node.handles:
                await self.writer.lineage.copied(edit)
            await self.writer.lineage.doom(edit)
        if removal is not None:
            await self.remove_later(removal)
        if edit is not None:
            edit.covers = None
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

    async def remove_later(self, removal: Removal) -> None:
        """Take an artifact's name away here, durably; its service hears of it when the name is not taken again."""
        await trio.to_thread.run_sync(removal.home.journal.put, intents.of_removal(removal))
        self.overlay.removals[key_of(removal.directory, removal.source), removal.name] = removal
        self.overlay.put(removal.directory, removal.source, removal.name, Gone())
        self.writer.writeback.schedule_removal(removal)

    async def rmdir(self, parent: Node, name: str, node: Node) -> None:
        """Remove an empty directory: of a tree, a tree artifact, or a workflow."""
        publisher = self.writer.publisher(parent.source)
        match node.directory:
            case VersionDir(present=True, artifact=artifact, path=path) if node.writable:
                if await self.shown_in(node):
                    raise errors.DirectoryNotEmpty(subject=name)
                if path:
                    await publisher.permits(Change.SAVE)
                    async with self.writer.order:
                        await self._rmdir_in_tree(parent, name, path)
                    return
                await publisher.permits(Change.REMOVE)
                await self.idle(self.overlay.tree_of(node.directory, node.source))
                await publisher.remove(artifact)
                await self._forget_tree(node)
            case Listed(ref=ref, role=Role.WORKFLOW):
                if await self.shown_in(node):
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
            self.directories.listings.forget(parent.directory.ref)

    async def _rmdir_in_tree(self, parent: Node, name: str, path: str) -> None:
        tree = self.writer.work_trees.tree(parent)
        tree.opaque.discard(path)
        below = tree.names.pop(path, {})
        dropped = [number for child in below if (number := tree.records.pop((path, child), None)) is not None]
        await self.vacate(parent, tree, name)
        await trio.to_thread.run_sync(lambda: tree.home.journal.put(intents.of_tree(tree), drop=dropped))
        self.changed(tree)

    async def _forget_tree(self, node: Node) -> None:
        tree = self.overlay.tree_of(node.directory, node.source)
        if tree is not None:
            del self.overlay.trees[tree.source, tree.base.key]
            numbers = [tree.number, *tree.records.values()]
            await trio.to_thread.run_sync(lambda: tree.home.journal.put(drop=numbers))

    async def shown_in(self, node: Node) -> list[str]:
        """Return the names that a directory shows, without the way to the ids."""
        own = self.overlay.names(node)
        shown = [name for name, entry in own.items() if isinstance(entry, Node)]
        if not self.overlay.hides_base(node):
            shown += [name for name in (await self.directories.children(node)).children if name not in own]
        return [name for name in shown if not (isinstance(node.directory, Listed) and name in RESERVED)]
