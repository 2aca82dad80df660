"""Sees to it that a mount's process answers, and that it ends when it is told to.

Rules of this file: one thread, once a second, that needs nothing of the event loop it watches and keeps nothing alive.
What it ends it ends without ceremony: what programs were told is saved is durable, and the next mount takes it up. The
mount point stays where it is then, dead: writing below it must not go to the directory under it unnoticed.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from artifactfs import observe
from artifactfs.fuse import connection

log = logging.getLogger(__name__)

TICK_S = 1.0
# A loop that does not come round for so long is stuck: what is done on it takes milliseconds, and a collection of
# 100,000 inodes 31 ms (measured). A busy machine may take a second.
STUCK_S = 5.0
# If the thread itself was held up, so was everything: the process, or the machine, was stopped. It counts as this much;
# or, if the process was computing all the while and let no other thread run, as what it has computed.
OWN_PAUSE_S = 2 * TICK_S
# How long the end of a mount may take: saves 20 s (`compose.FINISH_S`), the cache's disk 20 s, and some.
END_S = 45.0
# Signals of one cause come in pairs: SIGHUP from the shell and the kernel, SIGTERM to a process and to its group.
ONE_CAUSE_S = 0.5
TELLING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
# Of a stack, from the innermost frame.
SHOWN_FRAMES = 12
# As EX_SOFTWARE of sysexits.h.
STUCK_CODE = 70


@dataclass(slots=True)
class Watchdog:
    """Watches the event loop of the thread that makes it.

    Attributes:
        abort_s: after this long the connection and the process of a stuck loop are ended; 0 is never.
        stalls: how often it was stuck.
        last: when it was stuck last (epoch), for how long, and where.
    """

    mountpoint: Path
    abort_s: float
    stalls: int = 0
    last: dict[str, Any] | None = None
    end_by: float = math.inf
    _main: int = field(default_factory=threading.get_ident)
    _beat: int = 0
    _seen: int = 0
    _stuck_s: float = 0.0
    _told_at: float | None = None

    def report(self) -> dict[str, Any]:
        """Return what ``status`` says of it."""
        return {"stalls": self.stalls, "last_stall": self.last}

    def ending(self) -> None:
        """Note that the end has begun: it may take its time, but not for ever."""
        self.end_by = min(self.end_by, time.monotonic() + END_S)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch, in a thread, while the block runs; from the main thread, in a trio task."""
        token = trio.lowlevel.current_trio_token()
        ours, its = socket.socketpair()
        with ours, its:
            its.settimeout(0)
            before = signal.set_wakeup_fd(its.fileno(), warn_on_full_buffer=False)
            stop = threading.Event()
            thread = threading.Thread(target=self._run, args=(ours, token, stop), name="watchdog", daemon=True)
            thread.start()
            try:
                yield
            finally:
                signal.set_wakeup_fd(before)
                stop.set()
                its.send(b"\0")
                thread.join(TICK_S)

    async def beat(self) -> None:
        """Show that the loop comes round, for as long as it does."""
        while True:
            self._beat += 1
            await trio.sleep(TICK_S)

    # -- in the thread ---------------------------------------------------------------------------------------

    def _run(self, signals: socket.socket, token: trio.lowlevel.TrioToken, stop: threading.Event) -> None:
        while not stop.is_set():
            begin, computed_s = time.monotonic(), time.process_time()
            readable, _, _ = select.select([signals], [], [], TICK_S)
            if readable:
                numbers = signals.recv(64)
                if stop.is_set():
                    return
                self._wake(token)
                for number in numbers:
                    self._told(number)
            self.look(min(time.monotonic() - begin, max(OWN_PAUSE_S, time.process_time() - computed_s)))

    @staticmethod
    def _wake(token: trio.lowlevel.TrioToken) -> None:
        """Do what trio's own way for signals, which this one takes the place of, would have done."""
        try:
            token.run_sync_soon(lambda: None)
        except trio.RunFinishedError:
            log.debug("a signal came when all was over")

    def _told(self, number: int) -> None:
        """Take note of a signal; the second one ends the process at once."""
        now = time.monotonic()
        if number not in TELLING:
            return
        if self._told_at is None:
            self._told_at = now
            self.ending()
        elif now - self._told_at > ONE_CAUSE_S:
            log.info("ended at once by a second %s; what is not saved yet is saved by the next mount",
                     signal.Signals(number).name)  # fmt: skip
            self._end(128 + number)

    def look(self, passed_s: float) -> None:
        """See whether the loop has come round since the last look, which was so long ago."""
        if time.monotonic() > self.end_by:
            log.warning("the mount did not end within %.0f s and is ended: %s", END_S, self._where())
            self._end(STUCK_CODE)
        if self.end_by < math.inf:
            return  # the loop is not expected to come round any more
        if self._beat != self._seen and passed_s < STUCK_S:  # else one call took so long, whatever came before it
            self._seen = self._beat
            if self._stuck_s >= STUCK_S:
                log.warning("the event loop goes on after %.0f s", self._stuck_s)
            self._stuck_s = 0.0
            return
        was_s, self._stuck_s = self._stuck_s, self._stuck_s + passed_s
        if was_s < STUCK_S <= self._stuck_s:
            self.stalls += 1
            self.last = {"at": time.time() - self._stuck_s, "seconds": self._stuck_s, "where": self._where()}
            log.warning("the event loop is stuck, nothing is answered:\n%s", self._stack(), extra=observe.IN_LINES)
        elif self.last is not None and self._stuck_s >= STUCK_S:
            self.last["seconds"] = round(self._stuck_s, 1)
        if 0 < self.abort_s <= self._stuck_s:
            log.error("the event loop was stuck for %.0f s; the mount is ended:\n%s", self._stuck_s, self._stack(),
                      extra=observe.IN_LINES)  # fmt: skip
            self._end(STUCK_CODE)

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._main)  # noqa: SLF001 - documented, for such a use
        return "".join(traceback.format_stack(frame)[-SHOWN_FRAMES:]) if frame is not None else "unknown"

    def _where(self) -> str:
        """Return the innermost place of ours that the loop is at."""
        frame = sys._current_frames().get(self._main)  # noqa: SLF001 - as above
        found = traceback.extract_stack(frame) if frame is not None else []
        own = [at for at in found if "artifactfs" in at.filename] or found
        return f"{Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}" if own else "unknown"

    def _end(self, code: int) -> None:
        """End the process, whatever it does; nobody is left waiting in its mount."""
        connection.sever(self.mountpoint)
        if self.end_by < math.inf:
            with suppress(OSError):  # it was told to unmount; perhaps somebody else has
                connection.unmount(self.mountpoint, lazy=True)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)
