"""What close() and fsync() have acknowledged survives: kill -9 at any moment, a full disk, a store that fails."""

import contextlib
import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import Mounted, artifactfs
from tests.support.saving import (
    SEEN_S,
    drafts,
    flushed,
    history,
    killed,
    listed,
    local_mount,
    mount_again,
    shell,
    versions,
)

pytestmark = pytest.mark.fuse

# Opens files for writing, writes, fsyncs if asked to, says so, and keeps them open until it is ended.
WRITER = """
import os, sys
flags = {"edit": os.O_RDWR, "over": os.O_WRONLY | os.O_TRUNC, "new": os.O_WRONLY | os.O_CREAT | os.O_EXCL}
for how, name, text, sync in (line.split(":") for line in sys.argv[1:]):
    fd = os.open(name, flags[how])
    os.write(fd, text.encode())
    if sync == "fsync":
        os.fsync(fd)
print("written", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def tmp_path(tmp_path_factory) -> Path:
    """A short name: the socket of a mount is below it, and has room for 107 bytes."""
    return tmp_path_factory.mktemp("d")


@contextlib.contextmanager
def writing(folder: Path, *files: str) -> Iterator[None]:
    """Have a process write files and keep them open while the block runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, *files], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        try:
            yield
        finally:
            process.kill()


def eventually(is_so) -> None:
    end = time.monotonic() + SEEN_S
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)  # noqa: TID251 - no event loop here


def test_what_was_synced_is_saved_by_the_next_mount(tmp_path: Path):
    """A writer with open files, the mount killed: what it fsynced is there, what it only wrote is as it was before."""
    with local_mount(tmp_path) as mount:
        folder = mount.path / "w"
        (folder / "t").mkdir(parents=True)
        for name in ("edited", "emptied", "only written", "t/inside"):
            (folder / name).write_text(f"before {name}")
        flushed(folder)
        files = (
            "edit:edited:AFTER:fsync", "over:emptied:after:fsync", "new:made:after:fsync",
            "edit:t/inside:AFTER:fsync", "new:t/made:after:fsync",
            "edit:only written:lost:no", "new:never synced:lost:no",
        )  # fmt: skip
        with writing(folder, *files):
            killed(mount)
        mount_again(mount)
        assert (folder / "edited").read_text() == "AFTER" + "before edited"[5:]
        assert (folder / "emptied").read_text() == "after"
        assert (folder / "made").read_text() == "after"
        assert (folder / "t" / "inside").read_text() == "AFTER" + "before t/inside"[5:]
        assert (folder / "t" / "made").read_text() == "after"
        assert (folder / "only written").read_text() == "before only written"
        assert listed(folder) == {"edited", "emptied", "made", "only written", "t"}
        assert history(folder, "emptied") == [b"before emptied", b"after"]
        flushed(folder)
        assert drafts(mount) == []


def test_what_close_acknowledged_is_there_whenever_the_mount_is_killed(tmp_path: Path):
    """Saves one after another until the mount is gone: each that was acknowledged is there, whole."""
    program = """
import os, sys
for number in range(100000):
    fd = os.open(f"f{number % 7}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(fd, f"{number}".encode())
    os.close(fd)
    print(number, flush=True)
"""
    with local_mount(tmp_path) as mount:
        folder = mount.path / "w"
        folder.mkdir()
        for wait_s in (0.15, 0.3):
            process = subprocess.Popen(
                [sys.executable, "-c", program],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            time.sleep(wait_s)  # noqa: TID251 - a moment in the middle of the work
            killed(mount)
            out, _ = process.communicate(timeout=60)
            acknowledged = [int(line) for line in out.split()]
            assert acknowledged
            mount_again(mount)
            for last in acknowledged[-7:]:
                # The one that was under way when the mount died may be there as well.
                texts = {path.read_text() for path in folder.iterdir() if path.name.startswith(f"f{last % 7}")}
                assert texts & {str(last), str(last + 7)}, (last, texts, acknowledged[-9:])
            flushed(folder)
            assert drafts(mount) == []


def test_a_change_by_somebody_else_meanwhile_is_not_overwritten(tmp_path: Path):
    """The mount killed with a synced save, the file saved by another mount, mounted again: both are there."""
    store = tmp_path / "store"
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    with local_mount(tmp_path / "one", store=store) as one:
        folder = one.path / "w"
        (folder / "t").mkdir(parents=True)
        for place in (folder, folder / "t"):
            (place / "f.txt").write_text("base")
        flushed(folder)
        with writing(folder, "over:f.txt:mine:fsync", "over:t/f.txt:mine:fsync", "new:n.txt:mine:fsync"):
            killed(one)
        with local_mount(tmp_path / "two", store=store) as two:
            for name in ("f.txt", "t/f.txt", "n.txt"):
                (two.path / "w" / name).write_text("theirs")
        mount_again(one)
        flushed(folder)
        for place, name in ((folder, "f"), (folder / "t", "f"), (folder, "n")):
            assert (place / f"{name}.txt").read_text() == "theirs"
            (kept,) = [path for path in place.iterdir() if path.name.startswith(f"{name} (conflict ")]
            assert kept.read_text() == "mine"


def test_a_living_mounts_drafts_are_its_own(tmp_path: Path):
    """A second mount of the same owner starts while the first has a synced draft: it takes nothing."""
    with local_mount(tmp_path) as mount:
        folder = mount.path / "w"
        folder.mkdir()
        (folder / "f").write_text("before")
        flushed(folder)
        with writing(folder, "over:f:after:fsync"):
            kept = drafts(mount)
            assert kept
            other = tmp_path / "other"
            artifactfs(mount.environ, "mount", str(other), "mine", "--config", str(mount.home / "config.toml"))
            assert (other / "w" / "f").read_text() == "before"
            artifactfs(mount.environ, "umount", str(other))
            assert drafts(mount) == kept
        eventually(lambda: (folder / "f").read_text() == "after")
        assert history(folder, "f") == [b"before", b"after"]


@pytest.mark.parametrize("how", ["unmounted", "killed"])
def test_names_that_stay_here_stay_over_a_remount(tmp_path: Path, how: str):
    """An editor's swap file outlives the mount, in a workflow and in a tree; a passing name is saved at its end."""
    with local_mount(tmp_path) as mount:
        folder = mount.path / "w"
        (folder / "t").mkdir(parents=True)
        for place in (folder, folder / "t"):
            (place / ".f.swp").write_text("swap")
            (place / "Cargo.lock").write_text("lock")
        if how == "killed":
            killed(mount)
        else:
            mount.artifactfs("umount", str(mount.path))
        mount_again(mount)
        for place in (folder, folder / "t"):
            assert (place / ".f.swp").read_text() == "swap"
            assert (place / "Cargo.lock").read_text() == "lock"
        assert history(folder, "Cargo.lock") == [b"lock"]
        assert (versions(folder, "t")[-1] / "Cargo.lock").read_text() == "lock"
        (folder / ".f.swp").rename(folder / "f")
        (folder / "t" / ".f.swp").unlink()
        assert history(folder, "f") == [b"swap"]
        flushed(folder)
        assert drafts(mount) == []


def test_a_removed_file_does_not_come_back(tmp_path: Path):
    """Written, synced, removed while open, and the mount killed: it stays removed."""
    with local_mount(tmp_path) as mount:
        folder = mount.path / "w"
        folder.mkdir()
        (folder / "old").write_text("x")
        flushed(folder)
        with writing(folder, "new:f:text:fsync", "edit:old:text:fsync"):
            (folder / "f").unlink()
            (folder / "old").unlink()
            killed(mount)
        mount_again(mount)
        assert listed(folder) == set()
        flushed(folder)
        assert listed(folder) == set()
        assert drafts(mount) == []


def test_a_store_that_fails_costs_no_save(tmp_path: Path):
    """Saves while the store takes nothing are shown as written and as pending, and reach it when it is back."""
    with local_mount(tmp_path) as mount:
        folder = mount.path / "w"
        folder.mkdir()
        (folder / "f").write_text("before")
        flushed(folder)
        objects, away = tmp_path / "store" / "objects", tmp_path / "away"
        objects.rename(away)
        objects.write_text("a file where the store wants a directory")
        (folder / "f").write_text("after")
        (folder / "g").write_text("new")
        assert ((folder / "f").read_text(), (folder / "g").read_text()) == ("after", "new")
        mount.artifactfs("flush", check=False)
        assert {row["path"] for row in mount.status()["pending"]} == {"w/f", "w/g"}
        assert "w/g" in (mount.path / ".artifactfs" / "pending").read_text()
        assert "not saved yet" in (mount.path / ".artifactfs" / "errors").read_text()
        (folder / "g").rename(folder / "h")
        objects.unlink()
        away.rename(objects)
        (folder / "h").open("a").close()
        mount.artifactfs("umount", str(mount.path))
        mount_again(mount)
        assert history(folder, "f") == [b"before", b"after"]
        assert history(folder, "h") == [b"new"]
        assert listed(folder) == {"f", "h"}
        assert (mount.status()["pending"], drafts(mount)) == ([], [])


def test_a_save_whose_place_is_gone_keeps_its_bytes_and_stops_no_mount(tmp_path: Path):
    """The workflow gone, or the record damaged, while the mount was dead: it mounts and says where the bytes are."""
    store = tmp_path / "store"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with local_mount(tmp_path / "one", store=store) as one:
        for name in ("gone", "kept"):
            (one.path / name).mkdir()
        with writing(one.path, "new:gone/f:precious:fsync", "new:kept/f:damaged:fsync"):
            killed(one)
        with local_mount(tmp_path / "two", store=store) as two:
            (two.path / "gone").rmdir()
        base = one.home / ".local/state/artifactfs/journal"
        (damaged,) = [draft for draft in base.rglob("*.draft") if draft.read_text() == "damaged"]
        with contextlib.closing(sqlite3.connect(damaged.with_name("journal.db"))) as journal, journal:
            journal.execute("UPDATE changes SET what = '{not json' WHERE number = ?", (int(damaged.stem),))
        mount_again(one)
        one.artifactfs("flush", check=False)
        assert listed(one.path) == {"kept"}
        assert sorted(path.read_text() for path in base.rglob("*.draft")) == ["damaged", "precious"]
        assert "it is kept in" in (one.path / ".artifactfs" / "errors").read_text()


# -- a full disk ---------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB for what is not saved yet."""
    place = tmp_path / "small"
    place.mkdir()
    prefix = [] if os.getuid() == 0 else ["sudo", "-n"]
    command = [*prefix, "mount", "-t", "tmpfs", "-o", f"size=2m,mode=0700,uid={os.getuid()}", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"a test of a full disk mounts one: run as root, or with sudo that asks nothing: {done.stderr}")
    yield place
    subprocess.run([*prefix, "umount", "-l", str(place)], check=True)


def test_a_full_disk_is_said_before_close_returns_and_costs_nothing(tmp_path: Path, small_disk: Path):
    """ENOSPC from write, fsync or close; the old content stays, a new file is none; with room again it works."""
    with local_mount(tmp_path, environ={"XDG_STATE_HOME": str(small_disk)}) as mount:
        folder = mount.path / "w"
        folder.mkdir()
        (folder / "f").write_text("before")
        (folder / "big").write_bytes(b"b" * (1 << 20))
        flushed(folder)
        for name in ("f", "new"):
            with pytest.raises(OSError, match="No space") as caught:
                _write(folder / name, b"x" * (4 << 20))
            assert caught.value.errno == errno.ENOSPC
        assert ((folder / "f").read_text(), history(folder, "f")) == ("before", [b"before"])
        with pytest.raises(OSError, match="No space"):
            os.truncate(folder / "f", 1 << 50)
        assert (folder / "f").read_text() == "before"
        assert listed(folder) == {"f", "big"}
        assert drafts(mount) == []
        (folder / "f").write_text("after")
        assert history(folder, "f") == [b"before", b"after"]
        filler = small_disk / "filler"
        with contextlib.suppress(OSError):
            filler.write_bytes(b"\0" * (2 << 20))
        with pytest.raises(OSError, match="No space"), (folder / "big").open("ab") as file:
            file.write(b"!")
        filler.unlink()
        assert (folder / "big").read_bytes() == b"b" * (1 << 20)
        shell("echo more >> big", folder)
        assert (folder / "big").stat().st_size == (1 << 20) + 5


def _write(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        os.write(fd, data[: len(data) // 2])
        os.write(fd, data[len(data) // 2 :])
    finally:
        os.close(fd)


def test_nothing_is_left_in_the_state_directory(tmp_path: Path):
    """After all kinds of saves and an end of the mount there is no draft, and no directory for drafts, any more."""
    with local_mount(tmp_path) as mount:
        (mount.path / "w" / "t").mkdir(parents=True)
        shell(
            "echo 1 > a; echo 2 >> a; sed -i s/1/3/ a; rm a; touch b; cat b; echo x > t/x; mv t/x t/y; : > t/y",
            mount.path / "w",
        )
        home: Mounted = mount
    base = home.home / ".local/state/artifactfs/journal"
    assert not list(base.iterdir())
    assert shutil.disk_usage(base).free
