"""Mount and unmount: the mount point, the background process, readiness."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import shutil
import time
from pathlib import Path

from artifactfs import config, errors, private
from artifactfs.cli import background, client, render
from artifactfs.cli.options import MountOptions
from artifactfs.daemon import mounts
from artifactfs.daemon.mounts import socket_path
from artifactfs.fuse import connection

# The demo fills its store first (about 2 s) on a machine that may be busy; a mount by itself takes under a second.
START_S = 60.0
# What umount waits for the process to end after the kernel has let go: as long as that may take (`daemon.watchdog`),
# and the demo ends its server, too.
END_S = 55.0
# ... and after a lazy one: as long as a process that nobody uses takes.
LAZY_S = 2.0
# An operation that has waited this long waits for a service; what the cache answers takes milliseconds.
WAITING_S = 1.0
AGAIN_S = 0.2
# Programs whose wait was given up need a moment to end.
BUSY_S = 3.0
# A killed process is gone for its socket before it is for the kernel, which has its memory to free first.
DYING_S = 5.0
# Variables that hold a path, which may be relative.
PATH_VARIABLES = ("ARTIFACTFS_CONFIG", "ARTIFACTFS_CACHE_DIR", "VLMRUN_CACHE_DIR")
# By a signal, or by a debugger.
STOPPED = frozenset({"T", "t"})
# As many as fit a line.
SHOWN_USERS = 5


def default_mountpoint() -> Path:
    """Return where to mount if nobody says."""
    return Path.home() / "artifacts"


def prepare(mountpoint: Path) -> str | None:
    """See that something can be mounted there; return a sentence if a dead mount was cleaned up.

    Raises:
        ConfigError: what is wrong with it and what to do.
    """
    note = None
    if mountpoint in client.our_mounts() and _is_dying(mountpoint):
        problem = _try_unmount(mountpoint, lazy=True, force=True)
        if client.is_dead(mountpoint):
            message = f"{mountpoint} is a dead mount and could not be cleaned up: {problem}"
            raise errors.ConfigError(message)
        note = f"cleaned up a dead mount at {mountpoint}"
    if mountpoint in client.our_mounts():
        message = f"artifactfs is mounted at {mountpoint} already; `artifactfs umount {mountpoint}` ends it"
        raise errors.ConfigError(message)
    _directory(mountpoint)
    return note


def _is_dying(mountpoint: Path) -> bool:
    """Tell whether a mount's process is gone; one that was killed a moment ago is waited for.

    One that was killed while it told the kernel of a change in a directory may never be gone by itself: it waits for
    the directory, whose lock a program holds that waits for its answer.
    """
    end = time.monotonic() + DYING_S
    while not client.is_dead(mountpoint):
        pid = client.pid_of(mountpoint)
        if pid is not None and client.was_killed(pid):
            while time.monotonic() < end and not mounts.is_dead(mountpoint):
                time.sleep(0.05)  # noqa: TID251 - no event loop here
            return True
        if pid is not None or time.monotonic() > end:
            return False
        time.sleep(0.05)  # noqa: TID251 - no event loop here
    return True


def _directory(mountpoint: Path) -> None:
    try:
        mountpoint.mkdir(mode=0o755, parents=True, exist_ok=True)
    except FileExistsError:
        message = f"{mountpoint} is not a directory"
        raise errors.ConfigError(message) from None
    except OSError as error:
        message = f"{mountpoint} does not exist and cannot be made: {error.strerror}"
        raise errors.ConfigError(message) from error
    try:
        first = next(mountpoint.iterdir(), None)
    except OSError as error:
        message = f"{mountpoint} cannot be read: {error.strerror}"
        raise errors.ConfigError(message) from error
    if first is not None:
        message = f"{mountpoint} is not empty (it holds {first.name!r}); mount at an empty directory"
        raise errors.ConfigError(message)


def check_fuse() -> None:
    """See that this machine can mount at all.

    Raises:
        ConfigError: what to install.
    """
    if not Path("/dev/fuse").exists():
        message = (
            "there is no /dev/fuse: install fuse3; in a container start it with --device /dev/fuse --cap-add SYS_ADMIN"
        )
        raise errors.ConfigError(message)
    if os.getuid() != 0 and shutil.which("fusermount3") is None:
        message = "fusermount3 is missing: install the package fuse3"
        raise errors.ConfigError(message)


def start_in_background(options: MountOptions, log: Path) -> int:
    """Start the mount as a process of its own; return its pid once it is ready.

    Raises:
        ConfigError: it could not start; the message is its own.
    """
    log = _writable(log)
    # The process goes to "/", where a relative path would mean another place.
    environ = {
        name: os.path.abspath(os.path.expanduser(given)) for name in PATH_VARIABLES if (given := os.environ.get(name))
    }
    process = background.begun()
    process.tell({"options": options.to_json(), "log": str(log), "environ": environ})
    answer = _wait_ready(process)
    if not answer.get("ok"):
        message = str(answer.get("error") or f"the mount ended before it was ready; see {log}")
        raise errors.ConfigError(message)
    return process.pid


def _writable(log: Path) -> Path:
    """Return where a log can be written: beside the socket if the disk of the state directory takes nothing."""
    try:
        private.directory(log.parent.parent)
        private.directory(log.parent)
        private.file(log)
    except OSError as error:
        other = config.runtime_dir() / log.name
        render.complain(f"{log} cannot be written ({error.strerror}); the log is {other}")
        return other
    return log


def _wait_ready(process: background.Begun) -> dict[str, object]:
    end = time.monotonic() + START_S
    raw = b""
    while not raw.endswith(b"\n"):
        readable, _, _ = select.select([process.answers], [], [], max(0.0, end - time.monotonic()))
        if not readable:
            process.end()
            return {"error": f"the mount was not ready within {START_S:.0f} s"}
        chunk = os.read(process.answers, 1 << 16)
        if not chunk:
            return {}
        raw += chunk
    parsed: dict[str, object] = json.loads(raw)
    return parsed


def unmount(mountpoint: Path, *, lazy: bool = False) -> None:
    """Unmount and wait until the mount's process has ended; ``lazy`` leaves it to those who still use it.

    Raises:
        ConfigError: nothing is mounted there, or it is in use.
    """
    if mountpoint not in client.our_mounts():
        message = f"artifactfs is not mounted at {mountpoint}"
        raise errors.ConfigError(message)
    pid = client.pid_of(mountpoint)
    if pid is not None and client.was_killed(pid):
        connection.sever(mountpoint)  # a thread of it may be left that waits for who waits for it (``_is_dying``)
    problem = _try_unmount(mountpoint, lazy=lazy)
    if "busy" in problem:
        problem = _unmount_busy(mountpoint)
    if problem and mountpoint in client.our_mounts():
        hint = f"{_users(mountpoint)}; close what uses it, or `umount --lazy`" if "busy" in problem else ""
        message = f"{mountpoint} could not be unmounted: {problem}{hint}"
        raise errors.ConfigError(message)
    if pid is None:
        socket_path(mountpoint).unlink(missing_ok=True)
        mounts.metrics_path(mountpoint).unlink(missing_ok=True)
    elif not _has_ended(pid, LAZY_S if lazy else END_S) and not lazy:
        why = "was stopped: `kill -CONT` lets it end" if _state(pid) in STOPPED else f"has not ended in {END_S:.0f} s"
        message = f"{mountpoint} is unmounted, but its process {pid} {why}"
        raise errors.ConfigError(message)


def _try_unmount(mountpoint: Path, *, lazy: bool, force: bool = False) -> str:
    """Return what the system says against it, in English; nothing if it is done."""
    try:
        connection.unmount(mountpoint, lazy=lazy, force=force)
    except OSError as error:
        return "it is busy" if error.errno == errno.EBUSY else str(error.strerror)
    return ""


def _unmount_busy(mountpoint: Path) -> str:
    """Try again after waits for a service have been given up: a program in one holds the mount and cannot be killed."""
    end = time.monotonic()
    if _interrupt(mountpoint, WAITING_S):
        end += BUSY_S
    while "busy" in (problem := _try_unmount(mountpoint, lazy=False)) and time.monotonic() < end:
        time.sleep(0.1)  # noqa: TID251 - no event loop here
        # Whose path has several names waits again, for the next one.
        _interrupt(mountpoint, AGAIN_S)
    return problem


def _interrupt(mountpoint: Path, older_than_s: float) -> int:
    """Have the waits given up that last so long already; return how many those were."""
    # If it is gone, or does not answer, the next try to unmount says so.
    with contextlib.suppress(errors.ArtifactFSError):
        answer = client.ask(mountpoint, client.QUICK_S, verb="interrupt", older_than_s=older_than_s)
        return int(answer["interrupted"])
    return 0


def _users(mountpoint: Path) -> str:
    """Return which processes have something open in a mount, as far as this user may know; it is not asked itself."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [process / "cwd", process / "root", *(process / "fd").iterdir()]
            if any(link.readlink().is_relative_to(mountpoint) for link in links):
                found.append(f"{(process / 'comm').read_text().strip()} ({process.name})")
        except OSError:
            continue  # ended meanwhile, or somebody else's
    return f" Used by {', '.join(found[:SHOWN_USERS])}" if found else ""


def _state(pid: int) -> str:
    """Return the letter that stands for what a process does, nothing if it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def _has_ended(pid: int, within_s: float) -> bool:
    end = time.monotonic() + within_s
    while (state := _state(pid)) not in {"", "Z"}:
        if time.monotonic() > end or state in STOPPED:
            return False
        time.sleep(0.01)  # noqa: TID251 - no event loop here
    return True


def log_path(mountpoint: Path) -> Path:
    """Return where the mount at a place writes its log."""
    name = str(mountpoint).strip("/").replace("/", "-") or "root"
    return config.state_dir() / "log" / f"{name[-100:]}.log"
