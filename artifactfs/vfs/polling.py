"""Looking for what others have changed before anybody looks.

Rules of this file: a look costs what it costs its source, so what is looked at is what somebody looked at last, and
little of it; never in front of a person's requests, and only while most of the source's budget is unused. What is final
is not looked at. A look that fails changes nothing that is shown; while a source fails, one listing in ever longer
pauses is all it is asked for, until it has answered anything. What a service tells of by itself is looked at at once;
it may tell too early, and not of everything, so the looks go on.
"""

from __future__ import annotations

import heapq
import logging
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import trio

from artifactfs import errors, observe
from artifactfs.model.entry import DirRef
from artifactfs.providers import limits
from artifactfs.providers.base import Announcing
from artifactfs.vfs.known import Known
from artifactfs.vfs.listings import Listings
from artifactfs.vfs.sources import Source

log = logging.getLogger(__name__)

# Listings of each source that are looked at: what a person works with, not all that a `find` went through.
WATCHED = 16
# Who has not looked for so long is away; the directories that the kernel still holds are then looked at less often.
ACTIVE_S = 600.0
AWAY_FACTOR = 10
# Looks leave at least this share of a source's budget: of VLM Run's ten requests a minute, seven or eight.
LEAVE = 0.75
# A listing that takes longer than this is looked at less often: not more than a twentieth of the time.
LONG_S = 2.0
LONG_FACTOR = 20
# Pauses while a source fails, or its stream of events does: doubled each time up to this, and a part left to chance.
MAX_PAUSE_S = 300.0
# Two looks at one listing are so far apart, however many events there are.
GAP_S = 0.5
# An event may come before what it tells of is listed (Syntropic137: its projections follow); so look again after this.
AGAIN_S = 2.0
# How often is looked whether somebody has looked at all: before that there is nothing to listen for.
FIRST_S = 1.0
# Announcing that lasted so long was well: the next pause is a short one again.
WELL_S = 60.0
# What ``Watch.announcing`` says while a stream of events is open.
LISTENING = "listening"


@dataclass(slots=True)
class Watch:
    """What is known of looking at one source.

    Attributes:
        looks: how often it was looked at since the mount began.
        failures: in a row.
        failed_at: when it failed last, in seconds since the epoch.
        retry_at: no look before this, by trio's clock, while it fails.
        asked: when each listing was last looked at here, and how long that took, in seconds.
        due: listings that something has happened in: when to look.
        woken: set when something is due.
        announcing: how its service tells of changes by itself, in words; None if it does not.
    """

    looks: int = 0
    failures: int = 0
    failed_at: float = 0.0
    retry_at: float = -math.inf
    asked: dict[DirRef, tuple[float, float]] = field(default_factory=dict)
    due: dict[DirRef, list[float]] = field(default_factory=dict)
    woken: trio.Event = field(default_factory=trio.Event)
    announcing: str | None = None


class Poller:
    """Looks for changes in the sources of one mount, as long as ``run`` runs."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        listings: Listings,
        interval_s: float,
        well_at: Callable[[str], float] = lambda _source: 0.0,
    ) -> None:
        """Look at each listing every ``interval_s`` seconds, never if that is 0.

        ``well_at`` says when a source last answered anything, in seconds since the epoch.
        """
        self.listings = listings
        self.interval_s = interval_s
        self.well_at = well_at
        # What this machine makes itself costs no request, and is asked for at every look.
        remote = {name: source for name, source in sources.items() if not source.provider.is_here}
        self.sources = remote if interval_s > 0 else {}
        self.watches = {name: Watch() for name in self.sources}

    def __repr__(self) -> str:
        """Tell how often who is looked at."""
        return f"<Poller every {self.interval_s:g} s: {', '.join(self.sources)}>"

    async def run(self) -> None:
        """Look until cancelled."""
        async with trio.open_nursery() as nursery:
            for name, source in self.sources.items():
                nursery.start_soon(self._keep_looking, name)
                if isinstance(source.provider, Announcing):
                    nursery.start_soon(self._keep_listening, name, source.provider)

    # -- looking ---------------------------------------------------------------------------------------------

    async def _keep_looking(self, name: str) -> None:
        watch = self.watches[name]
        while True:
            watch.woken = trio.Event()
            for ref in self._due(name):
                if not self._may_look(name):
                    break
                await self._look(name, ref)
                if watch.failures:
                    break
            with trio.move_on_at(self._next_at(name)):
                await watch.woken.wait()

    def _watched(self, name: str) -> list[tuple[DirRef, Known]]:
        """Return the listings to look at, those that somebody looked at last first."""
        return heapq.nlargest(WATCHED, self.listings.watched(name), key=lambda found: found[1].looked_at)

    def _due(self, name: str) -> list[DirRef]:
        watch, now = self.watches[name], trio.current_time()
        watched = self._watched(name)
        if watch.failures:
            recovered = self.well_at(name) > watch.failed_at
            if not recovered and now < watch.retry_at:
                return []
            if recovered:
                watch.failures = 0
            else:
                return [ref for ref, _ in watched[:1]]
        kept = {ref for ref, _ in watched}
        watch.asked = {ref: when for ref, when in watch.asked.items() if ref in kept}
        return [ref for ref, known in watched if self._due_at(watch, ref, known) <= now]

    def _due_at(self, watch: Watch, ref: DirRef, known: Known) -> float:
        """Return when to look at a listing, by trio's clock."""
        now = trio.current_time()
        asked_at, took_s = watch.asked.get(ref, (-math.inf, 0.0))
        period_s = self.interval_s
        if now - known.looked_at > ACTIVE_S:
            if not self.listings.announcer.holds(ref):
                return math.inf
            period_s *= AWAY_FACTOR
        if took_s > LONG_S:
            period_s = max(period_s, LONG_FACTOR * took_s)
        due_at = max(known.fetched_at, asked_at) + period_s
        told_at = watch.due.get(ref)
        return min(due_at, max(told_at[0], asked_at + GAP_S)) if told_at else due_at

    def _next_at(self, name: str) -> float:
        """Return when something may be due next; new listings come, so that is soon."""
        watch, now = self.watches[name], trio.current_time()
        latest = now + self.interval_s
        if watch.failures:
            return min(latest, max(now + GAP_S, watch.retry_at))
        if not self._may_look(name):
            return latest
        return min([latest, *(self._due_at(watch, ref, known) for ref, known in self._watched(name))])

    def _may_look(self, name: str) -> bool:
        return self.sources[name].provider.spare() >= LEAVE

    async def _look(self, name: str, ref: DirRef) -> None:
        watch, began = self.watches[name], trio.current_time()
        observe.begin("look", source=name)
        watch.asked[ref] = (began, 0.0)
        told_at = [at for at in watch.due.pop(ref, ()) if at > began]
        if told_at:
            watch.due[ref] = told_at
        watch.looks += 1
        try:
            failure = await self.listings.look(ref)
        except errors.NotFound:
            failure = None  # and nothing of it is shown any more
        except errors.ArtifactFSError as error:
            failure = error
        except Exception as error:
            # A look that meets a bug must not end the mount; who looks next meets it, too, and is told.
            log.exception("a look at %s failed in an unforeseen way", ref.kind)
            failure = errors.ProviderMisbehaved(str(error))
        watch.asked[ref] = (began, trio.current_time() - began)
        if failure is None:
            watch.failures = 0
        else:
            self._failed(watch, failure)

    def _failed(self, watch: Watch, failure: errors.ArtifactFSError) -> None:
        watch.failures += 1
        watch.failed_at = time.time()
        asked_s = failure.retry_after_s if isinstance(failure, errors.RateLimited) else None
        pause_s = max(_pause_s(self.interval_s, watch.failures), asked_s or 0.0)
        watch.retry_at = trio.current_time() + pause_s
        log.info("looking for changes failed (%s); next in %.1f s", failure, pause_s)

    # -- listening -------------------------------------------------------------------------------------------

    async def _keep_listening(self, name: str, provider: Announcing) -> None:
        watch, lost = self.watches[name], 0
        watch.announcing = "not listening: nobody has looked yet"
        while not self._watched(name):  # noqa: ASYNC110 - nobody tells of a first look
            await trio.sleep(FIRST_S)
        while True:
            began = trio.current_time()
            observe.begin("listen", source=name)
            why = await self._listen(name, provider)
            lost = 1 if trio.current_time() - began > WELL_S else lost + 1
            pause_s = _pause_s(self.interval_s / 2, lost)
            watch.announcing = f"not listening: {why}"
            log.info("%s: not listening (%s); next try in %.1f s", name, why, pause_s)
            await trio.sleep(pause_s)

    async def _listen(self, name: str, provider: Announcing) -> str:
        """Listen until the stream is lost; return why it was, in words."""
        try:
            with limits.background():
                async with provider.events() as events:
                    async for refs in events:
                        self.watches[name].announcing = LISTENING
                        self._happened(name, refs)
        except errors.ArtifactFSError as error:
            return str(error)
        except Exception as error:
            log.exception("listening to %s failed in an unforeseen way", name)
            return str(error)
        return "the stream ended"

    def _happened(self, name: str, refs: frozenset[DirRef] | None) -> None:
        """Have listings looked at in which something has happened; None: in any of them, perhaps."""
        watch, now = self.watches[name], trio.current_time()
        watched = {ref for ref, _ in self._watched(name)}
        for ref in watched if refs is None else refs:
            if ref in watched:
                watch.due[ref] = [now] if refs is None else [now, now + AGAIN_S]
            else:
                self.listings.doubt(ref)
        watch.woken.set()

    def report(self, name: str) -> dict[str, Any]:
        """Return what ``status`` shows of looking at a source."""
        watch = self.watches.get(name)
        if watch is None:
            return {"interval_s": 0.0}
        now = trio.current_time()
        failing = bool(watch.failures)
        return {
            "interval_s": self.interval_s,
            "watched": len(self._watched(name)),
            "looks": watch.looks,
            "failures": watch.failures,
            "next_try_s": round(max(0.0, watch.retry_at - now), 1) if failing else None,
            "announcing": watch.announcing,
        }


def _pause_s(first_s: float, failures: int) -> float:
    longest_s = min(MAX_PAUSE_S, max(GAP_S, first_s) * 2.0 ** min(failures, 10))
    return random.uniform(longest_s / 2, longest_s)  # noqa: S311 - no secret
