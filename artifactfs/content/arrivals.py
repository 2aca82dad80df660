"""Blocks of an archive's files on their way, and who waits for them.

Rules of this file: a block is handed to its waiters and then forgotten; it is in the block store by then, under a key
that is this flight's own until the file is whole and has a hash. Who waits is never left waiting: a block that has
passed, or a flight that has landed, ends it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from artifactfs.content.archive_cutter import HELD, Batch
from artifactfs.content.block_store import BlockStore
from artifactfs.content.extents import BLOCK
from artifactfs.content.fates import bare
from artifactfs.content.restart import MIN_FILE
from artifactfs.model.content import ArchiveMember, ContentRef

# Small files of known archives are evicted last: 2 % of the bytes, and most of what is looked at (measured).
ARCHIVE_RANK: Final = "archive"


@dataclass(slots=True)
class _Wait:
    stop: int
    event: trio.Event = field(default_factory=trio.Event)
    data: bytes | None = None
    waiters: int = 0


class Arrivals:
    """What a flight brings: files by their offset in the decompressed stream, blocks by their number in the file."""

    def __init__(self, archive: ContentRef, store: BlockStore, *, verifies: bool) -> None:
        """Begin with nothing here; ``verifies`` if small files are held back until their hash has been compared."""
        self.archive = archive
        self.number = secrets.token_hex(6)
        self.position = 0
        self.error: Exception | None = None
        self.landed = trio.Event()
        self.store = store
        self._verifies = verifies
        self._waits: dict[tuple[int, int], _Wait] = {}
        self._written: list[str] = []

    def key(self, offset: int) -> str:
        """Return the key that a file has until its hash is known, and as another name after that."""
        return key_of(self.archive, self.number, offset)

    def take(self, batch: Batch) -> None:
        """Keep what has arrived and give it to those who wait for it."""
        for offset, number, data in batch.blocks:
            key = self.key(offset)
            if number == 0:
                self._written.append(key)
            self.store.write(key, number, data)
            wait = self._waits.get((offset, number))
            if wait is not None:
                wait.data = data
                wait.event.set()
        for end in batch.ends:
            self.store.identify(self.key(end.offset), end.sha256)
            if end.size <= MIN_FILE:
                self.store.pin(f"sha256:{end.sha256}", ARCHIVE_RANK)
        self.position = batch.position
        for wait in self._waits.values():
            if wait.stop <= batch.position:
                wait.event.set()

    async def forget(self) -> None:
        """Forget all that was written: it is not to be believed."""

        def drop(keys: Sequence[str]) -> None:
            for key in keys:
                self.store.drop(key)

        for key in self._written:
            self.store.cool(key)
        await trio.to_thread.run_sync(drop, self._written)

    def land(self, error: Exception | None) -> None:
        """End it."""
        self.error = error
        self.landed.set()
        for wait in self._waits.values():
            wait.event.set()

    def check(self) -> None:
        """Raise what it failed for, if it did.

        Raises:
            ArtifactFSError: that.
        """
        if self.error is not None:
            raise bare(self.error)

    def _stop_of(self, member: ArchiveMember, number: int) -> int:
        """Return how far the stream is when a block of a file is here."""
        end = member.offset + member.length
        held = self._verifies and member.length <= HELD
        return end if held else min(end, member.offset + (number + 1) * BLOCK)

    def is_to_come(self, member: ArchiveMember, number: int) -> bool:
        """Tell whether a block has not passed yet."""
        return not self.landed.is_set() and self._stop_of(member, number) > self.position

    async def block(self, member: ArchiveMember, number: int) -> bytes | None:
        """Wait for a block; None if it has passed, or the flight ended without it and without an error.

        Raises:
            ArtifactFSError: what the flight failed for.
        """
        if not self.is_to_come(member, number):
            self.check()
            return None
        wait = self._waits.setdefault((member.offset, number), _Wait(self._stop_of(member, number)))
        wait.waiters += 1
        try:
            await wait.event.wait()
        finally:
            wait.waiters -= 1
            if not wait.waiters:
                self._waits.pop((member.offset, number), None)
        if wait.data is None:
            self.check()
        return wait.data


def key_of(archive: ContentRef, number: str, offset: int) -> str:
    """Return the key of a file as a flight of that number wrote it."""
    return f"{archive.key}#{number}.{offset}"
