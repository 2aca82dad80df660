"""The artifacts known in one workflow, by the name of their id."""

from __future__ import annotations

from collections.abc import Iterable

from artifactfs.model.entry import Artifact, DirRef
from artifactfs.tree import names


class Shelf:
    """Artifacts of one workflow, gathered from every listing that shows some; names are assigned over all of them.

    Where a service repeats an id between runs (VLM Run's have 24 bits), the oldest keeps the plain name.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._parts: dict[DirRef, dict[str, Artifact]] = {}
        self._found: dict[str, Artifact] = {}
        self._by_name: dict[str, Artifact] | None = {}

    def clear(self, ref: DirRef) -> None:
        """Forget what a listing showed, and what was found by id since: it is asked for anew."""
        if self._parts.pop(ref, None) is not None:
            self._found.clear()
            self._by_name = None

    def add(self, ref: DirRef, artifacts: Iterable[Artifact]) -> None:
        """Take what one level of a listing shows."""
        self._parts.setdefault(ref, {}).update((artifact.key, artifact) for artifact in artifacts)
        self._by_name = None

    def add_found(self, artifact: Artifact) -> None:
        """Take what the service said of one artifact, until a listing is made again."""
        self._found[artifact.key] = artifact
        self._by_name = None

    def by_name(self) -> dict[str, Artifact]:
        """Return the artifacts by the names of their ids."""
        if self._by_name is None:
            known = dict(self._found)
            for part in self._parts.values():
                known.update(part)
            claims = [
                names.Claim(
                    artifact.id, key, key, (float(artifact.created_at_ns or 0) or float("inf"), key), folder=True
                )
                for key, artifact in known.items()
            ]
            given = names.assign(claims)
            self._by_name = {given[key]: artifact for key, artifact in known.items()}
        return self._by_name
