"""What a place takes, and making things there.

Rules of this file: what a place accepts is asked before anything is done. What is made inside a tree is durable here
when the call returns and published later; workflows and new trees are made at the service at once. Names of one
source change one at a time (``Writer.order``); nobody asks a service meanwhile, if that can be avoided.
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
from artifactfs.model.entry import Accepts, Artifact
from artifactfs.providers.base import Change
from artifactfs.tree import names
from artifactfs.tree.layout import BY_ID, CONTROL, LATEST, SHELF
from artifactfs.tree.nodes import Kind, Listed, Node, VersionDir, link_size
from artifactfs.vfs import intents
from artifactfs.vfs.directories import Directories
from artifactfs.vfs.overlay import Edit, Gone, Job, Overlay, WorkTree, key_of
from artifactfs.vfs.tree_records import write_tree
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


def path_in_tree(parent: Node) -> str:
    """Return the path of a directory in its tree."""
    return parent.directory.path if isinstance(parent.directory, VersionDir) else ""


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
        return (is_dropping(name) or is_passing(name)) and self.directories.listings.own.has_writable(place)

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
                    self.directories.listings.own.forget(ref)
                else:
                    await publisher.permits(Change.MAKE_TREE)
                    made = await publisher.create_tree(ref, (*prefix, name))
                    self.directories.apply_saved(parent.source, place, name, made, time.time_ns())
            case _:
                await publisher.permits(Change.SAVE)
                async with self.writer.order(parent.source):
                    tree = self.writer.work_trees.tree(parent)
                    node = intents.made_node(tree, path_in_tree(parent), name, Kind.DIRECTORY, time.time_ns())
                    tree.opaque.add(node.tree_path)
                    await self.put(parent, tree, name, node)

    async def symlink(self, parent: Node, name: str, target: str) -> None:
        """Make a symlink in a tree; one that leads out of it is not made.

        Raises:
            NotPermitted: it leads out, or this is no tree.
            NameNotAllowed: it has a name that stands for nothing in any tree.
        """
        self.accepting(parent, name, Accepts.FILES)
        await self.writer.publisher(parent.source).permits(Change.SAVE)
        meant = names.meant_target(target)
        if meant is None:
            raise errors.NameNotAllowed("a symlink that would not lead there when it is read again", subject=name)
        leads_out = posixpath.normpath(posixpath.join(path_in_tree(parent), meant)).startswith("..")
        if not isinstance(parent.directory, VersionDir) or not meant or meant.startswith("/") or leads_out:
            message = "a symlink can only be made in a tree, and leads to what is in it"
            raise errors.NotPermitted(message)
        async with self.writer.order(parent.source):
            tree = self.writer.work_trees.tree(parent)
            node = intents.made_node(tree, path_in_tree(parent), name, Kind.SYMLINK, time.time_ns())
            node.target, node.size = meant, link_size(meant)
            await self.put(parent, tree, name, node)

    async def free(self, place: Listed, source: str, name: str) -> None:
        """Have each artifact removed now whose name was taken away here: another one wants it.

        Raises:
            ArtifactFSError: its service did not remove it.
        """
        ghost = self.overlay.doomed_at(place, source, name)
        if ghost is not None:
            await self.writer.writeback.now(ghost)
        at = (key_of(place, source), name)
        while (removal := self.overlay.removals.get(at)) is not None and removal.given_to is None:
            await self.writer.writeback.now(removal)

    async def put(self, parent: Node, tree: WorkTree, name: str, entry: Node | Gone) -> None:
        """Let a name in a tree stand for something, durably."""
        path = path_in_tree(parent)
        self.writer.beginnings.note(tree, path, name, None)
        tree.names.setdefault(path, {})[name] = entry
        tree.records.setdefault((path, name), tree.home.next_number())
        await write_tree(tree, intents.of_name(tree, path, name, entry))
        self.changed(tree)

    def changed(self, tree: WorkTree) -> None:
        """Have a version made of a tree."""
        self.writer.writeback.schedule_tree(tree)

    # -- one change at a time -------------------------------------------------------------------------------

    async def idle(self, job: Job | None) -> None:
        """Wait until a change is not being published: what becomes of it decides what a name stands for."""
        while job is not None and job.under_way is not None:
            await job.under_way.wait()

    @asynccontextmanager
    async def alone(self, node: Node, *others: Node | None) -> AsyncIterator[None]:
        """Change names while the block runs, with none of these nodes being published, or beginning to be."""
        inos, order = [one.ino for one in (node, *others) if one is not None], self.writer.order(node.source)
        while True:
            for ino in inos:
                edit = self.overlay.edits.get(ino)
                await self.idle(edit)
                if edit is not None:
                    async with edit.lock:  # it may just be made durable, under the name it has had
                        pass
            await order.acquire()
            edits = [edit for ino in inos if (edit := self.overlay.edits.get(ino)) is not None]
            if not any(edit.is_under_way or edit.lock.locked() for edit in edits):
                break
            order.release()  # something has begun in between
        ended = trio.Event()
        for edit in edits:
            edit.held = ended
        try:
            yield
        finally:
            for edit in edits:
                edit.held = None
            ended.set()
            order.release()
            self.writer.writeback.wake()

    @asynccontextmanager
    async def unsaved(self, node: Node) -> AsyncIterator[None]:
        """Have a file not saved while the block runs, whoever begins to write to it: its service is changing it."""
        writer = self.writer
        while True:
            edit, busy = self.overlay.edits.get(node.ino), writer.unsaved.get(node.ino)
            if edit is not None and busy is None:
                busy = edit.held if edit.under_way is None else edit.under_way
            if busy is None:
                break
            await busy.wait()
        ended = writer.unsaved[node.ino] = trio.Event()
        if edit is not None:
            edit.held = ended
        try:
            yield
        finally:
            del writer.unsaved[node.ino]
            edit = self.overlay.edits.get(node.ino)
            if edit is not None and edit.held is ended:
                edit.held = None
            ended.set()
            writer.writeback.wake()

    def displaced(self, node: Node | None) -> Edit | None:
        """Let a node stand nowhere, also for who is just opening it; return its edit."""
        if node is None:
            return None
        node.parent = 0
        return self.overlay.edits.get(node.ino)

    def name_now(self, parent: Node, name: str, node: Node, known_as: str) -> str:
        """Return the name of what had a name when it was looked up: if it is kept beside since, that of the copy.

        Somebody else's file has the name then. Who saves under it next need not be told of a copy that goes now.
        """
        if node.name == known_as or not isinstance(parent.directory, Listed):
            return name
        self.overlay.notices.pop((key_of(parent.directory, parent.source), name), None)
        return node.name

    async def shown_in(self, node: Node) -> list[str]:
        """Return the names that a directory shows, without the way to the ids."""
        own = self.overlay.names(node)
        shown = [name for name, entry in own.items() if isinstance(entry, Node)]
        if not self.overlay.hides_base(node):
            shown += [name for name in (await self.directories.children(node)).children if name not in own]
        return [name for name in shown if not (isinstance(node.directory, Listed) and name in RESERVED)]
