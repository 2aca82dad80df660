"""Saves that came too late, or are of no use any more.

Rules of this file: nothing is overwritten that the writer has not seen, and nothing is thrown away: what came too late
is kept beside the other one under a name that says so, and is said once to who saves under the name that was wanted.
Bytes that were refused are given up only when others of the same edit are durable.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import trio

from artifactfs import errors
from artifactfs.journal.states import State
from artifactfs.tree.merging import marked
from artifactfs.tree.names import encode
from artifactfs.tree.nodes import Listed, Node
from artifactfs.vfs import attempts
from artifactfs.vfs.context import Context
from artifactfs.vfs.overlay import Edit, Overlay, key_of
from artifactfs.vfs.removal_publishing import Removals

# Saves of one file that are overtaken in the same second; more would be a loop of ours.
MAX_COPIES = 20


def conflict_mark() -> str:
    """Return what a name says of a save that came too late."""
    return time.strftime("conflict %Y-%m-%d %H.%M.%S")


def is_taken(overlay: Overlay, edit: Edit) -> bool:
    """Tell whether the name of an edit in a tree stands for something else that was changed here: another inode."""
    entry = overlay.at(edit)
    return edit.in_tree and isinstance(entry, Node) and entry.ino != edit.node.ino


def stand_beside(overlay: Overlay, edit: Edit) -> str:
    """Let an edit in a tree be a new file beside the one that has its name; return what is said of that.

    Nobody is asked whether the new name is free: the number of a draft is of this edit alone.
    """
    node, wanted = edit.node, edit.node.name
    overlay.hide(edit)
    overlay.leave(node)
    above, slash, raw = edit.path.rpartition("/")
    kept = marked(raw, f"{conflict_mark()} {edit.number}")
    node.name, node.tree_path = encode(kept), above + slash + kept
    node.identity, node.version = ("draft", edit.source, str(edit.staged.path)), None
    edit.base_sha256, edit.is_unhashed, edit.is_local, edit.covers = None, False, True, None
    message = f"another save here has its name; this save is kept as {node.name!r}"
    overlay.notices[key_of(edit.directory, edit.source), wanted] = errors.Conflict(message)
    return message


@dataclass(slots=True)
class Overtaken:
    """What becomes of edits that were not saved as what they were."""

    context: Context
    removals: Removals

    async def keep_beside(self, edit: Edit, error: errors.ArtifactFSError) -> None:
        """Let an edit that came too late be a new file beside the one it was meant to be."""
        overlay, node, wanted = self.context.overlay, edit.node, edit.node.name
        where = self.context.shown_at(node, edit.shown)
        async with self.context.orders[edit.source], edit.lock:
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
            await attempts.write_down(edit)
            await self.removals.spare(edit)
        edit.due_at = trio.current_time()
        if isinstance(edit.directory, Listed):
            self.context.directories.listings.own.forget(edit.directory.ref)
        self.context.directories.listings.changed(node.parent, wanted)
        self.context.directories.listings.changed(node.parent, name)
        self.context.report(edit.source, where, f"{error}; this save is kept as {name!r}")

    def _free_name(self, edit: Edit, wanted: str) -> str:
        taken = set(self.context.overlay.names(Node(0, (), edit.node.kind, "", edit.directory, source=edit.source)))
        if isinstance(edit.directory, Listed):
            taken |= self.context.directories.listings.own.names(edit.directory)
        mark = conflict_mark()
        for attempt in range(1, MAX_COPIES + 1):
            name = marked(wanted, mark if attempt == 1 else f"{mark} {attempt}")
            if name not in taken:
                return name
        message = f"there is no free name beside {wanted!r}"
        raise errors.AlreadyExists(message)

    async def superseded(self, edit: Edit) -> None:
        """Give up bytes that were refused, if somebody has written others meanwhile: those are what is wanted."""
        async with edit.lock:
            flight = edit.in_flight
            if flight is None or flight is edit.staged:
                return
            edit.in_flight, edit.flight_record = None, None
            if not edit.staged.sealed and edit.backup is None:
                edit.backup = flight  # acknowledged, until the others are
                return
            await attempts.write_down(edit, [flight.number])
            attempts.due(edit)
            await trio.to_thread.run_sync(edit.home.discard, flight)

    async def make_again(self, edit: Edit) -> None:
        """Let an edit of a file that somebody else removed be a new file of its name."""
        async with edit.lock:
            edit.base, edit.base_sha256, edit.is_local, edit.state = None, None, True, State.SEALED
            edit.tries, edit.facts, edit.flight_record = 0, {}, None
            await attempts.write_down(edit)
        edit.due_at = trio.current_time()
