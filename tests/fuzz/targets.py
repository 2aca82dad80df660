"""What is fuzzed: one function for each parser, which takes bytes and must end, with a value or with an error of ours.

Rules of this file: nothing is caught but what callers expect; what comes out is checked as far as it can be.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator, Mapping

from artifactfs.content.archive_index import ArchiveReader, TarScanner, build_index, dump, load
from artifactfs.content.archive_links import ArchiveIndex
from artifactfs.errors import ArtifactFSError, CorruptContent
from artifactfs.model.codec import Reader, pack_entries
from artifactfs.model.entry import Artifact, ArtifactKind, DirRef, Folder
from artifactfs.model.limits import Limits
from artifactfs.providers.messages import Reply
from artifactfs.tree import names
from artifactfs.tree.names import Claim
from tests.property.test_archive_property import well_formed
from tests.support import titles
from tests.support.archives import CASES

# Small, so that the limits themselves are met.
LIMITS = Limits(
    max_output=1 << 24, max_archive=1 << 20, max_entries=2000, max_all_path_bytes=1 << 18, ratio_floor=1 << 20
)
BLOCK = 512
SEED = 1 << 16
FORMAT = dump(ArchiveIndex((), (), 0, 0, ()))[:8]
KEPT = pack_entries(
    [
        Folder(("a", "b"), "f", DirRef("vm0", "root"), mtime_ns=5),
        Artifact(("x.md",), "id", "key", ArtifactKind.FILE, None, created_at_ns=7, metadata={"a": [1, {"b": None}]}),
    ]
)


def with_checksums(raw: bytes) -> bytes:
    """Make every block that may be a header a valid one: else no fuzzer gets behind the first."""
    data = bytearray(raw)
    for at in range(0, len(data) - BLOCK + 1, BLOCK):
        if data[at + 257 : at + 262] == b"ustar":
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + BLOCK])
    return bytes(data)


def check_index(index: ArchiveIndex) -> None:
    """Say what holds of every index: parents are there, nothing leaves, contents lie in the stream, it can be kept."""
    well_formed(index)
    assert len({member.path for member in index.members}) == len(index.members)
    assert load(dump(index)) == index
    for part in {part for member in index.members for part in member.path.split("/")}:
        assert 1 <= len(names.encode(part).encode()) <= names.NAME_MAX


def tar(data: bytes) -> None:
    """Read a tar as it comes out of gzip, in one piece and in many."""
    raw = with_checksums(data)
    found = []
    for step in (max(1, len(raw)), 700):
        scanner = TarScanner(LIMITS)
        with contextlib.suppress(ArtifactFSError):
            for at in range(0, len(raw), step):
                scanner.feed(raw[at : at + step])
            scanner.close()
            index = build_index(scanner.members, LIMITS, stream_size=scanner.stream_size)
            check_index(index)
            found.append(index)
    assert len(found) in {0, 2}
    assert found[:1] == found[1:]


def archive(data: bytes) -> None:
    """Read a gzip file."""
    reader = ArchiveReader(LIMITS)
    with contextlib.suppress(ArtifactFSError):
        for at in range(0, len(data), 1000):
            for _ in reader.feed(data[at : at + 1000]):
                pass
        check_index(reader.finish())


def index(data: bytes) -> None:
    """Read a stored index: its rows, a line each, packed as they are kept."""
    rows = map(zlib.compress, data.split(b"\n"))
    stored = FORMAT + b"".join(len(row).to_bytes(4, "little") + row for row in rows)
    for one in (stored, FORMAT + data):
        with contextlib.suppress(CorruptContent):
            assert load(dump(load(one))) == load(one)


def kept(data: bytes) -> None:
    """Read a stored listing: its rows, packed as they are kept."""
    for stored in (KEPT[:1] + zlib.compress(data), data):
        for read in (Reader().entries, Reader().versions):
            with contextlib.suppress(ValueError):
                read(stored)


def title(data: bytes) -> None:
    """Name titles, two of them in one directory."""
    first, _, second = (part.decode("utf-8", "surrogateescape") for part in data.partition(b"\n"))
    for one in (first, second):
        name = names.encode(one)
        assert 1 <= len(name.encode()) <= names.NAME_MAX
        assert "/" not in name
        assert "\0" not in name
        assert names.decode(name) in {one, None}
        typed = names.decode(one)
        assert typed is None or names.encode(typed) == one
        names.shown_target(one).encode()
        meant = names.meant_target(one)
        assert meant is None or names.shown_target(meant) == one
    given = names.assign(
        [Claim(first, "1", "art_1"), Claim(second, "2", "art_1"), Claim(second, "3", "art_3", folder=True)]
    )
    assert len(set(given.values())) == 3


def answer(data: bytes) -> None:
    """Read JSON of a service."""
    with contextlib.suppress(ArtifactFSError):
        Reply(200, {}, data, "http://x/").json()


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "tar": tar, "archive": archive, "index": index, "kept": kept, "title": title, "answer": answer,
}  # fmt: skip


def seeds(name: str) -> Iterator[bytes]:
    """Yield what to begin with: the archives of the tests that are small, and a little of everything else."""
    if name == "answer":
        yield b'{"data": [{"id": "x", "n": [1.5e300, null, true]}], "pagination": {"hasMore": false}}'
    elif name == "kept":
        yield zlib.decompress(KEPT[1:])
    elif name == "title":
        yield from (title.encode("utf-8", "surrogatepass") for title in titles.FIXED)
    else:
        made = (make().data for case, make in CASES.items() if not case.startswith(("bomb", "hundred")))
        for data in (data for data in made if len(data) < SEED):
            yield from of_archive(name, data)


def of_archive(name: str, data: bytes) -> Iterator[bytes]:
    """Yield an archive as a target takes it."""
    reader = ArchiveReader(LIMITS)
    with contextlib.suppress(ArtifactFSError):
        raw = b"".join(reader.feed(data))
        if name == "tar" and len(raw) < SEED:
            yield raw
        elif name == "index":
            stored, rows, at = dump(reader.finish()), [], len(FORMAT)
            while at < len(stored):
                size = int.from_bytes(stored[at : at + 4], "little")
                rows.append(zlib.decompress(stored[at + 4 : at + 4 + size]))
                at += 4 + size
            yield b"\n".join(rows)[:SEED]
    if name == "archive":
        yield data
