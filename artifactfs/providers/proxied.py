"""Requests through a proxy, as the environment asks for: the only file that knows httpx.

Rules of this file: httpx knows every kind of proxy and costs 0.15 s to import and five times the CPU a request, so it
carries requests only where there is a proxy. Its pool has no limit of its own: httpcore leaks a slot when a request is
cancelled while it connects.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping

import httpx
import trio

from artifactfs.providers import limits
from artifactfs.providers.slots import Slots
from artifactfs.providers.wire import (
    Body,
    BrokenError,
    NotConnectedError,
    Outgoing,
    TooSlowError,
    UnspeakableError,
    WireError,
    headers_of,
)

KEEPALIVE_S = 300.0


class Answer:
    """An answer that came through a proxy, its body unread."""

    def __init__(self, response: httpx.Response, slots: Slots, kind: str) -> None:
        """Take an answer, and the slot it came with, for a question of some kind."""
        self._kind = kind
        self.status = response.status_code
        self.headers = headers_of(response.headers.raw)
        self._response = response
        self._slots: Slots | None = slots
        self._body: AsyncIterator[bytes] | None = None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Return the body; see ``Incoming``."""
        self._body = self._response.aiter_bytes()
        try:
            async for chunk in self._body:
                yield chunk
        except httpx.HTTPError as error:
            raise _failure(error) from error

    async def aclose(self) -> None:
        """End it in whatever state it is."""
        slots, self._slots = self._slots, None
        if slots is None:
            return
        slots.give(self._kind)
        with trio.move_on_after(1, shield=True):
            await self._response.aclose()
            if self._body is not None:
                await _unwind(self._body)


class Proxied:
    """Carries one source's requests by httpx."""

    def __init__(self, limit: int) -> None:
        """Send at most ``limit`` at once."""
        self._slots = Slots(limit)
        # Streams that last take nothing from the others, and are few.
        self._lasting = Slots(limit)
        self._client = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=None, keepalive_expiry=KEEPALIVE_S),
            follow_redirects=False,
            trust_env=True,
        )

    def __repr__(self) -> str:
        return f"<Proxied {self._slots!r}>"

    def gauges(self) -> Mapping[str, float]:
        """Return the state of the slots."""
        return self._slots.gauges()

    async def aclose(self) -> None:
        await self._client.aclose()

    async def send(self, request: Outgoing) -> Answer:
        """Send a request; see ``Sender``. Through a proxy every connection is to the proxy, so none is vetted."""
        read_s = request.read_s if request.lasting_s is None else request.lasting_s
        timeout = httpx.Timeout(read_s, connect=request.connect_s, pool=request.slot_s)
        slots = self._slots if request.lasting_s is None else self._lasting
        with trio.move_on_after(request.slot_s) as waiting:
            await slots.take(limits.lane.get(), request.kind)
        if waiting.cancelled_caught:
            message = "no connection became free"
            raise TooSlowError(message)
        sent = _Sent(request.body) if request.body else None
        try:
            with _words():
                built = self._client.build_request(
                    request.method, request.url, headers=_headers(request), timeout=timeout
                )  # fmt: skip
                built.stream = sent or built.stream
                return Answer(await self._client.send(built, stream=True), slots, request.kind)
        except BaseException:
            slots.give(request.kind)
            raise
        finally:
            if sent:
                with trio.move_on_after(1, shield=True):
                    await sent.aclose()


class _Sent(httpx.AsyncByteStream):
    """A body as httpx sends it. It is closed by us: httpx leaves what it did not send to the garbage collector."""

    def __init__(self, body: Body) -> None:
        """Send ``body``."""
        self._pieces = body.pieces()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def aclose(self) -> None:
        await self._pieces.aclose()


def _headers(request: Outgoing) -> dict[str, str]:
    """Return the headers, and the length of a body: without it httpx sends one in chunks."""
    if request.body is None:
        return dict(request.headers)
    return {**request.headers, "Content-Length": str(request.body.length)}


@contextlib.contextmanager
def _words() -> Iterator[None]:
    """Turn what httpx raises into the failures of a request."""
    try:
        yield
    except httpx.InvalidURL as error:
        raise ValueError(str(error)) from error
    except httpx.HTTPError as error:
        raise _failure(error) from error


def _failure(error: httpx.HTTPError) -> WireError:
    words = str(error) or type(error).__name__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
        return NotConnectedError(words, silent=isinstance(error, httpx.ConnectTimeout))
    if isinstance(error, httpx.TimeoutException):
        return TooSlowError(words)
    if isinstance(error, httpx.LocalProtocolError):
        return UnspeakableError("the request could not be put into words")
    return BrokenError(words)


async def _unwind(body: AsyncIterator[bytes]) -> None:
    """End the generators inside httpx and httpcore when a body was left early.

    They do not close one another, and trio warns of each that is collected unfinished. Their response is closed
    by now, so that asking for more ends in an error that goes through all of them, after what was buffered.
    """
    with contextlib.suppress(Exception):
        while True:
            await anext(body)
