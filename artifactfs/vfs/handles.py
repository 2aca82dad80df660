"""What is open: handles by number.

Rules of this file: a handle is one of the kinds below and nothing else; what it was opened on never changes. ``pid`` is
the thread that opened it, 0 if that is not known.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from artifactfs import errors
from artifactfs.content.readahead import Pattern
from artifactfs.model.content import Content
from artifactfs.tree.nodes import Node
from artifactfs.vfs.overlay import Edit


@dataclass(slots=True)
class DirectoryHandle:
    """A directory as it was when its reading began: nothing is skipped or repeated until it begins again.

    Attributes:
        changes: how often a name in it was taken away, or given to something else, since it was opened.
        known_changes: how many of them what was gathered last has.
    """

    node: Node
    entries: list[Node] = field(default_factory=list)
    begun: bool = False
    changes: int = 0
    known_changes: int = 0
    pid: int = 0

    @property
    def is_outdated(self) -> bool:
        """Tell whether a name may be another one's since the names were gathered."""
        return self.changes != self.known_changes


@dataclass(slots=True)
class ReadHandle:
    """A file opened for reading, on the content it had then; what this mount itself writes to it is read, too.

    Attributes:
        of_edit: it was being written then, so its content is only known when that is published.
    """

    node: Node
    content: Content
    size: int
    of_edit: bool = False
    pattern: Pattern = field(default_factory=lambda: Pattern(revision=0))
    pid: int = 0


@dataclass(slots=True)
class WriteHandle:
    """A file opened for writing: everything goes to its edit, which several handles may share."""

    node: Node
    edit: Edit
    pid: int = 0


Handle = DirectoryHandle | ReadHandle | WriteHandle
H = TypeVar("H", DirectoryHandle, ReadHandle, WriteHandle)


class HandleTable:
    """Open handles by the number the kernel knows them by."""

    def __init__(self) -> None:
        """Start with nothing open."""
        self._handles: dict[int, Handle] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._handles)

    def add(self, handle: Handle) -> int:
        """Keep a handle; return its number."""
        number = next(self._numbers)
        self._handles[number] = handle
        handle.node.handles += 1
        return number

    def opened_on(self, revision: int, handle: ReadHandle, *, keep: bool, direct: bool) -> Opened:
        """Keep a handle on a revision of its content; pages of another one are not for it, while they are in use."""
        others = self.of(handle.node) if revision else ()
        is_held = any(isinstance(one, ReadHandle) and one.pattern.revision != revision for one in others)
        handle.pattern.revision = revision
        return Opened(self.add(handle), is_held or (keep and not revision and not direct), is_held or direct)

    def opened_by(self, number: int, pid: int) -> None:
        """Note who has opened a handle."""
        self._handles[number].pid = pid

    def peek(self, number: int) -> Handle | None:
        """Return a handle of whatever kind, if there is one of that number."""
        return self._handles.get(number)

    def get(self, number: int, kind: type[H]) -> H:
        """Return a handle of a kind.

        Raises:
            BadHandle: there is none of that number and kind.
        """
        handle = self._handles.get(number)
        if not isinstance(handle, kind):
            message = f"handle {number} is not open for this"
            raise errors.BadHandle(message)
        return handle

    def any(self, number: int) -> Handle:
        """Return a handle of whatever kind.

        Raises:
            BadHandle: there is none of that number.
        """
        handle = self._handles.get(number)
        if handle is None:
            message = f"handle {number} is not open"
            raise errors.BadHandle(message)
        return handle

    def drop(self, number: int) -> Handle | None:
        """Forget a handle; return it."""
        handle = self._handles.pop(number, None)
        if handle is not None:
            handle.node.handles -= 1
        return handle

    def of(self, node: Node) -> list[Handle]:
        """Return what is open on a node."""
        return [handle for handle in self._handles.values() if handle.node is node]

    @contextlib.contextmanager
    def changing(self, *directories: int) -> Iterator[None]:
        """Change names: who has begun to read their directories has them as they were."""
        try:
            yield
        finally:
            for directory in directories:
                self.changed(directory)

    def changed(self, directory: int) -> None:
        """Note that a name in a directory, by its inode number, stands for nothing or for something else now."""
        for handle in self._handles.values():
            if isinstance(handle, DirectoryHandle) and handle.node.ino == directory:
                handle.changes += 1


@dataclass(frozen=True, slots=True)
class Opened:
    """An open file: its handle, whether the kernel may keep the pages it has, whether it must not use them at all."""

    handle: int
    keep_cache: bool
    direct_io: bool = False


@dataclass(slots=True)
class Change:
    """What ``setattr`` is to change; None leaves it."""

    size: int | None = None
    executable: bool | None = None
    mtime_ns: int | None = None
