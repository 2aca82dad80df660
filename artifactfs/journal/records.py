"""The records of changes that their services do not have yet, in one SQLite database.

Rules of this file: what ``put`` returns from is durable, and all of one call or nothing. What cannot be read is never
deleted: a damaged database is put aside with everything in it, a record that makes no sense is left where it is. Room
for the bookkeeping of what is recorded already is held back before anything new is, so that a full disk cannot keep
itself full. Every error of the disk is an ``OSError``.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from artifactfs.database import NewerError, as_damage, connect
from artifactfs.journal.marks import mark, unmark
from artifactfs.journal.rows import LOAD, MIGRATIONS, PUT, SIGN, Record, plain, prepare, record_of, row_of
from artifactfs.journal.write_ahead import is_damaged

__all__ = ["Journal", "Record", "sync_directory"]

log = logging.getLogger(__name__)

# 4 KiB each; some 30 commits of one record.
CHECKPOINT_PAGES = 64
# The directory is locked for one mount, so the database is its alone: no -shm file, which a full disk could not grow.
# FULL: a commit is on the disk before it returns.
PRAGMAS = ("locking_mode=EXCLUSIVE", "synchronous=FULL", f"wal_autocheckpoint={CHECKPOINT_PAGES}")
# Bytes held back on the disk. A log that is full on a full disk is copied into the database, which grows by its pages:
# those of one checkpoint, and those that came after one that had no room for as many. Then it overwrites itself.
RESERVE = 3 * CHECKPOINT_PAGES * 4096

# How every SQLite database begins.
_MAGIC = b"SQLite format 3\0"
_USED = "INSERT INTO used VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET highest = excluded.highest"
_ASIDE = re.compile(r".*\.damaged-(\d+)")


class Journal:
    """The records of one directory of drafts; for any thread, blocking.

    ``unread`` are the numbers of the records that made no sense when they were loaded last.

    Records speak of each other and of drafts by their numbers: one that was ever given to something is not given again
    as long as the database is there.
    """

    def __init__(self, path: Path, highest: int = 0) -> None:
        """Open the database at ``path``, which is made by the first ``put``; ``highest`` is that of any draft there.

        A damaged one is put aside as ``<path>.damaged-N``, where N is ``highest`` or the first free number above it.

        Raises:
            NewerError: a newer artifactfs wrote it; it is untouched.
            OSError: the disk says no.
        """
        self.path = path
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._known: set[int] = set()
        self._identity: tuple[int, int] | None = None
        self._holds_reserve = False
        self.unread: frozenset[int] = frozenset()
        self._counting = threading.Lock()
        self._highest, self._noted = highest, 0
        if path.exists():
            self._begin(highest)
        self._highest = max(self._highest, self._noted, self.lost_up_to, *self._known)

    def _begin(self, highest: int) -> None:
        path = self.path
        try:
            with _as_os_error():
                if not _is_database(path):
                    raise sqlite3.DatabaseError("it is no database")  # noqa: TRY301 - one way to be damaged
                if is_damaged(path.with_name(f"{path.name}-wal")):
                    # SQLite would leave out what is behind the damage, and say nothing.
                    raise sqlite3.DatabaseError("its log is damaged")  # noqa: TRY301 - another way
                self._connection()
        except NewerError:
            raise
        except sqlite3.DatabaseError as error:
            self._put_aside(highest, error)

    def __repr__(self) -> str:
        """Tell where the records are."""
        return f"<Journal {self.path}>"

    @property
    def lost_up_to(self) -> int:
        """Return the number up to which a draft without a record may have had one, in a damaged database; 0: none."""
        aside = (_ASIDE.fullmatch(path.name) for path in self.path.parent.glob(f"{self.path.name}.damaged-*"))
        return max((int(match[1]) for match in aside if match), default=0)

    def next_number(self) -> int:
        """Return a number that nothing in this directory has had. It does not wait for the disk."""
        with self._counting:
            self._highest += 1
            return self._highest

    def numbers(self) -> list[int]:
        """Return the numbers of all records, also of those that cannot be read."""
        with self._lock:
            return sorted(self._known)

    def load(self) -> list[Record]:
        """Return the records in order of number.

        One that makes no sense is left out, logged, and left where it is.

        Raises:
            OSError: the disk says no.
        """
        with self._lock, _as_os_error(damage_too=True):
            if (db := self._connection()) is None:
                return []
            rows = db.execute(LOAD).fetchall()
        records = [record for row in rows if (record := record_of(row)) is not None]
        self.unread = frozenset({row[0] for row in rows} - {record.number for record in records})
        return records

    def put(self, *records: Record, drop: Iterable[int] = ()) -> None:
        """Record changes and forget others, durably and at once.

        Raises:
            OSError: the disk says no, and nothing is changed.
        """
        rows, gone = [row_of(record) for record in records], set(drop)
        with self._lock:
            gone &= self._known
            if not rows and not gone:
                return
            numbers = {record.number for record in records}
            is_new = not numbers <= self._known
            self._follow(is_new=is_new)
            if is_new:
                self._hold_reserve()
            unmark(self.path.parent, gone)
            try:
                self._commit_somehow(rows, gone, is_new=is_new)
            except BaseException:
                mark(self.path.parent, gone)
                raise
            self._known |= numbers
            self._known -= gone

    def _commit_somehow(self, rows: list[tuple[object, ...]], gone: set[int], *, is_new: bool) -> None:
        try:
            self._commit(rows, gone)
        except OSError as error:
            if error.errno != errno.ENOSPC or is_new:
                raise
            self._make_room()
            self._commit(rows, gone)

    def close(self) -> None:
        """Close the database; it is opened again by the next ``put``."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def delete(self) -> None:
        """Close the database and delete its files, but for what was put aside."""
        self.close()
        self._holds_reserve = False
        self._reserve.unlink(missing_ok=True)
        for part in ("-wal", "-shm", "", ".new-wal", ".new-journal", ".new"):
            self.path.with_name(self.path.name + part).unlink(missing_ok=True)

    def _commit(self, rows: list[tuple[object, ...]], gone: set[int]) -> None:
        with _as_os_error(damage_too=True):
            db = self._connection() or self._create()
            db.execute("BEGIN IMMEDIATE")
            try:
                db.executemany(PUT, rows)
                db.executemany(SIGN, [row[:1] for row in rows])
                db.executemany("DELETE FROM changes WHERE number = ?", [(number,) for number in gone])
                if (highest := self._highest) > self._noted:
                    db.execute(_USED, (highest,))
                db.execute("COMMIT")
                self._noted = highest
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise

    def _connection(self) -> sqlite3.Connection | None:
        if self._db is None and self.path.exists():
            self._db = self._open()
        return self._db

    def _open(self) -> sqlite3.Connection:
        db = connect(self.path, MIGRATIONS, *PRAGMAS)
        try:
            prepare(db)
            db.text_factory = bytes  # text that is damaged is a matter of its record alone
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != b"ok":
                raise sqlite3.DatabaseError(verdict)  # noqa: TRY301 - the connection is closed for this too
            self._known = {number for (number,) in db.execute("SELECT number FROM changes")}
            self._noted = max((highest for (highest,) in db.execute("SELECT highest FROM used")), default=0)
            self._identity = _identity(self.path)
        except BaseException:
            db.close()
            raise
        return db

    def _follow(self, *, is_new: bool) -> None:
        """Go on in a new database, with all that was recorded, if somebody removed the one that is open.

        Raises:
            OSError: something new was to be recorded, and the directory is gone, too; or the disk says no.
        """
        if self._db is None or _identity(self.path) == self._identity:
            return
        if not self.path.parent.is_dir():
            if is_new:
                raise OSError(errno.EIO, f"{os.strerror(errno.EIO)} (journal: its directory was removed)")
            return  # what is recorded stands in memory, too, and is published from there
        with _as_os_error(damage_too=True):
            rows = [tuple(plain(value) for value in row) for row in self._db.execute(LOAD).fetchall()]
            self._db.close()
            self._db, self._holds_reserve = None, False
            db = self._create()
            db.execute("BEGIN IMMEDIATE")
            db.executemany(PUT, [row[:-1] for row in rows])
            # As they were: damage does not become right by being copied.
            db.executemany("UPDATE changes SET sum = ? WHERE number = ?", [(row[-1], row[0]) for row in rows])
            db.execute("COMMIT")
            self._known = {number for (number,) in db.execute("SELECT number FROM changes")}
        log.warning("the journal of changes was removed while it was in use, and is written again: %s", self.path)

    def _create(self) -> sqlite3.Connection:
        """Make the database: under its name there is never one without its table."""
        new = self.path.with_name(f"{self.path.name}.new")
        new.unlink(missing_ok=True)
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connect(new, MIGRATIONS, *PRAGMAS).close()
        new.rename(self.path)
        for directory in (self.path.parent, self.path.parent.parent):
            sync_directory(directory)
        self._db = self._open()
        return self._db

    def _put_aside(self, highest: int, error: sqlite3.DatabaseError) -> None:
        number = max(highest, 1)
        while (aside := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists():
            number += 1
        # The log first: with the damaged file in its place it would never be replayed into a new one.
        for part in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                self.path.with_name(self.path.name + part).rename(aside.with_name(aside.name + part))
        sync_directory(self.path.parent)
        log.warning("the journal of changes is damaged and put aside as %s; drafts stay beside it: %s", aside, error)

    @property
    def _reserve(self) -> Path:
        return self.path.with_name(f"{self.path.name}.reserve")

    def _make_room(self) -> None:
        """Give the reserve to the database, and its log back to its beginning, where it overwrites itself."""
        self._holds_reserve = False
        self._reserve.unlink(missing_ok=True)
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):  # then the reserve has to do
                self._db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def _hold_reserve(self) -> None:
        """Have the reserve; without it nothing new is recorded.

        Raises:
            OSError: there is no room.
        """
        if self._holds_reserve:
            return
        fd = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, RESERVE)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                self._reserve.unlink()
                raise
            # A file system that cannot hold room back: new changes are taken without.
        finally:
            os.close(fd)
        self._holds_reserve = True


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _as_os_error(*, damage_too: bool = False) -> Iterator[None]:
    """Turn SQLite's words for what the disk says into the system's; those for damage only on demand."""
    try:
        with as_damage():
            yield
    except sqlite3.OperationalError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte of an extended code is the code
        if code == sqlite3.SQLITE_ERROR and not damage_too:  # a table or a column that is not there
            raise sqlite3.DatabaseError(str(error)) from error
        number = errno.ENOSPC if code == sqlite3.SQLITE_FULL else errno.EIO
        raise OSError(number, f"{os.strerror(number)} (journal: {error})") from error
    except sqlite3.DatabaseError as error:
        if damage_too:
            raise OSError(errno.EIO, f"{os.strerror(errno.EIO)} (journal: {error})") from error
        raise


def _is_database(path: Path) -> bool:
    """Tell whether a file looks like one: SQLite would take an empty one for new, and delete its log."""
    if path.is_symlink() or not path.is_file():  # a pipe would be waited for
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
