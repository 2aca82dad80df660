"""Puts VM0's pages together, and judges whether they are everything.

Rules of this file: pure. The service sorts by time but takes ids above the cursor, which is the last row's
id (service source, January 2026). So pages repeat rows and lose others. A row that comes twice proves that
paging; a row whose id is below the cursor it was asked with proves the opposite. A listing of more than one
page counts as whole only with the second proof, or when cursors are not row ids at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from artifactfs import errors
from artifactfs.providers.vm0.schemas import ArtifactRow, Pagination, VersionRow, read

if TYPE_CHECKING:
    from collections.abc import Mapping

RowT = TypeVar("RowT", ArtifactRow, VersionRow)


class Pages(Generic[RowT]):
    """The rows so far; ``doubts`` say why there may be more than the service showed."""

    def __init__(self, kind: type[RowT]) -> None:
        """Start without a page."""
        self._kind: type[RowT] = kind
        self._rows: dict[str, RowT] = {}
        self._cursors: set[str] = set()
        self._last_id: str | None = None
        self._skipped = 0
        self._repeated = 0
        self._pages_by_id = 0
        self._is_sound = False
        self._broken = ""

    def __repr__(self) -> str:
        """Tell how much there is."""
        return f"<Pages {len(self._rows)} rows, {self.doubts() or 'no doubts'}>"

    @property
    def rows(self) -> tuple[RowT, ...]:
        """Return the rows in the service's order, each once."""
        return tuple(self._rows.values())

    def doubts(self) -> str:
        """Return why this may not be everything, in one sentence; empty if it is."""
        found = [self._broken] if self._broken else []
        if self._skipped:
            found.append(f"{self._skipped} rows could not be understood")
        if self._repeated:
            found.append("the service repeated rows, so its paging may have lost others")
        elif self._pages_by_id and not self._is_sound:
            found.append("the service's paging may have lost rows beyond the first 100")
        return "; ".join(found)

    def add(self, cursor: str | None, body: Mapping[str, object]) -> str | None:
        """Take the page that ``cursor`` led to; return the next cursor, None to stop.

        Raises:
            ProviderMisbehaved: there are no rows where they should be.
        """
        data = body.get("data")
        if not isinstance(data, list):
            message = "a page of the listing has no 'data'"
            raise errors.ProviderMisbehaved(message)
        rows = [row for row in (read(self._kind, value) for value in data) if row is not None]
        self._skipped += len(data) - len(rows)
        has_news = self._take(cursor, rows)
        pagination = read(Pagination, body.get("pagination"))
        if pagination is None:
            self._broken = "the service did not say whether there is more"
            return None
        return self._next(pagination, has_news=has_news)

    def _take(self, cursor: str | None, rows: list[RowT]) -> bool:
        if cursor is not None and cursor == self._last_id:
            self._pages_by_id += 1
            self._is_sound = self._is_sound or any(row.id < cursor for row in rows)
        before = len(self._rows)
        for row in rows:
            self._rows.setdefault(row.id, row)
        self._repeated += before + len(rows) - len(self._rows)
        self._last_id = rows[-1].id if rows else None
        return len(self._rows) > before

    def _next(self, pagination: Pagination, *, has_news: bool) -> str | None:
        cursor = pagination.next_cursor
        has_more = pagination.has_more if pagination.has_more is not None else bool(cursor)
        if not has_more:
            return None
        if not cursor:
            self._broken = "the service says that there is more, but not where"
        elif not has_news or cursor in self._cursors:
            self._broken = "the service's pages repeat without end"
        else:
            self._cursors.add(cursor)
            return cursor
        return None

    def cut(self, limit: str) -> None:
        """Note that the listing was left at a limit."""
        self._broken = f"the service still had more after {limit}"
