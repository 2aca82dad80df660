"""The process of a mount, begun while its command line is still being read.

Rules of this file: only the standard library is imported at its top, and only light parts of it. A fork costs a
millisecond and must happen while the process has one thread, before anything heavy is imported: the mount imports its
half (trio, pyfuse3, the filesystem) while the caller reads options and configuration, so a mount is ready after the
longer of the two instead of their sum (measured: 0.34 s and 0.19 s). What was not asked for in the end ends by itself.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import sys
from dataclasses import dataclass

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    Run = Callable[[dict[str, Any], int], int]

# Options with which no process in the background is wanted.
STAY = frozenset({"-f", "--foreground", "--help"})
MALFORMED = 70


_load: Callable[[], Run] | None = None
_begun: Begun | None = None


@dataclass(slots=True)
class Begun:
    """A process that will be a mount once it is told of what.

    Attributes:
        pid: its number.
        orders: takes one JSON object, ended by closing.
        answers: gives one line of JSON, when the mount is ready or has failed.
        told: it knows what to mount.
    """

    pid: int
    orders: int
    answers: int
    told: bool = False

    def tell(self, orders: dict[str, Any]) -> None:
        """Say what to mount."""
        self.told = True
        # If it has ended already its answer says so, or its silence.
        with contextlib.suppress(BrokenPipeError), os.fdopen(self.orders, "wb") as pipe:
            pipe.write(json.dumps(orders).encode())

    def end(self) -> None:
        """Have it end at once."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def begin_early(arguments: Sequence[str], load: Callable[[], Run]) -> None:
    """Begin the process of a mount if this command line is likely to need one.

    ``load`` imports what a mount needs and returns what runs one: from options, and where to tell of readiness.
    """
    global _load, _begun  # noqa: PLW0603 - forked before options are read, so nothing can hand it to the command
    _load = load
    if arguments[:1] == ["mount"] and not STAY.intersection(arguments):
        _begun = _begin()


def begun() -> Begun:
    """Return the process that was begun early, or begin one now."""
    return _begun or _begin()


def abandon() -> None:
    """End a process that was begun in vain: the command line was no mount after all, or a wrong one."""
    if _begun is not None and not _begun.told:
        _begun.end()


def _begin() -> Begun:
    reading, orders = os.pipe()
    answers, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(reading)
        os.close(writing)
        return Begun(pid, orders, answers)
    code = MALFORMED
    try:
        os.close(orders)
        os.close(answers)
        code = _become(reading, writing)
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 1
    except Exception:  # noqa: BLE001 - forked: above is the caller's stack, which must not run here, so it is told now
        sys.excepthook(*sys.exc_info())
    finally:
        # Nothing of the caller's stack may run in this process.
        _leave(code)


def _leave(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _become(reading: int, writing: int) -> int:
    """Be the process of a mount; return its exit code."""
    os.setsid()
    # Everything made from here to readiness lives as long as the mount: collecting it in between is wasted.
    gc.disable()
    if _load is None:
        message = "nobody has said what runs a mount: begin_early comes first"
        raise RuntimeError(message)
    run = _load()
    with os.fdopen(reading, "rb") as pipe:
        raw = pipe.read()
    if not raw:
        return 0  # the caller ended without: wrong usage, or a configuration that cannot be used
    orders = json.loads(raw)
    _detach(orders["log"])
    os.environ.update(orders["environ"])
    return run(orders["options"], writing)


def _detach(log: str) -> None:
    """Leave the caller's terminal and directory; what this process says goes to its log."""
    null = os.open(os.devnull, os.O_RDONLY)
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    for fd, where in ((null, 0), (sink, 1), (sink, 2)):
        os.dup2(fd, where)
    os.close(null)
    os.close(sink)
    os.chdir("/")
