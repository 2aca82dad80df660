"""How the VLM Run dialect speaks HTTP: who may ask, refusals, pages, files.

Rules of this file: knows nothing of executions or uploads. A refusal is ``{"detail": text}``, the shape
that all of the service's clients read.
"""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response

if TYPE_CHECKING:
    from artifactfs.server.context import Context
    from artifactfs.store.catalog import Store

Endpoint = Callable[[Request], Response | Awaitable[Response]]
# The service's own bounds of `limit` and its default (API reference, version 2026-05-19.0).
MAX_LIMIT = 1000
DEFAULT_LIMIT = 10

# How long a refused body is listened to, in seconds: the SDK's own patience with an answer.
DRAIN_S = 30.0


class Json(JSONResponse):
    """JSON in ASCII, so that what an agent wrote (lone surrogates, NaN) cannot make an answer fail."""

    def render(self, content: object) -> bytes:
        """Return the body."""
        return json.dumps(content, separators=(",", ":")).encode("ascii")


class Refusal(HTTPException):
    """An answer that is not what was asked for: status and what to tell the client."""


def guarded(context: Context, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """Wrap an endpoint: the token first, refusals as JSON, one that is not ``async`` in a thread."""

    async def answer(request: Request) -> Response:
        if context.admits(request.headers.get("authorization")):
            return await answered(request, endpoint)
        await _drain(request)
        headers = {"WWW-Authenticate": "Bearer"}
        return Json({"detail": "Invalid or missing API key"}, 401, headers)

    return answer


async def answered(request: Request, endpoint: Endpoint) -> Response:
    """Run an endpoint that needs no token and turn its refusals into answers."""
    try:
        if inspect.iscoroutinefunction(endpoint):
            response: Response = await endpoint(request)
            return response
        work: Callable[[], Any] = partial(endpoint, request)
        return await trio.to_thread.run_sync(work)
    except ClientDisconnect:
        # Nobody reads this; the upload it broke off left nothing behind.
        return Json({"detail": "The request ended early"}, 400)
    except HTTPException as refusal:
        await _drain(request)
        return Json({"detail": refusal.detail}, refusal.status_code)


async def _drain(request: Request) -> None:
    """Read what is left of a body: most clients look for an answer only once they have sent everything."""
    with trio.move_on_after(DRAIN_S), contextlib.suppress(ClientDisconnect, RuntimeError):
        # A stream that has been read already says so with a RuntimeError.
        async with contextlib.aclosing(request.stream()) as stream:
            async for _ in stream:
                pass


def number(request: Request, name: str, default: int, low: int, high: int) -> int:
    """Return a whole number of the query.

    Raises:
        Refusal: 422, as FastAPI answers, if it is none or outside ``low..high``.
    """
    text = request.query_params.get(name)
    if text is None or text == "":
        return default
    # Longer than any number that is allowed, and what int() takes seconds for.
    value = int(text) if text.removeprefix("-").isdecimal() and len(text) < 12 else None  # noqa: PLR2004 - as said
    if value is None or not low <= value <= high:
        raise Refusal(422, f"{name}: a whole number from {low} to {high} is needed")
    return value


def page(request: Request) -> tuple[int, int]:
    """Return (skip, limit) of a list that is asked for by pages."""
    return number(request, "skip", 0, 0, 10**9), number(request, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT)


def file_response(store: Store, sha256: str, media_type: str) -> Response:
    """Return an object of the store: streamed, with its length, ranges honoured, its hash as ETag.

    The Content-Type is set here since the framework would add a charset to text; the SDK compares all of it.
    """
    headers = {"content-type": media_type, "etag": f'"{sha256}"'}
    return FileResponse(store.objects.path(sha256), headers=headers)
