"""Between nodes and what the kernel wants of them."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

import pyfuse3

from artifactfs.tree.nodes import Kind, Node

# The unit of st_blocks is 512 bytes by definition.
SECTOR = 512
# What programs take as their buffer size: the largest read the kernel sends by default.
BLKSIZE = 128 * 1024


@dataclass(frozen=True, slots=True)
class Owner:
    """Whom files belong to, and which permission bits they have."""

    uid: int
    gid: int
    umask: int

    def mode(self, node: Node) -> int:
        """Return type and permission bits; never setuid, setgid or sticky."""
        if node.kind is Kind.DIRECTORY:
            return stat.S_IFDIR | (0o755 & ~self.umask)
        if node.kind is Kind.SYMLINK:
            return stat.S_IFLNK | 0o777
        bits = 0o755 if node.executable else 0o644
        return stat.S_IFREG | (bits & ~self.umask)


def attributes(node: Node, owner: Owner, size: int, entry_ttl_s: float, attr_ttl_s: float) -> pyfuse3.EntryAttributes:
    """Return the kernel's view of a node."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = node.ino
    entry.st_mode = owner.mode(node)
    # 1 for directories: find takes 2 to mean that there are no subdirectories, which nobody has counted.
    entry.st_nlink = 1
    entry.st_uid = owner.uid
    entry.st_gid = owner.gid
    entry.st_size = size
    entry.st_blksize = BLKSIZE
    entry.st_blocks = -(-size // SECTOR)
    entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = node.mtime_ns
    entry.entry_timeout = entry_ttl_s
    entry.attr_timeout = attr_ttl_s
    return entry


def absent(ttl_s: float) -> pyfuse3.EntryAttributes:
    """Return the answer that a name stands for nothing, and will for so many seconds."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = pyfuse3.InodeT(0)
    entry.entry_timeout = ttl_s
    return entry


def name_of(name: bytes) -> str:
    """Return a name from the kernel; bytes that are not UTF-8 become lone surrogates."""
    return os.fsdecode(name)


def bytes_of(name: str) -> bytes:
    """Return a name for the kernel."""
    return os.fsencode(name)
