"""One edit becomes one save at its service, one removal one delete.

Rules of this file: nothing is overwritten that the writer has not seen. A save that comes too late, or whose name was
taken meanwhile, is kept beside the other one under a name that says so. That a try begins is durable before it begins;
bytes are deleted only after what came of them is known.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection
from dataclasses import dataclass

import trio

from artifactfs import errors
from artifactfs.journal.drafts import Staged
from artifactfs.journal.states import Event, State, after
from artifactfs.model.content import Exact
from artifactfs.model.entry import Artifact, SingleFile
from artifactfs.providers.base import Draft
from artifactfs.tree.layout import present_node
from artifactfs.tree.merging import marked
from artifactfs.tree.nodes import Listed, Node
from artifactfs.vfs import intents
from artifactfs.vfs.context import PASSES, Context, Try
from artifactfs.vfs.overlay import Edit, Removal, key_of

log = logging.getLogger(__name__)

# Somebody else was first: changed it, or made one of the name.
OVERTAKEN = (errors.Conflict, errors.AlreadyExists)
# Saves of one file that are overtaken in the same second; more would be a loop of ours.
MAX_COPIES = 20
# A removal that is older has waited for its service, and others may have saved what it takes away.
WAITED_NS = 10 * 10**9
STAYS = "somebody else changed it while it was removed here; it stays"


def conflict_mark() -> str:
    """Return what a name says of a save that came too late."""
    return time.strftime("conflict %Y-%m-%d %H.%M.%S")


def begun(state: State) -> State:
    """Return the state of a change whose try begins, also after it was refused."""
    return after(after(state, Event.RETRY) if state is State.FAILED else state, Event.START)


@dataclass(slots=True)
class Files:
    """Publishes files that are artifacts of their own, and removals of artifacts."""

    context: Context

    # -- saving ----------------------------------------------------------------------------------------------

    async def publish(self, edit: Edit) -> None:
        """Save an edit.

        Raises:
            ArtifactFSError, OSError: it was not saved, and is kept.
        """
        if edit.doomed:
            await self._find_out(edit)
            return
        await self._follow_removal(edit)
        attempt = await self._start(edit)
        if attempt is None:
            return
        flight = edit.in_flight or edit.staged
        draft = await trio.to_thread.run_sync(flight.draft, edit.base_sha256)
        try:
            saved = await self._put(edit, draft, attempt)
        except OVERTAKEN as error:
            await self._keep_beside(edit, error)
        except errors.NotFound:
            if edit.base is None:
                self._landed(edit, attempt)
                raise
            await self._make_again(edit)
        except Exception as error:
            self._landed(edit, attempt)
            if isinstance(error, errors.ArtifactFSError) and not isinstance(error, PASSES):
                await self._superseded(edit)
            raise
        else:
            await self._received(edit, flight, draft, saved)
            self.context.saved(edit.source)

    async def _find_out(self, edit: Edit) -> None:
        """Carry a save out whose name was taken away, or find that it was carried out, and have it removed."""
        attempt = await self._start(edit)
        if attempt is None:
            return
        draft = await trio.to_thread.run_sync(edit.staged.draft, edit.base_sha256)
        artifact = edit.base
        try:
            artifact = await self._put(edit, draft, attempt) or edit.base
        except PASSES:
            self._landed(edit, attempt)
            raise
        except errors.NotFound:
            artifact = None
        except errors.ArtifactFSError as error:
            log.info("a save that was removed again had not been made: %s", error)
        await self._take_back(edit, artifact)

    async def _follow_removal(self, edit: Edit) -> None:
        """Let a new file whose name is being given up wait for that; if that failed, go on with what has the name."""
        overlay = self.context.overlay
        if edit.base is not None or edit.in_flight is not None:
            return
        removal = overlay.removals.get((key_of(edit.directory, edit.source), edit.node.name))
        while removal is not None and removal.under_way is not None:
            await removal.under_way.wait()
        async with edit.lock:
            removal = overlay.removal_at(edit.directory, edit.source, edit.node.name)
            if removal is not None:
                removal.given_to, edit.replaces, edit.base = edit, removal, removal.artifact

    async def _start(self, edit: Edit) -> Try | None:
        """Note that a try begins; None if there is nothing whole to be published at this moment."""
        async with edit.lock:
            if edit.in_flight is None:
                # Between the decision to publish it and now somebody may have begun to write: to a copy, or anew.
                is_whole = edit.staged.sealed and not edit.staged.writers
                flight = edit.staged if is_whole else edit.backup
                if flight is None:
                    return None
                edit.in_flight, edit.backup = flight, None if flight is edit.backup else edit.backup
                edit.flight_record = intents.of_edit(edit, flight)
            is_first = edit.tries == 0
            edit.tries += 1
            edit.state = begun(edit.state) if edit.in_flight is edit.staged else edit.state
            record = edit.flight_record or intents.of_edit(edit)
            record.tries, record.state = edit.tries, State.PUBLISHING
            await trio.to_thread.run_sync(edit.home.journal.put, record)
        return Try(edit.home, record, is_first)

    async def _take_back(self, edit: Edit, artifact: Artifact | None) -> None:
        """Remove what a save has become whose name was taken away meanwhile."""
        if not isinstance(edit.directory, Listed):
            raise TypeError(edit)
        overlay, home = self.context.overlay, edit.home
        async with self.context.order, edit.lock:
            overlay.edits.pop(edit.node.ino, None)
            if artifact is None:
                overlay.drop(edit.directory, edit.source, edit.node.name)
            else:
                removal = Removal(
                    source=edit.source, home=home, number=home.next_number(), state=State.SEALED, artifact=artifact,
                    directory=edit.directory, name=edit.node.name, shown=edit.shown, due_at=trio.current_time(),
                )  # fmt: skip
                await trio.to_thread.run_sync(home.journal.put, intents.of_removal(removal))
                overlay.removals[key_of(edit.directory, edit.source), edit.node.name] = removal
            await trio.to_thread.run_sync(home.discard, edit.staged)

    @staticmethod
    def _landed(edit: Edit, attempt: Try) -> None:
        """Let an edit whose try failed be written to again."""
        edit.tries, edit.facts = attempt.record.tries, attempt.record.facts
        if edit.in_flight is edit.staged:
            edit.in_flight = None

    async def _superseded(self, edit: Edit) -> None:
        """Give up bytes that were refused, if somebody has written others meanwhile: those are what is wanted."""
        async with edit.lock:
            flight = edit.in_flight
            if flight is None or flight is edit.staged:
                return
            edit.in_flight, edit.flight_record = None, None
            if not edit.staged.sealed and edit.backup is None:
                edit.backup = flight  # acknowledged, until the others are
                return
            await self._write_down(edit, [flight.number])
            self._due(edit)
            await trio.to_thread.run_sync(edit.home.discard, flight)

    async def _make_again(self, edit: Edit) -> None:
        """Let an edit of a file that somebody else removed be a new file of its name."""
        async with edit.lock:
            edit.base, edit.base_sha256, edit.is_local, edit.state = None, None, True, State.SEALED
            edit.tries, edit.facts, edit.flight_record = 0, {}, None
            await self._write_down(edit)
        edit.due_at = trio.current_time()

    @staticmethod
    async def _write_down(edit: Edit, drop: Collection[int] = ()) -> None:
        """Make durable what is true of an edit now, for whichever of its bytes were acknowledged."""
        if edit.in_flight is edit.staged:
            edit.in_flight = None
        records = intents.of_all(edit)
        if edit.in_flight is not None and edit.in_flight is not edit.staged:
            edit.flight_record = records[0]
        await trio.to_thread.run_sync(lambda: edit.home.journal.put(*records, drop=drop))

    async def _put(self, edit: Edit, draft: Draft, attempt: Try) -> Artifact | None:
        """Return what the source lists for it now; None if that is what it listed before."""
        publisher, base = self.context.publisher(edit.source), edit.base
        if not isinstance(edit.directory, Listed):
            message = "a file in a tree is saved with its tree"
            raise TypeError(message)
        if base is None:
            path = (*edit.directory.prefix, edit.node.name)
            return await publisher.create_file(edit.directory.ref, path, draft, attempt)
        is_same = draft.sha256 == draft.base_sha256 and draft.executable == _was_executable(base)
        if is_same and edit.replaces is None and not edit.is_local and attempt.is_first:
            return None
        return await publisher.save_file(base, draft, attempt)

    async def _received(self, edit: Edit, flight: Staged, draft: Draft, saved: Artifact | None) -> None:
        node = edit.node
        if saved is not None:
            await self._adopt(saved, draft)
        async with self.context.order, edit.lock:
            artifact, edit.covers = saved or edit.base, None
            if saved is not None and isinstance(edit.directory, Listed):
                self._show_saved(edit, saved)
            if saved is not None:
                self.context.overlay.become(node, self._listed(edit, saved))
            if edit.staged is flight:
                # What the writer has seen stays: vim warns if a save changes the time of its file.
                node.mtime_ns, node.executable = flight.mtime_ns or node.mtime_ns, flight.executable
                node.size = Exact(draft.size)
                self.context.overlay.let_go(edit)
                if saved is not None:
                    self.context.pointer_saved(node)
                await self._done(edit, flight)
            else:
                await self._go_on(edit, flight, draft, artifact)

    async def _go_on(self, edit: Edit, flight: Staged, draft: Draft, artifact: Artifact | None) -> None:
        """Let what was written meanwhile be the next version of what was just saved."""
        edit.base, edit.base_sha256, edit.is_local = artifact, draft.sha256, False
        edit.in_flight, edit.flight_record, edit.tries, edit.facts = None, None, 0, {}
        edit.replaces = None
        if artifact is not None and edit.node.artifact is not artifact:
            edit.node.artifact = artifact
        await self._write_down(edit, [flight.number])
        self._due(edit)
        await trio.to_thread.run_sync(edit.home.discard, flight)

    @staticmethod
    def _due(edit: Edit) -> None:
        """See that content which nobody writes to any more is published, if nobody has said when."""
        if edit.staged.sealed and not edit.staged.writers and edit.due_at == math.inf:
            edit.due_at = trio.current_time()

    async def _done(self, edit: Edit, flight: Staged) -> None:
        removal = edit.replaces
        if removal is not None:
            await trio.to_thread.run_sync(lambda: removal.home.journal.put(drop=[removal.number]))
            self._forget_removal(removal)
        await trio.to_thread.run_sync(edit.home.discard, flight)

    async def _adopt(self, saved: Artifact, draft: Draft) -> None:
        """Keep the bytes as those of what was saved: nobody need ask for them."""
        content = saved.current.content if saved.current else None
        if not isinstance(content, SingleFile):
            return
        try:
            await self.context.content.adopt(content.content, draft)
        except OSError as error:
            log.info("the bytes of a save are not cached: %s", error)

    def _show_saved(self, edit: Edit, saved: Artifact) -> None:
        directory = edit.directory
        if isinstance(directory, Listed):
            self.context.directories.apply_saved(edit.source, directory, edit.node.name, saved, edit.node.mtime_ns)

    @staticmethod
    def _listed(edit: Edit, saved: Artifact) -> Node:
        return present_node(saved, edit.node.name, edit.node.mtime_ns, edit.source)

    # -- conflicts -------------------------------------------------------------------------------------------

    async def _keep_beside(self, edit: Edit, error: errors.ArtifactFSError) -> None:
        """Let an edit that came too late be a new file beside the one it was meant to be."""
        overlay, node, wanted = self.context.overlay, edit.node, edit.node.name
        where = self.context.path_of(node)
        async with self.context.order, edit.lock:
            name = self._free_name(edit, wanted)
            edit.covers = None  # the name is somebody else's now
            overlay.hide(edit)
            overlay.leave(node)
            node.name, node.identity = name, ("draft", edit.source, str(edit.staged.path))
            node.artifact, node.version, node.tree_path = None, None, ""
            edit.base, edit.base_sha256, edit.is_local, edit.state = None, None, True, State.CONFLICT
            edit.tries, edit.facts, edit.flight_record, edit.error = 0, {}, None, str(error)
            overlay.show(edit)
            # Told once to who saves under the name that was wanted, or goes on with the copy.
            overlay.notices[key_of(edit.directory, edit.source), wanted] = errors.Conflict(f"{error}; see {name!r}")
            edit.failure = errors.Conflict(str(error), subject=name)
            await self._write_down(edit)
            removal, edit.replaces = edit.replaces, None
            if removal is not None:
                self._forget_removal(removal)
                await trio.to_thread.run_sync(lambda: removal.home.journal.put(drop=[removal.number]))
        edit.due_at = trio.current_time()
        if isinstance(edit.directory, Listed):
            self.context.directories.listings.forget(edit.directory.ref)
        self.context.directories.listings.changed(node.parent, wanted)
        self.context.directories.listings.changed(node.parent, name)
        self.context.report(edit.source, where, f"{error}; this save is kept as {name!r}")

    def _free_name(self, edit: Edit, wanted: str) -> str:
        taken = set(self.context.overlay.names(Node(0, (), edit.node.kind, "", edit.directory, source=edit.source)))
        if isinstance(edit.directory, Listed):
            taken |= self.context.directories.listings.names(edit.directory)
        mark = conflict_mark()
        for attempt in range(1, MAX_COPIES + 1):
            name = marked(wanted, mark if attempt == 1 else f"{mark} {attempt}")
            if name not in taken:
                return name
        message = f"there is no free name beside {wanted!r}"
        raise errors.AlreadyExists(message)

    # -- removing --------------------------------------------------------------------------------------------

    async def remove(self, removal: Removal) -> None:
        """Remove an artifact from its service.

        Raises:
            ArtifactFSError: it was not removed, and the removal is kept.
        """
        removal.tries += 1
        removal.state = begun(removal.state)
        stays = await self._was_overtaken(removal)
        if stays:
            self.context.report(removal.source, removal.shown, STAYS)
        else:
            await self.context.publisher(removal.source).remove(removal.artifact)
        async with self.context.order:
            if stays:
                self.context.directories.listings.forget(removal.directory.ref)
            else:
                self.context.directories.apply_removed(removal.source, removal.directory, removal.artifact)
            self._forget_removal(removal)
            self.context.overlay.unhide(removal)
            await trio.to_thread.run_sync(lambda: removal.home.journal.put(drop=[removal.number]))
        self.context.saved(removal.source)

    async def _was_overtaken(self, removal: Removal) -> bool:
        """Tell whether somebody else has saved what was removed here; asked where that costs nothing, or it waited."""
        provider = self.context.sources[removal.source].provider
        if not provider.is_here and time.time_ns() - removal.since_ns < WAITED_NS:
            return False
        found = await provider.refresh(removal.artifact)
        if found is None or found.current is None or removal.artifact.current is None:
            return False
        return found.current.id != removal.artifact.current.id

    def _forget_removal(self, removal: Removal) -> None:
        removals = self.context.overlay.removals
        for at in [at for at, found in removals.items() if found is removal]:
            del removals[at]


def _was_executable(artifact: Artifact) -> bool:
    content = artifact.current.content if artifact.current else None
    return isinstance(content, SingleFile) and content.executable
