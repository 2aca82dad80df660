"""What a store holds, asked of the store itself and not through a mount: what a service would say it was given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from artifactfs.store.catalog import Store
from artifactfs.store.rows import StoredArtifact


@dataclass(frozen=True)
class Held:
    """A file as a store holds it.

    Attributes:
        path: below its workflow.
        past: the SHA-256 of its contents, oldest first; None is a version of its tree without it.
        identifier: of the artifact.
        deleted: taken out of the present.
    """

    path: str
    past: tuple[str | None, ...]
    identifier: str
    deleted: bool = False

    @property
    def now(self) -> str | None:
        """Return the SHA-256 of what is in the present, None if nothing is."""
        return None if self.deleted or not self.past else self.past[-1]


@dataclass
class AtStore:
    """Looks at one store again and again; trees of versions never change, so each is asked for once."""

    store: Store
    _trees: dict[tuple[str, int], dict[str, str]] = field(default_factory=dict)

    def files(self, workflow: str) -> Iterator[Held]:
        """Yield the files of a workflow, those in trees too, and what is not in the present any more."""
        (found,) = self.store.workflows_named(workflow)
        for artifact in self.store.artifacts(found.id, deleted=True):
            yield from self._of_tree(artifact) if artifact.kind == "tree" else self._of_file(artifact)

    def _of_file(self, artifact: StoredArtifact) -> Iterator[Held]:
        past = tuple(version.sha256 for version in self.store.versions(artifact.id))
        yield Held(artifact.name, past[: artifact.current], artifact.id, artifact.deleted)

    def _of_tree(self, artifact: StoredArtifact) -> Iterator[Held]:
        trees = [self._tree(artifact.id, seq) for seq in range(1, artifact.current + 1)]
        for path in sorted({path for tree in trees for path in tree}):
            past = tuple(tree.get(path) for tree in trees)
            yield Held(f"{artifact.name}/{path}", past, artifact.id, artifact.deleted)

    def _tree(self, artifact_id: str, seq: int) -> dict[str, str]:
        if (artifact_id, seq) not in self._trees:
            files = self.store.tree(artifact_id, seq)
            self._trees[artifact_id, seq] = {file.path: file.sha256 for file in files if file.sha256}
        return self._trees[artifact_id, seq]

    def uploads(self) -> Iterator[Held]:
        """Yield the uploaded files that can be used."""
        for upload in self.store.uploads():
            if upload.ready:
                yield Held(upload.filename, (upload.sha256,), upload.id)


def now_at(root: Path, workflow: str, path: str) -> bytes | None:
    """Return the newest content of a file in the store below ``root``, None if there is none."""
    store = Store(root)
    try:
        found = [file.now for file in AtStore(store).files(workflow) if file.path == path and file.now]
        assert len(found) <= 1, f"{len(found)} artifacts are called {path}"
        return store.objects.read(found[0]) if found else None
    finally:
        store.close()
