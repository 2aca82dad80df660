"""Workflows and runs in the catalog."""

from __future__ import annotations

import json
import uuid as uuid_module
from typing import TYPE_CHECKING, Any

from artifactfs import errors
from artifactfs.store.database import Database, now_ns
from artifactfs.store.rows import Run, Workflow

if TYPE_CHECKING:
    from collections.abc import Sequence

WORKFLOW_COLUMNS = "id, name, created_at, description"
RUN_COLUMNS = "id, uuid, workflow_id, status, started_at, completed_at, response"


def _run(row: Sequence[Any]) -> Run:
    values = [*row[:6], json.loads(row[6]) if row[6] else None]
    return Run(*values)


class Workflows(Database):
    """What the catalog knows of workflows and runs."""

    def workflows(self) -> list[Workflow]:
        """Return all workflows, oldest first."""
        rows = self._all(
            f"SELECT {WORKFLOW_COLUMNS} FROM workflow WHERE NOT deleted ORDER BY created_at, id"  # noqa: S608 - a constant
        )
        return [Workflow(*row) for row in rows]

    def workflow(self, workflow_id: str) -> Workflow | None:
        """Return one workflow by id; None also if it was removed."""
        rows = self._all(
            f"SELECT {WORKFLOW_COLUMNS} FROM workflow WHERE id=? AND NOT deleted",  # noqa: S608 - a constant
            workflow_id,
        )
        return Workflow(*rows[0]) if rows else None

    def workflows_named(self, name: str) -> list[Workflow]:
        """Return the workflows of exactly that name, oldest first; services repeat names."""
        rows = self._all(
            f"SELECT {WORKFLOW_COLUMNS} FROM workflow"  # noqa: S608 - a constant
            " WHERE name=? AND NOT deleted ORDER BY created_at, id",
            name,
        )
        return [Workflow(*row) for row in rows]

    def last_changes(self) -> dict[str, int]:
        """Return when something in a workflow last changed, in ns, by workflow id; empty ones are missing."""
        rows = self._all(
            "SELECT workflow_id, max(at) FROM ("
            " SELECT workflow_id, updated_at AS at FROM artifact"
            " UNION ALL SELECT workflow_id, coalesce(completed_at, started_at) FROM run"
            ") GROUP BY workflow_id"
        )
        return {workflow_id: at for workflow_id, at in rows}  # noqa: C416 - says which is which

    def add_workflow(
        self,
        name: str,
        *,
        workflow_id: str | None = None,
        created_at_ns: int | None = None,
        description: str = "",
    ) -> Workflow:
        """Make a workflow.

        Raises:
            AlreadyExists: the given id is taken.
        """
        row = Workflow(
            str(uuid_module.uuid4()) if workflow_id is None else workflow_id,
            name,
            created_at_ns or now_ns(),
            description,
        )
        with self.transaction() as db:
            db.execute(
                "INSERT INTO workflow (id, name, created_at, description) VALUES (?, ?, ?, ?)",
                (row.id, row.name, row.created_at_ns, row.description),
            )
        return row

    def rename_workflow(self, workflow_id: str, name: str) -> None:
        """Give a workflow another name."""
        with self.transaction() as db:
            db.execute("UPDATE workflow SET name=? WHERE id=?", (name, workflow_id))

    def remove_workflow(self, workflow_id: str) -> None:
        """Take an empty workflow out of the present.

        Raises:
            DirectoryNotEmpty: artifacts are in it.
        """
        with self.transaction() as db:
            if self._all("SELECT 1 FROM artifact WHERE workflow_id=? AND NOT deleted LIMIT 1", workflow_id):
                raise errors.DirectoryNotEmpty("the workflow has artifacts", subject=workflow_id)
            db.execute("UPDATE workflow SET deleted=1 WHERE id=?", (workflow_id,))

    def runs(self, workflow_id: str | None = None) -> list[Run]:
        """Return runs, newest first, of one workflow or of all."""
        where, values = ("WHERE workflow_id=?", (workflow_id,)) if workflow_id is not None else ("", ())
        rows = self._all(
            f"SELECT {RUN_COLUMNS} FROM run {where} ORDER BY started_at DESC, id",  # noqa: S608 - constants
            *values,
        )
        return [_run(row) for row in rows]

    def run(self, run_id: str) -> Run | None:
        """Return one run by id or uuid."""
        rows = self._all(
            f"SELECT {RUN_COLUMNS} FROM run WHERE id=? OR uuid=?",  # noqa: S608 - a constant
            run_id,
            run_id,
        )
        return _run(rows[0]) if rows else None

    def add_run(self, run: Run) -> None:
        """Keep a run; one that is there already is replaced.

        Raises:
            NotFound: there is no such workflow.
            AlreadyExists: another run has that uuid.
        """
        response = None if run.response is None else json.dumps(run.response)
        with self.transaction() as db:
            db.execute(
                f"INSERT INTO run ({RUN_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - a constant
                " ON CONFLICT (id) DO UPDATE SET uuid=excluded.uuid, workflow_id=excluded.workflow_id,"
                " status=excluded.status, started_at=excluded.started_at, completed_at=excluded.completed_at,"
                " response=excluded.response",
                (
                    run.id,
                    run.uuid,
                    run.workflow_id,
                    run.status,
                    run.started_at_ns,
                    run.completed_at_ns,
                    response,
                ),
            )
