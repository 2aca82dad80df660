"""One pass over an archive: what it holds is served as it arrives.

Rules of this file: a flight runs in the mount's nursery and is never cancelled because a reader went away. Bytes are
received by one task and unpacked by a worker thread, a bounded number of them in between. What it writes goes under
keys that are this flight's own, until the file is whole and has a hash; so what a pass leaves that failed, or was
killed, is never taken for anything. Between two awaits the tables are consistent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import trio

from artifactfs import errors
from artifactfs.content.archive_cutter import Batch, Unpacker
from artifactfs.content.archive_index import ArchiveIndex, GrowingTree, Limits, Member
from artifactfs.content.archive_links import directory_member, file_member
from artifactfs.content.archive_tree import Dir
from artifactfs.content.arrivals import ARCHIVE_RANK, Arrivals
from artifactfs.content.block_store import BlockStore
from artifactfs.content.extents import BLOCK
from artifactfs.content.fetcher import closing
from artifactfs.content.restart import RestartMap
from artifactfs.model.content import ByteRange, ContentRef
from artifactfs.model.limits import named
from artifactfs.providers.base import ContentStream

log = logging.getLogger(__name__)

OpenArchive = Callable[[ContentRef, ByteRange], AbstractAsyncContextManager[ContentStream]]

# Received and not yet unpacked, in bytes; the connection waits beyond it.
MAX_WAITING = 2 * 1024 * 1024
# Given to the thread at once: a hop costs about 0.1 ms, and while one runs the next bytes collect.
FEED = 256 * 1024
# So many breaks of the connection in a row, each within so many bytes of the one before, are a failure.
MAX_BREAKS = 3
PROGRESS = FEED


class ArchiveFlight(Arrivals):
    """The download of one archive.

    ``expected`` are the hashes of its files by their offsets, if it was read before: then no name waits for it.
    """

    def __init__(
        self,
        archive: ContentRef,
        open_archive: OpenArchive,
        store: BlockStore,
        limits: Limits,
        expected: Mapping[int, str] | None = None,
    ) -> None:
        """Describe it; ``run`` carries it out."""
        super().__init__(archive, store, verifies=expected is not None)
        self.since = time.time()
        self.received = 0
        self.total: int | None = None
        self.tree = GrowingTree(limits)
        self.has_shown = False
        self.index: ArchiveIndex | None = None
        self.points: RestartMap | None = None
        self._open = open_archive
        self._limits = limits
        self._unpacker = Unpacker(limits, expected)
        self._waiting = bytearray()
        self._ended = False
        self._failure: Exception | None = None
        self._moved = trio.Event()
        self._headers = trio.Event()
        self._window_block, self._windows = 0, bytearray()

    def __repr__(self) -> str:
        """Tell how far it is."""
        return (
            f"<ArchiveFlight {self.archive.key!r} {self.received} of {self.total} bytes, {self.members_seen} members>"
        )

    @property
    def members_seen(self) -> int:
        """How many headers have passed."""
        return self._unpacker.members_seen

    @property
    def windows_key(self) -> str:
        """The key of the windows of the restart points."""
        return f"{self.archive.key}#{self.number}.windows"

    # -- names -----------------------------------------------------------------------------------------------

    async def child(self, parent: Sequence[str], name: str) -> Member | None:
        """Return what has a name as soon as its header is here; None if only the end can tell.

        That is so for what is absent, and for symbolic links, which are judged by the whole tree.

        Raises:
            ArtifactFSError: the pass has failed.
        """
        while not self.landed.is_set():
            where = self.tree.find(parent)
            found = where.children.get(name) if isinstance(where, Dir) else None
            if isinstance(where, Dir) and found is not None:
                path = "/".join((*parent, name))
                if isinstance(found, Dir):
                    return directory_member(path, found)
                if found.kind == "symlink":
                    return None
                self.has_shown = True  # its bytes are called by this flight's number from now on
                return file_member(path, found, where.serial_of(name))
            await self._headers.wait()
        self.check()
        return None

    def land(self, error: Exception | None) -> None:
        """End it, and wake everybody."""
        super().land(error)
        self._wake_for_headers()

    def _wake_for_headers(self) -> None:
        self._headers.set()
        self._headers = trio.Event()

    # -- the pass --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Carry it out, up to the index; ``land`` is the caller's.

        Raises:
            ArtifactFSError: what it failed for; nothing of it is to be believed then.
        """
        try:
            await self._pass()
        except (errors.CorruptContent, errors.LimitExceeded, errors.StaleContent) as error:
            self._failure = error
        if isinstance(self._failure, errors.CorruptContent | errors.LimitExceeded | errors.StaleContent):
            # What came before the damage was noticed is not to be believed either.
            await self.forget()
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    async def _pass(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._unpack_all, nursery.cancel_scope)
            try:
                await self._receive_all()
            except Exception as error:  # noqa: BLE001 - raised by run(), bare: a nursery would wrap it
                self._failure = self._failure or error
                nursery.cancel_scope.cancel()
            self._ended = True
            self._move()
        if self._failure is not None:
            return
        finish = self._unpacker.finish
        self.index, self.points, windows = await trio.to_thread.run_sync(finish, self.tree, self.windows_key)
        self._keep_window(b"".join(windows), last=True)

    def _move(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    async def _receive_all(self) -> None:
        """Receive the archive, going on where the connection broke."""
        breaks, reached = 0, 0
        while True:
            opened = False
            try:
                async with self._open(self.archive, ByteRange(self.received, None)) as stream:
                    opened = True
                    await self._receive(stream)
            except (errors.Unavailable, errors.TimedOut):
                breaks = breaks + 1 if self.received < reached + PROGRESS else 1
                reached = self.received
                if not opened or breaks >= MAX_BREAKS:
                    raise  # if it did not open, the provider has tried as often as makes sense
                log.info("an archive's stream broke and is resumed at byte %d", self.received)
            else:
                return

    async def _receive(self, stream: ContentStream) -> None:
        if stream.total is not None and self.total not in (None, stream.total):
            message = "the archive has another size than when it was begun to be read"
            raise errors.StaleContent(message, provider=self.archive.source, subject=self.archive.key)
        self.total = stream.total if stream.total is not None else self.total
        if self.total is not None and self.total > self._limits.max_archive:
            raise errors.LimitExceeded(f"the archive is larger than {named(self._limits, 'max_archive')} bytes")
        skip = self.received - stream.offset  # a server without ranges begins anew
        if skip < 0:
            message = "the archive's stream begins behind what was asked for"
            raise errors.ProviderMisbehaved(message, provider=self.archive.source, subject=self.archive.key)
        async with closing(stream.chunks) as chunks:
            async for received in chunks:
                chunk = received[skip:] if skip else received
                skip -= len(received) - len(chunk)
                self._waiting += chunk
                self.received += len(chunk)
                self._move()
                while len(self._waiting) > MAX_WAITING:
                    await self._moved.wait()

    async def _unpack_all(self, scope: trio.CancelScope) -> None:
        """Unpack what has been received until there is no more."""
        try:
            while self._waiting or not self._ended:
                if not self._waiting:
                    await self._moved.wait()
                    continue
                data = bytes(self._waiting[:FEED])
                del self._waiting[:FEED]
                self._move()
                batches = self._unpacker.feed(data)
                while (batch := await trio.to_thread.run_sync(_next, batches)) is not None:
                    await self._take(batch)
        except Exception as error:  # noqa: BLE001 - raised by run(), bare: a nursery would wrap it
            self._failure = error
            scope.cancel()

    async def _take(self, batch: Batch) -> None:
        for raw in batch.members:
            self.tree.apply(raw)
        self.take(batch)
        for window in batch.windows:
            self._keep_window(window)
        if batch.members:
            self._wake_for_headers()
        await self.store.room()

    def _keep_window(self, window: bytes, *, last: bool = False) -> None:
        """Keep windows of restart points, one behind the other."""
        self._windows += window
        while len(self._windows) >= BLOCK or (last and self._windows):
            if not self._window_block:
                self._written.append(self.windows_key)
                self.store.pin(self.windows_key, ARCHIVE_RANK)
            self.store.write(self.windows_key, self._window_block, bytes(self._windows[:BLOCK]))
            self._window_block += 1
            del self._windows[:BLOCK]


def _next(batches: Iterator[Batch]) -> Batch | None:
    return next(batches, None)
