"""Reading blocks from disk: where they are, by heart for the contents read lately, and whether they are what they were.

Rules of this file: what is known by heart may be old, since other mounts evict; so a block is only what it should be
if its checksum says so, and before it is given up the database is asked again. What is not known by heart is always
asked for.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from artifactfs.content.block_index import BlockIndex, Page
from artifactfs.content.block_writer import BlockWriter

log = logging.getLogger(__name__)
T = TypeVar("T")

# Blocks of a content that are looked up together: 64 MiB of it, 0.2 ms.
PAGE = 256
# Records known by heart, about 200 bytes each.
KNOWN = 32768


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a block is, and what it must be; ``key`` is the name it was found by."""

    key: str
    number: int
    blob: int
    file: str
    length: int
    crc: int


class BlockTable:
    """The records of the blocks of one cache directory, and the way to their bytes."""

    def __init__(self, writer: BlockWriter) -> None:
        """Read the database and the files that ``writer`` has open."""
        self._writer = writer
        self._files = writer.files
        self._lock = threading.Lock()
        self._pages: OrderedDict[tuple[str, int], Page] = OrderedDict()
        self._known = 0
        self._numbers: tuple[BlockIndex | None, str, int, set[int]] = (None, "", -1, set())

    def _ask(self, question: Callable[[BlockIndex], T], otherwise: T) -> T:
        index = self._writer.index
        if index is None:
            return otherwise
        try:
            return question(index)
        except (sqlite3.Error, ValueError) as error:
            log.info("the block database does not answer: %s", error)
            return otherwise

    def used_bytes(self) -> int:
        """Return the bytes of all recorded blocks."""
        return self._ask(BlockIndex.used_bytes, 0)

    def numbers(self, key: str) -> set[int]:
        """Return the numbers of the recorded blocks of a content; the caller does not change them."""
        index, version = self._writer.index, self._ask(BlockIndex.version, -1)
        known = self._numbers
        if known[0] is not index or known[1:3] != (key, version):
            known = self._numbers = (index, key, version, self._ask(lambda index: index.numbers(key), set()))
        return known[3]

    def find(self, key: str, number: int) -> Entry | None:
        """Return where a block should be."""
        at = (key, number // PAGE)
        with self._lock:
            page = self._pages.get(at)
            if page is not None and number in page.blocks:
                self._pages.move_to_end(at)
                return self._entry(key, number, page)
        return self._look_up(key, number)

    def _look_up(self, key: str, number: int) -> Entry | None:
        at = number // PAGE
        page = self._ask(lambda index: index.page(key, at * PAGE, (at + 1) * PAGE), None)
        with self._lock:
            old = self._pages.pop((key, at), None)
            self._known -= _weight(old)
            if page is not None:
                self._pages[(key, at)] = page
                self._known += _weight(page)
                while self._known > KNOWN:
                    self._known -= _weight(self._pages.popitem(last=False)[1])
        return None if page is None or number not in page.blocks else self._entry(key, number, page)

    @staticmethod
    def _entry(key: str, number: int, page: Page) -> Entry:
        length, crc = page.blocks[number]
        return Entry(key, number, page.blob, page.file, length, crc)

    def read_cached(self, entry: Entry) -> bytes | None:
        """Return a block that verifies and that the kernel has in memory."""
        return _verified(entry, self._files.read_cached(entry.file, entry.number, entry.length))

    def read(self, entry: Entry) -> tuple[Entry | None, bytes | None]:
        """Return a block, waiting for the disk, and where it was found; None for both if it is not recorded any more.

        Where it should be and is not, the bytes alone are None.
        """
        data = _verified(entry, self._files.read(entry.file, entry.number, entry.length))
        if data is not None:
            return entry, data
        self._files.let_go(entry.file)
        now = self._look_up(entry.key, entry.number)
        if now is None or now == entry:
            return now, None
        return now, _verified(now, self._files.read(now.file, now.number, now.length))


def _weight(page: Page | None) -> int:
    """Return what a page counts, in records; the page itself is worth some."""
    return 0 if page is None else len(page.blocks) + 3


def _verified(entry: Entry, data: bytes | None) -> bytes | None:
    return data if data is not None and len(data) == entry.length and zlib.crc32(data) == entry.crc else None
