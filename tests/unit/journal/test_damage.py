"""Damage to what is kept until it is published: whatever was acknowledged is found again as it was, or is said lost.

Nothing is published under a name, or with bytes, that a disk made up; and no acknowledged draft is deleted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from artifactfs.database import NewerError
from artifactfs.journal.records import Journal, Record
from artifactfs.journal.staging import Staging
from artifactfs.journal.states import State
from tests.support.log_guard import LogGuard

# Saves, and drops what it said it would; then ends as by kill -9: the log of its database is as it was.
WRITER = """
import os, sys
from pathlib import Path
from artifactfs.database import NewerError
from artifactfs.journal.records import Record
from artifactfs.journal.staging import Staging

staging = Staging.fresh(Path(sys.argv[1]))
for number in range(1, 9):
    staged = staging.open()
    staged.write(0, b"content %d" % number)
    staging.seal(staged, Record(staged.number, {"name": f"file {number}", "filler": "x" * 900}, since_ns=1))
    if number % 4 == 0:
        staging.discard(staged)
unsealed = staging.open()
unsealed.write(0, b"nobody was told")
print(staging.root, flush=True)
os._exit(0)
"""
KEPT = {1, 2, 3, 5, 6, 7}


@pytest.fixture
def root(tmp_path: Path, expected_logs: LogGuard) -> Path:
    """A directory of drafts whose mount was killed."""
    expected_logs("put aside|cannot be read|cannot be opened")
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path / "drafts")], capture_output=True, check=True, text=True
    )
    return Path(done.stdout.strip())


def taken(root: Path) -> tuple[dict[int, Record], set[int]]:
    """Take a directory over, twice, and return what goes on and what is said to be lost."""
    seen = []
    for _ in range(2):
        staging = Staging(root)
        found = staging.left_over()
        for record, staged in found:
            # The discard of one may be forgotten: that its bytes are gone is then said, and it is not saved.
            assert (staged is None) == (record.number in {4, 8})
            if staged is not None:
                assert staged.read(0, 99) == f"content {record.number}".encode()
                staged.close()
        # 9 may have been acknowledged, as far as a directory can tell whose database is damaged.
        lost = {int(path.stem): path.read_bytes() for path in staging.lost if path.stem != "9"}
        for number, content in lost.items():
            assert content == f"content {number}".encode()
        seen.append(({record.number: record for record, _ in found}, set(lost)))
        staging.close()
    assert seen[0] == seen[1]
    return seen[0]


def right(record: Record) -> bool:
    return record == Record(
        record.number, {"name": f"file {record.number}", "filler": "x" * 900}, since_ns=1,
        mtime_ns=record.mtime_ns, size=len(f"content {record.number}"),
    )  # fmt: skip


def test_undamaged_all_goes_on_and_nothing_is_lost(root: Path):
    found, lost = taken(root)
    assert (set(found), lost) == (KEPT, set())
    assert all(map(right, found.values()))
    assert not (root / "9.draft").exists()


@pytest.mark.parametrize("how", ["the log removed", "the database removed", "both removed", "the log emptied"])
def test_what_the_database_has_forgotten_is_not_deleted(root: Path, how: str):
    """Its drafts say themselves that they were acknowledged."""
    for part in ("", "-wal"):
        path = root / f"journal.db{part}"
        if how == "both removed" or (how == "the log removed") == bool(part) != (how == "the log emptied"):
            path.unlink()
    if how == "the log emptied":
        os.truncate(root / "journal.db-wal", 0)
    found, lost = taken(root)
    assert found.keys() | lost == KEPT
    assert not found.keys() & lost


Files = dict[str, tuple[bytes, int]]


def files_of(root: Path) -> Files:
    return {path.name: (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) for path in root.iterdir()}


def restore(root: Path, files: Files) -> None:
    for path in root.iterdir():
        path.unlink()
    for name, (content, mode) in files.items():
        (root / name).write_bytes(content)
        (root / name).chmod(mode)


@pytest.mark.parametrize("name", ["journal.db-wal", "journal.db"])
def test_no_flipped_bit_of_the_journal_changes_or_loses_a_save(root: Path, name: str):
    """Anywhere in the log or in the database: each save is right, or is said to be lost with all its bytes."""
    chance = random.Random(7)
    if name == "journal.db":  # all of it there
        with contextlib.closing(sqlite3.connect(root / name)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    files = files_of(root)
    raw = files[name][0]
    assert len(raw) > 8192
    for place in (*range(0, 100, 7), *(chance.randrange(len(raw)) for _ in range(50))):
        harmed = bytearray(raw)
        harmed[place] ^= 1 << chance.randrange(8)
        restore(root, {**files, name: (bytes(harmed), 0o600)})
        try:
            found, lost = taken(root)
        except NewerError:
            continue  # of a newer version, it seems: all of it is left alone
        assert found.keys() | lost >= KEPT, place
        assert all(map(right, found.values())), place


def test_a_flipped_letter_is_no_other_name(tmp_path: Path, expected_logs: LogGuard):
    """In a row that SQLite finds nothing wrong with: a record of a name that nobody gave would be published."""
    expected_logs("it is not what was written|was removed while it was in use")
    journal = Journal(tmp_path / "journal.db")
    journal.put(Record(1, {"name": "report"}), Record(2, {"name": "other"}, State.SEALED))
    journal.close()
    path = tmp_path / "journal.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(path.read_bytes().replace(b'"report"', b'"repost"'))
    journal = Journal(path)
    assert [record.what for record in journal.load()] == [{"name": "other"}]
    assert (journal.numbers(), set(journal.unread)) == ([1, 2], {1})
    # Nor does it become right by being copied.
    path.unlink()
    journal.put(Record(3, {"name": "new"}))
    assert [record.number for record in journal.load()] == [2, 3]
    journal.close()


def test_a_row_of_an_earlier_version_has_no_checksum(tmp_path: Path):
    path = tmp_path / "journal.db"
    journal = Journal(path)
    journal.put(Record(1, {"name": "report"}))
    journal.close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE changes DROP COLUMN sum")
        db.execute("PRAGMA user_version=3")
        db.commit()
    journal = Journal(path)
    assert [record.what for record in journal.load()] == [{"name": "report"}]
    journal.put(*journal.load())
    assert [record.what for record in journal.load()] == [{"name": "report"}]
    journal.close()


def test_a_draft_that_lost_bytes_is_not_published(root: Path):
    """It is shorter than it was acknowledged to be, and nobody has made it so."""
    for number, size in ((1, 0), (2, 4)):
        os.truncate(root / f"{number}.draft", size)
    (staging,) = Staging.abandoned(root.parent)
    found = staging.left_over()
    assert {record.number for record, _ in found} == KEPT - {1, 2}
    assert {path.name for path in staging.lost} == {"1.draft", "2.draft"}
    for _, staged in found:
        assert staged is not None
        staged.close()
    staging.close()
    assert (root / "1.draft").exists()


def test_a_draft_that_loses_bytes_under_its_mount_is_not_published_either(tmp_path: Path):
    """A shorter one would take the place of what the service has; a writer may make it shorter."""
    staging = Staging(tmp_path / "mount")
    staged = staging.open()
    staged.write(0, b"acknowledged")
    staging.seal(staged, Record(staged.number, {}))
    os.truncate(staged.path, 3)
    with pytest.raises(OSError, match="3 of the 12 bytes") as caught:
        staged.draft()
    assert caught.value.errno == errno.EIO
    staged.truncate(2)
    assert staged.draft().size == 2
    staging.seal(staged, Record(staged.number, {}))
    assert staged.draft().size == 2
    staged.close()
    staging.close()


@pytest.mark.parametrize("name", ["journal.db", "journal.db-wal", "1.draft"])
@pytest.mark.parametrize("what", ["a pipe", "a link", "a directory"])
def test_other_things_in_the_place_of_files(root: Path, name: str, what: str):
    """Nobody waits for them, nothing is read from elsewhere, and no save is lost by them."""
    (root / name).unlink()
    match what:
        case "a pipe":
            os.mkfifo(root / name)
        case "a link":
            (root / name).symlink_to("/dev/zero")
        case _:
            (root / name).mkdir()
    staging = Staging(root)
    found = staging.left_over()
    kept = KEPT - {1} if name == "1.draft" else KEPT
    assert {record.number for record, _ in found} | {int(path.stem) for path in staging.lost} >= kept
    for record, staged in found:
        assert staged is not None
        assert staged.read(0, 99) == f"content {record.number}".encode()
        staged.close()
    staging.close()


def test_a_draft_that_its_writer_made_shorter_is_as_long_as_it_is(tmp_path: Path):
    """The writer goes on with what it has sealed, and is killed before the next seal; and after it."""
    base = tmp_path / "drafts"
    staging = Staging.fresh(base)
    first, second = staging.open(), staging.open()
    for staged in (first, second):
        staged.write(0, b"hello world")
        staging.seal(staged, Record(staged.number, {}))
        staged.truncate(5)
    staging.seal(second, Record(second.number, {}))
    for staged in (first, second):
        staged.close()
    staging.close()
    (again,) = Staging.abandoned(base)
    for (record, found), size in zip(again.left_over(), (11, 5), strict=True):
        assert found is not None
        assert (found.read(0, 99), record.size) == (b"hello", size)
        again.discard(found)
    again.close()
    assert list(base.iterdir()) == []
