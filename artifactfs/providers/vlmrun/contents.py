"""Reading bytes from VLM Run: directly, or from an address that the service gives for them.

Rules of this file: objects answer with their bytes. A ``url_`` object answers with an address that an agent
may have written, so it is asked without the token and only if it is public or the service's own. An
uploaded file is behind a signed address of the service. Addresses expire: one that is refused is asked for
anew, once. What is plainly not the content (a web page with status 200, nothing at all where an image
should be) is an error, never content.
"""

from __future__ import annotations

import re
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from cachetools import LRUCache

from artifactfs import errors
from artifactfs.providers import answers
from artifactfs.providers.base import ContentStream
from artifactfs.providers.vlmrun import refs
from artifactfs.providers.vlmrun.api import Namespace
from artifactfs.providers.vlmrun.revisions import Revisions

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    from artifactfs.model.content import ByteRange, ContentRef, Pointer
    from artifactfs.providers.base import Memory
    from artifactfs.providers.http import StreamReply
    from artifactfs.providers.vlmrun.api import VlmRunApi

# A signed address of the service's bucket has about 800 characters; no browser takes more than 64 KiB.
MAX_ADDRESS_BYTES = 64 * 1024
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*:\S+", re.IGNORECASE)
# What buckets answer when a link has expired: 403, Google's also 400; 404 and 410 once the object has moved.
EXPIRED = frozenset({400, 401, 403, 404, 410})
# Addresses kept: one for each file that is being read in pieces.
ADDRESSES = 512
# Types that no image, film, sound, document or array has, but error pages do.
PAGES = frozenset({"text/html", "application/json"})


class Contents:
    """Opens what the locators of this provider name.

    ``("object", kind, namespace, object id)``, ``("name", kind, namespace, filename)``,
    ``("url", kind, namespace, object id)`` and ``("file", id)``.
    """

    def __init__(self, api: VlmRunApi, memory: Memory) -> None:
        """Open through ``api``; ``memory`` keeps which bytes stood at addresses."""
        self._api = api
        self._http = api.http
        self._revisions = Revisions(memory)
        self._addresses: LRUCache[str, str] = LRUCache(ADDRESSES)

    @asynccontextmanager
    async def open(self, ref: ContentRef | Pointer, span: ByteRange) -> AsyncIterator[ContentStream]:
        """Open the bytes from ``span.offset`` on; one request, two where an address has to be asked for first."""
        kind = ref.locator[0]
        if kind in {"url", "file"}:
            async with self._addressed(ref, span) as reply:
                yield await self._stream(reply, span, ref)
            return
        wanted, namespace = ref.locator[3], Namespace(ref.locator[1], ref.locator[2])
        params = [("filename" if kind == "name" else "object_id", wanted), namespace.query]
        async with self._http.stream("/artifacts", params, route="/artifacts", headers=_range(span)) as reply:
            stream = await self._stream(reply, span, ref)
            if kind == "name" or not refs.is_ref(wanted):
                yield stream
                return
            if (stream.media_type or "").partition(";")[0].strip().lower() in PAGES:
                raise self._wrong(f"the service answered {stream.media_type} instead of the object", ref)
            async with aclosing(self._not_empty(stream, ref)) as chunks:
                yield replace(stream, chunks=chunks)

    # -- behind an address -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def _addressed(self, ref: ContentRef | Pointer, span: ByteRange) -> AsyncIterator[StreamReply]:
        authored, headers = ref.locator[0] == "url", _range(span)
        if headers:
            headers |= self._revisions.condition(ref)
        for last in (False, True):
            known = self._addresses.get(ref.key)
            address = known or await self._ask(ref)
            await self._http.gate.check(address, authored=authored)
            async with self._http.stream(address, route="(address)", headers=headers, authored=authored) as reply:
                refused = reply.status == 403 or (known and reply.status in EXPIRED)  # noqa: PLR2004 - HTTP's own numbers
                if refused and not last:
                    self._addresses.pop(ref.key, None)
                    continue
                self._check_same(reply, ref)
                self._addresses[ref.key] = address
                yield reply
                return

    def _check_same(self, reply: StreamReply, ref: ContentRef | Pointer) -> None:
        """Refuse bytes of another revision: the place is not the service's, so nothing else keeps them apart."""
        if reply.status in {200, 206} and not self._revisions.is_same(ref, reply):
            message = "other bytes stand at this address now"
            raise errors.StaleContent(message, provider=self._api.source, subject=ref.key)

    async def _ask(self, ref: ContentRef | Pointer) -> str:
        """Ask for the address of content. One request."""
        if ref.locator[0] == "file":
            row = await self._api.file(ref.locator[1], link=True)
            if row.public_url is None or not ADDRESS.fullmatch(row.public_url):
                raise self._wrong("the service gave no address for this file", ref)
            return row.public_url
        _, kind, namespace, object_id = ref.locator
        params = [("object_id", object_id), Namespace(kind, namespace).query]
        async with self._http.stream("/artifacts", params, route="/artifacts") as reply:
            if reply.status != 200:  # noqa: PLR2004 - HTTP's own numbers
                await self._refuse(reply, ref)
            body = await _some(reply, MAX_ADDRESS_BYTES)
        text = body.decode("utf-8", "replace").strip()
        if len(body) >= MAX_ADDRESS_BYTES or not ADDRESS.fullmatch(text):
            raise self._wrong("a url_ object that holds no address", ref)
        return text

    # -- answers ---------------------------------------------------------------------------------------------

    async def _stream(self, reply: StreamReply, span: ByteRange, ref: ContentRef | Pointer) -> ContentStream:
        offset, total, ranged = 0, reply.length, False
        if reply.status == 416:  # noqa: PLR2004 - HTTP's own numbers
            if (end := reply.end()) is None or end > span.offset:
                raise self._wrong("the service has no such part of the content", ref)
            return ContentStream(span.offset, end, ranged=True, chunks=_nothing())
        if reply.status == 206:  # noqa: PLR2004 - HTTP's own numbers
            first, total = reply.content_range() or (-1, None)
            if first != span.offset or "content-encoding" in reply.headers:
                raise self._wrong("a part of the content that was not asked for", ref)
            offset, ranged = first, True
        elif reply.status == 202:  # noqa: PLR2004 - accepted, not yet made
            message = "the service is still making this"
            raise errors.Unavailable(message, provider=self._api.source, subject=ref.key, status=202)
        elif reply.status != 200:  # noqa: PLR2004 - HTTP's own numbers
            await self._refuse(reply, ref)
        media_type = reply.headers.get("content-type")
        return ContentStream(offset, total, ranged, reply.chunks, media_type, _plain(reply.headers))

    async def _not_empty(self, stream: ContentStream, ref: ContentRef | Pointer) -> AsyncGenerator[bytes, None]:
        empty = stream.offset == 0
        async for chunk in stream.chunks:
            empty = empty and not chunk
            yield chunk
        if empty:
            raise self._wrong("the service answered nothing instead of the object", ref)

    async def _refuse(self, reply: StreamReply, ref: ContentRef | Pointer) -> None:
        """Raise what an answer without content means; a bucket's 404 is about the object, whatever its body."""
        body = await _some(reply, answers.MAX_ERROR_BODY)
        if ref.locator[0] in {"url", "file"} and reply.status in {404, 410}:
            message = "nothing stands at the address of this object any more"
            facts = {"provider": self._api.source, "subject": ref.key}
            raise errors.NotFound(message, **facts, status=reply.status)
        answers.refuse(reply.status, reply.headers, body, self._api.source, ref.key)

    def _wrong(self, message: str, ref: ContentRef | Pointer) -> errors.ProviderMisbehaved:
        return errors.ProviderMisbehaved(message, provider=self._api.source, subject=ref.key)


def _range(span: ByteRange) -> dict[str, str]:
    """Return the header that asks for a span; none for the whole, which every server understands."""
    if span.offset == 0 and span.length is None:
        return {}
    end = "" if span.length is None else span.offset + max(1, span.length) - 1
    return {"Range": f"bytes={span.offset}-{end}"}


def _plain(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that say something of the content."""
    return {name: headers[name] for name in ("etag", "last-modified") if name in headers}


async def _some(reply: StreamReply, limit: int) -> bytes:
    """Return the beginning of a body, at most ``limit`` bytes."""
    body = bytearray()
    async for chunk in reply.chunks:
        body += chunk
        if len(body) >= limit:
            break
    return bytes(body[:limit])


async def _nothing() -> AsyncIterator[bytes]:
    """Return a stream without bytes."""
    return
    yield b""
