"""The tree that the members of a tar make: which path is which bytes of the decompressed stream.

``build_index`` replays the members in the order of the archive onto a tree in memory, as an extraction would.

Rules of this file:

* No I/O. The archive's author is hostile: nothing here recurses, and every loop is bounded by a limit.
* The last member of a name wins; also if it is refused (what stood there before would be shown falsely). A
  directory repeated keeps its children; anything else takes the place of what was there, with all below it.
* A member is refused, not the archive, if its name is absolute, contains ``..``, is too long or too deep, or
  leads through a symbolic link. Directories that are only implied are made.
* A hard link is the earlier member it names, resolved when it is met: same bytes, same mode, same time.
* A symbolic link is shown as one only if every way to read its target stays inside: lexically from its place,
  and step by step through the other links. Else it is a small file whose text says so. Dangling links and
  loops stay links: the kernel answers ENOENT and ELOOP.
* Paths are ``str`` with ``surrogateescape``: any bytes a member may be named with. Making them legal names of
  a directory is not done here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Literal

from artifactfs.errors import LimitExceeded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from artifactfs.content.gunzip import Limits
    from artifactfs.content.tar_headers import RawMember

Kind = Literal["file", "dir", "symlink"]

# Linux follows no more links than this in one walk (MAXSYMLINKS). A longer chain fails in the kernel anyway,
# and a program that resolves links itself must not get further than the kernel.
_MAX_LINKS_FOLLOWED = 40
# Linux' PATH_MAX without its NUL: symlink(2) takes no longer target.
_MAX_TARGET_BYTES = 4095
# Components looked at while judging all links of an archive: under two seconds. Half a million ordinary
# links need about five each; only targets built for it ("s/s/s/...", each s a long link) need more.
_MAX_LINK_STEPS = 10_000_000


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of the tree.

    Attributes:
        path: relative to the version's root, without ``.`` and empty components.
        kind: what it is shown as.
        offset: of the content in the decompressed stream; 0 for what has none.
        size: of the content; 0 for directories and symbolic links.
        executable: whether any x bit was set; no other permission is kept.
        mtime_ns: None if the archive states none, or nonsense.
        target: of a symbolic link, as the archive has it.
        inline: the content itself, where it is not in the stream.
    """

    path: str
    kind: Kind
    offset: int
    size: int
    executable: bool
    mtime_ns: int | None
    target: str | None
    inline: bytes | None


@dataclass(frozen=True, slots=True)
class Refused:
    """A member that is not shown, and why; ``path`` is what the archive calls it."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class ArchiveIndex:
    """All of an archive: ``members`` by path, so parents before their children, without the root itself.

    ``total_size`` is the sum of the files shown (hard links count each), ``stream_size`` the length of the
    decompressed stream, ``notes`` what a person may want to know of an archive that was accepted.
    """

    members: tuple[Member, ...]
    refused: tuple[Refused, ...]
    stream_size: int
    total_size: int
    notes: tuple[str, ...] = ()


def build_index(
    raw_members: Iterable[RawMember], limits: Limits, *, stream_size: int = 0, notes: tuple[str, ...] = ()
) -> ArchiveIndex:
    """Resolve members, in the order of the archive, to a tree.

    Raises:
        LimitExceeded: more entries, path bytes or link steps than allowed.
    """
    tree = _Tree(limits)
    for raw in raw_members:
        tree.apply(raw)
    members = sorted(_Flattening(limits).members(tree.root), key=attrgetter("path"))
    return ArchiveIndex(
        members=tuple(members),
        refused=tuple(tree.refused),
        stream_size=stream_size,
        total_size=sum(member.size for member in members),
        notes=notes,
    )


# ------------------------------------------------------------------------------------------------ the tree


@dataclass(frozen=True, slots=True, eq=False)
class _Leaf:
    """A file or a symbolic link; hard links share one."""

    kind: Literal["file", "symlink"]
    offset: int
    size: int
    executable: bool
    mtime_ns: int | None
    target: str


@dataclass(slots=True, eq=False)
class _Dir:
    parent: _Dir | None
    depth: int
    mtime_ns: int | None = None
    children: dict[str, _Dir | _Leaf] = field(default_factory=dict)


class _RefusedError(Exception):
    """The member being applied is refused, for the reason this carries. Never leaves this module."""


class _Tree:
    """The tree while members are applied to it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._entries = 0
        self.root = _Dir(None, 0)
        self.refused: list[Refused] = []

    def apply(self, raw: RawMember) -> None:
        try:
            parts = _split(raw.name, self._limits)
            if raw.kind == "dir":
                self._directory(parts).mtime_ns = raw.mtime_ns
            else:
                self._leaf(raw, parts)
        except _RefusedError as refusal:
            self.refused.append(Refused(_decode(raw.name), str(refusal)))

    def _leaf(self, raw: RawMember, parts: Sequence[str]) -> None:
        if not parts:
            raise _RefusedError("it names the root of the archive")
        try:
            leaf = self._content(raw)
        except _RefusedError:
            where = self._find(parts[:-1])
            if isinstance(where, _Dir):
                where.children.pop(parts[-1], None)
            raise
        parent = self._directory(parts[:-1], through_last=True)
        self._count()
        parent.children[parts[-1]] = leaf

    def _content(self, raw: RawMember) -> _Leaf:
        if raw.kind == "refused":
            raise _RefusedError(raw.reason)
        if raw.kind == "hardlink":
            return self._linked(raw.link)
        if raw.kind == "symlink":
            if not raw.link or b"\0" in raw.link:
                raise _RefusedError("a symbolic link without a possible target")
            return _Leaf("symlink", 0, 0, executable=False, mtime_ns=raw.mtime_ns, target=_decode(raw.link))
        executable = bool(raw.mode & 0o111)
        return _Leaf("file", raw.offset, raw.size, executable=executable, mtime_ns=raw.mtime_ns, target="")

    def _linked(self, name: bytes) -> _Leaf:
        """Find what a hard link names. What that is can only be older: a chain needs no recursion."""
        shown = _printable(_decode(name[:_MAX_TARGET_BYTES]))
        try:
            found = self._find(_split(name, self._limits))
        except _RefusedError as refusal:
            raise _RefusedError(f"a hard link to {shown}: {refusal}") from None
        if isinstance(found, _Leaf):
            return found
        what = "which is no earlier member" if found is None else "a directory"
        raise _RefusedError(f"a hard link to {shown}, {what}")

    def _find(self, parts: Sequence[str]) -> _Dir | _Leaf | None:
        """Look a path up without following symbolic links."""
        here: _Dir | _Leaf | None = self.root
        for part in parts:
            if not isinstance(here, _Dir):
                return None
            here = here.children.get(part)
        return here

    def _directory(self, parts: Sequence[str], *, through_last: bool = False) -> _Dir:
        """Get the directory of this path, making what is missing and replacing files.

        Symbolic links on the way refuse the member. One at the very end is replaced, if the member is the
        directory itself; ``through_last`` says that it is something within.
        """
        here = self.root
        last = len(parts) - 1
        for position, part in enumerate(parts):
            child = here.children.get(part)
            if isinstance(child, _Leaf) and child.kind == "symlink" and (through_last or position < last):
                raise _RefusedError("its path leads through a symbolic link")
            if not isinstance(child, _Dir):
                self._count()
                child = _Dir(here, here.depth + 1)
                here.children[part] = child
            here = child
        return here

    def _count(self) -> None:
        self._entries += 1
        if self._entries > self._limits.max_entries:
            raise LimitExceeded(f"the archive's tree has more than max_entries = {self._limits.max_entries}")


def _split(name: bytes, limits: Limits) -> list[str]:
    """Take a name apart into components, or refuse it. The root is an empty list."""
    if not name:
        raise _RefusedError("its name is empty")
    if b"\0" in name:
        raise _RefusedError("its name contains NUL")
    if name.startswith(b"/"):
        raise _RefusedError("its name is absolute")
    if len(name) > limits.max_path_bytes:
        raise _RefusedError(f"its path is longer than max_path_bytes = {limits.max_path_bytes}")
    parts = [part for part in _decode(name).split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _RefusedError("its name contains '..'")
    if len(parts) > limits.max_depth:
        raise _RefusedError(f"it lies deeper than max_depth = {limits.max_depth}")
    if len(name) > limits.max_name_bytes and any(len(_encode(part)) > limits.max_name_bytes for part in parts):
        raise _RefusedError(f"a component of its path is longer than max_name_bytes = {limits.max_name_bytes}")
    return parts


def _decode(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


# ----------------------------------------------------------------------------------------------- the links


class _Flattening:
    """Turns the finished tree into members; judges the symbolic links, which needs the whole tree."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._path_bytes = 0
        self._link_steps = 0

    def members(self, root: _Dir) -> Iterator[Member]:
        todo = [("", root)]
        while todo:
            prefix, here = todo.pop()
            for name, child in here.children.items():
                path = prefix + name
                self._count(path)
                if isinstance(child, _Dir):
                    todo.append((path + "/", child))
                    yield Member(path, "dir", 0, 0, False, child.mtime_ns, None, None)  # noqa: FBT003 - the columns of a member, in order
                else:
                    yield self._leaf(path, here, child)

    def _leaf(self, path: str, home: _Dir, leaf: _Leaf) -> Member:
        if leaf.kind == "file":
            return Member(path, "file", leaf.offset, leaf.size, leaf.executable, leaf.mtime_ns, None, None)
        refusal = self._judge(home, leaf)
        if refusal is None:
            return Member(path, "symlink", 0, 0, False, leaf.mtime_ns, leaf.target, None)  # noqa: FBT003 - the columns of a member, in order
        shown = _printable(leaf.target[:_MAX_TARGET_BYTES])
        text = f"artifactfs: this symbolic link to {shown} {refusal}, so it is not followed.\n".encode()
        return Member(path, "file", 0, len(text), False, leaf.mtime_ns, None, text)  # noqa: FBT003 - the columns of a member, in order

    def _judge(self, home: _Dir, leaf: _Leaf) -> str | None:
        """Say why a link cannot be shown as one, or None."""
        if len(leaf.target) > _MAX_TARGET_BYTES or len(_encode(leaf.target)) > _MAX_TARGET_BYTES:
            return "is longer than a link can be"
        if leaf.target.startswith("/") or _leaves_lexically(home.depth, leaf.target):
            return "leaves the artifact"
        walk = _Walk(home, leaf)
        while walk.todo:
            self._step()
            verdict = walk.step()
            if verdict is not None:
                return verdict or None
        return None

    def _step(self) -> None:
        self._link_steps += 1
        if self._link_steps > _MAX_LINK_STEPS:
            raise LimitExceeded(f"the archive's symbolic links need more than {_MAX_LINK_STEPS} steps to resolve")

    def _count(self, path: str) -> None:
        self._path_bytes += len(path)
        if self._path_bytes > self._limits.max_all_path_bytes:
            raise LimitExceeded(f"the tree's paths exceed max_all_path_bytes = {self._limits.max_all_path_bytes}")


class _Walk:
    """Follows a link as the kernel would, through the links on its way, one component a step."""

    def __init__(self, home: _Dir, leaf: _Leaf) -> None:
        self._here = home
        self._missing = 0  # levels below ``_here`` that are not directories of the archive
        self._following = {(id(home), id(leaf))}  # links not yet walked to their end
        self._followed = 0
        # Reversed. A tuple marks the end of the link it was made of.
        self.todo: list[str | tuple[int, int]] = [*reversed(leaf.target.split("/"))]

    def step(self) -> str | None:
        """Take the next component: why the link is not shown as one, "" if it is a loop, None to go on."""
        part = self.todo.pop()
        if isinstance(part, tuple):
            self._following.discard(part)
        elif part == "..":
            return self._up()
        elif self._missing and part not in ("", "."):
            self._missing += 1
        elif part not in ("", "."):
            return self._down(part)
        return None

    def _up(self) -> str | None:
        if self._missing:
            self._missing -= 1
        elif self._here.parent is None:
            return "leaves the artifact"
        else:
            self._here = self._here.parent
        return None

    def _down(self, name: str) -> str | None:
        child = self._here.children.get(name)
        if isinstance(child, _Dir):
            self._here = child
            return None
        if child is None or child.kind == "file":
            self._missing = 1
            return None
        link = (id(self._here), id(child))
        if link in self._following:
            return ""
        self._followed += 1
        if self._followed > _MAX_LINKS_FOLLOWED:
            return "leads through too many other links"
        if child.target.startswith("/"):
            return "leaves the artifact"
        self._following.add(link)
        self.todo += [link, *reversed(child.target.split("/"))]
        return None


def _leaves_lexically(depth: int, target: str) -> bool:
    """Whether ``..`` climbs above the root for a program that tidies paths as text."""
    for part in target.split("/"):
        if part == "..":
            depth -= 1
            if depth < 0:
                return True
        elif part not in ("", "."):
            depth += 1
    return False


def _printable(text: str) -> str:
    """Quote text by a hostile author, so that a terminal shows it and does not obey it."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
    return f"“{shown}”"
