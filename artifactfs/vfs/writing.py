"""Files that are written: from open to the moment from which they are published by themselves.

Rules of this file: the last release of an edit's writers hands it to the write-back. Bytes that are being published
are never written to: who writes then, writes to a copy. An edit to which nothing was written, or could be, leaves the
file as it was.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import trio

from artifactfs import errors
from artifactfs.content.reader import ContentReader
from artifactfs.journal.drafts import Staged
from artifactfs.journal.staging import Staging
from artifactfs.journal.states import Event, State, after
from artifactfs.providers.base import Change, Publisher
from artifactfs.tree.nodes import Node, VersionDir
from artifactfs.vfs import intents
from artifactfs.vfs.beginning import Beginner
from artifactfs.vfs.beginnings import Beginnings
from artifactfs.vfs.context import Context
from artifactfs.vfs.directories import Directories
from artifactfs.vfs.lineage import Lineage
from artifactfs.vfs.overlay import Edit, Overlay, key_of
from artifactfs.vfs.overtaken import is_taken
from artifactfs.vfs.sealing import Sealing
from artifactfs.vfs.sources import Source
from artifactfs.vfs.work_trees import WorkTrees
from artifactfs.vfs.writeback import Policy, WriteBack

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Writer:
    """Edits, for the sources that take writes.

    Attributes:
        homes: the journal of each source.
        parent_of: the directory of a node, as far as the kernel knows it.
        size_changed: told of an inode whose content is another one than the kernel believes.
        unsaved: by inode, what ends the time in which it is not saved.
    """

    sources: Mapping[str, Source]
    directories: Directories
    content: ContentReader
    homes: Mapping[str, Staging]
    parent_of: Callable[[Node], Node | None]
    size_changed: Callable[[int], None] = lambda _ino: None
    policy: Policy = field(default_factory=Policy)
    overlay: Overlay = field(default_factory=Overlay)
    unsaved: dict[int, trio.Event] = field(default_factory=dict)
    context: Context = field(init=False)
    beginner: Beginner = field(init=False)
    writeback: WriteBack = field(init=False)
    work_trees: WorkTrees = field(init=False)
    lineage: Lineage = field(init=False)
    sealing: Sealing = field(init=False)
    beginnings: Beginnings = field(init=False)

    def __post_init__(self) -> None:
        """Start without edits."""
        self.context = Context(self.sources, self.directories, self.content, self.overlay)
        self.beginner = Beginner(
            self.sources, self.directories, self.content, self.homes, self.parent_of, self.overlay
        )  # fmt: skip
        self.writeback = WriteBack(self.context, self.policy)
        self.work_trees = WorkTrees(self.context, self.homes)
        self.lineage = Lineage(self.context, self.writeback)
        self.beginnings = Beginnings(self.context)
        self.sealing = Sealing(self.context, self.policy, self.writeback, self.work_trees, self.parent_of)

    def publisher(self, source: str) -> Publisher:
        """Return what can change a source.

        Raises:
            ReadOnly: nothing can.
        """
        return self.context.publisher(source)

    def order(self, source: str) -> trio.Lock:
        """Return what is held by whoever changes names in a source."""
        return self.context.orders[source]

    def is_covered(self, parent: Node, name: str) -> bool:
        """Tell whether a change of this mount stands under a name, or is being written to what stands there."""
        here = (edit for edit in self.overlay.edits.values() if edit.node.parent == parent.ino)
        return name in self.overlay.names(parent) or any(
            edit.node.name == name and edit.staged.touched and not edit.is_orphan for edit in here
        )

    # -- opening ---------------------------------------------------------------------------------------------

    @staticmethod
    def demand_a_place(node: Node) -> None:
        """Refuse a file that nobody writes to, if its name was taken away since it was looked up.

        What was written to it and not saved is nowhere any more; who has it open had that kept.

        Raises:
            StaleContent: the kernel looks the name up again.
        """
        if not node.parent and not node.handles:
            message = "it was removed, or replaced, a moment ago"
            raise errors.StaleContent(message)

    async def open(self, node: Node, *, truncate: bool) -> Edit:
        """Return the edit of a file for one more writer, begun as a copy of its content if it has none yet."""
        publisher = self.publisher(node.source)
        if not node.writable:
            message = "only the present version of an artifact can be written"
            raise errors.ReadOnly(message)
        await publisher.permits(Change.SAVE)
        edit = await self._current(node, copy=not truncate)
        if truncate:
            edit.staged.truncate(0)
        edit.staged.writers += 1
        edit.due_at = math.inf
        self._take_notice(edit)
        return edit

    async def _current(self, node: Node, *, copy: bool) -> Edit:
        """Return the edit that stands for a file, with bytes that may be written to."""
        while True:
            edit = await self.begin(node, copy=copy)
            old = edit.staged
            if edit.in_flight is old or (old.sealed and not old.writers):
                await self._fork(edit, copy=copy)
            if self.overlay.edits.get(node.ino) is edit:
                return edit
            # While its bytes were copied it was published, and is over: nobody would see what is written to the copy.
            if edit.staged is not old and not edit.staged.writers:
                await trio.to_thread.run_sync(edit.home.discard, edit.staged)

    async def begin(self, node: Node, *, copy: bool) -> Edit:
        """Return the edit of a file, begun if it has none; however many do so at once, it is one."""
        # Without the copy it is of use only to who empties it next, so it is not shown before somebody comes to do so.
        key = ("edit", node.ino, copy)
        while (known := self.overlay.edits.get(node.ino)) is None:
            edit = await self.content.flights.run(key, partial(self.beginner.begin, node, copy=copy))
            if node.ino not in self.overlay.edits and not edit.staged.closed and self._stands(edit):
                edit.held = self.unsaved.get(node.ino)
                self.overlay.begin(edit)
                if self.overlay.is_moved(edit):
                    edit.base_sha256, edit.is_unhashed = None, False  # it is of what stood under another name
            elif self.overlay.edits.get(node.ino) is not edit:
                edit.home.discard(edit.staged)
        return known

    def _stands(self, edit: Edit) -> bool:
        """Tell whether a file is still where it was when its edit began: it may have been moved or removed since."""
        parent = self.parent_of(edit.node)
        return parent is not None and key_of(parent.directory, edit.source) == key_of(edit.directory, edit.source)

    async def _fork(self, edit: Edit, *, copy: bool) -> None:
        """Let who writes now write to bytes of their own: the others are being published, or were acknowledged."""
        async with edit.lock:
            old = edit.staged
            is_over = self.overlay.edits.get(edit.node.ino) is not edit
            if is_over or old.writers or not (old.sealed or edit.in_flight is old):
                return
            fresh = await trio.to_thread.run_sync(edit.home.clone, old) if copy else edit.home.open()
            fresh.executable, fresh.mtime_ns = old.executable, old.mtime_ns
            fresh.touched, fresh.dirty, fresh.uncopied = False, False, 0 if copy else 1
            if edit.in_flight is None and edit.tries and edit.state is not State.FAILED:
                # Nobody knows what became of these: that is found out first, or they would look like somebody else's.
                edit.in_flight = old
                edit.flight_record = intents.of_edit(edit)
                edit.flight_record.number = old.number
            elif edit.in_flight is not old:
                edit.backup = old
            edit.staged, edit.number, edit.state = fresh, fresh.number, after(edit.state, Event.WRITE)

    def create(self, parent: Node, name: str, *, executable: bool) -> Edit:
        """Begin a new file: a name that only this mount knows, saved when its writers are done."""
        edit = self.beginner.create(parent, name, executable=executable)
        if isinstance(parent.directory, VersionDir):
            tree = self.work_trees.tree(parent)
            edit.base = tree.base
            if is_taken(self.overlay, edit):
                edit.home.discard(edit.staged)
                raise errors.StaleContent("a save has taken this name in the same moment")
            self.beginnings.note(tree, parent.directory.path, name, None)
        else:
            self.lineage.take_name(edit, name)
        self.overlay.begin(edit)
        self.overlay.show(edit)
        self._take_notice(edit)
        return edit

    async def truncate(self, node: Node, size: int) -> None:
        """Set the length of a file that the caller does not have open: a save of its own."""
        await self.content.flights.run(object(), partial(self._truncate, node, size))

    async def _truncate(self, node: Node, size: int) -> None:
        edit = await self.open(node, truncate=size == 0)
        failure: Exception | None = None
        try:
            edit.staged.truncate(size)
            await self.sealing.flush(edit)
        except (OSError, errors.ArtifactFSError) as error:
            failure = error
        await self.release(edit)
        if failure is not None:
            raise failure

    # -- closing ---------------------------------------------------------------------------------------------

    def _take_notice(self, edit: Edit) -> None:
        notice = self.overlay.notices.pop((key_of(edit.directory, edit.source), edit.node.name), None)
        edit.failure = notice or edit.failure

    async def release(self, edit: Edit) -> None:
        """Take back one writer; after the last one the edit is published, soon."""
        edit.staged.writers -= 1
        if edit.is_orphan:
            self.lineage.collect(edit.node)  # who sets a length has no handle whose close would do so
            return
        if edit.staged.writers:
            return
        edit.closing += 1
        try:
            await self._closed(edit, edit.staged)
        finally:
            edit.closing -= 1

    async def _closed(self, edit: Edit, staged: Staged) -> None:
        if staged.broken is not None:
            await self._abandon(edit, f"not written: {staged.broken.strerror}")
        elif not staged.touched:
            await self._untouched(edit)
        else:
            try:
                if staged.dirty or not staged.sealed:
                    await self.sealing.seal(edit)
            except (OSError, errors.ArtifactFSError) as error:
                if not staged.writers:  # nobody has opened it meanwhile, to begin anew perhaps
                    await self._abandon(edit, f"not written: {error}")
                return
            if edit.staged is staged and not staged.writers:
                self.writeback.schedule(edit)

    async def _untouched(self, edit: Edit) -> None:
        """End an edit to which nothing was written; what was written before goes its way."""
        earlier = edit.backup or edit.in_flight
        if edit.staged.sealed:  # with all that was written before: its mode or its name was changed meanwhile
            self.writeback.schedule(edit)
        elif earlier is not None and earlier is not edit.staged:
            await self._back_to(edit, earlier)
        else:
            self.overlay.let_go(edit)
            edit.home.discard(edit.staged)
            self.lineage.without(edit)

    async def _back_to(self, edit: Edit, earlier: Staged) -> None:
        staged, edit.staged = edit.staged, earlier
        edit.number, edit.backup, edit.state = edit.staged.number, None, State.SEALED
        await trio.to_thread.run_sync(edit.home.discard, staged)
        if not edit.is_under_way and self.overlay.edits.get(edit.node.ino) is edit:  # else it has just been published
            self.writeback.schedule(edit)

    async def _abandon(self, edit: Edit, message: str) -> None:
        """Drop an edit whose writer was told that it failed; the file is again what it was."""
        self.context.report(edit.source, self.context.path_of(edit.node), message)
        earlier = edit.backup or edit.in_flight
        if earlier is not None and earlier is not edit.staged:
            await self._back_to(edit, earlier)
        else:
            await self.lineage.forget(edit)
        self.overlay.spoiled.add(edit.node.ino)
        self.size_changed(edit.node.ino)
        self.directories.listings.changed(edit.node.parent, edit.node.name)

    async def finish(self) -> None:
        """Make durable what is open, and wait for what is being published: the mount ends."""
        for edit in list(self.overlay.edits.values()):
            if edit.is_orphan or not edit.staged.touched or edit.staged.broken or not edit.staged.dirty:
                continue
            try:
                await self.sealing.seal(edit)
            except (OSError, errors.ArtifactFSError) as error:
                self.context.report(edit.source, self.context.path_of(edit.node), f"not written: {error}")
        await self.writeback.finish()
