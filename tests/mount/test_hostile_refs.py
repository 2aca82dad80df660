"""What an agent's words lead to, through a real mount: addresses that it wrote, and words that look like references."""

from __future__ import annotations

import errno
import gzip
import os
import time
from collections.abc import Callable, Iterator, Mapping

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tests.support.awkward import Served, uuid_of
from tests.support.lab import TOKEN, Mounted, mounted, service_source

pytestmark = pytest.mark.fuse

DEADLINE_S = 6
SLACK_S = 20.0
RUN, TALKING = uuid_of("run"), uuid_of("talking")
MIB = 1 << 20
MAX_FILE = 4 * MIB


class Large(Response):
    """64 MiB whose length nobody has said. Not a generator: what leaves one in its middle has to close it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1024):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


# What stands in the body of a ``url_`` object, and what reading it gives; HERE is the service's own address.
ADDRESSES: Mapping[str, str] = {
    "file:///etc/passwd": "EIO", "ftp://example.org/x": "EIO", "data:text/plain,x": "EIO", "javascript:alert(1)": "EIO",
    "http://127.0.0.1:1/": "EIO", "http://127.1:1/": "EIO", "http://0x7f.1:1/": "EIO", "http://localhost.:1/": "EIO",
    "http://[::ffff:127.0.0.1]:1/": "EIO", "http://0.0.0.0:1/": "EIO", "http://169.254.169.254/latest/": "EIO",
    "http://①⑦②.①⑥.⓪.①/": "EIO", "http://user:pw@10.0.0.1/": "EIO", "http://x.invalid\\@10.0.0.1/": "EIO",
    "HERE/../../etc": "ENOENT", "HERE/html": "", "HERE/empty": "", "HERE/202": "EIO", "HERE/204": "EIO",
    "HERE/json": "", "HERE/endless": "EFBIG", "HERE/bomb": "EFBIG", "HERE/short": "EIO", "HERE/round": "EIO",
    "HERE/to/file:///etc/passwd": "EIO", "HERE/to/http://127.0.0.1:1/": "EIO", "HERE/to/http://10.0.0.1/": "EIO",
    "HERE/206": "EIO", "": "EIO", "no address at all": "EIO", "http://" + "a" * 70_000: "EIO", "\0": "EIO",
}  # fmt: skip
PAGES: Mapping[str, Callable[[Request], Response]] = {
    "html": lambda _: Response("<html>", media_type="text/html"),
    "empty": lambda _: Response(""),
    "json": lambda _: JSONResponse([{}]),
    "202": lambda _: Response("later", 202),
    "204": lambda _: Response(status_code=204),
    "206": lambda _: Response("part", 206, headers={"Content-Range": "bytes 0-3/*"}),
    "endless": lambda _: Large(),
    "bomb": lambda _: Response(gzip.compress(bytes(64 * MIB), 9), headers={"Content-Encoding": "gzip"}),
    "short": lambda _: StreamingResponse(iter([b"half"]), headers={"Content-Encoding": "gzip"}),
    "round": lambda request: Response("", 302, headers={"Location": str(request.url)}),
}
PROSE = """See img_a1b2c3.Next sentence, IMG_A1B2C3, img_a1b2c3d, img_height, doc_number, url_a1b2cg, vid_000001.mp4,
myimg_0000aa, img_0000ab-x, ../img_0000ac/.., https://example.org/aud_0000ad.mp3?x=doc_0000ae, img_0000\u0430f."""
IN_PROSE = {"img_a1b2c3.jpg", "vid_000001.mp4", "img_0000ab.jpg", "img_0000ac.jpg", "aud_0000ad.mp3", "doc_0000ae.pdf"}


class Agent:
    """A server of VLM Run with what an agent has written; keeps what was asked with which token."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self.asked: list[Request] = []

    async def answer(self, request: Request) -> Response:
        self.asked.append(request)
        path, query = request.url.path, request.query_params
        rows = [
            {"id": one, "name": "agent", "status": "completed", "created_at": "2026-02-03T08:00:00Z", "response": text}
            for one, text in ((RUN, {}), (TALKING, {"text": PROSE, "url_0000ba": "a key is no reference"}))
        ]
        if path == "/v1/agent/executions":
            return JSONResponse(rows if query.get("skip", "0") == "0" else [])
        if path.startswith("/v1/agent/executions/"):
            return JSONResponse(next(row for row in rows if path.endswith(str(row["id"]))))
        if path == "/v1/artifacts/list":
            listed = [{"object_id": f"url_{number:06x}"} for number in range(len(ADDRESSES))]
            talks = query.get("execution_id") == TALKING
            return JSONResponse({"namespace_id": "x", "items": [] if talks else listed})
        if path == "/v1/artifacts":
            number = int(query["object_id"].removeprefix("url_"), 16)
            return Response(list(ADDRESSES)[number].replace("HERE", f"http://{request.url.netloc}/pages"))
        if path.startswith("/pages/to/"):
            return Response("", 302, headers={"Location": path.removeprefix("/pages/to/")})
        page = PAGES.get(path.removeprefix("/pages/"))
        return JSONResponse({"detail": "Not Found"}, 404) if page is None else page(request)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mounted, Agent]]:
    """One source; content that says no size may have 4 MiB."""
    agent = Agent()
    config = f"[mount]\ntimeout = {DEADLINE_S}\n[limits]\nmax-file = {MAX_FILE}\n"
    with (
        Served(Starlette(routes=[Route("/{path:path}", agent.answer)])) as served,
        mounted(
            tmp_path_factory.mktemp("refs"), {"one": service_source("vlmrun", f"{served.url}/v1")}, extra_config=config
        ) as mount,
    ):
        yield mount, agent


@pytest.mark.parametrize("number", range(len(ADDRESSES)), ids=[address[:40] or "nothing" for address in ADDRESSES])
def test_an_address_that_an_agent_wrote_is_read_or_refused(world: tuple[Mounted, Agent], number: int) -> None:
    """In time; whatever it is, no token goes there."""
    mount, agent = world
    wanted = list(ADDRESSES.values())[number]
    begin = time.monotonic()
    try:
        data = (mount.path / f"agent/{RUN}/url_{number:06x}").read_bytes()
        found = "" if data in {b"<html>", b"", b"[{}]"} else f"{len(data)} bytes"
    except OSError as error:
        found = errno.errorcode[error.errno or 0]
    assert found == wanted
    assert time.monotonic() - begin < DEADLINE_S + SLACK_S
    assert all(TOKEN not in str(one.headers) for one in agent.asked if one.url.path.startswith("/pages"))


def test_words_that_look_like_references_are_none(world: tuple[Mounted, Agent]) -> None:
    """Only what is one, in values, not in keys; each once."""
    mount, _ = world
    names = set(os.listdir(mount.path / f"agent/{TALKING}"))
    assert {
        name for name in names if name.partition("_")[0] in {"img", "vid", "aud", "doc", "url", "myimg"}
    } == IN_PROSE
