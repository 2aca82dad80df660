"""Files that are written: from open to the moment from which they are published by themselves.

Rules of this file: ``flush`` and ``fsync`` make an edit durable here and publish nothing, unless the mount writes
through. What the service could not give back is refused before anybody is told that it is kept. The last release of an
edit's writers hands it to the write-back. Bytes that are being published are never written to: who writes then, writes
to a copy.
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
from artifactfs.journal.droppings import is_passing
from artifactfs.journal.staging import Staging
from artifactfs.journal.states import Event, State, after
from artifactfs.providers.base import Change, Publisher
from artifactfs.tree.inodes import number
from artifactfs.tree.nodes import Node, VersionDir
from artifactfs.vfs import intents
from artifactfs.vfs.beginning import Beginner
from artifactfs.vfs.context import Context
from artifactfs.vfs.directories import Directories
from artifactfs.vfs.overlay import Edit, Gone, Overlay, WorkTree, key_of
from artifactfs.vfs.sources import Source
from artifactfs.vfs.writeback import Policy, WriteBack

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Writer:
    """Edits, for the sources that take writes.

    Attributes:
        homes: the journal of each source.
        parent_of: the directory of a node, as far as the kernel knows it.
        size_changed: told of an inode whose content is another one than the kernel believes.
        order: held by whoever changes names: each such change is one step.
    """

    sources: Mapping[str, Source]
    directories: Directories
    content: ContentReader
    homes: Mapping[str, Staging]
    parent_of: Callable[[Node], Node | None]
    size_changed: Callable[[int], None] = lambda _ino: None
    policy: Policy = field(default_factory=Policy)
    overlay: Overlay = field(default_factory=Overlay)
    order: trio.Lock = field(default_factory=trio.Lock)
    context: Context = field(init=False)
    beginner: Beginner = field(init=False)
    writeback: WriteBack = field(init=False)

    def __post_init__(self) -> None:
        """Start without edits."""
        self.context = Context(self.sources, self.directories, self.content, self.overlay, self.order)
        self.beginner = Beginner(
            self.sources, self.directories, self.content, self.homes, self.parent_of, self.overlay
        )  # fmt: skip
        self.writeback = WriteBack(self.context, self.policy)

    def publisher(self, source: str) -> Publisher:
        """Return what can change a source.

        Raises:
            ReadOnly: nothing can.
        """
        return self.context.publisher(source)

    # -- opening ---------------------------------------------------------------------------------------------

    async def open(self, node: Node, *, truncate: bool) -> Edit:
        """Return the edit of a file for one more writer, begun as a copy of its content if it has none yet."""
        publisher = self.publisher(node.source)
        if not node.writable:
            message = "only the present version of an artifact can be written"
            raise errors.ReadOnly(message)
        await publisher.permits(Change.SAVE)
        while (edit := self.overlay.edits.get(node.ino)) is None:
            await self.begin(node, copy=not truncate)
        if edit.in_flight is edit.staged or (edit.staged.sealed and not edit.staged.writers):
            await self._fork(edit, copy=not truncate)
        if truncate:
            edit.staged.truncate(0)
        edit.staged.writers += 1
        edit.due_at = math.inf
        self._take_notice(edit)
        return edit

    async def begin(self, node: Node, *, copy: bool) -> None:
        """Begin the edit of a file, if it has none; however many do so at once, it is one."""
        # Without the copy it is of use only to who empties it next, so it is not shown before somebody comes to do so.
        key = ("edit", node.ino, copy)
        edit = await self.content.flights.run(key, partial(self.beginner.begin, node, copy=copy))
        if node.ino not in self.overlay.edits and not edit.staged.closed:
            self.overlay.begin(edit)
        elif self.overlay.edits.get(node.ino) is not edit:
            edit.home.discard(edit.staged)

    async def _fork(self, edit: Edit, *, copy: bool) -> None:
        """Let who writes now write to bytes of their own: the others are being published, or were acknowledged."""
        async with edit.lock:
            old = edit.staged
            if old.writers or not (old.sealed or edit.in_flight is old):
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
            edit.base = self.tree(parent).base
        else:
            self.take_name(edit, name)
        self.overlay.begin(edit)
        self.overlay.show(edit)
        self._take_notice(edit)
        return edit

    def inherit(self, edit: Edit, replaced: Edit) -> bool:
        """Go on with a save that nobody knows the end of; return whether there was one.

        It is published first, as what it was: else its outcome would look like somebody else's change.
        """
        flight = replaced.in_flight or replaced.staged
        if not replaced.tries or edit.tries or edit.home is not replaced.home or flight.writers:
            return False
        edit.in_flight = replaced.given = flight
        edit.flight_record = replaced.flight_record or intents.of_edit(replaced)
        edit.flight_record.number = flight.number
        edit.flight_record.what["doomed"] = False
        edit.tries, edit.facts = replaced.tries, replaced.facts
        edit.base, edit.base_sha256, edit.is_local = replaced.base, replaced.base_sha256, replaced.is_local
        edit.node.artifact = replaced.node.artifact
        return True

    async def copied(self, edit: Edit) -> None:
        """Let an edit go on with a copy of its bytes; the others are what is being saved."""
        async with edit.lock:
            old = edit.staged
            fresh = await trio.to_thread.run_sync(edit.home.clone, old)
            fresh.writers, old.writers = old.writers, 0
            edit.staged, edit.number, edit.in_flight = fresh, fresh.number, old

    async def doom(self, edit: Edit) -> None:
        """Let a save that nobody knows the end of go on without a name, to be taken back; the edit leaves it."""
        flight = edit.in_flight or edit.staged
        identity = ("doomed", edit.source, str(flight.path))
        node = Node(number(identity), identity, edit.node.kind, edit.node.name, source=edit.source)
        ghost = Edit(
            source=edit.source, home=edit.home, number=flight.number, node=node, staged=flight,
            directory=edit.directory, base=edit.base, base_sha256=edit.base_sha256, is_local=edit.is_local,
            tries=edit.tries, facts=edit.facts, since_ns=edit.since_ns, state=State.SEALED, shown=edit.shown,
            doomed=True, due_at=trio.current_time(),
        )  # fmt: skip
        await trio.to_thread.run_sync(edit.home.journal.put, intents.of_edit(ghost))
        edit.given, edit.in_flight, edit.flight_record, edit.tries, edit.facts = flight, None, None, 0, {}
        self.overlay.begin(ghost)
        self.overlay.put(edit.directory, edit.source, edit.node.name, Gone())
        self.writeback.wake()

    def take_name(self, edit: Edit, name: str) -> None:
        """Let an edit go on with what had its name a moment ago."""
        ghost = self.overlay.doomed_at(edit.directory, edit.source, name)
        if ghost is not None and not ghost.is_under_way and self.inherit(edit, ghost):
            self.overlay.let_go(ghost)
        else:
            self.give(removal_to=edit, name=name)

    def give(self, *, removal_to: Edit, name: str) -> None:
        """Let an edit go on with the artifact that had its name a moment ago."""
        edit = removal_to
        removal = self.overlay.removal_at(edit.directory, edit.source, name)
        if removal is not None:
            removal.given_to, edit.replaces = edit, removal
            edit.base, edit.is_local = removal.artifact, True

    def tree(self, directory: Node) -> WorkTree:
        """Return the changes of the tree that a directory is in, begun if there are none.

        Raises:
            ReadOnly: it is in none.
        """
        place = directory.directory
        if not isinstance(place, VersionDir) or not place.present:
            message = "this is not in a tree"
            raise errors.ReadOnly(message)
        tree = self.tree_of_artifact(directory.source, place)
        if not tree.shown:
            above = self.context.path_of(directory).split("/")
            tree.shown = "/".join(above[: len(above) - len(place.path.split("/")) if place.path else None])
        return tree

    def tree_of_artifact(self, source: str, place: VersionDir) -> WorkTree:
        """Return the changes of a tree, begun if there are none."""
        found = self.overlay.trees.get((source, place.artifact.key))
        if found is None:
            base = self.directories.history.newest(source, place.artifact)
            home = self.homes[source]
            found = WorkTree(source=source, home=home, number=home.next_number(), state=State.SEALED, base=base)
            self.overlay.trees[source, base.key] = found
        return found

    async def truncate(self, node: Node, size: int) -> None:
        """Set the length of a file that the caller does not have open: a save of its own."""
        await self.content.flights.run(object(), partial(self._truncate, node, size))

    async def _truncate(self, node: Node, size: int) -> None:
        edit = await self.open(node, truncate=size == 0)
        failure: Exception | None = None
        try:
            edit.staged.truncate(size)
            await self.flush(edit)
        except (OSError, errors.ArtifactFSError) as error:
            failure = error
        await self.release(edit)
        if failure is not None:
            raise failure

    # -- durability ------------------------------------------------------------------------------------------

    async def flush(self, edit: Edit) -> None:
        """Make what was written durable on this machine; tell, once, what went wrong since the last time.

        Raises:
            OSError: the disk said no, to this or to an earlier write.
            ArtifactFSError: the service could not give this back, or an earlier save failed there.
        """
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
            fresh = await trio.to_thread.run_sync(edit.home.clone, old)
            fresh.touched = fresh.dirty = False
            fresh.writers, old.writers = old.writers, 0
            edit.flight_record, edit.in_flight = intents.of_edit(edit), old
            edit.staged, edit.number = fresh, fresh.number
        await self.writeback.through(edit)

    @staticmethod
    async def _idle(edit: Edit) -> None:
        """Wait until an edit is not being published."""
        while edit.under_way is not None:
            await edit.under_way.wait()

    def _take_notice(self, edit: Edit) -> None:
        notice = self.overlay.notices.pop((key_of(edit.directory, edit.source), edit.node.name), None)
        edit.failure = notice or edit.failure

    async def seal(self, edit: Edit) -> None:
        """Make content and intent durable.

        Raises:
            OSError: the disk says no.
            ArtifactFSError: the service could not give it back.
        """
        async with edit.lock:
            await self._vet(edit)
            if edit.node.parent:
                edit.shown = self.context.path_of(edit.node)
            if isinstance(edit.directory, VersionDir):
                parent, place = self.parent_of(edit.node), edit.directory
                is_here = parent is not None and key_of(parent.directory, edit.source) == key_of(place, edit.source)
                await self.seal_tree(
                    self.tree(parent) if parent and is_here else self.tree_of_artifact(edit.source, place)
                )
            edit.state = after(edit.state, Event.SEAL)
            await trio.to_thread.run_sync(edit.home.seal, edit.staged, intents.of_edit(edit))
            if not edit.is_orphan and self.overlay.edits.get(edit.node.ino) is edit:
                # From here on the name stands for this, also when somebody else saves the file meanwhile.
                self.overlay.show(edit)
            if edit.backup is not None:
                backup, edit.backup = edit.backup, None
                await trio.to_thread.run_sync(edit.home.discard, backup)
            if edit.replaces is not None:
                await self._settle_removal(edit)

    async def _settle_removal(self, edit: Edit) -> None:
        """Forget the removal of an artifact that an edit goes on with: that edit is durable now."""
        removal = edit.replaces
        if removal is not None and not removal.is_under_way:
            await trio.to_thread.run_sync(lambda: removal.home.journal.put(drop=[removal.number]))
            edit.replaces, edit.is_local, edit.covers = None, False, None
            edit.node.artifact = removal.artifact
            for at in [at for at, found in self.overlay.removals.items() if found is removal]:
                del self.overlay.removals[at]

    async def seal_tree(self, tree: WorkTree) -> None:
        """Make durable what the changes of a tree are made on."""
        if not tree.since_ns:
            await trio.to_thread.run_sync(tree.home.journal.put, intents.of_tree(tree))

    async def _vet(self, edit: Edit) -> None:
        if edit.stays_here or edit.staged.broken is not None or is_passing(edit.node.name):
            return
        staged = edit.staged
        publisher = self.publisher(edit.source)
        await trio.to_thread.run_sync(publisher.vet, edit.node.name, staged.path, staged.size)

    async def seal_again(self, edit: Edit) -> None:
        """Make it durable that an edit stands in another place now, or is another file's next version."""
        staged = edit.staged
        if staged.touched and not edit.is_orphan and (staged.sealed or staged.size or not staged.writers):
            await self.seal(edit)
        elif not edit.is_orphan and (records := intents.of_all(edit)):
            await trio.to_thread.run_sync(edit.home.journal.put, *records)

    async def release(self, edit: Edit) -> None:
        """Take back one writer; after the last one the edit is published, soon."""
        edit.staged.writers -= 1
        if edit.staged.writers or edit.is_orphan:
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
                    await self.seal(edit)
            except (OSError, errors.ArtifactFSError) as error:
                if not staged.writers:  # nobody has opened it meanwhile, to begin anew perhaps
                    await self._abandon(edit, f"not written: {error}")
                return
            if edit.staged is staged and not staged.writers:
                self.writeback.schedule(edit)

    async def _untouched(self, edit: Edit) -> None:
        """End an edit to which nothing was written; what was written before goes its way."""
        earlier = edit.backup or edit.in_flight
        if earlier is not None and earlier is not edit.staged:
            await self._back_to(edit, earlier)
        elif edit.staged.sealed:
            self.writeback.schedule(edit)
        else:
            self.overlay.let_go(edit)
            edit.home.discard(edit.staged)
            self._without(edit)

    def _without(self, edit: Edit) -> None:
        """Have a tree looked at that has an edit less: that may have been all that was changed in it."""
        tree = self.overlay.tree_of(edit.directory, edit.source)
        if tree is not None:
            self.writeback.schedule_tree(tree)

    async def _back_to(self, edit: Edit, earlier: Staged) -> None:
        staged, edit.staged = edit.staged, earlier
        edit.number, edit.backup, edit.state = edit.staged.number, None, State.SEALED
        await trio.to_thread.run_sync(edit.home.discard, staged)
        if not edit.is_under_way:
            self.writeback.schedule(edit)

    async def _abandon(self, edit: Edit, message: str) -> None:
        """Drop an edit whose writer was told that it failed; the file is again what it was."""
        self.context.report(edit.source, self.context.path_of(edit.node), message)
        earlier = edit.backup or edit.in_flight
        if earlier is not None and earlier is not edit.staged:
            await self._back_to(edit, earlier)
        else:
            await self.forget(edit)
        self.overlay.spoiled.add(edit.node.ino)
        self.size_changed(edit.node.ino)
        self.directories.listings.changed(edit.node.parent, edit.node.name)

    async def forget(self, edit: Edit) -> None:
        """Drop an edit and its bytes."""
        shown = self.overlay.names(self._parent(edit)).get(edit.node.name)
        self.overlay.let_go(edit)
        if edit.replaces is not None:
            edit.replaces.given_to = None
            if shown is edit.node:
                self.writeback.hide_again(edit.replaces)
        await trio.to_thread.run_sync(edit.home.discard, edit.staged)
        self._without(edit)

    def _parent(self, edit: Edit) -> Node:
        return Node(0, (), edit.node.kind, "", directory=edit.directory, source=edit.source)

    async def orphan(self, edit: Edit) -> None:
        """Take the name of an edit away; its bytes go when nobody has it open."""
        edit.is_orphan = True
        self.overlay.hide(edit)
        if self._is_being_read(edit):
            await trio.to_thread.run_sync(lambda: edit.home.journal.put(drop=[edit.staged.number]))
        elif edit.staged is not edit.given:
            await trio.to_thread.run_sync(edit.home.unlink, edit.staged)
        for earlier in (edit.backup, edit.in_flight):
            if earlier not in {None, edit.staged, edit.given} and not edit.is_under_way:
                await trio.to_thread.run_sync(edit.home.discard, earlier)
        self.collect(edit.node)

    def _is_being_read(self, edit: Edit) -> bool:
        """Tell whether the bytes of an edit are in the version of a tree that is just being made."""
        tree = self.overlay.tree_of(edit.directory, edit.source)
        return tree is not None and tree.is_under_way and edit.in_flight is edit.staged

    def collect(self, node: Node) -> None:
        """Drop an orphan that nobody has open any more."""
        edit = self.overlay.edits.get(node.ino)
        if edit is None or not edit.is_orphan or self._is_being_read(edit):
            return
        if node.handles == 0 and edit.staged.writers == 0:
            self.overlay.let_go(edit)
            if not edit.is_under_way and edit.staged is not edit.given:
                edit.home.discard(edit.staged)

    async def finish(self) -> None:
        """Make durable what is open, and wait for what is being published: the mount ends."""
        for edit in list(self.overlay.edits.values()):
            if edit.is_orphan or not edit.staged.touched or edit.staged.broken or not edit.staged.dirty:
                continue
            try:
                await self.seal(edit)
            except (OSError, errors.ArtifactFSError) as error:
                self.context.report(edit.source, self.context.path_of(edit.node), f"not written: {error}")
        await self.writeback.finish()
