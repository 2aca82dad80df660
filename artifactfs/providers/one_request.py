"""One request to one source: connection, token, redirects, body, and what can go wrong with them.

Rules of this file: it tries once. The token goes to the configured origin and to no other; where an address leads is
decided by ``targets.Gate``, what carries a request by ``connections.py`` or, where the environment names a proxy, by
``proxied.py``.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from urllib.parse import urljoin

import trio

import artifactfs
from artifactfs import errors
from artifactfs.model.limits import ANSWERS
from artifactfs.observe import Observer, clock
from artifactfs.providers import messages, targets, wire
from artifactfs.providers.connections import Pool
from artifactfs.providers.credentials import Credentials
from artifactfs.providers.messages import Ask, Pairs, bare, is_signed
from artifactfs.providers.reach import Reach

log = logging.getLogger(__name__)

REDIRECTS = frozenset({301, 302, 303, 307, 308})
# Syntropic137 takes about 6 s to give up on its object store before it answers, so reading waits longer than that.
READ_TIMEOUT_S = 20.0
# A server that was sent much answers later: VLM Run's SDK waits 180 s for the answer to 32 MiB at most.
DIGESTED_BYTES_PER_S = 256 * 1024
MAX_DIGESTION_S = 160.0
CONNECT_TIMEOUT_S = 5.0
# Where a single one is limited by its window, 32 are what a line of 1 Gb/s and 20 ms takes (16 ranges of a reader,
# and as many small files ahead of another); a browser opens six for each host, rclone up to 32.
MAX_CONNECTIONS = 32
# What a refusal says comes at once; without the rest of it, it is still one.
TAKEN_IN_S = 5.0
ABSENT = "the service could not be reached a moment ago"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose body is unread, and the address that gave it."""

    response: wire.Incoming
    url: str


class Requester:
    """One request at a time: connection, redirects, body, and what can go wrong with them."""

    def __init__(
        self,
        source: str,
        gate: targets.Gate,
        credentials: Credentials,
        deadline_s: float,
        observer: Observer,
        max_redirects: int = ANSWERS.max_redirects,
    ) -> None:
        """Send ``credentials`` through ``gate`` to its home, and to nowhere else."""
        self.source = source
        self.gate = gate
        self.reach = Reach()
        self.deadline_s = deadline_s
        self._max_redirects = max_redirects
        self._counters = observer.counters(source)
        self._own_headers = {"User-Agent": f"artifactfs/{artifactfs.__version__}"}
        self.credentials = credentials
        self.sender = _sender()

    # -- one request -----------------------------------------------------------------------------------------

    async def follow(self, ask: Ask) -> Answer:
        """Send one request and follow redirects by hand, the token staying at home."""
        target, params, came_from = ask.target, ask.params, None
        for _ in range(self._max_redirects + 1):
            allowed = await self.gate.check(target, came_from=came_from, authored=ask.authored)
            response = await self._send(ask, target, params, allowed)
            location = response.headers.get("location")
            if not ask.follow or response.status not in REDIRECTS or not location:
                return Answer(response, target)
            await response.aclose()
            with _words(self.source):
                target, params, came_from = urljoin(target, location), (), target
        raise self.error(
            errors.ProviderMisbehaved, f"more redirects than limits.max-redirects = {self._max_redirects}", target
        )

    async def _send(self, ask: Ask, target: str, params: Pairs, allowed: frozenset[str] | None) -> wire.Incoming:
        origin = targets.origin(target)
        if not self.reach.admits(origin):
            raise self.error(errors.Unreachable, ABSENT, target)
        left_s = max(0.0, ask.end - trio.current_time())
        connect_s = min(CONNECT_TIMEOUT_S, max(1.0, left_s / 4))
        read_s = min(READ_TIMEOUT_S, self.deadline_s)
        if ask.body:
            read_s += min(MAX_DIGESTION_S, ask.body.length / DIGESTED_BYTES_PER_S)
        with _words(self.source):
            url = messages.with_params(target, params)
        headers = self._headers(ask, target)
        request = wire.Outgoing(
            url, headers, allowed, left_s / 2, connect_s, read_s, ask.method, ask.body, ask.lasting_s, ask.route
        )
        began, response = clock(), None
        try:
            # Waiting for a slot, connecting and TLS have each had their time before this cuts in.
            with _words(self.source), trio.move_on_after(max(left_s, left_s / 2 + 2 * connect_s)):
                response = await self.sender.send(request)
                self.reach.answered(origin)
                return response
        except wire.WireError as error:
            raise self._wire_error(error, target) from error
        finally:
            self._note(ask.method, target, began, response)
        raise self.error(errors.TimedOut, f"no answer within {self.deadline_s:.0f} s", target)

    def _note(self, method: str, target: str, began: float, response: wire.Incoming | None) -> None:
        """Count one request and tell of it; what it was for is in the head of the log's line."""
        took_s, counters = clock() - began, self._counters
        status = str(response.status) if response is not None else "none"
        counters.latency.add(took_s)
        counters.answers[status] += 1
        if log.isEnabledFor(logging.DEBUG):
            request_id = response.headers.get("x-request-id") if response is not None else None
            facts = {
                "source": self.source, "method": method, "url": bare(target), "status": status,
                "ms": round(took_s * 1000, 1), "request_id": request_id,
            }  # fmt: skip
            words = "%s: %s %s: status %s after %.1f ms, request %s"
            log.debug(words, *facts.values(), extra={"request": facts})

    def _headers(self, ask: Ask, target: str) -> dict[str, str]:
        headers = {**self._own_headers, "Accept-Encoding": "identity", **ask.headers}
        ask.used = None
        if not (ask.authored or ask.anonymous) and self.gate.is_home(target) and not is_signed(target):
            ask.used = self.credentials.headers
            headers.update(ask.used)
        return headers

    # -- the body --------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def reading(self, answer: Answer) -> AsyncIterator[AsyncGenerator[bytes, None]]:
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

    async def taken_in(self, answer: Answer, end: float, most: int) -> Answer:
        """Return an answer that holds no connection: of its body the first ``most`` bytes, or what came by ``end``."""
        body, chunks = bytearray(), answer.response.chunks()
        try:
            with trio.move_on_at(min(end, trio.current_time() + TAKEN_IN_S)), contextlib.suppress(wire.WireError):
                async for chunk in chunks:
                    body += chunk
                    if len(body) >= most:
                        break
        finally:
            with trio.move_on_after(1, shield=True):
                await chunks.aclose()
                await answer.response.aclose()
        return Answer(wire.Kept(answer.response.status, answer.response.headers, bytes(body)), answer.url)

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
