"""One request and its answer as ``http.py`` and what carries them see it.

Rules of this file: it carries nothing itself. Header names are lower case. What went wrong on the way is one of four
failures; none holds what was to be sent.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote, urlsplit

import trio

from artifactfs.providers.targets import DEFAULT_PORTS, Origin, origin

# What may stand in a request's target as it is: RFC 3986's characters, and % as it is quoted already.
TARGET_SAFE = "!$%&'()*+,/:;=?@[]~"
# Of a compressed body so many bytes are undone at a time, however well it was compressed.
INFLATED = 1 << 18
# zlib's way to say: gzip or zlib, as the data tell.
EITHER = zlib.MAX_WBITS | 32
# Compressed parts of one body, one behind the other: each costs a copy of what is behind it. One is normal; servers
# that join what they have compressed before make a few.
MAX_PARTS = 1000


class WireError(Exception):
    """A request that got no answer, or not all of it."""


class NotConnectedError(WireError):
    """No connection could be made; ``silent`` if nothing came back at all."""

    def __init__(self, message: str, *, silent: bool) -> None:
        """Tell how it failed."""
        super().__init__(message)
        self.silent = silent


class TooSlowError(WireError):
    """Nothing came for too long, or no connection was free."""


class BrokenError(WireError):
    """The connection ended, or what came over it is not HTTP."""


class UnspeakableError(WireError):
    """The request cannot be put into words; nothing was sent."""


class Body(Protocol):
    """What is sent with a request; see ``bodies.py``."""

    @property
    def length(self) -> int:
        """Return how many bytes it has."""

    def pieces(self) -> AsyncGenerator[bytes, None]:
        """Return exactly so many bytes, or raise an ``ArtifactFSError``."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request on its way.

    Attributes:
        url: absolute.
        headers: to send; Host is added. Not shown: the token is among them.
        allowed: classes of IP address that a connection may lead to; None for any.
        slot_s: how long to wait for leave to use a connection, in seconds.
        connect_s: how long making one may take, TLS included.
        read_s: how long nothing may come, and how long a piece of a body may take to go.
        method: anything but GET is sent once at most, whatever happens on the way.
        body: to send; its length is added to the headers.
        lasting_s: of a stream that goes on for as long as somebody listens: how long nothing may come, in seconds. It
            takes none of the connections that others wait for. None for an ordinary request.
        kind: what is asked for: no kind gets all connections.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    allowed: frozenset[str] | None
    slot_s: float
    connect_s: float
    read_s: float
    method: str = "GET"
    body: Body | None = None
    lasting_s: float | None = None
    kind: str = ""


class Incoming(Protocol):
    """An answer whose body is unread. ``aclose`` must be called; more than once does nothing."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Return the body in the pieces it comes in, its encoding undone.

        Raises:
            TooSlowError, BrokenError: also if it ends early.
        """

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer whose connection has been let go of, with as much of its body as is wanted."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Return it in one piece."""
        await trio.lowlevel.checkpoint()
        if self.body:
            yield self.body

    async def aclose(self) -> None:
        """Do nothing more than any answer does then."""
        await trio.lowlevel.checkpoint()


class Sender(Protocol):
    """What carries requests."""

    async def send(self, request: Outgoing) -> Incoming:
        """Send it and return the answer when its head is here.

        Raises:
            WireError: as its kinds say.
            ValueError: the address is none.
        """

    def gauges(self) -> Mapping[str, float]:
        """Return how it stands at this moment, numbers by name."""

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Place:
    """An address in the parts that a request needs."""

    origin: Origin
    host: str
    """As the Host header has it."""
    target: str
    """Path and query."""


def place(url: str) -> Place:
    """Take an address apart.

    Raises:
        ValueError: it cannot be understood.
    """
    there = origin(url)
    scheme, name, port = there
    parts = urlsplit(url)
    host = name if name.isascii() else name.encode("idna").decode()
    host = f"[{host}]" if ":" in host else host
    if port != DEFAULT_PORTS.get(scheme):
        host = f"{host}:{port}"
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Place(there, host, quote(target, safe=TARGET_SAFE))


def headers_of(pairs: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by their lower-case names, repeated ones joined.

    What no terminal should be shown (h11 lets escapes through) stands as a space, as RFC 9110 5.5 has it for line ends.
    """
    found: dict[str, str] = {}
    for raw_name, raw in pairs:
        name = raw_name.decode("latin-1").lower()
        try:
            value = raw.decode()
        except UnicodeDecodeError:
            value = raw.decode("latin-1")
        value = value if value.isprintable() else "".join(c if c.isprintable() else " " for c in value)
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


class Decoder:
    """Undoes the encoding of a body, which nobody has asked for."""

    def __init__(self, encoding: str) -> None:
        """Take the Content-Encoding.

        Raises:
            BrokenError: it is not known.
        """
        if encoding not in {"gzip", "x-gzip", "deflate"}:
            message = f"the body has an encoding that was not asked for ({encoding[:40]!r})"
            raise BrokenError(message)
        self._inflater = zlib.decompressobj(EITHER)
        self._parts = 1

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Return what a piece of the body stands for, a bounded amount at a time.

        Raises:
            BrokenError: it is not in this encoding.
        """
        try:
            while data:
                if self._inflater.eof:  # what is behind it is the next part of the same body
                    data = data.lstrip(b"\0")  # or padding, as of gzip(1)
                    if not data:
                        break
                    self._begin_another()
                piece = self._inflater.decompress(data, INFLATED)
                data = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
                if piece:
                    yield piece
        except zlib.error as error:
            message = "the body is not in the encoding it claims"
            raise BrokenError(message) from error

    def _begin_another(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            message = f"the encoded body has more than {MAX_PARTS} parts"
            raise BrokenError(message)
        self._inflater = zlib.decompressobj(EITHER)

    def end(self) -> None:
        """Note that no more comes.

        Raises:
            BrokenError: there should.
        """
        if not self._inflater.eof:
            message = "the encoded body ended early"
            raise BrokenError(message)


async def undone(raw: AsyncGenerator[bytes, None], encoding: str) -> AsyncGenerator[bytes, None]:
    """Return a body with its encoding undone.

    Raises:
        BrokenError: it is not in this encoding.
    """
    try:
        decoder = Decoder(encoding)
        async for chunk in raw:
            for piece in decoder.feed(chunk):
                yield piece
        decoder.end()
    finally:
        with trio.move_on_after(1, shield=True):
            await raw.aclose()
