"""The endpoints of VLM Run that change files, and what their answers mean.

Rules of this file: one call, one request; what becomes of a request that failed is ``publisher.py``'s business. Facts
come from the Python SDK 0.9.2 (read and run): bytes are looked for by their MD5, up to 32 MiB go as multipart form data
with one part, ``file``, more than that to a signed address without the token, and count once they are verified. A file
never changes under its id, and cannot be renamed.
"""

from __future__ import annotations

import json
import re
import secrets
from typing import TYPE_CHECKING

from artifactfs import errors
from artifactfs.providers import answers
from artifactfs.providers.bodies import Bytes, FileBody
from artifactfs.providers.vlmrun.refs import UUID
from artifactfs.providers.vlmrun.schemas import File, UploadLink

if TYPE_CHECKING:
    from artifactfs.providers.base import Draft
    from artifactfs.providers.http import HttpClient, Reply

# The largest file that the SDK sends directly, this size included.
MAX_DIRECT = 32 * 1024 * 1024
# What the SDK asks for when it is told nothing else.
PURPOSE = "assistants"
# How long an address for an upload is to be good, in seconds; the SDK's own.
LINK_LIFETIME_S = 86400
# Answers that say: there is none such, or nobody here can tell. The SDK takes any failure for "absent".
ABSENT = frozenset({400, 404, 405, 410, 422, 501})
# Answers to verifying that say: the bytes have not come. Their own words for it are not documented.
NOT_ARRIVED = frozenset({400, 404, 409, 410, 412, 422})
# What does not go through a quoted header parameter as it is: urllib3, under the SDK, writes %22 for a quote, which
# servers do not undo; readers take a backslash for an escape; control characters are not allowed there.
UNSENDABLE = re.compile(r'["\\\x00-\x1f\x7f\ud800-\udfff]')


class UploadApi:
    """Changes one account's files."""

    def __init__(self, source: str, http: HttpClient) -> None:
        """Send through ``http``, whose base URL ends in ``/v1``."""
        self.source = source
        self._http = http

    async def by_md5(self, md5: str) -> File | None:
        """Return a file with these bytes, of whatever name; None if there is none, or nobody can tell."""
        reply = await self._http.get(f"/files/hash/{md5}", route="/files/hash/{md5}")
        if reply.status in ABSENT:
            return None
        row = File.model_validate(answers.json_object(reply, self.source, "file by hash"))
        return row if row.id and UUID.fullmatch(row.id) else None

    async def post(self, name: str, draft: Draft) -> File:
        """Upload a file of at most ``MAX_DIRECT`` bytes."""
        boundary = secrets.token_hex(16)
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        body = FileBody(draft.path, draft.size, before=head.encode(), behind=f"\r\n--{boundary}--\r\n".encode())
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        reply = await self._http.send("POST", "/files", {"purpose": PURPOSE}, body=body, headers=headers)
        return self._file(reply, name)

    async def link(self, name: str) -> UploadLink:
        """Ask for an address that takes the bytes of a file, and the id that it will have."""
        asked = {"filename": name, "purpose": PURPOSE, "expiration": LINK_LIFETIME_S}
        headers = {"Content-Type": "application/json"}
        body = Bytes(json.dumps(asked).encode())
        reply = await self._http.send("POST", "/files/presigned-url", body=body, headers=headers)
        link = UploadLink.model_validate(answers.json_object(reply, self.source, name))
        is_address = link.url is not None and link.url.startswith(("http://", "https://"))
        if not is_address or link.id is None or not UUID.fullmatch(link.id):
            raise self._odd("no address that the bytes could be sent to", reply, name)
        return link

    async def put(self, link: UploadLink, draft: Draft) -> None:
        """Send the bytes to the address, without the token."""
        headers = {"Content-Type": link.content_type} if link.content_type else {}
        body = FileBody(draft.path, draft.size)
        reply = await self._http.send(
            "PUT", link.url or "", body=body, headers=headers, anonymous=True, route="(address)"
        )
        if not 200 <= reply.status < 300:  # noqa: PLR2004 - the range of success
            answers.refuse(reply.status, reply.headers, reply.body, self.source, f"bytes of {link.filename}")

    async def verify(self, file_id: str) -> File | None:
        """Make a file usable whose bytes were sent to an address; None if they have not come."""
        reply = await self._http.get(f"/files/verify-upload/{file_id}", route="/files/verify-upload/{id}")
        return None if reply.status in NOT_ARRIVED else self._file(reply, file_id)

    async def delete(self, file_id: str) -> None:
        """Remove a file; one that is gone is removed.

        Raises:
            NotPermitted: this server removes none.
        """
        reply = await self._http.send("DELETE", f"/files/{file_id}", route="/files/{id}")
        gone = reply.status in answers.ABSENT and answers.is_own(reply.body)
        if not gone and not 200 <= reply.status < 300:  # noqa: PLR2004 - the range of success
            answers.refuse(reply.status, reply.headers, reply.body, self.source, f"file {file_id}")

    def _file(self, reply: Reply, subject: str) -> File:
        row = File.model_validate(answers.json_object(reply, self.source, subject))
        if not row.id or not UUID.fullmatch(row.id):
            raise self._odd("no id of the file", reply, subject)
        return row

    def _odd(self, what: str, reply: Reply, subject: str) -> errors.ProviderMisbehaved:
        message = f"the service gave {what}"
        return errors.ProviderMisbehaved(message, provider=self.source, subject=subject, status=reply.status)
