"""Syntropic137 as a source: workflows, the runs in them, and each run's outputs by phase and path.

Rules of this file: says what the service says and how sure that is; every list that may be cut is declared
incomplete. What a call costs, in requests:

    list(root)       2: workflows, artifacts. Later generation: 1 more for each further 100 workflows, and for each
                     further 200 artifacts, of these 3 at most (then the root is incomplete).
    list(workflow)   2: artifacts, then sessions. 1 more for each further 200 sessions and, in the later
                     generation, for each further 200 artifacts. Only while cold: 1 for each output of a phase that
                     ran more than once, or in the later generation 1 for each of its sessions if those are fewer;
                     the links are remembered for ever (``join.py``), so a listing that is read again costs 2.
    find             1, or 2 for the output of a run whose session is not remembered.
    resolve, open    1; ``open`` up to 3 while the service says 202.
    check            4.
    events           2, and 1 for each run that is under way; held until they end, of 8 runs at most.
    the others       0.

The very first request finds out the prefix: behind the gateway at no cost, on the bare API it is sent twice.
"""

from __future__ import annotations

import math
import re
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import trio

from artifactfs import errors
from artifactfs.model.codec import packed
from artifactfs.model.content import Hint, Pointer, Unknown
from artifactfs.model.entry import (
    Accepts,
    Artifact,
    ArtifactKind,
    DirRef,
    Folder,
    Listing,
    Role,
    SingleFile,
    TreeMember,
    Version,
    VersionPage,
)
from artifactfs.providers.base import Check, ContentStream
from artifactfs.providers.syntropic.api import MAX_ROWS, Api, all_of
from artifactfs.providers.syntropic.events import listening
from artifactfs.providers.syntropic.join import NONE, Linker
from artifactfs.providers.syntropic.learnt import Learnt
from artifactfs.providers.syntropic.publisher import Syntropic137Publisher
from artifactfs.providers.syntropic.titles import place

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from contextlib import AbstractAsyncContextManager

    from artifactfs.model.content import ByteRange, ContentRef
    from artifactfs.providers.base import Memory, Publisher
    from artifactfs.providers.http import HttpClient
    from artifactfs.providers.syntropic.join import Links
    from artifactfs.providers.syntropic.rows import ArtifactRow, Rows, SessionRow, WorkflowRow

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# What a workflow's id can be (service source, May 2026); anything else need not be asked for.
WORKFLOW_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,99}")
# The id of the directory for artifacts that name no workflow: the nil UUID, which no workflow has.
NO_WORKFLOW_ID = "00000000-0000-0000-0000-000000000000"
NO_WORKFLOW = "no workflow"
# Pages of all artifacts that the root looks through for workflows that nothing else names (later generation).
ROOT_PAGES = 4
# A list of which rows may have been missed is asked for again soon, but not for each look at it.
CHANGED_TTL_S = 10.0
# More rows become values in a thread: one takes about 10 us (measured).
INLINE_ROWS = 400
# What a reader is handed at a time.
CHUNK = 256 * 1024


class Syntropic137Provider:
    """One Syntropic137 server."""

    service = "syntropic137"
    # Runs take minutes; the service announces what they make only on a stream of its own.
    listing_ttl_s = 60.0
    is_here = False

    def __init__(self, source: str, http: HttpClient, memory: Memory) -> None:
        """Use ``http``, whose base URL has no ``/api/v1``; nothing is sent yet."""
        self.source = source
        self.http = http
        self.api = Api(http)
        self.linker = Linker(self.api, memory)
        self.learnt = Learnt(memory)
        self.publisher: Publisher | None = Syntropic137Publisher(self.api, self.learnt, self._made_here)
        self._root_is_complete: bool | None = None

    def __repr__(self) -> str:
        """Tell what is known of the server."""
        return f"<Syntropic137Provider {self.source} {self.api!r}>"

    # -- directories -----------------------------------------------------------------------------------------

    def root(self) -> Folder:
        """Return the directory of workflows."""
        return Folder(path=(), id=self.source, ref=DirRef(self.source, "root"))

    async def list(self, ref: DirRef, cursor: str | None) -> Listing:
        """Return a whole directory: neither kind has a further page to ask for."""
        if (ref.kind, ref.args) == ("root", ()):
            return await self._list_root()
        if ref.kind == "workflow" and len(ref.args) == 1:
            return await self._list_workflow(ref.args[0] or None)
        raise errors.NotFound(f"no directory of the kind {ref.kind!r}", provider=self.source, subject=cursor or "")

    async def _list_root(self) -> Listing:
        rows: Rows[ArtifactRow]
        workflows, rows = await self._workflows_and_artifacts()
        folders = {row.id: self._workflow_folder(row) for row in workflows.rows}
        for row in rows.rows:
            named = row.workflow_id
            if named is None:
                folders.setdefault(NO_WORKFLOW_ID, self._folder(NO_WORKFLOW, NO_WORKFLOW_ID, ""))
            elif named not in folders and _can_be_asked_for(named):
                folders[named] = self._folder(named, named, named)
        unaskable = sum(1 for r in rows.rows if r.workflow_id is not None and not _can_be_asked_for(r.workflow_id))
        odd = f"{unaskable} artifacts name a workflow that cannot be asked for" if unaskable else None
        note = _notes(workflows.note, rows.note, odd)
        self._root_is_complete = note is None
        ttl_s = CHANGED_TTL_S if workflows.moved or rows.moved else None
        return Listing(tuple(folders.values()), complete=note is None, ttl_s=ttl_s, note=note)

    async def _workflows_and_artifacts(self) -> tuple[Rows[WorkflowRow], Rows[ArtifactRow]]:
        """Ask for both side by side: through these ids alone some workflows are found."""
        found: list[Any] = await all_of([self.api.workflows, partial(self.api.artifacts, None, max_pages=ROOT_PAGES)])
        return found[0], found[1]

    def _workflow_folder(self, row: WorkflowRow) -> Folder:
        facts = {"workflow_type": row.workflow_type, "is_archived": row.is_archived}
        return self._folder(row.name or row.id, row.id, row.id, row.created_at_ns, facts)

    def _folder(
        self,
        title: str,
        folder_id: str,
        workflow_id: str,
        mtime_ns: int | None = None,
        facts: dict[str, Any] | None = None,
    ) -> Folder:
        return Folder(
            path=(title,),
            id=folder_id,
            ref=DirRef(self.source, "workflow", (workflow_id,)),
            role=Role.WORKFLOW,
            mtime_ns=mtime_ns,
            accepts=Accepts.FILES if self.publisher and workflow_id else Accepts.NOTHING,
            metadata=MappingProxyType(facts or {}),
        )

    async def _list_workflow(self, workflow_id: str | None) -> Listing:
        rows = await self.api.artifacts(workflow_id)
        own = [row for row in rows.rows if row.workflow_id == workflow_id]
        # After the artifacts, never before: see join.py.
        sessions = NONE if workflow_id is None else await self._sessions(workflow_id)
        links = await self.linker.link(workflow_id, own, sessions)
        odd = f"of {links.unexplained} outputs the service does not say the run" if links.unexplained else None
        note = _notes(rows.note, sessions.note, odd)
        make = partial(self._listing, own, links, note, CHANGED_TTL_S if rows.moved else None)
        return make() if len(own) <= INLINE_ROWS else await trio.to_thread.run_sync(make)

    def _listing(self, rows: Sequence[ArtifactRow], links: Links, note: str | None, ttl_s: float | None) -> Listing:
        artifacts = [self._artifact(row, links.of(row)) for row in rows]
        return Listing((*_run_folders(rows, links), *artifacts), complete=note is None, ttl_s=ttl_s, note=note)

    async def _sessions(self, workflow_id: str) -> Rows[SessionRow]:
        """Return the sessions of a workflow, also from a server that ignores the filter."""
        found = await self.api.sessions(workflow_id)
        own = tuple(row for row in found.rows if row.workflow_id in {None, workflow_id})
        return replace(found, rows=own)

    # -- artifacts -------------------------------------------------------------------------------------------

    def _artifact(self, row: ArtifactRow, session: SessionRow | None) -> Artifact:
        run = row.execution_id or (session.run if session else None)
        at_ns = row.created_at_ns if row.created_at_ns is not None else session.mtime_ns if session else None
        size = Unknown() if row.size is None else Hint(row.size)
        content = SingleFile(Pointer(self.source, row.id, (row.id,), size))
        facts = {
            "id": row.id,
            "title": row.title,
            "artifact_type": row.artifact_type,
            "workflow_id": row.workflow_id,
            "execution_id": run,
            "session_id": session.id if session else None,
            "phase_id": row.phase_id,
            "size_bytes": row.size,
            "created_at": row.created_at,
        }
        return Artifact(
            path=place(row.title, row.id, row.phase_id, run),
            id=row.id,
            key=row.id,
            kind=ArtifactKind.FILE,
            current=Version(row.id, content, size, file_count=1, created_at_ns=at_ns),
            only_version=True,
            created_at_ns=at_ns,
            updated_at_ns=at_ns,
            writable=self.publisher is not None,
            workflow=row.workflow_id,
            run=run,
            metadata=packed(facts),
        )

    def _made_here(self, row: ArtifactRow) -> Artifact:
        """Return an artifact that was made by POST, which belongs to no run."""
        return self._artifact(row, None)

    async def resolve(self, ref: DirRef, name: str) -> Folder | None:
        """Return a workflow that is not listed, by its id."""
        if ref.kind != "root" or not WORKFLOW_ID.fullmatch(name):
            return None
        row = await self.api.workflow(name)
        # The service takes a unique beginning for an id; a directory has one name only.
        if row is None or row.id != name:
            return None
        folder = self._workflow_folder(row)
        return self._folder(name, row.id, row.id, folder.mtime_ns, {**folder.metadata, "name": row.name})

    def is_artifact_id(self, name: str) -> bool:
        """Tell whether it is a UUID in the service's spelling."""
        return UUID.fullmatch(name) is not None

    async def find(self, workflow: DirRef, artifact_id: str) -> Artifact | None:
        """Return an artifact by id, where the listing shows it."""
        if workflow.kind != "workflow" or not self.is_artifact_id(artifact_id):
            return None
        row = await self.api.artifact(artifact_id)
        if row is None or row.id != artifact_id or (row.workflow_id or "") != workflow.args[0]:
            return None
        return self._artifact(row, await self.linker.maker(row))

    async def refresh(self, artifact: Artifact) -> Artifact | None:
        """Return an artifact as it is now."""
        row = await self.api.artifact(artifact.id)
        return None if row is None or row.id != artifact.id else self._artifact(row, await self.linker.maker(row))

    async def versions(self, artifact: Artifact, cursor: str | None) -> VersionPage:
        """Return the one there is: an upload swaps its bytes in place."""
        return VersionPage(() if artifact.current is None or cursor else (artifact.current,))

    async def find_version(self, artifact: Artifact, version_id: str) -> str | None:
        """Return the id of the only version if it is asked for."""
        return artifact.id if artifact.id == version_id else None

    async def tree(self, artifact: Artifact, locator: tuple[str, ...]) -> Sequence[TreeMember]:
        """Return nothing: every artifact is one file."""
        del artifact, locator
        return ()

    # -- bytes -----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(self, ref: ContentRef | Pointer, span: ByteRange) -> AsyncIterator[ContentStream]:
        """Open the whole content, whatever range is asked for: it comes as one JSON string."""
        del span
        data = await self.api.content(ref.locator[0])
        async with aclosing(_slices(data)) as chunks:
            yield ContentStream(0, len(data), ranged=False, chunks=chunks)

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[frozenset[DirRef] | None]]:
        """Listen to what runs begin, make and end."""
        return listening(self.api)

    # -- the server ------------------------------------------------------------------------------------------

    async def check(self) -> Sequence[Check]:
        """Try the server with 4 requests."""
        try:
            rows = await self.api.artifacts(None, max_pages=1)
        except errors.AccessDenied as error:
            return [
                Check("address", ok=True, detail=self.http.base_url),
                Check("credentials", ok=False, detail=str(error)),
            ]
        except errors.ArtifactFSError as error:
            return [Check("address", ok=False, detail=str(error))]
        shown = f"{len(rows.rows)} listed" + ("" if rows.complete else f" ({rows.note})")
        return [
            Check("address", ok=True, detail=f"{self.http.base_url}{self.api.prefix}"),
            Check("credentials", ok=True, detail="accepted, or none are needed"),
            Check("generation", ok=True, detail=self._generation()),
            Check("artifacts", ok=True, detail=shown),
            await _check_workflows(self.api),
            await _check_facts(self.api, "/health", "status"),
            await _check_facts(self.api, "/metrics", "total_artifacts"),
        ]

    def _generation(self) -> str:
        if self.api.generation == "C":
            return "C: lists have pages"
        return "not known yet" if self.api.generation is None else f"A/B: lists end after {MAX_ROWS} artifacts"

    def spare(self) -> float:
        """Return which share of the request budget is unused."""
        return self.http.budget.spare()

    def describe(self) -> dict[str, Any]:
        """Return what is known of the server."""
        left = self.http.budget.left()
        return {
            "service": self.service,
            "address": self.http.base_url,
            "prefix": self.api.prefix,
            "generation": self._generation(),
            "lists_complete": self._root_is_complete,
            "can_rename_and_remove": self.api.generation == "C" or self.learnt.changes,
            "can_replace": self.learnt.uploads,
            "largest_request": self.learnt.largest,
            "requests_left": None if math.isinf(left) else int(left),
        }

    async def aclose(self) -> None:
        """Close the connections."""
        await self.http.aclose()


async def _check_workflows(api: Api) -> Check:
    try:
        rows = await api.workflows()
    except errors.ArtifactFSError as error:
        return Check("workflows", ok=False, detail=str(error))
    return Check("workflows", ok=True, detail=f"{len(rows.rows)} listed" + ("" if rows.complete else f" ({rows.note})"))


async def _check_facts(api: Api, path: str, key: str) -> Check:
    try:
        facts = await api.facts(path)
    except errors.ArtifactFSError as error:
        return Check(path[1:], ok=False, detail=str(error))
    return Check(path[1:], ok=True, detail=f"{key}: {str(facts.get(key))[:100]}")


def _run_folders(rows: Sequence[ArtifactRow], links: Links) -> list[Folder]:
    """Return a directory for each run that a session or an artifact names, empty ones too."""
    makers = set(links.makers.values())
    times: dict[str, int | None] = {row.execution_id: None for row in rows if row.execution_id}
    states: dict[str, str | None] = {}
    for session in links.sessions.values():
        if session.execution_id is None and session.id not in makers:
            continue  # a conversation that belongs to no run and made nothing
        before, at_ns = times.get(session.run), session.mtime_ns
        times[session.run] = before if at_ns is None or (before is not None and before > at_ns) else at_ns
        states.setdefault(session.run, session.status)
    return [
        Folder((run,), run, role=Role.RUN, mtime_ns=at_ns, metadata=MappingProxyType({"status": states.get(run)}))
        for run, at_ns in times.items()
    ]


def _can_be_asked_for(workflow_id: str) -> bool:
    """Tell whether it fits a query: free text, but without lone surrogates, and no longer than a request line."""
    return len(workflow_id) <= 512 and not any("\ud800" <= c <= "\udfff" for c in workflow_id)  # noqa: PLR2004 - as said


def _notes(*notes: str | None) -> str | None:
    return "; ".join(note for note in notes if note) or None


async def _slices(data: bytes) -> AsyncGenerator[bytes]:
    for start in range(0, len(data), CHUNK):
        await trio.lowlevel.checkpoint()  # 60 MB at hand must not keep the others waiting
        yield data[start : start + CHUNK]
