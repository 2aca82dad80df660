"""Whoever waits in the mount and is told to end, can: Ctrl-C and kill, without an interrupt from pyfuse3.

Rules of this file: nobody is looked at who waits less than a moment, so the fast path pays nothing. What is read of a
process is in memory of the kernel and never waits. Only waiting is cut short: a change goes on (``Operations._whole``).

The kernel takes a fatal signal to a program that waits for pages at once, but for names, attributes and opens only when
it has its answer (docs/decisions/0018); and a signal that a program handles never before that. Who they are, it says
with each request, but for reads: there it is who opened the file.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyfuse3
import trio

if TYPE_CHECKING:
    from artifactfs.fuse.boundary import Call
    from artifactfs.fuse.operations import Operations

# What people hardly feel; what the cache answers takes less than a hundredth of that.
PATIENCE_S = 0.5
LOOK_S = 0.5
# Signals with which a person or a program asks another one to end; the others are not worth a failed call.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
# Operations that change nothing: they can be answered with EINTR as often as somebody likes, and be tried again.
ASKING = frozenset({"lookup", "getattr", "readlink", "opendir", "readdir", "open", "read", "getxattr", "listxattr"})
# From linux/sched.h, in the flags of /proc/PID/stat: it is on its way out, and only closes what it has open.
PF_EXITING = 0x4


def _bit(number: int) -> int:
    return 1 << (number - 1)


FATAL = _bit(signal.SIGKILL)
ASKED = sum(map(_bit, ENDING))


async def watch(operations: Operations) -> None:
    """Answer those who are told to end, for as long as there is a session."""
    while True:
        await trio.sleep(LOOK_S)
        cut_short(operations)


def cut_short(operations: Operations) -> int:
    """Have operations answered with EINTR whose callers are told to end; return how many."""
    running, seen, number = operations.running, dict[tuple[int, bool], bool](), 0
    for scope, call in list(_waiting(operations)):
        pid, asking = _caller(operations, call), call[0] in ASKING
        if not pid:
            continue
        if (pid, asking) not in seen:
            seen[pid, asking] = is_to_end(pid, asking=asking)
        if seen[pid, asking]:
            running[scope] = None
            scope.cancel()
            number += 1
    return number


def _waiting(operations: Operations) -> Iterator[tuple[trio.CancelScope, Call]]:
    latest = trio.current_time() + operations.timeout_s - PATIENCE_S
    for scope, call in operations.running.items():
        if call is not None and scope.deadline <= latest:
            yield scope, call


def _caller(operations: Operations, call: Call) -> int:
    """Return the thread that waits for an answer, 0 if that is not known."""
    args: tuple[Any, ...] = call[1]
    if isinstance(args[-1], pyfuse3.RequestContext):
        return int(args[-1].pid)
    handle = operations.fs.handles.peek(args[0])
    return handle.pid if handle is not None else 0


def is_to_end(pid: int, *, asking: bool) -> bool:
    """Tell whether a thread cannot live on, or, if it is only ``asking``, whether its program was asked to end."""
    # It may be gone, or not for us to see.
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        own, shared, blocked = (int(fields[name], 16) for name in ("SigPnd", "ShdPnd", "SigBlk"))
        pending = own | shared
        if pending & FATAL or (asking and pending & ~blocked & ASKED):
            return True
        # After the command's name, which may hold anything.
        return bool(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[6]) & PF_EXITING)
    return False
