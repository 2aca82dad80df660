"""VM0's rows as the core's values.

Rules of this file: no requests. Facts that never change (which run made a version, that a version exists)
go into the provider's memory, so that a listing can show what only a version's own row says.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from artifactfs.model.codec import packed
from artifactfs.model.content import Access, ContentRef, Hint, Size, Unknown
from artifactfs.model.entry import Archive, Artifact, ArtifactKind, Empty, Version, VersionContent
from artifactfs.providers.answers import parse_time_ns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from artifactfs.providers.base import Memory
    from artifactfs.providers.vm0.schemas import ArtifactRow, StorageDownload, StorageRow, VersionRow

ROLES = ("artifact", "volume")
# The message an agent's checkpoint has (service source, all versions): the only link from a version to its
# run.
RUN = re.compile(r"Checkpoint from run (\S{1,200})")
V1, STORAGES = "v1", "storages"
"""First word of a locator: which API named it. The others: role, artifact id or name, version id."""


def hint(size: int | None) -> Size:
    """Return a size the service gave: the sum of the files, of a version that may not be the one meant."""
    return Unknown() if size is None else Hint(size)


def run_of(message: str | None) -> str | None:
    """Return the id of the run that a version's message names."""
    found = RUN.fullmatch(message.strip()) if message else None
    return found.group(1) if found else None


def _known(**facts: object) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if value is not None}


class Values:
    """Makes values for one source."""

    def __init__(self, source: str, memory: Memory) -> None:
        """Keep what does not change in ``memory``."""
        self._source = source
        self._memory = memory

    # -- versions --------------------------------------------------------------------------------------------

    def archive(self, locator: tuple[str, str, str, str], key: str) -> Archive:
        """Return the archive of a version; ``key`` is the artifact's, opaque as the version's id is."""
        name = "/".join(quote(part, safe="", errors="surrogatepass") for part in (key, locator[3]))
        return Archive(ContentRef(self._source, name, locator, Unknown(), Access.RANGED))

    def bare(self, locator: tuple[str, str, str, str], key: str) -> Version:
        """Return a version of which only the id is known."""
        return Version(locator[3], self.archive(locator, key))

    def version(self, role: str, artifact_id: str, row: VersionRow) -> Version:
        """Return a version of /v1; its own row may be believed about being empty."""
        run = run_of(row.message)
        if run and self._memory.get(f"run/{row.id}") != run:
            self._memory.put(f"run/{row.id}", run)
        content: VersionContent = self.archive((V1, role, artifact_id, row.id), artifact_id)
        return Version(
            row.id,
            Empty() if row.file_count == 0 else content,
            hint(row.size),
            row.file_count,
            parse_time_ns(row.created_at),
            row.created_by,
            row.message,
        )

    def found(self, artifact: Artifact, version_id: str) -> None:
        """Remember a version that no page shows."""
        self._memory.put(f"version/{artifact.key}/{version_id}", 1)

    def with_found(self, artifact: Artifact, api: str, listed: Iterable[Version]) -> tuple[Version, ...]:
        """Return the listed versions and those that were found beside them."""
        versions = {version.id: version for version in listed}
        prefix = f"version/{artifact.key}/"
        role = role_of(artifact)
        where = artifact.id if api == V1 else artifact.path[-1]
        for key, _ in self._memory.items(prefix):
            version_id = key.removeprefix(prefix)
            versions.setdefault(version_id, self.bare((api, role, where, version_id), artifact.key))
        return tuple(versions.values())

    # -- artifacts -------------------------------------------------------------------------------------------

    def artifact(self, role: str, row: ArtifactRow) -> Artifact:
        """Return an artifact of /v1, from a listing or from its own page."""
        current = self._current(role, row)
        version = row.current_version
        run = run_of(version.message) if version else None
        if run is None and current is not None:
            remembered = self._memory.get(f"run/{current.id}")
            run = remembered if isinstance(remembered, str) else None
        facts = _known(
            id=row.id, name=row.name, type=role, currentVersionId=current.id if current else None, size=row.size,
            fileCount=row.file_count, createdAt=row.created_at, updatedAt=row.updated_at, run=run,
        )  # fmt: skip
        if version is not None:
            facts |= _known(size=version.size, fileCount=version.file_count)
            facts["currentVersion"] = _known(
                id=version.id, size=version.size, fileCount=version.file_count, message=version.message,
                createdBy=version.created_by, createdAt=version.created_at,
            )  # fmt: skip
        return self._tree(role, row.id, row.name if row.name is not None else row.id, current, facts)

    def _current(self, role: str, row: ArtifactRow) -> Version | None:
        if row.current_version is not None:
            return self.version(role, row.id, row.current_version)
        if not row.current_version_id:
            return None
        # The row's own numbers may be those of an earlier version: a hint at most, and never a reason to call
        # it empty.
        content = self.archive((V1, role, row.id, row.current_version_id), row.id)
        return Version(row.current_version_id, content, hint(row.size))

    def storage(self, role: str, row: StorageRow, head: StorageDownload | None) -> Artifact:
        """Return an artifact of /api/storages; ``head`` is its current version, None if it has none."""
        artifact_id = f"{role}:{row.name}"
        current = None
        if head is not None:
            archive = self.archive((STORAGES, role, row.name, head.version_id), artifact_id)
            is_empty = head.empty or head.file_count == 0
            current = Version(head.version_id, Empty() if is_empty else archive, hint(head.size), head.file_count)
        facts = _known(
            name=row.name, type=role, currentVersionId=current.id if current else None,
            size=row.size, fileCount=row.file_count, updatedAt=row.updated_at,
        )  # fmt: skip
        return self._tree(role, artifact_id, row.name, current, facts)

    def _tree(self, role: str, artifact_id: str, name: str, current: Version | None, facts: dict[str, Any]) -> Artifact:
        return Artifact(
            (name,),
            artifact_id,
            artifact_id,
            ArtifactKind.TREE,
            current,
            created_at_ns=parse_time_ns(facts.get("createdAt")),
            updated_at_ns=parse_time_ns(facts.get("updatedAt")),
            workflow=f"{role}s",
            run=facts.get("run"),
            writable=True,
            metadata=packed(facts),
        )


def role_of(artifact: Artifact) -> str:
    """Return ``artifact`` or ``volume``."""
    return "volume" if artifact.workflow == "volumes" else "artifact"
