"""Objects: whole, durable, named by their bytes, and nothing left behind."""

import errno
import hashlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactfs import errors
from artifactfs.store.objects import ABANDONED_S, Objects


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    return Objects(tmp_path / "objects")


def stored(objects: Objects) -> list[str]:
    return sorted(p.relative_to(objects.root).as_posix() for p in objects.root.rglob("*") if p.is_file())


@given(chunks=st.lists(st.binary(max_size=300), max_size=8))
def test_any_pieces_come_back_as_one_under_their_hash(tmp_path_factory, chunks):
    """Bytes put in pieces are read back whole, and the name is their SHA-256."""
    objects = Objects(tmp_path_factory.mktemp("store") / "objects")
    whole = b"".join(chunks)
    assert objects.put_stream(chunks) == (hashlib.sha256(whole).hexdigest(), len(whole))
    assert objects.read(hashlib.sha256(whole).hexdigest()) == whole


def test_equal_bytes_are_kept_once(objects: Objects):
    """A second put of the same bytes makes no second file and leaves the first alone."""
    sha256 = objects.put(b"same")
    before = objects.path(sha256).stat()
    assert objects.put(b"same") == sha256
    assert objects.path(sha256).stat().st_ino == before.st_ino
    assert stored(objects) == [f"{sha256[:2]}/{sha256[2:]}"]


def test_a_file_is_copied_not_linked(objects: Objects, tmp_path: Path):
    """What is done to a source afterwards does not reach the object."""
    source = tmp_path / "draft"
    source.write_bytes(b"first")
    ((sha256, size),) = objects.put_files([source])
    source.write_bytes(b"other")
    assert (objects.read(sha256), size) == (b"first", 5)


def test_a_writer_that_fails_leaves_nothing(objects: Objects):
    """An error while the bytes come leaves neither an object nor a temporary file."""

    def chunks():
        yield b"half"
        raise ValueError("gone")

    with pytest.raises(ValueError, match="gone"):
        objects.put_stream(chunks())
    assert stored(objects) == []


def test_nothing_shows_under_its_name_before_it_is_durable(objects: Objects, monkeypatch):
    """The file is synced before the rename, both directories after it."""
    events = []
    fsync, replace = os.fsync, Path.replace

    def seen_fsync(fd):
        events.append("sync dir" if os.path.isdir(f"/proc/self/fd/{fd}") else "sync file")
        fsync(fd)

    def seen_replace(self, target):
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(Path, "replace", seen_replace)
    objects.put(b"durable")
    assert events == ["sync file", "rename", "sync dir", "sync dir"]
    events.clear()
    objects.put(b"durable")
    assert events == ["sync file", "sync dir", "sync dir"]  # whoever renamed it may not have come to that yet
    events.clear()
    objects.put(b"hasty", durable=False)
    assert events == ["rename"]


def test_many_files_share_the_sync_of_their_directories(objects: Objects, tmp_path: Path, monkeypatch):
    """Each file is synced by itself, each directory once and after the last rename; the order is that of the files."""
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def seen_fsync(fd):
        path = os.readlink(f"/proc/self/fd/{fd}")
        events.append("file" if os.path.isfile(path) else os.path.relpath(path, objects.root))
        fsync(fd)

    def seen_replace(self, target):
        events.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", seen_fsync)
    monkeypatch.setattr(Path, "replace", seen_replace)
    sources = []
    for number in range(300):  # more than there are directories
        sources.append(tmp_path / f"draft-{number}")
        sources[-1].write_bytes(b"%d" % number)
    found = objects.put_files([*sources, sources[0]])
    assert [objects.read(sha256) for sha256, _ in found] == [b"%d" % number for number in (*range(300), 0)]
    last = len(events) - events[::-1].index("rename")
    assert events[:last].count("file") >= 300
    directories = [event for event in events if event not in {"file", "rename"}]
    assert directories == [*sorted({sha256[:2] for sha256, _ in found}), "."]
    assert events[-len(directories) :] == directories


@pytest.mark.parametrize(("code", "expected"), [(errno.ENOSPC, errors.NoLocalSpace), (errno.EIO, errors.Unavailable)])
def test_what_the_disk_says_is_said_in_our_words(objects: Objects, monkeypatch, code, expected):
    """A full disk is NoLocalSpace, a broken one Unavailable, and nothing stays."""

    def refuse(fd):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(expected):
        objects.put(b"x")
    assert stored(objects) == []


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_a_name_that_is_no_hash_reaches_no_file(objects: Objects, name: str):
    """What is no SHA-256 in lower-case hex is an object that is not there, never a path."""
    assert not objects.has(name)
    with pytest.raises(errors.NotFound):
        objects.path(name)


def test_only_old_temporaries_are_swept(objects: Objects):
    """What a killed writer left goes after a day; what a running one writes stays."""
    old, new = objects.root / ".new-old", objects.root / ".new-running"
    for path in (old, new):
        path.write_bytes(b"part")
    past = time.time() - ABANDONED_S - 60
    os.utime(old, (past, past))
    Objects(objects.root)
    assert stored(objects) == [".new-running"]


def test_others_cannot_look_in(objects: Objects):
    """Directories are the owner's alone."""
    sha256 = objects.put(b"private")
    assert objects.root.stat().st_mode & 0o777 == 0o700
    assert objects.path(sha256).parent.stat().st_mode & 0o777 == 0o700
    assert objects.path(sha256).stat().st_mode & 0o077 == 0
