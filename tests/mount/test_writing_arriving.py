"""What is changed in a tree whose archive is still on its way."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from artifactfs.store.rows import StoredArtifact
from tests.support.control import ask
from tests.support.lab import Lab, Mounted, mounted, service_source
from tests.support.saving import flushed, killed, listed, mount_again
from tests.support.vm0_world import file, tree

pytestmark = pytest.mark.fuse

FIRST, SECOND = (random.Random(seed).randbytes(600_000) for seed in range(2))
# The server sends files in the order of their names: the first has come, the second not all of it.
HELD_AT = 900_000
# For a change that waits for nothing to be made; whether it is one that waits is not what is tested here.
MOMENT_S = 0.7
NEW = b"new\n"


def append(here: Path) -> None:
    with (here / "a").open("ab") as file:
        file.write(NEW)


def replace(here: Path) -> None:
    (here / "a.tmp").write_bytes(NEW)
    (here / "a.tmp").replace(here / "a")


def truncate(here: Path) -> None:
    os.truncate(here / "a", 5)


def rename(here: Path) -> None:
    (here / "a").rename(here / "c")


def exchange(here: Path) -> None:
    (here / "a").replace(here / "b")


def remove(here: Path) -> None:
    (here / "a").unlink()


def overwrite(here: Path) -> None:
    (here / "a").write_bytes(NEW)


def mark(here: Path) -> None:
    (here / "a").chmod(0o755)


def make(here: Path) -> None:
    (here / "c").write_bytes(NEW)


CHANGES: dict[Callable[[Path], None], dict[str, bytes]] = {
    append: {"a": FIRST + NEW, "b": SECOND},
    replace: {"a": NEW, "b": SECOND},
    truncate: {"a": FIRST[:5], "b": SECOND},
    rename: {"c": FIRST, "b": SECOND},
    exchange: {"b": FIRST},
    remove: {"b": SECOND},
    overwrite: {"a": NEW, "b": SECOND},
    mark: {"a": FIRST, "b": SECOND},
    make: {"a": FIRST, "b": SECOND, "c": NEW},
}


def contents(here: Path) -> dict[str, bytes]:
    return {name: (here / name).read_bytes() for name in listed(here)}


def test_changes_while_the_archive_is_on_its_way(tmp_path: Path, lab: Lab) -> None:
    """Each is one of what is there at the end, whoever has the file open; nothing else changes."""
    cases = {f"{change.__name__} {seen}": change for change in CHANGES for seen in ("open", "closed")}
    for name in cases:
        tree(lab.store, name, {"a": FIRST, "b": SECOND})
    go_on = threading.Event()
    lab.fault("archive.tar.gz", method="GET", stall_after=HELD_AT, go_on=go_on)
    source = {"mine": service_source("vm0", lab.bases()["vm0"])}
    with mounted(tmp_path, source, names=("mine",)) as mount, ThreadPoolExecutor(len(cases)) as pool:
        top = mount.path / "artifacts"
        try:
            numbers = dict(zip(cases, pool.map(lambda name: (top / name / "a").stat().st_ino, cases), strict=True))
            assert len(mount.status()["archives"]) == len(cases), "all are on their way"
            readers = {name: (top / name / "a").open("rb") for name in cases if name.endswith("open")}
            changed = [pool.submit(change, top / name) for name, change in cases.items()]
            time.sleep(MOMENT_S)  # noqa: TID251 - no event loop here
        finally:
            go_on.set()
        for each in changed:
            each.result()
        wanted = {name: CHANGES[change] for name, change in cases.items()}
        assert {name: contents(top / name) for name in cases} == wanted
        for name, reader in readers.items():
            with reader:
                assert os.fstat(reader.fileno()).st_ino == numbers[name]
                assert reader.read() in {FIRST, wanted[name].get("a")}
        flushed(mount.path)
        assert {name: contents(top / name) for name in cases} == wanted
        mount.artifactfs("umount", str(mount.path))
        mount_again(mount)
        assert {name: contents(top / name) for name in cases} == wanted


# -- others save while an archive is on its way ----------------------------------------------------------------------

THEIRS = b"theirs\n"


def held(lab: Lab, artifact: StoredArtifact) -> dict[str, bytes]:
    newest = lab.store.tree(artifact.id, lab.store.versions(artifact.id)[-1].seq)
    return {row.path: lab.store.objects.read(row.sha256 or "") for row in newest}


def save(lab: Lab, artifact: StoredArtifact, files: dict[str, bytes]) -> None:
    lab.store.save_tree(artifact.id, [file(lab.store, path, data) for path, data in files.items()])


def arriving(mount: Mounted) -> list[object]:
    """Return the archives on their way; without a child process, whose copies of descriptors would be closed."""
    found: list[object] = ask(mount, verb="status")["archives"]
    return found


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)  # noqa: TID251 - no event loop here


def shows(path: Path, data: bytes) -> None:
    """Wait until a file shows what others have made of it; without reading, which waits for what is on its way."""
    until(lambda: path.stat().st_size == len(data), "what others saved shows as it is now")


ENDS = ["lands before the close", "lands after the close", "lands after a kill", "never lands, after a kill"]


@pytest.mark.parametrize("end", ENDS)
def test_who_emptied_a_file_before_others_saved_it_overwrites_nothing(tmp_path: Path, lab: Lab, end: str) -> None:
    """Nobody knew the hash of what he began with: theirs has the name, ours is beside it, whenever that is known."""
    report = tree(lab.store, "report", {"a": FIRST, "b": SECOND})
    go_on = threading.Event()
    lab.fault("archive.tar.gz", method="GET", stall_after=HELD_AT, go_on=go_on, times=1)
    source = {"mine": service_source("vm0", lab.bases()["vm0"])}
    quick = ("--poll-interval", "0.3", "--publish-delay", "0.1")
    with mounted(tmp_path, source, *quick, names=("mine",)) as mount:
        here = mount.path / "artifacts/report"
        try:
            opened = os.open(here / "a", os.O_WRONLY | os.O_TRUNC)
            os.write(opened, NEW)
            assert arriving(mount), "it is on its way"
            save(lab, report, {"a": THEIRS, "b": THEIRS})
            shows(here / "b", THEIRS)
            if end == "lands before the close":
                go_on.set()
                until(lambda: not arriving(mount), "it has come")
            os.close(opened)
            if end.endswith("kill"):
                killed(mount)
        finally:
            go_on.set()
        if end.startswith("never"):
            lab.fault("archive.tar.gz", method="GET", status=404)
        if end.endswith("kill"):
            mount_again(mount)
        flushed(mount.path)
        lab.heal()
        there = held(lab, report)
        assert (there.pop("a"), there.pop("b")) == (THEIRS, THEIRS)
        (name,) = there
        assert "conflict" in name
        assert there[name] == NEW
        assert contents(here) == held(lab, report)


def test_who_empties_what_others_have_made_of_a_file_overwrites_it(tmp_path: Path, lab: Lab) -> None:
    """Nobody here knew the hash of that yet; changes from before it wait meanwhile, and it is no conflict with them."""
    report = tree(lab.store, "report", {"a": FIRST, "b": SECOND})
    source = {"mine": service_source("vm0", lab.bases()["vm0"])}
    with mounted(tmp_path, source, "--poll-interval", "0.3", "--publish-delay", "300", names=("mine",)) as mount:
        here = mount.path / "artifacts/report"
        (here / "c").write_bytes(NEW)
        go_on = threading.Event()
        lab.fault("archive.tar.gz", method="GET", stall_after=HELD_AT, go_on=go_on, times=1)
        try:
            save(lab, report, {"a": FIRST + NEW, "b": SECOND})
            shows(here / "a", FIRST + NEW)
            (here / "a").write_bytes(NEW)
            assert arriving(mount), "it is still on its way"
        finally:
            go_on.set()
        flushed(mount.path)
        assert held(lab, report) == {"a": NEW, "b": SECOND, "c": NEW} == contents(here)
