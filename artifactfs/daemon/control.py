"""The socket of a running mount: one JSON request a connection, one JSON answer.

Rules of this file: the socket is in a directory of the owner alone; nothing here changes files.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from functools import partial
from pathlib import Path
from typing import Any

import trio

from artifactfs import config, errors
from artifactfs.daemon.status import Status

log = logging.getLogger(__name__)

# Requests are a verb and a path of at most 4 KiB; more is not one of ours.
MAX_REQUEST = 64 * 1024
# As long as an operation of the mount may take, and a little more to say so.
ANSWER_S = 35.0


def socket_path(mountpoint: Path) -> Path:
    """Return the socket of the mount at a place."""
    name = hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:16]
    return config.runtime_dir() / f"{name}.sock"


async def serve(status: Status, path: Path, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Answer until cancelled."""
    path.unlink(missing_ok=True)
    listener = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    try:
        await listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(16)
        task_status.started()
        await trio.serve_listeners(partial(_answer, status=status), [trio.SocketListener(listener)])
    finally:
        listener.close()
        path.unlink(missing_ok=True)


async def _answer(stream: trio.abc.Stream, *, status: Status) -> None:
    try:
        async with stream:
            with trio.move_on_after(ANSWER_S):
                raw = bytearray()
                while not raw.endswith(b"\n") and len(raw) < MAX_REQUEST:
                    chunk = await stream.receive_some(MAX_REQUEST)
                    if not chunk:
                        break
                    raw += chunk
                reply = await _reply(json.loads(raw), status)
                await stream.send_all(json.dumps(reply).encode() + b"\n")
    except (trio.BrokenResourceError, ValueError):
        log.debug("a control connection ended early")


async def _reply(request: dict[str, Any], status: Status) -> dict[str, Any]:
    try:
        match request.get("verb"):
            case "status":
                return {"ok": status.snapshot()}
            case "why":
                return {"ok": await status.why(str(request.get("path", "")))}
            case "log":
                return {"ok": await status.log(str(request.get("path", "")))}
            case verb:
                return {"error": f"unknown request {verb!r}"}
    except errors.ArtifactFSError as error:
        return {"error": str(error)}
