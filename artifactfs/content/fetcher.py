"""Brings the blocks of contents: each once, over as many streams as it deserves, however many readers wait.

Rules of this file: a flight runs in the mount's nursery and is never cancelled because a reader went away. Between two
awaits the table of flights is consistent.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from artifactfs import errors
from artifactfs.content import readahead
from artifactfs.content.block_store import BlockStore
from artifactfs.content.extents import BLOCK
from artifactfs.content.facts import Facts
from artifactfs.content.filling import MAX_BREAKS, PROBE_BYTES, Filler, OpenStream
from artifactfs.content.flight import Flight
from artifactfs.content.whole import closing
from artifactfs.model.content import Access, ContentRef, Exact
from artifactfs.model.limits import ANSWERS, AnswerLimits
from artifactfs.providers.limits import Lane, lane, line

__all__ = ["MAX_BREAKS", "PROBE_BYTES", "Fetcher", "OpenStream", "closing"]

RANGE_BLOCKS = readahead.RANGE // BLOCK


def _any_number(_source: str) -> int:
    return readahead.STREAMS


class Fetcher:
    """Owns the flights of one mount."""

    def __init__(
        self,
        nursery: trio.Nursery,
        store: BlockStore,
        facts: Facts,
        open_stream: OpenStream,
        max_streams: Callable[[str], int] = _any_number,
        limits: AnswerLimits = ANSWERS,
    ) -> None:
        """Run flights in ``nursery``.

        ``open_stream`` asks the provider that a reference belongs to; ``max_streams`` says how many requests at once a
        source can spare for one file; ``limits`` are those of content that says no size.
        """
        self._nursery = nursery
        self._store = store
        self._facts = facts
        self._filler = Filler(store, facts, open_stream, limits)
        self._max_streams = max_streams
        self._flights: dict[str, list[Flight]] = {}
        self._revisions: dict[str, int] = {}

    def __repr__(self) -> str:
        """Tell what is in the air."""
        return f"<Fetcher {sum(map(len, self._flights.values()))} flights>"

    def pace(self, source: str) -> readahead.Pace:
        """Return how fast a source is."""
        return self._filler.pace(source)

    def revision(self, key: str) -> int:
        """Return a number that is another one after the service was found to have other bytes there; 0 before."""
        return self._revisions.get(key, 0)

    def check_revision(self, ref: ContentRef, pattern: readahead.Pattern) -> None:
        """Refuse to show bytes of two revisions through one open file.

        Raises:
            StaleContent: the file was opened on another one.
        """
        if pattern.revision is None:
            pattern.revision = self.revision(ref.key)
        if self.revision(ref.key) != pattern.revision:
            message = "it was replaced since it was opened"
            raise errors.StaleContent(message, provider=ref.source, subject=ref.key)

    async def size(self, ref: ContentRef) -> int:
        """Return the size of a content in bytes; ask for it if nobody knows."""
        if isinstance(ref.size, Exact):
            return ref.size.value
        known = self._facts.sizes([ref.key]).get(ref.key)
        if known is not None:
            return known
        for _ in range(MAX_BREAKS):
            # Any flight will tell, also one past its first block: its size is written down only when it has landed.
            flight = next((f for f in self._flights.get(ref.key, ()) if not f.is_replaced), None)
            if flight is None:
                stop = PROBE_BYTES // BLOCK if ref.access is Access.RANGED else None
                flight = self._launch(ref, 0, stop, probe=True)
            self._join(flight)
            size = await flight.size()
            if size is not None:
                return size
        message = "the service did not say how large it is"
        raise errors.ProviderMisbehaved(message, provider=ref.source, subject=ref.key)

    def start(self, ref: ContentRef, wanted: range) -> None:
        """See that these blocks come, without waiting for them."""
        for run in self._missing(ref.key, wanted):
            if self._filler.is_whole_only(ref):
                self._launch(ref, 0, None)
                return
            streams = min(self.pace(ref.source).streams, self._max_streams(ref.source))
            for part in readahead.ranges(run, RANGE_BLOCKS, streams):
                self._launch(ref, part.start, part.stop)

    def _missing(self, key: str, wanted: range) -> list[range]:
        """Return the runs of blocks that are neither here nor on their way."""
        missing = [index for index in wanted if self._store.get_nowait(key, index) is None]
        for flight in self._flights.get(key, ()):
            missing = [index for index in missing if not flight.covers(index)]
        if missing:
            present = self._store.present(key)
            missing = [index for index in missing if index not in present]
        runs: list[range] = []
        for index in missing:
            if runs and runs[-1].stop == index:
                runs[-1] = range(runs[-1].start, index + 1)
            else:
                runs.append(range(index, index + 1))
        return runs

    async def block(self, ref: ContentRef, index: int, missed: Callable[[], None] | None = None) -> bytes:
        """Return a block: from memory, from disk, from the flight that brings it, or from a new flight.

        ``missed`` is called when it is neither in memory nor on disk, before a flight is asked for it.
        """
        data = await self._here(ref, index)
        if data is None and missed is not None:
            missed()
        for _ in range(MAX_BREAKS):
            if data is not None:
                return data
            flight = self._covering(ref.key, index) or self._launch(ref, index, index + 1)
            self._join(flight)
            data = await flight.block(index) or await self._here(ref, index)
        if data is not None:
            return data
        message = "the content ends before its announced size"
        raise errors.CorruptContent(message, provider=ref.source, subject=ref.key)

    async def _here(self, ref: ContentRef, index: int) -> bytes | None:
        """Return a block that is in memory or on disk; one that is on its way is not looked for on disk."""
        data = self._store.get_nowait(ref.key, index)
        if data is None and self._covering(ref.key, index) is None:
            revision = self.revision(ref.key)
            data = await self._store.fetch(ref.key, index)
            if data is not None and revision == self.revision(ref.key):
                self._store.keep_hot(ref.key, index, data)
        return data

    async def whole(self, ref: ContentRef) -> None:
        """Bring a content from its first to its last byte, and wait for the end."""
        flight = next((f for f in self._flights.get(ref.key, ()) if f.stop is None and not f.is_replaced), None)
        flight = flight or self._launch(ref, 0, None)
        self._join(flight)
        await flight.landed.wait()
        if flight.error is not None:
            raise flight.error.with_traceback(None)

    def _covering(self, key: str, index: int) -> Flight | None:
        for flight in self._flights.get(key, ()):
            if flight.covers(index):
                return flight
        return None

    @staticmethod
    def _join(flight: Flight) -> None:
        if lane.get() is Lane.FOREGROUND:
            flight.hurry()

    def _launch(self, ref: ContentRef, first: int, stop: int | None, *, probe: bool = False) -> Flight:
        if self._filler.is_whole_only(ref):
            first, stop = 0, None
        flight = Flight(ref, first, stop, probe=probe)
        self._flights.setdefault(ref.key, []).append(flight)
        self._nursery.start_soon(self._fly, flight)
        return flight

    async def _fly(self, flight: Flight) -> None:
        error: Exception | None = None
        try:
            await self._run(flight)
        except Exception as caught:  # noqa: BLE001 - the waiters get it; the nursery of the mount must not
            error = caught
            if isinstance(caught, errors.StaleContent) and flight.ref.sha256 is None:
                await self._drop_replaced(flight)
            elif isinstance(caught, (errors.CorruptContent, errors.LimitExceeded)):
                # What came before the damage was noticed is not to be believed either.
                self._store.cool(flight.ref.key)
                await trio.to_thread.run_sync(self._store.drop, flight.ref.key)
        finally:
            flights = self._flights[flight.ref.key]
            flights.remove(flight)
            if not flights:
                del self._flights[flight.ref.key]
            flight.land(error)

    async def _drop_replaced(self, flight: Flight) -> None:
        """Drop all of a content that the service has replaced: bytes of before and after make no file."""
        if flight.is_replaced:
            return
        key = flight.ref.key
        for other in self._flights[key]:
            other.is_replaced = True
        self._facts.forget_size(key)
        # Twice: who opens it before the old bytes are gone from the disk may have read some of them.
        for step in (1, 2):
            self._revisions[key] = self.revision(key) + 1
            self._store.cool(key)
            if step == 1:
                await trio.to_thread.run_sync(self._store.drop, key)

    async def _run(self, flight: Flight) -> None:
        """Run a flight in its lane; one that is hurried while it waits in line asks again."""
        line.set(flight.line)
        while True:
            lane.set(flight.lane)
            with trio.CancelScope() as flight.attempt:
                await self._filler.run(flight)
            if not flight.attempt.cancelled_caught:
                return
