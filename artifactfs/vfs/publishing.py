"""One edit becomes one save at its service.

Rules of this file: nothing is overwritten that the writer has not seen; a save that comes too late goes its own way
(``vfs.overtaken``). A try begins when that is durable (``vfs.attempts``). Bytes are deleted only after what came of
them is known.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import trio

from artifactfs import errors
from artifactfs.journal.drafts import Staged
from artifactfs.model.content import Exact
from artifactfs.model.entry import Artifact, SingleFile
from artifactfs.providers.base import Draft
from artifactfs.tree.layout import present_node
from artifactfs.tree.nodes import Listed, Node
from artifactfs.vfs import attempts, intents, removals
from artifactfs.vfs.context import PASSES, Context, Try
from artifactfs.vfs.overlay import Edit
from artifactfs.vfs.overtaken import Overtaken
from artifactfs.vfs.removal_publishing import Removals

log = logging.getLogger(__name__)

# Somebody else was first: changed it, or made one of the name.
OVERTAKEN = (errors.Conflict, errors.AlreadyExists)


@dataclass(slots=True)
class Files:
    """Publishes files that are artifacts of their own."""

    context: Context
    removals: Removals
    overtaken: Overtaken = field(init=False)

    def __post_init__(self) -> None:
        """Wire what becomes of those that come too late."""
        self.overtaken = Overtaken(self.context, self.removals)

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
        attempt = await attempts.start(edit)
        if attempt is not None:
            await self._save(edit, attempt)

    async def _save(self, edit: Edit, attempt: Try) -> None:
        flight = edit.in_flight or edit.staged
        refusal: errors.ArtifactFSError | None = None
        draft = await self._draft(edit, flight, attempt)
        try:
            saved = await self._put(edit, draft, attempt)
        except OVERTAKEN as error:
            await self.overtaken.keep_beside(edit, error)
        except errors.NotFound:
            if edit.base is None:
                attempts.landed(edit, attempt)
                raise
            await self.overtaken.make_again(edit)
        except Exception as error:
            attempts.landed(edit, attempt)
            if not isinstance(error, errors.ArtifactFSError) or isinstance(error, PASSES):
                raise
            refusal = error
        else:
            await self._received(edit, flight, draft, saved)
            self.context.saved(edit.source)
        if refusal is not None:
            await self.overtaken.superseded(edit)
            raise refusal

    async def _draft(self, edit: Edit, flight: Staged, attempt: Try) -> Draft:
        """Return what is to be saved.

        Raises:
            OSError: it cannot be read, or is damaged; it stands no longer before what came after it.
        """
        try:
            return await trio.to_thread.run_sync(flight.draft, edit.base_sha256)
        except OSError as error:
            damage = error
        attempts.landed(edit, attempt)
        await self.overtaken.superseded(edit)
        raise damage

    async def _find_out(self, edit: Edit) -> None:
        """Carry a save out whose name was taken away, or find that it was carried out, and have it removed."""
        attempt = await attempts.start(edit)
        if attempt is None:
            return
        draft = await trio.to_thread.run_sync(edit.staged.draft, edit.base_sha256)
        artifact = edit.base
        try:
            artifact = await self._put(edit, draft, attempt) or edit.base
        except PASSES:
            attempts.landed(edit, attempt)
            raise
        except errors.NotFound:
            artifact = None
        except errors.ArtifactFSError as error:
            log.info("a save that was removed again had not been made: %s", error)
        await self.removals.take_back(edit, artifact)

    async def _follow_removal(self, edit: Edit) -> None:
        """Let a new file whose name is being given up wait for that; if that failed, go on with what has the name."""
        overlay = self.context.overlay
        if edit.base is not None or (edit.in_flight is not None and edit.tries):
            return
        at = (edit.directory, edit.source, edit.node.name)
        while (removal := removals.under_way(overlay, *at)) is not None and removal.under_way is not None:
            await removal.under_way.wait()
        async with edit.lock:
            removal = overlay.removal_at(edit.directory, edit.source, edit.node.name)
            if removal is not None:
                removal.given_to, edit.replaces = edit, removal
                edit.base, edit.base_sha256 = removal.artifact, None
                if edit.in_flight is not None:
                    edit.flight_record = intents.of_edit(edit, edit.in_flight)

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
        node, artifact = edit.node, saved or edit.base
        # What took the place of a file that says the same is not saved, and is that file from here on.
        is_other = artifact is not None and self._listed(edit, artifact).identity != node.identity
        if artifact is not None and (saved is not None or is_other):
            await self._adopt(artifact, draft)
        async with self.context.orders[edit.source], edit.lock:
            edit.covers = None
            if saved is not None:
                self._show_saved(edit, saved)
                if edit.base is not None and edit.base.key != saved.key:
                    self.context.forget(edit.source, edit.base)
            if artifact is not None and (saved is not None or is_other):
                self.context.overlay.become(node, self._listed(edit, artifact))
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
        if artifact is not None and edit.node.artifact is not artifact:
            edit.node.artifact = artifact
        await self.context.directories.listings.own.durable(edit.source)
        await self.removals.spare(edit)
        await attempts.write_down(edit, [flight.number])
        attempts.due(edit)
        await trio.to_thread.run_sync(edit.home.discard, flight)

    async def _done(self, edit: Edit, flight: Staged) -> None:
        await self.context.directories.listings.own.durable(edit.source)
        await self.removals.spare(edit)
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


def _was_executable(artifact: Artifact) -> bool:
    content = artifact.current.content if artifact.current else None
    return isinstance(content, SingleFile) and content.executable
