"""System calls as tables of tests want them: one line each, descriptors closed whatever happens."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
# From linux/fs.h and linux/falloc.h.
NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4
KEEP_SIZE, PUNCH_HOLE = 1, 2


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def renameat2(old: Path, new: Path, flags: int) -> None:
    """Rename with flags."""
    _checked(_LIBC.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), ctypes.c_uint(flags)))


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Allocate without what the C library would do instead."""
    _checked(_LIBC.fallocate(fd, mode, ctypes.c_longlong(offset), ctypes.c_longlong(length)))


@contextlib.contextmanager
def opened(path: Path | str, flags: int, mode: int = 0o644) -> Iterator[int]:
    """Have a descriptor while the block runs."""
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def open_close(path: Path | str, flags: int, mode: int = 0o644) -> None:
    """Open and close."""
    with opened(path, flags, mode):
        pass


def put(path: Path, data: bytes, flags: int = 0) -> bytes:
    """Write to a file, made if missing; return what is in it then."""
    with opened(path, os.O_WRONLY | os.O_CREAT | flags) as fd:
        os.write(fd, data)
    return path.read_bytes()


def mapped(path: Path, prot: int, flags: int = os.O_RDWR) -> bytes:
    """Map a file and return what the map shows."""
    with opened(path, flags) as fd, mmap.mmap(fd, 0, prot=prot) as found:
        return bytes(found)
