"""Requests and answers as values, and what their headers say.

Rules of this file: it does no I/O. A header is untrusted: what does not parse is as if it were not there.
"""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from artifactfs import errors
from artifactfs.model.limits import ANSWERS, AnswerLimits, named
from artifactfs.providers.wire import Body

# What a size can be for the kernel and in a database, and its digits.
MAX_NUMBER = 2**63 - 1
MAX_DIGITS = 19

SEPARATORS = (b",", b"[", b"{")
# Without a way back, and open to the end of the text: it never looks at a byte twice, whatever the text.
STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)

Pairs = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Ask:
    """One request with all its tries.

    ``end`` is when its caller stops waiting, by trio's clock; ``wait_s`` how long the last answer asked to wait;
    ``anonymous`` ones get no token, not even at home; ``used`` are the credentials that the last try carried;
    ``lasting_s`` as ``wire.Outgoing`` has it.
    """

    target: str
    params: Pairs
    route: str
    headers: Mapping[str, str]
    end: float
    follow: bool = True
    authored: bool = False
    wait_s: float | None = None
    method: str = "GET"
    body: Body | None = None
    anonymous: bool = False
    used: Mapping[str, str] | None = field(default=None, repr=False)
    lasting_s: float | None = None


class _KeyTwice(ValueError):
    """JSON that says two things of one name."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _KeyTwice
    return found


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that was read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str
    limits: AnswerLimits = ANSWERS

    @property
    def is_json(self) -> bool:
        """Tell whether the answer claims to be JSON."""
        return "json" in self.headers.get("content-type", "")

    def json(self) -> Any:  # noqa: ANN401 - JSON is any of six types
        """Return the parsed body.

        Raises:
            ProviderMisbehaved: it is not JSON, or deeper or of more values than the limits allow, or an object in it
                has a key twice: which of them counts nobody can tell, and the last may be an empty list.
        """
        if _has_too_many_values(self.body, self.limits.max_values):
            raise self._wrong(f"the answer has more values than {named(self.limits, 'max_values')}")
        try:
            value = json.loads(self.body, object_pairs_hook=_object)
        except _KeyTwice as error:
            raise self._wrong("the answer has a key twice in one object") from error
        except RecursionError as error:
            raise self._wrong(f"the answer is nested deeper than {named(self.limits, 'max_json_depth')}") from error
        except ValueError as error:
            raise self._wrong(f"the answer is not JSON ({self.headers.get('content-type', 'no type')})") from error
        if is_deeper(value, self.limits.max_json_depth):
            raise self._wrong(f"the answer is nested deeper than {named(self.limits, 'max_json_depth')}")
        return value

    def _wrong(self, message: str) -> errors.ProviderMisbehaved:
        return errors.ProviderMisbehaved(message, subject=bare(self.url), status=self.status)


@dataclass(frozen=True, slots=True)
class StreamReply:
    """An answer whose body is still coming; ``chunks`` raises ``Unavailable`` if it ends early."""

    status: int
    headers: Mapping[str, str]
    url: str
    chunks: AsyncIterator[bytes]

    @property
    def length(self) -> int | None:
        """Bytes of the body as announced, None if not."""
        value = self.headers.get("content-length", "")
        return number(value) if "content-encoding" not in self.headers else None

    def content_range(self) -> tuple[int, int | None] | None:
        """Return (first byte, total size) of a 206 answer, None if it does not say or does not parse."""
        unit, _, rest = self.headers.get("content-range", "").partition(" ")
        span, _, total = rest.partition("/")
        first = number(span.partition("-")[0])
        if unit != "bytes" or first is None:
            return None
        return first, number(total)

    def end(self) -> int | None:
        """Return the size of the whole that a 416 answer tells, None if it does not."""
        unit, _, total = self.headers.get("content-range", "").partition(" */")
        return number(total) if unit == "bytes" else None


def _has_too_many_values(body: bytes, most: int) -> bool:
    """Tell whether JSON has more values than are looked at; what stands in text does not count."""
    if sum(map(body.count, SEPARATORS)) <= most:
        return False
    rest, strings = STRING.subn(b"", body, most + 1)
    return strings > most or sum(map(rest.count, SEPARATORS)) > most


def is_deeper(value: object, most: int) -> bool:
    """Tell whether lists and objects stand more than so deep within one another; a level at a time, not recursive."""
    level = [value] if isinstance(value, list | dict) else []
    for _ in range(most):
        if not level:
            return False
        values = (one.values() if isinstance(one, dict) else one for one in level)
        level = [inner for several in values for inner in several if isinstance(inner, list | dict)]
    return bool(level)


def number(text: str) -> int | None:
    """Return a number of bytes from a header, None for anything else, one beyond 63 bits included."""
    value = int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None
    return value if value is None or value <= MAX_NUMBER else None


def bare(url: str) -> str:
    """Return the URL without query and user info: those can be secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{':' + str(parts.port) if parts.port else ''}{parts.path}"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header, in either of its forms."""
    value = headers.get("retry-after", "").strip()
    seconds = number(value)
    if seconds is not None:
        return float(seconds)
    try:
        parsed = email.utils.parsedate_tz(value) if value else None
        return max(0.0, email.utils.mktime_tz(parsed) - time.time()) if parsed else None
    except (ValueError, OverflowError):
        return None  # a date that looks like one, but is none


def with_params(url: str, params: Pairs) -> str:
    """Return an address with parameters behind those that it has."""
    if not params:
        return url
    bare_url, _, _fragment = url.partition("#")
    return f"{bare_url}{'&' if '?' in bare_url else '?'}{urlencode(params)}"


def can_be_sent(value: str) -> bool:
    """Tell whether a header's value can be sent as it is: h11 quotes what it refuses, a token too."""
    return value.isascii() and value.isprintable() and value == value.strip()


def is_signed(url: str) -> bool:
    """Tell whether a link carries its own authorisation: S3-type stores refuse a token beside it."""
    return "x-amz-signature=" in urlsplit(url).query.lower()


def has_dot_segment(path: str) -> bool:
    """Tell whether a path has ``.`` or ``..`` between its slashes, in whichever spelling."""
    segments = path.partition("?")[0].lower().replace("%2e", ".").split("/")
    return "." in segments or ".." in segments
