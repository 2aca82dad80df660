"""What an HTTP answer means where all services agree.

Rules of this file: pure; an answer in, a value or an error of ours out. Answers are untrusted: whatever is in
one, what comes out is an ``ArtifactFSError`` or a value of the asked type. Where a service deviates (a 202
that is an error, a 404 for empty content) its ``api.py`` looks first and comes here for the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from artifactfs import errors

if TYPE_CHECKING:
    from artifactfs.providers.http import Reply

# Long enough for the longest message seen from the services, short enough for one line of `status`.
MAX_MESSAGE = 300
# What is looked at of an error's body: messages stand at its beginning, and an error page may be endless.
MAX_ERROR_BODY = 64 * 1024

KINDS: Mapping[int, type[errors.ArtifactFSError]] = {
    400: errors.InvalidRequest,
    401: errors.AccessDenied,
    402: errors.QuotaExceeded,
    403: errors.AccessDenied,
    404: errors.NotFound,
    405: errors.NotPermitted,
    408: errors.Unavailable,
    409: errors.Conflict,
    410: errors.NotFound,
    412: errors.Conflict,
    413: errors.TooLarge,
    422: errors.InvalidRequest,
    425: errors.Unavailable,
    429: errors.RateLimited,
    451: errors.AccessDenied,
    501: errors.NotPermitted,
}
# Under which each of the services says what is wrong; gateways have other words (``message`` alone, or a page).
OWN_KEYS = frozenset({"error", "detail"})
# What is said of something that is not there.
ABSENT = frozenset({404, 410})

PARTIAL = 206
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Times travel to the kernel as signed 64-bit nanoseconds: the years 1677 to 2262.
MAX_TIME_NS = 2**63 - 1
TIME = re.compile(
    r"\s*(\d{4})-(\d\d)-(\d\d)"
    r"(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,30}))?)?\s*(?:([Zz]|UTC)|([+-])(\d\d):?(\d\d)?)?)?\s*",
    re.ASCII,
)
# In the order of trust: an envelope before what stands beside it.
MESSAGE_KEYS = ("error", "message", "detail", "msg", "title")
S3_CODE = re.compile(rb"<Code>([^<]{1,200})</Code>")
S3_MESSAGE = re.compile(rb"<Message>([^<]{1,600})</Message>")


def _clean(text: str) -> str:
    """Return text for one line of a terminal: no control characters or lone surrogates, not too long."""
    line = "".join(c if c.isprintable() else " " for c in text[: 4 * MAX_MESSAGE])
    line = " ".join(line.split())
    return line if len(line) <= MAX_MESSAGE else line[: MAX_MESSAGE - 1] + "…"


def _first_text(value: object, depth: int = 0) -> str:
    """Find the message in an error of unknown shape: text, or what stands under the known keys."""
    if isinstance(value, str):
        return value
    if depth > 3:  # noqa: PLR2004 - {"error": {"detail": [{"msg": ...}]}} is the deepest known
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_first_text(item, depth + 1) for item in value[:3])))
    if isinstance(value, Mapping):
        found = (_first_text(value.get(key), depth + 1) for key in ("error", "message", "detail", "msg", "title"))
        text = next(filter(None, found), "")
        where = value.get("loc")
        if text and isinstance(where, list):
            return f"{'.'.join(str(part) for part in where[:8])}: {text}"
        return text
    return ""


def error_body(body: bytes) -> Mapping[str, Any] | None:
    """Return the JSON object that an error's body is, None if it is anything else."""
    try:
        value = json.loads(body[:MAX_ERROR_BODY])
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def is_own(body: bytes) -> bool:
    """Tell whether an error is in the words of a service's API, not of what stands before it."""
    return not OWN_KEYS.isdisjoint(error_body(body) or ())


def message_of(body: bytes) -> str:
    """Return what an error's body says to a person, cut to 300 characters; empty if nothing was recognised.

    Known shapes: ``{"error": {"message"}}``, ``{"error": text}``, ``{"detail": text, list or object}``,
    ``{"message"}``, and the XML of S3-type stores.
    """
    value = error_body(body)
    if value is not None:
        return _clean(_first_text(value))
    head = body[:MAX_ERROR_BODY]
    code, text = S3_CODE.search(head), S3_MESSAGE.search(head)
    if not code and not text:
        return ""
    parts = (found.group(1).decode("utf-8", "replace") for found in (code, text) if found)
    return _clean(": ".join(parts))


def _kind(status: int, *, is_own: bool, is_page: bool) -> type[errors.ArtifactFSError]:
    if status == 404 and not is_own:  # noqa: PLR2004 - the field's own number
        return errors.Unsupported
    # Services that know no tokens stand behind proxies that do: those say 401 as they like, but in no page.
    if not is_own and (status in {403, 451} or (status == 401 and is_page)):  # noqa: PLR2004 - HTTP's own numbers
        return errors.Barred
    if status in KINDS:
        return KINDS[status]
    if status >= 500:  # noqa: PLR2004 - HTTP's own numbers
        return errors.Unavailable
    return errors.InvalidRequest if status >= 400 else errors.ProviderMisbehaved  # noqa: PLR2004 - HTTP's own numbers


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after", "").strip()
    return float(value) if value.isdecimal() and len(value) < 10 else None  # noqa: PLR2004 - 30 years


def refusal(status: int, headers: Mapping[str, str], body: bytes, source: str, subject: str) -> errors.ArtifactFSError:
    """Return the error that an answer is.

    What is not in the API's words (``is_own``) did not come from it. A 404 then says that the address is wrong or the
    API is not there, which must not be mistaken for "this artifact does not exist"; it becomes ``Unsupported``. A 403,
    or a 401 that is a page, is what a firewall or a proxy says; it becomes ``Barred``.

    Args:
        status: of the answer, anything that is not the success that was hoped for.
        headers: its headers, looked up in lower case.
        body: as much of it as was read.
        source: name of the source.
        subject: what was asked for: a path, an id, a URL without its query.
    """
    said = message_of(body)
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    kind = _kind(status, is_own=is_own(body), is_page="html" in media_type)
    if kind is errors.Unsupported:
        said = "this server does not have the API that was asked for (404 without an explanation)"
    elif kind is errors.Barred and not said:
        said = f"what stands before the service refused ({_clean(media_type) or 'without an explanation'})"
    elif not said:
        said = "the service gave no reason" if status >= 400 else "an answer that was not expected"  # noqa: PLR2004 - HTTP's own numbers
    facts: dict[str, Any] = {
        "provider": source,
        "subject": subject,
        "status": status,
        "request_id": headers.get("x-request-id"),
    }
    if kind is errors.RateLimited:
        return errors.RateLimited(f"{said} (429)", retry_after_s=_retry_after_s(headers), **facts)
    return kind(f"{said} ({status})" if str(status) not in said else said, **facts)


def refuse(status: int, headers: Mapping[str, str], body: bytes, source: str, subject: str) -> NoReturn:
    """Raise the error that an answer is; see ``refusal``."""
    raise refusal(status, headers, body, source, subject)


def always_there(reply: Reply, source: str, path: str) -> None:
    """Refuse that a list does not exist which the service always has, whoever says so and in whichever words.

    Raises:
        ProviderMisbehaved: 404 or 410.
        Unsupported: 404, and not in the API's words.
    """
    if reply.status not in ABSENT:
        return
    found = refusal(reply.status, reply.headers, reply.body, source, path)
    if isinstance(found, errors.Unsupported):
        raise found
    message = f"the service does not find what it always has: {found}"
    raise errors.ProviderMisbehaved(
        message, provider=source, subject=path, status=found.status, request_id=found.request_id
    )


def _parsed(reply: Reply, source: str, subject: str) -> object:
    if not 200 <= reply.status < 300:  # noqa: PLR2004 - HTTP's own numbers
        refuse(reply.status, reply.headers, reply.body, source, subject)
    if reply.status == PARTIAL:
        message = "a part of an answer came, and nobody has asked for a part"
        raise errors.ProviderMisbehaved(message, provider=source, subject=subject, status=reply.status)
    if not reply.body.strip():
        message = f"the answer is empty ({reply.status})"
        raise errors.ProviderMisbehaved(message, provider=source, subject=subject, status=reply.status)
    return reply.json()


def json_object(reply: Reply, source: str = "", subject: str = "") -> dict[str, Any]:
    """Return the JSON object that a successful answer is.

    Raises:
        ProviderMisbehaved: 204, an empty body, HTML, broken JSON, or JSON of another type.
        ArtifactFSError: the status is not a success; as ``refusal`` says.
    """
    value = _parsed(reply, source, subject)
    if isinstance(value, dict):
        return value
    message = f"the answer should be a JSON object, not {type(value).__name__}"
    raise errors.ProviderMisbehaved(message, provider=source, subject=subject, status=reply.status)


def json_array(reply: Reply, source: str = "", subject: str = "") -> list[Any]:
    """Return the JSON array that a successful answer is; raises as ``json_object`` does."""
    value = _parsed(reply, source, subject)
    if isinstance(value, list):
        return value
    message = f"the answer should be a JSON array, not {type(value).__name__}"
    raise errors.ProviderMisbehaved(message, provider=source, subject=subject, status=reply.status)


def parse_time_ns(value: object) -> int | None:
    """Return nanoseconds since the epoch for an ISO 8601 time, None for anything that is none.

    Accepted: a date alone; ``T`` or a space; seconds and fractions or not; ``Z``, ``UTC``, ``+hh``,
    ``+hhmm`` or ``+hh:mm``; without an offset it means UTC, as the services that write none do.
    """
    found = TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, _, sign, off_hour, off_minute = found.groups(default="")
    try:
        at = datetime(int(year), int(month), int(day), int(hour or 0), int(minute or 0), tzinfo=UTC)
    except ValueError:
        return None
    seconds = int(second or 0)
    if seconds > 60:  # noqa: PLR2004 - 60 is a leap second
        return None
    offset = timedelta(hours=int(off_hour or 0), minutes=int(off_minute or 0))
    since = (at - EPOCH) - (offset if sign == "+" else -offset) + timedelta(seconds=seconds)
    nanoseconds = (since.days * 86400 + since.seconds) * 10**9 + int((fraction + "0" * 9)[:9])
    return nanoseconds if abs(nanoseconds) <= MAX_TIME_NS else None
