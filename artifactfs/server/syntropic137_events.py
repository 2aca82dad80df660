"""The live events of the Syntropic137 dialect: server-sent events, found by polling the store.

Rules of this file: frames have ``data:`` lines only, no id, so nothing is replayed: what came to pass
before a client connected it must list (service source, May 2026). Announced are runs and what they made;
artifacts made by POST, renames, uploads and deletes are not, as at the service. Several servers may share a
store, so the catalog is the one place to look.
"""

from __future__ import annotations

import json
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import trio
from starlette.responses import StreamingResponse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Send

    from artifactfs.server.syntropic137_records import Record, Records
    from artifactfs.store.rows import Run

# How long an event may wait before it is seen, in seconds; a look costs a few queries.
POLL_S = 1.0
# The service's own pause between comments on an idle stream, in seconds (service source, May 2026).
KEEPALIVE_S = 30.0
KEEPALIVE = ": keepalive\n\n"
ENDINGS = {"completed": "WorkflowCompleted", "failed": "WorkflowFailed"}
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def frame(kind: str, event_type: str, execution_id: str | None, data: dict[str, Any]) -> str:
    """Return one frame; ``kind`` is ``connected``, ``event`` or ``terminal``."""
    body = {
        "type": kind,
        "event_type": event_type,
        "execution_id": execution_id,
        "data": data,
        "timestamp": datetime.now(UTC).isoformat(),
    }
    return f"data: {json.dumps(body)}\n\n"


class EventStream(StreamingResponse):
    """A stream whose source is closed with it, also when the client goes while a frame is being sent."""

    def __init__(self, source: AsyncGenerator[str]) -> None:
        """Send what ``source`` gives."""
        super().__init__(source, headers=HEADERS, media_type="text/event-stream")
        self._source = source

    async def stream_response(self, send: Send) -> None:
        """Send everything."""
        async with aclosing(self._source):
            await super().stream_response(send)


class Events:
    """The event streams over one store."""

    def __init__(self, records: Records) -> None:
        """Watch ``records``."""
        self.records = records
        self.store = records.store

    async def activity(self, _request: Request) -> Response:
        """``GET /sse/activity``: beginnings and ends of runs."""
        return EventStream(self._activity())

    async def execution(self, request: Request) -> Response:
        """``GET /sse/executions/{id}``: what one run makes, until it ends."""
        return EventStream(self._execution(request.path_params["execution_id"]))

    async def _activity(self) -> AsyncGenerator[str]:
        known = await trio.to_thread.run_sync(self._statuses)
        yield frame("connected", "connected", None, {})
        quiet_s = 0.0
        while True:
            frames = await trio.to_thread.run_sync(self._lifecycle, known)
            for text in frames:
                yield text
            quiet_s = 0.0 if frames else quiet_s + POLL_S
            if quiet_s >= KEEPALIVE_S:
                quiet_s = 0.0
                yield KEEPALIVE
            await trio.sleep(POLL_S)

    async def _execution(self, execution_id: str) -> AsyncGenerator[str]:
        known: set[str] = set()
        await trio.to_thread.run_sync(self._outputs, execution_id, known)
        yield frame("connected", "connected", execution_id, {})
        quiet_s = 0.0
        while True:
            frames, ending = await trio.to_thread.run_sync(self._outputs, execution_id, known)
            for text in frames:
                yield text
            if ending is not None:
                yield ending
                return
            quiet_s = 0.0 if frames else quiet_s + POLL_S
            if quiet_s >= KEEPALIVE_S:
                quiet_s = 0.0
                yield KEEPALIVE
            await trio.sleep(POLL_S)

    def _made(self, run: Run) -> list[Record]:
        rows = (self.records.record(artifact) for artifact in self.store.artifacts_of_run(run.id))
        return [row for row in rows if row is not None and row.by_engine]

    def _statuses(self) -> dict[str, str]:
        return {run.id: run.status for run in self.store.runs()}

    def _lifecycle(self, known: dict[str, str]) -> list[str]:
        """Return a frame for each run that began or ended since ``known``, which is brought up to date.

        The execution stands in the data only; at the end the data names all artifacts of the run.
        """
        frames = []
        for run in reversed(self.store.runs()):
            before, known[run.id] = known.get(run.id), run.status
            facts = {"execution_id": run.id, "workflow_id": run.workflow_id}
            if before is None:
                frames.append(frame("event", "WorkflowExecutionStarted", None, facts))
            if run.status in ENDINGS and before != run.status:
                made = [row.id for row in self._made(run)]
                frames.append(frame("event", ENDINGS[run.status], None, {**facts, "artifact_ids": made}))
        return frames

    def _outputs(self, execution_id: str, known: set[str]) -> tuple[list[str], str | None]:
        """Return a frame for each artifact of the run that is not ``known``, and the last one if it ended."""
        # The run first: what it made before it ended is then certainly found.
        run = self.store.run(execution_id)
        if run is None or run.id != execution_id:
            return [], None
        fresh = [row for row in self._made(run) if row.id not in known]
        known.update(row.id for row in fresh)
        frames = [frame("event", "ArtifactCreated", run.id, self._created(row)) for row in fresh]
        if run.status not in ENDINGS:
            return frames, None
        facts = {"execution_id": run.id, "workflow_id": run.workflow_id}
        return frames, frame("terminal", ENDINGS[run.status], run.id, facts)

    def _created(self, row: Record) -> dict[str, Any]:
        """Return the whole event, which says more than any answer of the API."""
        return {
            "artifact_id": row.id,
            "workflow_id": row.artifact.workflow_id,
            "phase_id": row.artifact.phase,
            "execution_id": row.artifact.run_id,
            "session_id": row.session_id,
            "artifact_type": row.type,
            "content_type": "text/markdown",
            "content": self.records.content(row) or "",
            "content_hash": row.created.sha256,
            "size_bytes": row.created.size,
            "title": row.title,
            "storage_uri": None,
            "is_primary_deliverable": True,
            "derived_from": [],
            "metadata": {},
        }
