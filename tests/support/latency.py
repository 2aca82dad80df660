"""A line with a delay: relays TCP, each byte a fixed time later, without limiting how many.

A process of its own, so that neither server nor client under test pays for it. What it does not have of a real line is
slow start: connections through it are fast from their first byte.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import trio

# Pieces in flight in each direction: at 64 KiB each far more than a line of 100 ms carries.
PIECES = 4096
PIECE = 1 << 16


async def _take(source: trio.SocketStream, line: trio.MemorySendChannel[tuple[float, bytes]], delay_s: float) -> None:
    async with line:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some(PIECE):
                await line.send((trio.current_time() + delay_s, bytes(data)))


async def _give(line: trio.MemoryReceiveChannel[tuple[float, bytes]], target: trio.SocketStream) -> None:
    async with line:
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for due, data in line:
                await trio.sleep_until(due)
                await target.send_all(data)
            await target.send_eof()


async def _relay(port: int, delay_s: float, near: trio.SocketStream) -> None:
    # As long as a handshake over the line would take, before the first byte goes on.
    await trio.sleep(2 * delay_s)
    async with near, await trio.open_tcp_stream("127.0.0.1", port) as far, trio.open_nursery() as nursery:
        for source, target in ((near, far), (far, near)):
            into, out_of = trio.open_memory_channel[tuple[float, bytes]](PIECES)
            nursery.start_soon(_take, source, into, delay_s)
            nursery.start_soon(_give, out_of, target)


async def _main(port: int, delay_s: float) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        with contextlib.suppress(OSError, trio.BrokenResourceError):
            await _relay(port, delay_s, stream)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    sys.stdout.write(f"{listeners[0].socket.getsockname()[1]}\n")
    sys.stdout.flush()
    await trio.serve_listeners(handle, listeners)


@contextlib.contextmanager
def delayed(url: str, round_trip_s: float) -> Iterator[str]:
    """Reach a server on loopback through a line of this round trip; yields the URL to use in place of ``url``."""
    parts = urlsplit(url)
    command = [sys.executable, __file__, str(parts.port), str(round_trip_s / 2)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent) as relay:
        try:
            assert relay.stdout is not None
            yield parts._replace(netloc=f"{parts.hostname}:{int(relay.stdout.readline())}").geturl()
        finally:
            relay.kill()


if __name__ == "__main__":
    trio.run(partial(_main, int(sys.argv[1]), float(sys.argv[2])))
