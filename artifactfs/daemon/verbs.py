"""What can be asked of a running mount through its control socket."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import trio

from artifactfs.daemon.compose import Mounted
from artifactfs.daemon.control import Verb
from artifactfs.fuse.operations import Operations
from artifactfs.journal.states import State
from artifactfs.vfs.queue import queue_of

# A flush is answered in steps, so that who waits can show how far it is; a step is at most this long.
STEP_S = 1.0
# RELEASE follows the close within microseconds; a busy machine may take a while to run us.
CLOSING_S, CLOSING_LOOKS = 0.02, 20

Request = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verbs:
    """The verbs of one mount."""

    mounted: Mounted
    operations: Operations

    def table(self) -> Mapping[str, Verb]:
        """Return the verbs by name."""
        return {
            "status": self._status, "why": self._why, "log": self._log, "interrupt": self._interrupt,
            "flush": self._flush,
        }  # fmt: skip

    async def _interrupt(self, request: Request) -> object:
        older_than_s = request.get("older_than_s")
        number = self.operations.interrupt(float(older_than_s) if isinstance(older_than_s, float) else 0.0)
        return {"interrupted": number}

    async def _status(self, _request: Request) -> object:
        return self.mounted.status.snapshot()

    async def _why(self, request: Request) -> object:
        return await self.mounted.status.why(str(request.get("path", "")))

    async def _log(self, request: Request) -> object:
        return await self.mounted.status.log(str(request.get("path", "")))

    async def _closed(self, below: str) -> None:
        """Give the kernel a moment to say that what a program has just closed is closed: it does so afterwards."""
        writer = self.mounted.fs.writer
        for _ in range(CLOSING_LOOKS):
            if not any(row.state == State.OPEN for row in queue_of(writer) if (row.path + "/").startswith(below)):
                return
            await trio.sleep(CLOSING_S)

    async def _flush(self, request: Request) -> object:
        """Publish what is below a path: begun without ``since``, asked about again with the one of the answer."""
        writer, below = self.mounted.fs.writer, str(request.get("path", "")).strip("/")
        since = request.get("since")
        if not isinstance(since, float):
            since = time.time()
            await self._closed(below)
            writer.writeback.hurry(below)
        if writer.writeback.unsettled(below, since):
            await writer.writeback.changed(STEP_S)
        left = writer.writeback.unsettled(below, since)
        rows = [row.as_dict() for row in queue_of(writer) if not below or (row.path + "/").startswith(f"{below}/")]
        return {"since": since, "left": len(left), "pending": rows}
