"""Takes an uploaded archive into the store's objects.

Rules of this file: the archive is hostile. Members are read one by one and never written to a path they
name; what is not declared, or not what was declared, is refused before its bytes are taken where the header
tells, and after where only the bytes do. The decompressor is read to its end: a tar stream ends before the
gzip trailer, so a damaged archive would look good without that.
"""

from __future__ import annotations

import gzip
import os
import posixpath
import tarfile
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from artifactfs import errors
from artifactfs.store.rows import TreeFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from artifactfs.store.objects import Objects

CHUNK = 1 << 18
# What the service's sandbox stops at (service source, 2026), and what we do.
MAX_MEMBERS = 100_000
MAX_DEPTH = 256
# Beside the declared bytes of the files: headers, padding, and what is no file; and of each file a header, two blocks
# with its time to the nanosecond, and padding.
MAX_OVERHEAD = 64 * 1024 * 1024
FILE_OVERHEAD = 4 * tarfile.BLOCKSIZE
MAX_PATH_BYTES = 4096
# An fsync of file and directories for each member of a large archive takes longer than a client waits; above this
# many files one sync of everything is cheaper.
MAX_SYNCED = 64
# The store keeps times as signed 64-bit nanoseconds.
MAX_TIME_S = (2**63 - 1) // 10**9


@dataclass(frozen=True, slots=True)
class Declared:
    """A file as the client announced it: SHA-256 in hex, and its size in bytes."""

    sha256: str
    size: int


def _bad(message: str) -> errors.CorruptContent:
    return errors.CorruptContent(message)


def safe_path(name: str) -> str:
    """Return a member's path without ``./`` and trailing slashes; empty for the root itself.

    Raises:
        CorruptContent: it is absolute, leaves the tree, is no text, or is too long or too deep.
    """
    parts = [part for part in name.split("/") if part not in {"", "."}]
    path = "/".join(parts)
    try:
        length = len(path.encode())
    except UnicodeEncodeError:
        raise _bad("a path is not valid text") from None
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise _bad(f"the path {name!r:.100} leaves the archive")
    if length > MAX_PATH_BYTES or len(parts) > MAX_DEPTH:
        raise _bad(f"the path {name!r:.100} is too long or too deep")
    return path


class _Capped:
    """A decompressed stream that ends in an error after ``limit`` bytes."""

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        self._stream = stream
        self._left = limit

    def read(self, size: int) -> bytes:
        data = self._stream.read(min(size, CHUNK))
        self._left -= len(data)
        if self._left < 0:
            raise _bad("the archive holds more than was declared")
        return data


def unpack(archive: BinaryIO, declared: Mapping[str, Declared], objects: Objects) -> list[TreeFile]:
    """Store the archive's files; return the tree they make.

    Args:
        archive: the tar.gz, opened to be read.
        declared: what files there must be, by path: all of them, and no other.
        objects: where the bytes go.

    Raises:
        CorruptContent: it is no archive, damaged, or does not match what was declared; the message says how.
        OSError: the disk is full.
    """
    limit = sum(file.size + FILE_OVERHEAD for file in declared.values()) + MAX_OVERHEAD
    stream = cast("IO[bytes]", _Capped(gzip.GzipFile(fileobj=archive, mode="rb"), limit))
    taken = _Taken(declared, objects)
    try:
        with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8") as tar:
            for member in _members(tar):
                taken.add(tar, member)
        while stream.read(CHUNK):
            pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError) as error:
        raise _bad(f"the archive cannot be read: {error}") from error
    except RecursionError as error:
        raise _bad("the archive's headers are nested too deep") from error
    tree = taken.tree()
    if not taken.is_durable:
        os.sync()
    return tree


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    count = 0
    while (member := tar.next()) is not None:
        # tarfile keeps every header it has seen; nothing here looks back.
        tar.members = []  # type: ignore[attr-defined]  # an attribute typeshed leaves out
        count += 1
        if count > MAX_MEMBERS:
            raise _bad(f"the archive has more than {MAX_MEMBERS} members")
        yield member


class _Taken:
    """What has been taken from an archive so far."""

    def __init__(self, declared: Mapping[str, Declared], objects: Objects) -> None:
        self._declared = declared
        self._objects = objects
        self._found: dict[str, TreeFile] = {}
        self.is_durable = True

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = safe_path(member.name)
        if not path:
            return
        if member.isdir():
            self._found[path] = TreeFile(path, None, mtime_ns=_time_ns(member))
        elif member.issym():
            self._found[path] = TreeFile(path, None, mtime_ns=_time_ns(member), target=_target(member))
        elif member.islnk():
            self._found[path] = self._linked(path, member)
        elif member.isreg():
            self._found[path] = self._file(tar, path, member)
        else:
            raise _bad(f"{path!r:.100} is no file, directory or link")

    def _file(self, tar: tarfile.TarFile, path: str, member: tarfile.TarInfo) -> TreeFile:
        declared = self._declared.get(path)
        if declared is None:
            raise _bad(f"{path!r:.100} is in the archive, but was not declared")
        source = tar.extractfile(member)
        if member.size != declared.size or source is None:
            raise _bad(f"{path!r:.100} has {member.size} bytes, declared were {declared.size}")
        self.is_durable = len(self._declared) <= MAX_SYNCED
        chunks = iter(lambda: source.read(CHUNK), b"")
        sha256, size = self._objects.put_stream(chunks, durable=self.is_durable)
        if (sha256, size) != (declared.sha256, declared.size):
            raise _bad(f"{path!r:.100} does not have the declared hash")
        return TreeFile(path, sha256, size, bool(member.mode & 0o111), _time_ns(member))

    def _linked(self, path: str, member: tarfile.TarInfo) -> TreeFile:
        """Return a hard link as the file it is another name of."""
        first = self._found.get(safe_path(member.linkname))
        if first is None or first.sha256 is None:
            raise _bad(f"{path!r:.100} is a link to no earlier file")
        return TreeFile(path, first.sha256, first.size, first.executable, first.mtime_ns)

    def tree(self) -> list[TreeFile]:
        """Return all that was found, where it is what was declared.

        A symlink that was declared as a file (the service's own command line hashes what a link leads to,
        but packs the link) becomes that file.
        """
        for path, declared in self._declared.items():
            found = self._found.get(path)
            if found is not None and found.target is not None:
                found = self._found[path] = self._followed(found)
            if found is None or (found.sha256, found.size) != (declared.sha256, declared.size):
                raise _bad(f"{path!r:.100} was declared, but is not in the archive as declared")
        for path, file in self._found.items():
            if file.sha256 is not None and path not in self._declared:
                raise _bad(f"{path!r:.100} is in the archive, but was not declared")
            self._check_parents(path)
        return list(self._found.values())

    def _followed(self, link: TreeFile) -> TreeFile:
        goal = posixpath.normpath(posixpath.join(posixpath.dirname(link.path), link.target or ""))
        file = self._found.get(goal)
        if file is None or file.sha256 is None:
            raise _bad(f"{link.path!r:.100} was declared as a file, but is a link to none")
        return TreeFile(link.path, file.sha256, file.size, file.executable, file.mtime_ns)

    def _check_parents(self, path: str) -> None:
        parent = posixpath.dirname(path)
        while parent:
            above = self._found.get(parent)
            if above is not None and (above.sha256 is not None or above.target is not None):
                raise _bad(f"{path!r:.100} is below something that is no directory")
            parent = posixpath.dirname(parent)


def _target(member: tarfile.TarInfo) -> str:
    """Return where a symlink points, as it was packed: readers judge where it leads, nothing here follows it."""
    try:
        length = len(member.linkname.encode())
    except UnicodeEncodeError:
        raise _bad("a link's target is not valid text") from None
    if not 0 < length <= MAX_PATH_BYTES or "\0" in member.linkname:
        raise _bad("a link's target is empty or too long")
    return member.linkname


def _time_ns(member: tarfile.TarInfo) -> int | None:
    """Return a member's time, None if it is none: hostile ones are NaN or in the year 9999."""
    at = member.mtime
    if not -MAX_TIME_S < at < MAX_TIME_S:  # False for NaN too
        return None
    exact = member.pax_headers.get("mtime", "")
    sign = -1 if exact.startswith("-") else 1
    seconds, _, fraction = exact.lstrip("-").partition(".")
    if not seconds.isdecimal() or not (fraction or "0").isdecimal():
        return int(at * 10**9)
    return sign * (int(seconds) * 10**9 + int((fraction + "0" * 9)[:9]))
