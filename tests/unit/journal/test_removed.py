"""Drafts and records that somebody removes under a living mount: nothing is acknowledged that nobody would find."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifactfs.journal.drafts import Staged
from artifactfs.journal.records import Journal, Record
from artifactfs.journal.staging import Staging
from tests.support.log_guard import LogGuard


@pytest.fixture
def staging(tmp_path: Path, expected_logs: LogGuard) -> Iterator[Staging]:
    expected_logs("was removed while it was in use")
    made = Staging.fresh(tmp_path / "journal")
    yield made
    made.close()


def written(staging: Staging, text: bytes = b"text") -> Staged:
    staged = staging.open()
    staged.write(0, text)
    return staged


def record_of(staged: Staged) -> Record:
    return Record(staged.number, {"what": "save"})


def left(staging: Staging) -> dict[int, bytes]:
    """Return what a later mount would find, as a copy of the directory has it: this mount has it locked."""
    copy = staging.root.parent.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(staging.root, copy / "mount-x")
    (found,) = Staging.abandoned(copy)
    drafts = {record.number: staged for record, staged in found.left_over()}
    texts = {number: staged.read(0, 100) if staged else b"" for number, staged in drafts.items()}
    for staged in drafts.values():
        if staged is not None:
            staged.close()
    found.close()
    return texts


@pytest.mark.parametrize("what", ["its file", "the directory", "everything"])
def test_a_draft_that_was_removed_is_not_acknowledged(staging: Staging, what: str):
    """The error comes from the seal, so from close(); and the next save is one."""
    staged = written(staging)
    if what == "its file":
        staged.path.unlink()
    else:
        shutil.rmtree(staging.root if what == "the directory" else staging.root.parent)
    with pytest.raises(OSError, match="removed") as caught:
        staging.seal(staged, record_of(staged))
    assert caught.value.errno == errno.EIO
    with pytest.raises(OSError, match="removed"):
        staging.seal(staged, record_of(staged))
    staging.discard(staged)
    again = written(staging, b"again")
    staging.seal(again, record_of(again))
    assert left(staging) == {again.number: b"again"}
    again.close()


def test_what_was_acknowledged_is_published_from_the_open_file(staging: Staging):
    """Its draft has no name any more; until it is saved elsewhere nothing new is taken, and then it is."""
    staged = written(staging)
    record = record_of(staged)
    staging.seal(staged, record)
    shutil.rmtree(staging.root)
    assert staged.draft().path.read_bytes() == b"text"
    with pytest.raises(OSError, match="removed") as caught:
        staging.open()
    assert caught.value.errno == errno.EIO
    record.tries = 1
    staging.journal.put(record)  # where it stands is nobody's save
    staging.discard(staged)
    again = written(staging)
    staging.seal(again, record_of(again))
    assert left(staging) == {again.number: b"text"}
    again.close()


def test_records_that_were_removed_are_written_again(staging: Staging):
    """By the next one that is recorded: those from before are among them."""
    first, second = written(staging, b"first"), written(staging, b"second")
    staging.seal(first, record_of(first))
    for path in staging.root.glob("journal.db*"):
        path.unlink()
    staging.seal(second, record_of(second))
    assert left(staging) == {first.number: b"first", second.number: b"second"}
    for staged in (first, second):
        staging.discard(staged)
    assert staging.journal.numbers() == []


def test_a_directory_that_is_made_again_is_locked(staging: Staging):
    """No other mount takes it for one that was left."""
    shutil.rmtree(staging.root.parent)
    staged = written(staging)
    staging.seal(staged, record_of(staged))
    assert Staging.abandoned(staging.root.parent) == []
    staged.close()


def test_a_journal_whose_directory_is_gone_takes_nothing_new(tmp_path: Path):
    """EIO, and not the ENOENT of a file that the caller has never heard of."""
    journal = Journal(tmp_path / "d" / "journal.db")
    journal.path.parent.mkdir()
    journal.put(Record(1, {}))
    shutil.rmtree(journal.path.parent)
    with pytest.raises(OSError, match="removed") as caught:
        journal.put(Record(2, {}))
    assert caught.value.errno == errno.EIO
    assert journal.numbers() == [1]
    journal.put(drop=[1])
    journal.close()
    assert not os.path.exists(journal.path)
