"""What is renamed, and to what: a value."""

from __future__ import annotations

from dataclasses import dataclass

from artifactfs.tree.nodes import Node, VersionDir
from artifactfs.vfs.overlay import join


@dataclass(frozen=True, slots=True)
class Move:
    """A rename: from directory and name to directory and name."""

    old_parent: Node
    old_name: str
    node: Node
    new_parent: Node
    new_name: str
    target: Node | None


def path_at(parent: Node, name: str) -> str:
    """Return the path of a name in its tree, if its directory is in one."""
    return join(parent.directory.path, name) if isinstance(parent.directory, VersionDir) else name
