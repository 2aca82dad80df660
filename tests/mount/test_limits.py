"""Each key of ``[limits]``: who runs into it learns its name, and a larger one makes the content readable."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from artifactfs.config.settings import LimitsConfig
from tests.support.awkward import Served, uuid_of, vm0_of_archives
from tests.support.lab import Mounted, mounted, service_source
from tests.support.tar_bytes import ENDS, GOOD, file, header

pytestmark = pytest.mark.fuse

MIB = 1 << 20
FILE = uuid_of("a file")


def read_archive(mount: Mounted) -> bytes:
    os.listdir(mount.path / "artifacts/a")  # to the end of the archive: its first file is served as it comes
    return (mount.path / "artifacts/a/good.txt").read_bytes()


def read_deep(mount: Mounted) -> bytes:
    return (mount.path / "artifacts/a/1/2/3/good.txt").read_bytes()


def read_list(mount: Mounted) -> bytes:
    return " ".join(sorted(os.listdir(mount.path / "artifacts"))).encode()


def read_both(mount: Mounted) -> bytes:
    """Read a list of which a small limit leaves out the second page; it is marked as incomplete then."""
    names = read_list(mount)
    if b"later.txt" not in names:
        raise FileNotFoundError(2, "only the first page is there", names)
    return names


def read_file(mount: Mounted) -> bytes:
    return (mount.path / "files/good.txt").read_bytes()


def archive(raw: bytes) -> Starlette:
    return vm0_of_archives({"a": lambda: gzip.compress(raw)})


def in_members() -> Starlette:
    return vm0_of_archives({"a": lambda: b"".join(map(gzip.compress, (TAR[:512], TAR[512:], b"")))})


def listing(row: Mapping[str, Any], redirects: int = 0) -> Starlette:
    """A list of one artifact, behind some redirects."""

    async def answer(request: Request) -> Response:
        if len(request.url.path) < len("/v1/artifacts") + redirects:
            return RedirectResponse(f"{request.url.path}+", 307)
        pagination = {"hasMore": False, "nextCursor": None}
        body = json.dumps({"data": [{"id": uuid_of("a"), "name": "good.txt", **row}], "pagination": pagination})
        return Response(body, media_type="application/json")

    return Starlette(routes=[Route("/{path:path}", answer)])


async def two_pages(request: Request) -> Response:
    """A list of two artifacts, each on a page of its own."""
    if request.url.path != "/v1/artifacts":
        return JSONResponse({}, 404)
    cursor = None if "cursor" in request.query_params else "next"
    row = {"id": uuid_of(str(cursor)), "name": "good.txt" if cursor else "later.txt"}
    return JSONResponse({"data": [row], "pagination": {"hasMore": cursor is not None, "nextCursor": cursor}})


async def upload(request: Request) -> Response:
    """One uploaded file, whose size nobody says before its end."""
    if request.url.path == "/content":

        async def chunks() -> Any:
            for _ in range(5):
                yield b"good\n"

        return StreamingResponse(chunks(), media_type="text/plain")
    row = {"id": FILE, "filename": "good.txt", "public_url": f"{request.base_url}content"}
    if request.url.path == f"/v1/files/{FILE}":
        return JSONResponse(row)
    return JSONResponse([row] if request.url.path == "/v1/files" and request.query_params.get("skip") == "0" else [])


@dataclass(frozen=True)
class Met:
    """How a limit is met: by what of which service, below which number, and what is read above it."""

    low: float
    high: float
    app: Callable[[], Starlette]
    read: Callable[[Mounted], bytes] = read_archive
    gives: bytes = b"good\n"
    path: str = "artifacts/a/good.txt"
    service: str = "vm0"


LONG_NAME = header(b"@", 2000, b"L") + b"n" * 200 + bytes(1848)
TAR = GOOD + file(b"b" * 90, b"2" * 5000) + ENDS
LISTED = read_list, b"by-id good.txt", "artifacts"
MET: Mapping[str, Met] = {
    "max-output": Met(4096, MIB, lambda: archive(GOOD + header(b"z", 5000) + bytes(5120) + ENDS)),
    "max-archive": Met(1000, MIB, lambda: archive(GOOD + file(b"r", os.urandom(3000)) + ENDS)),
    "max-ratio": Met(100, 2000, lambda: archive(GOOD + header(b"z", 300 * MIB) + bytes(300 * MIB) + ENDS)),
    "max-entries": Met(1, 2, lambda: archive(TAR)),
    "max-depth": Met(3, 4, lambda: archive(file(b"1/2/3/good.txt", b"good\n") + ENDS), read_deep,
                     path="artifacts/a/1/2/3/good.txt"),
    "max-paths": Met(90, 200, lambda: archive(TAR)),
    "max-header": Met(1000, 4000, lambda: archive(GOOD + LONG_NAME + file(b"s") + ENDS)),
    "max-gzip-members": Met(2, 3, in_members),
    "max-answer": Met(1000, 10_000, lambda: listing({"description": "x" * 5000}), *LISTED),
    "max-values": Met(50, 500, lambda: listing({"tags": [1] * 100}), *LISTED),
    "max-json-depth": Met(10, 50, lambda: listing({"deep": json.loads("[" * 20 + "]" * 20)}), *LISTED),
    "max-listing": Met(1, 1000, lambda: Starlette(routes=[Route("/{path:path}", two_pages)]), read_both,
                       b"by-id good.txt later.txt", "artifacts"),
    "max-redirects": Met(2, 3, lambda: listing({}, redirects=3), *LISTED),
    "max-file": Met(20, 25, lambda: Starlette(routes=[Route("/{path:path}", upload)]), read_file, b"good\n" * 5,
                    "files/good.txt", "vlmrun"),
}  # fmt: skip


def test_every_key_is_met() -> None:
    """Whoever adds one says here how it is met."""
    assert set(MET) == {name.replace("_", "-") for name in LimitsConfig.model_fields}


@pytest.mark.parametrize("key", MET)
def test_a_limit_is_named_and_a_larger_one_shows_the_content(key: str, tmp_path: Path) -> None:
    """In `why` by its key and value, as it is to be written; also after the cache has seen the smaller one."""
    met = MET[key]
    with Served(met.app()) as served:
        base = served.url + ("/v1" if met.service == "vlmrun" else "")
        source = {"one": service_source(met.service, base)}
        with mounted(tmp_path, source, extra_config=f"[limits]\n{key} = {met.low}\n") as mount:
            with pytest.raises(OSError):  # noqa: PT011 - which one is another test's
                met.read(mount)
            told = mount.artifactfs("why", str(mount.path / met.path)).stdout
            assert f"limits.{key} = {met.low}" in told
        with mounted(tmp_path, source, extra_config=f"[limits]\n{key} = {met.high}\n") as mount:
            assert met.read(mount) == met.gives
