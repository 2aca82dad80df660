"""What stands at an address that an agent wrote is replaced, between two mounts or under one: never bytes of both."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support.awkward import Served, uuid_of
from tests.support.lab import mounted, service_source

pytestmark = pytest.mark.fuse

RUN = uuid_of("run")
MIB = 1 << 20
OLD, NEW = b"old 0123" * (MIB // 8) * 6, b"new 4567" * (MIB // 8) * 7


class Agent:
    """A server of VLM Run with one ``url_`` object, and the place that it names."""

    def __init__(self, says: Mapping[str, str]) -> None:
        self.says = dict(says)
        self.data = OLD

    async def answer(self, request: Request) -> Response:
        path = request.url.path
        row = {"id": RUN, "name": "agent", "status": "completed", "created_at": "2026-02-03T08:00:00Z", "response": {}}
        if path == "/v1/agent/executions":
            return JSONResponse([row] if request.query_params.get("skip", "0") == "0" else [])
        if path.startswith("/v1/agent/executions/"):
            return JSONResponse(row)
        if path == "/v1/artifacts/list":
            return JSONResponse({"namespace_id": RUN, "items": [{"object_id": "url_a1b2c3"}]})
        if path == "/v1/artifacts":
            return Response(f"http://{request.url.netloc}/there")
        if path != "/there":
            return JSONResponse({"detail": "Not Found"}, 404)
        begin, _, end = request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = self.data[int(begin) : int(end or len(self.data)) + 1]
        span = f"bytes {begin}-{int(begin) + len(part) - 1}/{len(self.data)}"
        return Response(part, 206, headers={**self.says, "Content-Range": span})


CASES = [
    pytest.param({"ETag": '"one"'}, {"ETag": '"two"'}, NEW, id="ETag"),
    pytest.param({"ETag": '"one"'}, {"ETag": '"two"'}, NEW[: len(OLD)], id="ETag, same size"),
    pytest.param({"Last-Modified": "Mon"}, {"Last-Modified": "Tue"}, NEW[: len(OLD)], id="date, same size"),
    pytest.param({}, {}, NEW, id="nothing said"),
    pytest.param({}, {}, NEW[: len(OLD)], id="nothing said, same size"),
]


@pytest.mark.parametrize(("before", "now", "data"), CASES)
def test_a_replaced_target_is_never_mixed(
    tmp_path: Path, before: Mapping[str, str], now: Mapping[str, str], data: bytes
) -> None:
    """Open files read ESTALE, all of them and for good; what is opened afterwards is the new content, whole."""
    agent = Agent(before)
    with Served(Starlette(routes=[Route("/{path:path}", agent.answer)])) as served:
        sources = {"one": service_source("vlmrun", f"{served.url}/v1")}
        with mounted(tmp_path, sources) as mount:
            file = mount.path / f"agent/{RUN}/url_a1b2c3"
            with file.open("rb", buffering=0) as opened:
                assert opened.read(1000) == OLD[:1000]
        agent.says, agent.data = dict(now), data
        with mounted(tmp_path, sources) as mount:
            first, second = (os.open(file, os.O_RDONLY) for _ in range(2))
            assert os.pread(first, 1000, 0) == OLD[:1000]
            for opened_at, offset in ((first, len(OLD) - 5000), (second, len(OLD) - 9000), (first, len(OLD) // 2)):
                with pytest.raises(OSError, match="Stale") as told:
                    os.pread(opened_at, 1000, offset)
                assert told.value.errno == errno.ESTALE
            assert file.read_bytes() == data  # beside two who have the old bytes open
            for opened_at in (first, second):
                os.close(opened_at)
            assert file.read_bytes() == data
            assert file.stat().st_size == len(data)
        with mounted(tmp_path, sources):
            assert file.read_bytes() == data
