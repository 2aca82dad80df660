"""What is shown and kept of a changed tree after its version was made.

Rules of this file: the view changes in one step, when the service has the version. What has changed since it was begun
stays, on top of it. Bytes are deleted only after what is left of the changes is durable.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import trio

from artifactfs import errors
from artifactfs.journal.drafts import Staged
from artifactfs.journal.states import State
from artifactfs.model.content import Exact
from artifactfs.model.entry import Artifact
from artifactfs.providers.base import Draft
from artifactfs.tree.layout import Level
from artifactfs.tree.merging import Began, Merged
from artifactfs.tree.names import encode, encoded
from artifactfs.tree.nodes import Kind, Node, VersionDir
from artifactfs.vfs import intents
from artifactfs.vfs.beginnings import Beginnings
from artifactfs.vfs.context import Context
from artifactfs.vfs.edit_locks import all_locked
from artifactfs.vfs.overlay import Edit, Gone, WorkTree
from artifactfs.vfs.tree_records import write_tree
from artifactfs.vfs.tree_taken import SENT, Taken

log = logging.getLogger(__name__)

WAITS = "the service tells versions apart by the content of files alone; this goes with the next change of one"


@dataclass(frozen=True, slots=True)
class Basis:
    """What a version was made on.

    Attributes:
        began: what was known of that beside the tree's base when its changes were taken.
        wanted: the paths that were changed in it.
        overlooked: what it holds otherwise than who changed it believes, since others have changed it, too.
    """

    began: Mapping[str, Began] = field(default_factory=dict)
    wanted: frozenset[str] = frozenset()
    overlooked: Mapping[str, Began] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Made:
    """What a try has come to.

    Attributes:
        artifact: as the service has it now.
        merged: what its current version is to hold; None: there was nothing to be made.
        basis: what that was made on.
        is_version: False if its current version says nothing of what was changed.
    """

    artifact: Artifact
    merged: Merged | None = None
    basis: Basis = field(default_factory=Basis)
    is_version: bool = True


@dataclass(slots=True)
class TreeSettling:
    """Goes on after the version of a tree."""

    context: Context
    beginnings: Beginnings = field(init=False)

    def __post_init__(self) -> None:
        """Wire what remembers what was changed."""
        self.beginnings = Beginnings(self.context)

    async def settle(self, tree: WorkTree, taken: list[Taken], made: Made) -> None:
        """Show the new version, without what is in it now; keep what has changed since."""
        saved, merged, is_version = made.artifact, made.merged, made.is_version
        if merged is not None and is_version:
            self.context.directories.apply_artifact(tree.source, saved)
        levels = await self._levels(tree, saved, taken) if is_version else {}
        # What is just being made durable must not be taken for what was, nor be written down once more behind it.
        async with all_locked(one.edit for one in taken):
            done = await self._settle(tree, taken, made, levels)
        for staged in done:
            await trio.to_thread.run_sync(tree.home.discard, staged)
        self._tell_conflicts(tree, merged)

    async def _settle(
        self, tree: WorkTree, taken: list[Taken], made: Made, levels: Mapping[str, Level]
    ) -> list[Staged]:
        """Change the view in one step, and make durable what is left; return the bytes that are not needed any more."""
        saved, is_version = made.artifact, made.is_version
        dropped: list[int] = []
        done: list[Staged] = []
        # Not a directory that was made anew meanwhile: nothing of what the version has there is in it.
        published = {one.at for one in taken if tree.names.get(one.path, {}).get(one.name) is one.entry}
        for one in taken:
            if is_version:
                self._take_over(tree, one, levels, made.merged, dropped, done)
            elif one.edit is not None and one.edit.in_flight is one.edit.staged:
                one.edit.in_flight = None
        tree.tries, tree.error, tree.message = 0, "", None
        tree.state, tree.waits = State.SEALED, not is_version
        if not is_version:
            tree.due_at, tree.error = math.inf, WAITS
        if is_version:
            tree.base = saved
            tree.opaque -= published
            self._go_on(tree, made)
        # Of what is not in this version, since somebody writes to it, an earlier try may be: that is ours, too, and is
        # when it was renamed or removed since.
        waiting = {edit.path for edit in self.context.overlay.edits_of(tree)}.union(tree.began)
        waiting -= {one.at for one in taken}
        tree.sent = {path: hashes for path, hashes in tree.sent.items() if path in waiting}
        tree.facts = {SENT: json.dumps(tree.sent)} if tree.sent else {}
        await self.context.directories.listings.own.durable(tree.source)
        await self.write_down(tree, [*dropped, *(staged.number for staged in done)], taken)
        return done

    def _go_on(self, tree: WorkTree, made: Made) -> None:
        """Remember what the new base is not to who has changed the same while it was made, or goes on writing."""
        basis, known = made.basis, dict(tree.began)
        if made.merged is not None:
            since = {p: s for p, s in known.items() if p not in basis.began or basis.began[p] is not s}
            known = {**basis.overlooked, **{path: seen for path, seen in since.items() if path not in basis.wanted}}
        self.beginnings.keep(tree, known)

    async def _levels(self, tree: WorkTree, saved: Artifact, taken: list[Taken]) -> dict[str, Level]:
        found: dict[str, Level] = {}
        for path in {one.path for one in taken}:
            root = Node(0, ("edited", tree.source, saved.key, "tree"), Kind.DIRECTORY, "", writable=True,
                        directory=VersionDir(saved, saved.current, path, present=True), artifact=saved,
                        version=saved.current, source=tree.source)  # fmt: skip
            try:
                found[path] = await self.context.directories.children(root)
            except errors.NotFound:
                found[path] = Level()
        return found

    def _take_over(
        self, tree: WorkTree, one: Taken, levels: Mapping[str, Level], merged: Merged | None, dropped: list[int],
        done: list[Staged],
    ) -> None:  # fmt: skip
        names = tree.names.setdefault(one.path, {})
        is_there = names.get(one.name) is one.entry
        self._keep_away(tree, one, merged, is_there=is_there)
        now = self.context.overlay.edits.get(one.entry.ino) if isinstance(one.entry, Node) else None
        is_last = now is None or (now is one.edit and now.staged is one.staged)
        if is_there and (number := tree.records.pop((one.path, one.name), None)) is not None:
            dropped.append(number)
        if is_there and is_last:
            if one.edit is not None:
                self._end(one.edit)
            names.pop(one.name, None)
        elif one.edit is not None and one.edit.in_flight is one.staged:
            one.edit.in_flight = None
            if is_there:
                one.edit.covers = None  # what was removed before it is not there any more
            # Under another name it stands for what its writer has never seen there.
            one.edit.base_sha256 = one.wanted.sha256 if is_there and isinstance(one.wanted, Draft) else None
            one.edit.is_unhashed = False
            if not is_there and not one.edit.is_orphan and not one.edit.staged.sealed and one.edit.backup is None:
                one.edit.backup = one.staged  # under its new name nothing else is durable yet
        is_kept = one.edit is not None and one.staged is one.edit.backup
        if one.staged is not None and not is_kept and (is_there or not is_last):
            done.append(one.staged)
        if is_there:
            self._become(tree, one, levels, merged)
        if not names:
            tree.names.pop(one.path, None)

    @staticmethod
    def _keep_away(tree: WorkTree, one: Taken, merged: Merged | None, *, is_there: bool) -> None:
        """Hide what was just published, under its name or beside it, if it was taken away since."""
        at = (merged.beside if merged else {}).get(one.at, one.at)
        directory, _, raw = at.rpartition("/")
        names, name = tree.names[one.path], one.name if at == one.at else encode(raw)
        if not is_there and one.wanted is not None and directory == one.path and name not in names:
            names[name] = Gone(at)
            tree.records[one.path, name] = tree.home.next_number()

    def _end(self, edit: Edit) -> None:
        """Let an edit be over that is in a version now."""
        edit.node.mtime_ns = edit.staged.mtime_ns or edit.node.mtime_ns
        edit.node.size, edit.node.executable = Exact(edit.staged.size), edit.staged.executable
        edit.covers = None
        self.context.overlay.let_go(edit)

    def _become(self, tree: WorkTree, one: Taken, levels: Mapping[str, Level], merged: Merged | None) -> None:
        node, path = one.entry, one.at
        if not isinstance(node, Node):
            return
        kept = (merged.beside if merged else {}).get(path, path)
        name = one.name if kept == path else encode(kept.rpartition("/")[2])
        if kept.rpartition("/")[0] != one.path:
            self.context.directories.listings.changed(node.parent, one.name)
            return  # in a directory that is kept beside; it is looked up there anew
        listed = levels.get(one.path, Level()).children.get(name)
        if listed is None:
            log.info("what was saved in a tree is listed under another name")
            return
        if name != one.name:
            self.context.directories.listings.changed(node.parent, one.name)
            node.name = name
            if (edit := self.context.overlay.edits.get(node.ino)) is not None:
                # Who goes on writing goes on with the copy, and is told.
                del tree.names[one.path][one.name]
                tree.names[one.path][name], edit.covers = node, None
                edit.failure = errors.Conflict(f"somebody else changed it first; this is {name!r} now")
        self.context.overlay.become(node, listed)

    async def write_down(self, tree: WorkTree, dropped: list[int], taken: Sequence[Taken] = ()) -> None:
        """Make durable what is left of the changes of a tree."""
        edits = self.context.overlay.edits
        going_on = [one.edit for one in taken if one.edit is not None and edits.get(one.edit.node.ino) is one.edit]
        own = [
            (path, name, entry)
            for path, name, entry in tree.entries()
            if (path, name) in tree.records and not (isinstance(entry, Node) and entry.ino in edits)
        ]
        if not tree.names and not self.context.overlay.edits_of(tree):
            self.context.overlay.trees.pop((tree.source, tree.base.key), None)
            dropped += [tree.number, *tree.records.values()]
            async with tree.lock:  # what is just being written of it is forgotten, too
                await trio.to_thread.run_sync(lambda: tree.home.journal.put(drop=dropped))
        else:
            records = [intents.of_name(tree, *one) for one in own]
            records += [record for edit in going_on if not edit.is_orphan for record in intents.of_all(edit)]
            await write_tree(tree, *records, drop=dropped)

    def _tell_conflicts(self, tree: WorkTree, merged: Merged | None) -> None:
        for path, kept in (merged.beside if merged else {}).items():
            directory, _, name = path.rpartition("/")
            message = f"somebody else changed it first; this save is kept as {encode(kept.rpartition('/')[2])!r}"
            at = (("tree", tree.source, tree.base.key, directory), encode(name))
            self.context.overlay.notices[at] = errors.Conflict(message)
            self.context.report(tree.source, f"{tree.shown}/{encoded(path)}".lstrip("/"), message)
        for path in merged.kept if merged else ():
            message = "somebody else changed it while it was removed here; it stays"
            self.context.report(tree.source, f"{tree.shown}/{encoded(path)}".lstrip("/"), message)
