"""Names of hosts to addresses, in threads of their own.

Rules of this file: however many ask for one name at once, it is one question; and a resolver that does not answer keeps
no thread from what reads and writes files here. It is asked in a thread that nobody can end, for 10 s and more, while
whoever waits has long given up; trio's threads are 40 for everything.
"""

from __future__ import annotations

import math
import socket
from functools import partial
from typing import Any

import trio

from artifactfs.concurrency import SingleFlight

# More names at once than sources have hosts: a source's own, and the storages that its links lead to.
THREADS = 16
# A question that is older may be of a network that is not there any more: whoever asks now asks anew.
JOINED_S = 3.0
Found = list[tuple[Any, Any, int, str, Any]]
Key = tuple[bytes | None, bytes | str | int | None, int, int, int, int]


class Resolver(trio.abc.HostnameResolver):
    """Asks the system, as trio does by itself."""

    def __init__(self, nursery: trio.Nursery) -> None:
        """Ask in ``nursery``, which outlives who waits."""
        self._flights = SingleFlight(nursery)
        self._limiter = trio.CapacityLimiter(THREADS)
        self._latest: dict[Key, tuple[float, object]] = {}

    def __repr__(self) -> str:
        """Tell how many questions are open."""
        return f"<Resolver {self._limiter.borrowed_tokens} of {THREADS} threads busy>"

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 - trio's name
        proto: int = 0,
        flags: int = 0,
    ) -> Found:
        """Return addresses, as ``socket.getaddrinfo`` does."""
        key = (host, port, family, type, proto, flags)
        now = trio.current_time()
        began_at, question = self._latest.get(key, (-math.inf, None))
        if question is None or now - began_at > JOINED_S:
            question = object()
            self._latest[key] = now, question
        found: Found = await self._flights.run((key, question), partial(self._ask, key, question))
        return found

    async def _ask(self, key: Key, question: object) -> Found:
        try:
            found: Found = await self._in_thread(partial(socket.getaddrinfo, *key))
            return found
        finally:
            if self._latest.get(key, (0.0, None))[1] is question:
                del self._latest[key]

    async def _in_thread(self, work: Any) -> Any:  # noqa: ANN401 - what the work returns
        return await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:  # noqa: ANN401 - trio's signature
        """Return the name of an address; nobody here asks."""
        found: tuple[str, str] = await self._in_thread(partial(socket.getnameinfo, sockaddr, flags))
        return found
