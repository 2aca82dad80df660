"""What others change shows by itself, and costs little: real mounts that look every third of a second.

The kernel believes for a minute what it was told once, so whatever shows sooner was pushed.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artifactfs.store.catalog import Store
from artifactfs.store.rows import StoredArtifact, TreeFile
from tests.support.control import ask
from tests.support.lab import Lab, Mounted, mounted, service_source
from tests.support.log_guard import LogGuard
from tests.support.port import Port
from tests.support.saving import flushed
from tests.support.syntropic137_store import START_NS, add_file

pytestmark = pytest.mark.fuse

POLL_S = 0.3
POLL = ("--poll-interval", str(POLL_S))
# Far below the minute for which names are believed, far above what a look takes on a busy machine.
SOON_S = 30.0


@pytest.fixture(autouse=True)
def _servers_may_complain(expected_logs: LogGuard) -> None:
    """The tests' own servers break their answers on purpose, and say so."""
    expected_logs("Error in ASGI Framework", logger="hypercorn", level=logging.ERROR)


def until(condition: Callable[[], object], what: str, within_s: float = SOON_S) -> None:
    """Wait for something that must come true sooner than the kernel would ask by itself."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)  # noqa: TID251 - no event loop here


def wait(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251 - no event loop here


def status(mount: Mounted) -> dict[str, Any]:
    found: dict[str, Any] = ask(mount, verb="status")
    return found


def polling(mount: Mounted) -> dict[str, Any]:
    found: dict[str, Any] = status(mount)["sources"][0]["polling"]
    return found


def looked(mount: Mounted, times: int) -> None:
    """Wait until the mount has looked so many times more."""
    before = polling(mount)["looks"]
    until(lambda: polling(mount)["looks"] >= before + times, "it looks")


def vm0(lab: Lab) -> dict[str, dict[str, object]]:
    return {"mine": service_source("vm0", lab.bases()["vm0"])}


def syntropic137(lab: Lab) -> dict[str, dict[str, object]]:
    return {"mine": service_source("syntropic137", lab.bases()["syntropic137"])}


def save(store: Store, artifact: StoredArtifact, **files: str) -> None:
    """Make the next version of a tree, as another client does; underscores in names stand for dots."""
    rows = [
        TreeFile(name.replace("__", "/").replace("_", "."), store.objects.put(text.encode()), len(text))
        for name, text in files.items()
    ]
    store.save_tree(artifact.id, rows)


def add_tree(store: Store, name: str, **files: str) -> StoredArtifact:
    home = next(iter(store.workflows()), None) or store.add_workflow("of trees")
    artifact = store.add_artifact(home.id, name, "tree", role="artifact")
    save(store, artifact, **files)
    return artifact


@pytest.fixture
def research(lab: Lab) -> Lab:
    """A workflow of Syntropic137 with three files."""
    lab.store.add_workflow("Research", workflow_id="wf-1", created_at_ns=START_NS)
    for name in ("one.md", "two.md", "three.md"):
        add_file(lab.store, "wf-1", name, name.encode())
    return lab


def names(directory: Path) -> set[str]:
    return set(os.listdir(directory)) - {"by-id"}


# -- what others do ------------------------------------------------------------------------------------------------


def test_new_and_removed_artifacts_show_by_themselves(research: Lab, tmp_path: Path) -> None:
    """A name that was absent a moment ago is there, one that was removed is not, before the kernel would ask."""
    with mounted(tmp_path, syntropic137(research), *POLL) as mount:
        place = mount.path / "Research"
        assert names(place) == {"one.md", "two.md", "three.md"}
        assert not (place / "four.md").exists()
        assert (place / "one.md").read_bytes() == b"one.md"
        add_file(research.store, "wf-1", "four.md", b"four")
        until((place / "four.md").exists, "what was made shows under the name that was absent")
        assert (place / "four.md").read_bytes() == b"four"
        assert "four.md" in names(place)
        (one,) = research.store.artifacts_named("wf-1", "one.md")
        research.store.delete_artifact(one.id)
        until(lambda: not (place / "one.md").exists(), "what was removed does not show")
        assert names(place) == {"two.md", "three.md", "four.md"}


def test_a_new_workflow_shows_by_itself(research: Lab, tmp_path: Path) -> None:
    with mounted(tmp_path, syntropic137(research), *POLL) as mount:
        assert os.listdir(mount.path) == ["Research"]
        assert not (mount.path / "Later").exists()
        research.store.add_workflow("Later", workflow_id="wf-2", created_at_ns=START_NS)
        until((mount.path / "Later").is_dir, "a directory that was absent shows")


def test_the_next_version_of_a_tree_shows_in_it(lab: Lab, tmp_path: Path) -> None:
    """Changed, new and removed files, also deep inside; the directory stays the one that a shell stands in."""
    tree = add_tree(lab.store, "report", a_txt="old", gone_txt="gone", sub__deep_txt="deep")
    with mounted(tmp_path, vm0(lab), *POLL) as mount:
        here = mount.path / "artifacts/report"
        before = here.stat().st_ino
        assert (here / "a.txt").read_text() == "old"
        assert (here / "gone.txt").exists()
        assert (here / "sub/deep.txt").read_text() == "deep"
        assert not (here / "new.txt").exists()
        assert not (here / "sub/new.txt").exists()
        shell = subprocess.Popen(["sleep", "600"], cwd=here / "sub")
        try:
            save(lab.store, tree, a_txt="newer", new_txt="new", sub__deep_txt="deeper", sub__new_txt="too")
            until(lambda: (here / "a.txt").read_text() == "newer", "the new version shows")
            until((here / "new.txt").exists, "a name that was absent shows")
            until((here / "sub/new.txt").exists, "a name that was absent deeper inside shows")
            until(lambda: not (here / "gone.txt").exists(), "what is not in the new version does not show")
            until(lambda: (here / "sub/deep.txt").read_text() == "deeper", "deeper inside, too")
            assert names(here) == {"a.txt", "new.txt", "sub"}
            assert here.stat().st_ino == before
            assert os.readlink(f"/proc/{shell.pid}/cwd") == str(here / "sub")
        finally:
            shell.kill()
            shell.wait()


# -- what is open, or being written --------------------------------------------------------------------------------


def test_an_open_file_stays_the_version_it_was_opened_on(lab: Lab, tmp_path: Path) -> None:
    """To its end, or ESTALE; never bytes of another version."""
    old, new = "o" * 300_000, "n" * 300_000
    tree = add_tree(lab.store, "report", big_txt=old)
    with mounted(tmp_path, vm0(lab), *POLL) as mount:
        path = mount.path / "artifacts/report/big.txt"
        fd = os.open(path, os.O_RDONLY)
        try:
            assert os.pread(fd, 10, 0) == b"o" * 10
            save(lab.store, tree, big_txt=new)
            until(lambda: path.read_text()[:1] == "n", "who opens it now gets the new one")
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            try:
                assert os.pread(fd, 400_000, 0) == old.encode()
            except OSError as error:
                assert error.errno == errno.ESTALE  # noqa: PT017 - one of two right answers
        finally:
            os.close(fd)
        assert path.read_text() == new


def test_a_file_that_is_being_written_is_left_alone(lab: Lab, tmp_path: Path) -> None:
    """Others' versions come and go around it; what is written here is read here, and both are kept."""
    tree = add_tree(lab.store, "report", a_txt="old", b_txt="old")
    with mounted(tmp_path, vm0(lab), *POLL, "--publish-delay", "0.1") as mount:
        here = mount.path / "artifacts/report"
        number = (here / "a.txt").stat().st_ino
        fd = os.open(here / "a.txt", os.O_RDWR | os.O_TRUNC)
        try:
            os.write(fd, b"mine")
            save(lab.store, tree, a_txt="old", b_txt="theirs")
            until(lambda: (here / "b.txt").read_text() == "theirs", "the other file shows as it is now")
            looked(mount, 2)
            assert (here / "a.txt").read_text() == "mine"
            assert (here / "a.txt").stat().st_ino == number
            assert os.pread(fd, 100, 0) == b"mine"
        finally:
            os.close(fd)
        flushed(mount.path)
        newest = lab.store.tree(tree.id, lab.store.versions(tree.id)[-1].seq)
        assert {row.path: lab.store.objects.read(row.sha256 or "") for row in newest} == {
            "a.txt": b"mine", "b.txt": b"theirs",
        }  # fmt: skip
        looked(mount, 2)
        assert (here / "a.txt").read_text() == "mine"
        assert (here / "a.txt").stat().st_ino == number


@pytest.mark.parametrize("how", [os.O_RDWR, os.O_RDWR | os.O_TRUNC], ids=["in place", "anew"])
@pytest.mark.parametrize("look", ["cat", "ls", "nothing"])
def test_who_began_before_others_saved_the_file_overwrites_nothing(
    lab: Lab, tmp_path: Path, how: int, look: str
) -> None:
    """Also when this mount knows of that before the file is closed: theirs has the name, and ours is beside it."""
    tree = add_tree(lab.store, "report", a_txt="old", b_txt="old")
    with mounted(tmp_path, vm0(lab), *POLL, "--publish-delay", "0.1") as mount:
        here = mount.path / "artifacts/report"
        if look != "nothing":
            mount.run(look, str(here / "a.txt"))
        fd = os.open(here / "a.txt", how)
        try:
            os.write(fd, b"mine")
            save(lab.store, tree, a_txt="theirs", b_txt="theirs")
            until(lambda: (here / "b.txt").read_text() == "theirs", "the other file shows as it is now")
        finally:
            os.close(fd)
        flushed(mount.path)
        newest = lab.store.tree(tree.id, lab.store.versions(tree.id)[-1].seq)
        held = {row.path: lab.store.objects.read(row.sha256 or "") for row in newest}
        assert (held.pop("a.txt"), held.pop("b.txt")) == (b"theirs", b"theirs")
        assert list(held.values()) == [b"mine"]
        assert "conflict" in next(iter(held))


# -- what it costs -------------------------------------------------------------------------------------------------


def test_nothing_changed_tells_the_kernel_nothing(research: Lab, tmp_path: Path) -> None:
    """Looks go on, no name is invalidated, and the kernel still answers every name with the mount stopped."""
    with mounted(tmp_path, syntropic137(research), *POLL) as mount:
        place = mount.path / "Research"
        paths = [place / name for name in names(place)]
        sizes = [path.stat().st_size for path in paths]
        absent = place / "no.md"
        # With this very command: the kernel learns from the first that nobody here knows of birth times.
        subprocess.run(["stat", *paths, absent], capture_output=True, check=False)
        told = status(mount)["invalidations"]
        looked(mount, 6)  # two listings: root and workflow
        assert [path.stat().st_size for path in paths] == sizes
        pid = status(mount)["pid"]
        assert status(mount)["invalidations"] == told
        os.kill(pid, signal.SIGSTOP)
        try:
            done = subprocess.run(["stat", *paths, absent], capture_output=True, text=True, timeout=60, check=False)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert done.stderr.count("No such file") == 1
        assert done.stdout.count("File:") == len(paths)


def test_one_change_tells_of_one_name(research: Lab, tmp_path: Path) -> None:
    with mounted(tmp_path, syntropic137(research), *POLL) as mount:
        place = mount.path / "Research"
        assert [(place / name).stat() for name in names(place)]
        told = status(mount)["invalidations"]
        (one,) = research.store.artifacts_named("wf-1", "one.md")
        research.store.delete_artifact(one.id)
        until(lambda: not (place / "one.md").exists(), "what was removed does not show")
        looked(mount, 4)
        assert status(mount)["invalidations"] == told + 1


def test_only_what_was_looked_at_is_asked_for_and_nothing_after_the_end(research: Lab, tmp_path: Path) -> None:
    """Nobody has looked: no list. Somebody has: each listing once an interval at most. Unmounted: nothing at all."""
    for number in range(2, 30):
        research.store.add_workflow(f"Other {number}", workflow_id=f"wf-{number}", created_at_ns=START_NS)
    with mounted(tmp_path, syntropic137(research), "--poll-interval", "1") as mount:
        with research.counted() as requests:
            wait(2.5)
        assert not [r for r in requests if "/sse/" not in r.path and "/executions" not in r.path]
        assert names(mount.path / "Research")
        looked(mount, 2)
        began = time.monotonic()
        with research.counted() as requests:
            wait(4)
        intervals = time.monotonic() - began + 1
        lists = [r for r in requests if "/sse/" not in r.path and "/executions" not in r.path]
        assert lists
        # Of the root two requests, of the workflow two; nothing of those that nobody entered.
        assert len(lists) <= 4 * intervals
        assert {r.query for r in lists if "workflow_id" in r.query} <= {
            r.query for r in lists if "workflow_id=wf-1" in r.query
        }
        for number in range(2, 30):
            names(mount.path / f"Other {number}")
        wait(1)
        began = time.monotonic()
        with research.counted() as requests:
            wait(4)
        intervals = time.monotonic() - began + 1
        asked = {r.query.partition("workflow_id=")[2].partition("&")[0] for r in requests if "workflow_id" in r.query}
        assert 2 <= len(asked) <= 16
        assert len(requests) <= (16 * 2 + 2) * intervals
    with research.counted() as requests:
        wait(2.5)
    assert not requests


def test_polling_can_be_turned_off(research: Lab, tmp_path: Path) -> None:
    """With 0 nobody is asked anything that nobody looks for, and no stream is held."""
    with mounted(tmp_path, syntropic137(research), "--poll-interval", "0") as mount, research.counted() as requests:
        assert names(mount.path / "Research")
        seen = len(requests)
        wait(1.5)
        assert polling(mount) == {"interval_s": 0.0}
    assert [r.path for r in requests if "/sse/" in r.path] == []
    assert len(requests) - seen <= 4  # those of the look itself: they were counted at the end of the block


# -- failures ------------------------------------------------------------------------------------------------------


def test_failing_looks_shorten_nothing(research: Lab, tmp_path: Path) -> None:
    """Errors, cut answers and an empty body while it looks: all names stay, none is absent, and it finds out again."""
    faults = ({"status": 500}, {"cut_after": 40}, {"status": 200, "body": b""}, {"status": 429})
    with mounted(tmp_path, syntropic137(research), *POLL) as mount:
        place = mount.path / "Research"
        whole = names(place)
        for fault in faults:
            research.fault(r"/artifacts\?", **fault)
            until(lambda: polling(mount)["failures"], "it looks, and fails")
            assert names(place) == whole
            assert all((place / name).exists() for name in whole)
            research.heal()
            until(lambda: not polling(mount)["failures"], "it looks, and recovers")
        add_file(research.store, "wf-1", "four.md", b"four")
        until(lambda: "four.md" in names(place), "it recovers")


def test_offline_it_looks_seldom_and_recovers_by_itself(research: Lab, tmp_path: Path) -> None:
    """One listing in ever longer pauses; what was made meanwhile shows when the network is back."""
    port = Port()
    port.open(research.url)
    source = service_source("syntropic137", research.bases()["syntropic137"].replace(research.url, port.url))
    with mounted(tmp_path, {"mine": source}, *POLL) as mount:
        place = mount.path / "Research"
        whole = names(place)
        looked(mount, 2)
        port.close()
        until(lambda: polling(mount)["failures"], "it finds out that nobody is there")
        looks = polling(mount)["looks"]
        wait(5)
        # Of 0.5 s doubled each time, half of it at least: 0.5, 1, 2, 4; without pauses it were 16 times two listings.
        assert polling(mount)["looks"] - looks <= 6
        assert names(place) == whole
        add_file(research.store, "wf-1", "four.md", b"four")
        back = Port(port.address)
        back.open(research.url)
        try:
            until(lambda: "four.md" in names(place), "it recovers", 60)
        finally:
            back.close()
