"""Services whose answers are hostile, through a real mount: an error in time, bounded memory, and no token elsewhere.

Each kind of answer is given to every request of three sources, one in each dialect, all in one mount.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import sys
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.support.awkward import Served, uuid_of
from tests.support.control import ask
from tests.support.lab import TOKEN, Mounted, mounted, service_source
from tests.support.log_guard import LogGuard

pytestmark = pytest.mark.fuse


@pytest.fixture(autouse=True)
def _servers_may_complain(expected_logs: LogGuard) -> None:
    """The tests' own servers break their answers on purpose, and say so."""
    expected_logs("Error in ASGI Framework", logger="hypercorn", level=logging.ERROR)


SERVICES = ("vm0", "syntropic137", "vlmrun")
PLACES = {"vm0": "artifacts", "syntropic137": ".", "vlmrun": "."}
DEADLINE_S = 6
SLACK_S = 30.0
MIB = 1 << 20
# A dozen answers of up to 64 MiB, the most that one may have, at the same time. Measured: 600 MiB.
MEMORY = 1500 * MIB
BAD = {"EIO", "ETIMEDOUT", "EHOSTUNREACH", errno.errorcode[errno.EOPNOTSUPP]}


async def drops(size: int, chunk: bytes, every_s: float) -> AsyncIterator[bytes]:
    while size > 0:
        yield chunk
        size -= len(chunk)
        await trio.sleep(every_s)


def endless(media_type: str = "application/json", every_s: float = 0.0) -> Callable[[Request], Response]:
    return lambda _request: StreamingResponse(drops(1 << 40, b"[" * 65536, every_s), media_type=media_type)


def large(piece: bytes, size: int, begin: bytes = b"[", end: bytes = b"0]") -> Callable[[Request], Response]:
    body = begin + piece * (size // len(piece)) + end
    return lambda _request: Response(body, media_type="application/json")


def text(body: str | bytes, media_type: str = "application/json") -> Callable[[Request], Response]:
    return lambda _request: Response(body, media_type=media_type)


def zipped(piece: bytes, times: int) -> Callable[[Request], Response]:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = b"".join(packer.compress(piece) for _ in range(times)) + packer.flush()
    return lambda _request: Response(body, headers={"content-encoding": "gzip"}, media_type="application/json")


def leads_to(where: str) -> Callable[[Request], Response]:
    return lambda _request: Response("", 302, headers={"Location": where})


def round_and_round(request: Request) -> Response:
    return RedirectResponse(str(request.url.include_query_params(again=time.monotonic_ns())), 302)


def wrong_length(more: int) -> Callable[[Request], Response]:
    return lambda _request: Response(b"[]", headers={"content-length": str(2 + more)}, media_type="application/json")


ANSWERS: dict[str, Callable[[Request], Response]] = {
    "100 MB of JSON": large(b'{"id": "x"},', 100 * MIB),
    "many small lists": large(b"[],", 20 * MIB),
    "many small rows": large(b"{},", 20 * MIB, b'{"data":[', b'{}],"pagination":{}}'),
    "many workflows": large(b"{},", 20 * MIB, b'{"workflows":[', b"{}]}"),
    "10,000 levels": text("[" * 10_000 + "]" * 10_000),
    "levels of objects": text('{"data":' * 10_000 + "1" + "}" * 10_000),
    "a number of 100,000 digits": text("9" * 100_000),
    "NaN": text("NaN"),
    "invalid UTF-8": text(b'{"data": ["\xff\xfe"]}'),
    "keys twice": text('{"data": 1, "data": "x", "artifacts": 1, "artifacts": null}'),
    "keys twice, the last of nothing": text(
        '{"data": [{"id": "x", "name": "x"}], "data": [], "pagination": {"hasMore": false, "nextCursor": null},'
        ' "workflows": [{"id": "x", "name": "x"}], "workflows": [], "total": 0, "page": 1, "page_size": 100}'
    ),
    "a number": text("7"),
    "null": text("null"),
    "rows of other types": text('{"data": {"a": [1]}, "artifacts": "x", "items": 7, "executions": false}'),
    "an endless body": endless(),
    "a dripping body": endless(every_s=0.5),
    "endless redirects": round_and_round,
    "to a file": leads_to("file:///etc/passwd"),
    "to javascript": leads_to("javascript:alert(1)"),
    "to a private network": leads_to("http://10.11.12.13/"),
    "to the cloud's metadata": leads_to("http://169.254.169.254/latest/meta-data/"),
    "to no address": leads_to("http://[::bad"),
    "to nowhere": leads_to("http://artifactfs.invalid/"),
    "a length that is too long": wrong_length(100),
    "a length that is too short": wrong_length(-1),
    "HTML with 200": text("<!DOCTYPE html><html><title>Sign in</title></html>", "text/html"),
    "HTML that says it is JSON": text("<html>"),
    "nothing with 200": text(""),
    "a 204": lambda _request: Response(status_code=204),
    "gzip of a gigabyte": zipped(b"\0" * MIB, 1024),
    "gzip that is none": lambda _request: Response(b"[]", headers={"content-encoding": "gzip"}),
    "an encoding that nobody knows": lambda _request: Response(b"[]", headers={"content-encoding": "br"}),
    "a header of 4 MB": lambda _request: Response(b"[]", headers={"x": "y" * 4_000_000}),
    "to a decimal address": leads_to("http://168430090/"),
    "to an address within IPv6": leads_to("http://[::ffff:10.11.12.13]/"),
    "to an address behind NAT64": leads_to("http://[64:ff9b::a9fe:a9fe]/"),
    "to another cloud's metadata": leads_to("http://100.100.100.200/latest/meta-data/"),
    "to data": leads_to("data:application/json,[]"),
    "to everywhere": leads_to("//"),
    "text for a terminal": text("\x1b]0;pwned\x07", "\x1b[31mtext\x1b[0m/json"),
    "a 202": lambda _request: JSONResponse({"detail": "later"}, 202),
    "a 299 of nothing": lambda _request: Response("", 299),
    "a 599": lambda _request: Response("x", 599),
}


@dataclass
class World:
    """The mount, what came of listing each source, and what the server at another address was asked."""

    mount: Mounted
    outcomes: dict[tuple[str, str], str]
    took_s: dict[tuple[str, str], float]
    memory: int
    astray: list[Request]
    state: dict[str, Any]


def list_it(place: Path) -> tuple[str, float]:
    begin = time.monotonic()
    try:
        found = os.listdir(place)
    except OSError as error:
        return errno.errorcode[error.errno or 0], time.monotonic() - begin
    return f"success: {found}", time.monotonic() - begin


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Everything is listed side by side."""
    astray: list[Request] = []

    async def elsewhere(request: Request) -> Response:
        astray.append(request)
        return JSONResponse({"data": [], "pagination": {"hasMore": False, "nextCursor": None}})

    with ExitStack() as stack:
        other = stack.enter_context(Served(Starlette(routes=[Route("/{path:path}", elsewhere)])))
        answers = {**ANSWERS, "to another host": leads_to(f"{other.url}/taken")}

        async def answer(request: Request) -> Response:
            return list(answers.values())[request.path_params["number"]](request)

        served = stack.enter_context(Served(Starlette(routes=[Route("/{number:int}/{path:path}", answer)])))
        sources = {
            json.dumps(f"{service} {kind}"): service_source(service, f"{served.url}/{number}")
            for number, kind in enumerate(answers)
            for service in SERVICES
        }
        config = f"[mount]\ntimeout = {DEADLINE_S}\n"
        place = tmp_path_factory.mktemp("answers")
        mount = stack.enter_context(mounted(place, sources, "--all", extra_config=config))
        pid = ask(mount, verb="status")["pid"]
        keys = [(kind, service) for kind in answers for service in SERVICES]
        base = memory_peak(pid)
        with ThreadPoolExecutor(12) as pool:
            found = dict(
                zip(
                    keys,
                    pool.map(list_it, (mount.path / f"{key[1]} {key[0]}" / PLACES[key[1]] for key in keys)),
                    strict=True,
                )
            )
        memory = memory_peak(pid) - base
        sys.stdout.write(f"hostile answers: {memory // MIB} MiB\n")
        outcomes, took_s = {key: one[0] for key, one in found.items()}, {key: one[1] for key, one in found.items()}
        told = ask(mount, verb="status")["sources"]
        state = {source["name"]: source["state"] for source in told}
        yield World(mount, outcomes, took_s, memory, astray, state)


def memory_peak(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("kind", ANSWERS)
def test_a_hostile_answer_is_an_error_in_time(world: World, kind: str, service: str) -> None:
    """Never an empty directory, never ENOENT; and the source says what is wrong with it."""
    outcome = world.outcomes[kind, service]
    assert outcome in BAD
    assert world.took_s[kind, service] < DEADLINE_S + SLACK_S
    # Of one that took too long the rest came later, and was in itself in order.
    assert world.state[f"{service} {kind}"] != "ok" or outcome == "ETIMEDOUT"


def test_memory_is_bounded(world: World) -> None:
    """Whatever is sent, however much at once."""
    assert world.memory < MEMORY


def test_no_token_goes_to_another_host(world: World) -> None:
    """It was asked, without; and it stands in no log and no state either."""
    assert world.astray
    for request in world.astray:
        assert "authorization" not in request.headers
        assert TOKEN not in str(request.url) + str(request.headers)
    text_of = world.mount.log_text() + json.dumps(ask(world.mount, verb="status"))
    assert TOKEN not in text_of
    assert " ERROR " not in text_of


# -- rows ----------------------------------------------------------------------------------------------------------

IDS = ["a/b", "..", "../../v1/secrets", "a?b=c", "a#b", "100%", "%2e%2e%2f", "a b", "ü", "\u0000", "x" * 2000, "/", "."]
TITLES = [
    "a/b",
    "..",
    ".",
    "",
    "\u0000",
    "latest",
    "by-id",
    ".artifacts",
    "\u202egpj.exe",
    "x" * 5000,
    "\ud800",
    "a\nb",
    " ",
]
TIMES = [
    "yesterday",
    "9999-99-99T00:00:00Z",
    "-1",
    "1e400",
    "2026-02-30T00:00:00Z",
    "",
    "0000-00-00T00:00:00Z",
    "\ud800",
]


def hostile_rows() -> list[Any]:
    rows: list[Any] = [None, 7, "x", [], {}, {"id": None}, {"id": 5}, {"id": ["a"]}, {"id": ""}]
    facts: dict[str, Any] = {"size": -1, "fileCount": 1 << 70, "currentVersionId": "0" * 64}
    rows += [{**facts, "id": one, "name": f"id {number}"} for number, one in enumerate(IDS)]
    rows += [{**facts, "id": uuid_of(f"t{number}"), "name": one} for number, one in enumerate(TITLES)]
    rows += [
        {**facts, "id": uuid_of(one), "name": f"time {one!r}", "createdAt": one, "updatedAt": one} for one in TIMES
    ]
    values: tuple[Any, ...] = (None, 5, [], {}, True, 1.5, math.inf, math.nan)
    rows += [{"id": uuid_of(str(value)), "name": value, "currentVersion": value} for value in values]
    return rows


def test_hostile_rows_are_shown_or_skipped(tmp_path: Path) -> None:
    """Every name is legal, every entry can be looked at, requests stay below the service's own path, and it is said."""
    asked: list[Request] = []

    async def answer(request: Request) -> Response:
        asked.append(request)
        if request.url.path != "/base/v1/artifacts":
            return JSONResponse({"error": {"code": "not_found", "message": "no such thing"}}, 404)
        body = json.dumps({"data": hostile_rows(), "pagination": {"hasMore": False, "nextCursor": None}})
        return Response(body, media_type="application/json")

    app = Starlette(routes=[Route("/{path:path}", answer)])
    with Served(app) as served, mounted(tmp_path, {"vm0": service_source("vm0", f"{served.url}/base")}) as mount:
        names = os.listdir(os.fsencode(mount.path / "artifacts"))
        assert len(names) > len(TITLES) + len(TIMES)
        assert all(0 < len(name) <= 255 and name not in {b".", b".."} for name in names)
        for name in names:
            assert os.lstat(os.path.join(os.fsencode(mount.path / "artifacts"), name)).st_mtime_ns >= 0
            with contextlib.suppress(OSError):
                os.listdir(os.path.join(os.fsencode(mount.path / "artifacts"), name))
        assert all(request.scope["raw_path"].startswith(b"/base/v1/artifacts") for request in asked)
        assert all(b"/../" not in request.scope["raw_path"] for request in asked)
        (listing,) = [row for row in mount.status()["sources"][0]["listings"] if "artifact" in row["directory"]]
        assert listing["complete"] is False
        assert "could not be understood" in listing["note"]


@pytest.mark.parametrize("service", SERVICES)
def test_pages_that_never_end_or_repeat_end(tmp_path: Path, service: str) -> None:
    """In time, with what came shown as incomplete or an error; never a loop."""

    async def answer(request: Request) -> Response:
        number = int(request.query_params.get("cursor") or request.query_params.get("skip") or 0) + 1
        size = int(request.query_params.get("limit", "100"))
        rows = [
            {"id": uuid_of(f"{number} {at}"), "name": f"a{at}", "title": f"t{at}", "status": "completed"}
            for at in range(size)
        ]
        if "executions" in request.url.path or "files" in request.url.path:
            return JSONResponse(rows)
        if "artifacts" in request.url.path and service == "vm0":
            return JSONResponse({"data": rows, "pagination": {"hasMore": True, "nextCursor": str(number)}})
        return JSONResponse({"workflows": rows, "artifacts": rows, "sessions": rows, "total": 10**9, "page_size": 1})

    config = "[mount]\ntimeout = 5\n"
    with (
        Served(Starlette(routes=[Route("/{path:path}", answer)])) as served,
        mounted(tmp_path, {"one": service_source(service, served.url)}, extra_config=config) as mount,
    ):
        outcome, took_s = list_it(mount.path / PLACES[service])
        assert took_s < SLACK_S
        if outcome not in BAD:
            rows = mount.status()["sources"][0]["listings"]
            assert not all(row["complete"] for row in rows), rows
        assert ask(mount, verb="status")["pid"]
