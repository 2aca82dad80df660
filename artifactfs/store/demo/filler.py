"""Puts things into the store under names that decide their ids.

Rules of this file: ids, UUIDs and times follow from what the caller says, never from the clock or from
chance. The store is thrown away with its demo, so nothing waits for the disk.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from artifactfs.store.demo.dice import identify, uuid_of
from artifactfs.store.rows import Run, TreeFile, Workflow

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from artifactfs.store.catalog import Store
    from artifactfs.store.rows import StoredArtifact

MINUTE_NS = 60 * 10**9
TYPES = {
    "csv": "text/csv",
    "html": "text/html",
    "jpg": "image/jpeg",
    "json": "application/json",
    "log": "text/plain",
    "md": "text/markdown",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "npy": "application/octet-stream",
    "pdf": "application/pdf",
    "png": "image/png",
    "sh": "text/x-shellscript",
    "spz": "application/octet-stream",
    "txt": "text/plain",
    "url": "text/uri-list",
    "vtt": "text/vtt",
}


def at(text: str) -> int:
    """Return a time such as ``2026-03-02 09:15`` (UTC) in nanoseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


def ref(artifact: StoredArtifact, prefix: str) -> dict[str, str]:
    """Return how a response names an artifact: a type's prefix and the artifact's six hex digits."""
    return {"id": f"{prefix}_{artifact.id.removeprefix('art_')}"}


class Filler:
    """Fills one store."""

    def __init__(self, store: Store) -> None:
        """Fill ``store``."""
        self.store = store

    def put(self, data: bytes | Iterable[bytes]) -> tuple[str, int]:
        """Store bytes; return their hash and how many there are."""
        return self.store.objects.put_stream((data,) if isinstance(data, bytes) else data, durable=False)

    def workflow(self, name: str, created: str, description: str) -> Workflow:
        """Make a workflow."""
        return self.store.add_workflow(
            name, workflow_id=uuid_of(f"workflow {name}"), created_at_ns=at(created), description=description
        )

    def run(self, workflow: Workflow, label: str, started: str, completed: str | None, status: str) -> Run:
        """Make a run without a response."""
        name = f"run {workflow.name} {label}"
        run = Run(
            id=f"exec-{identify('run', name, 12)}",
            uuid=uuid_of(name),
            workflow_id=workflow.id,
            status=status,
            started_at_ns=at(started),
            completed_at_ns=at(completed) if completed else None,
        )
        self.store.add_run(run)
        return run

    def respond(self, run: Run, response: Mapping[str, Any]) -> None:
        """Give a run its response."""
        known = (run.id, run.uuid, run.workflow_id, run.status, run.started_at_ns, run.completed_at_ns)
        self.store.add_run(Run(*known, response=dict(response)))

    def output(
        self, run: Run, phase: str, name: str, data: str | bytes | Iterable[bytes], minutes: int
    ) -> StoredArtifact:
        """Keep what a run left, so many minutes after it began."""
        time_ns = run.started_at_ns + minutes * MINUTE_NS
        artifact = self._artifact(run.workflow_id, name, "file", time_ns, run=run, phase=phase)
        self._save(artifact, data, time_ns, created_by="agent")
        return artifact

    def file(
        self,
        workflow: Workflow,
        name: str,
        data: str | bytes,
        when: str,
        *,
        executable: bool = False,
        label: str = "",
    ) -> StoredArtifact:
        """Keep a file of no run; ``label`` tells apart those of one name."""
        artifact = self._artifact(workflow.id, name, "file", at(when), label=label)
        self._save(artifact, data, at(when), executable=executable)
        return artifact

    def history(self, workflow: Workflow, name: str, texts: Sequence[tuple[str, str, str, str]]) -> StoredArtifact:
        """Keep a file with versions: (time, who, message, text), oldest first."""
        artifact = self._artifact(workflow.id, name, "file", at(texts[0][0]))
        for when, who, message, text in texts:
            self._save(artifact, text, at(when), created_by=who, message=message)
        return artifact

    def tree(
        self,
        workflow: Workflow,
        name: str,
        versions: Sequence[tuple[str, str, str | None, Mapping[str, bytes | TreeFile]]],
        *,
        role: str = "artifact",
    ) -> StoredArtifact:
        """Keep a tree with versions: (time, who, message, entries by path), oldest first."""
        artifact = self._artifact(workflow.id, name, "tree", at(versions[0][0]), role=role)
        for when, who, message, entries in versions:
            files = [self._entry(path, entry, at(when)) for path, entry in sorted(entries.items())]
            self.store.save_tree(artifact.id, files, created_by=who, message=message, created_at_ns=at(when))
        return artifact

    def _entry(self, path: str, entry: bytes | TreeFile, time_ns: int) -> TreeFile:
        if isinstance(entry, TreeFile):
            return entry
        sha256, size = self.put(entry)
        return TreeFile(path, sha256, size, path.endswith(".sh"), time_ns)

    def _artifact(  # noqa: PLR0913 - one column, one argument
        self,
        workflow_id: str,
        name: str,
        kind: str,
        time_ns: int,
        *,
        run: Run | None = None,
        phase: str = "",
        role: str = "artifact",
        label: str = "",
    ) -> StoredArtifact:
        full = f"artifact {workflow_id} {run.id if run else ''} {phase} {name} {label}"
        return self.store.add_artifact(
            workflow_id,
            name,
            kind,
            artifact_id=f"art_{identify('artifact', full, 6)}",
            uuid=uuid_of(full),
            run_id=run.id if run else None,
            phase=phase,
            role=role,
            media_type="" if kind == "tree" else TYPES.get(name.rpartition(".")[2], ""),
            created_at_ns=time_ns,
        )

    def _save(
        self,
        artifact: StoredArtifact,
        data: str | bytes | Iterable[bytes],
        time_ns: int,
        *,
        created_by: str = "user",
        message: str | None = None,
        executable: bool = False,
    ) -> None:
        sha256, size = self.put(data.encode() if isinstance(data, str) else data)
        self.store.save_file(
            artifact.id,
            sha256,
            size,
            executable=executable,
            message=message,
            created_by=created_by,
            created_at_ns=time_ns,
        )
