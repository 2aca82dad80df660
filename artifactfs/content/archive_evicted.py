"""Decides how files of known archives that were evicted come back: by ranges, or with the whole archive again.

Rules of this file: a flight runs in the mount's nursery. What ranges have once failed for is read whole from then on.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import islice
from operator import attrgetter

import trio
from cachetools import LRUCache

from artifactfs import errors
from artifactfs.content.archive_flight import OpenArchive
from artifactfs.content.archive_index import ArchiveIndex, Limits, Member
from artifactfs.content.archive_ranges import RangedFlight, RangesFail
from artifactfs.content.block_store import BlockStore
from artifactfs.content.facts import Facts
from artifactfs.content.refetch_plan import Misses
from artifactfs.content.restart import MIN_FILE, RestartMap
from artifactfs.model.content import ArchiveMember, ContentRef

log = logging.getLogger(__name__)

# Indexes of this many versions stay in memory; one of 2,000 files takes about 1 MB.
INDEXES = 32
POINTS = "#points"

_offset_of = attrgetter("offset")


class Evicted:
    """The ranged flights of one mount."""

    def __init__(
        self,
        nursery: trio.Nursery,
        store: BlockStore,
        facts: Facts,
        open_archive: OpenArchive,
        make_limits: Callable[[], Limits],
    ) -> None:
        """Run flights in ``nursery``; ``open_archive`` gives the compressed bytes."""
        self._nursery = nursery
        self._store = store
        self._facts = facts
        self._open = open_archive
        self._limits = make_limits
        self._points: LRUCache[str, RestartMap | None] = LRUCache(INDEXES)
        self._sorted: LRUCache[str, list[Member]] = LRUCache(INDEXES)
        self._misses: LRUCache[str, Misses] = LRUCache(INDEXES)
        self._flights: dict[str, list[RangedFlight]] = {}
        self._without_ranges: set[str] = set()
        self._loading = trio.Lock()

    def __repr__(self) -> str:
        """Tell what is in the air."""
        return f"<Evicted {sum(map(len, self._flights.values()))} flights>"

    def keep(self, archive: ContentRef, points: RestartMap) -> None:
        """Keep the restart points of an archive that has been read to its end; in a thread."""
        self._facts.put_archive_index(archive.key + POINTS, points.dump())
        self._points.pop(archive.key, None)
        self._without_ranges.discard(archive.key)

    def bringing(self, member: ArchiveMember) -> Iterator[RangedFlight]:
        """Return the flights that bring a file."""
        return (flight for flight in self._flights.get(member.archive.key, ()) if flight.brings(member))

    async def bring(self, member: ArchiveMember, index: ArchiveIndex) -> RangedFlight | None:
        """Begin to bring a file back; None if the archive should be read whole."""
        archive = member.archive
        points = await self._points_of(archive)
        if not points or archive.key in self._without_ranges:
            return None
        misses = self._misses.setdefault(archive.key, Misses())
        if misses.whole_is_cheaper(trio.current_time(), member, points, self._rank(index, member)):
            return None
        flights = self._flights.setdefault(archive.key, [])
        flight = next((flight for flight in flights if flight.collecting), None)
        if flight is None:
            flight = RangedFlight(archive, self._open, self._store, self._limits(), points)
            flights.append(flight)
            self._nursery.start_soon(self._fly, flight)
        flight.members[member.offset] = member
        flight.members.update((beside.offset, beside) for beside in self._beside(index, member, points))
        return flight

    def _files(self, archive: ContentRef, index: ArchiveIndex) -> list[Member]:
        """Return the files of an archive in their order in it."""
        files = self._sorted.get(archive.key)
        if files is None:
            files = sorted((m for m in index.members if m.sha256 is not None), key=_offset_of)
            self._sorted[archive.key] = files
        return files

    def _rank(self, index: ArchiveIndex, member: ArchiveMember) -> int:
        """Return the place of a file among those of its archive."""
        return bisect_left(self._files(member.archive, index), member.offset, key=_offset_of)

    def _beside(self, index: ArchiveIndex, member: ArchiveMember, points: RestartMap) -> Iterator[ArchiveMember]:
        """Return the small files that pass with the range of one: they cost nothing more."""
        point = points.point_before(member.offset)
        if point is None:
            return
        files, stop = self._files(member.archive, index), points.reach_of(member.offset + member.length)
        for file in islice(files, bisect_left(files, point.out, key=_offset_of), None):
            if file.offset >= stop:
                return
            if file.size <= MIN_FILE and file.offset + file.size <= stop:
                yield ArchiveMember(member.archive, file.offset, file.size, file.sha256)

    async def _points_of(self, archive: ContentRef) -> RestartMap | None:
        async with self._loading:  # who waits for the same points goes on at the same moment, into one flight
            if archive.key not in self._points:
                self._points[archive.key] = await self._load(archive)
            return self._points[archive.key]

    async def _load(self, archive: ContentRef) -> RestartMap | None:
        data = self._facts.archive_index(archive.key + POINTS)
        if data is None:
            return None
        try:
            return await trio.to_thread.run_sync(RestartMap.load, data)
        except errors.CorruptContent as error:
            log.info("an archive has no restart points: %s", error)
            return None

    async def _fly(self, flight: RangedFlight) -> None:
        key = flight.archive.key
        error: Exception | None = errors.Unavailable("the mount is ending")
        try:
            await flight.run()
            error = None
        except RangesFail as failed:
            log.info("an archive is read whole: %s", failed)
            self._without_ranges.add(key)
            error = None
        except Exception as caught:  # noqa: BLE001 - the waiters get it; the nursery of the mount must not
            error = caught
        finally:
            flights = self._flights[key]
            flights.remove(flight)
            if not flights:
                del self._flights[key]
            flight.land(error)
