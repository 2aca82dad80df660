"""Databases whose program was ended in the middle of a transaction.

Rules of this file: SQLite keeps what a transaction overwrites in a journal beside the database, and whoever opens the
two next puts it back. The journal stays on this machine, so until then the database stays too: without it, it is
damaged. A look is eight bytes of a local file, and only where there is such a journal.
"""

from __future__ import annotations

from artifactfs.vfs.overlay import Edit, Overlay

# How a rollback journal begins that is to be put back; zeros, or nothing, once its transaction is over ("The Rollback
# Journal" in SQLite's file format).
MAGIC = bytes.fromhex("d9d505f920a163d7")
HALF_DONE = "a program was ended in the middle of a transaction; this waits until one opens the database again"


def is_half_done(overlay: Overlay, edit: Edit) -> bool:
    """Tell whether a file is a database in the middle of a transaction."""
    journal = overlay.beside(edit, f"{edit.node.name}-journal")
    return journal is not None and journal.staged.size >= len(MAGIC) and journal.staged.read(0, len(MAGIC)) == MAGIC
