"""Scenarios that the state machines of two clients have found, each in its shortest form."""

from __future__ import annotations

import os

import pytest

from artifactfs.store.catalog import Store
from artifactfs.store.rows import TreeFile
from tests.support.lab import mounted, service_source
from tests.support.saving import flushed, history, listed, local_mount, mount_again
from tests.support.vm0_world import tree

pytestmark = pytest.mark.fuse

SLOW = "[mount]\npublish-delay = 30\n"


@pytest.fixture
def work(tmp_path):
    """A workflow in which nothing is published by itself for the length of a test."""
    with local_mount(tmp_path, extra_config=SLOW) as mount:
        folder = mount.path / "w"
        folder.mkdir()
        yield folder


def test_a_file_removed_made_again_and_removed_again_is_gone(work):
    """What was there before the second one does not come back."""
    (work / "a").write_text("one\n")
    flushed(work)
    (work / "a").unlink()
    (work / "a").write_text("two\n")
    (work / "a").unlink()
    assert listed(work) == set()
    flushed(work)
    assert listed(work) == set()


def test_a_file_removed_made_again_and_renamed_leaves_nothing(work):
    """Neither closed nor still open for writing; the new name has the new content alone."""
    (work / "a").write_text("one\n")
    flushed(work)
    (work / "a").unlink()
    (work / "a").write_text("two\n")
    (work / "a").rename(work / "b")
    assert listed(work) == {"b"}
    (work / "b").unlink()
    with (work / "b").open("w") as file:
        file.write("three\n")
        (work / "b").rename(work / "c")
        assert listed(work) == {"c"}
    flushed(work)
    assert listed(work) == {"c"}
    assert history(work, "c") == [b"three\n"]


def test_what_was_listed_in_a_tree_and_is_renamed_leaves_its_old_name(tmp_path):
    """A file, and a directory with a file: in the next version of the tree each is there once."""
    store = Store(tmp_path / "store")
    made = store.add_artifact(store.add_workflow("w").id, "t", "tree")
    data = store.objects.put(b"data\n")
    store.save_tree(made.id, [TreeFile("a", data, 5), TreeFile("d/b", data, 5)])
    with local_mount(tmp_path, extra_config=SLOW) as mount:
        tree = mount.path / "w/t"
        (tree / "a").rename(tree / "c")
        (tree / "d").rename(tree / "e")
        flushed(tree)
        assert [file.path for file in store.tree(made.id, 2) if file.sha256] == ["c", "e/b"]
    store.close()


def test_a_save_in_a_tree_is_shown_after_a_remount(tmp_path, lab):
    """Not the version before, as the listing that the mount had kept says."""
    tree(lab.store, "t", {"a": b"one\n"})
    with mounted(tmp_path, {"mine": service_source("vm0", lab.bases()["vm0"])}, names=("mine",)) as mount:
        file = mount.path / "artifacts/t/a"
        assert file.read_text() == "one\n"
        file.write_text("two\n")
        mount.artifactfs("umount", str(mount.path))
        mount_again(mount)
        assert file.read_text() == "two\n"


def test_a_save_by_rename_over_a_file_whose_upload_lost_its_answer_is_one_artifact(tmp_path, lab):
    """What the lost try has made is not left beside the save."""
    workflow = lab.store.add_workflow("w").id
    with mounted(tmp_path, {"mine": service_source("syntropic137", lab.bases()["syntropic137"])}, names=("mine",),
                 extra_config=SLOW) as mount:  # fmt: skip
        file = mount.path / "w/a"
        assert listed(file.parent) == set()
        file.write_text("one\n")
        lab.fault("", lose_answer=True, method="POST", times=1)
        lab.fault("/artifacts", status=500, method="GET")
        assert mount.artifactfs("flush", str(mount.path), check=False).returncode
        assert [row.name for row in lab.store.artifacts(workflow)] == ["a"]
        file.with_name("a.tmp.1").write_text("two\n")
        file.with_name("a.tmp.1").rename(file)
        lab.heal()
        flushed(mount.path)
        (row,) = lab.store.artifacts(workflow)
        version = lab.store.version(row.id, row.current)
        assert version
        assert lab.store.objects.read(version.sha256) == b"two\n"


def test_what_somebody_else_saved_after_it_was_removed_here_stays(tmp_path):
    """The removal was of what was there before, and that nobody sees any more."""
    store = Store(tmp_path / "store")
    workflow = store.add_workflow("w").id
    made = store.add_artifact(workflow, "a", "file")
    store.save_file(made.id, store.objects.put(b"one\n"), 4)
    with local_mount(tmp_path, extra_config=SLOW) as mount:
        file = mount.path / "w/a"
        assert file.read_text() == "one\n"
        file.unlink()
        store.save_file(made.id, store.objects.put(b"theirs\n"), 7)
        flushed(mount.path)
        assert file.read_text() == "theirs\n"
        file.unlink()
        flushed(mount.path)
        assert not store.artifacts(workflow)
    store.close()


def test_a_file_removed_while_its_save_at_a_service_of_new_ids_is_half_done_is_gone(tmp_path, lab):
    """What the listing has under the name is the file before, which the end of that save has removed."""
    with mounted(tmp_path, {"mine": service_source("vlmrun", lab.bases()["vlmrun"])}, names=("mine",),
                 extra_config=SLOW) as mount:  # fmt: skip
        file = mount.path / "files/f.md"
        file.write_text("one\n")
        flushed(mount.path)
        assert listed(file.parent) == {"f.md"}
        lab.fault("/files", status=502, method="DELETE")
        file.write_text("two\n")
        assert mount.artifactfs("flush", str(mount.path), check=False).returncode
        assert len(list(lab.store.uploads())) == 2
        file.unlink()
        lab.heal()
        flushed(mount.path)
        assert not list(lab.store.uploads())
        assert not file.exists()
        assert listed(file.parent) == set()


def test_a_version_of_a_tree_leaves_the_inodes_of_what_it_does_not_change(tmp_path, lab):
    """Who began to write to one of them would else do so beside the file that its directory shows since then."""
    tree(lab.store, "t", {"a": b"one\n", "b": b"two\n", "d/c": b"three\n"})
    with mounted(tmp_path, {"mine": service_source("vm0", lab.bases()["vm0"])}, names=("mine",),
                 extra_config=SLOW) as mount:  # fmt: skip
        top = mount.path / "artifacts/t"
        (top / "b").write_text("new\n")
        flushed(mount.path)
        before = {path: os.stat(top / path).st_ino for path in ("a", "b", "d", "d/c")}
        with (top / "b").open("a") as file:
            file.write("more\n")
            (top / "a").write_text("newer\n")
            flushed(mount.path)
            assert {"a", "b", "d"} == listed(top)
        assert (top / "b").read_text() == "new\nmore\n"
        assert {path: os.stat(top / path).st_ino for path in before} == before
        flushed(mount.path)
        assert {path: os.stat(top / path).st_ino for path in before} == before
        assert (top / "b").read_text() == "new\nmore\n"


@pytest.mark.parametrize(("service", "folder"), [("syntropic137", "w"), ("vm0", "artifacts/t"), ("vlmrun", "files")])
def test_a_file_opened_before_its_save_is_published_and_read_after_it_is_whole(tmp_path, lab, service, folder):
    """Also if nothing of it is in the kernel's memory: it was empty then, where content is no blob of its own."""
    tree(lab.store, "t", {"a": b"one\n"}) if service == "vm0" else lab.store.add_workflow("w")
    with mounted(tmp_path, {"mine": service_source(service, lab.bases()[service])}, names=("mine",),
                 extra_config=SLOW) as mount:  # fmt: skip
        file = mount.path / folder / "new.md"
        file.write_text("new\n")
        with file.open("rb", buffering=0) as reading:
            flushed(mount.path)
            os.posix_fadvise(reading.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert reading.read() == b"new\n"
