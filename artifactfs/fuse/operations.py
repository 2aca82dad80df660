"""Handlers: unpack what the kernel asks, call the filesystem, pack the answer. No decisions here."""

from __future__ import annotations

import errno
import logging
import stat
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import pyfuse3
import trio

from artifactfs import errors, observe
from artifactfs.fuse.boundary import LATER, Call, at_once, handler, interrupt
from artifactfs.fuse.convert import Owner, absent, attributes, bytes_of, name_of
from artifactfs.fuse.followers import Followers
from artifactfs.fuse.rereads import Rereads
from artifactfs.fuse.subjects import Subjects
from artifactfs.model.entry import Accepts
from artifactfs.tree.nodes import Node
from artifactfs.vfs import at_once as quick
from artifactfs.vfs import lifetimes
from artifactfs.vfs.filesystem import Change, FileSystem, Opened

log = logging.getLogger(__name__)

# renameat2 flags, from linux/fs.h.
RENAME_NOREPLACE = 1
# statfs must not ask anybody: a size that no program takes for a full disk, in blocks of 4 KiB (1 PiB).
STATFS_BLOCK = 4096
STATFS_BLOCKS = 1 << 38
# Linux' PATH_MAX without its NUL: of a longer answer to readlink the kernel makes EIO, and the call fails here, too.
LINK_MAX = 4095


T = TypeVar("T")


async def _kept(_value: object) -> None:
    """Leave a change as it is, though nobody waited for it any more."""


def _file_info(opened: Opened) -> pyfuse3.FileInfo:
    return pyfuse3.FileInfo(
        fh=pyfuse3.FileHandleT(opened.handle), keep_cache=opened.keep_cache, direct_io=opened.direct_io
    )  # fmt: skip


class Operations(pyfuse3.Operations):
    """What the kernel can ask of a mount. ``flush`` is left out: see ``WritableOperations``."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, fs: FileSystem, owner: Owner, observer: observe.Observer, timeout_s: float) -> None:
        """Serve ``fs``; every operation is answered within ``timeout_s`` seconds."""
        super().__init__()
        self.fs = fs
        self.owner = owner
        self.subjects = Subjects(fs, observer)
        self.timings = observer.timings
        self.timeout_s = timeout_s
        self.running: dict[trio.CancelScope, Call | None] = {}
        self.rereads = Rereads()
        self.followers = Followers(self._inode_of)
        fs.size_settled = self._settled

    def _inode_of(self, handle: int) -> int | None:
        opened = self.fs.handles.peek(handle)
        return None if opened is None else opened.node.ino

    @staticmethod
    def _settled(ino: int) -> None:
        """Make the kernel forget a size; attr_only never waits for pages, so it is safe on the event loop."""
        try:
            pyfuse3.invalidate_inode(pyfuse3.InodeT(ino), attr_only=True)
        except OSError:
            return  # the kernel does not know the inode: nothing to forget

    def failed(self, operation: str, subject: object, error: errors.ArtifactFSError) -> None:
        """Keep a failure where ``why`` finds it."""
        self.subjects.failed(operation, subject, error)

    def interrupt(self, older_than_s: float) -> int:
        """Have operations answered now that have been waiting for so many seconds; return how many."""
        return interrupt(self.running, self.timeout_s, older_than_s)

    def _attributes(self, node: Node) -> pyfuse3.EntryAttributes:
        fs = self.fs
        return attributes(
            node, self.owner, fs.shown_size(node), lifetimes.name_s(fs, node), lifetimes.attributes_s(fs, node)
        )

    # -- names and attributes --------------------------------------------------------------------------------

    @handler
    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        try:
            node = await self.fs.lookup(parent_inode, name_of(name))
        except errors.NotFound as error:
            ttl_s = lifetimes.absence_s(self.fs, parent_inode, name_of(name)) if error.status is None else 0.0
            if ttl_s <= 0:
                raise
            return absent(ttl_s)
        entry = self._attributes(node)
        self.fs.accepted(node)
        return entry

    async def forget(self, inode_list: Sequence[tuple[pyfuse3.InodeT, int]]) -> None:
        """Uncount look-ups; there is nobody to answer, so nothing is raised."""
        for ino, count in inode_list:
            try:
                self.fs.forget(ino, count)
            except Exception:
                observe.begin("forget", ino=ino)
                log.exception("inode %d could not be forgotten", ino)

    @handler
    async def getattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._attributes(await self.fs.getattr(inode))

    @handler
    async def setattr(
        self,
        inode: pyfuse3.InodeT,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: pyfuse3.FileHandleT | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        change = Change(
            size=attr.st_size if fields.update_size else None,
            executable=bool(attr.st_mode & 0o100) if fields.update_mode else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        return self._attributes(await self._whole(partial(self.fs.setattr, inode, change, fh)))

    @handler
    async def readlink(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> bytes:
        link = self.fs.node(inode).link
        if link is None:
            raise pyfuse3.FUSEError(errno.EINVAL)
        told = bytes_of(link)
        if len(told) > LINK_MAX:
            raise pyfuse3.FUSEError(errno.ENAMETOOLONG)
        return told

    @handler
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = STATFS_BLOCK
        data.f_blocks = data.f_bfree = data.f_bavail = STATFS_BLOCKS
        data.f_files = data.f_ffree = data.f_favail = STATFS_BLOCKS
        data.f_namemax = 255
        return data

    # -- directories -----------------------------------------------------------------------------------------

    @handler
    async def opendir(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileHandleT:
        handle = await self.fs.opendir(inode)
        self.fs.handles.opened_by(handle, ctx.pid)
        return pyfuse3.FileHandleT(handle)

    @handler
    async def readdir(self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        if start_id == 0:
            await self.fs.begin(fh)
        for cookie, node, is_sure in self.fs.readdir(fh, start_id):
            entry = self._attributes(node)
            if not is_sure:
                entry.entry_timeout = 0
            if not pyfuse3.readdir_reply(token, bytes_of(node.name), entry, cookie):
                return
            self.fs.accepted(node)

    @handler
    async def releasedir(self, fh: pyfuse3.FileHandleT) -> None:
        await self.fs.release(fh)

    @handler
    async def fsyncdir(self, fh: pyfuse3.FileHandleT, datasync: bool) -> None:  # noqa: FBT001 - pyfuse3's
        """Do nothing: names are durable when the call that made them has returned."""

    # -- files -----------------------------------------------------------------------------------------------

    def _open(self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        opened = quick.open_file(self.fs, inode, flags)
        if opened is not None:
            self.fs.handles.opened_by(opened.handle, ctx.pid)
        return LATER if opened is None else _file_info(opened)

    @at_once(_open)
    async def open(self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        work = partial(self.fs.open, inode, flags)
        opened: Opened = await (self._whole(work, self._close) if flags & quick.WRITING else work())
        self.fs.handles.opened_by(opened.handle, ctx.pid)
        return _file_info(opened)

    async def _close(self, opened: Opened) -> None:
        await self.fs.release(opened.handle)

    async def _whole(self, work: Callable[[], Awaitable[T]], undo: Callable[[T], Awaitable[object]] = _kept) -> T:
        """Change something: that goes on when its caller is answered early, for half a change may be a wrong one."""
        return await self.fs.content.flights.to_the_end(work, undo)

    @handler
    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        if self.rereads:
            self.rereads.check(fh, off)
        try:
            return await self.fs.read(fh, off, size)
        except errors.ArtifactFSError as error:
            self.rereads.failed(fh, off, size, error)
            raise
        except trio.Cancelled:
            failure = errors.TimedOut(f"no answer within {self.timeout_s:.0f} s")
            self.rereads.failed(fh, off, size, failure, is_cut=True)
            raise

    @handler
    async def create(
        self,
        parent_inode: pyfuse3.InodeT,
        name: bytes,
        mode: pyfuse3.ModeT,
        flags: pyfuse3.FlagT,
        ctx: pyfuse3.RequestContext,
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        node, handle = await self._create(parent_inode, name, mode)
        self.fs.handles.opened_by(handle, ctx.pid)
        entry = self._attributes(node)
        self.fs.accepted(node)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(handle)), entry

    async def _create(self, parent: int, name: bytes, mode: int) -> tuple[Node, int]:
        work = partial(self.fs.create, parent, name_of(name), executable=bool(mode & 0o100))
        return await self._whole(work, lambda made: self.fs.release(made[1]))

    @handler
    async def write(self, fh: pyfuse3.FileHandleT, off: int, buf: bytes) -> int:
        return self.fs.write(fh, off, buf)

    @handler
    async def fsync(self, fh: pyfuse3.FileHandleT, datasync: bool) -> None:  # noqa: FBT001 - pyfuse3's
        await self._whole(partial(self.fs.flush, fh))

    def _release(self, fh: pyfuse3.FileHandleT) -> Any:  # noqa: ANN401 - None or LATER
        return None if quick.release(self.fs, fh) else LATER

    @at_once(_release)
    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        await self._whole(partial(self.fs.release, fh))

    # -- changes of names ------------------------------------------------------------------------------------

    @handler
    async def mkdir(
        self, parent_inode: pyfuse3.InodeT, name: bytes, mode: pyfuse3.ModeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        node = await self._whole(partial(self.fs.mkdir, parent_inode, name_of(name)))
        entry = self._attributes(node)
        self.fs.accepted(node)
        return entry

    @handler
    async def unlink(self, parent_inode: pyfuse3.InodeT, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self._whole(partial(self.fs.unlink, parent_inode, name_of(name)))

    @handler
    async def rmdir(self, parent_inode: pyfuse3.InodeT, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self._whole(partial(self.fs.rmdir, parent_inode, name_of(name)))

    @handler
    async def rename(
        self,
        parent_inode_old: pyfuse3.InodeT,
        name_old: bytes,
        parent_inode_new: pyfuse3.InodeT,
        name_new: bytes,
        flags: pyfuse3.FlagT,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        if flags & ~RENAME_NOREPLACE:
            raise pyfuse3.FUSEError(errno.EINVAL)
        old, new = (parent_inode_old, name_of(name_old)), (parent_inode_new, name_of(name_new))
        await self._whole(partial(self.fs.rename, old, new, replace=not flags & RENAME_NOREPLACE))

    @handler
    async def symlink(
        self, parent_inode: pyfuse3.InodeT, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Make one in a tree; elsewhere EPERM makes programs fall back (emacs and git do)."""
        node = await self._whole(partial(self.fs.symlink, parent_inode, name_of(name), name_of(target)))
        entry = self._attributes(node)
        self.fs.accepted(node)
        return entry

    @handler
    async def link(
        self, inode: pyfuse3.InodeT, new_parent_inode: pyfuse3.InodeT, new_name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Refuse: EPERM makes programs fall back (git does), EROFS says that nothing can be made here."""
        self.fs.namespace.accepting(self.fs.node(new_parent_inode), name_of(new_name), Accepts.FILES)
        raise pyfuse3.FUSEError(errno.EPERM)

    @handler
    async def mknod(
        self,
        parent_inode: pyfuse3.InodeT,
        name: bytes,
        mode: pyfuse3.ModeT,
        rdev: int,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Refuse special files; a regular one is made as ``create`` makes it."""
        self.fs.namespace.accepting(self.fs.node(parent_inode), name_of(name), Accepts.FILES)
        if not stat.S_ISREG(mode):
            raise pyfuse3.FUSEError(errno.EPERM)
        node, handle = await self._create(parent_inode, name, mode)
        self.fs.accepted(node)
        await self._whole(partial(self.fs.release, handle))
        return self._attributes(await self.fs.getattr(node.ino))


class WritableOperations(Operations):
    """A mount with a source that takes writes.

    ``flush`` costs an upcall for every close of every file; where nothing can be written it is not implemented, and the
    kernel stops asking after the first ENOSYS.
    """

    def _flush(self, fh: pyfuse3.FileHandleT) -> Any:  # noqa: ANN401 - None or LATER
        return None if quick.is_reading(self.fs, fh) else LATER

    @at_once(_flush)
    async def flush(self, fh: pyfuse3.FileHandleT) -> None:
        await self._whole(partial(self.fs.flush, fh))
