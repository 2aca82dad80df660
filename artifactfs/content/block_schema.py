"""The tables of the block cache, and how those of earlier versions become these; `docs/cache.md` explains them."""

from __future__ import annotations

import hashlib
import sqlite3

VERSION = 3

SCHEMA = (
    """CREATE TABLE blob (
        id INTEGER PRIMARY KEY AUTOINCREMENT, file TEXT NOT NULL UNIQUE, bytes INTEGER NOT NULL DEFAULT 0,
        used REAL NOT NULL, rank INTEGER NOT NULL DEFAULT 0
    )""",
    "CREATE INDEX blob_order ON blob(rank, used)",
    "CREATE TABLE name (key TEXT PRIMARY KEY, blob INTEGER NOT NULL, sum INTEGER) WITHOUT ROWID",
    "CREATE INDEX name_blob ON name(blob)",
    "CREATE TABLE pin (key TEXT PRIMARY KEY, rank INTEGER NOT NULL) WITHOUT ROWID",
    """CREATE TABLE block (
        blob INTEGER NOT NULL, number INTEGER NOT NULL, length INTEGER NOT NULL, crc INTEGER NOT NULL,
        PRIMARY KEY (blob, number)
    ) WITHOUT ROWID""",
    # The sum of all blob.bytes: asked for before each batch, and a sum over 100,000 rows takes 10 ms.
    "CREATE TABLE total (bytes INTEGER NOT NULL)",
    "INSERT INTO total VALUES (0)",
)
TRIGGERS = (
    """CREATE TRIGGER block_added AFTER INSERT ON block BEGIN
        UPDATE blob SET bytes=bytes+NEW.length WHERE id=NEW.blob; UPDATE total SET bytes=bytes+NEW.length;
    END""",
    """CREATE TRIGGER block_gone AFTER DELETE ON block BEGIN
        UPDATE blob SET bytes=bytes-OLD.length WHERE id=OLD.blob; UPDATE total SET bytes=bytes-OLD.length;
    END""",
)


def migrate(db: sqlite3.Connection) -> bool:
    """Bring a database to this version, within a transaction; return False if nothing of it could be kept.

    The connection knows the function ``sum_of(key, blob)``.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version == VERSION:
        return True  # another mount was faster
    is_known = version in {1, 2}
    if is_known:
        if version == 1:
            _from_version_1(db)
        else:
            db.execute("ALTER TABLE name ADD COLUMN sum INTEGER")
        db.execute("UPDATE name SET sum=sum_of(key, blob)")
    else:
        tables = db.execute("SELECT name FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite_%'")
        for (table,) in tables.fetchall():
            db.execute(f'DROP TABLE "{table}"')
        for statement in SCHEMA + TRIGGERS:
            db.execute(statement)
    db.execute(f"PRAGMA user_version={VERSION}")
    return is_known


def _from_version_1(db: sqlite3.Connection) -> None:
    """Keep what version 1 cached: there a blob had one key, and its file's name was the key's SHA-256."""
    db.create_function("file_of", 1, lambda key: hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest())
    db.execute("ALTER TABLE blob RENAME TO old_blob")
    db.execute("ALTER TABLE block RENAME TO old_block")
    db.execute("DROP INDEX IF EXISTS blob_used")
    for statement in SCHEMA:
        db.execute(statement)
    db.execute("INSERT INTO blob (id, file, bytes, used) SELECT id, file_of(key), bytes, used FROM old_blob")
    db.execute("INSERT INTO name (key, blob) SELECT key, id FROM old_blob")
    db.execute("INSERT INTO block SELECT blob, number, length, crc FROM old_block")
    db.execute("UPDATE total SET bytes=(SELECT coalesce(sum(bytes), 0) FROM blob)")
    db.execute("DROP TABLE old_block")
    db.execute("DROP TABLE old_blob")
    for statement in TRIGGERS:
        db.execute(statement)
