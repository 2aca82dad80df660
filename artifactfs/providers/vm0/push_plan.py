"""What a push says and packs, worked out before anything is sent.

Rules of this file: synchronous, for a worker thread; bytes come through ``Fetch``. Limits and names are judged before a
byte is read. What the service counts are regular files; directories, symlinks and x bits are in the archive alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from artifactfs import errors
from artifactfs.model.content import ArchiveMember, Content, ContentRef, Inline
from artifactfs.model.entry import TreeMember
from artifactfs.providers.base import Draft, Manifest
from artifactfs.providers.vm0.archive_writer import ArchiveWriter, Entry
from artifactfs.providers.vm0.bodies import json_of
from artifactfs.store.rows import content_id

Fetch = Callable[[Content, int, int], bytes]
"""Returns bytes of a content from an offset on, at most so many; called in the worker thread."""

# The service's limits (service source, March to August 2026): bytes of a file and of all together, files in a version,
# bytes of all their paths.
MAX_BYTES = 100 * 1024 * 1024
MAX_FILES = 50_000
MAX_PATH_BYTES = 8 * 1024 * 1024
# Below this depth the service's own walk over a working directory does not go (service source, 2026).
MAX_DEPTH = 256
# The rule of the service's command line (service source, 2026); the server itself takes any 64 characters.
NAME = re.compile(r"(?=.{3,64}\Z)[a-z0-9]+(-[a-z0-9]+)*")
# The id of a version is made of lines "path:hash": a path that holds such a line end makes two trees the same
# (issue 24781 of the service).
AMBIGUOUS = re.compile(r":[0-9a-f]{64}\n")
EMPTY = hashlib.sha256(b"").hexdigest()
CHUNK = 1024 * 1024


def check_name(name: str) -> None:
    """Refuse what cannot be the name of an artifact.

    Raises:
        NameNotAllowed: says what one is made of.
    """
    if not NAME.fullmatch(name):
        message = "the name of an artifact has 3 to 64 characters: a-z, 0-9, and single hyphens between them"
        raise errors.NameNotAllowed(message, subject=repr(name))


def check_path(path: str) -> None:
    """Refuse a path that would not come back as it is.

    Raises:
        NameNotAllowed: it is no text, has NUL in it, does not stay below its tree, or is too deep.
    """
    _check_text(path)
    parts = path.split("/")
    if AMBIGUOUS.search(path) or not {"", ".", ".."}.isdisjoint(parts) or len(parts) > MAX_DEPTH:
        raise errors.NameNotAllowed("the service cannot store this name", subject=repr(path))


def _check_text(name: str) -> None:
    if "\0" in name or any("\ud800" <= c <= "\udfff" for c in name):
        raise errors.NameNotAllowed("the service stores no names that are not UTF-8", subject=repr(name))


def check_size(size: int, subject: str) -> None:
    """Refuse what is larger than all of a version may be.

    Raises:
        TooLarge: it is.
    """
    if size > MAX_BYTES:
        raise errors.TooLarge(f"a version holds at most {MAX_BYTES >> 20} MiB", subject=subject)


def _is_file(item: Draft | TreeMember) -> bool:
    """Tell whether it goes out as a file: a link that leads out is shown as one that says so, and stays a link."""
    return isinstance(item, Draft) or (item.kind == "file" and item.target is None)


def _check(manifest: Manifest) -> None:
    """Refuse what is beyond the service's limits; raises as the three above."""
    for path, item in manifest.items():
        check_path(path)
        if isinstance(item, TreeMember) and item.target is not None:
            _check_text(item.target)
    files = {path: item.size for path, item in manifest.items() if _is_file(item)}
    check_size(sum(files.values()), "the files together")
    if len(files) > MAX_FILES or sum(len(path.encode()) for path in files) > MAX_PATH_BYTES:
        message = f"a version holds at most {MAX_FILES} files, with {MAX_PATH_BYTES >> 20} MiB of paths"
        raise errors.TooLarge(message)


@dataclass(frozen=True, slots=True)
class Plan:
    """A version to be.

    Attributes:
        files: what the service is told, by path: ``path``, ``hash``, ``size``.
        json: the same as a JSON array.
    """

    files: Sequence[Mapping[str, Any]]
    _manifest: Manifest
    json: bytes

    def version_id(self, storage_id: str) -> str:
        """Return the id that the service will give to this version of a storage (its UUID); advice, it may not."""
        return content_id(storage_id, ((file["path"], file["hash"]) for file in self.files))

    def write(self, out: BinaryIO, fetch: Fetch, cancelled: Callable[[], None]) -> None:
        """Write the archive; ``cancelled`` is called now and then, and may raise.

        Raises:
            CorruptContent: a file is not what it was said to be.
            OSError: the disk of ``out`` is full.
        """
        writer = ArchiveWriter(out)
        hashes = {file["path"]: file["hash"] for file in self.files}
        for entry in self._entries():
            cancelled()
            writer.add(entry)
            if entry.kind != "file":
                continue
            digest = hashlib.sha256()
            for chunk in _bytes_of(self._manifest[entry.path], fetch):
                cancelled()
                digest.update(chunk)
                writer.write(chunk)
            if digest.hexdigest() != hashes[entry.path]:
                raise errors.CorruptContent("what was to be saved has changed", subject=entry.path)
        writer.close()

    def _entries(self) -> Iterator[Entry]:
        """Return what the archive holds, parents first; directories that nobody has touched are implied by files."""
        times = [item.mtime_ns for item in self._manifest.values() if item.mtime_ns is not None]
        newest = max(times, default=0)
        parents = {path.rpartition("/")[0] for path in self._manifest}
        for path, item in sorted(self._manifest.items()):
            mtime_ns = newest if item.mtime_ns is None else item.mtime_ns
            if _is_file(item):
                yield Entry(path, "file", item.size, item.executable, mtime_ns)
            elif isinstance(item, TreeMember) and item.target is not None:
                yield Entry(path, "symlink", mtime_ns=mtime_ns, target=item.target)
            elif item.mtime_ns is not None or path not in parents:
                yield Entry(path, "dir", mtime_ns=mtime_ns)


def plan(manifest: Manifest, fetch: Fetch, cancelled: Callable[[], None]) -> Plan:
    """Hash what has no hash yet.

    Raises:
        TooLarge, NameNotAllowed: before a byte is read.
        CorruptContent: a file is shorter than it was said to be.
    """
    _check(manifest)
    files = []
    for path, item in sorted(manifest.items()):
        if _is_file(item):
            cancelled()
            files.append({"path": path, "hash": _hash_of(item, fetch), "size": item.size})
    return Plan(files, manifest, json_of(files))


def _hash_of(item: Draft | TreeMember, fetch: Fetch) -> str:
    content = None if isinstance(item, Draft) else item.content
    known = item.sha256 if isinstance(item, Draft) else None
    if isinstance(content, ArchiveMember | ContentRef):
        known = content.sha256
    if known is not None:
        return known
    digest = hashlib.sha256()
    for chunk in _bytes_of(item, fetch):
        digest.update(chunk)
    return digest.hexdigest()


def _bytes_of(item: Draft | TreeMember, fetch: Fetch) -> Iterator[bytes]:
    """Return a file's bytes in pieces, as many as it is said to have.

    Raises:
        CorruptContent: there are fewer.
    """
    if isinstance(item, Draft):
        yield from _bytes_of_draft(item)
        return
    if isinstance(item.content, Inline):
        yield item.content.data
        return
    at = 0
    while at < item.size:
        chunk = fetch(item.content, at, min(CHUNK, item.size - at)) if item.content is not None else b""
        if not chunk:
            raise errors.CorruptContent("a file is shorter than it was", subject=item.path)
        at += len(chunk)
        yield chunk


def _bytes_of_draft(draft: Draft) -> Iterator[bytes]:
    try:
        with draft.path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        message = f"what was to be saved cannot be read: {error.strerror}"
        raise errors.CorruptContent(message, subject=str(draft.path)) from error
