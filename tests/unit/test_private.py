"""What is made is the owner's alone, whatever the umask, and nothing of another user is taken for ours."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifactfs import database, private
from artifactfs.content.block_store import BlockStore
from artifactfs.journal.staging import Staging
from artifactfs.store.catalog import Store

UMASKS = [0o000, 0o022, 0o077, 0o277]


@contextlib.contextmanager
def under(umask: int) -> Iterator[None]:
    """Run the block under another umask."""
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be another user than the one who made the files of this test, also where that one is root."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    monkeypatch.setattr(private, "ROOT", -1)


@pytest.mark.parametrize("umask", UMASKS)
def test_what_is_made_is_the_owners_alone(tmp_path: Path, umask: int) -> None:
    """And can be used by them; also the directories above that were missing."""
    with under(umask):
        private.directory(tmp_path / "a/b/c")
        private.file(tmp_path / "a/b/c/f")
    assert [mode(tmp_path / one) for one in ("a", "a/b", "a/b/c", "a/b/c/f")] == [0o700, 0o700, 0o700, 0o600]


def test_what_was_open_to_others_is_closed(tmp_path: Path) -> None:
    """But for a directory that the user chose: it may be `/tmp`."""
    ours, chosen, file = tmp_path / "ours", tmp_path / "chosen", tmp_path / "f"
    for place in (ours, chosen):
        place.mkdir()
        place.chmod(0o1777)
    file.write_text("kept")
    file.chmod(0o666)
    private.directory(ours)
    private.directory(chosen, close=False)
    private.file(file)
    assert (mode(ours), mode(chosen), mode(file)) == (0o1700, 0o1777, 0o600)
    assert file.read_text() == "kept"
    assert private.is_open_to_others(chosen)
    assert not private.is_open_to_others(ours)


def test_a_symlink_of_ours_is_followed_to_a_directory_but_not_to_a_file(tmp_path: Path) -> None:
    """People put caches on other disks; a file of ours is nowhere else, and what a link names is not touched."""
    (tmp_path / "disk").mkdir(0o755)
    (tmp_path / "cache").symlink_to("disk")
    private.directory(tmp_path / "cache")
    assert mode(tmp_path / "disk") == 0o700
    (tmp_path / "f").symlink_to("elsewhere")
    with pytest.raises(OSError, match="not a file") as caught:
        private.file(tmp_path / "f")
    assert caught.value.errno == errno.ELOOP
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_no_directory_is_refused(tmp_path: Path) -> None:
    """A file, and a link to nothing."""
    (tmp_path / "f").write_text("")
    (tmp_path / "dangling").symlink_to("nothing")
    with pytest.raises(NotADirectoryError):
        private.directory(tmp_path / "f")
    with pytest.raises(FileNotFoundError):
        private.directory(tmp_path / "dangling")


@pytest.mark.usefixtures("stranger")
def test_what_another_user_has_put_there_is_refused(tmp_path: Path) -> None:
    """A directory, a link to one, a file: whoever made it can exchange it at any time."""
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("d")
    (tmp_path / "f").write_text("")
    for make in (
        lambda: private.directory(tmp_path / "d", close=False),
        lambda: private.directory(tmp_path / "link", close=False),
        lambda: private.file(tmp_path / "f"),
    ):
        with pytest.raises(PermissionError, match="it belongs to somebody else"):
            make()


def test_root_follows_no_symlink_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It works in directories of theirs, as containers have them."""
    monkeypatch.setattr(os, "geteuid", lambda: -1)
    monkeypatch.setattr(private, "ROOT", -1)
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("d")
    private.directory(tmp_path / "d")
    with pytest.raises(PermissionError):
        private.directory(tmp_path / "link")


def test_a_database_is_closed_with_what_lies_beside_it(tmp_path: Path) -> None:
    """SQLite gives its log the mode that the database has; those of an earlier version are closed, too."""
    path = tmp_path / "d.db"
    with under(0):
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t (x)")
        assert mode(path) == mode(tmp_path / "d.db-wal") == 0o644
        database.make_file(path)
        found = {one.name: mode(one) for one in tmp_path.iterdir()}
        db.close()
    assert found == {"d.db": 0o600, "d.db-wal": 0o600, "d.db-shm": 0o600}


def test_the_locks_of_a_database_are_kept(tmp_path: Path) -> None:
    """To close a file gives up all locks that a process has on it: another process would write in our transaction."""
    path = tmp_path / "d.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("CREATE TABLE t (x)")
    path.chmod(0o644)
    db.execute("BEGIN EXCLUSIVE")
    database.make_file(path)
    write = f"import sqlite3; sqlite3.connect({str(path)!r}, timeout=0).execute('INSERT INTO t VALUES (1)')"
    done = subprocess.run([sys.executable, "-c", write], capture_output=True, text=True, check=False)
    db.close()
    assert "database is locked" in done.stderr


def test_no_room_and_no_place_are_words_of_the_database(tmp_path: Path) -> None:
    """Their callers know what to do without a disk."""
    with pytest.raises(sqlite3.OperationalError, match="unable to open database file") as caught:
        database.connect(tmp_path / "missing/d.db", [])
    assert caught.value.sqlite_errorcode == sqlite3.SQLITE_CANTOPEN
    (tmp_path / "d.db").symlink_to("elsewhere")
    with pytest.raises(sqlite3.OperationalError, match="not a file"):
        database.connect(tmp_path / "d.db", [])


def test_caches_journals_and_stores_are_private(tmp_path: Path) -> None:
    """Made by themselves, without a mount, under a umask that takes nothing."""
    with under(0):
        store = Store(tmp_path / "store")
        staging = Staging.fresh(tmp_path / "state/journal")
        cache = BlockStore(tmp_path / "cache", 1 << 30, 0)
        cache.close()
        staging.open().close()
        found = {str(path.relative_to(tmp_path)): mode(path) for path in tmp_path.rglob("*") if mode(path) & 0o077}
        staging.close()
        store.close()
    assert found == {}
