"""Listings of the sources, made current when somebody looks.

Rules of this file: one flight per listing, however many look. A transient failure never empties or shortens what is
known: the old listing is served and its age shown; without an old listing the failure is the answer. What an earlier
mount knew is known (``content.metadata``), and as old as it is. A listing that is no longer believed is renewed; who
looks waits for that a moment (``GRACE_S``), and is then shown the old one, while the new one is awaited behind. What
the service itself has denied is not shown any more; any other failure, a gateway's page among them, changes nothing.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import trio

from artifactfs import errors
from artifactfs.content.metadata import KeptListing
from artifactfs.content.reader import ContentReader
from artifactfs.model.entry import Artifact, DirRef, Entry, Listing
from artifactfs.providers import limits
from artifactfs.providers.base import Provider, Revised
from artifactfs.tree.layout import Level, Path
from artifactfs.tree.nodes import Listed, Node
from artifactfs.vfs.announcing import Announcer
from artifactfs.vfs.known import MAX_ENTRIES, Known, KnownListings
from artifactfs.vfs.laying_out import Plan
from artifactfs.vfs.own_changes import OwnChanges
from artifactfs.vfs.sources import Source

log = logging.getLogger(__name__)

# After a failed refresh the old listing is served this long before the next try, so that a command over many names does
# not wait for the failing service once per name.
RETRY_S = 5.0
# How long a look waits for a listing that is known but not believed any more: longer than a service in its usual state
# takes (50 to 250 ms), so that what was made there a moment ago is shown; shorter than a person notices as hanging.
GRACE_S = 0.3
# A source that was not in time is not waited for again this long: a walk over 1,000 old listings takes no 300 s.
SLOW_S = 3.0
# Listings of one slow source that are renewed behind at once; the others are when somebody looks again.
RENEWALS = 4
# How often a listing is asked for that this mount changes again and again; publishing takes pauses of a second.
TRIES = 3
# Longer than a mount changes one listing without a pause; each try is a request.
MOST_TRIES = 10
# A page that never says it is the last would never end; 10,000 pages of 100 are a million artifacts.
MAX_PAGES = 10_000

Shelve = Callable[[Listed, Mapping[Path, Level]], Awaitable[None]]

TRANSIENT = (
    errors.Unavailable,
    errors.Unreachable,
    errors.TimedOut,
    errors.QuotaExceeded,
    errors.ProviderMisbehaved,
    errors.Barred,
)
"""What may pass, and what a gateway or a sign-in page says in the service's place: what is known stands."""

DENIALS = (errors.NotFound, errors.AccessDenied)
"""What a service says and means; anything else may be a gateway's page, or a mistake that is mended in a moment."""


class Listings:
    """What is known of every listing point of a mount.

    ``distrusted`` are sources of whose kept listings one may be older than a save: the mount before was killed. They
    are shown only while their service cannot be asked.
    ``shelve`` is told of each new listing, ``unshelve`` of each that is gone or that there is no room for,
    ``announcer`` of what a new one shows otherwise than the one before.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        content: ContentReader,
        shelve: Shelve,
        *,
        unshelve: Callable[[DirRef, Known], None] = lambda _ref, _known: None,
        show_ids: bool = False,
        max_entries: int = MAX_ENTRIES,
    ) -> None:
        """Know nothing yet."""
        self.sources = sources
        self.content = content
        self.shelve = shelve
        self.show_ids = show_ids
        self.distrusted: set[str] = set()
        self.announcer = Announcer()
        self._known = KnownListings(unshelve, max_entries)
        self._tops: dict[DirRef, tuple[Node, Listed]] = {}
        self._slow_until: dict[str, float] = {}
        self._renewing: Counter[str] = Counter()
        self.own = OwnChanges(sources, content.facts, self._known, self._tops)

    def changed(self, parent: int, name: str) -> None:
        """Have the kernel look a name up again."""
        self.announcer.tell(parent, name)

    def peek(self, ref: DirRef) -> Known | None:
        """Return what is known of a listing without asking."""
        return self._known.peek(ref)

    async def get(self, node: Node, place: Listed) -> Known:
        """Return what is known of a listing point, asked for again if it is no longer fresh."""
        # A listing is laid out as its point says, also when somebody looks into a folder inside of it.
        if not place.prefix:
            self._tops[place.ref] = (node, place)
        known = self._known.get(place.ref)
        if known is not None:
            known.looked_at = trio.current_time()
            if known.is_fresh(known.looked_at):
                return known
        top = self._tops.get(place.ref, (node, place))
        if known is None:
            known = await self._recall(*top)
            # A flight may have landed between the answer and this task's turn: what it brought is not asked for again.
            known = self._known.peek(place.ref) or known
        if known is None or not known.may_be_shown():
            return await self.content.flights.run(self._key(place.ref), partial(self._refresh, *top))
        if known.revalidating or known.is_fresh(trio.current_time()):
            return known
        return await self._renew(known, *top)

    async def again(self, ref: DirRef) -> Known | None:
        """Return what is known of a listing that was asked for before, made current; None if it never was."""
        top = self._tops.get(ref)
        return None if top is None else await self.get(*top)

    # -- looking before anybody looks ------------------------------------------------------------------------

    def watched(self, source: str) -> Iterator[tuple[DirRef, Known]]:
        """Return the listings of a source that somebody has looked at and that are not final."""
        return (
            (ref, known)
            for ref, known in self._known
            if ref.source == source and ref in self._tops and not math.isinf(known.ttl_s)
        )

    async def look(self, ref: DirRef) -> errors.ArtifactFSError | None:
        """Renew a listing although nobody waits for it; return what may pass and stood against it.

        Raises:
            ArtifactFSError: what the service has denied, and is not shown any more.
        """
        top = self._tops.get(ref)
        if top is None or self._known.peek(ref) is None:
            return None
        with limits.background():
            flight = self.content.flights.start(self._key(ref), partial(self._refresh, *top, behind=True))
        renewed: Known = await flight.wait()
        return renewed.failure

    def doubt(self, ref: DirRef) -> None:
        """Believe a listing no longer than until somebody looks: something has happened in it."""
        known = self._known.peek(ref)
        if known is not None:
            known.fetched_at = min(known.fetched_at, trio.current_time() - known.ttl_s)

    def _key(self, ref: DirRef) -> tuple[str, DirRef, int]:
        # Who looks after a change must not join a flight that left before it.
        return ("list", ref, self.own.changes[ref])

    # -- what an earlier mount knew, or this one before it fell out of memory -----------------------------------

    async def _recall(self, node: Node, place: Listed) -> Known | None:
        source = self.sources[node.source]
        if not source.keeps_listings or self.own.has_changed(place.ref):
            return None
        return await self.content.flights.run(("recall", place.ref), partial(self._read, source, node, place))

    async def _read(self, source: Source, node: Node, place: Listed) -> Known | None:
        kept = await self.content.facts.metadata.listing(source.fingerprint, place.ref)
        if kept is None:
            return self._known.peek(place.ref)  # somebody may have fetched it meanwhile
        levels = await self._laid_out(node, place, kept.entries, complete=kept.complete)
        known = self._known.peek(place.ref)
        if known is None and not self.own.has_changed(place.ref):  # nobody has fetched it, or saved into it, meanwhile
            age_s = time.time() - kept.fetched_at
            if age_s < 0:  # the clock was set back: nobody knows how old it is
                age_s = 0.0 if math.isinf(kept.ttl_s) else kept.ttl_s
            if kept.note is not None and "limits." in kept.note:  # a limit has cut it, which may be another one now
                age_s = max(age_s, kept.ttl_s)
            known = Known(
                levels, trio.current_time() - age_s, kept.ttl_s, kept.complete, kept.note,
                doubtful=node.source in self.distrusted, looked_at=trio.current_time(),
            )  # fmt: skip
            self._known.put(place.ref, known)
            await self.shelve(place, levels)
        return known

    # -- asking ------------------------------------------------------------------------------------------------

    async def _renew(self, known: Known, node: Node, place: Listed) -> Known:
        """Return a listing renewed, if that takes no longer than a moment, and else as it was."""
        is_slow = trio.current_time() < self._slow_until.get(node.source, -math.inf)
        if is_slow and self._renewing[node.source] >= RENEWALS:
            return known
        # Whom nobody waits for goes behind those whom somebody does.
        with limits.background() if is_slow else contextlib.nullcontext():
            flight = self.content.flights.start(self._key(place.ref), partial(self._refresh, node, place))
        if not is_slow:
            with trio.move_on_after(GRACE_S):
                renewed: Known = await flight.wait()
                return renewed
            self._slow_until[node.source] = trio.current_time() + SLOW_S
        known.revalidating = flight.result is None
        return self._known.peek(place.ref) or known

    async def _refresh(self, node: Node, place: Listed, *, behind: bool = False) -> Known:
        old, began = self._known.peek(place.ref), trio.current_time()
        self._renewing[node.source] += 1
        try:
            if old is not None and await _is_unchanged(self.sources[node.source].provider, old):
                old.fetched_at, old.failure = began, None
                return old
            entries, fresh = await _fetch_all(self, node, place, tries=1 if behind else TRIES)
        except errors.ArtifactFSError as error:
            return await self._failed(node, place, old, error)
        finally:
            self._renewing[node.source] -= 1
            if old is not None:
                old.revalidating = False
        if trio.current_time() - began < GRACE_S:
            self._slow_until.pop(node.source, None)
        if old is not None:
            fresh.looked_at = old.looked_at if behind else fresh.looked_at
        if not fresh.may_be_shown():
            known = self._known.peek(place.ref)  # it has the changes, and may have come meanwhile
            if known is not None and known.may_be_shown():
                known.failure = None
                return known
        self._known.put(place.ref, fresh)
        await self.shelve(place, fresh.levels)
        if old is not None:
            await self.announcer.renewed(place.ref, old.levels, fresh.levels)
        self.announcer.trees_told()
        await self._keep(node, place, entries, fresh)
        return fresh

    async def _failed(self, node: Node, place: Listed, old: Known | None, error: errors.ArtifactFSError) -> Known:
        """Return the old listing where it stands: only what is denied is not shown any more."""
        if isinstance(error, DENIALS) and not isinstance(error, TRANSIENT):
            await self._deny(node, place, old, error)
        elif old is not None:
            log.info("serving an older listing of %s: %s", place.ref.kind, error)
            old.failure, old.retry_at = error, trio.current_time() + RETRY_S
            return old
        raise error

    async def _deny(self, node: Node, place: Listed, old: Known | None, error: errors.ArtifactFSError) -> None:
        """Show no more what the service itself says is not there, or not for us."""
        if isinstance(error, errors.NotFound):
            self._known.drop(place.ref)
            if old is not None:
                await self.announcer.renewed(place.ref, old.levels, {})
            source = self.sources[node.source]
            if source.keeps_listings:
                self.content.facts.metadata.drop_listing(source.fingerprint, place.ref)
        elif old is not None:
            old.failure, old.fetched_at = error, -math.inf

    async def _keep(self, node: Node, place: Listed, entries: Sequence[Entry], fresh: Known) -> None:
        """Have a listing kept for the next mount."""
        source = self.sources[node.source]
        if source.keeps_listings and fresh.may_be_shown():
            metadata = self.content.facts.metadata
            kept = KeptListing(entries, time.time(), fresh.ttl_s, fresh.complete, fresh.note)
            metadata.keep_listing(source.fingerprint, place.ref, kept)
            await metadata.room(len(entries))

    async def fetch(self, node: Node, place: Listed) -> tuple[list[Entry], Known]:
        """Ask for all pages of a listing; nothing is kept of it."""
        source = self.sources[node.source]
        # Before the first page: what changes while they are read is then another revision.
        revision = await source.provider.revision() if isinstance(source.provider, Revised) else None
        entries, page = await _all_pages(source, place.ref)
        complete = page.complete and page.next_cursor is None
        note = page.note if page.next_cursor is None or page.note else "the service's pages do not end"
        if not complete and place.ref in self.own.made:
            listed = {entry.key for entry in entries if isinstance(entry, Artifact)}
            entries.extend(made for key, made in self.own.made[place.ref].items() if key not in listed)
        levels = await self._laid_out(node, place, entries, complete=complete)
        ttl = source.provider.listing_ttl_s if page.ttl_s is None else page.ttl_s
        now = trio.current_time()
        return entries, Known(levels, now, ttl, complete, note, looked_at=now, revision=revision)

    async def _laid_out(
        self, node: Node, place: Listed, entries: Sequence[Entry], *, complete: bool
    ) -> dict[Path, Level]:
        plan = Plan(self.sources[node.source], self.content.facts, node, place, self.show_ids)
        return await plan.laid_out(entries, complete=complete)

    # -- for others ------------------------------------------------------------------------------------------

    def believed_s(self, place: Listed) -> float:
        """Return how much longer what is not in a listing is believed not to be there; 0 if it is not complete."""
        known = self._known.peek(place.ref)
        if known is None or not known.complete:
            return 0.0
        return max(0.0, known.fetched_at + known.ttl_s - trio.current_time())

    def report(self) -> list[dict[str, Any]]:
        """Return what ``status`` shows of the listings in memory."""
        now = trio.current_time()
        return [
            {"source": ref.source, "directory": "/".join((ref.kind, *ref.args)), **describe(known, now)}
            for ref, known in self._known
        ]


async def _page(source: Source, ref: DirRef, cursor: str | None) -> Listing:
    """Ask for one page. That a later one is not there says nothing of the directory, whose first one was."""
    try:
        return await source.provider.list(ref, cursor)
    except errors.NotFound as error:
        if cursor is None:
            raise
        message = f"a page of the list is not there: {error}"
        raise errors.ProviderMisbehaved(message, provider=source.name, status=error.status) from error


async def _all_pages(source: Source, ref: DirRef) -> tuple[list[Entry], Listing]:
    """Return the entries of a listing, and its last page: one that says there is more repeats, or never ends."""
    entries: list[Entry] = []
    cursor: str | None = None
    seen: set[str] = set()
    for _ in range(MAX_PAGES):
        page = await _page(source, ref, cursor)
        entries.extend(page.entries)
        cursor = page.next_cursor
        if cursor is None or cursor in seen:
            break
        seen.add(cursor)
    return entries, page


async def _is_unchanged(provider: Provider, known: Known) -> bool:
    """Tell whether a listing need not be asked for again, since nothing at all has changed at its source."""
    if known.revision is None or not isinstance(provider, Revised) or not known.may_be_shown():
        return False
    # What this mount has changed meanwhile may not be shown from here on.
    return await provider.revision() == known.revision and known.may_be_shown()


async def _fetch_all(listings: Listings, node: Node, place: Listed, *, tries: int) -> tuple[list[Entry], Known]:
    """Return a listing, asked for again if this mount has changed it meanwhile; never to be believed if it still may.

    What was asked for before a change shows what was removed, and what was saved as it was. Where nothing else is known
    that has the changes, it is asked for more often.
    """
    for number in range(1, MOST_TRIES + 1):
        changes = listings.own.changes[place.ref]
        entries, fresh = await listings.fetch(node, place)
        if changes == listings.own.changes[place.ref]:
            break
        fresh.fetched_at = -math.inf
        known = listings.peek(place.ref)
        if number >= tries and known is not None and known.may_be_shown():
            break
    return entries, fresh


def describe(known: Known, now: float) -> dict[str, Any]:
    """Return what is told of a listing: age, whether it is still believed, the failure behind an old one."""
    age_s = known.age_s(now)
    return {
        "age_s": None if age_s is None else round(age_s, 1),
        "complete": known.complete,
        "note": known.note,
        "stale": now >= known.fetched_at + known.ttl_s,
        "revalidating": known.revalidating,
        "stale_because": str(known.failure) if known.failure else None,
    }
