"""Records in SQLite: what is durable, in what order, and what damage does to them."""

import contextlib
import errno
import itertools
import logging
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from artifactfs.journal.records import Journal, Record
from artifactfs.journal.states import State
from tests.support.tiny_disk import tiny


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "mount-x").mkdir()
    return tmp_path / "mount-x" / "journal.db"


def refill(path: Path) -> None:
    """Take what room is left on a disk, to the last byte."""
    with path.open("ab", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"x" * size) == size:
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def test_records_come_back_as_they_were(path: Path):
    """Whatever bytes the names and messages hold, in order of number, the last of each."""
    strange = Record(
        7, {"name": "\udcff\0é", "deep": {"list": [1, None]}}, State.FAILED, 3, "no: \udc80", {"id": "\0"}, 5
    )
    strange.executable, strange.mtime_ns = True, -1
    journal = Journal(path)
    journal.put(Record(9, {"n": 9}, since_ns=1), strange)
    journal.put(Record(2, {}, since_ns=2), Record(9, {"n": 10}, State.CONFLICT, since_ns=1))
    expected = [Record(2, {}, since_ns=2), strange, Record(9, {"n": 10}, State.CONFLICT, since_ns=1)]
    assert journal.load() == expected
    journal.close()
    assert (journal.numbers(), journal.load()) == ([2, 7, 9], expected)  # opened again
    journal.close()
    again = Journal(path)
    assert (again.numbers(), again.load()) == ([2, 7, 9], expected)
    again.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_is_made_before_there_is_something_to_record(path: Path):
    """A mount that is only read leaves no database, and asks the disk for nothing."""
    journal = Journal(path)
    journal.put(drop=[1, 2])
    assert (journal.load(), journal.numbers()) == ([], [])
    journal.close()
    assert not list(path.parent.iterdir())


def test_a_transaction_is_all_or_nothing(path: Path):
    """One record that cannot be written leaves the others as they were, and what was to be dropped."""
    journal = Journal(path)
    journal.put(Record(1, {"n": 1}))
    with pytest.raises((OSError, OverflowError)):
        journal.put(Record(1, {"n": 2}), Record(1 << 70, {}), drop=[1])
    assert [record.what for record in journal.load()] == [{"n": 1}]
    assert journal.numbers() == [1]
    journal.put(Record(2, {}), drop=[1])
    assert journal.numbers() == [2]
    journal.close()


def test_many_threads_may_use_it(path: Path):
    """Each change is there, in one piece."""
    journal = Journal(path)

    def work(begin: int) -> None:
        for number in range(begin, begin + 50):
            journal.put(Record(number, {}))
            journal.put(Record(number, {"n": number}), drop=[number - 1] if number % 2 else [])

    threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert journal.numbers() == [1000 * n + k for n in range(1, 5) for k in range(50) if k % 2]
    assert all(record.what == {"n": record.number} for record in journal.load())
    journal.close()


@pytest.mark.parametrize("how", ["garbage", "empty", "a page", "an overflow page", "no table"])
def test_a_damaged_database_is_put_aside(path: Path, how: str, expected_logs, caplog: pytest.LogCaptureFixture):
    """With all its bytes, under a name that says which drafts were its; the next one works."""
    expected_logs("is damaged and put aside")
    journal = Journal(path)
    length = 20_000 if how == "an overflow page" else 1_000  # the numbers alone could still be read
    journal.put(*(Record(number, {"filler": "x" * length}) for number in range(1, 100)))
    journal.close()
    match how:
        case "garbage":
            path.write_bytes(b"this is no database " * 400)
        case "empty":
            path.write_bytes(b"")
        case "a page" | "an overflow page":
            with path.open("r+b") as file:
                file.seek(3 * 4096)
                file.write(b"\xff" * 4096)
        case _:
            with sqlite3.connect(path) as db:
                db.execute("DROP TABLE changes")
            db.close()
    content = path.read_bytes()
    with caplog.at_level(logging.WARNING):
        journal = Journal(path, 42)
    assert journal.path.with_name("journal.db.damaged-42").read_bytes() == content
    assert (journal.load(), journal.numbers(), journal.lost_up_to) == ([], [], 42)
    journal.put(Record(43, {}))
    journal.close()
    path.write_bytes(b"again")
    journal = Journal(path, 42)
    assert journal.lost_up_to == 43
    journal.delete()
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["journal.db.damaged-42", "journal.db.damaged-43"]


def test_a_damaged_log_takes_nothing_into_the_next_database(path: Path, expected_logs):
    """The log of what was put aside goes with it."""
    expected_logs("is damaged and put aside")
    killed = (
        "import os, pathlib, sys; from artifactfs.journal.records import Journal, Record;"
        "Journal(pathlib.Path(sys.argv[1])).put(Record(1, {})); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", killed, str(path)], check=True)
    assert path.with_name("journal.db-wal").stat().st_size
    path.write_bytes(b"this is no database")
    journal = Journal(path, 1)
    assert journal.load() == []
    journal.put(Record(2, {}))
    journal.close()
    assert path.with_name("journal.db.damaged-1-wal").stat().st_size
    assert journal.lost_up_to == 1
    journal = Journal(path)
    assert journal.numbers() == [2]
    journal.close()


def test_a_record_that_makes_no_sense_is_left_where_it_is(path: Path, expected_logs):
    """It is not loaded, and not forgotten; the others are loaded."""
    expected_logs("cannot be read and is left")
    journal = Journal(path)
    journal.put(*(Record(number, {"n": number}) for number in range(1, 6)))
    assert journal._db is not None
    journal._db.execute("UPDATE changes SET state = 'nonsense' WHERE number = 1")
    journal._db.execute("UPDATE changes SET what = '[1]' WHERE number = 2")
    journal._db.execute("UPDATE changes SET facts = CAST(X'ff7b' AS TEXT) WHERE number = 3")
    journal._db.execute("UPDATE changes SET error = '{' WHERE number = 4")
    assert [record.number for record in journal.load()] == [5]
    assert journal.numbers() == [1, 2, 3, 4, 5]
    journal.close()


def test_a_full_disk_does_not_keep_itself_full(tmp_path: Path):
    """A new change is refused and nothing is changed; what is recorded can be updated and dropped all the same."""
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(tiny(tmp_path / "disk"))
        (disk / "mount-x").mkdir()
        journal = stack.enter_context(contextlib.closing(Journal(disk / "mount-x" / "journal.db")))
        journal.put(*(Record(number, {"filler": "x" * 500}) for number in range(1, 100)))
        fresh = itertools.count(1000)
        for turn in range(9):  # what room there is again is taken again
            refill(disk / "filler")
            refused = 0
            while not refused:
                number = next(fresh)
                assert number < 1999, "the disk is not full"
                try:
                    journal.put(Record(number, {"filler": "y" * 50_000}))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    refused = number
            before = journal.numbers()
            assert refused not in before
            journal.put(Record(50, {}, State.FAILED, turn, "full"), drop=[turn + 1])
            assert journal.numbers() == before[1:]
        journal.close()
        again = stack.enter_context(contextlib.closing(Journal(disk / "mount-x" / "journal.db")))
        assert again.numbers() == before[1:]
        assert next(record for record in again.load() if record.number == 50).tries == 8


def test_a_number_is_never_given_again(tmp_path: Path) -> None:
    """Not after its record is gone, and not by the next mount: others may still speak of it."""
    journal = Journal(tmp_path / "journal.db", 3)
    first, second, third = (journal.next_number() for _ in range(3))
    assert [first, second, third] == [4, 5, 6]
    journal.put(Record(first, {"kind": "file", "over": [third]}))
    journal.put(Record(second, {}), drop=[first])
    journal.close()
    again = Journal(tmp_path / "journal.db")
    assert again.next_number() == third + 1
    again.close()
