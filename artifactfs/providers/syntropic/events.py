"""What Syntropic137 tells by itself: runs that begin and end, and what they make.

Rules of this file: an event is a hint where to look, never the truth about it; it may come before what it tells of is
listed, and it carries contents, which are dropped. Facts (service source, May 2026): there is one stream of all
activity, and one for each run, on which alone its artifacts are announced; nothing is replayed, so who connects lists
again; a comment comes every 30 s. Never announced are artifacts made by POST, renames, uploads and deletes.
"""

from __future__ import annotations

import json
import logging
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import trio

from artifactfs import errors
from artifactfs.model.entry import DirRef
from artifactfs.providers import answers
from artifactfs.providers.sse import Events
from artifactfs.providers.syntropic.schemas import is_usable_id

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from artifactfs.providers.syntropic.api import Api

log = logging.getLogger(__name__)

# Two comments that do not come, and some: then the stream is lost, whatever the network says.
SILENT_S = 75.0
# Runs that are listened to at once; of more the end is heard, on the stream of all activity.
RUNS = 8
# What waits to be taken; who is slower than this is told that anything may have changed.
WAITING = 64
# A larger event is parsed in a thread: a megabyte of JSON takes about 10 ms.
PARSE_INLINE = 256 * 1024
OK = 200
BEGINNING = "WorkflowExecutionStarted"
# Not a set: what comes as a kind may be anything.
OF_RUNS = (BEGINNING, "SessionStarted", "SessionCompleted", "WorkflowCompleted", "WorkflowFailed")
MADE = "ArtifactCreated"

Told = frozenset[DirRef] | None


class Listener:
    """Listens to one server while a block runs."""

    def __init__(self, api: Api, nursery: trio.Nursery) -> None:
        """Listen in ``nursery``."""
        self.api = api
        self._nursery = nursery
        self._send, self._receive = trio.open_memory_channel[Told](WAITING)
        self._runs: set[str] = set()
        self._missed = False
        self._failure: errors.ArtifactFSError | None = None

    def __repr__(self) -> str:
        """Tell to how much."""
        return f"<Listener {self.api!r} {len(self._runs)} runs>"

    async def told(self) -> AsyncGenerator[Told, None]:
        """Return what is told until the stream of all activity is lost.

        Raises:
            ArtifactFSError: as it was lost.
        """
        async for refs in self._receive:
            yield refs
            if self._missed:
                self._missed = False
                yield None
        if self._failure is not None:
            raise self._failure

    async def listen(self) -> None:
        """Listen to all activity."""
        try:
            async with self._stream("/sse/activity", "/sse/activity") as events:
                async for event in events:
                    self._activity(event)
        except errors.ArtifactFSError as error:
            self._failure = error
        finally:
            self._send.close()

    def _activity(self, event: dict[str, Any]) -> None:
        kind, data = event.get("event_type"), _dict(event.get("data"))
        if event.get("type") == "connected":
            self._tell(None)
            self._nursery.start_soon(self._join_running)
        elif kind in OF_RUNS:
            refs = self._refs(data)
            # One that began in a workflow that nobody has seen yet says that there is a workflow more.
            self._tell(refs | {DirRef(self.api.source, "root")} if kind == BEGINNING else refs)
            run = data.get("execution_id")
            if kind == BEGINNING and is_usable_id(run):
                self._join(str(run))

    async def _join_running(self) -> None:
        """Listen to the runs that began before; without that their ends are heard all the same."""
        try:
            runs = await self.api.running()
        except errors.ArtifactFSError as error:
            log.info("%s: which runs are under way is not known: %s", self.api.source, error)
            return
        for run in runs:
            self._join(run)

    def _join(self, run: str) -> None:
        if run not in self._runs and len(self._runs) < RUNS:
            self._runs.add(run)
            self._nursery.start_soon(self._listen_to, run)

    async def _listen_to(self, run: str) -> None:
        try:
            async with self._stream(f"/sse/executions/{quote(run, safe='')}", "/sse/executions/{id}") as events:
                async for event in events:
                    is_end = event.get("type") == "terminal"
                    if event.get("event_type") == MADE or is_end:
                        self._tell(self._refs(_dict(event.get("data"))))
                    if is_end:
                        return
        except errors.ArtifactFSError as error:
            log.info("%s: a run is not listened to any more: %s", self.api.source, error)
        finally:
            self._runs.discard(run)

    def _tell(self, refs: Told) -> None:
        try:
            self._send.send_nowait(refs)
        except trio.WouldBlock:
            self._missed = True
        except trio.ClosedResourceError:
            log.debug("nobody listens any more")

    def _refs(self, data: dict[str, Any]) -> frozenset[DirRef]:
        workflow = data.get("workflow_id")
        return frozenset({DirRef(self.api.source, "workflow", (workflow,))} if isinstance(workflow, str) else ())

    @asynccontextmanager
    async def _stream(self, path: str, route: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """Have the events of a stream until it ends or the block does."""
        prefix = await self.api.find()
        async with self.api.http.listen(prefix + path, silent_s=SILENT_S, route=route) as reply:
            if reply.status != OK:
                answers.refuse(reply.status, reply.headers, b"", self.api.source, path)
            if not reply.headers.get("content-type", "").startswith("text/event-stream"):
                raise errors.Unsupported("there is no stream of events", provider=self.api.source, subject=path)
            async with aclosing(_events(reply.chunks)) as events:
                yield events


async def _events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[dict[str, Any], None]:
    """Return the events of a stream; what cannot be read is passed over."""
    events = Events()
    async for piece in chunks:
        for data in events.feed(piece):
            event = await _parsed(data)
            if isinstance(event, dict):
                yield event


async def _parsed(data: bytes) -> object:
    try:
        return json.loads(data) if len(data) <= PARSE_INLINE else await trio.to_thread.run_sync(json.loads, data)
    except (ValueError, RecursionError):
        return None


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


@asynccontextmanager
async def listening(api: Api) -> AsyncIterator[AsyncIterator[Told]]:
    """Listen while the block runs; see ``providers.base.Announcing``."""
    failure: errors.ArtifactFSError | None = None
    async with trio.open_nursery() as nursery:
        listener = Listener(api, nursery)
        nursery.start_soon(listener.listen)
        try:
            async with aclosing(listener.told()) as told:
                yield told
        except errors.ArtifactFSError as error:
            failure = error  # by itself, not in a group of the nursery's
        finally:
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
