"""Blocks on a real disk, and the database that says which are true."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from artifactfs.content.block_store import HOT_BYTES, BlockStore
from artifactfs.content.extents import BLOCK

LIMIT = 64 * BLOCK


@pytest.fixture
def store(tmp_path: Path) -> BlockStore:
    return BlockStore(tmp_path, LIMIT, min_free=0)


def block(seed: int, length: int = BLOCK) -> bytes:
    return (seed.to_bytes(4, "big") * (length // 4 + 1))[:length]


def files(root: Path) -> list[Path]:
    return [path for path in (root / "blocks").rglob("*") if path.is_file()]


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
    assert store.present("a") == set()
    assert store.used_bytes() == 0
    assert store.put("a", 0, block(1))
    assert store.get("a", 0) == block(1)
    assert store.used_bytes() == BLOCK


def test_the_longest_unused_content_goes_first(store: BlockStore) -> None:
    """Reading counts as use: what is read stays, what is only old goes."""
    for name in "abcd":
        store.put(name, 0, block(ord(name)))
    assert store.get("a", 0)
    store.evict(2 * BLOCK)
    assert [store.get(name, 0) is not None for name in "abcd"] == [True, False, False, True]


def test_the_limit_holds(tmp_path: Path) -> None:
    """However much is put, what is kept stays near the limit, on disk too."""
    store = BlockStore(tmp_path, 16 * BLOCK, min_free=0)
    for number in range(100):
        assert store.put(f"key {number}", 0, block(number))
    assert store.used_bytes() <= 18 * BLOCK
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 18 * BLOCK
    assert store.get("key 99", 0) == block(99)
    assert store.get("key 0", 0) is None


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
    """Another mount's long transaction is no damage: the start fails, the other's cache stays."""
    store.put("a", 0, block(1))
    store._db.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr("artifactfs.content.block_store.BUSY_S", 0.05)
    with pytest.raises(sqlite3.OperationalError):
        BlockStore(tmp_path, LIMIT, min_free=0)
    store._db.execute("ROLLBACK")
    assert store.get("a", 0) == block(1)


def test_a_directory_that_is_gone_is_made_again(tmp_path: Path, store: BlockStore) -> None:
    """Somebody deletes the cache: misses, then blocks again, never an error."""
    store.put("a", 0, block(1))
    shutil.rmtree(tmp_path)
    assert store.get("a", 0) is None
    store.put("a", 0, block(1))
    assert store.get("a", 0) in {None, block(1)}


def test_a_disk_that_takes_nothing_is_no_error(tmp_path: Path, store: BlockStore) -> None:
    """``put`` says that the block was not kept; get goes on answering."""
    store.put("a", 0, block(1))
    shutil.rmtree(store.root)
    store.root.write_bytes(b"a file where the directory was")
    assert not store.put("a", 1, block(2))
    assert store.get("a", 0) is None
