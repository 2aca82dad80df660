"""What a provider says about its directories, artifacts and versions.

Rules of this file: values only, frozen. Titles are raw, as the service gave them: hostile until ``tree/names.py``
has encoded them. Times are nanoseconds since the epoch, or None where the service does not say.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from artifactfs.model.content import Content, ContentRef, Size, Unknown

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class DirRef:
    """Names a directory that a provider can list: its kind and the ids it needs, opaque to everyone else."""

    source: str
    kind: str
    args: tuple[str, ...] = ()


class Role(enum.Enum):
    """What a folder means, as far as the tree treats it differently."""

    WORKFLOW = "workflow"
    """A top directory; artifact ids resolve in it."""
    RUN = "run"
    """One execution; the newest of its parent is what ``latest`` points to."""
    PLAIN = "plain"


class Accepts(enum.Flag):
    """What may be made in a directory through the mount."""

    NOTHING = 0
    WORKFLOWS = enum.auto()
    """``mkdir`` makes a workflow."""
    FILES = enum.auto()
    """A new file becomes a new artifact."""
    TREES = enum.auto()
    """``mkdir`` makes an artifact that is a tree."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A directory of the service's own making: workflow, run, phase.

    Attributes:
        path: raw titles below the directory that was listed; the parents that no entry names are implied.
        id: the service's id of it, stable; suffixes of equal names and inode numbers come from it.
        ref: how to list it; None if the listing that holds this folder says all of its contents.
        role: what it means.
        mtime_ns: when it last changed, as far as the service says.
        accepts: what may be made in it.
        metadata: what else the service said, for ``why``.
    """

    path: tuple[str, ...]
    id: str
    ref: DirRef | None = None
    role: Role = Role.PLAIN
    mtime_ns: int | None = None
    accepts: Accepts = Accepts.NOTHING
    metadata: Mapping[str, Any] = field(default_factory=lambda: NOTHING, hash=False, compare=False)


@dataclass(frozen=True, slots=True)
class SingleFile:
    """The version is one file."""

    content: Content
    executable: bool = False


@dataclass(frozen=True, slots=True)
class Archive:
    """The version's files are the members of this tar.gz."""

    ref: ContentRef


@dataclass(frozen=True, slots=True)
class Tree:
    """The version's files are listed by the provider's ``tree()`` when asked with this locator."""

    locator: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Empty:
    """The version is a tree without files; nothing needs to be asked."""


VersionContent = SingleFile | Archive | Tree | Empty


@dataclass(frozen=True, slots=True)
class Version:
    """Immutable content of an artifact.

    Attributes:
        id: the service's id of the version; opaque.
        content: how its files are found.
        size: of all its files together, uncompressed.
        file_count: regular files, where the service says.
        created_at_ns: when it was made.
        created_by: who made it, in the service's words.
        message: what its maker said of it.
    """

    id: str
    content: VersionContent
    size: Size = field(default_factory=Unknown)
    file_count: int | None = None
    created_at_ns: int | None = None
    created_by: str | None = None
    message: str | None = None


class ArtifactKind(enum.Enum):
    """Whether an artifact is shown as a file or as a directory."""

    FILE = "file"
    TREE = "tree"


@dataclass(frozen=True, slots=True)
class Artifact:
    """A named output.

    Attributes:
        path: raw titles below the directory that was listed; the last one is its name.
        id: the id a person would type; resolves in its workflow.
        key: identity within the source; equals ``id`` unless ids repeat there (VLM Run's repeat between runs).
        kind: file or tree.
        current: the version shown in the present; None if it has none yet.
        only_version: True if ``current`` is known to be all versions there are (so none need be asked for).
        created_at_ns, updated_at_ns: the service's times.
        media_type: of a single file, as the service claims; names a missing extension.
        executable bits and the like live on the version.
        writable: a save through the mount is accepted.
        metadata: the service's own answer, normalised, shown as ``artifact.json``.
    """

    path: tuple[str, ...]
    id: str
    key: str
    kind: ArtifactKind
    current: Version | None
    only_version: bool = False
    created_at_ns: int | None = None
    updated_at_ns: int | None = None
    media_type: str | None = None
    writable: bool = False
    workflow: str | None = None
    run: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=lambda: NOTHING, hash=False, compare=False)


@dataclass(frozen=True, slots=True)
class Note:
    """A small file of metadata that is no artifact, such as a run's ``response.json``."""

    path: tuple[str, ...]
    id: str
    data: bytes
    mtime_ns: int | None = None


Entry = Folder | Artifact | Note


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of a directory.

    Attributes:
        entries: what is on this page.
        next_cursor: ask again with this; None on the last page.
        complete: False if, this being the last page, there may be more that the service does not list.
        ttl_s: how long to believe it, in seconds; None takes the source's default, ``inf`` is for ever.
        note: why it is incomplete, in one sentence.
    """

    entries: tuple[Entry, ...]
    next_cursor: str | None = None
    complete: bool = True
    ttl_s: float | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class VersionPage:
    """One page of an artifact's versions, in the order the service gave them."""

    versions: tuple[Version, ...]
    next_cursor: str | None = None
    complete: bool = True


@dataclass(frozen=True, slots=True)
class TreeMember:
    """One file, directory or symlink of a version that is a tree.

    Attributes:
        path: relative, ``/``-separated, already safe (no ``..``, not absolute).
        kind: ``file``, ``dir`` or ``symlink``.
        content: of a file.
        size: of a file, in bytes.
        target: of a symlink.
        serial: 0, or a number that nothing had that stood at this path before it in the same archive.
    """

    path: str
    kind: str
    content: Content | None = None
    size: int = 0
    executable: bool = False
    mtime_ns: int | None = None
    target: str | None = None
    serial: int = 0
