"""Saving through the mount: drafts from open to publish.

Rules of this file: a name that was never published is a draft in the overlay; the last release of its writers publishes
it, once, if anything was changed. ``flush`` and ``fsync`` make it durable here and publish nothing. Who looks at a source
while a publish is under way waits for it: a save that close() acknowledged is what the next command sees.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from artifactfs import errors
from artifactfs.content.readahead import Pattern
from artifactfs.content.reader import ContentReader
from artifactfs.journal.droppings import is_dropping, is_passing
from artifactfs.journal.staging import Staged, Staging
from artifactfs.model.entry import Artifact, DirRef
from artifactfs.providers.base import Publisher
from artifactfs.tree.inodes import number
from artifactfs.tree.nodes import Kind, Listed, Node, VersionDir
from artifactfs.vfs.directories import Directories
from artifactfs.vfs.sources import Source

log = logging.getLogger(__name__)

COPY_CHUNK = 1 << 20
# How long a name that was removed or renamed away stays the same artifact if it is made again: editors do both within
# one save (vim without backup copies, tar, mv over an existing file).
RESERVED_S = 60.0


@dataclass(slots=True)
class Overlay:
    """What stands in a directory only on this machine, and which inodes listed files keep.

    Attributes:
        drafts: by directory inode, then by name.
        staged: the draft behind a node, by inode number.
        edited: the node that stands for a listed identity, because it was saved through this mount.
        reserved: artifacts whose name was taken away a moment ago, by directory inode and name, with the time.
    """

    drafts: dict[int, dict[str, Node]] = field(default_factory=dict)
    staged: dict[int, Staged] = field(default_factory=dict)
    edited: dict[tuple[str, ...], Node] = field(default_factory=dict)
    reserved: dict[tuple[int, str], tuple[Artifact, float]] = field(default_factory=dict)

    def reserve(self, parent: Node, name: str, artifact: Artifact) -> None:
        """Remember which artifact a name was."""
        self.reserved[(parent.ino, name)] = (artifact, trio.current_time())

    def take_reserved(self, parent: Node, name: str) -> Artifact | None:
        """Return the artifact that a name was a moment ago."""
        artifact, when = self.reserved.pop((parent.ino, name), (None, 0.0))
        return artifact if trio.current_time() - when < RESERVED_S else None


@dataclass(slots=True)
class Writer:
    """Drafts and their publishing, for the sources that take writes."""

    sources: Mapping[str, Source]
    directories: Directories
    content: ContentReader
    staging: Staging
    overlay: Overlay = field(default_factory=Overlay)
    _busy: int = 0
    _idle: trio.Event = field(default_factory=trio.Event)
    _order: trio.Lock = field(default_factory=trio.Lock)

    def publisher(self, source: str) -> Publisher:
        """Return what can change a source.

        Raises:
            ReadOnly: nothing can.
        """
        publisher = self.sources[source].provider.publisher if source in self.sources else None
        if publisher is None:
            message = f"{source or 'this place'} takes no writes"
            raise errors.ReadOnly(message)
        return publisher

    async def settled(self, source: str) -> None:
        """Wait until no publish is under way at a source that takes writes."""
        if self._busy and source in self.sources and self.sources[source].provider.publisher is not None:
            await self._idle.wait()

    # -- opening ---------------------------------------------------------------------------------------------

    async def open(self, node: Node, *, truncate: bool) -> Staged:
        """Return the draft of a file, begun as a copy of its content if it has none yet."""
        self.publisher(node.source)
        if not node.writable:
            message = "only the present version of an artifact can be written"
            raise errors.ReadOnly(message)
        staged = self.overlay.staged.get(node.ino)
        if staged is None:
            staged = self.staging.open(self._intent(node))
            staged.executable, staged.mtime_ns = node.executable, node.mtime_ns
            if not truncate:
                try:
                    await self._copy(node, staged)
                except BaseException:
                    self.staging.discard(staged)
                    raise
            else:
                # The old content is gone for the writer, so an empty file is a change unless it was empty.
                staged.touched = staged.dirty = node.content is not None and await self.content.size(node.content) > 0
            self.overlay.staged[node.ino] = staged
            node.draft = staged.number
        elif truncate:
            staged.truncate(0)
        staged.writers += 1
        return staged

    def _intent(self, node: Node) -> dict[str, object]:
        return {
            "source": node.source,
            "fingerprint": self.sources[node.source].fingerprint,
            "artifact": node.artifact.id if node.artifact else None,
            "tree_path": node.tree_path,
            "name": node.name,
        }

    async def _copy(self, node: Node, staged: Staged) -> None:
        if node.content is None:
            return
        size, offset, pattern = await self.content.size(node.content), 0, Pattern()
        while offset < size:
            data = await self.content.read(node.content, offset, COPY_CHUNK, pattern)
            offset += staged.write(offset, data)
        staged.touched = staged.dirty = False

    def create(self, parent: Node, name: str, *, executable: bool) -> tuple[Node, Staged]:
        """Begin a new file: a draft in the overlay, published under the name it has when its writers are done."""
        self.publisher(parent.source)
        staged = self.staging.open({"name": name, **self.place(parent)})
        staged.executable, staged.touched, staged.writers = executable, True, 1
        identity = ("draft", parent.source, str(self.staging.root), str(staged.number))
        node = Node(
            number(identity), identity, Kind.FILE, name, executable=executable, writable=True, parent=parent.ino,
            source=parent.source, draft=staged.number, artifact=self.overlay.take_reserved(parent, name),
        )  # fmt: skip
        self.overlay.staged[node.ino] = staged
        self.overlay.drafts.setdefault(parent.ino, {})[name] = node
        return node, staged

    def place(self, parent: Node) -> dict[str, object]:
        """Return where a new file would belong, in words that survive a restart."""
        source = {"source": parent.source, "fingerprint": self.sources[parent.source].fingerprint}
        match parent.directory:
            case Listed(ref=ref, prefix=prefix):
                return {**source, "kind": ref.kind, "args": list(ref.args), "prefix": list(prefix)}
            case VersionDir(artifact=artifact, path=path, present=True):
                return {**source, "tree": artifact.id, "tree_path": path}
            case _:
                message = "no file can be made here"
                raise errors.ReadOnly(message)

    # -- durability and publishing ---------------------------------------------------------------------------

    async def flush(self, node: Node, staged: Staged) -> None:
        """Make what was written durable on this machine."""
        if staged.dirty and not (is_dropping(node.name) and node.artifact is None):
            await trio.to_thread.run_sync(self.staging.seal, staged)

    async def release(self, node: Node, staged: Staged, parent: Node | None) -> None:
        """Take back one writer; the last one publishes."""
        staged.writers -= 1
        if staged.writers > 0 or self.overlay.staged.get(node.ino) is not staged:
            if staged.writers == 0:
                self.staging.discard(staged)  # unlinked while open
            return
        if not staged.touched:
            self.forget_draft(node)
            return
        local = self.overlay.drafts.get(node.parent, {}).get(node.name) is node
        if local and (is_dropping(node.name) or is_passing(node.name)):
            return
        if parent is not None:
            await self.publish(node, parent, node.name)

    async def publish(self, node: Node, parent: Node, name: str) -> None:
        """Save a draft under a name of a directory; the node becomes what is listed there."""
        staged = self.overlay.staged[node.ino]
        async with self.publishing():
            draft = await trio.to_thread.run_sync(staged.draft)
            publisher = self.publisher(node.source)
            match parent.directory:
                case Listed(ref=ref, prefix=prefix):
                    if node.artifact is not None:
                        await publisher.save_file(node.artifact, draft)
                    else:
                        await publisher.create_file(ref, (*prefix, name), draft)
                    self.directories.listings.forget(ref)
                case VersionDir(artifact=artifact, path=path):
                    where = f"{path}/{name}" if path else name
                    changed = await publisher.change_tree(
                        self.directories.history.newest(node.source, artifact), {where: draft}
                    )
                    self.directories.apply_artifact(node.source, changed)
                case _:
                    message = "nothing can be saved here"
                    raise errors.ReadOnly(message)
            await self._become_listed(node, parent, name)

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Mark a change of a source as under way; one at a time, in the order of their beginning."""
        if not self._busy:
            self._idle = trio.Event()
        self._busy += 1
        try:
            async with self._order:
                yield
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    async def _become_listed(self, node: Node, parent: Node, name: str) -> None:
        """Let an edited file keep its inode: it stands for what the fresh listing shows under its name."""
        self.overlay.drafts.get(parent.ino, {}).pop(name, None)
        level = await self.directories.children(parent)
        listed = level.children.get(name)
        staged = self.overlay.staged.pop(node.ino)
        node.draft, node.mtime_ns = None, staged.mtime_ns or node.mtime_ns
        if listed is None:
            log.info("a saved file is not listed under the name it was given")
        else:
            self.overlay.edited[listed.identity] = node
            node.content, node.size = listed.content, listed.size
            node.artifact, node.version = listed.artifact, listed.version
            node.tree_path, node.executable = listed.tree_path, listed.executable
        self.staging.discard(staged)

    def forget_draft(self, node: Node) -> None:
        """Drop a draft and what it held."""
        staged = self.overlay.staged.pop(node.ino, None)
        node.draft = None
        drafts = self.overlay.drafts.get(node.parent, {})
        if drafts.get(node.name) is node:
            del drafts[node.name]
        if staged is not None and staged.writers == 0:
            self.staging.discard(staged)

    async def recover(self, staging: Staging) -> int:
        """Publish the sealed drafts that an earlier mount left behind; return how many."""
        done = 0
        for staged in await trio.to_thread.run_sync(staging.left_over):
            source = str(staged.intent.get("source"))
            known = self.sources.get(source)
            if known is None or known.fingerprint != staged.intent.get("fingerprint"):
                os.close(staged.fd)
                continue
            await self._recover_one(source, staged)
            staging.discard(staged)
            done += 1
        return done

    async def _recover_one(self, source: str, staged: Staged) -> None:
        intent, publisher = staged.intent, self.publisher(source)
        draft = await trio.to_thread.run_sync(staged.draft)
        known = intent.get("artifact") or intent.get("tree")
        artifact = await self.sources[source].provider.find(self.sources[source].top, known) if known else None
        name = str(intent["name"])
        if intent.get("tree") and artifact:
            path = str(intent.get("tree_path") or "")
            await publisher.change_tree(artifact, {f"{path}/{name}" if path else name: draft})
        elif intent.get("tree_path") and artifact:
            await publisher.change_tree(artifact, {str(intent["tree_path"]): draft})
        elif artifact:
            await publisher.save_file(artifact, draft)
        else:
            ref = DirRef(source, str(intent["kind"]), tuple(intent["args"]))
            try:
                await publisher.create_file(ref, (*intent["prefix"], name), draft)
            except errors.AlreadyExists:
                await publisher.create_file(ref, (*intent["prefix"], f"{name} (recovered {staged.number})"), draft)
