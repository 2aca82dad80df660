"""Opening the databases of a cache directory.

Rules of this file: what is there is kept. A version is brought to the next by its migration; what a newer artifactfs
wrote, and what is damaged, is set aside and begun anew, since losing a cache loses time and never data.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

# Another mount's transaction on the same database lasts milliseconds.
BUSY_S = 10.0


class _NewerError(sqlite3.DatabaseError):
    """A version of artifactfs that is not known yet wrote the database."""


def open_database(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    """Return a connection to a database at the newest version, made if missing.

    ``migrations[n]`` are the statements that bring version n to n + 1; version 0 is an empty file. Several processes
    may open the same one at once.

    Raises:
        sqlite3.OperationalError: it is locked, or there is no disk: nothing says that it is damaged.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        return _open(path, migrations)
    except _NewerError:
        _set_aside(path, "newer")
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        _set_aside(path, f"broken-{time.time_ns()}")
    return _open(path, migrations)


def open_memory(migrations: Sequence[str]) -> sqlite3.Connection:
    """Return a connection to a new database in memory, at the newest version."""
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    _migrate(db, migrations)
    return db


def _set_aside(path: Path, mark: str) -> None:
    path.replace(path.with_suffix(f".{mark}"))
    # The log would be replayed into the new database.
    for part in ("-wal", "-shm"):
        path.with_name(path.name + part).unlink(missing_ok=True)


def _open(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        # NORMAL: a power cut may lose the last facts, never corrupts; they are learnt again.
        db.execute("PRAGMA synchronous=NORMAL")
        if _version(db) != len(migrations):
            _migrate(db, migrations)
    except BaseException:
        db.close()
        raise
    return db


def _version(db: sqlite3.Connection) -> int:
    found: int = db.execute("PRAGMA user_version").fetchone()[0]
    return found


def _must_be_known(version: int, migrations: Sequence[str]) -> None:
    if version > len(migrations):
        message = f"version {version}, of a newer artifactfs"
        raise _NewerError(message)


def _migrate(db: sqlite3.Connection, migrations: Sequence[str]) -> None:
    """Bring a database to the newest version, all or nothing; the version is read again behind the lock."""
    db.execute("BEGIN IMMEDIATE")
    try:
        version = _version(db)
        _must_be_known(version, migrations)
        for migration in migrations[version:]:
            for statement in filter(str.strip, migration.split(";")):
                db.execute(statement)
        db.execute(f"PRAGMA user_version={len(migrations)}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise
