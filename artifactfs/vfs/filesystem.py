"""The filesystem: every operation in its own types.

Rules of this file: nothing here knows FUSE or errno. Between two awaits the tables are consistent. Look-up counts are
changed by ``apply_lookup`` when a reply has been accepted and by ``forget``, nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping

from artifactfs import errors
from artifactfs.concurrency import in_slices
from artifactfs.content.reader import ContentReader
from artifactfs.journal.staging import Staging
from artifactfs.model.content import ContentRef, Exact, Hint, Inline, Pointer
from artifactfs.model.entry import DirRef
from artifactfs.tree.inodes import ROOT, InodeTable
from artifactfs.tree.layout import CONTROL
from artifactfs.tree.nodes import Kind, Listed, MountRoot, Node
from artifactfs.vfs.control_dir import ControlFiles, is_control
from artifactfs.vfs.directories import Directories
from artifactfs.vfs.handles import Change, DirectoryHandle, HandleTable, Opened, ReadHandle, WriteHandle
from artifactfs.vfs.moves import Move
from artifactfs.vfs.namespace import Namespace
from artifactfs.vfs.pointers import Pointers
from artifactfs.vfs.prefetch import Prefetch
from artifactfs.vfs.removing import Remover
from artifactfs.vfs.renaming import Renamer
from artifactfs.vfs.sources import Source, source_node
from artifactfs.vfs.writeback import Policy
from artifactfs.vfs.writing import Writer


class FileSystem:
    """One mount's files."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        content: ContentReader,
        homes: Mapping[str, Staging],
        control: ControlFiles,
        *,
        show_ids: bool = False,
        single: bool = False,
        policy: Policy | None = None,
    ) -> None:
        """Build the tree's root: of the one source, or over several."""
        self.sources = sources
        self.content = content
        self.control = control
        self.directories = Directories(sources, content, control.level, show_ids=show_ids)
        self.handles = HandleTable()
        self.inodes = InodeTable(self._make_root(single=single))
        self.size_settled: Callable[[int], None] = lambda _ino: None
        self.writer = Writer(
            sources, self.directories, content, homes, lambda node: self.inodes.get(node.parent),
            lambda ino: self.size_settled(ino),  # noqa: PLW0108 - it is set later
            policy or Policy(),
        )  # fmt: skip
        self.writer.context.path_of, self.writer.context.settle = self.inodes.path_of, self.inodes.settle
        announcer = self.announcer = self.directories.listings.announcer
        announcer.inodes, announcer.is_covered = self.inodes, self.writer.is_covered
        announcer.reread = self.handles.changed
        announcer.is_known = lambda node: node.identity in self.writer.overlay.saved
        self.namespace = Namespace(self.directories, self.writer)
        self.remover = Remover(self.directories, self.writer, self.namespace)
        self.renamer = Renamer(self.directories, self.writer, self.namespace, self.remover)
        self.pointers = Pointers(content, self.handles)
        self.writer.context.pointer_saved = self.pointers.saved
        self.prefetch = Prefetch(self.directories, content)
        self.directories.trees.confirmed = self._confirmed

    def _confirmed(self, early: Node, node: Node) -> None:
        """Let an inode that was shown before the hash of its content was known stand for that content."""
        known = self.inodes.get(early.ino)
        if known is not None and known.identity == early.identity:
            self.writer.overlay.become(known, node)

    def _make_root(self, *, single: bool) -> Node:
        if single:
            root = source_node(next(iter(self.sources.values())), "")
            root.ino = ROOT
            return root
        oldest = min((source.first_seen_ns for source in self.sources.values()), default=0)
        return Node(ROOT, ("mount",), Kind.DIRECTORY, "", directory=MountRoot(), mtime_ns=oldest)

    # -- names -----------------------------------------------------------------------------------------------

    def node(self, ino: int) -> Node:
        """Return the node of an inode number.

        Raises:
            StaleContent: the kernel names an inode that was forgotten.
        """
        node = self.inodes.get(ino)
        if node is None:
            message = f"inode {ino} is not known any more"
            raise errors.StaleContent(message)
        return node

    async def lookup(self, parent_ino: int, name: str) -> Node:
        """Return what a name stands for.

        Raises:
            NotFound: for nothing, as the service or a complete listing says.
        """
        parent = self.node(parent_ino)
        if parent.kind is not Kind.DIRECTORY:
            raise errors.NotADirectory(subject=parent.name)
        if len(name.encode("utf-8", "surrogateescape")) > 255:  # noqa: PLR2004 - NAME_MAX, as statfs says
            raise errors.NameTooLong
        found = await self._find(parent, name)
        if found is None:
            raise errors.NotFound(subject=name)
        return self._settle(parent, found)

    async def _find(self, parent: Node, name: str) -> Node | None:
        overlay = self.writer.overlay
        entry = overlay.names(parent).get(name)
        if entry is None and not overlay.hides_base(parent):
            return await self.directories.lookup(parent, name)
        return entry if isinstance(entry, Node) else None

    def _settle(self, parent: Node, found: Node) -> Node:
        node = self.writer.overlay.saved.get(found.identity)
        if node is None:
            found.parent = parent.ino
            return self.inodes.settle(found)
        node.version, node.artifact, node.name, node.parent = found.version, found.artifact, found.name, parent.ino
        return node

    def accepted(self, node: Node) -> None:
        """Count a reply that the kernel has taken."""
        self.inodes.apply_lookup(node)

    def forget(self, ino: int, count: int) -> None:
        """Uncount replies that the kernel has dropped."""
        self.inodes.apply_forget(ino, count)
        if self.inodes.get(ino) is None:
            self.pointers.forget(ino)
            self.writer.overlay.spoiled.discard(ino)
            self.announcer.forget(ino)

    # -- attributes ------------------------------------------------------------------------------------------

    async def getattr(self, ino: int) -> Node:
        """Return a node whose attributes are right, its size settled."""
        node = self.node(ino)
        edit = self.writer.overlay.edits.get(node.ino)
        if edit is not None:
            node.size, node.mtime_ns = Exact(edit.staged.size), edit.staged.mtime_ns or node.mtime_ns
        elif is_control(node):
            self.control.refresh(node)
        elif isinstance(node.content, Pointer):
            if not self.pointers.believed_s(node):
                self.prefetch.sized(node)
            await self.pointers.settle(node, node.content)
        elif node.kind is Kind.FILE and not isinstance(node.size, Exact) and node.content is not None:
            self.prefetch.sized(node)
            node.size = Exact(await self.content.size(node.content))
        return node

    async def setattr(self, ino: int, change: Change, handle: int | None) -> Node:
        """Change a size (which is a save), keep mode and times locally."""
        node = self.node(ino)
        self.writer.publisher(node.source)
        if not node.writable and not isinstance(node.directory, Listed):
            message = "only the present version of an artifact can be changed"
            raise errors.ReadOnly(message)
        if change.size is not None:
            await self._truncate(node, change.size, handle)
        edit = self.writer.overlay.edits.get(node.ino)
        if change.executable is not None and node.kind is Kind.FILE:
            node.executable = change.executable
            if edit is not None and edit.staged.executable != change.executable:
                edit.staged.executable = change.executable
                await self.writer.sealing.seal_again(edit)
        if change.mtime_ns is not None:
            node.mtime_ns = change.mtime_ns
            if edit is not None:
                edit.staged.mtime_ns = change.mtime_ns
        return await self.getattr(ino)

    async def _truncate(self, node: Node, size: int, handle: int | None) -> None:
        if node.kind is not Kind.FILE:
            raise errors.IsADirectory
        if handle is not None and isinstance(opened := self.handles.any(handle), WriteHandle):
            opened.edit.staged.truncate(size)
            return
        await self.writer.truncate(node, size)

    # -- directories -----------------------------------------------------------------------------------------

    async def opendir(self, ino: int) -> int:
        """Open a directory as it is now; return the handle."""
        opened = DirectoryHandle(self.node(ino))
        number = self.handles.add(opened)  # before its names are gathered: some may change meanwhile
        try:
            await self._gather(opened)
        except BaseException:
            self.handles.drop(number)
            raise
        self.prefetch.entered(opened.node, opened.entries)
        return number

    async def _gather(self, opened: DirectoryHandle) -> None:
        node, overlay, entries = opened.node, self.writer.overlay, list[Node]()
        for _ in range(10):  # seldom more than once
            changes, own = opened.changes, dict(overlay.names(node))
            listed = {} if overlay.hides_base(node) else (await self.directories.children(node)).children
            if own == overlay.names(node):
                break  # else a change was published meanwhile, and may be in neither
        await in_slices(
            list(listed),  # of a million pairs it would take half a second itself
            lambda part: entries.extend(self._settle(node, listed[n]) for n in part if n not in own and n in listed),
        )
        opened.known_changes, opened.entries = changes, entries
        opened.entries += [self._settle(node, entry) for entry in own.values() if isinstance(entry, Node)]

    async def begin(self, handle: int) -> None:
        """Begin to read a directory; who begins again (``rewinddir``) gets it as it is now."""
        opened = self.handles.get(handle, DirectoryHandle)
        if opened.begun or opened.is_outdated:
            await self._gather(opened)
        opened.begun = True

    def readdir(self, handle: int, start: int = 0) -> Iterator[tuple[int, Node, bool]]:
        """Yield what the directory held when its reading began: cookie, node, and whether its name is still as then.

        Where that is not sure the kernel has to look the name up again: it takes what it is told here for what is.
        """
        opened = self.handles.get(handle, DirectoryHandle)
        own = self.writer.overlay.names(opened.node) if opened.is_outdated else {}
        for position in range(start, len(opened.entries)):
            node = opened.entries[position]
            now = own.get(node.name)
            if now is None or (isinstance(now, Node) and now.ino == node.ino):
                yield position + 1, node, not opened.is_outdated

    # -- files -----------------------------------------------------------------------------------------------

    async def open(self, ino: int, flags: int) -> Opened:
        """Open a file for what the flags say."""
        node = self.node(ino)
        if node.kind is Kind.DIRECTORY:
            raise errors.IsADirectory
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            edit = await self.writer.open(node, truncate=bool(flags & os.O_TRUNC))
            return Opened(self.handles.add(WriteHandle(node, edit)), self.writer.overlay.keeps_pages(ino))
        edited = self.writer.overlay.edits.get(ino)
        if edited is not None:
            handle = self.handles.add(ReadHandle(node, Inline(b""), edited.staged.size, of_edit=True))
            return Opened(handle, self.writer.overlay.keeps_pages(ino))
        self.writer.demand_a_place(node)
        try:
            return await self._open_reading(node)
        except errors.NotFound as error:
            self.directories.gone(node, self.inodes.get, error)
            raise

    async def _open_reading(self, node: Node) -> Opened:
        if is_control(node):
            self.control.refresh(node)
        self.prefetch.opened(node)
        content = node.content or Inline(b"")
        if isinstance(content, Pointer):
            ref, keep, direct = await self.pointers.open(node, content)
            self.size_settled(node.ino)
            return Opened(self.handles.add(ReadHandle(node, ref, await self.content.size(ref))), keep, direct)
        revision, size = await self.content.settled(content)
        if not isinstance(node.size, Exact) or node.size.value != size:
            node.size = Exact(size)
            self.size_settled(node.ino)
        keep = self.writer.overlay.keeps_pages(node.ino)
        return self.handles.opened_on(revision, ReadHandle(node, content, size), keep=keep, direct=is_control(node))

    async def read(self, handle: int, offset: int, length: int) -> bytes:
        """Return bytes of an open file; fewer than asked only at its end."""
        opened = self.handles.any(handle)
        try:
            if isinstance(opened, ReadHandle) and opened.of_edit and opened.node.ino not in self.writer.overlay.edits:
                await self.pointers.published(opened)
            match opened:
                case WriteHandle(edit=edit) if not edit.staged.closed:
                    return edit.staged.read(offset, length)
                case ReadHandle(node=node) if (edited := self.writer.overlay.edits.get(node.ino)) is not None:
                    return edited.staged.read(offset, length)
                case ReadHandle(node=node, pattern=pattern) if node.writable and isinstance(node.content, ContentRef):
                    # Saved through this mount since it was opened, perhaps: an inode shows one content to all.
                    return await self.content.read(node.content, offset, length, pattern)
                case ReadHandle(content=content, size=size, pattern=pattern):
                    return await self.content.read(content, offset, max(0, min(length, size - offset)), pattern)
                case _:
                    raise errors.IsADirectory
        except errors.NotFound as error:
            raise self.directories.gone(opened.node, self.inodes.get, error) from error

    async def create(self, parent_ino: int, name: str, *, executable: bool) -> tuple[Node, int]:
        """Make and open a new file; return its node and handle."""
        parent = self.node(parent_ino)
        edit = await self.namespace.create(parent, name, executable=executable)
        return edit.node, self.handles.add(WriteHandle(edit.node, edit))

    def write(self, handle: int, offset: int, data: bytes) -> int:
        """Put bytes into an open file's draft."""
        opened = self.handles.get(handle, WriteHandle)
        self.writer.sealing.take(opened.edit, data)
        return opened.edit.staged.write(offset, data)

    async def flush(self, handle: int) -> None:
        """Make what was written through a handle durable here."""
        opened = self.handles.any(handle)
        if isinstance(opened, WriteHandle):
            await self.writer.sealing.flush(opened.edit)

    async def release(self, handle: int) -> None:
        """Close a handle; the last writer's close publishes."""
        opened = self.handles.drop(handle)
        if isinstance(opened, WriteHandle):
            await self.writer.release(opened.edit)
        if opened is not None:
            self.closed(opened.node)

    def closed(self, node: Node) -> None:
        """Take note that one handle less is open on a node."""
        self.writer.lineage.collect(node)
        self.inodes.apply_close(node)

    # -- changes of names ------------------------------------------------------------------------------------

    async def mkdir(self, parent_ino: int, name: str) -> Node:
        """Make a directory: a workflow, a tree, or one in a tree."""
        parent = self.node(parent_ino)
        await self.namespace.mkdir(parent, name)
        return await self.lookup(parent_ino, name)

    async def symlink(self, parent_ino: int, name: str, target: str) -> Node:
        """Make a symlink in a tree."""
        await self.namespace.symlink(self.node(parent_ino), name, target)
        return await self.lookup(parent_ino, name)

    async def unlink(self, parent_ino: int, name: str) -> None:
        """Remove a file."""
        node = await self.lookup(parent_ino, name)
        if node.kind is Kind.DIRECTORY:
            raise errors.IsADirectory
        with self.handles.changing(parent_ino):
            await self.remover.unlink(self.node(parent_ino), name, node)

    async def rmdir(self, parent_ino: int, name: str) -> None:
        """Remove an empty directory."""
        node = await self.lookup(parent_ino, name)
        if node.kind is not Kind.DIRECTORY:
            raise errors.NotADirectory
        with self.handles.changing(parent_ino):
            await self.remover.rmdir(self.node(parent_ino), name, node)

    async def rename(self, old: tuple[int, str], new: tuple[int, str], *, replace: bool) -> None:
        """Give (directory, name) another place; ``replace`` False refuses one that is taken."""
        node = await self.lookup(*old)
        try:
            target = await self.lookup(*new)
        except errors.NotFound:
            target = None
        if target is not None and not replace:
            raise errors.AlreadyExists
        with self.handles.changing(old[0], new[0]):
            await self.renamer.rename(Move(self.node(old[0]), old[1], node, self.node(new[0]), new[1], target))

    # -- for others ------------------------------------------------------------------------------------------

    def shown_size(self, node: Node) -> int:
        """Return the size to put into a reply: what is known, 0 where nothing is.

        Of what is being written it is that of this moment: the kernel appends where a reply says that the end is.
        """
        edit = self.writer.overlay.edits.get(node.ino)
        if edit is not None and not edit.staged.closed:
            return edit.staged.size
        return node.size.value if isinstance(node.size, Exact | Hint) else 0

    async def walk(self, path: str) -> Node:
        """Return the node at a path below the mount point."""
        node = self.node(ROOT)
        for name in filter(None, path.split("/")):
            found = await self._find(node, name)
            if found is None:
                raise errors.NotFound(subject=path)
            node = self._settle(node, found)
        return node

    def listing_of(self, node: Node) -> DirRef | None:
        """Return the listing that a directory shows, for its age."""
        return node.directory.ref if isinstance(node.directory, Listed) else None


__all__ = ["CONTROL", "Change", "FileSystem", "Opened"]
