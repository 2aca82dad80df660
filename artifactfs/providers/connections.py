"""HTTP/1.1 over connections that are kept: what carries requests where no proxy stands in the way.

Rules of this file:
* Heads and chunks are read and written by h11; a body of announced length goes past it, from socket to reader.
* A connection is used again only after an answer that ended exactly where it should, with nothing behind it.
* The newest idle connection goes first; what a request costs does not depend on how many there are (httpcore's pool
  looks at all of them: with 32 a request costs 770 us of CPU, here 120).
* Whatever is cancelled, wherever, gives its slot back and leaves no connection half used.
* What h11 raises knows the frame that raised it, and so everything that the request holds: it is passed on without its
  traceback, or that would stay until the garbage collector comes by.
* A GET on a connection that had been idle and ends before a byte of the answer is sent once more on a new one: the
  server hung up as we spoke. Everything else goes over a new connection, where nothing needs to be sent twice.
"""

from __future__ import annotations

import os
import select
import ssl
from collections.abc import AsyncGenerator, Mapping
from typing import Final

import certifi
import h11
import trio

from artifactfs.errors import ProviderMisbehaved
from artifactfs.providers import limits, messages, targets
from artifactfs.providers.slots import Slots
from artifactfs.providers.speaking import HEAD_BYTES, Speech, words
from artifactfs.providers.wire import (
    Body,
    BrokenError,
    NotConnectedError,
    Outgoing,
    Place,
    TooSlowError,
    headers_of,
    place,
    undone,
)

# A head larger than this is refused: signed links and cookies stay below 16 KiB, httpcore allows 100.
MAX_HEAD = 64 * 1024
# Answers before the answer (100, 103); one or two are normal.
MAX_INFORMATIONAL = 16
# One receive: what the kernel's buffer holds after a few milliseconds at 100 MB/s.
BODY_BYTES = 256 * 1024
# Parts of a body that are looked at before others run. One takes 25 us, and a receive of chunks of one byte has 40,000
# of them: nothing else ran for a second, and connections of other sources were given up (measured).
PARTS = 200
# Warm connections save 3-4 round trips of slow start a request; 5 minutes covers a person's pauses.
KEEPALIVE_S = 300.0
# More than so many idle connections to one origin are closed after a pause: eight carry one reader's ranges.
WARM = 8
PAUSE_S = 15.0
# How long a name and a TCP connection may take of that: where the network is cut without a word, who reads what is not
# here must be told within 2 s. A first packet that was lost is sent again after 1 s.
TCP_S = 1.7
# Slots of each source that prefetch and refreshes leave to whoever waits in a system call.
RESERVE_SHARE = 4
NO_BODY: Final = frozenset({204, 304})

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]
Key = tuple[targets.Origin, frozenset[str] | None]


class _StaleError(BrokenError):
    """A connection that had been idle ended before a byte of the answer."""


class Connection:
    """One connection, for one request at a time."""

    __slots__ = ("idle_since", "key", "poll", "stream")

    def __init__(self, stream: Stream, key: Key) -> None:
        """Take a stream to the origin in ``key``."""
        self.stream = stream
        self.key = key
        self.idle_since = 0.0
        tcp = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        self.poll = select.poll()
        self.poll.register(tcp.socket.fileno(), select.POLLIN)

    def is_usable(self) -> bool:
        """Tell whether nothing came while it was idle: neither the end nor an answer to no question."""
        return not self.poll.poll(0)

    async def close(self) -> None:
        """Close it at once, without words; also when cancelled."""
        with trio.CancelScope(shield=True):  # does not wait for anything
            await trio.aclose_forcefully(self.stream)

    async def receive(self, max_bytes: int, read_s: float) -> bytes:
        """Return what comes next, nothing at the end.

        Raises:
            TooSlowError: nothing came for ``read_s`` seconds.
            BrokenError: the connection broke.
        """
        try:
            with trio.fail_after(read_s):
                return bytes(await self.stream.receive_some(max_bytes))
        except trio.TooSlowError:
            message = f"nothing came for {read_s:.0f} s"
            raise TooSlowError(message) from None
        except (OSError, trio.BrokenResourceError) as error:
            raise BrokenError(_why(error)) from error

    async def ask(self, head: bytes, parser: h11.Connection, read_s: float, body: Body | None = None) -> h11.Response:
        """Send a request and return the head of its answer.

        Raises:
            _StaleError: it ended before a byte of the answer.
        """
        began = False
        try:
            with trio.fail_after(read_s):
                await self.stream.send_all(head)
            if body and (early := await Speech(self.stream, parser, read_s).send(body)):
                return early
            for _ in range(MAX_INFORMATIONAL):
                while (event := parser.next_event()) is h11.NEED_DATA:
                    data = await self.receive(HEAD_BYTES, read_s)
                    began = began or bool(data)
                    parser.receive_data(data)
                if isinstance(event, h11.Response):
                    return event
                if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:  # noqa: PLR2004 - switching protocols, which nobody asked for
                    break
        except trio.TooSlowError:
            message = f"the request could not be sent within {read_s:.0f} s"
            raise TooSlowError(message) from None
        except (OSError, trio.BrokenResourceError, BrokenError, h11.RemoteProtocolError) as error:
            raise (BrokenError if began else _StaleError)(_why(error)) from error.with_traceback(None)
        message = "what came is no answer"
        raise BrokenError(message)


class Answer:
    """An answer over a connection, its body unread."""

    def __init__(
        self, pool: Pool, connection: Connection, parser: h11.Connection, head: h11.Response, request: Outgoing
    ) -> None:
        """Take the head of an answer to a request, and what is behind it."""
        self.status: int = head.status_code
        self.headers = headers_of(head.headers)
        self.is_lasting = request.lasting_s is not None
        self.read_s = request.read_s if request.lasting_s is None else request.lasting_s
        self._kind = request.kind
        self._pool = pool
        self._connection: Connection | None = connection
        self._parser = parser
        self._left: int | None = None
        """Bytes of the body that are still to come; None if only its end will tell."""
        if self.status in NO_BODY:
            self._left = 0
        elif "transfer-encoding" not in self.headers:
            self._left = messages.number(self.headers.get("content-length", ""))
        self._rest, self._clean = b"", True
        if self._left is not None:
            behind, _ = parser.trailing_data
            self._rest, self._clean = behind[: self._left], len(behind) <= self._left
        # h11 knows from both heads whether the connection is to be used again.
        self._reusable = parser.our_state is h11.DONE

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Return the body; see ``Incoming``."""
        raw = self._framed() if self._left is None else self._counted(self._left)
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        return raw if encoding in {"identity", ""} else undone(raw, encoding)

    async def _counted(self, left: int) -> AsyncGenerator[bytes, None]:
        chunk, self._rest = self._rest, b""
        while True:
            left -= len(chunk)
            self._left = left
            if not left:
                await self._end(clean=self._clean)
            if chunk:
                yield chunk
            if not left:
                return
            chunk = await self._receive(min(left, BODY_BYTES))
            if not chunk:
                message = f"the body ended {left} bytes early"
                raise BrokenError(message)

    async def _framed(self) -> AsyncGenerator[bytes, None]:
        """Read a body in chunks, or one that ends with the connection."""
        parser, parts = self._parser, 0
        try:
            while not isinstance(event := parser.next_event(), h11.EndOfMessage):
                parts += 1
                if not parts % PARTS:
                    await trio.lowlevel.checkpoint()
                if event is h11.NEED_DATA:
                    parser.receive_data(await self._receive(BODY_BYTES))
                elif isinstance(event, h11.Data):
                    yield bytes(event.data)
                else:
                    message = "the body is not HTTP"
                    raise BrokenError(message)
        except h11.RemoteProtocolError as error:
            raise BrokenError(_why(error)) from error.with_traceback(None)
        self._left = 0
        await self._end(clean=not parser.trailing_data[0])

    async def _receive(self, max_bytes: int) -> bytes:
        if self._connection is None:
            message = "the answer was closed"
            raise BrokenError(message)
        return await self._connection.receive(max_bytes, self.read_s)

    async def _end(self, *, clean: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self.is_lasting:
            await connection.close()
        elif connection is not None:
            await self._pool.release(connection, self._kind, reusable=clean and self._reusable)

    async def aclose(self) -> None:
        """Give the connection back; it is used again if all of the body is here."""
        await self._end(clean=self._left is not None and len(self._rest) == self._left and self._clean)


class Pool:
    """The connections of one source."""

    def __init__(self, limit: int) -> None:
        """Make at most ``limit``, each when it is needed."""
        self.slots = Slots(limit, limit // RESERVE_SHARE)
        self._idle: dict[Key, list[Connection]] = {}
        self._closed = False
        self._context: ssl.SSLContext | None = None
        self._making = trio.Lock()

    def __repr__(self) -> str:
        """Tell what is open."""
        return f"<Pool {self.idle_count()} idle, {self.slots!r}>"

    def idle_count(self) -> int:
        """Return how many connections wait for a request."""
        return sum(map(len, self._idle.values()))

    def gauges(self) -> Mapping[str, float]:
        """Return the state of the slots, and how many connections wait for a request."""
        return {**self.slots.gauges(), "pool_idle": self.idle_count()}

    async def aclose(self) -> None:
        """Close what is idle; what is in use is closed by who uses it."""
        self._closed = True
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                await connection.close()

    async def send(self, request: Outgoing) -> Answer:
        """Send a request; see ``Sender``."""
        there = place(request.url)
        parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        head = words(parser, there, request)
        if request.lasting_s is not None:
            # Of its own, and never used again: it would keep a slot from others for as long as the mount lives.
            fresh = await self._connect((there.origin, request.allowed), request)
            return await self._ask(fresh, head, parser, request)
        with trio.move_on_after(request.slot_s) as waiting:
            await self.slots.take(limits.lane.get(), request.kind)
        if waiting.cancelled_caught:
            message = "no connection became free"
            raise TooSlowError(message)
        # From here on the slot is ours: an answer takes it along, every other way out gives it back.
        try:
            return await self._send(request, there, parser, head)
        except BaseException:
            self.slots.give(request.kind)
            raise

    async def _send(self, request: Outgoing, there: Place, parser: h11.Connection, head: bytes) -> Answer:
        key = there.origin, request.allowed
        connection = await self._take_idle(key) if request.method == "GET" else None
        if connection is not None:
            try:
                return await self._ask(connection, head, parser, request)
            except _StaleError:
                parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
                head = words(parser, there, request)
        return await self._ask(await self._connect(key, request), head, parser, request)

    async def _ask(self, connection: Connection, head: bytes, parser: h11.Connection, request: Outgoing) -> Answer:
        try:
            response = await connection.ask(head, parser, request.read_s, request.body)
            return Answer(self, connection, parser, response, request)
        except BaseException:
            with trio.move_on_after(1, shield=True):
                await connection.close()
            raise

    # -- connections -----------------------------------------------------------------------------------------

    async def _take_idle(self, key: Key) -> Connection | None:
        idle = self._idle.get(key)
        oldest_s = trio.current_time() - KEEPALIVE_S
        while idle:
            connection = idle.pop()
            if not idle:
                del self._idle[key]
            if connection.idle_since >= oldest_s and connection.is_usable():
                return connection
            await connection.close()
        return None

    async def release(self, connection: Connection, kind: str, *, reusable: bool) -> None:
        """Take a connection back, and the slot that was used for it."""
        self.slots.give(kind)
        if not reusable or self._closed:
            await connection.close()
            return
        connection.idle_since = trio.current_time()
        idle = self._idle.setdefault(connection.key, [])
        idle.append(connection)
        # The list is in the order of use: what has not been needed for a while lies at its bottom.
        if len(idle) > WARM and idle[0].idle_since < connection.idle_since - PAUSE_S:
            await idle.pop(0).close()

    async def _connect(self, key: Key, request: Outgoing) -> Connection:
        await self._close_one_too_many()
        (scheme, host, port), allowed = key
        try:
            context = await self._tls() if scheme == "https" else None
            with trio.fail_after(request.connect_s):
                with trio.fail_after(min(TCP_S, request.connect_s)):
                    tcp = await trio.open_tcp_stream(host, port)
                try:
                    stream = await _secured(_vetted(tcp, host, allowed), context, host)
                except BaseException:
                    await trio.aclose_forcefully(tcp)
                    raise
        except trio.TooSlowError:
            message = "no answer"
            raise NotConnectedError(message, silent=True) from None
        except (OSError, trio.BrokenResourceError) as error:
            raise NotConnectedError(_why(error), silent=False) from error
        return Connection(stream, key)

    async def _close_one_too_many(self) -> None:
        """Keep idle connections and those in use below the limit: links lead to many hosts."""
        if self.slots.busy + self.idle_count() <= self.slots.limit:
            return
        key = min(self._idle, key=lambda key: self._idle[key][0].idle_since)
        connection = self._idle[key].pop(0)
        if not self._idle[key]:
            del self._idle[key]
        await connection.close()

    async def _tls(self) -> ssl.SSLContext:
        """Return the settings of TLS, made once: reading the certificates takes 20 to 30 ms."""
        async with self._making:
            if self._context is None:
                self._context = await trio.to_thread.run_sync(_make_context)
        return self._context


def _vetted(tcp: trio.SocketStream, host: str, allowed: frozenset[str] | None) -> trio.SocketStream:
    """Return a connection whose address may be talked to. Nothing has been sent at this point."""
    if allowed is not None and targets.class_of(str(tcp.socket.getpeername()[0])) not in allowed:
        message = f"refused to follow an address on a private network ({host})"
        raise ProviderMisbehaved(message, subject=host)
    return tcp


async def _secured(tcp: trio.SocketStream, context: ssl.SSLContext | None, host: str) -> Stream:
    if context is None:
        return tcp
    stream = trio.SSLStream(tcp, context, server_hostname=host, https_compatible=True)
    await stream.do_handshake()
    return stream


def _make_context() -> ssl.SSLContext:
    """Trust whom httpx trusts: certifi's list, or what the usual variables name."""
    file, directory = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR") or None
    context = ssl.create_default_context(cafile=file or (None if directory else certifi.where()), capath=directory)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _why(error: BaseException) -> str:
    """Return the words at the bottom of a failure."""
    while error.__cause__ is not None and (not str(error) or isinstance(error, trio.BrokenResourceError)):
        error = error.__cause__
    return str(error) or type(error).__name__
