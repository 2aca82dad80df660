"""Saving through the mount: edits from open to publish.

Rules of this file: the last release of an edit's writers saves it, once, if anything was changed; ``flush`` and
``fsync`` make it durable here and save nothing. Saves take turns with all other changes. What cannot be saved stays an
edit, is shown as one and tried again.
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
from artifactfs.journal.droppings import is_passing
from artifactfs.journal.staging import Staging
from artifactfs.model.content import Exact
from artifactfs.model.entry import Artifact
from artifactfs.providers.base import Publisher
from artifactfs.tree.nodes import Node, VersionDir
from artifactfs.vfs.beginning import Beginner
from artifactfs.vfs.directories import Directories
from artifactfs.vfs.overlay import Edit, Overlay
from artifactfs.vfs.publishing import Saver, intent_of
from artifactfs.vfs.sources import Source
from artifactfs.vfs.turns import Turns

log = logging.getLogger(__name__)

# How long a passing name must stay as it is before it is saved: in every recorded save the rename follows the close at
# once, and rclone's second of delay was enough for all of them; two on a busy machine.
QUIET_S = 2.0
# Between tries of a save that failed: doubled each time, up to the second number.
RETRY_S = 5.0
RETRY_MAX_S = 300.0


@dataclass(slots=True)
class Writer:
    """Edits and their saving, for the sources that take writes.

    Attributes:
        parent_of: the directory of a node, as far as the kernel knows it.
        adopted: directories of earlier mounts in which names live on that stay on this machine.
        size_changed: told of an inode whose content is another one than the kernel believes.
    """

    sources: Mapping[str, Source]
    directories: Directories
    content: ContentReader
    staging: Staging
    parent_of: Callable[[Node], Node | None]
    size_changed: Callable[[int], None] = lambda _ino: None
    adopted: list[Staging] = field(default_factory=list)
    overlay: Overlay = field(init=False)
    saver: Saver = field(init=False)
    beginner: Beginner = field(init=False)
    turns: Turns = field(init=False)
    _scheduled: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        """Start without edits."""
        self.overlay = Overlay(self.staging)
        self.saver = Saver(self.sources, self.directories, self.overlay)
        self.beginner = Beginner(self.sources, self.directories, self.content, self.staging, self.parent_of)
        self.turns = Turns(self.content.flights)

    def publisher(self, source: str) -> Publisher:
        """Return what can change a source.

        Raises:
            ReadOnly: nothing can.
        """
        return self.saver.publisher(source)

    async def settled(self, source: str) -> None:
        """Wait until no change is under way at a source that takes writes, but not for a long one."""
        if source in self.sources and self.sources[source].provider.publisher is not None:
            await self.turns.settled()

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
        edit = await self.content.flights.run(key, partial(self.beginner.begin, node, copy=copy))
        if node.ino not in self.overlay.edits and not edit.staged.closed:
            self.overlay.begin(edit)
        elif self.overlay.edits.get(node.ino) is not edit:
            self.staging.discard(edit.staged)

    def _spoil(self, node: Node) -> None:
        """Let the kernel forget what it believes of an inode: its size now, its pages when it is opened next."""
        self.overlay.spoiled.add(node.ino)
        self.size_changed(node.ino)

    def create(self, parent: Node, name: str, *, executable: bool) -> Edit:
        """Begin a new file: a name that only this mount knows, saved when its writers are done."""
        self.publisher(parent.source)
        edit = self.beginner.create(parent, name, executable=executable)
        edit.base = self.base_at(parent, name)
        self.overlay.begin(edit)
        self.overlay.show(edit)
        return edit

    def base_at(self, parent: Node, name: str) -> Artifact | None:
        """Return what a new file of a name would be the next version of."""
        if isinstance(parent.directory, VersionDir):
            return self.directories.history.newest(parent.source, parent.directory.artifact)
        return self.overlay.take_reserved(parent, name)

    async def truncate(self, node: Node, size: int) -> None:
        """Set the length of a file that the caller does not have open: a save of its own."""
        await self.content.flights.run(object(), partial(self._truncate, node, size))

    async def _truncate(self, node: Node, size: int) -> None:
        edit = await self.open(node, truncate=size == 0)
        failure: OSError | None = None
        try:
            edit.staged.truncate(size)
            await self.flush(edit)
        except OSError as error:
            failure = error
        await self.release(edit)
        if failure is not None:
            raise failure

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
            await self._seal(edit)

    async def _seal(self, edit: Edit) -> None:
        edit.staged.intent = intent_of(edit, self.sources[edit.node.source])
        await trio.to_thread.run_sync(self.staging.seal, edit.staged)

    async def seal_again(self, edit: Edit) -> None:
        """Make it durable that an edit stands in another place now."""
        if edit.staged.touched and (edit.staged.sealed or edit.staged.size) and not edit.is_orphan:
            await self._seal(edit)

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
        if edit.stays_here or (edit.is_local and is_passing(edit.node.name)):
            await self._keep_here(edit)
        elif in_turn:
            await self.save_in_turn(edit)
        else:
            await self.save(edit)

    async def _keep_here(self, edit: Edit) -> None:
        """Keep a file on this machine, an empty one too, for a while or until it is renamed."""
        if not edit.stays_here:
            edit.due_at = trio.current_time() + QUIET_S
            self._scheduled.set()
        if not edit.staged.sealed:
            try:
                await self._seal(edit)
            except OSError as error:
                self._report(edit, f"it would not survive a crash: {error.strerror}")

    async def save(self, edit: Edit) -> None:
        """Save an edit in its turn."""
        if edit.saving is None:
            edit.saving, edit.due_at = trio.Event(), math.inf
            await self.turns.take(partial(self.save_in_turn, edit))

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
        await self.turns.all_done()
        for staging in self.adopted:
            staging.close()
