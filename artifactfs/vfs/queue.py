"""What waits for its service, as a person sees it.

Rules of this file: a file of a tree is a row of its own, although it is published with its tree. What stays on this
machine by its nature (litter of editors and desktops) is in no row.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import trio

from artifactfs.journal.states import State
from artifactfs.tree.nodes import Node
from artifactfs.vfs.overlay import Edit, Gone, Job, WorkTree, join, stays_here
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

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


def queue_of(writer: Writer) -> list[Pending]:
    """Return what waits, oldest first."""
    rows: list[Pending] = []
    for edit in writer.overlay.edits.values():
        if edit.staged.touched and not edit.is_orphan and not edit.stays_here:
            job = writer.overlay.tree_of(edit.directory, edit.source) or edit
            rows.append(_row(edit, job, writer.writeback.where(edit) or edit.shown, "save", edit.staged.size))
    going = [removal for removal in writer.overlay.removals.values() if removal.given_to is None]
    rows += [_row(removal, removal, removal.shown, "remove", 0) for removal in going]
    for tree in writer.overlay.trees.values():
        rows += _of_tree(writer, tree)
    return sorted(rows, key=lambda row: -row.age_s)


def _of_tree(writer: Writer, tree: WorkTree) -> list[Pending]:
    rows = []
    for path, name, entry in tree.entries():
        is_edit = isinstance(entry, Node) and entry.ino in writer.overlay.edits
        if is_edit or stays_here(join(path, name)):
            continue
        what = "remove" if isinstance(entry, Gone) else "make" if entry.content is None else "move"
        rows.append(_row(tree, tree, f"{tree.shown}/{join(path, name)}", what, 0))
    return rows


def _row(own: Job, job: Job, path: str, what: str, size: int) -> Pending:
    is_open = isinstance(own, Edit) and own.staged.writers > 0
    state = State.OPEN if is_open else State.PUBLISHING if job.under_way is not None else job.state
    planned = None if job.due_at == float("inf") else max(0.0, round(job.due_at - trio.current_time(), 1))
    age_s = round(time.time() - own.since_ns / 1e9, 1) if own.since_ns else 0.0
    return Pending(
        f"{own.home.root.name}/{own.number}", own.source, path, what, state.value, size, job.tries, age_s, planned,
        job.error,
    )  # fmt: skip
