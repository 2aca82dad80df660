"""The endpoints of Syntropic137 that change something, and what their answers mean.

Rules of this file: each request is sent once; whoever asked finds out what became of it. Only full ids are sent, as
these endpoints take any text for one (service source, May 2026). What their refusals mean:

    400   of POST: also a failure of its store, which may pass; only what it says of the request itself is final
    400   of an upload: there is no object store at all ("not yet implemented"), or it is down
    413   HTML: the gateway in front takes no body as large; JSON: the service's own 50 MB
    405   generation A, which has neither PUT nor DELETE
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import trio

from artifactfs import errors
from artifactfs.providers import answers
from artifactfs.providers.bodies import Bytes, FileBody
from artifactfs.providers.syntropic.schemas import is_usable_id, says_what_is_missing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from artifactfs.providers.base import Draft
    from artifactfs.providers.http import Reply
    from artifactfs.providers.syntropic.api import Api
    from artifactfs.providers.syntropic.learnt import Learnt
    from artifactfs.providers.wire import Body

JSON_TYPE = "application/json"
ONE = "/artifacts/{id}"
REFUSED, UNKNOWN, NOT_OFFERED, GONE, TOO_LARGE = 400, 404, 405, 409, 413
# What the service says of a request itself (service source, May 2026).
OUR_FAULT = ("Invalid artifact_type", "validation error")
NO_STORE = "not yet implemented"
# The service ignores the name of the file, but a part without one is 422.
PART = (
    b'Content-Disposition: form-data; name="file"; filename="content"\r\n'
    b"Content-Type: text/plain; charset=utf-8\r\n\r\n"
)
BOUNDARY_LENGTH = len(uuid.uuid4().hex)
# What surrounds a content that is uploaded: two delimiters, the part's head, and two line ends.
FORM_BYTES = len(PART) + 2 * (BOUNDARY_LENGTH + 2) + 2 + 2 + 4


class Writes:
    """What can be changed at one server."""

    def __init__(self, api: Api, learnt: Learnt) -> None:
        """Send by the means of ``api``, and keep what is learnt of the server."""
        self.api = api
        self.learnt = learnt

    def __repr__(self) -> str:
        """Tell which server it is."""
        return f"<Writes {self.api!r} {self.learnt!r}>"

    async def _send(self, method: str, path: str, route: str, body: Body | None, kind: str = JSON_TYPE) -> Reply:
        prefix = await self.api.find()
        headers = {"Content-Type": kind} if body else {}
        reply = await self.api.http.send(method, prefix + path, body=body, route=route, headers=headers)
        if body and 200 <= reply.status < 300:  # noqa: PLR2004 - HTTP's own numbers
            self.learnt.took(body.length)
        return reply

    def _refuse(self, reply: Reply, subject: str, body: Body | None = None) -> None:
        """Raise what a refusal means; returns for a success."""
        if reply.status == TOO_LARGE and body and answers.error_body(reply.body) is None:
            limit = self.learnt.refused(body.length)
            message = f"the service's gateway takes no request of {body.length:,} bytes; {limit:,} are believed to pass"
            raise errors.TooLarge(message, provider=self.api.source, subject=subject, status=TOO_LARGE)
        if reply.status == UNKNOWN and answers.error_body(reply.body) and not says_what_is_missing(reply.body):
            # Not the service's: it has each of these routes, or says 405. That nothing was made is all that is known.
            raise self._unavailable("the service does not find what it always has (404)", reply, subject)
        if not 200 <= reply.status < 300:  # noqa: PLR2004 - HTTP's own numbers
            answers.refuse(reply.status, reply.headers, reply.body, self.api.source, subject)

    def _unavailable(self, message: str, reply: Reply, subject: str) -> errors.Unavailable:
        return errors.Unavailable(message, provider=self.api.source, subject=subject, status=reply.status)

    # -- contents --------------------------------------------------------------------------------------------

    async def create(self, workflow_id: str, title: str, kind: str, text: str) -> str:
        """Make an artifact and return its id.

        Raises:
            TooLarge: nothing was made.
            InvalidRequest: the service refused it for good.
            Unavailable, TimedOut: it may have been made.
        """
        fields = {"workflow_id": workflow_id, "artifact_type": kind, "title": title, "content": text}
        body = Bytes(await trio.to_thread.run_sync(_encoded, fields))
        reply = await self._send("POST", "/artifacts", "/artifacts", body)
        said = answers.message_of(reply.body)
        if reply.status == REFUSED and not any(words in said for words in OUR_FAULT):
            raise self._unavailable(f"the service could not store it: {said or 'no reason given'}", reply, title)
        self._refuse(reply, title, body)
        made = _id_in(reply)
        if made is None:
            raise self._unavailable("the service made something, and did not say what", reply, title)
        return made

    async def upload(self, artifact_id: str, draft: Draft) -> None:
        """Replace a content; nothing in the answer says whether the artifact exists.

        Raises:
            TooLarge, NotPermitted: nothing was replaced.
            Unavailable, TimedOut: it may have been.
        """
        boundary = uuid.uuid4().hex.encode()
        before, behind = b"--" + boundary + b"\r\n" + PART, b"\r\n--" + boundary + b"--\r\n"
        body = FileBody(draft.path, draft.size, before=before, behind=behind)
        path = f"/artifacts/{quote(artifact_id, safe='')}/upload"
        kind = f"multipart/form-data; boundary={boundary.decode()}"
        reply = await self._send("POST", path, f"{ONE}/upload", body, kind)
        said = answers.message_of(reply.body)
        if reply.status == REFUSED and NO_STORE in said:
            self.learnt.uploads = False
            raise self.no_uploads()
        if reply.status == REFUSED:
            raise self._unavailable(f"the service's object store failed: {said}", reply, artifact_id)
        self._refuse(reply, artifact_id, body)
        answers.json_object(reply, self.api.source, artifact_id)
        self.learnt.uploads = True

    def no_uploads(self) -> errors.NotPermitted:
        """Return why contents cannot be replaced."""
        message = "this server has no object store, so it cannot replace the content of an artifact"
        return errors.NotPermitted(message, provider=self.api.source)

    # -- the others ------------------------------------------------------------------------------------------

    async def retitle(self, artifact_id: str, title: str) -> bool:
        """Change a title; False if there is no such artifact, or it was removed.

        Raises:
            NotPermitted: this server has no such operation.
        """
        body = Bytes(_encoded({"title": title}))
        return await self._change("PUT", artifact_id, body)

    async def delete(self, artifact_id: str) -> bool:
        """Remove an artifact; False if it is not there.

        Raises:
            NotPermitted: this server has no such operation.
        """
        return await self._change("DELETE", artifact_id, None)

    async def _change(self, method: str, artifact_id: str, body: Body | None) -> bool:
        if self.learnt.changes is False:
            raise self.no_changes()
        reply = await self._send(method, f"/artifacts/{quote(artifact_id, safe='')}", ONE, body)
        if reply.status == NOT_OFFERED:
            self.learnt.changes = False
            raise self.no_changes()
        # A 404 that does not say of what is not the service's.
        is_gone = says_what_is_missing(reply.body) if reply.status == UNKNOWN else _is_json(reply, GONE)
        if not is_gone:
            self._refuse(reply, artifact_id, body)
            answers.json_object(reply, self.api.source, artifact_id)
        self.learnt.changes = True
        return not is_gone

    def no_changes(self) -> errors.NotPermitted:
        """Return why titles cannot be changed, nor artifacts be removed."""
        message = "this server can neither rename nor remove artifacts; Syntropic137 can since 0.19.0"
        return errors.NotPermitted(message, provider=self.api.source, status=NOT_OFFERED)


def _encoded(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def _is_json(reply: Reply, status: int) -> bool:
    return reply.status == status and answers.error_body(reply.body) is not None


def _id_in(reply: Reply) -> str | None:
    value = answers.error_body(reply.body)
    made = value.get("id") if value else None
    return made if is_usable_id(made) else None
