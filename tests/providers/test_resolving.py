"""Names are asked for in threads of their own: a resolver that hangs takes nothing from anybody else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import trio

from artifactfs.providers import resolving
from artifactfs.providers.resolving import THREADS, Resolver

REAL = socket.getaddrinfo


class Hanging:
    """A resolver of the system that does not answer until it is let go."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.asked: list[object] = []

    def getaddrinfo(self, host: object, *rest: object) -> object:
        self.asked.append(host)
        self.free.wait(30)
        return REAL("127.0.0.1", *rest)  # type: ignore[arg-type]  # as it was called


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    made = Hanging()
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    yield made
    made.free.set()


async def test_threads_for_everything_else_stay_free(hanging: Hanging) -> None:
    """However many names are asked for and given up: files are still read, and names come when they come."""
    async with trio.open_nursery() as nursery:
        resolver = Resolver(nursery)
        limit = trio.to_thread.current_default_thread_limiter().total_tokens

        async def give_up(number: int) -> None:
            with trio.move_on_after(0.2):
                await resolver.getaddrinfo(b"host%d.example" % number, 80)

        async with trio.open_nursery() as many:
            for number in range(int(limit) + 10):
                many.start_soon(give_up, number)
        begin = time.monotonic()
        await trio.to_thread.run_sync(lambda: None)
        assert time.monotonic() - begin < 5
        assert len(hanging.asked) <= THREADS
        hanging.free.set()
        assert (await resolver.getaddrinfo(b"host.example", 80, type=socket.SOCK_STREAM))[0][4] == ("127.0.0.1", 80)
        nursery.cancel_scope.cancel()


async def test_one_name_is_one_question(hanging: Hanging, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those who ask together; who asks later does not wait for a question of a network that may be gone."""
    monkeypatch.setattr(resolving, "JOINED_S", 0.5)
    async with trio.open_nursery() as nursery:
        resolver = Resolver(nursery)
        with trio.move_on_after(0.2):
            async with trio.open_nursery() as many:
                for _ in range(20):
                    many.start_soon(resolver.getaddrinfo, b"host.example", 80)
        assert len(hanging.asked) == 1
        await trio.sleep(0.6)
        with trio.move_on_after(0.2):
            await resolver.getaddrinfo(b"host.example", 80)
        assert len(hanging.asked) == 2
        hanging.free.set()
        nursery.cancel_scope.cancel()


async def test_a_name_that_is_not_there_is_an_error_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is asked for again by the next: failures are not kept."""
    asked: list[object] = []

    def fail(host: object, *_rest: object) -> object:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    async with trio.open_nursery() as nursery:
        resolver = Resolver(nursery)
        for number in range(2):
            with pytest.raises(socket.gaierror):
                await resolver.getaddrinfo(b"host.example", 80)
            assert len(asked) == number + 1
