"""The artifacts known in one workflow, by the name of their id."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from artifactfs.model.entry import Artifact, DirRef
from artifactfs.tree import names
from artifactfs.tree.layout import Level


class Shelf:
    """Artifacts of one workflow, gathered from every listing that shows some; names are assigned over all of them.

    Where a service repeats an id between runs (VLM Run's have 24 bits), the oldest keeps the plain name.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._parts: dict[DirRef, list[Level]] = {}
        self._found: dict[str, Artifact] = {}
        self._by_name: dict[str, Artifact] | None = {}
        self._held = 0
        self._surplus: list[DirRef] = []

    def clear(self, ref: DirRef) -> None:
        """Forget what a listing showed, and what was found by id since: it is asked for anew."""
        if self._parts.pop(ref, None) is not None:
            self._found.clear()
            self._by_name = None

    def put(self, ref: DirRef, levels: Iterable[Level]) -> None:
        """Take what a listing shows, instead of what it showed before."""
        self.clear(ref)
        if ref in self._surplus:
            self._surplus.remove(ref)
        self._parts[ref] = list(levels)
        self._by_name = None

    def drop(self, ref: DirRef) -> None:
        """Let go of what a listing shows, for which there is no room in memory; not while somebody searches here."""
        if self._held:
            self._surplus.append(ref)
        elif self._parts.pop(ref, None) is not None:
            self._by_name = None

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep everything that is put here while the block runs: it may be more than there is room for."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if not self._held:
                surplus, self._surplus = self._surplus, []
                for ref in surplus:
                    self.drop(ref)

    def add_found(self, artifact: Artifact) -> None:
        """Take what the service said of one artifact, until a listing is made again."""
        self._found[artifact.key] = artifact
        self._by_name = None

    def by_name(self) -> dict[str, Artifact]:
        """Return the artifacts by the names of their ids."""
        if self._by_name is None:
            known = dict(self._found)
            for part in self._parts.values():
                for level in part:
                    known.update(level.artifacts)
            claims = [
                names.Claim(
                    artifact.id, key, key, (float(artifact.created_at_ns or 0) or float("inf"), key), folder=True
                )
                for key, artifact in known.items()
            ]
            given = names.assign(claims)
            self._by_name = {given[key]: artifact for key, artifact in known.items()}
        return self._by_name
