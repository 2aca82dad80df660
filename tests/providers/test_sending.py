"""Requests that change something: sent once, with their bodies, and what becomes of them when they fail."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from artifactfs import errors
from artifactfs.observe import Observer
from artifactfs.providers import one_request
from artifactfs.providers.bodies import PIECE_BYTES, Bytes, FileBody
from artifactfs.providers.http import HttpClient
from artifactfs.providers.limits import Budget
from tests.support.serving import serving

TOKEN = {"Authorization": "Bearer secret"}
LARGE = 5 * PIECE_BYTES + 17


class Keeper:
    """Keeps what it is sent, and answers with what it is told to."""

    def __init__(self, *answers: Response) -> None:
        self.answers = list(answers)
        self.seen: list[tuple[str, str, dict[str, str], int, str]] = []

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Not a route: what comes through a proxy has an address where others have a path.
        is_request = scope["type"] == "http"
        app = await self.answer(Request(scope, receive)) if is_request else Starlette()
        await app(scope, receive, send)

    async def answer(self, request: Request) -> Response:
        digest, length = hashlib.sha256(), 0
        try:
            async with contextlib.aclosing(request.stream()) as stream:
                async for piece in stream:
                    digest.update(piece)
                    length += len(piece)
        except ClientDisconnect:
            return Response(status_code=400)
        target = f"{request.method} {request.url.path}"
        self.seen.append((target, request.url.query, dict(request.headers), length, digest.hexdigest()))
        return self.answers.pop(0) if self.answers else JSONResponse({"length": length})


@asynccontextmanager
async def trial(*answers: Response, **options: object) -> AsyncIterator[tuple[HttpClient, Keeper]]:
    keeper = Keeper(*answers)
    async with serving(keeper.app) as running:
        client = HttpClient("work", f"{running.url}/v1", headers=TOKEN, **options)  # type: ignore[arg-type]  # a few of its own
        try:
            yield client, keeper
        finally:
            await client.aclose()


@asynccontextmanager
async def answering(answer: bytes, *, read_first: int, hold: bool) -> AsyncIterator[str]:
    """Answer after so many bytes of a request; then read nothing, and hang up unless ``hold``."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            left = read_first
            while left > 0 and (data := await stream.receive_some(left)):
                left -= len(data)
            await stream.send_all(answer)
            if hold:
                await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(bytes(range(256)) * (LARGE // 256) + b"x" * (LARGE % 256))
    return path


async def test_a_body_arrives_as_it_is(large: Path) -> None:
    """From memory or a file, with its length, and the connection is good for the next request."""
    wanted = hashlib.sha256(b"<" + large.read_bytes() + b">").hexdigest()
    observer = Observer()
    async with trial(observer=observer) as (client, keeper):
        body = FileBody(large, LARGE, before=b"<", behind=b">")
        reply = await client.send("POST", "/files", {"a": "1"}, body=body, headers={"Content-Type": "text/x"})
        await client.send("PUT", "/none", body=Bytes(b""))
        await client.send("DELETE", "/files/1", route="/files/{id}")
        assert (await client.get("/again")).status == 200
    assert reply.json() == {"length": LARGE + 2}
    first, second, third, _ = keeper.seen
    assert (*first[:2], *first[3:]) == ("POST /v1/files", "a=1", LARGE + 2, wanted)
    assert first[2]["content-type"] == "text/x"
    assert first[2]["content-length"] == str(LARGE + 2)
    assert {seen[2].get("authorization") for seen in (first, second, third)} == {"Bearer secret"}
    assert (second[0], second[3]) == ("PUT /v1/none", 0)
    assert third[0] == "DELETE /v1/files/1"
    assert observer.counters("work").by_route["DELETE /files/{id}"] == 1


async def test_through_a_proxy_too(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy is sent the body with its length."""
    keeper = Keeper()
    async with serving(keeper.app) as running:
        monkeypatch.setenv("HTTP_PROXY", running.url)
        client = HttpClient("work", "http://service.invalid/base")
        await client.send("PUT", "/x", body=FileBody(large, LARGE))
        await client.aclose()
    assert keeper.seen[0][2]["content-length"] == str(LARGE)
    assert keeper.seen[0][4] == hashlib.sha256(large.read_bytes()).hexdigest()


async def test_an_anonymous_one_carries_no_token() -> None:
    """Not even to the service's own address."""
    async with trial() as (client, keeper):
        await client.send("PUT", f"{client.base_url}/uploads/1?sig=x", body=Bytes(b"x"), anonymous=True)
    assert "authorization" not in keeper.seen[0][2]


@pytest.mark.parametrize(
    ("status", "kind"), [(500, errors.Unavailable), (503, errors.Unavailable), (429, errors.RateLimited)]
)
async def test_a_failure_is_not_tried_again(status: int, kind: type[errors.ArtifactFSError]) -> None:
    """Who asked may know what became of it; we do not."""
    async with trial(Response(status_code=status, headers={"Retry-After": "1"})) as (client, keeper):
        with pytest.raises(kind):
            await client.send("POST", "/files", body=Bytes(b"x"))
        assert len(keeper.seen) == 1


async def test_refusals_and_redirects_come_back_as_they_are() -> None:
    """A redirect would take the body, or leave it behind."""
    async with trial(Response(status_code=413), RedirectResponse("/elsewhere", 307)) as (client, keeper):
        assert (await client.send("POST", "/files", body=Bytes(b"x"))).status == 413
        assert (await client.send("POST", "/files", body=Bytes(b"x"))).status == 307
        assert len(keeper.seen) == 2


async def test_it_waits_for_the_budget() -> None:
    """A request that changes something counts like any other."""
    async with trial(budget=Budget(0.001, 1)) as (client, keeper):
        await client.send("DELETE", "/1")
        with pytest.raises(errors.QuotaExceeded):
            await client.send("DELETE", "/2")
        assert len(keeper.seen) == 1


@pytest.mark.parametrize("hold", [True, False], ids=["holds", "hangs up"])
async def test_a_refusal_before_the_body_is_heard(hold: bool, large: Path) -> None:
    """A server need not read what it refuses; its connection is not used again."""
    with large.open("ab") as file:
        file.truncate(64 << 20)
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
    async with answering(refusal, read_first=1000, hold=hold) as url:
        client = HttpClient("work", url)
        try:
            with trio.fail_after(15):
                try:
                    status = (await client.send("POST", "/f", body=FileBody(large, 64 << 20))).status
                except errors.Unavailable:
                    status = 413 if not hold else 0  # the reset may overtake the answer
            assert status == 413
            assert client._wire.sender.idle_count() == 0  # type: ignore[attr-defined]  # a pool, where no proxy is
        finally:
            await client.aclose()


async def test_words_before_the_answer_do_not_end_the_body(large: Path) -> None:
    """100 and 103 are no answers."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n")
            count = 0
            while count < LARGE:
                count += len(await stream.receive_some())
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        client = HttpClient("work", f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}")
        with trio.fail_after(15):
            assert (await client.send("PUT", "/f", body=FileBody(large, LARGE))).body == b"ok"
        await client.aclose()
        nursery.cancel_scope.cancel()


async def test_who_takes_nothing_is_not_waited_for(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A piece that is not taken in time ends the request."""
    monkeypatch.setattr(one_request, "READ_TIMEOUT_S", 0.2)
    monkeypatch.setattr(one_request, "MAX_DIGESTION_S", 0.0)
    with large.open("ab") as file:
        file.truncate(64 << 20)
    async with answering(b"", read_first=10, hold=True) as url:
        client = HttpClient("work", url)
        with pytest.raises(errors.TimedOut), trio.fail_after(15):
            await client.send("PUT", "/f", body=FileBody(large, 64 << 20))
        await client.aclose()


async def test_nothing_goes_over_a_connection_that_may_be_dead() -> None:
    """What must not be sent twice is not sent where nobody could tell whether it arrived."""
    async with trial() as (client, keeper):
        await client.get("/warm")
        await client.send("POST", "/files", body=Bytes(b"x"))
        pool = client._wire.sender
        assert pool.idle_count() == 2  # type: ignore[attr-defined]  # a pool, where no proxy is
        assert [seen[0] for seen in keeper.seen] == ["GET /v1/warm", "POST /v1/files"]


@pytest.mark.parametrize("change", ["gone", "shorter"])
async def test_a_file_that_is_not_what_it_was_is_not_sent(change: str, large: Path) -> None:
    """The server never sees the end of it."""
    async with trial() as (client, keeper):
        if change == "gone":
            large.unlink()
        else:
            large.write_bytes(b"short")
        with pytest.raises(errors.CorruptContent):
            await client.send("POST", "/files", body=FileBody(large, LARGE, behind=b"end"))
        assert (await client.get("/next")).status == 200
        assert [seen[0] for seen in keeper.seen] == ["GET /v1/next"]
