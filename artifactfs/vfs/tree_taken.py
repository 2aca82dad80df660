"""Names of a changed tree as they are being published.

Rules of this file: values only; nobody is asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from artifactfs.journal.drafts import Staged
from artifactfs.model.entry import Artifact, TreeMember
from artifactfs.providers.base import Draft
from artifactfs.tree.merging import Wanted, sha256_of
from artifactfs.tree.names import raw_name
from artifactfs.tree.nodes import Kind, Node
from artifactfs.vfs.overlay import Edit, Gone, join

# The fact of a try that says what it was to make of each path; what was sent may be there, whatever the answer was.
SENT = "sent"
Members = dict[str, TreeMember]
KINDS = {Kind.FILE: "file", Kind.DIRECTORY: "dir", Kind.SYMLINK: "symlink"}


@dataclass(frozen=True, slots=True)
class Taken:
    """A name of a changed tree as it is being published: where it stands, what it stands for, and its bytes.

    ``seen`` is what its writer began with: the hash of a file, or the version that has that; None if nobody has looked.
    """

    path: str
    name: str
    entry: Node | Gone
    wanted: Wanted
    edit: Edit | None = None
    staged: Staged | None = None
    seen: str | Artifact | None = None

    @property
    def at(self) -> str:
        """Return the path in the tree that is wanted so."""
        return path_of(self.path, self.name, self.entry)


def path_of(path: str, name: str, entry: Node | Gone) -> str:
    """Return the raw path in its tree of what a name stands for, in a directory whose path is raw."""
    known = entry.path if isinstance(entry, Gone) else entry.tree_path
    return (known if isinstance(entry, Gone) else "") or join(path, raw_name(name, known))


def member_of(node: Node, path: str) -> TreeMember:
    """Return a node as a version of a tree has it."""
    size = getattr(node.size, "value", 0) if node.kind is Kind.FILE else 0
    return TreeMember(
        path, KINDS[node.kind], node.content, size, node.executable, node.mtime_ns or None, node.target
    )  # fmt: skip


def version_of(artifact: Artifact) -> str | None:
    """Return the id of the current version of an artifact."""
    return artifact.current.id if artifact.current else None


def hash_of(wanted: Draft | TreeMember) -> str:
    """Return what tells one wanted file from another."""
    if isinstance(wanted, Draft):
        return wanted.sha256
    return sha256_of(wanted) or f"{wanted.kind}:{wanted.target or ''}"
