"""Links from the VLM Run dialect to bytes: same origin, no token needed, expiring.

Rules of this file: pure. The origin is the one the client asked under (a client takes no other for its own),
unless the server's public address is the same host, which then also says whether it is https.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from starlette.requests import Request

    from artifactfs.server.context import Context

# A stored link to an object of this server: below whatever prefix the dialect is mounted at.
OWN_OBJECT = re.compile(r"(?:/[^/?#]+)*/objects/([0-9a-f]{64})/([^/?#]+)")
# What the links of the service's bucket last, in seconds (X-Goog-Expires=604800 in recorded answers).
MAX_LIFETIME_S = 604800
UNSAFE = re.compile(r"[^\w.\- ]")


def safe_name(name: str) -> str:
    """Return the last part of a name without what clients escape differently."""
    last = UNSAFE.sub("_", name.rpartition("/")[2]).strip(" .")
    return last.encode("utf-8", "replace").decode() or "file"


class Links:
    """Makes and judges links."""

    def __init__(self, context: Context) -> None:
        """Sign with the server's own signer."""
        self._context = context

    def origin(self, request: Request) -> str:
        """Return scheme and host under which the client asked."""
        public = self._context.public_url
        if public and urlsplit(public).netloc == request.url.netloc:
            parts = urlsplit(public)
            return f"{parts.scheme}://{parts.netloc}"
        return f"{request.url.scheme}://{request.url.netloc}"

    def _base(self, request: Request) -> str:
        return self.origin(request) + str(request.scope.get("root_path", ""))

    def to_object(self, request: Request, sha256: str, name: str) -> str:
        """Return a link to the bytes of an object under a name."""
        return self._context.signer.link(self._base(request), f"/objects/{sha256}/{safe_name(name)}")

    def to_upload(self, request: Request, upload_id: str, lifetime_s: int) -> str:
        """Return a link that takes the bytes of an upload."""
        signer, path = self._context.signer, f"/uploads/{upload_id}"
        return signer.link(self._base(request), path, method="PUT", lifetime_s=lifetime_s)

    def absolute(self, request: Request, stored: bytes) -> str:
        """Return the URL that a ``text/uri-list`` holds: its first line that is no comment.

        One that begins with ``/`` is on this server; a link to an object of it is signed and expires.
        """
        lines = (line.strip() for line in stored.decode("utf-8", "replace").splitlines())
        url = next((line for line in lines if line and not line.startswith("#")), "")
        if own := OWN_OBJECT.fullmatch(url):
            return self.to_object(request, own.group(1), own.group(2))
        return self.origin(request) + url if url.startswith("/") else url
