"""Runs applications for tests: real HTTP on loopback, ended with the nursery or with a block."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import trio
from starlette.types import ASGIApp

from artifactfs.server.run import Running, serve_app

# Longer than any start on a busy two-core machine.
START_S = 30.0


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[Running]:
    """Serve ``app`` on a free port of loopback while the block runs."""
    async with trio.open_nursery() as nursery:
        running = await nursery.start(serve_app, app)
        yield running
        nursery.cancel_scope.cancel()


class ServedInThread:
    """Something served while a block runs, in a thread of the test process, so that this may wait for a mount.

    Attributes:
        url: where, once the block has begun.
    """

    def __init__(self) -> None:
        """Prepare to serve."""
        self.url = ""
        self._stop = trio.Event()
        self._ready = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread = threading.Thread(target=lambda: trio.run(self._main), daemon=True)

    async def begin(self, nursery: trio.Nursery) -> str:
        """Start what is served in a nursery; return its address."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Serve."""
        self._thread.start()
        if not self._ready.wait(START_S):
            raise TimeoutError
        return self

    def __exit__(self, *_: object) -> None:
        """End serving."""
        if self._token is not None:
            self._token.run_sync_soon(self._stop.set)
        self._thread.join(START_S)

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as nursery:
            self.url = await self.begin(nursery)
            self._ready.set()
            await self._stop.wait()
            nursery.cancel_scope.cancel()
