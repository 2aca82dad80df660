"""Random operations of programs on a real mount while a second client changes the same files at the service.

Checked at each step: what was saved is read back, and listings are what they must be. Checked after each flush: every
acknowledged save is at the service once, under its own name or kept beside what the other client made of it; nothing
of the other's is lost; nothing waits; no temporary name was ever seen there.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis.stateful import precondition, rule

from tests.support.programs import Programs, picks, sizes
from tests.support.two_clients import EXAMPLES, run_machine

pytestmark = [pytest.mark.fuse, pytest.mark.slow, pytest.mark.timeout(0 if EXAMPLES else 300)]


class Files(Programs):
    """Single files in one workflow."""

    def prepare(self) -> None:
        self.workflow = self.store.add_workflow("w").id

    @property
    def folder(self) -> Path:
        return self.mount.path / "w"

    def truth(self) -> list[tuple[str, bytes]]:
        rows = self.store.present(self.workflow)
        return [(a.name, self.store.objects.read(v.sha256)) for a, v in rows if v is not None and v.sha256]

    def listing(self) -> set[str]:
        return set(os.listdir(self.folder)) - {"by-id"}

    def check_more(self) -> None:
        """No temporary name ever came to the service; two of one name are told apart by the other client."""
        rows = self.store.artifacts(self.workflow, deleted=True)
        assert not {row.name for row in rows} & self.temporary
        seen: set[str] = set()
        for row in self.store.artifacts(self.workflow):
            if row.name in seen:
                assert self.is_foggy(row.name), row.name
                self.foggy |= {row.name, f"{row.name} {row.id}"}
                self.store.rename_artifact(row.id, f"{row.name} {row.id}")
            seen.add(row.name)

    def check_truth(self) -> None:
        names = [name for name, _ in self.truth()]
        super().check_truth()
        if len(set(names)) < len(names):
            truth = self.truth()
            self.view = dict(truth)
            self.ledger.settle(truth)

    # -- the other client ------------------------------------------------------------------------------------

    def row(self, name: str) -> tuple[str, bytes] | None:
        for artifact, version in self.store.present(self.workflow):
            if artifact.name == name and version is not None and version.sha256:
                return artifact.id, self.store.objects.read(version.sha256)
        return None

    def overtaken(self, name: str, was: bytes | None) -> None:
        """Note that the other client took away what was under a name."""
        if was is not None:
            (self.ledger.doubted if {name, *self.ledger.homes.get(was, ())} & self.acted else self.ledger.ended)(was)
        self.foggy.add(name)

    @rule(pick=picks, size=sizes)
    def other_saves(self, pick: int, size: int) -> None:
        name, data = self.some(pick), self.ledger.fresh("o", size)
        sha256 = self.store.objects.put(data)
        with self.store.transaction():
            found = self.row(name)
            there = found[0] if found else self.store.add_artifact(self.workflow, name, "file").id
            self.store.save_file(there, sha256, len(data))
        self.did("other saves", name, data)
        self.overtaken(name, found[1] if found else None)
        self.ledger.saved(data, name)

    @rule(pick=picks)
    def other_removes(self, pick: int) -> None:
        name = self.some(pick)
        with self.store.transaction():
            found = self.row(name)
            if found is not None:
                self.store.delete_artifact(found[0])
        if found is not None:
            self.did("other removes", name)
            self.overtaken(name, found[1])

    @precondition(lambda self: self.has_names)
    @rule(pick=picks, to=picks)
    def other_renames(self, pick: int, to: int) -> None:
        old, new = self.some(pick), self.some(to)
        with self.store.transaction():
            found = self.row(old)
            if found is None or self.row(new) is not None:
                return
            self.store.rename_artifact(found[0], new)
        self.did("other renames", old, "to", new)
        self.foggy |= {old, new}
        self.ledger.tie(old, new)
        self.ledger.moved(found[1], new)


class LocalFiles(Files):
    """In the local store."""

    service, dialect = "local", ""


class Syntropic137Files(Files):
    """At Syntropic137."""

    service, dialect = "syntropic137", "syntropic137"


@pytest.mark.parametrize("machine", [LocalFiles, Syntropic137Files])
def test_two_clients_of_files(tmp_path_factory: pytest.TempPathFactory, machine: type[Files]) -> None:
    """Nothing is lost, nothing is there twice, nothing shown is false."""
    run_machine(machine, tmp_path_factory.mktemp("m"), examples=6, steps=30)
