"""When what was written is durable here.

Rules of this file: ``flush`` and ``fsync`` make an edit durable here and publish nothing, unless the mount writes
through. What the service could not give back is refused before anybody is told that it is kept. A tree's changes are
durable only with what they were made on.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass

import trio

from artifactfs.journal.droppings import is_passing
from artifactfs.journal.records import Record
from artifactfs.journal.states import Event, after
from artifactfs.tree.nodes import Node, VersionDir
from artifactfs.vfs import intents, removals
from artifactfs.vfs.context import Context
from artifactfs.vfs.edit_locks import at_rest
from artifactfs.vfs.overlay import Edit, Overlay, WorkTree, key_of
from artifactfs.vfs.overtaken import is_taken, stand_beside
from artifactfs.vfs.tree_records import write_tree
from artifactfs.vfs.twins import twin
from artifactfs.vfs.work_trees import WorkTrees
from artifactfs.vfs.writeback import Policy, WriteBack


@dataclass(slots=True)
class Sealing:
    """Makes edits durable on this machine.

    Attributes:
        parent_of: the directory of a node, as far as the kernel knows it.
    """

    context: Context
    policy: Policy
    writeback: WriteBack
    work_trees: WorkTrees
    parent_of: Callable[[Node], Node | None]

    @property
    def overlay(self) -> Overlay:
        """Return the changes of the mount."""
        return self.context.overlay

    async def flush(self, edit: Edit) -> None:
        """Make what was written durable on this machine; tell, once, what went wrong since the last time.

        Raises:
            OSError: the disk said no, to this or to an earlier write.
            ArtifactFSError: the service could not give this back, or an earlier save failed there.
        """
        if edit.lock.locked():  # another one may just be making it durable: it is not before that is over
            await at_rest([edit])
        staged = edit.staged
        is_new = staged.dirty or staged.broken
        # A shell flushes before it writes (`echo NEW > f`): that a file was emptied is no content to be kept, and after
        # a crash the old content is worth more.
        if is_new and not edit.is_orphan and (staged.broken or staged.sealed or staged.size):
            await self.seal(edit)
        failure, edit.failure = edit.failure, None
        if failure is not None:
            raise failure
        if is_new and staged.sealed and self.policy.write_through and not edit.stays_here:
            await self._write_through(edit)

    async def _write_through(self, edit: Edit) -> None:
        """Publish what was just made durable, whoever goes on writing, and tell what became of it."""
        await self._idle(edit)
        async with edit.lock:
            old = edit.staged
            if not old.sealed or edit.in_flight is not None:
                return
            fresh = await twin(edit.home, old)
            fresh.touched = fresh.dirty = old.dirty  # somebody else may have written since it was made durable
            fresh.writers, old.writers = old.writers, 0
            edit.flight_record, edit.in_flight = intents.of_edit(edit), old
            edit.staged, edit.number = fresh, fresh.number
        await self.writeback.through(edit)

    @staticmethod
    async def _idle(edit: Edit) -> None:
        """Wait until an edit is not being published."""
        while edit.under_way is not None:
            await edit.under_way.wait()

    async def seal(self, edit: Edit, *others: Record) -> None:
        """Make content and intent durable, at once with other records.

        Raises:
            OSError: the disk says no.
            ArtifactFSError: the service could not give it back.
        """
        async with edit.lock:
            if edit.is_orphan or edit.staged.closed:
                return  # it was removed, or published, meanwhile
            await self._vet(edit)
            if edit.node.parent:
                edit.shown = self.context.shown_at(edit.node, edit.shown)
            if isinstance(edit.directory, VersionDir):
                parent, place = self.parent_of(edit.node), edit.directory
                is_here = parent is not None and key_of(parent.directory, edit.source) == key_of(place, edit.source)
                await self.seal_tree(
                    self.work_trees.tree(parent)
                    if parent and is_here
                    else self.work_trees.tree_of_artifact(edit.source, place)
                )
            edit.state = after(edit.state, Event.SEAL)
            await trio.to_thread.run_sync(edit.home.seal, edit.staged, intents.of_edit(edit), *others)
            if not edit.is_orphan and self.overlay.edits.get(edit.node.ino) is edit:
                await self._show(edit)
            if edit.backup is not None:
                backup, edit.backup = edit.backup, None
                await trio.to_thread.run_sync(edit.home.discard, backup)
            if edit.replaces is not None:
                await self._settle_removal(edit)

    async def _show(self, edit: Edit) -> None:
        """Let the name of an edit stand for it from here on, also when somebody else saves the file meanwhile.

        Who has a file of a tree open that others have saved since may find that another save of this mount, of who has
        seen theirs, stands there by now: of two inodes both are kept.
        """
        wanted, kept = edit.node.name, ""
        if is_taken(self.overlay, edit):
            kept = stand_beside(self.overlay, edit)
        self.overlay.show(edit)
        self.context.directories.listings.announcer.stands(edit.node.parent, edit.node.name)
        if kept:
            self.context.directories.listings.changed(edit.node.parent, wanted)
            self.context.report(edit.source, edit.shown, kept)
            await trio.to_thread.run_sync(edit.home.journal.put, *intents.of_all(edit))

    async def _settle_removal(self, edit: Edit) -> None:
        """Forget the removal of an artifact that an edit goes on with: that edit is durable now."""
        removal = edit.replaces
        if removal is not None and not removal.is_under_way:
            await trio.to_thread.run_sync(lambda: removal.home.journal.put(drop=[removal.number]))
            edit.replaces, edit.is_local, edit.covers = None, False, None
            edit.node.artifact = removal.artifact
            removals.drop(self.overlay, removal)

    async def seal_tree(self, tree: WorkTree) -> None:
        """Make durable what the changes of a tree are made on."""
        if not tree.since_ns:
            await write_tree(tree)
        async with tree.lock:
            pass  # another one may just be writing it down

    async def _vet(self, edit: Edit) -> None:
        if edit.stays_here or edit.staged.broken is not None or is_passing(edit.node.name):
            return
        staged = edit.staged
        publisher = self.context.publisher(edit.source)
        await trio.to_thread.run_sync(publisher.vet, edit.node.name, staged.path, staged.size)

    def take(self, edit: Edit, data: bytes) -> None:
        """Refuse bytes with which the service could not give a file back; it is again what it was.

        Raises:
            OSError: EINVAL.
        """
        pattern = self.context.publisher(edit.source).unstorable
        if pattern is None or edit.stays_here or edit.is_orphan or is_passing(edit.node.name):
            return
        if pattern.search(data):
            edit.staged.broken = OSError(errno.EINVAL, "the service stores text only, and this is none")
            raise edit.staged.broken

    @staticmethod
    def is_sealed_again(edit: Edit) -> bool:
        """Tell whether the newest bytes of an edit that gets another place are made durable with that."""
        staged = edit.staged
        return staged.touched and not edit.is_orphan and bool(staged.sealed or staged.size or not staged.writers)

    async def seal_again(self, edit: Edit, *others: Record) -> None:
        """Make it durable that an edit stands in another place now, or is another file's next version.

        At once with it, other records.
        """
        if self.is_sealed_again(edit):
            await self.seal(edit, *others)
        elif not edit.is_orphan:
            async with edit.lock:
                if not edit.staged.closed and (records := intents.of_all(edit)):
                    await trio.to_thread.run_sync(edit.home.journal.put, *(records + list(others)))
