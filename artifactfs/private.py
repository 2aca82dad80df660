"""Files and directories that are their owner's alone: 0600 and 0700, whatever the umask, and whoever was there first.

Rules of this file: nothing is readable by others even for a moment: modes are given when something is made, not after.
What another user may have put in the way (a symlink in a directory that all may write, a directory of theirs) is
refused, not followed. What is ours and open to others from earlier is closed to them; a directory that the user chose,
which may be anything, ``/tmp`` included, keeps its mode.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

DIRECTORY, FILE = 0o700, 0o600
OTHERS = 0o077
ROOT = 0


def directory(path: Path, *, close: bool = True) -> None:
    """See that there is a directory of ours; what is missing above it is made for the owner alone, too.

    Args:
        path: the directory.
        close: if others may look into one that is there, they may no more; only for those nobody else can have a use
            for.

    Raises:
        OSError: it cannot be made, is something else, or is another user's.
    """
    with contextlib.suppress(FileExistsError):
        _make(path)
        return
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        _must_be_trusted(path, found)
        found = path.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    _must_be_trusted(path, found)
    if close and stat.S_IMODE(found.st_mode) & OTHERS and found.st_uid == os.geteuid():
        path.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS)


def _make(path: Path) -> None:
    try:
        path.mkdir(DIRECTORY)
    except FileNotFoundError:
        if path.parent == path:
            raise
        with contextlib.suppress(FileExistsError):  # another process was faster
            _make(path.parent)
        path.mkdir(DIRECTORY)
    if stat.S_IMODE(path.lstat().st_mode) & DIRECTORY != DIRECTORY:
        path.chmod(DIRECTORY)  # the umask took from the owner, too


def file(path: Path) -> None:
    """See that there is a file of ours, which others cannot read; an empty one is made.

    One that is there is never opened: closing a file gives up the locks that this process has on it, SQLite's for one.

    Raises:
        OSError: it cannot be made, is something else, or is another user's.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE))  # follows no symlink
        if stat.S_IMODE(path.lstat().st_mode) != FILE:
            path.chmod(FILE)
        return
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.ELOOP, "something that is not a file is in its place", str(path))
    _must_be_trusted(path, found)
    if stat.S_IMODE(found.st_mode) & OTHERS and found.st_uid == os.geteuid():
        path.chmod(FILE)


def database(path: Path) -> None:
    """See that there is a file of ours for SQLite; the files it makes beside it have the same mode.

    Raises:
        OSError: see ``file``.
    """
    file(path)
    for part in ("-wal", "-shm"):
        beside = path.with_name(path.name + part)
        with contextlib.suppress(FileNotFoundError):
            if stat.S_IMODE(beside.lstat().st_mode) & OTHERS:
                file(beside)


def is_open_to_others(path: Path) -> bool:
    """Tell whether others may look into what is there, or change it."""
    return bool(stat.S_IMODE(path.stat().st_mode) & OTHERS)


def _must_be_trusted(path: Path, found: os.stat_result) -> None:
    """Refuse what another user made, who can exchange it at any time.

    What root made is root's to decide. Root itself works in directories that belong to others, as in containers, but
    follows no symlink of theirs.
    """
    mine = os.geteuid()
    if found.st_uid in {mine, ROOT} or (mine == ROOT and not stat.S_ISLNK(found.st_mode)):
        return
    raise PermissionError(errno.EPERM, "it belongs to somebody else", str(path))
