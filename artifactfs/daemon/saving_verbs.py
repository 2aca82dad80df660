"""What can be asked of a running mount about what waits in it, and about versions.

Rules of this file: what may take longer than an answer may is work of the mount's own, begun by one request and asked
about by the next ones; it goes on although nobody asks any more.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import trio

from artifactfs import errors
from artifactfs.concurrency import Flight
from artifactfs.daemon.compose import Mounted
from artifactfs.journal.states import State
from artifactfs.vfs.comparing import Comparing
from artifactfs.vfs.giving_up import GivingUp
from artifactfs.vfs.overlay import is_below
from artifactfs.vfs.places import locate
from artifactfs.vfs.queue import Item, chosen, items_of
from artifactfs.vfs.versioning import Asked, Versioning

# Work is asked about in steps, so that who waits can show how far it is; a step is at most this long.
STEP_S = 1.0
# RELEASE follows the close within microseconds; a busy machine may take a while to run us.
CLOSING_S, CLOSING_LOOKS = 0.02, 20

Request = dict[str, Any]
Answer = dict[str, Any]
Work = Callable[[Request], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class SavingVerbs:
    """The verbs of one mount; ``works`` is what is under way, by the name that its asker was given."""

    mounted: Mounted
    works: dict[str, Flight] = field(default_factory=dict)

    def table(self) -> Mapping[str, Callable[[Request], Awaitable[object]]]:
        """Return the verbs by name."""
        return {
            "flush": self._flush, "leave": self._leave, "pending": self._pending, "retry": self._retry,
            "discard": partial(self._worked, self._discard), "commit": partial(self._worked, self._commit),
            "restore": partial(self._worked, self._restore), "compare": partial(self._worked, self._compare),
        }  # fmt: skip

    async def _worked(self, work: Work, request: Request) -> object:
        """Begin some work, or ask about it with the name that the first answer gave it."""
        name = str(request.get("work") or "")
        flight = self.works.get(name)
        if name and flight is None:
            raise errors.InvalidRequest("nothing of that name is under way")
        if flight is None:
            name = secrets.token_hex(8)
            flight = self.works[name] = self.mounted.fs.content.flights.start(("work", name), partial(work, request))
        with trio.move_on_after(STEP_S):
            try:
                return {"done": True, **await flight.wait()}
            finally:
                if flight.result is not None:
                    self.works.pop(name, None)
        return {"done": False, "work": name}

    # -- the queue -------------------------------------------------------------------------------------------

    async def _flush(self, request: Request) -> object:
        """Publish what is below a path: begun without ``since``, asked about again with the one of the answer."""
        writer, below = self.mounted.fs.writer, str(request.get("path", "")).strip("/")
        since = request.get("since")
        if not isinstance(since, float):
            await self._closed(below)
            since = time.time()
            writer.writeback.hurry(below)
        if writer.writeback.unsettled(below, since):
            await writer.writeback.changed(STEP_S)
        left = writer.writeback.unsettled(below, since)
        items = [item for item in items_of(writer) if is_below(item.row.path, below) or is_below(below, item.row.path)]
        # What was changed since is nobody's failure: it waits for its own turn.
        rows = [
            item.row.as_dict()
            for item in items
            if item.row.error or (item.edit or item.job).since_ns <= since * 1e9 or item.job in left
        ]
        return {"since": since, "left": len(left), "pending": rows}

    async def _closed(self, below: str) -> None:
        """Give the kernel a moment to say that what a program has just closed is closed: it does so afterwards."""
        for _ in range(CLOSING_LOOKS):
            rows = (item.row for item in items_of(self.mounted.fs.writer))
            if not any(row.state == State.OPEN and is_below(row.path, below) for row in rows):
                return
            await trio.sleep(CLOSING_S)

    def _chosen(self, request: Request) -> list[Item]:
        paths, numbers = request.get("paths") or [], request.get("numbers") or []
        below = [str(path).strip("/") for path in paths]
        return chosen(items_of(self.mounted.fs.writer), below, [str(number) for number in numbers])

    async def _pending(self, request: Request) -> object:
        """Return what waits, with where its bytes are, and drafts whose records are damaged."""
        rows = [
            {**item.row.as_dict(), "draft": str(item.edit.staged.path) if item.edit is not None else None}
            for item in self._chosen(request)
        ]
        homes = self.mounted.homes
        lost = await trio.to_thread.run_sync(lambda: [str(path) for home in homes for path in home.lost])
        return {"pending": rows, "lost": lost}

    async def _leave(self, request: Request) -> object:
        """Leave what waits to the next mount when this one ends, which is soon; return it."""
        self.mounted.fs.writer.writeback.leave = True
        return await self._pending(request)

    async def _retry(self, request: Request) -> object:
        """Publish changes now, also those that were refused."""
        items = self._chosen(request)
        if items:
            self.mounted.fs.writer.writeback.hurry("", *(item.job for item in items))
        return {"since": time.time(), "pending": [item.row.as_dict() for item in items]}

    async def _discard(self, request: Request) -> Answer:
        await self._closed("")
        items = self._chosen(request)
        refused = await GivingUp(self.mounted.fs).discard(items)
        return {"pending": [item.row.as_dict() for item in items], "refused": refused}

    # -- versions --------------------------------------------------------------------------------------------

    async def _commit(self, request: Request) -> Answer:
        await self._closed(str(request.get("path", "")).strip("/"))
        asked = await Versioning(self.mounted.fs).commit(
            str(request.get("path", "")), request.get("message"), dry_run=bool(request.get("dry_run"))
        )
        return _told(asked)

    async def _restore(self, request: Request) -> Answer:
        path, version = str(request.get("path", "")), str(request.get("version", ""))
        await self._closed(path.strip("/"))
        return _told(await Versioning(self.mounted.fs).restore(path, version, force=bool(request.get("force"))))

    async def _compare(self, request: Request) -> Answer:
        place = await locate(self.mounted.fs, str(request.get("path", "")))
        one, other = request.get("one"), request.get("other")
        found = await Comparing(self.mounted.fs).between(place, one, other)
        return {"differences": [one.as_dict() for one in found]}


def _told(asked: Asked) -> Answer:
    return {
        "below": asked.below, "since": time.time(), "changes": [one.as_dict() for one in asked.changes],
        "staying": [asdict(one) for one in asked.staying],
    }  # fmt: skip
