"""One draft: an open local file, what has been done to it, and the room that it takes.

Rules of this file: a draft that could not take all of a write is broken until its writer begins anew, and is never
saved. Growth beyond the room that the drafts of a mount have together is refused before a byte is written.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from artifactfs.journal.marks import is_marked, set_mark
from artifactfs.providers.base import Draft

CHUNK = 1 << 20
# Growth by more than this at once is compared with the free disk space: a file made long by `truncate -s 1T` takes no
# room here, but all of it where it is saved. Less is left to the disk itself, which says so byte by byte.
SPARSE = 64 << 20
# _IOW(0x94, 9, int) of linux/fs.h: share the blocks of another file.
FICLONE = 0x40049409


class Room:
    """How many bytes the drafts of a mount may hold together, and hold; for any thread."""

    def __init__(self, limit: int | None = None, used: int = 0) -> None:
        """Allow ``limit`` bytes, of which ``used`` are gone already; None is no limit."""
        self._limit, self.used = limit, used
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Take bytes.

        Raises:
            OSError: ENOSPC, there are not so many; nothing is taken.
        """
        with self._lock:
            if self._limit is not None and self.used + count > self._limit:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.used += count

    def give(self, count: int) -> None:
        """Give bytes back; less than nothing takes them, whatever the limit says."""
        with self._lock:
            self.used -= count


@dataclass(slots=True, eq=False)
class Staged:
    """One draft: an open local file and what has been done to it.

    Attributes:
        path: the file.
        fd: open for reading and writing until the draft is closed.
        number: distinguishes the drafts and records of one directory.
        new: its directory entry is not durable yet.
        dirty: bytes or size changed since the last ``seal``.
        touched: bytes or size changed at all; what was never touched is not saved.
        sealed: a durable record names it.
        sealed_size: how long it was then, in bytes; -1: it never was.
        writers: open handles that may write.
        executable, mtime_ns: as the writer set them.
        uncopied: bytes of the file it stands for that were left out because the writer begins by dropping them.
        broken: the write that failed: what is in the draft is not what the writer meant.
        room: what it takes its bytes from.
        charged: bytes that it has taken.
        deleted: the file has no name any more.
    """

    path: Path
    fd: int
    number: int
    new: bool = False
    dirty: bool = False
    touched: bool = False
    sealed: bool = False
    sealed_size: int = -1
    writers: int = 0
    executable: bool = False
    mtime_ns: int = 0
    uncopied: int = 0
    broken: OSError | None = None
    room: Room = field(default_factory=Room)
    charged: int = 0
    deleted: bool = False
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
            OSError: the disk took only a part of them, or nothing; or there is no room for them.
        """
        if not data:
            return 0
        view, done = memoryview(data), 0
        with self._breaking():
            if offset > self.size:
                self._demand_disk(offset)
            self.charge(offset + len(data))
            while done < len(data):
                done += os.pwrite(self.fd, view[done:], offset + done)
        self._changed()
        return done

    def truncate(self, size: int) -> None:
        """Set the length in bytes; the same length is no change. A writer that begins anew is forgiven what failed.

        Raises:
            OSError: there is no room for it.
        """
        if size == self.size and not self.uncopied and not self.broken:
            return
        with self._breaking():
            self._demand_disk(size)
            self.charge(size)
            if size < self.size:
                # That it is shorter than it was acknowledged to be is no damage. And after: it may be sealed just now.
                set_mark(self.fd, marked=False)
                os.ftruncate(self.fd, size)
                set_mark(self.fd, marked=False)
            else:
                os.ftruncate(self.fd, size)
        self.settle()
        self.uncopied = 0
        if size == 0:
            self.broken = None
        self._changed()

    def charge(self, end: int) -> None:
        """Take room for a length of ``end`` bytes.

        Raises:
            OSError: there is none; nothing is taken.
        """
        if end > self.charged:
            self.room.take(end - self.charged)
            self.charged = end

    def settle(self) -> None:
        """Give back the room that is not used."""
        size = self.size
        self.room.give(self.charged - size)
        self.charged = size

    @contextlib.contextmanager
    def _breaking(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.broken = error
            self.settle()
            raise

    def _demand_disk(self, end: int) -> None:
        growth = end - self.size
        if growth > SPARSE:
            disk = os.fstatvfs(self.fd)
            if growth > disk.f_bavail * disk.f_frsize:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _changed(self) -> None:
        self.dirty = self.touched = True
        self.mtime_ns = time.time_ns()

    def sync(self) -> None:
        """Make the content durable.

        Raises:
            OSError: the disk says no, for good: the draft is broken.
        """
        try:
            os.fsync(self.fd)
        except OSError as error:
            # The kernel has dropped the pages that it could not write; a second fsync would say that all is well.
            self.broken = error
            raise

    @property
    def has_its_name(self) -> bool:
        """Tell whether the file at ``path`` is this one still; somebody may have removed it."""
        try:
            found, mine = os.stat(self.path), os.fstat(self.fd)
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)

    def draft(self, base_sha256: str | None = None) -> Draft:
        """Return what is to be saved, hashed; ``base_sha256`` is of the content that the writer had seen.

        It was acknowledged: what somebody has removed meanwhile is saved from the open file.

        Raises:
            OSError: EIO, it is shorter than it was acknowledged to be, and no writer has made it so.
        """
        digest, offset = hashlib.sha256(), 0
        while chunk := os.pread(self.fd, CHUNK, offset):
            digest.update(chunk)
            offset += len(chunk)
        if offset < self.sealed_size and not self.dirty and is_marked(Path(f"/proc/self/fd/{self.fd}")):
            raise OSError(
                errno.EIO, f"{offset} of the {self.sealed_size} bytes that were saved are left in {self.path}"
            )
        mtime_ns = self.mtime_ns or time.time_ns()
        path = self.path if self.has_its_name else Path(f"/proc/self/fd/{self.fd}")
        return Draft(path, offset, digest.hexdigest(), self.executable, mtime_ns, base_sha256)

    def delete(self) -> None:
        """Take the file's name away; its room comes back when it is closed."""
        self.path.unlink(missing_ok=True)
        if self.closed and not self.deleted:
            self.room.give(self.charged)
        self.deleted = True

    def close(self) -> None:
        """Close the file; it can be read no more."""
        with self.lock:
            if not self.closed:
                self.closed = True
                os.close(self.fd)
                if self.deleted:
                    self.room.give(self.charged)


def copy_content(source: int, target: int) -> None:
    """Copy a file into an empty one: by sharing blocks, within the kernel, or byte by byte, as the system has it."""
    try:
        fcntl.ioctl(target, FICLONE, source)
        return
    except OSError:
        pass  # most file systems cannot; whatever else it was, the copy meets it again
    offset, length = 0, os.fstat(source).st_size
    while offset < length:
        offset += _copy_some(source, target, offset, length - offset)


def _copy_some(source: int, target: int, offset: int, count: int) -> int:
    with contextlib.suppress(OSError):  # EXDEV, EOPNOTSUPP, EINVAL: not on this file system
        if done := os.copy_file_range(source, target, count, offset, offset):
            return done
    view, done = memoryview(os.pread(source, CHUNK, offset)), 0
    if not view:
        raise OSError(errno.EIO, "the draft became shorter while it was copied")
    while done < len(view):
        done += os.pwrite(target, view[done:], offset + done)
    return done
