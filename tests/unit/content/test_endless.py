"""Content that does not end, or goes on behind its end: an error that names the limit, and no more taken than that."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio

from artifactfs import errors
from artifactfs.content import filling
from artifactfs.content.block_store import BlockStore
from artifactfs.content.extents import BLOCK
from artifactfs.content.facts import Facts
from artifactfs.content.readahead import Pattern
from artifactfs.content.reader import ContentReader, pinned
from artifactfs.model.content import Access, ByteRange, ContentRef, Exact, Pointer, Unknown
from artifactfs.model.limits import AnswerLimits, Bounds
from artifactfs.providers.base import ContentStream

LIMITS = AnswerLimits(max_file_bytes=4 * BLOCK)
CHUNK = b"x" * 10_000
# What may have come before the stream is left: one chunk more than the limit.
MOST = 4 * BLOCK + len(CHUNK)


@dataclass
class Source:
    """Sends ``size`` bytes, for ever if it is None, and says that there are ``total``."""

    size: int | None = None
    total: int | None = None
    ranged: bool = False
    sent: int = 0
    left: bool = False

    @asynccontextmanager
    async def open(self, _ref: object, span: ByteRange) -> AsyncIterator[ContentStream]:
        offset = span.offset if self.ranged else 0
        end = self.size
        if self.ranged and span.length is not None and end is not None:
            end = min(end, offset + span.length)
        yield ContentStream(offset, self.total, self.ranged, self._chunks(offset, end))

    async def _chunks(self, at: int, end: int | None) -> AsyncIterator[bytes]:
        try:
            while end is None or at < end:
                await trio.lowlevel.checkpoint()
                chunk = CHUNK if end is None else CHUNK[: end - at]
                at += len(chunk)
                self.sent += len(chunk)
                yield chunk
        finally:
            self.left = True


Make = Any


@pytest.fixture
async def make(nursery: trio.Nursery, tmp_path: Path) -> Make:
    def made(source: Source) -> ContentReader:
        providers: Any = {"a": source}
        return ContentReader(
            nursery, BlockStore(tmp_path, 1 << 30, min_free=0), Facts(tmp_path / "facts.db"), providers,
            local_path=lambda ref: tmp_path / ref.key, fingerprints={"a": "print of a"}, limits=Bounds(answers=LIMITS),
        )  # fmt: skip

    return made


def reference(access: Access, size: int | None = None) -> ContentRef:
    return ContentRef("a", "key", ("x",), Unknown() if size is None else Exact(size), access)


@pytest.mark.parametrize("access", [Access.STREAMED, Access.RANGED])
async def test_content_that_never_ends_ends_at_its_limit(make: Make, access: Access) -> None:
    """Nothing is kept of it; asking for its size is an error in the same way."""
    source = Source()
    reader: ContentReader = make(source)
    with pytest.raises(errors.LimitExceeded, match=rf"limits\.max-file = {4 * BLOCK} bytes"):
        await reader.size(reference(access))
    assert source.sent <= (1 if access is Access.STREAMED else 2) * MOST + 4 * BLOCK
    assert source.left
    assert reader.store.get("print of a/key", 0) is None


@pytest.mark.parametrize("total", [None, 5 * BLOCK, 2**62])
async def test_a_pointer_to_what_never_ends_ends_at_its_limit(make: Make, total: int | None) -> None:
    """Of one that says its size nothing is asked for in vain."""
    source = Source(total=total)
    reader: ContentReader = make(source)
    with pytest.raises(errors.LimitExceeded, match=r"limits\.max-file"):
        await reader.pin(Pointer("a", "key", ("x",), Unknown()), 60)
    assert source.sent <= (MOST if total is None else 0)
    assert reader.pointer_fact(Pointer("a", "key", ("x",), Unknown())) is None


async def test_what_comes_by_ranges_may_be_larger(make: Make) -> None:
    """Its size is known, and nobody needs more of it at once than is asked for."""
    size = 9 * BLOCK + 5
    source = Source(size=size, total=size, ranged=True)
    reader: ContentReader = make(source)
    assert await reader.size(reference(Access.RANGED)) == size
    assert await reader.read(reference(Access.RANGED), 8 * BLOCK, BLOCK, Pattern()) == b"x" * BLOCK


async def test_a_stream_that_goes_on_behind_its_end_is_left_there(make: Make) -> None:
    """With a size known before, and no word of the server about it."""
    source = Source()
    reader: ContentReader = make(source)
    with pytest.raises(errors.CorruptContent, match=f"behind the {BLOCK + 7} bytes"):
        await reader.read(reference(Access.STREAMED, BLOCK + 7), BLOCK, 7, Pattern())
    assert source.sent <= BLOCK + 7 + len(CHUNK)


@pytest.mark.parametrize("held", [BLOCK, 4 * BLOCK])
@pytest.mark.parametrize("size", [None, 3 * BLOCK, 2 * BLOCK])
async def test_other_bytes_at_a_pinned_place_are_stale_however_many(
    make: Make, size: int | None, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was pinned is 2 blocks; no more than that of what stands there now is taken in."""
    monkeypatch.setattr(filling, "HELD", held)
    data = b"y" * (2 * BLOCK)
    source = Source(size=size)
    reader: ContentReader = make(source)
    pointer = Pointer("a", "key", ("x",), Unknown())
    fact = reader.facts.put_pointer("print of a/key", hashlib.sha256(data).hexdigest(), len(data))
    with pytest.raises(errors.StaleContent):
        await reader.read(pinned(pointer, fact), 0, 10, Pattern())
    assert source.sent <= 2 * BLOCK + len(CHUNK)


@pytest.mark.parametrize("held", [BLOCK, 4 * BLOCK])
async def test_pinned_content_that_was_evicted_comes_back_whole(
    make: Make, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By way of memory or, what is larger, of the disk; to all who wait."""
    monkeypatch.setattr(filling, "HELD", held)
    size = 3 * BLOCK + 5
    source = Source(size=size)
    reader: ContentReader = make(source)
    content, _ = await reader.pin(Pointer("a", "key", ("x",), Unknown()), 60)
    reader.store.cool(content.key)
    reader.store.drop(content.key)
    found: dict[int, bytes] = {}

    async def read(offset: int) -> None:
        found[offset] = await reader.read(content, offset, BLOCK, Pattern())

    async with trio.open_nursery() as tasks:
        for offset in (0, 2 * BLOCK, 3 * BLOCK):
            tasks.start_soon(read, offset)
    assert found == {0: b"x" * BLOCK, 2 * BLOCK: b"x" * BLOCK, 3 * BLOCK: b"x" * 5}
