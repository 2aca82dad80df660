"""What is fuzzed: one function for each parser, which takes bytes and must end, with a value or with an error of ours.

Rules of this file: nothing is caught but what callers expect; what comes out is checked as far as it can be.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

from artifactfs.content.archive_index import ArchiveReader, TarScanner, build_index, dump, load
from artifactfs.content.archive_links import ArchiveIndex
from artifactfs.errors import ArtifactFSError, CorruptContent
from artifactfs.model.codec import Reader
from artifactfs.model.limits import Limits
from artifactfs.providers.messages import Reply
from artifactfs.tree import names
from artifactfs.tree.names import Claim
from tests.property.test_archive_property import well_formed
from tests.support.archives import CASES

# Small, so that the limits themselves are met.
LIMITS = Limits(
    max_output=1 << 24, max_archive=1 << 20, max_entries=2000, max_all_path_bytes=1 << 18, ratio_floor=1 << 20
)
BLOCK = 512


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
    """Read a stored index."""
    with contextlib.suppress(CorruptContent):
        assert load(dump(load(data))) == load(data)


def kept(data: bytes) -> None:
    """Read a stored listing."""
    for read in (Reader().entries, Reader().versions):
        with contextlib.suppress(ValueError):
            read(data)


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
    made = (make().data for case, make in CASES.items() if not case.startswith(("bomb", "hundred", "hard_link_chain")))
    for data in (data for data in made if len(data) < 1 << 16):
        if name == "archive":
            yield data
            continue
        reader = ArchiveReader(LIMITS)
        with contextlib.suppress(ArtifactFSError):
            raw = b"".join(reader.feed(data))
            if len(raw) < 1 << 17:
                yield raw if name == "tar" else dump(reader.finish()) if name == "index" else raw[:300]
    if name == "answer":
        yield b'{"data": [{"id": "x", "n": [1.5e300, null, true]}], "pagination": {"hasMore": false}}'
