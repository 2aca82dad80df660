"""One stream on its way into blocks, and those who wait for them."""

from __future__ import annotations

import hashlib

import trio

from artifactfs.content.extents import BLOCK
from artifactfs.model.content import ContentRef, Exact
from artifactfs.providers.limits import Lane, Line, lane

# Content up to this size is hashed as it comes, so that what is equal in two services is kept once: 2 ms of CPU for
# each of these, and most artifacts are smaller.
HASHED = 4 << 20


class Flight:
    """One stream on its way into blocks.

    ``first`` to ``stop`` (exclusive; None: to the end) are the blocks it brings; ``next`` is the one it is filling.
    ``opened`` tells whether its answer has begun. It flies in the lane of who launched it, until it is hurried.
    """

    def __init__(self, ref: ContentRef, first: int, stop: int | None, *, probe: bool = False) -> None:
        """Describe it; the fetcher runs it."""
        self.ref = ref
        self.next = first
        self.stop = stop
        self.probe = probe
        self.opened = False
        self.total = ref.size.value if isinstance(ref.size, Exact) else None
        self.error: Exception | None = None
        self.is_replaced = False
        """Whether the service has other bytes there by now: what it still brings is of no use."""
        self.landed = trio.Event()
        self.lane = lane.get()
        self.line = Line()
        self.attempt: trio.CancelScope | None = None
        self._pulse = trio.Event()
        self._wanted: dict[int, bytes | None] = {}
        self._waiting: dict[int, int] = {}
        self._digest = hashlib.sha256() if self._is_hashed() else None

    def __repr__(self) -> str:
        """Tell how far it is."""
        return f"<Flight {self.ref.key!r} block {self.next} of {self.stop}, {len(self._waiting)} waited for>"

    @property
    def has_waiters(self) -> bool:
        """Tell whether anybody waits for a block."""
        return bool(self._waiting)

    def waited_for(self) -> list[int]:
        """Return the blocks that somebody waits for, in their order."""
        return sorted(self._waiting)

    def covers(self, index: int) -> bool:
        """Tell whether the block is still to come."""
        is_ahead = index >= self.next and (self.stop is None or index < self.stop)
        return is_ahead and not self.is_replaced and not self.landed.is_set()

    def hurry(self) -> None:
        """Go to the foreground: somebody waits for it now who must not wait behind the background."""
        if self.lane is Lane.FOREGROUND:
            return
        self.lane = Lane.FOREGROUND
        if self.line.waits and self.attempt is not None:
            self.attempt.cancel()  # it has sent nothing yet, and asks anew

    def learn_total(self, total: int) -> None:
        """Note the size of the whole content, in bytes, and tell those who wait for it."""
        self.total = total
        if total > HASHED:
            self._digest = None
        self.pulse()

    def begin_anew(self) -> None:
        """Bring the whole, from its first byte: there are no ranges of this content."""
        self.next, self.stop = 0, None
        self._digest = hashlib.sha256() if self._is_hashed() else None

    def _is_hashed(self) -> bool:
        is_small = self.total is None or self.total <= HASHED
        return self.next == 0 and is_small and not self.ref.key.startswith("sha256:")

    def pulse(self) -> None:
        """Wake everybody who waits, to look again."""
        self._pulse.set()
        self._pulse = trio.Event()

    def deliver(self, index: int, block: bytes) -> None:
        """Give a block to those who wait for it and step on; blocks are delivered in order."""
        if index in self._waiting:
            self._wanted[index] = block
        if self._digest is not None:
            self._digest.update(block)
            if (index + 1) * BLOCK > HASHED:
                self._digest = None
        self.next = index + 1
        if self._waiting:
            self.pulse()

    def sha256(self) -> str | None:
        """Return the hash of the content, lower-case hex, if all of it has passed here and it is small enough."""
        if self._digest is None or not self.total or self.next * BLOCK < self.total:
            return None
        return self._digest.hexdigest()

    def land(self, error: Exception | None) -> None:
        """End it."""
        self.error = error
        self.landed.set()
        self.pulse()

    async def block(self, index: int) -> bytes | None:
        """Wait for a block; None if the flight ended before it without an error."""
        self._waiting[index] = self._waiting.get(index, 0) + 1
        try:
            while True:
                data = self._wanted.get(index)
                if data is not None:
                    return data
                if self.landed.is_set() or index < self.next:
                    if self.error is not None:
                        raise self.error.with_traceback(None)
                    return None
                await self._pulse.wait()
        finally:
            self._waiting[index] -= 1
            if not self._waiting[index]:
                del self._waiting[index]
                self._wanted.pop(index, None)

    async def size(self) -> int | None:
        """Wait until the size of the whole content is known, in bytes; None if it ended without."""
        while self.total is None:
            if self.landed.is_set():
                if self.error is not None:
                    raise self.error.with_traceback(None)
                return None
            await self._pulse.wait()
        return self.total
