"""What all of VM0's endpoints share on the wire: spelling, times, errors, and who may ask.

Rules of this file: values are built in camelCase, VM0's last spelling, and turned into snake_case, the one
before it, at the very end. An error is an exception until the one place that makes an answer of it.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import sqlite3
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import trio
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from artifactfs import errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request

    from artifactfs.server.context import Context

log = logging.getLogger(__name__)

# A prepare with 50,000 files (the service's cap) and long paths stays below this many bytes.
MAX_BODY = 16 * 1024 * 1024
UPPER = re.compile(r"[A-Z]")


class Refused(Exception):
    """A request that gets an error as its answer."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None) -> None:
        """Keep what the answer will say."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param


# `type` by status, as the service's own table has it (service source, January 2026).
V1_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    409: "conflict_error",
    500: "api_error",
}


def v1_error(refused: Refused) -> dict[str, Any]:
    """Return the error envelope of /v1."""
    error = {
        "type": V1_TYPES.get(refused.status, "api_error"),
        "code": refused.code,
        "message": refused.message,
    }
    return {"error": error | ({"param": refused.param} if refused.param else {})}


def storages_error(refused: Refused) -> dict[str, Any]:
    """Return the error envelope of /api/storages, which has no ``type``."""
    return {"error": {"message": refused.message, "code": refused.code}}


def snake(value: object) -> object:
    """Return JSON data with its keys in snake_case."""
    if isinstance(value, dict):
        return {UPPER.sub(lambda m: "_" + m[0].lower(), key): snake(item) for key, item in value.items()}
    return [snake(item) for item in value] if isinstance(value, list) else value


def iso(ns: int) -> str:
    """Return a time as JavaScript's ``toISOString`` writes it: UTC, milliseconds, ``Z``."""
    try:
        at = datetime.fromtimestamp(ns // 10**9, UTC)
    except (ValueError, OverflowError, OSError):
        at = datetime.fromtimestamp(0, UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{ns // 10**6 % 1000:03d}Z"


async def read_json(request: Request) -> Mapping[str, Any]:
    """Return the JSON object a request carries.

    Raises:
        Refused: 413 if it is too large, 400 if it is no JSON object.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise Refused(413, "Request body too large", "PAYLOAD_TOO_LARGE")
    try:
        value = await trio.to_thread.run_sync(json.loads, bytes(body))
    except (ValueError, RecursionError) as error:
        raise Refused(400, "Request body is not valid JSON", "BAD_REQUEST") from error
    if not isinstance(value, dict):
        raise Refused(400, "Request body must be an object", "BAD_REQUEST")
    return value


class Endpoint:
    """Turns a handler into what Starlette routes to: checks the token, names the request, answers errors."""

    def __init__(
        self,
        context: Context,
        envelope: Callable[[Refused], dict[str, Any]],
        *,
        use_snake: bool = False,
        unauthorized: Refused,
        failed: Refused,
    ) -> None:
        """Take the wire's ways.

        Args:
            context: who may ask.
            envelope: makes the body of an error.
            use_snake: answer in snake_case.
            unauthorized: the answer to a request without the right token.
            failed: the answer when something of ours went wrong.
        """
        self._context = context
        self._envelope = envelope
        self._use_snake = use_snake
        self._unauthorized = unauthorized
        self._failed = failed

    def __call__(self, handler: Callable[[Request], Awaitable[object]]) -> Callable[[Request], Awaitable[Response]]:
        """Wrap a handler that returns JSON data or a response, or raises ``Refused``."""

        async def endpoint(request: Request) -> Response:
            response = await self._answer(handler, request)
            response.headers["X-Request-Id"] = f"req_{secrets.token_hex(16)}"
            response.headers["X-API-Version"] = "v1"
            return response

        return endpoint

    async def _answer(self, handler: Callable[[Request], Awaitable[object]], request: Request) -> Response:
        try:
            if not self._context.admits(request.headers.get("authorization")):
                return self._error(self._unauthorized)
            answer = await handler(request)
        except Refused as refused:
            return self._error(refused)
        except ClientDisconnect:
            return self._error(Refused(400, "The request ended early", "BAD_REQUEST"))
        except (errors.ArtifactFSError, OSError, sqlite3.Error) as error:
            # No traceback: the state of the store or the disk is what is wrong, and the message names it.
            log.error("%s %s failed: %s", request.method, request.url.path, error)  # noqa: TRY400 - as said
            return self._error(self._failed)
        if isinstance(answer, Response):
            return answer
        return JSONResponse(snake(answer) if self._use_snake else answer)

    def _error(self, refused: Refused) -> Response:
        return JSONResponse(self._envelope(refused), refused.status)
