"""Inode numbers and the table of nodes that the kernel knows.

Rules of this file: a number is a hash of what the node is, so it is the same after a remount; look-up counts change
only where a reply to the kernel has been accepted, or the kernel forgets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from artifactfs.tree.nodes import Node

ROOT = 1
# The numbers below are the kernel's and FUSE's own; 63 bits, as some programs keep inode numbers in signed integers.
FIRST_FREE = 16
MASK = (1 << 63) - 1
# A table that never held more is not made anew: there would be nothing to gain.
MANY = 8192


def number(identity: tuple[str, ...], attempt: int = 0) -> int:
    """Return the inode number of an identity; ``attempt`` steps aside when two identities meet."""
    # ascii() quotes what a title may hold (NUL, quotes, surrogates): no two identities give one text.
    text = ascii((*identity, attempt) if attempt else identity)
    digest = hashlib.blake2b(text.encode("ascii"), digest_size=8).digest()
    return max(FIRST_FREE, int.from_bytes(digest, "big") & MASK)


class InodeTable:
    """The nodes the kernel holds references to; ``lookups`` is how many replies it has of them all together."""

    def __init__(self, root: Node) -> None:
        """Begin with the root, which is never forgotten."""
        self._nodes: dict[int, Node] = {root.ino: root}
        self._most = 0
        root.nlookup = 1
        self.lookups = 1

    def __len__(self) -> int:
        """Return how many nodes the kernel knows."""
        return len(self._nodes)

    def get(self, ino: int) -> Node | None:
        """Return the node of a number the kernel knows."""
        return self._nodes.get(ino)

    def nodes(self) -> Iterable[Node]:
        """Return the nodes the kernel knows."""
        return self._nodes.values()

    def settle(self, node: Node) -> Node:
        """Return the node that stands for this identity: the known one, or this one with a number of its own."""
        attempt = 0
        while (known := self._nodes.get(node.ino)) is not None and known.identity != node.identity:
            attempt += 1
            node.ino = number(node.identity, attempt)
        if known is None:
            return node
        if known is not node:
            known.apply_refresh(node)
        return known

    def path_of(self, node: Node) -> str:
        """Return a node's path below the root, as far as the directories above it are in the table."""
        parts: list[str] = []
        at: Node | None = node
        while at is not None and at.ino != ROOT:
            parts.append(at.name)
            at = self._nodes.get(at.parent)
        return "/".join(reversed(parts))

    def apply_lookup(self, node: Node) -> None:
        """Count one accepted reply that named this node.

        Since the node was settled another reply may have told the kernel of the same inode through another object (a
        directory is read long after it was opened): the count belongs to the one in the table.
        """
        known = self._nodes.setdefault(node.ino, node)
        known.nlookup += 1
        self.lookups += 1

    def apply_forget(self, ino: int, count: int) -> None:
        """Count replies the kernel has dropped; the last one drops the node.

        Raises:
            ValueError: the kernel forgets more than it was told; our counting is wrong.
        """
        node = self._nodes.get(ino)
        if node is None or node.ino == ROOT:
            return
        node.nlookup -= count
        self.lookups -= count
        if node.nlookup < 0:
            message = f"inode {ino} was forgotten {-node.nlookup} times too often"
            raise ValueError(message)
        if node.nlookup == 0 and node.handles == 0:
            self._most = max(self._most, len(self._nodes))
            del self._nodes[ino]
            if len(self._nodes) * 8 < self._most and self._most > MANY:
                # A dict never gives memory back by itself: that of a million takes 80 MB when it is empty, too.
                self._nodes, self._most = dict(self._nodes), len(self._nodes)

    def apply_close(self, node: Node) -> None:
        """Drop a node that the kernel forgot while a handle was still open."""
        if node.nlookup == 0 and node.handles == 0 and node.ino != ROOT:
            self._nodes.pop(node.ino, None)
