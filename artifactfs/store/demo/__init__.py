"""Sample data for a store: what ``mount --demo`` shows, and what tests and benchmarks read.

Rules of this package: the same bytes, ids and times on every machine and in every run; believable, and
nobody's. All of it happens in 2026.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from artifactfs.store.demo import runs, shelves
from artifactfs.store.demo.filler import Filler

if TYPE_CHECKING:
    from artifactfs.store.catalog import Store


def fill(store: Store) -> None:
    """Fill an empty store that is thrown away afterwards: the bytes do not wait for the disk.

    Raises:
        AlreadyExists: the store was filled before.
    """
    filler = Filler(store)
    with store.transaction():
        runs.fill_market_research(filler)
        runs.fill_invoices(filler)
        runs.fill_video_review(filler)
        workflow = runs.fill_site_audit(filler)
        shelves.fill_trees(filler, workflow)
        shelves.fill_product_docs(filler)
        shelves.fill_field_notes(filler)
        shelves.fill_volumes(filler)
        shelves.fill_uploads(filler)
