"""What a tree shall hold when two have changed it: a three-way merge.

Rules of this file: pure. ``base`` is what a writer had seen, ``head`` what is current, ``changes`` what the writer made
of it; both trees are legal (no file above another path), directories that files imply need no entry. Whoever changed a
path alone has it. Where both changed it differently, the other one's stays and the writer's is kept beside it, under a
marked name; a change always wins over a removal. So no content is lost, whoever made it. Merging the same changes with
the same mark onto their own result changes nothing: a merge can be done again when nobody knows whether its result was
saved.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from artifactfs.model.content import ArchiveMember, Content, Inline
from artifactfs.model.entry import Artifact, TreeMember
from artifactfs.providers.base import Draft
from artifactfs.tree import names

Wanted = Draft | TreeMember | None
"""What a path shall be; None: nothing."""
Put = Draft | TreeMember
Began = TreeMember | str | Artifact | None
"""What a path was to a writer: a hash of a file, what the current version of an artifact has there, or nothing."""


@dataclass(frozen=True, slots=True)
class Merged:
    """The outcome of a merge.

    Attributes:
        manifest: exactly what the next version holds.
        beside: a path that was wanted to the path under which it is kept, because somebody else changed the first.
        kept: paths whose removal was not carried out because somebody else changed them, or what is below them.
        changes: False if ``manifest`` says the same as ``head``.
    """

    manifest: dict[str, Put]
    beside: dict[str, str]
    kept: frozenset[str]
    changes: bool


def _kind(member: Put) -> str:
    return "file" if isinstance(member, Draft) else member.kind


def _is_directory(member: Put) -> bool:
    return _kind(member) == "dir"


def sha256_of(member: Put) -> str | None:
    """Return the SHA-256 of a file, None if nobody knows it."""
    if isinstance(member, Draft):
        return member.sha256
    if isinstance(member.content, Inline):
        return hashlib.sha256(member.content.data).hexdigest()
    return getattr(member.content, "sha256", None)


def _content_key(content: Content | None) -> object:
    """Return what names bytes whose hash nobody knows."""
    if isinstance(content, ArchiveMember):
        return (_content_key(content.archive), content.offset, content.length)
    return (getattr(content, "source", None), getattr(content, "key", None))


def same(one: Wanted, other: Wanted) -> bool:
    """Tell whether two say the same of a path, times aside.

    Files are compared by their SHA-256 and x bit, where one hash is unknown by what names their bytes.
    """
    if one is None or other is None:
        return one is other
    if _kind(one) != _kind(other):
        return False
    if _kind(one) == "file":
        hashes = sha256_of(one), sha256_of(other)
        if None not in hashes:
            return hashes[0] == hashes[1] and one.executable == other.executable
    if isinstance(one, Draft) or isinstance(other, Draft):
        return False
    if one.kind == "file":
        return _content_key(one.content) == _content_key(other.content) and one.executable == other.executable
    return one.target == other.target


def above(path: str) -> Iterator[str]:
    """Iterate over the directories above a path, outermost first: ``a/b/c`` gives ``a``, ``a/b``."""
    at = path.find("/")
    while at > 0:
        yield path[:at]
        at = path.find("/", at + 1)


def _implied(paths: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        parent = path.rpartition("/")[0]
        while parent and parent not in found:
            found.add(parent)
            parent = parent.rpartition("/")[0]
    return found


def marked(name: str, mark: str, *, folder: bool = False) -> str:
    """Return ``name (mark).ext`` in at most 255 bytes, the name cut at a code point; a folder has no extension."""
    stem, extension = (name, "") if folder else names.split_extension(name)
    tail = f" ({mark}){extension}"
    room = names.NAME_MAX - len(tail.encode("utf-8", "surrogatepass"))
    while stem and len(stem.encode("utf-8", "surrogatepass")) > room:
        stem = stem[:-1]
    return stem + tail


class _Side:
    """A tree, in which directories that are only implied are found too."""

    def __init__(self, members: Mapping[str, TreeMember]) -> None:
        self.members = members
        self.implied = _implied(members)
        self._sorted: list[str] | None = None

    def at(self, path: str) -> TreeMember | None:
        found = self.members.get(path)
        return found or (TreeMember(path, "dir") if path in self.implied else None)

    def below(self, directory: str) -> Iterator[str]:
        """Iterate over the members below a directory, by path."""
        if self._sorted is None:
            self._sorted = sorted(self.members)
        prefix = f"{directory}/"
        for at in range(bisect_left(self._sorted, prefix), len(self._sorted)):
            if not self._sorted[at].startswith(prefix):
                return
            yield self._sorted[at]


class _Merge:
    """One merge: first what goes, then what is put."""

    def __init__(self, base: _Side, head: _Side, changes: Mapping[str, Wanted], mark: str) -> None:
        self._base, self._head, self._changes, self._mark = base, head, changes, mark
        self.manifest: dict[str, Put] = dict(head.members)
        self.beside: dict[str, str] = {}
        self.kept: set[str] = set()
        puts = [path for path, wanted in changes.items() if wanted is not None]
        # What differs from what its writer had seen; anything else is nobody's change.
        self._puts = [path for path in sorted(puts) if not same(base.at(path), changes[path])]
        self._put_below = _implied(puts)
        # Names that nothing may be kept under, whatever is there: they mean something else to the writer.
        self._spoken_for = {*changes, *_implied(changes)}
        self._gone: set[str] = set()
        self._gone_trees: set[str] = set()
        self._marked_directories: dict[str, str] = {}

    # -- what goes -----------------------------------------------------------------------------------------

    def remove(self) -> None:
        """Take out what was removed, and what stands where something of another kind was put."""
        for path, wanted in self._changes.items():
            there = self._head.at(path)
            if there is None:
                continue
            if wanted is None:
                self._remove(path, there)
            elif _is_directory(there) and not _is_directory(wanted):
                self._clear(path)
            elif _is_directory(wanted) and not _is_directory(there) and same(there, self._base.at(path)):
                self._take(path)

    def _remove(self, path: str, there: TreeMember) -> None:
        if not _is_directory(there):
            if same(there, self._base.at(path)):
                self._take(path)
            else:
                self.kept.add(path)
        elif not self._clear(path) and self._is_theirs(path):
            self.kept.add(path)

    def _clear(self, directory: str) -> bool:
        """Remove a directory with all that is below it, if nobody else changed it and nothing is put there."""
        below = list(self._head.below(directory))
        if directory in self._put_below or not all(self._is_as_seen(path) for path in [directory, *below]):
            return False
        for path in [directory, *below]:
            self._take(path)
        self._gone_trees.add(directory)
        return True

    def _is_as_seen(self, path: str) -> bool:
        return same(self._head.at(path), self._base.at(path))

    def _is_theirs(self, directory: str) -> bool:
        """Tell whether somebody else changed a directory or something below it, other than as wanted."""
        if directory in self._head.members and directory not in self._head.implied and not self._is_as_seen(directory):
            return True
        below = self._head.below(directory)
        return any(not self._is_as_seen(path) and not self._is_as_wanted(path) for path in below)

    def _is_as_wanted(self, path: str) -> bool:
        wanted = self._changes.get(path)
        return wanted is not None and same(self._head.at(path), wanted)

    def _take(self, path: str) -> None:
        self.manifest.pop(path, None)
        self._gone.add(path)

    # -- what is put ---------------------------------------------------------------------------------------

    def put(self) -> None:
        """Put what was changed to its place, or beside it."""
        for path in self._puts:
            wanted = self._changes[path]
            there = None if path in self._gone else self._head.at(path)
            if wanted is None or same(there, wanted):
                continue
            target = self._reachable(path)
            if target == path and there is not None and not self._may_replace(path, there):
                is_directory = _is_directory(wanted)
                target = self._marked_directory(path) if is_directory else self._free_name(path, wanted)
            if target != path:
                self.beside[path] = target
            self.manifest[target] = replace(wanted, path=target) if isinstance(wanted, TreeMember) else wanted

    def _may_replace(self, path: str, there: TreeMember) -> bool:
        return not _is_directory(there) and self._is_as_seen(path)

    def _reachable(self, path: str) -> str:
        """Return the path, below other names for those directories in whose place there is a file."""
        target = path
        while (blocked := self._blocked(target)) is not None:
            target = self._marked_directory(blocked) + target[len(blocked) :]
        return target

    def _blocked(self, path: str) -> str | None:
        for directory in above(path):
            found = self.manifest.get(directory)
            if found is not None and not _is_directory(found):
                return directory
        return None

    def _names_beside(self, path: str, *, folder: bool) -> Iterator[str]:
        directory, slash, name = path.rpartition("/")
        number = 1
        while True:
            mark = self._mark if number == 1 else f"{self._mark} {number}"
            yield directory + slash + marked(name, mark, folder=folder)
            number += 1

    def _free_name(self, path: str, wanted: Put) -> str:
        for name in self._names_beside(path, folder=False):
            if name not in self._spoken_for and self._is_free_for(name, wanted):
                self._spoken_for.add(name)
                return name
        raise AssertionError  # pragma: no cover - there is always another number

    def _is_free_for(self, path: str, wanted: Put) -> bool:
        """Tell whether nothing was or is at a path, but what an earlier merge of the same changes has kept there."""
        there = self._head.at(path)
        return self._base.at(path) is None and (there is None or same(there, wanted))

    def _marked_directory(self, path: str) -> str:
        """Return the directory in which is kept what was put at a path, as a directory, and below it."""
        if path not in self._marked_directories:
            group = [put for put in self._puts if put.startswith(f"{path}/")]
            if (wanted := self._changes.get(path)) is not None and _is_directory(wanted):
                group.append(path)
            for name in self._names_beside(path, folder=True):
                if name not in self._spoken_for and self._may_hold(name, path, group):
                    break
            self._spoken_for.add(name)
            self._marked_directories[path] = name
        return self._marked_directories[path]

    def _may_hold(self, name: str, path: str, group: Collection[str]) -> bool:
        kept = ((name + put[len(path) :], self._changes[put]) for put in group)
        is_kept = self._head.at(name) is None or all(same(self._head.at(at), wanted) for at, wanted in kept)
        return is_kept and self._base.at(name) is None

    # -- what stays ----------------------------------------------------------------------------------------

    def keep_emptied(self) -> None:
        """Give directories an entry that have lost what implied them: no removal of a file removes its directory."""
        implied = _implied(self.manifest)
        # The innermost first: what is above a directory that gets an entry needs none.
        for parent in sorted({path.rpartition("/")[0] for path in self._gone}, reverse=True):
            if not parent or parent in implied or parent in self.manifest:
                continue
            if self._gone_trees.isdisjoint([parent, *above(parent)]):
                self.manifest[parent] = TreeMember(parent, "dir")
                implied.update(above(parent))


def _says_same(one: Mapping[str, Put], other: Mapping[str, Put]) -> bool:
    """Tell whether two trees show the same; directories that are implied anyway say nothing."""
    implied = _implied(one), _implied(other)
    shown = [
        {path: member for path, member in tree.items() if path not in dirs or not _is_directory(member)}
        for tree, dirs in zip((one, other), implied, strict=True)
    ]
    return shown[0].keys() == shown[1].keys() and all(same(shown[0][path], shown[1][path]) for path in shown[0])


def merge(
    base: Mapping[str, TreeMember], head: Mapping[str, TreeMember], changes: Mapping[str, Wanted], mark: str
) -> Merged:
    """Return what a tree shall hold that was ``base`` to who made ``changes``, and now is ``head``.

    A removed directory, or one in whose place a file is put, goes with all that is below it, if nobody else changed
    anything there and ``changes`` puts nothing there; else what is below it stays, but for what ``changes`` names. What
    is kept beside gets ``mark`` into its name: the same one whenever the same changes are merged again.
    """
    work = _Merge(_Side(base), _Side(head), changes, mark)
    work.remove()
    work.put()
    work.keep_emptied()
    return Merged(work.manifest, work.beside, frozenset(work.kept), not _says_same(work.manifest, head))


def overlooked(base: Mapping[str, TreeMember], changes: Mapping[str, Wanted], merged: Merged) -> dict[str, Began]:
    """Return the paths at which a merge holds something else than who made ``changes`` believes, and what he believes.

    That is what others have made of them: what was kept beside is known to be his.
    """
    ends = {path for path, wanted in changes.items() if wanted is None or not _is_directory(wanted)}
    shown: dict[str, Put] = {path: TreeMember(path, "dir") for path in _implied(base)}
    shown.update(base)
    believed = {path: put for path, put in shown.items() if path not in ends and ends.isdisjoint(above(path))}
    believed.update((path, wanted) for path, wanted in changes.items() if wanted is not None)
    believed.update((path, merged.manifest[path]) for path in merged.beside.values() if path in merged.manifest)
    implied = _implied(believed), _implied(merged.manifest)

    def at(tree: Mapping[str, Put], directories: set[str], path: str) -> Wanted:
        return tree.get(path) or (TreeMember(path, "dir") if path in directories else None)

    found: dict[str, Began] = {}
    for path in {*believed, *merged.manifest, *implied[1]}:
        mine = at(believed, implied[0], path)
        if not same(mine, at(merged.manifest, implied[1], path)):
            found[path] = mine.sha256 if isinstance(mine, Draft) else mine
    return found
