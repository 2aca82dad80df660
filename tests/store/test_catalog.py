"""The catalog: what it keeps, in what order, with several writers, and after a crash."""

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactfs import errors
from artifactfs.store.catalog import Store
from artifactfs.store.rows import Run, TreeFile, Upload, content_id

ROOT = Path(__file__).resolve().parents[2]
ABC = hashlib.sha256(b"abc").hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "store")
    yield opened
    opened.close()


def new_file(store: Store, name: str = "a.txt") -> str:
    workflow = store.add_workflow("w")
    return store.add_artifact(workflow.id, name, "file").id


def save(store: Store, artifact_id: str, data: bytes, **facts):
    return store.save_file(artifact_id, store.objects.put(data), len(data), **facts)


def new_run(store: Store, workflow_id: str, number: int, started: int) -> Run:
    run = Run(f"exec-{number:012x}", f"uuid-{number}", workflow_id, "completed", started, None, {"n": number})
    store.add_run(run)
    return run


# -- content ids ---------------------------------------------------------------------------------------------


def test_content_ids_are_those_of_the_service():
    """The hash of a storage's files agrees with the service's own vectors."""
    uuid = "3f0c9b52-1c7e-4d55-9a43-0d6b8f2e7711"
    empty = "e245bb54d3033ea7a5f99add9ad60d35b13d1572b2ad6e63afc1140a13dcb15b"
    three = "81b3b6efbd2f15d8e3d24d9cf9161b4f324fddc0a1c3809ad5071f82958c7827"
    hello, nothing = hashlib.sha256(b"hello\n").hexdigest(), hashlib.sha256(b"").hexdigest()
    assert content_id(uuid, []) == empty
    assert content_id(uuid, [("a.txt", hello), ("a b.txt", hello), ("a", nothing)]) == three


@given(st.permutations([("a", ABC), ("a b", ABC), ("a.b", ABC), ("\U0001f4e6", ABC), ("\uffee", ABC)]))
def test_content_ids_do_not_depend_on_order(files):
    """Files are sorted by the hash itself."""
    assert content_id("u", files) == content_id("u", sorted(files))


# -- workflows and runs --------------------------------------------------------------------------------------


def test_workflows_are_found_by_id_and_by_name(store: Store):
    """One row is asked for, not all; a removed workflow is gone from all ways to it."""
    one = store.add_workflow("same", created_at_ns=2)
    two = store.add_workflow("same", created_at_ns=1)
    assert store.workflow(one.id) == one
    assert store.workflows_named("same") == [two, one]
    store.remove_workflow(two.id)
    assert store.workflow(two.id) is None
    assert store.workflows_named("same") == store.workflows() == [one]
    store.rename_workflow(one.id, "other")
    assert store.workflows_named("same") == []


def test_a_workflow_with_artifacts_cannot_be_removed(store: Store):
    """Only what is in the present counts."""
    workflow = store.add_workflow("w")
    artifact = store.add_artifact(workflow.id, "a", "file")
    with pytest.raises(errors.DirectoryNotEmpty):
        store.remove_workflow(workflow.id)
    store.delete_artifact(artifact.id)
    store.remove_workflow(workflow.id)
    assert store.workflows() == []


def test_runs_are_found_and_replaced(store: Store):
    """A run is found by either id; keeping it again changes it and keeps what points to it."""
    workflow = store.add_workflow("w")
    old, new = new_run(store, workflow.id, 1, 10), new_run(store, workflow.id, 2, 20)
    artifact = store.add_artifact(workflow.id, "a", "file", run_id=old.id)
    assert store.runs(workflow.id) == store.runs() == [new, old]
    assert store.run(old.id) == store.run(old.uuid) == old
    assert store.run("exec-none") is None
    done = Run(old.id, old.uuid, workflow.id, "failed", 10, 30, None)
    store.add_run(done)
    assert store.run(old.id) == done
    assert [a.id for a in store.artifacts_of_run(old.id)] == [artifact.id]
    assert store.last_changes()[workflow.id] >= artifact.created_at_ns


def test_a_run_needs_its_workflow_and_a_uuid_of_its_own(store: Store):
    """What the tables refuse is said in our words."""
    workflow = store.add_workflow("w")
    run = new_run(store, workflow.id, 1, 1)
    with pytest.raises(errors.NotFound):
        store.add_run(Run("exec-2", "u2", "no such workflow", "running", 1, None))
    with pytest.raises(errors.AlreadyExists):
        store.add_run(Run("exec-3", run.uuid, workflow.id, "running", 1, None))


# -- artifacts -----------------------------------------------------------------------------------------------


def test_artifacts_keep_what_they_were_given(store: Store):
    """All columns come back, and each artifact is found by both of its ids."""
    workflow = store.add_workflow("w")
    run = new_run(store, workflow.id, 1, 1)
    artifact = store.add_artifact(
        workflow.id,
        "out/\U0001f4e6\0 \n.md",
        "tree",
        run_id=run.id,
        phase="write",
        role="volume",
        media_type="text/markdown",
        metadata={"title": ["x", {"y": None}]},
    )
    assert store.artifact(artifact.id) == store.artifact(artifact.uuid) == artifact
    assert store.artifacts() == store.artifacts(workflow.id) == [artifact]
    assert store.artifacts("another") == []


def test_artifacts_are_found_by_place_and_name(store: Store):
    """The same name in a run, in a phase and outside are three places."""
    workflow = store.add_workflow("w")
    run = new_run(store, workflow.id, 1, 1)
    plain = store.add_artifact(workflow.id, "n", "file")
    phased = store.add_artifact(workflow.id, "n", "file", run_id=run.id, phase="p")
    assert store.artifacts_named(workflow.id, "n") == [plain]
    assert store.artifacts_named(workflow.id, "n", run_id=run.id, phase="p") == [phased]
    assert store.artifacts_named(workflow.id, "n", run_id=run.id) == []


def test_ids_are_drawn_again_only_when_they_may_be(store: Store, monkeypatch):
    """A drawn id that is taken is drawn again; a given one is refused; what is named must exist."""
    workflow = store.add_workflow("w")
    drawn = iter(["aaaaaa", "aaaaaa", "bbbbbb"])
    monkeypatch.setattr("artifactfs.store.artifacts.secrets.token_hex", lambda _: next(drawn))
    assert store.add_artifact(workflow.id, "1", "file").id == "art_aaaaaa"
    assert store.add_artifact(workflow.id, "2", "file").id == "art_bbbbbb"
    with pytest.raises(errors.AlreadyExists):
        store.add_artifact(workflow.id, "3", "file", artifact_id="art_aaaaaa")
    with pytest.raises(errors.AlreadyExists):
        store.add_artifact(workflow.id, "3", "file", uuid=store.artifacts()[0].uuid, artifact_id="art_cccccc")
    drawn = iter(["dddddd"])
    with pytest.raises(errors.NotFound):
        store.add_artifact("no such workflow", "3", "file")
    with pytest.raises(errors.InvalidRequest):
        store.add_artifact(workflow.id, "3", "neither", artifact_id="art_eeeeee")


def test_text_that_utf8_cannot_say_is_refused(store: Store):
    """A lone surrogate, as in an undecodable file name, is NameNotAllowed and leaves nothing."""
    workflow = store.add_workflow("w")
    with pytest.raises(errors.NameNotAllowed):
        store.add_artifact(workflow.id, os.fsdecode(b"\xff"), "file")
    assert store.artifacts() == []
    assert store.workflows_named("w") == [workflow]


def test_a_deleted_artifact_keeps_its_versions(store: Store):
    """It leaves the present, not the store; deleting again changes nothing."""
    artifact_id = new_file(store)
    save(store, artifact_id, b"1")
    store.delete_artifact(artifact_id)
    gone = store.artifact(artifact_id)
    store.delete_artifact(artifact_id)
    assert gone is not None
    assert gone.deleted
    assert store.artifact(artifact_id) == gone
    assert store.artifacts() == []
    assert store.artifacts(deleted=True) == [gone]
    assert [v.seq for v in store.versions(artifact_id)] == [1]


# -- versions ------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.booleans()), max_size=12))
def test_versions_are_numbered_without_gaps(tmp_path_factory, saves):
    """Each save that changes something is the next number and the present; others make none; times rise."""
    opened = Store(tmp_path_factory.mktemp("s"))
    artifact_id = new_file(opened)
    expected: list[tuple[bytes, bool]] = []
    for data, executable in saves:
        if not expected or expected[-1] != (data, executable):
            expected.append((data, executable))
        version = save(opened, artifact_id, data, executable=executable)
        assert version.seq == len(expected)
    found = opened.versions(artifact_id)
    assert [(opened.objects.read(v.sha256 or ""), v.executable) for v in found] == expected
    assert [v.seq for v in found] == list(range(1, len(expected) + 1))
    assert [v.created_at_ns for v in found] == sorted({v.created_at_ns for v in found})
    # Two versions of one artifact are told apart exactly by their contents and x bits.
    assert len({(v.id, v.extras) for v in found}) == len(set(expected))
    artifact = opened.artifact(artifact_id)
    assert artifact is not None
    assert artifact.current == len(expected)
    opened.close()


def test_a_clock_set_back_does_not_reorder_versions(store: Store, monkeypatch):
    """The newest version has the latest time also when the clock says otherwise; a given time is taken."""
    artifact_id = new_file(store)
    first = save(store, artifact_id, b"1")
    monkeypatch.setattr("artifactfs.store.versions.now_ns", lambda: 5)
    assert save(store, artifact_id, b"2").created_at_ns == first.created_at_ns + 1
    assert save(store, artifact_id, b"3", created_at_ns=7).created_at_ns == 7


def test_an_old_version_made_present_is_what_the_next_save_is_compared_with(store: Store):
    """After going back to v1 a save of v2's content is v3, one of v1's none."""
    artifact_id = new_file(store)
    save(store, artifact_id, b"1")
    save(store, artifact_id, b"2")
    store.set_current(artifact_id, 1)
    assert save(store, artifact_id, b"1").seq == 1
    assert save(store, artifact_id, b"2").seq == 3
    with pytest.raises(errors.NotFound):
        store.set_current(artifact_id, 9)


def test_trees_keep_files_directories_and_links(store: Store):
    """A tree comes back as it was given, by path; sizes and counts are those of its files."""
    workflow = store.add_workflow("w")
    artifact = store.add_artifact(workflow.id, "t", "tree")
    files = [
        TreeFile("z.sh", ABC, 3, True, 5),
        TreeFile("d/e", None),
        TreeFile("l", None, target="../z.sh"),
        TreeFile("d/a", ABC, 3),
    ]
    version = store.save_tree(artifact.id, files, message="m", created_by="agent")
    assert store.tree(artifact.id, 1) == sorted(files, key=lambda file: file.path)
    assert (version.size, version.file_count, version.message, version.created_by) == (6, 2, "m", "agent")
    assert store.present(workflow.id) == [(store.artifact(artifact.id), version)]
    with pytest.raises(errors.AlreadyExists):
        store.save_tree(artifact.id, [TreeFile("a", ABC, 3), TreeFile("a", ABC, 3)])
    assert len(store.versions(artifact.id)) == 1


def test_a_tree_saved_as_it_is_makes_no_version(store: Store):
    """Times and directories that files imply are no change; x bits, links and empty directories are."""
    workflow = store.add_workflow("w")
    tree = store.add_artifact(workflow.id, "t", "tree").id
    store.save_tree(tree, [TreeFile("d/a", ABC, 3, mtime_ns=1)])
    for same in (
        [TreeFile("d/a", ABC, 3, mtime_ns=2)],
        [TreeFile("d", None), TreeFile("d/a", ABC, 3)],
    ):
        assert store.save_tree(tree, same).seq == 1
    changes = (
        [TreeFile("d/a", ABC, 3, True)],
        [TreeFile("d/a", ABC, 3), TreeFile("e", None)],
        [TreeFile("d/a", ABC, 3), TreeFile("e", None, target="d/a")],
        [TreeFile("d/a", ABC, 3), TreeFile("e", None, target="d")],
    )
    assert [store.save_tree(tree, files).seq for files in changes] == [2, 3, 4, 5]
    versions = store.versions(tree)
    assert len({v.id for v in versions}) == 1
    assert len({v.extras for v in versions}) == 5


def test_a_file_is_not_saved_as_a_tree_nor_the_other_way_round(store: Store):
    """A version always is of its artifact's kind, and of an artifact that exists."""
    file_id = new_file(store)
    tree_id = store.add_artifact(store.workflows()[0].id, "t", "tree").id
    with pytest.raises(errors.NotADirectory):
        store.save_tree(file_id, [])
    with pytest.raises(errors.IsADirectory):
        store.save_file(tree_id, ABC, 3)
    with pytest.raises(errors.NotFound):
        store.save_file("art_none", ABC, 3)


def test_a_renamed_artifact_may_leave_its_run(store: Store):
    """Name, workflow and type change together; its versions stay as they were named."""
    here, there = store.add_workflow("here"), store.add_workflow("there")
    run = new_run(store, here.id, 1, 1)
    artifact = store.add_artifact(here.id, "a.md", "file", run_id=run.id, phase="p", media_type="text/markdown")
    before = save(store, artifact.id, b"x")
    store.rename_artifact(artifact.id, "b.md")
    store.rename_artifact(artifact.id, "b.txt", workflow_id=there.id, media_type="text/plain", leave_run=True)
    moved = store.artifact(artifact.id)
    assert moved is not None
    assert (moved.name, moved.workflow_id, moved.run_id, moved.phase) == ("b.txt", there.id, None, "")
    assert moved.media_type == "text/plain"
    assert store.versions(artifact.id) == [before]


def test_uploads_are_kept_replaced_and_forgotten(store: Store):
    """Newest first; one of the same id is replaced."""
    old, new = (Upload(f"u{n}", "f", "assistants", 3, ABC, "m", n, ready=False) for n in (1, 2))
    store.put_upload(old)
    store.put_upload(new)
    assert store.uploads() == [new, old]
    ready = Upload("u1", "f", "assistants", 3, ABC, "m", 1)
    store.put_upload(ready)
    assert store.upload("u1") == ready
    store.delete_upload("u1")
    assert store.upload("u1") is None
    assert store.uploads() == [new]


# -- transactions --------------------------------------------------------------------------------------------


def test_a_change_that_fails_changes_nothing(store: Store):
    """An error inside a transaction takes all of it back, the nested ones too, and the next one works."""

    class Stop(Exception):
        pass

    def fail():
        with store.transaction():
            store.add_workflow("lost")
            assert [w.name for w in store.workflows()] == ["lost"]  # a writer sees what it writes
            raise Stop

    with pytest.raises(Stop):
        fail()
    assert store.workflows() == []
    store.add_workflow("kept")
    assert [w.name for w in store.workflows()] == ["kept"]


def test_a_commit_that_fails_changes_nothing(tmp_path: Path):
    """A full disk at the commit is NoLocalSpace; the store goes on without the change."""
    store = Store(tmp_path)
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(errors.NoLocalSpace):
        store.add_workflow("x" * 100_000)
    store._db.execute("PRAGMA max_page_count=100000")
    store.add_workflow("after")
    assert [w.name for w in store.workflows()] == ["after"]
    store.close()


def test_readers_do_not_wait_for_a_writer(store: Store):
    """While one thread is inside a transaction another reads, and reads what was there before."""
    store.add_workflow("before")
    inside, done = threading.Event(), threading.Event()

    def write():
        with store.transaction():
            store.add_workflow("during")
            inside.set()
            done.wait(10)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert inside.wait(10)
        assert [w.name for w in store.workflows()] == ["before"]
    finally:
        done.set()
        writer.join()
    assert [w.name for w in store.workflows()] == ["before", "during"]


def test_a_store_that_another_holds_too_long_is_timed_out(store: Store):
    """Waiting for another process's transaction ends in TimedOut, not in SQLite's words."""
    other = sqlite3.connect(store.root / "catalog.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store._db.execute("PRAGMA busy_timeout=50")
    with pytest.raises(errors.TimedOut):
        store.add_workflow("w")
    other.execute("ROLLBACK")
    other.close()
    store.add_workflow("w")


def test_a_newer_store_is_refused_and_a_damaged_one_said(tmp_path: Path):
    """Neither is touched; the message says which."""
    Store(tmp_path / "new").close()
    db = sqlite3.connect(tmp_path / "new" / "catalog.db")
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(errors.ConfigError, match="newer"):
        Store(tmp_path / "new")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "catalog.db").write_bytes(b"this is no database" * 400)
    with pytest.raises(errors.CorruptContent):
        Store(tmp_path / "bad")


# -- several processes, and crashes --------------------------------------------------------------------------

WRITER = """
import pathlib, sys
from artifactfs.store.catalog import Store
store = Store(pathlib.Path(sys.argv[1]))
artifact = store.artifact(sys.argv[2])
for number in range(int(sys.argv[4])):
    data = f"{sys.argv[3]} {number}".encode()
    store.save_file(artifact.id, store.objects.put(data), len(data), message=data.decode())
store.close()
"""


def child(script: str, *arguments: object, **pipes):
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, text=True, **pipes)


def test_two_processes_write_at_once(store: Store):
    """Every save of both is a version, numbered once, in each one's own order."""
    artifact_id = new_file(store)
    count = 40
    writers = [child(WRITER, store.root, artifact_id, name, count) for name in ("one", "two")]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    versions = store.versions(artifact_id)
    assert [v.seq for v in versions] == list(range(1, 2 * count + 1))
    for name in ("one", "two"):
        mine = [v.message for v in versions if v.message and v.message.startswith(name)]
        assert mine == [f"{name} {number}" for number in range(count)]
    assert [v.created_at_ns for v in versions] == sorted(v.created_at_ns for v in versions)


def test_processes_that_open_a_new_store_at_once_agree(tmp_path: Path):
    """Whoever comes first makes the tables; none of the others fails."""
    script = "import pathlib, sys; from artifactfs.store.catalog import Store\n"
    script += "Store(pathlib.Path(sys.argv[1])).add_workflow(sys.argv[2])"
    children = [child(script, tmp_path / "new", number) for number in range(4)]
    assert [process.wait(60) for process in children] == [0] * 4
    store = Store(tmp_path / "new")
    assert sorted(w.name for w in store.workflows()) == ["0", "1", "2", "3"]
    store.close()


STEPPER = """
import pathlib, sys
from artifactfs.store.catalog import Store
from artifactfs.store.rows import TreeFile

def step(name):
    print(name, flush=True)
    sys.stdin.readline()

store = Store(pathlib.Path(sys.argv[1]))
artifact = store.artifact(sys.argv[2])
step("opened")
def half():
    yield b"half of "
    step("half an object")
    yield b"the bytes"
sha256, size = store.objects.put_stream(half())
step("an object")
with store.transaction():
    store.save_tree(artifact.id, [TreeFile("first", sha256, size)])
    step("inside")
    store.save_tree(artifact.id, [TreeFile("second", sha256, size)])
    step("before the commit")
step("committed")
store.save_tree(artifact.id, [TreeFile("third", sha256, size)])
step("again")
"""
STEPS = ("opened", "half an object", "an object", "inside", "before the commit", "committed", "again")


@pytest.mark.parametrize("last", STEPS)
def test_a_killed_writer_leaves_whole_versions_only(store: Store, last: str):
    """After kill -9 at any step the store opens, holds what was committed and can be written to."""
    workflow = store.add_workflow("w")
    tree = store.add_artifact(workflow.id, "t", "tree").id
    with child(STEPPER, store.root, tree, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        for step in STEPS[: STEPS.index(last) + 1]:
            assert writer.stdout.readline().strip() == step
            if step == last:
                os.kill(writer.pid, signal.SIGKILL)
            else:
                writer.stdin.write("\n")
                writer.stdin.flush()
        writer.wait(10)
    again = Store(store.root)
    expected = {"committed": ["first", "second"], "again": ["first", "second", "third"]}.get(last, [])
    versions = again.versions(tree)
    assert [again.tree(tree, v.seq)[0].path for v in versions] == expected
    for version in versions:
        for file in again.tree(tree, version.seq):
            assert hashlib.sha256(again.objects.read(file.sha256 or "")).hexdigest() == file.sha256
    artifact = again.artifact(tree)
    assert artifact is not None
    assert artifact.current == len(expected)
    assert again._all("PRAGMA integrity_check") == [("ok",)]
    assert again.save_tree(tree, [TreeFile("after", ABC, 3)]).seq == len(expected) + 1
    again.close()
