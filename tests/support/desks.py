"""Mounted services with many old files, each to be saved once, and what the service was asked for a save.

Rules of this file: what a service has is read from the store behind its dialect, past our client. Of its requests only
those count that can change something.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from artifactfs.store.catalog import Store
from artifactfs.store.rows import TreeFile
from tests.support.lab import Lab, Mounted, Seen, mounted, service_source
from tests.support.saves import OLD
from tests.support.saving import flushed
from tests.support.syntropic137_store import add_file, add_run
from tests.support.vlmrun_samples import DONE_NS, add_upload

# Old files of a desk, if not said otherwise: more than there are tests in a module that take one.
FILES = 80


class Desk(ABC):
    """One place of one service in which files can be saved.

    Attributes:
        source, base: the service and where its dialect is.
        saved, created, removed: the changing requests of a save, of a new file, of a removal.
        emptied, renamed: of a new file without content, and of a rename; None if there is none.
        makes: new names of any kind can be made here.
        text_only: other content is refused.
    """

    source: ClassVar[str]
    base: ClassVar[str]
    saved: ClassVar[Counter[str]]
    created: ClassVar[Counter[str]]
    removed: ClassVar[Counter[str]]
    emptied: ClassVar[Counter[str]]
    renamed: ClassVar[Counter[str] | None] = None
    makes = True
    text_only = False

    def __init__(self, root: Path, files: int = FILES) -> None:
        """Make a store with so many old files."""
        self.store = Store(root / "served")
        self.taken = 0
        self.expected: dict[Path, tuple[set[str], dict[str, bytes]]] = {}
        self.lab: Lab
        self.mount: Mounted
        for number in range(files):
            self.add(number)

    # -- what differs ----------------------------------------------------------------------------------------

    @abstractmethod
    def add(self, number: int) -> None:
        """Put an old file into the store."""

    @abstractmethod
    def place(self, number: int) -> tuple[Path, str]:
        """Return the directory of an old file, below the mount point, and its name."""

    @abstractmethod
    def held(self, folder: Path) -> dict[str, bytes]:
        """Return what the service has of a directory, by name."""

    def named(self, name: str) -> set[str]:
        """Return the names that the save of a file may send: an upload of text may call it anything."""
        return {name}

    # -- saving ----------------------------------------------------------------------------------------------

    def take(self) -> tuple[Path, str]:
        """Return the directory and the name of an old file that nobody has taken yet."""
        self.taken += 1
        folder, name = self.place(self.taken - 1)
        return self.mount.path / folder, name

    @contextlib.contextmanager
    def asked(self) -> Iterator[tuple[Counter[str], set[str]]]:
        """Give the changing requests of the block and of what it leaves to be saved, and the names in them."""
        begin = len(self.lab.seen)
        requests: Counter[str] = Counter()
        names: set[str] = set()
        yield requests, names
        flushed(self.mount.path)
        for one in self.lab.seen[begin:]:
            if one.method not in {"GET", "HEAD"}:
                requests[label(one)] += 1
                names |= names_in(one)

    def becomes(self, folder: Path, names: set[str], content: dict[str, str]) -> None:
        """See that a directory is what it should be: here, at the service, and after a remount."""
        wanted = {name: text.encode() for name, text in content.items()}
        assert self.listed(folder) == names
        assert {name: (folder / name).read_bytes() for name in wanted} == wanted
        assert self.held(folder) == wanted
        self.expected[folder] = (names, wanted)

    def listed(self, folder: Path) -> set[str]:
        """Return the names in a directory that are a user's."""
        return {entry.name for entry in folder.iterdir()} - {"by-id"}

    def remount(self) -> None:
        """End the mount, forget all that was cached, and mount again."""
        self.mount.artifactfs("umount", str(self.mount.path), check=False)  # 1 if something waits
        shutil.rmtree(self.mount.home / ".cache/artifactfs")
        place, config = str(self.mount.path), str(self.mount.home / "config.toml")
        self.mount.artifactfs("mount", place, "--config", config)


class Workflows(Desk):
    """Files in workflows of Syntropic137, one in each."""

    source, base = "syntropic137", "syntropic137"
    text_only = True

    saved: ClassVar = Counter(["POST upload"])
    created: ClassVar = Counter(["POST artifacts"])
    emptied: ClassVar = Counter(["POST artifacts", "POST upload"])  # nothing is created without content
    removed: ClassVar = Counter(["DELETE"])
    renamed: ClassVar[Counter[str] | None] = Counter(["PUT"])

    def add(self, number: int) -> None:
        self.store.add_workflow(f"case {number}", workflow_id=f"wf-{number}")
        add_file(self.store, f"wf-{number}", "doc.md", OLD.encode())

    def place(self, number: int) -> tuple[Path, str]:
        return Path(f"case {number}"), "doc.md"

    def held(self, folder: Path) -> dict[str, bytes]:
        return self._files(row for row in self.store.artifacts() if row.workflow_id == f"wf-{folder.name[5:]}")

    def named(self, name: str) -> set[str]:
        return {name, "content"}  # the service does not look at what an upload is called

    def _files(self, rows: Iterable[Any]) -> dict[str, bytes]:
        found = {}
        for row in rows:
            version = self.store.version(row.id, row.current)
            assert version is not None
            assert version.sha256 is not None
            assert row.name not in found
            found[row.name] = self.store.objects.read(version.sha256)
        return found


class Outputs(Workflows):
    """Outputs of agents at Syntropic137, each of a run: what is there can be saved, and no new file be made."""

    makes = False
    renamed: ClassVar[Counter[str] | None] = None

    def add(self, number: int) -> None:
        if number == 0:
            self.store.add_workflow("runs", workflow_id="wf-1")
        add_file(self.store, "wf-1", "doc.md", OLD.encode(), run=add_run(self.store, "wf-1", number), phase="plan")

    def place(self, number: int) -> tuple[Path, str]:
        return Path(f"runs/exec-{number:012x}/plan"), "doc.md"

    def held(self, folder: Path) -> dict[str, bytes]:
        return self._files(row for row in self.store.artifacts() if row.run_id == folder.parent.name)


class Trees(Desk):
    """Trees of VM0, a file in a directory of each."""

    source, base = "vm0", "vm0"
    saved: ClassVar = Counter(["POST prepare", "PUT archive.tar.gz", "PUT manifest.json", "POST commit"])
    created: ClassVar = saved
    removed: ClassVar = saved
    emptied: ClassVar = saved
    renamed: ClassVar[Counter[str] | None] = saved

    def add(self, number: int) -> None:
        work = next(iter(self.store.workflows()), None) or self.store.add_workflow("work")
        made = self.store.add_artifact(work.id, f"case-{number}", "tree", role="artifact")
        files = [TreeFile(f"sub/{name}", self.store.objects.put(text.encode()), len(text), mtime_ns=DONE_NS)
                 for name, text in (("doc.md", OLD), ("other.md", "other\n"))]  # fmt: skip
        self.store.save_tree(made.id, files)

    def place(self, number: int) -> tuple[Path, str]:
        return Path(f"artifacts/case-{number}/sub"), "doc.md"

    def held(self, folder: Path) -> dict[str, bytes]:
        (tree,) = [row for row in self.store.artifacts() if row.name == folder.parent.name]
        files = {row.path: self.store.objects.read(row.sha256) for row in self.store.tree(tree.id, tree.current)
                 if row.sha256}  # fmt: skip
        assert files.pop("sub/other.md") == b"other\n"
        assert all(path.startswith("sub/") for path in files)
        return {path.removeprefix("sub/"): data for path, data in files.items()}

    def named(self, name: str) -> set[str]:
        return {name, "other.md"}

    def listed(self, folder: Path) -> set[str]:
        return super().listed(folder) - {"other.md"}


class Files(Desk):
    """The uploaded files of VLM Run, all in one directory."""

    source, base = "vlmrun", "vlmrun"
    saved: ClassVar = Counter(["POST files", "DELETE"])
    created: ClassVar = Counter(["POST files"])
    removed: ClassVar = Counter(["DELETE"])
    emptied: ClassVar = created

    def add(self, number: int) -> None:
        upload_id = f"bea05e4d-1c47-4b0a-9a3b-{number:012x}"
        add_upload(self.store, f"doc{number}.md", OLD.encode(), upload_id=upload_id)

    def place(self, number: int) -> tuple[Path, str]:
        return Path("files"), f"doc{number}.md"

    def held(self, folder: Path) -> dict[str, bytes]:
        found = [upload for upload in self.store.uploads() if upload.ready]
        assert len(found) == len({upload.filename for upload in found})
        return {upload.filename: self.store.objects.read(upload.sha256) for upload in found}

    def becomes(self, folder: Path, names: set[str], content: dict[str, str]) -> None:
        """See that the directory is what it should be: here, and for these files at the service."""
        wanted = {name: text.encode() for name, text in content.items()}
        held = self.held(folder)
        assert self.listed(folder) == names
        assert {name: (folder / name).read_bytes() for name in wanted} == wanted
        assert {name: held.get(name) for name in wanted} == wanted
        assert set(held) <= names
        known = self.expected.get(folder, (set(), {}))[1]
        self.expected[folder] = (names, known | wanted)


DESKS: dict[str, Callable[[Path, int], Desk]] = {
    "workflow": Workflows,
    "output": Outputs,
    "tree": Trees,
    "files": Files,
}


def label(one: Seen) -> str:
    """Return what kind of request one is."""
    last = one.path.rsplit("/", 1)[1]
    known = {"artifacts", "upload", "prepare", "commit", "archive.tar.gz", "manifest.json", "files"}
    return f"{one.method} {last}" if last in known else one.method


def names_in(one: Seen) -> set[str]:
    """Return the names of files that a request has in its body, whichever way it names them."""
    text = one.body.decode("utf-8", "replace")
    found = set(re.findall(r'filename="([^"]*)"', text))

    def walk(value: object) -> None:
        if isinstance(value, dict):
            found.update(str(value[key]) for key in ("title", "path", "filename") if value.get(key))
            for below in value.values():
                walk(below)
        elif isinstance(value, list):
            for below in value:
                walk(below)

    with contextlib.suppress(ValueError):
        walk(json.loads(text))
    return {name.rpartition("/")[2] for name in found}


@contextlib.contextmanager
def desk(kind: str, tmp_path: Path, files: int = FILES) -> Iterator[Desk]:
    """Serve the old files of a service, and mount them."""
    made = DESKS[kind](tmp_path, files)
    with Lab(made.store) as lab:
        made.lab = lab
        with mounted(tmp_path, {"it": service_source(made.source, lab.bases()[made.base])}) as mount:
            made.mount = mount
            yield made
    made.store.close()
