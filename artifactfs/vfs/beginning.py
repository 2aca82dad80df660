"""The beginning of an edit: a file as its source has it at this moment, copied to a draft."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import trio

from artifactfs import errors
from artifactfs.content.readahead import Pattern
from artifactfs.content.reader import ContentReader
from artifactfs.journal.staging import Staging
from artifactfs.model.content import Content
from artifactfs.model.entry import Artifact
from artifactfs.tree.inodes import number
from artifactfs.tree.layout import present_node
from artifactfs.tree.nodes import Kind, Listed, Node, VersionDir
from artifactfs.vfs.directories import Directories
from artifactfs.vfs.overlay import Edit
from artifactfs.vfs.sources import Source

# A round trip through a thread costs about 50 us; reading and writing a mebibyte ten times that.
COPY_CHUNK = 1 << 20


@dataclass(slots=True)
class Beginner:
    """Begins edits; ``parent_of`` says the directory of a node, as far as the kernel knows it."""

    sources: Mapping[str, Source]
    directories: Directories
    content: ContentReader
    staging: Staging
    parent_of: Callable[[Node], Node | None]

    async def begin(self, node: Node, *, copy: bool) -> Edit:
        """Return a new edit of a file, with its bytes or without.

        Raises:
            StaleContent: the node shows what is not current any more.
        """
        parent = self.parent_of(node)
        if parent is None or not isinstance(parent.directory, Listed | VersionDir) or node.artifact is None:
            message = "the directory of this file is not known any more"
            raise errors.StaleContent(message)
        base, is_current = await self.freshen(parent, node, node.artifact)
        if not is_current:
            # The kernel looks the name up again and opens what it finds; told only now, it would append at the old end.
            message = "somebody else has saved it a moment ago"
            raise errors.StaleContent(message)
        staged = self.staging.open({})
        try:
            staged.executable, staged.mtime_ns = node.executable, node.mtime_ns
            if node.content is not None:
                staged.uncopied = await self.content.size(node.content)
                if copy:
                    await self._copy(node.content, staged.uncopied, staged.write)
                    staged.uncopied = 0
                    staged.touched = staged.dirty = False
                    staged.mtime_ns = node.mtime_ns
        except BaseException:
            self.staging.discard(staged)
            raise
        return Edit(node, staged, parent.directory, base)

    async def _copy(self, content: Content, size: int, write: Callable[[int, bytes], int]) -> None:
        offset, pattern = 0, Pattern()
        while offset < size:
            data = await self.content.read(content, offset, COPY_CHUNK, pattern)
            offset += await trio.to_thread.run_sync(write, offset, data)

    async def freshen(self, parent: Node, node: Node, artifact: Artifact) -> tuple[Artifact, bool]:
        """Return the artifact of a file as the source has it at this moment, and whether the node shows that still.

        Another mount may have saved it since its listing was made; who writes now means the file as it is now.
        """
        source = self.sources[node.source]
        found = await source.provider.find(source.top, artifact.id)
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
        staged = self.staging.open({})
        staged.executable, staged.touched, staged.writers, staged.mtime_ns = executable, True, 1, time.time_ns()
        identity = ("draft", parent.source, str(staged.path))
        node = Node(
            number(identity), identity, Kind.FILE, name, executable=executable, writable=True, parent=parent.ino,
            source=parent.source,
        )  # fmt: skip
        return Edit(node, staged, parent.directory, is_local=True)
