"""The services to torture: what their stores begin with, where files go, and how to see what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from artifactfs.store.catalog import Store
from artifactfs.store.rows import TreeFile
from tests.support.at_store import AtStore, Held

WORKFLOW = "w"
SEED = b"seed\n"


@dataclass(frozen=True)
class Service:
    """One of them.

    Attributes:
        name: as the configuration has it.
        folder: below the mount, where the files are.
        files: paths below it, which are the paths at the store, too.
        known: paths that the store has from the beginning: directories, where a service keeps none that are empty.
        keeps_all: it keeps each content that a file had.
        held: what it holds.
    """

    name: str
    folder: str
    files: tuple[str, ...]
    known: frozenset[str]
    keeps_all: bool
    held: Callable[[AtStore], Iterable[Held]]

    def prepare(self, store: Store) -> None:
        """Put into an empty store what a client cannot make, or need not."""
        workflow = store.add_workflow(WORKFLOW).id
        sha256 = store.objects.put(SEED)
        trees: dict[str, list[TreeFile]] = {}
        for path in sorted(self.known):
            tree, _, below = path.partition("/")
            trees.setdefault(tree, []).append(TreeFile(below, sha256, len(SEED)))
        for tree, files in trees.items():
            store.save_tree(store.add_artifact(workflow, tree, "tree").id, files)


def _named(*folders: str) -> tuple[str, ...]:
    return tuple(f"{folder}{name}" for folder in folders for name in ("a.md", "b.txt", "c.json", "d é.md"))


SERVICES = {
    service.name: service
    for service in (
        Service("local", WORKFLOW, _named("", "t/", "t/deep/"), frozenset({"t/deep/seed"}), keeps_all=True,
                held=lambda at: at.files(WORKFLOW)),
        Service("syntropic137", WORKFLOW, (*_named(""), "e.md", "f.yaml", "g.txt", "h.md"), frozenset(),
                keeps_all=False, held=lambda at: at.files(WORKFLOW)),
        Service("vm0", "artifacts", _named("one/", "two/", "two/deep/"), frozenset({"one/seed", "two/deep/seed"}),
                keeps_all=True, held=lambda at: at.files(WORKFLOW)),
        Service("vlmrun", "files", (*_named(""), "e.md", "f.csv", "g.txt", "h.md"), frozenset(), keeps_all=False,
                held=AtStore.uploads),
    )
}  # fmt: skip
