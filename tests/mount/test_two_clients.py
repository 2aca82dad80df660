"""Random operations of programs on a real mount while a second client changes the same files at the service.

Checked at each step: what was saved is read back, and listings are what they must be. Checked after each flush: every
acknowledged save is at the service once, under its own name or kept beside what the other client made of it; nothing
of the other's is lost; nothing waits; no temporary name was ever seen there.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis.stateful import precondition, rule

from artifactfs.store.rows import Upload
from tests.support.examples import EXAMPLES
from tests.support.programs import Programs, picks, sizes
from tests.support.two_clients import run_machine

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

    def rows(self) -> list[tuple[str, str]]:
        """Return id and name of what is there, oldest first."""
        return [(row.id, row.name) for row in self.store.artifacts(self.workflow)]

    def ever(self) -> set[str]:
        """Return all names that there ever were, as far as the service remembers."""
        return {row.name for row in self.store.artifacts(self.workflow, deleted=True)}

    def check_truth(self) -> None:
        """No temporary name ever came to the service; two of one name are told apart by the other client first."""
        assert not self.ever() & self.temporary
        seen: set[str] = set()
        for there, name in self.rows():
            if name in seen:
                assert self.is_foggy(name), ("two of one name", name)
                other = f"{name} {there}"
                self.put_name(there, other)
                self.foggy |= {name, other}
                self.ledger.tie(name, other)
            seen.add(name)
        super().check_truth()

    # -- the other client ------------------------------------------------------------------------------------

    def row(self, name: str) -> tuple[str, bytes] | None:
        """Return id and content of what has a name."""
        for artifact, version in self.store.present(self.workflow):
            if artifact.name == name and version is not None and version.sha256:
                return artifact.id, self.store.objects.read(version.sha256)
        return None

    def put(self, there: str | None, name: str, sha256: str, size: int) -> None:
        """Make the next content of what has an id, or of something new."""
        if there is None:
            there = self.store.add_artifact(self.workflow, name, "file").id
        self.store.save_file(there, sha256, size)

    def put_name(self, there: str, name: str) -> None:
        """Give what has an id another name."""
        self.store.rename_artifact(there, name)

    def drop(self, there: str) -> None:
        """Remove what has an id."""
        self.store.delete_artifact(there)

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
            self.put(found[0] if found else None, name, sha256, len(data))
        self.did("other saves", name, data)
        self.overtaken(name, found[1] if found else None)
        self.ledger.saved(data, name)

    @rule(pick=picks)
    def other_removes(self, pick: int) -> None:
        name = self.some(pick)
        with self.store.transaction():
            found = self.row(name)
            if found is not None:
                self.drop(found[0])
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
            self.put_name(found[0], new)
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


class VlmRunFiles(Files):
    """At VLM Run: what was handed in for later runs; a save is another one, and names stay."""

    service, dialect = "vlmrun", "vlmrun"
    has_names = False

    def prepare(self) -> None:
        """Nothing is there."""

    @property
    def folder(self) -> Path:
        return self.mount.path / "files"

    def uploads(self) -> list[Upload]:
        return [one for one in reversed(self.store.uploads()) if one.ready]

    def truth(self) -> list[tuple[str, bytes]]:
        return [(one.filename, self.store.objects.read(one.sha256)) for one in self.uploads()]

    def rows(self) -> list[tuple[str, str]]:
        return [(one.id, one.filename) for one in self.uploads()]

    def ever(self) -> set[str]:
        return {one.filename for one in self.store.uploads()}

    def row(self, name: str) -> tuple[str, bytes] | None:
        for one in self.uploads():
            if one.filename == name:
                return one.id, self.store.objects.read(one.sha256)
        return None

    def put(self, there: str | None, name: str, sha256: str, size: int) -> None:
        if there is not None:
            self.drop(there)
        md5 = hashlib.md5(self.store.objects.read(sha256), usedforsecurity=False).hexdigest()
        self.store.put_upload(Upload(str(uuid.uuid4()), name, "assistants", size, sha256, md5, time.time_ns(), True))

    def put_name(self, there: str, name: str) -> None:
        one = self.store.upload(there)
        assert one
        self.store.put_upload(replace(one, filename=name))

    def drop(self, there: str) -> None:
        self.store.delete_upload(there)


@pytest.mark.parametrize("machine", [LocalFiles, Syntropic137Files, VlmRunFiles])
def test_two_clients(tmp_path_factory: pytest.TempPathFactory, machine: type[Programs]) -> None:
    """Nothing is lost, nothing is there twice, nothing shown is false."""
    run_machine(machine, tmp_path_factory.mktemp("m"), examples=3, steps=30)
