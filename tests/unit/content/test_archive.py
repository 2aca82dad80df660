"""Archives while they arrive, when they break, and after their files were evicted."""

from __future__ import annotations

import gc
import io
import os
import random
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from artifactfs import errors
from artifactfs.content import fates, inflate_blocks
from artifactfs.content.archive_flight import ArchiveFlight
from artifactfs.content.block_store import BlockStore
from artifactfs.content.extents import count
from artifactfs.content.facts import Facts
from artifactfs.content.readahead import Pattern
from artifactfs.content.reader import ContentReader
from artifactfs.model.content import Access, ArchiveMember, ByteRange, ContentRef, Pointer, Unknown
from artifactfs.providers.base import ContentStream

KIB = 1024
needs_libz = pytest.mark.usefixtures("libz")


class Storage:
    """Serves one archive: counted, held up or cut where a test wants it, with or without ranges."""

    def __init__(self, data: bytes, *, ranged: bool = True) -> None:
        self.data = data
        self.ranged = ranged
        self.asked: list[tuple[int, int | None]] = []
        self.sent = 0
        self.hold_at: int | None = None
        self.go_on = trio.Event()
        self.cuts: list[int] = []
        self.stale_on_resume = False

    @asynccontextmanager
    async def open(self, ref: ContentRef | Pointer, span: ByteRange) -> AsyncIterator[ContentStream]:
        self.asked.append((span.offset, span.length))
        if self.stale_on_resume and span.offset:
            self.stale_on_resume = False
            raise errors.StaleContent
        begin = span.offset if self.ranged else 0
        end = len(self.data) if span.length is None or not self.ranged else begin + span.length
        yield ContentStream(begin, len(self.data), ranged=self.ranged, chunks=self._chunks(begin, end))

    async def _chunks(self, begin: int, end: int) -> AsyncIterator[bytes]:
        cut = self.cuts.pop(0) if self.cuts else None
        for at in range(begin, min(end, len(self.data)), 8 * KIB):
            await trio.lowlevel.checkpoint()
            if self.hold_at is not None and at >= self.hold_at:
                await self.go_on.wait()
            if cut is not None and at >= cut:
                message = "the connection broke"
                raise errors.Unavailable(message)
            piece = self.data[at : min(at + 8 * KIB, end)]
            self.sent += len(piece)
            yield piece


Make = Any


@pytest.fixture
async def make(nursery: trio.Nursery, tmp_path: Path) -> Make:
    def made(storage: Storage, *, fresh: bool = False) -> ContentReader:
        providers: Any = {"a": storage}
        return ContentReader(
            nursery, BlockStore(tmp_path, 1 << 30, min_free=0), Facts(tmp_path / "facts.db"), providers,
            local_path=lambda ref: tmp_path / ref.key, fingerprints={"a": "print"},
        )  # fmt: skip

    return made


def archive(key: str = "v1") -> ContentRef:
    return ContentRef("a", key, (), Unknown(), Access.RANGED)


def packed(files: list[tuple[str, bytes]] | Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in dict(files).items() if isinstance(files, Mapping) else files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def noise(seed: int, size: int) -> bytes:
    """Return what compresses a little, so that offsets in the archive follow those in the stream."""
    return random.Random(seed).randbytes(size // 2 + 1).hex().encode()[:size]


def tree(sizes: list[int]) -> dict[str, bytes]:
    return {f"f{number:03}": noise(number, size) for number, size in enumerate(sizes)}


async def contents(reader: ContentReader, key: str = "v1") -> dict[str, ArchiveMember]:
    index = await reader.index(archive(key))
    found = {member.path: reader.tree_member(archive(key), member).content for member in index.members}
    return {path: content for path, content in found.items() if isinstance(content, ArchiveMember)}


async def read(reader: ContentReader, content: ArchiveMember) -> bytes:
    return await reader.read(content, 0, content.length, Pattern())


def evict(reader: ContentReader, *contents: ArchiveMember) -> None:
    reader.store.flush()
    for content in contents:
        reader.store.cool(f"sha256:{content.sha256}")
        reader.store.drop(f"sha256:{content.sha256}")


async def early(reader: ContentReader, name: str) -> ArchiveMember | None:
    flight = await reader.arriving(archive())
    assert isinstance(flight, ArchiveFlight)
    member = await flight.child([], name)
    content = None if member is None else reader.tree_member(archive(), member, flight.number).content
    assert content is None or isinstance(content, ArchiveMember)
    return content


# -- while it arrives ------------------------------------------------------------------------------------------


async def test_a_file_is_read_before_the_next_one_has_come(make: Make) -> None:
    """Its name waits for its header, its bytes for themselves; the table of all waits for the end."""
    files = tree([300 * KIB, 40 * KIB, 500 * KIB])
    storage = Storage(packed(files))
    storage.hold_at = 230 * KIB
    reader = make(storage)
    with trio.fail_after(20):
        first = await early(reader, "f000")
        assert first is not None
        assert await read(reader, first) == files["f000"]
    with trio.move_on_after(0.2) as scope:
        await reader.index(archive())
    assert scope.cancelled_caught
    (row,) = reader.archives.progress()
    assert (row["total"], row["files"]) == (len(storage.data), 3)
    assert 0 < row["bytes"] < row["total"]
    storage.go_on.set()
    assert await read(reader, (await contents(reader))["f002"]) == files["f002"]
    assert await read(reader, first) == files["f000"]
    assert reader.archives.progress() == []
    assert storage.asked == [(0, None)]


async def test_only_the_end_says_that_a_name_is_absent(make: Make) -> None:
    """A name that has not come yet is waited for, whoever asks."""
    storage = Storage(packed(tree([10, 300 * KIB])))
    storage.hold_at = 100 * KIB
    reader = make(storage)
    with trio.move_on_after(0.2) as scope:
        await early(reader, "nothing")
    assert scope.cancelled_caught
    storage.go_on.set()
    assert await early(reader, "nothing") is None


async def test_what_was_served_early_of_a_damaged_archive_is_an_error_from_then_on(make: Make) -> None:
    """Who holds it open gets an error too, and nothing of it is left in the store."""
    files = tree([200 * KIB, 300 * KIB])
    data = bytearray(packed(files))
    data[-6] ^= 1
    storage = Storage(bytes(data))
    storage.hold_at = 200 * KIB
    reader = make(storage)
    first = await early(reader, "f000")
    assert first is not None
    assert await read(reader, first) == files["f000"]
    storage.go_on.set()
    with pytest.raises(errors.CorruptContent):
        await reader.index(archive())
    for ask in (read(reader, first), reader.size(first)):
        with pytest.raises(errors.CorruptContent):
            await ask
    assert reader.store.used_bytes() == 0


async def test_the_last_of_a_name_is_another_thing_than_the_first(make: Make) -> None:
    """What was shown of the first keeps reading the first; the table has the last, with a serial of its own."""
    storage = Storage(packed([("f", noise(1, 300 * KIB)), ("f", noise(2, 300 * KIB)), ("g", b"")]))
    storage.hold_at = 200 * KIB
    reader = make(storage)
    first = await early(reader, "f")
    assert first is not None
    storage.go_on.set()
    index = await reader.index(archive())
    last = (await contents(reader))["f"]
    assert [member.serial for member in index.members] == [1, 0]
    assert await read(reader, first) == noise(1, 300 * KIB)
    assert await read(reader, last) == noise(2, 300 * KIB)


async def test_equal_files_of_two_archives_are_kept_once(make: Make) -> None:
    """They are one content, named by its hash."""
    same, other = noise(1, 600 * KIB), noise(2, 100 * KIB)
    storage = Storage(packed({"a": same, "b": same, "c": other}))
    reader = make(storage)
    await contents(reader)
    await trio.to_thread.run_sync(reader.store.flush)
    assert reader.store.used_bytes() < 750 * KIB
    storage.data = packed({"moved": same})
    assert await read(reader, (await contents(reader, "v2"))["moved"]) == same
    await trio.to_thread.run_sync(reader.store.flush)
    assert reader.store.used_bytes() < 750 * KIB


# -- when it breaks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranged", [True, False])
async def test_a_broken_stream_goes_on_where_it_broke(make: Make, ranged: bool) -> None:
    """No byte is asked for twice where there are ranges; where not, what is known is passed over."""
    files = tree([300 * KIB] * 3)
    storage = Storage(packed(files), ranged=ranged)
    storage.cuts = [100 * KIB, 250 * KIB]
    reader = make(storage)
    found = {path: await read(reader, content) for path, content in (await contents(reader)).items()}
    assert found == files
    assert [offset for offset, _ in storage.asked] == [0, 104 * KIB, 256 * KIB]
    assert storage.sent == len(storage.data) or not ranged


async def test_an_archive_replaced_while_it_is_read_is_begun_anew(make: Make) -> None:
    """Nothing of the one is mixed with the other: what the first showed early is an error."""
    files = tree([300 * KIB, 200 * KIB])
    storage = Storage(packed(files))
    storage.cuts, storage.stale_on_resume = [200 * KIB], True
    reader = make(storage)
    first = await early(reader, "f000")
    found = await contents(reader)
    assert {path: await read(reader, content) for path, content in found.items()} == files
    assert [storage.asked[0], storage.asked[-1]] == [(0, None)] * 2
    assert first is not None
    with pytest.raises(errors.StaleContent):
        await read(reader, first)


async def test_a_stream_that_breaks_at_one_place_is_given_up(make: Make) -> None:
    """After some tries without a new byte the failure is the answer, and the next look tries again."""
    storage = Storage(packed(tree([300 * KIB])))
    storage.cuts = [100 * KIB] + [0] * 2
    reader = make(storage)
    with pytest.raises(errors.Unavailable):
        await reader.index(archive())
    assert len(storage.asked) == 3
    assert list(await contents(reader)) == ["f000"]


def in_memory() -> int:
    gc.collect()
    return sum(isinstance(found, ArchiveFlight) for found in gc.get_objects())


@pytest.mark.parametrize("data", [b"no archive", packed(tree([300 * KIB]))[:-6]], ids=["no archive", "cut short"])
@pytest.mark.parametrize("times", [1, 2])
async def test_what_failed_is_not_kept(make: Make, data: bytes, times: int) -> None:
    """Nor with its error, nor when the verdict is raised: a `find` over what cannot be read costs nothing for ever."""
    reader = make(Storage(data))
    before = in_memory()
    for number in range(20):
        for _ in range(times):
            with pytest.raises(errors.ArtifactFSError):
                await reader.index(archive(f"v{number}"))
    await trio.testing.wait_all_tasks_blocked()
    assert in_memory() == before


async def test_a_failing_service_leaves_nothing_in_memory(make: Make) -> None:
    """Also where something of the archive had been shown."""
    storage = Storage(packed(tree([200 * KIB, 300 * KIB])))
    reader = make(storage)
    before = in_memory()
    shown = []
    for _ in range(5):
        storage.cuts, storage.hold_at, storage.go_on = [200 * KIB, 0, 0], 190 * KIB, trio.Event()
        shown.append(await early(reader, "f000"))
        storage.go_on.set()
        with pytest.raises(errors.Unavailable):
            await reader.index(archive())
    await trio.testing.wait_all_tasks_blocked()
    assert in_memory() == before
    for member in shown:
        assert member is not None
        with pytest.raises(errors.Unavailable):
            await read(reader, member)


async def test_how_a_reading_ended_that_is_forgotten_is_an_error(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that came early are still in the store: nobody knows any more whether they are to be believed."""
    monkeypatch.setattr(fates, "REMEMBERED", 2)
    storage = Storage(packed(tree([200 * KIB, 300 * KIB])))
    reader = make(storage)
    shown = []
    for _ in range(3):
        storage.cuts, storage.hold_at, storage.go_on = [200 * KIB, 0, 0], 190 * KIB, trio.Event()
        shown.append(await early(reader, "f000"))
        assert shown[-1] is not None
        assert await read(reader, shown[-1])
        storage.go_on.set()
        with pytest.raises(errors.Unavailable):
            await reader.index(archive())
    assert shown[0] is not None
    for ask in (read(reader, shown[0]), reader.size(shown[0])):
        with pytest.raises(errors.StaleContent):
            await ask
    assert shown[2] is not None
    with pytest.raises(errors.Unavailable):
        await read(reader, shown[2])


async def test_what_ended_well_is_read_on_whatever_fails_beside_it(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has opened a file early reads it to its end."""
    monkeypatch.setattr(fates, "REMEMBERED", 2)
    files = tree([200 * KIB, 300 * KIB])
    storage = Storage(packed(files))
    storage.hold_at = 190 * KIB
    reader = make(storage)
    first = await early(reader, "f000")
    assert first is not None
    storage.go_on.set()
    await reader.index(archive())
    storage.data = b"no archive"
    for number in range(5):
        with pytest.raises(errors.CorruptContent):
            await reader.index(archive(f"bad{number}"))
    assert await read(reader, first) == files["f000"]


# -- after eviction --------------------------------------------------------------------------------------------


@needs_libz
async def test_an_evicted_file_comes_back_by_a_range(make: Make) -> None:
    """One request of about its own size; after a restart too, and without any for what is still here."""
    files = tree([200 * KIB] * 40)
    storage = Storage(packed(files))
    reader = make(storage)
    found = await contents(reader)
    evict(reader, *found.values())
    for some, path in ((reader, "f017"), (make(storage), "f031")):
        storage.asked.clear()
        before = storage.sent
        assert await read(some, found[path]) == files[path]
        ((begin, length),) = storage.asked
        assert begin > 0
        assert length is not None
        assert storage.sent - before < len(storage.data) / 4  # the worst case: noise, whose windows do not shrink
        assert await read(some, found[path]) == files[path]
        assert len(storage.asked) == 1


@needs_libz
async def test_files_asked_for_together_share_their_ranges(make: Make) -> None:
    """Neighbours that several readers miss at one moment are one request."""
    files = tree([200 * KIB] * 40)
    storage = Storage(packed(files))
    reader = make(storage)
    found = await contents(reader)
    evict(reader, *found.values())
    storage.asked.clear()
    got = {}

    async def one(path: str) -> None:
        got[path] = await read(reader, found[path])

    async with trio.open_nursery() as tasks:
        for path in ("f010", "f011", "f012", "f030"):
            tasks.start_soon(one, path)
    assert got == {path: files[path] for path in got}
    assert len(storage.asked) == 2


async def test_a_recursive_reader_gets_the_whole_stream_again(make: Make) -> None:
    """A few ranges, then one request for all that is left, not one a file."""
    files = tree([100 * KIB] * 60)
    storage = Storage(packed(files))
    reader = make(storage)
    found = await contents(reader)
    evict(reader, *found.values())
    storage.asked.clear()
    assert {path: await read(reader, content) for path, content in found.items()} == files
    assert len(storage.asked) <= 9
    assert (0, None) in storage.asked


async def test_without_ranges_the_whole_stream_comes_again(make: Make) -> None:
    """A server that answers 200 to a range costs that request and the whole."""
    files = tree([200 * KIB] * 10)
    storage = Storage(packed(files), ranged=False)
    reader = make(storage)
    found = await contents(reader)
    evict(reader, *found.values())
    assert await read(reader, found["f005"]) == files["f005"]
    assert len(storage.asked) <= 3
    await trio.testing.wait_all_tasks_blocked(0.05)  # the whole has arrived
    evict(reader, *found.values())
    asked = len(storage.asked)
    assert await read(reader, found["f006"]) == files["f006"]
    assert len(storage.asked) == asked + 1


async def test_where_libz_is_missing_the_whole_stream_comes_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """No restart points, the same bytes."""
    monkeypatch.setattr(inflate_blocks, "load", lambda: None)
    files = tree([200 * KIB] * 10)
    storage = Storage(packed(files))
    reader = make(storage)
    found = await contents(reader)
    evict(reader, *found.values())
    assert await read(reader, found["f005"]) == files["f005"]
    assert storage.asked == [(0, None)] * 2


async def test_an_archive_packed_anew_gives_its_files_all_the_same(make: Make) -> None:
    """Its compressed bytes are others, so ranges decode to nothing known; the whole has the same files."""
    files = tree([200 * KIB] * 20)
    storage = Storage(packed(files))
    reader = make(storage)
    found = await contents(reader)
    evict(reader, *found.values())
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    storage.data = out.getvalue()
    assert await read(reader, found["f013"]) == files["f013"]


async def test_an_archive_with_other_files_is_an_error_and_never_shown(make: Make) -> None:
    """The hash of the index decides, not the place in the archive."""
    files = tree([200 * KIB] * 20)
    storage = Storage(packed(files))
    reader = make(storage)
    found = await contents(reader)
    evict(reader, *found.values())
    storage.data = packed({path: noise(99, len(data)) for path, data in files.items()})
    with pytest.raises(errors.StaleContent):
        await read(reader, found["f013"])


async def test_reading_at_random_while_files_are_evicted(make: Make) -> None:
    """Whatever is here or not, each read gives the file's bytes."""
    rng = random.Random(3)
    files = tree([rng.choice([1, 5 * KIB, 90 * KIB, 256 * KIB, 300 * KIB, 700 * KIB]) for _ in range(30)])
    storage = Storage(packed(files))
    reader = make(storage)
    found = await contents(reader)

    async def reading(seed: int) -> None:
        mine = random.Random(seed)
        for _ in range(40):
            path = mine.choice(list(files))
            if mine.random() < 0.5:
                evict(reader, found[path])
            at, length = mine.randrange(len(files[path])), mine.randrange(1, 300 * KIB)
            assert await reader.read(found[path], at, length, Pattern()) == files[path][at : at + length]

    async with trio.open_nursery() as tasks:
        for seed in range(3):
            tasks.start_soon(reading, seed)


async def test_an_empty_file_needs_nothing(make: Make) -> None:
    """It has no block, and no request is made for one."""
    reader = make(Storage(packed({"a": b"", "b": os.urandom(10)})))
    found = await contents(reader)
    assert (found["a"].sha256, await read(reader, found["a"])) == (None, b"")
    assert count(found["b"].length) == 1
