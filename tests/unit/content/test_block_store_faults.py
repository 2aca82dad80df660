"""Disks that fail, fill up, forget and vanish, and processes that are killed: a miss at worst."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from artifactfs.content import block_store, cache_check
from artifactfs.content.block_store import BlockStore
from artifactfs.content.block_table import Entry
from artifactfs.content.extents import BLOCK
from tests.support.blocks import LIMIT, block, files
from tests.support.tiny_disk import tiny


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BlockStore]:
    made = BlockStore(tmp_path / "cache", LIMIT, min_free=0)
    yield made
    made.close()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 4 MiB."""
    with tiny(tmp_path / "disk") as where:
        yield where


def test_a_full_disk(tiny_disk: Path) -> None:
    """What fits is kept; what does not is dropped from memory, too; nothing fails, and everything read is right."""
    store = BlockStore(tiny_disk, 1 << 30, min_free=0)
    for number in range(40):
        store.write(f"key {number}", 0, block(number))
        store.flush()
    assert store._queue.bytes == 0
    found = [store.get(f"key {number}", 0) for number in range(40)]
    assert all(data in {None, block(number)} for number, data in enumerate(found))
    assert store._writer.index is not None
    store.close()


def test_a_disk_that_others_filled(tiny_disk: Path) -> None:
    """Nothing can be kept; once there is space again, it is."""
    store = BlockStore(tiny_disk, 1 << 30, min_free=0)
    store.put("a", 0, block(1))
    filler = tiny_disk / "filler"
    with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert not store.put("b", 0, block(2))
    assert store.get("b", 0) is None
    filler.unlink()
    assert store.put("b", 0, block(2))
    assert store.get("b", 0) == block(2)
    store.close()


def test_a_read_only_directory(tiny_disk: Path) -> None:
    """What becomes read-only is read; a mount that starts there has no cache, and says nothing."""
    store = BlockStore(tiny_disk, 1 << 30, min_free=0)
    store.put("a", 0, block(1))
    # Writers hold the file system up: the connections are open for writing.
    store.close()
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    again = BlockStore(tiny_disk, 1 << 30, min_free=0)
    again.write("b", 0, block(2))
    again.flush()
    assert again.get("a", 0) in {None, block(1)}
    assert (again.present("b"), again.used_bytes() in {0, BLOCK}) == (set(), True)
    assert not again.put("c", 0, block(3))
    again.drop("a")
    again.evict(1)
    again.close()
    subprocess.run(["mount", "-o", "remount,rw", str(tiny_disk)], check=True)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """The cache is off, and on again as soon as it can be."""
    (tmp_path / "cache").write_text("a file")
    store = BlockStore(tmp_path / "cache", LIMIT, min_free=0)
    assert not store.put("a", 0, block(1))
    assert (store.get("a", 0), store.present("a"), store.used_bytes()) == (None, set(), 0)
    (tmp_path / "cache").unlink()
    store._writer._retry_at = 0.0
    assert store.put("a", 0, block(1))
    assert store.get("a", 0) == block(1)
    store.close()


@pytest.mark.parametrize("what", ["all", "files", "database"])
def test_a_cache_that_is_removed_under_a_live_mount(what: str, cache: Path, store: BlockStore) -> None:
    """Misses, then a cache again, which the next mount finds; nothing is written where nobody would find it."""
    store.put("a", 0, block(1))
    store.get("a", 0)
    other = BlockStore(cache, LIMIT, min_free=0)
    if what == "all":
        shutil.rmtree(cache)
    elif what == "files":
        shutil.rmtree(cache / "blocks")
    else:
        for path in cache.glob("blocks.db*"):
            path.unlink()
    assert store.get("a", 0) in {None, block(1)}
    assert store.put("b", 0, block(2))
    assert store.get("b", 0) == block(2)
    assert other.put("c", 0, block(3))
    third = BlockStore(cache, LIMIT, min_free=0)
    assert (third.get("b", 0), third.get("c", 0)) == (block(2), block(3))
    assert third.get("a", 0) in {None, block(1)}
    for made in (other, third):
        made.close()


def test_a_flipped_byte_in_every_file(cache: Path, store: BlockStore) -> None:
    """Every damaged block is a miss, every other one is right, and what is written again is read again."""
    for number in range(20):
        store.write(f"key {number}", 0, block(number, 5000))
        store.write(f"key {number}", 1, block(number + 1, 100))
    store.flush()
    for path in files(cache):
        with path.open("r+b") as file:
            file.seek(1234)
            file.write(b"!")
    fresh = BlockStore(cache, LIMIT, min_free=0)
    assert all(fresh.get(f"key {number}", 0) is None for number in range(20))
    assert all(fresh.get(f"key {number}", 1) == block(number + 1, 100) for number in range(20))
    for number in range(20):
        fresh.write(f"key {number}", 0, block(number, 5000))
    fresh.close()
    again = BlockStore(cache, LIMIT, min_free=0)
    assert all(again.get(f"key {number}", 0) == block(number, 5000) for number in range(20))
    again.close()


def test_a_database_damaged_while_open_is_begun_anew(cache: Path, store: BlockStore) -> None:
    """Nonsense in its pages: misses, and a new one with the next batch that notices."""
    for number in range(200):
        store.write(f"key {number}", 0, block(number, 10))
    store.close()
    path = cache / "blocks.db"
    raw = bytearray(path.read_bytes())
    raw[4096:] = os.urandom(len(raw) - 4096)
    path.write_bytes(raw)
    fresh = BlockStore(cache, LIMIT, min_free=0)
    assert fresh.get("key 1", 0) is None
    fresh.put("a", 0, block(1))
    assert fresh.put("a", 0, block(1))
    assert fresh.get("a", 0) == block(1)
    fresh.close()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA quick_check").fetchone() == ("ok",)
    db.close()


FILL = """
import hashlib, sys
from pathlib import Path
from artifactfs.content.block_store import BlockStore
store = BlockStore(Path(sys.argv[1]), 1 << 30, min_free=0)
print("filling", flush=True)
number = 0
while True:
    for at in range(3):
        store.write(f"key {number}", at, hashlib.sha256(b"%d %d" % (number, at)).digest() * 2000)
    if number % 20 == 0:
        store.flush()
    number += 1
"""


def test_a_process_killed_while_it_fills(cache: Path) -> None:
    """Every block that is recorded verifies; bytes that are not are found and removed, while others are written."""
    import hashlib

    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", FILL, str(cache)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.4)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        process.stdout.close()
    found = cache_check.check(cache, repair=False)
    assert found.blocks > 0
    assert found.bad == []
    store = BlockStore(cache, 1 << 30, min_free=0)
    for at in range(3):
        assert store.get("key 0", at) == hashlib.sha256(b"0 %d" % at).digest() * 2000
    store.close()


def test_orphans_are_found_without_a_scan(cache: Path, store: BlockStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that a killed process left are removed a directory at a time; those of contents stay."""
    monkeypatch.setattr("artifactfs.content.block_writer.SWEEP_EVERY_S", 0.0)
    for number in range(30):
        store.put(f"key {number}", 0, block(number, 10))
    for number in range(0, 256, 5):
        directory = cache / "blocks" / f"{number:02x}"
        directory.mkdir(exist_ok=True)
        (directory / ("0" * 30)).write_bytes(b"left by a process that was killed")
    assert len(files(cache)) == 30 + 52
    for turn in range(256):
        store.put("turn", turn % 60, block(turn, 10))
    assert len(files(cache)) == 31
    assert all(store.get(f"key {number}", 0) == block(number, 10) for number in range(30))


def test_a_batch_that_fails_leaves_no_file(cache: Path, store: BlockStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It happens whole or not at all."""
    index = store._writer.index
    assert index is not None

    def broken(*args):
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patched:
        patched.setattr(index, "record", broken)
        assert not store.put("a", 0, block(1))
        store.write("b", 0, block(2))
        store.flush()
    assert (files(cache), store.present("a"), store.present("b")) == ([], set(), set())
    assert store.put("a", 0, block(1))


@pytest.mark.parametrize("what", ["a pipe", "a link", "a link to nowhere", "a directory"])
def test_other_things_in_the_place_of_files(cache: Path, store: BlockStore, tmp_path: Path, what: str) -> None:
    """Nobody waits for them, nothing is read or written elsewhere, and what is kept next takes their place."""
    elsewhere = tmp_path / "elsewhere"
    assert store.put("a", 0, block(1))
    (path,) = [one for one in (cache / "blocks").rglob("*") if one.is_file()]
    path.unlink()
    match what:
        case "a pipe":
            os.mkfifo(path)
        case "a link":
            elsewhere.write_bytes(block(1))
            path.symlink_to(elsewhere)
        case "a link to nowhere":
            path.symlink_to(elsewhere)
        case _:
            path.mkdir()
            (path / "file").touch()
    again = BlockStore(cache, LIMIT, min_free=0)
    assert again.get("a", 0) is None
    assert again.put("a", 0, block(1))
    assert again.get("a", 0) == block(1)
    assert again.put("a", 1, block(2))
    again.close()
    assert path.is_file()
    assert not path.is_symlink()
    assert elsewhere.exists() == (what == "a link")


async def test_a_disk_that_hangs_is_a_miss(cache: Path, store: BlockStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for the one reader that finds out alone; and nobody else waits for it for a while."""
    assert store.put("a", 0, block(1))
    again, hung = BlockStore(cache, LIMIT, min_free=0), threading.Event()
    read, asked = again._table.read, list[Entry]()

    def hanging(entry: Entry) -> tuple[Entry | None, bytes | None]:
        asked.append(entry)
        hung.wait(60)
        return read(entry)

    monkeypatch.setattr(again._table, "read_cached", lambda _entry: None)
    monkeypatch.setattr(again._table, "read", hanging)
    monkeypatch.setattr(block_store, "HUNG_S", 0.1)
    with trio.fail_after(10):
        assert [await again.fetch("a", 0) for _ in range(3)] == [None] * 3
    assert len(asked) == 1
    monkeypatch.setattr(again, "_hangs_until", 0.0)
    hung.set()
    assert await again.fetch("a", 0) == block(1)
    again.close()
