"""Editors and tools on a real mount of the local store: one save, one version, under the right name.

Each program saves its own way: in place, after emptying, through a temporary name, with a backup that was the file a
moment ago. What must come of it is the same: the bytes it meant under the name it meant, the old ones one version
back, nothing left lying about.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.lab import Mounted
from tests.support.saves import NO_SAVES, OLD, SAVES, VIM, Save, by_name, prepared
from tests.support.saving import flushed, history, listed, local_mount, need, shell, versions

pytestmark = pytest.mark.fuse


@pytest.fixture(scope="module")
def mount(tmp_path_factory):
    with local_mount(tmp_path_factory.mktemp("editors")) as mounted:
        yield mounted


def _old(folder: Path) -> None:
    """Publish a file to be saved over."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "doc.md").write_text(OLD)
    flushed(folder)


@pytest.mark.parametrize("save", by_name(SAVES))
def test_one_save_in_a_workflow_is_one_version(mount: Mounted, tmp_path: Path, save: Save):
    """The new bytes are there, the old ones are v1, at once, and nothing else is in the directory."""
    folder = mount.path / f"file {save.name}"
    _old(folder)
    shell(save.script, folder, **prepared(tmp_path, save))
    assert (folder / "doc.md").read_bytes() == save.becomes.encode()
    assert history(folder, "doc.md") == [OLD.encode(), save.becomes.encode()]
    assert listed(folder) == {"doc.md"} | save.leaves


@pytest.mark.parametrize("save", by_name(SAVES))
def test_one_save_in_a_tree_is_one_version(mount: Mounted, tmp_path: Path, save: Save):
    """The same in a directory of a tree, also by a program that removes the file first."""
    workflow = mount.path / f"tree {save.name}"
    folder = workflow / "tree" / "sub"
    _old(folder)
    before = len(versions(workflow, "tree"))
    shell(save.script, folder, **prepared(tmp_path, save))
    assert (folder / "doc.md").read_bytes() == save.becomes.encode()
    *_, old, new = made = versions(workflow, "tree")
    assert len(made) == before + 1
    assert (old / "sub" / "doc.md").read_text() == OLD
    assert (new / "sub" / "doc.md").read_bytes() == save.becomes.encode()
    assert {path.name for path in new.rglob("*")} == {"sub", "doc.md"}
    assert listed(folder) == {"doc.md"} | save.leaves


@pytest.mark.parametrize("script", NO_SAVES)
def test_what_changes_no_content_makes_no_version(mount: Mounted, tmp_path: Path, script: str):
    """Times, modes, owners, opening for writing and saving the same again are accepted and are no versions."""
    folder = mount.path / f"none {NO_SAVES.index(script)}"
    _old(folder)
    shell(script, folder, **prepared(tmp_path, Save("none", script)))
    assert (folder / "doc.md").read_text() == OLD
    assert history(folder, "doc.md") == [OLD.encode()]
    assert listed(folder) == {"doc.md"}


def test_vim_saves_twice_in_one_session_without_a_warning(mount: Mounted):
    """After the first save neither time nor size change, or vim would ask; each save is a version."""
    need(*VIM)
    folder = mount.path / "vim twice"
    _old(folder)
    twice = ("%s/old/new/", "w", "sleep 1300m", "checktime", "%s/new/newer/", "w", "q")
    commands = " ".join(f"-c '{command}'" for command in twice)
    done = shell(f"vim -Nu NONE -es doc.md -c 'set backupskip=' {commands} 2>&1", folder, TERM="dumb")
    assert "changed" not in done
    assert history(folder, "doc.md") == [b"old line\n", b"new line\n", b"newer line\n"]


def test_rsync_a_second_time_sends_nothing(mount: Mounted, tmp_path: Path):
    """Rsync -a keeps times and modes, so a second run over the same mount finds nothing to do."""
    need("rsync", "rsync")
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    for number, name in enumerate(["a.txt", "deep/b.txt", "deep/er/c.sh"]):
        (source / name).write_text(f"{name}\n" * 100)
        os.utime(source / name, (1_500_000_000 + number, 1_500_000_000 + number))
    (source / "deep/er/c.sh").chmod(0o755)
    workflow = mount.path / "rsync twice"
    workflow.mkdir()
    first = shell('rsync -ai "$SOURCE/" tree/', workflow, SOURCE=str(source))
    assert first.count(">f+++") == 3
    made = len(versions(workflow, "tree"))
    second = shell('rsync -ai "$SOURCE/" tree/', workflow, SOURCE=str(source))
    assert ">f" not in second, second
    assert len(versions(workflow, "tree")) == made
    assert shell('diff -r "$SOURCE" tree && stat -c %a tree/deep/er/c.sh', workflow, SOURCE=str(source)) == "755\n"


def test_git_works_in_a_tree(mount: Mounted):
    """init, add, commit, log, status and fsck of a repository that lives in a tree artifact."""
    need("git", "git")
    workflow = mount.path / "git"
    (workflow / "repo").mkdir(parents=True)
    out = shell(
        "git init -q -b main . && git config user.email a@b.c && git config user.name n && echo hello > a.txt"
        " && git add a.txt && git commit -qm first && echo more >> a.txt && git commit -qam second"
        " && git log --format=%s && git status --porcelain && git fsck --strict",
        workflow / "repo",
    )
    assert out == "second\nfirst\n"
    shell("git clone -q repo ../git/clone && cmp repo/a.txt clone/a.txt", workflow)


@pytest.mark.parametrize("mode", ["delete", "truncate", "wal"])
@pytest.mark.parametrize("place", ["workflow", "tree"])
def test_sqlite_keeps_a_database(mount: Mounted, mode: str, place: str):
    """Transactions in every journal mode; another process reads what was committed."""
    need("sqlite3", "sqlite3")
    workflow = mount.path / f"sqlite {mode} {place}"
    folder = workflow if place == "workflow" else workflow / "tree"
    folder.mkdir(parents=True)
    shell(
        f"sqlite3 data.db 'PRAGMA journal_mode={mode}; CREATE TABLE t(x); INSERT INTO t VALUES (1), (2);' >/dev/null"
        " && sqlite3 data.db 'BEGIN; INSERT INTO t VALUES (3); UPDATE t SET x = x * 10; COMMIT;'"
        " && cp data.db ../copy-$$ 2>/dev/null || true",
        folder,
    )
    assert shell("sqlite3 data.db 'SELECT sum(x) FROM t; PRAGMA integrity_check;'", folder) == "60\nok\n"
    assert {name for name in listed(folder) if "-" in name} <= {"data.db-wal", "data.db-shm"}


def test_a_killed_writer_leaves_what_it_wrote_and_the_version_before(mount: Mounted):
    """What a killed program wrote cannot be told from a save; what was there before is one version back."""
    folder = mount.path / "killed writer"
    _old(folder)
    program = "f = open('doc.md', 'w', buffering=1); print('half', file=f); print(1, flush=True); input()"
    writer = subprocess.Popen(
        [sys.executable, "-c", program], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.kill()
    assert history(folder, "doc.md") == [OLD.encode(), b"half\n"]
