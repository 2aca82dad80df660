"""The artifact endpoints of the Syntropic137 dialect.

Rules of this file: one method for each endpoint, synchronous, called in threads; what a client of the real
service must cope with is done here on purpose and said where it is done (service source and measurements,
May 2026). Generation A is 0.18.0, B is 0.19 to 0.25.4, C is what came after.
"""

from __future__ import annotations

import contextlib
import itertools
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

from artifactfs import errors
from artifactfs.server.syntropic137_records import (
    IMPLIED,
    OUTPUT,
    TITLE,
    TYPE,
    UPLOADED,
    Record,
    Records,
    moment,
)
from artifactfs.server.syntropic137_schemas import (
    ArtifactsQuery,
    CreateBody,
    DetailQuery,
    PagedArtifactsQuery,
    UpdateBody,
)
from artifactfs.server.syntropic137_wire import Asked, Refused, answer, parse_body, parse_query, server_fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.responses import Response

TYPES = (
    "research_summary",
    "analysis_report",
    "plan",
    "requirements",
    "design_doc",
    "code",
    "configuration",
    "script",
    "documentation",
    "readme",
    "api_spec",
    "test_results",
    "coverage_report",
    "text",
    "markdown",
    "json",
    "yaml",
    "execution_report",
    "other",
    "github_commit",
    "github_pr",
    "github_issue",
    "github_file",
    "github_branch",
    "url",
    "file_path",
)
# Generation A knew three of the types and took every other for the first.
OLD_TYPES = {"research_summary": "research_summary", "code": "code", "document": "documentation"}
MAX_UPLOAD = 50 * 1024 * 1024
RETRY_AFTER_S = 2


def summary(record: Record, *, dated: bool) -> dict[str, Any]:
    """Return an artifact as lists show it; without ``dated`` its time is null, as it is up to 0.25.4."""
    return {
        "id": record.id,
        "workflow_id": record.artifact.workflow_id,
        "phase_id": record.artifact.phase,
        "artifact_type": record.type,
        "title": record.title,
        "size_bytes": record.created.size,
        "created_at": str(moment(record.artifact.created_at_ns)) if dated else None,
    }


class ArtifactEndpoints:
    """The artifact endpoints of one generation over one store."""

    def __init__(self, records: Records, generation: str) -> None:
        """Serve ``records`` as ``generation`` (A, B or C) would."""
        self.records = records
        self.store = records.store
        self.generation = generation
        self.dated = generation == "C"

    # -- reading ---------------------------------------------------------------------------------------------

    def list(self, asked: Asked) -> Response:
        """``GET /artifacts``."""
        return self._paged_list(asked) if self.generation == "C" else self._limited_list(asked)

    def _limited_list(self, asked: Asked) -> Response:
        """Filter phase and type only after the limit: the list may be short though more would match."""
        query = parse_query(ArtifactsQuery, asked)
        rows = itertools.islice(self.records.artifacts(query.workflow_id or None), query.limit)
        kept = [row for row in rows if self._matches(row, query.phase_id, query.artifact_type)]
        return answer([summary(row, dated=self.dated) for row in kept])

    def _paged_list(self, asked: Asked) -> Response:
        query = parse_query(PagedArtifactsQuery, asked)
        size = query.page_size or query.limit or 50
        rows = [row for row in self._found(query) if self._matches(row, query.phase_id, query.artifact_type)]
        page = rows[(query.page - 1) * size : query.page * size]
        return answer(
            {
                "artifacts": [summary(row, dated=self.dated) for row in page],
                "total": len(rows),
                "page": query.page,
                "page_size": size,
                "type_counts": dict(Counter(row.type for row in rows)),
            }
        )

    def _found(self, query: PagedArtifactsQuery) -> Iterator[Record]:
        for row in self.records.artifacts(query.workflow_id or None):
            at = moment(row.artifact.created_at_ns)
            if (
                (not query.session_id or row.session_id == query.session_id)
                and (query.created_after is None or at >= query.created_after)
                and (query.created_before is None or at <= query.created_before)
                and (not query.q or query.q.lower() in row.title.lower())
            ):
                yield row

    @staticmethod
    def _matches(row: Record, phase_id: str | None, artifact_type: str | None) -> bool:
        """An empty filter is none; types are compared with their case."""
        return (not phase_id or row.artifact.phase == phase_id) and (not artifact_type or row.type == artifact_type)

    def detail(self, asked: Asked) -> Response:
        """``GET /artifacts/{id}``; half of its fields never carry data."""
        query = parse_query(DetailQuery, asked)
        record = self.records.resolve(asked.path["artifact_id"])
        content = self.records.content(record) if query.include_content else None
        if query.include_content and not content:
            # It exists; the service says 404 all the same.
            raise Refused(404, f"Artifact {record.id} content not found in projection.")
        return answer(
            {
                **summary(record, dated=self.dated),
                "session_id": record.session_id,
                "is_primary_deliverable": True,
                "content": content,
                "content_type": "text/plain" if content else "text/markdown",
                "content_hash": None,
                "derived_from": [],
                "created_by": None,
                "metadata": {},
            }
        )

    def content(self, asked: Asked) -> Response:
        """``GET /artifacts/{id}/content``; since 0.25.1 content that should be there, but is not, is 202."""
        record = self.records.resolve(asked.path["artifact_id"])
        content = self.records.content(record)
        if content is None and record.created.size and self.generation != "A":
            detail = f"Artifact {record.id} content not yet available; retry shortly"
            raise Refused(202, detail, {"Retry-After": str(RETRY_AFTER_S)})
        return answer(
            {
                "artifact_id": record.id,
                "content": content,
                "content_type": "text/plain" if content else "text/markdown",
                "size_bytes": record.created.size,
            }
        )

    # -- writing ---------------------------------------------------------------------------------------------

    def create(self, asked: Asked) -> Response:
        """``POST /artifacts``: drops session and content type; no idempotency, titles may repeat."""
        body = parse_body(CreateBody, asked)
        kind = self._type(body.artifact_type)
        if not body.content:
            raise Refused(400, "1 validation error for CreateArtifactCommand\ncontent\n  must not be empty")
        created = {"id": str(uuid.uuid4()), "title": body.title, "artifact_type": body.artifact_type}
        texts = (body.workflow_id, body.title, body.content, body.phase_id or "")
        try:
            data = "".join(texts).encode("utf-8")
        except UnicodeEncodeError:
            return server_fault()  # a lone surrogate
        if b"\0" not in data:
            # PostgreSQL refuses a row with NUL after the answer was given, so it never appears; as here.
            self._keep(created["id"], body, kind)
        return answer({**created, "status": "created"}, 201)

    def _type(self, asked: str) -> str:
        if self.generation == "A":
            return OLD_TYPES.get(asked, "research_summary")
        if asked.lower() not in TYPES:
            raise Refused(400, f"Invalid artifact_type '{asked}'. Valid types: {', '.join(TYPES)}")
        return asked.lower()

    def _keep(self, artifact_id: str, body: CreateBody, kind: str) -> None:
        data = body.content.encode("utf-8")
        try:
            sha256 = self.store.objects.put(data)
            with self.store.transaction():
                self._imply(body.workflow_id)
                artifact = self.store.add_artifact(
                    body.workflow_id,
                    body.title,
                    "file",
                    uuid=artifact_id,
                    phase=body.phase_id or "",
                    metadata={TYPE: kind},
                )
                self.store.save_file(artifact.id, sha256, len(data))
        except errors.ArtifactFSError as error:
            raise Refused(400, str(error)) from error

    def _imply(self, workflow_id: str) -> None:
        """Make a row for a workflow that only an artifact names: the service checks none."""
        if self.store.workflow(workflow_id) is not None:
            return
        # It may have been removed; its artifacts stay all the same, as those of an archived one do.
        with contextlib.suppress(errors.AlreadyExists):
            self.store.add_workflow(workflow_id, workflow_id=workflow_id, description=IMPLIED)

    def update(self, asked: Asked) -> Response:
        """``PUT /artifacts/{id}``: the rename; what else it takes is kept and never shown."""
        body = parse_body(UpdateBody, asked)
        if body.title is None and body.metadata is None and body.is_primary_deliverable is None:
            raise Refused(400, "At least one field must be provided")
        record = self._living(asked.path["artifact_id"], "Artifact is deleted")
        try:
            with self.store.transaction():
                if body.title is not None:
                    self._rename(record, body.title)
                kept = {"metadata": body.metadata, "is_primary_deliverable": body.is_primary_deliverable}
                facts = {f"syntropic137_{key}": value for key, value in kept.items() if value is not None}
                self.store.annotate_artifact(record.artifact.id, facts)
        except errors.NameNotAllowed:
            return server_fault()
        return answer({"artifact_id": record.id, "status": "updated"})

    def _rename(self, record: Record, title: str) -> None:
        prefix = f"{record.artifact.phase}: {OUTPUT}"
        if not record.by_engine:
            self.store.rename_artifact(record.artifact.id, title)
        elif title.startswith(prefix):
            self.store.rename_artifact(record.artifact.id, title.removeprefix(prefix))
        else:
            self.store.rename_artifact(record.artifact.id, title)
            self.store.annotate_artifact(record.artifact.id, {TITLE: [title, title]})

    def _living(self, artifact_id: str, if_deleted: str) -> Record:
        """Return the record of a full id; raises ``Refused`` 404 or 409."""
        record = self.records.by_id(artifact_id)
        if record is None:
            raise Refused(404, f"Artifact {artifact_id} not found")
        if record.artifact.deleted:
            raise Refused(409, if_deleted)
        return record

    def delete(self, asked: Asked) -> Response:
        """``DELETE /artifacts/{id}``: soft; a second time is 409."""
        record = self._living(asked.path["artifact_id"], "Artifact is already deleted")
        self.store.delete_artifact(record.artifact.id)
        return answer({"artifact_id": record.id, "status": "deleted"})

    def upload(self, artifact_id: str, data: bytes) -> Response:
        """``POST /artifacts/{id}/upload``: 200 for any id; if it exists, these bytes are its content now."""
        record = self.records.by_id(artifact_id)
        if record is not None and not record.artifact.deleted:
            try:
                sha256 = self.store.objects.put(data)
                self.store.save_file(record.artifact.id, sha256, len(data), message=UPLOADED)
            except errors.ArtifactFSError as error:
                raise Refused(400, str(error)) from error
        where = f"s3://syn-artifacts/artifacts/{artifact_id}.md"
        return answer({"artifact_id": artifact_id, "storage_url": where, "status": "uploaded"})
