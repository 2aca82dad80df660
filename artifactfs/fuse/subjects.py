"""What an operation was about, for failures that are kept and for the log.

Rules of this file: it looks only at what is in memory, and changes nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from artifactfs import errors, observe
from artifactfs.tree.nodes import Node
from artifactfs.vfs.filesystem import FileSystem

# Operations whose first argument is a handle; the others have an inode there.
ON_HANDLE = frozenset({"read", "write", "flush", "fsync", "readdir", "fsyncdir", "release", "releasedir"})
# Operations on a name, their second argument, in a directory, their first.
ON_ENTRY = frozenset({"lookup", "create", "mknod", "mkdir", "symlink", "unlink", "rmdir", "rename"})
# Answers about a name or a call. Unless the service gave them, nothing is wrong.
ORDINARY = (
    errors.NotFound, errors.AlreadyExists, errors.NotADirectory, errors.IsADirectory, errors.DirectoryNotEmpty,
    errors.NameNotAllowed, errors.NameTooLong, errors.ReadOnly, errors.NotPermitted, errors.CrossesArtifacts,
    errors.BadHandle,
)  # fmt: skip


class Subjects:
    """Knows what the arguments of the kernel's requests stand for."""

    def __init__(self, fs: FileSystem, observer: observe.Observer) -> None:
        """Look into ``fs``; failures go to ``observer``."""
        self._fs = fs
        self._observer = observer

    def failed(self, operation: str, subject: object, error: errors.ArtifactFSError) -> None:
        """Keep failures that a person may ask about; an absent name or a refused write is an answer."""
        if isinstance(error, ORDINARY) and error.status is None:
            return
        node = self._concerned(operation, subject)
        path = f"/{self._fs.inodes.path_of(node)}" if node is not None else ""
        source = (node.source if node is not None else "") or error.provider
        self._observer.noticed(
            source, path, f"{operation}: {error}", status=error.status, request_id=error.request_id
        )  # fmt: skip

    def described(self, operation: str, args: Sequence[Any]) -> dict[str, object]:
        """Return inode and path of what an operation is about, its handle, and the process that asks."""
        found: dict[str, object] = {"fh": args[0]} if operation in ON_HANDLE else {}
        node = self._concerned(operation, args[0])
        if node is not None:
            path = self._fs.inodes.path_of(node).strip("/")
            if operation in ON_ENTRY:
                path = f"{path}/{args[1].decode('utf-8', 'surrogateescape')}".lstrip("/")
            found.update(ino=node.ino, path=f"/{path}")
        # The last argument, where the kernel says who asks: not of what is done with a handle.
        pid = getattr(args[-1], "pid", None)
        return found if pid is None else {**found, "pid": pid}

    def _concerned(self, operation: str, subject: object) -> Node | None:
        """Return the node that an operation was about."""
        if not isinstance(subject, int):
            return None
        if operation not in ON_HANDLE:
            return self._fs.inodes.get(subject)
        opened = self._fs.handles.peek(subject)
        return None if opened is None else opened.node
