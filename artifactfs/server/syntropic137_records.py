"""The store as Syntropic137 would see it: text artifacts, and one session for each phase of a run.

Rules of this file: reads the store; of HTTP it knows only how to refuse. An artifact is shown if it is a
file whose content is text (UTF-8 without NUL), or was made something else by an upload through this
dialect: the service keeps such an artifact and serves its bytes with replacement characters. What an
artifact was at its creation is its first version; its content is its current one; so size and hash stay
those of creation, as they do at the service.
"""

from __future__ import annotations

import codecs
import functools
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from artifactfs.server.syntropic137_wire import Refused
from artifactfs.store.objects import CHUNK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from artifactfs.store.catalog import Store
    from artifactfs.store.rows import Run, StoredArtifact, StoredVersion, Workflow

OUTPUT = "artifacts/output/"
"""The engine collects the files below this directory of a phase's workspace; titles carry it."""
UPLOADED = "uploaded through the Syntropic137 dialect"
"""Message of the versions that an upload makes."""
IMPLIED = "named by an artifact"
"""Description of a workflow that exists only because an artifact names its id; it is not listed."""
TITLE = "syntropic137_title"
"""Key of the metadata: [name it was given for, title], where the title does not follow from the name."""
TYPE = "artifact_type"
"""Key of the artifact's metadata."""

# The service refuses uploads above 50 MB, so nothing larger can be one of its texts; it also bounds what
# one JSON answer holds.
MAX_TEXT = 50 * 1024 * 1024
# Hashes whose nature is remembered; one costs about 150 bytes.
KNOWN_HASHES = 1 << 16
# Sessions have no row of their own; their ids are derived in this namespace, so they are stable across
# restarts.
SESSION_NAMESPACE = uuid.UUID("6f1d2ac4-93a5-4f0e-8f6e-1d9fb1f3a137")
# An ambiguous id names at most this many entries, and shows the first few, cut (service source, May 2026).
MATCHES_COUNTED, MATCHES_SHOWN, MATCH_LENGTH = 10, 5, 12
TYPES_BY_SUFFIX = {
    ".md": "markdown",
    ".json": "json",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".py": "code",
    ".sh": "script",
    ".txt": "text",
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(at_ns: int) -> datetime:
    """Return a time of the store as the service has it, in microseconds."""
    return EPOCH + timedelta(microseconds=at_ns // 1000)


@dataclass(frozen=True, slots=True)
class Record:
    """An artifact with what it was at its creation and what its content is now."""

    artifact: StoredArtifact
    created: StoredVersion
    current: StoredVersion

    @property
    def id(self) -> str:
        """Return the service's id of it."""
        return self.artifact.uuid

    @property
    def by_engine(self) -> bool:
        """Tell whether a run made it; else it came by POST."""
        return bool(self.artifact.run_id and self.artifact.phase)

    @property
    def session_id(self) -> str | None:
        """Return the session that made it."""
        run_id = self.artifact.run_id
        return session_id(run_id, self.artifact.phase) if run_id and self.artifact.phase else None

    @property
    def title(self) -> str:
        """Return the title: for outputs of a run, phase and path as the engine writes them."""
        name, title = self.artifact.metadata.get(TITLE) or (None, "")
        if name == self.artifact.name:
            return str(title)
        return f"{self.artifact.phase}: {OUTPUT}{self.artifact.name}" if self.by_engine else self.artifact.name

    @property
    def type(self) -> str:
        """Return the artifact type: the one it was created with, else one guessed from the name."""
        known = self.artifact.metadata.get(TYPE)
        if isinstance(known, str):
            return known
        return next((t for suffix, t in TYPES_BY_SUFFIX.items() if self.artifact.name.endswith(suffix)), "other")


def session_id(run_id: str, phase: str) -> str:
    """Return the id of the session that ran a phase."""
    return str(uuid.uuid5(SESSION_NAMESPACE, f"{run_id}/{phase}"))


@dataclass(frozen=True, slots=True)
class Session:
    """One phase of one run; phases of a run follow each other."""

    run: Run
    phase: str
    started_at_ns: int
    completed_at_ns: int | None
    artifacts: tuple[StoredArtifact, ...]
    """What it made, oldest first, deleted ones too."""

    @property
    def id(self) -> str:
        """Return its id."""
        return session_id(self.run.id, self.phase)

    @property
    def status(self) -> str:
        """Return ``running``, ``completed`` or ``failed``."""
        return "completed" if self.completed_at_ns and self.run.status == "running" else self.run.status


class Records:
    """The projection of one store."""

    def __init__(self, store: Store, *, prefixes: bool) -> None:
        """Look at ``store``; ``prefixes`` lets a unique beginning stand for an id (since 0.21)."""
        self.store = store
        self.prefixes = prefixes
        self._text = functools.lru_cache(maxsize=KNOWN_HASHES)(self._is_text)

    # -- artifacts -------------------------------------------------------------------------------------------

    def _is_text(self, sha256: str) -> bool:
        decoder = codecs.getincrementaldecoder("utf-8")()
        with self.store.objects.path(sha256).open("rb") as file:
            try:
                for chunk in iter(functools.partial(file.read, CHUNK), b""):
                    if b"\0" in chunk:
                        return False
                    decoder.decode(chunk)
                decoder.decode(b"", final=True)
            except UnicodeDecodeError:
                return False
        return True

    def _shown(self, version: StoredVersion) -> bool:
        if version.sha256 is None or version.size > MAX_TEXT:
            return False
        if version.message == UPLOADED:
            return True
        try:
            return self._text(version.sha256)
        except FileNotFoundError:
            return True  # listed, and its content answers 202: what the service does when its store is behind

    def record(self, artifact: StoredArtifact) -> Record | None:
        """Return an artifact as a record, None if this dialect does not show it."""
        return self._record(artifact, self.store.version(artifact.id, artifact.current))

    def _record(self, artifact: StoredArtifact, current: StoredVersion | None) -> Record | None:
        if artifact.kind != "file" or current is None or not self._shown(current):
            return None
        created = current if current.seq == 1 else self.store.version(artifact.id, 1)
        return None if created is None else Record(artifact, created, current)

    def artifacts(self, workflow_id: str | None = None, *, deleted: bool = False) -> Iterator[Record]:
        """Return what this dialect shows, in store order, lazily."""
        if workflow_id is not None and not deleted:
            # One query for all: this is the list that clients ask for again and again.
            rows = (self._record(artifact, current) for artifact, current in self.store.present(workflow_id))
        else:
            rows = (self.record(artifact) for artifact in self.store.artifacts(workflow_id, deleted=deleted))
        return (row for row in rows if row is not None)

    def by_id(self, artifact_id: str) -> Record | None:
        """Return a record by its full id, deleted ones too."""
        artifact = self.store.artifact(artifact_id)
        return self.record(artifact) if artifact and artifact.uuid == artifact_id else None

    def resolve(self, asked: str) -> Record:
        """Return the living record of an id, or of a unique beginning of one.

        Raises:
            Refused: 404, or 409 if several begin so.
        """
        found = self.by_id(asked)
        if found and not found.artifact.deleted:
            return found
        matches = [row for row in self.artifacts() if row.id.startswith(asked)] if self.prefixes else []
        if not matches:
            raise Refused(404, f"Artifact not found: {asked}")
        return matches[self.only("artifact", asked, [row.id for row in matches])]

    @staticmethod
    def only(what: str, asked: str, ids: list[str]) -> int:
        """Return the index of the only match; raises ``Refused`` 409 if there are more."""
        if len(ids) == 1:
            return 0
        counted = min(len(ids), MATCHES_COUNTED)
        shown = "\n".join(f"  - {found[:MATCH_LENGTH]}..." for found in ids[:MATCHES_SHOWN])
        raise Refused(409, f"Ambiguous {what} ID '{asked}' matches {counted} entries:\n{shown}")

    def content(self, record: Record) -> str | None:
        """Return the text; None if nothing was ever written, or the object is not there."""
        if record.current.sha256 is None or (record.current.seq == 1 and not record.current.size):
            return None
        try:
            return self.store.objects.read(record.current.sha256).decode("utf-8", "replace")
        except FileNotFoundError:
            return None

    # -- workflows and sessions ------------------------------------------------------------------------------

    def workflows(self) -> list[Workflow]:
        """Return the workflows that are defined, oldest first."""
        return [workflow for workflow in self.store.workflows() if workflow.description != IMPLIED]

    def workflow(self, asked: str) -> Workflow:
        """Return a workflow by id or unique beginning of one; raises ``Refused`` 404 or 409."""
        known = self.workflows()
        matches = [w for w in known if w.id == asked]
        if not matches and self.prefixes:
            matches = [w for w in known if w.id.startswith(asked)]
        if not matches:
            raise Refused(404, f"Workflow not found: {asked}")
        return matches[self.only("workflow", asked, [w.id for w in matches])]

    def names(self) -> dict[str, str]:
        """Return the names of all workflows by id."""
        return {workflow.id: workflow.name for workflow in self.store.workflows()}

    def sessions(self, workflow_id: str | None = None) -> list[Session]:
        """Return the sessions of one workflow or of all, newest first."""
        made: dict[str, dict[str, list[StoredArtifact]]] = {}
        for artifact in self.store.artifacts(workflow_id, deleted=True):
            if artifact.run_id and artifact.phase:
                made.setdefault(artifact.run_id, {}).setdefault(artifact.phase, []).append(artifact)
        found = [
            session
            for run in self.store.runs(workflow_id)
            for session in reversed(self._phases(run, made.get(run.id, {})))
        ]
        return sorted(found, key=lambda session: session.started_at_ns, reverse=True)

    def first_of(self, session: Session) -> str | None:
        """Return the id of the first artifact that a session made and that is shown."""
        living = (artifact for artifact in session.artifacts if not artifact.deleted)
        return next((row.id for row in map(self.record, living) if row is not None), None)

    @staticmethod
    def _phases(run: Run, made: dict[str, list[StoredArtifact]]) -> list[Session]:
        """Return the sessions of a run in order; one begins when the one before it made its last artifact."""
        sessions: list[Session] = []
        start_ns = run.started_at_ns
        for index, (phase, artifacts) in enumerate(made.items()):
            last_ns = max(start_ns, artifacts[-1].created_at_ns)
            is_last = index == len(made) - 1
            end_ns = run.completed_at_ns if is_last else last_ns
            sessions.append(Session(run, phase, start_ns, end_ns, tuple(artifacts)))
            start_ns = last_ns
        return sessions
