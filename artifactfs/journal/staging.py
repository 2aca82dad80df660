"""Drafts: local files that hold what is being written.

Rules of this file: a draft lives in the state directory, never in the cache. ``seal`` makes content and intent
durable; ``flush`` and ``fsync`` return after it. The files of a draft are deleted only after its save is durable
elsewhere, or when nobody was told that it is kept. Blocking calls: a caller on the event loop goes through a thread
for ``seal``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from artifactfs.providers.base import Draft

log = logging.getLogger(__name__)

CHUNK = 1 << 20
# Growth by more than this at once is compared with the free disk space: a file made long by `truncate -s 1T` takes no
# room here, but all of it where it is saved. Less is left to the disk itself, which says so byte by byte.
SPARSE = 64 << 20


@dataclass(slots=True, eq=False)
class Staged:
    """One draft: an open local file and what has been done to it.

    Attributes:
        path: the file.
        fd: open for reading and writing until the draft is closed.
        number: distinguishes the drafts of one directory.
        dirty: bytes or size changed since the last ``seal``.
        touched: bytes or size changed at all; what was never touched is not saved.
        sealed: there is a durable record of it.
        writers: open handles that may write.
        intent: where it belongs, for recovery; JSON values.
        executable, mtime_ns: as the writer set them.
        uncopied: bytes of the file it stands for that were left out because the writer begins by dropping them.
        broken: the write that failed: what is in the draft is not what the writer meant.
    """

    path: Path
    fd: int
    number: int
    dirty: bool = False
    touched: bool = False
    sealed: bool = False
    writers: int = 0
    intent: dict[str, Any] = field(default_factory=dict)
    executable: bool = False
    mtime_ns: int = 0
    uncopied: int = 0
    broken: OSError | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    closed: bool = False

    @property
    def size(self) -> int:
        """Return the length of the draft in bytes."""
        return os.fstat(self.fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the draft."""
        return os.pread(self.fd, length, offset)

    def write(self, offset: int, data: bytes) -> int:
        """Put bytes; return how many.

        Raises:
            OSError: the disk took only a part of them, or nothing.
        """
        view, done = memoryview(data), 0
        with self._breaking():
            if offset > self.size:
                self._demand_room(offset)
            while done < len(data):
                done += os.pwrite(self.fd, view[done:], offset + done)
        self._changed()
        return done

    def truncate(self, size: int) -> None:
        """Set the length in bytes; the same length is no change. A writer that begins anew is forgiven what failed."""
        if size == self.size and not self.uncopied and not self.broken:
            return
        with self._breaking():
            self._demand_room(size)
            os.ftruncate(self.fd, size)
        self.uncopied = 0
        if size == 0:
            self.broken = None
        self._changed()

    @contextlib.contextmanager
    def _breaking(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.broken = error
            raise

    def _demand_room(self, end: int) -> None:
        growth = end - self.size
        if growth > SPARSE:
            disk = os.fstatvfs(self.fd)
            if growth > disk.f_bavail * disk.f_frsize:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _changed(self) -> None:
        self.dirty = self.touched = True
        self.mtime_ns = time.time_ns()

    def draft(self) -> Draft:
        """Return what is to be saved, hashed."""
        digest, offset = hashlib.sha256(), 0
        while chunk := os.pread(self.fd, CHUNK, offset):
            digest.update(chunk)
            offset += len(chunk)
        return Draft(self.path, offset, digest.hexdigest(), self.executable, self.mtime_ns or time.time_ns())

    def close(self) -> None:
        """Close the file; it can be read no more."""
        with self.lock:
            if not self.closed:
                self.closed = True
                os.close(self.fd)


class Staging:
    """The drafts of one mount, in a directory of their own that is locked as long as the mount lives."""

    def __init__(self, root: Path) -> None:
        """Use ``root``, made if missing, for the owner alone.

        Raises:
            BlockingIOError: another mount is using it.
        """
        self.root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise
        used = [int(path.stem) for path in root.glob("*.draft") if path.stem.isdecimal()]
        self._numbers = itertools.count(max(used, default=0) + 1)

    def __repr__(self) -> str:
        """Tell where the drafts are."""
        return f"<Staging {self.root}>"

    @classmethod
    def fresh(cls, base: Path) -> Staging:
        """Return a new directory of drafts below ``base``."""
        with _only_one(base):
            return cls(Path(tempfile.mkdtemp(prefix="mount-", dir=base)))

    @classmethod
    def abandoned(cls, base: Path) -> list[Staging]:
        """Return the directories below ``base`` whose mounts have ended, each locked for the caller."""
        found = []
        # A directory that a starting mount has made but not locked yet must not look abandoned.
        with _only_one(base):
            for root in sorted(base.glob("mount-*")):
                with contextlib.suppress(BlockingIOError):
                    found.append(cls(root))
        return found

    def close(self) -> None:
        """Give the directory up; it goes if nothing is left in it."""
        if self._lock < 0:
            return
        with contextlib.suppress(OSError):  # drafts are left in it: the next mount finds them
            self.root.rmdir()
        os.close(self._lock)
        self._lock = -1

    def open(self, intent: dict[str, Any]) -> Staged:
        """Begin an empty draft."""
        number = next(self._numbers)
        path = self.root / f"{number}.draft"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        return Staged(path, fd, number, intent=intent)

    def seal(self, staged: Staged) -> None:
        """Make content and intent durable.

        Raises:
            OSError: the disk says no, now or at an earlier write.
        """
        with staged.lock:
            if staged.broken is not None:
                raise OSError(staged.broken.errno, staged.broken.strerror)
            if staged.closed:
                return
            staged.dirty = False  # before the disk is asked: what is written meanwhile makes it dirty again
            try:
                self._sync_content(staged)
                self._write_record(staged)
            except OSError:
                staged.dirty = True
                raise

    @staticmethod
    def _sync_content(staged: Staged) -> None:
        try:
            os.fsync(staged.fd)
        except OSError as error:
            # The kernel has dropped the pages that it could not write; a second fsync would say that all is well.
            staged.broken = error
            raise

    def _write_record(self, staged: Staged) -> None:
        record = self._record(staged)
        temporary = record.with_suffix(".new")
        intent = {**staged.intent, "executable": staged.executable, "mtime_ns": staged.mtime_ns}
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(intent, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(record)
        fd = os.open(staged.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        staged.sealed = True

    def unlink(self, staged: Staged) -> None:
        """Delete the files of a draft; while it is open it can still be read and written."""
        with staged.lock:
            staged.sealed = False
            # The record first: without it the draft was never promised to anybody.
            self._record(staged).unlink(missing_ok=True)
            staged.path.unlink(missing_ok=True)

    def discard(self, staged: Staged) -> None:
        """Forget a draft whose content is safe elsewhere, or was never meant to be kept."""
        self.unlink(staged)
        staged.close()

    def left_over(self) -> list[Staged]:
        """Return the sealed drafts that an earlier mount did not finish, oldest first; drop the unsealed ones."""
        found = []
        for path in sorted(self.root.glob("*.draft"), key=lambda p: int(p.stem) if p.stem.isdecimal() else 0):
            record = path.with_suffix(".json")
            if not record.exists():
                path.unlink()
                continue
            try:
                intent = dict(json.loads(record.read_text(encoding="utf-8")))
            except ValueError:
                log.warning("the record of a draft cannot be read; its content stays in %s", path)
                continue
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            staged = Staged(path, fd, int(path.stem), touched=True, sealed=True, intent=intent)
            staged.executable = bool(intent.get("executable"))
            staged.mtime_ns = int(intent.get("mtime_ns") or 0)
            found.append(staged)
        for stray in (*self.root.glob("*.json"), *self.root.glob("*.new")):
            if not stray.with_suffix(".draft").exists() or stray.suffix == ".new":
                stray.unlink()
        return found

    @staticmethod
    def _record(staged: Staged) -> Path:
        return staged.path.with_suffix(".json")


@contextlib.contextmanager
def _only_one(base: Path) -> Iterator[None]:
    """Keep other mounts from making or taking directories of drafts while the block runs."""
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
