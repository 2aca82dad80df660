"""Versions on demand: commit, diff, restore."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from artifactfs.store import demo
from artifactfs.store.catalog import Store
from tests.support.lab import Lab, Mounted, artifactfs, mounted, service_source
from tests.support.saving import history, listed, local_mount

pytestmark = pytest.mark.fuse

# Nothing is published by itself within a test.
HOLD = ("--publish-delay", "3600")


@pytest.fixture
def tmp_path(tmp_path_factory) -> Path:
    """A short name: the socket of a mount is below it, and has room for 107 bytes."""
    return tmp_path_factory.mktemp("v")


@pytest.fixture
def held(tmp_path: Path):
    """A mount with one workflow, ``w``, that publishes nothing by itself."""
    with local_mount(tmp_path, *HOLD) as mount:
        (mount.path / "w").mkdir()
        yield mount


@pytest.fixture
def tree(held: Mounted) -> Path:
    """A tree of two versions after the empty one: ``x`` has changed, ``y`` was removed, ``d/z`` was made."""
    top = held.path / "w" / "t"
    top.mkdir()
    (top / "x").write_text("one\ntwo\n")
    (top / "y").write_text("y\n")
    held.artifactfs("commit", str(top), "-m", "first")
    (top / "x").write_text("one\n2\n")
    (top / "y").unlink()
    (top / "d").mkdir()
    (top / "d/z").write_text("z\n")
    held.artifactfs("commit", str(top / "d"), "-m", "second")
    return top


def log_of(mount: Mounted, path: Path) -> list[dict[str, Any]]:
    """Return the versions of what a path shows, oldest first."""
    return json.loads(mount.artifactfs("log", "--json", str(path)).stdout)["versions"][::-1]


def said(mount: Mounted, *arguments: str, code: int = 0) -> str:
    """Return what a command says, on both streams; its exit code must be the expected one."""
    done = mount.artifactfs(*arguments, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


# -- commit --------------------------------------------------------------------------------------------------


def test_commit_makes_one_version_with_its_message(held: Mounted, tree: Path):
    """Of everything that was changed in the tree, wherever in it the path leads."""
    found = log_of(held, tree)
    assert [row["message"] for row in found[1:]] == ["first", "second"]
    assert [row["files"] for row in found[1:]] == [2, 2]
    assert "nothing to commit" in said(held, "commit", str(tree), "-m", "again")
    assert len(log_of(held, tree)) == 3


def test_a_dry_run_says_what_would_be_in_it_and_what_not(held: Mounted, tree: Path):
    """Added, changed, removed and moved, with sizes; what is open and what is litter stays here. Nothing is made."""
    (tree / "new").write_text("12345")
    (tree / "x").write_text("other")
    (tree / "d/z").rename(tree / "moved")
    (tree / ".x.swp").write_text("litter")
    with (tree / "open").open("w") as file:
        file.write("half")
        file.flush()
        os.fsync(file.fileno())
        lines = said(held, "commit", str(tree), "--dry-run").splitlines()
    assert lines[:3] == ["R d/z -> moved (2 B)", "A new (5 B)", "M x (5 B)"]
    assert [line for line in lines if line.startswith("stays here: open: it is open")]
    assert [line for line in lines if line.startswith("stays here: .x.swp: ")]
    assert len(lines) == 5
    found = json.loads(said(held, "commit", str(tree), "--dry-run", "--json"))
    assert {(row["status"], row["path"]) for row in found["changes"]} == {
        ("R", "moved"), ("A", "new"), ("M", "x"), ("A", "open")
    }  # fmt: skip
    assert len(log_of(held, tree)) == 3


def test_commit_leaves_out_what_is_open_and_says_so(held: Mounted, tree: Path):
    """The version is made all the same, and the file is in the next one."""
    with (tree / "open").open("w") as file:
        file.write("half")
        file.flush()
        os.fsync(file.fileno())
        (tree / "new").write_text("new")
        told = said(held, "commit", str(tree), "-m", "third")
        assert "w/t/open: open for writing" in told
        assert "is now v4" in told
    said(held, "commit", str(tree), "-m", "fourth")
    assert [row["files"] for row in log_of(held, tree)[3:]] == [3, 4]


def test_commit_is_refused_where_there_is_no_tree(held: Mounted):
    """A file of its own, a workflow; and a message is needed."""
    path = held.path / "w" / "a.txt"
    path.write_text("x")
    held.artifactfs("flush", str(path))
    assert "is not in a tree" in said(held, "commit", str(path), "-m", "x", code=1)
    assert "not part of an artifact" in said(held, "commit", str(held.path / "w"), "-m", "x", code=1)
    said(held, "commit", str(path), code=2)
    said(held, "commit", str(held.home), "-m", "x", code=3)


# -- diff ----------------------------------------------------------------------------------------------------


def test_diff_shows_what_waits_as_diff_does(held: Mounted, tree: Path, tmp_path: Path):
    """The output is a patch."""
    (tree / "x").write_text("one\n2\nthree\n")
    (tree / "d/z").unlink()
    (tree / "new").write_text("no end of line")
    shown = said(held, "diff", str(tree))
    assert "--- a/x\n+++ b/x\n@@ -1,2 +1,3 @@\n one\n 2\n+three\n" in shown
    assert "+++ /dev/null\n@@ -1 +0,0 @@\n-z\n" in shown
    assert "+no end of line\n\\ No newline at end of file\n" in shown
    copy = tmp_path / "copy"
    (copy / "d").mkdir(parents=True)
    (copy / "x").write_text("one\n2\n")
    (copy / "d/z").write_text("z\n")
    subprocess.run(["patch", "-p1", "--quiet"], input=shown, text=True, cwd=copy, check=True)
    assert (copy / "x").read_text() == "one\n2\nthree\n"
    assert (copy / "new").read_text() == "no end of line"
    assert not (copy / "d/z").exists()
    assert said(held, "diff", "--name-only", str(tree)).split() == ["d/z", "new", "x"]
    assert said(held, "diff", "--name-only", str(tree / "x")).split() == ["x"]


def test_diff_compares_versions_with_each_other_and_with_the_present(held: Mounted, tree: Path):
    """By number, id, and the beginning of an id."""
    ids = [row["id"] for row in log_of(held, tree)]
    for old, new in (("v2", "v3"), (ids[1], ids[2]), (ids[1][:8], ids[2][:8]), ("v2", None)):
        arguments = [text for text in (old, new) if text]
        found = json.loads(said(held, "diff", "--json", str(tree), *arguments))
        assert {(row["path"], row["status"]) for row in found} == {("x", "M"), ("y", "D"), ("d/z", "A")}
    back = said(held, "diff", str(tree), "v3", "v2")
    assert "-2\n+two\n" in back
    assert said(held, "diff", str(tree)) == ""
    assert "no version of t is v9" in said(held, "diff", str(tree), "v9", code=1)
    stat = said(held, "diff", "--stat", str(tree), "v2", "v3").splitlines()
    assert [line.split() for line in stat[1:]] == [
        ["A", "d/z", "+1", "-0"], ["M", "x", "+1", "-1"], ["D", "y", "+0", "-1"]
    ]  # fmt: skip


def test_diff_of_a_file_of_its_own_and_of_bytes_that_are_no_text(held: Mounted):
    path = held.path / "w" / "a.bin"
    path.write_text("text\n")
    held.artifactfs("flush", str(path))
    path.write_bytes(b"\0\1\2")
    assert said(held, "diff", str(path)) == "M a.bin: binary files differ (5 B -> 3 B)\n"
    held.artifactfs("flush", str(path))
    path.write_text("other\n")
    assert "-text\n+other\n" in said(held, "diff", str(path), "v1")
    assert "binary files differ (5 B -> 3 B)" in said(held, "diff", str(path), "v1", "v2")


# -- restore -------------------------------------------------------------------------------------------------


def test_restore_of_a_file_is_its_next_version(held: Mounted):
    """Also where the kernel has pages of the other content; the x bit comes back too."""
    path = held.path / "w" / "run.sh"
    path.write_text("first")
    path.chmod(0o755)
    held.artifactfs("flush", str(path))
    path.write_text("second, and longer")
    path.chmod(0o644)
    held.artifactfs("flush", str(path))
    assert path.read_text() == "second, and longer"
    assert "is now v3" in said(held, "restore", str(path), "v1")
    assert path.read_text() == "first"
    assert path.stat().st_mode & 0o100
    assert history(held.path / "w", "run.sh") == [b"first", b"second, and longer", b"first"]
    assert "the same as v1" in said(held, "restore", str(path), "v1")
    assert len(log_of(held, path)) == 3


def test_restore_of_a_tree_brings_back_all_of_it(held: Mounted, tree: Path):
    """What was made since is gone, what was removed is back: one version, and the view is the same as the version."""
    assert "is now v4" in said(held, "restore", str(tree), "v2")
    assert listed(tree) == {"x", "y"}
    assert ((tree / "x").read_text(), (tree / "y").read_text()) == ("one\ntwo\n", "y\n")
    assert said(held, "diff", str(tree), "v2", "v4") == ""
    assert said(held, "diff", str(tree), "v2") == ""
    assert "is now v5" in said(held, "restore", str(tree), "v3")
    assert (listed(tree), (tree / "d/z").read_text()) == ({"x", "d"}, "z\n")
    assert said(held, "diff", str(tree), "v3") == ""


def test_restore_of_a_path_in_a_tree_leaves_the_rest(held: Mounted, tree: Path):
    """Also of one that is there no more, and of a directory."""
    said(held, "restore", str(tree / "y"), "v2")
    assert (listed(tree), (tree / "x").read_text()) == ({"x", "y", "d"}, "one\n2\n")
    assert (tree / "y").read_text() == "y\n"
    (tree / "d/z").unlink()
    (tree / "d").rmdir()
    said(held, "commit", str(tree), "-m", "without d")
    said(held, "restore", str(tree / "d"), "v3")
    assert (tree / "d/z").read_text() == "z\n"
    assert "has no nothing" in said(held, "restore", str(tree / "nothing"), "v2", code=1)
    assert held.status()["pending"] == []


def test_restore_drops_no_changes_unasked(held: Mounted, tree: Path):
    """Of the path itself; others in the tree do not matter. --force drops them."""
    (tree / "x").write_text("mine")
    (tree / "other").write_text("other")
    assert "changes that wait; --force" in said(held, "restore", str(tree / "x"), "v2", code=1)
    assert (tree / "x").read_text() == "mine"
    said(held, "restore", "--force", str(tree / "x"), "v2")
    assert ((tree / "x").read_text(), (tree / "other").read_text()) == ("one\ntwo\n", "other")
    path = held.path / "w" / "a.txt"
    path.write_text("one")
    held.artifactfs("flush", str(path))
    path.write_text("two")
    assert "--force" in said(held, "restore", str(path), "v1", code=1)
    assert path.read_text() == "two"
    said(held, "restore", "--force", str(path), "v1")
    assert history(held.path / "w", "a.txt") == [b"one"]
    with path.open("w") as file:
        file.write("open")
        file.flush()
        os.fsync(file.fileno())
        assert "open for writing" in said(held, "restore", "--force", str(path), "v1", code=1)


def test_a_path_of_the_past_is_no_target(held: Mounted, tree: Path):
    """It says to name the artifact itself."""
    past = tree.parent / "by-id" / next(iter(tree.parent.joinpath("by-id").iterdir())).name / "versions/v2/x"
    assert past.read_text() == "one\ntwo\n"
    for command in (["restore", str(past), "v2"], ["diff", str(past)], ["commit", str(past), "-m", "x"]):
        assert "name the artifact itself" in said(held, *command, code=1)


def test_every_command_says_its_exit_codes_and_knows_paths_outside(held: Mounted):
    for command in (["diff", "/"], ["restore", "/", "v1"], ["commit", "/", "-m", "x"], ["flush", "/"]):
        assert artifactfs(held.environ, *command, check=False).returncode == 3


# -- services ------------------------------------------------------------------------------------------------


def test_restore_of_a_known_version_moves_no_bytes_at_vm0(tmp_path: Path):
    """The service is told to make it current again; nothing is sent to its storage, nothing is fetched from it."""
    with (
        Lab(Store(tmp_path / "store")) as lab,
        mounted(tmp_path, {"vm0": service_source("vm0", lab.bases()["vm0"])}, *HOLD) as mount,
    ):
        top = mount.path / "artifacts" / "report"
        top.mkdir()
        for text in ("first", "second"):
            (top / "x").write_text(text)
            said(mount, "commit", str(top), "-m", text)
        first = next(row["id"] for row in log_of(mount, top) if row["message"] == "first")
        with lab.counted() as seen:
            said(mount, "restore", str(top), first[:8])
        assert [(one.method, one.path) for one in seen if one.origin == "storage"] == []
        assert any(one.path.endswith("/commit") for one in seen)
        assert (top / "x").read_text() == "first"
        assert next(row["id"] for row in log_of(mount, top) if row["current"]) == first


def test_restore_says_where_a_service_keeps_no_versions(tmp_path: Path):
    """Nothing is written there."""
    store = Store(tmp_path / "store")
    demo.fill(store)
    with Lab(store) as lab:
        sources = {"syn": service_source("syntropic137", lab.bases()["syntropic137"])}
        with mounted(tmp_path, sources) as mount:
            path = next(path for path in mount.path.glob("*/exec-*/*/*.md"))
            assert "keeps no earlier versions" in said(mount, "restore", str(path), "v1", code=1)
            assert said(mount, "diff", str(path)) == ""
