"""The endpoints of VLM Run, and what their answers mean.

Rules of this file: answers become rows or errors; nothing of folders and titles. What an answer means where
all services agree is in ``providers/answers.py``. Facts come from the Python SDK 0.9.2 (read and run), the
API reference of May 2026 and what independent clients recorded of the live service.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

import trio

from artifactfs import errors
from artifactfs.providers import answers
from artifactfs.providers.vlmrun.refs import EXECUTION, UUID
from artifactfs.providers.vlmrun.schemas import Execution, File, ListedObject, R, rows_of

if TYPE_CHECKING:
    from artifactfs.providers.http import HttpClient, Reply

# Answers that say: there is no such endpoint here. The list of artifacts is newer (June 2026) than the
# reference.
NOT_OFFERED = frozenset({404, 405, 501})
# How long a server is believed to have no list: it may get one with its next release, and what stands before it may
# have given the answer.
NOT_LISTING_S = 300.0
# What a framework says of a path it has no route for; an API's own 404 says what was not found.
GENERIC = frozenset({"", "Not Found", "Not Found (404)"})


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """One page of a list.

    Attributes:
        rows: what could be understood.
        skipped: how many rows could not.
        last: True if the page is shorter than asked for.
        weight: bytes of the answer for each row, on average.
    """

    rows: list[R]
    skipped: int
    last: bool
    weight: int


@dataclass(frozen=True, slots=True)
class Namespace:
    """What the artifacts of a session or an execution are asked for by."""

    kind: str
    """``session`` or ``execution``."""
    id: str

    @property
    def query(self) -> tuple[str, str]:
        """Return the query parameter; exactly one of the two kinds is allowed."""
        return f"{self.kind}_id", self.id


class VlmRunApi:
    """Asks one account's server."""

    def __init__(self, source: str, http: HttpClient) -> None:
        """Ask through ``http``, whose base URL ends in ``/v1``."""
        self.source = source
        self.http = http
        self.lists_artifacts: bool | None = None
        """Whether this server lists artifacts, as far as was told last; None until an answer has told."""
        self._ask_again_at = -math.inf

    # -- executions ------------------------------------------------------------------------------------------

    async def executions(self, skip: int, limit: int) -> Page[Execution]:
        """Return one page of executions; order and total are not documented. One request."""
        return await self._page(Execution, "/agent/executions", skip, limit)

    async def execution(self, execution_id: str) -> tuple[Execution, int]:
        """Return one execution and how many bytes its answer had. One request.

        Raises:
            NotFound: there is none of this id.
        """
        if not EXECUTION.fullmatch(execution_id):
            message = "no execution has an id of this form"
            raise errors.NotFound(message, provider=self.source, subject=execution_id)
        reply = await self.http.get(f"/agent/executions/{execution_id}", route="/agent/executions/{id}")
        if not _says_what(reply):
            answers.always_there(reply, self.source, f"execution {execution_id}")
        data = self._object(reply, f"execution {execution_id}")
        row = Execution.model_validate(data)
        if row.id is None and row.status is None:
            raise self._odd(reply, f"execution {execution_id}")
        return row, len(reply.body)

    # -- artifacts -------------------------------------------------------------------------------------------

    async def objects(self, namespace: Namespace) -> Page[ListedObject] | None:
        """Return the artifacts of a session or execution, None if this server does not list them.

        One request; where a 404 could mean either, a second that tells a missing endpoint from a missing session,
        and the first one once more: what stands before the service may have answered it. After a server has been found
        not to list, none for ``NOT_LISTING_S``.

        Raises:
            Unavailable: the server listed before, and says now that it does not.
            NotFound: the server lists artifacts but knows no such session or execution.
        """
        if self.lists_artifacts is False and trio.current_time() < self._ask_again_at:
            return None
        subject = f"artifacts of {namespace.kind} {namespace.id}"
        reply = await self.http.get("/artifacts/list", [namespace.query], route="/artifacts/list")
        if reply.status in NOT_OFFERED and not _says_what(reply):
            # What stands before the service may have said so: where it is there, it is asked once more.
            if not await self._lists(reply):
                return None
            reply = await self.http.get("/artifacts/list", [namespace.query], route="/artifacts/list")
        if _says_what(reply):
            self.lists_artifacts = True
        data = self._object(reply, subject)
        self.lists_artifacts = True
        # Absent means none (SDK 0.9.2); anything else that is no list must not pass for an empty one.
        items = data.get("items", [] if "namespace_id" in data else None)
        if not isinstance(items, list):
            raise self._odd(reply, subject)
        rows, skipped = rows_of(ListedObject, items)
        return Page(rows, skipped, last=True, weight=len(reply.body) // max(1, len(items)))

    async def _lists(self, reply: Reply) -> bool:
        """Tell whether the endpoint exists, an answer of ``NOT_OFFERED`` that says no more being all that is known."""
        lists = False
        if reply.status == 404:  # noqa: PLR2004 - the field's own number
            # Without parameters an endpoint that exists complains of them (400 or 422).
            probe = await self.http.get("/artifacts/list", route="/artifacts/list")
            lists = probe.status not in NOT_OFFERED
        if self.lists_artifacts and not lists:
            message = f"the service lists artifacts, but not at this moment ({reply.status})"
            raise errors.Unavailable(message, provider=self.source, subject="/artifacts/list", status=reply.status)
        self.lists_artifacts = lists
        if not lists:
            self._ask_again_at = trio.current_time() + NOT_LISTING_S
        return lists

    # -- files -----------------------------------------------------------------------------------------------

    async def files(self, skip: int, limit: int) -> Page[File]:
        """Return one page of uploaded files. One request."""
        return await self._page(File, "/files", skip, limit)

    async def file(self, file_id: str, *, link: bool) -> File:
        """Return one uploaded file, with a fresh address of its content if ``link``. One request.

        Raises:
            NotFound: there is none of this id.
        """
        if not UUID.fullmatch(file_id):
            message = "no file has an id of this form"
            raise errors.NotFound(message, provider=self.source, subject=file_id)
        params = {"generate_public_url": "true" if link else "false"}
        reply = await self.http.get(f"/files/{file_id}", params, route="/files/{id}")
        row = File.model_validate(self._object(reply, f"file {file_id}"))
        if row.id is None and row.public_url is None:
            raise self._odd(reply, f"file {file_id}")
        return row

    async def health(self) -> Reply:
        """Ask whether the server is there; any 200 says so. One request."""
        return await self.http.get("/health")

    async def _page(self, kind: type[R], path: str, skip: int, limit: int) -> Page[R]:
        params = {"skip": str(skip), "limit": str(limit)}
        reply = await self.http.get(path, params, route=path)
        self._only_200(reply, path)
        answers.always_there(reply, self.source, path)
        values: list[Any] = answers.json_array(reply, self.source, path)
        rows, skipped = rows_of(kind, values)
        return Page(rows, skipped, len(values) < limit, len(reply.body) // max(1, len(values)))

    def _object(self, reply: Reply, subject: str) -> dict[str, Any]:
        self._only_200(reply, subject)
        return answers.json_object(reply, self.source, subject)

    def _only_200(self, reply: Reply, subject: str) -> None:
        """Refuse the successes that are none here: 202 says that the answer is still being made."""
        if 200 < reply.status < 300:  # noqa: PLR2004 - the field's own numbers
            message = f"the service has no answer yet ({reply.status})"
            raise errors.Unavailable(message, provider=self.source, subject=subject, status=reply.status)

    def _odd(self, reply: Reply, subject: str) -> errors.ProviderMisbehaved:
        said = answers.message_of(reply.body)
        message = f"an answer of another kind than was asked for{': ' + said if said else ''}"
        return errors.ProviderMisbehaved(message, provider=self.source, subject=subject, status=reply.status)


def _says_what(reply: Reply) -> bool:
    """Tell whether a refusal is about what was asked for, in the service's words, and not about the endpoint."""
    is_told = reply.status == 404 and answers.is_own(reply.body)  # noqa: PLR2004 - HTTP's own number
    return is_told and answers.message_of(reply.body) not in GENERIC
