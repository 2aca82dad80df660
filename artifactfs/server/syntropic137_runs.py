"""Workflows, executions, sessions and counts of the Syntropic137 dialect.

Rules of this file: one method for each endpoint, synchronous, called in threads. Both spellings of a time
(``T`` and a space) stand in one answer, as they do at the service (measured, May 2026).
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from artifactfs.server.syntropic137_records import Records, Session, moment
from artifactfs.server.syntropic137_schemas import ExecutionsQuery, SessionsQuery, WorkflowsQuery
from artifactfs.server.syntropic137_wire import Asked, Refused, answer, parse_query, server_fault

if TYPE_CHECKING:
    from starlette.responses import Response

    from artifactfs.store.rows import Run, Workflow


def _times(started_at_ns: int, completed_at_ns: int | None) -> dict[str, str | None]:
    completed = None if completed_at_ns is None else str(moment(completed_at_ns))
    return {"started_at": moment(started_at_ns).isoformat(), "completed_at": completed}


def _clock(name: str, value: str | None) -> datetime | None:
    """Return a time of the query.

    Raises:
        Refused: 422, it is none.
    """
    if not value:
        return None
    try:
        return datetime.fromisoformat(value)
    except ValueError as error:
        detail = {
            "type": "datetime_from_date_parsing",
            "loc": ["query", name],
            "msg": "Input should be a valid datetime",
        }
        raise Refused(422, [{**detail, "input": value}]) from error


class RunEndpoints:
    """The endpoints round the artifacts, of one generation over one store."""

    def __init__(self, records: Records, generation: str) -> None:
        """Serve ``records`` as ``generation`` (A, B or C) would."""
        self.records = records
        self.store = records.store
        self.generation = generation

    # -- workflows -------------------------------------------------------------------------------------------

    def workflows(self, asked: Asked) -> Response:
        """``GET /workflows``.

        Up to 0.25.4 a page is sliced twice: any but the first is empty, and the total is its length.
        """
        query = parse_query(WorkflowsQuery, asked)
        span = slice((query.page - 1) * query.page_size, query.page * query.page_size)
        known = self.records.workflows()
        runs = self.store.runs()
        page = known[span] if self.generation == "C" else known[span][span]
        rows = [self._workflow(workflow, [run for run in runs if run.workflow_id == workflow.id]) for workflow in page]
        total = len(known) if self.generation == "C" else len(rows)
        return answer({"workflows": rows, "total": total, "page": query.page, "page_size": query.page_size})

    def _workflow(self, workflow: Workflow, runs: list[Run]) -> dict[str, Any]:
        phases = {session.phase for session in self.records.sessions(workflow.id)} if runs else set()
        created = str(moment(workflow.created_at_ns)) if self.generation == "C" else None
        return {
            "id": workflow.id,
            "name": workflow.name,
            "workflow_type": "custom",
            "phase_count": len(phases),
            "created_at": created,
            "runs_count": len(runs),
            "is_archived": False,
            "requires_repos": True,
        }

    def workflow(self, asked: Asked) -> Response:
        """``GET /workflows/{id}``."""
        workflow = self.records.workflow(asked.path["workflow_id"])
        row = self._workflow(workflow, self.store.runs(workflow.id))
        shared = ("id", "name", "workflow_type", "created_at", "runs_count", "requires_repos")
        phases = dict.fromkeys(session.phase for session in reversed(self.records.sessions(workflow.id)))
        return answer(
            {
                **{key: row[key] for key in shared},
                "description": workflow.description,
                "classification": "standard",
                "phases": [self._phase(phase, order) for order, phase in enumerate(phases, 1)],
                "input_declarations": [],
                "runs_link": f"/workflows/{workflow.id}/runs",
                "repository_url": "",
                "repos": [],
            }
        )

    @staticmethod
    def _phase(phase: str, order: int) -> dict[str, Any]:
        names = {"phase_id": phase, "name": phase, "order": order}
        return {**names, "description": "", "agent_type": "", "prompt_template": ""}

    def runs_of(self, asked: Asked) -> Response:
        """``GET /workflows/{id}/runs``: all, newest first."""
        workflow = self.records.workflow(asked.path["workflow_id"])
        sessions = self.records.sessions(workflow.id)
        rows = [self._execution(run, sessions, workflow.name) for run in self.store.runs(workflow.id)]
        names = {"workflow_id": workflow.id, "workflow_name": workflow.name}
        return answer({"runs": rows, "total": len(rows), **names})

    # -- executions ------------------------------------------------------------------------------------------

    def _execution(self, run: Run, sessions: list[Session], name: str) -> dict[str, Any]:
        own = [session for session in sessions if session.run.id == run.id]
        return {
            "workflow_execution_id": run.id,
            "workflow_id": run.workflow_id,
            "workflow_name": name,
            "status": run.status,
            **_times(run.started_at_ns, run.completed_at_ns),
            "completed_phases": sum(session.status == "completed" for session in own),
            "total_phases": len(own),
            "error_message": None,
            "repos": [],
        }

    def executions(self, asked: Asked) -> Response:
        """``GET /executions``: newest first; ``total`` is the number of rows on this page."""
        query = parse_query(ExecutionsQuery, asked)
        runs = [run for run in self.store.runs() if not query.status or run.status == query.status]
        page = runs[(query.page - 1) * query.page_size : query.page * query.page_size]
        sessions, names = self.records.sessions(), self.records.names()
        rows = [self._execution(run, sessions, names.get(run.workflow_id, "")) for run in page]
        return answer({"executions": rows, "total": len(rows), "page": query.page, "page_size": query.page_size})

    def execution(self, asked: Asked) -> Response:
        """``GET /executions/{id}``; it names only the first artifact of each phase."""
        asked_id = asked.path["execution_id"]
        run = self.store.run(asked_id)
        if run is None or run.id != asked_id:
            raise Refused(404, f"Execution not found: {asked_id}")
        sessions = self.records.sessions(run.workflow_id)
        phases = [
            {
                "phase_id": session.phase,
                "name": session.phase,
                "status": session.status,
                "session_id": session.id,
                "artifact_id": self.records.first_of(session),
                **_times(session.started_at_ns, session.completed_at_ns),
                "error_message": None,
            }
            for session in reversed(sessions)
            if session.run.id == run.id
        ]
        row = self._execution(run, sessions, self.records.names().get(run.workflow_id, ""))
        first = [phase["artifact_id"] for phase in phases if phase["artifact_id"]]
        return answer({**row, "phases": phases, "artifact_ids": first})

    # -- sessions --------------------------------------------------------------------------------------------

    @staticmethod
    def _session(session: Session, name: str) -> dict[str, Any]:
        return {
            "id": session.id,
            "workflow_id": session.run.workflow_id,
            "workflow_name": name,
            "execution_id": session.run.id,
            "phase_id": session.phase,
            "phase_display": session.phase,
            "status": session.status,
            **_times(session.started_at_ns, session.completed_at_ns),
        }

    def sessions(self, asked: Asked) -> Response:
        """``GET /sessions``: newest first, no offset; time filters since 0.19, a naive time is a fault."""
        query = parse_query(SessionsQuery, asked)
        bounds = (
            _clock("started_after", query.started_after),
            _clock("started_before", query.started_before),
        )
        if self.generation == "A":
            bounds = (None, None)
        after, before = bounds
        if any(bound is not None and bound.tzinfo is None for bound in bounds):
            return server_fault()
        wanted = {query.status} if query.status else set(filter(None, (query.statuses or "").split(",")))
        names = self.records.names()
        rows = [
            self._session(session, names.get(session.run.workflow_id, ""))
            for session in self.records.sessions(query.workflow_id or None)
            if (not wanted or session.status in wanted)
            and (after is None or moment(session.started_at_ns) >= after)
            and (before is None or moment(session.started_at_ns) <= before)
        ]
        rows = rows[: query.limit]
        return answer({"sessions": rows, "total": len(rows)})

    def session(self, asked: Asked) -> Response:
        """``GET /sessions/{id}``."""
        asked_id = asked.path["session_id"]
        found = next((session for session in self.records.sessions() if session.id == asked_id), None)
        if found is None:
            raise Refused(404, f"Session not found: {asked_id}")
        row = self._session(found, self.records.names().get(found.run.workflow_id, ""))
        return answer({**row, "operations": [], "error_message": None})

    # -- counts ----------------------------------------------------------------------------------------------

    def metrics(self, _asked: Asked) -> Response:
        """``GET /metrics``: artifacts ever made, deleted ones too, of all workflows whatever is asked."""
        return answer(
            {
                "total_workflows": len(self.records.workflows()),
                "total_executions": len(self.store.runs()),
                "total_sessions": len(self.records.sessions()),
                "total_artifacts": sum(1 for _ in self.records.artifacts(deleted=True)),
            }
        )

    def health(self, _asked: Asked) -> Response:
        """``GET /health``."""
        return answer({"status": "healthy", "mode": "full"})

    def root(self, _asked: Asked) -> Response:
        """``GET /``; the version is the one the API reports, which is that of no release."""
        return answer({"name": "Syntropic137 API", "version": "0.5.1", "docs": "/docs", "health": "/health"})
