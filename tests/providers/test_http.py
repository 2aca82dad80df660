"""The transport against real servers: retries, deadlines, redirects, and where the token goes."""

from __future__ import annotations

import gzip
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from functools import partial
from typing import Any

import httpx
import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from artifactfs import errors
from artifactfs.model.limits import ANSWERS, AnswerLimits
from artifactfs.observe import Observer
from artifactfs.providers import http as transport
from artifactfs.providers import one_request
from artifactfs.providers.http import HttpClient, StreamReply
from artifactfs.providers.limits import Budget
from artifactfs.providers.messages import retry_after_s
from artifactfs.providers.targets import Gate
from tests.support.serving import serving

TOKEN = {"Authorization": "Bearer secret"}


class Endless(Response):
    """A body that goes on for as long as the client listens."""

    def __init__(self, chunk: bytes, *, every_s: float = 0) -> None:
        super().__init__()
        self.chunk, self.every_s = chunk, every_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, receive, nursery.cancel_scope)
            while True:
                await send({"type": "http.response.body", "body": self.chunk, "more_body": True})
                await trio.sleep(self.every_s)

    async def _watch(self, receive: Receive, scope: trio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()


class Script:
    """Answers every path with the next of its answers, the last one for ever; keeps what it was asked."""

    def __init__(self, *answers: Response | Callable[[Request], Response]) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []
        self.times: list[float] = []
        self.app = Starlette(routes=[Route("/{path:path}", self.answer)])

    async def answer(self, request: Request) -> Response:
        self.requests.append(request)
        self.times.append(time.monotonic())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer if isinstance(answer, Response) else answer(request)


@asynccontextmanager
async def client_at(url: str, **options: Any) -> AsyncIterator[HttpClient]:
    client = HttpClient("work", url, **options)
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def raw_server(answer: bytes, *, hold_s: float = 0) -> AsyncIterator[str]:
    """Serve these very bytes to every connection, then close it after ``hold_s`` seconds."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(answer)
            await trio.sleep(hold_s)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@pytest.fixture
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry after hundredths of seconds."""
    monkeypatch.setattr(transport, "BACKOFF_FIRST_S", 0.01)


async def body_of(reply: StreamReply) -> bytes:
    return b"".join([chunk async for chunk in reply.chunks])


# -- retries -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_hurried")
@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_failures_that_pass_are_retried(status: int) -> None:
    """And are not shown to the caller."""
    script = Script(Response("", status), Response("", status), JSONResponse({"ok": True}))
    async with serving(script.app) as at, client_at(at.url) as client:
        assert (await client.get("/x")).json() == {"ok": True}
    assert len(script.requests) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 413, 422, 501])
async def test_answers_that_stay_the_same_are_not_retried(status: int) -> None:
    """They are the caller's to judge."""
    script = Script(Response("no", status))
    async with serving(script.app) as at, client_at(at.url) as client:
        reply = await client.get("/x")
        assert (reply.status, reply.body) == (status, b"no")
    assert len(script.requests) == 1


@pytest.mark.usefixtures("_hurried")
async def test_a_failure_that_stays_is_raised_after_five_tries() -> None:
    """With status and request id, and is counted and kept as an incident without the query."""
    script = Script(Response("", 503, headers={"X-Request-Id": "req_7"}))
    observer = Observer()
    async with serving(script.app) as at, client_at(at.url, observer=observer) as client:
        with pytest.raises(errors.Unavailable) as caught:
            await client.get("/x", {"secret": "1"}, route="/x")
    assert (caught.value.status, caught.value.request_id) == (503, "req_7")
    assert len(script.requests) == transport.MAX_TRIES
    counters = observer.counters("work")
    assert (counters.requests, counters.failures) == (5, 1)
    assert counters.by_route == {"GET /x": 5}
    assert "secret" not in observer.incidents[0].subject


async def test_retry_after_is_waited_for() -> None:
    """At least as long as the service asked."""
    script = Script(Response("", 429, headers={"Retry-After": "1"}), JSONResponse({}))
    async with serving(script.app) as at, client_at(at.url) as client:
        await client.get("/x")
    assert 1.0 <= script.times[1] - script.times[0] < 3.0


async def test_a_pause_beyond_the_deadline_is_an_error_at_once() -> None:
    """It says how long the service wants to be left alone."""
    script = Script(Response("", 429, headers={"Retry-After": "3600"}))
    async with serving(script.app) as at, client_at(at.url) as client:
        before = time.monotonic()
        with pytest.raises(errors.RateLimited) as caught:
            await client.get("/x")
        assert time.monotonic() - before < 2
    assert caught.value.retry_after_s == 3600
    assert len(script.requests) == 1


def test_retry_after_is_read_in_both_forms() -> None:
    """Seconds, an HTTP date, and nothing of what is neither."""
    for value, low, high in (("7", 7, 7), (formatdate(time.time() + 60, usegmt=True), 50, 61), (formatdate(0), 0, 0)):
        seconds = retry_after_s(httpx.Headers({"Retry-After": value}))
        assert seconds is not None
        assert low <= seconds <= high
    for value in (
        "",
        "soon",
        "²",
        "-1",
        "9" * 5000,
        "Mon, 99 Foo 99999999 99:99:99 GMT",
        "Tue, 01 Jan 0000 00:00:00 GMT",
    ):
        assert retry_after_s(httpx.Headers([(b"Retry-After", value.encode())])) in {None, 0.0}


async def test_retries_end_with_the_deadline() -> None:
    """However many tries would be left."""
    script = Script(Response("", 500))
    async with serving(script.app) as at, client_at(at.url, deadline_s=0.5) as client:
        before = time.monotonic()
        with pytest.raises(errors.Unavailable):
            await client.get("/x")
        assert time.monotonic() - before < 1.5


def test_pauses_grow_and_differ() -> None:
    """Full jitter: anything from nothing to the cap, so that clients do not come back in step."""
    for attempt in range(1, 10):
        pauses = {HttpClient._pause_s(attempt, None) for _ in range(50)}
        top = min(transport.BACKOFF_CAP_S, transport.BACKOFF_FIRST_S * 2**attempt)
        assert len(pauses) > 10
        assert all(0 <= pause <= top for pause in pauses)
    assert all(5 <= HttpClient._pause_s(3, 5.0) <= 7 for _ in range(50))


async def test_the_budget_is_kept() -> None:
    """A request that would have to wait longer than the deadline is not sent."""
    script = Script(JSONResponse({}))
    async with serving(script.app) as at, client_at(at.url, budget=Budget(0.001, 2), deadline_s=1) as client:
        await client.get("/x")
        await client.get("/x")
        with pytest.raises(errors.QuotaExceeded):
            await client.get("/x")
    assert len(script.requests) == 2


# -- connections that fail ---------------------------------------------------------------------------------------


async def test_a_port_nobody_listens_at_is_unreachable() -> None:
    """Within a second, not after all tries."""
    async with raw_server(b"") as url:
        pass
    async with client_at(url) as client:
        before = time.monotonic()
        with pytest.raises(errors.Unreachable):
            await client.get("/x")
        assert time.monotonic() - before < 2


async def test_a_name_nobody_has_is_unreachable() -> None:
    """RFC 2606 keeps .invalid free."""
    async with client_at("http://artifactfs.invalid") as client:
        with pytest.raises(errors.Unreachable):
            await client.get("/x")


async def test_a_server_that_never_answers_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection and says nothing."""
    monkeypatch.setattr(one_request, "READ_TIMEOUT_S", 0.2)
    async with raw_server(b"", hold_s=30) as url, client_at(url, deadline_s=0.5) as client:
        with pytest.raises(errors.TimedOut):
            await client.get("/x")


async def test_a_body_that_drips_times_out() -> None:
    """Each byte comes in time, the whole would not."""
    script = Script(Endless(b"x", every_s=0.05))
    async with serving(script.app) as at, client_at(at.url, deadline_s=0.5) as client:
        before = time.monotonic()
        with pytest.raises(errors.TimedOut):
            await client.get("/x")
        assert time.monotonic() - before < 3


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this", id="length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", id="chunked"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n", id="broken chunk"),
    ],
)
@pytest.mark.usefixtures("_hurried")
async def test_a_body_cut_short_is_never_whole(answer: bytes) -> None:
    """Neither as a stream nor as an answer."""
    async with raw_server(answer) as url, client_at(url) as client:
        with pytest.raises(errors.Unavailable):
            await client.get("/x")
        with pytest.raises(errors.Unavailable):
            async with client.stream("/x") as reply:
                await body_of(reply)


# httpx leaves its raw stream unfinished when its decoder fails.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.usefixtures("_hurried")
async def test_a_body_that_does_not_decode_is_never_whole() -> None:
    """An encoding that was not asked for, and is none."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello"
    async with raw_server(answer) as url, client_at(url) as client:
        with pytest.raises(errors.Unavailable):
            await client.get("/x")


@pytest.mark.usefixtures("_hurried")
@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nx"])
async def test_what_is_no_http_is_unavailable(answer: bytes) -> None:
    """After retries, as the server may be restarting."""
    async with raw_server(answer) as url, client_at(url) as client:
        with pytest.raises(errors.Unavailable):
            await client.get("/x")


async def test_an_endless_answer_is_given_up() -> None:
    """Beyond the limit for metadata, before memory is full."""
    script = Script(Endless(bytes(1 << 16)))
    limits = AnswerLimits(max_answer_bytes=1 << 20)
    async with serving(script.app) as at, client_at(at.url, answer_limits=limits) as client:
        with pytest.raises(errors.ProviderMisbehaved, match=r"larger than limits\.max-answer = 1048576 bytes"):
            await client.get("/x")


# -- redirects ---------------------------------------------------------------------------------------------------


async def test_the_token_stays_at_home() -> None:
    """Sent to the configured origin, not to another port or name of the same machine."""
    elsewhere = Script(JSONResponse({"here": "elsewhere"}))
    async with serving(elsewhere.app) as other:
        script = Script(RedirectResponse(f"{other.url}/y?a=b", 302))
        async with serving(script.app) as at, client_at(at.url, headers=TOKEN) as client:
            reply = await client.get("/x", {"q": "1"}, headers={"Range": "bytes=1-"})
            assert reply.json() == {"here": "elsewhere"}
            assert reply.url == f"{other.url}/y?a=b"
    assert script.requests[0].headers["authorization"] == "Bearer secret"
    assert "authorization" not in elsewhere.requests[0].headers
    assert elsewhere.requests[0].headers["range"] == "bytes=1-"
    assert "q" not in elsewhere.requests[0].query_params


async def test_the_token_comes_along_at_home_but_not_beside_a_signature() -> None:
    """A presigned link on the same origin is refused by S3-type stores if a token comes with it."""
    script = Script(
        RedirectResponse("/y", 307), RedirectResponse("/z?X-Amz-Signature=1", 302), JSONResponse({"path": "/z"})
    )
    async with serving(script.app) as at, client_at(at.url, headers=TOKEN) as client:
        await client.get("/x")
    assert ["authorization" in request.headers for request in script.requests] == [True, True, False]


async def test_an_authored_address_gets_no_token_at_all() -> None:
    """Not even at home: an agent wrote it."""
    script = Script(JSONResponse({}))
    async with (
        serving(script.app) as at,
        client_at(at.url, headers=TOKEN) as client,
        client.stream(f"{at.url}/y", authored=True) as reply,
    ):
        await body_of(reply)
    assert "authorization" not in script.requests[0].headers


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://example.com/x",
        "javascript:alert(1)",
        "gopher://127.0.0.1/",
        "http://10.0.0.1/x",
        "http://192.168.1.1/x",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00::1]/x",
        "http://[::ffff:10.0.0.1]/x",
        "http://0.0.0.0:1/x",
        "http://x:99999/",
    ],
)
async def test_redirects_that_lead_astray_are_refused(location: str) -> None:
    """Other schemes, private networks the service is not in, and what is no address."""
    script = Script(Response("", 302, headers={"Location": location}))
    async with serving(script.app) as at, client_at(at.url) as client:
        with pytest.raises(errors.ProviderMisbehaved):
            await client.get("/x")
    assert len(script.requests) == 1


@pytest.mark.usefixtures("_hurried")
@pytest.mark.parametrize(
    "location", ["http://", "http://[/x", "http://x:port/", "http:///nohost", "//", "http://%00/", "\xff"]
)
async def test_redirects_to_no_address_are_errors(location: str) -> None:
    """Of ours, whatever the header holds."""
    script = Script(Response("", 302, headers={"Location": location}))
    async with serving(script.app) as at, client_at(at.url) as client:
        with pytest.raises((errors.ProviderMisbehaved, errors.Unavailable, errors.Unreachable)):
            await client.get("/x")


async def test_a_public_service_leads_to_no_private_address() -> None:
    """Nor from https to http, nor by a name that resolves to this machine; unless that is allowed."""
    gate = Gate("https://1.1.1.1", allow_private=False)
    for goal in ("https://127.0.0.1/x", "https://10.1.2.3/", "https://localhost/x", "https://[::1]/"):
        with pytest.raises(errors.ProviderMisbehaved):
            await gate.check(goal, came_from="https://1.1.1.1/x")
    with pytest.raises(errors.ProviderMisbehaved, match="https to http"):
        await gate.check("http://8.8.8.8/x", came_from="https://8.8.8.8/x")
    await gate.check("https://8.8.8.8/x", came_from="https://1.1.1.1/x")
    allowed = Gate("https://1.1.1.1", allow_private=True)
    await allowed.check("https://10.1.2.3/", came_from="https://1.1.1.1/x")
    with pytest.raises(errors.ProviderMisbehaved, match="https to http"):
        await allowed.check("http://10.1.2.3/", came_from="https://1.1.1.1/x")


async def test_redirects_end() -> None:
    """A loop is misbehaviour after five, and is not tried again."""
    script = Script(RedirectResponse("/x", 302))
    async with serving(script.app) as at, client_at(at.url) as client:
        with pytest.raises(errors.ProviderMisbehaved, match="redirects"):
            await client.get("/x")
    assert len(script.requests) == ANSWERS.max_redirects + 1


async def test_a_redirect_can_be_looked_at_instead() -> None:
    """For those who only want to know where it leads; one without a Location is an answer like any other."""
    script = Script(RedirectResponse("/y", 302), Response("", 302))
    async with serving(script.app) as at, client_at(at.url) as client:
        async with client.stream("/x", follow=False) as reply:
            assert (reply.status, reply.headers["location"]) == (302, "/y")
        assert (await client.get("/x")).status == 302


# -- what is said of the body ------------------------------------------------------------------------------------


async def test_lengths_are_of_the_bytes_that_come() -> None:
    """Identity is asked for; an encoding that comes nevertheless is undone, and its length is not believed."""
    script = Script(Response(b"hello"), Response(gzip.compress(b"hello"), headers={"Content-Encoding": "gzip"}))
    async with serving(script.app) as at, client_at(at.url) as client:
        async with client.stream("/x") as reply:
            assert reply.length == 5
            assert await body_of(reply) == b"hello"
        async with client.stream("/x") as reply:
            assert reply.length is None
            assert await body_of(reply) == b"hello"
    assert script.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes 5-9/20", (5, 20)),
        ("bytes 5-9/*", (5, None)),
        ("bytes */20", None),
        ("lines 5-9/20", None),
        ("", None),
        ("bytes ²-9/20", None),
        ("bytes 5-9/" + "9" * 5000, (5, None)),
        ("bytes " + "9" * 5000 + "-9/20", None),
    ],
)
def test_a_content_range_is_read_or_not_there(header: str, expected: object) -> None:
    """Hostile ones included."""
    reply = StreamReply(206, {"content-range": header, "content-length": "²"}, "http://x", _nothing())
    assert reply.content_range() == expected
    assert reply.length is None


async def _nothing() -> AsyncIterator[bytes]:
    yield b""


async def test_json_that_is_none_says_so_without_the_query() -> None:
    """What is shown of an address never holds a secret."""
    script = Script(Response("<html>", media_type="text/html"))
    async with serving(script.app) as at, client_at(at.url) as client:
        reply = await client.get("/x", {"key": "secret"})
        with pytest.raises(errors.ProviderMisbehaved) as caught:
            reply.json()
        assert "secret" not in caught.value.subject + str(caught.value) + repr(client)


async def test_connections_come_back_when_a_reader_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams that are left in the middle do not use up the pool."""
    monkeypatch.setattr(one_request, "MAX_CONNECTIONS", 2)
    script = Script(Endless(bytes(1 << 14)))
    async with serving(script.app) as at, client_at(at.url) as client:
        for _ in range(6):
            async with client.stream("/x") as reply:
                async for _chunk in reply.chunks:
                    break
