"""Flights: one per block however many readers, whole or not at all."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from artifactfs import errors
from artifactfs.content.block_store import BlockStore
from artifactfs.content.extents import BLOCK, count
from artifactfs.content.facts import Facts
from artifactfs.content.fetcher import MAX_BREAKS, PROBE_BYTES, Fetcher
from artifactfs.content.filling import Cutter
from artifactfs.content.flight import HASHED
from artifactfs.content.readahead import RANGE, STREAMS
from artifactfs.model.content import Access, ByteRange, ContentRef, Exact, Size, Unknown
from artifactfs.providers.base import ContentStream
from artifactfs.providers.limits import Lane, background, in_line, lane

CHUNK = 50_000


@dataclass
class Server:
    """Bytes as a service would send them, badly if told so.

    Attributes:
        data: of the content.
        ranged: whether ranges are honoured.
        says_total: whether the answer says how long the whole is.
        announced: the total it says, if that is a lie.
        breaks: after how many bytes each of the next answers breaks.
        gate: what each answer waits for before its first byte.
        leave: what requests of the background wait for before they are sent.
        stall_after: after how many bytes of an answer nothing more comes.
        parts_unasked: whether it says "a part" also to who has asked for the whole.
        asked: the ranges that were asked for.
        lanes: the lanes they were asked for in.
        sent: bytes that went out.
    """

    data: bytes
    ranged: bool = True
    says_total: bool = True
    announced: int | None = None
    breaks: list[int] = field(default_factory=list)
    gate: trio.Event | None = None
    leave: trio.Event | None = None
    stall_after: int | None = None
    parts_unasked: bool = False
    asked: list[tuple[int, int | None]] = field(default_factory=list)
    lanes: list[Lane] = field(default_factory=list)
    sent: int = 0

    @asynccontextmanager
    async def open(self, ref: ContentRef, span: ByteRange) -> AsyncIterator[ContentStream]:
        self.asked.append((span.offset, span.length))
        self.lanes.append(lane.get())
        if self.leave is not None and lane.get() is Lane.BACKGROUND:
            with in_line():
                await self.leave.wait()
        if self.gate is not None:
            await self.gate.wait()
        offset = span.offset if self.ranged else 0
        end = len(self.data) if not self.ranged or span.length is None else min(len(self.data), offset + span.length)
        total = (len(self.data) if self.announced is None else self.announced) if self.says_total else None
        limit = self.breaks.pop(0) if self.breaks else None
        is_part = self.ranged and (self.parts_unasked or bool(offset) or span.length is not None)
        yield ContentStream(offset, total, is_part, self._chunks(offset, end, limit))

    async def _chunks(self, begin: int, end: int, limit: int | None) -> AsyncIterator[bytes]:
        for at in range(begin, end, CHUNK):
            if limit is not None and at - begin >= limit:
                raise errors.Unavailable("the connection broke")
            if self.stall_after is not None and at - begin >= self.stall_after:
                await trio.sleep_forever()
            await trio.lowlevel.checkpoint()
            chunk = self.data[at : min(end, at + CHUNK)]
            self.sent += len(chunk)
            yield chunk


def content(size: int) -> bytes:
    return b"".join(hashlib.sha256(at.to_bytes(4, "big")).digest() for at in range(size // 32 + 1))[:size]


def reference(size: Size | None = None, access: Access = Access.RANGED, sha256: str | None = None) -> ContentRef:
    return ContentRef("work", "key", (), size or Unknown(), access, sha256)


@dataclass
class World:
    nursery: trio.Nursery
    store: BlockStore
    facts: Facts

    def fetcher(self, server: Server, max_streams: int = STREAMS) -> Fetcher:
        return Fetcher(self.nursery, self.store, self.facts, server.open, lambda _source: max_streams)


@pytest.fixture
async def world(nursery: trio.Nursery, tmp_path: Path) -> World:
    return World(nursery, BlockStore(tmp_path, 1 << 30, min_free=0), Facts(tmp_path / "facts.db"))


async def whole(fetcher: Fetcher, ref: ContentRef) -> bytes:
    size = await fetcher.size(ref)
    return b"".join([await fetcher.block(ref, index) for index in range(count(size))])


SIZES = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, PROBE_BYTES, PROBE_BYTES + 1, 6 * BLOCK + 17]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("ranged", [True, False])
@pytest.mark.parametrize("access", [Access.RANGED, Access.STREAMED])
@pytest.mark.parametrize("known", [True, False])
async def test_every_byte_arrives(world: World, size: int, ranged: bool, access: Access, known: bool) -> None:
    """Any size, known or not, ranges honoured or not: all bytes in order, and again from the disk without asking."""
    server = Server(content(size), ranged=ranged)
    ref = reference(Exact(size) if known else None, access)
    assert await whole(world.fetcher(server), ref) == server.data
    asked = len(server.asked)
    await trio.testing.wait_all_tasks_blocked(0.05)
    world.store._hot.clear()
    assert await whole(world.fetcher(server), ref) == server.data
    assert len(server.asked) == asked


async def test_many_readers_of_a_block_are_one_request(world: World) -> None:
    """Readers who come while a block is on its way wait for it."""
    gate = trio.Event()
    server = Server(content(3 * BLOCK), gate=gate)
    fetcher, ref, got = world.fetcher(server), reference(Exact(3 * BLOCK)), []

    async def read() -> None:
        got.append(await fetcher.block(ref, 1))

    async with trio.open_nursery() as readers:
        for _ in range(5):
            readers.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert got == [server.data[BLOCK : 2 * BLOCK]] * 5
    assert server.asked == [(BLOCK, BLOCK)]


@pytest.mark.parametrize("says_total", [True, False])
async def test_asking_for_the_size_again_while_the_answer_is_taken_in_costs_nothing(
    world: World, says_total: bool
) -> None:
    """A stat and an open ask for one size a moment apart, also after the first block has come: one request."""
    server = Server(content(1000), ranged=says_total, says_total=says_total)
    fetcher, ref = world.fetcher(server), reference()
    kept = trio.Event()
    put = fetcher._filler._keep

    async def slowly(*args: object, **more: object) -> None:
        await put(*args, **more)  # type: ignore[arg-type]  # passed on as they are
        kept.set()
        await trio.sleep(0.1)

    fetcher._filler._keep = slowly  # type: ignore[method-assign]  # a disk that takes its time
    async with trio.open_nursery() as readers:
        readers.start_soon(fetcher.size, ref)
        await kept.wait()
        assert await fetcher.size(ref) == 1000
    assert len(server.asked) == 1


async def test_a_reader_who_goes_away_does_not_end_the_flight(world: World) -> None:
    """The reader who started it is cancelled; another one still gets the block, from the same request."""
    gate = trio.Event()
    server = Server(content(2 * BLOCK), gate=gate)
    fetcher, ref, got = world.fetcher(server), reference(Exact(2 * BLOCK)), []
    with trio.move_on_after(0.05) as first:
        await fetcher.block(ref, 0)
    assert first.cancelled_caught

    async def read() -> None:
        got.append(await fetcher.block(ref, 0))

    async with trio.open_nursery() as readers:
        readers.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert got == [server.data[:BLOCK]]
    assert len(server.asked) == 1


async def test_a_stream_that_breaks_is_resumed_where_it_was(world: World) -> None:
    """Blocks that came are not asked for again, and all is right in the end."""
    server = Server(content(8 * BLOCK), breaks=[3 * BLOCK, 2 * BLOCK])
    fetcher, ref = world.fetcher(server), reference(Exact(8 * BLOCK))
    fetcher.start(ref, range(8))
    got = [await fetcher.block(ref, index) for index in range(8)]
    assert b"".join(got) == server.data
    assert [offset // BLOCK for offset, _ in server.asked] == sorted({offset // BLOCK for offset, _ in server.asked})
    assert len(server.asked) == 3
    assert server.sent < 9 * BLOCK


async def test_a_stream_that_breaks_on_a_server_without_ranges_begins_again(world: World) -> None:
    """Where only the whole can be had, it is had again."""
    server = Server(content(4 * BLOCK + 9), ranged=False, breaks=[2 * BLOCK])
    assert await whole(world.fetcher(server), reference(access=Access.STREAMED)) == server.data
    assert len(server.asked) == 2


async def test_a_stream_that_never_gets_further_is_an_error(world: World) -> None:
    """After a few breaks without a new block the readers hear of it, and the next one tries afresh."""
    server = Server(content(2 * BLOCK), breaks=[1] * MAX_BREAKS)
    fetcher, ref = world.fetcher(server), reference(Exact(2 * BLOCK))
    with pytest.raises(errors.Unavailable):
        await fetcher.block(ref, 0)
    assert len(server.asked) == MAX_BREAKS
    assert await fetcher.block(ref, 0) == server.data[:BLOCK]


@pytest.mark.parametrize("announced", [3 * BLOCK - 1, 3 * BLOCK + 1])
async def test_a_length_that_is_not_what_it_should_be_is_corrupt(world: World, announced: int) -> None:
    """Other than expected: no reader gets a byte of it and nothing of it stays in the cache."""
    server = Server(content(3 * BLOCK), announced=announced)
    fetcher, ref = world.fetcher(server), reference(Exact(3 * BLOCK))
    with pytest.raises(errors.CorruptContent):
        await fetcher.block(ref, 0)
    assert world.store.present("key") == set()


async def test_a_body_shorter_than_announced_is_not_content(world: World) -> None:
    """The end that comes too soon is a break, and its last part is no block."""
    server = Server(content(BLOCK + 100), announced=BLOCK + 200)
    fetcher, ref = world.fetcher(server), reference()
    assert await fetcher.size(ref) == BLOCK + 200
    with pytest.raises(errors.Unavailable):
        await fetcher.block(ref, 1)
    assert world.store.present("key") <= {0}
    assert world.facts.sizes(["key"]) == {}


async def test_damage_that_shows_at_the_end_takes_back_what_was_kept(world: World) -> None:
    """An archive's checksum stands at its end: blocks kept on the way are forgotten, on disk and in memory."""

    @asynccontextmanager
    async def damaged(ref: ContentRef, span: ByteRange) -> AsyncIterator[ContentStream]:
        async def chunks() -> AsyncIterator[bytes]:
            yield content(3 * BLOCK)
            raise errors.CorruptContent("the checksum is wrong")

        yield ContentStream(0, None, ranged=False, chunks=chunks())

    fetcher = Fetcher(world.nursery, world.store, world.facts, damaged)
    with pytest.raises(errors.CorruptContent):
        await fetcher.whole(reference(access=Access.STREAMED))
    assert world.store.present("key") == set()
    assert all(world.store.get_nowait("key", index) is None for index in range(3))


@pytest.mark.parametrize("ranged", [True, False])
async def test_the_size_of_a_large_file_does_not_cost_the_file(world: World, ranged: bool) -> None:
    """Where the size alone is wanted the transfer stops after the first blocks, with or without ranges."""
    server = Server(content(64 << 20), ranged=ranged)
    fetcher = world.fetcher(server)
    assert await fetcher.size(reference()) == 64 << 20
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert server.sent <= 2 * PROBE_BYTES
    assert world.facts.sizes(["key"]) == {"key": 64 << 20}


async def test_a_server_that_says_no_size_is_read_to_its_end(world: World) -> None:
    """Without Content-Length the size is known when all has come, and is remembered."""
    server = Server(content(3 * BLOCK + 1), ranged=False, says_total=False)
    fetcher = world.fetcher(server)
    assert await fetcher.size(reference()) == 3 * BLOCK + 1
    assert await whole(fetcher, reference()) == server.data
    assert len(server.asked) == 1


async def test_a_reader_of_a_probe_that_ends_asks_for_the_rest(world: World) -> None:
    """A probe brings the first blocks; whoever wants more gets it."""
    server = Server(content(20 * BLOCK))
    fetcher, ref = world.fetcher(server), reference()
    assert await fetcher.size(ref) == 20 * BLOCK
    assert await fetcher.block(ref, 17) == server.data[17 * BLOCK : 18 * BLOCK]
    assert server.sent < 8 * BLOCK


async def test_content_named_by_its_hash_is_checked_before_anybody_sees_it(world: World) -> None:
    """Other bytes than the name says: stale, and not one of them is handed out or kept."""
    data = content(2 * BLOCK)
    named = reference(Exact(len(data)), Access.STREAMED, hashlib.sha256(data).hexdigest())
    assert await whole(world.fetcher(Server(data)), named) == data
    other = replace(named, key="other", sha256="0" * 64)
    with pytest.raises(errors.StaleContent):
        await world.fetcher(Server(data)).block(other, 0)
    assert world.store.present("other") == set()


async def test_a_disk_that_takes_nothing_does_not_stop_readers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk costs the cache, not the read."""
    monkeypatch.setattr(world.store, "put", lambda key, index, data: False)
    server = Server(content(5 * BLOCK))
    assert await whole(world.fetcher(server), reference(Exact(5 * BLOCK))) == server.data


async def test_nothing_is_left_in_the_air(world: World) -> None:
    """Flights that have landed are forgotten, also those that failed."""
    fetcher = world.fetcher(Server(content(BLOCK), breaks=[0] * MAX_BREAKS))
    with pytest.raises(errors.Unavailable):
        await fetcher.block(reference(Exact(BLOCK)), 0)
    await fetcher.block(reference(Exact(BLOCK)), 0)
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert repr(fetcher) == "<Fetcher 0 flights>"


# -- several streams ---------------------------------------------------------------------------------------------


async def read_all(fetcher: Fetcher, ref: ContentRef, blocks: int) -> bytes:
    return b"".join([await fetcher.block(ref, index) for index in range(blocks)])


async def test_a_long_run_comes_over_several_streams(world: World) -> None:
    """As ranges of a size that is worth a request, together the run, each byte once."""
    blocks = 4 * RANGE // BLOCK
    server = Server(content(blocks * BLOCK))
    fetcher, ref = world.fetcher(server), reference(Exact(blocks * BLOCK))
    fetcher.start(ref, range(blocks))
    fetcher.start(ref, range(blocks))  # what is on its way is not asked for again
    assert await read_all(fetcher, ref, blocks) == server.data
    assert sorted(server.asked) == [(at * RANGE, RANGE) for at in range(4)]


async def test_a_source_that_counts_its_requests_is_asked_for_large_ranges(world: World) -> None:
    """Of ten requests a minute one file must not take all."""
    blocks = 4 * RANGE // BLOCK
    server = Server(content(blocks * BLOCK))
    fetcher, ref = world.fetcher(server, max_streams=1), reference(Exact(blocks * BLOCK))
    fetcher.start(ref, range(blocks))
    assert await read_all(fetcher, ref, blocks) == server.data
    assert server.asked == [(0, blocks * BLOCK)]


async def test_what_is_here_is_left_out(world: World) -> None:
    """In memory, on disk, or on its way: only the gaps are asked for."""
    server = Server(content(12 * BLOCK))
    fetcher, ref = world.fetcher(server), reference(Exact(12 * BLOCK))
    for index in (0, 1, 5):
        await fetcher.block(ref, index)
    server.asked.clear()
    fetcher.start(ref, range(12))
    assert await read_all(fetcher, ref, 12) == server.data
    assert sorted(server.asked) == [(2 * BLOCK, 3 * BLOCK), (6 * BLOCK, 6 * BLOCK)]


async def test_a_block_is_served_before_its_range_is_whole(world: World) -> None:
    """The first byte does not wait for the last: the rest of the range never comes."""
    server = Server(content(8 * BLOCK), stall_after=2 * BLOCK)
    fetcher, ref = world.fetcher(server), reference(Exact(8 * BLOCK))
    fetcher.start(ref, range(8))
    with trio.fail_after(10):
        assert await fetcher.block(ref, 0) == server.data[:BLOCK]
    assert server.sent < 3 * BLOCK


async def test_ranges_that_are_ignored_become_one_stream(world: World) -> None:
    """Many asked at once, each is answered with the whole: one is read, the others are left."""
    blocks = 4 * RANGE // BLOCK
    gate = trio.Event()
    server = Server(content(blocks * BLOCK), ranged=False, gate=gate)
    fetcher, ref = world.fetcher(server), reference(Exact(blocks * BLOCK))
    fetcher.start(ref, range(blocks))
    await trio.testing.wait_all_tasks_blocked()
    gate.set()
    assert await read_all(fetcher, ref, blocks) == server.data
    assert len(server.asked) == 4
    assert server.sent == len(server.data)
    await fetcher.whole(replace(ref, key="other"))
    assert len(server.asked) == 5


@pytest.mark.parametrize("known", [True, False])
async def test_the_middle_of_a_file_without_ranges(world: World, known: bool) -> None:
    """Who asks for the middle first has the beginning too, for the one request."""
    server = Server(content(6 * BLOCK + 5), ranged=False)
    fetcher, ref = world.fetcher(server), reference(Exact(len(server.data)) if known else None)
    assert await fetcher.block(ref, 4) == server.data[4 * BLOCK : 5 * BLOCK]
    assert await whole(fetcher, ref) == server.data
    assert len(server.asked) == 1


@pytest.mark.parametrize("size", [PROBE_BYTES, PROBE_BYTES + 1, 3 * PROBE_BYTES])
async def test_ranges_of_a_size_that_nobody_says(world: World, size: int) -> None:
    """`Content-Range: bytes 0-9/*`: where a range does not tell the size, the whole does."""
    server = Server(content(size), says_total=False)
    fetcher, ref = world.fetcher(server), reference()
    assert await fetcher.size(ref) == size
    assert await whole(fetcher, ref) == server.data
    assert len(server.asked) <= 2
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert world.facts.sizes(["key"]) == {"key": size}


async def test_a_part_that_does_not_say_of_how_much_is_not_the_whole(world: World) -> None:
    """`bytes 0-9/*` in place of more, which HTTP allows: ten bytes would be shown as all there is."""
    server = Server(content(100), says_total=False, parts_unasked=True)
    fetcher, ref = world.fetcher(server), reference()
    with pytest.raises(errors.ProviderMisbehaved, match="nothing says of how much"):
        await fetcher.size(ref)
    assert server.asked == [(0, PROBE_BYTES), (0, None)]
    with pytest.raises(errors.ProviderMisbehaved):
        await fetcher.block(ref, 0)
    assert world.facts.sizes(["key"]) == {}


async def test_a_range_that_is_cut_goes_on_where_it_was(world: World) -> None:
    """The others are not touched."""
    blocks = 2 * RANGE // BLOCK
    server = Server(content(blocks * BLOCK), breaks=[3 * BLOCK])
    fetcher, ref = world.fetcher(server), reference(Exact(blocks * BLOCK))
    fetcher.start(ref, range(blocks))
    assert await read_all(fetcher, ref, blocks) == server.data
    assert len(server.asked) == 3
    assert server.sent <= len(server.data) + BLOCK


# -- lanes -------------------------------------------------------------------------------------------------------


async def test_a_reader_hurries_what_waits_in_the_background(world: World) -> None:
    """A prefetch that has not been sent yet goes to the front for who needs it now: one request, and no waiting."""
    server = Server(content(2 * BLOCK), leave=trio.Event())
    fetcher, ref = world.fetcher(server), reference(Exact(2 * BLOCK))
    with background():
        fetcher.start(ref, range(2))
    await trio.testing.wait_all_tasks_blocked()
    assert server.lanes == [Lane.BACKGROUND]
    with trio.fail_after(10):
        assert await fetcher.block(ref, 1) == server.data[BLOCK:]
    assert server.lanes == [Lane.BACKGROUND, Lane.FOREGROUND]
    assert server.sent == 2 * BLOCK


async def test_a_prefetch_hurried_before_it_began_is_asked_once(world: World) -> None:
    """Both in one breath: there is nothing to cancel yet."""
    server = Server(content(BLOCK), leave=trio.Event())
    fetcher, ref = world.fetcher(server), reference(Exact(BLOCK))
    with background():
        fetcher.start(ref, range(1))
    with trio.fail_after(10):
        assert await fetcher.block(ref, 0) == server.data
    assert server.lanes == [Lane.FOREGROUND]


async def test_what_is_sent_is_not_sent_again(world: World) -> None:
    """A request that waits for its answer is not helped by hurry."""
    gate = trio.Event()
    server = Server(content(BLOCK), gate=gate)
    fetcher, ref, got = world.fetcher(server), reference(Exact(BLOCK)), []
    with background():
        fetcher.start(ref, range(1))
    await trio.testing.wait_all_tasks_blocked()

    async def read() -> None:
        got.append(await fetcher.block(ref, 0))

    async with trio.open_nursery() as readers:
        readers.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert got == [server.data]
    assert server.lanes == [Lane.BACKGROUND]


async def test_one_in_the_background_hurries_nobody(world: World) -> None:
    """Another prefetch waits with the first; a stream that has begun is not asked for anew."""
    gate = trio.Event()
    server = Server(content(BLOCK), leave=gate)
    fetcher, ref, got = world.fetcher(server), reference(Exact(BLOCK)), []

    async def read() -> None:
        got.append(await fetcher.block(ref, 0))

    async with trio.open_nursery() as readers:
        with background():
            readers.start_soon(read)
            readers.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        gate.set()
    assert got == [server.data] * 2
    assert server.lanes == [Lane.BACKGROUND]


# -- hashes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, BLOCK, 5 * BLOCK + 3, HASHED, HASHED + 1])
@pytest.mark.parametrize("access", [Access.RANGED, Access.STREAMED])
async def test_what_came_whole_is_named_by_its_hash(
    world: World, size: int, access: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to a few MB, also if a stream broke in between; larger ones are not hashed."""
    named: list[tuple[str, str]] = []
    monkeypatch.setattr(world.store, "identify", lambda key, sha256: named.append((key, sha256)))
    server = Server(content(size), breaks=[2 * BLOCK])
    await world.fetcher(server).whole(reference(Exact(size), access))
    is_named = 0 < size <= HASHED
    assert named == ([("key", hashlib.sha256(server.data).hexdigest())] if is_named else [])


async def test_what_came_in_parts_is_not_named(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has seen all of it in order."""
    monkeypatch.setattr(world.store, "identify", lambda key, sha256: pytest.fail("named"))
    server = Server(content(3 * BLOCK))
    fetcher, ref = world.fetcher(server), reference(Exact(3 * BLOCK))
    for index in (2, 0, 1):
        await fetcher.block(ref, index)


@given(
    offset=st.integers(0, 3 * BLOCK), lengths=st.lists(st.integers(0, 3 * BLOCK), max_size=8),
    data=st.binary(min_size=9, max_size=9),
)  # fmt: skip
def test_blocks_are_cut_as_they_stand_in_the_content(offset: int, lengths: list[int], data: bytes) -> None:
    """Whatever the pieces: the whole blocks, in order, and the end."""
    whole_content = data * ((offset + sum(lengths)) // 9 + 1)
    cutter, at, found = Cutter(offset), offset, []
    for length in lengths:
        found += cutter.feed(whole_content[at : at + length])
        at += length
    end, rest = cutter.end()
    assert end == at
    if rest is not None:
        found.append((end // BLOCK, rest))
    assert [index for index, _ in found] == list(range(-(-offset // BLOCK), -(-offset // BLOCK) + len(found)))
    first = -(-offset // BLOCK) * BLOCK
    assert b"".join(block for _, block in found) == whole_content[first:at]
    assert all(len(block) == BLOCK for _, block in found[:-1])


async def test_another_size_than_the_settled_one_is_stale(world: World) -> None:
    """What an earlier mount has brought, and what is there now, are not put together; then the new content is had."""
    old, new = content(6 * BLOCK), content(7 * BLOCK)[::-1]
    ref = reference()
    first = world.fetcher(Server(old))
    assert (await first.size(ref), await first.block(ref, 0)) == (len(old), old[:BLOCK])
    await trio.testing.wait_all_tasks_blocked(0.05)
    again = world.fetcher(Server(new))
    assert (again.revision(ref.key), await again.size(ref), await again.block(ref, 0)) == (0, len(old), old[:BLOCK])
    with pytest.raises(errors.StaleContent):
        await again.block(ref, 5)
    assert again.revision(ref.key) > 0
    assert await whole(again, ref) == new
    assert world.facts.sizes([ref.key]) == {ref.key: len(new)}


async def test_what_is_in_the_air_of_a_replaced_content_is_not_kept(world: World) -> None:
    """A stream that began before is on its way still: not a block of it gets into what is there now."""
    old, new = content(4 * BLOCK), content(4 * BLOCK)[::-1]
    slow, gate, opened = Server(old), trio.Event(), trio.Event()
    answers = [slow, None, Server(new)]

    @asynccontextmanager
    async def open_next(ref: ContentRef, span: ByteRange) -> AsyncIterator[ContentStream]:
        server = answers.pop(0) if len(answers) > 1 else answers[0]
        if server is None:
            raise errors.StaleContent
        async with server.open(ref, span) as stream:
            if server is slow:
                opened.set()
                await gate.wait()
            yield stream

    fetcher = Fetcher(world.nursery, world.store, world.facts, open_next)
    ref, late = reference(Exact(4 * BLOCK)), list[Exception]()

    async def read_late() -> None:
        try:
            await fetcher.block(ref, 2)
        except errors.StaleContent as error:
            late.append(error)

    async with trio.open_nursery() as readers:
        readers.start_soon(read_late)
        await opened.wait()
        with pytest.raises(errors.StaleContent):
            await fetcher.block(ref, 0)
        gate.set()
    assert len(late) == 1
    assert await whole(fetcher, ref) == new
