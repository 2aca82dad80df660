"""Drafts: local files that hold what is being written.

Rules of this file: a draft lives in the state directory, never in the cache. ``seal`` makes content and intent durable;
``flush`` and ``fsync`` return after it. A draft file is deleted only after its save is durable elsewhere. Blocking calls:
a caller on the event loop goes through a thread for ``seal``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from artifactfs.providers.base import Draft

CHUNK = 1 << 20


@dataclass(slots=True, eq=False)
class Staged:
    """One draft: an open local file and what has been done to it.

    Attributes:
        path: the file.
        fd: open for reading and writing.
        dirty: bytes or size changed since the last ``seal``.
        touched: bytes or size changed at all; what was never touched is not saved.
        writers: open handles that may write.
        intent: where it belongs, for recovery; JSON values.
        executable, mtime_ns: as the writer set them.
    """

    path: Path
    fd: int
    number: int
    dirty: bool = False
    touched: bool = False
    writers: int = 0
    intent: dict[str, Any] = field(default_factory=dict)
    executable: bool = False
    mtime_ns: int = 0

    @property
    def size(self) -> int:
        """Return the length of the draft in bytes."""
        return os.fstat(self.fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the draft."""
        return os.pread(self.fd, length, offset)

    def write(self, offset: int, data: bytes) -> int:
        """Put bytes; return how many."""
        view, done = memoryview(data), 0
        while done < len(data):
            done += os.pwrite(self.fd, view[done:], offset + done)
        self._changed()
        return done

    def truncate(self, size: int) -> None:
        """Set the length in bytes; the same length is no change."""
        if size != self.size:
            os.ftruncate(self.fd, size)
            self._changed()

    def _changed(self) -> None:
        self.dirty = self.touched = True
        self.mtime_ns = time.time_ns()

    def draft(self) -> Draft:
        """Return what is to be saved, hashed."""
        digest, size, offset = hashlib.sha256(), 0, 0
        while chunk := os.pread(self.fd, CHUNK, offset):
            digest.update(chunk)
            offset += len(chunk)
            size = offset
        return Draft(self.path, size, digest.hexdigest(), self.executable, self.mtime_ns or time.time_ns())


class Staging:
    """The drafts of one mount, in a directory of their own that is locked as long as the mount lives."""

    def __init__(self, root: Path) -> None:
        """Use ``root``, made if missing, for the owner alone.

        Raises:
            BlockingIOError: another mount is using it.
        """
        self.root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise
        used = [int(path.stem) for path in root.glob("*.draft") if path.stem.isdigit()]
        self._numbers = itertools.count(max(used, default=0) + 1)

    @classmethod
    def fresh(cls, base: Path) -> Staging:
        """Return a new directory of drafts below ``base``."""
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(Path(tempfile.mkdtemp(prefix="mount-", dir=base)))

    @classmethod
    def abandoned(cls, base: Path) -> Iterator[Staging]:
        """Return the directories below ``base`` whose mounts have ended."""
        for root in sorted(base.glob("mount-*")):
            try:
                yield cls(root)
            except BlockingIOError:
                continue

    def close(self) -> None:
        """Give the directory up; it goes if nothing is left in it."""
        with contextlib.suppress(OSError):  # drafts are left in it: the next mount finds them
            self.root.rmdir()
        os.close(self._lock)

    def open(self, intent: dict[str, Any]) -> Staged:
        """Begin an empty draft."""
        number = next(self._numbers)
        path = self.root / f"{number}.draft"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        return Staged(path, fd, number, intent=intent)

    def seal(self, staged: Staged) -> None:
        """Make content and intent durable."""
        os.fsync(staged.fd)
        record = self._record(staged)
        temporary = record.with_suffix(".new")
        intent = {**staged.intent, "executable": staged.executable, "mtime_ns": staged.mtime_ns}
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(intent, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(record)
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        staged.dirty = False

    def discard(self, staged: Staged) -> None:
        """Forget a draft whose content is safe elsewhere, or was never meant to be kept."""
        os.close(staged.fd)
        self._record(staged).unlink(missing_ok=True)
        staged.path.unlink(missing_ok=True)

    def left_over(self) -> list[Staged]:
        """Return the sealed drafts that an earlier mount did not finish, oldest first; drop the unsealed ones."""
        found = []
        for path in sorted(self.root.glob("*.draft"), key=lambda p: int(p.stem) if p.stem.isdigit() else 0):
            record = path.with_suffix(".json")
            if not record.exists():
                path.unlink()
                continue
            intent = json.loads(record.read_text(encoding="utf-8"))
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            staged = Staged(path, fd, int(path.stem), touched=True, intent=intent)
            staged.executable = bool(intent.get("executable"))
            staged.mtime_ns = int(intent.get("mtime_ns") or 0)
            found.append(staged)
        return found

    @staticmethod
    def _record(staged: Staged) -> Path:
        return staged.path.with_suffix(".json")
