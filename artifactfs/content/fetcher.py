"""Turns provider streams into blocks, each stream once, however many readers wait.

Rules of this file: a flight runs in the mount's nursery and is never cancelled because a reader went away. It hands a
block to its waiters first and to the disk after. Between two awaits the table of flights is consistent. Only bytes that
came whole become blocks; bytes that have a known SHA-256 are checked before anybody sees them.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio

from artifactfs import errors
from artifactfs.content.block_store import BlockStore
from artifactfs.content.extents import BLOCK, count
from artifactfs.content.facts import Facts
from artifactfs.model.content import Access, ByteRange, ContentRef, Exact
from artifactfs.providers.base import ContentStream

log = logging.getLogger(__name__)

OpenStream = Callable[[ContentRef, ByteRange], AbstractAsyncContextManager[ContentStream]]

# A stream that breaks in its middle is resumed where it was; so many breaks in a row without a new block are a failure.
MAX_BREAKS = 3
# Asked for when only the size is wanted: many files are smaller, and then nothing needs to be asked again.
PROBE_BYTES = 4 * BLOCK


class Flight:
    """One stream on its way into blocks.

    ``first`` to ``stop`` (exclusive; None: to the end) are the blocks it brings; ``next`` is the one it is filling.
    """

    def __init__(self, ref: ContentRef, first: int, stop: int | None, *, probe: bool = False) -> None:
        """Describe it; the fetcher runs it."""
        self.ref = ref
        self.next = first
        self.stop = stop
        self.probe = probe
        self.opened = False
        self.total: int | None = None
        self.error: Exception | None = None
        self.landed = trio.Event()
        self._pulse = trio.Event()
        self._wanted: dict[int, bytes | None] = {}
        self._waiting: dict[int, int] = {}

    def __repr__(self) -> str:
        """Tell how far it is."""
        return f"<Flight {self.ref.key!r} block {self.next} of {self.stop}, {len(self._waiting)} waited for>"

    @property
    def has_waiters(self) -> bool:
        """Tell whether anybody waits for a block."""
        return bool(self._waiting)

    def covers(self, index: int) -> bool:
        """Tell whether the block is still to come."""
        return not self.landed.is_set() and index >= self.next and (self.stop is None or index < self.stop)

    def pulse(self) -> None:
        """Wake everybody who waits, to look again."""
        self._pulse.set()
        self._pulse = trio.Event()

    def deliver(self, index: int, block: bytes) -> None:
        """Give a block to those who wait for it and step on."""
        if index in self._waiting:
            self._wanted[index] = block
        self.next = index + 1
        self.pulse()

    def land(self, error: Exception | None) -> None:
        """End it."""
        self.error = error
        self.landed.set()
        self.pulse()

    async def block(self, index: int) -> bytes | None:
        """Wait for a block; None if the flight ended before it without an error."""
        self._waiting[index] = self._waiting.get(index, 0) + 1
        try:
            while True:
                data = self._wanted.get(index)
                if data is not None:
                    return data
                if self.landed.is_set() or index < self.next:
                    if self.error is not None:
                        raise self.error.with_traceback(None)
                    return None
                await self._pulse.wait()
        finally:
            self._waiting[index] -= 1
            if not self._waiting[index]:
                del self._waiting[index]
                self._wanted.pop(index, None)

    async def size(self) -> int:
        """Wait until the size of the whole content is known, in bytes."""
        while self.total is None:
            if self.landed.is_set():
                raise (self.error or errors.ProviderMisbehaved("the service did not say how large it is"))
            await self._pulse.wait()
        return self.total


class Fetcher:
    """Owns the flights of one mount."""

    def __init__(self, nursery: trio.Nursery, store: BlockStore, facts: Facts, open_stream: OpenStream) -> None:
        """Run flights in ``nursery``; ``open_stream`` asks the provider that a reference belongs to."""
        self._nursery = nursery
        self._store = store
        self._facts = facts
        self._open = open_stream
        self._flights: dict[str, list[Flight]] = {}
        self._unranged: set[str] = set()

    def __repr__(self) -> str:
        """Tell what is in the air."""
        return f"<Fetcher {sum(map(len, self._flights.values()))} flights>"

    async def size(self, ref: ContentRef) -> int:
        """Return the size of a content in bytes; ask for it if nobody knows."""
        if isinstance(ref.size, Exact):
            return ref.size.value
        known = self._facts.sizes([ref.key]).get(ref.key)
        if known is not None:
            return known
        # Any flight will tell, also one that is past its first block: its size is written down only when it has landed.
        flight = next(iter(self._flights.get(ref.key, ())), None)
        if flight is None:
            stop = PROBE_BYTES // BLOCK if ref.access is Access.RANGED else None
            flight = self._launch(ref, 0, stop, probe=True)
        return await flight.size()

    def start(self, ref: ContentRef, wanted: range) -> None:
        """See that these blocks come, without waiting for them."""
        index = wanted.start
        present: set[int] | None = None
        while index < wanted.stop:
            if self._store.get_nowait(ref.key, index) is not None or self._covering(ref.key, index):
                index += 1
                continue
            present = self._store.present(ref.key) if present is None else present
            if index in present:
                index += 1
                continue
            stop = index + 1
            while stop < wanted.stop and stop not in present and not self._covering(ref.key, stop):
                stop += 1
            self._launch(ref, index, stop)
            index = stop

    async def block(self, ref: ContentRef, index: int) -> bytes:
        """Return a block: from memory, from disk, from the flight that brings it, or from a new flight."""
        for _ in range(MAX_BREAKS):
            data = await self._store.fetch(ref.key, index)
            if data is not None:
                self._store.keep_hot(ref.key, index, data)
                return data
            flight = self._covering(ref.key, index) or self._launch(ref, index, index + 1)
            data = await flight.block(index)
            if data is not None:
                return data
        message = "the content ends before its announced size"
        raise errors.CorruptContent(message, provider=ref.source, subject=ref.key)

    async def whole(self, ref: ContentRef) -> None:
        """Bring a content from its first to its last byte, and wait for the end."""
        flight = next((f for f in self._flights.get(ref.key, ()) if f.stop is None), None)
        flight = flight or self._launch(ref, 0, None)
        await flight.landed.wait()
        if flight.error is not None:
            raise flight.error.with_traceback(None)

    def _covering(self, key: str, index: int) -> Flight | None:
        return next((flight for flight in self._flights.get(key, ()) if flight.covers(index)), None)

    def _launch(self, ref: ContentRef, first: int, stop: int | None, *, probe: bool = False) -> Flight:
        if ref.access is Access.STREAMED or ref.key in self._unranged:
            first, stop = 0, None
        flight = Flight(ref, first, stop, probe=probe)
        if isinstance(ref.size, Exact):
            flight.total = ref.size.value
        self._flights.setdefault(ref.key, []).append(flight)
        self._nursery.start_soon(self._fly, flight)
        return flight

    async def _fly(self, flight: Flight) -> None:
        error: Exception | None = None
        try:
            await self._run(flight)
        except Exception as caught:  # noqa: BLE001 - the waiters get it; the nursery of the mount must not
            error = caught
            if isinstance(caught, (errors.CorruptContent, errors.LimitExceeded)):
                # What came before the damage was noticed is not to be believed either.
                self._store.cool(flight.ref.key)
                await trio.to_thread.run_sync(self._store.drop, flight.ref.key)
        finally:
            flights = self._flights[flight.ref.key]
            flights.remove(flight)
            if not flights:
                del self._flights[flight.ref.key]
            flight.land(error)

    async def _run(self, flight: Flight) -> None:
        if flight.ref.sha256 is not None:
            await self._run_verified(flight)
            return
        breaks, reached = 0, flight.next
        while True:
            flight.opened = False
            try:
                await self._stream(flight)
            except (errors.Unavailable, errors.TimedOut):
                if not flight.opened:
                    raise  # the provider has tried, as often as makes sense
                breaks = breaks + 1 if flight.next == reached else 1
                reached = flight.next
                if breaks >= MAX_BREAKS:
                    raise
                log.info("a stream broke and is resumed at block %d", flight.next)
            else:
                break
        if flight.total is not None and not isinstance(flight.ref.size, Exact):
            self._facts.put_size(flight.ref.key, flight.total)

    async def _stream(self, flight: Flight) -> None:
        begin = flight.next * BLOCK
        if flight.total is not None and begin >= flight.total:
            return
        length = None if flight.stop is None else flight.stop * BLOCK - begin
        if length is not None and flight.total is not None:
            length = min(length, flight.total - begin)
        async with self._open(flight.ref, ByteRange(begin, length)) as stream:
            flight.opened = True
            if not stream.ranged and (begin or length is not None):
                self._unranged.add(flight.ref.key)
                flight.stop = None
            self._learn_total(flight, stream.total)
            if flight.total == 0:
                return
            await self._fill(flight, stream)

    def _learn_total(self, flight: Flight, total: int | None) -> None:
        if total is None:
            return
        if flight.total is not None and flight.total != total:
            message = f"the service announced {total} bytes where {flight.total} were expected"
            raise errors.CorruptContent(message, provider=flight.ref.source, subject=flight.ref.key)
        flight.total = total
        flight.pulse()

    async def _fill(self, flight: Flight, stream: ContentStream) -> None:
        """Cut the stream into blocks; ``position`` is where in the content the buffer begins."""
        buffer, position = bytearray(), stream.offset
        async with closing(stream.chunks) as chunks:
            async for chunk in chunks:
                buffer += chunk
                while len(buffer) >= BLOCK - position % BLOCK:
                    room = BLOCK - position % BLOCK
                    piece, position = bytes(buffer[:room]), position + room
                    del buffer[:room]
                    await self._keep(flight, (position - 1) // BLOCK, piece, whole=room == BLOCK)
                if self._is_done(flight, position) or self._only_size_was_wanted(flight):
                    return
        end = position + len(buffer)
        if flight.total is None:
            self._learn_total(flight, end)
        if end != flight.total:
            message = f"the content ended after {end} of {flight.total} bytes"
            raise errors.Unavailable(message, provider=flight.ref.source, subject=flight.ref.key)
        if buffer:
            await self._keep(flight, position // BLOCK, bytes(buffer), whole=position % BLOCK == 0)

    @staticmethod
    def _is_done(flight: Flight, position: int) -> bool:
        return flight.stop is not None and position >= flight.stop * BLOCK

    @staticmethod
    def _only_size_was_wanted(flight: Flight) -> bool:
        return flight.probe and flight.stop is None and (flight.total or 0) > PROBE_BYTES and not flight.has_waiters

    async def _keep(self, flight: Flight, index: int, block: bytes, *, whole: bool) -> None:
        if not whole:
            return
        self._store.write(flight.ref.key, index, block)
        if index >= flight.next:
            flight.deliver(index, block)
        await self._store.room()

    async def _run_verified(self, flight: Flight) -> None:
        """Bring content that is named by its hash: nobody sees a byte before the whole has been checked."""
        data = bytearray()
        async with self._open(flight.ref, ByteRange(0, None)) as stream:
            async for chunk in stream.chunks:
                data += chunk
        if hashlib.sha256(data).hexdigest() != flight.ref.sha256:
            message = "the service has other bytes there now"
            raise errors.StaleContent(message, provider=flight.ref.source, subject=flight.ref.key)
        flight.total = len(data)
        for index in range(count(len(data))):
            await self._keep(flight, index, bytes(data[index * BLOCK : (index + 1) * BLOCK]), whole=True)


@asynccontextmanager
async def closing(chunks: AsyncIterator[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    """End a stream's chunks with the block: a generator that is left in its middle would end when it is collected."""
    try:
        yield chunks
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()
