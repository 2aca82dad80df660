"""A person at a terminal: a program on a pseudo-terminal, keys, and what is shown."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# For what a program on a busy machine shows or does.
WAIT_S = 30.0


class Terminal:
    """A program that runs on a terminal."""

    def __init__(self, terminal: int) -> None:
        """Speak to the program at the other end of ``terminal``."""
        self._terminal = terminal
        self.shown = b""

    def press(self, *keys: bytes) -> None:
        """Type."""
        os.write(self._terminal, b"".join(keys))

    def see(self, wanted: bytes) -> None:
        """Wait until a text is shown, anew since the last time."""
        end = time.monotonic() + WAIT_S
        while wanted not in self.shown:
            assert time.monotonic() < end, self.shown
            assert self._read(), self.shown
        self.shown = b""

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so outside of the terminal."""
        end = time.monotonic() + WAIT_S
        while not is_so():
            assert time.monotonic() < end, self.shown
            self._read(0.1)

    def ended(self) -> None:
        """Read what is shown until the program ends."""
        end = time.monotonic() + WAIT_S
        while self._read():
            assert time.monotonic() < end, self.shown

    def _read(self, within_s: float = 0.5) -> bool:
        """Take in what is shown; tell whether the program is still there."""
        if select.select([self._terminal], [], [], within_s)[0]:
            try:
                chunk = os.read(self._terminal, 4096)
            except OSError:  # the program has ended
                return False
            self.shown += chunk
            return bool(chunk)
        return True


@contextlib.contextmanager
def on_a_terminal(folder: Path, home: Path, *command: str) -> Iterator[Terminal]:
    """Run a program in a directory while the block runs; it must have ended well by then."""
    home.mkdir(exist_ok=True)
    child, terminal = pty.fork()
    if child == 0:  # pragma: no cover - becomes the program
        os.chdir(folder)
        # Some keep their temporary files: mc a directory of its user's.
        own = {"TERM": "xterm", "HOME": str(home), "TMPDIR": str(home), "LC_ALL": "C.UTF-8"}
        os.execvpe(command[0], command, {**os.environ, **own})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    status = None
    try:
        shown = Terminal(terminal)
        yield shown
        shown.ended()
        _, status = os.waitpid(child, 0)
    finally:
        os.close(terminal)
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert status == 0, shown.shown
