"""From the entries of a listing to its levels, with what the mount knows of the place.

Rules of this file: what is shown is decided in ``tree.layout``; here is only where it stands, and who does the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import trio

from artifactfs.content.facts import Facts
from artifactfs.model.entry import Artifact, Entry
from artifactfs.tree.layout import CONTROL, Level, Path, Place, lay_out
from artifactfs.tree.nodes import Listed, Node
from artifactfs.vfs.sources import Source

# A larger listing is laid out in a thread: an entry takes about 10 us (measured).
INLINE_ENTRIES = 300


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a listing stands: the directory that shows it, and its source."""

    source: Source
    facts: Facts
    node: Node
    place: Listed
    show_ids: bool

    async def laid_out(self, entries: Sequence[Entry], *, complete: bool) -> dict[Path, Level]:
        """Return the levels of a listing by raw prefix."""
        work = partial(self._lay_out, entries, complete=complete)
        return work() if len(entries) <= INLINE_ENTRIES else await trio.to_thread.run_sync(work)

    def _lay_out(self, entries: Sequence[Entry], *, complete: bool) -> dict[Path, Level]:
        source, node, place = self.source, self.node, self.place
        # A folder without a listing point of its own is described by its ancestor's; what is below is laid out there.
        timeless = [
            entry.key
            for entry in entries
            if isinstance(entry, Artifact) and entry.updated_at_ns is None and entry.created_at_ns is None
        ]
        spot = Place(
            place.ref, place.role, place.accepts, place.workflow, node.mtime_ns or source.first_seen_ns,
            source.provider.is_artifact_id, self.show_ids,
            frozenset({CONTROL}) if node.ino == 1 or place.ref == source.top else frozenset(),
            self._first_seen(timeless),
        )  # fmt: skip
        return lay_out(entries, spot, complete=complete)

    def _first_seen(self, keys: list[str]) -> dict[str, int]:
        if not keys:
            return {}
        prefixed = {f"{self.source.fingerprint}/{key}": key for key in keys}
        found = self.facts.first_seen(prefixed)
        return {prefixed[whole]: ns for whole, ns in found.items()}
