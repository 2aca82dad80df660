"""Requests and answers of the Syntropic137 dialect as HTTP has them.

Rules of this file: knows HTTP and the service's error shapes, nothing of artifacts. Every application error
is ``{"detail": text}``, a failed validation ``{"detail": [...]}`` with 422 (service source, May 2026).
Handlers are synchronous and run in a thread, because the store is; they get an ``Asked`` and return a
response or raise ``Refused``.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import trio
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from artifactfs.server.context import Context

Model = TypeVar("Model", bound=BaseModel)

# The service has no limit for JSON bodies (60 MB went through, measured); ours keeps one request from filling
# the memory.
MAX_BODY = 128 * 1024 * 1024


class Refused(Exception):
    """The answer is an error."""

    def __init__(
        self, status: int, detail: str | list[dict[str, Any]], headers: Mapping[str, str] | None = None
    ) -> None:
        """Keep what the answer will say."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers

    def response(self) -> Response:
        """Return the answer."""
        return answer({"detail": self.detail}, self.status, self.headers)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was read whole."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes


Handler = Callable[[Asked], Response]


def answer(data: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return data as JSON; what UTF-8 cannot carry (an echoed lone surrogate) goes as an escape."""
    try:
        body = json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    except UnicodeEncodeError:
        body = json.dumps(data, separators=(",", ":")).encode("ascii")
    return Response(body, status, dict(headers or {}), "application/json")


def server_fault() -> Response:
    """Return what an unhandled fault of the service looks like."""
    return PlainTextResponse("Internal Server Error", 500)


def not_valid(error: ValidationError, place: str) -> Refused:
    """Return the 422 of a failed validation; ``place`` is ``query`` or ``body``."""
    rows = error.errors(include_url=False)
    return Refused(422, [{**row, "loc": [place, *row["loc"]]} for row in rows])


def parse_query(model: type[Model], asked: Asked) -> Model:
    """Return the query as a model.

    Raises:
        Refused: 422.
    """
    try:
        return model.model_validate(dict(asked.query))
    except ValidationError as error:
        raise not_valid(error, "query") from error


def parse_body(model: type[Model], asked: Asked) -> Model:
    """Return the JSON body as a model.

    Raises:
        Refused: 422, with the position in ``loc`` if it is not JSON.
    """
    if not asked.body:
        raise Refused(422, [{"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}])
    try:
        value = json.loads(asked.body)
    except (ValueError, RecursionError) as error:
        at, why = getattr(error, "pos", 0), getattr(error, "msg", type(error).__name__)
        detail = {"type": "json_invalid", "loc": ["body", at], "msg": "JSON decode error", "input": {}}
        raise Refused(422, [{**detail, "ctx": {"error": why}}]) from error
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise not_valid(error, "body") from error


def bounded(request: Request, limit: int, detail: str) -> Request:
    """Return the request with a body that ends in 413 once it is longer than ``limit`` bytes."""
    seen = 0

    async def receive() -> Message:
        nonlocal seen
        message = await request.receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise Refused(413, detail)
        return message

    return Request(request.scope, receive)


def endpoint(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Return the ASGI endpoint of a handler: reads the body, runs it in a thread, words its refusal."""

    async def serve(request: Request) -> Response:
        try:
            body = await bounded(request, MAX_BODY, "Request body too large").body()
            asked = Asked(request.path_params, dict(request.query_params), body)
            return await trio.to_thread.run_sync(handler, asked)
        except Refused as refused:
            return refused.response()
        except ClientDisconnect:
            return Response(status_code=400)

    return serve


def http_error(_request: Request, error: Exception) -> Response:
    """Word Starlette's own errors (unknown route, wrong method) as the service does."""
    if not isinstance(error, HTTPException):  # pragma: no cover - registered for HTTPException only
        raise error
    return answer({"detail": error.detail}, error.status_code, error.headers)


def basic_password(authorization: str) -> str | None:
    """Return the password of a Basic Authorization header, None if it is not one."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(value.strip(), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    _user, colon, password = decoded.partition(":")
    return password if colon else None


class Guard:
    """Lets in who carries the token: as Bearer, or as the password of Basic, as the gateway asks for."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        """Wrap ``app``."""
        self.app = app
        self.context = context

    def admits(self, authorization: str) -> bool:
        """Tell whether a request with this header may be answered."""
        password = basic_password(authorization)
        # The comparison in constant time is the context's; it knows the Bearer form.
        return self.context.admits(authorization if password is None else f"Bearer {password}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or answer 401."""
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            if not self.admits(headers.get(b"authorization", b"").decode("latin-1")):
                refused = Refused(401, "Not authenticated", {"WWW-Authenticate": 'Basic realm="Syntropic137"'})
                await refused.response()(scope, receive, send)
                return
        await self.app(scope, receive, send)
