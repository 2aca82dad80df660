"""Servers made for misbehaving, in a thread of the test process: a mount is another process and can be waited for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from artifactfs.server.run import serve_app
from tests.support.lab import Mounted, mounted, service_source
from tests.support.serving import ServedInThread


class Served(ServedInThread):
    """An application served on loopback while a block runs."""

    def __init__(self, app: ASGIApp) -> None:
        """Prepare to serve ``app``."""
        super().__init__()
        self.app = app

    async def begin(self, nursery: trio.Nursery) -> str:
        """Serve it."""
        url: str = (await nursery.start(serve_app, self.app)).url
        return url


def uuid_of(name: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-8{digest[17:20]}-{digest[20:32]}"


def vm0_of_archives(archives: Mapping[str, Callable[[], bytes]]) -> Starlette:
    """Serve archives, made when they are asked for, as VM0 does: each the one version of the artifact of its name."""
    versions = {name: hashlib.sha256(f"version of {name}".encode()).hexdigest() for name in archives}
    by_id = {uuid_of(name): name for name in archives}
    by_version = {version: name for name, version in versions.items()}

    def row(name: str) -> dict[str, Any]:
        times = {"createdAt": "2026-02-03T08:00:00Z", "updatedAt": "2026-02-03T08:00:00Z"}
        return {
            "id": uuid_of(name),
            "name": name,
            "currentVersionId": versions[name],
            "size": 1,
            "fileCount": 1,
            **times,
        }

    async def index(_request: Request) -> Response:
        pagination = {"hasMore": False, "nextCursor": None}
        return JSONResponse({"data": [row(name) for name in archives], "pagination": pagination})

    async def detail(request: Request) -> Response:
        return JSONResponse(row(by_id[request.path_params["id"]]))

    async def all_versions(request: Request) -> Response:
        version = {"id": versions[by_id[request.path_params["id"]]], "createdAt": "2026-02-03T08:00:00Z"}
        return JSONResponse({"data": [version], "pagination": {"hasMore": False, "nextCursor": None}})

    async def download(request: Request) -> Response:
        version = versions[by_id[request.path_params["id"]]]
        return RedirectResponse(f"{request.base_url}bucket/{version}/archive.tar.gz?X-Amz-Signature=1", 302)

    async def archive(request: Request) -> Response:
        data = archives[by_version[request.path_params["version"]]]()
        return Response(data, media_type="application/gzip")

    return Starlette(
        routes=[
            Route("/v1/artifacts", index),
            Route("/v1/artifacts/{id}", detail),
            Route("/v1/artifacts/{id}/versions", all_versions),
            Route("/v1/artifacts/{id}/download", download),
            Route("/bucket/{version}/archive.tar.gz", archive),
        ]
    )


@contextmanager
def mounted_archives(
    base: Path, archives: Mapping[str, Callable[[], bytes]], *, extra_config: str = ""
) -> Iterator[Mounted]:
    """Mount archives as the artifacts of one source, which is the root."""
    with (
        Served(vm0_of_archives(archives)) as served,
        mounted(base, {"vm0": service_source("vm0", served.url)}, extra_config=extra_config) as mount,
    ):
        yield mount
