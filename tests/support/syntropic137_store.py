"""A store with what Syntropic137 would hold, and its dialect served on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from artifactfs.server import syntropic137
from artifactfs.server.context import Context
from artifactfs.store.catalog import Store
from artifactfs.store.rows import Run, StoredArtifact
from tests.support.serving import serving

START_NS = 1_777_629_600_000_000_000  # 2026-05-01 10:00:00 UTC
MINUTE_NS = 60 * 10**9


@dataclass
class Counting:
    """Wraps an application and keeps the target of each request, in order."""

    app: ASGIApp
    targets: list[str] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            query = scope["query_string"].decode()
            self.targets.append(scope["raw_path"].decode() + (f"?{query}" if query else ""))
        await self.app(scope, receive, send)

    def taken(self) -> list[str]:
        """Return what came since the last call."""
        found, self.targets[:] = list(self.targets), []
        return found


def add_run(
    store: Store, workflow_id: str, number: int, *, status: str = "completed", start_ns: int | None = None
) -> Run:
    """Add run ``exec-00000000000<number>``; each begins an hour after the one before and takes half of it."""
    began = start_ns if start_ns is not None else START_NS + number * 60 * MINUTE_NS
    ended = None if status == "running" else began + 30 * MINUTE_NS
    run = Run(f"exec-{number:012x}", f"run-uuid-{number}", workflow_id, status, began, ended)
    store.add_run(run)
    return run


def add_file(
    store: Store,
    workflow_id: str,
    name: str,
    data: bytes,
    *,
    run: Run | None = None,
    phase: str = "",
    at_ns: int | None = None,
) -> StoredArtifact:
    """Add a file, an output of a run if there is one."""
    at = at_ns if at_ns is not None else (run.started_at_ns + MINUTE_NS if run else START_NS)
    row = store.add_artifact(workflow_id, name, "file", run_id=run.id if run else None, phase=phase, created_at_ns=at)
    store.save_file(row.id, store.objects.put(data, durable=False), len(data), created_at_ns=at)
    return row


def make_store(root: Path) -> Store:
    """Return a store with one workflow ``wf-1`` named ``Research``, nothing in it yet."""
    store = Store(root)
    store.add_workflow("Research", workflow_id="wf-1", created_at_ns=START_NS)
    return store


@asynccontextmanager
async def dialect(
    store: Store, generation: str = "B", *, token: str | None = None, prefixed: bool = True
) -> AsyncIterator[tuple[str, Counting]]:
    """Serve a store; gives the address without ``/api/v1`` and what counts the requests.

    With ``prefixed=False`` there is no ``/api/v1``, as at the bare API.
    """
    routes = syntropic137.routes(store, Context(token, ""), generation)
    app: ASGIApp = Starlette(routes=[Mount("/syn", routes=routes)])
    if not prefixed:
        app = WithoutPrefix(app)
    counting = Counting(app)
    async with serving(counting) as running:
        yield f"{running.url}/syn", counting


class WithoutPrefix:
    """Answers what is below ``/api/v1`` as the bare API does, which has no such route."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": scope["path"].replace("/api/v1/", "/no-such-route/")}
        await self.app(scope, receive, send)
