"""The changes of a tree, begun when the first one is made.

Rules of this file: they are made on the version that was current then. Only the present of an artifact has any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from artifactfs import errors
from artifactfs.journal.staging import Staging
from artifactfs.journal.states import State
from artifactfs.tree.nodes import Node, VersionDir
from artifactfs.vfs.context import Context
from artifactfs.vfs.overlay import WorkTree


@dataclass(slots=True)
class WorkTrees:
    """Begins and finds the changes of trees."""

    context: Context
    homes: Mapping[str, Staging]

    def tree(self, directory: Node) -> WorkTree:
        """Return the changes of the tree that a directory is in, begun if there are none.

        Raises:
            ReadOnly: it is in none.
        """
        place = directory.directory
        if not isinstance(place, VersionDir) or not place.present:
            message = "this is not in a tree"
            raise errors.ReadOnly(message)
        tree = self.tree_of_artifact(directory.source, place)
        if not tree.shown:
            above = self.context.path_of(directory).split("/")
            tree.shown = "/".join(above[: len(above) - len(place.path.split("/")) if place.path else None])
        return tree

    def tree_of_artifact(self, source: str, place: VersionDir) -> WorkTree:
        """Return the changes of a tree, begun if there are none."""
        found = self.context.overlay.trees.get((source, place.artifact.key))
        if found is None:
            base = self.context.directories.history.newest(source, place.artifact)
            home = self.homes[source]
            found = WorkTree(source=source, home=home, number=home.next_number(), state=State.SEALED, base=base)
            self.context.overlay.trees[source, base.key] = found
        return found
