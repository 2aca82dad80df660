"""What is mounted, as the kernel says.

Rules of this file: nothing here asks a mount itself, except ``is_dead``, which asks for its root alone.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

FSTYPE = b"fuse.artifactfs"


def ours() -> list[Path]:
    """Return where artifactfs is mounted."""
    found = []
    for line in Path("/proc/self/mounts").read_bytes().splitlines():
        _, place, fstype, *_ = line.split(b" ")
        if fstype == FSTYPE:
            # Blanks and backslashes in a path are written as \ooo.
            place = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), place)
            found.append(Path(os.fsdecode(place)))
    return found


def is_dead(path: Path) -> bool:
    """Tell whether a mount point's daemon is gone: the kernel then answers ENOTCONN to everything."""
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False
