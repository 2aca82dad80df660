"""The VLM Run dialect: executions, the artifacts of executions and sessions, predictions, health.

Rules of this file: answers are shaped as the Python SDK 0.9.2 and the Node SDK 1.3.6 need them: bare
arrays, ``usage`` always an object, content types without parameters, errors as ``{"detail": text}``. Bytes
go from the disk to the socket in pieces. An execution's id is good as a session's id too, since the store
has no sessions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from artifactfs.server import vlmrun_files
from artifactfs.server.vlmrun_links import Links
from artifactfs.server.vlmrun_objects import (
    ListedObject,
    content_of,
    execution_json,
    objects_of,
    run_of,
)
from artifactfs.server.vlmrun_wire import Json, Refusal, file_response, guarded, page

if TYPE_CHECKING:
    from starlette.requests import Request

    from artifactfs.server.context import Context
    from artifactfs.server.vlmrun_wire import Endpoint
    from artifactfs.store.catalog import Store
    from artifactfs.store.rows import Run

# A stored URL is one line; no browser takes longer ones than this, in bytes.
MAX_URL_BYTES = 64 * 1024


def routes(store: Store, context: Context) -> list[BaseRoute]:
    """Return the dialect's routes, to be mounted under a prefix of the server's choice."""
    dialect = Dialect(store, context)

    def get(path: str, endpoint: Endpoint) -> Route:
        return Route(path, guarded(context, endpoint), methods=["GET"])

    return [
        get("/v1/health", dialect.health),
        get("/v1/artifacts", dialect.artifact),
        get("/v1/artifacts/list", dialect.artifact_list),
        get("/v1/agent/executions", dialect.executions),
        get("/v1/agent/executions/{id}", dialect.execution),
        get("/v1/predictions", dialect.predictions),
        *vlmrun_files.routes(store, context),
    ]


class Dialect:
    """Answers what is read; what is uploaded is in ``vlmrun_files``."""

    def __init__(self, store: Store, context: Context) -> None:
        """Answer from ``store``."""
        self._store = store
        self._links = Links(context)

    def health(self, _request: Request) -> Response:
        """Say that the key is good: the SDK asks this when it is made."""
        return Json({"status": "ok"})

    def executions(self, request: Request) -> Response:
        """Return one page of runs, newest first, as a bare array."""
        skip, limit = page(request)
        names = {workflow.id: workflow.name for workflow in self._store.workflows()}
        rows = self._store.runs()[skip : skip + limit]
        return Json([execution_json(run, names.get(run.workflow_id, "")) for run in rows])

    def execution(self, request: Request) -> Response:
        """Return one run."""
        run = run_of(self._store, request.path_params["id"])
        if run is None:
            raise Refusal(404, "Agent execution not found")
        workflow = self._store.workflow(run.workflow_id)
        return Json(execution_json(run, workflow.name if workflow else ""))

    def predictions(self, request: Request) -> Response:
        """Return no predictions: the store keeps none."""
        page(request)
        return Json([])

    def artifact_list(self, request: Request) -> Response:
        """Return what a run left; the service gives neither sizes nor times here."""
        run = self._namespace(request)
        items = [found.as_json() for found in objects_of(self._store, run)]
        return Json({"namespace_id": run.uuid, "items": items})

    def artifact(self, request: Request) -> Response:
        """Return the bytes of an object; of a ``url_`` object, the address of its bytes."""
        object_id, filename = request.query_params.get("object_id"), request.query_params.get("filename")
        if (object_id is None) == (filename is None):
            raise Refusal(400, "Exactly one of object_id and filename is required")
        run = self._namespace(request)
        found = self._find(run, object_id, filename)
        version = content_of(self._store, found) if found else None
        if found is None or version is None or version.sha256 is None:
            raise Refusal(404, "Artifact not found")
        if found.object_id.startswith("url_") and found.source == "store":
            stored = self._store.objects.path(version.sha256).read_bytes()[:MAX_URL_BYTES]
            return Response(
                self._links.absolute(request, stored), media_type=None, headers={"content-type": "text/plain"}
            )
        return file_response(self._store, version.sha256, found.media_type)

    def _namespace(self, request: Request) -> Run:
        session, execution = request.query_params.get("session_id"), request.query_params.get("execution_id")
        namespace = session if execution is None else execution
        if namespace is None or (session is not None and execution is not None):
            raise Refusal(400, "Exactly one of session_id and execution_id is required")
        run = run_of(self._store, namespace)
        if run is None:
            raise Refusal(404, "No artifacts of this session or execution were found")
        return run

    def _find(self, run: Run, object_id: str | None, filename: str | None) -> ListedObject | None:
        """Return an object by id or name; of several with one name the newest, as in a workspace."""
        rows = objects_of(self._store, run)
        if filename is not None:
            return next((row for row in reversed(rows) if row.filename == filename), None)
        return next((row for row in rows if row.object_id == object_id), None)
