"""Editors and tools on a real mount of the local store: one save, one version, under the right name.

Each program saves its own way: in place, after emptying, through a temporary name, with a backup that was the file a
moment ago. What must come of it is the same: the bytes it meant under the name it meant, the old ones one version
back, nothing left lying about.
"""

import os
import pty
import select
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.lab import Mounted
from tests.support.saving import flushed, history, listed, local_mount, need, shell, versions

pytestmark = pytest.mark.fuse

OLD = "old line\n"


@pytest.fixture(scope="module")
def mount(tmp_path_factory):
    with local_mount(tmp_path_factory.mktemp("editors")) as mounted:
        yield mounted


@dataclass(frozen=True)
class Save:
    """One way to save: a shell script in the directory of ``doc.md`` (``$NEW``: the new content elsewhere).
    """

    name: str
    script: str
    becomes: str = "new line\n"
    tool: tuple[str, str] = ("bash", "bash")


VIM = ("vim", "vim")
EX = "vim -Nu NONE -n -es doc.md -c 'set nomore {}' -c '%s/old/new/' -c 'wq'"
PYTHON = f'"{sys.executable}" -c '

SAVES = [
    Save("echo", "echo 'new line' > doc.md"),
    Save("two commands into one file", "(echo new; echo line) > doc.md", "new\nline\n"),
    Save("append", "echo more >> doc.md", OLD + "more\n"),
    Save("cp", 'cp "$NEW" doc.md'),
    Save("cp -p", 'cp -p "$NEW" doc.md'),
    Save("cp --backup", 'cp --backup=simple --suffix="~" "$NEW" doc.md; rm "doc.md~"'),
    Save("tee", "echo 'new line' | tee doc.md >/dev/null"),
    Save("dd", 'dd if="$NEW" of=doc.md conv=fsync status=none'),
    Save("dd into the middle", "printf NEW | dd of=doc.md bs=1 seek=4 conv=notrunc status=none", "old NEWe\n"),
    Save("truncate", "truncate -s 3 doc.md", "old"),
    Save("truncate to longer", "truncate -s 12 doc.md", OLD + "\0\0\0"),
    Save("sed -i", "sed -i s/old/new/ doc.md", tool=("sed", "sed")),
    Save("perl -i", "perl -i -pe s/old/new/ doc.md", tool=("perl", "perl")),
    Save("sort -o", "sort -r -o doc.md doc.md <(echo x)", "x\n" + OLD),
    Save("install", 'install -m 644 "$NEW" doc.md'),
    Save("mv from elsewhere", 'cp "$NEW" "$NEW.mv"; mv -f "$NEW.mv" doc.md'),
    Save("mv within", 'cp "$NEW" doc.md.part; mv doc.md.part doc.md'),
    Save("mv within by a name that is not passing", 'cp "$NEW" draft.md; mv draft.md doc.md'),
    Save("tar -x", 'tar -C "$(dirname "$NEW")" -cf "$NEW.tar" doc.md; tar -xf "$NEW.tar"'),
    Save("rsync", 'rsync -a "$(dirname "$NEW")/doc.md" doc.md', tool=("rsync", "rsync")),
    Save("rsync --inplace", 'rsync -a --inplace "$NEW" doc.md', tool=("rsync", "rsync")),
    Save("patch", "printf -- '--- doc.md\\n+++ doc.md\\n@@ -1 +1 @@\\n-old line\\n+new line\\n' | patch -s doc.md",
         tool=("patch", "patch")),
    Save("python open", PYTHON + "\"open('doc.md', 'w').write('new line\\n')\""),
    Save("python in place with fsync", PYTHON + "\"import os; f = open('doc.md', 'r+b'); f.write(b'new'); f.flush();"
         " os.fsync(f.fileno()); f.seek(4); f.write(b'LINE'); f.flush(); os.fsync(f.fileno())\"", "new LINE\n"),
    Save("python mmap", PYTHON + "\"import mmap; f = open('doc.md', 'r+b'); m = mmap.mmap(f.fileno(), 0);"
         " m[0:3] = b'new'; m.flush(); m.close(); f.close()\""),
    Save("python os.replace", PYTHON + "\"import os, tempfile; f, n = tempfile.mkstemp(dir='.');"
         " os.write(f, b'new line\\n'); os.fsync(f); os.close(f); os.replace(n, 'doc.md')\""),
    Save("write-file-atomic", PYTHON + "\"import os; n = 'doc.md.tmp.321.1700000000';"
         " open(n, 'w').write('new line\\n'); os.chmod(n, 0o644); os.rename(n, 'doc.md')\""),
    Save("gio: renamed while open", PYTHON + "\"import os; f = open('.goutputstream-PBAGZ3', 'w');"
         " f.write('new line\\n'); f.flush(); os.fsync(f.fileno()); os.rename(f.name, 'doc.md'); f.close()\""),
    Save("emacs: a second open without a write", "echo 'new line' > doc.md; exec 9<>doc.md; exec 9>&-"),
    Save("vim backupcopy=auto", EX.format("backup backupcopy=auto") + '; rm -f "doc.md~"', tool=VIM),
    Save("vim backupcopy=yes", EX.format("writebackup backupcopy=yes"), tool=VIM),
    Save("vim backupcopy=no", EX.format("writebackup backupcopy=no"), tool=VIM),
    Save("vim nowritebackup", EX.format("nowritebackup"), tool=VIM),
    Save("vim with a swap file", "vim -Nu NONE -es doc.md -c 'set nomore' -c '%s/old/new/' -c 'wq'",
         tool=VIM),
]  # fmt: skip


def _names(saves):
    return [pytest.param(save, id=save.name) for save in saves]


def _prepare(folder: Path, tmp_path: Path, save: Save) -> dict[str, Any]:
    need(*save.tool)
    new = tmp_path / "doc.md"
    new.write_text("new line\n")
    os.utime(new, (1_600_000_000, 1_600_000_000))
    (folder / "doc.md").write_text(OLD)
    flushed(folder)
    return {"NEW": str(new), "TERM": "dumb"}


@pytest.mark.parametrize("save", _names(SAVES))
def test_one_save_in_a_workflow_is_one_version(mount: Mounted, tmp_path: Path, save: Save):
    """The new bytes are there, the old ones are v1, at once, and nothing else is in the directory."""
    folder = mount.path / f"file {save.name}"
    folder.mkdir()
    variables = _prepare(folder, tmp_path, save)
    shell(save.script, folder, **variables)
    assert (folder / "doc.md").read_text() == save.becomes
    assert history(folder, "doc.md") == [OLD.encode(), save.becomes.encode()]
    assert listed(folder) == {"doc.md"}


@pytest.mark.parametrize("save", _names(SAVES))
def test_one_save_in_a_tree_is_one_version(mount: Mounted, tmp_path: Path, save: Save):
    """The same in a directory of a tree, also by a program that removes the file first."""
    workflow = mount.path / f"tree {save.name}"
    folder = workflow / "tree" / "sub"
    folder.mkdir(parents=True)
    variables = _prepare(folder, tmp_path, save)
    before = len(versions(workflow, "tree"))
    shell(save.script, folder, **variables)
    assert (folder / "doc.md").read_text() == save.becomes
    made = versions(workflow, "tree")[before:]
    assert len(made) == 1
    assert (versions(workflow, "tree")[before - 1] / "sub" / "doc.md").read_text() == OLD
    assert (versions(workflow, "tree")[-1] / "sub" / "doc.md").read_text() == save.becomes
    assert listed(folder) == {"doc.md"}


NO_SAVE = [
    "touch doc.md",
    "touch -d '2020-01-01' doc.md",
    "chmod 600 doc.md",
    "chmod +x doc.md",
    'chown "$(id -u):$(id -g)" doc.md',
    ": >> doc.md",
    "exec 9<>doc.md; exec 9>&-",
    'printf "old line\\n" > doc.md',
    "truncate -s 9 doc.md",
    "cat doc.md; head -c 3 doc.md; wc -c doc.md; cksum doc.md",
    "vim -Nu NONE -es doc.md -c 'qa!' < /dev/null || true",
    "cp doc.md /tmp/artifactfs-test-$$; cp /tmp/artifactfs-test-$$ doc.md; rm /tmp/artifactfs-test-$$",
]


@pytest.mark.parametrize("script", NO_SAVE)
def test_what_changes_no_content_makes_no_version(mount: Mounted, script: str):
    """Times, modes, owners, opening for writing and saving the same again are accepted and are no versions."""
    folder = mount.path / f"none {NO_SAVE.index(script)}"
    folder.mkdir()
    (folder / "doc.md").write_text(OLD)
    flushed(folder)
    shell(script, folder, TERM="dumb")
    assert (folder / "doc.md").read_text() == OLD
    assert history(folder, "doc.md") == [OLD.encode()]


def test_vim_saves_twice_in_one_session_without_a_warning(mount: Mounted):
    """After the first save neither time nor size change, or vim would ask; each save is a version."""
    need(*VIM)
    folder = mount.path / "vim twice"
    folder.mkdir()
    (folder / "doc.md").write_text(OLD)
    flushed(folder)
    done = shell(
        "vim -Nu NONE -es doc.md -c '%s/old/new/' -c 'w' -c 'sleep 1300m' -c 'checktime' -c '%s/new/newer/' -c 'w'"
        " -c 'q' 2>&1",
        folder, TERM="dumb",
    )  # fmt: skip
    assert "changed" not in done
    assert history(folder, "doc.md") == [b"old line\n", b"new line\n", b"newer line\n"]


def test_nano_saves_in_place(mount: Mounted):
    """A person's keys in nano on a terminal: one version, no droppings."""
    need("nano", "nano")
    folder = mount.path / "nano"
    folder.mkdir()
    (folder / "doc.md").write_text(OLD)
    flushed(folder)
    child, terminal = pty.fork()
    if child == 0:  # pragma: no cover - becomes nano
        os.chdir(folder)
        os.execvpe("nano", ["nano", "-I", "doc.md"], {**os.environ, "TERM": "xterm", "HOME": "/nonexistent"})
    try:
        _read_until(terminal, b"old line")
        os.write(terminal, b"new ")
        os.write(terminal, b"\x13")  # ^S saves
        os.write(terminal, b"\x18")  # ^X leaves
        _read_until(terminal, None)
    finally:
        os.close(terminal)
        _, status = os.waitpid(child, 0)
    assert status == 0
    assert history(folder, "doc.md") == [b"old line\n", b"new old line\n"]
    assert listed(folder) == {"doc.md"}


def _read_until(terminal: int, wanted: bytes | None) -> None:
    """Read what a program shows until a text, or until it ends."""
    shown, end = b"", time.monotonic() + 20
    while time.monotonic() < end and (wanted is None or wanted not in shown):
        if select.select([terminal], [], [], 0.5)[0]:
            try:
                chunk = os.read(terminal, 4096)
            except OSError:  # the program has ended
                return
            if not chunk:
                return
            shown += chunk
    assert wanted is None or wanted in shown, shown


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
    folder.mkdir()
    (folder / "doc.md").write_text(OLD)
    flushed(folder)
    program = "f = open('doc.md', 'w', buffering=1); print('half', file=f); print(1, flush=True); input()"
    writer = subprocess.Popen(
        [sys.executable, "-c", program], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.kill()
    assert history(folder, "doc.md") == [OLD.encode(), b"half\n"]
