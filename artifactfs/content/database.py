"""Opening the databases of a cache directory.

Rules of this file: what is there is kept. A version is brought to the next by its migration; what a newer artifactfs
wrote, and what is damaged, is set aside and begun anew, since losing a cache loses time and never data. SQLite has no
checksums: rows have one of their own, which is of their keys too, so that no flipped bit makes a name mean another
content.
"""

from __future__ import annotations

import contextlib
import sqlite3
import stat
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

from artifactfs import database, private, wal_index
from artifactfs.database import BUSY_S, NewerError, connect, migrate

# A power cut may lose the last facts, never corrupts; they are learnt again.
_SYNC = "synchronous=NORMAL"
NO_FILE = "something that is not a file is in its place"


def open_database(path: Path, migrations: Sequence[str], busy_s: float = BUSY_S) -> sqlite3.Connection:
    """Return a connection to a database at the newest version, made if missing.

    ``migrations[n]`` are the statements that bring version n to n + 1; version 0 is an empty file. Several processes
    may open the same one at once; ``busy_s`` is how long one waits for another, in seconds.

    Raises:
        sqlite3.OperationalError: it is locked, or there is no disk: nothing says that it is damaged.
    """
    private.directory(path.parent, close=False)
    make_way(path)
    try:
        return read_any_text(connect(path, migrations, _SYNC, busy_s=busy_s))
    except NewerError:
        set_aside(path, "newer")
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        set_aside(path, f"broken-{time.time_ns()}")
    return read_any_text(connect(path, migrations, _SYNC, busy_s=busy_s))


def read_any_text(db: sqlite3.Connection) -> sqlite3.Connection:
    """Let text that a flipped bit has made none be read as other text, so that it fails nothing but its row."""
    db.text_factory = _any_text
    return db


def _any_text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def open_memory(migrations: Sequence[str]) -> sqlite3.Connection:
    """Return a connection to a new database in memory, at the newest version."""
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    migrate(db, migrations)
    return db


def is_other(path: Path) -> bool:
    """Tell whether something that is no file is in the place of one: a directory, a pipe, a link."""
    try:
        return not stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def with_log(path: Path) -> list[Path]:
    """Return the files of a database: itself, its log, and the index of that."""
    return [path.with_name(path.name + part) for part in ("", "-wal", "-shm")]


def make_way(path: Path) -> None:
    """Put aside what is in the place of a database, or of its log, and is no file: nobody else would take it away."""
    for one in with_log(path):
        if is_other(one):
            with contextlib.suppress(OSError):  # opening will tell
                one.replace(one.with_suffix(f".broken-{time.time_ns()}"))


def make_file(path: Path) -> None:
    """See that there is a file for a database, whatever was in its place; raises as ``database.make_file``."""
    make_way(path)
    database.make_file(path)


def set_aside(path: Path, mark: str) -> None:
    """Keep a database for whoever wants to look, under another name.

    Raises:
        OSError: the disk says no, or somebody was faster.
    """
    path.replace(path.with_suffix(f".{mark}"))
    # The log would be replayed into the new database.
    for part in ("-wal", "-shm"):
        path.with_name(path.name + part).unlink(missing_ok=True)


def damage(path: Path, check: str = "quick_check") -> str | None:
    """Return what is wrong with a database, if it is damaged; ``check`` is SQLite's word for how closely to look."""
    if is_other(path):
        return NO_FILE
    wal_index.guard()
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY_S)) as db, wal_index.unharmed():
            found: str = read_any_text(db).execute(f"PRAGMA {check}(1)").fetchone()[0]
    except UnicodeError as error:
        return str(error)
    except sqlite3.OperationalError:
        return None  # locked, or no disk: nothing says that it is damaged
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if found == "ok" else found


def is_damage(error: Exception) -> bool:
    """Tell whether an error says that a database is damaged; one that is only locked or full is not."""
    if isinstance(error, sqlite3.OperationalError):
        # A name in its own description of its tables is another one, or its version.
        return any(words in str(error) for words in ("no such ", "has no column", "duplicate column", "already exists"))
    if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
        return False
    return isinstance(error, sqlite3.DatabaseError | UnicodeError)


def sum_of(*values: object) -> int:
    """Return the checksum of a row's other values, keys included, as they go to SQLite and come back.

    Bytes are told from the text that has the same: one bit of a row says which of the two they are.
    """
    parts = (
        b"\1" + value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass") for value in values
    )
    return zlib.crc32(b"\0".join(parts))


def is_right(row: Sequence[object]) -> bool:
    """Tell whether a row that ends in its checksum is what was written; rows of earlier versions have none."""
    *values, total = row
    return total is None or total == sum_of(*values)
