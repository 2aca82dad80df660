"""Finds running mounts and talks to them."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections import deque
from pathlib import Path
from typing import Any

from artifactfs import errors
from artifactfs.daemon import mounts
from artifactfs.daemon.mounts import ANSWER_S, socket_path

# What a mount answers from memory comes at once; more than this is a process that has stopped.
QUICK_S = 10.0
# The mount's own limit for an answer, and a little for the way.
SLOW_S = ANSWER_S + 5.0
# As many symlinks in a path as the kernel follows.
MAX_LINKS = 40
# struct ucred of unix(7): process, user and group of whoever listens.
UCRED = struct.Struct("3i")


def our_mounts() -> list[Path]:
    """Return where artifactfs is mounted."""
    return mounts.ours()


def is_dead(mountpoint: Path) -> bool:
    """Tell whether a mount's process is gone."""
    return pid_of(mountpoint) is None and mounts.is_dead(mountpoint)


def _resolved(path: Path) -> tuple[Path, deque[str]]:
    """Follow symlinks up to a mount of ours; return where that ends and the names that are left.

    What is in the mount is not looked at: it may be what does not answer.
    """
    ours = set(our_mounts())
    todo = deque(Path(os.path.abspath(path.expanduser())).parts[1:])
    at, links = Path("/"), 0
    while todo and at not in ours:
        part = todo.popleft()
        here = at.parent if part == ".." else at / part
        if here in ours or links >= MAX_LINKS or not here.is_symlink():
            at = here
            continue
        links += 1
        target = here.readlink()
        at = Path("/") if target.is_absolute() else at
        todo.extendleft(reversed([name for name in target.parts if name != "/"]))
    return at, todo


def absolute(path: Path) -> Path:
    """Return a path as the kernel's mount table would have it."""
    at, rest = _resolved(path)
    return at.joinpath(*rest)


def find(path: Path) -> tuple[Path, str]:
    """Return (mount point, path below it) for a path inside a mount.

    Raises:
        NotFound: it is in none.
    """
    at, rest = _resolved(path)
    if at in our_mounts():
        return at, "/".join(rest)
    message = f"{path} is not in a mount of artifactfs (see `artifactfs status`)"
    raise errors.NotFound(message)


def _connect(mountpoint: Path, timeout_s: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(str(socket_path(mountpoint)))
    except OSError:
        connection.close()
        raise
    return connection


def ask(mountpoint: Path, timeout_s: float = SLOW_S, **request: object) -> dict[str, Any]:
    """Ask a running mount.

    Raises:
        Unreachable: its process does not answer.
        InvalidRequest: it says no.
    """
    try:
        with _connect(mountpoint, timeout_s) as connection:
            connection.sendall(json.dumps(request).encode() + b"\n")
            raw = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        reply = json.loads(raw)
    except (OSError, ValueError) as error:
        message = f"the mount at {mountpoint} does not answer ({error})"
        raise errors.Unreachable(message) from error
    if "error" in reply:
        raise errors.InvalidRequest(str(reply["error"]))
    answer: dict[str, Any] = reply["ok"]
    return answer


def pid_of(mountpoint: Path) -> int | None:
    """Return the process of a mount, also of one that has stopped answering; None if it is gone."""
    try:
        with _connect(mountpoint, QUICK_S) as connection:
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    except OSError:
        return None
    return int(UCRED.unpack(raw)[0])


def was_killed(pid: int) -> bool:
    """Tell whether a process runs no more, though it may not have let go of its files yet."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    # After the command's name, which may hold anything. A thread of it can outlive its first one inside the kernel.
    return stat.rpartition(")")[2].split()[0] in {"Z", "X"}
