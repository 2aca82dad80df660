"""What becomes of this process when somebody cuts short the file through which SQLite shares memory.

SQLite in WAL mode maps its index of the log (``*.db-shm``) into memory, for all processes that use one database. Who
truncates that file ends each of them with SIGBUS at its next look. Here the look is repeated instead.

Rules of this file: a fault is mended where it happens: the file gets its length again, and its header becomes zeros, by
which SQLite knows that it must be made anew from the log (https://sqlite.org/walformat.html, 2.2). A transaction that
was under way may have read what is not so, and fails (``unharmed``). Any other fault of this kind ends the process, as
it would without this.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Two copies of the index's own header, and what is known of readers and of how far the log was copied back.
HEADER_BYTES = 136
SUFFIXES = ("-shm", "-shm (deleted)")
# Other threads may meet the same fault, and come here when all is mended: so many times in a row it is no other fault.
# A mount has fewer threads; a fault of another kind, which comes again at once, ends the process within a second.
MAX_STRAYS = 100


class _State:
    losses = 0
    strays = 0
    lock = threading.Lock()
    """Who comes while another one mends must not look again before that is done."""
    handler: object = None
    """What C calls; it must live as long as the process."""


class LostIndexError(sqlite3.OperationalError):
    """A transaction that has read an index which was cut short; nothing of it is to be kept."""


@contextmanager
def unharmed() -> Iterator[None]:
    """Refuse what was read within the block, of any database, if an index was lost meanwhile.

    Raises:
        LostIndexError: one was.
    """
    before = _State.losses
    yield
    if _State.losses != before:
        message = "somebody has cut the index of a database's log short; it is made anew"
        raise LostIndexError(message)


def guard() -> None:
    """Have what is cut short mended from now on; where the C library cannot say so, nothing is done."""
    if _State.handler is not None:
        return
    try:
        libc = ctypes.CDLL(None)
        libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    except (OSError, AttributeError):
        return

    def look_again(number: int) -> None:
        """Run where the fault was, which is inside SQLite; what is not mended is met again, and ends the process."""
        is_mended = False
        try:
            with _State.lock:
                _State.strays = 0 if _mend() else _State.strays + 1
                is_mended = _State.strays <= MAX_STRAYS
        finally:
            if not is_mended:
                libc.signal(number, before)

    try:
        _State.handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(look_again)
    except (OSError, MemoryError):  # a hardened system makes no code at run time
        return
    before = libc.signal(signal.SIGBUS, ctypes.cast(_State.handler, ctypes.c_void_p))


def _mend() -> bool:
    """Give each index that is shorter than what is mapped of it its length again; return whether there was one."""
    found = False
    mapped = _mapped()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            number = int(name)
            there = os.fstat(number)
            needed = mapped.get(there.st_ino, 0)
            if there.st_size < needed and os.readlink(f"/proc/self/fd/{name}").endswith(SUFFIXES):
                os.ftruncate(number, needed)
                os.pwrite(number, bytes(HEADER_BYTES), 0)
                found = True
    if found:
        _State.losses += 1
    return found


def _mapped() -> dict[int, int]:
    """Return how many bytes are mapped of each file that can be an index, by inode: some disks name two devices."""
    found: dict[int, int] = {}
    with open("/proc/self/maps", "rb") as lines:
        for line in lines:
            words = line.split(None, 5)
            if len(words) < 6 or b"-shm" not in words[5]:  # noqa: PLR2004 - the sixth is the name
                continue
            begin, end = (int(part, 16) for part in words[0].split(b"-"))
            inode = int(words[4])
            found[inode] = max(found.get(inode, 0), int(words[2], 16) + end - begin)
    return found
