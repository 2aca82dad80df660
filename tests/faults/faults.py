"""The faults of the table: what each does to a service, and what a question becomes that meets it.

Rules of this file: what a fault *is* stands here, in terms of HTTP and TCP; what programs see follows from it by the
rules of ``expectations.py``. A fault lasts until the laboratory is mended, unless it says that it passes.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.faults.worlds import World
from tests.support.faulty_proxy import Break, Trouble

# Seconds. A delay is long for a service and short for the deadline; nobody waits as long as a service asks for.
DELAY_S = 0.5
LONG_PAUSE = "30"
# Bytes. An answer ends where its body has begun; lies about lengths are small ones.
BEGUN = 10
LIE = 10
# Bytes a second: what is left of the large file then takes a second, and a small answer hours.
SLOW, DRIP = 2 << 20, 20
HTML = b"<!DOCTYPE html><title>Sign in</title>"
XML = b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"


@dataclass(frozen=True)
class Fault:
    """One row of the table.

    Attributes:
        name: what it is called there.
        means: what happens, in a sentence.
        begin: has it happen to a world.
        number: errno of a question that meets it; 0 if it is answered all the same.
        tries: how often one question is sent at most.
        waits: the deadline ends it, or all tries together take about as long.
        on_handle: errno for who has the file open already, where it is another.
        on_list: errno where a list is asked for that the service always has, where it is another.
        reaches: which requests of a service meet it: all, those that lead to bytes by a link, or the pages of a list.
        goes_on: an answer that has begun goes on under it, so that who reads it need not ask again.
        answered_by: the service is asked at all.
    """

    name: str
    means: str
    begin: Callable[[World], None]
    number: int = 0
    tries: int = 1
    waits: bool = False
    on_handle: int | None = None
    on_list: int | None = None
    reaches: str = "all"
    goes_on: bool = False
    answered_by: bool = True


def wire(**what: object) -> Callable[[World], None]:
    """Trouble on the line."""
    return lambda world: world.disturb(Trouble(**what))  # type: ignore[arg-type]  # checked by the dataclass


def answers(status: int, body: bytes | None = None, **what: object) -> Callable[[World], None]:
    """An answer of the service's own in place of what was asked for."""

    def begin(world: World) -> None:
        told = {} if body is None else {"body": body}
        world.lab.fault("", status=status, **(told or {"body": world.place.refusal}), **what)
        world.disturb(Trouble())

    return begin


def expired(*, for_ever: bool) -> Callable[[World], None]:
    """Links that have expired: those given until now, or the next one where there is none; or all there will be."""

    def begin(world: World) -> None:
        links = world.lab.links
        given = links.expire()
        links.stillborn = None if for_ever else int(not given)
        world.disturb(Trouble())

    return begin


def gone(world: World, *, silently: bool) -> None:
    """Nobody at the address."""
    world.leave(silently=silently)


# One question is sent so often: five tries, and once more where a connection that was kept turns out to be closed.
BROKEN_TRIES = 6
# Content of which no more comes is asked for again from there, as often in a row.
RESUMED = 3
HEADERS = {"retry-after": LONG_PAUSE}

FAULTS = (
    Fault("none", "Nothing: what the others are compared with.", wire(spares_held=True), goes_on=True),
    Fault("late", f"Each answer begins {DELAY_S} s late.", wire(delay_s=DELAY_S, spares_held=True), goes_on=True),
    Fault("slow", "Bodies come at 2 MiB a second.", wire(rate=SLOW, spares_held=True), goes_on=True),
    Fault(
        "dripping", f"Bodies come at {DRIP} bytes a second.", wire(rate=DRIP, spares_held=True),
        errno.ETIMEDOUT, RESUMED, waits=True, goes_on=True,
    ),
    Fault(
        "silent", "The request is taken, and never answered.", wire(silent=True), errno.ETIMEDOUT, waits=True,
    ),
    Fault(
        "stalls in the head", "Half of the answer's head comes, and no more.", wire(in_head=Break.STALL),
        errno.ETIMEDOUT, waits=True,
    ),
    Fault(
        "stalls in the body", "The body begins, and no more comes.",
        wire(in_body=Break.STALL, after=BEGUN, spares_held=True), errno.ETIMEDOUT, RESUMED, waits=True, goes_on=True,
    ),
    Fault(
        "cut in the head", "The connection is closed in the middle of the head.", wire(in_head=Break.CUT),
        errno.EIO, BROKEN_TRIES, waits=True,
    ),
    Fault(
        "cut in the body", "The connection is closed when the body has begun.",
        wire(in_body=Break.CUT, after=BEGUN, spares_held=True), errno.EIO, BROKEN_TRIES, waits=True, goes_on=True),
    Fault(
        "cut once", "The connection is closed when the body of one answer has begun; then all is well.",
        wire(in_body=Break.CUT, after=BEGUN, times=1, spares_held=True), tries=2, goes_on=True),
    Fault(
        "reset", "The connection is reset instead of an answer.", wire(silent=True, in_head=Break.RESET),
        errno.EIO, BROKEN_TRIES, waits=True,
    ),
    Fault(
        "reset in the body", "The connection is reset when the body has begun.",
        wire(in_body=Break.RESET, after=BEGUN, spares_held=True), errno.EIO, BROKEN_TRIES, waits=True, goes_on=True),
    Fault(
        "corrupt", "Bits are flipped in every body.", wire(flips=True, after=BEGUN, spares_held=True), errno.EIO,
        tries=2, goes_on=True),
    Fault(
        "announces too much", f"Content-Length is {LIE} bytes more than come, and then the connection is closed.",
        wire(longer=LIE), errno.EIO, BROKEN_TRIES, waits=True,
    ),
    Fault(
        "announces too little", f"Content-Length is {LIE} bytes less than come.", wire(longer=-LIE), errno.EIO,
        tries=3, waits=True,
    ),
    Fault("401", "The token is not accepted.", answers(401), errno.EACCES),
    Fault("403", "It may not do this.", answers(403), errno.EACCES),
    Fault("404", "There is no such thing, in the service's own words.", answers(404), errno.ENOENT,
          on_handle=errno.ESTALE, on_list=errno.EIO),
    Fault(
        "429", f"Fewer requests are asked for, and a pause of {LONG_PAUSE} s.", answers(429, headers=HEADERS),
        errno.EIO,
    ),
    Fault("500", "The service fails.", answers(500), errno.EIO, 5, waits=True),
    Fault("503", "The service is overloaded.", answers(503), errno.EIO, 5, waits=True),
    Fault("503 once", "The service is overloaded for one request.", answers(503, times=1), tries=2),
    Fault(
        "HTML", "A sign-in page with status 200.", answers(200, HTML, headers={"content-type": "text/html"}),
        errno.EIO, tries=2,
    ),
    Fault("refused", "Nobody listens at the address.", partial(gone, silently=False), errno.EHOSTUNREACH,
          answered_by=False),
    Fault(
        "no route", "Nobody answers at the address, not even no.", partial(gone, silently=True), errno.EHOSTUNREACH,
        waits=True, answered_by=False,
    ),
    Fault(
        "link expired", "The links given until now have expired; if there are none, the next one has.",
        expired(for_ever=False), tries=2, reaches="links",
    ),
    Fault(
        "links expire", "Every link has expired when it is given.", expired(for_ever=True), errno.EACCES, tries=2,
        reaches="links",
    ),
    Fault(
        "list grows", "An entry is made while a list is read page by page.", World.grow, reaches="pages",
        goes_on=True,
    ),
    Fault(
        "list shrinks", "An entry is removed while a list is read page by page.", World.shrink, reaches="pages",
        goes_on=True,
    ),
    Fault("content changes", "What was listed and opened gets other content.", World.change, goes_on=True),
)  # fmt: skip
BY_NAME = {fault.name: fault for fault in FAULTS}
