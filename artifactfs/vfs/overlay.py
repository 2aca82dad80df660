"""What this mount shows otherwise than the listings do: edits that are not saved yet, and inodes that outlive a save.

Rules of this file: no I/O but closing drafts, nothing awaited. An edit belongs to an inode, a local name to a
directory; directories are named by what they show, so that the kernel may forget their inodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import trio
from cachetools import LRUCache

from artifactfs.journal.droppings import is_dropping
from artifactfs.journal.staging import Staged, Staging
from artifactfs.model.entry import Artifact
from artifactfs.tree.layout import directory_identity
from artifactfs.tree.nodes import DirectoryKind, Listed, Node, VersionDir

# How long a name that was removed or renamed away stays the same artifact if it is made again: editors do both within
# one save (vim without backup copies, tar, mv over an existing file).
RESERVED_S = 60.0

# Inodes remembered after their save, a few hundred bytes each; one that falls out gets the service's time and another
# number at the next look-up.
SAVED = 10_000

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


@dataclass(slots=True, eq=False)
class Edit:
    """What was done to one inode and is not saved yet.

    Attributes:
        node: the inode, under the name that the edit will be saved as.
        staged: its bytes.
        directory: where the name stands.
        base: what the save will be the next version of: a file's artifact, or the tree that the file is in; None for a
            new artifact.
        is_local: nothing of that name stands in the listing.
        is_orphan: the name was taken away; who has the file open still reads and writes it.
        saving: set while a save is under way or queued; the event ends it.
        due_at: when to save it although nobody closes it any more, on trio's clock.
        failures: of saving it, since the last success.
        failure: why it could not be saved, in a sentence.
    """

    node: Node
    staged: Staged
    directory: Spot
    base: Artifact | None = None
    is_local: bool = False
    is_orphan: bool = False
    saving: trio.Event | None = None
    due_at: float = math.inf
    failures: int = 0
    failure: str = ""

    @property
    def stays_here(self) -> bool:
        """Tell whether it is of no interest to anybody else."""
        return self.is_local and is_dropping(self.node.name)


@dataclass(slots=True)
class Overlay:
    """The edits of one mount.

    Attributes:
        edits: by inode number.
        saved: the inode that stands for a listed identity because it was saved through this mount, by that identity;
            its ``identity`` is always the one it stands for, so one inode never stands for two contents. Kept when the
            kernel forgets the inode, too: its number and its time are what an editor compares later.
        spoiled: inodes of whose content the kernel may have pages that are not true any more.
    """

    staging: Staging
    edits: dict[int, Edit] = field(default_factory=dict)
    saved: LRUCache[Key, Node] = field(default_factory=lambda: LRUCache(SAVED))
    spoiled: set[int] = field(default_factory=set)
    _names: dict[Key, dict[str, Node]] = field(default_factory=dict)
    _reserved: dict[tuple[Key, str], tuple[Artifact, float]] = field(default_factory=dict)

    # -- names -----------------------------------------------------------------------------------------------

    def names(self, parent: Node) -> Mapping[str, Node]:
        """Return the names in a directory that stand for edits, by name."""
        return self._names.get(key_of(parent.directory, parent.source), {})

    def show(self, edit: Edit) -> None:
        """Let an edit's name stand for it, whatever the listing says."""
        self._names.setdefault(key_of(edit.directory, edit.node.source), {})[edit.node.name] = edit.node

    def hide(self, edit: Edit) -> None:
        """Leave an edit's name to the listing."""
        key = key_of(edit.directory, edit.node.source)
        names = self._names.get(key, {})
        if names.get(edit.node.name) is edit.node:
            del names[edit.node.name]
        if not names:
            self._names.pop(key, None)

    def move(self, edit: Edit, directory: Spot) -> None:
        """Let an edit stand in another directory, shown there if it was shown."""
        shown = self._names.get(key_of(edit.directory, edit.node.source), {}).get(edit.node.name) is edit.node
        self.hide(edit)
        edit.directory = directory
        if shown:
            self.show(edit)

    def in_tree(self, source: str, artifact_key: str) -> list[tuple[Edit, VersionDir]]:
        """Return the edits of files in a tree, each with its directory."""
        return [
            (edit, edit.directory)
            for edit in self.edits.values()
            if isinstance(edit.directory, VersionDir)
            and (edit.node.source, edit.directory.artifact.key) == (source, artifact_key)
        ]

    # -- edits -----------------------------------------------------------------------------------------------

    def begin(self, edit: Edit) -> None:
        """Take an edit in."""
        self.edits[edit.node.ino] = edit
        edit.node.draft = edit.staged.number

    def end(self, edit: Edit) -> None:
        """Drop an edit and its bytes: saved, never changed, or not meant to be kept."""
        self.hide(edit)
        if self.edits.get(edit.node.ino) is edit:
            del self.edits[edit.node.ino]
            edit.node.draft = None
        self.staging.discard(edit.staged)

    def orphan(self, edit: Edit) -> None:
        """Take the name of an edit away; its bytes go when nobody has it open."""
        self.hide(edit)
        edit.is_orphan = True
        self.staging.unlink(edit.staged)
        self.collect(edit.node)

    def collect(self, node: Node) -> None:
        """Drop an orphan that nobody has open any more."""
        edit = self.edits.get(node.ino)
        if edit is not None and edit.is_orphan and node.handles == 0 and edit.staged.writers == 0:
            self.end(edit)

    def pending(self) -> list[tuple[Node, str]]:
        """Return what has not reached its source yet, with the reason for it."""
        return [
            (edit.node, edit.failure or ("is open" if edit.staged.writers else "waits a moment"))
            for edit in self.edits.values()
            if edit.staged.touched and not edit.is_orphan and not edit.stays_here
        ]

    # -- inodes ----------------------------------------------------------------------------------------------

    def become(self, node: Node, listed: Node) -> None:
        """Let an inode stand for what is listed now; its number and its time stay what a program has seen."""
        self.leave(node)
        node.identity, node.directory = listed.identity, listed.directory
        node.content, node.size, node.executable = listed.content, listed.size, listed.executable
        node.artifact, node.version, node.tree_path = listed.artifact, listed.version, listed.tree_path
        self.saved[listed.identity] = node

    def keeps_pages(self, ino: int) -> bool:
        """Tell whether the kernel's pages of an inode that is being opened are true; it drops them if not."""
        spoiled = ino in self.spoiled
        self.spoiled.discard(ino)
        return not spoiled

    def leave(self, node: Node) -> None:
        """Let an inode stand for nothing that is listed."""
        if self.saved.get(node.identity) is node:
            del self.saved[node.identity]

    # -- artifacts whose name was taken away -----------------------------------------------------------------

    def reserve(self, parent: Node, name: str, artifact: Artifact) -> None:
        """Remember which artifact a name was."""
        now = trio.current_time()
        for old in [at for at, (_, when) in self._reserved.items() if now - when > RESERVED_S]:
            del self._reserved[old]
        self._reserved[(key_of(parent.directory, parent.source), name)] = (artifact, now)

    def take_reserved(self, parent: Node, name: str) -> Artifact | None:
        """Return the artifact that a name was a moment ago."""
        artifact, when = self._reserved.pop((key_of(parent.directory, parent.source), name), (None, 0.0))
        return artifact if trio.current_time() - when < RESERVED_S else None


def is_below(path: str, above: str) -> bool:
    """Tell whether a path of a tree is ``above`` or below it."""
    return path == above or path.startswith(f"{above}/") or not above
