"""A database of a cache directory that goes on when its disk does not.

Rules of this file: whatever the disk does, who asks gets no error of it, only less. What cannot be written is kept in
memory for as long as the mount lives, and goes to the disk when that takes something again. A database that was
removed, or turns out to be damaged, is begun anew.
"""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from artifactfs import database, wal_index
from artifactfs.content.database import is_damage, open_database, open_memory, set_aside

log = logging.getLogger(__name__)

# How long a disk that took nothing is left alone, in seconds: each try may wait for it.
RETRY_S = 5.0
# The event loop asks, and nobody else is served while it waits for another process's transaction: a few milliseconds,
# or, where that process was stopped in its midst, for as long as it sleeps.
BUSY_S = 0.25
Row = tuple[Any, ...]
# What reading a database says whose bytes are not what they were.
DAMAGE = (sqlite3.Error, UnicodeError)
# What stands for what no SQLite text can hold: NUL and four hex digits. So NUL itself is one of them.
UNSTORABLE = re.compile("[\0\ud800-\udfff]")
ESCAPED = re.compile("\0([0-9a-f]{4})")


class Reopened:
    """A connection to what is at a path now; for one thread at a time."""

    def __init__(self, path: Path, migrations: Sequence[str], busy_s: float = database.BUSY_S) -> None:
        """Open nothing yet; ``busy_s`` is how long to wait for another process, in seconds."""
        self._path, self._migrations, self._busy_s = path, migrations, busy_s
        self._db: sqlite3.Connection | None = None
        self._opened: tuple[object, ...] = ()
        self._retry_at = 0.0

    def get(self) -> sqlite3.Connection:
        """Return the connection, opened anew if somebody removed what was open.

        Raises:
            sqlite3.OperationalError: there is no disk, it takes nothing, or somebody else holds the database.
        """
        if self._db is not None and self._identity() != self._opened:
            log.info("%s was removed and is begun anew", self._path.name)
            self.close()
        if self._db is None:
            self._db = self._open()
            self._opened = self._identity()
        return self._db

    def _open(self) -> sqlite3.Connection:
        if time.monotonic() < self._retry_at:
            raise sqlite3.OperationalError("the disk took nothing a moment ago")
        try:
            return open_database(self._path, self._migrations, self._busy_s)
        except (sqlite3.Error, OSError) as error:
            self._retry_at = time.monotonic() + RETRY_S
            raise sqlite3.OperationalError(str(error)) from error

    def _identity(self) -> tuple[object, ...]:
        """Return what tells whether the database at the path is the one that is open."""
        try:
            found = os.stat(self._path)
        except OSError:
            return ()
        return found.st_dev, found.st_ino

    def suspect(self, error: Exception) -> None:
        """Put a database aside that an error calls damaged; one that is only locked or full is none."""
        if is_damage(error):
            self.close()
            with suppress(OSError):  # a disk that takes nothing: what is there cannot be opened, and that is no error
                set_aside(self._path, f"broken-{time.time_ns()}")

    def close(self) -> None:
        """Close what is open; it may be opened again."""
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None


class Lasting:
    """Rows that are kept on disk, or in memory where there is none; for any thread."""

    def __init__(self, path: Path, migrations: Sequence[str], oldest: Collection[str] = ()) -> None:
        """Open the database, made if missing; one that cannot be read is set aside and begun anew.

        Of the tables ``oldest`` a row on disk stays as it is when one of memory has its key.
        """
        self.lock = threading.RLock()
        self._migrations, self._oldest = migrations, oldest
        self._file = Reopened(path, migrations, BUSY_S)
        self._busy_until = 0.0
        self._spill: sqlite3.Connection | None = None
        with self.lock:
            try:
                self._file.get()
            except sqlite3.Error as error:
                self._go_on_in_memory(error)

    def close(self) -> None:
        """Close the database; what is in memory only goes to the disk, if that takes it now."""
        with self.lock:
            if self._spill is not None:
                self._busy_until = 0.0
                with suppress(*DAMAGE):
                    self._write()
            self._file.close()
            if self._spill is not None:
                self._spill.close()

    def rows(self, sql: str, *values: object) -> list[Row]:
        """Return what the database has, and behind it what it could not take: the later row of a key is the newer."""
        wanted = _storable(values)
        with self.lock:
            try:
                with wal_index.unharmed():
                    found = self._file.get().execute(sql, wanted).fetchall()
            except DAMAGE as error:
                self._file.suspect(error)
                found = []
            if self._spill is not None:
                found += self._spill.execute(sql, wanted).fetchall()
        return [original(row) for row in found]

    def version(self) -> object:
        """Return what is another value after every change by somebody else."""
        with self.lock:
            try:
                db = self._file.get()
                return id(db), db.execute("PRAGMA data_version").fetchone()[0]
            except DAMAGE as error:
                self._file.suspect(error)
                return None

    def do(self, sql: str, *given: Sequence[object]) -> None:
        """Write rows, all or none."""
        rows = [_storable(row) for row in given]
        with self.lock:
            try:
                self._write(sql, rows)
            except DAMAGE as error:
                self._file.suspect(error)
                self._go_on_in_memory(error)
            if self._spill is not None:
                self._spill.executemany(sql, rows)

    def _write(self, sql: str = "", rows: Sequence[Sequence[object]] = ()) -> None:
        if time.monotonic() < self._busy_until:
            raise sqlite3.OperationalError("another process held it a moment ago")
        db = self._file.get()
        try:
            self._begin(db)
            with wal_index.unharmed():
                if self._spill is not None:
                    self._bring_back(db, self._spill)
                if rows:
                    db.executemany(sql, rows)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
            raise
        if self._spill is not None:
            log.info("what was kept in memory only is on disk")
            self._spill.close()
            self._spill = None

    def _begin(self, db: sqlite3.Connection) -> None:
        """Begin to write; who holds the database for long is not waited for by each row."""
        try:
            db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            self._busy_until = time.monotonic() + RETRY_S
            raise

    def _bring_back(self, db: sqlite3.Connection, spill: sqlite3.Connection) -> None:
        """Copy what the disk did not take when it was new."""
        for (table,) in spill.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall():
            rows = spill.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608 - of our own migrations
            for row in rows[:1]:
                marks, otherwise = ",".join("?" * len(row)), "IGNORE" if table in self._oldest else "REPLACE"
                db.executemany(f"INSERT OR {otherwise} INTO {table} VALUES ({marks})", rows)  # noqa: S608 - as above

    def _go_on_in_memory(self, error: Exception) -> None:
        if self._spill is None:
            # Another process lets go of it, or ends; a disk does not mend itself.
            is_held = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
            level = logging.INFO if is_held else logging.WARNING
            log.log(level, "what is learnt is kept in memory only: %s", error)
            self._spill = open_memory(self._migrations)


def _storable(row: Sequence[object]) -> Row:
    """Return a row as SQLite takes it: ids of services are among its texts, and JSON can carry lone surrogates."""
    return tuple(UNSTORABLE.sub(_escaped, value) if isinstance(value, str) else value for value in row)


def _escaped(match: re.Match[str]) -> str:
    return f"\0{ord(match[0]):04x}"


def original(row: Row) -> Row:
    """Return a row with the texts that it was given, whatever SQLite takes for text."""
    return tuple(
        ESCAPED.sub(lambda match: chr(int(match[1], 16)), value) if isinstance(value, str) and "\0" in value else value
        for value in row
    )
