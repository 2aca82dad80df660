"""What programs see of each fault: ``RULES``, one after the other, and the exceptions with their reasons.

Rules of this file: expectations follow from what is promised (docs/semantics.md), never from what the program does. An
exception says why it is one, in the document too.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from tests.faults.faults import FAULTS, Fault
from tests.faults.worlds import PLACES, Place

RULES = (
    "A question that meets a fault that does not pass becomes the errno of that fault.",
    "No transient failure becomes ENOENT, an empty file or a shorter list.",
    "What needs no question meets no fault: what is known, what is open and whole here.",
    "Saving needs no question either: it is done when it is durable on this machine.",
    "What passes is asked again, and nobody sees it. What changes something is sent once.",
    "Nobody waits longer than the deadline.",
    "Unmounting always works, whoever waits.",
    "Afterwards everything is as if the fault had not been: what was saved arrives, once.",
)
# Seconds. The mount's deadline in the laboratory.
DEADLINE_S = 4.0
# What is answered without waiting is, within this, on a machine that has nothing else to do: all cells of a row run
# side by side, and two dozen first requests of a fresh process take a second.
AT_ONCE_S = 2.5
# Beyond the deadline: the time in which a mount of two dozen sources tells two dozen programs of it.
SLACK_S = 1.5
# ``artifactfs umount`` is a process that starts (0.5 s); each change is tried once, with a few questions that have a
# deadline each; programs that wait are let go; the mount's process ends.
UMOUNT_S = 3 * DEADLINE_S + 4.0
SERVICES = tuple(PLACES)
READING = ("list", "stat", "open", "first read", "later read")
SAVING = ("write", "fsync")
OPERATIONS = (*READING, *SAVING, "umount")
# What a mount that ends sends at most: the question of the program that waits, and of one save its questions, each as
# often as a fault has it sent. VM0's saves need most: two looks, prepare, two uploads, a look, commit, a look.
LAST_QUESTIONS = 12
# A later read asks for what it waits for; what was on its way ahead of it asks again, too: two parts at most.
PARTS = 3


@dataclass(frozen=True)
class Expected:
    """A cell: the errno (0 is success), how many requests the service sees, and how long it may take."""

    number: int
    least: int
    most: int
    within_s: float
    why: str = ""
    other: int | None = None
    """What it may be, too: whatever comes first of two things decides."""
    is_unchecked: bool = False
    """The bytes that come are not those that were sent, and nothing can tell."""

    @property
    def outcome(self) -> str:
        """Return the errno's name, and what else it may be."""
        return errno.errorcode.get(self.number, "ok") + (
            "" if self.other is None else f" or {errno.errorcode[self.other]}"
        )

    def allows(self, number: int) -> bool:
        """Tell whether a program may get this errno."""
        return number in {self.number, self.other}


def _met(fault: Fault, place: Place, operation: str) -> bool:
    """Tell whether an operation asks anything that the fault reaches."""
    if not place.asks.get(operation):
        return False
    if fault.reaches == "links":
        return place.has_links and operation in {"open", "first read", "later read"}
    if fault.reaches == "pages":
        return operation in {"list", "stat"}
    return True


def expected(fault: Fault, service: str, operation: str) -> Expected:
    """Return what must come of an operation at a service that has a fault."""
    place = PLACES[service]
    if operation in SAVING and not place.asks.get(operation):
        return Expected(0, 0, 0, AT_ONCE_S)
    if operation == "umount":
        return Expected(0, 0, LAST_QUESTIONS * fault.tries, UMOUNT_S)
    asks = place.asks[operation]
    exception = EXCEPTIONS.get((fault.name, service, operation))
    if exception is not None:
        return exception
    within_s = DEADLINE_S + SLACK_S if fault.waits else AT_ONCE_S
    is_going_on = operation == "later read" and fault.goes_on
    if not _met(fault, place, operation):
        asks += asks if fault.reaches == "pages" else 0
        return Expected(0, 0 if is_going_on else min(asks, 1), asks, AT_ONCE_S)
    if not fault.answered_by:
        return Expected(fault.number, 0, 0, within_s)
    if fault.reaches == "pages":
        return Expected(0, 2, asks + 2, within_s)  # a second page, and once more what is in doubt
    number = fault.number
    is_open = operation == "later read" or (operation == "first read" and not place.asks["open"])
    if is_open and fault.on_handle is not None:
        number = fault.on_handle
    why = FIRST_SAVE if operation in SAVING else ""
    if operation in {"list", "stat", *SAVING} and fault.on_list is not None:
        number, why = fault.on_list, ALWAYS_THERE
    if operation in {"list", "stat"} and number:
        asks = 1  # they are asked one after the other, and the first one ends it
    reads = PARTS if operation == "later read" and number else 1
    # The deadline may come before the last try has failed.
    other = errno.ETIMEDOUT if fault.waits and number == errno.EIO else None
    return Expected(
        number, 0 if is_going_on else 1, asks * fault.tries * reads, within_s,
        why, other=other,
    )  # fmt: skip


ALL_CAME = "Everything may have come before the line broke, and the archive's own checksum agrees."
BEFORE_THE_END = "What was to be read may have come before the answer's end, at which the rest turns out to be wrong."
NO_CHECKSUM = (
    "Nothing tells: the service gives no checksum of content. Over TLS bytes cannot be changed on their way without the"
    " connection breaking."
)
FIRST_SAVE = (
    "Whether a server takes writes is asked once, before the first one: what it may not take is not acknowledged."
)
ALWAYS_THERE = (
    "The service always has this list, if with nothing in it: whoever says that it is not there does not speak for the"
    " service, and what is known of it is shown as before."
)
NEW_ID = "The file has a new id, and the old one is gone; who opens it again gets the new one."
EXCEPTIONS: dict[tuple[str, str, str], Expected] = {
    ("announces too much", "vm0", "open"): Expected(0, 1, 6, DEADLINE_S + SLACK_S, ALL_CAME, errno.EIO),
    ("announces too much", "vm0", "first read"): Expected(0, 1, 6, DEADLINE_S + SLACK_S, ALL_CAME, errno.EIO),
    ("announces too much", "vm0", "later read"): Expected(0, 1, 6, DEADLINE_S + SLACK_S, ALL_CAME, errno.EIO),
    ("announces too much", "vlmrun", "later read"): Expected(0, 0, 6, DEADLINE_S + SLACK_S, BEFORE_THE_END),
    ("announces too little", "vm0", "open"): Expected(0, 1, 6, DEADLINE_S + SLACK_S, BEFORE_THE_END, errno.EIO),
    ("announces too little", "vm0", "first read"): Expected(0, 1, 6, DEADLINE_S + SLACK_S, BEFORE_THE_END, errno.EIO),
    ("announces too little", "vm0", "later read"): Expected(0, 1, 6, DEADLINE_S + SLACK_S, BEFORE_THE_END, errno.EIO),
    ("corrupt", "vlmrun", "later read"): Expected(0, 0, 4, AT_ONCE_S, NO_CHECKSUM, is_unchecked=True),
    ("content changes", "vlmrun", "first read"): Expected(errno.ESTALE, 1, 2, AT_ONCE_S, NEW_ID),
}
"""By fault, service and operation."""


def table() -> dict[tuple[str, str, str], Expected]:
    """Return all of it, by fault, service and operation."""
    return {
        (fault.name, service, operation): expected(fault, service, operation)
        for fault in FAULTS
        for service in SERVICES
        for operation in OPERATIONS
    }


def is_in_subset(key: tuple[str, str, str]) -> bool:
    """Tell whether a cell is tried in every run: any two of fault, service and operation meet in one of them."""
    names = [fault.name for fault in FAULTS]
    return (names.index(key[0]) + SERVICES.index(key[1]) + OPERATIONS.index(key[2])) % len(SERVICES) == 0
