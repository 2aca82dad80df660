"""Networks that are cut or that hang: a port that leads to a server while it is open, and one that swallows."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator


class Port:
    """A port of loopback where nobody listens, until it is opened; then it leads to another."""

    def __init__(self, address: tuple[str, int] | None = None) -> None:
        """Take a free port, or this one."""
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(address or ("127.0.0.1", 0))
        self.address: tuple[str, int] = self.socket.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}"
        self.accepted = 0
        self.thread: threading.Thread | None = None
        self._pairs: list[socket.socket] = []

    def open(self, goal: str) -> None:
        host, _, port = goal.removeprefix("http://").partition(":")
        self.socket.listen()
        self.thread = threading.Thread(target=self._serve, args=((host, int(port)),), daemon=True)
        self.thread.start()

    def _serve(self, goal: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.socket.accept()
                self.accepted += 1
                far = socket.create_connection(goal)
                self._pairs += [near, far]
                threading.Thread(target=pump, args=(near, far), daemon=True).start()

    def close(self) -> None:
        """Refuse connections, and cut those there are."""
        for end in (self.socket, *self._pairs):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def pump(near: socket.socket, far: socket.socket) -> None:
    """Carry bytes both ways until either side ends."""
    other = {near: far, far: near}
    with near, far, contextlib.suppress(OSError):
        while True:
            for ready in select.select([near, far], [], [])[0]:
                data = ready.recv(1 << 16)
                if not data:
                    return
                other[ready].sendall(data)


@contextlib.contextmanager
def swallowing(address: tuple[str, int]) -> Iterator[None]:
    """Have a port that neither takes nor refuses connections: its backlog is full, what more comes is dropped."""
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.socket())
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        deaf.bind(address)
        deaf.listen(0)
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        yield
