"""The endpoints of Syntropic137 that are needed, and what their answers mean.

Rules of this file: only 200 is a success; 202 is an error with a body (service source, May 2026). A list is
never shortened by a failure: it raises. Which of ``/api/v1`` (the gateway) and no prefix (the bare API) is
right shows the first request: the gateway answers anything it does not know with the dashboard, HTML with
200, so only JSON of the expected shape counts. Ids are percent-encoded whole.

    generation          list of artifacts                             known as
    0.18.0 to 0.25.4    array of at most 200, no paging               ``A/B``
    later               object with ``artifacts``, ``total``, pages   ``C``
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

import trio

from artifactfs import errors
from artifactfs.model.limits import named
from artifactfs.providers import answers
from artifactfs.providers.syntropic import paging
from artifactfs.providers.syntropic.rows import ArtifactRow, Rows, SessionRow, WorkflowRow
from artifactfs.providers.syntropic.schemas import (
    Page,
    artifact_row,
    content_bytes,
    is_usable_id,
    items_of,
    page_of,
    says_what_is_missing,
    session_row,
    workflow_row,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from artifactfs.providers.http import HttpClient, Reply

T = TypeVar("T")

PREFIXES = ("/api/v1", "")
# The most rows, workflows and sessions one request gives (service's OpenAPI description, v0.18.0, May 2026).
MAX_ROWS = 200
MAX_WORKFLOWS = 100
# 10,000 sessions, or 5,000 workflows: nobody goes through more. Of artifacts `limits.max-listing` are asked for.
MAX_SESSION_PAGES = 50
# Half of the connections one source keeps, so that a reader never waits behind a long listing.
AT_ONCE = 8
# A 202 asks for 2 s (service source, May 2026); three tries bridge an upload that is being taken in.
CONTENT_TRIES = 3
CONTENT_PAUSE_S = 2.0
CONTENT_PAUSE_MAX_S = 5.0
# A larger body is parsed in a thread: a megabyte of JSON takes about 10 ms.
PARSE_INLINE = 256 * 1024
# Pages asked for until is looked whether they bring anything: a server may repeat one for ever.
PAGES_AT_ONCE = 64
# The rows of more pages are put together in a thread: 200 take about 0.1 ms.
PAGES_INLINE = 20
# The lists compress to a tenth; bodies are bounded after decompression.
HEADERS = {"Accept-Encoding": "gzip"}
OK, ACCEPTED = 200, 202
# Routes without an id: the service always has them.
FIXED = frozenset({"/workflows", "/artifacts", "/sessions", "/executions", "/health", "/metrics"})
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def all_of(jobs: Sequence[Callable[[], Awaitable[T]]], at_once: int = AT_ONCE) -> list[T]:
    """Run jobs side by side and return their results in order; raises the first error.

    Once one has failed no further one is begun, but those under way are waited for: cancelling a request
    while it connects would leak a slot of the pool.
    """
    results: dict[int, T] = {}
    failures: list[Exception] = []
    waiting = iter(enumerate(jobs))

    async def work() -> None:
        for index, job in waiting:
            if failures:
                return
            try:
                results[index] = await job()
            except Exception as error:  # noqa: BLE001 - raised below, when all are done
                failures.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(min(at_once, len(jobs))):
            nursery.start_soon(work)
    if failures:
        raise failures[0]
    return [results[index] for index in range(len(jobs))]


def _path(*parts: str) -> str:
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def _has(key: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and key in value


class Api:
    """One Syntropic137 server."""

    def __init__(self, http: HttpClient) -> None:
        """Use ``http``, whose base URL has no prefix; nothing is sent yet."""
        self.http = http
        self.source = http.source
        self.prefix: str | None = None
        """Below the base URL; None until the first answer."""
        self.generation: str | None = None
        """``A/B`` or ``C``; None until the first list."""
        self._finding = trio.Lock()

    def __repr__(self) -> str:
        """Tell what is known of the server."""
        return f"<Api {self.source} prefix={self.prefix!r} generation={self.generation}>"

    # -- asking ----------------------------------------------------------------------------------------------

    async def _ask(
        self, path: str, params: Sequence[tuple[str, str]] = (), *, route: str, shape: Callable[[object], bool]
    ) -> Reply:
        """GET below the prefix; the very first request finds out which one that is."""
        if self.prefix is None:
            async with self._finding:
                if self.prefix is None:
                    return await self._find_prefix(path, params, route, shape)
        return await self._send(self.prefix, path, params, route)

    async def find(self) -> str:
        """Return the prefix; it takes a request if none was sent yet."""
        if self.prefix is None:
            await self.facts("/health")
        return self.prefix or ""

    async def _send(self, prefix: str, path: str, params: Sequence[tuple[str, str]], route: str) -> Reply:
        return await self.http.get(prefix + path, params, route=route, headers=HEADERS)

    async def _find_prefix(
        self, path: str, params: Sequence[tuple[str, str]], route: str, shape: Callable[[object], bool]
    ) -> Reply:
        for prefix in PREFIXES:
            reply = await self._send(prefix, path, params, route)
            if reply.status in {401, 403}:
                # Whoever guards the server guards all of it: nothing is learnt about the prefix.
                answers.refuse(reply.status, reply.headers, reply.body, self.source, path)
            if self._is_from_api(reply, shape):
                self.prefix = prefix
                return reply
        message = f"neither {PREFIXES[0]} nor the address itself answers as Syntropic137 does"
        raise errors.Unsupported(message, provider=self.source, subject=path, status=reply.status)

    @staticmethod
    def _is_from_api(reply: Reply, shape: Callable[[object], bool]) -> bool:
        """Tell whether an answer is the API's: a route it does not have is 404 "Not Found" there."""
        try:
            value = reply.json()
        except errors.ProviderMisbehaved:
            return False
        if reply.status == OK:
            return shape(value)
        return isinstance(value, dict) and value.get("detail", "Not Found") != "Not Found"

    async def _value(self, reply: Reply, path: str) -> object:
        """Return the parsed body of a success.

        Raises:
            ArtifactFSError: it is none, as ``answers.refusal`` says.
            Unavailable: 202.
            ProviderMisbehaved: 404 for a list, or one that does not say of what; each of these routes is there.
        """
        if reply.status == ACCEPTED:
            said = answers.message_of(reply.body) or "not available yet"
            raise errors.Unavailable(f"{said} (202)", provider=self.source, subject=path, status=ACCEPTED)
        if reply.status in answers.ABSENT and (path in FIXED or not says_what_is_missing(reply.body)):
            answers.always_there(reply, self.source, path)
        if reply.status != OK:
            answers.refuse(reply.status, reply.headers, reply.body, self.source, path)
        if len(reply.body) <= PARSE_INLINE:
            return reply.json()
        return await trio.to_thread.run_sync(reply.json)

    async def _page(
        self, path: str, key: str, params: Sequence[tuple[str, str]], read: Callable[[object], T | None]
    ) -> Page[T]:
        shape: Callable[[object], bool] = lambda value: items_of(value, key) is not None  # noqa: E731 - typed, and used once
        reply = await self._ask(path, params, route=path, shape=shape)
        return page_of(await self._value(reply, path), key, read)

    async def _one(self, path: str, route: str, read: Callable[[object], T | None]) -> T | None:
        """Return one object by id; None if the service says that there is none."""
        reply = await self._ask(path, _DETAIL if route == "/artifacts/{id}" else (), route=route, shape=_has("id"))
        try:
            value = await self._value(reply, path)
        except (errors.NotFound, errors.Conflict):
            return None  # 409: several ids begin so, so none is this one
        row = read(value)
        if row is None:
            message = "the answer has no usable id"
            raise errors.ProviderMisbehaved(message, provider=self.source, subject=path, status=reply.status)
        return row

    # -- lists -----------------------------------------------------------------------------------------------

    async def workflows(self) -> Rows[WorkflowRow]:
        """Return the workflows, archived ones too.

        One request; more only if the server tells a total above one page (up to 0.25.4 it tells the length
        of the page, and any page but the first is empty: measured, May 2026).
        """
        params = [("page_size", str(MAX_WORKFLOWS)), ("include_archived", "true")]
        ask = partial(self._page, "/workflows", "workflows", read=workflow_row)
        pages = [await ask(params=[("page", "1"), *params])]
        total = pages[0].total or 0
        if pages[0].given >= MAX_WORKFLOWS and total > pages[0].given:
            last = min(MAX_SESSION_PAGES, math.ceil(total / pages[0].given))
            jobs = [partial(ask, params=[("page", str(n)), *params]) for n in range(2, last + 1)]
            pages += await all_of(jobs)
        rows = paging.once(pages, lambda row: row.id)
        given = sum(page.given for page in pages)
        if given >= MAX_WORKFLOWS and not given == total > MAX_WORKFLOWS:
            return paging.rows_of(rows, pages, f"the service lists {MAX_WORKFLOWS} workflows at most")
        moved = paging.has_moved(rows, pages)
        return paging.rows_of(rows, pages, paging.MOVED if moved else None, moved=moved)

    async def artifacts(
        self, workflow_id: str | None, *, session_id: str | None = None, max_pages: int | None = None
    ) -> Rows[ArtifactRow]:
        """Return artifacts of one workflow, or of all.

        One request where the list is an array; of 200 rows it is cut, which cannot be helped. Else one for
        each 200, up to `limits.max-listing` rows.
        """
        limits = self.http.answer_limits
        filters = [("workflow_id", workflow_id), ("session_id", session_id)]
        params = [(name, value) for name, value in filters if value]
        first = await self._artifact_page(params, 1)
        self.generation = "C" if first.is_object else "A/B"
        if not first.is_object:
            cut = f"the service lists {MAX_ROWS} artifacts at most, and there may be more"
            return paging.rows_of(
                paging.once([first], lambda row: row.id), [first], cut if first.given >= MAX_ROWS else None
            )
        size = max(first.page_size or 0, first.given, 1)
        total = first.total if first.total is not None else first.given
        most = max_pages or math.ceil(limits.max_listing_rows / size)
        last = min(most, math.ceil(total / size)) if first.given else 1
        pages = [first, *await _further(partial(self._artifact_page, params), first, last)]
        once = partial(paging.once, pages, lambda row: row.id)
        rows = once() if len(pages) <= PAGES_INLINE else await trio.to_thread.run_sync(once)
        seen = len(rows) + sum(page.skipped for page in pages)
        if total > last * size:
            limit = "" if max_pages else f" ({named(limits, 'max_listing_rows')})"
            return paging.rows_of(rows, pages, f"only {seen} of {total} artifacts were asked for{limit}")
        unknown, moved = first.total is None and first.given >= size, paging.has_moved(rows, pages)
        return paging.rows_of(rows, pages, paging.MOVED if seen < total or unknown or moved else None, moved=moved)

    async def _artifact_page(self, params: Sequence[tuple[str, str]], number: int) -> Page[ArtifactRow]:
        # `limit` is what arrays are cut by, and the old name of `page_size`; arrays ignore the other two.
        paging = [("limit", str(MAX_ROWS)), ("page", str(number)), ("page_size", str(MAX_ROWS))]
        return await self._page("/artifacts", "artifacts", [*params, *paging], artifact_row)

    async def sessions(self, workflow_id: str) -> Rows[SessionRow]:
        """Return the sessions of a workflow, newest first: one request for each 200.

        There is no offset: the next page is what began no later than the oldest one seen. Up to 0.18.0 the
        server ignores that, so the list ends after its first page, incomplete.
        """
        pages: list[Page[SessionRow]] = []
        params = [("workflow_id", workflow_id), ("limit", str(MAX_ROWS))]
        before: list[tuple[str, str]] = []
        known: set[str] = set()
        for _ in range(MAX_SESSION_PAGES):
            page = await self._page("/sessions", "sessions", [*params, *before], session_row)
            pages.append(page)
            fresh = {row.id for row in page.rows} - known
            known |= fresh
            if page.given < MAX_ROWS:
                return paging.rows_of(paging.once(pages, lambda row: row.id), pages, None)
            starts = [row.started_at_ns for row in page.rows if row.started_at_ns is not None]
            if not fresh or not starts:
                break
            before = [("started_before", _clock(min(starts)))]
        cut = f"the service lists {MAX_ROWS} sessions at most"
        return paging.rows_of(paging.once(pages, lambda row: row.id), pages, cut)

    async def running(self) -> tuple[str, ...]:
        """Return the ids of the runs that are under way, the newest 100: one request."""
        params = [("status", "running"), ("page", "1"), ("page_size", str(MAX_WORKFLOWS))]
        page = await self._page("/executions", "executions", params, _running_id)
        return tuple(row for row in page.rows if row)

    # -- single objects --------------------------------------------------------------------------------------

    async def artifact(self, artifact_id: str) -> ArtifactRow | None:
        """Return an artifact with its session, without its content; None if there is none."""
        return await self._one(_path("artifacts", artifact_id), "/artifacts/{id}", artifact_row)

    async def whole(self, artifact_id: str) -> tuple[ArtifactRow, bytes]:
        """Return an artifact with its content, which must not be empty: the service says then that there is none.

        Raises:
            NotFound: there is no such artifact, or nothing in it.
            ArtifactFSError: as ``content``.
        """
        path = _path("artifacts", artifact_id)
        value = await self._value(await self._ask(path, _WHOLE, route="/artifacts/{id}", shape=_has("id")), path)
        row = artifact_row(value)
        if row is None or row.id != artifact_id:
            raise errors.ProviderMisbehaved("the answer is another artifact", provider=self.source, subject=path)
        return row, content_bytes(value, artifact_id)

    async def session(self, session_id: str) -> SessionRow | None:
        """Return a session; None if there is none."""
        return await self._one(_path("sessions", session_id), "/sessions/{id}", session_row)

    async def workflow(self, workflow_id: str) -> WorkflowRow | None:
        """Return a workflow; None if there is none."""
        return await self._one(_path("workflows", workflow_id), "/workflows/{id}", workflow_row)

    async def content(self, artifact_id: str) -> bytes:
        """Return the whole content.

        Raises:
            NotFound: there is no such artifact.
            Unavailable: there is no content yet (202), also after waiting as often as is reasonable.
            CorruptContent, ProviderMisbehaved: what came is no content.
        """
        path = f"{_path('artifacts', artifact_id)}/content"
        end = trio.current_time() + self.http.deadline_s
        for attempt in range(1, CONTENT_TRIES + 1):
            reply = await self._ask(path, route="/artifacts/{id}/content", shape=_has("content"))
            pause_s = _pause_s(reply)
            if reply.status != ACCEPTED or attempt == CONTENT_TRIES or trio.current_time() + pause_s > end:
                break
            await trio.sleep(pause_s)
        value = await self._value(reply, path)
        if len(reply.body) <= PARSE_INLINE:
            return content_bytes(value, artifact_id)
        return await trio.to_thread.run_sync(content_bytes, value, artifact_id)

    async def facts(self, path: str) -> dict[str, Any]:
        """Return what ``/health`` or ``/metrics`` say."""
        key = "status" if path == "/health" else "total_artifacts"
        reply = await self._ask(path, route=path, shape=_has(key))
        value = await self._value(reply, path)
        if not isinstance(value, dict):
            raise errors.ProviderMisbehaved("the answer is no JSON object", provider=self.source, subject=path)
        return value


def _running_id(value: object) -> str | None:
    """Return the id of a run's row if it is under way: an older server may ignore that it was asked for those."""
    match value:
        case {"workflow_execution_id": str(run), "status": "running"} if is_usable_id(run):
            return run
        case _:
            return None


async def _further(
    ask: Callable[[int], Awaitable[Page[ArtifactRow]]], first: Page[ArtifactRow], last: int
) -> list[Page[ArtifactRow]]:
    """Return the pages after the first one; no more of them once so many in a row have brought nothing new."""
    pages: list[Page[ArtifactRow]] = []
    seen = {row.id for row in first.rows}
    for begin in range(2, last + 1, PAGES_AT_ONCE):
        numbers = range(begin, min(last + 1, begin + PAGES_AT_ONCE))
        pages += await all_of([partial(ask, number) for number in numbers])
        known = len(seen)
        seen.update(row.id for page in pages[-len(numbers) :] for row in page.rows)
        if len(seen) == known:
            break
    return pages


_DETAIL = (("include_content", "false"),)
"""Without it a detail is 404 for an empty artifact, and carries the content of any other."""
_WHOLE = (("include_content", "true"),)


def _clock(at_ns: int) -> str:
    """Return a time for a query: with its offset, for the service fails on a naive one; rounded up."""
    return (EPOCH + timedelta(microseconds=-(-at_ns // 1000))).isoformat()


def _pause_s(reply: Reply) -> float:
    value = reply.headers.get("retry-after", "").strip()
    asked = float(value) if value.isdecimal() and len(value) < 6 else CONTENT_PAUSE_S  # noqa: PLR2004 - a day
    return min(asked, CONTENT_PAUSE_MAX_S)
