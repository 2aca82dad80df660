"""The server as a whole: the three dialects on one origin, stored bytes on another.

Rules of this file: composition only. The storage origin has a port of its own because the services' object
stores are other origins too: a client that sends its token there is a client that leaks it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Mount, Route

from artifactfs.server import storage, syntropic137, vlmrun, vm0
from artifactfs.server.context import Context, Signer
from artifactfs.server.run import Running, serve_app

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from artifactfs.store.catalog import Store

# What a client of each service is given as the base URL, below this server's own address.
BASES = {
    "vm0": "/vm0",
    "vm0-snake": "/vm0-snake",
    "syntropic137": "/syntropic137",
    "syntropic137-a": "/syntropic137-a",
    "syntropic137-c": "/syntropic137-c",
    "vlmrun": "/vlmrun/v1",
}


@dataclass(frozen=True, slots=True)
class Serving:
    """Where a store is being served: ``main`` has the dialects, ``storage`` what their links lead to."""

    main: Running
    storage: Running

    @property
    def url(self) -> str:
        """Return the address of the dialects, without a trailing slash."""
        return self.main.url

    def bases(self) -> dict[str, str]:
        """Return the base URL of each dialect."""
        return {name: self.url + path for name, path in BASES.items()}


async def _index(request: Request) -> Response:
    here = str(request.base_url).rstrip("/")
    return JSONResponse({name: here + path for name, path in BASES.items()})


def build(store: Store, *, storage_url: str, token: str | None, signer: Signer | None = None) -> Starlette:
    """Return the dialects as an ASGI application.

    Args:
        store: what is served.
        storage_url: address of the storage origin, without a trailing slash.
        token: if set, requests must carry it.
        signer: the one that the storage origin checks links with; without it, links lead nowhere.
    """
    context = Context(token, storage_url, signer or Signer())
    routes: list[BaseRoute] = [
        Route("/", _index),
        Mount("/vm0", routes=vm0.routes(store, context)),
        Mount("/vm0-snake", routes=vm0.routes(store, context, use_snake=True)),
        Mount("/syntropic137", routes=syntropic137.routes(store, context)),
        Mount("/syntropic137-a", routes=syntropic137.routes(store, context, "A")),
        Mount("/syntropic137-c", routes=syntropic137.routes(store, context, "C")),
        Mount("/vlmrun", routes=vlmrun.routes(store, context)),
    ]
    return Starlette(routes=routes)


async def serve(
    store: Store,
    host: str = "127.0.0.1",
    port: int = 0,
    storage_port: int = 0,
    *,
    token: str | None = None,
    stop: Callable[[], Awaitable[object]] | None = None,
    task_status: trio.TaskStatus[Serving] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve a store on two ports until cancelled or until ``stop`` returns; reports where once both listen.

    Port 0 takes a free one. With ``stop``, answers under way are finished.
    """
    signer = Signer()
    async with trio.open_nursery() as nursery:
        start = nursery.start
        bytes_at = await start(partial(serve_app, storage.build(store, signer), host, storage_port, stop=stop))
        app = build(store, storage_url=bytes_at.url, token=token, signer=signer)
        main = await start(partial(serve_app, app, host, port, stop=stop))
        task_status.started(Serving(main, bytes_at))
