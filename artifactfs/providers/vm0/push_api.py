"""The requests of a push: prepare, two uploads, commit.

Rules of this file: as for ``api``. All of it is ``/api/storages``, which every server that takes writes has: /v1 has
none (service source, January to July 2026). A storage is addressed by name and type, and prepare makes one that is not
there. Prepare and uploads may arrive twice; a commit that arrives late moves the present back, so its caller looks
first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from artifactfs import errors
from artifactfs.providers import answers
from artifactfs.providers.vm0.api import NoApi, has_envelope
from artifactfs.providers.vm0.bodies import with_files
from artifactfs.providers.vm0.schemas import Committed, Prepared, read
from artifactfs.providers.wire import Body

if TYPE_CHECKING:
    from artifactfs.providers.http import HttpClient, Reply

# What the service and its storage say of uploads that are not there (service source: S3_FILES_MISSING for those of a
# version that it knows), and S3 of a link that is too old where it does not say 403.
NOT_UPLOADED = re.compile(r"(archive|manifest) not uploaded", re.IGNORECASE)
MISMATCH = "version id mismatch"
EXPIRED = "ExpiredToken"
JSON = "application/json"
# What may arrive twice is sent so often, with these seconds, twice as many, in between: the core tries again later.
TRIES = 3
PAUSE_S = 0.5


class FilesMissing(Exception):
    """The service does not have what is to be committed: it must be prepared and uploaded again."""


@dataclass(frozen=True, slots=True)
class Target:
    """A storage, as this API names it: ``artifact`` or ``volume``, and its name."""

    role: str
    name: str

    def body(self, files: bytes, **more: object) -> Body:
        """Return what a prepare or a commit says; ``files`` is JSON."""
        return with_files({"storageName": self.name, "storageType": self.role, **more}, files)


class PushApi:
    """The requests one account can push with."""

    def __init__(self, source: str, http: HttpClient) -> None:
        """Send through ``http``."""
        self._source = source
        self._http = http

    async def is_there(self) -> bool:
        """Tell whether the server has this API: one request."""
        path = "/api/storages/list"
        reply = await self._http.get(path, {"type": "artifact"}, route=path)
        try:
            answers.always_there(self._checked(reply, path), self._source, path)
            answers.json_array(reply, self._source, path)
        except NoApi:
            return False
        return True

    async def prepare(self, target: Target, files: bytes) -> Prepared:
        """Announce a version: one request.

        Raises:
            TooLarge, InvalidRequest: the service does not take it.
        """
        found = read(Prepared, await self._post("/api/storages/prepare", target.body(files)))
        if found is None or not (found.existing or found.uploads):
            message = "the service did not say where to put the version"
            raise errors.ProviderMisbehaved(message, provider=self._source, subject=target.name)
        return found

    async def put(self, url: str | None, body: Body, media_type: str) -> bool:
        """Upload one object to a link, to the storage and without the token; False if the link is no longer good."""
        if not url:
            message = "the service did not say where to put the version"
            raise errors.ProviderMisbehaved(message, provider=self._source)
        await self._http.gate.check(url, came_from=self._http.base_url)
        reply = await self._send(
            "PUT", url, body, TRIES, route="/api/storages upload", media_type=media_type, anonymous=True
        )
        if 200 <= reply.status < 300:  # noqa: PLR2004 - the range of success
            return True
        if reply.status in {401, 403} or EXPIRED in answers.message_of(reply.body):
            return False
        raise answers.refusal(reply.status, reply.headers, reply.body, self._source, "upload of an archive")

    async def commit(self, target: Target, version_id: str, files: bytes, message: str | None) -> None:
        """Make a version the present one: one request, not sent again if its answer is lost.

        Raises:
            FilesMissing: it was not uploaded, or is gone.
            ProviderMisbehaved: the service takes it for another version than it did before.
        """
        body = target.body(files, versionId=version_id, message=message)
        found = read(Committed, await self._post("/api/storages/commit", body, tries=1))
        if found is None or found.success is False or found.version_id != version_id:
            said = "the service did not say that it has committed the version"
            raise errors.ProviderMisbehaved(said, provider=self._source, subject=target.name)

    async def _post(self, path: str, body: Body, tries: int = TRIES) -> Mapping[str, Any]:
        reply = await self._send("POST", path, body, tries, route=path, media_type=JSON)
        said = answers.message_of(reply.body)
        if _code(reply) == "S3_FILES_MISSING" or (reply.status == 400 and NOT_UPLOADED.search(said)):  # noqa: PLR2004 - HTTP's own number
            raise FilesMissing
        if reply.status == 400 and MISMATCH in said.lower():  # noqa: PLR2004 - HTTP's own number
            message = "the service took what was pushed for another version than a moment ago"
            raise errors.ProviderMisbehaved(message, provider=self._source, subject=path, status=400)
        return answers.json_object(self._checked(reply, path), self._source, path)

    async def _send(
        self, method: str, url: str, body: Body, tries: int, *, route: str, media_type: str, anonymous: bool = False
    ) -> Reply:
        headers = {"Content-Type": media_type}
        for tried in range(1, tries + 1):
            try:
                return await self._http.send(method, url, body=body, route=route, headers=headers, anonymous=anonymous)
            except (errors.Unavailable, errors.TimedOut):
                if tried == tries:
                    raise
            await trio.sleep(PAUSE_S * tried)
        raise AssertionError  # pragma: no cover - the loop always returns or raises

    def _checked(self, reply: Reply, path: str) -> Reply:
        if reply.status in {404, 405} and not has_envelope(reply.body):
            message = "this server has no /api/storages, so it takes no writes"
            raise NoApi(message, provider=self._source, subject=path, status=reply.status)
        return reply


def _code(reply: Reply) -> str | None:
    error = (answers.error_body(reply.body) or {}).get("error") if reply.status >= 400 else None  # noqa: PLR2004 - HTTP's own number
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else None
