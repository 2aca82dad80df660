"""Random operations of programs in trees on a real mount, of which a second client makes versions meanwhile.

Checked as in ``test_two_clients.py``; and that directories and symlinks are what programs have made of them.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from artifactfs.server import vm0_projection
from artifactfs.store.rows import StoredArtifact, TreeFile, content_id
from tests.support.examples import EXAMPLES
from tests.support.programs import OTHERWISE, Programs, picks, sizes
from tests.support.two_clients import run_machine

pytestmark = [pytest.mark.fuse, pytest.mark.slow, pytest.mark.timeout(0 if EXAMPLES else 300)]


class Trees(Programs):
    """Two trees, in which the other client makes versions."""

    tops = ("t1", "t2")
    workflow: str
    dirs: set[str]
    links: dict[str, str]

    def prepare(self) -> None:
        self.workflow = self.store.add_workflow("w").id
        for top in self.tops:
            made = self.store.add_artifact(self.workflow, top, "tree")
            data = self.ledger.fresh("o", 16)
            self.store.save_tree(made.id, [TreeFile("a", self.store.objects.put(data), len(data))])

    def begin(self) -> None:
        self.dirs, self.links = set(self.tops), {}
        self.view = dict(self.truth())
        self.ledger.settle(self.view.items())
        for name in self.view:
            self.check_name(name)

    @property
    def folder(self) -> Path:
        return self.mount.path / ("artifacts" if self.service == "vm0" else "w")

    def trees(self) -> list[tuple[StoredArtifact, list[TreeFile]]]:
        rows = self.store.artifacts(self.workflow)
        return [(row, self.store.tree(row.id, row.current)) for row in rows]

    def truth(self) -> list[tuple[str, bytes]]:
        read = self.store.objects.read
        return [(f"{a.name}/{f.path}", read(f.sha256)) for a, tree in self.trees() for f in tree if f.sha256]

    def walk(self) -> tuple[set[str], set[str], dict[str, str]]:
        """Return files, directories and symlinks as the mount lists them."""
        files: set[str] = set()
        dirs, links = set(self.tops), dict[str, str]()
        for top in self.tops:
            for here, below, names in os.walk(self.folder / top):
                at = Path(here).relative_to(self.folder)
                for name in (*below, *names):
                    if (Path(here) / name).is_symlink():
                        links[str(at / name)] = os.readlink(Path(here) / name)
                    else:
                        (dirs if name in below else files).add(str(at / name))
        return files, dirs, links

    def listing(self) -> set[str]:
        return self.walk()[0]

    def check_listing(self) -> None:
        super().check_listing()
        with self.weather():
            _, dirs, links = self.walk()
            for top in self.tops:
                if not any(name.startswith(f"{top}/") for name in self.foggy):
                    mine = {name for name in self.dirs if name.startswith(f"{top}/")}
                    shown = {name for name in dirs if name.startswith(f"{top}/")}
                    assert shown == mine, (shown, mine)
                    mine = {f"{n} {to}" for n, to in self.links.items() if n.startswith(f"{top}/")}
                    shown = {f"{n} {to}" for n, to in links.items() if n.startswith(f"{top}/")}
                    assert shown == mine, (shown, mine)

    def left(self, pending: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """VM0 tells versions apart by their files alone: directories and symlinks wait for the next file."""
        return [row for row in pending if self.service != "vm0" or row["what"] == "save"]

    def look_again(self) -> None:
        _, self.dirs, self.links = self.walk()

    def check_truth(self) -> None:
        """No temporary name is in any version."""
        for row in self.store.artifacts(self.workflow):
            for version in self.store.versions(row.id):
                names = {Path(file.path).name for file in self.store.tree(row.id, version.seq)}
                assert not names & self.temporary, names
        super().check_truth()

    def is_foggy(self, name: str) -> bool:
        return super().is_foggy(name) or any(one.startswith(f"{name}/") for one in self.foggy)

    # -- programs on the mount -------------------------------------------------------------------------------

    def pool(self) -> list[str]:
        made = {f"{above}/{name}" for above in self.dirs for name in ("a", "b.md")}
        return sorted({*made, *self.view} - self.dirs - set(self.links))

    def may_move(self, old: str, new: str) -> bool:
        return old != new and old.partition("/")[0] == new.partition("/")[0]

    def some_dir(self, pick: int) -> str:
        return sorted(self.dirs)[pick % len(self.dirs)]

    @rule(pick=picks, name=st.sampled_from(("x", "y")))
    def make_directory(self, pick: int, name: str) -> None:
        path = f"{self.some_dir(pick)}/{name}"
        if path in self.dirs or path.count("/") > 3:
            return
        self.did("mkdir", path)
        if self.told(path, self.real(path).mkdir, None, *OTHERWISE):
            self.dirs.add(path)
            self.check_listing()

    @rule(pick=picks)
    def remove_directory(self, pick: int) -> None:
        path = self.some_dir(pick)
        if path in self.tops:
            return
        is_empty = not any(one.startswith(f"{path}/") for one in (*self.view, *self.dirs, *self.links))
        self.did("rmdir", path)
        if not is_empty and not self.is_foggy(path):
            with pytest.raises(OSError, match="not empty"):
                self.real(path).rmdir()
        elif self.told(path, self.real(path).rmdir, None, *OTHERWISE, errno.ENOTEMPTY):
            self.dirs -= {one for one in self.dirs if one == path or one.startswith(f"{path}/")}
            if not is_empty:
                for name in [one for one in self.view if one.startswith(f"{path}/")]:
                    self.doubt(name)
                    del self.view[name]
            self.check_listing()

    @rule(pick=picks, to=picks, name=st.sampled_from(("x", "y", "z")))
    def move_directory(self, pick: int, to: int, name: str) -> None:
        old, new = self.some_dir(pick), f"{self.some_dir(to)}/{name}"
        if old in self.tops or not self.may_move(old, new) or new in self.dirs or f"{new}/".startswith(f"{old}/"):
            return
        foggy = self.is_foggy(old) or self.is_foggy(new)
        self.did("rename", old, "to", new)
        if not self.told(old if self.is_foggy(old) else new, lambda: self.rename_path(old, new), None,
                         *OTHERWISE, errno.ENOTEMPTY):  # fmt: skip
            return
        for path in sorted(one for one in self.view if one.startswith(f"{old}/")):
            moved = new + path[len(old) :]
            self.acted |= {path, moved}
            if foggy:
                self.all_in_doubt(path, moved)
            else:
                self.view[moved] = self.view.pop(path)
                self.ledger.saved(self.view[moved], moved)
            self.handles = [(fd, moved if held == path else held) for fd, held in self.handles]
        if foggy:
            self.foggy |= {old, new}
            self.tie_below(old, new)
        swap = [one for one in self.dirs if one == old or one.startswith(f"{old}/")]
        self.dirs = self.dirs - set(swap) | {new + one[len(old) :] for one in swap}
        self.links = {new + n[len(old) :] if n.startswith(f"{old}/") else n: t for n, t in self.links.items()}
        self.check_listing()

    def rename_path(self, old: str, new: str) -> None:
        self.real(old).rename(self.real(new))

    def tie_below(self, old: str, new: str) -> None:
        """Note that what anybody saved below a directory may be below another one."""
        for homes in list(self.ledger.homes.values()):
            for home in homes:
                if home.startswith(f"{old}/"):
                    self.ledger.tie(home, new + home[len(old) :])

    @rule(pick=picks)
    def link(self, pick: int) -> None:
        """Make a symlink, or remove it."""
        path = f"{self.some_dir(pick)}/l"
        if self.foggy:
            return
        self.did("link", path, path in self.links)
        if path in self.links:
            self.real(path).unlink()
            del self.links[path]
        else:
            self.real(path).symlink_to("a")
            self.links[path] = "a"
        self.check_listing()

    # -- the other client ------------------------------------------------------------------------------------

    @rule(pick=picks, size=sizes, how=st.sampled_from(("save", "save", "remove", "move")), to=picks)
    def other_changes(self, pick: int, size: int, how: str, to: int) -> None:
        """Make a version: with another content, without a file, or with a file under another name."""
        name, new, data = self.some(pick), self.some(to), self.ledger.fresh("o", size)
        top, _, path = name.partition("/")
        sha256 = self.store.objects.put(data)
        with self.store.transaction():
            row, tree = next((row, tree) for row, tree in self.trees() if row.name == top)
            files = {file.path: file for file in tree}
            was = files.get(path)
            if how == "save":
                if any(one in files and files[one].sha256 for one in self.above(path)) or self.is_dir(files, path):
                    return
                files[path] = TreeFile(path, sha256, len(data))
            elif was is None or was.sha256 is None:
                return
            elif how == "remove":
                del files[path]
            else:
                to_path = new.partition("/")[2]
                if not new.startswith(f"{top}/") or to_path in files or self.is_dir(files, to_path):
                    return
                if any(one in files and files[one].sha256 for one in self.above(to_path)):
                    return
                files[to_path] = replace(files.pop(path), path=to_path)
            self.save_version(row, list(files.values()))
        self.did("other", how, name, data if how == "save" else new if how == "move" else "")
        old = self.store.objects.read(was.sha256) if was and was.sha256 else None
        self.foggy.add(name)
        self.foggy |= {f"{top}/{above}" for above in self.above(path) if not self.is_dir(files, above)}
        if how == "move" and old is not None:
            self.foggy.add(new)
            self.ledger.tie(name, new)
            self.ledger.moved(old, new)
            return
        if old is not None:
            acted = {name, *self.ledger.homes.get(old, ())} & self.acted
            (self.ledger.doubted if acted else self.ledger.ended)(old)
        if how == "save":
            self.foggy |= {f"{top}/{above}" for above in self.above(path) if f"{top}/{above}" not in self.dirs}
            self.ledger.saved(data, name)

    @staticmethod
    def is_dir(files: dict[str, TreeFile], path: str) -> bool:
        is_own = path in files and files[path].sha256 is None and files[path].target is None
        return is_own or any(one.startswith(f"{path}/") for one in files)

    def save_version(self, row: StoredArtifact, files: list[TreeFile]) -> None:
        """Make a version as the service does: VM0 has one of each content."""
        if self.service == "vm0":
            wanted = content_id(row.uuid, [(file.path, file.sha256) for file in files if file.sha256])
            known = next((one for one in vm0_projection.distinct(self.store, row) if one.id == wanted), None)
            if known is not None:
                self.store.set_current(row.id, known.seq)
                return
        self.store.save_tree(row.id, files)


class LocalTrees(Trees):
    """In the local store."""

    service, dialect = "local", ""


class Vm0Trees(Trees):
    """At VM0."""

    service, dialect = "vm0", "vm0"


@pytest.mark.parametrize("machine", [LocalTrees, Vm0Trees])
def test_two_clients_in_trees(tmp_path_factory: pytest.TempPathFactory, machine: type[Programs]) -> None:
    """Nothing is lost, nothing is there twice, nothing shown is false."""
    run_machine(machine, tmp_path_factory.mktemp("m"), examples=3, steps=30)
