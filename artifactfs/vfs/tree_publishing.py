"""What was changed in a tree becomes its next version: one, however many files.

Rules of this file: the next version is the service's current one with our changes merged into it; of what both have
changed both are kept. What is open for writing waits for the version after. The view changes in one step, when the
service has the version.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import trio

from artifactfs import errors
from artifactfs.content.readahead import Pattern
from artifactfs.journal.drafts import Staged
from artifactfs.journal.droppings import is_passing
from artifactfs.journal.states import State
from artifactfs.model.content import Content, Exact
from artifactfs.model.entry import Artifact, TreeMember
from artifactfs.providers.base import Draft
from artifactfs.tree.layout import Level
from artifactfs.tree.merging import Merged, Wanted, merge
from artifactfs.tree.nodes import Kind, Node, VersionDir
from artifactfs.vfs import intents
from artifactfs.vfs.attempts import begun
from artifactfs.vfs.context import Context, Try
from artifactfs.vfs.overlay import Edit, Gone, WorkTree, join, stays_here
from artifactfs.vfs.overtaken import conflict_mark
from artifactfs.vfs.transactions import is_half_done

log = logging.getLogger(__name__)

# Versions that somebody else makes between our look and our save; more in a row would be a loop of ours.
MAX_MERGES = 10
WAITS = "the service tells versions apart by the content of files alone; this goes with the next change of one"
KINDS = {Kind.FILE: "file", Kind.DIRECTORY: "dir", Kind.SYMLINK: "symlink"}


@dataclass(frozen=True, slots=True)
class Taken:
    """A name of a changed tree as it is being published: where it stands, what it stands for, and its bytes."""

    path: str
    name: str
    entry: Node | Gone
    wanted: Wanted
    edit: Edit | None = None
    staged: Staged | None = None

    @property
    def at(self) -> str:
        """Return the path in the tree that is wanted so."""
        return (self.entry.path if isinstance(self.entry, Gone) else "") or join(self.path, self.name)


@dataclass(slots=True)
class TreePublisher:
    """Makes versions of trees."""

    context: Context

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
        if edit is None or edit.is_ready:
            return True
        return edit.staged.sealed and not edit.staged.writers and not is_half_done(overlay, edit)

    # -- what is wanted --------------------------------------------------------------------------------------

    async def changes(self, tree: WorkTree) -> list[Taken]:
        """Return what would be in the next version of a tree, hashed; bytes that are hashed are not written to."""
        found: list[Taken] = []
        for path, name, entry in list(tree.entries()):
            if not self._leaves(path, name, entry):
                continue
            if isinstance(entry, Gone):
                found.append(Taken(path, name, entry, None))
            elif (edit := self.context.overlay.edits.get(entry.ino)) is None:
                found.append(Taken(path, name, entry, member_of(entry, join(path, name))))
            elif self._is_ready(entry) and not self.is_passing(edit):
                staged = edit.in_flight if edit.is_ready and edit.in_flight else edit.staged
                earlier, edit.in_flight = edit.in_flight, staged
                if earlier is not None and earlier is not staged:
                    # Of a try that failed; what was written since is durable.
                    await trio.to_thread.run_sync(edit.home.discard, earlier)
                draft = await trio.to_thread.run_sync(staged.draft, edit.base_sha256)
                found.append(Taken(path, name, entry, draft, edit, staged))
        return found

    @staticmethod
    def wants(tree: WorkTree, taken: list[Taken], members: Mapping[str, TreeMember]) -> dict[str, Wanted]:
        """Return what names of a tree shall be, where its other files are ``members``."""
        wanted: dict[str, Wanted] = {one.at: None for one in taken if one.wanted is None}
        for directory in tree.opaque:
            # What the base has below a directory that was made anew is not in it.
            wanted.update({path: None for path in members if path.startswith(f"{directory}/")})
        wanted.update({one.at: one.wanted for one in taken if one.wanted is not None})
        return wanted

    async def merged(self, tree: WorkTree, taken: list[Taken], head: Artifact) -> tuple[Merged, dict[str, Wanted]]:
        """Return what the next version is to hold, after the service's current one."""
        trees = self.context.directories.trees
        base = {m.path: m for m in await trees.members(tree.source, tree.base, tree.base.current)}
        now = base
        if _version(head) != _version(tree.base):
            now = {m.path: m for m in await trees.members(tree.source, head, head.current)}
            base = self._with_sent(tree, base, now)
            base.update((one.at, now[one.at]) for one in taken if self._has_seen(one, now))
        wanted = self.wants(tree, taken, {**base, **now} if now is not base else base)
        return await trio.to_thread.run_sync(
            merge, base, now, wanted, tree.facts.setdefault("mark", conflict_mark())
        ), wanted

    @staticmethod
    def _has_seen(one: Taken, now: Mapping[str, TreeMember]) -> bool:
        """Tell whether a writer began with what somebody else has made of a file since the base."""
        seen = one.wanted.base_sha256 if isinstance(one.wanted, Draft) else None
        return seen is not None and one.at in now and _hash(now[one.at]) == seen

    @staticmethod
    def _with_sent(tree: WorkTree, base: dict[str, TreeMember], now: dict[str, TreeMember]) -> dict[str, TreeMember]:
        """Return the base with what an earlier try of ours made of it, as far as that is what is there now."""
        sent: dict[str, list[str | None]] = json.loads(tree.facts.get("sent", "{}"))
        known = dict(base)
        for path, hashes in sent.items():
            member = now.get(path)
            if member is None and None in hashes:
                known.pop(path, None)
            elif member is not None and _hash(member) in hashes:
                known[path] = member
        return known

    # -- publishing ------------------------------------------------------------------------------------------

    async def publish(self, tree: WorkTree) -> None:
        """Make the next version of a tree.

        Raises:
            ArtifactFSError, OSError: it was not made, and all changes are kept.
        """
        async with self.context.order:
            taken = await self.changes(tree)
        if not taken:
            await self._settle(tree, tree.base, [], None)
            return
        try:
            attempt = await self._start(tree, taken)
            saved, merged = await self._save(tree, taken, attempt)
            tree.facts = attempt.record.facts
            async with self.context.order:
                await self._settle(tree, saved, taken, merged)
        finally:
            for one in taken:
                if one.edit is not None and one.edit.in_flight is one.edit.staged:
                    one.edit.in_flight = None
            await self._forget_orphans(tree, taken)
        self.context.saved(tree.source)

    async def _forget_orphans(self, tree: WorkTree, taken: list[Taken]) -> None:
        """Delete the bytes of files that were removed while they were being read."""
        with trio.CancelScope(shield=True):
            for one in taken:
                if one.edit is None or one.staged is None or not one.edit.is_orphan:
                    continue
                if one.edit.node.handles or one.staged.writers:
                    await trio.to_thread.run_sync(tree.home.unlink, one.staged)
                else:
                    self.context.overlay.let_go(one.edit)
                    await trio.to_thread.run_sync(tree.home.discard, one.staged)

    async def _start(self, tree: WorkTree, taken: list[Taken]) -> Try:
        is_first = tree.tries == 0
        tree.tries += 1
        tree.state = begun(tree.state)
        sent: dict[str, list[str | None]] = json.loads(tree.facts.get("sent", "{}"))
        for one in taken:
            known, new = sent.setdefault(one.at, []), None if one.wanted is None else _hash(one.wanted)
            if new not in known:
                known.append(new)
        tree.facts["sent"] = json.dumps(sent)
        record = intents.of_tree(tree)
        await trio.to_thread.run_sync(tree.home.journal.put, record)
        return Try(tree.home, record, is_first)

    async def _save(self, tree: WorkTree, taken: list[Taken], attempt: Try) -> tuple[Artifact, Merged]:
        source, publisher = self.context.sources[tree.source], self.context.publisher(tree.source)
        for _ in range(MAX_MERGES):
            head = await source.provider.refresh(tree.base)
            if head is None:
                raise errors.NotFound("the tree was removed; its changes are kept here", subject=tree.base.path[-1])
            merged, _wanted = await self.merged(tree, taken, head)
            if not merged.changes:
                return head, merged
            try:
                saved = await publisher.save_tree(
                    head, merged.manifest, attempt, read=self._read, message=tree.message
                )  # fmt: skip
            except errors.Conflict:
                continue
            return saved, merged
        raise errors.Unavailable("others change this tree again and again", subject=tree.base.path[-1])

    async def _read(self, content: Content, offset: int, length: int) -> bytes:
        return await self.context.content.read(content, offset, length, Pattern())

    # -- afterwards ------------------------------------------------------------------------------------------

    async def _settle(self, tree: WorkTree, saved: Artifact, taken: list[Taken], merged: Merged | None) -> None:
        """Show the new version, without what is in it now; keep what has changed since."""
        is_version = merged is None or not merged.changes or _version(saved) != _version(tree.base)
        if merged is not None and is_version:
            self.context.directories.apply_artifact(tree.source, saved)
        levels = await self._levels(tree, saved, taken) if is_version else {}
        dropped: list[int] = []
        done: list[Staged] = []
        for one in taken:
            if is_version:
                self._take_over(tree, one, levels, merged, dropped, done)
            elif one.edit is not None and one.edit.in_flight is one.edit.staged:
                one.edit.in_flight = None
        tree.tries, tree.facts, tree.error, tree.message = 0, {}, "", None
        tree.state, tree.waits = State.SEALED, not is_version
        if not is_version:
            tree.due_at, tree.error = math.inf, WAITS
        if is_version:
            tree.base = saved
            published = {one.at for one in taken if isinstance(one.entry, Node)}
            tree.opaque -= {path for path in tree.opaque if path in published}
        await self.write_down(tree, [*dropped, *(staged.number for staged in done)], taken)
        for staged in done:
            await trio.to_thread.run_sync(tree.home.discard, staged)
        self._tell_conflicts(tree, merged)

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
        is_last = one.edit is None or one.edit.staged is one.staged
        if is_there and is_last:
            if (number := tree.records.pop((one.path, one.name), None)) is not None:
                dropped.append(number)
            if one.edit is not None:
                self._end(one.edit)
            names.pop(one.name, None)
        elif one.edit is not None and one.edit.in_flight is one.staged:
            one.edit.in_flight = None
            one.edit.base_sha256 = one.wanted.sha256 if isinstance(one.wanted, Draft) else None
            if not is_there and not one.edit.is_orphan and not one.edit.staged.sealed:
                one.edit.backup = one.staged  # under its new name nothing else is durable yet
                return
        if one.staged is not None and (is_there or not is_last):
            done.append(one.staged)
        if is_there:
            self._become(tree, one, levels, merged)
        if not names:
            tree.names.pop(one.path, None)

    @staticmethod
    def _keep_away(tree: WorkTree, one: Taken, merged: Merged | None, *, is_there: bool) -> None:
        """Hide what was just published, under its name or beside it, if it was taken away since."""
        at = (merged.beside if merged else {}).get(one.at, one.at)
        directory, _, name = at.rpartition("/")
        names = tree.names[one.path]
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
        name = kept.rpartition("/")[2]
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
            records = []
        else:
            records = [intents.of_tree(tree), *(intents.of_name(tree, *one) for one in own)]
            records += [record for edit in going_on if not edit.is_orphan for record in intents.of_all(edit)]
        await trio.to_thread.run_sync(lambda: tree.home.journal.put(*records, drop=dropped))

    def _tell_conflicts(self, tree: WorkTree, merged: Merged | None) -> None:
        for path, kept in (merged.beside if merged else {}).items():
            directory, _, name = path.rpartition("/")
            message = f"somebody else changed it first; this save is kept as {kept.rpartition('/')[2]!r}"
            at = (("tree", tree.source, tree.base.key, directory), name)
            self.context.overlay.notices[at] = errors.Conflict(message)
            self.context.report(tree.source, f"{tree.shown}/{path}".lstrip("/"), message)
        for path in merged.kept if merged else ():
            message = "somebody else changed it while it was removed here; it stays"
            self.context.report(tree.source, f"{tree.shown}/{path}".lstrip("/"), message)


def member_of(node: Node, path: str) -> TreeMember:
    """Return a node as a version of a tree has it."""
    size = getattr(node.size, "value", 0) if node.kind is Kind.FILE else 0
    return TreeMember(
        path, KINDS[node.kind], node.content, size, node.executable, node.mtime_ns or None, node.target
    )  # fmt: skip


def _version(artifact: Artifact) -> str | None:
    return artifact.current.id if artifact.current else None


def _hash(wanted: Draft | TreeMember) -> str:
    """Return what tells one wanted file from another."""
    if isinstance(wanted, Draft):
        return wanted.sha256
    return getattr(wanted.content, "sha256", None) or f"{wanted.kind}:{wanted.target or ''}"
