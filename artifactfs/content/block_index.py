"""The database of the block cache: which names mean which blob, and which blocks of it are true.

Rules of this file: SQL stands here and nowhere else; `docs/cache.md` explains the tables. Who holds the write lock
(``transaction``) is the only one who creates or removes files of blobs, in all processes; so a file that no row names
while the lock is held is an orphan. A file's name is random and never used twice: no process can take one blob for
another, whatever happens to the database. What a name means has a checksum: nothing else would notice that it means
another blob, whose blocks are true. A flipped bit can make a number none, or one that no block has: such a block is not
here, and any other such row is damage. Every method may raise ``sqlite3.Error``.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactfs import database, private, wal_index
from artifactfs.content import block_schema
from artifactfs.content.database import is_damage, is_right, make_file, make_way, read_any_text, sum_of
from artifactfs.content.extents import BLOCK

DATABASE = "blocks.db"
DIRECTORY = "blocks"
# Another mount's transaction takes milliseconds, or as long as its batch waits for a bad disk.
BUSY_S = 10.0
# No transaction holds up who reads, but for the moment in which the log is made anew; the event loop waits for that.
READER_BUSY_S = 0.25
# Contents that nobody pinned go first, then what was pinned for speed; what a user pinned never goes by itself.
RANKS = {"archive": 1, "user": 2}
USER_RANK = RANKS["user"]
# What a block can be: one that a file has (its place in that is an off_t), and no longer than all are. By SQLite: in
# Python a page of 256 takes half as long again.
IS_BLOCK = (
    "typeof(number)='integer' AND typeof(length)='integer' AND typeof(crc)='integer'"
    f" AND number BETWEEN 0 AND {(1 << 63) // BLOCK - 1} AND length BETWEEN 0 AND {BLOCK}"
)
PAGE = (
    "SELECT number, blob.id, sum, blob.file, length, crc FROM name JOIN blob ON blob.id=name.blob"  # noqa: S608 - numbers of ours
    f" JOIN block ON block.blob=blob.id WHERE key=? AND number>=? AND number<? AND {IS_BLOCK}"
)
BLOCKS = f"SELECT number, length, crc, {IS_BLOCK} FROM block WHERE blob=? ORDER BY number"  # noqa: S608 - as above

# What people may want to know: how many there are, and bytes. Names that are hashes are not somebody's own copy.
SUMMARY = {
    "blobs": "SELECT count(*) FROM blob",
    "names": "SELECT count(*) FROM name",
    "blocks": "SELECT count(*) FROM block",
    "used_bytes": "SELECT bytes FROM total",
    "shared_bytes_saved": """SELECT coalesce(sum(bytes * (names - 1)), 0) FROM (
        SELECT blob.bytes AS bytes, count(*) AS names FROM name JOIN blob ON blob.id=name.blob
        WHERE key NOT LIKE 'sha256:%' GROUP BY blob.id
    )""",
    "pinned_bytes": "SELECT coalesce(sum(bytes), 0) FROM blob WHERE rank>0",
    "pinned_by_user_bytes": "SELECT coalesce(sum(bytes), 0) FROM blob WHERE rank>1",
}


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob as the database knows it; ``file`` is its random name."""

    id: int
    file: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Page:
    """Some blocks of a blob: length in bytes and CRC-32 by number."""

    blob: int
    file: str
    blocks: dict[int, tuple[int, int]]


class BlockIndex:
    """One open database; a writing connection behind a lock, and a reading one that no writer's commit holds up."""

    def __init__(self, root: Path) -> None:
        """Open the database in the cache directory ``root``, made if missing; one that is damaged is begun anew.

        Raises:
            OSError, sqlite3.Error: there is no disk, it takes nothing, or somebody else holds it.
        """
        self.directory = root / DIRECTORY
        self.path = root / DATABASE
        private.directory(self.directory)
        self._lock = threading.RLock()
        self._reading = threading.Lock()
        try:
            self._db = self._open()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise  # locked, or no disk: nothing says that the database is damaged
            remove(self.path)
            self._db = self._open()
        self._reader = self._connect(READER_BUSY_S)
        self._identity = _identity(self.path)

    def _connect(self, busy_s: float = BUSY_S) -> sqlite3.Connection:
        make_file(self.path)
        db = sqlite3.connect(self.path, timeout=busy_s, isolation_level=None, check_same_thread=False)
        db.create_function("sum_of", 2, sum_of, deterministic=True)
        return read_any_text(db)

    def _open(self) -> sqlite3.Connection:
        db = self._connect()
        try:
            with database.as_damage():
                self._begin(db)
        except BaseException:
            db.close()
            raise
        return db

    def _begin(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode=WAL")
        # NORMAL: after a power cut the last records may be gone, or name bytes that are not there: a bad CRC then.
        db.execute("PRAGMA synchronous=NORMAL")
        if db.execute("PRAGMA user_version").fetchone()[0] != block_schema.VERSION:
            db.execute("BEGIN IMMEDIATE")
            if not block_schema.migrate(db):
                # Bytes without records would fill the disk and never be evicted.
                shutil.rmtree(self.directory, ignore_errors=True)
                private.directory(self.directory)
            db.execute("COMMIT")

    def close(self) -> None:
        """Close both connections; who still asks gets ``sqlite3.ProgrammingError``."""
        with self._lock, self._reading:
            self._reader.close()
            self._db.close()

    def is_gone(self) -> bool:
        """Tell whether the file that is open is no longer the one at its path: somebody removed the cache."""
        return _identity(self.path) != self._identity

    # -- reading, on the event loop -------------------------------------------------------------------------------

    def _ask(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._reading, wal_index.unharmed():
            return self._reader.execute(sql, values).fetchall()

    def version(self) -> int:
        """Return a number that is another one after every commit, of this process and of others."""
        return int(self._ask("PRAGMA data_version")[0][0])

    def page(self, key: str, first: int, stop: int) -> Page | None:
        """Return the blocks ``first`` to ``stop`` (exclusive) of what a name means, or None if there are none."""
        rows = self._ask(PAGE, key, first, stop)
        if not _is_right(key, rows):
            return None
        blob = _blob(rows[0][1], rows[0][3], 0)
        return Page(blob.id, blob.file, {row[0]: row[4:] for row in rows})

    def numbers(self, key: str) -> set[int]:
        """Return the numbers of the blocks that are recorded under a name."""
        rows = self._ask("SELECT number, name.blob, sum FROM name JOIN block ON block.blob=name.blob WHERE key=?", key)
        return {row[0] for row in rows if isinstance(row[0], int)} if _is_right(key, rows) else set()

    def used_bytes(self) -> int:
        """Return the bytes of all recorded blocks."""
        return _only_number(self._ask("SELECT bytes FROM total"))

    # -- writing, in a thread -------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the write lock of all processes; commit at the end, or nothing happened."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                with wal_index.unharmed():
                    yield
                self._db.execute("COMMIT")
            except BaseException:
                # SQLite ends the transaction itself when the disk is full.
                with contextlib.suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def blob_of(self, key: str) -> Blob | None:
        """Return what a name means."""
        row = self._db.execute(
            "SELECT id, file, bytes, sum FROM name JOIN blob ON blob.id=name.blob WHERE key=?", (key,)
        ).fetchone()
        return _blob(*row[:3]) if row and is_right((key, row[0], row[3])) else None

    def create(self, key: str, now: float) -> Blob:
        """Make a blob for a name that means nothing yet."""
        file = secrets.token_hex(16)
        cursor = self._db.execute("INSERT INTO blob (file, used) VALUES (?, ?)", (file, now))
        blob = Blob(cursor.lastrowid or 0, file, 0)
        self._name(key, blob.id)
        return blob

    def _name(self, key: str, blob: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO name VALUES (?, ?, ?)", (key, blob, sum_of(key, blob)))
        self._rank(blob)

    def _rank(self, blob: int) -> None:
        self._db.execute(
            "UPDATE blob SET rank=(SELECT coalesce(max(pin.rank), 0) FROM name JOIN pin ON pin.key=name.key"
            " WHERE name.blob=blob.id) WHERE id=?",
            (blob,),
        )

    def recorded(self, blob: int, number: int) -> tuple[int, int] | None:
        """Return length and CRC of a block."""
        row: tuple[int, int] | None = self._db.execute(
            "SELECT length, crc FROM block WHERE blob=? AND number=?", (blob, number)
        ).fetchone()
        return row

    def record(self, blob: int, number: int, length: int, crc: int) -> None:
        """Say that a block is there."""
        self._db.execute("DELETE FROM block WHERE blob=? AND number=?", (blob, number))
        self._db.execute("INSERT INTO block VALUES (?, ?, ?, ?)", (blob, number, length, crc))

    def forget(self, blob: int, number: int, crc: int) -> None:
        """Say that a block is not what its record says."""
        self._db.execute("DELETE FROM block WHERE blob=? AND number=? AND crc=?", (blob, number, crc))

    def identify(self, key: str, name: str, *, keep_name: bool) -> list[str]:
        """Make two names mean one blob, the fuller of the two; return the files that are no longer needed."""
        mine, known, gone = self.blob_of(key), self.blob_of(name), []
        if mine is not None and known is not None and mine.id != known.id:
            winner, loser = (known, mine) if known.bytes >= mine.bytes else (mine, known)
            self._forget_false_names(loser.id)
            self._db.execute(
                "UPDATE name SET blob=?1, sum=sum_of(key, ?1) WHERE blob=?2", (winner.id, loser.id)
            )  # fmt: skip
            self._rank(winner.id)
            gone = self._delete(loser)
        elif mine is not None and known is None:
            self._name(name, mine.id)
        elif known is not None and mine is None and keep_name:
            self._name(key, known.id)
        if not keep_name:
            self._db.execute("INSERT OR IGNORE INTO pin SELECT ?, rank FROM pin WHERE key=?", (name, key))
            self._db.execute("DELETE FROM pin WHERE key=?", (key,))
            gone += self.unname(key)
        return gone

    def _forget_false_names(self, blob: int) -> None:
        """Forget names that a flipped bit has made mean a blob."""
        self._db.execute("DELETE FROM name WHERE blob=? AND sum<>sum_of(key, blob)", (blob,))

    def unname(self, key: str) -> list[str]:
        """Forget a name, and its blob if it was the last; return the files that are no longer needed."""
        blob = self.blob_of(key)
        if blob is None:
            return []
        self._db.execute("DELETE FROM name WHERE key=?", (key,))
        if self._db.execute("SELECT 1 FROM name WHERE blob=?", (blob.id,)).fetchone() is None:
            return self._delete(blob)
        self._rank(blob.id)
        return []

    def _delete(self, blob: Blob) -> list[str]:
        """Delete a blob's rows; what its names were is pinned no more, unless a user said so."""
        self._db.execute("DELETE FROM block WHERE blob=?", (blob.id,))
        self._db.execute(
            "DELETE FROM pin WHERE rank<? AND key IN (SELECT key FROM name WHERE blob=?)", (USER_RANK, blob.id)
        )
        self._db.execute("DELETE FROM name WHERE blob=?", (blob.id,))
        self._db.execute("DELETE FROM blob WHERE id=?", (blob.id,))
        return [blob.file]

    def pin(self, key: str, rank: int) -> None:
        """Keep what a name means, or will mean, longer than what has a lower rank; 0 takes that back."""
        if rank:
            self._db.execute("INSERT OR REPLACE INTO pin VALUES (?, ?)", (key, rank))
        else:
            self._db.execute("DELETE FROM pin WHERE key=?", (key,))
        blob = self.blob_of(key)
        if blob is not None:
            self._rank(blob.id)

    def touch(self, used: Iterable[tuple[int, float]]) -> None:
        """Write down when blobs were read last, in seconds since the epoch."""
        self._db.executemany("UPDATE blob SET used=max(used, ?2) WHERE id=?1", used)

    def evict(self, bytes_to_free: float, *, below: int = USER_RANK) -> list[str]:
        """Delete the longest unused blobs of the lowest rank until so many bytes are free; return their files.

        Blobs whose rank is ``below`` or more stay.
        """
        rows = self._db.execute("SELECT id, file, bytes FROM blob WHERE rank<? ORDER BY rank, used", (below,))
        chosen: list[Blob] = []
        for row in rows:
            if bytes_to_free <= 0:
                break
            chosen.append(_blob(*row))
            bytes_to_free -= chosen[-1].bytes
        rows.close()
        return [file for blob in chosen for file in self._delete(blob)]

    def unknown(self, files: Iterable[str]) -> list[str]:
        """Return those files that belong to no blob."""
        return [
            file for file in files
            if self._db.execute("SELECT 1 FROM blob WHERE file=?", (file,)).fetchone() is None
        ]  # fmt: skip

    # -- looking at all of it, for people -------------------------------------------------------------------------

    def blobs(self) -> list[Blob]:
        """Return all blobs."""
        with self._reading:
            return [_blob(*row) for row in self._reader.execute("SELECT id, file, bytes FROM blob ORDER BY id")]

    def blocks(self, blob: int) -> list[tuple[int, int, int]]:
        """Return number, length and CRC of a blob's blocks."""
        with self._reading:
            rows = self._reader.execute(BLOCKS, (blob,)).fetchall()
        if bad := [row for row in rows if not row[3]]:
            raise sqlite3.DatabaseError(f"a block is {bad[0][:3]}")
        return [row[:3] for row in rows]

    def summary(self) -> dict[str, int]:
        """Return the numbers of ``SUMMARY``."""
        return {name: _only_number(self._ask(sql)) for name, sql in SUMMARY.items()}


def _blob(number: object, file: object, size: object) -> Blob:
    if not (isinstance(number, int) and isinstance(file, str) and isinstance(size, int)):
        raise sqlite3.DatabaseError(f"a blob is {(number, file, size)}")
    return Blob(number, file, size)


def _is_right(key: str, rows: list[tuple[Any, ...]]) -> bool:
    """Tell whether a name means what these blocks are of; the first says it: number of the block, blob, checksum."""
    return bool(rows) and is_right((key, *rows[0][1:3]))


def _only_number(rows: list[tuple[Any, ...]]) -> int:
    if len(rows) != 1 or not isinstance(rows[0][0], int):
        raise sqlite3.DatabaseError(f"what should be a number is {rows}")
    return int(rows[0][0])


def false_names(index: BlockIndex) -> list[str]:
    """Return the names that do not mean what they were said to mean."""
    with index.transaction():
        rows = index._db.execute("SELECT key, blob, sum FROM name").fetchall()  # noqa: SLF001 - its own module
    return [row[0] for row in rows if not is_right(row)]


def miscounted(index: BlockIndex) -> int:
    """Return by how many bytes the blocks that are there differ from what was counted."""
    sql = "SELECT (SELECT coalesce(sum(length), 0) FROM block) - bytes FROM total"
    with index.transaction():  # who reads is not held up by a sum over 100,000 rows
        return abs(_only_number(index._db.execute(sql).fetchall()))  # noqa: SLF001 - its own module


def mend(index: BlockIndex, names: Iterable[str]) -> None:
    """Forget false names, and count anew what is there."""
    with index.transaction():
        db = index._db  # noqa: SLF001 - its own module
        db.executemany("DELETE FROM name WHERE key=?", ((name,) for name in names))
        db.execute("UPDATE blob SET bytes=(SELECT coalesce(sum(length), 0) FROM block WHERE blob=blob.id)")
        db.execute("UPDATE total SET bytes=(SELECT coalesce(sum(bytes), 0) FROM blob)")


def remove(path: Path) -> None:
    """Remove a database, also its log, which would be replayed into the next one."""
    make_way(path)
    for part in ("", "-wal", "-shm"):
        path.with_name(path.name + part).unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
