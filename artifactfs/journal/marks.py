"""Whether the bytes of a draft were acknowledged, said by the draft's file itself: its owner may execute it.

Rules of this file: a database can lose a record without a word, its log being damaged or removed. A draft that has
the mark and no record is what somebody was told is kept: it is never deleted. The mark is set when the record is
durable and taken away before the record is, so that a kill at any moment leaves no draft of neither kind. It costs no
wait: what a kill leaves is in the kernel, and after a power cut the database is whole.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

PLAIN, MARKED = 0o600, 0o700


def path_of(root: Path, number: int) -> Path:
    """Return where the draft of a number lies."""
    return root / f"{number}.draft"


def set_mark(fd: int, *, marked: bool) -> None:
    """Mark the draft that is open, or take the mark away; a file system without modes has none."""
    mode = MARKED if marked else PLAIN
    with contextlib.suppress(OSError):
        if stat.S_IMODE(os.fstat(fd).st_mode) != mode:
            os.fchmod(fd, mode)


def is_marked(path: Path) -> bool:
    """Tell whether a draft was acknowledged."""
    with contextlib.suppress(OSError):
        return bool(path.stat().st_mode & stat.S_IXUSR)
    return False


def mark(root: Path, numbers: Iterable[int]) -> None:
    """Mark drafts; numbers without one are of changes that have none."""
    for number in numbers:
        with contextlib.suppress(OSError):
            path_of(root, number).chmod(MARKED)


def unmark(root: Path, numbers: Iterable[int]) -> None:
    """Take the marks of drafts away."""
    for number in numbers:
        with contextlib.suppress(OSError):
            path_of(root, number).chmod(PLAIN)
