"""Inodes that stand for something listed because it was saved through this mount.

Rules of this file: no I/O, nothing awaited. ``identity`` of a node in here is always what it stands for, so one inode
never stands for two contents. Kept when the kernel forgets the inode, too: its number and its time are what an editor
compares later. Of what is listed at one place only the last is kept: no listing shows the ones before any more, and a
file that is saved every second would leave one behind each time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cachetools import LRUCache

from artifactfs.model.entry import Artifact
from artifactfs.tree.layout import present_place
from artifactfs.tree.nodes import Node
from artifactfs.tree.versions import member_place

# Each with its artifact some 3 kB (measured); one that falls out gets the service's time and another number at the next
# look-up.
SAVED = 10_000

Identity = tuple[str, ...]


@dataclass(slots=True)
class Saved:
    """The last saved ones."""

    _nodes: LRUCache[Identity, Node] = field(default_factory=lambda: LRUCache(SAVED))

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._nodes)

    def __contains__(self, identity: Identity) -> bool:
        """Tell whether one stands for what is listed under an identity."""
        return self.get(identity) is not None

    def get(self, identity: Identity) -> Node | None:
        """Return the inode that stands for what is listed under an identity."""
        node = self._nodes.get(_place(identity))
        return node if node is not None and node.identity == identity else None

    def put(self, node: Node) -> None:
        """Keep an inode that stands for its identity now, in the place of what stood there before."""
        self._nodes[_place(node.identity)] = node

    def drop(self, node: Node) -> None:
        """Let an inode stand for nothing that is listed."""
        place = _place(node.identity)
        if self._nodes.get(place) is node:
            del self._nodes[place]

    def removed(self, source: str, artifact: Artifact) -> None:
        """Let go of what stands for a file that its service does not list any more."""
        self._nodes.pop(_place(("present", source, artifact.key, "", "file")), None)


def _place(identity: Identity) -> Identity:
    """Return what an identity says but for the version and the content."""
    return present_place(identity) if identity[0] == "present" else member_place(identity)
