"""Runs applications for tests: real HTTP on loopback, ended with the nursery."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from starlette.types import ASGIApp

from artifactfs.server.run import Running, serve_app


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[Running]:
    """Serve ``app`` on a free port of loopback while the block runs."""
    async with trio.open_nursery() as nursery:
        running = await nursery.start(serve_app, app)
        yield running
        nursery.cancel_scope.cancel()
