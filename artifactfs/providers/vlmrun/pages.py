"""Keeps apart what the pages of one list repeat.

Rules of this file: pure. New executions shift the offsets between two pages, so that a row can come twice;
a page asked for again (after a failure) must give the same rows again. What is removed shifts them the other
way, and a row would be lost: so each page begins with the last row of the one before, and if it does not, the
list has changed.
"""

from __future__ import annotations

from collections.abc import Sequence


class Pages:
    """What one walk through a list has seen."""

    __slots__ = ("_ends", "_first", "_moved", "skipped")

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._first: dict[str, int] = {}
        self._ends: dict[int, str] = {}
        self._moved: set[int] = set()
        self.skipped: dict[int, int] = {}
        """Rows that could not be shown, by page."""

    def begin(self, start: int) -> None:
        """Enter the page at ``start``; the first one begins a new walk."""
        if start == 0:
            self._first.clear()
            self._ends.clear()
            self._moved.clear()
            self.skipped.clear()

    def is_new(self, row_id: str, start: int) -> bool:
        """Tell whether no earlier page has named this."""
        return self._first.setdefault(row_id, start) == start

    def joins(self, start: int, ids: Sequence[str], following: int) -> None:
        """Note the ids of the page at ``start``, and see whether it joins the one before; the next is ``following``."""
        self._moved.discard(start)
        if self._ends.get(start, "") not in {"", *ids}:
            self._moved.add(start)
        if ids:
            self._ends[following] = ids[-1]

    @property
    def has_moved(self) -> bool:
        """Tell whether rows may have been missed, because others were removed meanwhile."""
        return bool(self._moved)

    def note(self, what: str, *, cut: str | None) -> str | None:
        """Return why the list is incomplete, None if it is not; ``cut`` says where it was left."""
        lost = sum(self.skipped.values())
        said = []
        if lost:
            said.append(f"{lost} {what} cannot be shown: the service gave no usable id")
        if cut:
            said.append(f"the service's list of {what} {cut}")
        if self._moved:
            said.append(f"the list of {what} changed while it was read")
        return "; ".join(said) or None
