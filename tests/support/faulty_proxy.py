"""A line to a server that can be disturbed: a TCP proxy that knows where HTTP messages begin and end.

Rules of this file: what is not disturbed passes byte for byte. Each request goes on over a connection of its own, so
that what happens to one says nothing of the next; the client's connection is kept as long as the answers are whole.
A request counts when its head has come, whatever becomes of it. Everything runs in one trio loop.
"""

from __future__ import annotations

import contextlib
import enum
import re
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Self

import trio

from tests.support.port import swallowing

PIECE = 1 << 16
END_OF_HEAD = b"\r\n\r\n"
CONTENT_LENGTH = re.compile(rb"(?im)^content-length: *(\d+) *\r?$")
CHUNKED = re.compile(rb"(?im)^transfer-encoding:.*chunked")
# Turned over at a time where bytes are corrupted: enough that no checksum of 32 bits misses it by chance.
FLIPPED = 8
# How finely a throttled body is cut, in seconds.
TICK_S = 0.05


class Break(enum.Enum):
    """How an answer ends before its time."""

    STALL = "no more bytes come"
    CUT = "the connection is closed"
    RESET = "the connection is reset"


@dataclass(frozen=True)
class Trouble:
    """What happens to answers.

    Attributes:
        delay_s: seconds before the first byte of an answer.
        in_head: how it ends in the middle of its head; with ``silent`` before its first byte.
        silent: see there.
        in_body: how it ends after ``after`` bytes of its body.
        after: see there, and ``flips``.
        flips: bits are turned over in the body, behind its first ``after`` bytes.
        longer: added to what the head says of the body's length; the body stays as it is.
        rate: of the body, in bytes a second.
        hold: a body waits after ``after`` bytes until the trouble changes, and then goes on in the new one.
        spares_held: a body that was held is not broken off when this trouble comes.
        times: so many answers; None is all.
    """

    delay_s: float = 0.0
    in_head: Break | None = None
    silent: bool = False
    in_body: Break | None = None
    after: int = 0
    flips: bool = False
    longer: int = 0
    rate: float | None = None
    hold: bool = False
    spares_held: bool = False
    times: int | None = None


NONE = Trouble(spares_held=True)


class _Broken(Exception):
    """The client's connection has been ended."""


class _Reader:
    """Bytes of one direction, cut where HTTP cuts them."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.buffer = bytearray()

    async def more(self) -> bool:
        data = await self.stream.receive_some(PIECE)
        self.buffer += data
        return bool(data)

    async def head(self) -> bytes:
        """Return a head with its empty line; nothing at the end."""
        while (at := self.buffer.find(END_OF_HEAD)) < 0:
            if not await self.more():
                return b""
        return self.take(at + len(END_OF_HEAD))

    def take(self, length: int) -> bytes:
        found = bytes(self.buffer[:length])
        del self.buffer[:length]
        return found

    async def body(self, head: bytes) -> AsyncGenerator[bytes, None]:
        """Yield a body as it comes, framing and all."""
        if CHUNKED.search(head):
            async with contextlib.aclosing(self._chunks()) as pieces:
                async for piece in pieces:
                    yield piece
            return
        found = CONTENT_LENGTH.search(head)
        left = int(found.group(1)) if found else 0
        while left:
            if not self.buffer and not await self.more():
                return
            piece = self.take(min(left, PIECE))
            left -= len(piece)
            yield piece

    async def _chunks(self) -> AsyncGenerator[bytes, None]:
        while True:
            while (at := self.buffer.find(b"\r\n")) < 0:
                if not await self.more():
                    return
            size = int(self.buffer[:at].partition(b";")[0], 16)
            whole = at + 2 + size + 2
            while len(self.buffer) < whole:
                if not await self.more():
                    return
            yield self.take(whole)
            if not size:
                return


@dataclass
class Line:
    """A port that leads to a server; ``seen`` are the requests that came, as ``GET /path?query``."""

    name: str = ""
    seen: list[str] = field(default_factory=list)
    trouble: Trouble = NONE
    url: str = ""

    def __post_init__(self) -> None:
        """Lead nowhere yet."""
        self._goal = ""
        self._port = 0
        self._left: int | None = None
        self._changed = trio.Event()
        self._listening = trio.CancelScope()
        self._left_alone = trio.Event()
        self._away = contextlib.ExitStack()
        self._nursery: trio.Nursery | None = None

    async def open(self, nursery: trio.Nursery, goal: str) -> Self:
        """Listen on a free port, and lead to the server at this address."""
        self._goal, self._nursery = goal.removeprefix("http://"), nursery
        await self._listen()
        return self

    # -- what happens ----------------------------------------------------------------------------------------

    def disturb(self, trouble: Trouble) -> None:
        """Have this happen from now on, also to what is held."""
        self.trouble, self._left = trouble, trouble.times
        self._changed.set()
        self._changed = trio.Event()

    async def leave(self, *, silently: bool = False) -> None:
        """Have nobody there any more: connections are refused, or not even that, and those there are end."""
        self._listening.cancel()
        await self._left_alone.wait()
        if silently:
            self._away.enter_context(swallowing(("127.0.0.1", self._port)))

    async def heal(self) -> None:
        """End all trouble."""
        self._away.close()
        if self._listening.cancel_called:
            await self._listen()
        self.disturb(NONE)

    def _next(self) -> Trouble:
        if self._left == 0:
            return NONE
        if self._left is not None:
            self._left -= 1
        return self.trouble

    # -- connections -----------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        assert self._nursery is not None
        listeners = await trio.open_tcp_listeners(self._port, host="127.0.0.1")
        self._port = listeners[0].socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self._listening, self._left_alone = trio.CancelScope(), trio.Event()
        self._nursery.start_soon(self._serve, listeners, self._listening)

    async def _serve(self, listeners: list[trio.SocketListener], scope: trio.CancelScope) -> None:
        with scope:
            await trio.serve_listeners(self._connection, listeners)
        self._left_alone.set()

    async def _connection(self, near: trio.SocketStream) -> None:
        with contextlib.suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError, _Broken):
            async with near:
                asking = _Reader(near)
                while head := await asking.head():
                    self.seen.append(b" ".join(head.split(b" ", 2)[:2]).decode("latin-1"))
                    await self._exchange(asking, head)

    async def _exchange(self, asking: _Reader, head: bytes) -> None:
        trouble = self._next()
        if trouble.silent:
            await self._end(asking.stream, trouble.in_head or Break.STALL)
        host, _, port = self._goal.partition(":")
        async with await trio.open_tcp_stream(host, int(port)) as far, trio.open_nursery() as nursery:
            asked, failure = trio.Event(), None
            nursery.start_soon(_pass_on, asking, head, far, asked)
            try:
                await self._answer(asking.stream, _Reader(far), trouble)
            except (OSError, trio.BrokenResourceError, _Broken) as error:
                failure = error  # bare: a nursery would wrap it
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if not asked.is_set():
            raise _Broken  # answered before all of it was there: what follows is its rest

    async def _answer(self, near: trio.SocketStream, answer: _Reader, trouble: Trouble) -> None:
        head = await answer.head()
        while head.startswith(b"HTTP/1.1 1"):
            await near.send_all(head)
            head = await answer.head()
        if not head:
            await self._end(near, Break.CUT)
        await trio.sleep(trouble.delay_s)
        if trouble.in_head:
            await near.send_all(head[: len(head) // 2])
            await self._end(near, trouble.in_head)
        await near.send_all(_lied(head, trouble.longer))
        async with contextlib.aclosing(answer.body(head)) as pieces:
            await self._body(near, pieces, trouble)
        if trouble.longer > 0:
            await self._end(near, Break.CUT)

    async def _body(self, near: trio.SocketStream, pieces: AsyncIterator[bytes], trouble: Trouble) -> None:
        passed = 0
        async for whole in pieces:
            piece = whole
            while piece:
                edge = trouble.hold or trouble.flips or trouble.in_body is not None
                take = max(0, trouble.after - passed) if edge else len(piece)
                await _send(near, piece[:take], trouble.rate)
                passed, piece = passed + min(take, len(piece)), piece[take:]
                if piece and trouble.in_body:
                    await self._end(near, trouble.in_body)
                if piece and trouble.flips:
                    piece = bytes(255 - byte for byte in piece[:FLIPPED]) + piece[FLIPPED:]
                    trouble = NONE
                if piece and trouble.hold:
                    trouble, passed = await self._released(near), 0

    async def _released(self, near: trio.SocketStream) -> Trouble:
        while self.trouble.hold:
            await self._changed.wait()
        if not self.trouble.spares_held:
            await self._end(near, Break.CUT)
        await trio.sleep(self.trouble.delay_s)
        return self._next()

    @staticmethod
    async def _end(near: trio.SocketStream, how: Break) -> None:
        if how is Break.STALL:
            while await near.receive_some(PIECE):  # until the client gives up
                pass
        if how is Break.RESET:
            near.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise _Broken


def _lied(head: bytes, longer: int) -> bytes:
    """Return a head that is wrong about the length of its body by so many bytes."""
    found = CONTENT_LENGTH.search(head) if longer else None
    if found is None:
        return head
    length = max(0, int(found.group(1)) + longer)
    return head[: found.start(1)] + str(length).encode() + head[found.end(1) :]


async def _send(near: trio.SocketStream, data: bytes, rate: float | None) -> None:
    step = len(data) if rate is None else max(1, int(rate * TICK_S))
    for at in range(0, len(data), step or 1):
        await near.send_all(data[at : at + step])
        if rate is not None:
            await trio.sleep(min(step, len(data) - at) / rate)


async def _pass_on(asking: _Reader, head: bytes, far: trio.SocketStream, asked: trio.Event) -> None:
    with contextlib.suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        await far.send_all(head)
        async with contextlib.aclosing(asking.body(head)) as pieces:
            async for piece in pieces:
                await far.send_all(piece)
        asked.set()
