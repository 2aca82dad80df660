"""What a process that holds tokens does so that they stay in it: no core, and no variables for others to see.

Rules of this file: it is called before anything else is started, since what a child gets cannot be taken back.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Iterable

# From <sys/prctl.h>.
PR_SET_DUMPABLE = 4
# core(5) of the kernel: a limit of 1 byte, below the smallest file, is also what it takes for "do not pipe one to a
# handler either"; it does pipe one where the limit is 0.
NO_CORE = 1


def no_core() -> None:
    """Have no core written of this process and its children, not by a handler either.

    The process stays open to its own user's tools (py-spy, gdb, /proc/PID/fd): that user can read what is kept where
    the tokens come from anyway, and a mount that hangs must be looked into. Only where the limit cannot be set it is
    closed to them.
    """
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (NO_CORE, NO_CORE))
    except (ValueError, OSError):  # it was 0 already, and only root raises it
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def forget_variables(names: Iterable[str]) -> None:
    """Take variables out of this process: for its children, and for /proc/PID/environ, where the kernel shows memory.

    What has been read of them is not touched.
    """
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    for name in names:
        value = libc.getenv(os.fsencode(name))
        if value:
            ctypes.memset(value, 0, len(ctypes.string_at(value)))
        os.environ.pop(name, None)
