"""The storage origin: where signed links lead, on an address of its own as the services' object stores are.

Rules of this file: it behaves as S3-type stores do towards presigned links: the link's signature is the only
authorisation (an Authorization header beside it is an error), it is good for one method, errors are XML.
Bodies are streamed, in both directions.

Paths: ``/<role>/<uuid>/<version id>/archive.tar.gz`` (GET) is a VM0 version; a PUT to any signed path is
kept under ``staged_path`` until the dialect that signed it collects it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from functools import partial
from typing import IO, TYPE_CHECKING, BinaryIO
from xml.sax.saxutils import escape

import trio
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from artifactfs.server import vm0_projection
from artifactfs.server.context import Signer, Verdict
from artifactfs.server.vm0_archives import Archives

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

    from artifactfs.store.catalog import Store
    from artifactfs.store.rows import StoredVersion

CHUNK = 1 << 18
# VM0's cap on one version's files is 100 MiB; headers and padding of 100,000 small ones fit in as much
# again. VLM Run takes files of up to 1 GiB through such links.
MAX_UPLOAD = 1 << 30
# An upload that nobody has committed for this long was given up: its link lived for an hour.
STALE_UPLOAD_S = 24 * 3600
KEY_PARTS = 4
# Two numbers of 63 bits and a dash; longer ones are no range of any object, and int() takes seconds for some.
MAX_SPEC = 40


def staged_path(store: Store, path: str) -> Path:
    """Return where the body of a PUT to ``path`` (with its leading slash) is kept until it is collected."""
    return store.root / "uploads" / hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()


def sweep_staged(store: Store) -> None:
    """Delete uploads that were never collected."""
    oldest = time.time() - STALE_UPLOAD_S
    for path in (store.root / "uploads").glob("*"):
        try:
            if path.stat().st_mtime < oldest:
                path.unlink()
        except FileNotFoundError:
            continue


def xml_error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response:
    """Return an error as S3 writes them."""
    body = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'
    return Response(text, status, headers=headers, media_type="application/xml")


def parse_range(text: str, size: int) -> tuple[int, int] | None:
    """Return (first byte, end) of a Range header; None where S3 ignores it and sends the whole.

    Raises:
        ValueError: there is no such byte.
    """
    unit, _, spec = text.partition("=")
    first, dash, last = (part.strip() for part in spec.partition("-"))
    digits = first.isdecimal() or not first, last.isdecimal() or not last
    if unit.strip() != "bytes" or not dash or not all(digits) or not (first or last) or len(spec) > MAX_SPEC:
        return None
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= size or end == start:
        raise ValueError(text)
    return start, end


class FileSlice(Response):
    """Sends a range of an open file and closes it; stops when the client hangs up."""

    def __init__(self, file: BinaryIO, span: tuple[int, int], status: int, headers: dict[str, str]) -> None:
        """Send the bytes from ``span[0]`` up to ``span[1]``."""
        self._file = file
        self._start, self._end = span
        sized = {**headers, "Content-Length": str(self._end - self._start)}
        super().__init__(None, status, headers=sized)

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        try:
            start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await send(start)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_hung_up, receive, nursery.cancel_scope)
                await self._send_body(send)
                nursery.cancel_scope.cancel()
        finally:
            self._file.close()

    async def _send_body(self, send: Send) -> None:
        at = self._start
        while at < self._end:
            work = partial(os.pread, self._file.fileno(), min(CHUNK, self._end - at), at)
            chunk = await trio.to_thread.run_sync(work)
            if not chunk:
                # The announced length cannot be kept: the server breaks the connection, the client sees it.
                return
            at += len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": at < self._end})


def _new_file(directory: Path) -> IO[bytes]:
    directory.mkdir(mode=0o700, exist_ok=True)
    return tempfile.NamedTemporaryFile(prefix=".new-", dir=directory, delete=False)


async def _hung_up(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


class StorageOrigin:
    """Answers signed GETs and PUTs."""

    def __init__(self, store: Store, signer: Signer) -> None:
        """Serve the archives of ``store``."""
        self._store = store
        self._signer = signer
        self._archives = Archives(store)

    async def answer(self, request: Request) -> Response:
        """Answer any request."""
        if "authorization" in request.headers:
            message = (
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter,"
                " Signature query string parameter or the Authorization header should be specified"
            )
            return xml_error(400, "InvalidArgument", message)
        verdict = self._signer.check(request.method, request.scope["path"], request.query_params)
        if verdict is Verdict.EXPIRED:
            return xml_error(403, "AccessDenied", "Request has expired")
        if verdict is not Verdict.GOOD:
            return xml_error(403, "SignatureDoesNotMatch", "The request signature does not match.")
        return await (self._put(request) if request.method == "PUT" else self._get(request))

    # -- GET -------------------------------------------------------------------------------------------------

    async def _get(self, request: Request) -> Response:
        version = await trio.to_thread.run_sync(self._version, request.scope["path"])
        missing = xml_error(404, "NoSuchKey", "The specified key does not exist.")
        if version is None:
            return missing
        try:
            file = await self._archives.open(version)
        except FileNotFoundError:
            # An object of the version is gone: the archive cannot be made again.
            return missing
        try:
            return self._slice(request, file)
        except BaseException:
            file.close()
            raise

    def _version(self, path: str) -> StoredVersion | None:
        parts = path.lstrip("/").split("/")
        if len(parts) != KEY_PARTS or parts[3] != "archive.tar.gz":
            return None
        artifact = vm0_projection.by_uuid(self._store, parts[0], parts[1])
        if artifact is None:
            return None
        found = (v for v in vm0_projection.distinct(self._store, artifact) if v.id == parts[2])
        return next(found, None)

    def _slice(self, request: Request, file: BinaryIO) -> Response:
        stat = os.fstat(file.fileno())
        etag = f'"{hashlib.sha256(f"{stat.st_mtime_ns}-{stat.st_size}".encode()).hexdigest()[:32]}"'
        headers = {"ETag": etag, "Accept-Ranges": "bytes", "Content-Type": "application/gzip"}
        asked = request.headers
        if asked.get("if-match", etag) not in {etag, "*"}:
            file.close()
            return xml_error(412, "PreconditionFailed", "At least one of the preconditions did not hold")
        if asked.get("if-none-match") == etag:
            file.close()
            return Response(None, 304, headers={"ETag": etag})
        is_wanted = "range" in asked and asked.get("if-range", etag) == etag
        try:
            span = parse_range(asked["range"], stat.st_size) if is_wanted else None
        except ValueError:
            file.close()
            beyond = {"Content-Range": f"bytes */{stat.st_size}"}
            return xml_error(416, "InvalidRange", "The requested range is not satisfiable", beyond)
        if span is None:
            return FileSlice(file, (0, stat.st_size), 200, headers)
        headers["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{stat.st_size}"
        return FileSlice(file, span, 206, headers)

    # -- PUT -------------------------------------------------------------------------------------------------

    async def _put(self, request: Request) -> Response:
        length = request.headers.get("content-length", "")
        if not length.isdecimal():
            return xml_error(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        if len(length) > 18 or int(length) > MAX_UPLOAD:  # noqa: PLR2004 - no number of a thousand digits
            return xml_error(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
        final = staged_path(self._store, request.scope["path"])
        digest, size = hashlib.md5(usedforsecurity=False), 0
        out = await trio.to_thread.run_sync(_new_file, final.parent)
        try:
            async for chunk in request.stream():
                digest.update(chunk)
                size += len(chunk)
                await trio.to_thread.run_sync(out.write, chunk)
            if size != int(length):
                return xml_error(400, "IncompleteBody", "The request body is not as long as announced.")
            out.flush()
            os.replace(out.name, final)
        except ClientDisconnect:
            return xml_error(400, "RequestTimeout", "The request ended before its body.")
        finally:
            out.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(out.name)
        return Response(None, 200, headers={"ETag": f'"{digest.hexdigest()}"'})


def build(store: Store, signer: Signer) -> Starlette:
    """Return the storage origin as an ASGI application; ``signer`` is the one the dialects make links with."""
    sweep_staged(store)
    origin = StorageOrigin(store, signer)
    return Starlette(routes=[Route("/{path:path}", origin.answer, methods=["GET", "HEAD", "PUT"])])
