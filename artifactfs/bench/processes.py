"""Commands that are timed, and processes that are watched and ended.

Rules of this file: a process is known by its id, never by its name. A command that hangs in a file system cannot be
killed and must not be waited for: it is reported, and its mount is taken away.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from artifactfs import errors

# What a process gets to end in after it was asked to; a dead server ends at once.
END_S = 10.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20


class Hung(errors.TimedOut):
    """A command did not end within its time."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What processes have used: CPU seconds since they began, resident MiB now."""

    cpu_s: float = 0.0
    rss_mib: float = 0.0


def usage(pids: Iterable[int]) -> Usage:
    """Return the sum over processes; one that has ended counts nothing."""
    cpu = rss = 0.0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
            # proc(5): utime and stime are fields 14 and 15, rss is field 24; the split begins at field 3.
            cpu += (int(fields[11]) + int(fields[12])) / TICKS_PER_S
            rss += int(fields[21]) * PAGE / MIB
    return Usage(cpu, rss)


def timed(command: Sequence[str], output: Path | None = None, *, timeout_s: float, cwd: Path | None = None) -> float:
    """Run a command and return its wall seconds; what it says goes to ``output`` or nowhere.

    Raises:
        Hung: it did not end in time.
        Unavailable: it failed; the message has its last words.
    """
    env = {**os.environ, "LC_ALL": "C"}
    with (output or Path(os.devnull)).open("wb") as out:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, env=env, cwd=cwd,
            start_new_session=True,
        )  # fmt: skip
        _wait(process, timeout_s, command)
        wall = time.perf_counter() - begin
    with process.stderr or contextlib.nullcontext() as said:
        words = said.read(4096).decode(errors="replace") if said else ""
    # diff says 1 where there are differences, and grep where there are none: both are answers.
    if process.returncode not in {0, 1}:
        raise errors.Unavailable(f"{command[0]} failed with {process.returncode}: {words.strip()[-300:]}")
    return wall


def _wait(process: subprocess.Popen[bytes], timeout_s: float, command: Sequence[str]) -> None:
    """Wait without looking again and again: that would be seen in what is measured."""
    fd = os.pidfd_open(process.pid)
    try:
        ended = select.select([fd], [], [], timeout_s)[0]
    except BaseException:
        _kill(process)
        raise
    finally:
        os.close(fd)
    if not ended:
        _kill(process)
        raise Hung(f"`{' '.join(command)[:80]}` did not end within {timeout_s:.0f} s")
    process.wait()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a command with its children; it may hang in a file system and be gone only after that."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1.0)


def ran(command: Sequence[str], *, timeout_s: float = 60.0, env: Mapping[str, str] | None = None) -> str:
    """Run a command that is not measured; return what it says.

    Raises:
        Hung: it did not end in time.
        Unavailable: it failed; the message has its last words.
    """
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=env, timeout=timeout_s
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Hung(f"`{' '.join(command)[:80]}` did not end within {timeout_s:.0f} s") from None
    except OSError as error:
        raise errors.Unavailable(f"{command[0]}: {error.strerror}") from None
    if done.returncode:
        raise errors.Unavailable(f"`{' '.join(command)[:80]}`: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started here, and wait for it."""
    if process.stdin:
        with contextlib.suppress(OSError):
            process.stdin.close()
    for stop in (process.terminate, process.kill):
        if process.poll() is None:
            stop()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
    if process.stdout:
        process.stdout.close()


# Ends a process when this one ends, however that ends; replaces itself by the command, so that the id is the command's.
_WITH_US = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []


def started(command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a server; its words go to a file, its standard input is a pipe that ends with this process.

    Where the system offers that, the server ends with this process, too.

    Raises:
        Unavailable: it is not installed.
    """
    try:
        with log.open("ab") as sink:
            return subprocess.Popen(
                [*_WITH_US, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, env=env,
                start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        raise errors.Unavailable(f"{command[0]}: {error.strerror}") from None


def pause(seconds: float) -> None:
    """Wait."""
    threading.Event().wait(seconds)


def line_of(process: subprocess.Popen[bytes], within_s: float) -> bytes:
    """Return the first line a process writes.

    Raises:
        Hung: it wrote none in time, or ended.
        TypeError: it was not started by ``started``, which makes the pipe.
    """
    pipe = process.stdout
    if pipe is None:
        raise TypeError(process)
    line, stop = b"", time.monotonic() + within_s
    while not line.endswith(b"\n"):
        ready = select.select([pipe], [], [], max(0.0, stop - time.monotonic()))[0]
        piece = os.read(pipe.fileno(), 4096) if ready else b""
        if not piece:
            raise Hung(f"{process.args!r:.80} did not start")
        line += piece
    return line
