"""What waits for its service: flushed, listed, retried, discarded, exported, and left behind by umount."""

import contextlib
import json
import os
import pty
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from artifactfs.store import demo
from artifactfs.store.catalog import Store
from tests.support.lab import Lab, Mounted, artifactfs, mounted, service_source
from tests.support.saving import artifact_id, history, killed, listed, local_mount, mount_again

pytestmark = pytest.mark.fuse

# Nothing is published by itself within a test.
HOLD = ("--publish-delay", "3600")


@pytest.fixture
def tmp_path(tmp_path_factory) -> Path:
    """A short name: the socket of a mount is below it, and has room for 107 bytes."""
    return tmp_path_factory.mktemp("s")


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Mounted]:
    """A mount with one workflow, ``w``, that publishes nothing by itself."""
    with local_mount(tmp_path, *HOLD) as mount:
        (mount.path / "w").mkdir()
        yield mount


def saved(mount: Mounted, name: str, text: str) -> Path:
    """Have a file at the service."""
    path = mount.path / "w" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    mount.artifactfs("flush", str(path))
    return path


def waiting(mount: Mounted, *arguments: str) -> list[dict[str, Any]]:
    """Return what `pending list --json` lists of the mounts and journals of this home."""
    rows = json.loads(mount.artifactfs("pending", "list", "--json", *arguments).stdout)["pending"]
    return [row for row in rows if row["mount"] in {None, str(mount.path)}]


@contextlib.contextmanager
def broken(store: Path) -> Iterator[None]:
    """Have a store that takes nothing while the block runs."""
    objects, away = store / "objects", store.parent / "away"
    objects.rename(away)
    objects.write_text("a file where the store wants a directory")
    try:
        yield
    finally:
        objects.unlink()
        away.rename(objects)


@contextlib.contextmanager
def locked(store: Path) -> Iterator[None]:
    """Have a store that answers nothing for a while to who writes."""
    with contextlib.closing(sqlite3.connect(store / "catalog.db", timeout=30)) as other:
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.rollback()


# -- flush ---------------------------------------------------------------------------------------------------


def test_flush_says_what_could_not_be_published_and_why(held: Mounted, tmp_path: Path):
    """Each with the service's reason; the rest is published, and all of it once the service is back."""
    one = saved(held, "a.txt", "before")
    with broken(tmp_path / "store"):
        one.write_text("after")
        done = held.artifactfs("flush", str(held.path), check=False)
        assert done.returncode == 1
        assert "w/a.txt: " in done.stderr
        assert "directory" in done.stderr  # ENOTDIR, in the system's words
    assert held.artifactfs("flush", str(one)).stderr == ""
    assert history(held.path / "w", "a.txt") == [b"before", b"after"]


def test_flush_names_what_is_open_for_writing_and_does_not_wait_for_it(held: Mounted):
    """The others are published; it says that not everything is there."""
    with (held.path / "w" / "open.txt").open("w") as file:
        file.write("half")
        file.flush()
        os.fsync(file.fileno())
        saved_at_once = held.path / "w" / "b.txt"
        saved_at_once.write_text("b")
        begun = time.monotonic()
        done = held.artifactfs("flush", str(held.path), check=False)
        assert time.monotonic() - begun < 20
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "artifactfs: w/open.txt: open for writing; it is published after it has been closed\n"
        assert [row["path"] for row in waiting(held)] == ["w/open.txt"]
    assert held.artifactfs("flush", str(held.path)).returncode == 0
    assert waiting(held) == []


def test_flush_takes_several_paths_and_only_those(held: Mounted):
    for name in ("a", "b", "c"):
        (held.path / "w" / name).write_text(name)
    held.artifactfs("flush", str(held.path / "w/a"), str(held.path / "w/b"))
    assert [row["path"] for row in waiting(held)] == ["w/c"]


def test_flush_of_a_file_in_a_tree_publishes_the_tree(held: Mounted):
    """Also of a tree in which nothing but a file's content was changed."""
    path = saved(held, "t/x", "one")
    path.write_text("two")
    held.artifactfs("flush", str(path.parent))
    assert waiting(held) == []


def flush_process(mount: Mounted, *, terminal: bool) -> tuple[subprocess.Popen[bytes], int]:
    """Begin a flush; return it and where its output can be read."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "artifactfs", "flush", str(mount.path)], stdin=subprocess.DEVNULL, stdout=theirs,
        stderr=theirs, env={**mount.environ, "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(theirs)
    return process, ours


def read_all(fd: int) -> str:
    said = b""
    with contextlib.suppress(OSError):  # EIO: the other side of a terminal is closed
        while chunk := os.read(fd, 1 << 16):
            said += chunk
    os.close(fd)
    return said.decode()


def begun_publishing(mount: Mounted) -> None:
    end = time.monotonic() + 20
    while not any(row["state"] == "publishing" for row in mount.status()["pending"]):
        assert time.monotonic() < end
        time.sleep(0.05)  # noqa: TID251 - no event loop here


def test_ctrl_c_stops_waiting_and_says_what_is_left(held: Mounted, tmp_path: Path):
    """Publishing goes on without who waited."""
    (held.path / "w" / "a.txt").write_text("text")
    with locked(tmp_path / "store"):
        process, output = flush_process(held, terminal=False)
        begun_publishing(held)
        process.send_signal(signal.SIGINT)
        said = read_all(output)
        assert process.wait(20) == 130
    assert "stopped waiting; 1 change is not published yet" in said
    assert "w/a.txt" in said
    assert "Traceback" not in said
    assert history(held.path / "w", "a.txt") == [b"text"]


def test_a_terminal_shows_how_far_a_flush_is(held: Mounted, tmp_path: Path):
    """What is being published, and of how many; a pipe gets nothing of it."""
    (held.path / "w" / "a.txt").write_text("text")
    with locked(tmp_path / "store"):
        process, output = flush_process(held, terminal=True)
        begun_publishing(held)
        time.sleep(1.2)  # noqa: TID251 - the next step, of a second, shows it
    said = read_all(output)
    assert process.wait(30) == 0
    assert "publishing" in said
    assert "0/1" in said
    assert "w/a.txt" in said


# -- pending list --------------------------------------------------------------------------------------------


def test_pending_lists_every_kind_of_change(held: Mounted):
    """Files and removals, names in trees; litter of editors is nobody's business."""
    folder = held.path / "w"
    saved(held, "gone.txt", "x")
    saved(held, "t/old", "x")
    saved(held, "t/moved", "y")
    (folder / "gone.txt").unlink()
    (folder / "new.txt").write_text("12345")
    (folder / ".new.txt.swp").write_text("litter")
    (folder / "t/old").unlink()
    (folder / "t/moved").rename(folder / "t/here")
    (folder / "t/d").mkdir()
    rows = {(row["path"], row["what"]): row for row in waiting(held)}
    assert set(rows) == {
        ("w/gone.txt", "remove"), ("w/new.txt", "save"), ("w/t/old", "remove"), ("w/t/moved", "remove"),
        ("w/t/here", "move"), ("w/t/d", "make"),
    }  # fmt: skip
    row = rows["w/new.txt", "save"]
    assert (row["state"], row["size"], row["tries"], row["source"]) == ("sealed", 5, 0, "mine")
    assert 0 < row["next_try_s"] <= 3600
    assert len({row["number"] for row in rows.values()}) == 6
    shown = held.artifactfs("pending", "list", str(folder / "t"))
    assert str(folder / "t/here") in shown.stdout
    assert "new.txt" not in shown.stdout
    assert len((held.path / ".artifactfs/pending").read_text().splitlines()) == 6


def test_what_an_ended_mount_left_is_listed_and_exported(tmp_path: Path):
    """With its source; not touched by looking at it, so that the next mount publishes it."""
    with local_mount(tmp_path, *HOLD) as mount:
        mount.environ["ARTIFACTFS_CONFIG"] = str(mount.home / "config.toml")
        folder = mount.path / "w"
        folder.mkdir()
        saved(mount, "t/x", "one")
        (folder / "t/x").write_text("two")
        (folder / "t/x").rename(folder / "t/y")
        (folder / "f.txt").write_text("precious")
        killed(mount)
        mount.artifactfs("umount", str(mount.path))
        rows = {(row["path"], row["what"]): row for row in waiting(mount)}
        assert set(rows) == {("w/t/y", "save"), ("w/t/x", "remove"), ("w/f.txt", "save")}
        assert {row["source"] for row in rows.values()} == {"mine"}
        out = tmp_path / "out"
        mount.artifactfs("pending", "export", str(out))
        assert {str(p.relative_to(out)): p.read_text() for p in out.rglob("*") if p.is_file()} == {
            "w/f.txt": "precious", "w/t/y": "two"
        }  # fmt: skip
        mount_again(mount)
        mount.artifactfs("flush", str(mount.path))
        assert (folder / "t/y").read_text() == "two"
        assert history(folder, "f.txt") == [b"precious"]


def test_nothing_waits_is_said(held: Mounted):
    assert "nothing waits" in held.artifactfs("pending", "retry", str(held.path)).stdout
    assert "nothing waits" in held.artifactfs("pending", "discard", "--yes", str(held.path)).stdout
    done = held.artifactfs("pending", "retry", "4711", check=False)
    assert (done.returncode, "has the number 4711" in done.stderr) == (1, True)
    outside = held.artifactfs("pending", "list", str(held.home), check=False)
    assert (outside.returncode, outside.stdout) == (3, "")


# -- retry ---------------------------------------------------------------------------------------------------


def test_retry_tries_again_what_was_refused(held: Mounted, tmp_path: Path):
    """By number or path: it says what came of it."""
    path = saved(held, "t/x", "one")
    with contextlib.closing(Store(tmp_path / "store")) as store:
        store.delete_artifact(artifact_id(held.path / "w", "t"))
    path.write_text("two")
    assert held.artifactfs("flush", str(path), check=False).returncode == 1
    (row,) = waiting(held)
    assert row["state"] == "failed"
    assert row["next_try_s"] is None
    done = held.artifactfs("pending", "retry", row["number"], check=False)
    assert (done.returncode, "removed" in done.stderr) == (1, True)
    (again,) = waiting(held)
    assert again["tries"] == row["tries"] + 1
    short = row["number"].rpartition("/")[2]
    assert "dropped: save" in held.artifactfs("pending", "discard", short, "--yes").stdout
    assert waiting(held) == []


# -- discard -------------------------------------------------------------------------------------------------


def test_a_discarded_edit_shows_again_what_the_service_has(held: Mounted):
    """Content, size and time; the kernel's pages are dropped, and the next edit begins with the service's content."""
    path = saved(held, "a.txt", "before")
    edited_at = time.time_ns()
    path.write_text("much longer than before")
    assert path.read_text() == "much longer than before"
    held.artifactfs("pending", "discard", "--yes", str(path))
    assert (path.read_text(), path.stat().st_size) == ("before", 6)
    assert path.stat().st_mtime_ns < edited_at
    with path.open("a") as file:
        file.write(" and after")
    assert history(held.path / "w", "a.txt") == [b"before", b"before and after"]


def test_a_discarded_new_file_is_gone_and_a_discarded_removal_is_back(held: Mounted):
    folder = held.path / "w"
    (folder / "new.txt").write_text("x")
    old = saved(held, "old.txt", "kept")
    (folder / "new.txt").write_text("y")
    old.unlink()
    assert "old.txt" not in listed(folder)
    (folder / "again.txt").write_text("z")
    held.artifactfs("pending", "discard", "--yes", str(old), str(folder / "again.txt"))
    assert listed(folder) == {"new.txt", "old.txt"}
    assert old.read_text() == "kept"
    held.artifactfs("flush", str(held.path))
    assert (old.read_text(), history(folder, "old.txt")) == ("kept", [b"kept"])


def test_discarded_names_of_a_tree_go_back_to_its_base(held: Mounted):
    """One by one, or all of them at once; what is below a directory that was made goes with it."""
    folder = held.path / "w/t"
    saved(held, "t/x", "x")
    saved(held, "t/y", "y")
    (folder / "x").write_text("changed")
    (folder / "y").unlink()
    (folder / "d").mkdir()
    (folder / "d/new").write_text("new")
    held.artifactfs("pending", "discard", "--yes", str(folder / "x"))
    assert ((folder / "x").read_text(), listed(folder)) == ("x", {"x", "d"})
    number = next(row["number"] for row in waiting(held) if row["path"] == "w/t/d")
    held.artifactfs("pending", "discard", "--yes", number)
    assert listed(folder) == {"x"}
    held.artifactfs("pending", "discard", "--yes", str(folder))
    assert (listed(folder), (folder / "y").read_text()) == ({"x", "y"}, "y")
    assert waiting(held) == []
    assert len(json.loads(held.artifactfs("log", "--json", str(folder)).stdout)["versions"]) == 3


def test_what_is_open_for_writing_or_being_published_is_not_discarded(held: Mounted, tmp_path: Path):
    """It says so and fails; nothing is lost."""
    path = held.path / "w" / "a.txt"
    with path.open("w") as file:
        file.write("half")
        file.flush()
        os.fsync(file.fileno())
        done = held.artifactfs("pending", "discard", "--yes", str(path), check=False)
        assert (done.returncode, "open for writing" in done.stderr) == (1, True)
    with locked(tmp_path / "store"):
        process, output = flush_process(held, terminal=False)
        begun_publishing(held)
        done = held.artifactfs("pending", "discard", "--yes", str(path), check=False)
        assert (done.returncode, "being published" in done.stderr) == (1, True)
    assert process.wait(30) == 0, read_all(output)
    assert history(held.path / "w", "a.txt") == [b"half"]


def test_discard_asks_first(held: Mounted):
    """Off a terminal it does nothing without --yes; on one, it takes a yes."""
    path = held.path / "w" / "a.txt"
    path.write_text("x")
    done = held.artifactfs("pending", "discard", str(path), check=False)
    assert (done.returncode, "--yes" in done.stderr) == (1, True)
    for answer, left in ((b"n\n", 1), (b"y\n", 0)):
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "artifactfs", "pending", "discard", str(path)], env=held.environ,
            stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        os.write(ours, answer)
        said = read_all(ours)
        process.wait(30)
        assert "save " in said
        assert len(waiting(held)) == left


def test_a_discarded_change_stays_discarded_after_a_kill(tmp_path: Path):
    """The journal has forgotten it before the command returns."""
    with local_mount(tmp_path, *HOLD) as mount:
        (mount.path / "w").mkdir()
        path = saved(mount, "a.txt", "before")
        tree = saved(mount, "t/x", "before")
        path.write_text("after")
        tree.write_text("after")
        mount.artifactfs("pending", "discard", "--yes", str(mount.path / "w"))
        killed(mount)
        mount_again(mount)
        assert (path.read_text(), tree.read_text()) == ("before", "before")
        assert mount.status()["pending"] == []


# -- export --------------------------------------------------------------------------------------------------


def test_export_copies_what_waits_and_overwrites_nothing(held: Mounted, tmp_path: Path):
    """Under its paths; what is there stays, and it says so."""
    (held.path / "w" / "a.txt").write_text("a")
    (held.path / "w" / "b.txt").write_text("b")
    out = tmp_path / "out"
    (out / "w").mkdir(parents=True)
    (out / "w/a.txt").write_text("mine")
    done = held.artifactfs("pending", "export", str(held.path / "w"), str(out), check=False)
    assert (done.returncode, "is there already" in done.stderr) == (1, True)
    assert {path.name: path.read_text() for path in (out / "w").iterdir()} == {"a.txt": "mine", "b.txt": "b"}
    assert len(waiting(held)) == 2


def test_export_finds_the_bytes_of_damaged_records(tmp_path: Path):
    """Of a mount that has ended and whose journal cannot be read."""
    with local_mount(tmp_path, *HOLD) as mount:
        (mount.path / "w").mkdir()
        (mount.path / "w" / "a.txt").write_text("precious")
        killed(mount)
        mount.artifactfs("umount", str(mount.path))
        (journal,) = mount.home.glob(".local/state/artifactfs/journal/*/mount-*/journal.db")
        for path in journal.parent.glob("journal.db-*"):
            path.unlink()
        journal.write_bytes(b"no database at all" * 500)
        mount.artifactfs("pending", "export", str(tmp_path / "out"))
        (copy,) = (tmp_path / "out/lost").iterdir()
        assert copy.read_text() == "precious"
        assert "is damaged" in mount.artifactfs("pending", "list").stdout
        shutil.rmtree(journal.parent)
        mount_again(mount)


# -- umount --------------------------------------------------------------------------------------------------


def test_umount_publishes_what_waits(tmp_path: Path):
    with local_mount(tmp_path, *HOLD) as mount:
        (mount.path / "w").mkdir()
        (mount.path / "w" / "a.txt").write_text("text")
        done = mount.artifactfs("umount", str(mount.path))
        assert done.stderr == ""
        assert waiting(mount) == []
        mount_again(mount)
        assert history(mount.path / "w", "a.txt") == [b"text"]


@pytest.mark.parametrize("option", [("--no-wait",), ("--wait", "0"), ("--lazy",)], ids=" ".join)
def test_umount_that_does_not_wait_says_what_stays_pending(tmp_path: Path, option: tuple[str, ...]):
    """On stderr; it has worked all the same, and the next mount goes on."""
    with local_mount(tmp_path, *HOLD) as mount:
        (mount.path / "w").mkdir()
        (mount.path / "w" / "a.txt").write_text("text")
        done = mount.artifactfs("umount", *option, str(mount.path))
        assert done.stderr == "artifactfs: 1 change is not published yet; the next mount goes on with that\n"
        assert "unmounted" in done.stdout
        assert [row["path"] for row in waiting(mount)] == ["w/a.txt"]
        mount_again(mount)
        assert history(mount.path / "w", "a.txt") == [b"text"]


def test_umount_does_not_wait_for_what_fails(tmp_path: Path):
    """A service that is away is tried once; then what waits is the next mount's."""
    with local_mount(tmp_path, *HOLD) as mount:
        (mount.path / "w").mkdir()
        path = saved(mount, "a.txt", "before")
        with broken(tmp_path / "store"):
            path.write_text("after")
            begun = time.monotonic()
            done = mount.artifactfs("umount", "--wait", "50", str(mount.path))
            assert time.monotonic() - begun < 30
            assert "1 change is not published yet" in done.stderr
        mount_again(mount)
        assert history(mount.path / "w", "a.txt") == [b"before", b"after"]


def test_umount_waits_no_longer_than_it_is_told(tmp_path: Path):
    """A publish that hangs is left to the next mount."""
    with local_mount(tmp_path, *HOLD) as mount:
        (mount.path / "w").mkdir()
        (mount.path / "w" / "a.txt").write_text("text")
        with broken(tmp_path / "store"):
            assert mount.artifactfs("umount", "--wait", "0.5", str(mount.path)).returncode == 0
        done = artifactfs(mount.environ, "umount", "--wait", "1", "--no-wait", str(mount.path), check=False)
        assert done.returncode == 2
        mount_again(mount)


# -- status, why, mount --------------------------------------------------------------------------------------


def test_why_tells_of_what_waits(held: Mounted, tmp_path: Path):
    """State, tries, the last error and the next try; of a directory, how much waits below it."""
    path = saved(held, "a.txt", "before")
    with broken(tmp_path / "store"):
        path.write_text("after")
        held.artifactfs("flush", str(path), check=False)
        told = held.why("w/a.txt")
        assert told["waits_for"] == "save"
        assert told["waiting_state"] in {"sealed", "publishing"}  # tried again by itself meanwhile, perhaps
        assert told["tries"] >= 1
        assert "directory" in told["last_error"]
        assert told["next_try_s"] >= 0
        assert held.why("w")["waiting_below"] == 1
        path.unlink()
        assert held.why("w/a.txt")["waits_for"] == "remove"


def test_why_tells_what_happened_to_a_conflict_copy(held: Mounted, tmp_path: Path):
    """Beside which file it was kept, and why."""
    path = saved(held, "a.txt", "before")
    with path.open("r+") as file:
        file.write("mine!!")
        with contextlib.closing(Store(tmp_path / "store")) as store:
            store.save_file(artifact_id(held.path / "w", "a.txt"), store.objects.put(b"theirs"), 6)
    held.artifactfs("flush", str(held.path), check=False)
    (copy,) = [name for name in listed(held.path / "w") if "conflict" in name]
    messages = [error["message"] for error in held.why(f"w/{copy}")["recent_errors"]]
    assert any(copy in message for message in messages)


def test_mount_takes_the_ways_of_saving(tmp_path: Path):
    """--write-through waits for the service at close, --read-only takes nothing; status says which."""
    with local_mount(tmp_path, "--write-through", *HOLD) as mount:
        (mount.path / "w").mkdir()
        (mount.path / "w" / "a.txt").write_text("text")
        assert waiting(mount) == []
        assert mount.status()["saving"]["write_through"] is True
        assert "a close waits until the service has" in mount.artifactfs("status", str(mount.path)).stdout
        mount.artifactfs("umount", str(mount.path))
        config = str(mount.home / "config.toml")
        mount.artifactfs("mount", str(mount.path), "mine", "--config", config, "--read-only")
        assert "read-only" in mount.artifactfs("status", str(mount.path)).stdout
        with pytest.raises(OSError, match="Read-only"):
            (mount.path / "w" / "b.txt").write_text("text")


def test_doctor_says_where_the_journal_is(held: Mounted):
    rows = json.loads(held.artifactfs("doctor", "--json", check=False).stdout)
    (row,) = [row for row in rows if row["what"] == "journal"]
    assert row["ok"]
    assert str(held.home) in row["detail"]


def test_flush_succeeds_where_only_a_directory_waits_for_a_change(tmp_path: Path):
    """VM0 makes no version for an empty directory alone: it is said, it goes along later, and it is no failure."""
    world_store = Store(tmp_path / "served")
    demo.fill(world_store)
    with Lab(world_store) as lab:
        source = service_source("vm0", lab.bases()["vm0"])
        with mounted(tmp_path, {"vm0": source}) as mount:
            tree = mount.path / "artifacts" / "site-report"
            (tree / "empty").mkdir()
            done = mount.artifactfs("flush", str(mount.path))
            assert "goes with the next change" in done.stderr
            (row,) = mount.status()["pending"]
            assert row["goes_along"]
            (tree / "empty" / "file").write_text("now")
            assert mount.artifactfs("flush", str(mount.path)).stderr == ""
            assert mount.status()["pending"] == []
    world_store.close()
