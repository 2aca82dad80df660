"""Sessions that are known although the service lists none: those looked up, and those in the SDK's caches.

Rules of this file: no request. The SDKs keep downloads in a directory for each session or execution; the
names of those directories are all that is read there.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from artifactfs.providers.vlmrun.refs import UUID

if TYPE_CHECKING:
    from collections.abc import Sequence

    from artifactfs.providers.base import Memory

PREFIX = "session/"
# A cache used for years holds some thousand directories; more than this is not listed.
MAX_FOUND = 10_000


def default_caches() -> list[Path]:
    """Return where the SDKs keep downloads: Python since 0.5.0, and older Python, Node and Dart."""
    home = os.environ.get("HOME")
    base = Path(home) / ".vlmrun" if home else None
    given = os.environ.get("VLMRUN_CACHE_DIR")
    current = Path(given) if given else base / "cache" if base else None
    return [path / "artifacts" for path in (current, base) if path]


class Sessions:
    """What sessions are known on this machine."""

    def __init__(self, memory: Memory, caches: Sequence[Path]) -> None:
        """Remember in ``memory``, look into ``caches``."""
        self._memory = memory
        self._caches = tuple(caches)

    def is_remembered(self, session_id: str) -> bool:
        """Tell whether a look-up of this session has succeeded before."""
        return self._memory.get(PREFIX + session_id) is not None

    def remember(self, session_id: str) -> int:
        """Keep a session whose look-up has succeeded; return when it was first seen."""
        known = self.seen_ns(session_id)
        if known is None:
            known = time.time_ns()
            self._memory.put(PREFIX + session_id, {"seen_ns": known})
        return known

    def seen_ns(self, session_id: str) -> int | None:
        """Return when a session was first seen, None if it is not remembered."""
        fact = self._memory.get(PREFIX + session_id)
        seen = fact.get("seen_ns") if isinstance(fact, dict) else None
        return seen if isinstance(seen, int) else None

    def remembered(self) -> dict[str, int | None]:
        """Return the sessions looked up before, with when they were first seen."""
        ids = (key.removeprefix(PREFIX) for key, _ in self._memory.items(PREFIX))
        return {session_id: self.seen_ns(session_id) for session_id in ids if UUID.fullmatch(session_id)}

    def found(self) -> dict[str, int]:
        """Return what the SDK's caches hold, with the directories' mtimes. Reads directories; call in a thread."""
        found: dict[str, int] = {}
        for cache in self._caches:
            try:
                with os.scandir(cache) as entries:
                    for entry in entries:
                        if UUID.fullmatch(entry.name) and entry.is_dir() and len(found) < MAX_FOUND:
                            found.setdefault(entry.name, entry.stat().st_mtime_ns)
            except OSError:
                # Not there, or not ours to read: then it tells nothing.
                continue
        return found
