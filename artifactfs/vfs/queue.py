"""What waits for its service, as a person sees it.

Rules of this file: a file of a tree is a row of its own, although it is published with its tree. What stays on this
machine by its nature (litter of editors and desktops) is in no row.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import trio

from artifactfs import errors
from artifactfs.journal.states import State
from artifactfs.tree.names import encoded
from artifactfs.tree.nodes import Node, VersionDir
from artifactfs.vfs.overlay import Edit, Gone, Job, WorkTree, is_below, join, stays_here
from artifactfs.vfs.transactions import HALF_DONE, is_half_done
from artifactfs.vfs.writing import Writer


@dataclass(frozen=True, slots=True)
class Pending:
    """One change that waits.

    Attributes:
        number: names it for ``pending retry`` and the like, with its source.
        source: whose it is.
        path: below the mount point.
        what: ``save``, ``remove``, ``make`` or ``move``.
        state: see ``journal.states``.
        size: bytes that are to be saved.
        tries: how often the service was asked.
        age_s: since it was acknowledged.
        next_try_s: until the next try; None if nothing is planned: it is open, or was refused.
        error: of the last try.
        goes_along: nothing is wrong: the service has no version for this alone; it goes with the next change of a file.
    """

    number: str
    source: str
    path: str
    what: str
    state: str
    size: int
    tries: int
    age_s: float
    next_try_s: float | None
    error: str
    goes_along: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Item:
    """One change that waits, and what it is to us.

    Attributes:
        row: as a person sees it.
        job: what is published: the change itself, or the tree that it is in.
        edit: the file that was written, if it is one.
        at: directory and name in its tree, if it is in one.
    """

    row: Pending
    job: Job
    edit: Edit | None = None
    at: tuple[str, str] | None = None


def queue_of(writer: Writer) -> list[Pending]:
    """Return what waits, oldest first."""
    return [item.row for item in items_of(writer)]


def items_of(writer: Writer) -> list[Item]:
    """Return what waits, oldest first, with what it is."""
    items = [
        _edited(writer, edit)
        for edit in writer.overlay.edits.values()
        if edit.staged.touched and not edit.is_orphan and not edit.stays_here
    ]
    going = [removal for removal in writer.overlay.removals.values() if removal.given_to is None]
    items += [Item(_row(removal, removal, removal.shown, "remove", 0), removal) for removal in going]
    for tree in writer.overlay.trees.values():
        items += _of_tree(writer, tree)
    return sorted(items, key=lambda item: -item.row.age_s)


def _edited(writer: Writer, edit: Edit) -> Item:
    job = writer.overlay.tree_of(edit.directory, edit.source) or edit
    at = (edit.directory.path, edit.node.name) if isinstance(edit.directory, VersionDir) else None
    shown = writer.writeback.where(edit) or edit.shown
    row = _row(edit, job, shown, "remove" if edit.doomed else "save", edit.staged.size)
    if not row.error and is_half_done(writer.overlay, edit):
        row = replace(row, error=HALF_DONE)
    return Item(row, job, edit, at)


def _of_tree(writer: Writer, tree: WorkTree) -> list[Item]:
    items = []
    for path, name, entry in tree.entries():
        is_edit = isinstance(entry, Node) and entry.ino in writer.overlay.edits
        if is_edit or stays_here(join(path, name)):
            continue
        what = "remove" if isinstance(entry, Gone) else "make" if entry.content is None else "move"
        number = tree.records.get((path, name), tree.number)
        row = _row(tree, tree, f"{tree.shown}/{join(encoded(path), name)}".lstrip("/"), what, 0, number)
        items.append(Item(row, tree, at=(path, name)))
    return items


def _row(own: Job, job: Job, path: str, what: str, size: int, number: int | None = None) -> Pending:
    is_open = isinstance(own, Edit) and (own.staged.writers > 0 or own.closing > 0)
    state = State.OPEN if is_open else State.PUBLISHING if job.under_way is not None else job.state
    planned = None if job.due_at == float("inf") else max(0.0, round(job.due_at - trio.current_time(), 1))
    age_s = round(time.time() - own.since_ns / 1e9, 1) if own.since_ns else 0.0
    return Pending(
        f"{own.home.root.name}/{number or own.number}", own.source, path, what, state.value, size, job.tries, age_s,
        planned, job.error, isinstance(job, WorkTree) and job.waits,
    )  # fmt: skip


def chosen(items: Iterable[Item], below: Sequence[str] = (), numbers: Sequence[str] = ()) -> list[Item]:
    """Return those at or below one of some paths, and those of some numbers; everything if neither is given.

    Raises:
        InvalidRequest: nothing, or more than one change, has a number.
    """
    known = list(items)
    if not below and not numbers:
        return known
    found = [item for item in known if any(is_below(item.row.path, path) for path in below)]
    for number in numbers:
        named = [item for item in known if item.row.number == number or item.row.number.endswith(f"/{number}")]
        if len(named) != 1:
            raise errors.InvalidRequest(f"{'more than one' if named else 'no'} waiting change has the number {number}")
        found += [item for item in named if item not in found]
    return found
