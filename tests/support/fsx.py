"""Random operations on one file against bytes in memory, as `fsx` does them: a seed gives the same ones again.

After each operation what it returned, and the length of the file, are what the model says; now and then every byte is.
Each write says in every four of its bytes which operation it was, so that a mismatch names the two that differ.
"""

from __future__ import annotations

import itertools
import mmap
import os
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PAGE = mmap.PAGESIZE
# A file's pages, what FUSE writes at once at most, and the cache's blocks begin and end here.
BOUNDARIES = (PAGE, 65536, 262144)
# A page more than the last boundary, so that there are places behind it.
MAX_SIZE = 262144 + PAGE
# Large enough to cross each boundary, small enough for thousands.
MAX_LENGTH = 40_000
SHOWN = 40
EVERY_BYTE = 100
# For the mount: publish within `quiet_s`. A variable that a version does not know is none of its settings.
QUICKLY = {"ARTIFACTFS_MOUNT_PUBLISH_DELAY": "0.05"}


@dataclass
class Fsx:
    """One run over a file that exists and is empty.

    Attributes:
        path: the file.
        seed: of the chances.
        quiet_s: how long the file is left alone after some closes, so that it is published in between.
        max_size: the file never gets longer.
    """

    path: Path
    seed: int
    quiet_s: float = 0.2
    max_size: int = MAX_SIZE
    model: bytearray = field(default_factory=bytearray)
    log: deque[str] = field(default_factory=lambda: deque(maxlen=SHOWN))
    count: int = 0

    def __post_init__(self) -> None:
        """Open the file."""
        self.chance = random.Random(self.seed)
        self.fd = os.open(self.path, os.O_RDWR)
        self.held: mmap.mmap | None = None
        self.weights: list[tuple[Callable[[], None], int]] = [
            (self.read, 12), (self.seek_and_read, 5), (self.write, 14), (self.seek_and_write, 6), (self.append, 4),
            (self.truncate, 3), (self.ftruncate, 5), (self.map_read, 6), (self.map_write, 9), (self.hold, 3),
            (self.held_read, 4), (self.held_write, 5), (self.unhold, 2), (self.fsync, 2), (self.fdatasync, 1),
            (self.read_by_another, 3), (self.reopen, 4), (self.empty_by_open, 1), (self.settle, 1),
        ]  # fmt: skip

    def run(self, operations: int) -> None:
        """Do so many operations, then close."""
        doing, weights = zip(*self.weights, strict=True)
        for _ in range(operations):
            self.count += 1
            (operation,) = self.chance.choices(doing, weights)
            self.log.append(f"{self.count}: {operation.__name__}")
            try:
                operation()
                size = os.fstat(self.fd).st_size
                self.expect(size == len(self.model), f"the file is {size} bytes long")
                if self.count % EVERY_BYTE == 0:
                    self.compare(os.pread(self.fd, self.max_size, 0), 0)
            except OSError as error:
                raise AssertionError(self.told(f"{error!r}")) from error
        self.unhold()
        os.close(self.fd)

    # -- chances ---------------------------------------------------------------------------------------------

    def place(self, end: int) -> int:
        """Return a place in 0..end, often one at a boundary."""
        if self.chance.random() < 0.3:
            near = self.chance.choice(BOUNDARIES) + self.chance.choice((-1, 0, 1))
            if near <= end:
                return near
        return self.chance.randint(0, end)

    def span(self, end: int) -> tuple[int, int]:
        """Return offset and length of something that ends at or before ``end``."""
        offset = self.place(end)
        length = self.chance.choice((1, PAGE, self.chance.randint(1, MAX_LENGTH)))
        return offset, min(length, end - offset)

    def some(self, offset: int, length: int) -> bytes:
        """Return bytes that say which operation wrote them."""
        return (self.count.to_bytes(4, "big") * (length // 4 + 2))[offset % 4 :][:length]

    # -- what is expected ------------------------------------------------------------------------------------

    def note(self, offset: int, length: int) -> None:
        self.log[-1] += f" {offset}+{length} of {len(self.model)}"

    def put(self, offset: int, data: bytes) -> None:
        """Write into the model; what is behind its end is zeros."""
        self.model.extend(bytes(max(0, offset - len(self.model))))
        self.model[offset : offset + len(data)] = data

    def resize(self, size: int) -> None:
        del self.model[size:]
        self.model.extend(bytes(size - len(self.model)))

    def compare(self, got: bytes, offset: int) -> None:
        """See that bytes from the file are those of the model."""
        want = bytes(self.model[offset : offset + len(got)])
        if got == want and (got or offset >= len(self.model)):
            return
        pairs = itertools.zip_longest(got, want)
        at = next((place for place, (one, other) in enumerate(pairs) if one != other), len(got))
        said = [f"{len(text)} bytes, there of operation {self._writer(text, at, offset)}" for text in (got, want)]
        message = f"differs at {offset + at} (read from {offset}): the file has {said[0]}; the model {said[1]}"
        raise AssertionError(self.told(message))

    @staticmethod
    def _writer(text: bytes, at: int, offset: int) -> int | None:
        begin = at - (offset + at) % 4
        return int.from_bytes(text[begin : begin + 4], "big") if 0 <= begin < len(text) else None

    def expect(self, is_so: bool, message: str) -> None:
        if not is_so:
            raise AssertionError(self.told(message))

    def told(self, message: str) -> str:
        last = "\n  ".join(self.log)
        return f"seed {self.seed}, operation {self.count}: {message}; the model is {len(self.model)} bytes\n  {last}"

    # -- operations ------------------------------------------------------------------------------------------

    def read(self) -> None:
        offset, length = self.span(self.max_size)
        self.note(offset, length)
        got = os.pread(self.fd, length, offset)
        self.expect(len(got) == max(0, min(length, len(self.model) - offset)), f"{len(got)} bytes came")
        self.compare(got, offset)

    def seek_and_read(self) -> None:
        offset, length = self.span(len(self.model))
        self.note(offset, length)
        os.lseek(self.fd, offset, os.SEEK_SET)
        got = os.read(self.fd, length)
        self.expect(len(got) == length, f"{len(got)} bytes came")
        self.compare(got, offset)
        self.expect(os.lseek(self.fd, 0, os.SEEK_CUR) == offset + length, "the position is another one")

    def write(self) -> None:
        offset, length = self.span(self.max_size)
        self.note(offset, length)
        data = self.some(offset, length)
        self.expect(os.pwrite(self.fd, data, offset) == length, "a part of it was written")
        if length:
            self.put(offset, data)

    def seek_and_write(self) -> None:
        offset, length = self.span(self.max_size)
        self.note(offset, length)
        data = self.some(offset, length)
        os.lseek(self.fd, offset, os.SEEK_SET)
        self.expect(os.write(self.fd, data) == length, "a part of it was written")
        if length:
            self.put(offset, data)

    def append(self) -> None:
        """Through a descriptor of its own, whose close flushes while the other is open."""
        length = self.chance.randint(1, MAX_LENGTH)
        if len(self.model) + length > self.max_size:
            return
        self.note(len(self.model), length)
        data = self.some(len(self.model), length)
        with os.fdopen(os.open(self.path, os.O_WRONLY | os.O_APPEND), "wb", buffering=0) as file:
            file.write(data)
        self.model += data

    def truncate(self) -> None:
        size = self.place(self.chance.choice((len(self.model), self.max_size)))
        self.note(size, 0)
        os.truncate(self.path, size)
        self.resize(size)

    def ftruncate(self) -> None:
        size = self.place(self.chance.choice((len(self.model), self.max_size)))
        self.note(size, 0)
        os.ftruncate(self.fd, size)
        self.resize(size)

    def map_read(self) -> None:
        offset, length = self.span(len(self.model))
        if not length:
            return
        self.note(offset, length)
        begin = offset - offset % PAGE
        with mmap.mmap(self.fd, offset + length - begin, prot=mmap.PROT_READ, offset=begin) as mapped:
            self.compare(mapped[offset - begin : offset - begin + length], offset)

    def map_write(self) -> None:
        """A file does not grow by a write through a map, so it is made long enough before."""
        offset, length = self.span(self.max_size)
        if not length:
            return
        self.note(offset, length)
        if offset + length > len(self.model):
            os.ftruncate(self.fd, offset + length)
            self.resize(offset + length)
        begin, data = offset - offset % PAGE, self.some(offset, length)
        with mmap.mmap(self.fd, offset + length - begin, offset=begin) as mapped:
            mapped[offset - begin : offset - begin + length] = data
            if self.chance.random() < 0.7:
                mapped.flush()
        self.put(offset, data)

    def hold(self) -> None:
        """Map the whole file and keep the map over what follows, over a close too."""
        self.unhold()
        if self.model:
            self.note(0, len(self.model))
            self.held = mmap.mmap(self.fd, len(self.model))

    def within_held(self) -> tuple[int, int]:
        """Return offset and length of what is in the map and, as SIGBUS is the answer elsewhere, in the file."""
        offset, length = self.span(min(len(self.held or b""), len(self.model)))
        self.note(offset, length)
        return offset, length

    def held_read(self) -> None:
        offset, length = self.within_held()
        if self.held is not None and length:
            self.compare(self.held[offset : offset + length], offset)

    def held_write(self) -> None:
        offset, length = self.within_held()
        if self.held is not None and length:
            data = self.some(offset, length)
            self.held[offset : offset + length] = data
            self.put(offset, data)
            if self.chance.random() < 0.5:
                self.held.flush()

    def unhold(self) -> None:
        if self.held is not None:
            self.held.close()
            self.held = None

    def fsync(self) -> None:
        os.fsync(self.fd)

    def fdatasync(self) -> None:
        os.fdatasync(self.fd)

    def read_by_another(self) -> None:
        self.compare(self.path.read_bytes(), 0)
        self.expect(self.path.stat().st_size == len(self.model), "stat says another length")

    def reopen(self) -> None:
        os.close(self.fd)
        self.fd = os.open(self.path, os.O_RDWR)

    def empty_by_open(self) -> None:
        os.close(self.fd)
        self.fd = os.open(self.path, os.O_RDWR | os.O_TRUNC)
        self.model.clear()

    def settle(self) -> None:
        """Leave the file alone until it is published, look at all of it, and begin again from there."""
        self.unhold()
        os.close(self.fd)
        time.sleep(self.quiet_s)  # noqa: TID251 - no event loop here
        self.compare(self.path.read_bytes(), 0)
        self.fd = os.open(self.path, os.O_RDWR)
