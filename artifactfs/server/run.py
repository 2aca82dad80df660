"""Runs ASGI applications on hypercorn under trio.

Rules of this file: header names leave in title case. HTTP does not care, but the VLM Run SDK looks them up in a plain
dict (measured with version 0.9.2), and ASGI frameworks send them in lower case.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import hypercorn.trio
import trio
from hypercorn.config import Config
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A client that keeps a connection warm between a person's commands must not be hung up on first.
KEEP_ALIVE_S = 360.0


class TitleCaseHeaders:
    """Wraps an application so that its header names leave as ``Content-Type``."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap ``app``."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def send_titled(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name.title(), value) for name, value in message.get("headers", ())]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_titled if scope["type"] == "http" else send)


@dataclass(frozen=True, slots=True)
class Running:
    """Where an application is being served."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Return its address without a trailing slash."""
        return f"http://{self.host}:{self.port}"


async def serve_app(
    app: ASGIApp,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    stop: Callable[[], Awaitable[Any]] | None = None,
    task_status: trio.TaskStatus[Running] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled or until ``stop`` returns; reports where once it listens. Port 0 takes a free one."""
    config = Config()
    config.bind = [f"{host}:{port}"]
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.graceful_timeout = 1.0
    config.loglevel = "WARNING"
    config.accesslog = None
    config.include_server_header = False
    async with trio.open_nursery() as nursery:
        wait = stop or trio.sleep_forever
        binds = await nursery.start(
            lambda task_status: hypercorn.trio.serve(
                TitleCaseHeaders(app),  # type: ignore[arg-type]  # hypercorn names the same ASGI types its own way
                config,
                shutdown_trigger=wait,
                task_status=task_status,
                mode="asgi",
            )
        )
        bound = int(str(binds[0]).rpartition(":")[2])
        task_status.started(Running(host, bound))
