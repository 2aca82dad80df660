"""The socket of a running mount: one JSON request a connection, one JSON answer.

Rules of this file: the socket is in a directory of the owner alone; nothing here changes files; whatever is sent, the
mount goes on.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio

from artifactfs import errors, observe
from artifactfs.daemon.mounts import ANSWER_S

log = logging.getLogger(__name__)

# Asked at once by scripts over many paths; past this the kernel turns them away (EAGAIN).
BACKLOG = 128
# Requests are a verb and a path of at most 4 KiB; more is not one of ours.
MAX_REQUEST = 64 * 1024
Verb = Callable[[dict[str, Any]], Awaitable[object]]


async def serve(
    verbs: Mapping[str, Verb], path: Path, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Answer until cancelled."""
    with bound(path, BACKLOG) as listener:
        task_status.started()
        await trio.serve_listeners(partial(_answer, verbs=verbs), [trio.SocketListener(listener)])


@contextmanager
def bound(path: Path, backlog: int) -> Iterator[trio.socket.SocketType]:
    """Have a listening socket of the owner alone at a path while the block runs."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        made = path.stat().st_ino
        path.chmod(0o600)
        listener.listen(backlog)
        try:
            yield trio.socket.from_stdlib_socket(listener)
        finally:
            # After `umount --lazy` the next mount may have its socket there already.
            if path.exists() and path.stat().st_ino == made:
                path.unlink()


async def _answer(stream: trio.abc.Stream, *, verbs: Mapping[str, Verb]) -> None:
    try:
        async with stream:
            reply: dict[str, object] = {"error": f"no answer within {ANSWER_S:.0f} s"}
            with trio.move_on_after(ANSWER_S):
                reply = await _reply(await _receive(stream), verbs)
            with trio.move_on_after(ANSWER_S):
                await stream.send_all(json.dumps(reply).encode() + b"\n")
    except trio.BrokenResourceError:
        log.debug("a control connection ended early")


async def _receive(stream: trio.abc.Stream) -> bytes:
    raw = bytearray()
    while not raw.endswith(b"\n") and len(raw) < MAX_REQUEST:
        chunk = await stream.receive_some(MAX_REQUEST)
        if not chunk:
            break
        raw += chunk
    return bytes(raw)


async def _reply(raw: bytes, verbs: Mapping[str, Verb]) -> dict[str, object]:
    try:
        request = json.loads(raw)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict):
        return {"error": "a request is one line with a JSON object"}
    observe.begin("control", verb=request.get("verb"))
    verb = verbs.get(str(request.get("verb")))
    if verb is None:
        return {"error": f"unknown request {request.get('verb')!r}"}
    try:
        return {"ok": await verb(request)}
    except errors.ArtifactFSError as error:
        return {"error": str(error)}
    except Exception as error:
        log.exception("%s failed in an unforeseen way", request["verb"])
        return {"error": f"{type(error).__name__}: {error}"}
