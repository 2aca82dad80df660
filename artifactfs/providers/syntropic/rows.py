"""What Syntropic137 says, once its answers have been read: values that can be relied upon.

Rules of this file: frozen values only. Ids can stand in a URL; titles and names are raw and hostile; times
are nanoseconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    """An artifact as a list or its detail shows it.

    Attributes:
        workflow_id: free text; None where there is none (null and "" are the same).
        phase_id: None if no phase made it, which means that it came by POST.
        session_id: of the phase's run; no list up to 0.25.4 says it, the detail does.
        execution_id: no known answer says it; newer ones may.
        size: in bytes, at its creation: an upload does not change it.
        created_at_ns: null up to 0.25.4.
    """

    id: str
    workflow_id: str | None
    phase_id: str | None
    session_id: str | None
    execution_id: str | None
    artifact_type: str | None
    title: str | None
    size: int | None
    created_at: str | None
    created_at_ns: int | None


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One run of one phase: what joins an artifact to its execution."""

    id: str
    workflow_id: str | None
    execution_id: str | None
    phase_id: str | None
    status: str | None
    started_at_ns: int | None
    completed_at_ns: int | None

    @property
    def run(self) -> str:
        """Return the execution's id, or its own where it belongs to none."""
        return self.execution_id or self.id

    @property
    def mtime_ns(self) -> int | None:
        """Return when it last did something, as far as the service says."""
        return self.completed_at_ns if self.completed_at_ns is not None else self.started_at_ns


@dataclass(frozen=True, slots=True)
class WorkflowRow:
    """A workflow definition."""

    id: str
    name: str | None
    workflow_type: str | None
    is_archived: bool
    created_at_ns: int | None


@dataclass(frozen=True, slots=True)
class Rows(Generic[T]):
    """What a list said.

    Attributes:
        rows: what could be read, each id once, in the order of the service.
        complete: True if the service certainly has no more, and all of it could be read.
        note: why it is incomplete, in one sentence.
        moved: others changed the list while its pages were read, so some of it may have been missed.
    """

    rows: tuple[T, ...]
    complete: bool = True
    note: str | None = None
    moved: bool = False
