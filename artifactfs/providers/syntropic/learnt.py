"""What has been learnt of a server by writing to it.

Rules of this file: what a server offers is remembered for ever; what it does not offer, and limits that were met, for
a day, as a server can be brought up to date and a gateway's limit be raised. Values are small JSON in the source's
``Memory``; any thread may ask.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from artifactfs.providers.base import Memory

CHANGES = "publish/changes"
"""Key in the memory: [whether titles can be changed and artifacts be removed, when that was found]."""
UPLOADS = "publish/uploads"
"""Key in the memory: [whether contents can be replaced, when that was found]."""
LARGEST = "publish/largest-request"
"""Key in the memory: [bytes of a request's body that are taken, or null, when that was found]."""

BELIEVED_S = 24 * 3600.0
# What nginx takes unless it is told otherwise; the gateway's configuration does not tell it (service source, May 2026).
GATEWAY_BYTES = 1024 * 1024


class Learnt:
    """What one server does not offer or take."""

    def __init__(self, memory: Memory) -> None:
        """Keep it in ``memory``."""
        self._memory = memory
        self._taken = 0

    def __repr__(self) -> str:
        """Tell what is known."""
        return f"<Learnt changes={self.changes} uploads={self.uploads} largest={self.largest}>"

    def _recall(self, key: str) -> Any | None:  # noqa: ANN401 - JSON
        match self._memory.get(key):
            case [value, float(at_s) | int(at_s)] if value is True or 0 <= time.time() - at_s < BELIEVED_S:
                return value
            case _:
                return None

    def _remember(self, key: str, value: object) -> None:
        if self._recall(key) != value:
            self._memory.put(key, [value, time.time()])

    @property
    def changes(self) -> bool | None:
        """Tell whether there are PUT and DELETE: since 0.19.0; None if that is not known."""
        found = self._recall(CHANGES)
        return found if isinstance(found, bool) else None

    @changes.setter
    def changes(self, value: bool) -> None:
        self._remember(CHANGES, value)

    @property
    def uploads(self) -> bool | None:
        """Tell whether contents can be replaced: the server needs an object store; None if that is not known."""
        found = self._recall(UPLOADS)
        return found if isinstance(found, bool) else None

    @uploads.setter
    def uploads(self, value: bool) -> None:
        self._remember(UPLOADS, value)

    @property
    def largest(self) -> int | None:
        """Return how many bytes the body of a request may have; None if no limit was met."""
        found = self._recall(LARGEST)
        return found if type(found) is int else None

    def took(self, length: int) -> None:
        """Note that a body of so many bytes was taken."""
        self._taken = max(self._taken, length)
        limit = self.largest
        if limit is not None and length > limit:
            self._memory.put(LARGEST, [None, time.time()])

    def refused(self, length: int) -> int:
        """Note that the gateway did not take a body of so many bytes; return what is believed to be its limit."""
        is_usual = self._taken <= GATEWAY_BYTES < length
        limit = min(self.largest or length - 1, GATEWAY_BYTES if is_usual else length - 1)
        self._memory.put(LARGEST, [limit, time.time()])
        return limit
