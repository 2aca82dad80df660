"""The store as VLM Run would show it: runs are executions, their files are objects.

Rules of this file: reads the store, knows no HTTP. An object never changes under its id, as the service's
do not: it is version 1 of the artifact, what the run left; later saves are the store's own history. A file
of a type that the service has no references for is a ``workspace`` item and is asked for by its filename.
"""

from __future__ import annotations

import mimetypes
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from artifactfs.store.catalog import now_ns

if TYPE_CHECKING:
    from artifactfs.store.catalog import Store
    from artifactfs.store.rows import Run, StoredArtifact, StoredVersion

OCTETS = "application/octet-stream"
URL_LIST = "text/uri-list"
# The types that the Python SDK accepts for each kind of reference; it compares the whole header (SDK
# 0.9.2). A file of another type (WebP, WAV, DOCX) would make it fail, so that one is offered by name
# instead.
PREFIX_OF_TYPE = {
    "image/jpeg": "img",
    "image/png": "img",
    "video/mp4": "vid",
    "audio/mpeg": "aud",
    "application/pdf": "doc",
    URL_LIST: "url",
}
ALIASES = {"image/jpg": "image/jpeg", "audio/mp3": "audio/mpeg", "application/x-pdf": "application/pdf"}
PREFIX_OF_SUFFIX = {".npy": "arr", ".npz": "arr", ".spz": "recon", ".ply": "recon"}
STORED_ID = re.compile(r"art_([0-9a-f]{6})")
# The service knows these; the built-in store writes the first three of them.
STATUSES = frozenset({"pending", "enqueued", "running", "completed", "failed", "paused"})


@dataclass(frozen=True, slots=True)
class ListedObject:
    """One row of ``artifacts/list``: ``media_type`` is what its content is served as."""

    object_id: str
    filename: str
    source: str
    media_type: str
    stored: StoredArtifact

    def as_json(self) -> dict[str, Any]:
        """Return the row as the service writes it."""
        return {"object_id": self.object_id, "filename": self.filename, "source": self.source}


def media_type_of(artifact: StoredArtifact) -> str:
    """Return the media type without parameters: as stored, else by the name, else octets."""
    stored = artifact.media_type.partition(";")[0].strip().lower()
    found = stored or mimetypes.guess_type(artifact.name)[0] or OCTETS
    return ALIASES.get(found, found)


def _object(artifact: StoredArtifact) -> ListedObject:
    media_type = media_type_of(artifact)
    suffix = "." + artifact.name.rpartition(".")[2].lower()
    prefix = PREFIX_OF_SUFFIX.get(suffix) or PREFIX_OF_TYPE.get(media_type)
    if prefix is None and media_type.startswith("model/"):
        prefix = "recon"
    filename = f"{artifact.phase}/{artifact.name}" if artifact.phase else artifact.name
    known = STORED_ID.fullmatch(artifact.id)
    if prefix is None or known is None:
        return ListedObject(filename, filename, "workspace", media_type, artifact)
    served = OCTETS if prefix in {"arr", "recon"} else "text/plain" if prefix == "url" else media_type
    return ListedObject(f"{prefix}_{known.group(1)}", filename, "store", served, artifact)


def run_of(store: Store, namespace: str) -> Run | None:
    """Return the run whose objects a session or execution id names; both are the run's UUID here."""
    return next((run for run in store.runs() if run.uuid == namespace), None)


def objects_of(store: Store, run: Run) -> list[ListedObject]:
    """Return a run's objects, oldest first: its artifacts that are one file and in the present."""
    rows = store.artifacts(run.workflow_id)
    return [_object(a) for a in rows if a.run_id == run.id and a.kind == "file" and a.current]


def content_of(store: Store, found: ListedObject) -> StoredVersion | None:
    """Return the version an object is, None if its bytes are gone."""
    version = store.version(found.stored.id, 1)
    return version if version and version.sha256 and store.objects.has(version.sha256) else None


def iso(at_ns: int | None) -> str | None:
    """Return a time as the service writes it: UTC with microseconds."""
    if at_ns is None:
        return None
    at = datetime.fromtimestamp(at_ns // 10**9, tz=UTC)
    return at.replace(microsecond=at_ns % 10**9 // 1000).isoformat().replace("+00:00", "Z")


def execution_json(run: Run, name: str) -> dict[str, Any]:
    """Return a run as an execution. ``response`` is an object or null: the SDK refuses anything else."""
    response = run.response
    if response is not None and not isinstance(response, dict):
        response = {"result": response}
    ended = run.completed_at_ns or now_ns()
    return {
        "id": run.uuid,
        "name": name,
        "status": run.status if run.status in STATUSES else "failed",
        "created_at": iso(run.started_at_ns),
        "completed_at": iso(run.completed_at_ns),
        "execution_mode": "agent",
        "response": response,
        "usage": {
            "elements_processed": None,
            "element_type": None,
            "credits_used": 0,
            "steps": None,
            "message": None,
            "duration_seconds": max(0, ended - run.started_at_ns) // 10**9,
        },
    }
