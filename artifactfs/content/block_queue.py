"""Blocks in memory: those read lately, and those that wait for the disk with everything that is to be done after them.

Rules of this file: no I/O. The event loop adds, the writing thread takes; each holds the lock only for as long as a
few dictionary entries take. What waits can be read by the name it was written under, and by its hash once that is
known. What waits is bounded: beyond ``MOST_BYTES`` a block is not kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass

# Writers wait (``room``) when this much waits for the disk: 16 ms of a fast disk, and enough for a slow one to batch.
ROOM_BYTES = 8 << 20
# Nobody may wait who cannot; what comes on top of this is fetched again if it is wanted again.
MOST_BYTES = 4 * ROOM_BYTES
# One transaction writes about so much: another mount waits for it, and a crash loses it.
BATCH_BYTES = 4 << 20
BATCH_OPS = 1000
# Names by hash of contents that may still be in memory under the key they were written by.
ALIASES = 4096


@dataclass(frozen=True, slots=True)
class Block:
    """Keep a block under a key."""

    key: str
    index: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Identity:
    """All that was written under ``key`` has the name ``name``; whether ``key`` stays a name."""

    key: str
    name: str
    keep_name: bool


@dataclass(frozen=True, slots=True)
class Pin:
    """Give a key a rank; 0 takes it away."""

    key: str
    rank: int


@dataclass(frozen=True, slots=True)
class Forget:
    """A block of a blob was not what its record says."""

    blob: int
    number: int
    crc: int


@dataclass(frozen=True, slots=True)
class Drop:
    """A name is no name any more."""

    key: str


@dataclass(frozen=True, slots=True)
class Note:
    """Write down what was read lately."""


Op = Block | Identity | Pin | Forget | Drop | Note


class HotBlocks:
    """The blocks used last, up to a number of bytes; for the event loop, but nothing breaks if a thread looks."""

    def __init__(self, max_bytes: int) -> None:
        """Hold at most so many bytes."""
        self._max = max_bytes
        self._bytes = 0
        self._blocks: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def get(self, key: str, index: int) -> bytes | None:
        """Return a block and note that it was used."""
        data = self._blocks.get((key, index))
        if data is not None:
            self._blocks.move_to_end((key, index))
        return data

    def keep(self, key: str, index: int, data: bytes) -> None:
        """Hold a block, in place of those not used for longest."""
        old = self._blocks.pop((key, index), b"")
        self._blocks[(key, index)] = data
        self._bytes += len(data) - len(old)
        while self._bytes > self._max:
            self._bytes -= len(self._blocks.popitem(last=False)[1])

    def forget(self, key: str) -> None:
        """Let go of the blocks of a content."""
        for entry in [entry for entry in self._blocks if entry[0] == key]:
            self._bytes -= len(self._blocks.pop(entry))

    def clear(self) -> None:
        """Let go of all."""
        self._blocks.clear()
        self._bytes = 0


class BlockQueue:
    """What is to be written, in order, and readable meanwhile."""

    def __init__(self) -> None:
        """Begin empty."""
        self._lock = threading.Lock()
        self.ready = threading.Condition(self._lock)
        self._ops: deque[Op] = deque()
        self._blocks: dict[str, dict[int, bytes]] = {}
        self._aliases: OrderedDict[str, str] = OrderedDict()
        self.names: dict[str, str] = {}
        """Names by hash of keys for which the database does not know it yet."""
        self.bytes = 0
        self.sleeping = False

    def __len__(self) -> int:
        """Return how many things wait, not counting those being done."""
        return len(self._ops)

    def get(self, key: str, index: int) -> bytes | None:
        """Return a block that waits."""
        blocks = self._blocks.get(key)
        return blocks.get(index) if blocks is not None else None

    def numbers(self, key: str) -> Iterable[int]:
        """Return the indexes of the blocks of a content that wait."""
        with self._lock:
            return list(self._blocks.get(key, ()))

    def other_name(self, key: str) -> str | None:
        """Return another name of a content: the key it was written under lately, or its hash if that is new."""
        return self._aliases.get(key) or self.names.get(key)

    def add(self, op: Op) -> bool:
        """Let something wait for the disk; return False for a block for which there is no room."""
        with self._lock:
            if isinstance(op, Block):
                blocks = self._blocks.setdefault(op.key, {})
                if op.index in blocks:
                    return True  # equal keys mean equal bytes
                if self.bytes + len(op.data) > MOST_BYTES:
                    return False
                blocks[op.index] = op.data
                self.bytes += len(op.data)
            elif isinstance(op, Identity):
                self._aliases[op.name] = op.key
                self.names[op.key] = op.name
                if len(self._aliases) > ALIASES:
                    self._aliases.popitem(last=False)
            self._ops.append(op)
            if self.sleeping or self.bytes >= BATCH_BYTES:
                self.ready.notify()
            return True

    def take(self, max_bytes: int) -> list[Op]:
        """Return what to do next, until its blocks have ``max_bytes``; they can be read until ``done``."""
        with self._lock:
            batch: list[Op] = []
            size = 0
            while self._ops and size <= max_bytes and len(batch) < BATCH_OPS:
                op = self._ops.popleft()
                size += len(op.data) if isinstance(op, Block) else 0
                batch.append(op)
            return batch

    def done(self, batch: list[Op]) -> None:
        """Let go of what was done, or could not be done."""
        with self._lock:
            for op in batch:
                if isinstance(op, Block):
                    self._let_go(op)
                elif isinstance(op, Identity):
                    self.names.pop(op.key, None)

    def _let_go(self, op: Block) -> None:
        blocks = self._blocks.get(op.key, {})
        if blocks.get(op.index) is op.data:
            self.bytes -= len(blocks.pop(op.index))
        if not blocks:
            self._blocks.pop(op.key, None)

    def cancel(self, key: str) -> None:
        """Forget a content that waits: nothing of it is written, and nothing of it can be read."""
        with self._lock:
            left: deque[Op] = deque()
            for op in self._ops:
                if not isinstance(op, Block | Identity) or op.key != key:
                    left.append(op)
                elif isinstance(op, Block):
                    self._let_go(op)
            self._ops = left
            # Those that are being written right now: they are dropped after.
            self.bytes -= sum(map(len, self._blocks.pop(key, {}).values()))
            self.names.pop(key, None)
            for name in [name for name, other in self._aliases.items() if key in {name, other}]:
                del self._aliases[name]
