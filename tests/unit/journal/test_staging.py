"""Drafts on disk: what is durable, what is found again, whose they are, and what a disk that says no does to them."""

import errno
import logging
import os
import threading
from pathlib import Path

import pytest

from artifactfs.journal import drafts
from artifactfs.journal.records import Record
from artifactfs.journal.staging import Staged, Staging
from artifactfs.journal.states import State


@pytest.fixture
def staging(tmp_path: Path):
    opened = Staging.fresh(tmp_path / "drafts")
    yield opened
    opened.close()


def files(base: Path) -> list[str]:
    return sorted(path.name for path in base.rglob("*") if path.is_file())


def sealed(staging: Staging, content: bytes = b"x", **what) -> Staged:
    staged = staging.open()
    staged.write(0, content)
    staging.seal(staged, Record(staged.number, what))
    return staged


def again(staging: Staging) -> Staging:
    """Take the directory over as the next mount does."""
    staging.close()
    (taken,) = Staging.abandoned(staging.root.parent)
    return taken


def test_a_sealed_draft_is_found_with_all_that_belongs_to_it(staging: Staging, tmp_path: Path):
    """Content, intent, execute bit and time are there for the next mount; what was not sealed is dropped."""
    draft, unsealed = staging.open(), staging.open()
    assert draft.new
    draft.write(0, b"hello world")
    draft.truncate(5)
    draft.executable, draft.mtime_ns = True, 123
    unsealed.write(0, b"gone")
    record = Record(draft.number, {"name": "é\udcff"}, State.PUBLISHING, 2, "no \udcff", {"id": "7"}, 99)
    staging.seal(draft, record)
    assert (draft.dirty, draft.touched, draft.sealed, draft.new) == (False, True, True, False)
    for each in (draft, unsealed):
        each.close()
    taken = again(staging)
    assert taken.used_bytes == 9
    ((found, staged),) = taken.left_over()
    assert found == record
    assert staged is not None
    assert (staged.read(0, 99), staged.executable, staged.mtime_ns) == (b"hello", True, 123)
    assert (staged.touched, staged.sealed, staged.dirty, staged.new) == (True, True, False, False)
    saved = staged.draft("ab")
    assert (saved.size, saved.executable, saved.mtime_ns, saved.base_sha256) == (5, True, 123, "ab")
    assert [name for name in files(taken.root) if name.endswith(".draft")] == ["1.draft"]
    assert taken.used_bytes == 5
    taken.discard(staged)
    assert taken.used_bytes == 0
    taken.close()
    assert not list((tmp_path / "drafts").iterdir())


def test_changes_without_content_stand_among_the_drafts_in_order(staging: Staging):
    """A removal has a number of the same counter, and no draft; what is published already is cleaned up."""
    first = sealed(staging, name="a")
    removal = Record(staging.next_number(), {"remove": "b"})
    staging.journal.put(removal)
    last, done = sealed(staging, name="c"), sealed(staging, name="d")
    staging.journal.put(Record(done.number, {"name": "d"}, State.PUBLISHED))
    for draft in (first, last, done):
        draft.close()
    taken = again(staging)
    found = taken.left_over()
    assert [(record.number, record.what, staged is None) for record, staged in found] == [
        (1, {"name": "a"}, False),
        (2, {"remove": "b"}, True),
        (3, {"name": "c"}, False),
    ]
    assert taken.journal.numbers() == [1, 2, 3]
    assert not (taken.root / "4.draft").exists()
    for _, staged in found:
        if staged is not None:
            staged.close()
    taken.close()


def test_only_abandoned_directories_are_taken(tmp_path: Path):
    """A living mount's drafts are locked; of several mounts that start at once each gets its own."""
    base = tmp_path / "drafts"
    living = Staging.fresh(base)
    sealed(living).close()
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
        sealed(staging).close()
    living.close()
    (left,) = Staging.abandoned(base)
    assert left.root == living.root
    for staging in (*found, left):
        staging.close()


def test_who_looks_takes_nothing_away_from_a_mount_that_begins_meanwhile(staging: Staging):
    """It waits for the end of the look, instead of beginning without what the last mount left."""
    sealed(staging).close()
    staging.close()
    base, taken, begun = staging.root.parent, list[Staging](), threading.Event()

    def start() -> None:
        begun.set()
        taken.extend(Staging.abandoned(base))

    mount = threading.Thread(target=start)
    with Staging.for_a_look(base) as found:
        assert [len(one.journal.load()) for one in found] == [1]
        mount.start()
        begun.wait()
        mount.join(0.2)
        assert taken == []
    mount.join()
    assert [len(one.journal.load()) for one in taken] == [1]
    for one in taken:
        one.close()


def test_numbers_are_not_used_twice(staging: Staging, tmp_path: Path):
    """A directory that is taken over goes on counting where its mount stopped, drafts and other records alike."""
    sealed(staging).close()
    staging.journal.put(Record(staging.next_number(), {"remove": "x"}))
    taken = again(staging)
    staged = taken.open()
    assert staged.path.name == "3.draft"
    staged.close()
    taken.close()


def test_a_draft_that_cannot_be_opened_stops_nothing(staging: Staging, expected_logs):
    """It and its record stay; the others are found."""
    expected_logs("cannot be opened")
    for name in "ab":
        sealed(staging, name=name).close()
    taken = again(staging)
    (taken.root / "1.draft").unlink()
    (taken.root / "1.draft").mkdir()
    ((record, staged),) = taken.left_over()
    assert (record.what, taken.journal.numbers()) == ({"name": "b"}, [1, 2])
    assert staged is not None
    staged.close()
    taken.close()


def test_a_damaged_database_is_put_aside_and_the_drafts_stay(staging: Staging, expected_logs, caplog):
    """Over further mounts too, and new drafts beside them are treated as ever."""
    expected_logs("is damaged and put aside")
    sealed(staging, b"precious").close()
    staging.close()
    (staging.root / "journal.db").write_bytes(b"this is no database " * 400)
    with caplog.at_level(logging.WARNING):
        (taken,) = Staging.abandoned(staging.root.parent)
    assert "journal.db.damaged-1" in caplog.text
    assert taken.left_over() == []
    assert [path.read_bytes() for path in taken.lost] == [b"precious"]
    assert taken.used_bytes == 8
    new, unsealed = sealed(taken, b"new"), taken.open()
    assert new.number == 2
    for staged in (new, unsealed):
        staged.close()
    third = again(taken)
    ((record, found),) = third.left_over()
    assert (record.number, [path.name for path in third.lost]) == (2, ["1.draft"])
    assert found is not None
    third.discard(found)
    third.close()
    assert files(third.root) == ["1.draft", "journal.db.damaged-1"]
    (third.root / "1.draft").unlink()  # a user has rescued it
    (fourth,) = Staging.abandoned(staging.root.parent)
    assert fourth.next_number() == 2
    fourth.close()


def test_what_a_newer_artifactfs_wrote_is_left_alone(staging: Staging, expected_logs, caplog):
    """Its directory is skipped and is there for the newer one."""
    expected_logs("cannot be taken up")
    sealed(staging, b"precious").close()
    assert staging.journal._db is not None
    staging.journal._db.execute("PRAGMA user_version=99")
    staging.close()
    before = files(staging.root)
    assert Staging.abandoned(staging.root.parent) == []
    assert files(staging.root) == before


def test_a_write_that_failed_is_remembered(tmp_path: Path):
    """On a full device: the write says so, and so does every seal after it, until the writer begins anew."""
    staged = Staged(Path("/dev/full"), os.open("/dev/full", os.O_RDWR), 1)
    staging = Staging(tmp_path / "mount-x")
    for _ in range(2):
        with pytest.raises(OSError, match="No space") as caught:
            staged.write(0, b"x")
        assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="No space"):
        staging.seal(staged, Record(1, {}))
    staged.close()
    staging.close()


def test_beginning_anew_forgives_what_failed(staging: Staging):
    """After a truncation to nothing the draft is whole again."""
    staged = staging.open()
    staged.write(0, b"half")
    staged.broken = OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="Input/output"):
        staging.seal(staged, Record(1, {}))
    with pytest.raises(OSError, match="Input/output"):
        staging.clone(staged)
    staged.truncate(0)
    staged.write(0, b"whole")
    staging.seal(staged, Record(1, {}))
    staging.discard(staged)


def test_what_is_written_during_a_seal_is_sealed_by_the_next(staging: Staging, monkeypatch: pytest.MonkeyPatch):
    """A write that comes while the disk is at work leaves the draft dirty."""
    staged = staging.open()
    staged.write(0, b"one")
    real = os.fsync

    def slow(fd: int) -> None:
        real(fd)
        if fd == staged.fd:
            staged.write(3, b"two")

    monkeypatch.setattr(os, "fsync", slow)
    staging.seal(staged, Record(1, {}))
    assert staged.dirty
    staging.discard(staged)


def test_a_seal_asks_the_disk_for_all_that_is_told(staging: Staging, monkeypatch: pytest.MonkeyPatch):
    """The content first, then its name, once, and the record last; SQLite's commits are durable ones."""
    asked: list[str] = []
    real_fsync, real_put = os.fsync, staging.journal.put

    def fsync(fd: int) -> None:
        asked.append("file" if os.path.isfile(f"/proc/self/fd/{fd}") else os.readlink(f"/proc/self/fd/{fd}"))
        real_fsync(fd)

    def put(*records: Record, drop=()) -> None:
        real_put(*records, drop=drop)
        asked.append("record")

    first, staged = sealed(staging), staging.open()
    staged.write(0, b"x")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(staging.journal, "put", put)
    staging.seal(staged, Record(staged.number, {}))
    assert asked == ["file", str(staging.root), "record"]
    staging.seal(staged, Record(staged.number, {}))
    assert asked[3:] == ["file", "record"]
    monkeypatch.undo()
    assert staging.journal._db is not None
    assert staging.journal._db.execute("PRAGMA synchronous").fetchall() == [(2,)]  # FULL
    for each in (first, staged):
        staging.discard(each)


def test_a_record_that_cannot_be_written_leaves_the_draft_dirty(staging: Staging, monkeypatch: pytest.MonkeyPatch):
    """The seal says so, nobody is told that it is kept, and the next one makes it good."""
    staged = staging.open()
    staged.write(0, b"one")

    def refuse(*_records: Record) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(staging.journal, "put", refuse)
        with pytest.raises(OSError, match="No space"):
            staging.seal(staged, Record(1, {}))
    assert (staged.dirty, staged.sealed, staged.broken) == (True, False, None)
    staging.seal(staged, Record(1, {}))
    assert (staged.dirty, staged.sealed) == (False, True)
    staging.discard(staged)


def test_a_draft_whose_record_cannot_be_dropped_stays(staging: Staging, monkeypatch: pytest.MonkeyPatch):
    """The file goes after its record, never before."""
    staged = sealed(staging, b"text")

    def refuse(**_options) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(staging.journal, "put", refuse)
        with pytest.raises(OSError, match="Input/output"):
            staging.discard(staged)
    assert (staged.path.read_bytes(), staged.sealed, staged.closed) == (b"text", True, False)
    staging.discard(staged)
    assert not staged.path.exists()


def test_growth_beyond_the_disk_is_refused_at_once(staging: Staging):
    """A sparse file takes no room here and all of it where it would be saved."""
    staged = staging.open()
    for grow in (lambda: staged.truncate(1 << 60), lambda: staged.write(1 << 60, b"x")):
        with pytest.raises(OSError, match="No space"):
            grow()
    assert staged.size == 0
    staging.discard(staged)


def test_the_same_length_is_no_change(staging: Staging):
    """A truncation to the length it has touches nothing, except where it drops what was not copied."""
    staged = staging.open()
    staged.truncate(0)
    assert not staged.touched
    staged.uncopied = 9
    staged.truncate(0)
    assert staged.touched
    staging.discard(staged)


def test_an_unlinked_draft_is_read_until_it_is_closed(staging: Staging):
    """Its file and record are gone at once; sealing or discarding it afterwards brings nothing back; twice is once."""
    staged = sealed(staging, b"text", name="x")
    staging.unlink(staged)
    assert (staging.journal.numbers(), staging.journal.load()) == ([], [])
    assert not staged.path.exists()
    staged.write(4, b"!")
    assert staged.read(0, 9) == b"text!"
    staging.seal(staged, Record(staged.number, {}))
    assert staging.journal.numbers() == []
    assert staging.used_bytes == 5
    for _ in range(2):
        staging.discard(staged)
        assert staging.used_bytes == 0
    staging.seal(staged, Record(staged.number, {}))
    assert staging.journal.numbers() == []


@pytest.mark.parametrize("way", ["as the system has it", "byte by byte"])
def test_a_clone_has_the_same_bytes_and_a_life_of_its_own(staging: Staging, monkeypatch: pytest.MonkeyPatch, way: str):
    """It is a draft like any other: sealed by itself, and still there when the other is gone."""
    if way == "byte by byte":
        monkeypatch.setattr(drafts, "FICLONE", 0)  # no such request: ENOTTY

        def refuse(*_args) -> int:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

        monkeypatch.setattr(os, "copy_file_range", refuse)
    content = os.urandom((1 << 20) + 12345)
    staged = sealed(staging, content)
    staged.executable, staged.mtime_ns = True, 123
    twin = staging.clone(staged)
    assert (twin.number, twin.executable, twin.mtime_ns, twin.new, twin.dirty) == (2, True, 123, True, True)
    assert staging.used_bytes == 2 * len(content)
    staged.write(0, b"changed")
    staging.discard(staged)
    staging.seal(twin, Record(twin.number, {}))
    assert twin.read(0, 1 << 22) == content
    twin.close()
    taken = again(staging)
    ((_, found),) = taken.left_over()
    assert found is not None
    assert (found.read(0, 1 << 22) == content, found.executable, found.mtime_ns) == (True, True, 123)
    taken.discard(found)
    taken.close()


def test_closing_leaves_what_is_recorded_and_nothing_else(staging: Staging):
    """A draft that was never sealed goes with the mount; one that was keeps the directory."""
    kept = sealed(staging, b"kept")
    unsealed = staging.open()
    for staged in (kept, unsealed):
        staged.close()
    staging.close()
    staging.close()
    taken = Staging(staging.root)
    ((_, found),) = taken.left_over()
    assert found is not None
    taken.open().close()
    taken.discard(found)
    taken.close()
    assert not staging.root.exists()
