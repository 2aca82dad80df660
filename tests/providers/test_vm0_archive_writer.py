"""The archives we write: what others read in them, and where decoding can begin."""

from __future__ import annotations

import gzip
import io
import random
import subprocess
import tarfile
import tracemalloc
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import pytest

from artifactfs import errors
from artifactfs.content import archive_index, inflate_blocks
from artifactfs.content.archive_cutter import Unpacker
from artifactfs.content.archive_index import ArchiveIndex, GrowingTree, Limits
from artifactfs.content.restart import Restarted, RestartMap
from artifactfs.providers.vm0.archive_writer import FLUSH_WITHIN, ArchiveWriter, Entry
from tests.support.saving import need

MIB = 1 << 20
AT_NS = 1_770_105_600_123_456_789
LIMITS = Limits()
ENTRIES: list[tuple[Entry, bytes]] = [
    (Entry("bin", "dir", mtime_ns=AT_NS), b""),
    (Entry("bin/run", "file", 10, True, AT_NS), b"#!/bin/sh\n"),
    (Entry("empty", "dir", mtime_ns=1_500_000_000), b""),
    (Entry("link", "symlink", mtime_ns=AT_NS, target="bin/run"), b""),
    (Entry("long-link", "symlink", mtime_ns=0, target="d/" * 99 + "ü"), b""),
    (Entry("n" * 255, "file", 3, False, 10**9), b"abc"),
    (Entry("nothing", "file", 0, False, 0), b""),
    (Entry("/".join(["deep-" * 20] * 30), "file", 1, False, 0), b"x"),
    (Entry("ünïcödé/日本語\n.txt", "file", 2, False, 0), b"ok"),
]


def written(entries: list[tuple[Entry, bytes]]) -> bytes:
    out = io.BytesIO()
    writer = ArchiveWriter(out)
    for entry, data in entries:
        writer.add(entry)
        for at in range(0, len(data), 100_000):
            writer.write(data[at : at + 100_000])
    writer.close()
    return out.getvalue()


def text(seed: int, size: int) -> bytes:
    """Return something that compresses as text and code do, to about a third."""
    rng = random.Random(seed)
    words = [rng.randbytes(rng.randint(1, 6)).hex() for _ in range(2000)]
    out = io.BytesIO()
    while out.tell() < size:
        out.write((" ".join(rng.choices(words, k=200)) + "\n").encode())
    return out.getvalue()[:size]


def realistic() -> list[tuple[Entry, bytes]]:
    """Most files small, most bytes in a few, one of them long."""
    rng = random.Random(7)
    sizes = [rng.choice([500, 3000, 12_000, 40_000]) for _ in range(100)] + [rng.randint(70_000, 900_000)] * 12
    rng.shuffle(sizes)
    sizes.append(4 * MIB)
    return [(Entry(f"{n:03}", "file", size, False, 0), text(n, size)) for n, size in enumerate(sizes)]


def unpacked(data: bytes) -> tuple[ArchiveIndex, RestartMap, bytes]:
    unpacker, tree, windows = Unpacker(LIMITS), GrowingTree(LIMITS), b""
    for at in range(0, len(data), 100_000):
        for batch in unpacker.feed(data[at : at + 100_000]):
            for raw in batch.members:
                tree.apply(raw)
            windows += b"".join(batch.windows)
    index, points, last = unpacker.finish(tree, "windows")
    return index, points, windows + b"".join(last)


def test_our_own_reader_finds_everything() -> None:
    """Names of any length and script, x bits, times to the nanosecond, links, empty directories; nothing more."""
    index, _, _ = unpacked(written(ENTRIES))
    found = {member.path: member for member in index.members}
    for entry, data in ENTRIES:
        member = found[entry.path]
        if entry.path != "long-link":  # leads nowhere, which is as good
            assert (member.kind, member.size, member.executable, member.mtime_ns, member.target or "") == (
                entry.kind, len(data), entry.executable, entry.mtime_ns, entry.target,
            )  # fmt: skip
    assert found["long-link"].target == "d/" * 99 + "ü"
    implied = {"/".join(["deep-" * 20] * n) for n in range(1, 30)} | {"ünïcödé"}
    assert set(found) == {entry.path for entry, _ in ENTRIES} | implied
    assert not index.notes
    assert not index.refused


def test_python_finds_everything() -> None:
    """Also as a stream, which stops at the first gzip member; owners say nothing, names have no ./ before them."""
    with tarfile.open(fileobj=io.BytesIO(written(ENTRIES)), mode="r|gz") as tar:
        for (entry, data), member in zip(ENTRIES, tar, strict=True):
            content = tar.extractfile(member) if member.isreg() else None
            assert member.name == entry.path
            assert (content.read() if content else b"") == data
            assert member.mode == {"dir": 0o755, "symlink": 0o777}.get(entry.kind, 0o755 if entry.executable else 0o644)
            assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
            assert member.linkname == entry.target


def test_gzip_and_tar_find_everything(tmp_path: Path) -> None:
    """What they check and unpack is what was written."""
    need("tar", "tar")
    entries = [(entry, data) for entry, data in ENTRIES if entry.path != "long-link"]
    archive, out = tmp_path / "a.tar.gz", tmp_path / "out"
    archive.write_bytes(written(entries))
    out.mkdir()
    subprocess.run(["gzip", "-t", archive], check=True)
    subprocess.run(["tar", "-xzf", archive, "-C", out], check=True, env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"})
    for entry, data in entries:
        path = out / entry.path
        if entry.kind == "symlink":
            assert path.readlink() == Path(entry.target)
        elif entry.kind == "file":
            assert path.read_bytes() == data
            assert bool(path.stat().st_mode & 0o111) is entry.executable
            assert path.stat().st_mtime_ns == entry.mtime_ns
        else:
            assert path.is_dir()


def test_equal_entries_make_equal_bytes() -> None:
    """In one gzip member, and in whole records of tar."""
    data = written(ENTRIES)
    assert data == written(ENTRIES)
    inflater = zlib.decompressobj(31)
    assert len(inflater.decompress(data)) % 10240 == 0
    assert inflater.eof
    assert not inflater.unused_data


@pytest.mark.skipif(inflate_blocks.load() is None, reason="no libz on this system")
def test_decoding_can_begin_before_each_large_file_and_within_long_ones() -> None:
    """Our index has points there, and many of them need no window: a full flush forgets what came before."""
    entries = realistic()
    data = written(entries)
    index, points, windows = unpacked(data)
    raw = gzip.decompress(data)
    large = [member for member in index.members if member.size >= 64 * 1024]
    assert len(large) == 13
    gaps = []
    for member in large:
        point = points.point_before(member.offset)
        assert point is not None
        gaps.append(member.offset - point.out)
        window = zlib.decompress(windows[point.at : point.at + point.length]) if point.length else b""
        decoder = Restarted(point, window, LIMITS)
        end = points.end_of(member.offset + member.size)
        found = b"".join(decoder.feed(data[point.begin : end]))
        assert found[member.offset - point.out :][: member.size] == raw[member.offset :][: member.size]
    # The reader looks for a block's end each 16 KiB only, and leaves out points that are near one another or dear.
    assert sum(gap < 64 * 1024 for gap in gaps) >= len(gaps) // 2, gaps
    empty = len(zlib.compress(bytes(32768)))
    assert sum(length <= empty for length in points.points["length"]) >= len(points) // 4


def test_a_long_file_has_places_to_begin() -> None:
    """Each MiB of it: a decoder that starts there with nothing gives what follows."""
    size = 5 * MIB
    content = text(1, size)
    data = written([(Entry("long", "file", size), content)])
    marker, at, places = b"\0\0\xff\xff", 0, 0
    while (at := data.find(marker, at + 1)) >= 0:
        found = zlib.decompressobj(-15).decompress(data[at + 4 :])
        if found[: -FLUSH_WITHIN // 2] and found.rstrip(b"\0") in content:
            places += 1
    assert places >= 4


def test_flushes_cost_next_to_nothing() -> None:
    """Against one stream of the same level: below 1 %, also of text that refers far back."""
    data = written(realistic())
    plain = gzip.compress(gzip.decompress(data), 6)
    assert len(data) < 1.01 * len(plain)


def test_a_file_of_another_length_than_announced_is_refused() -> None:
    """Too long at once, too short at the next entry or the end."""
    writer = ArchiveWriter(io.BytesIO())
    writer.add(Entry("f", "file", 3))
    with pytest.raises(errors.CorruptContent):
        writer.write(b"1234")
    writer.write(b"12")
    for end in (writer.close, lambda: writer.add(Entry("g", "file", 0))):
        with pytest.raises(errors.CorruptContent):
            end()


def test_memory_does_not_grow_with_the_file() -> None:
    """48 MiB pass through less than four."""

    class Nowhere:
        def write(self, data: bytes) -> int:
            return len(data)

    piece = text(3, MIB)
    writer = ArchiveWriter(cast("BinaryIO", Nowhere()))
    writer.add(Entry("f", "file", 48 * MIB))
    writer.write(piece)
    tracemalloc.start()
    try:
        for _ in range(47):
            writer.write(piece)
        writer.close()
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


def test_the_index_of_a_pushed_archive_can_be_kept() -> None:
    """As any other's."""
    index, _, _ = unpacked(written(ENTRIES))
    assert archive_index.load(archive_index.dump(index)) == index
