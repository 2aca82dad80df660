"""How the store's rows look as values of the contract.

Rules of this file: pure. Names go out raw. What an agent left carries its place in its name, so there ``/``
separates; what a person named is one component, however odd.
"""

from __future__ import annotations

import mimetypes
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from artifactfs import errors
from artifactfs.model.content import Access, ContentRef, Exact
from artifactfs.model.entry import (
    Accepts,
    Artifact,
    ArtifactKind,
    DirRef,
    Empty,
    Folder,
    Role,
    SingleFile,
    Tree,
    TreeMember,
    Version,
)
from artifactfs.providers.base import Draft
from artifactfs.store.rows import TreeFile
from artifactfs.store.trees import parents

if TYPE_CHECKING:
    from artifactfs.model.entry import VersionContent
    from artifactfs.providers.base import Manifest
    from artifactfs.store.rows import Run, StoredArtifact, StoredVersion, Workflow

ROOT = "root"
WORKFLOW = "workflow"
ARTIFACT_ID = re.compile(r"art_[0-9a-f]{6}")
# Deeper names come from nobody who meant well, and laying out thousands of levels takes minutes; such a name is one
# title.
MAX_DEPTH = 64
NOT_COMPONENTS = frozenset({"", ".", ".."})
# Python's own table, without the machine's mime.types: one name has one type everywhere.
TYPES = mimetypes.MimeTypes()
# Agents write these all the time; Python 3.11 does not know them yet.
for _suffix, _type in ((".md", "text/markdown"), (".webp", "image/webp"), (".yaml", "application/yaml")):
    TYPES.add_type(_type, _suffix)


def media_type_of(name: str) -> str:
    """Guess the media type from a name; "" if it says nothing."""
    return TYPES.guess_type(name.rpartition("/")[2])[0] or ""


def is_legal_path(path: str) -> bool:
    """Tell whether a path stays below its tree and every part of it can be a name."""
    return "\0" not in path and NOT_COMPONENTS.isdisjoint(path.split("/"))


def iso(at_ns: int | None) -> str | None:
    """Return a time as ISO 8601 in UTC with microseconds; None for a time no calendar has."""
    if at_ns is None:
        return None
    try:
        at = datetime.fromtimestamp(at_ns // 10**9, tz=UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return at.replace(microsecond=at_ns % 10**9 // 1000).isoformat().replace("+00:00", "Z")


def root_folder(source: str) -> Folder:
    """Return the top directory."""
    return Folder((), source, DirRef(source, ROOT), accepts=Accepts.WORKFLOWS)


def workflow_folder(source: str, workflow: Workflow, changed_at_ns: int | None) -> Folder:
    """Return a workflow; its mtime is that of the last change in it."""
    return Folder(
        path=(workflow.name,),
        id=workflow.id,
        ref=DirRef(source, WORKFLOW, (workflow.id,)),
        role=Role.WORKFLOW,
        mtime_ns=max(workflow.created_at_ns, changed_at_ns or 0),
        accepts=Accepts.FILES | Accepts.TREES,
        metadata={
            "id": workflow.id,
            "name": workflow.name,
            "description": workflow.description,
            "created_at": iso(workflow.created_at_ns),
        },
    )


def run_folder(run: Run) -> Folder:
    """Return a run; what it left stands in the workflow's own listing."""
    return Folder(
        path=(run.id,),
        id=run.id,
        role=Role.RUN,
        mtime_ns=run.completed_at_ns or run.started_at_ns,
        metadata={
            "id": run.id,
            "uuid": run.uuid,
            "status": run.status,
            "started_at": iso(run.started_at_ns),
            "completed_at": iso(run.completed_at_ns),
            "response": run.response,
        },
    )


def path_of(artifact: StoredArtifact) -> tuple[str, ...]:
    """Return where an artifact stands below its workflow, in raw names."""
    if artifact.run_id is None:
        return (artifact.name,)
    parts = artifact.name.split("/")
    if len(parts) > MAX_DEPTH or not is_legal_path(artifact.name):
        parts = [artifact.name]
    return (artifact.run_id, *([artifact.phase] if artifact.phase else []), *parts)


def content_ref(source: str, sha256: str, size: int) -> ContentRef:
    """Name an object of the store."""
    return ContentRef(source, f"sha256:{sha256}", (sha256,), Exact(size), Access.LOCAL, sha256)


def version_id(version: StoredVersion) -> str:
    """Return an id that versions share only if they have the same files, x bits, symlinks and directories."""
    return f"{version.id}-{version.extras}" if version.extras else version.id


def version_value(source: str, version: StoredVersion, *, is_empty_tree: bool) -> Version:
    """Return a version."""
    content: VersionContent
    if version.sha256 is not None:
        content = SingleFile(content_ref(source, version.sha256, version.size), version.executable)
    elif is_empty_tree:
        content = Empty()
    else:
        content = Tree((version.artifact_id, str(version.seq)))
    return Version(
        id=version_id(version),
        content=content,
        size=Exact(version.size),
        file_count=version.file_count,
        created_at_ns=version.created_at_ns,
        created_by=version.created_by,
        message=version.message,
    )


def artifact_value(artifact: StoredArtifact, workflow: Workflow, current: Version | None) -> Artifact:
    """Return an artifact."""
    return Artifact(
        path=path_of(artifact),
        id=artifact.id,
        key=artifact.id,
        kind=ArtifactKind(artifact.kind),
        current=current,
        created_at_ns=artifact.created_at_ns,
        updated_at_ns=artifact.updated_at_ns,
        media_type=artifact.media_type or None,
        writable=not artifact.deleted,
        workflow=workflow.name,
        run=artifact.run_id,
        metadata=_metadata(artifact, workflow),
    )


def _metadata(artifact: StoredArtifact, workflow: Workflow) -> dict[str, Any]:
    return {
        "id": artifact.id,
        "uuid": artifact.uuid,
        "name": artifact.name,
        "kind": artifact.kind,
        "role": artifact.role,
        "workflow": {"id": workflow.id, "name": workflow.name},
        "run": artifact.run_id,
        "phase": artifact.phase,
        "media_type": artifact.media_type,
        "created_at": iso(artifact.created_at_ns),
        "updated_at": iso(artifact.updated_at_ns),
        "current": artifact.current,
        "deleted": artifact.deleted,
        "metadata": dict(artifact.metadata),
    }


def member(source: str, file: TreeFile) -> TreeMember:
    """Return an entry of a tree."""
    if file.target is not None:
        return TreeMember(file.path, "symlink", mtime_ns=file.mtime_ns, target=file.target)
    if file.sha256 is None:
        return TreeMember(file.path, "dir", mtime_ns=file.mtime_ns)
    return TreeMember(
        path=file.path,
        kind="file",
        content=content_ref(source, file.sha256, file.size),
        size=file.size,
        executable=file.executable,
        mtime_ns=file.mtime_ns,
    )


def _tree_file(path: str, wanted: Draft | TreeMember) -> TreeFile:
    if isinstance(wanted, Draft):
        return TreeFile(path, wanted.sha256, wanted.size, wanted.executable, wanted.mtime_ns)
    if wanted.kind == "symlink":
        return TreeFile(path, None, mtime_ns=wanted.mtime_ns, target=wanted.target or "")
    if wanted.kind == "dir":
        return TreeFile(path, None, mtime_ns=wanted.mtime_ns)
    sha256 = getattr(wanted.content, "sha256", None)
    if sha256 is None:
        raise errors.CorruptContent("the bytes of a member have no name in the store", subject=path)
    return TreeFile(path, sha256, wanted.size, wanted.executable, wanted.mtime_ns)


def tree_files(manifest: Manifest) -> list[TreeFile]:
    """Return the rows for what a tree is to hold.

    Raises:
        NameNotAllowed: a path does not stay below its tree.
        NotADirectory: a file or symlink stands above another path.
        CorruptContent: a file whose hash nobody has said cannot be in the store.
    """
    for path in manifest:
        if not is_legal_path(path):
            raise errors.NameNotAllowed("the path does not stay below its tree", subject=path)
    files = [_tree_file(path, wanted) for path, wanted in manifest.items()]
    above = {parent for path in manifest for parent in parents(path)}
    for file in files:
        if file.path in above and (file.sha256 or file.target is not None):
            raise errors.NotADirectory(f"{file.path} is a file with something below it", subject=file.path)
    return files
