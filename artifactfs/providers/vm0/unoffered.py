"""What VM0 cannot do: no artifact is one file, and none is renamed or removed (service source, since January 2026)."""

from __future__ import annotations

from typing import NoReturn

from artifactfs import errors
from artifactfs.model.entry import Artifact, DirRef
from artifactfs.providers.base import Attempt, Change, Draft


class Unoffered:
    """That part of a publisher; every call raises ``NotPermitted``, without a request."""

    def __init__(self, source: str) -> None:
        """Name ``source`` in what is raised."""
        self._source = source

    def refuse(self, what: str) -> NoReturn:
        """Refuse a change.

        Raises:
            NotPermitted: always.
        """
        message = f"VM0 cannot do this ({what}): its artifacts are trees, which it neither renames nor removes"
        raise errors.NotPermitted(message, provider=self._source)

    async def make_workflow(self, title: str) -> None:
        """Refuse: there are artifacts and volumes.

        Raises:
            NotPermitted: always.
        """
        self.refuse(f"make {title!r}")

    async def remove_workflow(self, ref: DirRef) -> None:
        """Refuse; see ``make_workflow``."""
        self.refuse(f"remove {ref.kind}")

    async def create_file(self, ref: DirRef, path: tuple[str, ...], draft: Draft, attempt: Attempt) -> Artifact:
        """Refuse: no artifact is a single file."""
        del ref, path, draft, attempt
        self.refuse(Change.CREATE.value)

    async def save_file(self, artifact: Artifact, draft: Draft, attempt: Attempt) -> Artifact:
        """Refuse; see ``create_file``."""
        del artifact, draft, attempt
        self.refuse(Change.CREATE.value)

    async def rename(self, artifact: Artifact, ref: DirRef, path: tuple[str, ...]) -> Artifact:
        """Refuse: the service has no request for it."""
        del artifact, ref, path
        self.refuse(Change.RENAME.value)

    async def remove(self, artifact: Artifact) -> None:
        """Refuse: the service has no request for it (DELETE was taken out in January 2026)."""
        del artifact
        self.refuse(Change.REMOVE.value)
