"""Pages of a list of Syntropic137, put together: pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from artifactfs.providers.syntropic.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from artifactfs.providers.syntropic.schemas import Page

T = TypeVar("T")

MOVED = "the list changed while it was read, or says less than it should"


def once(pages: Sequence[Page[T]], key: Callable[[T], str]) -> tuple[T, ...]:
    """Return the rows of all pages, each id once: pages overlap when something is made meanwhile."""
    return tuple({key(row): row for page in reversed(pages) for row in reversed(page.rows)}.values())[::-1]


def has_moved(rows: Sequence[T], pages: Sequence[Page[T]]) -> bool:
    """Tell whether others changed a list between its pages: then the rows behind them have moved to other pages.

    The order is no help: the service promises none. A change shows in the totals, or in a row that comes twice; one
    more and one less between the same two pages may show in neither.
    """
    return len({page.total for page in pages}) > 1 or len(rows) < sum(len(page.rows) for page in pages)


def rows_of(rows: tuple[T, ...], pages: Sequence[Page[T]], note: str | None, *, moved: bool = False) -> Rows[T]:
    """Return what a list said, with a note where it is not sure that this is all."""
    skipped = sum(page.skipped for page in pages)
    unread = f"{skipped} rows could not be read" if skipped else None
    notes = [text for text in (note, unread) if text]
    return Rows(rows, not notes, "; ".join(notes) or None, moved)
