"""Titles as agents may give them: of every class, at every edge, arbitrary Unicode; and servers that list them.

Rules of this file: made here from nothing but a seed, the same each time.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.support.awkward import uuid_of

# One for each length that UTF-8 has, and what is none.
CHARS = ("n", "\u00e9", "\u65e5", "\U0001f600", "\ud800", "/", "\x01")
FIXED = (
    # legal nowhere, or no name
    "", ".", "..", "...", "/", "//", "a/b", "/etc/passwd", "../../x", "a/", "/a", "\0", "a\0b", "\0\0",
    # what a terminal obeys
    "line1\nline2", "tab\there", "bell\x07", "\x7f", "red\x1b[31m", "\x1b]0;pwned\x07", "\x1b]8;;http://x\x07y",
    "c1\x9b31m",
    "\x85next", "cr\rover", "a\u202etxt.exe", "\u202a", "\u2066a\u2069", "\u200e", "\u061c",
    # surrogates
    "\ud800", "x\udc00y", "\ude00\ud83d", "\udfff\ud800", "\udcff", "\ud83d",
    # spaces
    " ", "  ", " lead", "trail ", " both ", "\u00a0", "\u3000", "x\u2003", "x\u200b", "\u200b", "\u2028", "a\u2029",
    "\ufeffbom",
    # what looks the same, or does on other systems
    "caf\u00e9", "cafe\u0301", "CAFE", "cafe", "Cafe", "\u212b", "\u00c5", "A\u030a", "stra\u00dfe", "STRASSE",
    "\ufb01le", "file",
    "a\uff0fb", "a\u2215b", "a\u2044b", "\uff0e\uff0e", "\u2025", "a\\b", "C:\\x", "nul.txt", "CON", "PRN.md",
    "COM\u00b9", "aux.", "x.",
    'a<b>c|d?e*f"g', "a:b", "name:stream",
    # what shells, tools and the web take for something else
    "-rf", "--help", "~", "~root", "*", "?", "[a]", "$(id)", "`id`", "!!", "&&", ";", "'", '"', "#", "@", "=", "%",
    "%s", "%2e%2e%2f",
    "%00", "%", "100%", "a&b=c", "a?b", "<script>", "&amp;", "+",
    # droppings: they come from the service here, so they are shown
    ".hidden", ".DS_Store", "._x", "foo~", "#foo#", ".#foo", ".~lock.foo#", ".foo.swp", "4913", ".Trash-1000",
    ".git", ".nfs00000001",
    ".fuse_hidden0001", "lost+found", ".xdg-volume-info", "desktop.ini", "Thumbs.db", "core",
    # like our own escapes, marks and suffixes
    "^", "^^", "^2F", "^2f", "^5E", "^5E2F", "^empty", "^emptyx", "^~", "^~0123456789", "a^~0123456789.md",
    "x ~deadbeef", "^ED^A0^80",
    # like the tree's own names
    "versions", "latest", "artifact.json", ".artifacts", ".artifactfs", "by-id", "artifacts", "volumes", "files",
    "sessions", "v1",
    # of people
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629", "\u05e2\u05d1\u05e8\u05d9\u05ea", "\u65e5\u672c\u8a9e",
    "\u0e44\u0e17\u0e22", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea",
    "\u2764\ufe0f", "Z" + "\u0351" * 40, "\uffff", "\U0010ffff", "\ue000", "\u0378",
)  # fmt: skip


def edges() -> list[str]:
    """Return titles around 255 bytes: characters of each length, alone, behind an odd byte, with an extension."""
    found = []
    for char in CHARS:
        size = len(char.encode("utf-8", "surrogatepass"))
        for length in (246, 254, 255, 256, 300):
            found += [char * (length // size) + "n" * (length % size), "x" + char * (length // size)]
        found += [char * (250 // size) + ".tar.gz", char * 2000 + ".md", char * 2000 + ".mdx"]
    return found


def arbitrary(number: int, seed: int = 1) -> list[str]:
    """Return titles of any code points, surrogates included, short and long."""
    chance = random.Random(seed)
    return [
        "".join(chr(chance.choice((chance.randrange(0x80), chance.randrange(0x3000), chance.randrange(0x110000))))
                for _ in range(chance.choice((1, 2, 5, 20, 90))))
        for _ in range(number)
    ]  # fmt: skip


def sample() -> list[str]:
    """Return them all; some stand there more than once, and one is the id of another."""
    titles = [*FIXED, *edges(), *arbitrary(80), *FIXED[::7], *edges()[::5]]
    titles += (uuid_of(f"title {number}") for number in (0, 1, len(titles)))
    # As JSON brings them: two lone surrogates side by side may be one character.
    return [json.loads(json.dumps(title)) for title in titles]


def ids(titles: Sequence[str]) -> dict[str, str]:
    """Return the titles by the ids of their artifacts."""
    return {uuid_of(f"title {number}"): title for number, title in enumerate(titles)}


class Listing:
    """Servers of the three services that list titles, a page of any size at a time."""

    def __init__(self, titles: dict[str, str], page: int) -> None:
        """List ``titles``, by id, in their order."""
        self.titles, self.page = list(titles.items()), page

    def part(self, request: Request, key: str) -> tuple[list[tuple[str, str]], int]:
        begin = int(request.query_params.get(key) or 0)
        return self.titles[begin : begin + self.page], begin + self.page

    async def vm0(self, request: Request) -> Response:
        """One page by cursor; everything has one empty version."""
        if request.url.path != "/v1/artifacts":
            version = {"id": "0" * 64, "createdAt": "2026-02-03T08:00:00Z"}
            return JSONResponse({"data": [version], "pagination": {"hasMore": False, "nextCursor": None}})
        rows, end = self.part(request, "cursor")
        more = end < len(self.titles)
        data = [{"id": one, "name": title, "currentVersionId": "0" * 64, "fileCount": 0} for one, title in rows]
        return _json({"data": data, "pagination": {"hasMore": more, "nextCursor": str(end) if more else None}})

    async def syntropic137(self, request: Request) -> Response:
        """All artifacts of one workflow; this service has no pages."""
        path = request.url.path.removeprefix("/api/v1")
        if path == "/artifacts":
            row = {"workflow_id": "wf-1", "size_bytes": 1, "artifact_type": "text"}
            return _json([{**row, "id": one, "title": title} for one, title in self.titles])
        if path.endswith("/content"):
            return _json({"content": "x", "artifact_id": path.split("/")[2]})
        if path in {"/sessions", "/workflows"}:
            return JSONResponse({path[1:]: [], "total": 0, "page": 1, "page_size": 100})
        return JSONResponse({"detail": "Not Found"}, 404)

    async def vlmrun(self, request: Request) -> Response:
        """Uploaded files."""
        if request.url.path != "/v1/files":
            return _json([])
        rows, _ = self.part(request, "skip")
        return _json([{"id": one, "filename": title, "bytes": 1} for one, title in rows])

    def app(self, service: str) -> Starlette:
        """Return the server of one service."""
        return Starlette(routes=[Route("/{path:path}", getattr(self, service))])


def _json(value: Any) -> Response:
    return Response(json.dumps(value), media_type="application/json")
