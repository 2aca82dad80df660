"""Files of an archive that were evicted, brought back by ranges of it.

Rules of this file: what comes is believed only if its SHA-256 is that of the index. What does not work in this way
(no ranges, other bytes, a window that is gone) is no error: the flight lands without the file, and the archive is read
whole.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator

import trio

from artifactfs import errors
from artifactfs.content.archive_cutter import Batch, Cutter
from artifactfs.content.archive_flight import FEED, MAX_BREAKS, OpenArchive
from artifactfs.content.archive_index import Limits
from artifactfs.content.arrivals import Arrivals
from artifactfs.content.block_store import BlockStore
from artifactfs.content.extents import cover, cut
from artifactfs.content.fetcher import closing
from artifactfs.content.refetch_plan import Run, runs
from artifactfs.content.restart import Point, Restarted, RestartMap
from artifactfs.model.content import ArchiveMember, ByteRange, ContentRef

log = logging.getLogger(__name__)

# What several readers ask for at one moment goes into one plan; far below a round trip.
COLLECT_S = 0.002


class RangesFail(Exception):
    """Ranges cannot bring it; the whole can."""


class RangedFlight(Arrivals):
    """Some files of an archive on their way."""

    def __init__(
        self, archive: ContentRef, open_archive: OpenArchive, store: BlockStore, limits: Limits, points: RestartMap
    ) -> None:
        """Describe it; ``run`` carries it out."""
        super().__init__(archive, store, verifies=True)
        self.collecting = True
        self.members: dict[int, ArchiveMember] = {}
        self._open = open_archive
        self._limits = limits
        self._points = points

    def __repr__(self) -> str:
        """Tell what it brings."""
        return f"<RangedFlight {self.archive.key!r} {len(self.members)} files>"

    def brings(self, member: ArchiveMember) -> bool:
        """Tell whether a file is among those on their way."""
        return member.offset in self.members and not self.landed.is_set()

    async def run(self) -> None:
        """Carry it out; ``land`` is the caller's.

        Raises:
            RangesFail: it does not work in this way.
            ArtifactFSError: the service failed.
        """
        await trio.sleep(COLLECT_S)
        self.collecting = False
        planned = runs(self._points, self.members.values())
        if planned is None:
            raise RangesFail("no restart point")
        for run in planned:
            await self._retried(run)

    async def _retried(self, run: Run) -> None:
        failure: Exception | None = None
        for left in range(MAX_BREAKS - 1, -1, -1):
            try:
                await self._bring(run)
            except errors.Unavailable:
                if not left:
                    raise
                log.info("a range of an archive broke and is asked for again")
            except (errors.CorruptContent, errors.StaleContent, zlib.error) as error:
                failure = error
                break
            else:
                return
        await self.forget()
        raise RangesFail(str(failure)) from failure

    async def _bring(self, run: Run) -> None:
        window = self._window(run.point)
        expected = {member.offset: member.sha256 or "" for member in run.members}
        cutter = Cutter(expected)
        for member in run.members:
            cutter.expect(member.offset, member.length)
        unpacker = _Unpacker(run.point, window, self._limits, cutter)
        wanted = run.end - run.point.begin
        async with self._open(self.archive, ByteRange(run.point.begin, wanted)) as stream:
            if stream.offset != run.point.begin:
                raise RangesFail("the service has no ranges")
            waiting = bytearray()
            async with closing(stream.chunks) as chunks:
                async for chunk in chunks:
                    waiting += chunk[:wanted]
                    wanted -= len(chunk)
                    if len(waiting) >= FEED or wanted <= 0:
                        await self._unpack(unpacker, waiting)
                    if wanted <= 0:
                        break
            await self._unpack(unpacker, waiting)
        if self.position < run.members[-1].offset + run.members[-1].length:
            raise RangesFail("the range ends before the file")

    async def _unpack(self, unpacker: _Unpacker, waiting: bytearray) -> None:
        batches = unpacker.feed(bytes(waiting))
        waiting.clear()
        while (batch := await trio.to_thread.run_sync(_next, batches)) is not None:
            self.take(batch)
            await self.store.room()

    def _window(self, point: Point) -> bytes:
        """Return the window of a point."""
        if not point.length:
            return b""
        parts = []
        for number in cover(point.at, point.length):
            block = self.store.get(self._points.windows_key, number)
            if block is None:
                raise RangesFail("the window of a restart point is gone")
            parts.append(cut(number, block, point.at, point.length))
        return zlib.decompress(b"".join(parts))


class _Unpacker:
    """From a range of the archive to the files in it."""

    def __init__(self, point: Point, window: bytes, limits: Limits, cutter: Cutter) -> None:
        self._restarted = Restarted(point, window, limits)
        self._position = point.out
        self._cutter = cutter

    def feed(self, data: bytes) -> Iterator[Batch]:
        for piece in self._restarted.feed(data):
            batch = Batch()
            self._cutter.cut(self._position, piece, batch)
            self._position += len(piece)
            yield batch


def _next(batches: Iterator[Batch]) -> Batch | None:
    return next(batches, None)
