"""Connections against servers that do everything wrong: what comes is right and whole, or an error."""

from __future__ import annotations

import gzip
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import h11
import pytest
import trio
import trio.testing

from artifactfs import errors
from artifactfs.providers import connections, one_request, proxied, wire
from artifactfs.providers.connections import MAX_HEAD, WARM, Pool
from artifactfs.providers.http import HttpClient
from artifactfs.providers.limits import Lane, background
from artifactfs.providers.slots import Slots
from artifactfs.providers.wire import BrokenError, NotConnectedError, Outgoing, TooSlowError, UnspeakableError

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"

Answer = bytes | Callable[[trio.abc.Stream], Awaitable[None]]


@dataclass
class Server:
    """Answers requests with scripted bytes, the last of them for ever.

    Attributes:
        answers: what to say to each request; a function may do what it likes with the stream.
        heads: the requests as they came.
        opened: connections that were made.
    """

    answers: list[Answer]
    heads: list[bytes] = field(default_factory=list)
    opened: int = 0
    url: str = ""
    closing: bool = False

    async def handle(self, stream: trio.abc.Stream) -> None:
        self.opened += 1
        buffer = b""
        async with stream:
            while True:
                while b"\r\n\r\n" not in buffer:
                    data = await stream.receive_some()
                    if not data:
                        return
                    buffer += data
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                self.heads.append(head)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if not isinstance(answer, bytes):
                    await answer(stream)
                    return
                await stream.send_all(answer)
                if self.closing:
                    return


@asynccontextmanager
async def served(*answers: Answer, closing: bool = False) -> AsyncIterator[Server]:
    server = Server(list(answers), closing=closing)

    async def handle(stream: trio.SocketStream) -> None:
        try:
            await server.handle(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        server.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        yield server
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def pool_of(limit: int = 8) -> AsyncIterator[Pool]:
    pool = Pool(limit)
    try:
        yield pool
    finally:
        await pool.aclose()


def outgoing(url: str, headers: dict[str, str] | None = None, *, read_s: float = 5, slot_s: float = 5) -> Outgoing:
    return Outgoing(url, headers or {}, None, slot_s, 5, read_s)


async def asked(pool: Pool, url: str, *, read_s: float = 5) -> tuple[int, bytes]:
    answer = await pool.send(outgoing(url, read_s=read_s))
    try:
        return answer.status, b"".join([chunk async for chunk in answer.chunks()])
    finally:
        await answer.aclose()


# -- what is right -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "body", "again"),
    [
        (OK, b"hello", True),
        (CHUNKED + b"\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nT: x\r\n\r\n", b"hello", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK, b"hello", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", b"hello", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", b"hello", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n", b"hello", False),
        (CHUNKED + b"Content-Length: 2\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello", None),
    ],
    ids=["length", "chunked", "204", "empty", "early hints", "same length twice", "close", "1.0", "more than it says",
         "both framings"],
)  # fmt: skip
async def test_bodies_end_where_they_should(answer: bytes, body: bytes, again: bool | None) -> None:
    """And the connection is used again exactly if nothing speaks against it."""
    async with served(answer) as server, pool_of() as pool:
        for _ in range(3):
            assert (await asked(pool, server.url))[1] == body
            await trio.sleep(0.01)  # what stands behind an answer is here by then
        assert again is None or server.opened == (1 if again else 3)
        assert pool.slots.busy == 0


async def test_a_body_without_a_length_ends_with_the_connection() -> None:
    """As in HTTP/1.0."""
    async with served(b"HTTP/1.1 200 OK\r\n\r\nhello", closing=True) as server, pool_of() as pool:
        assert await asked(pool, server.url) == (200, b"hello")


async def test_what_is_sent_is_what_was_asked() -> None:
    """Path and query as they are, without the fragment; spaces and letters quoted; Host without user or password."""
    async with served(OK) as server, pool_of() as pool:
        for path in ("", "/a%2Fb?x=%C3%A9&y=a+b;c#fragment", "/ä b?q=ü"):
            await asked(pool, server.url.replace("//", "//user:password@") + path)
    assert [head.split(b"\r\n")[0] for head in server.heads] == [
        b"GET / HTTP/1.1", b"GET /a%2Fb?x=%C3%A9&y=a+b;c HTTP/1.1", b"GET /%C3%A4%20b?q=%C3%BC HTTP/1.1",
    ]  # fmt: skip
    assert {head.split(b"\r\n")[1] for head in server.heads} == {b"Host: " + server.url[7:].encode()}
    assert b"password" not in b"".join(server.heads)


async def test_headers_come_by_lower_case_names_and_joined() -> None:
    """Whatever their bytes."""
    answer = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nx-a: 2\r\nX-B: \xc3\xa4\r\nX-C: \xe4\r\nContent-Length: 0\r\n\r\n"
    async with served(answer) as server, pool_of() as pool:
        reply = await pool.send(outgoing(server.url))
        await reply.aclose()
        assert dict(reply.headers) == {"x-a": "1, 2", "x-b": "ä", "x-c": "ä", "content-length": "0"}


# -- what is wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 40 + b"\r\nhello",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * (2 * MAX_HEAD) + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * MAX_HEAD + b"\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\x00c\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n B: folded first\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
        b"HTTP/1.1 200 OK",
        b"SSH-2.0-OpenSSH_9\r\n",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"<html>",
        b"",
    ],
)  # fmt: skip
async def test_what_is_wrong_is_an_error(answer: bytes) -> None:
    """Never a body that is short, long or made up; and nothing of it is left over for the next request."""
    async with served(answer, OK, closing=True) as server, pool_of() as pool:
        with pytest.raises(BrokenError):
            await asked(pool, server.url)
        assert pool.idle_count() == 0
        assert pool.slots.busy == 0
        assert await asked(pool, server.url) == (200, b"hello")


@pytest.mark.parametrize(
    "piece", [b"H", b"HTTP/1.1 200 OK\r\nA: b\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"]
)
async def test_a_server_that_stops_in_the_middle_times_out(piece: bytes) -> None:
    """In the head and in the body; the connection is not used again."""

    async def stops(stream: trio.abc.Stream) -> None:
        await stream.send_all(piece)
        await trio.sleep_forever()

    async with served(stops) as server, pool_of() as pool:
        with pytest.raises(TooSlowError):
            await asked(pool, server.url, read_s=0.1)
        assert (pool.idle_count(), pool.slots.busy) == (0, 0)


async def test_a_head_that_drips_ends_with_the_deadline() -> None:
    """Each byte comes in time, the head never."""

    async def drips(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            await stream.send_all(b"y")
            await trio.sleep(0.02)

    async with served(drips) as server:
        client = HttpClient("work", server.url, deadline_s=0.4)
        begin = time.monotonic()
        with pytest.raises(errors.TimedOut):
            await client.get("/x")
        assert time.monotonic() - begin < 5
        await client.aclose()


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\x00b", " a", "ä"])
async def test_a_header_that_would_be_two_is_not_sent(value: str) -> None:
    """Nor quoted in the error: it can be the token."""
    async with served(OK) as server, pool_of() as pool:
        with pytest.raises(UnspeakableError) as caught:
            await pool.send(outgoing(server.url, {"Authorization": value}))
        assert value not in f"{caught.value} {caught.value.__cause__}"
        await asked(pool, server.url + "/\r\nX-Evil:1")
    assert not any(b"evil" in line.lower() for head in server.heads for line in head.split(b"\r\n")[1:])


@pytest.mark.parametrize("url", ["http://", "http://[x/", "http://h:port/", "http://" + "ä" * 100 + "/"])
async def test_an_address_that_is_none_is_a_value_error(url: str) -> None:
    """Or misbehaviour of who named it; no slot is lost."""
    async with pool_of() as pool:
        with pytest.raises((ValueError, NotConnectedError, errors.ProviderMisbehaved)):
            await pool.send(outgoing(url))
        assert pool.slots.busy == 0


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b"no gzip"),
        ("gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03K"),
        ("gzip", gzip.compress(b"hello") + b"and more"),
        ("gzip", gzip.compress(b"") * 5000),
        ("br", b"hello"),
        ("rot13", b"x"),
    ],
)
async def test_an_encoding_that_cannot_be_undone_is_an_error(encoding: str, body: bytes) -> None:
    """Never the bytes as they came: nobody asked for an encoding."""
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
    async with served(head.encode() + body) as server, pool_of() as pool:
        with pytest.raises(BrokenError):
            await asked(pool, server.url)


@pytest.mark.parametrize("padding", [b"", bytes(9)])
async def test_all_parts_of_an_encoded_body_are_its_content(padding: bytes) -> None:
    """The first of several that were compressed one by one is not the whole, wherever the pieces are cut.

    Zeros behind the last one are none of it.
    """
    body = b"".join(map(gzip.compress, (b"hel", b"", b"lo"))) + padding

    async def in_drops(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n")
        for byte in body:
            await stream.send_all(b"1\r\n%c\r\n" % byte)
        await stream.send_all(b"0\r\n\r\n")

    whole = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with served(whole, in_drops) as server, pool_of() as pool:
        for _ in range(2):
            assert await asked(pool, server.url) == (200, b"hello")


# -- connections -------------------------------------------------------------------------------------------------


async def test_a_server_that_hung_up_meanwhile_is_asked_anew() -> None:
    """Whether the end came while the connection was idle, or as we asked: the caller does not notice."""

    async def hangs_up(stream: trio.abc.Stream) -> None:
        await stream.aclose()

    async with served(OK, hangs_up, OK) as server, pool_of() as pool:
        for _ in range(2):  # the second finds the connection open, and is hung up on
            assert await asked(pool, server.url) == (200, b"hello")
        assert (len(server.heads), server.opened) == (3, 2)
        await trio.testing.wait_all_tasks_blocked(0.01)  # the server waits for the next request
        server.closing = True
        await asked(pool, server.url)
        await trio.sleep(0.05)
        await asked(pool, server.url)
        assert (len(server.heads), server.opened) == (5, 3)


async def test_a_server_that_always_hangs_up_is_asked_twice_at_most() -> None:
    """Once on the old connection, once on a new one."""

    async def hangs_up(stream: trio.abc.Stream) -> None:
        await stream.aclose()

    async with served(OK, hangs_up) as server, pool_of() as pool:
        await asked(pool, server.url)
        with pytest.raises(BrokenError):
            await asked(pool, server.url)
        assert len(server.heads) == 3


async def test_an_answer_to_no_question_ends_the_connection() -> None:
    """Bytes that came while it was idle are nobody's answer."""

    async def twice(stream: trio.abc.Stream) -> None:
        await stream.send_all(OK)
        await trio.sleep(0.02)
        await stream.send_all(OK.replace(b"hello", b"false"))
        await trio.sleep_forever()

    async with served(twice, OK) as server, pool_of() as pool:
        await asked(pool, server.url)
        await trio.sleep(0.1)
        assert await asked(pool, server.url) == (200, b"hello")
        assert server.opened == 2


async def test_a_body_left_early_is_not_read_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is given up with what is still on its way."""
    monkeypatch.setattr(connections, "HEAD_BYTES", 100)
    big = b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n" + bytes(500_000)
    async with served(big, OK) as server, pool_of() as pool:
        answer = await pool.send(outgoing(server.url))
        chunks = answer.chunks()
        assert await anext(chunks)
        await chunks.aclose()
        await answer.aclose()
        await answer.aclose()
        assert (pool.idle_count(), pool.slots.busy) == (0, 0)
        assert await asked(pool, server.url) == (200, b"hello")


async def test_the_newest_connection_is_used_and_old_ones_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a burst a few stay warm, and none longer than it makes sense."""
    async with served(OK) as server, pool_of(32) as pool:
        async with trio.open_nursery() as nursery:
            for _ in range(24):
                nursery.start_soon(asked, pool, server.url)
        assert pool.idle_count() == server.opened <= 24
        monkeypatch.setattr(connections, "PAUSE_S", 0.0)
        for _ in range(24):
            await asked(pool, server.url)
        assert pool.idle_count() <= WARM + 1
        opened = server.opened
        monkeypatch.setattr(connections, "KEEPALIVE_S", 0.0)
        await trio.sleep(0.01)
        await asked(pool, server.url)
        assert server.opened == opened + 1
        assert pool.idle_count() == 1


async def test_many_hosts_share_the_limit() -> None:
    """Links lead anywhere: what is idle there makes room."""
    async with pool_of(3) as pool, served(OK) as one, served(OK) as two, served(OK) as three, served(OK) as four:
        for server in (one, two, three, four, one):
            assert await asked(pool, server.url) == (200, b"hello")
        assert pool.idle_count() <= 3
        assert one.opened == 2


async def test_cancelled_anywhere_nothing_is_lost() -> None:
    """While it waits for a slot, connects, sends, and at any byte of head and body: slots and connections come back."""

    async def slowly(stream: trio.abc.Stream) -> None:
        for byte in OK:
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.0005)
        await trio.sleep_forever()

    async with served(slowly) as server, pool_of(2) as pool:

        async def ask_for(seconds: float) -> None:
            with trio.move_on_after(seconds):
                await asked(pool, server.url)

        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(ask_for, number * 0.002)
        assert pool.slots.busy == 0
        assert pool.idle_count() <= 2
        assert await asked(pool, server.url) == (200, b"hello")


async def test_who_waits_for_a_slot_too_long_is_told() -> None:
    """All connections are busy."""
    async with served(OK) as server, pool_of(1) as pool:
        answer = await pool.send(outgoing(server.url))
        with pytest.raises(TooSlowError):
            await pool.send(outgoing(server.url, slot_s=0.05))
        await answer.aclose()
        assert await asked(pool, server.url) == (200, b"hello")


async def test_closing_leaves_nothing_open() -> None:
    """What is idle at once, what is in use when it ends."""
    async with served(OK) as server:
        pool = Pool(4)
        await asked(pool, server.url)
        answer = await pool.send(outgoing(server.url))
        await pool.aclose()
        await answer.aclose()
        await pool.aclose()
        assert pool.idle_count() == 0
        assert "0 idle" in repr(pool)


# -- lanes -------------------------------------------------------------------------------------------------------


async def test_the_background_leaves_slots_to_the_foreground(nursery: trio.Nursery) -> None:
    """Also those that come back go to who waits in a system call first; a waiter that gives up is skipped."""
    slots, got = Slots(4, 1), []

    async def take(lane: Lane, name: str) -> None:
        await slots.take(lane)
        got.append(name)

    for _ in range(4):
        nursery.start_soon(take, Lane.BACKGROUND, "b")
    await trio.testing.wait_all_tasks_blocked()
    assert (got, slots.busy) == (["b"] * 3, 3)
    await take(Lane.FOREGROUND, "f0")
    with trio.move_on_after(0.01):
        await slots.take(Lane.FOREGROUND)
    nursery.start_soon(take, Lane.FOREGROUND, "f1")
    await trio.testing.wait_all_tasks_blocked()
    slots.give()
    await trio.testing.wait_all_tasks_blocked()
    assert got[3:] == ["f0", "f1"]
    slots.give()
    await trio.testing.wait_all_tasks_blocked()
    assert got[3:] == ["f0", "f1"]  # four less one are three: the last slot is not for the background
    slots.give()
    await trio.testing.wait_all_tasks_blocked()
    assert got[5:] == ["b"]
    assert "3 of 4 in use" in repr(slots)


async def test_no_kind_of_question_takes_all_slots(nursery: trio.Nursery) -> None:
    """Content that hangs leaves connections to lists; and those who wait for it get theirs, kind by kind in turn."""
    slots, got = Slots(16), []

    async def take(kind: str) -> None:
        await slots.take(Lane.FOREGROUND, kind)
        got.append(kind)

    for _ in range(20):
        nursery.start_soon(take, "content")
    await trio.testing.wait_all_tasks_blocked()
    assert got == ["content"] * 14
    with trio.fail_after(1):
        await take("list")
        await take("list")
    for _ in range(2):
        nursery.start_soon(take, "list")
    await trio.testing.wait_all_tasks_blocked()
    assert slots.gauges() == {"pool_slots": 16, "pool_slots_busy": 16, "pool_waiting": 8}
    for kind in ("list", "content", "content"):
        slots.give(kind)
        await trio.testing.wait_all_tasks_blocked()
    assert got[16:] == ["list", "content", "list"]
    for kind in ["list"] * 3 + ["content"] * 13:
        slots.give(kind)
    await trio.testing.wait_all_tasks_blocked()
    assert got[19:] == ["content"] * 5
    for _ in range(5):
        slots.give("content")
    assert slots.busy == 0
    assert repr(slots) == "<Slots 0 of 16 in use, waiting: 0 foreground, 0 publishing, 0 background>"
    with trio.fail_after(1):
        await take("content")


async def test_requests_take_the_lane_of_their_task() -> None:
    """Prefetch that fills all connections does not stop a reader."""
    async with served(OK) as server, pool_of(4) as pool:
        with background():
            held = [await pool.send(outgoing(server.url)) for _ in range(3)]
            with pytest.raises(TooSlowError):
                await pool.send(outgoing(server.url, slot_s=0.05))
        assert await asked(pool, server.url) == (200, b"hello")
        for answer in held:
            await answer.aclose()


# -- TLS and proxies ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a key and a certificate for localhost, signed by itself."""
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", f"{path}", "-out", f"{path}.crt"]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@asynccontextmanager
async def served_by_tls(certificate: Path, answers: Sequence[bytes]) -> AsyncIterator[Server]:
    server, context = Server(list(answers)), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def handle(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await server.handle(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return

    serve = partial(trio.serve_ssl_over_tcp, handle, 0, context, host="127.0.0.1", https_compatible=True)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(serve)
        port = listeners[0].transport_listener.socket.getsockname()[1]
        server.url = f"https://localhost:{port}"
        yield server
        nursery.cancel_scope.cancel()


async def test_tls_carries_bodies_and_connections_are_kept(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a certificate that the environment trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    big = b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + bytes(3_000_000)
    async with served_by_tls(certificate, [OK, big, OK]) as server, pool_of() as pool:
        for length in (5, 3_000_000, 5):
            assert len((await asked(pool, server.url))[1]) == length
        assert server.opened == 1


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
async def test_a_certificate_that_is_not_trusted_is_no_connection(
    certificate: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown, or of another name; nothing is sent."""
    if name != "localhost":
        monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    async with served_by_tls(certificate, [OK]) as server, pool_of() as pool:
        with pytest.raises(NotConnectedError, match="certificate"):
            await asked(pool, server.url.replace("localhost", name))
        assert server.heads == []
        assert pool.slots.busy == 0


async def test_an_end_without_words_is_not_the_end_of_a_body(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection cut under TLS cuts the body, whatever its framing."""
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    short = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"
    async with served_by_tls(certificate, [short]) as server, pool_of() as pool:
        server.closing = True
        with pytest.raises(BrokenError):
            await asked(pool, server.url)


async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for the whole address; without one httpx is not even imported."""
    async with served(OK) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        client = HttpClient("work", "http://service.invalid/base")
        assert isinstance(client._wire.sender, proxied.Proxied)
        assert (await client.get("/x")).body == b"hello"
        await client.aclose()
        assert proxy.heads[0].startswith(b"GET http://service.invalid/base/x HTTP/1.1")
        monkeypatch.delenv("HTTP_PROXY")
        monkeypatch.setenv("NO_PROXY", "localhost")
        assert isinstance(one_request._sender(), Pool)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"])
async def test_failures_through_a_proxy_are_the_same(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken is broken, nobody there is nobody there."""
    async with served(answer, closing=True) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        sender = proxied.Proxied(2)
        with pytest.raises(BrokenError):
            reply = await sender.send(outgoing("http://service.invalid/"))
            async for _ in reply.chunks():
                pass
        await sender.aclose()
    monkeypatch.setenv("HTTP_PROXY", proxy.url)  # nobody listens there now
    sender = proxied.Proxied(2)
    with pytest.raises(NotConnectedError):
        await sender.send(outgoing("http://service.invalid/"))
    await sender.aclose()


def test_a_source_costs_no_httpx() -> None:
    """It takes 0.15 s to import, which a mount need not spend before its first answer."""
    code = "import sys, artifactfs.providers.http; assert 'httpx' not in sys.modules"
    subprocess.run([__import__("sys").executable, "-c", code], check=True)


def test_parts_of_an_address() -> None:
    """Ports that go without saying are left out, others and IPv6 are not."""
    for url, host, target in (
        ("http://h:80/", "h", "/"),
        ("https://h:443", "h", "/"),
        ("http://h:443/x?y", "h:443", "/x?y"),
        ("http://[::1]:8/", "[::1]:8", "/"),
        ("http://bücher.example/", "xn--bcher-kva.example", "/"),
    ):
        assert (wire.place(url).host, wire.place(url).target) == (host, target)


async def test_chunks_of_one_byte_let_others_run(autojump_clock: trio.testing.MockClock) -> None:
    """A receive holds 40,000 of them: they took a second, and connections of other sources were given up."""
    chunks = 40_000
    parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    parser.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(CHUNKED + b"\r\n" + b"1\r\nx\r\n" * chunks + b"0\r\n\r\n")
    head = parser.next_event()
    assert isinstance(head, h11.Response)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        request = outgoing("http://h/")
        answer = connections.Answer(Pool(1), None, parser, head, request)  # type: ignore[arg-type]  # all of it is here
        assert b"".join([chunk async for chunk in answer.chunks()]) == b"x" * chunks
        nursery.cancel_scope.cancel()
    assert turns >= chunks // connections.PARTS // 2
