"""The built-in store: a catalog of workflows, runs, artifacts, versions, trees and uploads, and the objects.

Rules of this file: one SQLite database in WAL mode, safe for several processes; each change is one
transaction; an object is durable in ``objects`` before a row names it. Calls are synchronous and short; a
caller on an event loop goes through a thread, and never awaits inside ``transaction()``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from artifactfs.store.database import now_ns
from artifactfs.store.objects import Objects
from artifactfs.store.uploads import Uploads
from artifactfs.store.versions import Versions
from artifactfs.store.workflows import Workflows

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Store", "now_ns"]


class Store(Workflows, Versions, Uploads):
    """One store on this machine: ``catalog.db`` and ``objects/`` in a directory of its own."""

    def __init__(self, root: Path) -> None:
        """Open the store, made if missing, for the owner alone.

        Raises:
            ConfigError: the database was written by a newer artifactfs.
        """
        super().__init__(root)
        self.objects = Objects(root / "objects")
