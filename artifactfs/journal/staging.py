"""Drafts: local files that hold what is being written.

Rules of this file: a draft lives in the state directory, never in the cache. ``seal`` makes content and intent
durable; ``flush`` and ``fsync`` return after it. The file of a draft is deleted only after its record, and a record
only after its save is durable elsewhere, or when the user gave it up. All drafts of one mount together are bounded.
Blocking calls: a caller on the event loop goes through a thread for ``seal``, ``clone``, and for ``unlink`` and
``discard`` of what is sealed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from artifactfs import private
from artifactfs.database import NewerError
from artifactfs.journal.drafts import SPARSE, Room, Staged, copy_content
from artifactfs.journal.marks import is_marked, path_of, set_mark
from artifactfs.journal.records import Journal, Record, sync_directory
from artifactfs.journal.states import State

__all__ = ["SPARSE", "Staged", "Staging"]

log = logging.getLogger(__name__)

DATABASE = "journal.db"
REMOVED = "somebody has removed what is kept until it is published"


class Staging:
    """The drafts and records of one mount, in a directory of their own that is locked as long as the mount lives.

    Attributes:
        root: the directory.
        journal: the records.
    """

    def __init__(self, root: Path, max_bytes: int | None = None) -> None:
        """Use ``root``, made if missing, for the owner alone; its drafts may hold ``max_bytes`` together.

        Raises:
            BlockingIOError: another mount is using it.
            NewerError: a newer artifactfs wrote its records.
        """
        self.root = root
        private.directory(root)
        self._lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            drafts = self._drafts()
            self.journal = Journal(root / DATABASE, max(drafts, default=0))
        except BaseException:
            os.close(self._lock)
            raise
        self._unread: set[int] = set()
        self._room = Room(max_bytes, sum(path.stat().st_size for path in drafts.values()))

    def __repr__(self) -> str:
        """Tell where the drafts are."""
        return f"<Staging {self.root}>"

    @classmethod
    def fresh(cls, base: Path, max_bytes: int | None = None) -> Staging:
        """Return a new directory of drafts below ``base``."""
        with _only_one(base):
            return cls(Path(tempfile.mkdtemp(prefix="mount-", dir=base)), max_bytes)

    @classmethod
    def abandoned(cls, base: Path, max_bytes: int | None = None) -> list[Staging]:
        """Return the directories below ``base`` whose mounts have ended, each locked for the caller.

        One whose records cannot be read now, or were written by a newer artifactfs, is logged and left as it is.
        """
        # A directory that a starting mount has made but not locked yet must not look abandoned.
        with _only_one(base):
            return cls._ended(base, max_bytes)

    @classmethod
    @contextlib.contextmanager
    def for_a_look(cls, base: Path) -> Iterator[list[Staging]]:
        """Have the directories below ``base`` whose mounts have ended; a mount that begins now waits for the end."""
        with _only_one(base):
            found = cls._ended(base, None)
            try:
                yield found
            finally:
                for staging in found:
                    staging.close()

    @classmethod
    def _ended(cls, base: Path, max_bytes: int | None) -> list[Staging]:
        found = []
        for root in sorted(base.glob("mount-*")):
            try:
                found.append(cls(root, max_bytes))
            except BlockingIOError:
                pass
            except (NewerError, OSError) as error:
                log.warning("unfinished saves stay in %s, which cannot be taken up: %s", root, error)
        return found

    @property
    def used_bytes(self) -> int:
        """Return what the drafts hold together, also those that an earlier mount left."""
        return self._room.used

    @property
    def lost(self) -> list[Path]:
        """Return the drafts whose records are damaged, or gone with a database; oldest first. Nothing deletes them."""
        known = set(self.journal.numbers()) - self.journal.unread - self._unread
        return [path for number, path in sorted(self._drafts().items()) if number not in known and self._is_kept(path)]

    def close(self) -> None:
        """Give the directory up; it goes if no record is left in it, with the drafts that nobody was told are kept."""
        if self._lock < 0:
            return
        if self.journal.numbers():
            self.journal.close()
        else:
            self._drop_unrecorded()
            self.journal.delete()
            with contextlib.suppress(OSError):  # what was put aside is in it
                self.root.rmdir()
        os.close(self._lock)
        self._lock = -1

    def next_number(self) -> int:
        """Return a number that no draft or record of this directory has."""
        return self.journal.next_number()

    def open(self) -> Staged:
        """Begin an empty draft.

        Raises:
            OSError: the disk says no; or the directory was removed, and what it held is not saved elsewhere yet.
        """
        if not _is_open_at(self._lock, self.root):
            self._begin_anew()
        number = self.next_number()
        path = path_of(self.root, number)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        return Staged(path, fd, number, new=True, room=self._room)

    def clone(self, staged: Staged) -> Staged:
        """Begin a draft with the content of another, which shares its blocks where the file system can do so.

        Raises:
            OSError: there is no room, or the disk says no; the other draft is as it was. Or that one is closed.
        """
        with staged.lock:
            if staged.closed:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            if staged.broken is not None:
                raise OSError(staged.broken.errno, staged.broken.strerror)
            twin = self.open()
            try:
                twin.charge(staged.size)
                copy_content(staged.fd, twin.fd)
                twin.settle()
            except BaseException:
                self.discard(twin)
                raise
            twin.executable, twin.mtime_ns, twin.uncopied = staged.executable, staged.mtime_ns, staged.uncopied
            twin.dirty = twin.touched = True
            return twin

    def seal(self, staged: Staged, record: Record, *others: Record) -> None:
        """Make content and intent durable, at once with other records.

        Nothing happens to a draft that is closed or deleted. The record has the number of the draft.

        Raises:
            OSError: the disk says no, now or at an earlier write.
        """
        with staged.lock:
            if staged.broken is not None:
                raise OSError(staged.broken.errno, staged.broken.strerror)
            if staged.closed or staged.deleted:
                return
            staged.dirty, size = False, staged.size  # now, not later: what is written meanwhile makes it dirty again
            try:
                staged.sync()
                if not staged.has_its_name:
                    # Nobody would find it again: that is told before it is acknowledged.
                    staged.broken = OSError(errno.EIO, f"{os.strerror(errno.EIO)}: {REMOVED}")
                    raise staged.broken
                if staged.new:
                    sync_directory(self.root)
                    staged.new = False
                record.executable, record.mtime_ns, record.size = staged.executable, staged.mtime_ns, size
                self.journal.put(record, *others)
                set_mark(staged.fd, marked=True)
                if staged.size < size:  # its writer has made it shorter meanwhile
                    set_mark(staged.fd, marked=False)
                staged.sealed, staged.sealed_size = True, size
            except OSError:
                staged.dirty = True
                raise

    def _begin_anew(self) -> None:
        """Make the directory again that somebody removed; there is nothing left in it that anybody waits for.

        Raises:
            OSError: there is; or the disk says no.
        """
        if self.journal.numbers():
            raise OSError(errno.EIO, f"{os.strerror(errno.EIO)}: {REMOVED}")
        with _only_one(self.root.parent):
            self.root.mkdir(mode=0o700, exist_ok=True)
            lock = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BaseException:
                os.close(lock)
                raise
        os.close(self._lock)
        self._lock = lock
        self.journal.delete()
        log.warning("%s was removed while it was in use, and is made again", self.root)

    def unlink(self, staged: Staged) -> None:
        """Delete the file of a draft and its record; while it is open it can still be read and written.

        Raises:
            OSError: the disk says no; then both are as they were.
        """
        with staged.lock:
            # The record first: without it the draft was never promised to anybody.
            self.journal.put(drop=[staged.number])
            staged.sealed = False
            staged.delete()

    def discard(self, staged: Staged) -> None:
        """Forget a draft whose content is safe elsewhere, or was never meant to be kept.

        Raises:
            OSError: the disk says no; then it is as it was.
        """
        self.unlink(staged)
        staged.close()

    def left_over(self) -> list[tuple[Record, Staged | None]]:
        """Return what an earlier mount did not finish, in order of number, with its drafts opened.

        States are as they were recorded: PUBLISHING is a try that the end of the process cut off. What is published,
        and drafts without a record, are deleted; so this is for a directory that nobody uses yet.
        """
        records = self.journal.load()
        done = [record.number for record in records if record.state is State.PUBLISHED]
        self.journal.put(drop=done)
        self._drop_unrecorded()
        self._unread = set()
        drafts, found = self._drafts(), list[tuple[Record, Staged | None]]()
        for record in records:
            if record.state is State.PUBLISHED:
                continue
            path = drafts.get(record.number)
            try:
                found.append((record, _reopened(path, record, self._room) if path else None))
            except OSError as error:
                self._unread.add(record.number)
                log.warning("a draft cannot be opened; it and its record stay: %s", error)
        return found

    def _drop_unrecorded(self) -> None:
        known = set(self.journal.numbers())
        for number, path in self._drafts().items():
            if number not in known and not self._is_kept(path):
                self._room.give(path.stat().st_size)
                path.unlink()

    def _drafts(self) -> dict[int, Path]:
        return {int(path.stem): path for path in self.root.glob("*.draft") if path.stem.isdecimal()}

    def _is_kept(self, path: Path) -> bool:
        """Tell whether somebody was told that a draft is kept, or may have been, as far as the draft says so."""
        return int(path.stem) <= self.journal.lost_up_to or is_marked(path)


def _reopened(path: Path, record: Record, room: Room) -> Staged:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    found = os.fstat(fd)
    size = found.st_size
    if not stat.S_ISREG(found.st_mode) or (size < record.size and is_marked(path)):
        os.close(fd)
        raise OSError(errno.EIO, f"it has {size} of the {record.size} bytes that were acknowledged", str(path))
    if 0 <= record.size < size:
        # Of what was being written when the process ended there may be a part.
        os.ftruncate(fd, record.size)
        room.give(size - record.size)
    staged = Staged(path, fd, record.number, touched=True, sealed=True, room=room)
    staged.executable, staged.mtime_ns, staged.charged = record.executable, record.mtime_ns, staged.size
    staged.sealed_size = record.size
    return staged


def _is_open_at(fd: int, path: Path) -> bool:
    try:
        found, mine = os.stat(path), os.fstat(fd)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)


@contextlib.contextmanager
def _only_one(base: Path) -> Iterator[None]:
    """Keep other mounts from making or taking directories of drafts while the block runs."""
    private.directory(base)
    fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
