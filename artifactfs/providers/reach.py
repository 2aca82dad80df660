"""Whether asking makes sense at this moment: hosts that were not there, and a service that asked to be left alone.

Rules of this file: it decides, it does not wait; time comes from ``trio.current_time``. A host that could not be
connected to is given a rest, and then one request tries it for all: nobody waits twice for the same dead host.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import trio
from cachetools import LRUCache

from artifactfs.providers.targets import Origin

# How long a host rests. Short, because it is what a person waits after the network is back; the wait for a connection
# itself is what must not be paid by every call.
REST_S = 2.0
# A host that refuses a connection once may be restarting; the second refusal in a row counts. No answer counts at once.
REFUSALS = 2
# A trial that has not ended after this long (waits for a connection, TLS included, and some) is not waited for.
TRIAL_S = 12.0
# VLM Run counts requests by the minute, and no service here in longer windows: after that it is worth asking again,
# whatever was said.
MAX_QUIET_S = 60.0
# Links lead to a few storages; links written by an agent lead anywhere.
ORIGINS = 64


class _Host:
    """What is known of one origin; the clock starts at its last failure."""

    __slots__ = ("failures", "until")

    def __init__(self) -> None:
        self.failures = 0
        self.until = -math.inf


class Reach:
    """A circuit breaker for each origin of one source, and the pause that its service asked for."""

    def __init__(self) -> None:
        """Believe that everything can be reached."""
        self._hosts: LRUCache[Origin, _Host] = LRUCache(ORIGINS)
        self._quiet_until = -math.inf

    def __repr__(self) -> str:
        """Tell how many hosts are being left alone."""
        now = trio.current_time()
        resting = sum(1 for host in self._hosts.values() if now < host.until)
        return f"<Reach {resting} of {len(self._hosts)} failed hosts resting, quiet for {self.quiet_s():.0f} s>"

    def gauges(self) -> Mapping[str, float]:
        """Return how many hosts have failed, how many of them rest, and for how long the service wants to."""
        now = trio.current_time()
        resting = sum(1 for host in self._hosts.values() if now < host.until)
        return {"circuit_failed": len(self._hosts), "circuit_open": resting, "quiet_seconds": self.quiet_s()}

    def admits(self, origin: Origin) -> bool:
        """Tell whether a request may be sent there now; after a rest the caller is the one who tries."""
        host = self._hosts.get(origin)
        if host is None or host.failures < REFUSALS:
            return True
        now = trio.current_time()
        if now < host.until:
            return False
        host.until = now + TRIAL_S
        return True

    def is_resting(self, origin: Origin) -> bool:
        """Tell whether requests there are refused at present."""
        host = self._hosts.get(origin)
        return host is not None and trio.current_time() < host.until

    def answered(self, origin: Origin) -> None:
        """Note that somebody is there."""
        self._hosts.pop(origin, None)

    def failed(self, origin: Origin, *, silent: bool) -> None:
        """Note that no connection could be made; ``silent`` if nothing came back at all."""
        host = self._hosts.setdefault(origin, _Host())
        host.failures += REFUSALS if silent else 1
        if host.failures >= REFUSALS:
            host.until = trio.current_time() + REST_S

    def hush(self, pause_s: float) -> None:
        """Note that the service asked for this long without requests, in seconds."""
        self._quiet_until = max(self._quiet_until, trio.current_time() + min(pause_s, MAX_QUIET_S))

    def quiet_s(self) -> float:
        """Return for how long the service still wants to be left alone, in seconds."""
        return max(0.0, self._quiet_until - trio.current_time())
