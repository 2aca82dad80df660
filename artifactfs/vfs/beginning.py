"""The beginning of an edit: a file as it was last seen, copied to a draft."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import trio

from artifactfs import errors
from artifactfs.content.readahead import Pattern
from artifactfs.content.reader import ContentReader
from artifactfs.journal.staging import Staging
from artifactfs.model.content import ArchiveMember, Content, ContentRef, Inline, Pointer
from artifactfs.model.entry import Artifact
from artifactfs.tree.inodes import number
from artifactfs.tree.layout import present_node
from artifactfs.tree.nodes import Kind, Listed, Node, VersionDir
from artifactfs.vfs.directories import Directories
from artifactfs.vfs.listings import TRANSIENT
from artifactfs.vfs.overlay import Edit, Overlay
from artifactfs.vfs.pointers import BELIEVED_S
from artifactfs.vfs.sources import Source

# A round trip through a thread costs about 50 us; reading and writing a mebibyte ten times that.
COPY_CHUNK = 1 << 20


@dataclass(slots=True)
class Beginner:
    """Begins edits; ``parent_of`` says the directory of a node, as far as the kernel knows it."""

    sources: Mapping[str, Source]
    directories: Directories
    content: ContentReader
    homes: Mapping[str, Staging]
    parent_of: Callable[[Node], Node | None]
    overlay: Overlay

    async def begin(self, node: Node, *, copy: bool) -> Edit:
        """Return a new edit of a file, with its bytes or without.

        Raises:
            StaleContent: the node shows what is not current any more.
        """
        parent = self.parent_of(node)
        if parent is None or not isinstance(parent.directory, Listed | VersionDir) or node.artifact is None:
            message = "the directory of this file is not known any more"
            raise errors.StaleContent(message)
        began_with = node.artifact
        base, is_current = await self.freshen(parent, node, began_with)
        if not is_current:
            # The kernel looks the name up again and opens what it finds; told only now, it would append at the old end.
            message = "somebody else has saved it a moment ago"
            raise errors.StaleContent(message)
        home = self.homes[node.source]
        staged = home.open()
        edit = Edit(
            source=node.source, home=home, number=staged.number, node=node, staged=staged, directory=parent.directory,
            base=base,
        )  # fmt: skip
        try:
            staged.executable, staged.mtime_ns = node.executable, node.mtime_ns
            if node.content is not None:
                await self.fill(edit, node.content, copy=copy)
            edit.base_sha256 = self.sha256_of(node.content) or await self._sha256_by_now(node.content, copy=copy)
            self._note_unhashed(edit)
            if not edit.in_tree and node.artifact is not began_with and node.artifact is not None:
                edit.base = replace(node.artifact, current=base.current)  # it was renamed meanwhile
        except BaseException:
            home.discard(staged)
            raise
        return edit

    async def fill(self, edit: Edit, content: Content, *, copy: bool) -> None:
        """Put a content into the draft of an edit, or only that there was one; it counts as untouched."""
        staged = edit.staged
        if not copy:
            # Only that there was something, so that emptying it is a change; how much, nobody need be asked.
            staged.uncopied = 1
            return
        if isinstance(content, Pointer):
            content = await self._pinned(content)
        revision, size = await self.content.settled(content)
        mtime_ns, offset, pattern = staged.mtime_ns, 0, Pattern(revision=revision)
        while offset < size:
            data = await self.content.read(content, offset, COPY_CHUNK, pattern)
            offset += await trio.to_thread.run_sync(staged.write, offset, data)
        staged.touched = staged.dirty = False
        staged.mtime_ns = mtime_ns

    async def _pinned(self, pointer: Pointer) -> ContentRef:
        try:
            return (await self.content.pin(pointer, BELIEVED_S))[0]
        except TRANSIENT:
            if self.content.pointer_fact(pointer) is None:
                raise
            return (await self.content.pin(pointer, float("inf")))[0]

    async def _sha256_by_now(self, content: Content | None, *, copy: bool) -> str | None:
        """Return the hash of a file that was shown before its archive had been read to the end, if that is known now.

        Who begins with an empty file does not wait for the archive.
        """
        if not isinstance(content, ArchiveMember) or not (copy or await self.content.arriving(content.archive) is None):
            return None
        try:
            index = await self.content.index(content.archive)
        except errors.ArtifactFSError:
            return None
        at = (content.offset, content.length)
        return next((member.sha256 for member in index.members if (member.offset, member.size) == at), None)

    @staticmethod
    def _note_unhashed(edit: Edit) -> None:
        """Note which version has what a writer began with whose hash is not known yet; it is asked at the save."""
        content, version = edit.node.content, edit.node.version
        if edit.in_tree and edit.base and version and isinstance(content, ArchiveMember) and edit.base_sha256 is None:
            edit.base, edit.is_unhashed = replace(edit.base, current=version), True

    def sha256_of(self, content: Content | None) -> str | None:
        """Return the hash of a content as this machine has seen it last, None if it never has."""
        match content:
            case Pointer():
                fact = self.content.pointer_fact(content)
                return None if fact is None else fact.sha256
            case Inline(data):
                return hashlib.sha256(data).hexdigest()
            case None:
                return None
            case _:
                return content.sha256

    async def freshen(self, parent: Node, node: Node, artifact: Artifact) -> tuple[Artifact, bool]:
        """Return the artifact of a file as it is at this moment, and whether the node shows that still.

        Where asking costs requests, what was shown is taken: whether somebody overtook it is found out at its save.
        """
        source = self.sources[node.source]
        if not source.provider.is_here or self.overlay.names(parent).get(node.name) is node:
            return self.directories.history.newest(node.source, artifact), True
        found = await source.provider.refresh(artifact)
        if found is None or not found.writable:
            return artifact, True  # gone: a save brings it back
        self.directories.apply_artifact(node.source, found)
        if node.tree_path:
            listed = (await self.directories.children(parent)).children.get(node.name)
        else:
            listed = present_node(found, node.name, node.mtime_ns, node.source)
        return found, listed is None or listed.identity == node.identity

    def create(self, parent: Node, name: str, *, executable: bool) -> Edit:
        """Return the edit of a new file, for one writer.

        Raises:
            ReadOnly: this is no directory for files.
        """
        if not isinstance(parent.directory, Listed | VersionDir):
            message = "no file can be made here"
            raise errors.ReadOnly(message)
        home = self.homes[parent.source]
        staged = home.open()
        staged.executable, staged.touched, staged.writers, staged.mtime_ns = executable, True, 1, time.time_ns()
        identity = ("draft", parent.source, str(staged.path))
        node = Node(
            number(identity), identity, Kind.FILE, name, executable=executable, writable=True, parent=parent.ino,
            source=parent.source,
        )  # fmt: skip
        return Edit(
            source=parent.source, home=home, number=staged.number, node=node, staged=staged,
            directory=parent.directory, is_local=True,
        )  # fmt: skip
