"""What an earlier mount did not finish goes on in this one.

Rules of this file: nobody is asked, so that a mount begins offline. A draft leaves the disk only when its content is
safe elsewhere; one whose record cannot be read is left where it is, and said. No failure stops a mount.
"""

from __future__ import annotations

import json
import logging

import trio

from artifactfs.journal.drafts import Staged
from artifactfs.journal.records import Record
from artifactfs.journal.staging import Staging
from artifactfs.journal.states import State
from artifactfs.model.content import Exact
from artifactfs.tree.inodes import number
from artifactfs.tree.nodes import Kind, Listed, Node, VersionDir
from artifactfs.vfs import intents, removals
from artifactfs.vfs.overlay import Edit, Gone, Job, Key, Removal, WorkTree, key_of
from artifactfs.vfs.overtaken import stand_beside
from artifactfs.vfs.tree_taken import SENT
from artifactfs.vfs.writing import Writer

log = logging.getLogger(__name__)

Left = tuple[Record, Staged | None]


async def recover(writer: Writer, source: str, home: Staging) -> int:
    """Take over the changes of a mount of a source that has ended; return how many."""
    left = await trio.to_thread.run_sync(_living, home)
    work = _Recovery(writer, source, home)
    # A change needs what it was made on: trees before the names in them, removals before what has taken their names.
    for kind in (intents.TREE, intents.NAME, intents.REMOVAL, intents.FILE):
        for record, staged in left:
            if record.what.get("kind") == kind:
                work.take(kind, record, staged)
    await _write_down(home, work.beside)
    unread = set(home.journal.numbers()) - {record.number for record, _ in left}
    lost = home.lost
    for path in lost:
        writer.context.report(source, "", f"the record of an unfinished save cannot be read; it is kept in {path}")
    for at in sorted(unread - {int(path.stem) for path in lost}):
        where = f"number {at} in {home.journal.path}"
        writer.context.report(source, "", f"an unfinished change cannot be read; it is kept as {where}")
    for tree in writer.overlay.trees.values():
        if tree.home is home:
            writer.writeback.schedule_tree(tree)
    return work.taken


async def _write_down(home: Staging, renamed: list[Edit]) -> None:
    records = [record for edit in renamed for record in intents.of_all(edit)]
    try:
        await trio.to_thread.run_sync(home.journal.put, *records)
    except OSError as error:  # then the next mount finds another name for them
        log.info("the new names of unfinished saves are not written down: %s", error)


def _living(home: Staging) -> list[Left]:
    """Return what was left, without what something else has taken the place of and was only not forgotten yet.

    What goes on from bytes that were being published comes after those.
    """
    left = home.left_over()
    files = [record for record, _ in left if record.what.get("kind") == intents.FILE]
    dead = {int(one.what["instead"]) for one in files if one.what["instead"] is not None}
    dead = dead.union(*(map(int, one.what["over"]) for one in files))
    # Of what was tried nobody knows what became of it: that is found out first.
    dead -= {record.number for record, _ in left if record.tries}
    # What a dead one goes on from is dead with it, if something has taken the place of that, too.
    dead -= {int(one.what["after"]) for one in files if one.what["after"] is not None and one.number not in dead}
    for record, staged in left:
        if record.number in dead and staged is not None:
            home.discard(staged)
    living = [(record, staged) for record, staged in left if record.number not in dead]
    return sorted(living, key=lambda one: (one[0].what.get("after") is not None, one[0].number))


class _Recovery:
    """One directory of drafts, being taken over."""

    def __init__(self, writer: Writer, source: str, home: Staging) -> None:
        self.writer, self.source, self.home = writer, source, home
        self.trees: dict[int, WorkTree] = {}
        self.removals: dict[int, Removal] = {}
        self.edits: dict[int, Edit] = {}
        self.newest: dict[tuple[Key, str], tuple[Edit, int]] = {}
        self.beside: list[Edit] = []
        self.taken = 0

    def take(self, kind: str, record: Record, staged: Staged | None) -> None:
        """Take one record over."""
        work = {
            intents.TREE: self._tree, intents.NAME: self._name, intents.REMOVAL: self._removal, intents.FILE: self._file
        }[kind]  # fmt: skip
        try:
            work(record, staged)
        except (ValueError, KeyError, TypeError, LookupError) as error:
            if staged is not None:
                staged.close()
            where = f" in {staged.path}" if staged is not None else ""
            message = f"{record.what.get('name', '')}: an unfinished change is kept{where}: {error}"
            self.writer.context.report(self.source, str(record.what.get("shown", "")), message)
            log.warning("an unfinished change is kept%s and cannot be taken up: %s", where, error)
        else:
            self.taken += 1

    def _begin(self, job: Job, record: Record) -> None:
        job.tries, job.error, job.since_ns = record.tries, record.error, record.since_ns
        job.facts, job.has_waited = dict(record.facts), True
        job.shown = str(record.what.get("shown", ""))
        job.state = State.SEALED if record.state in {State.PUBLISHING, State.OPEN, State.FAILED} else record.state
        job.due_at = trio.current_time() + self.writer.policy.delay_s

    def _tree(self, record: Record, _staged: Staged | None) -> None:
        base = intents.artifact_of(record.what["base"])
        if base is None:
            raise ValueError("it is of no tree")
        if (self.source, base.key) in self.writer.overlay.trees:
            raise ValueError("another mount left changes of the same tree; these are taken up by the next mount")
        tree = WorkTree(source=self.source, home=self.home, number=record.number, base=base)
        self._begin(tree, record)
        tree.message, tree.opaque = record.what["message"], set(record.what["opaque"])
        tree.began = {path: intents.began_of(path, seen) for path, seen in record.what.get("began", {}).items()}
        tree.sent = json.loads(record.facts.get(SENT, "{}"))
        self.trees[record.number] = self.writer.overlay.trees[self.source, base.key] = tree

    def _name(self, record: Record, _staged: Staged | None) -> None:
        tree = self.trees[int(record.what["of"])]
        path, name = str(record.what["path"]), str(record.what["name"])
        tree.names.setdefault(path, {})[name] = intents.name_of(record.what, tree)
        tree.records[path, name] = record.number

    def _removal(self, record: Record, _staged: Staged | None) -> None:
        directory = intents.spot_of(record.what, self.source)
        artifact = intents.artifact_of(record.what["artifact"])
        if artifact is None or not isinstance(directory, Listed):
            raise ValueError("it is of no artifact")
        removal = Removal(
            source=self.source, home=self.home, number=record.number, artifact=artifact, directory=directory,
            name=str(record.what["name"]),
        )  # fmt: skip
        self._begin(removal, record)
        self.removals[record.number] = removal
        removals.add(self.writer.overlay, removal)
        self.writer.overlay.put(directory, self.source, removal.name, Gone())

    def _is_newest(self, edit: Edit, record: Record) -> bool:
        """Tell whether an edit is the latest of its name; of two, the earlier one was only not forgotten yet."""
        name, written = (key_of(edit.directory, self.source), edit.node.name), int(record.what["at_ns"])
        known, before = self.newest.get(name, (None, 0))
        if known is not None and edit.in_tree:
            # One that has taken the place of another says so; of these both were saved, by who had seen other contents.
            self._keep_both(known)
            self.newest[name] = (edit, written)
            return True
        if known is not None and before > written:
            if not self.writer.lineage.inherit(known, edit):  # nobody knows what became of it: that goes first
                self.home.discard(edit.staged)
            return False
        if known is not None and known.tries:
            self._go_on(known, record, edit.staged)  # nobody knows what became of the earlier one
            return False
        if known is not None:
            if known.replaces is not None:
                known.replaces.given_to = None
            self.writer.overlay.let_go(known)
            self.home.discard(known.staged)
        self.newest[name] = (edit, written)
        return True

    def _keep_both(self, earlier: Edit) -> None:
        """Let the save of who began earlier stand beside another one of its name."""
        where, message = earlier.shown, stand_beside(self.writer.overlay, earlier)
        self.writer.overlay.show(earlier)
        self.beside.append(earlier)
        self.writer.context.report(self.source, where, message)

    def _go_on(self, earlier: Edit, record: Record, staged: Staged) -> None:
        """Let bytes be what an edit becomes after those that were being published."""
        if earlier.in_flight is None:
            earlier.doomed = False  # its name was taken again
            earlier.flight_record = intents.of_edit(earlier)
            earlier.in_flight = earlier.staged
        else:
            self.home.discard(earlier.staged)
        earlier.staged, earlier.number = staged, record.number
        self.edits[record.number] = earlier
        self._keep_artifact(earlier, record)
        self.writer.overlay.show(earlier)

    def _keep_artifact(self, edit: Edit, record: Record) -> None:
        """Let an edit go on with the artifact that had its name, if a record says so: that is not removed then."""
        replaces = record.what["replaces"]
        removal = self.removals.get(int(replaces)) if replaces is not None else None
        if removal is not None and removal.given_to is None and edit.replaces is None:
            edit.replaces, removal.given_to = removal, edit

    def _file(self, record: Record, staged: Staged | None) -> None:
        if staged is None:
            raise ValueError("its bytes are gone")
        what = record.what
        earlier = self.edits.get(int(what["after"])) if what["after"] is not None else None
        if earlier is not None:
            # Written to while the other bytes were being published: those first, then these.
            self._go_on(earlier, record, staged)
            return
        directory = intents.spot_of(what, self.source)
        if isinstance(directory, VersionDir):
            self.writer.work_trees.tree_of_artifact(self.source, directory)
        identity = ("draft", self.source, str(staged.path))
        node = Node(number(identity), identity, Kind.FILE, str(what["name"]), executable=staged.executable,
                    size=Exact(staged.size), mtime_ns=staged.mtime_ns, writable=True, source=self.source)  # fmt: skip
        base = intents.artifact_of(what["base"])
        edit = Edit(
            source=self.source, home=self.home, number=record.number, node=node, staged=staged, directory=directory,
            base=base, base_sha256=what["base_sha256"],
            is_unhashed=bool(what.get("unhashed")), is_local=bool(what["local"]), doomed=bool(what["doomed"]),
        )  # fmt: skip
        if not edit.is_local:
            node.artifact = base
        if edit.in_tree:
            node.tree_path = str(what.get("raw", ""))  # of a name that was cut nothing else knows what it stands for
        if not self._is_newest(edit, record):
            return
        self._begin(edit, record)
        self.edits[record.number] = edit
        self._keep_artifact(edit, record)
        self.writer.overlay.begin(edit)
        if edit.doomed:
            self.writer.overlay.put(edit.directory, self.source, node.name, Gone())
        else:
            self.writer.overlay.show(edit)
        if edit.stays_here:
            edit.due_at = float("inf")
