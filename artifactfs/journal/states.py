"""The states of a change that waits for its service. Pure.

==========  =======================================================================================================
OPEN        somebody writes; what was sealed before stays on disk, and is not what they mean any more
SEALED      content and intent are durable; it waits for its turn, for the first time or after a try that failed
PUBLISHING  a try is under way, or was when the process ended
PUBLISHED   nothing is left to do, and the record may go: the service has it, or the user discarded it
FAILED      the service refused it; it waits for the user, or for another save
CONFLICT    something overtook it; it is kept beside that under a name of its own, which is still to be published
==========  =======================================================================================================

What becomes of a state by an event; what is empty cannot be:

=========  =========  ==========  ==========  =========  =========  ==========
event      OPEN       SEALED      PUBLISHING  PUBLISHED  FAILED     CONFLICT
=========  =========  ==========  ==========  =========  =========  ==========
WRITE      OPEN       OPEN        OPEN        OPEN       OPEN       OPEN
SEAL       SEALED     SEALED      SEALED                 SEALED     SEALED
START                 PUBLISHING  PUBLISHING                        PUBLISHING
RECEIPT    OPEN       SEALED      PUBLISHED   PUBLISHED
FAILURE    OPEN       SEALED      SEALED      PUBLISHED
REFUSAL    OPEN       SEALED      FAILED      PUBLISHED
OVERTAKEN  OPEN       CONFLICT    CONFLICT    PUBLISHED
RETRY      OPEN       SEALED      PUBLISHING             SEALED     CONFLICT
DISCARD    PUBLISHED  PUBLISHED   PUBLISHED   PUBLISHED  PUBLISHED  PUBLISHED
=========  =========  ==========  ==========  =========  =========  ==========

Rules of this file: only the service's receipt for a try and the user's discard end a change. The result of a try
speaks of the content that the try began with: where somebody wrote or sealed again meanwhile it changes nothing, and
the newer content gets a try of its own. A try that fails in a way that may pass leaves SEALED, also where it began as
CONFLICT: the record's name says that. START of PUBLISHING is the try after the end of a process.
"""

from __future__ import annotations

import enum


class State(enum.StrEnum):
    """Where a change stands."""

    OPEN = "open"
    SEALED = "sealed"
    PUBLISHING = "publishing"
    PUBLISHED = "published"
    FAILED = "failed"
    CONFLICT = "conflict"


class Event(enum.StrEnum):
    """What happens to a change."""

    WRITE = "write"
    """Somebody writes, again or at first."""
    SEAL = "seal"
    """Content and intent have become durable."""
    START = "start"
    """A try begins."""
    RECEIPT = "receipt"
    """The service has been seen to have it."""
    FAILURE = "failure"
    """The try failed in a way that may pass."""
    REFUSAL = "refusal"
    """The try failed in a way that does not pass by itself."""
    OVERTAKEN = "overtaken"
    """The service has something else in its place; it goes on under another name."""
    RETRY = "retry"
    """The user wants it tried now."""
    DISCARD = "discard"
    """The user gives it up."""


_COLUMNS = (State.OPEN, State.SEALED, State.PUBLISHING, State.PUBLISHED, State.FAILED, State.CONFLICT)
_ROWS: dict[Event, tuple[State | None, ...]] = {
    Event.WRITE: (State.OPEN,) * 6,
    Event.SEAL: (State.SEALED, State.SEALED, State.SEALED, None, State.SEALED, State.SEALED),
    Event.START: (None, State.PUBLISHING, State.PUBLISHING, None, None, State.PUBLISHING),
    Event.RECEIPT: (State.OPEN, State.SEALED, State.PUBLISHED, State.PUBLISHED, None, None),
    Event.FAILURE: (State.OPEN, State.SEALED, State.SEALED, State.PUBLISHED, None, None),
    Event.REFUSAL: (State.OPEN, State.SEALED, State.FAILED, State.PUBLISHED, None, None),
    Event.OVERTAKEN: (State.OPEN, State.CONFLICT, State.CONFLICT, State.PUBLISHED, None, None),
    Event.RETRY: (State.OPEN, State.SEALED, State.PUBLISHING, None, State.SEALED, State.CONFLICT),
    Event.DISCARD: (State.PUBLISHED,) * 6,
}
_TABLE = {
    (state, event): then
    for event, row in _ROWS.items()
    for state, then in zip(_COLUMNS, row, strict=True)
    if then is not None
}


def after(state: State, event: Event) -> State:
    """Return the state that follows.

    Raises:
        ValueError: the event cannot be in this state.
    """
    try:
        return _TABLE[state, event]
    except KeyError:
        raise ValueError(f"{event.value} cannot be in the state {state.value}") from None
