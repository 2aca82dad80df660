"""The record of a changed tree, as it is at the moment when it is written.

Rules of this file: the record says all that is true of a tree, whoever changes what of it; so it is made when it is its
turn to be written, never before. Who holds the lock of a tree waits for the disk alone.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import trio

from artifactfs.journal.records import Record
from artifactfs.vfs import intents
from artifactfs.vfs.overlay import WorkTree


async def write_tree(tree: WorkTree, *records: Record, drop: Collection[int] = ()) -> None:
    """Make durable, at once, what is true of a tree now, and other records; forget some.

    Raises:
        OSError: the disk says no, and nothing is changed.
    """
    async with tree.lock:
        everything = [intents.of_tree(tree), *records]
        await trio.to_thread.run_sync(lambda: tree.home.journal.put(*everything, drop=drop))


@dataclass(slots=True)
class TreeTry:
    """The ``providers.base.Attempt`` of the changes of a tree, which go on meanwhile."""

    tree: WorkTree
    is_first: bool

    @property
    def facts(self) -> dict[str, str]:
        """Return what earlier tries have noted."""
        return self.tree.facts

    async def note(self, **facts: str) -> None:
        """Remember facts, durably before it returns."""
        self.tree.facts.update(facts)
        await write_tree(self.tree)
