"""What was changed in a tree becomes its next version: one, however many files.

Rules of this file: the next version is the service's current one with our changes merged into it; of what both have
changed both are kept. What is open for writing waits for the version after.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import trio

from artifactfs import errors
from artifactfs.content.readahead import Pattern
from artifactfs.journal.droppings import is_passing
from artifactfs.model.content import Content
from artifactfs.model.entry import Artifact, TreeMember
from artifactfs.tree.merging import Merged, Wanted, merge, overlooked
from artifactfs.tree.nodes import Node
from artifactfs.vfs import intents
from artifactfs.vfs.attempts import begun
from artifactfs.vfs.beginnings import seen_by
from artifactfs.vfs.context import Context
from artifactfs.vfs.edit_locks import at_rest
from artifactfs.vfs.overlay import Edit, Gone, WorkTree, join, stays_here
from artifactfs.vfs.overtaken import conflict_mark, is_taken, stand_beside
from artifactfs.vfs.transactions import is_half_done
from artifactfs.vfs.tree_bases import TreeBases
from artifactfs.vfs.tree_records import TreeTry, write_tree
from artifactfs.vfs.tree_settling import Basis, Made, TreeSettling
from artifactfs.vfs.tree_taken import SENT, Taken, hash_of, member_of, path_of, version_of

log = logging.getLogger(__name__)

# Versions that somebody else makes between our look and our save; more in a row would be a loop of ours.
MAX_MERGES = 10
# The end of a mount waits no longer for files to be deleted: as long as it waits for saves (`daemon.compose`).
FORGET_S = 20.0


@dataclass(slots=True)
class TreePublisher:
    """Makes versions of trees."""

    context: Context
    settling: TreeSettling = field(init=False)

    def __post_init__(self) -> None:
        """Wire what comes after a version."""
        self.settling = TreeSettling(self.context)

    def has_work(self, tree: WorkTree, *, settled: bool = False) -> bool:
        """Tell whether there is something in a tree that its next version would show, or nothing at all any more.

        With ``settled`` what is probably about to be renamed does not count.
        """
        if not tree.names:
            return not self.context.overlay.edits_of(tree)
        return any(
            self._leaves(path, name, entry)
            and (isinstance(entry, Gone) or (self._is_ready(entry) and not (settled and self._passes(entry))))
            for path, name, entry in tree.entries()
        )

    @staticmethod
    def is_passing(edit: Edit) -> bool:
        """Tell whether a name is probably about to be renamed: it is in no version before it has stayed a while."""
        return is_passing(edit.node.name) and trio.current_time() < edit.due_at < math.inf

    def _passes(self, node: Node) -> bool:
        edit = self.context.overlay.edits.get(node.ino)
        return edit is not None and self.is_passing(edit)

    def _leaves(self, path: str, name: str, entry: Node | Gone) -> bool:
        """Tell whether what stands at a name is of interest to others, too."""
        if isinstance(entry, Gone):
            return True  # of what the service has
        edit = self.context.overlay.edits.get(entry.ino)
        return not (edit.stays_here if edit is not None else stays_here(join(path, name)))

    def _is_ready(self, node: Node) -> bool:
        overlay = self.context.overlay
        edit = overlay.edits.get(node.ino)
        if edit is None or (edit.is_ready and edit.in_flight is not None):
            return True
        return edit.staged.sealed and not edit.staged.writers and not is_half_done(overlay, edit)

    def _is_only_moved(self, edit: Edit) -> bool:
        """Tell whether a file that somebody has open for writing stands where it was moved to, and is as it was."""
        is_changed = edit.staged.touched or edit.staged.uncopied or edit.backup or edit.in_flight
        return not is_changed and self.context.overlay.is_moved(edit)

    # -- what is wanted --------------------------------------------------------------------------------------

    async def changes(self, tree: WorkTree) -> list[Taken]:
        """Return what would be in the next version of a tree, hashed; bytes that are hashed are not written to."""
        found: list[Taken] = []
        await self._name_again(tree)
        for path, name, entry in list(tree.entries()):
            if not self._leaves(path, name, entry):
                continue
            if isinstance(entry, Gone):
                found.append(Taken(path, name, entry, None))
            elif (edit := self.context.overlay.edits.get(entry.ino)) is None or self._is_only_moved(edit):
                found.append(Taken(path, name, entry, member_of(entry, path_of(path, name, entry))))
            elif self._is_ready(entry) and not self.is_passing(edit):
                staged = edit.in_flight if edit.is_ready and edit.in_flight else edit.staged
                # Now: it may be renamed while the version is made, and what stands there then says nothing of this.
                seen = seen_by(edit)
                earlier, edit.in_flight = edit.in_flight, staged
                if earlier is not None and earlier is not staged:
                    # Of a try that failed; what was written since is durable.
                    await trio.to_thread.run_sync(edit.home.discard, earlier)
                draft = await trio.to_thread.run_sync(staged.draft)
                found.append(Taken(path, name, entry, draft, edit, staged, seen))
        return found

    async def _name_again(self, tree: WorkTree) -> None:
        """Let saves whose name was given to something else in the moment when they became durable stand beside that."""
        overlay = self.context.overlay
        durable = [edit for edit in overlay.edits_of(tree) if edit.staged.sealed and not edit.lock.locked()]
        for edit in [edit for edit in durable if is_taken(overlay, edit)]:
            self.context.report(edit.source, edit.shown, stand_beside(overlay, edit))
            overlay.show(edit)
            self.context.directories.listings.changed(edit.node.parent, edit.node.name)
            async with edit.lock:
                await trio.to_thread.run_sync(edit.home.journal.put, *intents.of_all(edit))

    @staticmethod
    def wants(tree: WorkTree, taken: list[Taken], members: Mapping[str, TreeMember]) -> dict[str, Wanted]:
        """Return what names of a tree shall be, where its other files are ``members``."""
        wanted: dict[str, Wanted] = {one.at: None for one in taken if one.wanted is None}
        for directory in tree.opaque:
            # What the base has below a directory that was made anew is not in it.
            wanted.update({path: None for path in members if path.startswith(f"{directory}/")})
        wanted.update({one.at: one.wanted for one in taken if one.wanted is not None})
        return wanted

    async def merged(
        self, tree: WorkTree, taken: list[Taken], head: Artifact, bases: TreeBases
    ) -> tuple[Merged, Basis]:
        """Return what the next version is to hold, after the service's current one, and what that was made on."""
        now, base = await bases.now(head), await bases.of(taken, head)
        wanted = self.wants(tree, taken, {**base, **now})
        mark = tree.facts.setdefault("mark", conflict_mark())
        merged = await trio.to_thread.run_sync(merge, base, now, wanted, mark)
        unseen = await trio.to_thread.run_sync(overlooked, base, wanted, merged)
        return merged, Basis(bases.began, frozenset(wanted), unseen)

    # -- publishing ------------------------------------------------------------------------------------------

    async def publish(self, tree: WorkTree) -> None:
        """Make the next version of a tree.

        Raises:
            ArtifactFSError, OSError: it was not made, and all changes are kept.
        """
        async with self.context.orders[tree.source]:
            taken = await self.changes(tree)
            bases = TreeBases(self.context, tree, dict(tree.began))
            tree.sending = tuple(one.staged for one in taken if one.staged is not None)
            if not taken:
                await self.settling.settle(tree, [], Made(tree.base))
                return
        try:
            attempt = await self._start(tree, taken)
            made = await self._save(tree, taken, attempt, bases)
            await self._know(tree, made)
            await at_rest(one.edit for one in taken)
            async with self.context.orders[tree.source]:
                await self.settling.settle(tree, taken, made)
        finally:
            tree.sending = ()
            for one in taken:
                if one.edit is not None and one.edit.in_flight is one.edit.staged:
                    one.edit.in_flight = None
            with trio.move_on_after(FORGET_S, shield=True):
                await self._forget_orphans(tree, taken)
        self.context.saved(tree.source)

    async def _know(self, tree: WorkTree, made: Made) -> None:
        """Ask what is in the version that will be shown, before others of the source have to wait for that."""
        if made.merged is not None and made.is_version:
            with contextlib.suppress(errors.NotFound):
                await self.context.directories.trees.members(tree.source, made.artifact, made.artifact.current)

    async def _forget_orphans(self, tree: WorkTree, taken: list[Taken]) -> None:
        """Delete the bytes of files that were removed while they were being read."""
        for one in taken:
            if one.edit is None or one.staged is None or not one.edit.is_orphan:
                continue
            if not (one.edit.node.handles or one.edit.staged.writers):
                self.context.overlay.let_go(one.edit)
                for staged in {one.edit.staged, one.staged}:
                    await trio.to_thread.run_sync(tree.home.discard, staged)
            else:
                forget = tree.home.unlink if one.edit.staged is one.staged else tree.home.discard
                await trio.to_thread.run_sync(forget, one.staged)

    async def _start(self, tree: WorkTree, taken: list[Taken]) -> TreeTry:
        is_first = tree.tries == 0
        tree.tries += 1
        tree.state = begun(tree.state)
        for one in taken:
            known, new = tree.sent.setdefault(one.at, []), None if one.wanted is None else hash_of(one.wanted)
            if new not in known:
                known.append(new)
        tree.facts[SENT] = json.dumps(tree.sent)
        await write_tree(tree)
        return TreeTry(tree, is_first)

    async def _save(self, tree: WorkTree, taken: list[Taken], attempt: TreeTry, bases: TreeBases) -> Made:
        source, publisher = self.context.sources[tree.source], self.context.publisher(tree.source)
        for _ in range(MAX_MERGES):
            head = await source.provider.refresh(tree.base)
            if head is None:
                raise errors.NotFound("the tree was removed; its changes are kept here", subject=tree.base.path[-1])
            merged, basis = await self.merged(tree, taken, head, bases)
            if not merged.changes:
                return Made(head, merged, basis)
            try:
                saved = await publisher.save_tree(
                    head, merged.manifest, attempt, read=self._read, message=tree.message
                )  # fmt: skip
            except errors.Conflict:
                continue
            # Of some changes a service sees nothing: of the times of files, or of empty directories.
            return Made(saved, merged, basis, is_version=version_of(saved) != version_of(head))
        raise errors.Unavailable("others change this tree again and again", subject=tree.base.path[-1])

    async def _read(self, content: Content, offset: int, length: int) -> bytes:
        return await self.context.content.read(content, offset, length, Pattern())
