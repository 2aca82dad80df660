"""Reading content: the route from a reference to bytes.

Rules of this file: ``Access`` is matched here and nowhere else. A pointer is pinned before it is read: from then on
it is a ``ContentRef`` named by its SHA-256, and later swaps at the service do not reach an open file.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import assert_never

import trio
from cachetools import LRUCache

from artifactfs import errors
from artifactfs.concurrency import SingleFlight
from artifactfs.content import archive_index, readahead
from artifactfs.content.archive import Archives
from artifactfs.content.archive_flight import ArchiveFlight
from artifactfs.content.block_store import BlockStore
from artifactfs.content.extents import BLOCK, count, cover, cut
from artifactfs.content.facts import Facts, PointerFact
from artifactfs.content.fetcher import Fetcher
from artifactfs.content.whole import read_whole
from artifactfs.model.content import (
    Access,
    ArchiveMember,
    ByteRange,
    Content,
    ContentRef,
    Exact,
    Inline,
    Pointer,
)
from artifactfs.model.entry import TreeMember
from artifactfs.model.limits import DEFAULTS, Bounds
from artifactfs.providers.base import ContentStream, Draft, Provider
from artifactfs.providers.limits import background

# Objects of the built-in store that stay open between reads; each costs a descriptor.
OPEN_OBJECTS = 64
# Blocks asked for at once where a reader in order finds one missing that was planned before: 1 MiB, one small window.
LOST = 4


class _Descriptors(LRUCache[Path, int]):
    """Open files, closed when they fall out."""

    def popitem(self) -> tuple[Path, int]:
        path, fd = super().popitem()
        os.close(fd)
        return path, fd

    def of(self, ref: ContentRef, path: Path) -> int:
        """Return the descriptor of an object that is at ``path``."""
        fd: int | None = self.get(path)
        if fd is None:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError as error:
                message = "an object of the store is missing"
                raise errors.CorruptContent(message, provider=ref.source, subject=ref.key) from error
            self[path] = fd
        return fd


class ContentReader:
    """Reads every content of one mount."""

    def __init__(
        self,
        nursery: trio.Nursery,
        store: BlockStore,
        facts: Facts,
        providers: Mapping[str, Provider],
        *,
        local_path: Callable[[ContentRef], Path],
        fingerprints: Mapping[str, str],
        limits: Bounds = DEFAULTS,
    ) -> None:
        """Wire the route.

        ``local_path`` says where content lies that is already on this machine; ``fingerprints`` tell sources apart in a
        cache that outlives their configuration.
        """
        self.facts = facts
        self._prefixes = {name: f"{fingerprint}/" for name, fingerprint in fingerprints.items()}
        self.store = store
        self.nursery = nursery
        self.flights = SingleFlight(nursery)
        self._providers = providers
        self._local_path = local_path
        self._limits = limits.answers
        self.archives = Archives(nursery, store, facts, self._provider_stream, lambda: limits.archives)
        self.fetcher = Fetcher(nursery, store, facts, self._provider_stream, self._max_streams, limits.answers)
        self._open_objects = _Descriptors(OPEN_OBJECTS)

    def close(self) -> None:
        """Close what is open."""
        while self._open_objects:
            self._open_objects.popitem()

    def _provider_stream(
        self, ref: ContentRef | Pointer, span: ByteRange
    ) -> AbstractAsyncContextManager[ContentStream]:
        return self._providers[ref.source].open(ref, span)

    def _key(self, ref: ContentRef | Pointer) -> str:
        """Return the key of a content in a cache that other sources share."""
        prefix = self._prefixes[ref.source]
        return ref.key if ref.key.startswith((prefix, "sha256:")) else prefix + ref.key

    def keyed(self, ref: ContentRef) -> ContentRef:
        return replace(ref, key=self._key(ref))

    async def index(self, archive: ContentRef) -> archive_index.ArchiveIndex:
        """Return the table of an archive's files."""
        return await self.archives.index(self.keyed(archive))

    async def arriving(self, archive: ContentRef) -> ArchiveFlight | None:
        """Return the flight that brings an archive for the first time; None if its index is known."""
        return await self.archives.arriving(self.keyed(archive))

    def pointer_fact(self, pointer: Pointer) -> PointerFact | None:
        """Return what a pointer's bytes were when last read."""
        return self.facts.pointer(self._key(pointer))

    def tree_member(self, archive: ContentRef, member: archive_index.Member, flight: str = "") -> TreeMember:
        """Return a file, directory or symlink of an archive as the tree knows it.

        ``flight`` is the number of the flight that shows it before the archive has been read to its end.
        """
        content: Content | None = None
        size = member.size
        if member.inline is not None:
            content, size = Inline(member.inline), len(member.inline)
        elif member.kind == "file":
            content = ArchiveMember(self.keyed(archive), member.offset, member.size, member.sha256, flight)
        return TreeMember(
            member.path, member.kind, content, size, member.executable, member.mtime_ns, member.target, member.serial
        )  # fmt: skip

    async def pin(self, pointer: Pointer, max_age_s: float) -> tuple[ContentRef, PointerFact]:
        """Name what a pointer points to now, read at most ``max_age_s`` seconds ago."""
        fact = self.pointer_fact(pointer)
        if fact is None or time.time() - fact.checked_at > max_age_s:
            # By the whole key: two sources may repeat each other's ids and hold other bytes.
            fact = await self.flights.run(("pin", self._key(pointer)), lambda: self._read_pointer(pointer))
        return pinned(pointer, fact), fact

    async def _read_pointer(self, pointer: Pointer) -> PointerFact:
        """Keep what a pointer points to, under a name of its own until its hash is known."""
        key = f"{self._key(pointer)}#{secrets.token_hex(8)}"
        opened = self._provider_stream(pointer, ByteRange(0, None))
        sha256, size = await read_whole(opened, self.store, key, self._limits)
        self.store.identify(key, sha256, keep_name=False)
        return self.facts.put_pointer(self._key(pointer), sha256, size)

    async def adopt(self, content: Content, draft: Draft) -> None:
        """Keep the bytes of a draft as those of a content that was made of them.

        Raises:
            OSError: the draft cannot be read.
        """
        match content:
            case Pointer():
                key = f"{self._key(content)}#{secrets.token_hex(8)}"
            case ContentRef(access=Access.RANGED | Access.STREAMED):
                key = self._key(content)
            case _:
                return
        for index in range(count(draft.size)):
            data = await trio.to_thread.run_sync(_block_of, draft.path, index)
            self.store.write(key, index, data)
            await self.store.room()
        self.store.identify(key, draft.sha256, keep_name=not isinstance(content, Pointer))
        if isinstance(content, Pointer):
            self.facts.put_pointer(self._key(content), draft.sha256, draft.size, changed_ns=draft.mtime_ns)
        else:
            self.facts.put_size(key, draft.size)

    async def size(self, content: Content) -> int:
        """Return the size of a content in bytes, asking for it if nobody knows; a pointer's is that last read."""
        match content:
            case Inline(data):
                return len(data)
            case ArchiveMember(_, _, length):
                self.archives.key(content)  # an error if the archive has turned out to be damaged
                return length
            case ContentRef():
                return await self.fetcher.size(self.keyed(content))
            case Pointer():
                _, fact = await self.pin(content, float("inf"))
                return fact.size
            case _:
                assert_never(content)

    async def settled(self, content: Content) -> tuple[int, int]:
        """Return of which of its revisions a content is, asked first: it may be replaced meanwhile; and its size."""
        return self.revision(content), await self.size(content)

    async def prefetch(self, content: Content, max_bytes: int, max_age_s: float) -> int:
        """See that the first ``max_bytes`` of a content are here; return how many bytes were fetched for it.

        A pointer is read whole, unless it was at most ``max_age_s`` seconds ago. Content that only comes whole and is
        larger is left alone.
        """
        match content:
            case Pointer():
                before = self.pointer_fact(content)
                _, fact = await self.pin(content, max_age_s)
                return 0 if before is not None and before.checked_at == fact.checked_at else fact.size
            case ContentRef(access=Access.RANGED | Access.STREAMED):
                return await self._prefetch_ref(self.keyed(content), max_bytes)
            case _:
                return 0

    async def _prefetch_ref(self, ref: ContentRef, max_bytes: int) -> int:
        # Looked at before the size is asked for, which may bring the first blocks.
        here = {index for index in range(count(max_bytes)) if self.store.get_nowait(ref.key, index) is not None}
        here |= self.store.present(ref.key)
        size = await self.fetcher.size(ref)
        wanted = range(count(min(size, max_bytes)))
        missing = [index for index in wanted if index not in here]
        if not missing or (ref.access is Access.STREAMED and size > max_bytes):
            return 0
        self.fetcher.start(ref, wanted)
        for index in missing:
            await self.fetcher.block(ref, index)
        return sum(min(size - index * BLOCK, BLOCK) for index in missing)

    async def read(self, content: Content, offset: int, length: int, pattern: readahead.Pattern) -> bytes:
        """Return up to ``length`` bytes from ``offset``; fewer only at the end."""
        match content:
            case Inline(data):
                return data[offset : offset + length]
            case ArchiveMember():
                return await self._read_member(content, offset, min(length, content.length - offset))
            case Pointer():
                message = "a pointer must be pinned before it is read"
                raise errors.BadHandle(message)
            case ContentRef():
                return await self._read_ref(content, offset, length, pattern)
            case _:
                assert_never(content)

    async def _read_member(self, member: ArchiveMember, offset: int, length: int) -> bytes:
        """Return bytes of a file in an archive; what is missing comes as a whole file, so nothing is fetched ahead."""
        key = self.archives.key(member)
        parts = []
        for number in cover(offset, length):
            block = self.store.get_nowait(key, number) or await self.archives.block(member, number)
            parts.append(cut(number, block, offset, length))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _read_ref(self, ref: ContentRef, offset: int, length: int, pattern: readahead.Pattern) -> bytes:
        match ref.access:
            case Access.LOCAL:
                return os.pread(self._open_objects.of(ref, self._local_path(ref)), length, offset)
            case Access.RANGED | Access.STREAMED:
                ref = self.keyed(ref)
                self.fetcher.check_revision(ref, pattern)
                end = await self.fetcher.size(ref)
                data = await self._read_blocks(ref, offset, min(length, end - offset), end, pattern)
                self.fetcher.check_revision(ref, pattern)
                return data
            case _:
                assert_never(ref.access)

    def revision(self, content: Content | None) -> int:
        """Return which of the bytes that the service had there is shown now; 0 unless they were replaced."""
        return self.fetcher.revision(self._key(content)) if isinstance(content, ContentRef) else 0

    async def _read_blocks(
        self, ref: ContentRef, offset: int, length: int, end: int, pattern: readahead.Pattern
    ) -> bytes:
        """Return bytes of a content that ends at ``end``, fetching ahead as the pattern of reads deserves."""
        if length <= 0:
            return b""
        wanted = cover(offset, length)
        ahead = readahead.plan(pattern, offset, length, end, self.fetcher.pace(ref.source).largest)
        if ahead:
            blocks = cover(ahead.start, len(ahead))
            if len(blocks) > 1:  # a single one is looked for below
                self.fetcher.start(ref, blocks)
        parts = []
        for index in wanted:
            block = self.store.get_nowait(ref.key, index)
            if block is None:
                block = await self.fetcher.block(ref, index, partial(self._note_miss, ref, index, end, pattern))
            parts.append(cut(index, block, offset, length))
        data = b"".join(parts)
        if len(data) != length:
            message = f"{len(data)} bytes are here where {length} should be"
            raise errors.CorruptContent(message, provider=ref.source, subject=ref.key)
        return data

    def _note_miss(self, ref: ContentRef, index: int, end: int, pattern: readahead.Pattern) -> None:
        """Fetch what a reader will want beside the block that it waits for now."""
        pattern.waited = True
        if pattern.in_order:
            # Planned before, but gone from a cache that is too small, or never come.
            lost = range(index, min(index + LOST, count(pattern.fetched_to)))
            if len(lost) > 1:
                self.fetcher.start(ref, lost)
            return
        pattern.misses += 1
        if pattern.misses == readahead.MISSES and end <= readahead.PROMOTED:
            with background():
                self.fetcher.start(ref, range(count(end)))

    def _max_streams(self, source: str) -> int:
        """Return how many requests at once a source can spare for one file: a quarter of what it may still be sent."""
        left = self._providers[source].describe().get("requests_left")
        return readahead.STREAMS if left is None else max(1, int(left) // 4)


def _block_of(path: Path, index: int) -> bytes:
    with path.open("rb") as file:
        return os.pread(file.fileno(), BLOCK, index * BLOCK)


def pinned(pointer: Pointer, fact: PointerFact) -> ContentRef:
    """Return the bytes that a pointer pointed to when that was found, whatever it points to now."""
    key = f"sha256:{fact.sha256}"
    return ContentRef(pointer.source, key, pointer.locator, Exact(fact.size), Access.STREAMED, fact.sha256)
