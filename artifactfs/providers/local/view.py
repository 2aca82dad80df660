"""What the store holds, as the values a provider describes.

Rules of this file: synchronous, called in worker threads only; reads, never writes.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from artifactfs import errors
from artifactfs.model.entry import Listing, VersionPage
from artifactfs.providers.local import entries

if TYPE_CHECKING:
    from artifactfs.model.entry import Artifact, DirRef, Entry, TreeMember, Version
    from artifactfs.store.catalog import Store
    from artifactfs.store.rows import StoredArtifact, StoredVersion, Workflow

log = logging.getLogger(__name__)

# The shortest beginning of a version id that stands for it: what VM0 takes, and what git's users are used to.
MIN_PREFIX = 8


class StoreView:
    """One store, seen as one source."""

    def __init__(self, source: str, store: Store) -> None:
        """Look at ``store`` under the name of the source."""
        self.source = source
        self.store = store

    def __repr__(self) -> str:
        """Tell what is looked at."""
        return f"<StoreView {self.source} {self.store!r}>"

    def listing(self, ref: DirRef) -> Listing:
        """Return a whole directory.

        Raises:
            NotFound: the workflow was removed, or the reference is not one of ours.
        """
        if ref.kind == entries.ROOT:
            changes = self.store.last_changes()
            return Listing(
                tuple(
                    entries.workflow_folder(self.source, workflow, changes.get(workflow.id))
                    for workflow in self.store.workflows()
                )
            )
        workflow = self.workflow(ref)
        # Artifacts first: the run of each of them is then among the runs.
        found: list[Entry] = [
            self.artifact_value(artifact, workflow, version) for artifact, version in self.store.present(workflow.id)
        ]
        found += [entries.run_folder(run) for run in self.store.runs(workflow.id)]
        return Listing(tuple(found))

    def workflow(self, ref: DirRef) -> Workflow:
        """Return the workflow of a reference.

        Raises:
            NotFound: it was removed, or the reference is not one of ours.
        """
        found = self.store.workflow(ref.args[0]) if ref.kind == entries.WORKFLOW and ref.args else None
        if found is None:
            raise errors.NotFound("there is no such workflow", provider=self.source, subject=repr(ref.args))
        return found

    def find(self, ref: DirRef, artifact_id: str) -> Artifact | None:
        """Return an artifact of a workflow, or below the root, by id; one that was removed too."""
        asked = None if ref.kind == entries.ROOT else self.workflow(ref).id
        artifact = self.store.artifact(artifact_id)
        if artifact is None or artifact.id != artifact_id or asked not in {None, artifact.workflow_id}:
            return None
        workflow = self.store.workflow(artifact.workflow_id)
        if workflow is None:
            return None
        return self.artifact_value(artifact, workflow, self.current(artifact))

    def artifact(self, artifact_id: str) -> Artifact:
        """Return an artifact as it now is.

        Raises:
            NotFound: there is none, or its workflow was removed.
        """
        artifact = self.stored(artifact_id)
        workflow = self.store.workflow(artifact.workflow_id)
        if workflow is None:
            raise errors.NotFound("its workflow was removed", provider=self.source, subject=artifact_id)
        return self.artifact_value(artifact, workflow, self.current(artifact))

    def stored(self, artifact_id: str) -> StoredArtifact:
        """Return the row of an artifact.

        Raises:
            NotFound: there is none.
        """
        artifact = self.store.artifact(artifact_id)
        if artifact is None:
            raise errors.NotFound("there is no such artifact", provider=self.source, subject=artifact_id)
        return artifact

    def current(self, artifact: StoredArtifact) -> StoredVersion | None:
        """Return the version in the present, None if there is none yet."""
        return self.store.version(artifact.id, artifact.current) if artifact.current else None

    def artifact_value(self, artifact: StoredArtifact, workflow: Workflow, current: StoredVersion | None) -> Artifact:
        """Return an artifact with its current version."""
        shown = self.version_value(current) if current else None
        return entries.artifact_value(artifact, workflow, shown)

    def version_value(self, version: StoredVersion) -> Version:
        """Return a version."""
        is_empty_tree = (
            version.sha256 is None
            and version.file_count == 0
            and self.store.is_empty_tree(version.artifact_id, version.seq)
        )
        return entries.version_value(self.source, version, is_empty_tree=is_empty_tree)

    def versions(self, artifact_id: str) -> VersionPage:
        """Return all versions, oldest first.

        Raises:
            NotFound: there is no such artifact.
        """
        self.stored(artifact_id)
        return VersionPage(tuple(self.version_value(v) for v in self.store.versions(artifact_id)))

    def find_version(self, artifact_id: str, asked: str) -> str | None:
        """Return the full id for a version id or a unique beginning of one."""
        ids = {entries.version_id(version) for version in self.store.versions(artifact_id)}
        if asked in ids:
            return asked
        found = [full for full in ids if full.startswith(asked)] if len(asked) >= MIN_PREFIX else []
        return found[0] if len(found) == 1 else None

    def tree(self, locator: tuple[str, ...]) -> list[TreeMember]:
        """Return the files of a version that is a tree.

        Raises:
            NotFound: there is no such version.
        """
        artifact_id, seq = locator if len(locator) == 2 else ("", "")  # noqa: PLR2004 - as entries.py writes it
        if not seq.isdecimal() or self.store.version(artifact_id, int(seq)) is None:
            raise errors.NotFound("there is no such version", provider=self.source, subject=repr(locator))
        files = self.store.tree(artifact_id, int(seq))
        legal = [file for file in files if entries.is_legal_path(file.path)]
        if len(legal) != len(files):
            log.warning("%s: %d illegal paths in %s are not shown", self.source, len(files) - len(legal), locator)
        return [entries.member(self.source, file) for file in legal]
