"""What is mounted, as the kernel says.

Rules of this file: nothing here asks a mount itself, except ``is_dead``.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import threading
from pathlib import Path

from artifactfs import config

FSTYPE = b"fuse.artifactfs"
# As long as an operation of a mount may take by default, and a little more to say so.
ANSWER_S = 35.0


def socket_path(mountpoint: Path) -> Path:
    """Return the control socket of the mount at a place."""
    name = hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16]
    return config.runtime_dir() / f"{name}.sock"


def metrics_path(mountpoint: Path) -> Path:
    """Return the socket on which the mount at a place serves its metrics; it fits wherever the other one does."""
    return socket_path(mountpoint).with_suffix(".prom")


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


# The kernel's own ENOTCONN takes microseconds; a second is a machine that is very busy.
ANSWER_AT_ONCE_S = 1.0


def is_dead(path: Path) -> bool:
    """Tell whether a mount point's daemon is gone: the kernel then answers ENOTCONN to everything.

    Asked by statvfs, which the kernel has to pass on: attributes it may know itself. A dead mount answers at once; a
    process that is there and has stopped never does, so it is asked in a thread that nobody waits for longer than that.
    """
    answer: list[bool] = []
    asking = threading.Thread(target=lambda: answer.append(_is_disconnected(path)), daemon=True)
    asking.start()
    asking.join(ANSWER_AT_ONCE_S)
    return bool(answer and answer[0])


def _is_disconnected(path: Path) -> bool:
    try:
        os.statvfs(path)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False
