"""What an edit goes on from, and what becomes of it without its name.

Rules of this file: a save that nobody knows the end of is followed to its end, under its name or without one, before
anything else is made of that name. Bytes that are being published, or were given to another edit, are not deleted with
the edit. An orphan's bytes live as long as somebody has it open.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial

import trio

from artifactfs.journal.drafts import Staged
from artifactfs.journal.states import State
from artifactfs.tree.inodes import number
from artifactfs.tree.nodes import Node
from artifactfs.vfs import intents, removals
from artifactfs.vfs.context import Context
from artifactfs.vfs.overlay import Edit, Gone, Overlay, Removal
from artifactfs.vfs.twins import twin
from artifactfs.vfs.writeback import WriteBack

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Lineage:
    """What edits hand on to each other, and what is left of those that end without being saved."""

    context: Context
    writeback: WriteBack

    @property
    def overlay(self) -> Overlay:
        """Return the changes of the mount."""
        return self.context.overlay

    # -- what went before ------------------------------------------------------------------------------------

    def inherit(self, edit: Edit, replaced: Edit) -> bool:
        """Go on with a save that nobody knows the end of; return whether there was one.

        It is published first, as what it was: else its outcome would look like somebody else's change.
        """
        flight = replaced.in_flight or replaced.staged
        if not replaced.tries or edit.tries or edit.home is not replaced.home or flight.writers:
            return False
        edit.in_flight = replaced.given = flight
        is_removed = replaced.doomed or intents.is_of_removed(replaced)
        edit.flight_record = replaced.flight_record or intents.of_edit(replaced)
        edit.flight_record.number = flight.number
        edit.flight_record.what["doomed"] = is_removed  # until the edit is durable: a kill brings nothing removed back
        edit.tries, edit.facts = replaced.tries, replaced.facts
        edit.base, edit.base_sha256, edit.is_local = replaced.base, replaced.base_sha256, replaced.is_local
        edit.node.artifact = replaced.node.artifact
        if replaced.replaces is not None:
            edit.replaces, replaced.replaces = replaced.replaces, None
            edit.replaces.given_to = edit
        return True

    async def keep_behind(self, edit: Edit, replaced: Edit) -> None:
        """Keep what was acknowledged under a name until what has taken that name is durable, too; under its lock."""
        kept = replaced.staged if replaced.staged.sealed else replaced.backup
        own = (edit.backup, edit.in_flight, edit.node.content if edit.in_tree else None)
        if (
            kept in {None, replaced.given}
            or edit.staged.sealed
            or any(one not in {None, replaced.given} for one in own)
        ):
            return  # there is nothing, or something of its own is durable
        copy: Staged | None = None
        try:
            copy = await trio.to_thread.run_sync(edit.home.clone, kept)
            await trio.to_thread.run_sync(edit.home.seal, copy, intents.of_edit(edit, copy))
        except OSError as error:
            log.warning("until a file that was renamed is durable, what it has replaced is not kept: %s", error)
            if copy is not None:
                edit.home.discard(copy)
        else:
            edit.backup = copy

    async def copied(self, edit: Edit) -> None:
        """Let an edit go on with a copy of its bytes; the others are what is being saved."""
        async with edit.lock:
            old = edit.staged
            fresh = await twin(edit.home, old)
            fresh.writers, old.writers = old.writers, 0
            edit.staged, edit.number, edit.in_flight = fresh, fresh.number, old

    @staticmethod
    async def untried(edit: Edit) -> None:
        """Let an edit that leaves its tree go on without the bytes that a try of the tree had of it, which failed."""
        earlier, edit.in_flight = edit.in_flight, None
        if earlier is None or earlier is edit.staged:
            return
        if edit.backup is None and not edit.staged.sealed:
            edit.backup = earlier  # nothing else of it is durable yet
        else:
            await trio.to_thread.run_sync(edit.home.discard, earlier)

    async def doom(self, edit: Edit, given: Removal | None = None) -> None:
        """Let a save that nobody knows the end of go on without a name, to be taken back; the edit leaves it.

        A removal that was given to it ends: what the save has become is removed, and not what has its name then.
        """
        ghost = self.ghost_of(edit)
        gone = [] if given is None else [given.number]
        await trio.to_thread.run_sync(partial(edit.home.journal.put, intents.of_edit(ghost), drop=gone))
        if given is not None:
            removals.drop(self.overlay, given)
        self.leave_to(ghost, edit)
        self.writeback.wake()

    def ghost_of(self, edit: Edit) -> Edit:
        """Return what goes on without a name of an edit whose save nobody knows the end of."""
        flight = edit.in_flight or edit.staged
        identity = ("doomed", edit.source, str(flight.path))
        node = Node(
            number(identity), identity, edit.node.kind, edit.node.name, source=edit.source,
            artifact=edit.node.artifact,
        )  # fmt: skip
        return Edit(
            source=edit.source, home=edit.home, number=flight.number, node=node, staged=flight,
            directory=edit.directory, base=edit.base, base_sha256=edit.base_sha256, is_local=edit.is_local,
            tries=edit.tries, facts=edit.facts, since_ns=edit.since_ns, state=State.SEALED, shown=edit.shown,
            doomed=True, due_at=trio.current_time() + self.writeback.policy.delay_s,
            flight_record=edit.flight_record if intents.is_of_removed(edit) else None,
        )  # fmt: skip

    def leave_to(self, ghost: Edit, edit: Edit) -> None:
        """Let an edit go on without a save that nobody knows the end of, and its name stand for nothing."""
        edit.given, edit.in_flight, edit.flight_record, edit.tries, edit.facts = ghost.staged, None, None, 0, {}
        self.overlay.begin(ghost)
        self.overlay.put(edit.directory, edit.source, edit.node.name, Gone())

    def rejoin(self, ghost: Edit, edit: Edit) -> None:
        """Give an edit back what it has left, if nothing else of it is durable: that was acknowledged."""
        if edit.staged.sealed or edit.backup is not None:
            return
        del self.overlay.edits[ghost.node.ino]
        self.overlay.unhide(ghost)
        edit.given, edit.backup = None, ghost.staged
        if not edit.staged.writers:
            copy, edit.staged, edit.backup = edit.staged, ghost.staged, None
            edit.number, edit.state = edit.staged.number, State.SEALED
            edit.home.discard(copy)
            self.writeback.schedule(edit)

    async def doom_moved(self, ghost: Edit, edit: Edit) -> None:
        """Give up for good what an edit has left, which is durable under another name now."""
        if not (ghost.flight_record and ghost.flight_record.what["doomed"]):  # else that was removed before
            async with edit.lock:
                await self.keep_behind(edit, ghost)
        await trio.to_thread.run_sync(edit.home.journal.put, intents.of_edit(ghost))

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
            edit.base, edit.base_sha256, edit.is_local = removal.artifact, None, True

    async def orphan(self, edit: Edit) -> None:
        """Take the name of an edit away; its bytes go when nobody has it open."""
        edit.is_orphan = True
        self.overlay.hide(edit)
        await self.forget_saves(edit)
        if not self._is_being_read(edit) and edit.staged is not edit.given:
            await trio.to_thread.run_sync(edit.home.unlink, edit.staged)
        for earlier in (edit.backup, edit.in_flight):
            if earlier is None or earlier in {edit.staged, edit.given} or edit.is_under_way:
                continue
            if not self._is_being_sent(edit, earlier):  # else whoever makes the version deletes the bytes then
                await trio.to_thread.run_sync(edit.home.discard, earlier)
        self.collect(edit.node)

    async def forget_saves(self, edit: Edit) -> None:
        """Let nobody take any bytes of an edit for a save from here on; at once, or a kill would leave an older one."""
        await trio.to_thread.run_sync(partial(edit.home.journal.put, drop=edit.saves))

    def _is_being_sent(self, edit: Edit, staged: Staged) -> bool:
        """Tell whether a version of the tree of an edit is just being made of these bytes."""
        tree = self.overlay.tree_of(edit.directory, edit.source)
        return tree is not None and staged in tree.sending

    def _is_being_read(self, edit: Edit) -> bool:
        """Tell whether the bytes of an edit are in the version of a tree that is just being made."""
        return edit.in_flight is edit.staged and self._is_being_sent(edit, edit.staged)

    def collect(self, node: Node) -> None:
        """Drop an orphan that nobody has open any more."""
        edit = self.overlay.edits.get(node.ino)
        if edit is None or not edit.is_orphan or self._is_being_read(edit):
            return
        if node.handles == 0 and edit.staged.writers == 0:
            self.overlay.let_go(edit)
            if not edit.is_under_way and edit.staged is not edit.given:
                edit.home.discard(edit.staged)

    async def forget(self, edit: Edit) -> None:
        """Drop an edit and its bytes."""
        shown = self.overlay.names(self._parent(edit)).get(edit.node.name)
        self.overlay.let_go(edit)
        if edit.replaces is not None:
            edit.replaces.given_to = None
            if shown is edit.node:
                self.hide_again(edit.replaces)
        await trio.to_thread.run_sync(edit.home.discard, edit.staged)
        self.without(edit)

    def _parent(self, edit: Edit) -> Node:
        return Node(0, (), edit.node.kind, "", directory=edit.directory, source=edit.source)

    def without(self, edit: Edit) -> None:
        """Have a tree looked at that has an edit less: that may have been all that was changed in it."""
        tree = self.overlay.tree_of(edit.directory, edit.source)
        if tree is not None:
            self.writeback.schedule_tree(tree)

    def hide_again(self, removal: Removal) -> None:
        """Go on removing an artifact whose name was taken again, and given back."""
        self.overlay.put(removal.directory, removal.source, removal.name, Gone())
        self.writeback.schedule_removal(removal)
