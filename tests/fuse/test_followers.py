"""Programs that wait one behind the other in the kernel: the second one does not wait as long as the first one has."""

from __future__ import annotations

import errno
from typing import Any

import pyfuse3
import pytest
import trio
from trio.testing import MockClock

from artifactfs import errors, observe
from artifactfs.fuse.boundary import handler
from artifactfs.fuse.followers import BEHIND_S, LINE_S, NEAR_S, SAME_S, Followers

TIMEOUT_S = 30.0


class Handlers:
    """Handlers of a mount whose service hangs, but for the names that are known."""

    def __init__(self) -> None:
        self.timeout_s = TIMEOUT_S
        self.running: dict[trio.CancelScope, Any] = {}
        self.timings = observe.Timings()
        self.subjects = None
        self.followers = Followers(lambda handle: handle % 10)
        self.known: set[bytes] = set()
        self.fails_with: Exception | None = None
        self.slow_s = float("inf")

    def failed(self, operation: str, subject: object, error: errors.ArtifactFSError) -> None:
        pass

    async def _ask(self) -> None:
        if self.fails_with is not None:
            await trio.sleep(4)
            raise self.fails_with
        await trio.sleep(self.slow_s)

    @handler
    async def lookup(self, parent: int, name: bytes) -> bytes:
        if name not in self.known:
            await self._ask()
        return name

    @handler
    async def create(self, parent: int, name: bytes) -> None:
        await self._ask()

    @handler
    async def read(self, handle: int, offset: int, length: int) -> bytes:
        if b"page" not in self.known:
            await self._ask()
        return b"page"


async def took(method: Any, *args: Any) -> tuple[float, int]:
    """Return after how many seconds an operation failed, and with which errno."""
    began = trio.current_time()
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await method(*args)
    return round(trio.current_time() - began, 3), caught.value.errno


async def test_who_comes_behind_a_wait_in_vain_waits_briefly(autojump_clock: MockClock) -> None:
    handlers = Handlers()
    assert await took(handlers.lookup, 7, b"a") == (TIMEOUT_S, errno.ETIMEDOUT)
    for _ in range(100):
        assert await took(handlers.lookup, 7, b"a") == (SAME_S, errno.ETIMEDOUT)


async def test_other_names_in_the_directory_wait_longer(autojump_clock: MockClock) -> None:
    """The kernel makes one file at a time in a directory; but those may be names that take a moment."""
    handlers = Handlers()
    await took(handlers.lookup, 7, b"a")
    assert await took(handlers.create, 7, b"b") == (NEAR_S, errno.ETIMEDOUT)
    assert await took(handlers.lookup, 8, b"a") == (TIMEOUT_S, errno.ETIMEDOUT)


async def test_readers_of_one_page(autojump_clock: MockClock) -> None:
    """Through whichever handle; of another part of the file, or of another file, nothing has been waited for."""
    handlers = Handlers()
    assert await took(handlers.read, 11, 4096, 8192) == (TIMEOUT_S, errno.ETIMEDOUT)
    assert await took(handlers.read, 21, 8192, 4096) == (SAME_S, errno.ETIMEDOUT)
    assert await took(handlers.read, 12, 4096, 4096) == (TIMEOUT_S, errno.ETIMEDOUT)
    await took(handlers.read, 21, 8192, 4096)
    assert await took(handlers.read, 31, 1 << 20, 4096) == (TIMEOUT_S, errno.ETIMEDOUT)


async def test_what_is_known_by_then_is_answered(autojump_clock: MockClock) -> None:
    handlers = Handlers()
    await took(handlers.lookup, 7, b"a")
    await took(handlers.read, 11, 0, 4096)
    handlers.known = {b"a", b"page"}
    assert await handlers.lookup(7, b"a") == b"a"
    assert await handlers.read(21, 0, 4096) == b"page"


async def test_who_comes_later_waits_as_everybody_does(autojump_clock: MockClock) -> None:
    handlers = Handlers()
    await took(handlers.lookup, 7, b"a")
    await trio.sleep(2 * BEHIND_S)
    assert await took(handlers.lookup, 7, b"a") == (TIMEOUT_S, errno.ETIMEDOUT)


async def test_who_comes_again_and_again_is_let_in(autojump_clock: MockClock) -> None:
    """`until stat f; do sleep .5; done` is no line in the kernel: the service may be well, and need 0.1 s for it."""
    handlers = Handlers()
    await took(handlers.lookup, 7, b"a")
    handlers.slow_s = 2 * SAME_S
    began, tries = trio.current_time(), 0
    while True:
        await trio.sleep(BEHIND_S / 2)
        tries += 1
        try:
            assert await handlers.lookup(7, b"a") == b"a"
        except pyfuse3.FUSEError:
            assert trio.current_time() - began <= LINE_S
        else:
            break
    assert tries > 1


async def test_the_failure_is_that_of_the_first(autojump_clock: MockClock) -> None:
    """A service that fails is not said to be silent."""
    handlers = Handlers()
    handlers.fails_with = errors.Unavailable("the service failed (500)")
    assert await took(handlers.lookup, 7, b"a") == (4, errno.EIO)
    assert await took(handlers.lookup, 7, b"a") == (SAME_S, errno.EIO)


@pytest.mark.parametrize("error", [errors.NotFound("no"), errors.AccessDenied("no"), errors.CorruptContent("bad")])
async def test_what_was_answered_was_not_waited_for_in_vain(autojump_clock: MockClock, error: Exception) -> None:
    handlers = Handlers()
    handlers.fails_with = error
    await took(handlers.lookup, 7, b"a")
    assert not handlers.followers


async def test_nothing_is_kept_for_long(autojump_clock: MockClock) -> None:
    handlers = Handlers()
    for number in range(20):
        await took(handlers.lookup, number, b"a")
    assert len(handlers.followers._vain) <= 2
