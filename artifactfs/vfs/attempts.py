"""One try of publishing a change, as its record knows it.

Rules of this file: that a try begins is durable before it begins. What is true of an edit after a try is written down
for whichever of its bytes were acknowledged.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import trio

from artifactfs.journal.states import Event, State, after
from artifactfs.vfs import intents
from artifactfs.vfs.context import Try
from artifactfs.vfs.overlay import Edit


def begun(state: State) -> State:
    """Return the state of a change whose try begins, also after it was refused."""
    return after(after(state, Event.RETRY) if state is State.FAILED else state, Event.START)


async def start(edit: Edit) -> Try | None:
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


def landed(edit: Edit, attempt: Try) -> None:
    """Let an edit whose try failed be written to again."""
    edit.tries, edit.facts = attempt.record.tries, attempt.record.facts
    if edit.in_flight is edit.staged:
        edit.in_flight = None


async def write_down(edit: Edit, drop: Collection[int] = ()) -> None:
    """Make durable what is true of an edit now, for whichever of its bytes were acknowledged."""
    if edit.in_flight is edit.staged:
        edit.in_flight = None
    records = intents.of_all(edit)
    if edit.in_flight is not None and edit.in_flight is not edit.staged:
        edit.flight_record = records[0]
    await trio.to_thread.run_sync(lambda: edit.home.journal.put(*records, drop=drop))


def due(edit: Edit) -> None:
    """See that content which nobody writes to any more is published, if nobody has said when."""
    if edit.staged.sealed and not edit.staged.writers and edit.due_at == math.inf:
        edit.due_at = trio.current_time()
