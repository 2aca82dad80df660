"""Drafts on disk: what is durable, what is found again, whose they are, and what a disk that says no does to them."""

import errno
import json
import logging
import os
import threading
from pathlib import Path

import pytest

from artifactfs.journal.staging import Staged, Staging


@pytest.fixture
def staging(tmp_path: Path):
    opened = Staging.fresh(tmp_path / "drafts")
    yield opened
    opened.close()


def files(base: Path) -> list[str]:
    return sorted(path.name for path in base.rglob("*") if path.is_file())


def test_a_sealed_draft_is_found_with_all_that_belongs_to_it(staging: Staging, tmp_path: Path):
    """Content, intent, execute bit and time are there for the next mount; what was not sealed is dropped."""
    sealed, unsealed = staging.open({"name": "é"}), staging.open({"name": "b"})
    sealed.write(0, b"hello world")
    sealed.truncate(5)
    sealed.executable, sealed.mtime_ns = True, 123
    unsealed.write(0, b"gone")
    staging.seal(sealed)
    assert (sealed.dirty, sealed.touched, sealed.sealed) == (False, True, True)
    for staged in (sealed, unsealed):
        staged.close()
    staging.close()
    (again,) = Staging.abandoned(tmp_path / "drafts")
    (found,) = again.left_over()
    assert (found.read(0, 99), found.executable, found.mtime_ns, found.touched) == (b"hello", True, 123, True)
    assert found.intent["name"] == "é"
    draft = found.draft()
    assert (draft.size, draft.executable, draft.mtime_ns) == (5, True, 123)
    assert files(tmp_path / "drafts") == ["1.draft", "1.json"]
    again.discard(found)
    again.close()
    assert not list((tmp_path / "drafts").iterdir())


def test_only_abandoned_directories_are_taken(tmp_path: Path):
    """A living mount's drafts are locked; of several mounts that start at once each gets its own."""
    base = tmp_path / "drafts"
    living = Staging.fresh(base)
    living.open({})
    assert Staging.abandoned(base) == []
    with pytest.raises(BlockingIOError):
        Staging(living.root)
    found: list[Staging] = []

    def start() -> None:
        found.append(Staging.fresh(base))
        found.extend(Staging.abandoned(base))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({staging.root for staging in found}) == 8
    for staging in found:
        staging.open({})
    living.close()
    (left,) = Staging.abandoned(base)
    assert left.root == living.root
    for staging in (*found, left):
        staging.close()


def test_numbers_are_not_used_twice(staging: Staging, tmp_path: Path):
    """A directory that is taken over goes on counting where its mount stopped."""
    for _ in range(3):
        staging.open({}).close()
    root = staging.root
    staging.close()
    again = Staging(root)
    assert again.open({}).path.name == "4.draft"
    again.close()


def test_damaged_and_stray_files_stop_nothing(staging: Staging, caplog: pytest.LogCaptureFixture, expected_logs):
    """A record that cannot be read keeps its content on disk, one without a draft goes; the others are found."""
    expected_logs("record of a draft cannot be read")
    drafts = [staging.open({"name": str(number)}) for number in range(3)]
    for staged in drafts:
        staged.write(0, b"x")
        staging.seal(staged)
        staged.close()
    drafts[0].path.with_suffix(".json").write_bytes(b"\xff{")
    (staging.root / "77.json").write_text("{}")
    drafts[2].path.with_suffix(".new").write_text("{}")
    with caplog.at_level(logging.WARNING):
        found = staging.left_over()
    assert [staged.intent["name"] for staged in found] == ["1", "2"]
    assert files(staging.root) == ["1.draft", "1.json", "2.draft", "2.json", "3.draft", "3.json"]
    for staged in found:
        staged.close()


def test_a_write_that_failed_is_remembered(tmp_path: Path):
    """On a full device: the write says so, and so does every seal after it, until the writer begins anew."""
    staged = Staged(Path("/dev/full"), os.open("/dev/full", os.O_RDWR), 1)
    staging = Staging(tmp_path / "mount-x")
    for _ in range(2):
        with pytest.raises(OSError, match="No space") as caught:
            staged.write(0, b"x")
        assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="No space"):
        staging.seal(staged)
    staged.close()
    staging.close()


def test_beginning_anew_forgives_what_failed(staging: Staging):
    """After a truncation to nothing the draft is whole again."""
    staged = staging.open({})
    staged.write(0, b"half")
    staged.broken = OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="Input/output"):
        staging.seal(staged)
    staged.truncate(0)
    staged.write(0, b"whole")
    staging.seal(staged)
    staging.discard(staged)


def test_what_is_written_during_a_seal_is_sealed_by_the_next(staging: Staging, monkeypatch: pytest.MonkeyPatch):
    """A write that comes while the disk is at work leaves the draft dirty."""
    staged = staging.open({})
    staged.write(0, b"one")
    real = os.fsync

    def slow(fd: int) -> None:
        real(fd)
        if fd == staged.fd:
            staged.write(3, b"two")

    monkeypatch.setattr(os, "fsync", slow)
    staging.seal(staged)
    assert staged.dirty
    staging.discard(staged)


def test_growth_beyond_the_disk_is_refused_at_once(staging: Staging):
    """A sparse file takes no room here and all of it where it would be saved."""
    staged = staging.open({})
    for grow in (lambda: staged.truncate(1 << 60), lambda: staged.write(1 << 60, b"x")):
        with pytest.raises(OSError, match="No space"):
            grow()
    assert staged.size == 0
    staging.discard(staged)


def test_the_same_length_is_no_change(staging: Staging):
    """A truncation to the length it has touches nothing, except where it drops what was not copied."""
    staged = staging.open({})
    staged.truncate(0)
    assert not staged.touched
    staged.uncopied = 9
    staged.truncate(0)
    assert staged.touched
    staging.discard(staged)


def test_an_unlinked_draft_is_read_until_it_is_closed(staging: Staging):
    """Its files are gone at once; sealing or discarding it afterwards brings nothing back, and twice is once."""
    staged = staging.open({"name": "x"})
    staged.write(0, b"text")
    staging.seal(staged)
    assert json.loads(staged.path.with_suffix(".json").read_text())["name"] == "x"
    staging.unlink(staged)
    assert files(staging.root) == []
    staged.write(4, b"!")
    assert staged.read(0, 9) == b"text!"
    staging.discard(staged)
    staging.discard(staged)
    staging.seal(staged)
    assert files(staging.root) == []
