"""What this mount shows otherwise than the services do: what was changed here and is not there yet.

Rules of this file: no I/O, nothing awaited. An edit belongs to an inode; names belong to directories, which are named
by what they show, so that the kernel may forget their inodes. A name stands for a node, or for ``Gone``: what the
listing has there was removed here. What ``Overlay.names`` says of a name wins over every listing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import trio

from artifactfs.journal.drafts import Staged
from artifactfs.journal.droppings import is_dropping, is_local_directory
from artifactfs.journal.records import Record
from artifactfs.journal.staging import Staging
from artifactfs.journal.states import State
from artifactfs.model.entry import Accepts, Artifact
from artifactfs.tree.layout import directory_identity
from artifactfs.tree.merging import Began
from artifactfs.tree.names import raw_name
from artifactfs.tree.nodes import DirectoryKind, Listed, Node, VersionDir
from artifactfs.vfs.saved import Saved

Spot = Listed | VersionDir
"""A directory in which a file can be saved."""
Key = tuple[str, ...]


def key_of(directory: DirectoryKind | None, source: str) -> Key:
    """Return what names a directory as long as the mount lives, whatever its inode is."""
    match directory:
        case Listed(ref=ref, prefix=prefix):
            return directory_identity(ref, prefix)
        case VersionDir(artifact=artifact, path=path, present=True):
            return ("tree", source, artifact.key, path)
        case _:
            return ()


def join(path: str, name: str) -> str:
    """Return the path of a name in a directory of a tree."""
    return f"{path}/{name}" if path else name


def is_below(path: str, above: str) -> bool:
    """Tell whether a path of a tree is ``above`` or below it."""
    return path == above or path.startswith(f"{above}/") or not above


def stays_here(path: str) -> bool:
    """Tell whether a path of a tree is of no interest to anybody else: litter, and what version control keeps."""
    *above, name = path.split("/")
    return is_dropping(name) or is_local_directory(name) or any(map(is_local_directory, above))


@dataclass(frozen=True, slots=True)
class Gone:
    """What a listing has under a name was removed here; ``path`` is where it was in its tree, raw."""

    path: str = ""


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """A change on its way to its service.

    Attributes:
        source: the name of its source.
        home: where its record and its bytes are.
        number: of its record.
        state: see ``journal.states``.
        tries: how often the service was asked for it.
        error: why the last try failed, in a sentence.
        failure: the same as an error, for who flushes next; told once.
        denied: the service did not take the token.
        facts: what the publisher noted.
        since_ns: when it was acknowledged first; 0 before.
        due_at: when to publish it, on trio's clock.
        under_way: set while it is being published; the event ends that.
        held: set while its name is changed or taken away: it is not begun then; the event ends that.
        failed_at: when the last try ended in vain, in seconds since the epoch.
        has_waited: acknowledged while its source failed, or by an earlier mount: such changes go one by one, in order.
        shown: its path below the mount point, when it was last known.
    """

    source: str
    home: Staging
    number: int
    state: State = State.OPEN
    tries: int = 0
    error: str = ""
    failure: Exception | None = None
    denied: bool = False
    facts: dict[str, str] = field(default_factory=dict)
    since_ns: int = 0
    due_at: float = math.inf
    under_way: trio.Event | None = None
    held: trio.Event | None = None
    failed_at: float = 0.0
    has_waited: bool = False
    shown: str = ""
    lock: trio.Lock = field(default_factory=trio.Lock)

    @property
    def is_under_way(self) -> bool:
        """Tell whether it is being published."""
        return self.under_way is not None

    def acknowledged(self) -> None:
        """Note that somebody was told that this is kept."""
        self.since_ns = self.since_ns or time.time_ns()


@dataclass(slots=True, eq=False, kw_only=True)
class Edit(Job):
    """What was written to one inode and is not saved yet.

    Attributes:
        node: the inode, under the name that the edit will be saved as.
        staged: its bytes.
        directory: where the name stands.
        base: what the save will be the next version of: an artifact, or the tree of the file; None if that is new.
        base_sha256: of the content that the writer had seen, if anybody looked.
        is_unhashed: nobody knew that yet: it is of what ``base`` has at the path where the edit stands.
        is_local: nothing of that name stands in the listing.
        is_orphan: the name was taken away; who has the file open still reads and writes it.
        in_flight: the bytes that are being published; others than ``staged`` if somebody writes again meanwhile.
        backup: bytes that were acknowledged, while somebody writes again and has not made that durable yet.
        replaces: the removal that this makes unnecessary: of the artifact that had the name a moment ago.
        flight_record: of ``in_flight``, if that is not ``staged``.
        is_ready: it is to be published although somebody has it open for writing.
        closing: its last writer has gone, and what that comes to is being made durable; so many times at once.
        covers: that its name stood for nothing before; so it does again when this goes away.
        doomed: its name was taken away while nobody knew whether the service has it: that is found out, and removed.
        given: bytes that another edit goes on with.
        over: numbers of drafts whose place this has taken; of use only until those are forgotten.
    """

    node: Node
    staged: Staged
    directory: Spot
    base: Artifact | None = None
    base_sha256: str | None = None
    is_unhashed: bool = False
    is_local: bool = False
    is_orphan: bool = False
    in_flight: Staged | None = None
    backup: Staged | None = None
    replaces: Removal | None = None
    flight_record: Record | None = None
    is_ready: bool = False
    closing: int = 0
    covers: Gone | None = None
    doomed: bool = False
    given: Staged | None = None
    over: tuple[int, ...] = ()

    @property
    def saves(self) -> list[int]:
        """Return the numbers of all its bytes, durable or not, without those that another edit goes on with."""
        return [one.number for one in filter(None, (self.staged, self.backup, self.in_flight)) if one is not self.given]

    @property
    def in_tree(self) -> bool:
        """Tell whether it is saved with its tree."""
        return isinstance(self.directory, VersionDir)

    @property
    def path(self) -> str:
        """Return its raw path in its tree, or its name."""
        place, name = self.directory, self.node.name
        return join(place.path, raw_name(name, self.node.tree_path)) if isinstance(place, VersionDir) else name

    @property
    def stays_here(self) -> bool:
        """Tell whether it is of no interest to anybody else, or has no place at its service.

        What a service lists under such a name is saved as any other.
        """
        return self.is_local and (stays_here(self.path) or self._is_homeless)

    @property
    def _is_homeless(self) -> bool:
        """Tell whether it is a temporary name where no new file can be made: it waits for its rename."""
        return isinstance(self.directory, Listed) and not self.directory.accepts & Accepts.FILES and self.base is None


@dataclass(slots=True, eq=False, kw_only=True)
class Removal(Job):
    """An artifact whose name was taken away here, until its service has heard of it.

    Attributes:
        artifact: what is to be removed.
        directory, name: where it stood.
        given_to: the edit that goes on with it, instead of its removal.
    """

    artifact: Artifact
    directory: Listed
    name: str
    given_to: Edit | None = None


@dataclass(slots=True, eq=False, kw_only=True)
class WorkTree(Job):
    """What was changed in a tree since its base, until that is its next version.

    Attributes:
        base: the tree's artifact, at the version that the changes were made on.
        names: by raw path of a directory and by name: what stands there, or that nothing does.
        opaque: directories that were made or moved here: nothing of the base shows through.
        records: numbers of the records of names, where those are not edits.
        message: what its maker says of the next version.
        waits: of what was changed the service would not tell two versions apart; it goes with the next real change.
        sent: by path, hashes of what tries since the base were to make of it; None: nothing.
        sending: the bytes of which a version is just being made.
        began: by path, what it was to who changed it first, where that may not be what the base has.
    """

    base: Artifact
    names: dict[str, dict[str, Node | Gone]] = field(default_factory=dict)
    opaque: set[str] = field(default_factory=set)
    records: dict[tuple[str, str], int] = field(default_factory=dict)
    message: str | None = None
    waits: bool = False
    sent: dict[str, list[str | None]] = field(default_factory=dict)
    sending: tuple[Staged, ...] = ()
    began: dict[str, Began] = field(default_factory=dict)

    def may_be_sent(self, path: str) -> bool:
        """Tell whether a version that nobody here has seen yet may have something at a path."""
        return any(one is not None for one in self.sent.get(path, ()))

    def entries(self) -> Iterator[tuple[str, str, Node | Gone]]:
        """Return directory, name and what stands there."""
        return ((path, name, entry) for path, names in self.names.items() for name, entry in names.items())


@dataclass(slots=True)
class Overlay:
    """The changes of one mount.

    Attributes:
        edits, trees: by inode number; by source and key of the artifact.
        removals: by directory and name.
        saved: the inodes that stand for what is listed because it was saved through this mount.
        spoiled: inodes of whose content the kernel may have pages that are not true any more.
        notices: what the next flush of a name has to say, by directory and name; once.
    """

    edits: dict[int, Edit] = field(default_factory=dict)
    trees: dict[tuple[str, str], WorkTree] = field(default_factory=dict)
    removals: dict[tuple[Key, str], Removal] = field(default_factory=dict)
    saved: Saved = field(default_factory=Saved)
    spoiled: set[int] = field(default_factory=set)
    notices: dict[tuple[Key, str], Exception] = field(default_factory=dict)
    _names: dict[Key, dict[str, Node | Gone]] = field(default_factory=dict)

    # -- names -----------------------------------------------------------------------------------------------

    def names(self, parent: Node) -> Mapping[str, Node | Gone]:
        """Return the names in a directory that stand for something else than its listing says, by name."""
        return self._level(parent.directory, parent.source) or {}

    def hides_base(self, parent: Node) -> bool:
        """Tell whether nothing of a directory's listing is shown: it was made or moved here."""
        place, tree = parent.directory, self.tree_of(parent.directory, parent.source)
        return tree is not None and isinstance(place, VersionDir) and place.path in tree.opaque

    def tree_of(self, directory: DirectoryKind | None, source: str) -> WorkTree | None:
        """Return what was changed in the tree that a directory is in, None if nothing was."""
        if isinstance(directory, VersionDir) and directory.present:
            return self.trees.get((source, directory.artifact.key))
        return None

    def _level(self, directory: DirectoryKind | None, source: str) -> dict[str, Node | Gone] | None:
        if isinstance(directory, VersionDir):
            tree = self.tree_of(directory, source)
            return None if tree is None else tree.names.get(directory.path)
        return self._names.get(key_of(directory, source))

    def put(self, directory: Spot, source: str, name: str, entry: Node | Gone) -> None:
        """Let a name stand for something, whatever the listing says."""
        if isinstance(directory, VersionDir):
            self.trees[source, directory.artifact.key].names.setdefault(directory.path, {})[name] = entry
        else:
            self._names.setdefault(key_of(directory, source), {})[name] = entry

    def drop(self, directory: Spot, source: str, name: str, entry: Node | Gone | None = None) -> None:
        """Leave a name to the listing; only if it stands for ``entry``, where that is given."""
        level = self._level(directory, source)
        if level is None or (entry is not None and level.get(name) is not entry):
            return
        level.pop(name, None)
        if not level and isinstance(directory, VersionDir):
            self.trees[source, directory.artifact.key].names.pop(directory.path, None)
        elif not level:
            self._names.pop(key_of(directory, source), None)

    def show(self, edit: Edit) -> None:
        """Let an edit's name stand for it."""
        before = self.at(edit)
        if isinstance(before, Node) and before is not edit.node and not edit.in_tree and before.ino in self.edits:
            before = self.edits[before.ino].covers  # what that one stood over this one does from here on
        edit.covers = before if isinstance(before, Gone) else edit.covers if before is edit.node else None
        self.put(edit.directory, edit.source, edit.node.name, edit.node)

    def hide(self, edit: Edit) -> None:
        """Leave an edit's name to what it stood for before; what was moved to a name in a tree keeps it."""
        is_shown = self.at(edit) is edit.node
        if is_shown and not self.is_moved(edit):
            self.drop(edit.directory, edit.source, edit.node.name)
            if edit.covers is not None and (edit.in_tree or self._is_gone(edit.directory, edit.source, edit.node.name)):
                self.put(edit.directory, edit.source, edit.node.name, edit.covers)
        edit.covers = None

    def _is_gone(self, directory: Spot, source: str, name: str) -> bool:
        """Tell whether what has a name at the service is to be removed still."""
        return (key_of(directory, source), name) in self.removals or self.doomed_at(directory, source, name) is not None

    def is_moved(self, edit: Edit) -> bool:
        """Tell whether an edit's name in a tree stands for something without it, too: that was moved there."""
        place, tree = edit.directory, self.tree_of(edit.directory, edit.source)
        at = (place.path, edit.node.name) if isinstance(place, VersionDir) else None
        return tree is not None and edit.covers is None and at in tree.records

    def unhide(self, one: Edit | Removal) -> None:
        """Leave the name of a removed artifact to the listing, unless another that had it is to be removed still."""
        at = (one.directory, one.source, one.node.name if isinstance(one, Edit) else one.name)
        if isinstance((self._level(*at[:2]) or {}).get(at[2]), Gone) and not self._is_gone(*at):
            self.drop(*at)

    # -- changes ---------------------------------------------------------------------------------------------

    def begin(self, edit: Edit) -> None:
        """Take an edit in."""
        self.edits[edit.node.ino] = edit
        edit.node.draft = edit.number

    def let_go(self, edit: Edit) -> None:
        """Drop an edit, not its bytes."""
        self.hide(edit)
        if self.edits.get(edit.node.ino) is edit:
            del self.edits[edit.node.ino]
            edit.node.draft = None

    def doomed_at(self, directory: Spot, source: str, name: str) -> Edit | None:
        """Return the save that is to be taken back of a name."""
        doomed = (edit for edit in self.edits.values() if edit.doomed and edit.node.name == name)
        return next((edit for edit in doomed if key_of(edit.directory, edit.source) == key_of(directory, source)), None)

    def removal_at(self, directory: Spot, source: str, name: str) -> Removal | None:
        """Return the removal of the artifact that had a name a moment ago, if it can still be taken back."""
        found = self.removals.get((key_of(directory, source), name))
        return None if found is None or found.is_under_way or found.given_to else found

    def at(self, edit: Edit) -> Node | Gone | None:
        """Return what the name of an edit stands for."""
        return (self._level(edit.directory, edit.source) or {}).get(edit.node.name)

    def beside(self, edit: Edit, name: str) -> Edit | None:
        """Return the edit of a name in the directory of another one, if there is one."""
        entry = (self._level(edit.directory, edit.source) or {}).get(name)
        return self.edits.get(entry.ino) if isinstance(entry, Node) else None

    def edits_of(self, tree: WorkTree) -> list[Edit]:
        """Return the edits of files that have a name in a tree."""
        at, named = (tree.source, tree.base.key), (edit for edit in self.edits.values() if not edit.is_orphan)
        return [e for e in named if isinstance(e.directory, VersionDir) and (e.source, e.directory.artifact.key) == at]

    def jobs(self) -> list[Job]:
        """Return everything that is published by itself, oldest first."""
        alone = [edit for edit in self.edits.values() if not edit.in_tree and not edit.is_orphan and edit.since_ns]
        removals = [removal for removal in self.removals.values() if removal.given_to is None]
        return sorted((*alone, *removals, *self.trees.values()), key=lambda job: (job.since_ns, job.number))

    # -- inodes ----------------------------------------------------------------------------------------------

    def become(self, node: Node, listed: Node) -> None:
        """Let an inode stand for what is listed now; its number and its time stay what a program has seen."""
        self.leave(node)
        node.identity, node.directory = listed.identity, listed.directory
        node.content, node.executable, node.writable = listed.content, listed.executable, listed.writable
        node.artifact, node.version, node.tree_path = listed.artifact, listed.version, listed.tree_path
        self.saved.put(node)

    def keeps_pages(self, ino: int) -> bool:
        """Tell whether the kernel's pages of an inode that is being opened are true; it drops them if not."""
        are_true = ino not in self.spoiled
        self.spoiled.discard(ino)
        return are_true

    def leave(self, node: Node) -> None:
        """Let an inode stand for nothing that is listed."""
        self.saved.drop(node)
