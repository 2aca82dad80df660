"""Blocks on a real disk, and the database that says which are true."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import time
import zlib
from pathlib import Path

import pytest
import trio

from artifactfs.content.block_index import BlockIndex
from artifactfs.content.block_queue import MOST_BYTES, ROOM_BYTES
from artifactfs.content.block_store import HOT_BYTES, BlockStore
from artifactfs.content.extents import BLOCK
from tests.support.blocks import LIMIT, block, files


def test_blocks_outlive_the_process(tmp_path: Path, store: BlockStore) -> None:
    """What was kept is there in the next store on the directory; nothing is there that was not kept."""
    assert store.put("a", 0, block(1))
    assert store.put("a", 2, block(3, 100))
    store.close()
    again = BlockStore(tmp_path, LIMIT, min_free=0)
    assert [again.get("a", at) for at in range(4)] == [block(1), None, block(3, 100), None]
    assert again.present("a") == {0, 2}
    assert again.used_bytes() == BLOCK + 100
    again.close()


def test_the_directory_is_the_owners_alone(tmp_path: Path, store: BlockStore) -> None:
    """Content may be secret: nobody else reads the cache."""
    store.put("a", 0, block(1))
    assert all(path.stat().st_mode & 0o077 == 0 for path in files(tmp_path))
    assert store.root.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("harm", ["flip", "cut", "delete"])
def test_a_block_that_does_not_verify_is_a_miss_and_is_forgotten(harm: str, tmp_path: Path, store: BlockStore) -> None:
    """Flipped, cut off or gone: None, once and for ever, and the bytes are not counted any more."""
    store.put("a", 0, block(1))
    (path,) = files(tmp_path)
    if harm == "flip":
        path.write_bytes(b"\1" + path.read_bytes()[1:])
    elif harm == "cut":
        os.truncate(path, 100)
    else:
        path.unlink()
    assert store.get("a", 0) is None
    store.flush()
    assert store.present("a") == set()
    assert store.used_bytes() == 0
    assert store.put("a", 0, block(1))
    assert store.get("a", 0) == block(1)
    assert store.used_bytes() == BLOCK


def test_the_longest_unused_content_goes_first(tmp_path: Path, store: BlockStore) -> None:
    """Reading counts as use: what is read stays, what is only old goes; in the next process, too."""
    for name in "abcd":
        store.put(name, 0, block(ord(name)))
    assert store.get("a", 0)
    store.evict(2 * BLOCK)
    assert [store.get(name, 0) is not None for name in "abcd"] == [True, False, False, True]
    store.put("e", 0, block(5))
    assert store.get("a", 0)
    store.close()
    again = BlockStore(tmp_path, LIMIT, min_free=0)
    again.evict(2 * BLOCK)
    assert [again.get(name, 0) is not None for name in "ade"] == [True, False, False]
    again.close()


def test_the_limit_holds(tmp_path: Path) -> None:
    """However much is put, what is kept stays near the limit, on disk too."""
    store = BlockStore(tmp_path, 16 * BLOCK, min_free=0)
    for number in range(100):
        assert store.put(f"key {number}", 0, block(number))
    assert store.used_bytes() <= 18 * BLOCK
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 18 * BLOCK
    assert store.get("key 99", 0) == block(99)
    assert store.get("key 0", 0) is None


def test_the_limit_holds_for_batches(tmp_path: Path) -> None:
    """A batch is small beside a small limit."""
    store = BlockStore(tmp_path, 8 * BLOCK, min_free=0)
    for number in range(34):
        store.write("large", number, block(number))
    store.flush()
    assert 0 < store.used_bytes() <= 8 * BLOCK
    store.close()


def test_a_content_larger_than_the_limit(tmp_path: Path) -> None:
    """A content that does not fit evicts itself and never more: no error, right bytes or none."""
    store = BlockStore(tmp_path, 8 * BLOCK, min_free=0)
    for number in range(40):
        assert store.put("large", number, block(number))
    assert store.used_bytes() <= 10 * BLOCK
    assert all(store.get("large", number) in {None, block(number)} for number in range(40))


def test_free_disk_is_left_to_others(tmp_path: Path) -> None:
    """With less free disk than it must leave, the store keeps giving up what it holds."""
    store = BlockStore(tmp_path, 16 * BLOCK, min_free=1 << 60)
    for number in range(20):
        store.put(f"key {number}", 0, block(number))
    assert store.used_bytes() <= 3 * BLOCK


def test_two_stores_on_one_directory(tmp_path: Path) -> None:
    """Two mounts write, read and evict at the same time: nobody fails, nobody reads a wrong byte."""
    stores = [BlockStore(tmp_path, 32 * BLOCK, min_free=0) for _ in range(2)]
    wrong: list[object] = []

    def work(store: BlockStore) -> None:
        for turn in range(60):
            name = f"key {turn % 20}"
            store.put(name, turn % 3, block(turn % 20 + turn % 3))
            found = store.get(name, turn % 3)
            if found not in {None, block(turn % 20 + turn % 3)}:
                wrong.append((name, turn))
            if turn % 10 == 9:
                store.drop(name)

    threads = [threading.Thread(target=work, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert stores[0].present("key 1") == stores[1].present("key 1")
    for store in stores:
        store.close()


def test_stores_opened_at_the_same_time_make_one_database(tmp_path: Path) -> None:
    """Many mounts starting on a fresh directory do not undo each other's tables."""
    stores: list[BlockStore] = []
    threads = [
        threading.Thread(target=lambda: stores.append(BlockStore(tmp_path, LIMIT, min_free=0))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 6
    stores[0].put("a", 0, block(1))
    assert all(store.get("a", 0) == block(1) for store in stores)


def test_memory_and_eviction_may_meet(store: BlockStore) -> None:
    """Blocks are kept in memory on the event loop while a thread evicts: neither disturbs the other."""
    failures: list[BaseException] = []

    def evict() -> None:
        try:
            for number in range(300):
                store.drop(f"key {number % 40}")
        except BaseException as error:  # noqa: BLE001 - a thread's error is looked at below
            failures.append(error)

    thread = threading.Thread(target=evict)
    thread.start()
    for number in range(3000):
        store.keep_hot(f"key {number % 40}", number, b"x" * 2000)
    thread.join()
    assert not failures


def test_memory_is_bounded_and_cooled(store: BlockStore) -> None:
    """Blocks in memory have a limit, and those of a content that turns out wrong are forgotten."""
    for number in range(2 * HOT_BYTES // BLOCK):
        store.keep_hot("a", number, block(number))
    store.keep_hot("b", 0, block(7))
    assert (
        sum(store.get_nowait("a", number) is not None for number in range(2 * HOT_BYTES // BLOCK)) <= HOT_BYTES // BLOCK
    )
    store.cool("a")
    assert all(store.get_nowait("a", number) is None for number in range(2 * HOT_BYTES // BLOCK))
    assert store.get_nowait("b", 0) == block(7)


def test_residue_of_a_crash_is_no_content(tmp_path: Path, store: BlockStore) -> None:
    """Bytes that were written and never recorded do not exist; writing the block again makes it true."""
    store.put("a", 0, block(1))
    (path,) = files(tmp_path)
    with path.open("r+b") as file:
        file.seek(BLOCK)
        file.write(b"half a blo")
    assert store.get("a", 1) is None
    assert store.put("a", 1, block(2))
    assert (store.get("a", 0), store.get("a", 1)) == (block(1), block(2))


def test_a_broken_database_is_begun_anew_with_its_blocks(tmp_path: Path, store: BlockStore) -> None:
    """Without records nothing is believed: the bytes go too, or they would fill the disk and never be evicted."""
    store.put("a", 0, block(1))
    store.close()
    (tmp_path / "blocks.db").write_bytes(b"this is no database" * 500)
    (tmp_path / "blocks.db-wal").write_bytes(b"nor is this a log")
    again = BlockStore(tmp_path, LIMIT, min_free=0)
    assert again.get("a", 0) is None
    assert not files(tmp_path)
    assert again.put("a", 0, block(2))
    assert again.get("a", 0) == block(2)


def test_a_database_that_is_only_locked_is_left_alone(
    tmp_path: Path, store: BlockStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another mount's long transaction is no damage: nothing can be kept meanwhile, what is there stays and is read."""
    store.put("a", 0, block(1))
    monkeypatch.setattr("artifactfs.content.block_index.BUSY_S", 0.05)
    other = sqlite3.connect(tmp_path / "blocks.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    second = BlockStore(tmp_path, LIMIT, min_free=0)
    assert second.get("a", 0) == block(1)
    assert not second.put("a", 1, block(2))
    other.execute("ROLLBACK")
    other.close()
    assert second.put("a", 1, block(2))
    assert store.get("a", 1) == block(2)
    second.close()


# -- writing from the event loop -------------------------------------------------------------------------------------


def test_what_is_written_can_be_read_at_once(tmp_path: Path, store: BlockStore) -> None:
    """Also when it has left the hot blocks, and also by other means than memory once it is on disk."""
    store.write("a", 0, block(1))
    store.write("a", 2, block(3, 100))
    assert store.get_nowait("a", 0) == store.get("a", 0) == block(1)
    assert store.present("a") == {0, 2}
    for number in range(HOT_BYTES // BLOCK + 1):
        store.keep_hot("other", number, block(number))
    assert store.get_nowait("a", 2) in {None, block(3, 100)}
    assert store.get("a", 2) == block(3, 100)
    store.flush()
    assert store.get_nowait("a", 0) is None
    assert store.get("a", 0) == block(1)
    assert store.used_bytes() == BLOCK + 100


def test_closing_writes_what_waits(tmp_path: Path) -> None:
    """Nothing that was written is lost by an orderly end."""
    store = BlockStore(tmp_path, LIMIT, min_free=0)
    for number in range(50):
        store.write(f"key {number}", 0, block(number, 1000))
    store.close()
    again = BlockStore(tmp_path, LIMIT, min_free=0)
    assert all(again.get(f"key {number}", 0) == block(number, 1000) for number in range(50))
    again.close()


def test_the_thread_writes_by_itself(tmp_path: Path, store: BlockStore) -> None:
    """Nobody has to flush."""
    store.write("a", 0, block(1))
    deadline = time.monotonic() + 30
    while store.used_bytes() == 0:
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_small_contents_share_transactions(store: BlockStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 files of an archive cost a handful of transactions, not one each."""
    begun: list[int] = []
    original = BlockIndex.transaction

    def counted(self):
        begun.append(1)
        return original(self)

    monkeypatch.setattr(BlockIndex, "transaction", counted)
    for number in range(2000):
        store.write(f"key {number}", 0, block(number, 100))
    store.flush()
    assert len(begun) < 50
    assert store.used_bytes() == 2000 * 100


async def test_room_holds_a_stream_up_and_lets_it_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a disk that hangs, no more waits in memory than the bound; when it goes on, so does the stream."""
    store = BlockStore(tmp_path, 1 << 30, min_free=0)
    gate = threading.Event()
    original = store._writer.do
    monkeypatch.setattr(store._writer, "do", lambda *batch: gate.wait(60) and original(*batch))
    written = 0

    async def stream() -> None:
        nonlocal written
        for number in range(2 * ROOM_BYTES // BLOCK):
            store.write("a", number, block(number))
            written += 1
            await store.room()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream)
        await trio.sleep(0.2)
        assert written * BLOCK <= ROOM_BYTES
        gate.set()
    assert written == 2 * ROOM_BYTES // BLOCK
    await trio.to_thread.run_sync(store.close)


def test_memory_stays_bounded_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not wait loses blocks, and nobody loses memory."""
    store = BlockStore(tmp_path, 1 << 30, min_free=0)
    gate = threading.Event()
    original = store._writer.do
    monkeypatch.setattr(store._writer, "do", lambda *batch: gate.wait(60) and original(*batch))
    data = block(1)
    for number in range(2 * MOST_BYTES // BLOCK):
        store.write("a", number, data)
    assert store._queue.bytes <= MOST_BYTES
    gate.set()
    store.close()


async def test_fetching_does_not_hop_to_a_thread_for_what_the_kernel_has(
    tmp_path: Path, store: BlockStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block of the page cache costs the event loop its copy; only one that must be waited for goes to a thread."""
    store.put("a", 0, block(1))
    store.put("a", 1, block(2, 500))
    hops: list[object] = []
    original = trio.to_thread.run_sync

    async def counted(*args, **kwargs):
        hops.append(args)
        return await original(*args, **kwargs)

    monkeypatch.setattr(trio.to_thread, "run_sync", counted)
    assert (await store.fetch("a", 0), await store.fetch("a", 1)) == (block(1), block(2, 500))
    assert await store.fetch("a", 2) is None
    # A file system that cannot tell what is in memory (tmpfs of some kernels) has each block read in a thread.
    assert len(hops) == (0 if _supports_nowait(tmp_path) else 2)
    hops.clear()
    monkeypatch.setattr(store._table, "read_cached", lambda entry: None)
    assert await store.fetch("a", 0) == block(1)
    assert len(hops) == 1


def _supports_nowait(directory: Path) -> bool:
    path = directory / "probe"
    path.write_bytes(b"x" * 100)
    with path.open("rb") as file:
        try:
            return os.preadv(file.fileno(), [bytearray(100)], 0, os.RWF_NOWAIT) == 100
        except OSError:
            return False


def test_reading_in_order_asks_the_database_once_in_a_while(store: BlockStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are known by heart: 64 blocks, one question."""
    for number in range(60):
        assert store.put("a", number, block(number, 1000))
    asked: list[int] = []
    original = BlockIndex.page

    def counted(self, *args):
        asked.append(1)
        return original(self, *args)

    monkeypatch.setattr(BlockIndex, "page", counted)
    assert all(store.get("a", number) == block(number, 1000) for number in range(60))
    assert len(asked) == 1


def test_open_files_are_bounded_and_those_removed_are_let_go(store: BlockStore) -> None:
    """However many contents are read; a descriptor would keep the disk space of what another mount evicted."""
    for number in range(100):
        store.put(f"key {number}", 0, block(number, 10))
        assert store.get(f"key {number}", 0)
    assert len(store._writer.files._open) <= 64
    for path in files(store.root.parent):
        path.unlink()
    store.put("new", 0, block(1))
    assert len(store._writer.files._open) == 0


def test_dropping_overtakes_nothing(store: BlockStore) -> None:
    """What waits for the disk is dropped, too; what is written after is there."""
    store.write("a", 0, block(1))
    store.write("b", 0, block(2))
    store.cool("a")
    store.drop("a")
    assert store.get("a", 0) is None
    store.write("a", 1, block(3))
    store.discard("b")
    assert (store.get("b", 0), store.present("b")) == (None, set())
    store.flush()
    assert (store.present("a"), store.present("b")) == ({1}, set())
    store.write("c", 0, block(4))
    store.drop("c")
    store._hot.clear()
    assert store.get("c", 0) is None
    store.flush()
    assert store.present("c") == set()
    assert store._queue.bytes == 0


# -- starting --------------------------------------------------------------------------------------------------------


def test_opening_scans_nothing(tmp_path: Path, store: BlockStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 blocks, and no directory is read; less than 0.1 s of processor time."""
    store.put("a", 0, block(1, 10))
    store.close()
    db = sqlite3.connect(tmp_path / "blocks.db")
    db.executemany("INSERT INTO block VALUES (1, ?, 1, 0)", ((number,) for number in range(1, 100_001)))
    db.commit()
    db.close()
    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, lambda *args: pytest.fail("a directory is read"))
    begun = time.process_time()
    again = BlockStore(tmp_path, LIMIT, min_free=0)
    assert again.get("a", 0) == block(1, 10)
    assert again.used_bytes() == 100_010
    assert time.process_time() - begun < 0.1
    monkeypatch.undo()
    again.close()


def test_a_cache_of_version_1_is_kept(tmp_path: Path) -> None:
    """What 0.1 cached needs not be fetched again."""
    (tmp_path / "blocks/ca").mkdir(parents=True)
    name = hashlib.sha256(b"a").hexdigest()
    (tmp_path / "blocks" / name[:2] / name[2:]).write_bytes(block(1) + block(2, 10))
    db = sqlite3.connect(tmp_path / "blocks.db")
    db.executescript(
        """CREATE TABLE blob (
            id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, bytes INTEGER NOT NULL DEFAULT 0, used REAL NOT NULL
        );
        CREATE INDEX blob_used ON blob(used);
        CREATE TABLE block (
            blob INTEGER NOT NULL REFERENCES blob(id) ON DELETE CASCADE, number INTEGER NOT NULL,
            length INTEGER NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (blob, number)
        ) WITHOUT ROWID;
        PRAGMA user_version=1;"""
    )
    db.execute("INSERT INTO blob VALUES (7, 'a', ?, 1.0)", (BLOCK + 10,))
    rows = [(7, 0, BLOCK, zlib.crc32(block(1))), (7, 1, 10, zlib.crc32(block(2, 10)))]
    db.executemany("INSERT INTO block VALUES (?, ?, ?, ?)", rows)
    db.commit()
    db.close()
    store = BlockStore(tmp_path, LIMIT, min_free=0)
    assert (store.get("a", 0), store.get("a", 1)) == (block(1), block(2, 10))
    assert store.used_bytes() == BLOCK + 10
    store.evict(1)
    assert (store.used_bytes(), files(tmp_path)) == (0, [])
    store.close()


def test_a_cache_of_another_version_is_begun_anew(tmp_path: Path, store: BlockStore) -> None:
    """A format that nobody knows goes, with its bytes."""
    store.put("a", 0, block(1))
    store.close()
    db = sqlite3.connect(tmp_path / "blocks.db")
    db.execute("PRAGMA user_version=77")
    db.close()
    again = BlockStore(tmp_path, LIMIT, min_free=0)
    assert (again.get("a", 0), files(tmp_path)) == (None, [])
    assert again.put("a", 0, block(2))
    again.close()
