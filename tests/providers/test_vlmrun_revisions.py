"""Bytes at an address that an agent wrote: those of two revisions are never put together, whatever the place says."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from artifactfs import errors
from artifactfs.model.content import Access, ByteRange, ContentRef, Unknown
from artifactfs.providers.http import HttpClient
from artifactfs.providers.vlmrun.provider import VlmRunProvider
from tests.support.serving import serving
from tests.support.vlmrun_samples import Memory

URL = ContentRef("vr", "run/url_a1b2c3", ("url", "execution", "run", "url_a1b2c3"), Unknown(), Access.RANGED)
ID = "bea05e4d-0000-4000-8000-000000000000"
FILE = ContentRef("vr", f"file/{ID}", ("file", ID), Unknown(), Access.RANGED)
MONDAY, TUESDAY = "Mon, 02 Feb 2026 08:00:00 GMT", "Tue, 03 Feb 2026 08:00:00 GMT"


class Place:
    """A server of VLM Run, and what stands at an address; keeps the conditions that were sent."""

    def __init__(self) -> None:
        self.data = b"0123456789"
        self.headers: Mapping[str, str] = {}
        self.refuses = 0
        self.conditions: list[str | None] = []
        self.app = Starlette(routes=[Route("/v1/{path:path}", self.api), Route("/there", self.there)])

    async def api(self, request: Request) -> Response:
        address = f"http://{request.url.netloc}/there"
        if request.url.path.startswith("/v1/files/"):
            return JSONResponse({"id": ID, "filename": "a", "bytes": 10, "purpose": "vision", "public_url": address})
        return Response(address)

    async def there(self, request: Request) -> Response:
        self.conditions.append(request.headers.get("if-range"))
        if self.refuses:
            self.refuses -= 1
            return Response("expired", 403)
        begin, _, end = request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = self.data[int(begin) : int(end or len(self.data)) + 1]
        span = f"bytes {begin}-{int(begin) + len(part) - 1}/{len(self.data)}"
        return Response(part, 206, headers={**self.headers, "Content-Range": span})


async def read(url: str, memory: Memory, ref: ContentRef, *parts: tuple[int, int]) -> bytes:
    """Read parts in one mount."""
    provider, found = VlmRunProvider("vr", HttpClient("vr", f"{url}/v1"), memory, ()), b""
    try:
        for part in parts:
            async with provider.open(ref, ByteRange(*part)) as stream:
                found += b"".join([chunk async for chunk in stream.chunks])
    finally:
        await provider.aclose()
    return found


SAME = [
    {"ETag": '"a"'}, {"ETag": '"a"', "Last-Modified": MONDAY}, {"Last-Modified": MONDAY},
    {"ETag": 'W/"a"', "Last-Modified": MONDAY},
]  # fmt: skip


@pytest.mark.parametrize("ref", [URL, FILE], ids=["url", "file"])
@pytest.mark.parametrize("says", SAME)
async def test_what_is_the_same_is_read_on_by_the_next_mount(says: Mapping[str, str], ref: ContentRef) -> None:
    """By its strong ETag, or by when it was changed; and what comes is asked for on that condition."""
    place, memory = Place(), Memory()
    place.headers = says
    async with serving(place.app) as running:
        assert await read(running.url, memory, ref, (0, 4), (4, 2)) == b"012345"
        assert await read(running.url, memory, ref, (6, 4)) == b"6789"
    strong = says["ETag"] if not says.get("ETag", "W/").startswith("W/") else MONDAY
    assert place.conditions == [None, strong, strong]


OTHER = [
    ({"ETag": '"a"'}, {"ETag": '"b"'}), ({"Last-Modified": MONDAY}, {"Last-Modified": TUESDAY}),
    ({"ETag": '"a"', "Last-Modified": MONDAY}, {"ETag": '"b"', "Last-Modified": MONDAY}),
    ({"ETag": 'W/"a"'}, {"ETag": 'W/"a"'}), ({}, {}), ({"ETag": '"a"'}, {"Last-Modified": MONDAY}),
]  # fmt: skip


@pytest.mark.parametrize(("before", "now"), OTHER)
async def test_what_may_be_another_is_stale_once(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """For the next mount; who asks again gets what is there now."""
    place, memory = Place(), Memory()
    place.headers = before
    async with serving(place.app) as running:
        assert await read(running.url, memory, URL, (0, 4), (4, 2)) == b"012345"
        place.headers = now
        with pytest.raises(errors.StaleContent):
            await read(running.url, memory, URL, (6, 4))
        assert await read(running.url, memory, URL, (0, 10)) == place.data


async def test_another_size_is_stale_also_where_nothing_else_is_said() -> None:
    """In one mount, too; also behind an address that was asked for anew."""
    place, memory = Place(), Memory()

    async with serving(place.app) as running:
        assert await read(running.url, memory, URL, (0, 4)) == b"0123"
        place.data += b"more"
        with pytest.raises(errors.StaleContent):
            await read(running.url, memory, URL, (4, 4))
        place.headers = {"ETag": '"a"'}
        assert await read(running.url, memory, URL, (0, 4), (4, 4)) == b"01234567"
        place.headers, place.refuses = {"ETag": '"b"'}, 1
        with pytest.raises(errors.StaleContent):
            await read(running.url, memory, URL, (8, 4))


async def test_what_was_uploaded_to_the_service_does_not_change() -> None:
    """Nothing need be said of it."""
    place, memory = Place(), Memory()
    async with serving(place.app) as running:
        assert await read(running.url, memory, FILE, (0, 4)) == b"0123"
        assert await read(running.url, memory, FILE, (4, 6)) == b"456789"


@pytest.mark.parametrize("etag", ["\u00e9", '"' + "a" * 600 + '"', "no quotes"])
async def test_odd_etags_are_not_sent(etag: str) -> None:
    """Nor kept, if they are long."""
    place, memory = Place(), Memory()
    place.headers = {"ETag": etag}
    async with serving(place.app) as running:
        assert await read(running.url, memory, FILE, (0, 4), (4, 6)) == place.data
    assert place.conditions == [None, None]
    assert len(str(memory.facts)) < 200
