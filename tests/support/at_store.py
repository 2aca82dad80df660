"""What a store holds, asked of the store itself and not through a mount: what a service would say it was given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from artifactfs.store.catalog import Store
from artifactfs.store.rows import StoredArtifact


@dataclass(frozen=True)
class Held:
    """A file as a store holds it.

    Attributes:
        path: below its workflow.
        past: its contents, oldest first; None is a version of its tree without it.
        identifier: of the artifact.
        deleted: taken out of the present.
    """

    path: str
    past: tuple[bytes | None, ...]
    identifier: str
    deleted: bool

    @property
    def now(self) -> bytes | None:
        """Return the content in the present, None if there is none."""
        return None if self.deleted or not self.past else self.past[-1]


def held(store: Store, workflow: str, *, deleted: bool = True) -> Iterator[Held]:
    """Yield the files of a workflow, those in trees too; ``deleted``: also what is not in the present any more."""
    (found,) = store.workflows_named(workflow)
    for artifact in store.artifacts(found.id, deleted=deleted):
        yield from of_artifact(store, artifact)


def of_artifact(store: Store, artifact: StoredArtifact) -> Iterator[Held]:
    """Yield the one file of an artifact, or all that ever were in it."""
    versions = [version for version in store.versions(artifact.id) if version.seq <= artifact.current]
    if artifact.kind == "file":
        past = tuple(store.objects.read(version.sha256) for version in versions if version.sha256)
        yield Held(artifact.name, past, artifact.id, artifact.deleted)
        return
    trees = [{file.path: file.sha256 for file in store.tree(artifact.id, v.seq) if file.sha256} for v in versions]
    for path in sorted({path for tree in trees for path in tree}):
        known = (store.objects.read(tree[path] or "") if path in tree else None for tree in trees)
        yield Held(f"{artifact.name}/{path}", tuple(known), artifact.id, artifact.deleted)


def now_at(root: Path, workflow: str, path: str) -> bytes | None:
    """Return the newest content of a file in the store below ``root``, None if there is none."""
    store = Store(root)
    try:
        found = [file.now for file in held(store, workflow, deleted=False) if file.path == path]
        assert len(found) <= 1, f"{len(found)} artifacts are called {path}"
        return found[0] if found else None
    finally:
        store.close()
