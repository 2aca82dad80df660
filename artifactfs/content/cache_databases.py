"""Looking through what a cache keeps beside its blocks: facts.db and metadata.db; also while mounts use them.

Rules of this file: only a repair takes anything away. Rows that are not what was written go, and a database that cannot
be read is put aside, as a mount does with what it meets; a row that a mount has written anew meanwhile stays, and so
does a database that it has begun anew.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactfs import database, errors, wal_index
from artifactfs.content import facts, metadata
from artifactfs.content.database import (
    NO_FILE,
    damage,
    is_damage,
    is_other,
    is_right,
    make_way,
    open_memory,
    read_any_text,
    set_aside,
    with_log,
)
from artifactfs.content.lasting import original

# Of each table whose rows have a checksum, the columns of its key, which come first.
FACTS = {
    "size": ("key",), "pointer": ("key",), "archive_index": ("key",), "first_seen": ("key",),
    "memory": ("source", "key"),
}  # fmt: skip
LISTING = "SELECT id, source, ref, digest, fetched_at, ttl_s, complete, note, sum FROM listing"
VERSIONS = "SELECT rowid, data, source, artifact, fetched_at, complete, current, digest, sum FROM versions"
# Another listing that gets the number would have them.
LOST_PARTS = "SELECT DISTINCT listing FROM part WHERE listing NOT IN (SELECT id FROM listing)"
DATABASES = {"facts.db": facts.MIGRATIONS, "metadata.db": metadata.MIGRATIONS}
# A look is begun anew if somebody cuts the index of the log short meanwhile.
LOOKS = 3
NEWER = "newer"
Row = tuple[Any, ...]
Bad = tuple[str, Row]
"""A row that is not what was written: its table, and the values that it is found by."""


@dataclass(slots=True)
class Looked:
    """What is wrong with a database: why it cannot be read, or how many of its rows are not what was written.

    ``mark`` is for its name if it is put aside.
    """

    why: str | None = None
    rows: int = 0
    mark: str = "broken"


def look_through(path: Path, *, repair: bool) -> Looked:
    """Look through facts or listings; what is not there is well, and is not made.

    Raises:
        Unavailable: the database does not answer.
    """
    if not os.path.lexists(path):
        return Looked()
    before, in_the_way = _identity(path), any(map(is_other, with_log(path)))
    if in_the_way:
        if not repair:
            return Looked(NO_FILE)
        make_way(path)
    try:
        found = _look(path) if path.is_file() else Looked()
        if repair:
            _mend(path, found, before)
    except (sqlite3.Error, OSError) as error:
        raise errors.Unavailable(f"{path.name} of the cache does not answer: {error}") from error
    if in_the_way:
        found.why = found.why or NO_FILE
    return found


def _look(path: Path) -> Looked:
    for _ in range(LOOKS - 1):
        with contextlib.suppress(wal_index.LostIndexError):
            return _look_once(path)
    return _look_once(path)


def _look_once(path: Path) -> Looked:
    found = damage(path, "integrity_check")
    if found is not None:
        return Looked(found)
    try:
        with _opened(path) as db, wal_index.unharmed():
            db.execute("BEGIN")  # all is read as it was at one time
            if not _has_its_tables(db, path.name):
                return Looked("its tables have other names or columns")
            return Looked(rows=sum(1 for _ in _bad_rows(db, path.name)))
    except database.NewerError as error:
        return Looked(str(error), mark=NEWER)
    except (sqlite3.Error, UnicodeError) as error:
        if not is_damage(error):
            raise
        return Looked(str(error))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(database.connect(path, DATABASES[path.name], "synchronous=NORMAL")) as db:
        yield read_any_text(db)


def _has_its_tables(db: sqlite3.Connection, name: str) -> bool:
    """Tell whether the tables are described as they were made: the description is bytes of the file, too."""
    with contextlib.closing(open_memory(DATABASES[name])) as made:
        tables = [table for (table,) in made.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        asked = [f"PRAGMA table_info({table})" for table in tables]
        return all(db.execute(one).fetchall() == made.execute(one).fetchall() for one in asked)


def _bad_rows(db: sqlite3.Connection, name: str) -> Iterator[Bad]:
    return _bad_facts(db) if name == "facts.db" else _bad_listings(db)


def _bad_facts(db: sqlite3.Connection) -> Iterator[Bad]:
    for table, key in FACTS.items():
        # As bytes: a flipped bit can have made a text none.
        raw = ", ".join(f"CAST({column} AS BLOB)" for column in key)
        for row in db.execute(f"SELECT {raw}, * FROM {table}"):  # noqa: S608 - names of ours
            if not is_right(original(row[len(key) :])):
                yield table, row[: len(key)]


def _bad_listings(db: sqlite3.Connection) -> Iterator[Bad]:
    for row in db.execute(LISTING):
        parts = [part for (part,) in db.execute("SELECT data FROM part WHERE listing=? ORDER BY at", row[:1])]
        if not is_right(row[1:]) or not _is_digest(row[3], parts):
            yield "listing", row[:1]
    for row in db.execute(VERSIONS):
        if not is_right(row[2:]) or not (row[-2] is None or _is_digest(row[-2], [row[1]])):
            yield "versions", row[:1]
    for row in db.execute(LOST_PARTS):
        yield "part", row


def _is_digest(digest: object, parts: list[object]) -> bool:
    data = [part for part in parts if isinstance(part, bytes)]
    return len(data) == len(parts) and metadata.digest_of(data) == digest


def _mend(path: Path, found: Looked, before: tuple[int, int] | None) -> None:
    if found.why is None:
        try:
            if found.rows:
                _forget_bad(path)
            return
        except (sqlite3.Error, UnicodeError) as error:
            if not is_damage(error):
                raise
    if _identity(path) == before:
        set_aside(path, found.mark if found.mark == NEWER else f"{found.mark}-{time.time_ns()}")


def _forget_bad(path: Path) -> None:
    """Delete the rows that are not what was written, and are so while nobody else writes."""
    with _opened(path) as db:
        db.execute("BEGIN IMMEDIATE")
        with wal_index.unharmed():  # closing takes back what was not committed
            for bad in list(_bad_rows(db, path.name)):
                _forget(db, *bad)
        db.execute("COMMIT")


def _forget(db: sqlite3.Connection, table: str, key: Row) -> None:
    if table in FACTS:
        where = " AND ".join(f"{column}=CAST(? AS TEXT)" for column in FACTS[table])
        if db.execute(f"DELETE FROM {table} WHERE {where}", key).rowcount == 0:  # noqa: S608 - names of ours
            # A flipped bit has made the key something else than a text, or no index leads to it.
            where = " AND ".join(f"CAST({column} AS BLOB)=?" for column in FACTS[table])
            db.execute(f"DELETE FROM {table} WHERE {where}", key)  # noqa: S608 - as above
        return
    if table == "versions":
        db.execute("DELETE FROM versions WHERE rowid=?", key)
        return
    db.execute("DELETE FROM listing WHERE id=?", key)
    db.execute("DELETE FROM part WHERE listing=?", key)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        there = path.lstat()
    except FileNotFoundError:
        return None
    return there.st_dev, there.st_ino
