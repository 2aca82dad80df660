"""How the readings of archives have ended, for those who hold what one of them has shown.

Rules of this file: an error is kept without its frames, which hold the whole reading (300 kB and more, measured), and a
copy is raised, because raising one adds frames to it. What is not known any more is refused: bytes of a reading that
may have failed are never shown.
"""

from __future__ import annotations

import copy

from cachetools import LRUCache

from artifactfs import errors

# Of each about 1 kB. A file that was shown before its archive's end is given another name at that end; only who has it
# open asks for how it ended, and a process has 1,024 files open by default: a few of these all at once.
REMEMBERED = 4096


class Fates:
    """The ends of the readings that have shown a file, the least asked for forgotten first."""

    def __init__(self) -> None:
        """Know of none."""
        # Apart, so that many that fail do not push out those that somebody reads on.
        self._good: LRUCache[str, bool] = LRUCache(REMEMBERED)
        self._failed: LRUCache[str, Exception] = LRUCache(REMEMBERED)

    def __repr__(self) -> str:
        """Tell how many are known."""
        return f"<Fates {len(self._good)} good, {len(self._failed)} failed>"

    def note(self, number: str, error: Exception | None) -> None:
        """Note how a reading ended: ``error`` is bare, None if it is to be believed."""
        if error is None:
            self._good[number] = True
        else:
            self._failed[number] = error

    def check(self, number: str) -> None:
        """Raise unless a reading is known to have ended well.

        Raises:
            Exception: what it failed for.
            StaleContent: how it ended is not known any more.
        """
        if self._good.get(number):
            return
        failed = self._failed.get(number)
        if failed is not None:
            raise bare(failed)
        message = "this file was shown while its archive was read, and how that ended is not known any more"
        raise errors.StaleContent(message)


def bare(error: Exception) -> Exception:
    """Return a copy of an error that holds no frames, and no other errors."""
    if not isinstance(error, ExceptionGroup):
        try:
            return copy.copy(error)
        except TypeError:
            pass  # one that cannot be made of its arguments
    return RuntimeError(f"{type(error).__name__}: {error}")
