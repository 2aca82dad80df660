"""Archives: downloaded once, their files served as they arrive, brought back when they were evicted.

Rules of this file: an index is kept only after the archive has been read to its end and verified; an archive that is
damaged is not downloaded again for ``VERDICT_S``. A file is a content of its own, named by its SHA-256; before the
archive's end it has a name that only its flight gives, and that is an error once the flight has failed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
from cachetools import LRUCache

from artifactfs import errors
from artifactfs.content import archive_index
from artifactfs.content.archive_evicted import INDEXES, Evicted
from artifactfs.content.archive_flight import ArchiveFlight, OpenArchive
from artifactfs.content.archive_tree import quoted
from artifactfs.content.arrivals import Arrivals, key_of
from artifactfs.content.block_store import BlockStore
from artifactfs.content.facts import Facts
from artifactfs.content.fates import REMEMBERED, Fates, bare
from artifactfs.model.content import ArchiveMember, ContentRef

log = logging.getLogger(__name__)

# How long a verdict on a damaged archive, or a bomb, is believed, in seconds: it may be mended at the service.
VERDICT_S = 300.0
# An archive that is replaced while it is read is begun anew so often.
MAX_ANEW = 3
# A block that is evicted, or fails, each time it has come is given up after so many.
MAX_TRIES = 4
# Of a name that is not shown so many characters stand in the log.
NAME_MAX = 255

Landed = Callable[[ArchiveFlight], Awaitable[None]]


class Archives:
    """The archives of one mount."""

    def __init__(
        self,
        nursery: trio.Nursery,
        store: BlockStore,
        facts: Facts,
        open_archive: OpenArchive,
        make_limits: Callable[[], archive_index.Limits],
    ) -> None:
        """Run flights in ``nursery``; ``open_archive`` gives the compressed bytes."""
        self._nursery = nursery
        self._store = store
        self._facts = facts
        self._open = open_archive
        self._limits = make_limits
        self._indexes: LRUCache[str, archive_index.ArchiveIndex] = LRUCache(INDEXES)
        self._evicted = Evicted(nursery, store, facts, open_archive, make_limits)
        self._flights: dict[str, ArchiveFlight] = {}
        self._verdicts: LRUCache[str, tuple[Exception, float]] = LRUCache(REMEMBERED)
        self._fates = Fates()
        self.landed: Landed = _nothing

    def __repr__(self) -> str:
        """Tell what is in the air."""
        return f"<Archives {len(self._flights)} in flight>"

    def progress(self) -> list[dict[str, Any]]:
        """Return what ``status`` shows of the archives on their way."""
        return [
            {
                "archive": key,
                "bytes": flight.received,
                "total": flight.total,
                "files": flight.members_seen,
                "seconds": round(time.time() - flight.since, 1),
            }
            for key, flight in self._flights.items()
        ]

    # -- names -----------------------------------------------------------------------------------------------

    async def index(self, archive: ContentRef) -> archive_index.ArchiveIndex:
        """Return the table of an archive's files; the first time ever this downloads the archive.

        Raises:
            CorruptContent, LimitExceeded: it is no archive, is damaged, or would not stay within bounds.
        """
        for _ in range(MAX_ANEW):
            known = await self._known(archive)
            if known is not None:
                return known
            flight = self._flight(archive)
            await flight.landed.wait()
            if flight.index is not None and flight.error is None:
                return flight.index
            if not isinstance(flight.error, errors.StaleContent):
                break
        flight.check()
        raise errors.Unavailable("an archive was read and left no index", provider=archive.source, subject=archive.key)

    async def arriving(self, archive: ContentRef) -> ArchiveFlight | None:
        """Return the flight that brings an archive for the first time; None if its index is known."""
        return None if await self._known(archive) is not None else self._flight(archive)

    async def _known(self, archive: ContentRef) -> archive_index.ArchiveIndex | None:
        known = self._indexes.get(archive.key)
        if known is not None:
            return known
        data = self._facts.archive_index(archive.key)
        if data is None:
            return None
        try:
            known = await trio.to_thread.run_sync(archive_index.load, data)
        except errors.CorruptContent as error:
            log.info("an archive is read anew: %s", error)
            return None
        if not known.holds_for(self._limits()):
            return None  # of a mount with other limits
        self._indexes[archive.key] = known
        return known

    async def left_out(self, archive: ContentRef) -> Sequence[archive_index.Refused]:
        """Return the members of an archive that are not shown; none if it was never read here."""
        known = await self._known(archive)
        return known.refused if known is not None else ()

    # -- flights ---------------------------------------------------------------------------------------------

    def _flight(self, archive: ContentRef, known: archive_index.ArchiveIndex | None = None) -> ArchiveFlight:
        """Return the flight of an archive, begun if there is none."""
        flight = self._flights.get(archive.key)
        if flight is not None:
            return flight
        verdict, until = self._verdicts.get(archive.key, (None, 0.0))
        if verdict is not None and trio.current_time() < until:
            raise bare(verdict)
        self._verdicts.pop(archive.key, None)
        expected = None
        if known is not None:
            expected = {m.offset: m.sha256 for m in known.members if m.sha256 is not None}
        flight = ArchiveFlight(archive, self._open, self._store, self._limits(), expected)
        self._flights[archive.key] = flight
        self._nursery.start_soon(self._fly, flight)
        return flight

    async def _fly(self, flight: ArchiveFlight) -> None:
        key = flight.archive.key
        error: Exception | None = errors.Unavailable("the mount is ending")
        try:
            await flight.run()
            await self._keep(flight)
            error = None
        except Exception as caught:  # noqa: BLE001 - the waiters get it; the nursery of the mount must not
            error = bare(caught)
        finally:
            if isinstance(error, errors.CorruptContent | errors.LimitExceeded):
                self._verdicts[key] = (error, trio.current_time() + VERDICT_S)
            if flight.has_shown:
                self._fates.note(flight.number, error)
            del self._flights[key]
            flight.land(error)
        try:
            await self.landed(flight)
        except Exception:
            log.exception("what was shown of an archive could not be compared with its end")

    async def _keep(self, flight: ArchiveFlight) -> None:
        if flight.index is None or flight.points is None:
            raise TypeError(flight)
        index, points, key = flight.index, flight.points, flight.archive.key

        def dump() -> None:
            self._evicted.keep(flight.archive, points)
            self._facts.put_archive_index(key, archive_index.dump(index))

        await trio.to_thread.run_sync(dump)
        self._indexes[key] = index
        if index.refused:
            first = index.refused[0]
            what = f"the first: {quoted(first.path[:NAME_MAX])}: {first.reason}"
            log.info("%d members of the archive %s are not shown; %s", len(index.refused), key, what)

    # -- bytes -----------------------------------------------------------------------------------------------

    def key(self, member: ArchiveMember) -> str:
        """Return under which key the blocks of a file are kept.

        Raises:
            ArtifactFSError: the reading of the archive that has shown this file has failed, or nobody knows any more.
        """
        if member.sha256 is not None:
            return f"sha256:{member.sha256}"
        flight = self._flights.get(member.archive.key)
        if member.flight and (flight is None or flight.number != member.flight):
            self._fates.check(member.flight)
        return key_of(member.archive, member.flight, member.offset)

    def want(self, member: ArchiveMember) -> None:
        """See that a file comes, without waiting for it."""
        self._nursery.start_soon(self._fetch_quietly, member)

    async def _fetch_quietly(self, member: ArchiveMember) -> None:
        try:
            await self.block(member, 0)
        except errors.ArtifactFSError as error:
            log.info("a file that nobody has asked for yet did not come: %s", error)

    async def block(self, member: ArchiveMember, number: int) -> bytes:
        """Return a block of a file: from the store, from the flight that brings it, or from a new flight.

        Raises:
            ArtifactFSError: it cannot be had, or is not what it was.
        """
        for _ in range(MAX_TRIES):
            data = self._here(self.key(member), number)
            if data is not None:
                return data
            arrivals = self._bringing(member, number)
            if arrivals is None:
                member = await self._identified(member)
                arrivals = self._bringing(member, number) or await self._bring(member)
            elif (data := self._here(arrivals.key(member.offset), number)) is not None:
                return data
            data = await arrivals.block(member, number)
            if data is not None:
                return data
            await arrivals.landed.wait()  # it has passed and was evicted: whoever brings it next begins after this
        message = "a file of an archive cannot be kept for long enough to be read"
        raise errors.CorruptContent(message, provider=member.archive.source, subject=member.archive.key)

    def _here(self, key: str, number: int) -> bytes | None:
        data = self._store.get_nowait(key, number)
        if data is None:
            data = self._store.get(key, number)
            if data is not None:
                self._store.keep_hot(key, number, data)
        return data

    def _bringing(self, member: ArchiveMember, number: int) -> Arrivals | None:
        """Return the flight that brings a block, if one does."""
        for some in self._evicted.bringing(member):
            if some.is_to_come(member, number) or self._here(some.key(member.offset), number):
                return some
        flight = self._flights.get(member.archive.key)
        if flight is None or (member.sha256 is None and member.flight != flight.number):
            return None
        here = flight.is_to_come(member, number) or self._here(flight.key(member.offset), number)
        return flight if here else None

    async def _identified(self, member: ArchiveMember) -> ArchiveMember:
        """Return a file under its hash, which is known when the archive has been read."""
        if member.sha256 is not None:
            return member
        index = await self.index(member.archive)
        self.key(member)
        sha256 = next((m.sha256 for m in index.members if m.offset == member.offset and m.sha256), None)
        if sha256 is None:
            message = "this file was replaced by another one further on in its archive"
            raise errors.StaleContent(message, provider=member.archive.source, subject=member.archive.key)
        return ArchiveMember(member.archive, member.offset, member.length, sha256)

    async def _bring(self, member: ArchiveMember) -> Arrivals:
        """Begin to bring a file that was evicted back: by a range, or by reading the archive again."""
        index = await self.index(member.archive)
        return await self._evicted.bring(member, index) or self._flight(member.archive, index)


async def _nothing(_flight: ArchiveFlight) -> None:
    """Do nothing."""
