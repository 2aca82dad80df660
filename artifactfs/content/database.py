"""Opening the databases of a cache directory.

Rules of this file: what is there is kept. A version is brought to the next by its migration; what a newer artifactfs
wrote, and what is damaged, is set aside and begun anew, since losing a cache loses time and never data.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from artifactfs import private
from artifactfs.database import NewerError, connect, migrate

# A power cut may lose the last facts, never corrupts; they are learnt again.
_SYNC = "synchronous=NORMAL"


def open_database(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    """Return a connection to a database at the newest version, made if missing.

    ``migrations[n]`` are the statements that bring version n to n + 1; version 0 is an empty file. Several processes
    may open the same one at once.

    Raises:
        sqlite3.OperationalError: it is locked, or there is no disk: nothing says that it is damaged.
    """
    private.directory(path.parent, close=False)
    try:
        return connect(path, migrations, _SYNC)
    except NewerError:
        set_aside(path, "newer")
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        set_aside(path, f"broken-{time.time_ns()}")
    return connect(path, migrations, _SYNC)


def open_memory(migrations: Sequence[str]) -> sqlite3.Connection:
    """Return a connection to a new database in memory, at the newest version."""
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    migrate(db, migrations)
    return db


def set_aside(path: Path, mark: str) -> None:
    """Keep a database for whoever wants to look, under another name.

    Raises:
        OSError: the disk says no, or somebody was faster.
    """
    path.replace(path.with_suffix(f".{mark}"))
    # The log would be replayed into the new database.
    for part in ("-wal", "-shm"):
        path.with_name(path.name + part).unlink(missing_ok=True)
