"""What has been learnt and stays true: settled sizes, pointers, archive indexes, first-seen times, providers' memories.

Rules of this file: one SQLite database in the cache directory; losing it loses time, never data, and a disk that takes
no more makes no read fail. A row that is not what was written is not known. Calls are short and synchronous; only
archive indexes are large, and their callers go through a thread. Sources are told apart by a fingerprint of service,
address and account, so that a source pointed elsewhere never meets facts of the old place.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cachetools import LRUCache

from artifactfs.content.database import is_right, sum_of
from artifactfs.content.lasting import Lasting
from artifactfs.content.metadata import Metadata

# SQLite's own default limit on the number of host parameters was 999 for years; stay below it.
CHUNK = 500
LAST = "\U0010ffff"
# Pointers kept in memory, 200 bytes each: a warm open asks for one, and a query costs 15 us.
POINTERS = 16_384
# Indexes of archives that are kept, in bytes: one of 2,000 files takes 94 kB (measured), so 2,800 versions of such
# trees. Every version of a tree may be an archive; the one used least lately goes, and is read anew if it is wanted.
INDEX_BYTES = 256 * 1024 * 1024

# What brings version n of the database to n + 1 stands at n; what was released is never changed, only added to.
MIGRATIONS = (
    """
CREATE TABLE size (key TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE pointer (
    key TEXT PRIMARY KEY, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL,
    checked_at REAL NOT NULL,      -- when the service last gave these bytes, seconds since the epoch
    changed_ns INTEGER NOT NULL    -- when other bytes than before were seen first, 0 if never
) WITHOUT ROWID;
CREATE TABLE archive_index (key TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE first_seen (key TEXT PRIMARY KEY, ns INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE memory (
    source TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (source, key)
) WITHOUT ROWID;
""",
    # Checksums of the rows; what was kept without one has none.
    """
ALTER TABLE size ADD COLUMN sum INTEGER;
ALTER TABLE pointer ADD COLUMN sum INTEGER;
ALTER TABLE archive_index ADD COLUMN sum INTEGER;
ALTER TABLE first_seen ADD COLUMN sum INTEGER;
ALTER TABLE memory ADD COLUMN sum INTEGER;
""",
    """
CREATE TABLE archive_use (
    key TEXT PRIMARY KEY,
    at REAL NOT NULL               -- seconds since the epoch
) WITHOUT ROWID;
""",
    # The checksums of rows with bytes in them are other ones from here on.
    "UPDATE archive_index SET sum=NULL",
)
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class PointerFact:
    """What a pointer's bytes were when last read: SHA-256 in hex, bytes, when checked (s), when changed (ns)."""

    sha256: str
    size: int
    checked_at: float
    changed_ns: int


class Facts:
    """The database of one cache directory; several mounts may share it."""

    def __init__(self, path: Path) -> None:
        """Open it, made if missing; one that cannot be read is set aside and begun anew."""
        self._db = Lasting(path, MIGRATIONS, oldest={"first_seen"})
        self._pointers: LRUCache[str, PointerFact] = LRUCache(POINTERS)
        self._others: object = None
        self._used: dict[str, float] = {}
        self.metadata = Metadata(path.with_name("metadata.db"))

    def close(self) -> None:
        """Close the database, and that of the listings."""
        self.metadata.close()
        if self._used:
            self._keep_uses()
        self._db.close()

    def _rows(self, sql: str, *values: object) -> Iterator[Row]:
        """Return rows without the checksum that they end in; those that it does not fit are left out."""
        return (row[:-1] for row in self._db.rows(sql, *values) if is_right(row))

    def _one(self, sql: str, *values: object) -> Row | None:
        # An index that is damaged leads to the row of another key, which is right in itself.
        rows = [row for row in self._rows(sql, *values) if row[: len(values)] == values]
        return rows[-1] if rows else None

    def sizes(self, keys: Iterable[str]) -> dict[str, int]:
        """Return the settled sizes among these contents."""
        wanted = list(keys)
        found: dict[str, int] = {}
        for begin in range(0, len(wanted), CHUNK):
            part = wanted[begin : begin + CHUNK]
            marks = ",".join("?" * len(part))
            query = f"SELECT key, bytes, sum FROM size WHERE key IN ({marks})"  # noqa: S608 - question marks
            found.update(self._rows(query, *part))
        return found

    def put_size(self, key: str, size: int) -> None:
        """Keep the size of a content in bytes."""
        self._db.do("INSERT OR REPLACE INTO size VALUES (?, ?, ?)", _signed(key, size))

    def forget_size(self, key: str) -> None:
        """Forget the size of a content that was replaced."""
        self._db.do("DELETE FROM size WHERE key=?", (key,))

    def pointer(self, key: str) -> PointerFact | None:
        """Return what a pointer's bytes were when last read; from memory, unless another mount has written since."""
        with self._db.lock:
            others = self._db.version()
            if others != self._others:
                self._others = others
                self._pointers.clear()
            known = self._pointers.get(key)
            if known is None:
                row = self._one("SELECT * FROM pointer WHERE key=?", key)
                known = PointerFact(*row[1:]) if row else None
                if known is not None:
                    self._pointers[key] = known
            return known

    def put_pointer(self, key: str, sha256: str, size: int, *, changed_ns: int | None = None) -> PointerFact:
        """Keep what a pointer's bytes are now, and since when if that is known; return the whole fact."""
        old = self.pointer(key)
        changed = 0 if old is None else old.changed_ns if old.sha256 == sha256 else time.time_ns()
        if changed_ns is not None:
            changed = changed_ns
        fact = PointerFact(sha256, size, time.time(), changed)
        self._db.do(
            "INSERT OR REPLACE INTO pointer VALUES (?, ?, ?, ?, ?, ?)",
            _signed(key, fact.sha256, fact.size, fact.checked_at, fact.changed_ns),
        )  # fmt: skip
        with self._db.lock:
            self._pointers[key] = fact
        return fact

    def archive_index(self, key: str) -> bytes | None:
        """Return the stored index of an archive."""
        row = self._one("SELECT * FROM archive_index WHERE key=?", key)
        if row is None:
            return None
        self._used[key] = time.time()
        return bytes(row[1])

    def put_archive_index(self, key: str, data: bytes) -> None:
        """Keep the index of an archive that was read to its end and verified; those used least lately make room."""
        with self._db.lock:
            self._db.do("INSERT OR REPLACE INTO archive_index VALUES (?, ?, ?)", _signed(key, data))
            self._used[key] = time.time()
            self._keep_uses()
            old = [(other,) for other in self._indexes_to_drop() if other != key]
            for table in ("archive_index", "archive_use") if old else ():
                self._db.do(f"DELETE FROM {table} WHERE key=?", *old)  # noqa: S608 - a word of ours

    def _keep_uses(self) -> None:
        """Write down when indexes were used: not when they are, which is on the event loop."""
        with self._db.lock:
            used, self._used = self._used, {}
            self._db.do("INSERT OR REPLACE INTO archive_use VALUES (?, ?)", *used.items())

    def _indexes_to_drop(self) -> Iterator[str]:
        # Those of which nobody wrote down when they were used come first.
        known: dict[str, int] = dict(
            self._db.rows(
                # What a flipped bit has made nothing has no length.
                "SELECT key, coalesce(length(data), 0) FROM archive_index LEFT JOIN archive_use USING (key) ORDER BY at"
            )
        )
        too_many = sum(known.values()) - INDEX_BYTES
        for key, size in known.items():
            if too_many > 0:
                yield key
                too_many -= size

    def first_seen(self, keys: Iterable[str]) -> dict[str, int]:
        """Return when each was seen first, in ns; those not seen before are seen now."""
        wanted, now = list(keys), time.time_ns()
        found: dict[str, int] = {}
        # Some at a time: others need the database between them.
        for begin in range(0, len(wanted), CHUNK):
            found.update(self._first_seen(wanted[begin : begin + CHUNK], now))
        return found

    def _first_seen(self, wanted: list[str], now: int) -> dict[str, int]:
        marks = ",".join("?" * len(wanted))
        query = f"SELECT key, ns, sum FROM first_seen WHERE key IN ({marks})"  # noqa: S608 - question marks
        with self._db.lock:
            found: dict[str, int] = dict(self._rows(query, *wanted))
            # Another mount may be quicker; what is there and is not right is replaced.
            for otherwise in ("IGNORE", "REPLACE"):
                if not (new := [_signed(key, now) for key in wanted if key not in found]):
                    break
                self._db.do(f"INSERT OR {otherwise} INTO first_seen VALUES (?, ?, ?)", *new)  # noqa: S608 - a word of ours
                found = dict(self._rows(query, *wanted))
            return dict.fromkeys(wanted, now) | found

    def memory(self, source: str) -> SourceMemory:
        """Return the memory of one source, by its fingerprint."""
        return SourceMemory(self, source)

    def remember(self, source: str, key: str, value: object) -> None:
        """Keep a provider's fact."""
        self._db.do("INSERT OR REPLACE INTO memory VALUES (?, ?, ?, ?)", _signed(source, key, json.dumps(value)))

    def recall(self, source: str, key: str) -> Any | None:  # noqa: ANN401 - JSON
        """Return a provider's fact."""
        row = self._one("SELECT * FROM memory WHERE source=? AND key=?", source, key)
        return json.loads(row[2]) if row else None

    def recall_all(self, source: str, prefix: str) -> list[tuple[str, Any]]:
        """Return a provider's facts whose key begins with ``prefix``."""
        # A range of the primary key: the memory of one source may hold 100,000 facts. No text stands above U+10FFFF.
        query = "SELECT * FROM memory WHERE source=? AND key>=? AND key<?"
        rows: dict[str, str] = {key: value for _, key, value in self._rows(query, source, prefix, prefix + LAST)}
        return [(key, json.loads(value)) for key, value in rows.items()]


def _signed(*values: object) -> Row:
    return (*values, sum_of(*values))


class SourceMemory:
    """The ``providers.base.Memory`` of one source."""

    def __init__(self, facts: Facts, source: str) -> None:
        """Keep this source's facts apart from all others."""
        self._facts = facts
        self._source = source

    def get(self, key: str) -> Any | None:  # noqa: ANN401 - JSON
        """Return what was put, or None."""
        return self._facts.recall(self._source, key)

    def put(self, key: str, value: object) -> None:
        """Keep it; the newest wins."""
        self._facts.remember(self._source, key, value)

    def items(self, prefix: str) -> list[tuple[str, Any]]:
        """Return all facts whose key begins so."""
        return self._facts.recall_all(self._source, prefix)
