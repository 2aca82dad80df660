"""The document about faults is the table that is tried."""

from __future__ import annotations

from tests.faults.document import DOCUMENT, render


def test_the_document_is_the_table() -> None:
    """After a change of the table: `python -m tests.faults.document`."""
    assert DOCUMENT.read_text() == render()
