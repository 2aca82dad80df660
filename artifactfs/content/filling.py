"""Fills blocks from a provider's stream: what one flight does while it is in the air.

Rules of this file: only bytes that came whole become blocks; a block goes to those who wait for it first and to the
store after, and no further one is taken before the store has room. Bytes that have a known SHA-256 are checked before
anybody sees them. A stream is left where its content should have ended, at the latest at ``limits.max-file``.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import trio
from cachetools import LRUCache

from artifactfs import errors
from artifactfs.content.block_store import BlockStore
from artifactfs.content.extents import BLOCK, count
from artifactfs.content.facts import Facts
from artifactfs.content.flight import Flight
from artifactfs.content.readahead import Pace
from artifactfs.content.whole import check_size, closing, read_whole
from artifactfs.model.content import Access, ByteRange, ContentRef, Exact
from artifactfs.model.limits import ANSWERS, AnswerLimits
from artifactfs.providers.base import ContentStream

log = logging.getLogger(__name__)

OpenStream = Callable[[ContentRef, ByteRange], AbstractAsyncContextManager[ContentStream]]

# A stream that breaks in its middle is resumed where it was; so many breaks in a row without a new block are a failure.
MAX_BREAKS = 3
# Asked for when only the size is wanted: many files are smaller, and then nothing needs to be asked again.
PROBE_BYTES = 4 * BLOCK
# Contents that were found to come only as a whole. One that is forgotten is found out again with the next range.
UNRANGED = 4096
# Content that is checked before anybody sees it is held in memory up to this size, and set aside on disk beyond it.
HELD = 16 << 20


class Filler:
    """Runs flights of one mount."""

    def __init__(
        self, store: BlockStore, facts: Facts, open_stream: OpenStream, limits: AnswerLimits = ANSWERS
    ) -> None:
        """Fill ``store``; ``open_stream`` asks the provider that a reference belongs to."""
        self._store = store
        self._facts = facts
        self._open = open_stream
        self._limits = limits
        self.paces: dict[str, Pace] = {}
        self._unranged: LRUCache[str, Flight] = LRUCache(UNRANGED)
        """By key: the flight that last brought the whole of a content of which there are no ranges."""

    def __repr__(self) -> str:
        """Tell how fast the sources are."""
        return f"<Filler {self.paces}>"

    def pace(self, source: str) -> Pace:
        """Return how fast a source is."""
        pace = self.paces.get(source)
        if pace is None:
            pace = self.paces[source] = Pace()
        return pace

    def is_whole_only(self, ref: ContentRef) -> bool:
        """Tell whether a content is only to be had from its first byte to its last."""
        return ref.access is Access.STREAMED or ref.key in self._unranged

    async def run(self, flight: Flight) -> None:
        """Bring a flight's blocks, resuming where a stream breaks."""
        if flight.ref.sha256 is not None:
            await self._run_verified(flight)
            return
        breaks, reached, ended = 0, flight.next, False
        while not ended:
            flight.opened = False
            try:
                ended = await self._stream(flight)
            except (errors.Unavailable, errors.TimedOut):
                if not flight.opened:
                    raise  # the provider has tried, as often as makes sense
                breaks = breaks + 1 if flight.next == reached else 1
                reached = flight.next
                if breaks >= MAX_BREAKS:
                    raise
                log.info("a stream broke and is resumed at block %d", flight.next)
        if flight.total is not None and not isinstance(flight.ref.size, Exact):
            self._facts.put_size(flight.ref.key, flight.total)
        sha256 = flight.sha256()
        if sha256 is not None:
            self._store.identify(flight.ref.key, sha256)

    async def _stream(self, flight: Flight) -> bool:
        """Take in one stream; return whether nothing is left to bring."""
        key = flight.ref.key
        begin = 0 if key in self._unranged else flight.next * BLOCK
        if flight.total is not None and begin >= flight.total:
            return True
        length = None if flight.stop is None else flight.stop * BLOCK - begin
        if length is not None and flight.total is not None:
            length = min(length, flight.total - begin)
        asked_at = trio.current_time()
        async with self._open(flight.ref, ByteRange(begin, length)) as stream:
            flight.opened = True
            if not stream.ranged and (begin or length is not None):
                other = self._unranged.get(key)
                if other is not None and other is not flight and other.opened and not other.landed.is_set():
                    return True  # it brings the whole already: who waits for this one will find that one
                self._only_whole(flight)
            if stream.total is not None:
                self._learn_total(flight, stream.total)
            return flight.total == 0 or await self._fill(flight, stream, asked_at)

    def _learn_total(self, flight: Flight, total: int) -> None:
        if flight.total is not None and flight.total != total:
            message = f"the service announced {total} bytes where {flight.total} were expected"
            raise errors.CorruptContent(message, provider=flight.ref.source, subject=flight.ref.key)
        if flight.total is None and self._facts.sizes([flight.ref.key]).get(flight.ref.key, total) != total:
            message = f"the service has {total} bytes there now, which is not how many there were"
            raise errors.StaleContent(message, provider=flight.ref.source, subject=flight.ref.key)
        flight.learn_total(total)

    async def _fill(self, flight: Flight, stream: ContentStream, asked_at: float) -> bool:
        """Cut the stream into blocks; return whether nothing is left to bring."""
        cutter, begun, pace = Cutter(stream.offset), False, self.pace(flight.ref.source)
        async with closing(stream.chunks) as chunks:
            async for chunk in chunks:
                if not begun:
                    begun = True
                    pace.began(trio.current_time() - asked_at)
                for index, block in cutter.feed(chunk):
                    await self._keep(flight, index, block)
                    pace.brought(cutter.position - stream.offset, trio.current_time() - asked_at)
                if self._is_done(flight, cutter.position):
                    return self._is_known(flight)
                if self._only_size_was_wanted(flight):
                    return True
                self._check_length(flight, cutter.position)
        end, rest = cutter.end()
        if flight.total is None and stream.ranged:
            return self._ask_for_the_whole(flight)
        if flight.total is None:
            self._learn_total(flight, end)
        if end != flight.total:
            message = f"the content ended after {end} of {flight.total} bytes"
            raise errors.Unavailable(message, provider=flight.ref.source, subject=flight.ref.key)
        if rest is not None:
            await self._keep(flight, end // BLOCK, rest)
        return True

    def _check_length(self, flight: Flight, position: int) -> None:
        """Leave a stream that goes on behind the end of its content, or for ever.

        Raises:
            CorruptContent, LimitExceeded.
        """
        if flight.total is None:
            check_size(position, self._limits)
        elif position > flight.total:
            message = f"the content goes on behind the {flight.total} bytes that it should have"
            raise errors.CorruptContent(message, provider=flight.ref.source, subject=flight.ref.key)

    def _is_known(self, flight: Flight) -> bool:
        """Tell whether the size is known; if a range does not tell it, the whole is asked for, to its end."""
        if flight.total is None:
            self._only_whole(flight)
        return flight.total is not None

    def _ask_for_the_whole(self, flight: Flight) -> bool:
        """Take a part that does not say of how much it is for no end; return that something is left to bring.

        Raises:
            ProviderMisbehaved: it came where the whole was asked for.
        """
        if flight.ref.key in self._unranged:
            message = "a part of the content came where the whole was asked for, and nothing says of how much"
            raise errors.ProviderMisbehaved(message, provider=flight.ref.source, subject=flight.ref.key)
        self._only_whole(flight)
        return False

    def _only_whole(self, flight: Flight) -> None:
        self._unranged[flight.ref.key] = flight
        flight.begin_anew()

    @staticmethod
    def _is_done(flight: Flight, position: int) -> bool:
        return flight.stop is not None and position >= flight.stop * BLOCK

    @staticmethod
    def _only_size_was_wanted(flight: Flight) -> bool:
        return flight.probe and flight.stop is None and (flight.total or 0) > PROBE_BYTES and not flight.has_waiters

    async def _keep(self, flight: Flight, index: int, block: bytes) -> None:
        if index < flight.next:
            return  # a stream that is resumed at its beginning passes what it has brought before
        if flight.is_replaced:
            message = "the service has other bytes there now"
            raise errors.StaleContent(message, provider=flight.ref.source, subject=flight.ref.key)
        self._store.write(flight.ref.key, index, block)
        flight.deliver(index, block)
        await self._store.room()

    async def _run_verified(self, flight: Flight) -> None:
        """Bring content that is named by its hash: nobody sees a byte before the whole has been checked."""
        ref, flight.opened = flight.ref, True
        size = ref.size.value if isinstance(ref.size, Exact) else self._limits.max_file_bytes
        if not await (self._bring_held(flight, size) if size <= HELD else self._bring_aside(flight, size)):
            message = "the service has other bytes there now"
            raise errors.StaleContent(message, provider=ref.source, subject=ref.key)

    async def _bring_held(self, flight: Flight, most: int) -> bool:
        """Bring content by way of memory; return whether it is what its name says."""
        data = bytearray()
        async with self._open(flight.ref, ByteRange(0, None)) as stream, closing(stream.chunks) as chunks:
            async for chunk in chunks:
                data += chunk
                if len(data) > most:
                    return False
        if hashlib.sha256(data).hexdigest() != flight.ref.sha256:
            return False
        flight.learn_total(len(data))
        for index in range(count(len(data))):
            await self._keep(flight, index, bytes(data[index * BLOCK : (index + 1) * BLOCK]))
        return True

    async def _bring_aside(self, flight: Flight, most: int) -> bool:
        """Bring content under a name of its own; once it was checked, return whether it is what its name says."""
        ref, key = flight.ref, f"{flight.ref.key}#{secrets.token_hex(8)}"
        limits = replace(self._limits, max_file_bytes=most)
        try:
            sha256, size = await read_whole(self._open(ref, ByteRange(0, None)), self._store, key, limits)
        except errors.LimitExceeded:
            if isinstance(ref.size, Exact):
                return False
            raise
        if sha256 != ref.sha256:
            self._store.discard(key)
            return False
        self._store.identify(key, sha256, keep_name=False)
        flight.learn_total(size)
        for index in flight.waited_for():
            block = self._store.get_nowait(ref.key, index) or await self._store.fetch(ref.key, index)
            if block is not None:
                flight.deliver(index, block)
        return True


class Cutter:
    """Cuts a stream that begins anywhere into the whole blocks that it holds, copying each byte at most twice."""

    def __init__(self, offset: int) -> None:
        """Begin at ``offset`` of the content; the rest of a block that began before it is skipped."""
        self._skip = -offset % BLOCK
        self._parts: list[bytes] = []
        self._have = 0
        self.position = offset
        """How far the stream has come, in bytes of the content."""

    def feed(self, chunk: bytes) -> list[tuple[int, bytes]]:
        """Take in what comes next; return the blocks that are complete now, with their indexes."""
        self.position += len(chunk)
        if self._skip:
            skipped, chunk = min(self._skip, len(chunk)), chunk[self._skip :]
            self._skip -= skipped
        if self._have + len(chunk) < BLOCK:
            if chunk:
                self._parts.append(chunk)
                self._have += len(chunk)
            return []
        found, index = [], (self.position - len(chunk) - self._have) // BLOCK
        at = BLOCK - self._have
        found.append((index, b"".join([*self._parts, chunk[:at]])))
        while len(chunk) - at >= BLOCK:
            index += 1
            found.append((index, chunk[at : at + BLOCK]))
            at += BLOCK
        self._parts, self._have = ([chunk[at:]], len(chunk) - at) if at < len(chunk) else ([], 0)
        return found

    def end(self) -> tuple[int, bytes | None]:
        """Return where the stream ended, and the block that it ended in, if it was there from its beginning."""
        rest = b"".join(self._parts) if self._parts else None
        return self.position, None if self._skip else rest
