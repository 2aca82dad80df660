"""What a request that failed has held goes at once, not when the garbage collector comes by.

That may be minutes later; until then every failure of a service that is down would keep its connection, its parser and
whatever of an answer its frames hold.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import h11
import pytest

from artifactfs import errors
from artifactfs.providers import http as transport
from artifactfs.providers.connections import Connection
from artifactfs.providers.messages import Ask
from tests.providers.test_http import client_at, raw_server

HELD = (Ask, Connection, h11.Connection)
CUT = {
    "nothing": b"",
    "in its head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "in its body": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhello",
    "in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhello",
    "status": b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def held() -> list[str]:
    return sorted(type(found).__name__ for found in gc.get_objects() if isinstance(found, HELD))


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("answer", CUT.values(), ids=CUT)
async def test_a_failed_request_leaves_nothing_to_the_collector(answer: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transport, "BACKOFF_FIRST_S", 0.01)
    before = held()
    async with raw_server(answer) as url, client_at(url) as client:
        for ask in (client.get("/f"), client.send("POST", "/f")):
            try:
                await ask
            except errors.ArtifactFSError as error:
                failure = str(error)
            assert failure
    assert held() == before
