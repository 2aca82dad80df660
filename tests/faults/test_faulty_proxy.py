"""The proxy does what it says, byte by byte: what the table concludes from it depends on that."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from artifactfs.server.run import serve_app
from tests.support.faulty_proxy import NONE, Break, Line, Trouble

BODY = bytes(range(256)) * 8


async def _fixed(request: Request) -> Response:
    return Response(BODY + await request.body())


async def _chunked(_request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(BODY), 500):
            yield BODY[at : at + 500]

    return StreamingResponse(pieces())


APP = Starlette(routes=[Route("/fixed", _fixed, methods=["GET", "POST"]), Route("/chunked", _chunked)])


@asynccontextmanager
async def line() -> AsyncIterator[Line]:
    async with trio.open_nursery() as nursery:
        running = await nursery.start(serve_app, APP)
        yield await Line().open(nursery, running.url)
        nursery.cancel_scope.cancel()


async def connected(to: Line) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", int(to.url.rpartition(":")[2]))


async def everything(stream: trio.SocketStream, path: str = "/fixed") -> bytes:
    """Ask once, and return all that comes until the connection ends, or nothing comes for a while."""
    await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    found = bytearray()
    with trio.move_on_after(0.5) as waiting:
        while data := await stream.receive_some(65536):
            found += data
            waiting.deadline = trio.current_time() + 0.5
    return bytes(found)


async def asked(to: Line, path: str = "/fixed") -> bytes:
    async with await connected(to) as stream:
        return await everything(stream, path)


@pytest.mark.parametrize("path", ["/fixed", "/chunked"])
async def test_what_is_not_disturbed_passes(path: str) -> None:
    """Also a second request on the same connection, and one with a body."""
    async with line() as to, await connected(to) as stream:
        first = await everything(stream, path)
        assert first.endswith((BODY, b"\r\n0\r\n\r\n"))
        assert (await everything(stream, path)).partition(b"\r\n\r\n")[2] == first.partition(b"\r\n\r\n")[2]
        await stream.send_all(b"POST /fixed HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nmore")
        with trio.fail_after(10):
            found = b""
            while not found.endswith(BODY + b"more"):
                found += await stream.receive_some(65536)
        assert to.seen == [f"GET {path}", f"GET {path}", "POST /fixed"]


async def test_answers_that_end_early() -> None:
    async with line() as to:
        whole = await asked(to)
        head = whole.partition(b"\r\n\r\n")[0]
        to.disturb(Trouble(in_head=Break.CUT))
        assert head.startswith(await asked(to))
        to.disturb(Trouble(in_body=Break.CUT, after=10))
        assert (await asked(to)).partition(b"\r\n\r\n")[2] == BODY[:10]
        to.disturb(Trouble(silent=True))
        assert await asked(to) == b""
        for trouble in (Trouble(in_body=Break.RESET), Trouble(silent=True, in_head=Break.RESET)):
            to.disturb(trouble)
            with pytest.raises(trio.BrokenResourceError):
                await asked(to)


async def test_answers_that_are_wrong() -> None:
    async with line() as to:
        to.disturb(Trouble(flips=True, after=10))
        found = (await asked(to)).partition(b"\r\n\r\n")[2]
        assert len(found) == len(BODY)
        assert [at for at in range(len(BODY)) if found[at] != BODY[at]] == list(range(10, 18))
        for longer in (10, -10):
            to.disturb(Trouble(longer=longer))
            head, _, body = (await asked(to)).partition(b"\r\n\r\n")
            assert f"content-length: {len(BODY) + longer}" in head.decode().lower()
            assert body == BODY


async def test_answers_that_take_long() -> None:
    async with line() as to:
        begin = trio.current_time()
        to.disturb(Trouble(delay_s=0.3))
        assert (await asked(to)).endswith(BODY)
        to.disturb(Trouble(rate=len(BODY) / 0.3))
        assert (await asked(to)).endswith(BODY)
        assert trio.current_time() - begin >= 0.6


async def test_it_passes_after_so_many() -> None:
    async with line() as to:
        to.disturb(Trouble(in_head=Break.CUT, times=1))
        assert not (await asked(to)).endswith(BODY)
        assert (await asked(to)).endswith(BODY)


@pytest.mark.parametrize(("then", "passes"), [(NONE, True), (Trouble(in_head=Break.CUT), False)])
async def test_what_is_held_meets_what_comes_next(then: Trouble, passes: bool) -> None:
    """It goes on in the new trouble, or is broken off by it."""
    async with line() as to, await connected(to) as stream:
        to.disturb(Trouble(hold=True, after=100))
        held = await everything(stream)
        assert held.endswith(BODY[:100])
        to.disturb(then)
        with trio.fail_after(10):
            rest = b""
            while len(rest) < len(BODY) - 100 and (data := await stream.receive_some(65536)):
                rest += data
        assert rest == (BODY[100:] if passes else b"")


@pytest.mark.parametrize("silently", [False, True])
async def test_nobody_is_there_until_it_is_healed(silently: bool) -> None:
    async with line() as to:
        await to.leave(silently=silently)
        with pytest.raises((OSError, trio.TooSlowError)), trio.fail_after(0.5):
            await asked(to)
        await to.heal()
        assert (await asked(to)).endswith(BODY)
        assert to.seen == ["GET /fixed"]
