"""Text for somebody else's eyes: tokens taken out, those that are known and those that look like one.

Rules of this file: pure. Rather too much is removed than too little, but a text stays readable: what is removed leaves
a mark.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

REMOVED = "[removed]"
# Shorter ones would be cut out of every other word, and are no secrets to speak of.
MIN_SECRET = 6
# What a secret is called where it has a name.
NAMES = r"(?:token|secret|passw(?:or)?d|passphrase|api[-_ ]?key|access[-_ ]?key|signature|credentials?|authorization)"
# ... and what it is: not the words that JSON has for nothing.
VALUE = r"(?!\[removed\]|null|true|false)[^\s\"',;&\\]{4,}"
PATTERNS = (
    # The query of any address: signed links are good for whoever has them. Then who may log in there.
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s\"'<>?#\\]*)[?#][^\s\"'<>\\]*", re.IGNORECASE), rf"\1?{REMOVED}"),
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s\"'<>/@\\]+@", re.IGNORECASE), rf"\1{REMOVED}@"),
    (re.compile(r"\b(bearer|basic)(\s+|%20)[\w.~+/=-]{6,}", re.IGNORECASE), rf"\1 {REMOVED}"),
    (re.compile(rf"({NAMES}[\"']?\s*(?:=|:|%3d)\s*[\"']?){VALUE}", re.IGNORECASE), rf"\1{REMOVED}"),
    # The forms of VM0, OpenAI and its likes, GitHub, Slack, AWS and signed JSON.
    (re.compile(r"\b(?:vm0_[a-z]+_|sk-|pk-|gh[oprsu]_|github_pat_|xox[a-z]-|AKIA|ASIA|syn_[a-z]+_)[\w-]{6,}"), REMOVED),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?"), REMOVED),
)  # fmt: skip


class Scrubber:
    """Removes secrets from text."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Know some of them, which are removed in whatever form they usually take."""
        forms = {form for secret in secrets for form in _forms(secret)}
        # The longest first: one may be a part of another.
        known = sorted(forms, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __repr__(self) -> str:
        """Show nothing of what is known."""
        return "<Scrubber>"

    def __call__(self, text: str) -> str:
        """Return a text without secrets."""
        if self._known is not None:
            text = self._known.sub(REMOVED, text)
        for pattern, instead in PATTERNS:
            text = pattern.sub(instead, text)
        return text


def _forms(secret: str) -> Iterable[str]:
    secret = secret.strip()
    if len(secret) < MIN_SECRET:
        return
    raw = secret.encode("utf-8", "surrogateescape")
    yield secret
    yield quote(raw, safe="")
    yield quote_plus(raw)
    yield json.dumps(secret)[1:-1]
    yield base64.b64encode(raw).decode().rstrip("=")
    yield base64.urlsafe_b64encode(raw).decode().rstrip("=")
