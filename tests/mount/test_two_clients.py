"""Random operations of programs on a real mount while a second client changes the same files at the service.

Checked at each step: what was saved is read back, and listings are what they must be. Checked after each flush: every
acknowledged save is at the service once, under its own name or kept beside what the other client made of it; nothing
of the other's is lost; nothing waits; no temporary name was ever seen there.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.support.two_clients import WEATHER, TwoClients, run_machine

pytestmark = [pytest.mark.fuse, pytest.mark.slow, pytest.mark.timeout(0 if os.environ.get("ARTIFACTFS_TEST_EXAMPLES") else 300)]

NAMES = ("a", "b.md", "c d.txt", "é.md")
TEMPORARY = ("{}.tmp.71", ".{}.Ab1Cd2", ".{}.swp", "{}~", "4913")
picks = st.integers(0, 99)
sizes = st.sampled_from((0, 16, 5000, 70_000, 300_000))


class Files(TwoClients):
    """Single files in one workflow."""

    has_names = True
    temporary: ClassVar[frozenset[str]] = frozenset(t.format(n) for t in TEMPORARY for n in NAMES)

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

    # -- programs on the mount -------------------------------------------------------------------------------

    def some(self, pick: int) -> str:
        """Return a name that is there or could be."""
        names = sorted({*NAMES, *self.view})
        return names[pick % len(names)]

    def replaced(self, name: str, data: bytes, seen: bytes | None = None) -> None:
        """Note that a program saved ``data``; ``seen`` is what it knows to have replaced."""
        if not self.is_foggy(name):
            assert seen is None or seen == self.view.get(name, b"")
            self.ledger.ended(self.view.get(name))
        elif seen is None:
            self.doubt(name)
        else:
            self.ledger.ended(seen)
        self.ledger.saved(data, name)
        self.view[name] = data
        self.acted.add(name)
        self.check_name(name)
        self.check_listing()

    @rule(pick=picks, size=sizes)
    def save(self, pick: int, size: int) -> None:
        """Empty it and write, or create it."""
        name, data = self.some(pick), self.ledger.fresh("m", size)
        if self.told(name, lambda: self.real(name).write_bytes(data) and None, data):
            self.replaced(name, data)

    @rule(pick=picks, size=sizes, where=st.sampled_from(("end", "middle", "all", "cut")))
    def change(self, pick: int, size: int, where: str) -> None:
        """Read it and write into it, through one descriptor."""
        name, fresh = self.some(pick), self.ledger.fresh("m", size)
        done: list[tuple[bytes, bytes]] = []

        def act() -> None:
            with self.real(name).open("r+b", buffering=0) as file:
                seen = file.readall()
                at = {"end": len(seen), "middle": len(seen) // 2, "all": 0, "cut": 5}[where]
                if where in {"all", "cut"}:
                    file.truncate(min(at, len(seen)))
                    at = min(at, len(seen))
                data = seen[:at] + fresh + (b"" if where == "cut" else seen[at + len(fresh) :])
                if where == "all":
                    data = fresh
                done[:] = [(seen, data)]
                file.seek(at)
                file.write(fresh)

        if name not in self.view and not self.is_foggy(name):
            with pytest.raises(FileNotFoundError):
                act()
            return
        if self.told(name, act, None, errno.ENOENT, errno.ESTALE) and done:
            self.replaced(name, done[0][1], done[0][0])
        elif done:
            self.ledger.saved(done[0][1], name)
            self.doubt(name)

    @rule(pick=picks, size=sizes, how=st.sampled_from(TEMPORARY))
    def replace(self, pick: int, size: int, how: str) -> None:
        """Write a temporary name and rename it over, as careful programs do."""
        name, data = self.some(pick), self.ledger.fresh("m", size)
        temporary = self.real(how.format(NAMES[pick % len(NAMES)]))

        def act() -> None:
            temporary.write_bytes(data)
            try:
                temporary.replace(self.real(name))
            except OSError:
                temporary.unlink(missing_ok=True)
                raise

        if self.told(name, act, data):
            self.gone_from_handles(name)
            self.replaced(name, data)

    @rule(pick=picks, size=st.sampled_from((None, 16, 5000)))
    def remove(self, pick: int, size: int | None) -> None:
        """Remove it, and perhaps make it again."""
        name = self.some(pick)
        if name not in self.view and not self.is_foggy(name):
            return
        if not self.told(name, self.real(name).unlink, None, errno.ENOENT):
            return
        if self.is_foggy(name):
            self.doubt(name)
        else:
            self.ledger.ended(self.view[name])
        self.view.pop(name, None)
        self.acted.add(name)
        self.gone_from_handles(name)
        self.check_listing()
        if size is not None:
            data = self.ledger.fresh("m", size)
            if self.told(name, lambda: self.real(name).write_bytes(data) and None, data):
                self.replaced(name, data)

    @precondition(lambda self: self.has_names and self.view)
    @rule(pick=picks, to=picks)
    def rename(self, pick: int, to: int) -> None:
        """Give it another name, also that of another file."""
        old, new = sorted(self.view)[pick % len(self.view)], self.some(to)
        if old == new:
            return
        foggy = self.is_foggy(old) or self.is_foggy(new)
        try:
            self.real(old).rename(self.real(new))
        except OSError as error:
            weather = self.failing and error.errno in WEATHER
            assert weather or (foggy and error.errno in {errno.ENOENT, errno.EEXIST, errno.ESTALE}), error
            if weather:
                self.all_in_doubt(old, new)
            return
        self.acted |= {old, new}
        if foggy:
            self.all_in_doubt(old, new)
        else:
            self.ledger.ended(self.view.get(new))
            self.view[new] = self.view.pop(old)
            self.ledger.saved(self.view[new], new)
        self.gone_from_handles(new)
        self.handles = [(fd, new if name == old else name) for fd, name in self.handles]
        self.check_name(new)
        self.check_listing()

    def all_in_doubt(self, old: str, new: str) -> None:
        self.doubt(new)
        self.doubt(old)
        self.foggy |= {old, new}
        self.ledger.tie(old, new)
        for fd, held in self.handles:
            if held in {old, new}:  # which of the two it is cannot be told
                with contextlib.suppress(OSError):
                    os.close(fd)
        self.handles = [(fd, held) for fd, held in self.handles if held not in {old, new}]

    # -- descriptors that stay open --------------------------------------------------------------------------

    def gone_from_handles(self, name: str) -> None:
        self.handles = [(fd, None if held == name else held) for fd, held in self.handles]

    @precondition(lambda self: self.view and len(self.handles) < 3)
    @rule(pick=picks)
    def hold(self, pick: int) -> None:
        """Open a file for writing, and keep it open."""
        name = sorted(self.view)[pick % len(self.view)]

        def act() -> None:
            fd = os.open(self.real(name), os.O_RDWR)
            self.handles.append((fd, name))

        self.told(name, act, None, errno.ENOENT, errno.ESTALE)

    @precondition(lambda self: self.handles)
    @rule(size=sizes, writes=st.booleans())
    def let_go(self, size: int, writes: bool) -> None:
        """Write to what was kept open, and close it."""
        fd, name = self.handles.pop(0)
        data = self.ledger.fresh("m", size)
        failure: OSError | None = None
        try:
            if writes:
                os.ftruncate(fd, 0)
                os.pwrite(fd, data, 0)
                got = os.pread(fd, len(data) + 1, 0)
                assert got == data
        finally:
            try:
                os.close(fd)
            except OSError as error:
                failure = error
        if failure is not None:
            assert failure.errno == errno.ESTALE or (self.failing and failure.errno in WEATHER), failure
        if not writes or name is None:
            return
        if self.is_foggy(name):
            self.doubt(name)
        self.replaced(name, data)

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
