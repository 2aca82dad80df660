"""The floor that pyfuse3 sets: a directory of the local disk through the least program that can show it.

Run as ``python -m artifactfs.bench.passthrough SOURCE MOUNTPOINT``; read-only, sync system calls, no cache of its own,
long time-outs. Whatever a mount in Python does more than this, it does above this.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pyfuse3
import trio

LONG_S = 365 * 24 * 3600.0


class Operations(pyfuse3.Operations):
    """Names of a directory, by inode number."""

    def __init__(self, root: str) -> None:
        """Show ``root``."""
        super().__init__()
        self._paths = {pyfuse3.ROOT_INODE: root}
        self._listings: dict[int, list[tuple[bytes, pyfuse3.EntryAttributes]]] = {}

    def _attributes(self, path: str, inode: int | None = None) -> pyfuse3.EntryAttributes:
        found = os.lstat(path)
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode or found.st_ino
        self._paths.setdefault(entry.st_ino, path)
        entry.st_mode, entry.st_size, entry.st_nlink = found.st_mode, found.st_size, found.st_nlink
        entry.st_mtime_ns = entry.st_ctime_ns = entry.st_atime_ns = found.st_mtime_ns
        entry.entry_timeout = entry.attr_timeout = LONG_S
        entry.st_blocks, entry.st_blksize = found.st_blocks, found.st_blksize
        return entry

    async def getattr(self, inode: int, _ctx: object = None) -> pyfuse3.EntryAttributes:
        return self._attributes(self._paths[inode], inode)

    async def lookup(self, parent_inode: int, name: bytes, _ctx: object) -> pyfuse3.EntryAttributes:
        try:
            return self._attributes(os.path.join(self._paths[parent_inode], os.fsdecode(name)))
        except OSError as error:
            raise pyfuse3.FUSEError(error.errno or 5) from None

    async def opendir(self, inode: int, _ctx: object) -> pyfuse3.FileHandleT:
        base = self._paths[inode]
        rows = [(os.fsencode(name), self._attributes(os.path.join(base, name))) for name in os.listdir(base)]
        self._listings[inode] = rows
        return pyfuse3.FileHandleT(inode)

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        for at, (name, entry) in enumerate(self._listings[fh][start_id:], start_id + 1):
            if not pyfuse3.readdir_reply(token, name, entry, at):
                return

    async def open(self, inode: int, _flags: int, _ctx: object) -> pyfuse3.FileInfo:
        fd = os.open(self._paths[inode], os.O_RDONLY | os.O_CLOEXEC)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(fd), keep_cache=True)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        return os.pread(fh, size, off)

    async def release(self, fh: int) -> None:
        os.close(fh)


def main() -> None:
    """Mount until unmounted."""
    source, target = sys.argv[1:3]
    if not stat.S_ISDIR(os.stat(source).st_mode):
        raise NotADirectoryError(source)
    options = {*pyfuse3.default_options, "fsname=passthrough", "ro", "default_permissions"}
    pyfuse3.init(Operations(str(Path(source).resolve())), target, options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=False)


if __name__ == "__main__":
    main()
