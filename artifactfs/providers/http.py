"""Requests to one source: where they may go, how often, what is tried again.

Rules of this file:
* It knows HTTP, not what a service means by an answer: providers decide that in their ``api.py``. How one
  request is sent is in ``one_request.py``.
* The token is sent to the configured origin and to no other: a redirect to another origin is followed without it.
* A redirect never goes from https to http, to a scheme other than http(s), or into a private network that the
  service itself is not in.
* Only requests that are safe to repeat are repeated: GET, with full jitter, honouring Retry-After, within the deadline.
  What changes something is sent once, and not redirected; who asked for it knows how to find out what became of it.
* A token that the service refuses is looked for anew, once for a request (``credentials.py``).
* Calls run in tasks owned by the mount (``concurrency.SingleFlight``), never in that of a kernel request.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import trio

from artifactfs import errors
from artifactfs.model.limits import ANSWERS, AnswerLimits, named
from artifactfs.observe import Observer
from artifactfs.providers import limits, messages, targets, wire
from artifactfs.providers.credentials import Credentials
from artifactfs.providers.limits import Budget
from artifactfs.providers.messages import Ask, Reply, StreamReply, bare, retry_after_s
from artifactfs.providers.one_request import ABSENT, Answer, Requester
from artifactfs.providers.reports import Reports

__all__ = ["HttpClient", "Reply", "StreamReply"]

log = logging.getLogger(__name__)

T = TypeVar("T")
Params = Mapping[str, str] | Sequence[tuple[str, str]] | None

# What may pass: also those of the field's proxies (520 to 530), not "never in this API" and "not this HTTP".
RETRIED_STATUS = frozenset({408, 425, 429, *range(500, 600)}) - {501, 505}
# Five tries with the waits below spread over about 4 s: as many as the VLM Run SDK makes, sooner.
MAX_TRIES = 5
BACKOFF_FIRST_S = 0.25
BACKOFF_CAP_S = 8.0
# A body takes as long as a line of half a megabit a second needs for it: slower ones are those of a phone in a tunnel.
SLOWEST_BYTES_PER_S = 64 * 1024
TOO_MANY = 429
UNAUTHORIZED = 401
REFUSED = 400
# What providers look at of a refusal's body (``answers.MAX_ERROR_BODY``).
REFUSAL_BYTES = 64 * 1024


class HttpClient:
    """One source's way to its service."""

    def __init__(  # noqa: PLR0913 - what a service is asked with differs in each of these
        self,
        source: str,
        base_url: str,
        *,
        headers: Mapping[str, str] | Credentials | None = None,
        budget: Budget | None = None,
        observer: Observer | None = None,
        deadline_s: float = 30.0,
        allow_private: bool = False,
        answer_limits: AnswerLimits = ANSWERS,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            source: name of the source, for counters and errors.
            base_url: the service's address; paths are appended to it.
            headers: sent to that origin only; holds the Authorization. Those of a ``Credentials`` may change.
            budget: of requests; unlimited if None.
            observer: counts requests and keeps failures.
            deadline_s: how long one call may take with all its tries, in seconds.
            allow_private: let redirects and ``url_`` bodies lead into private networks.
            answer_limits: what an answer may cost.

        Raises:
            ConfigError: a header cannot be sent as it is; the message does not show it.
        """
        self.source = source
        self.base_url = base_url.rstrip("/")
        self.budget = budget or Budget()
        self.observer = observer or Observer()
        self.deadline_s = deadline_s
        self.answer_limits = answer_limits
        self.gate = targets.Gate(self.base_url, allow_private=allow_private)
        credentials = headers if isinstance(headers, Credentials) else Credentials(headers)
        if not all(map(messages.can_be_sent, credentials.headers.values())):
            odd = "characters that no token has (a space or a line end, perhaps)"
            raise errors.ConfigError(f"the token of source {source!r} has {odd}")
        self._wire = Requester(source, self.gate, credentials, deadline_s, self.observer, answer_limits.max_redirects)
        self.observer.gauges[source] = self._gauges
        self._reports = Reports(self.observer, source)

    def __repr__(self) -> str:
        return f"<HttpClient {self.source} {bare(self.base_url)} {self.budget!r}>"

    def _gauges(self) -> Mapping[str, float]:
        """Return the state of connections, circuit breaker and budget now; what has no limit is left out."""
        left = self.budget.left()
        budget = {} if math.isinf(left) else {"budget_left": left}
        return {**self._wire.sender.gauges(), **self._wire.reach.gauges(), **budget}

    async def aclose(self) -> None:
        await self._wire.sender.aclose()

    async def get(
        self,
        path: str,
        params: Params = None,
        *, route: str | None = None, headers: Mapping[str, str] | None = None,
    ) -> Reply:  # fmt: skip
        """GET a path below the base URL and read the answer whole, retrying as the rules allow.

        Returns any answer that is not a retried failure, whatever its status.

        Raises:
            Unavailable, RateLimited: retried statuses or broken connections until the end.
            Unreachable, TimedOut, QuotaExceeded, ProviderMisbehaved.
        """
        return await self._retrying(self._ask(path, params, route, headers), self._whole)

    async def send(
        self,
        method: str,
        url: str,
        params: Params = None,
        *,
        body: wire.Body | None = None,
        route: str | None = None,
        headers: Mapping[str, str] | None = None,
        anonymous: bool = False,
    ) -> Reply:
        """Send a request that changes something, once, and read the answer whole, a redirect as it is.

        ``anonymous``: without the token, to an address that the service gave. A body adds to the deadline what
        ``SLOWEST_BYTES_PER_S`` allows it.

        Raises:
            Unavailable, TimedOut: it may have been carried out.
            RateLimited, Unreachable, QuotaExceeded, ProviderMisbehaved, CorruptContent: it was not.
        """
        ask = self._ask(url, params, route, headers)
        ask.method, ask.body, ask.follow, ask.anonymous = method, body, False, anonymous
        await self._admit(ask)
        ask.end += body.length / SLOWEST_BYTES_PER_S if body else 0.0
        try:
            return await self._whole(ask)
        except errors.ArtifactFSError as failure:
            self._reports.failed(failure, ask.target)
            raise

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
            contextlib.aclosing(self._reports.passed_on(chunks, answer.url)) as reported,
            contextlib.aclosing(_refusal(reported, self._wire.credentials)) as refusal,
        ):
            if answer.response.status < REFUSED:
                yield StreamReply(answer.response.status, answer.response.headers, answer.url, reported)
            else:
                told = _told(answer, b"", self._wire.credentials)
                yield StreamReply(told.status, told.headers, told.url, refusal)
        # Not when it begins: one that breaks in its middle is no success.
        self._reports.received(answer)

    @contextlib.asynccontextmanager
    async def listen(self, path: str, *, silent_s: float, route: str | None = None) -> AsyncIterator[StreamReply]:
        """GET a stream of events below the base URL, which goes on until the block is left.

        Asked for once: who listens has pauses of its own, and what breaks is no failure of the source. ``silent_s`` is
        how long nothing may come before the stream counts as lost, in seconds. Any answer that is not a retried failure
        is returned, whatever its status.

        Raises:
            Unavailable, Unreachable, TimedOut, QuotaExceeded, ProviderMisbehaved: there is no stream, or it broke.
        """
        ask = self._ask(path, None, route, {"Accept": "text/event-stream"})
        ask.lasting_s, ask.follow = silent_s, False
        await self._admit(ask)
        answer = await self._answered(ask)
        async with self._wire.reading(answer) as chunks:
            yield StreamReply(answer.response.status, answer.response.headers, answer.url, chunks)

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
            except (errors.Unavailable, errors.Unreachable, errors.TimedOut) as failure:
                pause_s = self._pause_s(tried, ask.wait_s)
                gone = isinstance(failure, errors.Unreachable) and (
                    tried > 1 or self._wire.reach.is_resting(self.gate.home)
                )
                if gone or tried == MAX_TRIES or trio.current_time() + pause_s > ask.end:
                    self._reports.failed(failure, ask.target)
                    raise
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
        self.observer.sent(self.source, f"{ask.method} {ask.route}")

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
                    if max(len(body), announced) > self.answer_limits.max_answer_bytes:
                        message = f"an answer is larger than {named(self.answer_limits, 'max_answer_bytes')} bytes"
                        raise self._wire.error(errors.ProviderMisbehaved, message, answer.url)
        if scope.cancelled_caught:
            # Each byte came in time, but all of them would not: a server that drips must not hold a reader.
            message = f"the answer was not complete after {self.deadline_s:.0f} s"
            raise self._wire.error(errors.TimedOut, message, answer.url)
        self._reports.received(answer)
        return _told(answer, bytes(body), self._wire.credentials, self.answer_limits)

    async def _answered(self, ask: Ask) -> Answer:
        """Send a request; return the answer, its body unread, unless it is a failure that may pass."""
        answer = await self._wire.follow(ask)
        if answer.response.status == UNAUTHORIZED and ask.used:
            answer = await self._wire.taken_in(answer, ask.end, REFUSAL_BYTES)
            if await self._wire.credentials.others_than(ask.used, ask.end):
                # Refused is not carried out, so what changes something may be sent again, too.
                await self._admit(ask)
                answer = await self._wire.follow(ask)
        status = answer.response.status
        if status not in RETRIED_STATUS:
            return answer
        await answer.response.aclose()
        ask.wait_s = retry_after_s(answer.response.headers)
        request_id = _told(answer, b"", self._wire.credentials).headers.get("x-request-id")
        facts: dict[str, Any] = {"provider": self.source, "subject": bare(answer.url), "request_id": request_id}
        if status != TOO_MANY:
            raise errors.Unavailable(f"the service failed ({status})", status=status, **facts)
        if ask.wait_s is not None and self.gate.is_home(answer.url):
            self._wire.reach.hush(ask.wait_s)
        message = "the service asked for fewer requests (429)"
        raise errors.RateLimited(message, retry_after_s=ask.wait_s, status=status, **facts)


def _told(answer: Answer, body: bytes, credentials: Credentials, bounds: AnswerLimits = ANSWERS) -> Reply:
    """Return an answer; a refusal without the token, which some services repeat in it."""
    status, headers = answer.response.status, answer.response.headers
    if status >= REFUSED:
        body = credentials.hidden(body)
        headers = {name: credentials.hidden(value.encode()).decode() for name, value in headers.items()}
    return Reply(status, headers, body, answer.url, bounds)


async def _refusal(chunks: AsyncIterator[bytes], credentials: Credentials) -> AsyncGenerator[bytes, None]:
    """Pass on as much as anybody looks at, in one piece: a token may stand where two of them meet."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) >= REFUSAL_BYTES:
            break
    yield credentials.hidden(bytes(body))
