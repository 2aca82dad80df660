"""A request's words on a connection: its head, and its body while the answer is listened for.

Rules of this file: what is sent is framed by h11. A server may answer before it has read a body (a refusal, mostly):
then no more of it is sent, and the connection is not used again, which h11's states tell by themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import h11
import trio

from artifactfs.providers.wire import TooSlowError, UnspeakableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from artifactfs.providers.wire import Body, Outgoing, Place

HEAD_BYTES = 64 * 1024


def words(parser: h11.Connection, there: Place, request: Outgoing) -> bytes:
    """Return the head of a request as it is sent.

    Raises:
        UnspeakableError: it cannot be put into words.
    """
    headers = [("Host", there.host), *request.headers.items()]
    if request.body is not None:
        headers.append(("Content-Length", str(request.body.length)))
    elif request.method != "GET":
        headers.append(("Content-Length", "0"))
    try:
        head = parser.send(h11.Request(method=request.method, target=there.target, headers=headers))
        if request.body is None:
            parser.send(h11.EndOfMessage())
    except (h11.LocalProtocolError, UnicodeError):
        # Its words can hold what was to be sent, the token included.
        message = "the request could not be put into words"
        raise UnspeakableError(message) from None
    return head or b""


class Speech:
    """Sends one body over a stream, and stops when the answer begins to come."""

    def __init__(self, stream: trio.abc.Stream, parser: h11.Connection, read_s: float) -> None:
        """Send over ``stream``; each piece must be taken within ``read_s`` seconds."""
        self._stream = stream
        self._parser = parser
        self._read_s = read_s
        self._sending = trio.CancelScope()

    async def send(self, body: Body) -> h11.Response | None:
        """Send it; return the head of an answer that came meanwhile.

        A connection that breaks meanwhile says why when it is read from: an answer may still stand there.

        Raises:
            TooSlowError: a piece was not taken in time.
            CorruptContent: the body is not what it was.
        """
        early: list[h11.Response] = []
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, early)
            with self._sending:
                try:
                    await self._send(body.pieces())
                except (OSError, trio.BrokenResourceError):
                    pass
                except Exception as error:  # noqa: BLE001 - raised again below, outside of the nursery's group
                    failure = error
            nursery.cancel_scope.cancel()
        if failure is not None and not early:
            raise failure
        return early[0] if early else None

    async def _send(self, pieces: AsyncGenerator[bytes, None]) -> None:
        try:
            async for piece in pieces:
                with trio.fail_after(self._read_s):
                    await self._stream.send_all(self._parser.send(h11.Data(data=piece)) or b"")
            self._parser.send(h11.EndOfMessage())
        except trio.TooSlowError:
            message = f"the body was not taken for {self._read_s:.0f} s"
            raise TooSlowError(message) from None
        finally:
            with trio.move_on_after(1, shield=True):
                await pieces.aclose()

    async def _listen(self, early: list[h11.Response]) -> None:
        """Wait for an answer; what is none is left to who reads after the body."""
        try:
            while True:
                data = await self._stream.receive_some(HEAD_BYTES)
                self._parser.receive_data(bytes(data))
                event = self._parser.next_event()
                while isinstance(event, h11.InformationalResponse):
                    event = self._parser.next_event()
                if isinstance(event, h11.Response):
                    early.append(event)
                if event is not h11.NEED_DATA or not data:
                    break
        except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError) as error:
            error.__traceback__ = None  # see ``connections``
        self._sending.cancel()
