"""The numbers of a mount over HTTP: ``GET /metrics`` on a unix socket of the owner alone, or on a loopback address.

Rules of this file: nothing here can fail the mount or make it wait. Few connections at once, small requests, one
answer a connection, and a few seconds for all of it: who is slow is hung up on. Where anybody on this machine can
connect (TCP) the Host header must name this machine, so that no web page can read the numbers under a name of its own.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from artifactfs import observe
from artifactfs.daemon.control import bound
from artifactfs.observe.exposition import CONTENT_TYPE

if TYPE_CHECKING:
    import h11

log = logging.getLogger(__name__)

# A scraper and a person with curl; more than this are turned away.
MAX_CONNECTIONS = 8
# The head of a scraper's request takes half a KiB.
MAX_REQUEST = 8 * 1024
# For the whole exchange: an answer takes milliseconds, and a scraper gives up after 10 s.
EXCHANGE_S = 5.0
BACKLOG = 16
PATHS = frozenset({b"/metrics", b"/"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back."""

    status: int
    body: bytes


async def serve(
    listen: str,
    path: Path,
    text: Callable[[], str],
    listening: Callable[[str | None], None],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer until cancelled, at ``path`` if ``listen`` is ``unix``, else at that address; nowhere if it is empty.

    Where that cannot be, the log says why, and the mount does without. ``listening`` is told where it is.
    """
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(_listener(listen, path)) if listen else None
        except OSError as error:
            log.warning("the metrics cannot be served at %s: %s", listen, error.strerror or error)
            listener = None
        task_status.started()
        if listener is None:
            return
        listening(f"unix:{path}" if listen == "unix" else f"http://{_address(listener)}/metrics")
        slots = trio.CapacityLimiter(MAX_CONNECTIONS)
        work = partial(_exchange, text=text, slots=slots, is_open=listen != "unix")
        try:
            await trio.serve_listeners(work, [trio.SocketListener(listener)])
        except OSError as error:
            log.warning("the metrics are not served any more: %s", error.strerror or error)
            listening(None)


def _listener(listen: str, path: Path) -> AbstractContextManager[trio.socket.SocketType]:
    return bound(path, BACKLOG) if listen == "unix" else _on_loopback(listen)


@contextmanager
def _on_loopback(listen: str) -> Iterator[trio.socket.SocketType]:
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), int(port)))
        listener.listen(BACKLOG)
        yield trio.socket.from_stdlib_socket(listener)


def _address(listener: trio.socket.SocketType) -> str:
    host, port, *_ = listener.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _exchange(
    stream: trio.SocketStream, *, text: Callable[[], str], slots: trio.CapacityLimiter, is_open: bool
) -> None:
    observe.begin("metrics")
    try:
        slots.acquire_nowait()
    except trio.WouldBlock:
        await trio.aclose_forcefully(stream)
        return
    try:
        with trio.move_on_after(EXCHANGE_S):
            await _answer(stream, text, is_open=is_open)
    except (trio.BrokenResourceError, OSError):
        log.debug("a connection for metrics ended early")
    except Exception:
        log.exception("the metrics could not be given")
    finally:
        slots.release()
        await trio.aclose_forcefully(stream)


async def _answer(stream: trio.SocketStream, text: Callable[[], str], *, is_open: bool) -> None:
    import h11  # noqa: PLC0415 - 10 ms that only who asks for metrics pays, where no service speaks HTTP

    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST)
    try:
        while (event := parser.next_event()) is h11.NEED_DATA:
            parser.receive_data(await stream.receive_some(MAX_REQUEST))
        if not isinstance(event, h11.Request):
            return  # it hung up
        answer = _answer_to(event, text, is_open=is_open)
    except h11.RemoteProtocolError as error:
        answer = Answer(error.error_status_hint, b"this is no request\n")
    if parser.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
        return
    kind = CONTENT_TYPE if answer.status == 200 else "text/plain; charset=utf-8"  # noqa: PLR2004 - OK of HTTP
    headers = [("Content-Type", kind), ("Content-Length", str(len(answer.body))), ("Connection", "close")]
    head = parser.send(h11.Response(status_code=answer.status, headers=headers))
    is_head = isinstance(event, h11.Request) and event.method == b"HEAD"
    await stream.send_all((head or b"") + (b"" if is_head else answer.body))
    await stream.send_eof()
    # What the other side still sends would make the kernel throw away what it has not read yet of our answer.
    while await stream.receive_some(MAX_REQUEST):
        pass


def _answer_to(request: h11.Request, text: Callable[[], str], *, is_open: bool) -> Answer:
    host = next((value for name, value in request.headers if name == b"host"), b"")
    if is_open and not _is_here(host.decode("latin-1")):
        return Answer(421, b"the Host header names another machine\n")
    if request.method not in {b"GET", b"HEAD"}:
        return Answer(405, b"only GET\n")
    if request.target.partition(b"?")[0] not in PATHS:
        return Answer(404, b"only /metrics\n")
    return Answer(200, text().encode())


def _is_here(host: str) -> bool:
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
