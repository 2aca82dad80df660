"""What the kernel was told and is not so any more.

Rules of this file: no I/O, nothing awaited. Told are names alone, never the bytes of an inode: who has a file open goes
on with the version it opened. A name that this mount itself has changed, and has not saved yet, is left alone; so is a
directory that stays one, or a program in it would be lost. That a name stands for nothing is told where the kernel has
asked for that name, and nowhere else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from artifactfs.concurrency import in_slices
from artifactfs.model.entry import DirRef
from artifactfs.tree.inodes import InodeTable
from artifactfs.tree.layout import Level, Path, directory_identity
from artifactfs.tree.nodes import Kind, Listed, Node

# Absent names that are remembered, some 100 bytes each; one that falls out is believed for as long as it was told to.
MAX_ABSENT = 65_536
# Levels more than the kernel holds that are remembered before it is looked which ones it does: some 300 bytes each, and
# small mounts never look.
MANY = 1024

Changed = Callable[[int, str], None]


@dataclass(slots=True)
class Announcer:
    """Tells the kernel which names to look up again.

    Attributes:
        changed: carries it to the kernel: number of the directory, name.
        reread: told of the directory first: who reads it now has the name as it was.
        is_known: says of a node that the kernel knows it although a listing shows it for the first time: it was saved
            through this mount.
        is_covered: says of a directory and name that a change of this mount stands there, whatever is listed.
        inodes: what the kernel holds; None before there is a mount.
        told: how often the kernel was told of a name.
        withheld: names whose change it was not told of because a change of this mount stands there.
    """

    changed: Changed = lambda _parent, _name: None
    reread: Callable[[int], None] = lambda _parent: None
    is_known: Callable[[Node], bool] = lambda _node: False
    is_covered: Callable[[Node, str], bool] = lambda _parent, _name: False
    inodes: InodeTable | None = None
    told: int = 0
    withheld: set[tuple[int, str]] = field(default_factory=set)
    _numbers: dict[tuple[str, ...], int] = field(default_factory=dict)
    _absent: OrderedDict[int, set[str]] = field(default_factory=OrderedDict)
    _absent_count: int = 0
    _trees: set[tuple[str, str]] = field(default_factory=set)

    def stands_at(self, place: Listed, ino: int) -> None:
        """Remember which inode shows a level."""
        self._numbers[directory_identity(place.ref, place.prefix)] = ino
        inodes = self.inodes
        if inodes is not None and len(self._numbers) > 2 * len(inodes) + MANY:
            # Of what the kernel has forgotten it need not be told; when it asks in one of them, that stands here again.
            self._numbers = {
                shown: at for shown, at in self._numbers.items() if at == ino or inodes.get(at) is not None
            }

    def holds(self, ref: DirRef) -> bool:
        """Tell whether the kernel holds the directory of a listing point."""
        ino = self._numbers.get(directory_identity(ref, ()))
        return ino is not None and self.inodes is not None and self.inodes.get(ino) is not None

    def tell(self, parent: int, name: str) -> None:
        """Have the kernel look a name up again."""
        self.told += 1
        self.withheld.discard((parent, name))
        self.reread(parent)
        self.changed(parent, name)

    def _tell_unless_covered(self, parent: int, name: str) -> None:
        node = self.inodes.get(parent) if self.inodes is not None else None
        if node is not None and self.is_covered(node, name):
            self.withheld.add((parent, name))
        else:
            self.tell(parent, name)

    def stands(self, parent: int, name: str) -> None:
        """Tell of a name that stands for a change of this mount from now on, if it may have shown another one's."""
        if (parent, name) in self.withheld:
            self.tell(parent, name)

    # -- absent names ----------------------------------------------------------------------------------------

    def was_absent(self, parent: int, name: str) -> None:
        """Remember that the kernel believes for a while that a name stands for nothing."""
        names = self._absent.setdefault(parent, set())
        self._absent_count += name not in names
        names.add(name)
        while self._absent_count > MAX_ABSENT:
            self._absent_count -= len(self._absent.popitem(last=False)[1])

    def forget(self, parent: int) -> None:
        """Forget an inode that the kernel has dropped: no name in it is believed any more."""
        if self.withheld:
            self.withheld = {(at, name) for at, name in self.withheld if at != parent}
        self._absent_count -= len(self._absent.pop(parent, ()))

    def _appeared(self, parent: int, names: Iterable[str]) -> None:
        """Tell of names that stand for something now."""
        believed = self._absent.get(parent)
        for name in list(names):
            if believed and name in believed:
                believed.discard(name)
                self._absent_count -= 1
                self._tell_unless_covered(parent, name)

    # -- listings --------------------------------------------------------------------------------------------

    async def renewed(self, ref: DirRef, old: Mapping[Path, Level], fresh: Mapping[Path, Level]) -> None:
        """Tell of names of a listing that stand for something else now, for nothing, or for something at last."""
        for prefix, level in old.items():
            parent = self._numbers.get(directory_identity(ref, prefix))
            if parent is None:
                continue
            now = fresh.get(prefix, Level()).children
            await in_slices(list(level.children), partial(self._differing, parent, level.children, now))
            if parent in self._absent:
                self._appeared(parent, now.keys() & self._absent[parent])

    def _differing(self, parent: int, old: Mapping[str, Node], now: Mapping[str, Node], names: Sequence[str]) -> None:
        for name in names:
            node, other = old.get(name), now.get(name)
            is_other = other is None or node is None or other.identity != node.identity
            if is_other and (other is None or not self.is_known(other)):
                self._tell_unless_covered(parent, name)

    # -- trees -----------------------------------------------------------------------------------------------

    def tree_changed(self, source: str, key: str) -> None:
        """Note that the tree of an artifact, which keeps its inode, is another version now; ``trees_told`` tells."""
        self._trees.add((source, key))

    def trees_told(self) -> None:
        """Tell of what the kernel knows of trees that are other versions now.

        What of it is the same nobody knows before the files of the new version are listed, and that may cost its
        archive: so it is every file, and no directory.
        """
        trees, self._trees = self._trees, set()
        if not trees or self.inodes is None:
            return
        for node in list(self.inodes.nodes()):
            # As ``tree.layout.present_node`` and ``tree.versions.member_node`` name them.
            if node.identity[0] != "edited" or node.identity[1:3] not in trees:
                continue
            if node.kind is Kind.DIRECTORY:
                self._appeared(node.ino, self._absent.get(node.ino, ()))
            elif node.parent:
                self._tell_unless_covered(node.parent, node.name)
