"""Archives: downloaded once, decompressed and indexed as they pass, their files read as ranges of the stream.

Rules of this file: the decompressed stream is a content like any other (the spool) and lives in the block store; an
index is kept only after the archive has been read to its end and verified. Tar and gzip are known to
``archive_index`` alone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import trio
from cachetools import LRUCache

from artifactfs.concurrency import SingleFlight
from artifactfs.content import archive_index
from artifactfs.content.facts import Facts
from artifactfs.content.fetcher import Fetcher, OpenStream, closing
from artifactfs.model.content import Access, ByteRange, ContentRef, Exact, Unknown
from artifactfs.providers.base import ContentStream

SPOOL = "#tar"
# Pieces handed to the decompressing thread: a hop costs about 0.1 ms, so not for every 16 KiB that a socket gives.
FEED = 256 * 1024
# Indexes of this many versions stay in memory; one of 2,000 files takes about 1 MB.
INDEXES = 32


class Archives:
    """The archives of one mount."""

    def __init__(self, facts: Facts, open_stream: OpenStream, make_limits: Callable[[], archive_index.Limits]) -> None:
        """``open_stream`` gives the compressed bytes."""
        self._facts = facts
        self._open = open_stream
        self._limits = make_limits
        self._indexes: LRUCache[str, archive_index.ArchiveIndex] = LRUCache(INDEXES)
        self._archives: dict[str, ContentRef] = {}
        self.progress: dict[str, tuple[int, int]] = {}

    def is_spool(self, ref: ContentRef) -> bool:
        """Tell whether a content is the decompressed stream of an archive."""
        return ref.key in self._archives

    def spool(self, archive: ContentRef, size: int | None = None) -> ContentRef:
        """Return the content that an archive decompresses to."""
        key = archive.key + SPOOL
        self._archives[key] = archive
        size_known = Unknown() if size is None else Exact(size)
        return replace(archive, key=key, size=size_known, access=Access.STREAMED, sha256=None)

    async def index(self, archive: ContentRef, fetcher: Fetcher, flights: SingleFlight) -> archive_index.ArchiveIndex:
        """Return the table of an archive's files; the first time ever this downloads the archive.

        Raises:
            CorruptContent, LimitExceeded: it is no archive, is damaged, or would not stay within bounds.
        """
        known = self._indexes.get(archive.key) or await self._recall(archive)
        if known is None:
            await flights.run(("index", archive.key), lambda: fetcher.whole(self.spool(archive)))
            known = self._indexes.get(archive.key) or await self._recall(archive)
        if known is None:
            message = "an archive was read and left no index"
            raise RuntimeError(message)
        return known

    async def _recall(self, archive: ContentRef) -> archive_index.ArchiveIndex | None:
        data = self._facts.archive_index(archive.key)
        if data is None:
            return None
        index = await trio.to_thread.run_sync(archive_index.load, data)
        self._indexes[archive.key] = index
        return index

    @asynccontextmanager
    async def open(self, spool: ContentRef, span: ByteRange) -> AsyncIterator[ContentStream]:
        """Open the decompressed stream of an archive, always from its beginning."""
        del span
        archive = self._archives[spool.key]
        async with self._open(archive, ByteRange(0, None)) as stream:
            total = spool.size.value if isinstance(spool.size, Exact) else None
            async with closing(stream.chunks) as chunks, closing(self._decompress(archive, chunks)) as pieces:
                yield ContentStream(0, total, ranged=False, chunks=pieces)

    async def _decompress(self, archive: ContentRef, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        reader = archive_index.ArchiveReader(self._limits())
        waiting = bytearray()
        try:
            async for chunk in chunks:
                waiting += chunk
                self.progress[archive.key] = (reader.bytes_in, reader.members_seen)
                if len(waiting) >= FEED:
                    pieces = iter(reader.feed(bytes(waiting)))
                    waiting.clear()
                    while piece := await self._next(pieces):
                        yield piece
            pieces = iter(reader.feed(bytes(waiting)))
            while piece := await self._next(pieces):
                yield piece
            index = await trio.to_thread.run_sync(reader.finish)
        finally:
            self.progress.pop(archive.key, None)
        data = await trio.to_thread.run_sync(archive_index.dump, index)
        self._facts.put_archive_index(archive.key, data)
        self._indexes[archive.key] = index

    @staticmethod
    async def _next(pieces: Iterator[bytes]) -> bytes:
        """Decompress in a thread; the pieces of a bomb come one at a time, never all into memory."""
        return await trio.to_thread.run_sync(next, pieces, b"")
