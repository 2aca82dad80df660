"""The finished tree of an archive as a table of members, its symbolic links judged.

Rules of this file:

* No I/O. The archive's author is hostile: nothing here recurses, and every loop is bounded by a limit.
* A symbolic link is shown as one only if every way to read its target stays inside: lexically from its place,
  and step by step through the other links. Else it is a small file whose text says so. Dangling links and
  loops stay links: the kernel answers ENOENT and ELOOP. So a link needs the whole tree to be judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Literal

from artifactfs.content.archive_tree import (
    MAX_TARGET_BYTES,
    Dir,
    GrowingTree,
    Leaf,
    Refused,
    encode,
    quoted,
    too_deep,
)
from artifactfs.errors import LimitExceeded
from artifactfs.model.limits import Limits, named

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from artifactfs.content.tar_headers import RawMember

Kind = Literal["file", "dir", "symlink"]

NOTHING: Mapping[int, str] = {}

# Linux follows no more links than this in one walk (MAXSYMLINKS). A longer chain fails in the kernel anyway,
# and a program that resolves links itself must not get further than the kernel.
_MAX_LINKS_FOLLOWED = 40
# Components looked at while judging all links of an archive: under two seconds. Half a million ordinary
# links need about five each; only targets built for it ("s/s/s/...", each s a long link) need more.
_MAX_LINK_STEPS = 10_000_000
_TOO_DEEP = too_deep(Limits()).partition("=")[0]


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
        target: of a symbolic link, as the archive has it; also of one that is shown as a file, so that the next version
            has the link and not what was shown for it.
        inline: the content itself, where it is not in the stream.
        serial: 0, or a number that nothing had that stood at this path before it.
        sha256: of the content of a file, in lower-case hex; None for an empty one.
    """

    path: str
    kind: Kind
    offset: int
    size: int
    executable: bool
    mtime_ns: int | None
    target: str | None
    inline: bytes | None
    serial: int = 0
    sha256: str | None = None


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

    def holds_for(self, limits: Limits) -> bool:
        """Tell whether these limits would have refused the same members: a larger one shows more."""
        reason = too_deep(limits)
        return all(one.reason == reason for one in self.refused if one.reason.startswith(_TOO_DEEP))


def build_index(
    raw_members: Iterable[RawMember], limits: Limits, *, stream_size: int = 0, notes: tuple[str, ...] = ()
) -> ArchiveIndex:
    """Resolve members, in the order of the archive, to a tree.

    Raises:
        LimitExceeded: more entries, path bytes or link steps than allowed.
    """
    tree = GrowingTree(limits)
    for raw in raw_members:
        tree.apply(raw)
    return index_of(tree, limits, stream_size=stream_size, notes=notes)


def index_of(
    tree: GrowingTree,
    limits: Limits,
    *,
    stream_size: int = 0,
    notes: tuple[str, ...] = (),
    sha256: Mapping[int, str] = NOTHING,
) -> ArchiveIndex:
    """Return the table of a finished tree; ``sha256`` are those of the contents by their offsets.

    Raises:
        LimitExceeded: more path bytes or link steps than allowed.
    """
    members = sorted(_Flattening(limits, sha256).members(tree.root), key=attrgetter("path"))
    return ArchiveIndex(
        members=tuple(members),
        refused=tuple(tree.refused),
        stream_size=stream_size,
        total_size=sum(member.size for member in members),
        notes=notes,
    )


def file_member(path: str, leaf: Leaf, serial: int, sha256: str | None = None) -> Member:
    """Return the entry of a file."""
    return Member(path, "file", leaf.offset, leaf.size, leaf.executable, leaf.mtime_ns, None, None, serial, sha256)


def directory_member(path: str, directory: Dir) -> Member:
    """Return the entry of a directory."""
    return Member(path, "dir", 0, 0, executable=False, mtime_ns=directory.mtime_ns, target=None, inline=None,
                  serial=directory.serial)  # fmt: skip


class _Flattening:
    """Turns the finished tree into members; judges the symbolic links, which needs the whole tree."""

    def __init__(self, limits: Limits, sha256: Mapping[int, str]) -> None:
        self._limits = limits
        self._sha256 = sha256
        self._path_bytes = 0
        self._link_steps = 0

    def members(self, root: Dir) -> Iterator[Member]:
        todo = [("", root)]
        while todo:
            prefix, here = todo.pop()
            for name, child in here.children.items():
                path = prefix + name
                self._count(path)
                if isinstance(child, Dir):
                    todo.append((path + "/", child))
                    yield directory_member(path, child)
                else:
                    yield self._leaf(path, here, child, here.serial_of(name))

    def _leaf(self, path: str, home: Dir, leaf: Leaf, serial: int) -> Member:
        if leaf.kind == "file":
            return file_member(path, leaf, serial, self._sha256.get(leaf.offset) if leaf.size else None)
        refusal = self._judge(home, leaf)
        text: bytes | None = None
        if refusal is not None:
            shown = quoted(leaf.target[:MAX_TARGET_BYTES])
            text = f"artifactfs: this symbolic link to {shown} {refusal}, so it is not followed.\n".encode()
        return Member(
            path, "symlink" if text is None else "file", 0, len(text or b""), executable=False,
            mtime_ns=leaf.mtime_ns, target=leaf.target, inline=text, serial=serial,
        )  # fmt: skip

    def _judge(self, home: Dir, leaf: Leaf) -> str | None:
        """Say why a link cannot be shown as one, or None."""
        if len(leaf.target) > MAX_TARGET_BYTES or len(encode(leaf.target)) > MAX_TARGET_BYTES:
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
            raise LimitExceeded(f"the tree's paths exceed {named(self._limits, 'max_all_path_bytes')} bytes")


class _Walk:
    """Follows a link as the kernel would, through the links on its way, one component a step."""

    def __init__(self, home: Dir, leaf: Leaf) -> None:
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
        if isinstance(child, Dir):
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
