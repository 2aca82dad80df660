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
        self._parts: dict[tuple[DirRef, tuple[str, ...]], dict[str, Artifact]] = {}
        self._by_name: dict[str, Artifact] | None = {}

    def add(self, ref: DirRef, prefix: tuple[str, ...], artifacts: Iterable[Artifact]) -> None:
        """Take what one level of one listing shows now in place of what it showed before."""
        self._parts[(ref, prefix)] = {artifact.key: artifact for artifact in artifacts}
        self._by_name = None

    def by_name(self) -> dict[str, Artifact]:
        """Return the artifacts by the names of their ids."""
        if self._by_name is None:
            # Listings come after what was found by id, so that the newest answer wins.
            parts = sorted(self._parts.items(), key=lambda part: part[0][1][:1] != ("found",))
            known = {key: artifact for _, part in parts for key, artifact in part.items()}
            claims = [
                names.Claim(
                    artifact.id, key, key, (float(artifact.created_at_ns or 0) or float("inf"), key), folder=True
                )
                for key, artifact in known.items()
            ]
            given = names.assign(claims)
            self._by_name = {given[key]: artifact for key, artifact in known.items()}
        return self._by_name
