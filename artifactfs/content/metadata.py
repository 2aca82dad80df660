"""Listings and versions as they were when last asked for, kept from one mount to the next.

Rules of this file: losing it costs requests, never data. It is written behind, by a thread of its own, and read in a
thread; what waits to be written is read from memory. A listing is kept whole or not at all, in parts, so that neither
packing nor reading a large one holds the interpreter for long. The database is not that of the other facts: those are
read and written on the event loop, which must not wait while 100,000 entries are written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from artifactfs import wal_index
from artifactfs.content.database import is_right, sum_of
from artifactfs.content.lasting import DAMAGE, Reopened
from artifactfs.model import codec
from artifactfs.model.entry import DirRef, Entry, Version

log = logging.getLogger(__name__)

MIGRATIONS = (
    """
    CREATE TABLE listing (
        id INTEGER PRIMARY KEY,
        source TEXT NOT NULL,          -- its fingerprint
        ref TEXT NOT NULL,             -- kind and arguments, as JSON
        fetched_at REAL NOT NULL,      -- seconds since the epoch
        ttl_s REAL NOT NULL,
        complete INTEGER NOT NULL,
        note TEXT,
        digest BLOB NOT NULL,          -- of all parts
        UNIQUE (source, ref)
    );
    CREATE TABLE part (
        listing INTEGER NOT NULL, at INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (listing, at)
    );
    CREATE TABLE versions (
        source TEXT NOT NULL, artifact TEXT NOT NULL, fetched_at REAL NOT NULL, current TEXT,
        complete INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (source, artifact)
    );
    """,
    # Of the data; what was kept without one has none.
    "ALTER TABLE versions ADD COLUMN digest BLOB",
    # Of the other values of a row; what was kept without one has none.
    "ALTER TABLE listing ADD COLUMN sum INTEGER; ALTER TABLE versions ADD COLUMN sum INTEGER",
    # The checksums of rows with bytes in them are other ones from here on.
    "UPDATE listing SET sum=NULL; UPDATE versions SET sum=NULL",
)
# Entries in a part: packing or reading one holds the interpreter for about 5 ms (measured: 10 us an entry).
PART = 500
# Entries that may wait to be written; they are in memory, and take some 1.3 kB each.
BACKLOG = 50_000
ROOM_S = 0.02
# Removing one takes less than that (0.3 ms, measured), unless a long listing is being written.
SOON_S = 0.002
# What nobody has asked for in half a year is dropped.
KEPT_S = 180 * 86400.0
# Nobody else would notice: SQLite has no checksums.
CHANGED = "it is not what was kept"
# Writing what waits at the end of a mount; a listing of 100,000 entries takes about 2 s on a busy machine.
END_S = 10.0


@dataclass(frozen=True, slots=True)
class KeptListing:
    """A listing, all pages of it.

    Attributes:
        entries: of all pages.
        fetched_at: when the service gave it, in seconds since the epoch.
        ttl_s: how long it was to be believed, in seconds.
        complete, note: as ``model.entry.Listing`` has them.
    """

    entries: Sequence[Entry]
    fetched_at: float
    ttl_s: float
    complete: bool
    note: str | None


@dataclass(frozen=True, slots=True)
class KeptVersions:
    """The versions of an artifact, in their order, and which one was current."""

    ordered: Sequence[Version]
    fetched_at: float
    complete: bool
    current: str | None


Key = tuple[str, str, str]
"""What it is of (``listing`` or ``versions``), fingerprint of the source, which."""
Kept = KeptListing | KeptVersions


def _ref_text(ref: DirRef) -> str:
    # With escapes: SQLite takes no lone surrogates.
    return json.dumps([ref.kind, *ref.args])


def _text(name: str) -> str:
    return json.dumps(name)


class Metadata:
    """The database; several mounts may share it. Nothing is opened before it is needed."""

    def __init__(self, path: Path) -> None:
        """Keep it at ``path``."""
        self._path = path
        self._reader = Reopened(path, MIGRATIONS)
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._reading = threading.Lock()
        self._waiting: dict[Key, Kept | None] = {}
        self._writing: dict[Key, Kept | None] = {}
        self._thread: threading.Thread | None = None
        self._is_closing = False

    def __repr__(self) -> str:
        """Tell what waits to be written."""
        return f"<Metadata {self._path.name} {self.backlog()} entries waiting>"

    # -- keeping ---------------------------------------------------------------------------------------------

    def keep_listing(self, source: str, ref: DirRef, kept: KeptListing) -> None:
        """Have a listing written soon."""
        self._keep(("listing", source, _ref_text(ref)), kept)

    def keep_versions(self, source: str, artifact: str, kept: KeptVersions) -> None:
        """Have an artifact's versions written soon."""
        self._keep(("versions", source, _text(artifact)), kept)

    def drop_listing(self, source: str, ref: DirRef) -> None:
        """Have a listing removed that the service does not have any more."""
        self._keep(("listing", source, _ref_text(ref)), None)

    def _keep(self, key: Key, kept: Kept | None) -> None:
        with self._news:
            if self._is_closing:
                return
            self._waiting[key] = kept
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="metadata", daemon=True)
                self._thread.start()
            self._news.notify()

    def backlog(self) -> int:
        """Return how many entries wait to be written."""
        with self._lock:
            waiting = [*self._waiting.values(), *self._writing.values()]
        return sum(_weight(kept) for kept in waiting)

    async def room(self, own: int = 0) -> None:
        """Wait until what waits to be written is below its bound; call it where much is fetched at once.

        What the caller itself has just left, ``own`` entries, is not waited for: somebody looks at it.
        """
        while self.backlog() - own > BACKLOG:  # noqa: ASYNC110 - a thread makes the room, which has no event of trio's
            await trio.sleep(ROOM_S)

    async def dropped(self) -> None:
        """Wait until every listing that was to be removed is, so that a kill does not bring it back."""
        while self._drops():  # noqa: ASYNC110 - as above
            await trio.sleep(SOON_S)

    def _drops(self) -> bool:
        with self._lock:
            return any(kept is None for kept in (*self._waiting.values(), *self._writing.values()))

    def close(self) -> None:
        """Write what waits, and close."""
        with self._news:
            self._is_closing = True
            self._news.notify()
        if self._thread is not None:
            self._thread.join(END_S)
        with self._reading:
            self._reader.close()

    # -- reading ---------------------------------------------------------------------------------------------

    async def listing(self, source: str, ref: DirRef) -> KeptListing | None:
        """Return a listing as it was last kept."""
        kept = await self._recall(("listing", source, _ref_text(ref)), self._read_listing)
        return kept if isinstance(kept, KeptListing) else None

    async def versions(self, source: str, artifact: str) -> KeptVersions | None:
        """Return an artifact's versions as they were last kept."""
        kept = await self._recall(("versions", source, _text(artifact)), self._read_versions)
        return kept if isinstance(kept, KeptVersions) else None

    async def _recall(self, key: Key, read: Callable[[Key], Kept | None]) -> Kept | None:
        with self._lock:
            for place in (self._waiting, self._writing):
                if key in place:
                    return place[key]
        return await trio.to_thread.run_sync(self._read, key, read)

    def _read(self, key: Key, read: Callable[[Key], Kept | None]) -> Kept | None:
        """Read in a thread; what cannot be read is not known."""
        try:
            return read(key)
        except ValueError as error:
            log.info("what was kept of %s cannot be read: %s", key[0], error)
        except sqlite3.Error as error:
            log.info("the kept listings cannot be read: %s", error)
        return None

    def _query(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        with self._reading:
            if self._is_closing:
                return []
            try:
                return self._reader.get().execute(sql, values).fetchall()
            except DAMAGE as error:
                self._reader.suspect(error)
                raise

    def _read_listing(self, key: Key) -> KeptListing | None:
        rows = self._query(
            "SELECT digest, fetched_at, ttl_s, complete, note, sum, at, data FROM listing JOIN part ON listing=id"
            " WHERE source=? AND ref=? ORDER BY at", *key[1:],
        )  # fmt: skip
        if not rows:
            return None
        digest, fetched_at, ttl_s, complete, note, *_ = rows[0]
        if digest_of(_bytes(row[-1]) for row in rows) != digest or not is_right((*key[1:], *rows[0][:6])):
            raise ValueError(CHANGED)
        reader = codec.Reader()
        entries = [entry for row in rows for entry in reader.entries(_bytes(row[-1]))]
        note = note if isinstance(note, str) else None
        return KeptListing(entries, _float(fetched_at), _float(ttl_s), bool(complete), note and json.loads(note))

    def _read_versions(self, key: Key) -> KeptVersions | None:
        rows = self._query(
            "SELECT data, fetched_at, complete, current, digest, sum FROM versions WHERE source=? AND artifact=?",
            *key[1:],
        )
        if not rows:
            return None
        data, fetched_at, complete, current, digest, _ = rows[0]
        is_same = digest is None or digest_of([_bytes(data)]) == digest
        if not is_same or not is_right((*key[1:], *rows[0][1:])):
            raise ValueError(CHANGED)
        ordered = codec.Reader().versions(_bytes(data))
        current = json.loads(current) if isinstance(current, str) else None
        return KeptVersions(ordered, _float(fetched_at), bool(complete), current)

    # -- writing, in the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        writer, is_told, has_forgotten = Reopened(self._path, MIGRATIONS), False, False
        while True:
            with self._news:
                while not self._waiting and not self._is_closing:
                    self._news.wait()
                if not self._waiting:
                    break
                self._writing, self._waiting = self._waiting, {}
            try:
                db = writer.get()
                if not has_forgotten:
                    _forget_old(db)
                    has_forgotten = True
                self._write(db)
                is_told = False
            except DAMAGE as error:
                writer.suspect(error)
                # Once for each time that the disk takes no more: there is a listing every few seconds.
                log.log(logging.INFO if is_told else logging.WARNING, "listings cannot be kept: %s", error)
                is_told = True
            finally:
                with self._lock:
                    self._writing = {}
        writer.close()

    def _write(self, db: sqlite3.Connection) -> None:
        for key, kept in list(self._writing.items()):
            try:
                _write(db, key, kept)
            except sqlite3.Error:
                raise
            except Exception as error:  # noqa: BLE001 - without this thread everybody would wait for room for ever
                log.info("%s of %s cannot be kept: %s", key[0], key[2], error)
            with self._lock:
                del self._writing[key]


def _weight(kept: Kept | None) -> int:
    if kept is None:
        return 1
    return 1 + len(kept.entries if isinstance(kept, KeptListing) else kept.ordered)


def _bytes(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    raise ValueError(value)


def _float(value: object) -> float:
    if isinstance(value, float | int):
        return float(value)
    raise ValueError(value)


def _forget_old(db: sqlite3.Connection) -> None:
    before = time.time() - KEPT_S
    with _transaction(db):
        db.execute("DELETE FROM part WHERE listing IN (SELECT id FROM listing WHERE fetched_at < ?)", (before,))
        db.execute("DELETE FROM listing WHERE fetched_at < ?", (before,))
        db.execute("DELETE FROM versions WHERE fetched_at < ?", (before,))


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Commit at the end, or nothing happened."""
    db.execute("BEGIN IMMEDIATE")
    try:
        with wal_index.unharmed():
            yield
        db.execute("COMMIT")
    except BaseException:
        # SQLite ends the transaction itself when the disk is full.
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def _write(db: sqlite3.Connection, key: Key, kept: Kept | None) -> None:
    if isinstance(kept, KeptVersions):
        data = codec.pack_versions(kept.ordered)
        current = None if kept.current is None else json.dumps(kept.current)
        facts = (*key[1:], float(kept.fetched_at), int(kept.complete), current, digest_of([data]))
        db.execute(
            "INSERT OR REPLACE INTO versions (source, artifact, fetched_at, complete, current, digest, sum, data)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*facts, sum_of(*facts), data),
        )
        return
    # Packed before the transaction begins: another mount may want to write, too.
    parts = [] if kept is None else _parts(kept.entries)
    digest = digest_of(parts)
    with _transaction(db):
        _replace(db, key, kept, parts, digest)


def digest_of(parts: Iterable[bytes]) -> bytes:
    """Return the hash of data in parts, as it is kept beside it."""
    return hashlib.blake2b(b"".join(hashlib.blake2b(part).digest() for part in parts), digest_size=16).digest()


def _parts(entries: Sequence[Entry]) -> list[bytes]:
    """Return a listing in parts; one that is empty has an empty part."""
    return [codec.pack_entries(entries[begin : begin + PART]) for begin in range(0, max(1, len(entries)), PART)]


def _replace(db: sqlite3.Connection, key: Key, kept: KeptListing | None, parts: list[bytes], digest: bytes) -> None:
    """Put a listing in the place of the one that was kept, whose parts stay if they are the same."""
    old = db.execute("SELECT id, digest FROM listing WHERE source=? AND ref=?", key[1:]).fetchone()
    is_same = old is not None and kept is not None and old[1] == digest
    if old is not None and not is_same:
        db.execute("DELETE FROM part WHERE listing=?", old[:1])
        db.execute("DELETE FROM listing WHERE id=?", old[:1])
    if kept is None:
        return
    note = None if kept.note is None else json.dumps(kept.note)
    plain = (float(kept.fetched_at), float(kept.ttl_s), int(kept.complete), note)
    facts = (*plain, sum_of(*key[1:], digest, *plain))
    if is_same:
        db.execute("UPDATE listing SET fetched_at=?, ttl_s=?, complete=?, note=?, sum=? WHERE id=?", (*facts, old[0]))
        return
    cursor = db.execute(
        "INSERT INTO listing (source, ref, digest, fetched_at, ttl_s, complete, note, sum)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (*key[1:], digest, *facts),
    )
    rows = [(cursor.lastrowid, at, part) for at, part in enumerate(parts)]
    db.executemany("INSERT INTO part VALUES (?, ?, ?)", rows)
