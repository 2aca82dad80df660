"""Archives that were pushed a moment ago: what was just uploaded need not be downloaded.

Rules of this file: the files have no names, so nothing is left of them however the process ends. What is being read can
be read to its end although it was let go.
"""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import trio

from artifactfs.model.content import ByteRange
from artifactfs.providers.base import ContentStream

# The core reads a new version's archive at once, so the last one would do; some saves may end together. One archive
# holds at most 100 MiB of files.
MAX_KEPT = 4
MAX_BYTES = 256 * 1024 * 1024
CHUNK = 256 * 1024


Locator = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Spooled:
    """An archive in a nameless file."""

    file: BinaryIO
    size: int


class Spool:
    """The last few, by the locators of their references: keys are the core's to change."""

    def __init__(self) -> None:
        """Begin empty."""
        self._kept: OrderedDict[Locator, Spooled] = OrderedDict()

    def __repr__(self) -> str:
        """Tell how much it holds."""
        return f"<Spool {len(self._kept)} archives, {self._size()} bytes>"

    def _size(self) -> int:
        return sum(spooled.size for spooled in self._kept.values())

    def put(self, key: Locator, spooled: Spooled) -> None:
        """Keep an archive, and close it some time."""
        self._let_go(key)
        self._kept[key] = spooled
        while len(self._kept) > MAX_KEPT or self._size() > MAX_BYTES:
            self._let_go(next(iter(self._kept)))

    def _let_go(self, key: Locator) -> None:
        spooled = self._kept.pop(key, None)
        if spooled is not None:
            spooled.file.close()

    def close(self) -> None:
        """Let all go."""
        for key in tuple(self._kept):
            self._let_go(key)

    @contextlib.contextmanager
    def open(self, key: Locator, span: ByteRange) -> Iterator[ContentStream | None]:
        """Return bytes of an archive as the service would, None if it is not here."""
        spooled = self._kept.get(key)
        if spooled is None:
            yield None
            return
        end = spooled.size if span.length is None else min(spooled.size, span.offset + span.length)
        is_part = span.offset > 0 or span.length is not None
        fd = os.dup(spooled.file.fileno())
        try:
            yield ContentStream(
                span.offset, spooled.size, ranged=is_part, chunks=_chunks(fd, span.offset, end),
                media_type="application/gzip",
            )  # fmt: skip
        finally:
            os.close(fd)


async def _chunks(fd: int, at: int, end: int) -> AsyncGenerator[bytes, None]:
    while at < end:
        data = await trio.to_thread.run_sync(os.pread, fd, min(CHUNK, end - at), at)
        if not data:
            return
        at += len(data)
        yield data
