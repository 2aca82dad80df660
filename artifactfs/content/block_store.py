"""Blocks on disk: sparse files of content, and a database that says which of their blocks are true.

Rules of this file: a block is written first and recorded after; what is not recorded does not exist. Each record
holds a CRC-32 that is checked on every read from disk; a block that does not verify is a miss and is forgotten. A
cache never makes a read fail: whatever the disk or the database does, ``get`` says that the block is not here and
``put`` that it was not kept. Nothing is scanned at start. Several mounts may share one store: equal keys mean equal
bytes, so writing twice is harmless. ``put``, ``drop`` and ``evict`` wait for the disk and belong in a thread;
``get``, ``present`` and the blocks in memory are for the event loop.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import sqlite3
import threading
import time
import zlib
from pathlib import Path

import trio
from cachetools import LRUCache

from artifactfs.content.extents import BLOCK

log = logging.getLogger(__name__)

VERSION = 1
BUSY_S = 10.0
# Blocks being read in order by a handful of readers stay in memory between two kernel reads of the same block.
HOT_BYTES = 32 << 20
# Evict down to this share of the limit, so that not every further block evicts again.
LOW_WATER = 0.9
# Free disk below this is left to everybody else, in bytes.
MIN_FREE = 1 << 30
# How often the free disk is looked at, in bytes written between two looks.
LOOK_EVERY = 64 << 20

SCHEMA = """
CREATE TABLE blob (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, bytes INTEGER NOT NULL DEFAULT 0, used REAL NOT NULL
);
CREATE INDEX blob_used ON blob(used);
CREATE TABLE block (
    blob INTEGER NOT NULL REFERENCES blob(id) ON DELETE CASCADE, number INTEGER NOT NULL,
    length INTEGER NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (blob, number)
) WITHOUT ROWID;
"""


class BlockStore:
    """The blocks of one cache directory."""

    def __init__(self, root: Path, max_bytes: int, min_free: int = MIN_FREE) -> None:
        """Open the store, made if missing, for the owner alone; a database that cannot be read is begun anew."""
        self.root = root / "blocks"
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.max_bytes = max_bytes
        self.min_free = min_free
        self._lock = threading.RLock()
        self._hot: LRUCache[tuple[str, int], bytes] = LRUCache(HOT_BYTES, getsizeof=len)
        self._since_look = 0
        self._used: dict[str, float] = {}
        self._names: dict[str, str] = {}
        path = root / "blocks.db"
        try:
            self._db = self._open(path)
        except sqlite3.OperationalError:
            raise  # locked, or no disk: nothing says that the database is damaged
        except sqlite3.DatabaseError:
            log.info("the block database cannot be read and is begun anew")
            # The log would be replayed into the new database.
            for part in ("", "-wal", "-shm"):
                path.with_name(path.name + part).unlink(missing_ok=True)
            self._db = self._open(path)
        # The event loop reads through a connection of its own: a writer's commit in a thread never holds it up.
        self._reader = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)

    def _open(self, path: Path) -> sqlite3.Connection:
        db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        db.execute("PRAGMA journal_mode=WAL")
        # NORMAL: after a power cut the last records may be gone, or name bytes that are not there, and fail their CRC.
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute("PRAGMA foreign_keys=ON")
        db.execute("BEGIN IMMEDIATE")
        if db.execute("PRAGMA user_version").fetchone()[0] != VERSION:
            db.execute("DROP TABLE IF EXISTS block")
            db.execute("DROP TABLE IF EXISTS blob")
            # Bytes without records would fill the disk and never be evicted.
            shutil.rmtree(self.root, ignore_errors=True)
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for statement in filter(str.strip, SCHEMA.split(";")):
                db.execute(statement)
            db.execute(f"PRAGMA user_version={VERSION}")
        db.execute("COMMIT")
        return db

    def __repr__(self) -> str:
        """Tell how full it is."""
        return f"<BlockStore {self.used_bytes() >> 20} of {self.max_bytes >> 20} MiB>"

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._note_use()
            self._reader.close()
            self._db.close()

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return self.root / name[:2] / name[2:]

    def get_nowait(self, key: str, index: int) -> bytes | None:
        """Return a block that is in memory."""
        block: bytes | None = self._hot.get((self._names.get(key, key), index))
        return block

    def keep_hot(self, key: str, index: int, data: bytes) -> None:
        """Hold a block in memory for the next read of it."""
        self._hot[(key, index)] = data

    def get(self, key: str, index: int) -> bytes | None:
        """Return a block, or None if it is not here or does not verify."""
        key = self._names.get(key, key)
        try:
            row = self._reader.execute(
                "SELECT blob.id, length, crc FROM block JOIN blob ON blob.id=block.blob WHERE key=? AND number=?",
                (key, index),
            ).fetchone()
            if row is None:
                return None
            blob, length, crc = row
            data = self._pread(key, index, length)
            if len(data) == length and zlib.crc32(data) == crc:
                self._used[key] = time.time()
                return data
            log.info("a cached block does not verify and is fetched again")
            self._forget(blob, index)
        except sqlite3.Error as error:
            log.info("the block database does not answer: %s", error)
        return None

    def _pread(self, key: str, index: int, length: int) -> bytes:
        try:
            with self._path(key).open("rb") as file:
                return os.pread(file.fileno(), length, index * BLOCK)
        except OSError:
            return b""

    def _forget(self, blob: int, index: int) -> None:
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            rows = self._db.execute(
                "DELETE FROM block WHERE blob=? AND number=? RETURNING length", (blob, index)
            ).fetchall()
            self._db.execute("UPDATE blob SET bytes=bytes-? WHERE id=?", (sum(row[0] for row in rows), blob))

    def present(self, key: str) -> set[int]:
        """Return the indexes of the blocks of a content that are here."""
        key = self._names.get(key, key)
        try:
            rows = self._reader.execute(
                "SELECT number FROM block JOIN blob ON blob.id=block.blob WHERE key=?", (key,)
            ).fetchall()
        except sqlite3.Error as error:
            log.info("the block database does not answer: %s", error)
            return set()
        return {row[0] for row in rows}

    def put(self, key: str, index: int, data: bytes) -> bool:
        """Keep a block; return False if that failed (the caller goes on without a cache)."""
        path = self._path(key)
        try:
            self._make_room(len(data))
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                view = memoryview(data)
                while view:
                    done = os.pwrite(fd, view, index * BLOCK + len(data) - len(view))
                    view = view[done:]
            finally:
                os.close(fd)
            self._record(key, index, data)
        except (OSError, sqlite3.Error) as error:
            log.info("a block could not be cached: %s", error)
            return False
        return True

    def write(self, key: str, index: int, data: bytes) -> None:
        """Keep a block, from the event loop: it can be read at once and is on disk soon."""
        self.keep_hot(key, index, data)
        self.put(key, index, data)

    async def room(self) -> None:
        """Wait until there is room for more to write."""
        await trio.lowlevel.checkpoint()

    def identify(self, key: str, sha256: str) -> None:
        """Give content that is here whole its hash as its name; ``key`` stays another name of it."""
        name = f"sha256:{sha256}"
        for hot in [entry for entry in self._hot if entry[0] == key]:
            self._hot[(name, hot[1])] = self._hot.pop(hot)
        self._names[key] = name
        with contextlib.suppress(OSError, sqlite3.Error), self._lock:
            try:
                self._db.execute("UPDATE blob SET key=? WHERE key=?", (name, key))
            except sqlite3.IntegrityError:
                self._db.execute("DELETE FROM blob WHERE key=?", (key,))
                self._path(key).unlink(missing_ok=True)
                return
            path = self._path(name)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._path(key).replace(path)

    def pin(self, key: str, rank: int) -> None:
        """Have a content evicted after those that are not pinned."""

    def unpin(self, key: str) -> None:
        """Have a content evicted as any other."""

    def _record(self, key: str, index: int, data: bytes) -> None:
        with self._lock, self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "INSERT INTO blob (key, bytes, used) VALUES (?, 0, ?)"
                " ON CONFLICT (key) DO UPDATE SET used=excluded.used",
                (key, time.time()),
            )
            (blob,) = self._db.execute("SELECT id FROM blob WHERE key=?", (key,)).fetchone()
            old = self._db.execute("SELECT length FROM block WHERE blob=? AND number=?", (blob, index)).fetchone()
            self._db.execute(
                "INSERT OR REPLACE INTO block VALUES (?, ?, ?, ?)", (blob, index, len(data), zlib.crc32(data))
            )
            grown = len(data) - (old[0] if old else 0)
            self._db.execute("UPDATE blob SET bytes=bytes+? WHERE id=?", (grown, blob))

    def _note_use(self) -> None:
        """Write down which contents were read since the last time; reading itself must not write."""
        used, self._used = self._used, {}
        with contextlib.suppress(sqlite3.Error), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(
                "UPDATE blob SET used=max(used, ?) WHERE key=?", [(when, key) for key, when in used.items()]
            )

    def used_bytes(self) -> int:
        """Return the bytes of all recorded blocks."""
        with self._lock:
            (used,) = self._db.execute("SELECT coalesce(sum(bytes), 0) FROM blob").fetchone()
        return int(used)

    def _make_room(self, wanted: int) -> None:
        """Evict the longest unused contents when the limit or the disk asks for it."""
        self._since_look += wanted
        # The sum over all blobs is cheap but not free: look once per LOOK_EVERY, the limit is that soft.
        if self._since_look < min(LOOK_EVERY, self.max_bytes // 8):
            return
        self._since_look = 0
        used = self.used_bytes()
        disk = os.statvfs(self.root)
        short = self.min_free - disk.f_bavail * disk.f_frsize
        goal = int(self.max_bytes * LOW_WATER) if used + wanted > self.max_bytes else used
        if short > 0:
            goal = min(goal, used - short)
        if goal < used:
            self.evict(used - goal)

    def evict(self, bytes_to_free: int) -> None:
        """Drop the longest unused contents until so many bytes are free."""
        with self._lock:
            self._note_use()
            rows = self._db.execute("SELECT key, bytes FROM blob ORDER BY used").fetchall()
        for key, size in rows:
            if bytes_to_free <= 0:
                return
            self.drop(key)
            bytes_to_free -= size

    def drop(self, key: str) -> None:
        """Forget a content on disk: first its records, then its bytes. What is in memory stays as true as it was."""
        key = self._names.get(key, key)
        with contextlib.suppress(OSError, sqlite3.Error):
            with self._lock:
                self._db.execute("DELETE FROM blob WHERE key=?", (key,))
            self._path(key).unlink(missing_ok=True)

    def cool(self, key: str) -> None:
        """Forget the blocks of a content that are in memory: they turned out to be wrong."""
        key = self._names.get(key, key)
        for hot in [entry for entry in self._hot if entry[0] == key]:
            del self._hot[hot]
