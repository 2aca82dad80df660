"""What stands at a place of the tree.

Rules of this file: values and slots, no behaviour that blocks. ``identity`` says what a node is; two nodes with one
identity are the same inode. The content of an inode never changes underneath a reader.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from artifactfs.model.content import Content, Exact, Inline, Size
from artifactfs.model.entry import Accepts, Artifact, DirRef, Role, Version
from artifactfs.tree import names


class Kind(enum.Enum):
    """What kind of inode it is."""

    DIRECTORY = "directory"
    FILE = "file"
    SYMLINK = "symlink"


@dataclass(frozen=True, slots=True)
class MountRoot:
    """The root of a mount of several sources."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A directory that a provider's listing describes.

    Attributes:
        ref: the listing point: what is asked for.
        prefix: raw titles below the listing point; () is the point itself.
        role: what the folder means.
        accepts: what may be made in it.
        workflow: the listing point and prefix of the workflow this stands in, if any.
    """

    ref: DirRef
    prefix: tuple[str, ...] = ()
    role: Role = Role.PLAIN
    accepts: Accepts = Accepts.NOTHING
    workflow: tuple[DirRef, tuple[str, ...]] | None = None


@dataclass(frozen=True, slots=True)
class IdShelf:
    """``.artifacts`` of a workflow: every artifact by its id."""

    ref: DirRef
    prefix: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ArtifactDir:
    """One artifact's own directory: ``artifact.json``, ``latest``, ``versions``."""

    artifact: Artifact


@dataclass(frozen=True, slots=True)
class VersionsDir:
    """All versions of an artifact."""

    artifact: Artifact


@dataclass(frozen=True, slots=True)
class VersionDir:
    """A directory of one version: its root, or below it.

    Attributes:
        artifact, version: whose.
        path: ``/``-separated below the version's root; "" is the root.
        present: True where it is the listed, current tree; False under ``versions``.
    """

    artifact: Artifact
    version: Version | None
    path: str = ""
    present: bool = False


@dataclass(frozen=True, slots=True)
class ControlDir:
    """``.artifactfs``."""


DirectoryKind = MountRoot | Listed | IdShelf | ArtifactDir | VersionsDir | VersionDir | ControlDir


@dataclass(slots=True, eq=False)
class Node:
    """One inode.

    Attributes:
        ino: its number.
        identity: what it is; see ``inodes.number``.
        kind: directory, file or symlink.
        name: under which its parent lists it.
        directory: what a directory shows.
        content: the bytes of a file.
        target: of a symlink, as its service has it; also of one that is shown as text. See ``link``.
        size: of a file, with its confidence.
        mtime_ns: the service's, a run's, or first-seen; never now.
        executable: the x bit of a file.
        immutable: can never change; the kernel may keep it for a year.
        artifact, version: what it belongs to, if anything.
        tree_path: of a file in a tree, ``/``-separated below the version's root.
        writable: a save through the mount is accepted.
        parent: number of its directory, for ``..`` and for invalidation.
        source: name of the source it comes from, "" for the mount's own.
        draft: key of the draft that replaces its content while it is being edited.
    """

    ino: int
    identity: tuple[str, ...]
    kind: Kind
    name: str
    directory: DirectoryKind | None = None
    content: Content | None = None
    target: str | None = None
    size: Size = Exact(0)  # noqa: RUF009 - a frozen value
    mtime_ns: int = 0
    executable: bool = False
    immutable: bool = False
    artifact: Artifact | None = None
    version: Version | None = None
    tree_path: str = ""
    writable: bool = False
    parent: int = 0
    source: str = ""
    draft: int | None = None
    nlookup: int = 0
    handles: int = 0

    @property
    def link(self) -> str | None:
        """Return where a symlink leads, as the kernel is told: by the names that stand for those in its target."""
        if self.kind is not Kind.SYMLINK or self.target is None:
            return None
        return names.shown_target(self.target) if self.tree_path else self.target

    def apply_refresh(self, newer: Node) -> None:
        """Take over what a newer listing says of the same inode; an edited file keeps what its writer set."""
        self.name, self.parent = newer.name, newer.parent or self.parent
        self.artifact, self.version = newer.artifact, newer.version
        self.directory, self.writable, self.immutable = newer.directory, newer.writable, newer.immutable
        if self.draft is None:
            self.content, self.mtime_ns, self.executable = newer.content, newer.mtime_ns, newer.executable
            # A size that was settled stays: the identity, and with it the content, is the same.
            if isinstance(newer.size, Exact):
                self.size = newer.size

    def __repr__(self) -> str:
        """Tell what and where, in a line."""
        return f"<Node {self.ino} {self.kind.value} {self.name!r} nlookup={self.nlookup} handles={self.handles}>"


def link_size(target: str | None) -> Exact:
    """Return the size of a symlink in a tree."""
    return Exact(len(names.shown_target(target or "").encode()))


def inline_size(content: Content | None) -> Size:
    """Return the size of content that says so itself."""
    return Exact(len(content.data)) if isinstance(content, Inline) else Exact(0)
