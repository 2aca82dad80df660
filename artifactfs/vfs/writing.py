"""Saving through the mount: edits from open to publish.

Rules of this file: the last release of an edit's writers saves it, once, if anything was changed; ``flush`` and ``fsync``
make it durable here and save nothing. Changes of a source run one after another in tasks of the mount: the kernel's
deadline ends a wait, never a change. Who looks at a source while one is under way waits for it: a save that close()
acknowledged is what the next command sees. What cannot be saved stays an edit, is shown as one and tried again.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import trio

from artifactfs import errors
from artifactfs.content.readahead import Pattern
from artifactfs.content.reader import ContentReader
from artifactfs.journal.droppings import is_passing
from artifactfs.journal.staging import Staging
from artifactfs.model.content import Content, Exact
from artifactfs.model.entry import Artifact
from artifactfs.providers.base import Publisher
from artifactfs.tree.inodes import number
from artifactfs.tree.layout import present_node
from artifactfs.tree.nodes import Kind, Listed, Node, VersionDir
from artifactfs.vfs.directories import Directories
from artifactfs.vfs.overlay import Edit, Overlay
from artifactfs.vfs.publishing import Saver, intent_of
from artifactfs.vfs.sources import Source

log = logging.getLogger(__name__)

T = TypeVar("T")

COPY_CHUNK = 1 << 20
# How long whoever looks at a source waits for its changes. A save takes milliseconds; one of gigabytes must not stop the
# rest of the mount, which shows it as an edit until it is done.
SETTLE_S = 5.0
# How long a passing name must stay as it is before it is saved: in every recorded save the rename follows the close at
# once, and rclone's second of delay was enough for all of them; two on a busy machine.
QUIET_S = 2.0
# Between tries of a save that failed: doubled each time, up to the second.
RETRY_S = 5.0
RETRY_MAX_S = 300.0


@dataclass(slots=True)
class Writer:
    """Edits and their saving, for the sources that take writes.

    Attributes:
        parent_of: the directory of a node, as far as the kernel knows it.
        size_changed: told of an inode whose content is another one than the kernel believes.
    """

    sources: Mapping[str, Source]
    directories: Directories
    content: ContentReader
    staging: Staging
    parent_of: Callable[[Node], Node | None]
    size_changed: Callable[[int], None] = lambda _ino: None
    overlay: Overlay = field(init=False)
    saver: Saver = field(init=False)
    _under_way: int = 0
    _idle: trio.Event = field(default_factory=trio.Event)
    _order: trio.Lock = field(default_factory=trio.Lock)
    _scheduled: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        """Start without edits."""
        self.overlay = Overlay(self.staging)
        self.saver = Saver(self.sources, self.directories, self.overlay)

    def publisher(self, source: str) -> Publisher:
        """Return what can change a source.

        Raises:
            ReadOnly: nothing can.
        """
        return self.saver.publisher(source)

    # -- order -----------------------------------------------------------------------------------------------

    async def settled(self, source: str) -> None:
        """Wait until no change is under way at a source that takes writes, but not for a long one."""
        if self._under_way and source in self.sources and self.sources[source].provider.publisher is not None:
            with trio.move_on_after(SETTLE_S):
                await self._idle.wait()

    async def change(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run a change after those that were begun before, in a task of the mount; return what it returns."""
        if not self._under_way:
            self._idle = trio.Event()
        self._under_way += 1

        async def ordered() -> T:
            try:
                async with self._order:
                    return await work()
            finally:
                self._under_way -= 1
                if not self._under_way:
                    self._idle.set()

        return await self.content.flights.run(object(), ordered)

    # -- opening ---------------------------------------------------------------------------------------------

    async def open(self, node: Node, *, truncate: bool) -> Edit:
        """Return the edit of a file for one more writer, begun as a copy of its content if it has none yet."""
        self.publisher(node.source)
        if not node.writable:
            message = "only the present version of an artifact can be written"
            raise errors.ReadOnly(message)
        while (edit := self.overlay.edits.get(node.ino)) is None or edit.saving is not None:
            if edit is None:
                await self.begin(node, copy=not truncate)
            elif edit.saving is not None:
                await edit.saving.wait()  # its bytes must not change under the save
        if truncate:
            edit.staged.truncate(0)
        edit.staged.writers += 1
        edit.due_at = math.inf
        return edit

    async def begin(self, node: Node, *, copy: bool) -> None:
        """Begin the edit of a file, if it has none; however many do so at once, it is one."""
        # Without the copy it is of use only to who empties it next, so it is not shown before somebody comes to do so.
        key = ("edit", node.ino, copy)
        edit = await self.content.flights.run(key, partial(self._begin, node, copy=copy))
        if node.ino not in self.overlay.edits and not edit.staged.closed:
            self.overlay.begin(edit)
        elif self.overlay.edits.get(node.ino) is not edit:
            self.staging.discard(edit.staged)

    async def _begin(self, node: Node, *, copy: bool) -> Edit:
        parent = self.parent_of(node)
        if parent is None or not isinstance(parent.directory, Listed | VersionDir) or node.artifact is None:
            message = "the directory of this file is not known any more"
            raise errors.StaleContent(message)
        base = await self.freshen(parent, node, node.artifact)
        staged = self.staging.open({})
        try:
            staged.executable, staged.mtime_ns = node.executable, node.mtime_ns
            if node.content is not None:
                staged.uncopied = await self.content.size(node.content)
                if copy:
                    await self._copy(node.content, staged.uncopied, staged.write)
                    staged.uncopied = 0
                    staged.touched = staged.dirty = False
                    staged.mtime_ns = node.mtime_ns
        except BaseException:
            self.staging.discard(staged)
            raise
        return Edit(node, staged, parent.directory, base)

    async def _copy(self, content: Content, size: int, write: Callable[[int, bytes], int]) -> None:
        offset, pattern = 0, Pattern()
        while offset < size:
            data = await self.content.read(content, offset, COPY_CHUNK, pattern)
            offset += await trio.to_thread.run_sync(write, offset, data)

    async def freshen(self, parent: Node, node: Node, artifact: Artifact) -> Artifact:
        """Return an artifact as the source has it at this moment, and let a file of it show its current content.

        Another mount may have saved it since its listing was made; who writes now means the file as it is now.
        """
        source = self.sources[node.source]
        found = await source.provider.find(source.top, artifact.id)
        if found is None or not found.writable:
            return artifact  # gone: a save brings it back
        self.directories.apply_artifact(node.source, found)
        if node.tree_path:
            listed = (await self.directories.children(parent)).children.get(node.name)
        else:
            listed = present_node(found, node.name, node.mtime_ns, node.source)
        is_newer = listed is not None and listed.kind is Kind.FILE and listed.identity != node.identity
        if listed is not None and is_newer and node.ino not in self.overlay.edits:
            self.overlay.become(node, listed)
            self._spoil(node)
        return found

    def _spoil(self, node: Node) -> None:
        """Let the kernel forget what it believes of an inode: its size now, its pages when it is opened next."""
        self.overlay.spoiled.add(node.ino)
        self.size_changed(node.ino)

    def create(self, parent: Node, name: str, *, executable: bool) -> Edit:
        """Begin a new file: a name that only this mount knows, saved when its writers are done."""
        self.publisher(parent.source)
        if not isinstance(parent.directory, Listed | VersionDir):
            message = "no file can be made here"
            raise errors.ReadOnly(message)
        staged = self.staging.open({})
        staged.executable, staged.touched, staged.writers = executable, True, 1
        staged.mtime_ns = time.time_ns()
        identity = ("draft", parent.source, str(staged.path))
        node = Node(
            number(identity), identity, Kind.FILE, name, executable=executable, writable=True, parent=parent.ino,
            source=parent.source,
        )  # fmt: skip
        edit = Edit(node, staged, parent.directory, self.base_at(parent, name), is_local=True)
        self.overlay.begin(edit)
        self.overlay.show(edit)
        return edit

    def base_at(self, parent: Node, name: str) -> Artifact | None:
        """Return what a new file of a name would be the next version of."""
        if isinstance(parent.directory, VersionDir):
            return self.directories.history.newest(parent.source, parent.directory.artifact)
        return self.overlay.take_reserved(parent, name)

    # -- durability and saving -------------------------------------------------------------------------------

    async def flush(self, edit: Edit) -> None:
        """Make what was written durable on this machine.

        Raises:
            OSError: the disk said no, to this or to an earlier write.
        """
        staged = edit.staged
        if edit.is_orphan or not (staged.dirty or staged.broken):
            return
        # A shell flushes before it writes (`echo NEW > f`): that a file was emptied is no content to be kept, and after
        # a crash the old content is worth more.
        if staged.broken or staged.sealed or staged.size:
            staged.intent = intent_of(edit, self.sources[edit.node.source])
            await trio.to_thread.run_sync(self.staging.seal, staged)

    async def release(self, edit: Edit) -> None:
        """Take back one writer; the last one's release saves, now or soon."""
        staged = edit.staged
        staged.writers -= 1
        if staged.writers or edit.is_orphan:
            return
        if staged.broken is not None:
            self._report(edit, f"not written: {staged.broken.strerror}")
            self._abandon(edit)
        elif not staged.touched:
            self.overlay.end(edit)
        else:
            await self.settle(edit)

    def _abandon(self, edit: Edit) -> None:
        """Drop an edit whose writer was told that it failed; the file is again what it was."""
        self.overlay.end(edit)
        self._spoil(edit.node)
        self.directories.listings.changed(edit.node.parent, edit.node.name)

    def _report(self, edit: Edit, message: str) -> None:
        self.saver.report(edit.node.source, self.saver.path_of(edit.node), message)

    async def settle(self, edit: Edit, *, in_turn: bool = False) -> None:
        """Do what an edit deserves that nobody writes to any more: save it, now or soon, or keep it here.

        ``in_turn``: this is part of a change already.
        """
        if edit.stays_here:
            return
        if edit.is_local and is_passing(edit.node.name):
            edit.due_at = trio.current_time() + QUIET_S
            self._scheduled.set()
        elif in_turn:
            await self.save_in_turn(edit)
        else:
            await self.save(edit)

    async def save(self, edit: Edit) -> None:
        """Save an edit in its turn."""
        if edit.saving is None:
            edit.saving, edit.due_at = trio.Event(), math.inf
            await self.change(partial(self.save_in_turn, edit))

    async def save_in_turn(self, edit: Edit) -> None:
        """Save an edit inside of a change; a failure is kept with it and tried again."""
        saving = edit.saving = trio.Event() if edit.saving is None else edit.saving
        try:
            if self.overlay.edits.get(edit.node.ino) is edit and not edit.is_orphan:
                self._ended(edit, await self.saver.save(edit))
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not cost the bytes
            self._keep(edit, error)
        finally:
            edit.saving = None
            saving.set()

    def _ended(self, edit: Edit, listed: Node | None) -> None:
        node, staged = edit.node, edit.staged
        # What the writer has seen stays: vim warns if a save changes the time of its file.
        node.mtime_ns = staged.mtime_ns or node.mtime_ns
        node.size = Exact(staged.size)
        self.overlay.end(edit)
        if listed is None:
            log.info("a saved file was removed by somebody else in the same moment")
        else:
            self.overlay.become(node, listed)

    def _keep(self, edit: Edit, error: Exception) -> None:
        edit.failure = str(error) or type(error).__name__
        edit.due_at = trio.current_time() + min(RETRY_MAX_S, RETRY_S * 2**edit.failures)
        edit.failures += 1
        self.overlay.show(edit)
        self._scheduled.set()
        if isinstance(error, (errors.ArtifactFSError, OSError)):
            log.info("a save failed and is kept: %s", error)
        else:
            log.error("a save failed in an unforeseen way and is kept", exc_info=error)
        self._report(edit, f"not saved yet: {edit.failure}")

    # -- what is saved although nobody closes it -------------------------------------------------------------

    async def keep_saving(self) -> None:
        """Save what is due, for as long as the mount lives."""
        while True:
            due = min((edit.due_at for edit in self.overlay.edits.values()), default=math.inf)
            with trio.move_on_at(due):
                await self._scheduled.wait()
            self._scheduled = trio.Event()
            now = trio.current_time()
            for edit in list(self.overlay.edits.values()):
                if edit.due_at <= now:
                    await self.save(edit)

    async def finish(self) -> None:
        """Save what waits for its time, once, and make durable what is open: the mount ends."""
        for edit in list(self.overlay.edits.values()):
            if edit.is_orphan or not edit.staged.touched or edit.staged.broken:
                continue
            try:
                await self.flush(edit)
            except OSError as error:
                self._report(edit, f"not written: {error.strerror}")
            if not edit.staged.writers and not edit.stays_here:
                await self.save(edit)
        if self._under_way:
            await self._idle.wait()

    def pending(self) -> list[tuple[Node, str]]:
        """Return what has not reached its source yet, with the reason for it."""
        return [
            (edit.node, edit.failure or ("is open" if edit.staged.writers else "waits a moment"))
            for edit in self.overlay.edits.values()
            if edit.staged.touched and not edit.is_orphan and not edit.stays_here
        ]
