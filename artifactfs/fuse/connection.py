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
import subprocess
import threading
from pathlib import Path

log = logging.getLogger(__name__)

# Fewer than requests are answered at once (``session.MAX_TASKS``), so that names and attributes always find room.
BACKGROUND = 400
# From here on the kernel leaves out what nobody waits for yet: 3/4, as its own default has it.
CONGESTED = 300
CONTROL = Path("/sys/fs/fuse/connections")
# What a process without rights may ask for; the kernel makes it from the size of the memory.
USERS_LIMIT = Path("/sys/module/fuse/parameters/max_user_bgreq")
# From linux/mount.h and linux/sched.h.
MNT_FORCE, MNT_DETACH, MS_REC, MS_PRIVATE, CLONE_NEWNS = 1, 2, 0x4000, 0x40000, 0x20000
# umount(8) and fusermount3 take milliseconds, unless they wait for the mount.
UNMOUNT_S = 3.0
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
    number = number_of(mountpoint)
    done = number is not None and (_widened(number) or (os.geteuid() == 0 and _widened_apart(number)))
    if not done:
        log.info("the kernel keeps to few reads at once: many on a service that hangs make others wait, too")
    return done


def _widened(number: int) -> bool:
    """Say so in the control filesystem, if that is mounted and lets us."""
    directory, background = CONTROL / str(number), BACKGROUND
    try:
        if os.geteuid() != 0:
            background = min(background, int(USERS_LIMIT.read_text()))
        (directory / "max_background").write_text(str(background))
        (directory / "congestion_threshold").write_text(str(min(CONGESTED, background * 3 // 4)))
    except (OSError, ValueError) as error:
        log.debug("the connection cannot be changed: %s", error)
        return False
    return True


def _widened_apart(number: int) -> bool:
    """Say so in a control filesystem that only this thread sees: in containers nobody has mounted one."""
    done: list[bool] = []

    def work() -> None:
        with contextlib.suppress(OSError):
            # Of one thread alone; what it has mounted goes with it.
            _check(_libc.unshare(CLONE_NEWNS))
            _check(_libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None))
            _check(_libc.mount(b"fusectl", os.fsencode(CONTROL), b"fusectl", 0, None))
            done.append(_widened(number))

    thread = threading.Thread(target=work, name="fusectl", daemon=True)
    thread.start()
    thread.join(UNMOUNT_S)
    return bool(done and done[0])


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def sever(mountpoint: Path) -> bool:
    """End the connection of a mount: whoever waits in it gets an error; return whether that was in our power.

    What else ends it is the end of its process.
    """
    number = number_of(mountpoint)
    if number is None:
        return False
    try:
        (CONTROL / str(number) / "abort").write_text("1")
    except OSError as error:
        log.debug("the connection cannot be ended: %s", error)
    else:
        return True
    # In that order the kernel ends the connection first, whether or not the mount is in use.
    return os.geteuid() == 0 and not _libc.umount2(os.fsencode(mountpoint), MNT_FORCE | MNT_DETACH)


def detach(mountpoint: Path) -> None:
    """Take a mount out of the tree of files, whoever uses it; what is not in our power stays."""
    if os.geteuid() == 0:
        if _libc.umount2(os.fsencode(mountpoint), MNT_DETACH) and ctypes.get_errno() != errno.EINVAL:
            log.info("%s could not be detached: %s", mountpoint, os.strerror(ctypes.get_errno()))
        return
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        command = ["fusermount3", "-u", "-z", "--", str(mountpoint)]
        subprocess.run(command, check=False, capture_output=True, timeout=UNMOUNT_S)
