"""Files of the VLM Run dialect: what is handed in for later executions, and the links that need no token.

Rules of this file: uploads pass through the disk in pieces, never whole through memory. A file shows only
once its bytes are here and, if they came by link, verified. Content has no endpoint of its own: it is
behind ``public_url``.
"""

from __future__ import annotations

import hashlib
import mimetypes
import re
import uuid
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

import trio
from starlette.datastructures import UploadFile
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from artifactfs.server.context import Verdict
from artifactfs.server.vlmrun_links import MAX_LIFETIME_S, Links
from artifactfs.server.vlmrun_objects import OCTETS, iso
from artifactfs.server.vlmrun_wire import Json, Refusal, answered, file_response, guarded, page
from artifactfs.store.catalog import now_ns
from artifactfs.store.objects import CHUNK
from artifactfs.store.rows import Upload

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from starlette.requests import Request

    from artifactfs.server.context import Context
    from artifactfs.server.vlmrun_wire import Endpoint
    from artifactfs.store.catalog import Store

# What the SDK's type of a file allows; another purpose in one row makes it refuse the whole list (SDK 0.9.2).
PURPOSES = frozenset({"assistants", "assistants_output", "batch", "batch_output", "datasets", "fine-tune", "vision"})
DEFAULT_PURPOSE = "assistants"
SHA256 = re.compile(r"[0-9a-f]{64}")
# The SDK's default life of an upload link, in seconds.
DAY_S = 86400


def routes(store: Store, context: Context) -> list[BaseRoute]:
    """Return the routes of files; those outside ``/v1`` are guarded by the signature in the link."""
    files = Files(store, context)

    def route(path: str, endpoint: Endpoint, method: str) -> Route:
        return Route(path, guarded(context, endpoint), methods=[method])

    def open_route(path: str, endpoint: Endpoint, method: str) -> Route:
        async def answer(request: Request) -> Response:
            return await answered(request, endpoint)

        return Route(path, answer, methods=[method])

    return [
        route("/v1/files", files.list, "GET"),
        route("/v1/files", files.upload, "POST"),
        route("/v1/files/hash/{md5}", files.by_hash, "GET"),
        route("/v1/files/presigned-url", files.presigned_url, "POST"),
        route("/v1/files/verify-upload/{id}", files.verify, "GET"),
        route("/v1/files/{id}", files.get, "GET"),
        route("/v1/files/{id}", files.delete, "DELETE"),
        open_route("/objects/{sha256}/{name}", files.content, "GET"),
        open_route("/uploads/{id}", files.put, "PUT"),
    ]


def type_of(filename: str) -> str:
    """Return the media type that a filename suggests."""
    return mimetypes.guess_type(filename)[0] or OCTETS


def _purpose(value: object) -> str:
    purpose = value or DEFAULT_PURPOSE
    if not isinstance(purpose, str) or purpose not in PURPOSES:
        raise Refusal(400, f"purpose must be one of {', '.join(sorted(PURPOSES))}")
    return purpose


class Files:
    """Answers what concerns uploaded files."""

    def __init__(self, store: Store, context: Context) -> None:
        """Keep uploads in ``store``."""
        self._store = store
        self._signer = context.signer
        self._links = Links(context)

    def _json(self, request: Request, upload: Upload, *, link: bool = False) -> dict[str, Any]:
        url = self._links.to_object(request, upload.sha256, upload.filename) if link else None
        return {
            "id": upload.id,
            "filename": upload.filename,
            "bytes": upload.size,
            "purpose": upload.purpose,
            "created_at": iso(upload.created_at_ns),
            "object": "file",
            "public_url": url,
        }

    def _known(self, request: Request, *, ready: bool = True) -> Upload:
        wanted = request.path_params["id"]
        found = next((u for u in self._store.uploads() if u.id == wanted), None)
        if found is None or (ready and not found.ready):
            raise Refusal(404, "File not found")
        return found

    # -- reading ---------------------------------------------------------------------------------------------

    def list(self, request: Request) -> Response:
        """Return one page of files, newest first, as a bare array."""
        skip, limit = page(request)
        rows = [upload for upload in self._store.uploads() if upload.ready]
        return Json([self._json(request, row) for row in rows[skip : skip + limit]])

    def get(self, request: Request) -> Response:
        """Return one file, with a link to its content unless that is declined."""
        declined = request.query_params.get("generate_public_url", "true").lower() in {"false", "0"}
        return Json(self._json(request, self._known(request), link=not declined))

    def by_hash(self, request: Request) -> Response:
        """Return the file with these bytes: the SDK looks before it uploads."""
        wanted = request.path_params["md5"].lower()
        found = next((u for u in self._store.uploads() if u.ready and u.md5 == wanted), None)
        if found is None:
            raise Refusal(404, "No file with this hash")
        return Json(self._json(request, found, link=True))

    def content(self, request: Request) -> Response:
        """Return the bytes behind a link; 403 once it has expired, as a bucket answers."""
        sha256, name = request.path_params["sha256"], request.path_params["name"]
        self._judge(request, "GET", f"/objects/{sha256}/{name}")
        if not SHA256.fullmatch(sha256) or not self._store.objects.has(sha256):
            raise Refusal(404, "No such object")
        return file_response(self._store, sha256, type_of(name))

    def _judge(self, request: Request, method: str, path: str) -> None:
        verdict = self._signer.check(method, path, request.query_params)
        if verdict is not Verdict.GOOD:
            raise Refusal(403, "The link has expired" if verdict is Verdict.EXPIRED else "The link is not valid")

    # -- writing ---------------------------------------------------------------------------------------------

    async def upload(self, request: Request) -> Response:
        """Take a file as multipart form data; 201, which is what the SDK insists on."""
        purpose = _purpose(request.query_params.get("purpose"))
        async with request.form(max_files=1) as form:
            part = form.get("file")
            if not isinstance(part, UploadFile) or not part.filename:
                raise Refusal(422, "file: one part of this name, with a filename, is needed")
            stored = await trio.to_thread.run_sync(self._keep, part.file)
            upload = Upload(str(uuid.uuid4()), part.filename, purpose, *stored, created_at_ns=now_ns())
        await trio.to_thread.run_sync(self._store.put_upload, upload)
        return Json(self._json(request, upload, link=True), 201)

    def _keep(self, file: BinaryIO) -> tuple[int, str, str]:
        """Store an open file; return size, SHA-256 and MD5."""
        return self._keep_pieces(iter(lambda: file.read(CHUNK), b""))

    def _keep_pieces(self, pieces: Iterator[bytes]) -> tuple[int, str, str]:
        # MD5 is what the service finds files by, not a safeguard.
        md5 = hashlib.md5(usedforsecurity=False)

        def hashed() -> Iterator[bytes]:
            for piece in pieces:
                md5.update(piece)
                yield piece

        sha256, size = self._store.objects.put_stream(hashed())
        return size, sha256, md5.hexdigest()

    async def presigned_url(self, request: Request) -> Response:
        """Return a link that the bytes can be sent to, and the id the file will have."""
        try:
            asked = await request.json()
        except (ValueError, RecursionError):
            asked = None
        filename = asked.get("filename") if isinstance(asked, dict) else None
        if not isinstance(filename, str) or not filename:
            raise Refusal(422, "filename: a text is needed")
        given = asked.get("expiration")
        lifetime_s = min(max(given, 1), MAX_LIFETIME_S) if isinstance(given, int) else DAY_S
        upload = Upload(str(uuid.uuid4()), filename, _purpose(asked.get("purpose")), 0, "", "", now_ns(), ready=False)
        await trio.to_thread.run_sync(self._store.put_upload, upload)
        return Json(
            {
                "id": upload.id,
                "url": self._links.to_upload(request, upload.id, lifetime_s),
                "filename": filename,
                "content_type": type_of(filename),
                "upload_method": "PUT",
                "public_url": None,
                "created_at": iso(upload.created_at_ns),
                "expiration": lifetime_s,
                "method": "PUT",
            }
        )

    async def put(self, request: Request) -> Response:
        """Take the bytes of an upload by link; they count once they are verified."""
        self._judge(request, "PUT", f"/uploads/{request.path_params['id']}")
        upload = await trio.to_thread.run_sync(lambda: self._known(request, ready=False))
        if upload.ready:
            raise Refusal(409, "The file is complete")
        if request.headers.get("content-type") != type_of(upload.filename):
            raise Refusal(403, "The Content-Type is not the one this link was made for")
        async with aclosing(request.stream()) as stream:
            kept = await trio.to_thread.run_sync(self._keep_pieces, _from_loop(stream))
        size, sha256, md5 = kept
        arrived = replace(upload, size=size, sha256=sha256, md5=md5)
        await trio.to_thread.run_sync(self._store.put_upload, arrived)
        return Response(status_code=200)

    def verify(self, request: Request) -> Response:
        """Make a file usable whose bytes came by link."""
        upload = self._known(request, ready=False)
        if not upload.sha256:
            raise Refusal(404, "The file has not been uploaded")
        if not upload.ready:
            upload = replace(upload, ready=True)
            self._store.put_upload(upload)
        return Json(self._json(request, upload, link=True))

    def delete(self, request: Request) -> Response:
        """Forget a file and return what it was: the SDK reads the answer as a file."""
        upload = self._known(request)
        self._store.delete_upload(upload.id)
        return Json(self._json(request, upload))


def _from_loop(stream: AsyncGenerator[bytes]) -> Iterator[bytes]:
    """Return the pieces of a request's body to a thread that trio started."""

    async def receive() -> bytes:
        # The framework ends the stream with an empty piece and sends no other.
        return await anext(stream, b"")

    while piece := trio.from_thread.run(receive):
        yield piece
