"""The tree that the members of a tar make, while they arrive: which path is which bytes of the decompressed stream.

``GrowingTree`` replays the members in the order of the archive onto a tree in memory, as an extraction would. What it
makes of the finished tree is in ``archive_links``.

Rules of this file:

* No I/O. The archive's author is hostile: nothing here recurses, and every loop is bounded by a limit.
* The last member of a name wins; also if it is refused (what stood there before would be shown falsely). A
  directory repeated keeps its children; anything else takes the place of what was there, with all below it.
* What takes the place of something else gets a *serial* that nothing before it had, so that who was shown the earlier
  thing never takes the later one for it.
* A member is refused, not the archive, if its name is absolute, contains ``..``, is too long or too deep, or
  leads through a symbolic link. Directories that are only implied are made.
* A hard link is the earlier member it names, resolved when it is met: same bytes, same mode, same time.
* Paths are ``str`` with ``surrogateescape``: any bytes a member may be named with. Making them legal names of
  a directory is not done here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from artifactfs.errors import LimitExceeded
from artifactfs.model.limits import named
from artifactfs.model.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from artifactfs.content.tar_headers import RawMember
    from artifactfs.model.limits import Limits

# Linux' PATH_MAX without its NUL: symlink(2) takes no longer target.
MAX_TARGET_BYTES = 4095


@dataclass(frozen=True, slots=True)
class Refused:
    """A member that is not shown, and why; ``path`` is what the archive calls it."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class Leaf:
    """A file or a symbolic link; hard links share one."""

    kind: Literal["file", "symlink"]
    offset: int
    size: int
    executable: bool
    mtime_ns: int | None
    target: str


@dataclass(slots=True, eq=False)
class Dir:
    """A directory; ``serials`` are those of names in it that something else had before."""

    parent: Dir | None
    depth: int
    serial: int = 0
    mtime_ns: int | None = None
    serials: dict[str, int] = field(default_factory=dict)
    children: dict[str, Dir | Leaf] = field(default_factory=dict)

    def serial_of(self, name: str) -> int:
        """Return the serial of what has a name: its own, or that of the directory it is in."""
        return self.serials.get(name, self.serial)


class _RefusedError(Exception):
    """The member being applied is refused, for the reason this carries. Never leaves this module."""


class GrowingTree:
    """The tree while members are applied to it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._entries = 0
        self._replaced = 0
        self.root = Dir(None, 0)
        self.refused: list[Refused] = []

    def apply(self, raw: RawMember) -> None:
        """Take the next member.

        Raises:
            LimitExceeded: more entries than allowed.
        """
        try:
            parts = _split(raw.name, self._limits)
            if raw.kind == "dir":
                self._directory(parts).mtime_ns = raw.mtime_ns
            else:
                self._leaf(raw, parts)
        except _RefusedError as refusal:
            self.refused.append(Refused(decode(raw.name), str(refusal)))

    def _leaf(self, raw: RawMember, parts: Sequence[str]) -> None:
        if not parts:
            raise _RefusedError("it names the root of the archive")
        try:
            leaf = self._content(raw)
        except _RefusedError:
            where = self.find(parts[:-1])
            if isinstance(where, Dir) and where.children.pop(parts[-1], None) is not None:
                self._step(where, parts[-1])
            raise
        parent = self._directory(parts[:-1], through_last=True)
        self._count()
        self._put(parent, parts[-1], leaf)

    def _put(self, parent: Dir, name: str, child: Dir | Leaf) -> None:
        if name in parent.children:
            self._step(parent, name)
        parent.children[name] = child

    def _step(self, parent: Dir, name: str) -> None:
        """Have a name stand for something else than before."""
        self._replaced += 1
        parent.serials[name] = self._replaced

    def _content(self, raw: RawMember) -> Leaf:
        if raw.kind == "refused":
            raise _RefusedError(raw.reason)
        if raw.kind == "hardlink":
            return self._linked(raw.link)
        if raw.kind == "symlink":
            if not raw.link or b"\0" in raw.link:
                raise _RefusedError("a symbolic link without a possible target")
            return Leaf("symlink", 0, 0, executable=False, mtime_ns=raw.mtime_ns, target=decode(raw.link))
        executable = bool(raw.mode & 0o111)
        return Leaf("file", raw.offset, raw.size, executable=executable, mtime_ns=raw.mtime_ns, target="")

    def _linked(self, name: bytes) -> Leaf:
        """Find what a hard link names. What that is can only be older: a chain needs no recursion."""
        shown = quoted(decode(name[:MAX_TARGET_BYTES]))
        try:
            found = self.find(_split(name, self._limits))
        except _RefusedError as refusal:
            raise _RefusedError(f"a hard link to {shown}: {refusal}") from None
        if isinstance(found, Leaf):
            return found
        what = "which is no earlier member" if found is None else "a directory"
        raise _RefusedError(f"a hard link to {shown}, {what}")

    def find(self, parts: Sequence[str]) -> Dir | Leaf | None:
        """Look a path up without following symbolic links."""
        here: Dir | Leaf | None = self.root
        for part in parts:
            if not isinstance(here, Dir):
                return None
            here = here.children.get(part)
        return here

    def _directory(self, parts: Sequence[str], *, through_last: bool = False) -> Dir:
        """Get the directory of this path, making what is missing and replacing files.

        Symbolic links on the way refuse the member. One at the very end is replaced, if the member is the
        directory itself; ``through_last`` says that it is something within.
        """
        here = self.root
        last = len(parts) - 1
        for position, part in enumerate(parts):
            child = here.children.get(part)
            if isinstance(child, Leaf) and child.kind == "symlink" and (through_last or position < last):
                raise _RefusedError("its path leads through a symbolic link")
            if not isinstance(child, Dir):
                self._count()
                made = Dir(here, here.depth + 1)
                self._put(here, part, made)
                made.serial = here.serial_of(part)
                child = made
            here = child
        return here

    def _count(self) -> None:
        self._entries += 1
        if self._entries > self._limits.max_entries:
            raise LimitExceeded(f"the archive's tree has more entries than {named(self._limits, 'max_entries')}")


def _split(name: bytes, limits: Limits) -> list[str]:
    """Take a name apart into components, or refuse it. The root is an empty list."""
    if not name:
        raise _RefusedError("its name is empty")
    if b"\0" in name:
        raise _RefusedError("its name contains NUL")
    if name.startswith(b"/"):
        raise _RefusedError("its name is absolute")
    if len(name) > limits.max_path_bytes:
        raise _RefusedError(f"its path is longer than {limits.max_path_bytes} bytes, Linux' PATH_MAX")
    parts = [part for part in decode(name).split("/") if part not in ("", ".")]
    if ".." in parts:
        raise _RefusedError("its name contains '..'")
    if len(parts) > limits.max_depth:
        raise _RefusedError(too_deep(limits))
    if len(name) > limits.max_name_bytes and any(len(encode(part)) > limits.max_name_bytes for part in parts):
        raise _RefusedError(f"a component of its path is longer than {limits.max_name_bytes} bytes, Linux' NAME_MAX")
    return parts


def too_deep(limits: Limits) -> str:
    """Return why a member is refused by the only limit that refuses a member, and not its archive."""
    return f"it lies deeper than {named(limits, 'max_depth')}"


def decode(name: bytes) -> str:
    """Return a name of the archive as text."""
    return name.decode("utf-8", "surrogateescape")


def encode(name: str) -> bytes:
    """Return the bytes of a name."""
    return name.encode("utf-8", "surrogateescape")


def quoted(text: str) -> str:
    """Quote text by a hostile author, so that a terminal shows it and does not obey it."""
    return f"“{printable(text)}”"
