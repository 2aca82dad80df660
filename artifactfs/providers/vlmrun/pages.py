"""Keeps apart what the pages of one list repeat.

Rules of this file: pure. New executions shift the offsets between two pages, so that a row can come twice;
a page asked for again (after a failure) must give the same rows again.
"""

from __future__ import annotations

# So many rows are followed; a list that goes on is cut and says so. 50,000 runs at 500 a page are 100
# requests.
MAX_ROWS = 50_000


class Pages:
    """What one walk through a list has seen."""

    __slots__ = ("_first", "skipped")

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._first: dict[str, int] = {}
        self.skipped: dict[int, int] = {}
        """Rows that could not be shown, by page."""

    def begin(self, start: int) -> None:
        """Enter the page at ``start``; the first one begins a new walk."""
        if start == 0:
            self._first.clear()
            self.skipped.clear()

    def is_new(self, row_id: str, start: int) -> bool:
        """Tell whether no earlier page has named this."""
        return self._first.setdefault(row_id, start) == start

    def note(self, what: str, *, cut: bool) -> str | None:
        """Return why the list is incomplete, None if it is not."""
        lost = sum(self.skipped.values())
        said = []
        if lost:
            said.append(f"{lost} {what} cannot be shown: the service gave no usable id")
        if cut:
            said.append(f"the service's list of {what} goes on after {MAX_ROWS}, or repeats itself")
        return "; ".join(said) or None
