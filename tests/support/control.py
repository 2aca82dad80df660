"""Asks a mount's process through its socket, as ``artifactfs why`` does, without the cost of a process."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from tests.support.lab import Mounted


def socket_of(mount: Mounted) -> Path:
    """Return the control socket of the one mount of a test's home."""
    (path,) = mount.home.glob("run/artifactfs/*.sock")
    return path


def exchange(path: Path, raw: bytes) -> bytes:
    """Send bytes and the end; return all that comes back."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))  # waits for its turn: with a timeout it would be turned away
        connection.settimeout(60)
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def ask(mount: Mounted, **request: object) -> Any:
    """Return what a mount's process answers."""
    return json.loads(exchange(socket_of(mount), json.dumps(request).encode() + b"\n"))["ok"]
