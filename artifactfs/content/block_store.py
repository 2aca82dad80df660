"""The block cache: blocks in memory, on disk, and in between; equal contents are stored once.

Rules of this file: a block is written first and recorded after; what is not recorded does not exist. Each record
holds a CRC-32 that is checked on every read from disk; a block that does not verify is a miss and is forgotten. A
cache never makes a read fail: whatever the disk or the database does, ``get`` says that the block is not here and
``put`` that it was not kept. Nothing is scanned at start. Several mounts may share one store: equal keys mean equal
bytes, so writing twice is harmless. ``put``, ``drop``, ``evict``, ``flush`` and ``close`` wait for the disk and belong
in a thread; everything else is for the event loop, and what it changes is done by the store's own thread, in order.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from pathlib import Path
from typing import Literal

import trio

from artifactfs.content.block_index import DIRECTORY, RANKS
from artifactfs.content.block_queue import (
    BATCH_BYTES,
    ROOM_BYTES,
    Block,
    BlockQueue,
    Drop,
    Forget,
    HotBlocks,
    Identity,
    Note,
    Op,
    Pin,
)
from artifactfs.content.block_table import BlockTable, Entry
from artifactfs.content.block_writer import MIN_FREE, BlockWriter

log = logging.getLogger(__name__)

# Blocks being read in order by a handful of readers stay in memory between two kernel reads of the same block; what is
# read again later comes from the kernel's page cache.
HOT_BYTES = 16 << 20
# How long the thread gathers before it writes: 2,000 small contents come within seconds, and each transaction costs.
GATHER_S = 0.05
# How often what was read is written down, in seconds; other mounts choose by it what to evict.
NOTE_EVERY_S = 60.0
# How long ``close`` waits for a disk that does not answer, in seconds.
CLOSE_S = 20.0
# A block comes from a slow disk in 20 ms; from one that is being written to for all it can do, in a second or two.
HUNG_S = 10.0
HUNG_REST_S = 60.0
# Threads that may wait for the disk; of their own, so that a disk that hangs takes none from saving.
READERS = 32


class BlockStore:
    """The blocks of one cache directory."""

    def __init__(self, root: Path, max_bytes: int, min_free: int = MIN_FREE) -> None:
        """Open the store, made if missing, for the owner alone; a directory that cannot be used is a cache that is off.

        Args:
            root: the cache directory.
            max_bytes: how much is kept.
            min_free: bytes of free disk that are left to everybody else.
        """
        self.root = root / DIRECTORY
        self.max_bytes = max_bytes
        # Small beside the limit, so that it is not passed by much.
        self._batch_bytes = min(BATCH_BYTES, max_bytes // 16)
        self._hot = HotBlocks(HOT_BYTES)
        self._queue = BlockQueue()
        self._writer = BlockWriter(root, max_bytes, min_free)
        self._table = BlockTable(self._writer)
        self._used: dict[int, float] = self._writer.used
        self._noted_at = time.monotonic()
        self._thread: threading.Thread | None = None
        self._closing = False
        # Held from taking a batch until it is done: who drops a content must not overtake it.
        self._working = threading.Lock()
        self._readers = trio.CapacityLimiter(READERS)
        self._hangs_until = 0.0
        self._waiting: set[tuple[trio.lowlevel.TrioToken, trio.Event]] = set()

    def __repr__(self) -> str:
        """Tell how full it is."""
        return f"<BlockStore {self.used_bytes() >> 20} of {self.max_bytes >> 20} MiB>"

    def close(self) -> None:
        """Write what waits, and close; a disk that hangs is left behind."""
        with self._queue.ready:
            self._closing = True
            self._queue.ready.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
            if self._thread.is_alive():
                log.info("the disk of the cache does not answer; what waits for it is left behind")
                return
        while self._work():
            pass
        self._writer.close()

    # -- reading --------------------------------------------------------------------------------------------------

    def get_nowait(self, key: str, index: int) -> bytes | None:
        """Return a block that is in memory: used lately, or on its way to the disk."""
        data = self._hot.get(key, index) or self._queue.get(key, index)
        if data is None:
            other = self._queue.other_name(key)
            if other is not None:
                return self._hot.get(other, index) or self._queue.get(other, index)
        return data

    def keep_hot(self, key: str, index: int, data: bytes) -> None:
        """Hold a block in memory for the next read of it."""
        self._hot.keep(key, index, data)

    def get(self, key: str, index: int) -> bytes | None:
        """Return a block, or None if it is not here or does not verify; waits for the disk if the kernel has to."""
        data = self.get_nowait(key, index)
        if data is not None:
            return data
        entry = self._find(key, index)
        if entry is not None:
            data = self._table.read_cached(entry)
            if data is None:
                entry, data = self._table.read(entry)
            self._judge(entry, data)
        return data

    async def fetch(self, key: str, index: int) -> bytes | None:
        """Return a block as ``get`` does; a thread waits for the disk if need be, and nobody else."""
        data = self.get_nowait(key, index)
        if data is not None:
            return data
        entry = self._find(key, index)
        if entry is not None:
            data = self._table.read_cached(entry)
            if data is None:
                entry, data = await self._read(entry)
            self._judge(entry, data)
        return data

    async def _read(self, entry: Entry) -> tuple[Entry | None, bytes | None]:
        """Read a block in a thread, which is left behind if the disk hangs: then nothing is here for a while."""
        if trio.current_time() >= self._hangs_until:
            with trio.move_on_after(HUNG_S):
                return await trio.to_thread.run_sync(
                    self._table.read, entry, abandon_on_cancel=True, limiter=self._readers
                )
            log.info("the disk of the cache does not answer; it is left alone for %.0f s", HUNG_REST_S)
            self._hangs_until = trio.current_time() + HUNG_REST_S
        return None, None

    def _find(self, key: str, index: int) -> Entry | None:
        entry = self._table.find(key, index)
        if entry is None:
            other = self._queue.other_name(key)
            entry = None if other is None else self._table.find(other, index)
        return entry

    def _judge(self, entry: Entry | None, data: bytes | None) -> None:
        """Note that a block was read, or that there is none where the database says so."""
        if entry is None:
            return
        if data is None:
            log.info("a cached block does not verify and is fetched again")
            self._add(Forget(entry.blob, entry.number, entry.crc))
            return
        self._used[entry.blob] = time.time()
        now = time.monotonic()
        if now - self._noted_at > NOTE_EVERY_S:
            self._noted_at = now
            self._add(Note())

    def present(self, key: str) -> set[int]:
        """Return the indexes of the blocks of a content that are here."""
        found = set(self._table.numbers(key))
        found.update(self._queue.numbers(key))
        other = self._queue.other_name(key)
        if other is not None:
            found.update(self._table.numbers(other))
            found.update(self._queue.numbers(other))
        return found

    def used_bytes(self) -> int:
        """Return the bytes of all recorded blocks."""
        return self._table.used_bytes()

    def queued_bytes(self) -> int:
        """Return the bytes that wait for the disk."""
        return self._queue.bytes

    # -- changing, from the event loop ----------------------------------------------------------------------------

    def write(self, key: str, index: int, data: bytes) -> None:
        """Keep a block: it can be read at once and is on disk soon. In a stream, ``room`` must follow."""
        self._hot.keep(key, index, data)
        self._add(Block(key, index, data))

    async def room(self) -> None:
        """Wait until what waits for the disk is below its bound."""
        while self._queue.bytes >= ROOM_BYTES and not self._closing:
            mark = (trio.lowlevel.current_trio_token(), trio.Event())
            self._waiting.add(mark)
            try:
                if self._queue.bytes >= ROOM_BYTES:  # or the thread was done before it could see us
                    await mark[1].wait()
            finally:
                self._waiting.discard(mark)

    def identify(self, key: str, sha256: str, *, keep_name: bool = True) -> None:
        """Say that all of the content under ``key`` was given to ``write``, and what its SHA-256 is, in hex.

        From now on ``key`` and ``"sha256:<hex>"`` name the same blocks, stored once with all that have the same hash.
        Without ``keep_name`` the key was only a name to write under, and soon names nothing.
        """
        name = f"sha256:{sha256}"
        if name != key:
            self._add(Identity(key, name, keep_name))

    def pin(self, key: str, rank: Literal["archive", "user"]) -> None:
        """Evict what ``key`` names, or will name, after all that is not pinned; with "user" never."""
        self._add(Pin(key, RANKS[rank]))

    def unpin(self, key: str) -> None:
        """Take a pin back."""
        self._add(Pin(key, 0))

    def cool(self, key: str) -> None:
        """Forget the blocks of a content that are in memory: they turned out to be wrong."""
        self._hot.forget(key)
        self._queue.cancel(key)

    def discard(self, key: str) -> None:
        """Forget a content, in memory at once and on disk soon."""
        self.cool(key)
        self._add(Drop(key))

    def _add(self, op: Op) -> None:
        if self._closing:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="artifactfs-cache", daemon=True)
            self._thread.start()
        self._queue.add(op)

    # -- changing, in a thread ------------------------------------------------------------------------------------

    def put(self, key: str, index: int, data: bytes) -> bool:
        """Keep a block; return False if that failed (the caller goes on without a cache)."""
        self.flush()  # what waits comes first, for instance that this block was found damaged
        return self._writer.do([Block(key, index, data)])

    def drop(self, key: str) -> None:
        """Forget a content on disk: no other name of it. What is in memory stays as true as it was."""
        with self._working:
            self._queue.cancel(key)
            self._writer.do([Drop(key)])

    def evict(self, bytes_to_free: int) -> None:
        """Drop the longest unused contents until so many bytes are free; last those pinned, never those by users."""
        self._writer.evict(bytes_to_free)

    def flush(self) -> None:
        """Write what waits."""
        while self._work():
            pass

    def _work(self) -> bool:
        """Do some of what waits; return whether there was any."""
        with self._working:
            batch = self._queue.take(self._batch_bytes)
            if not batch:
                return False
            try:
                self._writer.do(batch, self._queue.names)
            finally:
                self._queue.done(batch)
                for token, event in list(self._waiting):
                    with contextlib.suppress(trio.RunFinishedError):
                        token.run_sync_soon(event.set)
        return True

    def _run(self) -> None:
        """Write what waits, a batch at a time, until the store is closed."""
        queue = self._queue
        while True:
            with queue.ready:
                while not len(queue) and not self._closing:
                    queue.sleeping = True
                    queue.ready.wait()
                    queue.sleeping = False
                if self._closing:
                    return  # ``close`` does the rest
                if queue.bytes < BATCH_BYTES:
                    queue.ready.wait(GATHER_S)
            try:
                self._work()
            except (RuntimeError, ValueError, MemoryError, sqlite3.Error, OSError) as error:
                log.info("a batch of blocks could not be cached: %r", error)
            except Exception:  # who waits for room would wait for ever if this thread ended
                log.exception("a batch of blocks could not be cached")
