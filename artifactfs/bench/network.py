"""Where servers run and how they are reached: behind a link with latency where that can be had, else on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from artifactfs import errors
from artifactfs.bench import link, processes

START_S = 15.0
MS_PER_S = 1000.0
LOOPBACK = "127.0.0.1"


@dataclass(slots=True)
class Network:
    """A place for servers; without ``names`` it is this machine, and no delay can be had."""

    names: link.Names | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def listen(self) -> str:
        """Return the address that servers listen on: all of them where nobody else is, else loopback."""
        # The namespace has two addresses, one behind the delay and one not, and nobody but this run is in it.
        return "0.0.0.0" if self.names else LOOPBACK  # noqa: S104 - no other machine can reach the namespace

    def inside(self, command: Sequence[str]) -> list[str]:
        """Return a command as it is started where the servers run."""
        # Not `ip netns exec`: that copies every mount of the machine to where it outlives its umount.
        return ["nsenter", f"--net=/run/netns/{self.names.space}", *command] if self.names else list(command)

    def host(self, rtt_ms: float) -> str:
        """Return the address of the servers over a link of that round trip."""
        return self.names.host(delayed=rtt_ms > 0) if self.names else LOOPBACK

    def set_delay(self, rtt_ms: float) -> None:
        """Give the link another round trip."""
        if self.process and self.process.stdin:
            self.process.stdin.write(f"{rtt_ms / 2 / MS_PER_S}\n".encode())
            self.process.stdin.flush()
            processes.pause(0.05)


def lacks() -> str | None:
    """Return why this machine cannot make a link with latency, None if it can."""
    if os.getuid() != 0:
        return "a link with latency needs root"
    if not Path("/dev/net/tun").exists() or shutil.which("ip") is None:
        return "a link with latency needs /dev/net/tun and the command ip"
    return None


@contextlib.contextmanager
def network(*, delayed: bool, log: Path) -> Iterator[Network]:
    """Have a network while the block runs; all that runs in it must end before.

    Raises:
        Unavailable: the link cannot be made.
    """
    if not delayed:
        yield Network()
        return
    names = link.names(f"afsb{os.getpid()}")
    process = processes.started([sys.executable, "-m", "artifactfs.bench.link", names.space], log)
    try:
        try:
            processes.line_of(process, START_S)
        except errors.TimedOut:
            message = f"the link with latency could not be made: {log.read_text()[-300:]}"
            raise errors.Unavailable(message) from None
        yield Network(names, process)
    finally:
        if process.stdin:
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(processes.END_S)
        processes.end(process)
