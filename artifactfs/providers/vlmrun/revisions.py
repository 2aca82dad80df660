"""Which bytes stand at an address that is not the service's own.

Rules of this file: nothing but what the answers say keeps the bytes of today apart from those of last week, of which
some may be in the cache. So what they said is kept as long as the cache, and where two answers say nothing that can be
compared, their bytes are not put together unless one mount has asked for both.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any

from artifactfs.providers.answers import PARTIAL

if TYPE_CHECKING:
    from artifactfs.model.content import ContentRef, Pointer
    from artifactfs.providers.base import Memory
    from artifactfs.providers.http import StreamReply

PREFIX = "revision/"
# What can be kept and sent back; ETags of storages have 34 characters, dates 29.
SENDABLE = re.compile(r"[\x20-\x7e]{1,512}")


class Revisions:
    """What answers have said of the bytes at addresses, by content."""

    def __init__(self, memory: Memory) -> None:
        """Keep it in ``memory``."""
        self._memory = memory
        self._mount = secrets.token_hex(8)

    def condition(self, ref: ContentRef | Pointer) -> dict[str, str]:
        """Return the header that asks for a part only of the bytes that are known."""
        known = self._known(ref)
        etag, modified = known.get("etag"), known.get("modified")
        if isinstance(etag, str):
            return {"If-Range": etag} if etag.startswith('"') else {}
        return {"If-Range": modified} if isinstance(modified, str) else {}

    def is_same(self, ref: ContentRef | Pointer, reply: StreamReply) -> bool:
        """Tell whether an answer brings the bytes that are known, and keep what it says; forget them if it does not."""
        known, now = self._known(ref), _said(reply)
        if known and not self._are_same(known, now, is_own=ref.locator[0] == "file"):
            self._memory.put(PREFIX + ref.key, {})
            return False
        now = known | now | {"mount": self._mount}
        if now != known:
            self._memory.put(PREFIX + ref.key, now)
        return True

    def _known(self, ref: ContentRef | Pointer) -> dict[str, Any]:
        known = self._memory.get(PREFIX + ref.key)
        return known if isinstance(known, dict) else {}

    def _are_same(self, known: dict[str, Any], now: dict[str, Any], *, is_own: bool) -> bool:
        if "total" in known and "total" in now and known["total"] != now["total"]:
            return False
        if "etag" in known and "etag" in now:
            return bool(known["etag"] == now["etag"])
        if {"modified", "total"} <= known.keys() & now.keys():
            return bool(known["modified"] == now["modified"])
        # What is uploaded to the service itself does not change.
        return is_own or known.get("mount") == self._mount


def _said(reply: StreamReply) -> dict[str, Any]:
    """Return what an answer says of its bytes; a weak ETag says nothing of each of them."""
    total = reply.length
    if reply.status == PARTIAL:
        total = (reply.content_range() or (0, None))[1]
    etag, modified = reply.headers.get("etag", ""), reply.headers.get("last-modified", "")
    said: dict[str, Any] = {} if total is None else {"total": total}
    if SENDABLE.fullmatch(etag) and not etag.startswith("W/"):
        said["etag"] = etag
    if SENDABLE.fullmatch(modified):
        said["modified"] = modified
    return said
