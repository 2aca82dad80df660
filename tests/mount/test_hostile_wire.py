"""Servers that speak HTTP wrongly, byte by byte, through a real mount: an errno in time, others served meanwhile.

What is said is the same for all services, so each way of saying it wrong is tried on one of them in turn.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Self

import pytest

from tests.support.awkward import Served, vm0_of_archives
from tests.support.control import ask
from tests.support.lab import Mounted, mounted, service_source
from tests.support.tar_bytes import ENDS, GOOD

pytestmark = pytest.mark.fuse

SERVICES = ("vm0", "syntropic137", "vlmrun")
PLACES = {"vm0": "artifacts", "syntropic137": ".", "vlmrun": "."}
DEADLINE_S = 5
SLACK_S = 30.0
MIB = 1 << 20
# What is measured is below 100 MiB; a head, a chunk or a body without an end would be gigabytes.
MEMORY = 400 * MIB
# Never "there is nothing", and never "it does not exist".
BAD = {"EIO", "ETIMEDOUT", "EHOSTUNREACH", errno.errorcode[errno.EOPNOTSUPP]}

NEVER = threading.Event()
Said = bytes | Callable[[socket.socket], None]
BODY = b'{"data": [], "artifacts": [], "workflows": [], "pagination": {"hasMore": false}}'


def answer(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join((b"HTTP/1.1 " + status, b"Content-Type: application/json", length, *headers, b"", body))


def unmeasured(rest: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """An answer whose headers say something else of its length, or nothing."""
    return b"\r\n".join((b"HTTP/1.1 " + status, b"Content-Type: application/json", *headers, b"", rest))


def chunked(rest: bytes) -> bytes:
    return unmeasured(rest, b"Transfer-Encoding: chunked")


def for_ever(piece: bytes, begin: bytes = b"", every_s: float = 0.0) -> Callable[[socket.socket], None]:
    def say(peer: socket.socket) -> None:
        peer.sendall(begin)
        end = time.monotonic() + 4 * DEADLINE_S
        while time.monotonic() < end:
            peer.sendall(piece)
            NEVER.wait(every_s)

    return say


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


SAID: Mapping[str, Said] = {
    "no head at all": BODY,
    "another protocol": b"\0\0\x12\4\0\0\0\0\0" + bytes(18),
    "TLS": b"\x16\x03\x01\x02\0" + bytes(100),
    "nothing": b"",
    "a reset": reset,
    "a status of letters": b"HTTP/1.1 abc OK\r\n\r\n",
    "a status of 2000": b"HTTP/1.1 2000 OK\r\n\r\n",
    "a status of 000": answer(BODY, status=b"000 X"),
    "a status of 600": answer(BODY, status=b"600 X"),
    "205": answer(b"", status=b"205 R"),
    "206 unasked": answer(BODY, b"Content-Range: bytes 0-80/9000", status=b"206 P"),
    "304 unasked": unmeasured(b"", b"Content-Length: 100", status=b"304 N"),
    "305 to elsewhere": answer(b"", b"Location: http://1.1.1.1/", status=b"305 U"),
    "101": unmeasured(BODY, b"Upgrade: x", b"Connection: upgrade", status=b"101 S"),
    "100 for ever": for_ever(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a head for ever": for_ever(b"X: y\r\n", b"HTTP/1.1 200 OK\r\n"),
    "a head by drops": for_ever(b"y", b"HTTP/1.1 200 OK\r\nX: ", 0.3),
    "a header of 200 KB": answer(BODY, b"X: " + b"y" * 200_000),
    "a header without a colon": answer(BODY, b"nonsense"),
    "a header with NUL": answer(BODY, b"X: a\0b"),
    "10,000 headers": answer(b"[}", *(b"X%d: y" % n for n in range(10_000))),
    "a length of -5": unmeasured(BODY, b"Content-Length: -5"),
    "a length of 0x50": unmeasured(BODY, b"Content-Length: 0x50"),
    "a length of 5,000 digits": unmeasured(BODY, b"Content-Length: " + b"9" * 5000),
    "a length in Arabic": unmeasured(BODY, "Content-Length: \u0662".encode()),
    "two lengths": unmeasured(BODY, b"Content-Length: 80", b"Content-Length: 81"),
    "a chunk of 2**72": chunked(b"FFFFFFFFFFFFFFFFFF\r\n" + BODY),
    "a chunk of -1": chunked(b"-1\r\n" + BODY),
    "a chunk with a word of 1 MB": chunked(b"2;" + b"e" * MIB + b"\r\n[]\r\n0\r\n\r\n"),
    "chunks of one byte": for_ever(b"1\r\n[\r\n" * 10_000, chunked(b"")),
    "chunks in another encoding": unmeasured(BODY, b"Transfer-Encoding: gzip"),
    "br": answer(BODY, b"Content-Encoding: br"),
    "gzip twice": answer(gzip.compress(gzip.compress(BODY)), b"Content-Encoding: gzip, gzip"),
    "gzip cut short": answer(gzip.compress(BODY * 99)[:-9], b"Content-Encoding: gzip"),
    "UTF-16 that is no JSON": answer("[}".encode("utf-16")),
    "a number of 10 MB": answer(b'{"data": ' + b"9" * 10_000_000 + b"}"),
    "Location of bytes": answer(b"", b"Location: http://\xff\xfe/", status=b"302 F"),
    "Location of file": answer(b"", b"Location: file:///etc/passwd", status=b"308 P"),
    "Location with userinfo": answer(b"", b"Location: http://127.0.0.1@169.254.169.254/", status=b"307 T"),
    "Location of port -1": answer(b"", b"Location: http://127.0.0.1:-1/", status=b"301 M"),
    "Location of circled digits": answer(b"", "Location: http://①⑥⑨.②⑤④.①⑥⑨.②⑤④/".encode(), status=b"302 F"),
    "Location of nothing": answer(b"", b"Location: ", status=b"302 F"),
    "Location of itself": answer(b"", b"Location: #", status=b"302 F"),
}  # fmt: skip


class Rude:
    """Answers each request with what its path begins with, and hangs up where no length was said."""

    def __init__(self) -> None:
        """Listen on loopback."""
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self.socket.accept()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    @staticmethod
    def _serve(peer: socket.socket) -> None:
        with peer, suppress(OSError):
            peer.settimeout(4 * DEADLINE_S)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                got = peer.recv(65536)
                if not got:
                    return
                head += got
            said = list(SAID.values())[int(head.split(b"/")[1])]
            if isinstance(said, bytes):
                peer.sendall(said)
            else:
                said(peer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A thread in accept() is not woken by close().
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def memory_peak(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mounted, Mapping[str, tuple[str, float]]]]:
    """All are listed side by side, and a source that speaks well is read all the while."""
    services = {kind: SERVICES[number % 3] for number, kind in enumerate(SAID)}
    with ExitStack() as stack:
        rude = stack.enter_context(Rude())
        well = stack.enter_context(Served(vm0_of_archives({"good": lambda: gzip.compress(GOOD + ENDS)})))
        sources = {
            json.dumps(kind): service_source(services[kind], f"{rude.url}/{number}") for number, kind in enumerate(SAID)
        }
        sources["well"] = service_source("vm0", well.url)
        place = tmp_path_factory.mktemp("wire")
        mount = stack.enter_context(mounted(place, sources, "--all", extra_config=f"[mount]\ntimeout = {DEADLINE_S}\n"))
        pid = ask(mount, verb="status")["pid"]
        base = memory_peak(pid)

        def outcome(kind: str) -> tuple[str, float]:
            begin = time.monotonic()
            try:
                found = f"success: {os.listdir(mount.path / kind / PLACES[services[kind]])}"
            except OSError as error:
                found = errno.errorcode[error.errno or 0]
            return found, time.monotonic() - begin

        with ThreadPoolExecutor(12) as pool:
            outcomes = dict(zip(SAID, pool.map(outcome, SAID), strict=True))
            assert (mount.path / "well/artifacts/good/good.txt").read_bytes() == b"good\n"
        assert memory_peak(pid) - base < MEMORY
        yield mount, outcomes


@pytest.mark.parametrize("kind", SAID)
def test_what_is_not_http_is_an_error_in_time(
    world: tuple[Mounted, Mapping[str, tuple[str, float]]], kind: str
) -> None:
    """Never an empty directory, never ENOENT."""
    outcome, took_s = world[1][kind]
    assert outcome in BAD
    assert took_s < DEADLINE_S + SLACK_S


def test_nothing_was_unforeseen(world: tuple[Mounted, Mapping[str, tuple[str, float]]]) -> None:
    """And the log has no byte that a terminal obeys."""
    log = world[0].log_text()
    assert " ERROR " not in log
    assert "Traceback" not in log
    assert all(c.isprintable() or c == "\n" for c in log)
