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
# The kernel reads ahead in two requests where a read is at the edge of what it has.
KERNEL_READS = 2


@dataclass(frozen=True)
class Expected:
    """A cell: the errno (0 is success), how many requests the service sees, and how long it may take."""

    number: int
    least: int
    most: int
    within_s: float
    why: str = ""
    may_be_late: bool = False
    """The deadline may end it before the last try has failed: then it is ETIMEDOUT."""
    is_unchecked: bool = False
    """The bytes that come are not those that were sent, and nothing can tell."""

    @property
    def outcome(self) -> str:
        """Return the errno's name, and what else it may be."""
        return errno.errorcode.get(self.number, "ok") + (" or ETIMEDOUT" if self.may_be_late else "")

    def allows(self, number: int) -> bool:
        """Tell whether a program may get this errno."""
        return number == self.number or (self.may_be_late and number == errno.ETIMEDOUT)


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
    if not _met(fault, place, operation):
        asks += asks if fault.reaches == "pages" else 0
        return Expected(0, min(asks, 1), asks, AT_ONCE_S)
    if not fault.answered_by:
        return Expected(fault.number, 0, 0, within_s)
    if fault.reaches == "pages":
        return Expected(0, 2, asks + 2, within_s)  # a second page, and once more what is in doubt
    number = fault.number
    if operation == "later read" and fault.on_handle is not None:
        number = fault.on_handle
    is_going_on = operation == "later read" and fault.goes_on
    reads = KERNEL_READS if operation == "later read" and number else 1
    is_tried_again = fault.waits and number == errno.EIO
    return Expected(
        number, 0 if is_going_on else 1, asks * fault.tries * reads, within_s,
        FIRST_SAVE if operation in SAVING else "", may_be_late=is_tried_again,
    )  # fmt: skip


ALL_CAME = (
    "Everything came before the line broke: what is missing is asked for by range, is nothing, and the archive's own"
    " checksum agrees."
)
BEFORE_THE_END = (
    "What was to be read came before the answer's end; what broke there is asked for again by who needs it."
)
NO_CHECKSUM = (
    "Nothing tells: the service gives no checksum of content. Over TLS bytes cannot be changed on their way without the"
    " connection breaking."
)
FIRST_SAVE = (
    "Whether a server takes writes is asked once, before the first one: what it may not take is not acknowledged."
)
NEW_ID = "The file has a new id, and the old one is gone; who opens it again gets the new one."
EXCEPTIONS: dict[tuple[str, str, str], Expected] = {
    ("announces too much", "vm0", "open"): Expected(0, 1, 4, DEADLINE_S + SLACK_S, ALL_CAME),
    ("announces too much", "vm0", "first read"): Expected(0, 1, 4, DEADLINE_S + SLACK_S, ALL_CAME),
    ("announces too much", "vm0", "later read"): Expected(0, 1, 4, DEADLINE_S + SLACK_S, ALL_CAME),
    ("announces too much", "vlmrun", "later read"): Expected(0, 1, 4, DEADLINE_S + SLACK_S, BEFORE_THE_END),
    ("announces too little", "vm0", "open"): Expected(0, 1, 4, DEADLINE_S + SLACK_S, BEFORE_THE_END),
    ("announces too little", "vm0", "first read"): Expected(0, 1, 4, DEADLINE_S + SLACK_S, BEFORE_THE_END),
    ("announces too little", "vm0", "later read"): Expected(0, 1, 4, DEADLINE_S + SLACK_S, BEFORE_THE_END),
    ("corrupt", "vlmrun", "later read"): Expected(0, 1, 2, AT_ONCE_S, NO_CHECKSUM, is_unchecked=True),
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
