"""What programs do in the cells of the table: what is so before the fault, and the one operation under it.

Rules of this file: system calls only, as any program makes them; nothing of the mount's own.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tests.faults.worlds import LARGE, SAVED, World
from tests.support.faulty_proxy import Trouble

# Passes before the fault, of each body: more than the first read of a file waits for (a block of 256 KiB), less than
# any request for its end has to bring.
HELD_AFTER = 320 << 10
FIRST_BYTES, LAST_BYTES = 4096, 4096


@dataclass
class Cell:
    """One operation at one service, in a mount; ``asked`` is how many requests came before the fault."""

    operation: str
    world: World
    source: Path
    fd: int = -1
    asked: int = 0

    @property
    def _new(self) -> Path:
        return self.source / self.world.place.parent / self.world.place.new

    def prepare(self) -> None:
        """Bring about what is so before the fault: what is known is known, what is open is open."""
        place = self.world.place
        os.stat(self.source / place.listed)
        if self.operation in {"open", "first read"}:
            os.listdir(self.source / place.listed)
        elif self.operation == "later read":
            if place.asks["later read"]:  # otherwise it comes whole before it is open
                self.world.disturb(Trouble(hold=True, after=HELD_AFTER))
            self.fd = os.open(self.source / place.large, os.O_RDONLY)
            assert os.pread(self.fd, FIRST_BYTES, 0) == LARGE[:FIRST_BYTES]
        elif self.operation in {"write", "fsync", "umount"}:
            os.listdir(self.source / place.parent)
        if self.operation in {"fsync", "umount"}:
            self._create()
        if self.operation == "umount":
            os.close(self.fd)
            self.fd = -1

    def _create(self) -> None:
        self.fd = os.open(self._new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        assert os.write(self.fd, SAVED) == len(SAVED)

    def run(self) -> object:
        """Do it; return what it gave.

        Raises:
            OSError: what the table is about.
        """
        place = self.world.place
        match self.operation:
            case "list":
                return os.listdir(self.source / place.listed)
            case "stat":
                return os.stat(self.source / place.listed / place.entry).st_ino
            case "open":
                self.fd = os.open(self.source / place.small, os.O_RDONLY)
                return True
            case "first read":
                self.fd = os.open(self.source / place.small, os.O_RDONLY)
                return os.read(self.fd, FIRST_BYTES)
            case "later read":
                return os.pread(self.fd, LAST_BYTES, len(LARGE) - LAST_BYTES)
            case "write":
                self._create()
                return True
            case "fsync":
                os.fsync(self.fd)
                return True
            case _:
                raise NotImplementedError(self.operation)

    def finish(self) -> None:
        """Let go of what is open; a save is acknowledged by this, whatever the service does."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)
