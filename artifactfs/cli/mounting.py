"""Mount and unmount: the mount point, the background process, readiness."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from artifactfs import config, errors
from artifactfs.cli import client

# The demo fills its store first (about 2 s) on a machine that may be busy; a mount by itself takes under a second.
START_S = 60.0
# What umount waits for the process to end after the kernel has let go.
END_S = 30.0


def default_mountpoint() -> Path:
    """Return where to mount if nobody says."""
    return Path.home() / "artifacts"


def unmount_command(mountpoint: Path, *, lazy: bool) -> list[str]:
    """Return the command that unmounts as this user."""
    helper = shutil.which("fusermount3") or shutil.which("fusermount")
    if os.getuid() == 0 or helper is None:
        return ["umount", *(["-l"] if lazy else []), str(mountpoint)]
    return [helper, "-u", *(["-z"] if lazy else []), str(mountpoint)]


def prepare(mountpoint: Path) -> str | None:
    """See that something can be mounted there; return a sentence if a dead mount was cleaned up.

    Raises:
        ConfigError: what is wrong with it and what to do.
    """
    note = None
    if client.is_dead(mountpoint):
        done = subprocess.run(unmount_command(mountpoint, lazy=True), capture_output=True, text=True, check=False)
        if client.is_dead(mountpoint):
            message = f"{mountpoint} is a dead mount and could not be cleaned up: {done.stderr.strip()}"
            raise errors.ConfigError(message)
        note = f"cleaned up a dead mount at {mountpoint}"
    if mountpoint in client.our_mounts():
        message = f"artifactfs is mounted at {mountpoint} already; `artifactfs umount {mountpoint}` ends it"
        raise errors.ConfigError(message)
    _directory(mountpoint)
    return note


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


def start_in_background(arguments: list[str], log: Path) -> int:
    """Start the mount as a process of its own; return its pid once it is ready.

    Raises:
        ConfigError: it could not start; the message is its own.
    """
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    reading, writing = os.pipe()
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "artifactfs", *arguments, "--foreground", "--ready-fd", str(writing)],
            pass_fds=(writing,), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True,
            cwd="/",
        )  # fmt: skip
    os.close(writing)
    answer = _wait_ready(reading, process)
    if not answer.get("ok"):
        message = str(answer.get("error") or f"the mount ended before it was ready; see {log}")
        raise errors.ConfigError(message)
    return process.pid


def _wait_ready(fd: int, process: subprocess.Popen[bytes]) -> dict[str, object]:
    end = time.monotonic() + START_S
    os.set_blocking(fd, False)
    raw = b""
    while time.monotonic() < end:
        try:
            chunk = os.read(fd, 1 << 16)
        except BlockingIOError:
            time.sleep(0.005)  # noqa: TID251 - no event loop here
            continue
        raw += chunk
        if not chunk or raw.endswith(b"\n"):
            break
    else:
        process.terminate()
        return {"error": f"the mount was not ready within {START_S:.0f} s"}
    os.close(fd)
    parsed: dict[str, object] = json.loads(raw) if raw else {}
    return parsed


def unmount(mountpoint: Path, *, lazy: bool = False) -> None:
    """Unmount and wait until the mount's process has ended.

    Raises:
        ConfigError: nothing is mounted there, or it is in use.
    """
    if mountpoint not in client.our_mounts():
        message = f"artifactfs is not mounted at {mountpoint}"
        raise errors.ConfigError(message)
    pid = _pid(mountpoint)
    done = subprocess.run(unmount_command(mountpoint, lazy=lazy), capture_output=True, text=True, check=False)
    if done.returncode:
        busy = "busy" in done.stderr
        hint = "; close the programs that use it, or `umount --lazy`" if busy else ""
        message = f"{mountpoint} could not be unmounted: {done.stderr.strip()}{hint}"
        raise errors.ConfigError(message)
    _wait_end(pid)


def _pid(mountpoint: Path) -> int | None:
    try:
        return int(client.ask(mountpoint, verb="status")["pid"])
    except errors.ArtifactFSError:
        return None


def _wait_end(pid: int | None) -> None:
    end = time.monotonic() + END_S
    while pid is not None and time.monotonic() < end:
        try:
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError as error:
            if error.errno in {errno.ESRCH, errno.ENOENT}:
                return
            raise
        time.sleep(0.01)  # noqa: TID251 - no event loop here


def log_path(mountpoint: Path) -> Path:
    """Return where the mount at a place writes its log."""
    name = str(mountpoint).strip("/").replace("/", "-") or "root"
    return config.state_dir() / "log" / f"{name[-100:]}.log"
