"""VLM Run as directories: agents and their executions, sessions, uploaded files.

Rules of this file: it decides what is asked when; requests are in ``api.py``, bytes in ``contents.py``. The
cheapest plan allows ten requests a minute, so no request is sent for what a name or an earlier answer
already tells.

    call                  requests
    list root             1 for 500 executions
    list run              1; 2 if the root's listing did not tell its response; once one more (``api.objects``)
    list sessions         0
    list session          1; 0 right after it was resolved
    list files            1 for 1,000 files
    resolve in sessions   1 for the form of a UUID, else 0
    find in files         1 for the form of a UUID, else 0
    open                  1; 2 for ``url_`` objects and files whose address is not known yet
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio
from cachetools import LRUCache, TTLCache

from artifactfs import errors
from artifactfs.model.entry import DirRef, Entry, Folder, Listing, VersionPage
from artifactfs.model.limits import AnswerLimits, named
from artifactfs.providers import answers
from artifactfs.providers.base import Check
from artifactfs.providers.vlmrun import entries, names, refs
from artifactfs.providers.vlmrun.api import NOT_LISTING_S, Namespace, VlmRunApi
from artifactfs.providers.vlmrun.contents import Contents
from artifactfs.providers.vlmrun.pages import Pages
from artifactfs.providers.vlmrun.publisher import VlmRunPublisher
from artifactfs.providers.vlmrun.sessions import Sessions, default_caches
from artifactfs.providers.vlmrun.upload_api import UploadApi

if TYPE_CHECKING:
    import builtins
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from artifactfs.model.content import ByteRange, ContentRef, Pointer
    from artifactfs.model.entry import Artifact, TreeMember
    from artifactfs.providers.base import ContentStream, Memory, Publisher
    from artifactfs.providers.http import HttpClient
    from artifactfs.providers.vlmrun.api import Page
    from artifactfs.providers.vlmrun.schemas import Execution, ListedObject

# Rows may hold whole responses: 500 of 128 KiB stay below what one answer may have (64 MiB), and most
# accounts need one request. The service allows 1,000.
EXECUTIONS_PAGE = 500
# Rows of files have some hundred bytes: as many as the service allows.
FILES_PAGE = 1000
# Responses kept in memory so that entering a run need not ask for them again, in bytes of the answers they
# came in.
KNOWN_BYTES = 16 * 1024 * 1024
ROW_OVERHEAD = 512
# Between looking a session up and listing it lies one system call; a second request then would be waste.
HANDOVER_S = 10.0
# A list of which rows may have been missed is asked for again soon, but not for each look at it.
CHANGED_TTL_S = 10.0
# Looking into the SDK's caches costs no request.
SESSIONS_TTL_S = 10.0


@dataclass(frozen=True, slots=True)
class Known:
    """An execution as last seen.

    Attributes:
        row: what the service said.
        seen_s: when, by trio's clock.
        whole: asked for by id, so that asking again tells no more of one that will not change.
        weight: what it counts for in memory, in bytes of the answer it came in.
    """

    row: Execution
    seen_s: float
    whole: bool
    weight: int

    def says_all(self, now_s: float) -> bool:
        """Tell whether the service needs not be asked again."""
        if not entries.is_settled(self.row):
            return now_s - self.seen_s < entries.UNSETTLED_TTL_S
        return self.whole or self.row.response is not None or self.row.status != "completed"


class VlmRunProvider:
    """One account on VLM Run."""

    service = "vlmrun"
    # One request a minute, of ten, keeps the list of runs fresh.
    listing_ttl_s = 60.0
    is_here = False

    def __init__(self, source: str, http: HttpClient, memory: Memory, caches: Sequence[Path] | None = None) -> None:
        """Prepare; nothing is sent yet.

        Args:
            source: name of the source.
            http: the way to the service; its base URL ends in ``/v1``.
            memory: keeps the sessions that were looked up, and which bytes stood at addresses.
            caches: the SDK's directories of downloads; None takes those that the SDKs use.
        """
        self.source = source
        self._api = VlmRunApi(source, http)
        self._contents = Contents(self._api, memory)
        uploads = UploadApi(source, http)
        self.publisher: Publisher | None = VlmRunPublisher(self._api, uploads, self._contents, memory)
        self._sessions = Sessions(memory, default_caches() if caches is None else caches)
        self._runs, self._uploads = Pages(), Pages()
        self._known: LRUCache[str, Known] = LRUCache(KNOWN_BYTES, lambda known: known.weight)
        self._handed: TTLCache[str, Page[ListedObject]] = TTLCache(64, HANDOVER_S, trio.current_time)

    def __repr__(self) -> str:
        """Tell what is known."""
        return f"<VlmRunProvider {self.source} {len(self._known)} executions known>"

    def root(self) -> Folder:
        return Folder((), "root", ref=DirRef(self.source, "root"))

    # -- listing ---------------------------------------------------------------------------------------------

    async def list(self, ref: DirRef, cursor: str | None) -> Listing:
        """Return one page of a directory; what each kind costs stands at the top of this file."""
        if ref.kind == "root":
            return await self._list_root(int(cursor or 0))
        if ref.kind == "run":
            return await self._list_run(ref.args[0])
        if ref.kind == "sessions":
            return await self._list_sessions()
        if ref.kind == "session":
            return await self._list_session(ref.args[0])
        if ref.kind == "files":
            return await self._list_files(int(cursor or 0))
        message = f"there is no directory of the kind {ref.kind!r}"
        raise errors.NotFound(message, provider=self.source)

    async def _list_root(self, start: int) -> Listing:
        page = await self._api.executions(start, EXECUTIONS_PAGE)
        pages = self._runs
        pages.begin(start)
        rows = [row for row in page.rows if row.id and refs.EXECUTION.fullmatch(row.id)]
        pages.skipped[start] = page.skipped + len(page.rows) - len(rows)
        pages.joins(start, [row.id for row in page.rows if row.id], _following(start, EXECUTIONS_PAGE))
        fresh = [row for row in rows if pages.is_new(f"run/{row.id}", start)]
        listed: list[Entry] = []
        agents: set[str] = set()
        for row in sorted(fresh, key=lambda row: -(answers.parse_time_ns(row.created_at) or 0)):
            self._learn(row, page.weight, whole=False)
            agent, _ = names.agent(row.name)
            if agent not in agents and pages.is_new(f"agent/{agent}", start):
                agents.add(agent)
                listed.append(entries.agent_folder(agent, entries.ended_ns(row)))
            listed.append(entries.execution_folder(self.source, row))
        if start == 0:
            listed += (entries.special_folder(self.source, kind) for kind in ("sessions", "files"))
        return self._page(pages, listed, start, EXECUTIONS_PAGE, "executions", ended=page.last, new=bool(fresh))

    def _page(
        self, pages: Pages, listed: builtins.list[Entry], start: int, size: int, what: str, *, ended: bool, new: bool
    ) -> Listing:
        """Return a page of a list that is asked for by offset: the last one if it is short, or brings nothing new."""
        cut = None if ended else _cut(self._api.http.answer_limits, start + size, new=new)
        if not ended and not cut:
            return Listing(tuple(listed), str(_following(start, size)))
        note = pages.note(what, cut=cut)
        return Listing(
            tuple(listed), complete=note is None, ttl_s=CHANGED_TTL_S if pages.has_moved else None, note=note
        )  # fmt: skip

    def _learn(self, row: Execution, weight: int, *, whole: bool) -> None:
        """Keep an execution; a row of a list does not replace what was asked for by id and cannot change."""
        run_id = row.id or ""
        old = self._known.get(run_id)
        if old and old.whole and not whole and entries.is_settled(old.row):
            return
        known = Known(row, trio.current_time(), whole, weight + ROW_OVERHEAD)
        if known.weight <= KNOWN_BYTES:
            self._known[run_id] = known

    async def _execution(self, run_id: str) -> Execution:
        """Return an execution; no request if what is known says all of it."""
        known = self._known.get(run_id)
        if known and known.says_all(trio.current_time()):
            return known.row
        row, weight = await self._api.execution(run_id)
        row = row.model_copy(update={"id": run_id})
        self._learn(row, weight, whole=True)
        return row

    async def _list_run(self, run_id: str) -> Listing:
        row = await self._execution(run_id)
        namespace = Namespace("execution", run_id)
        note, ttl_s = None, entries.run_ttl_s(row, time.time_ns())
        try:
            page = await self._api.objects(namespace)
        except errors.NotFound:
            # The execution is there: it has left nothing yet, or what it left has been removed.
            page, ttl_s = None, entries.UNSETTLED_TTL_S
        else:
            if page is None:
                note = "this server does not list artifacts: only those named in the response are shown"
                ttl_s = min(ttl_s, NOT_LISTING_S)
        most = self._api.http.answer_limits.max_answer_bytes
        found, response = await trio.to_thread.run_sync(entries.of_response, row, most)
        if len(found) == refs.MAX_FOUND:
            note = f"the response names more artifacts than are shown ({refs.MAX_FOUND})"
        agent, _ = names.agent(row.name)
        place = entries.Place(self.source, namespace, agent, entries.ended_ns(row))
        return self._objects(place, page, found, ttl_s, note, (response,) if response else ())

    def _objects(
        self,
        place: entries.Place,
        page: Page[ListedObject] | None,
        found: Sequence[refs.Found],
        ttl_s: float,
        note: str | None = None,
        more: tuple[Entry, ...] = (),
    ) -> Listing:
        artifacts, dropped = entries.objects(place, page.rows if page else (), found)
        dropped += page.skipped if page else 0
        if dropped:
            note = f"{dropped} artifacts cannot be shown: the service gave neither usable id nor filename"
        return Listing((*artifacts, *more), complete=note is None, ttl_s=ttl_s, note=note)

    async def _list_sessions(self) -> Listing:
        found = await trio.to_thread.run_sync(self._sessions.found)
        # The SDKs keep executions in the same places; those known to be some are listed elsewhere.
        known: dict[str, int | None] = {name: at for name, at in found.items() if name not in self._known}
        known |= self._sessions.remembered()
        folders = tuple(entries.session_folder(self.source, name, at) for name, at in sorted(known.items()))
        note = "sessions are not listed by the service: shown are those looked up and those in the SDK's cache"
        return Listing(folders, complete=False, ttl_s=SESSIONS_TTL_S, note=note)

    async def _list_session(self, session_id: str) -> Listing:
        namespace = Namespace("session", session_id)
        page = self._handed.pop(session_id, None)
        if page is None:
            page = await self._session(session_id)
        place = entries.Place(self.source, namespace, "sessions", self._sessions.seen_ns(session_id))
        return self._objects(place, page, (), entries.UNSETTLED_TTL_S)

    async def _session(self, session_id: str) -> Page[ListedObject]:
        page = await self._api.objects(Namespace("session", session_id))
        if page is None:
            message = "this server does not list artifacts, and a session's are named nowhere else"
            raise errors.Unsupported(message, provider=self.source, subject=f"session {session_id}")
        self._sessions.remember(session_id)
        return page

    async def _list_files(self, start: int) -> Listing:
        page = await self._api.files(start, FILES_PAGE)
        self._uploads.begin(start)
        made = [entries.file_artifact(self.source, row) for row in page.rows]
        usable = [artifact for artifact in made if artifact]
        self._uploads.skipped[start] = page.skipped + len(made) - len(usable)
        self._uploads.joins(start, [artifact.id for artifact in usable], _following(start, FILES_PAGE))
        fresh: builtins.list[Entry] = [a for a in usable if self._uploads.is_new(a.id, start)]
        return self._page(self._uploads, fresh, start, FILES_PAGE, "files", ended=page.last, new=bool(fresh))

    # -- look-ups --------------------------------------------------------------------------------------------

    async def resolve(self, ref: DirRef, name: str) -> Folder | None:
        """Return a session by its id: the service lists none, but tells of each."""
        if ref.kind != "sessions" or not refs.UUID.fullmatch(name):
            return None
        if not self._sessions.is_remembered(name):
            try:
                self._handed[name] = await self._session(name)
            except errors.NotFound:
                return None
        return entries.session_folder(self.source, name, self._sessions.seen_ns(name))

    def is_artifact_id(self, name: str) -> bool:
        return refs.is_ref(name) or refs.UUID.fullmatch(name) is not None

    async def find(self, workflow: DirRef, artifact_id: str) -> Artifact | None:
        """Return an uploaded file by id. None for objects: only their run's listing tells of them."""
        if workflow.kind != "files" or not refs.UUID.fullmatch(artifact_id):
            return None
        try:
            row = await self._api.file(artifact_id, link=False)
        except errors.NotFound:
            return None
        return entries.file_artifact(self.source, row.model_copy(update={"id": artifact_id}))

    async def refresh(self, artifact: Artifact) -> Artifact | None:
        """Return an uploaded file as it is now; an object never changes."""
        return await self.find(DirRef(self.source, "files"), artifact.id) if artifact.writable else artifact

    async def versions(self, artifact: Artifact, cursor: str | None) -> VersionPage:  # noqa: ARG002 - one page
        """Return the only version: an object never changes under its id."""
        return VersionPage((artifact.current,) if artifact.current else ())

    async def find_version(self, artifact: Artifact, version_id: str) -> str | None:  # noqa: ARG002 - only one
        return None

    async def tree(self, artifact: Artifact, locator: tuple[str, ...]) -> Sequence[TreeMember]:  # noqa: ARG002 - none
        message = "VLM Run has no artifacts that are trees"
        raise errors.NotADirectory(message, provider=self.source, subject=artifact.key)

    def open(self, ref: ContentRef | Pointer, span: ByteRange) -> AbstractAsyncContextManager[ContentStream]:
        return self._contents.open(ref, span)

    # -- the source as a whole -------------------------------------------------------------------------------

    async def check(self) -> Sequence[Check]:
        """Try address and key; two requests."""
        checks = []
        try:
            reply = await self._api.health()
            if reply.status != 200:  # noqa: PLR2004 - the field's own number
                answers.refuse(reply.status, reply.headers, reply.body, self.source, "/health")
            checks.append(Check("address", ok=True, detail=f"{self._api.http.base_url} answers"))
            page = await self._api.executions(0, 1)
            count = "at least one execution" if page.rows else "no executions"
            checks.append(Check("key", ok=True, detail=f"accepted; {count}"))
        except errors.ArtifactFSError as error:
            checks.append(Check("key" if checks else "address", ok=False, detail=str(error)))
        return checks

    def spare(self) -> float:
        """Return which share of the request budget is unused."""
        return self._api.http.budget.spare()

    def describe(self) -> dict[str, Any]:
        left = self._api.http.budget.left()
        return {
            "service": self.service, "address": self._api.http.base_url, "executions_known": len(self._known),
            "lists_artifacts": self._api.lists_artifacts,
            "requests_left": None if math.isinf(left) else int(left),  # JSON has no infinity
        }  # fmt: skip

    async def aclose(self) -> None:
        await self._api.http.aclose()


def _cut(limits: AnswerLimits, rows: int, *, new: bool) -> str | None:
    """Return why a list is left after so many rows, None if it is not."""
    if not new:
        return "repeats itself"
    return f"goes on after {named(limits, 'max_listing_rows')}" if rows >= limits.max_listing_rows else None


def _following(start: int, size: int) -> int:
    """Return where the next page begins: with the last row of this one."""
    return start + max(1, size - 1)
