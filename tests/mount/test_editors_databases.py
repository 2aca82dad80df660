"""git and SQLite on mounts of the services: what reaches them is what another machine can use."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.desks import Desk, desk
from tests.support.saves import OLD
from tests.support.saving import fails, flushed, need, shell

pytestmark = pytest.mark.fuse

NOTHING: Counter[str] = Counter()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk("tree", tmp_path_factory.mktemp("tree")) as made:
        yield made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk("files", tmp_path_factory.mktemp("files")) as made:
        yield made


@pytest.fixture(scope="module")
def workflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk("workflow", tmp_path_factory.mktemp("workflow")) as made:
        yield made


# -- git -----------------------------------------------------------------------------------------------------


def test_git_keeps_its_own_here_and_the_work_tree_is_published(tree: Desk):
    """init, add, commit, branch, merge, stash and fsck in a tree: nothing of ``.git`` is sent, also after a remount."""
    need("git", "git")
    folder, name = tree.take()
    with tree.asked() as (requests, names):
        shell(
            "git init -q -b main . && git config user.email a@b.c && git config user.name n && git add ."
            " && git commit -qm first && git switch -qc side && sed -i s/old/new/ doc.md && git commit -qam second"
            " && git switch -q main && echo more >> other.md && git commit -qam third && git merge -q --no-edit side"
            " && echo x >> other.md && git stash -q && git gc -q && git fsck --strict",
            folder,
        )
        shell("git checkout -q HEAD~1 -- other.md || true; git reset -q --hard HEAD~1", folder)
    assert set(requests) <= set(tree.saved)
    assert names == {name, "other.md"}
    (artifact,) = [row for row in tree.store.artifacts() if row.name == folder.parent.name]
    kept = {
        file.path for version in tree.store.versions(artifact.id) for file in tree.store.tree(artifact.id, version.seq)
    }
    assert {path.split("/")[-1] for path in kept} <= {"sub", name, "other.md"}
    with tree.asked() as (requests, _):
        assert shell("git status --porcelain && git log --format=%s", folder) == "third\nfirst\n"
        shell("git commit -q --allow-empty -m empty && git gc -q", folder)
    assert requests == NOTHING
    assert "sub/other.md" in kept
    tree.remount()
    assert (
        shell("git log --format=%s && git status --porcelain && git fsck --strict", folder) == "empty\nthird\nfirst\n"
    )


# -- SQLite --------------------------------------------------------------------------------------------------


def _checked(data: bytes, tmp_path: Path) -> list[int]:
    """Open the bytes of a database alone, as who fetches it would; return what is in it."""
    copy = tmp_path / "copy.db"
    copy.write_bytes(data)
    with sqlite3.connect(copy) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        rows = [row[0] for row in opened.execute("SELECT x FROM t ORDER BY x")]
    opened.close()
    return rows


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "wal"])
@pytest.mark.parametrize("place", ["tree", "files"])
def test_a_database_is_one_upload_that_holds_what_was_committed(
    request: pytest.FixtureRequest, tmp_path: Path, place: str, mode: str
):
    """Two programs, three transactions: one upload of a whole database, and none of its journals."""
    need("sqlite3", "sqlite3")
    at: Desk = request.getfixturevalue(place)
    folder, _ = at.take()
    with at.asked() as (requests, names):
        shell(
            f"sqlite3 {mode}.db 'PRAGMA journal_mode={mode}; CREATE TABLE t(x); INSERT INTO t VALUES (1), (2);'", folder
        )
        shell(f"sqlite3 {mode}.db 'BEGIN; INSERT INTO t VALUES (3); UPDATE t SET x = x * 10; COMMIT;'", folder)
    assert requests == at.created
    assert not {name for name in names if name.startswith(f"{mode}.db-")}
    assert _checked(at.held(folder)[f"{mode}.db"], tmp_path) == [10, 20, 30]
    with at.asked() as (requests, names):
        assert shell(f"sqlite3 {mode}.db 'SELECT sum(x) FROM t'", folder) == "60\n"
        shell(f"sqlite3 {mode}.db 'BEGIN; DELETE FROM t; ROLLBACK'", folder)
    assert requests == NOTHING
    with at.asked() as (requests, names):
        shell(f"sqlite3 {mode}.db 'INSERT INTO t VALUES (7)'", folder)
    assert requests == at.saved
    assert _checked(at.held(folder)[f"{mode}.db"], tmp_path) == [7, 10, 20, 30]


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("place", ["tree", "files"])
def test_a_database_in_a_transaction_is_not_published(
    request: pytest.FixtureRequest, tmp_path: Path, place: str, mode: str
):
    """While a program has it open nothing goes; what it had committed when it was killed is what goes."""
    at: Desk = request.getfixturevalue(place)
    folder, _ = at.take()
    name = f"open-{mode}.db"
    opened = sqlite3.connect(folder / name, isolation_level=None)
    opened.execute(f"PRAGMA journal_mode={mode}")
    opened.execute("PRAGMA cache_size=1")
    opened.execute("CREATE TABLE t(x)")
    opened.execute("INSERT INTO t VALUES (1)")
    opened.execute("BEGIN")
    opened.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(2, 500)])
    try:
        begin = len(at.lab.seen)
        at.mount.artifactfs("flush", str(at.mount.path), check=False)
        assert not [one for one in at.lab.seen[begin:] if one.method not in {"GET", "HEAD"}]
        opened.execute("COMMIT")
    finally:
        opened.close()
    flushed(at.mount.path)
    assert _checked(at.held(folder)[name], tmp_path) == list(range(1, 500))


# Leaves a transaction that has begun to write the database itself: its cache is too small for it.
HALF = """
import sqlite3, sys, time
opened = sqlite3.connect(sys.argv[1], isolation_level=None)
opened.executescript("PRAGMA cache_size=1; BEGIN; UPDATE t SET x = x + 1000;")
opened.executemany("INSERT INTO t VALUES (?)", [(number,) for number in range(5000, 8000)])
print("in the middle", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("place", ["tree", "files"])
def test_a_database_whose_program_was_killed_waits_for_the_next_one(
    request: pytest.FixtureRequest, tmp_path: Path, place: str
):
    """Without its journal, which stays here, it would be damaged there; a flush says so, and a remount keeps both."""
    at: Desk = request.getfixturevalue(place)
    folder, _ = at.take()
    before = list(range(3000))
    opened = sqlite3.connect(folder / "half.db")
    opened.execute("CREATE TABLE t(x)")
    opened.executemany("INSERT INTO t VALUES (?)", [(number,) for number in before])
    opened.commit()
    opened.close()
    flushed(at.mount.path)
    begin = len(at.lab.seen)
    with subprocess.Popen([sys.executable, "-c", HALF, folder / "half.db"], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        program.stdout.readline()
        program.kill()
    try:
        for _ in range(2):
            done = at.mount.artifactfs("flush", str(at.mount.path), check=False)
            assert (done.returncode, "in the middle of a transaction" in done.stderr) == (1, True), done.stderr
            assert not [one for one in at.lab.seen[begin:] if one.method not in {"GET", "HEAD"}]
            assert _checked(at.held(folder)["half.db"], tmp_path) == before
            at.remount()
    finally:
        assert shell("sqlite3 half.db 'SELECT count(*), max(x) FROM t'", folder) == "3000|2999\n"
    flushed(at.mount.path)
    assert _checked(at.held(folder)["half.db"], tmp_path) == before
    assert "half.db-journal" not in at.listed(folder)


def test_a_database_and_other_bytes_are_refused_where_only_text_is_kept(workflow: Desk):
    """SQLite and cp are told at once, and nothing is sent or left but what they leave."""
    folder, name = workflow.take()
    before = workflow.listed(folder)
    with workflow.asked() as (requests, _):
        said = fails("sqlite3 data.db 'CREATE TABLE t(x); INSERT INTO t VALUES (1);'", folder)
        assert "Error" in said
        assert "Invalid argument" in fails("head -c 2000 /bin/true > data.bin", folder)
        assert "Invalid argument" in fails(f"cp /bin/true {name}", folder)
        assert "Invalid argument" in fails("dd if=/bin/true of=data.raw bs=4k count=1 conv=fsync status=none", folder)
        shell("rm -f data.db data.db-journal data.raw data.bin", folder)
    assert requests == NOTHING
    workflow.becomes(folder, before, {name: OLD})
