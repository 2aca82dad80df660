"""Transport: the only file that knows httpx.

Rules of this file:
* It knows HTTP, not what a service means by an answer: providers decide that in their ``api.py``.
* The token is sent to the configured origin and to no other: a redirect to another origin is followed without it.
* A redirect never goes from https to http, to a scheme other than http(s), or into a private network that the
  service itself is not in.
* Only requests that are safe to repeat are repeated: GET, with full jitter, honouring Retry-After, within the deadline.
* Calls run in tasks owned by the mount (``concurrency.SingleFlight``): httpcore leaks a pool slot when a request is
  cancelled while it connects.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import trio

import artifactfs
from artifactfs import errors
from artifactfs.observe import Observer
from artifactfs.providers import targets
from artifactfs.providers.limits import Budget, Lane

log = logging.getLogger(__name__)

RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Five redirects are more than any of the three services needs (one); browsers stop at 20.
MAX_REDIRECTS = 5
# Five tries with the waits below spread over about 4 s: as many as the VLM Run SDK makes, sooner.
MAX_TRIES = 5
BACKOFF_FIRST_S = 0.25
BACKOFF_CAP_S = 8.0
# A metadata answer above this is refused: the largest page seen (200 artifacts with content) stays below 16 MiB.
MAX_JSON_BYTES = 64 * 1024 * 1024
# Syntropic137 takes about 6 s to give up on its object store before it answers, so reading waits longer than that.
READ_TIMEOUT_S = 20.0
CONNECT_TIMEOUT_S = 5.0
# Keeping connections warm is worth 3-4 round trips of slow start a request; 5 minutes covers a person's pauses.
KEEPALIVE_S = 300.0
MAX_CONNECTIONS = 16
# Digits of a number in a header; 2**63 has 19.
MAX_DIGITS = 19
# After a failed connect the source counts as down for this long, so that the next calls fail at once.
DOWN_S = 2.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that was read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    @property
    def is_json(self) -> bool:
        """Tell whether the answer claims to be JSON."""
        return "json" in self.headers.get("content-type", "")

    def json(self) -> Any:
        """Return the parsed body.

        Raises:
            ProviderMisbehaved: it is not JSON, or nested deeper than the parser goes.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            message = f"the answer is not JSON ({self.headers.get('content-type', 'no type')})"
            raise errors.ProviderMisbehaved(message, subject=_bare(self.url), status=self.status) from error


@dataclass(frozen=True, slots=True)
class StreamReply:
    """An answer whose body is still coming; ``chunks`` raises ``Unavailable`` if it ends early."""

    status: int
    headers: Mapping[str, str]
    url: str
    chunks: AsyncIterator[bytes]

    @property
    def length(self) -> int | None:
        """Bytes of the body as announced, None if not."""
        value = self.headers.get("content-length", "")
        return _number(value) if "content-encoding" not in self.headers else None

    def content_range(self) -> tuple[int, int | None] | None:
        """Return (first byte, total size) of a 206 answer, None if it does not say or does not parse."""
        unit, _, rest = self.headers.get("content-range", "").partition(" ")
        span, _, total = rest.partition("/")
        first = _number(span.partition("-")[0])
        if unit != "bytes" or first is None:
            return None
        return first, _number(total)


def _number(text: str) -> int | None:
    """Return a number of bytes from a header, None for anything else, one of a thousand digits included."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None


def _is_signed(url: str) -> bool:
    """Tell whether a link carries its own authorisation: S3-type stores refuse a token beside it."""
    return "x-amz-signature=" in urlsplit(url).query.lower()


def _bare(url: str) -> str:
    """Return the URL without query and user info: those can be secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{':' + str(parts.port) if parts.port else ''}{parts.path}"


class HttpClient:
    """One source's way to its service."""

    def __init__(
        self,
        source: str,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        budget: Budget | None = None,
        observer: Observer | None = None,
        deadline_s: float = 30.0,
        allow_private: bool = False,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            source: name of the source, for counters and errors.
            base_url: the service's address; paths are appended to it.
            headers: sent to that origin only; holds the Authorization.
            budget: of requests; unlimited if None.
            observer: counts requests and keeps failures.
            deadline_s: how long one call may take with all its tries, in seconds.
            allow_private: let redirects and ``url_`` bodies lead into private networks.
        """
        self.source = source
        self.base_url = base_url.rstrip("/")
        self.budget = budget or Budget()
        self.observer = observer or Observer()
        self.deadline_s = deadline_s
        self.gate = targets.Gate(self.base_url, allow_private=allow_private)
        self._own_headers = dict(headers or {})
        self._down_until = -1.0
        self._client = httpx.AsyncClient(
            headers={"User-Agent": f"artifactfs/{artifactfs.__version__}"},
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=None),
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEPALIVE_S),
            follow_redirects=False,
            trust_env=True,
        )

    def __repr__(self) -> str:
        """Tell where it goes and what it may still send."""
        return f"<HttpClient {self.source} {_bare(self.base_url)} {self.budget!r}>"

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def get(
        self,
        path: str,
        params: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
        *,
        route: str | None = None,
        lane: Lane = Lane.FOREGROUND,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """GET a path below the base URL and read the answer whole, retrying as the rules allow.

        Returns any answer that is not a retried failure, whatever its status.

        Raises:
            Unavailable, RateLimited: retried statuses or broken connections until the end.
            Unreachable, TimedOut, QuotaExceeded, ProviderMisbehaved.
        """
        async with self.stream(path, params, route=route, lane=lane, headers=headers) as reply:
            body = bytearray()
            with trio.move_on_after(self.deadline_s) as scope:
                async for chunk in reply.chunks:
                    body += chunk
                    if len(body) > MAX_JSON_BYTES:
                        message = f"an answer is larger than {MAX_JSON_BYTES >> 20} MiB"
                        raise self._error(errors.ProviderMisbehaved, message, reply.url)
            if scope.cancelled_caught:
                # Each byte came in time, but all of them would not: a server that drips must not hold a reader.
                message = f"the answer was not complete after {self.deadline_s:.0f} s"
                raise self._error(errors.TimedOut, message, reply.url)
            return Reply(reply.status, reply.headers, bytes(body), reply.url)

    @contextlib.asynccontextmanager
    async def stream(
        self,
        url: str,
        params: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
        *,
        route: str | None = None,
        lane: Lane = Lane.FOREGROUND,
        headers: Mapping[str, str] | None = None,
        follow: bool = True,
        authored: bool = False,
    ) -> AsyncIterator[StreamReply]:
        """GET a path below the base URL, or an absolute URL, and hand the body over as it comes.

        Tries again until an answer begins; what breaks after that is the caller's to resume. ``chunks`` are the
        decoded bytes; ask with ``Accept-Encoding: identity`` where lengths matter (this is the default here).
        ``authored``: the address stands in content, so it gets no token, not even at home, and no redirect leads
        where such an address may not go itself.
        """
        target = url if url.startswith(("http://", "https://")) else self.base_url + url
        response = await self._begin(
            target, params, route or url, lane, headers or {}, follow=follow, authored=authored
        )
        body = response.aiter_bytes()
        chunks = self._chunks(body, str(response.url))
        try:
            yield StreamReply(response.status_code, response.headers, str(response.url), chunks)
        finally:
            with trio.move_on_after(1, shield=True):
                await chunks.aclose()
                await response.aclose()
                await _unwind(body)

    async def _begin(
        self,
        target: str,
        params: Mapping[str, str] | Sequence[tuple[str, str]] | None,
        route: str,
        lane: Lane,
        headers: Mapping[str, str],
        *,
        follow: bool,
        authored: bool,
    ) -> httpx.Response:
        end = trio.current_time() + self.deadline_s
        for attempt in range(1, MAX_TRIES + 1):
            left_s = end - trio.current_time()
            if trio.current_time() < self._down_until:
                raise self._error(errors.Unreachable, "the service could not be reached a moment ago", target)
            await self.budget.take(lane, left_s)
            self.observer.sent(self.source, f"GET {route}")
            wait_s: float | None = None
            try:
                response = await self._hop(target, params, headers, follow=follow, authored=authored)
            except httpx.HTTPError as error:
                failure = self._transport_error(error, target)
            except (httpx.InvalidURL, UnicodeError) as error:
                message = "an address in an answer cannot be understood"
                raise errors.ProviderMisbehaved(message, provider=self.source) from error
            else:
                if response.status_code not in RETRIED_STATUS:
                    self.observer.succeeded(self.source)
                    return response
                wait_s = _retry_after_s(response)
                failure = await self._status_error(response, wait_s)
            pause_s = self._pause_s(attempt, wait_s)
            gone = isinstance(failure, errors.Unreachable) and attempt > 1
            if gone or attempt == MAX_TRIES or trio.current_time() + pause_s > end:
                self._report(failure, target)
                raise failure
            log.info("%s: %s; trying again in %.1f s", self.source, failure, pause_s)
            await trio.sleep(pause_s)
        raise AssertionError  # pragma: no cover - the loop always returns or raises

    @staticmethod
    def _pause_s(attempt: int, wait_s: float | None) -> float:
        jitter = random.uniform(0, min(BACKOFF_CAP_S, BACKOFF_FIRST_S * 2.0**attempt))  # noqa: S311 - no secret
        return jitter if wait_s is None else wait_s + jitter / 4

    async def _hop(
        self,
        target: str,
        params: Mapping[str, str] | Sequence[tuple[str, str]] | None,
        headers: Mapping[str, str],
        *,
        follow: bool,
        authored: bool,
    ) -> httpx.Response:
        """Send one request and follow redirects by hand, the token staying at home."""
        for _ in range(MAX_REDIRECTS + 1):
            sent = {"Accept-Encoding": "identity", **headers}
            if not authored and self.gate.is_home(target) and not _is_signed(target):
                sent.update(self._own_headers)
            query = list(params.items()) if isinstance(params, Mapping) else params
            request = self._client.build_request("GET", target, params=tuple(query) if query else None, headers=sent)
            response = await self._client.send(request, stream=True)
            location = response.headers.get("location")
            if not follow or response.status_code not in REDIRECTS or not location:
                return response
            await response.aclose()
            goal = str(response.url.join(location))
            await self.gate.check(goal, came_from=target, authored=authored)
            target, params = goal, None
        raise self._error(errors.ProviderMisbehaved, f"more than {MAX_REDIRECTS} redirects", target)

    async def _chunks(self, body: AsyncIterator[bytes], url: str) -> AsyncGenerator[bytes, None]:
        counters = self.observer.counters(self.source)
        try:
            async for chunk in body:
                counters.bytes_received += len(chunk)
                yield chunk
        except httpx.HTTPError as error:
            failure = self._transport_error(error, url)
            self._report(failure, url)
            raise failure from error

    def _transport_error(self, error: httpx.HTTPError, target: str) -> errors.ArtifactFSError:
        if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
            if self.gate.is_home(target):
                timed_out = isinstance(error, httpx.ConnectTimeout)
                self._down_until = trio.current_time() + DOWN_S if timed_out else -1.0
            return self._error(errors.Unreachable, f"no connection: {error}", target)
        if isinstance(error, httpx.TimeoutException):
            return self._error(errors.TimedOut, f"no answer within {READ_TIMEOUT_S:.0f} s", target)
        return self._error(errors.Unavailable, f"the connection broke: {str(error) or type(error).__name__}", target)

    async def _status_error(self, response: httpx.Response, wait_s: float | None) -> errors.ArtifactFSError:
        await response.aclose()
        status, url = response.status_code, str(response.url)
        facts: dict[str, Any] = {
            "provider": self.source,
            "subject": _bare(url),
            "status": status,
            "request_id": response.headers.get("x-request-id"),
        }
        if status == 429:  # noqa: PLR2004 - the field's own number
            return errors.RateLimited("the service asked for fewer requests (429)", retry_after_s=wait_s, **facts)
        return errors.Unavailable(f"the service failed ({status})", **facts)

    def _error(self, kind: type[errors.ArtifactFSError], message: str, url: str) -> errors.ArtifactFSError:
        return kind(message, provider=self.source, subject=_bare(url))

    def _report(self, error: errors.ArtifactFSError, url: str) -> None:
        self.observer.failed(self.source, _bare(url), str(error), status=error.status, request_id=error.request_id)


async def _unwind(body: AsyncIterator[bytes]) -> None:
    """End the generators inside httpx and httpcore when a body was left early.

    They do not close one another, and trio warns of each that is collected unfinished. Their response is closed
    by now, so that asking for more ends in an error that goes through all of them, after what was buffered.
    """
    with contextlib.suppress(Exception):
        while True:
            await anext(body)


def _retry_after_s(response: httpx.Response) -> float | None:
    """Return the seconds of a Retry-After header, in either of its forms."""
    value = response.headers.get("retry-after", "").strip()
    seconds = _number(value)
    if seconds is not None:
        return float(seconds)
    try:
        parsed = email.utils.parsedate_tz(value) if value else None
        return max(0.0, email.utils.mktime_tz(parsed) - time.time()) if parsed else None
    except (ValueError, OverflowError):
        return None  # a date that looks like one, but is none
