"""A link with latency: a network namespace behind two TUN devices, with a delay line between them.

Run as ``python -m artifactfs.bench.link NAME``; needs root. Makes the namespace, says one line of JSON once it is up,
takes lines ``<one-way seconds>`` on standard input, and takes everything away when that ends. Both ends of a
connection are the kernel's own TCP, so that the connect and slow start cost what they cost on a long way.

What it does not model: loss, jitter, a bandwidth limit other than this program's own (measured: some hundred MB/s).
Without delay nothing passes through here: a veth pair leads to the same namespace.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

# linux/if_tun.h
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TUN, IFF_NO_PI, IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6 = 1, 2, 4
# The largest packet with segmentation offload, and its virtio header.
LARGEST = 65536 + 64
# Packets taken at once before those that are due are looked at.
BATCH = 64
# What a device holds before it drops: a whole window of a fast stream.
QUEUE = 10000


@dataclass(frozen=True, slots=True)
class Names:
    """Devices and addresses of a link; ``number`` tells links on one machine apart."""

    space: str
    number: int

    def host(self, *, delayed: bool) -> str:
        """Return the address of the far end, with or without the delay line before it."""
        return f"10.{200 + self.number // 256 % 50}.{self.number % 256}.{2 if delayed else 6}"

    def near(self, *, delayed: bool) -> str:
        """Return the address of this end."""
        return f"10.{200 + self.number // 256 % 50}.{self.number % 256}.{1 if delayed else 5}"


def names(space: str) -> Names:
    """Return the names of the link of a namespace called ``afsb<number>``."""
    return Names(space, int(space.removeprefix("afsb")))


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _tun(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6)
    return fd


@contextlib.contextmanager
def made(link: Names) -> Iterator[tuple[int, int]]:
    """Have namespace and devices; gives the near and the far TUN device."""
    space = link.space
    near, far, veth, peer = (f"{space}{letter}" for letter in "abvw")
    _ip("netns", "add", space)
    fds: list[int] = []
    try:
        fds += [_tun(near), _tun(far)]
        _ip("link", "add", veth, "type", "veth", "peer", "name", peer)
        inside = ("-n", space)
        for device in (far, peer):
            _ip("link", "set", device, "netns", space)
        for delayed, out, into in ((True, near, far), (False, veth, peer)):
            _ip("address", "add", f"{link.near(delayed=delayed)}/30", "dev", out)
            _ip(*inside, "address", "add", f"{link.host(delayed=delayed)}/30", "dev", into)
            _ip("link", "set", out, "up", "txqueuelen", str(QUEUE))
            _ip(*inside, "link", "set", into, "up", "txqueuelen", str(QUEUE))
        _ip(*inside, "link", "set", "lo", "up")
        yield fds[0], fds[1]
    finally:
        for fd in fds:
            os.close(fd)
        subprocess.run(["ip", "link", "del", veth], check=False, capture_output=True)
        _ip("netns", "del", space)


class DelayLine:
    """Carries packets between two devices, each ``delay_s`` after it came."""

    def __init__(self, near: int, far: int) -> None:
        """Carry nothing late yet."""
        self.delay_s = 0.0
        self._other = {near: far, far: near}
        self._late: dict[int, deque[tuple[float, bytes]]] = {near: deque(), far: deque()}

    def run(self, control: int) -> None:
        """Carry until ``control`` ends; a line on it is a new delay."""
        wanted = [control, *self._other]
        while True:
            ready = select.select(wanted, [], [], self._wait_s())[0]
            for fd in ready:
                if fd != control:
                    self._take(fd)
                elif not self._obey(control):
                    return
            self._deliver()

    def _obey(self, control: int) -> bool:
        said = os.read(control, 4096).split()
        if said:
            self.delay_s = float(said[-1])
        return bool(said)

    def _wait_s(self) -> float | None:
        due = [line[0][0] for line in self._late.values() if line]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _take(self, fd: int) -> None:
        line = self._late[self._other[fd]]
        with contextlib.suppress(BlockingIOError):
            for _ in range(BATCH):
                packet = os.read(fd, LARGEST)
                line.append((time.monotonic() + self.delay_s, packet))

    def _deliver(self) -> None:
        for fd, line in self._late.items():
            while line and line[0][0] <= time.monotonic():
                # A device whose queue is full drops, as a router does; one that is going down does not matter.
                with contextlib.suppress(OSError):
                    os.write(fd, line.popleft()[1])


def main() -> None:
    """Be a link until standard input ends, or the process that started it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with made(names(sys.argv[1])) as (near, far):
        sys.stdout.write(json.dumps({"ok": True}) + "\n")
        sys.stdout.flush()
        DelayLine(near, far).run(sys.stdin.fileno())


if __name__ == "__main__":
    main()
