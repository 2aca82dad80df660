"""Versions as archives: as they were uploaded, or made from the store's trees once; kept so that ranges can be served.

Rules of this file: the same version makes the same bytes (PAX format, sorted names, times from the tree, no
time in the gzip header). One that was uploaded is given back as it is, as the service's storage does, while it is
kept. A file appears under its name only whole. Work on bytes happens in threads, at
most once at a time for one version. What is here is a cache: it can be deleted at any time.
"""

from __future__ import annotations

import gzip
import logging
import os
import tarfile
import tempfile
import time
import weakref
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import trio

if TYPE_CHECKING:
    from artifactfs.store.catalog import Store
    from artifactfs.store.rows import StoredVersion, TreeFile

log = logging.getLogger(__name__)

# gzip's fastest: a client waits for the archive to be whole, and level 6 is three to four times slower for
# archives a tenth smaller (source trees, measured on one core).
LEVEL = 1
# Bytes of archives that are kept; the least recently used go first.
MAX_KEPT = 4 * 1024**3
NS = 10**9


def _member(file: TreeFile, created_at_ns: int) -> tarfile.TarInfo:
    """Return the header of one entry; owners and device numbers say nothing."""
    info = tarfile.TarInfo(file.path)
    at_ns = created_at_ns if file.mtime_ns is None else file.mtime_ns
    info.mtime, rest = divmod(at_ns, NS)
    if rest or info.mtime < 0:
        # PAX times are decimal fractions; a negative one counts down from the second before.
        sign, (seconds, fraction) = ("-", divmod(-at_ns, NS)) if at_ns < 0 else ("", (info.mtime, rest))
        info.pax_headers = {"mtime": f"{sign}{seconds}.{fraction:09d}"}
    if file.target is not None:
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, file.target, 0o777
    elif file.sha256 is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    else:
        info.size, info.mode = file.size, 0o755 if file.executable else 0o644
    return info


def write_archive(store: Store, version: StoredVersion, out: BinaryIO) -> None:
    """Write the tar.gz of a version.

    Raises:
        OSError: an object of the version is not here, or the disk is full.
    """
    packed = gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=out, mtime=0)
    with packed, tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar:
        for file in store.tree(version.artifact_id, version.seq):
            info = _member(file, version.created_at_ns)
            if file.sha256 is None:
                tar.addfile(info)
                continue
            with store.objects.path(file.sha256).open("rb") as source:
                tar.addfile(info, source)


def archive_path(store: Store, version_id: str) -> Path:
    """Return where the archive of a version is kept; what is put there (whole, by a rename) is what is served."""
    return store.root / "archives" / f"{version_id}.tar.gz"


def keep_uploaded(store: Store, version_id: str, uploaded: Path) -> None:
    """Serve an archive as it was uploaded and checked; it is moved away from where it is."""
    path = archive_path(store, version_id)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    uploaded.replace(path)


class Archives:
    """The archives that have been made, in a directory of their own below the store."""

    def __init__(self, store: Store, *, max_kept: int = MAX_KEPT) -> None:
        """Keep at most ``max_kept`` bytes of them."""
        self._store = store
        self._max_kept = max_kept
        self._root = store.root / "archives"
        self._locks: weakref.WeakValueDictionary[str, trio.Lock] = weakref.WeakValueDictionary()

    def __repr__(self) -> str:
        """Tell how many are being made."""
        return f"<Archives {self._root}, {len(self._locks)} wanted>"

    async def open(self, version: StoredVersion) -> BinaryIO:
        """Return the archive of a version, opened to be read; made if it is not here.

        The caller closes it. What is open can be read to its end even if it is deleted meanwhile.
        """
        lock = self._locks.get(version.id)
        if lock is None:
            lock = self._locks[version.id] = trio.Lock()
        async with lock:
            return await trio.to_thread.run_sync(partial(self._open, version))

    def _open(self, version: StoredVersion) -> BinaryIO:
        path = archive_path(self._store, version.id)
        try:
            file = path.open("rb")
        except FileNotFoundError:
            self._make(version, path)
            file = path.open("rb")
            self._shrink(path)
        stat = os.fstat(file.fileno())
        # The last use is kept as atime; the mtime goes into the ETag and stays.
        os.utime(file.fileno(), ns=(time.time_ns(), stat.st_mtime_ns))
        return file

    def _make(self, version: StoredVersion, path: Path) -> None:
        self._root.mkdir(mode=0o700, exist_ok=True)
        fd, name = tempfile.mkstemp(prefix=".new-", dir=self._root)
        temporary = Path(name)
        try:
            with os.fdopen(fd, "wb") as out:
                write_archive(self._store, version, out)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _shrink(self, newest: Path) -> None:
        """Delete the least recently used until the rest fits; never the newest."""
        kept: list[tuple[int, int, Path]] = []
        for path in self._root.glob("*.tar.gz"):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            kept.append((stat.st_atime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept):
            if total <= self._max_kept:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                total -= size
