"""SQLite databases that belong to this program alone, and how they come from version to version.

Rules of this file: a version is brought to the next by its migration, all or nothing. What to do with a database that
is damaged, or that a newer artifactfs wrote, is its owner's business: some can be learnt again, some cannot.
"""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from artifactfs import private, wal_index

# Another process's transaction on the same database lasts milliseconds.
BUSY_S = 10.0


class NewerError(sqlite3.DatabaseError):
    """A version of artifactfs that is not known yet wrote the database."""


def connect(path: Path, migrations: Sequence[str], *pragmas: str, busy_s: float = BUSY_S) -> sqlite3.Connection:
    """Return a connection to a database at the newest version, made if missing; for any thread, one at a time.

    ``migrations[n]`` are the statements that bring version n to n + 1; version 0 is an empty file. Several processes
    may open the same one at once, unless ``pragmas`` (before WAL mode is entered) say otherwise; ``busy_s`` is how long
    one waits for another, in seconds. The file is the owner's alone.

    Raises:
        NewerError: it is of a version that is not known here.
        sqlite3.OperationalError: it is locked, or there is no disk: nothing says that it is damaged.
        sqlite3.DatabaseError: it is damaged.
    """
    make_file(path)
    db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        with as_damage():
            for pragma in pragmas:
                db.execute(f"PRAGMA {pragma}")
            db.execute("PRAGMA journal_mode=WAL")
            if _version(db) != len(migrations):
                migrate(db, migrations)
    except BaseException:
        db.close()
        raise
    return db


@contextlib.contextmanager
def as_damage() -> Iterator[None]:
    """Call it damage when SQLite's own words for it cannot be read: they repeat what is damaged."""
    try:
        yield
    except UnicodeError as error:
        raise sqlite3.DatabaseError(f"its bytes are no text: {error}") from error


def make_file(path: Path) -> None:
    """See that there is a file for a database, that others cannot read it, and that cutting it short ends nobody.

    Raises:
        sqlite3.OperationalError: there is no disk, or something of another user is in its place.
    """
    wal_index.guard()
    try:
        private.database(path)
    except OSError as error:
        failure = sqlite3.OperationalError(f"unable to open database file: {error}")
        is_full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        failure.sqlite_errorcode = sqlite3.SQLITE_FULL if is_full else sqlite3.SQLITE_CANTOPEN
        raise failure from error


def migrate(db: sqlite3.Connection, migrations: Sequence[str]) -> None:
    """Bring a database to the newest version, all or nothing; the version is read again behind the lock.

    Raises:
        NewerError: it is of a version that is not known here.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        version = _version(db)
        if version > len(migrations):
            message = f"version {version}, of a newer artifactfs"
            raise NewerError(message)  # noqa: TRY301 - the rollback is for this too
        for migration in migrations[version:]:
            for statement in filter(str.strip, migration.split(";")):
                db.execute(statement)
        db.execute(f"PRAGMA user_version={len(migrations)}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _version(db: sqlite3.Connection) -> int:
    found: int = db.execute("PRAGMA user_version").fetchone()[0]
    return found
