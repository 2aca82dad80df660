"""Finds running mounts and talks to them."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactfs import errors
from artifactfs.daemon.control import socket_path

# Longer than any operation of a mount may take with the default timeout.
ANSWER_S = 40.0
FSTYPE = "fuse.artifactfs"


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the kernel's mount table."""

    mountpoint: Path
    fstype: str


def mount_table() -> list[Mount]:
    """Return what is mounted, from the kernel; octal escapes undone."""
    found = []
    for line in Path("/proc/self/mounts").read_bytes().splitlines():
        fields = line.split(b" ")
        place = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), fields[1])
        found.append(Mount(Path(os.fsdecode(place)), fields[2].decode()))
    return found


def our_mounts() -> list[Path]:
    """Return where artifactfs is mounted."""
    return [mount.mountpoint for mount in mount_table() if mount.fstype == FSTYPE]


def is_dead(path: Path) -> bool:
    """Tell whether a mount point's daemon is gone: the kernel then answers ENOTCONN to everything."""
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def absolute(path: Path) -> Path:
    """Return a path without symlinks above its last part and without asking the mount itself."""
    path = Path(os.path.abspath(path.expanduser()))
    try:
        return path.parent.resolve() / path.name if path.name else path
    except OSError:
        return path


def find(path: Path) -> tuple[Path, str]:
    """Return (mount point, path below it) for a path inside a mount.

    Raises:
        NotFound: it is in none.
    """
    whole = absolute(path)
    for mountpoint in sorted(our_mounts(), key=lambda m: -len(str(m))):
        if whole == mountpoint or mountpoint in whole.parents:
            return mountpoint, str(whole.relative_to(mountpoint)) if whole != mountpoint else ""
    message = f"{path} is not in a mount of artifactfs (see `artifactfs status`)"
    raise errors.NotFound(message)


def ask(mountpoint: Path, **request: object) -> dict[str, Any]:
    """Ask a running mount.

    Raises:
        Unreachable: its process does not answer.
        InvalidRequest: it says no.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(str(socket_path(mountpoint)))
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
