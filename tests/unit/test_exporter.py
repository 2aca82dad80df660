"""The numbers over HTTP: on a socket of the owner's or on loopback, for few, small and quick requests alone."""

from __future__ import annotations

import contextlib
import logging
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from artifactfs.daemon import exporter
from tests.support.log_guard import LogGuard

TEXT = "artifactfs_test 1\n"


@asynccontextmanager
async def served(listen: str, path: Path, text: str = TEXT) -> AsyncIterator[str | None]:
    """Serve while the block runs; gives where."""
    places: list[str | None] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(exporter.serve, listen, path, lambda: text, places.append)
        yield places[-1] if places else None
        nursery.cancel_scope.cancel()


async def connected(where: str | None) -> trio.SocketStream:
    assert where is not None
    if where.startswith("unix:"):
        return await trio.open_unix_socket(where.removeprefix("unix:"))
    host, _, port = where.removeprefix("http://").removesuffix("/metrics").rpartition(":")
    return await trio.open_tcp_stream(host.strip("[]"), int(port))


async def asked(where: str | None, raw: bytes) -> tuple[int, bytes, bytes]:
    """Return status, head and body of the answer to what is sent."""
    stream = await connected(where)
    async with stream:
        with trio.fail_after(30):
            await stream.send_all(raw)
            whole = b"".join([chunk async for chunk in stream])
    head, _, body = whole.partition(b"\r\n\r\n")
    return int(head.split()[1]), head, body


def get(target: str = "/metrics", host: str = "x", method: str = "GET") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


async def test_a_socket_of_the_owner_alone_answers(tmp_path: Path) -> None:
    """With the format's own type; it is gone at the end, and one that a killed mount left is no obstacle."""
    path = tmp_path / "m.metrics"
    path.touch()
    async with served("unix", path) as where:
        assert where == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        status, head, body = await asked(where, get("/metrics?name[]=x"))
        assert (status, body.decode()) == (200, TEXT)
        assert b"text/plain; version=0.0.4; charset=utf-8" in head
        assert (await asked(where, get(method="HEAD")))[2] == b""
    assert not path.exists()


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0"])
async def test_loopback_answers_whoever_names_this_machine(listen: str, tmp_path: Path) -> None:
    """A page in a browser, which reaches it under a name of its own, gets nothing."""
    async with served(listen, tmp_path / "none") as where:
        for host in ("localhost", "localhost:9137", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:80"):
            assert (await asked(where, get(host=host)))[0] == 200, host
        for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "8.8.8.8"):
            status, _, body = await asked(where, get(host=host))
            assert (status, b"artifactfs_test" in body) == (421, False), host


async def test_other_questions_are_answered_as_such(tmp_path: Path) -> None:
    """Other methods, other paths, what is no HTTP, heads of a megabyte."""
    async with served("unix", tmp_path / "m") as where:
        assert (await asked(where, get(method="POST")))[0] == 405
        assert (await asked(where, get("/etc/passwd")))[0] == 404
        assert (await asked(where, b"\x16\x03\x01\x02\x00\x01\x00 hello\r\n\r\n"))[0] == 400
        assert (await asked(where, b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 60_000))[0] == 431
        assert (await asked(where, get()))[0] == 200


async def test_who_is_slow_is_hung_up_on_and_too_many_are_turned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither who says nothing nor who does not read holds a place for long, nor does anybody wait for them."""
    monkeypatch.setattr(exporter, "EXCHANGE_S", 0.5)
    async with served("unix", tmp_path / "m", "x" * 10_000_000) as where, contextlib.AsyncExitStack() as stack:
        silent = [await connected(where) for _ in range(exporter.MAX_CONNECTIONS - 1)]
        deaf = await connected(where)
        await deaf.send_all(get())
        for stream in (*silent, deaf):
            await stack.enter_async_context(stream)
        with trio.fail_after(30):
            await trio.sleep(0.1)
            async with await connected(where) as one_too_many:
                with contextlib.suppress(trio.BrokenResourceError):
                    assert await one_too_many.receive_some(1) == b""
            for stream in silent:
                with contextlib.suppress(trio.BrokenResourceError):
                    assert await stream.receive_some(1) == b""
            status, _, body = await asked(where, get())
        assert (status, len(body)) == (200, 10_000_000)


async def test_an_address_that_is_taken_is_a_warning_and_the_mount_goes_on(
    tmp_path: Path, expected_logs: LogGuard
) -> None:
    """Two mounts of one configuration: the second does without."""
    seen = expected_logs("the metrics cannot be served at 127.0.0.1:", logger="artifactfs.daemon.exporter")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        async with served(f"127.0.0.1:{other.getsockname()[1]}", tmp_path / "none") as where:
            assert where is None
    assert [record.levelno for record in seen.seen] == [logging.WARNING]


async def test_numbers_that_cannot_be_made_are_an_error_in_the_log(tmp_path: Path, expected_logs: LogGuard) -> None:
    """Whoever asks is hung up on; the next one is answered."""
    expected_logs("could not be given", logger="artifactfs.daemon.exporter", level=logging.ERROR)
    texts = ["fine\n"]
    async with trio.open_nursery() as nursery:
        path = tmp_path / "m"
        await nursery.start(exporter.serve, "unix", path, texts.pop, lambda _where: None)
        assert (await asked(f"unix:{path}", get()))[0] == 200
        async with await connected(f"unix:{path}") as stream:
            await stream.send_all(get())
            assert await stream.receive_some(1) == b""
        texts.append("again\n")
        assert (await asked(f"unix:{path}", get()))[2] == b"again\n"
        nursery.cancel_scope.cancel()
