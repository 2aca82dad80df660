"""VM0's requests, and what their answers mean.

Rules of this file: one method, one question; it knows the wire and nothing of folders. Two APIs are spoken
to: ``/v1`` in both spellings, and ``/api/storages`` where a server has no ``/v1``. Facts about them are
from the service's source of January to July 2026.
"""

from __future__ import annotations

import contextlib
import math
import re
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from artifactfs import errors
from artifactfs.model.limits import named
from artifactfs.providers import answers
from artifactfs.providers.vm0.pages import Pages
from artifactfs.providers.vm0.schemas import ArtifactRow, StorageDownload, StorageRow, VersionRow, read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from artifactfs.providers.http import HttpClient, Reply, StreamReply

RowT = TypeVar("RowT", ArtifactRow, VersionRow)
Link = tuple[str, list[tuple[str, str]], str]
"""Where an archive is asked for: address, query, and the route it counts as."""

# The service's maximum; the fewer pages, the less its paging can lose.
PAGE = 100
# As much of an error's body as is read from a stream.
MAX_ERROR_BYTES = 64 * 1024
REDIRECTS = frozenset({301, 302, 303, 307, 308})
ARCHIVE_PATH = re.compile(r"/([0-9a-f]{64})/archive\.tar\.gz$")
VERSION_ID = re.compile(r"[0-9a-f]{64}")
NO_FILES = re.compile(r"has no files\W*$")


class NoApi(errors.Unsupported):
    """The server answered 404 without the service's error envelope: it does not have this API."""


class EmptyVersion(Exception):
    """The version has no files; the service says so with a 404."""


def has_envelope(body: bytes) -> bool:
    """Tell whether an error came from the API itself, not from whatever is where it should be."""
    value = answers.error_body(body)
    return value is not None and isinstance(value.get("error"), dict)


def _is_no_version(status: int, body: bytes) -> bool:
    """Tell whether a request was refused for its version: /api/storages says 400 where it cannot be one."""
    return status in {400, 422} and "version" in answers.message_of(body).lower()


def quoted(text: str) -> str:
    """Return an opaque id as one segment of a path; ids of hostile rows hold anything, lone surrogates too."""
    return quote(text, safe="", errors="surrogatepass")


def told_version(url: str) -> str | None:
    """Return the version id that the address of an archive tells, None if it tells none."""
    found = ARCHIVE_PATH.search(urlsplit(url).path)
    return found.group(1) if found else None


class Vm0Api:
    """The questions one account can be asked."""

    def __init__(self, source: str, http: HttpClient) -> None:
        """Ask through ``http``, whose base URL is the host's, without /v1."""
        self._source = source
        self._http = http
        self.spelling: str | None = None

    # -- /v1 -------------------------------------------------------------------------------------------------

    async def artifacts(self, role: str) -> Pages[ArtifactRow]:
        """List all of a role (``artifact`` or ``volume``): a request per 100."""
        return await self._pages(f"/v1/{role}s", f"/v1/{role}s", Pages(ArtifactRow), is_fixed=True)

    async def versions(self, role: str, artifact_id: str) -> Pages[VersionRow]:
        """List all versions: a request per 100.

        Raises:
            NotFound: there is no such artifact.
        """
        path = f"/v1/{role}s/{quoted(artifact_id)}/versions"
        return await self._pages(path, f"/v1/{role}s/:id/versions", Pages(VersionRow))

    async def _pages(self, path: str, route: str, pages: Pages[RowT], *, is_fixed: bool = False) -> Pages[RowT]:
        cursor: str | None = None
        # In pages, not in rows: one whose pages never end, of one row each, is left alone as early.
        limits = self._http.answer_limits
        for _ in range(math.ceil(limits.max_listing_rows / PAGE)):
            query = {"limit": str(PAGE)} | ({"cursor": cursor} if cursor else {})
            reply = self._checked(await self._http.get(path, query, route=route), path)
            if is_fixed:
                answers.always_there(reply, self._source, path)
            body = answers.json_object(reply, self._source, path)
            self._note_spelling(body)
            cursor = pages.add(cursor, body)
            if cursor is None:
                return pages
        pages.cut(named(limits, "max_listing_rows"))
        return pages

    async def artifact(self, role: str, artifact_id: str) -> ArtifactRow | None:
        """Return one artifact with its current version, None if the service says there is none: one request."""
        path = f"/v1/{role}s/{quoted(artifact_id)}"
        reply = await self._http.get(path, route=f"/v1/{role}s/:id")
        if self._checked(reply, path).status == 404:  # noqa: PLR2004 - the field's own number
            return None
        row = read(ArtifactRow, answers.json_object(reply, self._source, path))
        if row is None or row.id != artifact_id:
            message = "the service answered with something else than the artifact that was asked for"
            raise errors.ProviderMisbehaved(message, provider=self._source, subject=path)
        return row

    async def resolve_version(self, role: str, artifact_id: str, name: str) -> str | None:
        """Return the full id of a version by id or prefix, None if there is none or none is told: one request.

        Only the address of its archive tells the id; a server whose addresses do not tell it can confirm a
        full one, by having an archive for it.
        """
        address, query, route = self.v1_link(role, artifact_id, name)
        async with self._http.stream(address, query, route=route, follow=False) as reply:
            if reply.status in REDIRECTS:
                told = told_version(reply.headers.get("location", ""))
                return (told if told.startswith(name) else None) if told else self._confirmed(name)
            body = await _beginning(reply)
        if reply.status == 404 and not has_envelope(body):  # noqa: PLR2004 - HTTP's own numbers
            raise self._no_api(address)
        if NO_FILES.search(answers.message_of(body)):
            return self._confirmed(name)
        if reply.status == 404 or _is_no_version(reply.status, body):  # noqa: PLR2004 - HTTP's own numbers
            return None
        raise self._refusal(reply.status, reply.headers, body, address)

    @staticmethod
    def _confirmed(name: str) -> str | None:
        return name if VERSION_ID.fullmatch(name) else None

    @staticmethod
    def v1_link(role: str, artifact_id: str, version_id: str) -> Link:
        """Return what leads to a version's archive.

        The version goes into both spellings: the wrong one is ignored by the service, which then sends the
        present version as if nothing were amiss.
        """
        query = [("versionId", version_id), ("version_id", version_id)]
        path = f"/v1/{role}s/{quoted(artifact_id)}/download"
        return path, query, f"/v1/{role}s/:id/download"

    def _checked(self, reply: Reply, path: str) -> Reply:
        if reply.status == 404 and not has_envelope(reply.body):  # noqa: PLR2004 - HTTP's own numbers
            raise self._no_api(path)
        return reply

    def _no_api(self, path: str) -> NoApi:
        api = "/api/storages" if path.startswith("/api/") else "/v1"
        return NoApi(f"this server has no {api} API", provider=self._source, subject=path, status=404)

    def _note_spelling(self, body: Mapping[str, Any]) -> None:
        pagination = body.get("pagination")
        if isinstance(pagination, dict) and pagination:
            self.spelling = "snake_case" if "has_more" in pagination else "camelCase"

    # -- /api/storages ---------------------------------------------------------------------------------------

    async def storages(self, role: str) -> tuple[list[StorageRow], int]:
        """List all of a role; return them and how many rows could not be understood: one request."""
        path = "/api/storages/list"
        reply = self._checked(await self._http.get(path, {"type": role}, route=path), path)
        answers.always_there(reply, self._source, path)
        values = answers.json_array(reply, self._source, path)
        rows = [read(StorageRow, value) for value in values]
        named = {row.name: row for row in rows if row is not None}
        return list(named.values()), len(rows) - len(named)

    async def storage(self, role: str, name: str, version: str | None = None) -> StorageDownload | None:
        """Return where a version is, of the present one without a name; None if there is none: one request."""
        path = "/api/storages/download"
        query = {"name": name, "type": role} | ({"version": version} if version else {})
        reply = await self._http.get(path, query, route=path)
        if self._checked(reply, path).status == 404 or (version and _is_no_version(reply.status, reply.body)):  # noqa: PLR2004 - HTTP's own numbers
            return None
        found = read(StorageDownload, answers.json_object(reply, self._source, path))
        if found is None:
            message = "the service did not say which version it means"
            raise errors.ProviderMisbehaved(message, provider=self._source, subject=path)
        return found

    async def storage_link(self, role: str, name: str, version_id: str) -> Link:
        """Return what leads to a version's archive: one request.

        Raises:
            NotFound: there is no such version.
            EmptyVersion: it has no files.
        """
        found = await self.storage(role, name, version_id)
        if found is None:
            message = "the service does not have this version"
            raise errors.NotFound(message, provider=self._source, subject=name)
        if found.empty or (found.url is None and found.file_count == 0):
            raise EmptyVersion
        if found.version_id != version_id or not found.url:
            message = "the service answered for another version"
            raise errors.ProviderMisbehaved(message, provider=self._source, subject=name)
        await self._http.gate.check(found.url, came_from=self._http.base_url)
        return found.url, [], "/api/storages/download url"

    # -- archives --------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def archive(
        self, version_id: str, link: Callable[[], Awaitable[Link]], headers: Mapping[str, str]
    ) -> AsyncIterator[StreamReply]:
        """Open the archive of a version: one request to the service, one to its storage.

        Links expire, and a link that is refused is asked for once more. The answer is 200, 206 or 416.

        Raises:
            EmptyVersion: it has no files, so there is no archive.
            NotFound, AccessDenied, ProviderMisbehaved: as the answer says.
        """
        async with contextlib.AsyncExitStack() as stack:
            for tries_left in (1, 0):
                address, query, route = await link()
                stream = self._http.stream(address, query or None, route=route, headers=headers)
                reply = await stack.enter_async_context(stream)
                is_storage = self._is_elsewhere(address, reply.url)
                if reply.status == 403 and is_storage and tries_left:  # noqa: PLR2004 - HTTP's own numbers
                    await stack.aclose()
                    continue
                break
            await self._check_archive(reply, version_id, is_storage=is_storage)
            yield reply

    def _is_elsewhere(self, asked: str, answered: str) -> bool:
        """Tell whether the storage answered rather than the API."""
        home = urlsplit(self._http.base_url)
        return not asked.startswith("/") or urlsplit(answered).path != home.path + asked

    async def _check_archive(self, reply: StreamReply, version_id: str, *, is_storage: bool) -> None:
        kind = reply.headers.get("content-type", "").lower()
        if reply.status in {200, 206}:
            if told_version(reply.url) not in {None, version_id}:
                message = "the service led to the archive of another version"
                raise self._misbehaved(message, reply)
            if "json" in kind or "html" in kind:
                raise self._misbehaved(f"an archive was asked for, but {kind} came", reply)
            return
        if reply.status == 416:  # noqa: PLR2004 - what that means depends on what was asked for
            return
        body = await _beginning(reply)
        if reply.status == 404 and is_storage:  # noqa: PLR2004 - HTTP's own numbers
            message = "the archive of this version is missing from the service's storage"
            raise errors.NotFound(message, provider=self._source, status=404)
        if reply.status == 404 and not has_envelope(body):  # noqa: PLR2004 - HTTP's own numbers
            raise self._no_api(urlsplit(reply.url).path)
        if reply.status == 404 and NO_FILES.search(answers.message_of(body)):  # noqa: PLR2004 - HTTP's own numbers
            raise EmptyVersion
        raise self._refusal(reply.status, reply.headers, body, urlsplit(reply.url).path)

    def _misbehaved(self, message: str, reply: StreamReply) -> errors.ProviderMisbehaved:
        path = urlsplit(reply.url).path
        return errors.ProviderMisbehaved(message, provider=self._source, subject=path, status=reply.status)

    def _refusal(self, status: int, headers: Mapping[str, str], body: bytes, subject: str) -> errors.ArtifactFSError:
        return answers.refusal(status, headers, body, self._source, subject)


async def _beginning(reply: StreamReply) -> bytes:
    """Return the beginning of an error's body."""
    body = bytearray()
    async for chunk in reply.chunks:
        body += chunk
        if len(body) >= MAX_ERROR_BYTES:
            break
    return bytes(body)
