"""The rows of the catalog as values. Times are nanoseconds since the epoch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Workflow:
    """A definition whose runs leave artifacts. ``id`` is a UUID."""

    id: str
    name: str
    created_at_ns: int
    description: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a workflow. ``id`` is ``exec-`` + 12 hex, ``uuid`` its other name.

    ``response`` is the structured result an agent gave, if any; ``status`` one of ``running``, ``completed``,
    ``failed``.
    """

    id: str
    uuid: str
    workflow_id: str
    status: str
    started_at_ns: int
    completed_at_ns: int | None
    response: Any = None


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """A named output. ``id`` is ``art_`` + 6 hex, ``uuid`` its other name.

    ``name`` may hold ``/``: the place below workflow, run and phase. ``kind`` is ``file`` or ``tree``;
    ``role`` is ``artifact`` or ``volume`` (an input that is a tree). ``current`` is the ``seq`` of the
    version in the present, 0 if none.
    """

    id: str
    uuid: str
    workflow_id: str
    run_id: str | None
    phase: str
    name: str
    kind: str
    role: str
    media_type: str
    created_at_ns: int
    updated_at_ns: int
    current: int
    deleted: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class StoredVersion:
    """Version ``seq`` (1 is the oldest) of an artifact.

    ``id`` is the content hash of ``content_id``, so equal contents of one artifact have equal ids.
    ``sha256`` is that of the file; of a tree, None. ``extras`` is a short hash of what ``id`` leaves out (x
    bits, symlinks, empty directories), empty where there is nothing of it: versions that are equal in both
    have the same files.
    """

    artifact_id: str
    seq: int
    id: str
    sha256: str | None
    executable: bool
    size: int
    file_count: int
    message: str | None
    created_by: str
    created_at_ns: int
    extras: str = ""


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file (``sha256``), directory (neither) or symlink (``target``) of a version that is a tree."""

    path: str
    sha256: str | None
    size: int = 0
    executable: bool = False
    mtime_ns: int | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Upload:
    """A file handed in for later runs (what VLM Run calls a file).

    ``id`` is a UUID; ``ready`` once its bytes are here.
    """

    id: str
    filename: str
    purpose: str
    size: int
    sha256: str
    md5: str
    created_at_ns: int
    ready: bool = True


def content_id(uuid: str, files: Iterable[tuple[str, str]]) -> str:
    """Return the version id that VM0 gives to these (path, SHA-256 hex) pairs of a storage: 64 hex.

    Entries are ``path:hash``, sorted as JavaScript sorts strings (by UTF-16 code units), below a line with
    the storage's UUID. Source: the service's own content hash, reproduced against its published test
    vectors.
    """
    entries = sorted((f"{path}:{sha}" for path, sha in files), key=lambda e: e.encode("utf-16-be", "surrogatepass"))
    text = f"storage:{uuid}\n" + "\n".join(entries)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
