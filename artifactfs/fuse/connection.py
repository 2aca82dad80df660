"""The kernel's side of a mount: how much it asks for at once, and an end to all that waits in it.

Rules of this file: nothing here touches the mount itself, whose process may be the one that hangs; what needs a right
that we do not have is left as it is.

The kernel reads ahead in the background, in at most 12 requests of one mount at a time unless it is told otherwise, and
pyfuse3 cannot tell it. With 50 readers of a service that hangs, a read of another source waited for over 100 s until
their deadlines had passed, wave after wave; with more room 0.2 s (measured, Linux 6.18).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)

# Fewer than requests are answered at once (``session.MAX_TASKS``), so that names and attributes always find room.
BACKGROUND = 400
CONTROL = Path("/sys/fs/fuse/connections")
# What a process without rights may ask for; the kernel makes it from the size of the memory.
USERS_LIMIT = Path("/sys/module/fuse/parameters/max_user_bgreq")
# From linux/mount.h and linux/sched.h.
MNT_FORCE, MNT_DETACH, UMOUNT_NOFOLLOW, MS_REC, MS_PRIVATE, CLONE_NEWNS = 1, 2, 8, 0x4000, 0x40000, 0x20000
# What helps here takes milliseconds.
HELPED_S = 5.0
_libc = ctypes.CDLL(None, use_errno=True)


def number_of(mountpoint: Path) -> int | None:
    """Return the number by which the kernel knows the connection of a mount; of several the uppermost."""
    found = None
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = line.split(b" ")
        # Blanks and backslashes in a path are written as \ooo.
        place = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), fields[4])
        if place == os.fsencode(mountpoint) and b" - fuse" in line:
            found = int(fields[2].partition(b":")[2])
    return found


def widen(mountpoint: Path) -> bool:
    """Let the kernel have more reads under way at once; return whether it does."""
    background = BACKGROUND
    with contextlib.suppress(OSError, ValueError):
        background = background if os.geteuid() == 0 else min(background, int(USERS_LIMIT.read_text()))
    wanted = {"max_background": background, "congestion_threshold": background * 3 // 4}
    done = _set(mountpoint, {name: str(value) for name, value in wanted.items()})
    if not done:
        log.info("the kernel keeps to few reads at once: many on a service that hangs make others wait, too")
    return done


def sever(mountpoint: Path) -> bool:
    """End the connection of a mount: whoever waits in it gets an error; return whether that was in our power.

    What else ends it is the end of its process, if nothing of that process waits in the mount itself.
    """
    if _set(mountpoint, {"abort": "1"}):
        return True
    # The kernel ends the connection first, whether or not the mount is in use.
    return os.geteuid() == 0 and not _libc.umount2(os.fsencode(mountpoint), MNT_FORCE)


def unmount(mountpoint: Path, *, lazy: bool = False, force: bool = False) -> None:
    """Unmount as this user; ``lazy`` whoever uses it, ``force`` ends what waits in it, where root says so.

    Not with umount(8), which asks the mount what it is first: a process that has stopped never answers that.

    Raises:
        OSError: what the system says against it; EBUSY if it is in use.
    """
    if os.geteuid() == 0:
        flags = UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0) | (MNT_FORCE if force else 0)
        _check(_libc.umount2(os.fsencode(mountpoint), flags))
        return
    helper = shutil.which("fusermount3") or "fusermount"
    command = [helper, "-u", *(["-z"] if lazy else []), "--", str(mountpoint)]
    try:
        environ = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=HELPED_S, env=environ)
    except subprocess.TimeoutExpired:
        raise OSError(errno.ETIMEDOUT, f"{helper} did not end within {HELPED_S:.0f} s") from None
    if done.returncode:
        message = done.stderr.strip() or f"{helper} failed"
        raise OSError(errno.EBUSY if "busy" in message else errno.EPERM, message)


def _set(mountpoint: Path, values: Mapping[str, str]) -> bool:
    """Write into the kernel's control files of a connection; return whether they took it."""
    number = number_of(mountpoint)
    return number is not None and (_written(number, values) or (os.geteuid() == 0 and _written_apart(number, values)))


def _written(number: int, values: Mapping[str, str]) -> bool:
    try:
        for name, value in values.items():
            (CONTROL / str(number) / name).write_text(value)
    except OSError as error:
        log.debug("the connection cannot be changed: %s", error)
        return False
    return True


def _written_apart(number: int, values: Mapping[str, str]) -> bool:
    """Write with a control filesystem that only one thread sees: in containers nobody has mounted one."""
    done: list[bool] = []

    def work() -> None:
        with contextlib.suppress(OSError):
            # Of this thread alone; what it has mounted goes with it.
            _check(_libc.unshare(CLONE_NEWNS))
            _check(_libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
            _check(_libc.mount(b"fusectl", os.fsencode(CONTROL), b"fusectl", 0, None))
            done.append(_written(number, values))

    thread = threading.Thread(target=work, name="fusectl", daemon=True)
    thread.start()
    thread.join(HELPED_S)
    return bool(done and done[0])


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
