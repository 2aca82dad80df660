"""Changes that a person gives up: what they were made on is shown again.

Rules of this file: nothing is dropped that is being published or is open for writing; what cannot be dropped is named,
with the reason. Nobody publishes a change while it is being dropped. The kernel forgets what it was shown of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from artifactfs import errors
from artifactfs.model.content import Unknown
from artifactfs.tree.nodes import Kind, Node
from artifactfs.vfs import removals
from artifactfs.vfs.filesystem import FileSystem
from artifactfs.vfs.overlay import Edit, Job, Removal, WorkTree, is_below
from artifactfs.vfs.queue import Item
from artifactfs.vfs.tree_taken import path_of

At = tuple[str, str]
"""Directory and name in a tree."""


@dataclass(slots=True)
class GivingUp:
    """Drops changes of one mount."""

    fs: FileSystem

    async def discard(self, items: Iterable[Item]) -> dict[str, str]:
        """Drop changes; return by path why some of them were not."""
        refused: dict[str, str] = {}
        in_trees: dict[int, tuple[WorkTree, list[Item]]] = {}
        for item in items:
            if isinstance(item.job, WorkTree):
                in_trees.setdefault(id(item.job), (item.job, []))[1].append(item)
                continue
            try:
                await self._alone(item)
            except errors.Conflict as error:
                refused[item.row.path] = str(error)
        for tree, own in in_trees.values():
            try:
                await self.drop_names(tree, {item.at for item in own if item.at is not None})
            except errors.Conflict as error:
                refused.update({item.row.path: str(error) for item in own})
        return refused

    async def _alone(self, item: Item) -> None:
        if item.edit is not None:
            await self.drop_edit(item.edit)
        elif isinstance(item.job, Removal):
            await self._drop_removal(item.job)

    @contextmanager
    def _held(self, job: Job, edits: Iterable[Edit]) -> Iterator[None]:
        """Keep a change from being published while the block runs.

        Raises:
            Conflict: it is, or somebody writes to it.
        """
        if job.under_way is not None:
            raise errors.Conflict("it is being published at this moment")
        if any(edit.staged.writers for edit in edits):
            raise errors.Conflict("it is open for writing")
        done = job.under_way = trio.Event()
        try:
            yield
        finally:
            job.under_way = None
            done.set()
            self.fs.writer.writeback.wake()

    # -- files and artifacts ---------------------------------------------------------------------------------

    async def drop_edit(self, edit: Edit) -> None:
        """Drop an edit of a file that is an artifact of its own.

        Raises:
            Conflict: it is being published, or somebody writes to it.
        """
        writer = self.fs.writer
        with self._held(edit, [edit]):
            async with writer.order(edit.source), edit.lock:
                if edit.replaces is not None:
                    edit.replaces.given_to = None
                    writer.lineage.hide_again(edit.replaces)
                await self._drop_bytes(edit)
        await self._spoil([edit])
        self._changed(edit.node.parent, edit.node.name)

    async def _drop_bytes(self, edit: Edit) -> None:
        overlay, node = self.fs.writer.overlay, edit.node
        overlay.let_go(edit)
        overlay.leave(node)
        overlay.spoiled.add(node.ino)
        # What was written has told it; the service's is asked for when somebody looks.
        node.size = Unknown()
        await self.fs.writer.lineage.forget_saves(edit)
        for staged in {id(one): one for one in (edit.staged, edit.backup, edit.in_flight) if one is not None}.values():
            await trio.to_thread.run_sync(edit.home.discard, staged)

    async def _drop_removal(self, removal: Removal) -> None:
        overlay, context = self.fs.writer.overlay, self.fs.writer.context
        with self._held(removal, ()):
            async with self.fs.writer.order(removal.source):
                await trio.to_thread.run_sync(lambda: removal.home.journal.put(drop=[removal.number]))
                removals.drop(overlay, removal)
                overlay.unhide(removal)
        context.directories.listings.own.forget(removal.directory.ref)
        self._changed(await self._directory(removal.shown.rpartition("/")[0]), removal.name)

    # -- trees -----------------------------------------------------------------------------------------------

    async def drop_names(self, tree: WorkTree, wanted: set[At]) -> None:
        """Leave names of a tree to its base, with all that is below them.

        Raises:
            Conflict: the tree is being published, or somebody writes to one of them.
        """
        overlay, parents = self.fs.writer.overlay, dict[At, int]()
        tops = [path_of(*at) for at in tree.entries() if at[:2] in wanted]
        doomed = {(p, n): e for p, n, e in tree.entries() if (p, n) in wanted or any(is_below(p, top) for top in tops)}
        edits = [
            edit
            for entry in doomed.values()
            if isinstance(entry, Node) and (edit := overlay.edits.get(entry.ino)) is not None
        ]
        with self._held(tree, edits):
            for (path, name), entry in doomed.items():
                known = entry.parent if isinstance(entry, Node) else 0
                parents[path, name] = known or await self._directory(f"{tree.shown}/{path}")
            async with self.fs.writer.order(tree.source):
                await self._leave_to_base(tree, list(doomed), edits)
        await self._spoil(edits)
        for (_, name), parent in parents.items():
            self._changed(parent, name)
        self.fs.writer.writeback.schedule_tree(tree)

    async def _leave_to_base(self, tree: WorkTree, doomed: list[At], edits: list[Edit]) -> None:
        dropped: list[int] = []
        for edit in edits:
            async with edit.lock:
                await self._drop_bytes(edit)
        for path, name in doomed:
            entry = tree.names.get(path, {}).pop(name, None)
            if isinstance(entry, Node):
                self.fs.writer.overlay.leave(entry)
                if entry.kind is Kind.DIRECTORY:
                    tree.opaque.discard(path_of(path, name, entry))
            if (number := tree.records.pop((path, name), None)) is not None:
                dropped.append(number)
            if path in tree.names and not tree.names[path]:
                del tree.names[path]
        self.fs.writer.beginnings.keep(tree, tree.began)
        await self.fs.writer.writeback.trees.settling.write_down(tree, dropped)

    # -- the kernel ------------------------------------------------------------------------------------------

    async def _directory(self, path: str) -> int:
        """Return the inode of a directory; 0 if it is not there, so that the kernel has nothing of it either."""
        try:
            return (await self.fs.walk(path)).ino
        except errors.ArtifactFSError:
            return 0

    async def _spoil(self, edits: Iterable[Edit]) -> None:
        # Under no lock: the kernel may wait for its own requests before it lets a page go.
        for edit in edits:
            self.fs.size_settled(edit.node.ino)
            await self.fs.directories.trees.spoiled(edit.node.ino)

    def _changed(self, parent: int, name: str) -> None:
        if parent:
            self.fs.directories.listings.changed(parent, name)
