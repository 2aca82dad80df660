"""The route from a reference to bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from artifactfs import errors
from artifactfs.content.archive import VERDICT_S
from artifactfs.content.block_store import BlockStore
from artifactfs.content.extents import BLOCK
from artifactfs.content.facts import Facts
from artifactfs.content.readahead import Pattern
from artifactfs.content.reader import OPEN_OBJECTS, ContentReader
from artifactfs.model.content import (
    Access,
    ArchiveMember,
    ByteRange,
    ContentRef,
    Exact,
    Inline,
    Pointer,
    Unknown,
)
from artifactfs.providers.base import ContentStream


class Service:
    """What a reader needs of a provider: bytes by key."""

    def __init__(self, **contents: bytes) -> None:
        self.contents = contents
        self.asked: list[str] = []
        self.gate = trio.Event()
        self.gate.set()

    @asynccontextmanager
    async def open(self, ref: ContentRef | Pointer, span: ByteRange) -> AsyncIterator[ContentStream]:
        self.asked.append(ref.locator[0])
        await self.gate.wait()
        data = self.contents[ref.locator[0]]

        async def chunks() -> AsyncIterator[bytes]:
            for at in range(0, len(data), 10_000):
                await trio.lowlevel.checkpoint()
                yield data[at : at + 10_000]

        yield ContentStream(0, len(data), ranged=False, chunks=chunks())


def forget(reader: ContentReader, member: Any) -> None:
    """Evict a file of an archive."""
    reader.store.cool(f"sha256:{member.sha256}")
    reader.store.drop(f"sha256:{member.sha256}")


Make = Any


@pytest.fixture
async def make(nursery: trio.Nursery, tmp_path: Path) -> Make:
    def made(**services: Service) -> ContentReader:
        providers: Any = services
        return ContentReader(
            nursery, BlockStore(tmp_path, 1 << 30, min_free=0), Facts(tmp_path / "facts.db"), providers,
            local_path=lambda ref: tmp_path / ref.key, fingerprints={name: f"print of {name}" for name in services},
        )  # fmt: skip

    return made


def pointer(source: str = "a", key: str = "id") -> Pointer:
    return Pointer(source, key, ("notes",), Unknown())


def reference(source: str = "a", key: str = "id", name: str = "notes") -> ContentRef:
    return ContentRef(source, key, (name,), Unknown(), Access.STREAMED)


def packed(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


async def test_pointers_of_two_sources_with_one_key_are_two_flights(make: Make) -> None:
    """Sources may repeat each other's ids: asked for at the same moment, each gets its own bytes."""
    a, b = Service(notes=b"of a"), Service(notes=b"other, of b")
    a.gate = b.gate = trio.Event()
    reader, found = make(a=a, b=b), {}

    async def pin(source: str) -> None:
        ref, _ = await reader.pin(pointer(source), 60)
        found[source] = await reader.read(ref, 0, 100, Pattern())

    async with trio.open_nursery() as tasks:
        for source in ("a", "b"):
            tasks.start_soon(pin, source)
        await trio.testing.wait_all_tasks_blocked()
        a.gate.set()
    assert found == {"a": b"of a", "b": b"other, of b"}


async def test_contents_of_two_sources_with_one_key_are_kept_apart(make: Make) -> None:
    """The cache outlives the configuration: the same key at another place is another content."""
    reader = make(a=Service(notes=b"of a"), b=Service(notes=b"other, of b"))
    for source, wanted in (("a", b"of a"), ("b", b"other, of b"), ("a", b"of a")):
        assert await reader.size(reference(source)) == len(wanted)
        assert await reader.read(reference(source), 0, 100, Pattern()) == wanted


async def test_a_pinned_pointer_stays_what_it_was(make: Make) -> None:
    """After a swap the pinned content still reads the old bytes, and a new pin the new ones, each whole."""
    old, new = b"old " * 100_000, b"newer " * 90_000
    service = Service(notes=old)
    reader = make(a=service)
    first, fact = await reader.pin(pointer(), 60)
    assert fact.changed_ns == 0
    service.contents["notes"] = new
    again, _ = await reader.pin(pointer(), 60)
    assert again == first
    second, fact = await reader.pin(pointer(), -1)
    assert fact.changed_ns > 0
    for ref, data in ((first, old), (second, new)):
        assert (await reader.size(ref), await reader.read(ref, 0, len(data), Pattern())) == (len(data), data)
    assert len(service.asked) == 2


async def test_a_pinned_content_that_was_evicted_and_swapped_is_stale(make: Make) -> None:
    """Its bytes are nowhere any more: an error, never the new bytes under the old name."""
    service = Service(notes=b"old bytes")
    reader = make(a=service)
    ref, _ = await reader.pin(pointer(), 60)
    service.contents["notes"] = b"new bytes"
    reader.store.drop(ref.key)
    reader.store.cool(ref.key)
    with pytest.raises(errors.StaleContent):
        await reader.read(ref, 0, 100, Pattern())


async def test_an_open_file_never_shows_what_replaced_its_content(make: Make) -> None:
    """Who had read of the old bytes is told, and so is who asked for nothing yet; a new handle reads the new bytes."""
    old, new = b"old " * BLOCK, b"newer" * BLOCK
    service = Service(notes=old)
    ref = reference()
    reader = make(a=service)
    assert await reader.settled(ref) == (0, len(old))
    mine, other, unread = (Pattern(revision=0) for _ in range(3))
    for pattern in (mine, other):
        assert await reader.read(ref, 0, 100, pattern) == old[:100]
    await trio.testing.wait_all_tasks_blocked(0.05)
    service.contents["notes"] = new
    reader.store.drop(reader.keyed(ref).key)
    reader.store.cool(reader.keyed(ref).key)
    for pattern in (mine, other, unread, mine):
        with pytest.raises(errors.StaleContent):
            await reader.read(ref, len(old) - 100, 100, pattern)
    revision, size = await reader.settled(ref)
    assert size == len(new)
    data = [await reader.read(ref, at, BLOCK, Pattern(revision=revision)) for at in range(0, size, BLOCK)]
    assert b"".join(data) == new


async def test_a_pointer_is_not_read_without_a_pin(make: Make) -> None:
    """Reading through a pointer could mix two contents."""
    with pytest.raises(errors.BadHandle):
        await make(a=Service(notes=b"x")).read(pointer(), 0, 1, Pattern())


async def test_an_archive_is_downloaded_once_for_all_of_its_files(make: Make) -> None:
    """The index and every file come from one download; a second reader, as on the next mount, needs none."""
    files = {f"d/{number}": os.urandom(300_000) for number in range(5)}
    service = Service(archive=packed(files))
    archive = reference(key="v1", name="archive")
    for _ in range(2):
        reader = make(a=service)
        async with trio.open_nursery() as tasks:
            for _ in range(3):
                tasks.start_soon(reader.index, archive)
        index = await reader.index(archive)
        found = {}
        for member in index.members:
            content = reader.tree_member(archive, member).content
            if isinstance(content, ArchiveMember):
                found[member.path] = await reader.read(content, 0, content.length + 50, Pattern())
        assert found == files
        reader.store.flush()
    assert service.asked == ["archive"]


async def test_an_archive_that_was_evicted_is_downloaded_again(make: Make) -> None:
    """The index is enough for names; the bytes come again when they are wanted."""
    service = Service(archive=packed({"a": b"alpha" * 1000, "b": b"beta"}))
    archive = reference(key="v1", name="archive")
    reader = make(a=service)
    index = await reader.index(archive)
    members = {member.path: reader.tree_member(archive, member).content for member in index.members}
    for name in ("a", "b"):
        forget(reader, members[name])
    assert await reader.read(members["b"], 0, 10, Pattern()) == b"beta"
    assert await reader.read(members["a"], 5, 5, Pattern()) == b"alpha"
    assert service.asked == ["archive"] * 2


@pytest.mark.parametrize("harm", ["cut", "flip", "html"])
async def test_a_damaged_archive_shows_nothing_and_leaves_nothing(
    make: Make, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No index is kept of it, nor blocks; the next look costs no download, and later, whole again, it is read."""
    good = packed({"a": os.urandom(700_000)})
    flipped = bytearray(good)
    flipped[-6] ^= 1  # the checksum behind the stream
    bad = {"cut": good[:-100], "flip": bytes(flipped), "html": b"<html>sorry</html>" * 20}[harm]
    service = Service(archive=bad)
    reader = make(a=service)
    archive = reference(key="v1", name="archive")
    for _ in range(2):
        with pytest.raises(errors.CorruptContent):
            await reader.index(archive)
    assert service.asked == ["archive"]
    assert reader.store.used_bytes() == 0
    service.contents["archive"] = good
    later = trio.current_time() + VERDICT_S
    monkeypatch.setattr(trio, "current_time", lambda: later)
    assert [member.path for member in (await reader.index(archive)).members] == ["a"]


async def test_a_bomb_stays_within_bounds(make: Make) -> None:
    """Gigabytes of zeros in kilobytes end at a limit, and what was unpacked until then is gone."""
    bomb = gzip.compress(bytes(300 << 20), 9)
    reader = make(a=Service(archive=bomb))
    with pytest.raises((errors.LimitExceeded, errors.CorruptContent)):
        await reader.index(reference(key="v1", name="archive"))
    assert reader.store.used_bytes() == 0


async def test_local_objects_are_read_through(make: Make, tmp_path: Path) -> None:
    """Content that is on this machine is not copied into the cache, and only so many files stay open."""
    reader = make(a=Service())
    before = len(os.listdir("/proc/self/fd"))
    for number in range(3 * OPEN_OBJECTS):
        (tmp_path / f"o{number}").write_bytes(b"%d" % number * 10)
        ref = ContentRef("a", f"o{number}", (), Exact(10), Access.LOCAL)
        assert await reader.read(ref, 0, 1, Pattern()) == b"%d" % number if number < 10 else True
        await reader.read(ref, 0, 5, Pattern())
    assert len(os.listdir("/proc/self/fd")) - before <= OPEN_OBJECTS + 5
    assert reader.store.used_bytes() == 0
    missing = ContentRef("a", "nowhere", (), Exact(10), Access.LOCAL)
    with pytest.raises(errors.CorruptContent):
        await reader.read(missing, 0, 5, Pattern())
    reader.close()
    assert len(os.listdir("/proc/self/fd")) <= before + 5


async def test_reads_at_the_end_and_behind_it(make: Make) -> None:
    """Fewer bytes than asked at the end, none behind it, for every kind of content."""
    data = hashlib.sha256(b"x").digest() * (BLOCK // 16)
    reader = make(a=Service(notes=data, archive=packed({"f": data})))
    archive = reference(key="v1", name="archive")
    index = await reader.index(archive)
    member = reader.tree_member(archive, index.members[0]).content
    pinned, _ = await reader.pin(pointer(), 60)
    for content in (reference(), pinned, Inline(data), member):
        assert await reader.read(content, len(data) - 3, 100, Pattern()) == data[-3:]
        assert await reader.read(content, len(data), 100, Pattern()) == b""
        assert await reader.read(content, len(data) + 5, 100, Pattern()) == b""
        assert await reader.read(content, BLOCK - 2, 4, Pattern()) == data[BLOCK - 2 : BLOCK + 2]


async def test_what_was_fetched_ahead_is_not_asked_for_again(make: Make) -> None:
    """Neither by who reads it nor by who fetches it ahead once more; the answer tells the bytes fetched."""
    service = Service(notes=b"x" * 1000)
    reader = make(a=service)
    assert await reader.prefetch(reference(), 1 << 20, 60) == 1000
    assert await reader.prefetch(reference(), 1 << 20, 60) == 0
    assert await reader.read(reference(), 0, 2000, Pattern()) == b"x" * 1000
    assert service.asked == ["notes"]


async def test_a_pointer_is_fetched_ahead_if_it_was_not_read_lately(make: Make) -> None:
    service = Service(notes=b"x" * 1000)
    reader = make(a=service)
    assert await reader.prefetch(pointer(), 1 << 20, 60) == 1000
    assert await reader.prefetch(pointer(), 1 << 20, 60) == 0
    assert await reader.prefetch(pointer(), 1 << 20, -1) == 1000
    assert service.asked == ["notes", "notes"]


async def test_of_what_only_comes_whole_nothing_large_is_fetched_ahead(make: Make) -> None:
    service = Service(notes=b"x" * 1000)
    reader = make(a=service)
    known = ContentRef("a", "id", ("notes",), Exact(1000), Access.STREAMED)
    assert await reader.prefetch(known, 999, 60) == 0
    assert not service.asked


async def test_what_needs_no_request_is_not_fetched_ahead(make: Make) -> None:
    reader = make(a=Service())
    local = ContentRef("a", "id", ("notes",), Exact(1000), Access.LOCAL)
    for content in (local, Inline(b"data"), ArchiveMember(local, 0, 10)):
        assert await reader.prefetch(content, 1 << 20, 60) == 0
