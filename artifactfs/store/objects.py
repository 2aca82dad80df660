"""Content-addressed files: bytes named by their SHA-256.

Rules of this file: an object appears under its name only whole and durable (temporary file, fsync, rename,
fsync of the directories); it is never changed afterwards. Only a store that is thrown away anyway may ask
for less.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from artifactfs import errors, private

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# One read or write of this size costs little memory and few system calls.
CHUNK = 1 << 20
TEMPORARY = ".new-"
# What a killed writer left is swept once nobody can still be writing it: no upload takes a day.
ABANDONED_S = 24 * 3600.0
SHA256 = re.compile(r"[0-9a-f]{64}")


@contextlib.contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise errors.NoLocalSpace("the disk under the store is full") from error
        raise errors.Unavailable(f"the store's disk failed: {error.strerror}") from error


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Objects:
    """A directory of objects."""

    def __init__(self, root: Path) -> None:
        """Use ``root``, made if missing, for the owner alone."""
        self.root = root
        private.directory(root)
        self._sweep()

    def __repr__(self) -> str:
        """Tell where they are."""
        return f"<Objects {self.root}>"

    def _sweep(self) -> None:
        oldest = time.time() - ABANDONED_S
        for name in os.listdir(self.root):  # at most 256 directories and the temporaries of running writers
            if name.startswith(TEMPORARY):
                with contextlib.suppress(FileNotFoundError):  # another process swept first
                    path = self.root / name
                    if path.stat().st_mtime < oldest:
                        path.unlink()

    def path(self, sha256: str) -> Path:
        """Return where the object of that hash is or would be.

        Raises:
            NotFound: it is no SHA-256 in lower-case hex, so there is no such object.
        """
        if not SHA256.fullmatch(sha256):
            raise errors.NotFound("an object is named by 64 hex digits", subject=sha256)
        return self.root / sha256[:2] / sha256[2:]

    def has(self, sha256: str) -> bool:
        """Tell whether the object is here."""
        return SHA256.fullmatch(sha256) is not None and self.path(sha256).exists()

    def put(self, data: bytes, *, durable: bool = True) -> str:
        """Store bytes; return their SHA-256 in hex."""
        return self.put_stream((data,), durable=durable)[0]

    def put_files(self, sources: Sequence[Path]) -> list[tuple[str, int]]:
        """Store copies of files; return (SHA-256 in hex, size in bytes) of each.

        Each directory is synced once for all of them, which is most of what many small files cost.

        Raises:
            FileNotFoundError: there is no such file to copy.
        """
        found = []
        for source in sources:
            with source.open("rb") as file:
                found.append(self._put(iter(partial(file.read, CHUNK), b""), durable=True))
        self._sync_directories(sha256 for sha256, _ in found)
        return found

    def put_stream(self, chunks: Iterable[bytes], *, durable: bool = True) -> tuple[str, int]:
        """Store bytes as they come; return (SHA-256 in hex, size in bytes).

        Args:
            chunks: the bytes; an error it raises leaves nothing behind.
            durable: False skips every fsync, for a store that a crash may lose whole.

        Raises:
            NoLocalSpace: the disk is full.
            Unavailable: the disk failed.
        """
        sha256, size = self._put(chunks, durable=durable)
        if durable:
            self._sync_directories((sha256,))
        return sha256, size

    def _put(self, chunks: Iterable[bytes], *, durable: bool) -> tuple[str, int]:
        """Store bytes under a name that is not durable yet."""
        digest, size = hashlib.sha256(), 0
        with _in_our_words():
            fd, name = tempfile.mkstemp(prefix=TEMPORARY, dir=self.root)
        temporary = Path(name)
        try:
            with os.fdopen(fd, "wb", buffering=0) as file:
                for chunk in chunks:
                    digest.update(chunk)
                    size += len(chunk)
                    with _in_our_words():
                        _write_all(file.fileno(), chunk)
                if durable:
                    with _in_our_words():
                        os.fsync(file.fileno())
            sha256 = digest.hexdigest()
            with _in_our_words():
                self._settle(temporary, self.path(sha256))
        finally:
            temporary.unlink(missing_ok=True)
        return sha256, size

    @staticmethod
    def _settle(temporary: Path, final: Path) -> None:
        if not final.exists():
            private.directory(final.parent)
            temporary.replace(final)

    def _sync_directories(self, names: Iterable[str]) -> None:
        """Make objects durable under their names.

        Also those that were here already: who brought one may not have come to its own fsync yet.
        """
        with _in_our_words():
            for directory in sorted({self.path(sha256).parent for sha256 in names}):
                _sync_directory(directory)
            _sync_directory(self.root)

    def read(self, sha256: str) -> bytes:
        """Return a whole object.

        Raises:
            FileNotFoundError: it is not here.
        """
        return self.path(sha256).read_bytes()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
