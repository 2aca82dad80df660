"""What an archive may make the reader hold, and for how long: every loop over what an author wrote ends at a limit."""

from __future__ import annotations

import tracemalloc
import zlib
from dataclasses import replace

import pytest

from artifactfs.content.archive_index import ArchiveReader
from artifactfs.errors import LimitExceeded
from artifactfs.model.limits import Limits
from tests.support.archives import MIB, Tar, gz, pax_record

LIMITS = Limits()


def read(data: bytes, limits: Limits = LIMITS) -> int:
    """Read an archive; return how many bytes came out."""
    reader = ArchiveReader(limits)
    out = sum(len(piece) for at in range(0, len(data), 65_536) for piece in reader.feed(data[at : at + 65_536]))
    reader.finish()
    return out


@pytest.mark.parametrize("typeflag", [b"x", b"X", b"L", b"K"])
def test_many_extended_headers_of_one_member_are_one(typeflag: bytes) -> None:
    """Each is below the limit, all together are not: a hundred MiB of records would be held for one member."""
    tar = Tar()
    for number in range(5):
        record = pax_record(b"comment%d" % number, b"x" * 300_000)
        tar.add(b"x", record if typeflag in b"xX" else b"n" * 300_000, typeflag)
    data = tar.good().gz()
    tracemalloc.start()
    with pytest.raises(LimitExceeded, match=rf"limits\.max-header = {MIB} bytes"):
        read(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * MIB


def test_several_extended_headers_of_several_members_are_not() -> None:
    """The limit is of each member."""
    tar = Tar()
    for number in range(5):
        tar.pax((b"comment", b"x" * 500_000)).add(b"long", b"f%d\0" % number, b"L").add(b"short", b"1")
    read(tar.gz())


@pytest.mark.parametrize("typeflag", [b"g", b"x", b"L"])
def test_nothing_but_extended_headers_ends(typeflag: bytes) -> None:
    """Each takes 20 us and 1,000 bytes that compress to nothing: ten million of them were minutes."""
    limits = replace(LIMITS, max_entries=100)
    tar = Tar()
    for _ in range(401):
        tar.add(b"x", b"", typeflag)
    with pytest.raises(LimitExceeded, match=r"limits\.max-entries = 100"):
        read(tar.good().gz(), limits)
    several = Tar()
    for number in range(99):
        several.pax((b"mtime", b"1"), typeflag=b"g").pax((b"mtime", b"2")).add(b"x", b"f%d" % number, b"L").add(b"x")
    read(several.gz(), limits)


def empty_blocks(size: int) -> bytes:
    """A gzip stream that gives nothing for so many bytes."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = packer.compress(Tar().good().end()) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08" + bytes(7) + head + b"\0\0\0\xff\xff" * (size // 5)


SWALLOWED = {
    "a file name in a gzip header": lambda size: b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * size,
    "a comment behind a whole archive": lambda size: Tar().good().gz() + b"\x1f\x8b\x08\x10" + bytes(6) + b"n" * size,
    "empty blocks": empty_blocks,
    "empty members": lambda size: gz(b"") * (size // 20),
    "zeros behind the end": lambda size: Tar().good().gz() + bytes(size),
    "garbage behind the end": lambda size: Tar().good().gz() + b"garbage" * (size // 7),
}


@pytest.mark.parametrize("kind", SWALLOWED)
def test_bytes_that_give_nothing_end(kind: str) -> None:
    """No ratio and no output tells of them: what is sent has a limit of its own."""
    limits = replace(LIMITS, max_archive=MIB)
    with pytest.raises(LimitExceeded, match=rf"larger than limits\.max-archive = {MIB} bytes"):
        read(SWALLOWED[kind](2 * MIB), limits)
