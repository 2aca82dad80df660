"""Restart points: read from within an archive what was packed, whatever packed it, and stay small."""

from __future__ import annotations

import gzip
import io
import random
import tarfile
import zlib
from collections.abc import Iterator

import pytest

from artifactfs.content import inflate_blocks
from artifactfs.content.archive_cutter import Batch, Cutter, Unpacker
from artifactfs.content.archive_index import ArchiveIndex, GrowingTree, dump
from artifactfs.content.gunzip import Gunzip
from artifactfs.content.inflate_blocks import Border
from artifactfs.content.refetch_plan import MERGE, SUCCESSION, Misses, runs
from artifactfs.content.restart import Point, Restarted, RestartMap
from artifactfs.errors import CorruptContent, StaleContent
from artifactfs.model.content import Access, ArchiveMember, ContentRef, Unknown
from artifactfs.model.limits import Limits

LIMITS = Limits()
MIB = 1 << 20
ARCHIVE = ContentRef("a", "v1", ("x",), Unknown(), Access.RANGED)

needs_libz = pytest.mark.usefixtures("libz")


def text(seed: int, size: int) -> bytes:
    """Return something that compresses as text and code do, to about a third, with references far back."""
    rng = random.Random(seed)
    words = [rng.randbytes(rng.randint(1, 6)).hex() for _ in range(2000)]
    out = io.BytesIO()
    while out.tell() < size:
        out.write((" ".join(rng.choices(words, k=200)) + "\n").encode())
    return out.getvalue()[:size]


def borders_of(data: bytes) -> tuple[list[Border], bytes]:
    inflater = inflate_blocks.make()
    assert inflater is not None
    gunzip = Gunzip(LIMITS, inflater.begin)
    raw = b"".join(gunzip.feed(data))
    gunzip.close()
    return inflater.borders, raw


def restarted(border: Border, data: bytes, step: int) -> bytes:
    decoder = Restarted(Point(border.begin, border.bit, border.out, 0, 0), border.window, LIMITS)
    return b"".join(p for at in range(0, len(data), step) for p in decoder.feed(data[at : at + step]))


@needs_libz
@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_every_border_is_a_place_to_begin(level: int) -> None:
    """At whatever bit a block begins, with stored blocks too, and on over the next gzip members."""
    raw = text(level, 4 * MIB)
    data = gzip.compress(raw[:MIB], level) + gzip.compress(raw[MIB : 3 * MIB], level) + gzip.compress(raw[3 * MIB :])
    borders, whole = borders_of(data)
    assert whole == raw
    assert level == 0 or {border.bit for border in borders} == set(range(8))
    for border in borders[:: max(1, len(borders) // 40)]:
        assert restarted(border, data[border.begin :], 70_001) == raw[border.out :]
    border = borders[len(borders) // 2]
    assert restarted(border, data[border.begin : border.begin + 3000], 1) in raw


@needs_libz
def test_a_stream_of_empty_blocks_is_not_mapped_block_by_block() -> None:
    """A hostile stream has thousands of borders in a kilobyte; one in 16 KiB is enough."""
    packer = zlib.compressobj(wbits=31)
    data = b"".join(packer.flush(zlib.Z_FULL_FLUSH) for _ in range(200_000)) + packer.compress(b"x") + packer.flush()
    borders, raw = borders_of(data)
    assert raw == b"x"
    assert len(borders) <= len(data) // inflate_blocks.MAP_STEP + 2


@needs_libz
def test_every_full_flush_is_a_place_to_begin() -> None:
    """Also right behind another border; what looks like a flush and is none does no harm."""
    packer, data, places = zlib.compressobj(6, wbits=31), b"", []
    for number in range(40):
        data += packer.compress(text(number, 50_000)) + packer.flush(zlib.Z_FULL_FLUSH)
        places.append(50_000 * (number + 1))
    stored = zlib.compressobj(0, wbits=31)
    data += packer.flush() + stored.compress(inflate_blocks.FLUSH * 50_000) + stored.flush()
    for step in (len(data), 1000):
        inflater = inflate_blocks.make()
        assert inflater is not None
        gunzip = Gunzip(LIMITS, inflater.begin)
        raw = b"".join(p for at in range(0, len(data), step) for p in gunzip.feed(data[at : at + step]))
        gunzip.close()
        borders = {border.out: border for border in inflater.borders}
        # One whose four bytes come in two pieces is not seen.
        assert sum(place in borders for place in places) >= (40 if step > 1000 else 38)
        for border in inflater.borders[:: max(1, len(borders) // 20)]:
            window = bytes(len(border.window)) if border.out in places else border.window
            decoder = Restarted(Point(border.begin, border.bit, border.out, 0, 0), window, LIMITS)
            assert b"".join(decoder.feed(data[border.begin :])) == raw[border.out :]


def packed(files: dict[str, bytes], level: int = 6) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=level) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def unpacked(data: bytes) -> tuple[ArchiveIndex, RestartMap, bytes]:
    unpacker, tree, windows = Unpacker(LIMITS), GrowingTree(LIMITS), b""
    for at in range(0, len(data), 100_000):
        for batch in unpacker.feed(data[at : at + 100_000]):
            for raw in batch.members:
                tree.apply(raw)
            windows += b"".join(batch.windows)
    index, points, last = unpacker.finish(tree, "windows")
    return index, points, windows + b"".join(last)


def realistic() -> dict[str, bytes]:
    """Sizes as measured on archives of agents' outputs: most files small, most bytes in a few."""
    rng = random.Random(7)
    sizes = [rng.choice([500, 3000, 12_000, 40_000]) for _ in range(160)] + [
        rng.randint(70_000, 900_000) for _ in range(40)
    ]
    rng.shuffle(sizes)
    return {f"d{number % 7}/{number}.txt": text(number, size) for number, size in enumerate(sizes)}


@needs_libz
def test_index_and_points_take_one_hundredth_of_an_archive() -> None:
    """Names, hashes, windows and block map together, on a realistic archive; and every large file is reached."""
    data = packed(realistic())
    index, points, windows = unpacked(data)
    kept = len(dump(index)) + len(points.dump()) + len(windows)
    assert kept <= len(data) * 0.01 + 20_000, (kept, len(data))  # 200 names and hashes are 10 KB in any archive
    assert len(windows) + len(points.dump()) <= len(data) * 0.01
    assert len(points) > 3
    again = RestartMap.load(points.dump())
    assert again == points
    with pytest.raises(CorruptContent):
        RestartMap.load(b"AFSPTS1\nnot so")


def ranged(
    data: bytes, points: RestartMap, windows: bytes, members: list[ArchiveMember]
) -> Iterator[tuple[int, Batch]]:
    for run in runs(points, members) or ():
        cutter = Cutter({m.offset: m.sha256 or "" for m in run.members})
        for member in run.members:
            cutter.expect(member.offset, member.length)
        packed_window = windows[run.point.at : run.point.at + run.point.length]
        decoder = Restarted(run.point, zlib.decompress(packed_window) if packed_window else b"", LIMITS)
        position, batch = run.point.out, Batch()
        for piece in decoder.feed(data[run.point.begin : run.end]):
            cutter.cut(position, piece, batch)
            position += len(piece)
        yield run.end - run.point.begin, batch


@needs_libz
def test_a_planned_range_holds_the_whole_file() -> None:
    """Each file alone, and all of them in one plan: the planned bytes decode to exactly the files."""
    files = realistic()
    data = packed(files)
    index, points, windows = unpacked(data)
    members = [ArchiveMember(ARCHIVE, m.offset, m.size, m.sha256) for m in index.members if m.sha256]
    assert len(members) == len(files)
    for member in members:
        cost, batch = next(ranged(data, points, windows, [member]))
        assert [end.sha256 for end in batch.ends] == [member.sha256]
        assert cost <= len(data)
    ends = [end for _, batch in ranged(data, points, windows, members) for end in batch.ends]
    assert {end.sha256 for end in ends} == {m.sha256 for m in members}


def test_ranges_near_each_other_become_one() -> None:
    """Closer than a request is worth: one range; farther: two; and none if there is no point to begin at."""
    points = RestartMap(size=10 * MIB)
    for number in range(10):
        for name, value in {"begin": number * MIB, "bit": 0, "out": 3 * number * MIB, "at": 0, "length": 0}.items():
            points.points[name].append(value)
    for number in range(160):
        points.ends_in.append(number * 64 * 1024)
        points.ends_out.append(3 * number * 64 * 1024)
    near = [ArchiveMember(ARCHIVE, 3 * MIB, 3 * MIB - 3 * 64 * 1024, "a"), ArchiveMember(ARCHIVE, 6 * MIB, 10, "b")]
    joined = runs(points, near) or []
    assert [len(run.members) for run in joined] == [2]
    assert MERGE >= 64 * 1024
    far = [near[0], ArchiveMember(ARCHIVE, 9 * MIB, 10, "c")]
    assert len(runs(points, far) or ()) == 2
    assert runs(RestartMap(size=5), near) is None


def test_the_whole_is_read_when_it_is_cheaper() -> None:
    """Over half of the bytes, or one file after the other; not for a few here and there, nor after a pause."""
    points = RestartMap(size=100 * MIB)
    for number in range(100):
        for name, value in {"begin": number * MIB, "bit": 0, "out": number * MIB, "at": 0, "length": 0}.items():
            points.points[name].append(value)
        points.ends_in.append(number * MIB)
        points.ends_out.append(number * MIB)

    def miss(misses: Misses, number: int, now: float, size: int = MIB) -> bool:
        member = ArchiveMember(ARCHIVE, number * MIB, size, "a")
        return misses.whole_is_cheaper(now, member, points, rank=number * 300)

    scattered = Misses()
    assert not any(miss(scattered, (37 * number) % 100, 0.0) for number in range(40))
    assert any(miss(scattered, (37 * number) % 100, 0.0) for number in range(40, 60))
    assert miss(Misses(), 1, 0.0, 60 * MIB)

    def succession(pause_s: float) -> bool:
        misses = Misses()
        members = (ArchiveMember(ARCHIVE, number * MIB, 10, "a") for number in range(SUCCESSION))
        return [misses.whole_is_cheaper(n * pause_s, m, points, rank=n) for n, m in enumerate(members)][-1]

    assert succession(0.1)
    assert not succession(60.0)


def test_a_file_that_is_not_what_it_was_is_not_handed_out() -> None:
    """With its hash known, no block of it is given before the hash has been compared."""
    cutter, batch = Cutter({512: "0" * 64}), Batch()
    cutter.expect(512, 700_000)
    cutter.cut(512, bytes(600_000), batch)
    assert batch.blocks == []
    with pytest.raises(StaleContent):
        cutter.cut(600_512, bytes(100_000), batch)
    assert batch.blocks == []
