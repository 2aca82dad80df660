"""The catalog's connections: one that writes, one that reads.

Rules of this file: WAL mode, so that readers never wait for a writer, in this process or in another; a
change is one transaction, never held across an ``await``; whatever SQLite raises leaves as one of our
errors. What the tables mean is not known here.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from artifactfs import database, errors, private, wal_index
from artifactfs.store.schema import SCHEMA, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# How long a writer waits for another process's transaction, in seconds; they last milliseconds.
BUSY_S = 10.0


def now_ns() -> int:
    """Return the time in nanoseconds since the epoch."""
    return time.time_ns()


def _meaning(error: sqlite3.Error) -> errors.ArtifactFSError:
    """Say an error of SQLite in our words."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name in {"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"}:
        return errors.AlreadyExists(f"the store has one already: {error}")
    if name == "SQLITE_CONSTRAINT_FOREIGNKEY":
        return errors.NotFound("the workflow, run or artifact that was named is not in the store")
    if name.startswith("SQLITE_CONSTRAINT"):
        return errors.InvalidRequest(f"the store does not take this: {error}")
    if name == "SQLITE_FULL":
        return errors.NoLocalSpace("the disk under the store is full")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return errors.TimedOut(f"another process kept the store locked for more than {BUSY_S:.0f} s")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return errors.CorruptContent(f"the store's catalog is damaged: {error}")
    return errors.Unavailable(f"the store's catalog failed: {error}")


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise _meaning(error) from error
    except UnicodeEncodeError as error:
        # A lone surrogate: text that no UTF-8 can say, as undecodable file names have.
        raise errors.NameNotAllowed("the store keeps only text that UTF-8 can encode") from error


class Database:
    """``catalog.db`` in a directory of its own, for the owner alone."""

    def __init__(self, root: Path) -> None:
        """Open it, made if missing.

        Raises:
            ConfigError: the database was written by a newer artifactfs.
        """
        private.directory(root, close=False)
        self.root = root
        self._write_lock = threading.RLock()
        self._read_lock = threading.Lock()
        # The thread that is inside a transaction: what it reads must include what it has just written.
        self._writer: int | None = None
        with _in_our_words():
            self._db = self._connect()
            try:
                self._prepare()
                self._reader = self._connect()
            except BaseException:
                self._db.close()
                raise
            self._reader.execute("PRAGMA query_only=ON")

    def __repr__(self) -> str:
        """Tell where it is and whether a change is under way."""
        state = "writing" if self._writer is not None else "idle"
        return f"<{type(self).__name__} {self.root} {state}>"

    def _connect(self) -> sqlite3.Connection:
        database.make_file(self.root / "catalog.db")
        db = sqlite3.connect(self.root / "catalog.db", timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        # FULL: a save that was acknowledged survives a power cut.
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA foreign_keys=ON")
        return db

    def _prepare(self) -> None:
        (mode,) = self._db.execute("PRAGMA journal_mode").fetchone()
        (found,) = self._db.execute("PRAGMA user_version").fetchone()
        if mode == "wal" and found == VERSION:
            return
        # SQLite does not wait for another process while it changes the journal mode: the first ones queue
        # here.
        lock = os.open(self.root / "catalog.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._migrate()
        finally:
            os.close(lock)

    def _migrate(self) -> None:
        with self.transaction() as db:
            (found,) = db.execute("PRAGMA user_version").fetchone()
            if found > VERSION:
                message = f"{self.root} is of a newer artifactfs (format {found}, this one knows {VERSION})"
                raise errors.ConfigError(message)
            if found == 0:
                for statement in SCHEMA.split(";"):
                    if statement.strip():
                        db.execute(statement)
                db.execute(f"PRAGMA user_version={VERSION}")

    def close(self) -> None:
        """Close the database."""
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run a change as one transaction; inside another one of this thread, as a part of it.

        Raises:
            TimedOut: another process did not let go of the store.
            NoLocalSpace, CorruptContent, Unavailable: the disk said no.
        """
        with self._write_lock, _in_our_words():
            if self._db.in_transaction:
                yield self._db
                return
            self._db.execute("BEGIN IMMEDIATE")
            self._writer = threading.get_ident()
            try:
                with wal_index.unharmed():
                    yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # Some errors, a full disk for one, have rolled back already.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._writer = None

    def revision(self) -> int:
        """Return a number that is another one after any change, whoever made it; of use in this process alone."""
        # SQLite counts what other connections than the asking one have committed, and this one only reads.
        with _in_our_words(), self._read_lock:
            return int(self._reader.execute("PRAGMA data_version").fetchone()[0])

    def _all(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Return all rows; inside this thread's transaction, as it has left them."""
        with _in_our_words():
            if self._writer == threading.get_ident():
                return self._db.execute(sql, values).fetchall()
            with self._read_lock:
                return self._reader.execute(sql, values).fetchall()
