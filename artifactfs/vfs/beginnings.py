"""What paths of a changed tree were to who changed them first, where that is not what the tree's base has.

Rules of this file: nothing awaited. What a writer began with counts, not what this mount has learnt since; who takes a
path over that was changed before goes on with what that change began with. Who calls holds the order of names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from artifactfs.model.entry import Artifact
from artifactfs.tree.merging import Began, above, sha256_of
from artifactfs.tree.names import raw_name
from artifactfs.tree.nodes import Kind, Node
from artifactfs.vfs.context import Context
from artifactfs.vfs.overlay import Edit, WorkTree, join
from artifactfs.vfs.tree_taken import Taken, member_of, version_of


def seen_by(edit: Edit) -> str | Artifact | None:
    """Return what a writer began with: a hash, or the version that has it; None if nobody has looked."""
    return edit.base if edit.is_unhashed else edit.base_sha256


def covers(tree: WorkTree, directory: str, name: str) -> bool:
    """Tell whether something was changed at a path of a tree, or in whose place it is."""
    while name not in tree.names.get(directory, ()):
        if not directory:
            return False
        directory, _, name = directory.rpartition("/")
    return True


@dataclass(slots=True)
class Beginnings:
    """Remembers what paths of trees were."""

    context: Context

    def note(self, tree: WorkTree, directory: str, name: str, node: Node | None) -> None:
        """Remember what a name was that is being changed or taken over: what ``node`` is, or nothing."""
        at = join(directory, raw_name(name, node.tree_path if node is not None else ""))
        edit = self.context.overlay.edits.get(node.ino) if node is not None else None
        seen = seen_by(edit) if edit is not None else None
        if seen is not None:
            tree.began[at] = seen
        elif covers(tree, directory, name):
            return  # it goes on with what that began with
        elif node is not None and edit is None and self._is_news(tree, node):
            member = member_of(node, at)
            # The x bit of an inode may have been changed here alone.
            tree.began[at] = (sha256_of(member) if node.kind is Kind.FILE else None) or member
        else:
            tree.began.pop(at, None)

    def _is_news(self, tree: WorkTree, node: Node) -> bool:
        """Tell whether what is shown now is of another version than the base of a tree."""
        newest = self.context.directories.history.newest(tree.source, tree.base)
        is_something = node.kind is not Kind.FILE or node.content is not None
        return is_something and version_of(newest) != version_of(tree.base)

    def keep(self, tree: WorkTree, known: Mapping[str, Began]) -> None:
        """Remember of what is known only what counts for what is still changed in a tree."""
        standing = {Taken(path, name, entry, None).at for path, name, entry in tree.entries()}
        standing.update(edit.path for edit in self.context.overlay.edits_of(tree))
        tree.began = {
            path: seen for path, seen in known.items() if path in standing or not standing.isdisjoint(above(path))
        }  # fmt: skip
