"""Changing the cache on disk: batches of blocks and names, eviction, orphans, and opening again what somebody removed.

Rules of this file: a batch is one transaction, and happens whole or not at all. Files of a batch that failed are
removed; those of a process that was killed are found by looking through one of 256 directories now and then. Nothing
here raises because of a disk or a database; a directory that cannot be used is tried again later. What the size of the
cache is said to be is held against its blocks once in a round of these looks.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import sqlite3
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import assert_never

from artifactfs.content import block_index
from artifactfs.content.block_files import DIRECTORIES, BlockFiles
from artifactfs.content.block_index import DIRECTORY, Blob, BlockIndex
from artifactfs.content.block_queue import Block, Drop, Forget, Identity, Note, Op, Pin
from artifactfs.content.database import is_damage

log = logging.getLogger(__name__)

# Evict down to this share of the limit, so that not every further block evicts again.
LOW_WATER = 0.9
# Free disk below this is left to everybody else, in bytes.
MIN_FREE = 1 << 30
# How long a directory that could not be used is left alone, in seconds.
RETRY_S = 5.0
# How often a directory is looked through, while blocks are being written, in seconds.
SWEEP_EVERY_S = 1.0
FAILURES = (OSError, sqlite3.Error, ValueError)


class BlockWriter:
    """What may change one cache directory; one batch at a time, whatever thread asks."""

    def __init__(self, root: Path, max_bytes: int, min_free: int) -> None:
        """Open the directory, if it can be opened."""
        self._root = root
        self._max_bytes = max_bytes
        self._min_free = min_free
        self._lock = threading.RLock()
        self._closed = False
        self._retry_at = 0.0
        # Begun anywhere, so that mounts which live for a short time find all orphans together.
        self._sweeping = itertools.count(random.randrange(DIRECTORIES))  # noqa: S311 - no secret
        self._swept_at = 0.0
        self.used: dict[int, float] = {}
        self.files = BlockFiles(root / DIRECTORY)
        self.index: BlockIndex | None = None
        self._ready()

    def _ready(self) -> bool:
        """See that a database is open which others see too; return whether there is one."""
        if self._closed:
            return False
        if self.index is not None and self.index.is_gone():
            log.info("the cache was removed and is begun anew")
            self._forsake()
        if self.index is None and time.monotonic() >= self._retry_at:
            try:
                self.index = BlockIndex(self._root)
            except FAILURES as error:
                log.info("the cache is off: %s", error)
                self._retry_at = time.monotonic() + RETRY_S
        return self.index is not None

    def _forsake(self) -> None:
        index, self.index = self.index, None
        self.files.close()
        if index is not None:
            index.close()

    def close(self) -> None:
        """Write down what was read, and close."""
        with self._lock:
            if self.used:
                self.do([Note()])
            self._closed = True
            self._forsake()

    def do(self, batch: Sequence[Op], names: Mapping[str, str] = MappingProxyType({})) -> bool:
        """Do all of a batch in its order; return whether it was done.

        ``names`` are the hashes of keys that are about to be made known, so that nothing is written twice.
        """
        with self._lock:
            if not self._ready() or self.index is None:
                return False
            task = _Batch(self.index, self.files, batch, names)
            try:
                wanted = sum(len(op.data) for op in batch if isinstance(op, Block))
                if wanted and not self._make_room(self.index, wanted):
                    task.without_blocks()
                with self.index.transaction():
                    task.run()
                    if self.used:
                        self._note(self.index)
            except FAILURES as error:
                log.info("blocks could not be cached: %s", error)
                self.files.remove(task.made)
                self._suspect(error)
                return False
            self.files.remove(task.gone)
            self.files.let_go_of_removed()
            self._sweep_sometimes(self.index)
            return not task.refused

    def _note(self, index: BlockIndex) -> None:
        used = [self.used.popitem() for _ in range(len(self.used))]
        index.touch(used)

    def _suspect(self, error: Exception) -> None:
        """Begin a damaged database anew; one that is only locked or full is none."""
        if is_damage(error):
            self._forsake()
            block_index.remove(self._root / block_index.DATABASE)

    # -- room -----------------------------------------------------------------------------------------------------

    def _make_room(self, index: BlockIndex, wanted: int) -> bool:
        """Evict if the limit or the disk asks for it; return whether there is room now."""
        used = index.used_bytes()
        short = self._min_free + wanted - self.files.free_bytes()
        too_much = used + wanted - self._max_bytes
        if too_much > 0:
            too_much += int(self._max_bytes * (1 - LOW_WATER))
        goal = max(short, too_much)
        if goal <= 0:
            return True
        self.evict(goal)
        return (
            index.used_bytes() + wanted <= max(self._max_bytes, wanted)
            and self.files.free_bytes() >= self._min_free + wanted
        )

    def evict(self, bytes_to_free: float, *, below: int = block_index.USER_RANK) -> None:
        """Drop the longest unused contents of a rank below ``below`` until so many bytes are free."""
        with self._lock:
            if not self._ready() or self.index is None:
                return
            try:
                with self.index.transaction():
                    self._note(self.index)
                    gone = self.index.evict(bytes_to_free, below=below)
            except FAILURES as error:
                log.info("nothing could be evicted: %s", error)
                return
            self.files.remove(gone)

    # -- orphans --------------------------------------------------------------------------------------------------

    def _sweep_sometimes(self, index: BlockIndex) -> None:
        now = time.monotonic()
        if now - self._swept_at >= SWEEP_EVERY_S:
            self._swept_at = now
            at = next(self._sweeping) % DIRECTORIES
            try:
                sweep(index, self.files, at)
                if at == 0 and block_index.miscounted(index):  # a flipped bit; the limit would be another one for ever
                    block_index.mend(index, ())
            except FAILURES as error:
                log.info("a directory of the cache could not be looked through: %s", error)


def sweep(index: BlockIndex, files: BlockFiles, directory: int, *, remove: bool = True) -> int:
    """Remove the files of a directory that belong to no blob; return their bytes.

    Raises:
        OSError, sqlite3.Error: it could not be looked through.
    """
    with index.transaction():
        orphans = index.unknown(files.in_directory(directory))
        size = sum(os.lstat(files.path(file)).st_blocks * 512 for file in orphans)
        if remove:
            files.remove(orphans)
    return size


class _Batch:
    """One batch on its way to the disk, within a transaction."""

    def __init__(self, index: BlockIndex, files: BlockFiles, ops: Sequence[Op], names: Mapping[str, str]) -> None:
        self._index = index
        self._files = files
        self._ops = ops
        self._names = names
        self.refused = False
        self.made: list[str] = []
        """Files that did not exist before."""
        self.gone: list[str] = []
        """Files that are not needed once the transaction is committed."""

    def without_blocks(self) -> None:
        """Leave the blocks out: there is no room."""
        self._ops = [op for op in self._ops if not isinstance(op, Block)]
        self.refused = True

    def run(self) -> None:
        """Do all of it.

        Raises:
            OSError, sqlite3.Error: some of it could not be done, so none of it is.
        """
        for _, group in itertools.groupby(self._ops, lambda op: (type(op), getattr(op, "key", ""))):
            ops = list(group)
            first = ops[0]
            if isinstance(first, Block):
                self._keep(first.key, [op for op in ops if isinstance(op, Block)])
            else:
                for op in ops:
                    self._do(op)

    def _do(self, op: Op) -> None:
        match op:
            case Identity(key, name, keep_name):
                self.gone += self._index.identify(key, name, keep_name=keep_name)
            case Pin(key, rank):
                self._index.pin(key, rank)
            case Forget(blob, number, crc):
                self._index.forget(blob, number, crc)
            case Drop(key):
                self.gone += self._index.unname(key)
            case Note() | Block():
                pass
            case _:
                assert_never(op)

    def _keep(self, key: str, blocks: list[Block]) -> None:
        """Write and record blocks of one content; those that are recorded already are not written again."""
        blob = self._blob(key)
        checks = {op.index: (len(op.data), zlib.crc32(op.data)) for op in blocks}
        new = [
            (op.index, op.data) for op in blocks if self._index.recorded(blob.id, op.index) != checks[op.index]
        ]  # fmt: skip
        if not new:
            return
        self._index.touch([(blob.id, time.time())])
        self._files.write(blob.file, new)
        for number, _ in new:
            self._index.record(blob.id, number, *checks[number])

    def _blob(self, key: str) -> Blob:
        """Return the blob of a key; one that has the same hash, if that is known by now."""
        blob = self._index.blob_of(key)
        name = self._names.get(key)
        if blob is None and name is not None:
            blob = self._index.blob_of(name)
        if blob is None:
            blob = self._index.create(key, time.time())
            self.made.append(blob.file)
        return blob
