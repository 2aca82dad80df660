"""Artifacts in the catalog: everything about them but their versions."""

from __future__ import annotations

import json
import secrets
import uuid as uuid_module
from typing import TYPE_CHECKING, Any

from artifactfs import errors
from artifactfs.store.database import Database, now_ns
from artifactfs.store.rows import StoredArtifact

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Random ids have 24 bits (art_ + 6 hex, the form agents and services use); a clash is drawn again.
ID_TRIES = 50

ARTIFACT_COLUMNS = (
    "id, uuid, workflow_id, run_id, phase, name, kind, role, media_type, created_at, updated_at,"
    " current, deleted, metadata"
)
ARTIFACT_WIDTH = len(ARTIFACT_COLUMNS.split(","))


def artifact_of(row: Sequence[Any]) -> StoredArtifact:
    """Return the artifact that the columns above say."""
    values = [*row[:12], bool(row[12]), json.loads(row[13])]
    return StoredArtifact(*values)


class Artifacts(Database):
    """What the catalog knows of artifacts."""

    def artifacts(self, workflow_id: str | None = None, *, deleted: bool = False) -> list[StoredArtifact]:
        """Return artifacts, oldest first, of one workflow or of all; the deleted ones too if asked for."""
        where, values = ("workflow_id=?", (workflow_id,)) if workflow_id is not None else ("1", ())
        rows = self._all(
            f"SELECT {ARTIFACT_COLUMNS} FROM artifact"  # noqa: S608 - constants
            f" WHERE {where} AND (NOT deleted OR ?) ORDER BY created_at, id",
            *values,
            deleted,
        )
        return [artifact_of(row) for row in rows]

    def artifacts_of_run(self, run_id: str) -> list[StoredArtifact]:
        """Return what a run left, oldest first."""
        rows = self._all(
            f"SELECT {ARTIFACT_COLUMNS} FROM artifact"  # noqa: S608 - a constant
            " WHERE run_id=? AND NOT deleted ORDER BY created_at, id",
            run_id,
        )
        return [artifact_of(row) for row in rows]

    def artifact(self, artifact_id: str) -> StoredArtifact | None:
        """Return one artifact by id or uuid, deleted ones too."""
        rows = self._all(
            f"SELECT {ARTIFACT_COLUMNS} FROM artifact WHERE id=? OR uuid=?",  # noqa: S608 - a constant
            artifact_id,
            artifact_id,
        )
        return artifact_of(rows[0]) if rows else None

    def artifacts_named(
        self, workflow_id: str, name: str, *, run_id: str | None = None, phase: str = ""
    ) -> list[StoredArtifact]:
        """Return the artifacts of exactly that name in one place, oldest first; services repeat titles."""
        rows = self._all(
            f"SELECT {ARTIFACT_COLUMNS} FROM artifact"  # noqa: S608 - a constant
            " WHERE workflow_id=? AND name=? AND run_id IS ? AND phase=? AND NOT deleted"
            " ORDER BY created_at, id",
            workflow_id,
            name,
            run_id,
            phase,
        )
        return [artifact_of(row) for row in rows]

    def add_artifact(  # noqa: PLR0913 - one column, one argument
        self,
        workflow_id: str,
        name: str,
        kind: str,
        *,
        artifact_id: str | None = None,
        uuid: str | None = None,
        run_id: str | None = None,
        phase: str = "",
        role: str = "artifact",
        media_type: str = "",
        created_at_ns: int | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> StoredArtifact:
        """Make an artifact without a version yet.

        Raises:
            AlreadyExists: the given id or uuid is taken.
            NotFound: there is no such workflow or run.
        """
        at = created_at_ns or now_ns()
        for _ in range(ID_TRIES):
            row = StoredArtifact(
                id=artifact_id or f"art_{secrets.token_hex(3)}",
                uuid=uuid or str(uuid_module.uuid4()),
                workflow_id=workflow_id,
                run_id=run_id,
                phase=phase,
                name=name,
                kind=kind,
                role=role,
                media_type=media_type,
                created_at_ns=at,
                updated_at_ns=at,
                current=0,
                metadata=dict(metadata or {}),
            )
            try:
                self._insert_artifact(row)
            except errors.AlreadyExists:
                if artifact_id or uuid:
                    raise
            else:
                return row
        raise errors.AlreadyExists("no free artifact id was found")

    def _insert_artifact(self, row: StoredArtifact) -> None:
        values = (
            row.id,
            row.uuid,
            row.workflow_id,
            row.run_id,
            row.phase,
            row.name,
            row.kind,
            row.role,
            row.media_type,
            row.created_at_ns,
            row.updated_at_ns,
            row.current,
            row.deleted,
            json.dumps(dict(row.metadata)),
        )
        with self.transaction() as db:
            db.execute(
                f"INSERT INTO artifact ({ARTIFACT_COLUMNS})"  # noqa: S608 - a constant
                f" VALUES ({', '.join('?' * ARTIFACT_WIDTH)})",
                values,
            )

    def rename_artifact(
        self,
        artifact_id: str,
        name: str,
        *,
        workflow_id: str | None = None,
        media_type: str | None = None,
        leave_run: bool = False,
    ) -> None:
        """Give an artifact another name, or workflow and type too; ``leave_run`` takes it out of run and phase.

        Raises:
            NotFound: there is no such workflow.
        """
        with self.transaction() as db:
            db.execute(
                "UPDATE artifact SET name=?, workflow_id=coalesce(?, workflow_id),"
                " media_type=coalesce(?, media_type) WHERE id=?",
                (name, workflow_id, media_type, artifact_id),
            )
            if leave_run:
                db.execute("UPDATE artifact SET run_id=NULL, phase='' WHERE id=?", (artifact_id,))

    def annotate_artifact(self, artifact_id: str, facts: Mapping[str, Any]) -> None:
        """Add facts to an artifact's metadata; those of the same name are replaced.

        Raises:
            NotFound: there is no such artifact.
        """
        with self.transaction() as db:
            artifact = self.artifact(artifact_id)
            if artifact is None:
                raise errors.NotFound(f"no artifact {artifact_id}", subject=artifact_id)
            metadata = json.dumps({**artifact.metadata, **facts})
            db.execute("UPDATE artifact SET metadata=? WHERE id=?", (metadata, artifact.id))

    def restore_artifact(self, artifact_id: str) -> None:
        """Bring an artifact that was taken out back into the present, as it was.

        Raises:
            AlreadyExists: another one has its name by now.
        """
        with self.transaction() as db:
            artifact = self.artifact(artifact_id)
            if artifact is None or not artifact.deleted:
                return
            where = artifact.workflow_id, artifact.name
            if self.artifacts_named(*where, run_id=artifact.run_id, phase=artifact.phase):
                raise errors.AlreadyExists("another artifact has its name by now", subject=artifact.name)
            db.execute("UPDATE artifact SET deleted=0, updated_at=? WHERE id=?", (now_ns(), artifact.id))

    def delete_artifact(self, artifact_id: str) -> None:
        """Take an artifact out of the present; its versions stay."""
        with self.transaction() as db:
            db.execute(
                "UPDATE artifact SET deleted=1, updated_at=? WHERE id=? AND NOT deleted",
                (now_ns(), artifact_id),
            )
