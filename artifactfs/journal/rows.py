"""A record of a change as a row of the journal's table, and whether a row is still what was written.

Rules of this file: SQLite has no checksums, so each row has one. A row whose checksum is another one is no record:
nothing is published under a name that a damaged disk made up.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
import zlib
from dataclasses import dataclass, field
from typing import Any

from artifactfs.journal.states import State

log = logging.getLogger(__name__)

MIGRATIONS = (
    """
    CREATE TABLE changes (
        number INTEGER PRIMARY KEY,
        state TEXT NOT NULL,
        what TEXT NOT NULL,
        tries INTEGER NOT NULL,
        error TEXT NOT NULL,
        facts TEXT NOT NULL,
        since_ns INTEGER NOT NULL,
        executable INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE TABLE used (id INTEGER PRIMARY KEY CHECK (id = 1), highest INTEGER NOT NULL) STRICT",
    "ALTER TABLE changes ADD COLUMN size INTEGER NOT NULL DEFAULT -1",
    "ALTER TABLE changes ADD COLUMN sum INTEGER NOT NULL DEFAULT -1",
)
# What a row without a checksum has in its place: earlier versions wrote none.
NO_SUM = -1
COLUMNS = "number, state, what, tries, error, facts, since_ns, executable, mtime_ns, size"
LOAD = f"SELECT {COLUMNS}, sum FROM changes ORDER BY number"  # noqa: S608 - our own columns
# A size below 0 is "as it was".
PUT = f"""
    INSERT INTO changes ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (number) DO UPDATE SET
        state = excluded.state, what = excluded.what, tries = excluded.tries, error = excluded.error,
        facts = excluded.facts, since_ns = excluded.since_ns, executable = excluded.executable,
        mtime_ns = excluded.mtime_ns, size = iif(excluded.size < 0, changes.size, excluded.size)
"""  # noqa: S608 - our own columns
# Here the size is known.
SIGN = f"UPDATE changes SET sum = sum_of_row({COLUMNS}) WHERE number = ?"  # noqa: S608 - our own columns


@dataclass(slots=True)
class Record:
    """One change that was acknowledged.

    Attributes:
        number: of the change, and of its draft where it has one; their order is that of the changes.
        what: the intent, JSON values.
        state: where it stands.
        tries: how many have failed, or as the publisher counts them.
        error: of the last try, for people.
        facts: what earlier tries have noted.
        since_ns: when it was first acknowledged, since the epoch.
        executable, mtime_ns: of its draft; set by ``Staging.seal``.
        size: of its draft, in bytes, when that was made durable; what is behind was never acknowledged. -1: as it is
            recorded already, or nobody knows.
    """

    number: int
    what: dict[str, Any]
    state: State = State.SEALED
    tries: int = 0
    error: str = ""
    facts: dict[str, str] = field(default_factory=dict)
    since_ns: int = field(default_factory=time.time_ns)
    executable: bool = False
    mtime_ns: int = 0
    size: int = -1


def prepare(db: sqlite3.Connection) -> None:
    """Give a connection the function that ``SIGN`` calls."""
    db.create_function("sum_of_row", -1, _sum, deterministic=True)


def _sum(*values: object) -> int:
    """Return the CRC-32 of the values of ``COLUMNS``; text as SQLite gives it, in either form."""
    parts = [value if isinstance(value, bytes) else str(value).encode() for value in values]
    return zlib.crc32(b"\0".join(parts))


def plain(value: object) -> object:
    """Return a value as SQLite takes it, of one that was read with text as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def row_of(record: Record) -> tuple[object, ...]:
    """Return what ``PUT`` takes."""
    # All text is JSON of ASCII: names and messages may hold bytes that are no UTF-8, which SQLite refuses.
    return (
        record.number, record.state.value, json.dumps(record.what), record.tries, json.dumps(record.error),
        json.dumps(record.facts), record.since_ns, int(record.executable), record.mtime_ns, record.size,
    )  # fmt: skip


def record_of(row: tuple[Any, ...]) -> Record | None:
    """Return the record in a row of ``LOAD``, read with text as bytes; None, logged, if it makes no sense."""
    *values, total = row
    number, state, what, tries, error, facts, since_ns, *of_draft = values
    try:
        if total not in {NO_SUM, _sum(*values)}:
            raise ValueError("it is not what was written")  # noqa: TRY301 - as for the other ways to make no sense
        known = {str(key): str(value) for key, value in json.loads(facts).items()}
        intent = json.loads(what)
        if not isinstance(intent, dict):
            raise TypeError("its intent is no object")  # noqa: TRY301 - as for the other ways to make no sense
        text = str(json.loads(error))
        executable, mtime_ns, size = of_draft
        return Record(
            number, intent, State(state.decode()), tries, text, known, since_ns, bool(executable), mtime_ns, size
        )
    except (ValueError, TypeError, AttributeError) as cause:
        log.warning("the record of change %d cannot be read and is left as it is: %s", number, cause)
        return None
