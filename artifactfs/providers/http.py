"""Requests to one source: where they may go, how often, what is tried again.

Rules of this file:
* It knows HTTP, not what a service means by an answer: providers decide that in their ``api.py``. What carries a
  request is ``connections.py``, or ``proxied.py`` where the environment names a proxy.
* The token is sent to the configured origin and to no other: a redirect to another origin is followed without it.
* A redirect never goes from https to http, to a scheme other than http(s), or into a private network that the
  service itself is not in.
* Only requests that are safe to repeat are repeated: GET, with full jitter, honouring Retry-After, within the deadline.
* Calls run in tasks owned by the mount (``concurrency.SingleFlight``), never in that of a kernel request.
"""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urljoin

import trio

import artifactfs
from artifactfs import errors
from artifactfs.observe import Observer
from artifactfs.providers import limits, messages, targets, wire
from artifactfs.providers.connections import Pool
from artifactfs.providers.limits import Budget
from artifactfs.providers.messages import Ask, Pairs, Reply, StreamReply, bare, is_signed, retry_after_s
from artifactfs.providers.reach import Reach

__all__ = ["HttpClient", "Reply", "StreamReply"]

log = logging.getLogger(__name__)

T = TypeVar("T")
Params = Mapping[str, str] | Sequence[tuple[str, str]] | None

# What may pass: also those of the field's proxies (520 to 530), not "never in this API" and "not this HTTP".
RETRIED_STATUS = frozenset({408, 425, 429, *range(500, 600)}) - {501, 505}
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
# Where a single one is limited by its window, 32 are what a line of 1 Gb/s and 20 ms takes (16 ranges of a reader,
# and as many small files ahead of another); a browser opens six for each host, rclone up to 32.
MAX_CONNECTIONS = 32
TOO_MANY = 429
ABSENT = "the service could not be reached a moment ago"


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer whose body is unread, and the address that gave it."""

    response: wire.Incoming
    url: str


class _Wire:
    """One request at a time: connection, redirects, body, and what can go wrong with them."""

    def __init__(
        self, source: str, gate: targets.Gate, own_headers: Mapping[str, str], deadline_s: float, observer: Observer
    ) -> None:
        """Send ``own_headers`` through ``gate`` to its home, and to nowhere else."""
        self.source = source
        self.gate = gate
        self.reach = Reach()
        self.deadline_s = deadline_s
        self._counters = observer.counters(source)
        self._own_headers = {"User-Agent": f"artifactfs/{artifactfs.__version__}"}
        self._secrets = dict(own_headers)
        self.sender = _sender()

    # -- one request -----------------------------------------------------------------------------------------

    async def follow(self, ask: Ask) -> _Answer:
        """Send one request and follow redirects by hand, the token staying at home."""
        target, params, came_from = ask.target, ask.params, None
        for _ in range(MAX_REDIRECTS + 1):
            allowed = await self.gate.check(target, came_from=came_from, authored=ask.authored)
            response = await self._send(ask, target, params, allowed)
            location = response.headers.get("location")
            if not ask.follow or response.status not in REDIRECTS or not location:
                return _Answer(response, target)
            await response.aclose()
            with _words(self.source):
                target, params, came_from = urljoin(target, location), (), target
        raise self.error(errors.ProviderMisbehaved, f"more than {MAX_REDIRECTS} redirects", target)

    async def _send(self, ask: Ask, target: str, params: Pairs, allowed: frozenset[str] | None) -> wire.Incoming:
        origin = targets.origin(target)
        if not self.reach.admits(origin):
            raise self.error(errors.Unreachable, ABSENT, target)
        left_s = max(0.0, ask.end - trio.current_time())
        connect_s = min(CONNECT_TIMEOUT_S, max(1.0, left_s / 4))
        read_s = min(READ_TIMEOUT_S, self.deadline_s)
        with _words(self.source):
            url = messages.with_params(target, params)
        request = wire.Outgoing(url, self._headers(ask, target), allowed, left_s / 2, connect_s, read_s)
        try:
            # Waiting for a slot, connecting and TLS have each had their time before this cuts in.
            with _words(self.source), trio.move_on_after(max(left_s, left_s / 2 + 2 * connect_s)):
                response = await self.sender.send(request)
                self.reach.answered(origin)
                return response
        except wire.WireError as error:
            raise self._wire_error(error, target) from error
        raise self.error(errors.TimedOut, f"no answer within {self.deadline_s:.0f} s", target)

    def _headers(self, ask: Ask, target: str) -> dict[str, str]:
        headers = {**self._own_headers, "Accept-Encoding": "identity", **ask.headers}
        if not ask.authored and self.gate.is_home(target) and not is_signed(target):
            headers.update(self._secrets)
        return headers

    # -- the body --------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def reading(self, answer: _Answer) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """Hand the body over in pieces, and close what is behind it in whatever state it is left."""
        body = answer.response.chunks()
        chunks = self._chunks(body, answer.url)
        try:
            yield chunks
        finally:
            with trio.move_on_after(1, shield=True):
                await chunks.aclose()
                await body.aclose()
                await answer.response.aclose()

    async def _chunks(self, body: AsyncIterator[bytes], url: str) -> AsyncGenerator[bytes, None]:
        counters = self._counters
        try:
            async for chunk in body:
                counters.bytes_received += len(chunk)
                yield chunk
        except wire.WireError as error:
            raise self._wire_error(error, url) from error

    # -- failures --------------------------------------------------------------------------------------------

    def _wire_error(self, error: wire.WireError, target: str) -> errors.ArtifactFSError:
        if isinstance(error, wire.NotConnectedError):
            self.reach.failed(targets.origin(target), silent=error.silent)
            return self.error(errors.Unreachable, f"no connection: {error}", target)
        if isinstance(error, wire.TooSlowError):
            wait_s = min(READ_TIMEOUT_S, self.deadline_s)
            return self.error(errors.TimedOut, f"no answer within {wait_s:.0f} s", target)
        if isinstance(error, wire.UnspeakableError):
            return self.error(errors.ProviderMisbehaved, str(error), target)
        return self.error(errors.Unavailable, f"the connection broke: {error}", target)

    def error(self, kind: type[errors.ArtifactFSError], message: str, url: str) -> errors.ArtifactFSError:
        return kind(message, provider=self.source, subject=bare(url))


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

        Raises:
            ConfigError: a header cannot be sent as it is; the message does not show it.
        """
        self.source = source
        self.base_url = base_url.rstrip("/")
        self.budget = budget or Budget()
        self.observer = observer or Observer()
        self.deadline_s = deadline_s
        self.gate = targets.Gate(self.base_url, allow_private=allow_private)
        if not all(map(messages.can_be_sent, (headers or {}).values())):
            message = (
                f"the token of source {source!r} has characters that no token has (a space or a line end, perhaps)"
            )
            raise errors.ConfigError(message)
        self._wire = _Wire(source, self.gate, headers or {}, deadline_s, self.observer)

    def __repr__(self) -> str:
        return f"<HttpClient {self.source} {bare(self.base_url)} {self.budget!r}>"

    async def aclose(self) -> None:
        await self._wire.sender.aclose()

    async def get(
        self,
        path: str,
        params: Params = None,
        *,
        route: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """GET a path below the base URL and read the answer whole, retrying as the rules allow.

        Returns any answer that is not a retried failure, whatever its status.

        Raises:
            Unavailable, RateLimited: retried statuses or broken connections until the end.
            Unreachable, TimedOut, QuotaExceeded, ProviderMisbehaved.
        """
        return await self._retrying(self._ask(path, params, route, headers), self._whole)

    @contextlib.asynccontextmanager
    async def stream(
        self,
        url: str,
        params: Params = None,
        *,
        route: str | None = None,
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
        ask = self._ask(url, params, route, headers)
        ask.follow, ask.authored = follow, authored
        answer = await self._retrying(ask, self._answered)
        async with (
            self._wire.reading(answer) as chunks,
            contextlib.aclosing(self._reported(chunks, answer.url)) as reported,
        ):
            yield StreamReply(answer.response.status, answer.response.headers, answer.url, reported)
        # Not when it begins: one that breaks in its middle is no success.
        self._note_success(answer)

    def _ask(self, url: str, params: Params, route: str | None, headers: Mapping[str, str] | None) -> Ask:
        target = url if url.startswith(("http://", "https://")) else self.base_url + url
        if target is not url and messages.has_dot_segment(url):
            # Servers and clients take it away, and what stands before it: another question than was asked.
            raise self._wire.error(errors.ProviderMisbehaved, "an id that cannot stand in an address", self.base_url)
        pairs = tuple(params.items() if isinstance(params, Mapping) else params or ())
        return Ask(target, pairs, route or url, headers or {}, trio.current_time() + self.deadline_s)

    # -- trying ----------------------------------------------------------------------------------------------

    async def _retrying(self, ask: Ask, attempt: Callable[[Ask], Awaitable[T]]) -> T:
        """Try until it works, cannot work, or the deadline is near."""
        for tried in range(1, MAX_TRIES + 1):
            await self._admit(ask)
            ask.wait_s = None
            try:
                return await attempt(ask)
            except (errors.Unavailable, errors.Unreachable, errors.TimedOut) as error:
                failure = error
            pause_s = self._pause_s(tried, ask.wait_s)
            gone = isinstance(failure, errors.Unreachable) and (
                tried > 1 or self._wire.reach.is_resting(self.gate.home)
            )
            if gone or tried == MAX_TRIES or trio.current_time() + pause_s > ask.end:
                self._report(failure, ask.target)
                raise failure
            log.info("%s: %s; trying again in %.1f s", self.source, failure, pause_s)
            await trio.sleep(pause_s)
        raise AssertionError  # pragma: no cover - the loop always returns or raises

    async def _admit(self, ask: Ask) -> None:
        """Wait for leave to send a request.

        Raises:
            RateLimited, QuotaExceeded: it would not come before the deadline; nothing is sent.
            Unreachable: nobody was there a moment ago; nothing is sent, nor taken from the budget.
        """
        if self._wire.reach.is_resting(targets.origin(ask.target)):
            raise self._wire.error(errors.Unreachable, ABSENT, ask.target)
        quiet_s = self._wire.reach.quiet_s()
        left_s = ask.end - trio.current_time()
        if quiet_s > left_s:
            message = f"the service asked for fewer requests; the next one may be sent in {quiet_s:.0f} s"
            raise errors.RateLimited(
                message, retry_after_s=quiet_s, provider=self.source, subject=bare(ask.target), status=429
            )  # fmt: skip
        await trio.sleep(quiet_s)
        await self.budget.take(limits.lane.get(), left_s - quiet_s)
        self.observer.sent(self.source, f"GET {ask.route}")

    @staticmethod
    def _pause_s(attempt: int, wait_s: float | None) -> float:
        jitter = random.uniform(0, min(BACKOFF_CAP_S, BACKOFF_FIRST_S * 2.0**attempt))  # noqa: S311 - no secret
        return jitter if wait_s is None else wait_s + jitter / 4

    async def _whole(self, ask: Ask) -> Reply:
        """Send a request and read its answer to the end."""
        answer = await self._answered(ask)
        body, announced = bytearray(), messages.number(answer.response.headers.get("content-length", "")) or 0
        async with self._wire.reading(answer) as chunks:
            with trio.move_on_at(ask.end) as scope:
                async for chunk in chunks:
                    body += chunk
                    if max(len(body), announced) > MAX_JSON_BYTES:
                        message = f"an answer is larger than {MAX_JSON_BYTES >> 20} MiB"
                        raise self._wire.error(errors.ProviderMisbehaved, message, answer.url)
        if scope.cancelled_caught:
            # Each byte came in time, but all of them would not: a server that drips must not hold a reader.
            message = f"the answer was not complete after {self.deadline_s:.0f} s"
            raise self._wire.error(errors.TimedOut, message, answer.url)
        self._note_success(answer)
        return Reply(answer.response.status, answer.response.headers, bytes(body), answer.url)

    async def _answered(self, ask: Ask) -> _Answer:
        """Send a request; return the answer, its body unread, unless it is a failure that may pass."""
        answer = await self._wire.follow(ask)
        status = answer.response.status
        if status not in RETRIED_STATUS:
            return answer
        await answer.response.aclose()
        ask.wait_s = retry_after_s(answer.response.headers)
        request_id = answer.response.headers.get("x-request-id")
        facts: dict[str, Any] = {"provider": self.source, "subject": bare(answer.url), "request_id": request_id}
        if status != TOO_MANY:
            raise errors.Unavailable(f"the service failed ({status})", status=status, **facts)
        if ask.wait_s is not None and self.gate.is_home(answer.url):
            self._wire.reach.hush(ask.wait_s)
        message = "the service asked for fewer requests (429)"
        raise errors.RateLimited(message, retry_after_s=ask.wait_s, status=status, **facts)

    async def _reported(self, chunks: AsyncIterator[bytes], url: str) -> AsyncGenerator[bytes, None]:
        """Pass pieces on; a failure is noted here, as nobody tries again."""
        try:
            async for chunk in chunks:
                yield chunk
        except errors.ArtifactFSError as failure:
            self._report(failure, url)
            raise

    def _note_success(self, answer: _Answer) -> None:
        if 200 <= answer.response.status < 300:  # noqa: PLR2004 - the range of success
            self.observer.succeeded(self.source)

    def _report(self, error: errors.ArtifactFSError, url: str) -> None:
        self.observer.failed(self.source, bare(url), str(error), status=error.status, request_id=error.request_id)


@contextlib.contextmanager
def _words(source: str) -> Iterator[None]:
    """Turn what an address that is none raises into our words."""
    try:
        yield
    except ValueError as error:
        message = "an address in an answer cannot be understood"
        raise errors.ProviderMisbehaved(message, provider=source) from error


def _sender() -> wire.Sender:
    if targets.has_proxy():
        from artifactfs.providers.proxied import Proxied  # noqa: PLC0415 - 0.15 s for those who need it

        return Proxied(MAX_CONNECTIONS)
    return Pool(MAX_CONNECTIONS)
