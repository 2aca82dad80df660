"""Facts about artifacts as extended attributes, only where the mount was asked for them.

Rules of this file: answered from memory. Implementing getxattr at all makes ``ls -l`` about 20 times slower (measured),
because the kernel then asks for two attributes of every file; so these are classes of their own.
"""

# ruff: noqa: ARG002 - pyfuse3 sets the signatures
from __future__ import annotations

import errno
from collections.abc import Sequence

import pyfuse3

from artifactfs.fuse.boundary import handler
from artifactfs.fuse.operations import Operations, WritableOperations
from artifactfs.tree.inodes import ROOT
from artifactfs.tree.nodes import Listed, Node
from artifactfs.vfs import facts_of
from artifactfs.vfs.known import Known


class _Xattrs(Operations):
    def _facts(self, inode: int) -> dict[str, str]:
        node: Node = self.fs.node(inode)
        source = self.fs.sources.get(node.source)
        facts = facts_of.xattrs(node, source.provider.service if source else "", self.fs.content)
        return facts | facts_of.freshness(self._listing(node))

    def _listing(self, node: Node) -> Known | None:
        """Return what is known of the listing that a node shows, or that it is shown in."""
        at: Node | None = node
        while at is not None:
            if isinstance(at.directory, Listed):
                return self.fs.directories.listings.peek(at.directory.ref)
            at = self.fs.inodes.get(at.parent) if at.ino != ROOT else None
        return None

    @handler
    async def getxattr(self, inode: pyfuse3.InodeT, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        value = self._facts(inode).get(name.decode("utf-8", "surrogateescape"))
        if value is None:
            raise pyfuse3.FUSEError(errno.ENODATA)
        return value.encode("utf-8", "backslashreplace")

    @handler
    async def listxattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        return [name.encode() for name in self._facts(inode)]

    @handler
    async def setxattr(self, inode: pyfuse3.InodeT, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        raise pyfuse3.FUSEError(errno.EPERM)

    @handler
    async def removexattr(self, inode: pyfuse3.InodeT, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        raise pyfuse3.FUSEError(errno.EPERM)


class XattrOperations(_Xattrs):
    """A read-only mount with attributes."""


class WritableXattrOperations(_Xattrs, WritableOperations):
    """A writable mount with attributes."""
