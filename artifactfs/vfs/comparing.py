"""What differs: between what waits and what the service has, and between versions.

Rules of this file: files are compared by their hashes, so only what differs need be read; bytes that are hashed here
may be written to all the same. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import trio

from artifactfs import errors
from artifactfs.model.entry import SingleFile, TreeMember, Version
from artifactfs.tree.merging import Wanted, same
from artifactfs.tree.nodes import Node
from artifactfs.vfs.filesystem import FileSystem
from artifactfs.vfs.overlay import Gone, WorkTree, is_below, join, stays_here
from artifactfs.vfs.places import Place
from artifactfs.vfs.tree_taken import Taken, member_of, path_of


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that is not the same on two sides.

    Attributes:
        path: in its tree; the name of a file that is an artifact of its own.
        status: A, M or D: only on the new side, on both, only on the old side; R: moved from ``was``.
        old, new: where the bytes can be read, below the mount point; None where there are none.
        old_size, new_size: in bytes.
        old_link, new_link: of symlinks, where they lead.
        was: the path that it had before.
    """

    path: str
    status: str
    old: str | None = None
    new: str | None = None
    old_size: int | None = None
    new_size: int | None = None
    old_link: str | None = None
    new_link: str | None = None
    was: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Staying:
    """A change in a tree that would not be in its next version, and why."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: what it holds by raw path, and the version that is, None for the present."""

    holds: Mapping[str, Wanted]
    version: str | None = None


@dataclass(slots=True)
class Comparing:
    """Compares what one mount shows."""

    fs: FileSystem

    # -- sides -----------------------------------------------------------------------------------------------

    async def of_version(self, place: Place, name: str, version: Version | None) -> Side:
        """Return a version; ``name`` is the one of its directory."""
        if version is None:
            return Side({}, name)
        if isinstance(version.content, SingleFile):
            content = version.content
            size = getattr(getattr(content.content, "size", None), "value", 0)
            return Side({"": TreeMember("", "file", content.content, size, content.executable)}, name)
        return Side(await self._members(place, version), name)

    async def _members(self, place: Place, version: Version | None) -> dict[str, TreeMember]:
        found = await self.fs.directories.trees.members(place.source, place.artifact, version)
        return {member.path: member for member in found}

    async def of_present(self, place: Place) -> Side:
        """Return what the mount shows now, with everything that waits."""
        if not place.is_tree:
            return await self._present_file(place)
        tree = place.changes(self.fs)
        if tree is None:
            return Side(await self._members(place, place.artifact.current))
        base = {m.path: m for m in await self._base(tree)}
        taken, _ = await self.taken(tree, also_open=True)
        publishing = self.fs.writer.writeback.trees
        return Side(_applied(base, publishing.wants(tree, taken, base)))

    async def _present_file(self, place: Place) -> Side:
        if place.edit is not None:
            return Side({"": await trio.to_thread.run_sync(place.edit.staged.draft, None)})
        current = place.artifact.current
        return Side((await self.of_version(place, "", current)).holds)

    async def _base(self, tree: WorkTree) -> list[TreeMember]:
        return await self.fs.directories.trees.members(tree.source, tree.base, tree.base.current)

    async def taken(self, tree: WorkTree, *, also_open: bool = False) -> tuple[list[Taken], list[Staying]]:
        """Return what the next version of a tree would hold of its changes, and what it would not."""
        found: list[Taken] = []
        staying: list[Staying] = []
        for path, name, entry in list(tree.entries()):
            whole = join(path, name)
            if stays_here(whole):
                staying.append(Staying(whole, "a file of an editor or of version control: it stays on this machine"))
            elif isinstance(entry, Gone):
                found.append(Taken(path, name, entry, None))
            elif (why := self._why_not(entry)) and not also_open:
                staying.append(Staying(whole, why))
            else:
                found.append(Taken(path, name, entry, await self._wanted(entry, path_of(path, name, entry))))
        return found, staying

    def _why_not(self, node: Node) -> str:
        edit = self.fs.writer.overlay.edits.get(node.ino)
        if edit is not None and edit.staged.writers:
            return "it is open for writing"
        return "" if edit is None or edit.staged.sealed else "it is not written to the end"

    async def _wanted(self, node: Node, path: str) -> Wanted:
        edit = self.fs.writer.overlay.edits.get(node.ino)
        if edit is None:
            return member_of(node, path)
        return await trio.to_thread.run_sync(edit.staged.draft, None)

    # -- differences -----------------------------------------------------------------------------------------

    async def between(self, place: Place, one: str | None, other: str | None) -> list[Difference]:
        """Return what differs at and below a path.

        Without versions: between the current one and the present, which is what waits here; with one: between that and
        the present; with both: between them.

        Raises:
            InvalidRequest: there is no such version.
        """
        old = await self._side(place, one)
        new = await self.of_present(place) if other is None else await self._side(place, other)
        return self._differences(place, old, new)

    async def _side(self, place: Place, text: str | None) -> Side:
        name, version = await place.version(self.fs, text or await self._current(place))
        return await self.of_version(place, name, version)

    async def _current(self, place: Place) -> str:
        tree = place.changes(self.fs)
        current = (tree.base if tree is not None else place.artifact).current
        if current is None:
            raise errors.InvalidRequest(f"{place.artifact.path[-1]} has no version yet")
        return current.id

    def _differences(self, place: Place, old: Side, new: Side) -> list[Difference]:
        paths = sorted(path for path in {*old.holds, *new.holds} if is_below(path, place.path))
        found = (self._difference(place, path, old, new) for path in paths)
        return [one for one in found if one is not None]

    def _difference(self, place: Place, path: str, old: Side, new: Side) -> Difference | None:
        before, after = _file(old.holds.get(path)), _file(new.holds.get(path))
        if same(before, after):
            return None
        return Difference(
            path or place.artifact.path[-1],
            "A" if before is None else "D" if after is None else "M",
            self._readable(place, path, old, before), self._readable(place, path, new, after),
            _size(before), _size(after), _link(before), _link(after),
        )  # fmt: skip

    @staticmethod
    def _readable(place: Place, path: str, side: Side, there: Wanted) -> str | None:
        if there is None or _link(there) is not None:
            return None
        return place.in_present(path) if side.version is None else place.in_version(side.version, path)

    async def next_version(self, tree: WorkTree, place: Place) -> tuple[list[Difference], list[Staying]]:
        """Return what the next version of a tree would change, and what would stay here."""
        base = {m.path: m for m in await self._base(tree)}
        taken, staying = await self.taken(tree)
        wanted = self.fs.writer.writeback.trees.wants(tree, taken, base)
        after = _applied(base, wanted)
        found = self._differences(place, Side(base, ""), Side(after))
        made = [
            Difference(f"{path}/", "A")
            for path, one in wanted.items()
            if isinstance(one, TreeMember) and one.kind == "dir" and path not in base and is_below(path, place.path)
        ]
        return sorted((*_with_moves(found, base, after), *made), key=lambda one: one.path), staying


def _applied(base: Mapping[str, Wanted], wanted: Mapping[str, Wanted]) -> dict[str, Wanted]:
    """Return a tree with changes; with a directory goes what is below it, but for what is wanted there."""
    gone = [path for path, one in wanted.items() if one is None]
    left = {path: one for path, one in base.items() if not any(is_below(path, above) for above in gone)}
    return {**left, **{path: one for path, one in wanted.items() if one is not None}}


def _with_moves(found: list[Difference], old: Mapping[str, Wanted], new: Mapping[str, Wanted]) -> list[Difference]:
    """Return differences, where what went from one path to another is one."""
    gone = {one.path: one for one in found if one.status == "D"}
    moved: list[Difference] = []
    for one in found:
        came = new.get(one.path) if one.status == "A" else None
        was = next((path for path in gone if came is not None and same(old.get(path), came)), None)
        if was is None:
            moved.append(one)
            continue
        del gone[was]
        moved.append(Difference(one.path, "R", None, one.new, one.new_size, one.new_size, was=was))
    return [one for one in moved if one.status != "D" or one.path in gone]


def _file(there: Wanted) -> Wanted:
    """Return what is a file or a symlink; a directory differs only by what is in it."""
    return None if isinstance(there, TreeMember) and there.kind == "dir" else there


def _size(there: Wanted) -> int | None:
    return None if there is None else there.size


def _link(there: Wanted) -> str | None:
    return there.target if isinstance(there, TreeMember) and there.kind == "symlink" else None
