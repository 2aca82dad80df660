"""The store in the dialect of Syntropic137, in three generations of its contract.

Rules of this file: only puts together routes; what an endpoint answers stands in
``syntropic137_artifacts``, ``_runs`` and ``_events``. Generation A is 0.18.0; B is 0.19 to 0.25.4, the
released one; C is what came after. Every route exists with the gateway's prefix ``/api/v1`` and without it,
as at the bare API. With a token each route asks for it, as Bearer or as the password of Basic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from artifactfs.server.syntropic137_artifacts import MAX_UPLOAD, ArtifactEndpoints
from artifactfs.server.syntropic137_events import Events
from artifactfs.server.syntropic137_records import Records
from artifactfs.server.syntropic137_runs import RunEndpoints
from artifactfs.server.syntropic137_wire import Guard, Refused, bounded, endpoint, http_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from artifactfs.server.context import Context
    from artifactfs.store.catalog import Store

GENERATIONS = ("A", "B", "C")
PREFIX = "/api/v1"
UPLOAD_TOO_LARGE = "Upload exceeds maximum size of 50 MB"
# Boundaries, headers and other parts of a multipart body, generously.
MULTIPART_MARGIN = 1024 * 1024


def routes(store: Store, context: Context, generation: str = "B") -> list[BaseRoute]:
    """Return the routes of the dialect, to be mounted wherever it is to be served.

    Args:
        store: what is served.
        context: who may ask.
        generation: ``A``, ``B`` or ``C``.

    Raises:
        ValueError: there is no such generation.
    """
    if generation not in GENERATIONS:
        raise ValueError(f"the generations are {', '.join(GENERATIONS)}, not {generation!r}")
    records = Records(store, prefixes=generation != "A")
    flat = [*_artifact_routes(records, generation), *_run_routes(records, generation)]
    app = Starlette(
        routes=[Mount(PREFIX, routes=flat), *flat],
        exception_handlers={HTTPException: http_error},
        middleware=[Middleware(Guard, context=context)],
    )
    return [Mount("", app=app)]


def _artifact_routes(records: Records, generation: str) -> list[BaseRoute]:
    artifacts = ArtifactEndpoints(records, generation)
    one = "/artifacts/{artifact_id}"
    found: list[BaseRoute] = [
        _get("/artifacts", artifacts.list),
        Route("/artifacts", endpoint(artifacts.create), methods=["POST"]),
        _get(f"{one}/content", artifacts.content),
        Route(f"{one}/upload", _upload(artifacts), methods=["POST"]),
        _get(one, artifacts.detail),
    ]
    if generation != "A":
        found.append(Route(one, endpoint(artifacts.update), methods=["PUT"]))
        found.append(Route(one, endpoint(artifacts.delete), methods=["DELETE"]))
    return found


def _run_routes(records: Records, generation: str) -> list[BaseRoute]:
    runs, events = RunEndpoints(records, generation), Events(records)
    return [
        _get("/", runs.root),
        _get("/health", runs.health),
        _get("/metrics", runs.metrics),
        _get("/workflows", runs.workflows),
        _get("/workflows/{workflow_id}", runs.workflow),
        _get("/workflows/{workflow_id}/runs", runs.runs_of),
        _get("/executions", runs.executions),
        _get("/executions/{execution_id}", runs.execution),
        _get("/sessions", runs.sessions),
        _get("/sessions/{session_id}", runs.session),
        _get("/sse/health", runs.health),
        _ExactGet("/sse/activity", events.activity),
        _ExactGet("/sse/executions/{execution_id}", events.execution),
    ]


class _ExactGet(Route):
    """GET without the HEAD that Starlette adds: at the service it is 405."""

    def __init__(self, path: str, serve: Callable[[Request], Awaitable[Response]]) -> None:
        super().__init__(path, serve, methods=["GET"])
        self.methods = {"GET"}


def _get(path: str, handler: Any) -> BaseRoute:  # noqa: ANN401 - a wire.Handler; methods of classes are
    return _ExactGet(path, endpoint(handler))


def _upload(artifacts: ArtifactEndpoints) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint that takes ``multipart/form-data`` with one file, read whole."""

    async def serve(request: Request) -> Response:
        artifact_id = request.path_params["artifact_id"]
        try:
            data = await _file_of(bounded(request, MAX_UPLOAD + MULTIPART_MARGIN, UPLOAD_TOO_LARGE))
            return await trio.to_thread.run_sync(artifacts.upload, artifact_id, data)
        except Refused as refused:
            return refused.response()
        except ClientDisconnect:
            return Response(status_code=400)

    return serve


async def _file_of(request: Request) -> bytes:
    """Return the bytes of the part ``file``.

    Raises:
        Refused: 413, or 422 if there is no such part or it has no file name.
    """
    async with request.form() as form:
        part = form.get("file")
        if part is None:
            raise Refused(422, [{"type": "missing", "loc": ["body", "file"], "msg": "Field required", "input": None}])
        if not isinstance(part, UploadFile):
            problem = "Value error, Expected UploadFile, received: <class 'str'>"
            detail = {"type": "value_error", "loc": ["body", "file"], "msg": problem, "input": part}
            raise Refused(422, [{**detail, "ctx": {"error": {}}}])
        data = await part.read()
    if len(data) > MAX_UPLOAD:
        raise Refused(413, UPLOAD_TOO_LARGE)
    return data
