"""How long the kernel may believe what it is told.

Rules of this file: synchronous, no I/O. What this mount itself changes the kernel forgets by itself, or is told of; so
these are about what others change.
"""

from __future__ import annotations

from artifactfs.model.content import Exact, Pointer
from artifactfs.tree.nodes import Kind, MountRoot, Node
from artifactfs.vfs.control_dir import is_control
from artifactfs.vfs.filesystem import FileSystem

FOREVER_S = 365 * 86400.0
# First words of the identities that say which version of an artifact is the current one.
OF_ARTIFACT = frozenset({"version link", "metadata"})


def name_s(fs: FileSystem, node: Node) -> float:
    """Return how long the kernel may believe a name and its attributes, in seconds."""
    # The root over several sources never changes; asked for at every path it would cost two upcalls a file.
    if node.immutable or isinstance(node.directory, MountRoot):
        return FOREVER_S
    source = fs.sources.get(node.source)
    if source is not None and source.provider.publisher is not None and node.identity[0] in OF_ARTIFACT:
        return 0.0  # who saves a file and reads `latest` in the next command must find that save
    return source.provider.listing_ttl_s if source else 0.0


def attributes_s(fs: FileSystem, node: Node) -> float:
    """Return how long the kernel may believe the attributes: not at all while the size is not known."""
    if is_control(node) or node.draft is not None:
        return 0.0
    if isinstance(node.content, Pointer):
        return min(fs.pointers.believed_s(node), name_s(fs, node))
    if node.kind is Kind.FILE and not isinstance(node.size, Exact):
        return 0.0
    return name_s(fs, node)


def absence_s(fs: FileSystem, parent_ino: int, name: str) -> float:
    """Return how long the kernel may believe that a name stands for nothing, in seconds; 0 where it may come."""
    parent = fs.inodes.get(parent_ino)
    ttl_s = 0.0 if parent is None else min(FOREVER_S, fs.directories.absent_ttl_s(parent, name))
    if ttl_s > 0:
        fs.announcer.was_absent(parent_ino, name)
    return ttl_s
