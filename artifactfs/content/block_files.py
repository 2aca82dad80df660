"""The bytes of blobs on disk: one sparse file each, in 256 directories, and the descriptors that stay open.

Rules of this file: nothing here knows what is true; the database does, and a checksum decides. A descriptor that stays
open is used and closed under the lock only, so that its number never means another file; reads that wait for the disk
open the file for themselves. Whatever somebody has put in a file's place, opening it neither waits (a pipe) nor leads
elsewhere (a link).
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections import OrderedDict
from pathlib import Path

from artifactfs import private
from artifactfs.content.extents import BLOCK

# Files that stay open between two blocks. Each costs a descriptor, and the disk space of a file evicted meanwhile.
OPEN_FILES = 64
DIRECTORIES = 256
READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
WRITE = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
# What opening says of a directory, of a link, and of a pipe that nobody reads.
NO_FILE = frozenset({errno.EISDIR, errno.ELOOP, errno.ENXIO})


class BlockFiles:
    """The files below one directory, each named by hexadecimal digits."""

    def __init__(self, directory: Path) -> None:
        """Use a directory; subdirectories are made as they are needed."""
        self.directory = directory
        self._prefix = os.fspath(directory)
        self._lock = threading.Lock()
        self._open: OrderedDict[str, int] = OrderedDict()
        # Reads go here and are copied once: a fresh buffer would have to be cleared first.
        self._scratch = memoryview(bytearray(BLOCK))

    def path(self, file: str) -> str:
        """Return where a file lies; a string, since making a ``Path`` takes longer than opening the file."""
        return f"{self._prefix}/{file[:2]}/{file[2:]}"

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            while self._open:
                os.close(self._open.popitem()[1])

    def read_cached(self, file: str, number: int, length: int) -> bytes | None:
        """Return a block that the kernel has in memory; None if it is not, or nobody can tell. Never waits."""
        if length > BLOCK:
            return None
        with self._lock:
            try:
                fd = self._descriptor(file)
                view = self._scratch[:length]
                if os.preadv(fd, [view], number * BLOCK, os.RWF_NOWAIT) != length:
                    return None
                return bytes(view)
            except OSError:
                return None

    def _descriptor(self, file: str) -> int:
        fd = self._open.get(file)
        if fd is None:
            fd = os.open(self.path(file), READ)
            self._open[file] = fd
            if len(self._open) > OPEN_FILES:
                os.close(self._open.popitem(last=False)[1])
        else:
            self._open.move_to_end(file)
        return fd

    def read(self, file: str, number: int, length: int) -> bytes:
        """Return a block, as long as the file has it; waits for the disk."""
        try:
            fd = os.open(self.path(file), READ)
        except OSError:
            return b""
        try:
            return os.pread(fd, length, number * BLOCK)
        except OSError:
            return b""
        finally:
            os.close(fd)

    def write(self, file: str, blocks: list[tuple[int, bytes]]) -> None:
        """Write blocks at their places; waits for the disk.

        Raises:
            OSError: the disk did not take them all.
        """
        fd = self._opened(self.path(file))
        try:
            for number, data in blocks:
                done = os.pwrite(fd, data, number * BLOCK)
                while done < len(data):
                    done += os.pwrite(fd, memoryview(data)[done:], number * BLOCK + done)
        finally:
            os.close(fd)

    @staticmethod
    def _opened(path: str) -> int:
        try:
            return os.open(path, WRITE, 0o600)
        except FileNotFoundError:
            private.directory(Path(path).parent)
        except OSError as error:
            if error.errno not in NO_FILE:
                raise
            _clear(path)
        return os.open(path, WRITE, 0o600)

    def remove(self, files: list[str]) -> None:
        """Remove files; what is gone already is no error."""
        for file in files:
            self.let_go(file)
            _clear(self.path(file))

    def let_go(self, file: str) -> None:
        """Close a file that stays open, if it does."""
        with self._lock:
            fd = self._open.pop(file, None)
            if fd is not None:
                os.close(fd)

    def let_go_of_removed(self) -> None:
        """Close files that another process removed: while they are open, their space is not free."""
        with self._lock:
            for file, fd in list(self._open.items()):
                if os.fstat(fd).st_nlink == 0:
                    os.close(self._open.pop(file))

    def in_directory(self, at: int) -> list[str]:
        """Return the files of one of the ``DIRECTORIES``."""
        prefix = f"{at:02x}"
        try:
            return [prefix + name for name in os.listdir(self.directory / prefix)]
        except OSError:
            return []

    def free_bytes(self) -> int:
        """Return how much the disk has left for us.

        Raises:
            OSError: the directory is not there and cannot be made.
        """
        private.directory(self.directory)
        disk = os.statvfs(self.directory)
        return disk.f_bavail * disk.f_frsize


def _clear(path: str) -> None:
    """Remove a file, or what somebody has put in its place, as far as that can be done."""
    try:
        os.unlink(path)
    except IsADirectoryError:
        shutil.rmtree(path, ignore_errors=True)
    except OSError:
        pass  # it is gone, or its disk takes nothing
