"""What the three dialects share: who may ask, and links that expire.

Rules of this file: values and pure functions, no I/O. The secret lives in this process only and is never
shown, so links end with the server that made them.
"""

from __future__ import annotations

import calendar
import enum
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

# What VM0 gives its presigned links, in seconds (service source, May 2026).
LINK_LIFETIME_S = 3600
# Addresses that mean "every interface" to a server and nothing to a client.
WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to
# How S3 writes times in a link.
STAMP = "%Y%m%dT%H%M%SZ"
SIGNATURE = "X-Amz-Signature"
DATE = "X-Amz-Date"
EXPIRES = "X-Amz-Expires"


class Verdict(enum.Enum):
    """What a check of a signed link found."""

    GOOD = "good"
    EXPIRED = "expired"
    FORGED = "forged"
    """Unsigned, or signed for another method, path or time, or by another process."""


class Signer:
    """Makes and checks links to the storage origin; each is good for one method, one path and some time.

    The parameters are named as those of S3's presigned links, so that a client sees what it would see there;
    the signature is our own HMAC.
    """

    __slots__ = ("_secret",)

    def __init__(self) -> None:
        """Draw a secret of this process."""
        self._secret = secrets.token_bytes(32)

    def __repr__(self) -> str:
        """Show nothing of the secret."""
        return "<Signer>"

    def _signature(self, method: str, path: str, stamp: str, lifetime: str) -> str:
        text = f"{method}\n{path}\n{stamp}\n{lifetime}"
        return hmac.new(self._secret, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    def link(self, base_url: str, path: str, *, method: str = "GET", lifetime_s: int = LINK_LIFETIME_S) -> str:
        """Return a URL that is good for ``lifetime_s`` seconds.

        Args:
            base_url: address of the origin, without a trailing slash.
            path: below it, beginning with ``/``, not percent-encoded.
            method: the one the link allows.
            lifetime_s: seconds; a negative one makes a link that has expired.
        """
        stamp, lifetime = time.strftime(STAMP, time.gmtime()), str(lifetime_s)
        query = {DATE: stamp, EXPIRES: lifetime, SIGNATURE: self._signature(method, path, stamp, lifetime)}
        return f"{base_url}{quote(path)}?{urlencode(query)}"

    def check(self, method: str, path: str, query: Mapping[str, str]) -> Verdict:
        """Judge a request: ``path`` is below the base given to ``link`` and not percent-encoded."""
        stamp, lifetime = query.get(DATE, ""), query.get(EXPIRES, "")
        given = query.get(SIGNATURE, "")
        expected = self._signature(method, path, stamp, lifetime)
        if not hmac.compare_digest(given.encode("utf-8", "surrogatepass"), expected.encode()):
            return Verdict.FORGED
        ends = calendar.timegm(time.strptime(stamp, STAMP)) + int(lifetime)
        return Verdict.GOOD if time.time() < ends else Verdict.EXPIRED


@dataclass(frozen=True, slots=True)
class Context:
    """How this server is reached and guarded.

    Attributes:
        token: if set, a request must carry it; else any is accepted, and none too.
        storage_url: base of the storage origin, without a trailing slash.
        signer: makes and checks links to it.
        public_url: address under which clients reach the dialects, without a trailing slash; may be empty.
    """

    token: str | None
    storage_url: str
    signer: Signer = field(default_factory=Signer)
    public_url: str = ""

    def link(
        self,
        path: str,
        *,
        method: str = "GET",
        lifetime_s: int = LINK_LIFETIME_S,
        seen_host: str | None = None,
    ) -> str:
        """Return a signed URL on the storage origin; see ``Signer.link``.

        Args:
            path: below the storage origin, beginning with ``/``, not percent-encoded.
            method: the one the link allows.
            lifetime_s: seconds.
            seen_host: the host under which the client reached this server; it takes the place of a wildcard
                address in ``storage_url``, which nobody else could follow.
        """
        base_url = self.storage_url
        there = urlsplit(base_url)
        if seen_host and there.hostname in WILDCARDS:
            host = f"[{seen_host}]" if ":" in seen_host else seen_host
            base_url = f"{there.scheme}://{host}:{there.port}"
        return self.signer.link(base_url, path, method=method, lifetime_s=lifetime_s)

    def admits(self, authorization: str | None) -> bool:
        """Tell whether a request with this Authorization header may be answered; in constant time."""
        if self.token is None:
            return True
        expected = f"Bearer {self.token}".encode("utf-8", "surrogatepass")
        return hmac.compare_digest((authorization or "").encode("utf-8", "surrogatepass"), expected)
