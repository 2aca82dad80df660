"""Equal contents are stored once, pins hold, and several processes share one directory."""

from __future__ import annotations

import hashlib
import random
import sqlite3
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import pytest

from artifactfs.content.block_store import BlockStore
from artifactfs.content.extents import BLOCK
from tests.support.blocks import LIMIT, block, files


def fill(store: BlockStore, key: str, *blocks: bytes) -> str:
    """Write a content and say what its hash is; return its name by hash."""
    for number, data in enumerate(blocks):
        store.write(key, number, data)
    digest = hashlib.sha256(b"".join(blocks)).hexdigest()
    store.identify(key, digest)
    return f"sha256:{digest}"


def test_a_content_can_be_read_by_its_hash_at_once_and_after_a_restart(tmp_path: Path, store: BlockStore) -> None:
    """Before anything is on disk, after, and in the next process; whole, block by block."""
    name = fill(store, "a", block(1), block(2, 10))
    again = BlockStore(tmp_path, LIMIT, min_free=0)
    for store_now in (store, again):
        for key in ("a", name):
            assert (store_now.get(key, 0), store_now.get(key, 1)) == (block(1), block(2, 10))
            assert store_now.present(key) == {0, 1}
        store.flush()
    assert store.get_nowait(name, 0) == block(1)
    again.close()
    assert len(files(tmp_path)) == 1
    assert store.used_bytes() == BLOCK + 10


@pytest.mark.parametrize("flushed", [True, False], ids=["one batch each", "one batch"])
def test_equal_contents_are_stored_once(
    tmp_path: Path, store: BlockStore, flushed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bytes from two services, or in two versions, are written once; each name reads them."""
    monkeypatch.setattr("artifactfs.content.block_store.GATHER_S", 60.0)  # however slow the machine is
    names = set()
    written: list[int] = []
    original = store._writer.files.write

    def counted(file, blocks):
        written.append(len(blocks))
        original(file, blocks)

    monkeypatch.setattr(store._writer.files, "write", counted)
    for key in ("one/a", "two/b", "one/v2/a"):
        names.add(fill(store, key, block(1), block(2)))
        if flushed:
            store.flush()
    store.flush()
    assert len(names) == 1
    assert sum(written) == 2
    assert (store.used_bytes(), len(files(tmp_path))) == (2 * BLOCK, 1)
    for key in ("one/a", "two/b", "one/v2/a", *names):
        assert (store.get(key, 0), store.get(key, 1)) == (block(1), block(2))


def test_what_turns_out_equal_late_is_stored_once(tmp_path: Path, store: BlockStore) -> None:
    """A content that was on disk before its hash was known gives way to the one that is there already."""
    fill(store, "a", block(1), block(2))
    store.flush()
    store.write("b", 0, block(1))
    store.flush()
    assert store.used_bytes() == 3 * BLOCK
    name = fill(store, "b", block(1), block(2))
    store.flush()
    assert (store.used_bytes(), len(files(tmp_path))) == (2 * BLOCK, 1)
    assert all(store.get(key, 1) == block(2) for key in ("a", "b", name))


def test_the_fuller_of_two_equal_contents_stays(tmp_path: Path, store: BlockStore) -> None:
    """Of a content that has lost a block, the whole copy makes a whole one."""
    fill(store, "a", block(1), block(2))
    store.flush()
    (path,) = files(tmp_path)
    path.write_bytes(block(9) + path.read_bytes()[BLOCK:])
    fresh = BlockStore(tmp_path, LIMIT, min_free=0)
    assert fresh.get("a", 0) is None
    fresh.flush()
    fresh.write("b", 0, block(1))
    fresh.write("b", 1, block(2))
    fresh.flush()
    fill(fresh, "b", block(1), block(2))
    fresh.flush()
    assert all(fresh.get(key, at) == block(at + 1) for key in ("a", "b") for at in range(2))
    assert len(files(tmp_path)) == 1
    fresh.close()


def test_a_hash_can_be_read_before_the_database_knows_it(store: BlockStore) -> None:
    """Also when its blocks are on disk already, and no longer in memory."""
    store.write("a", 0, block(1))
    store.flush()
    digest = hashlib.sha256(block(1)).hexdigest()
    store.identify("a", digest)
    store._hot.clear()
    assert (store.get(f"sha256:{digest}", 0), store.present(f"sha256:{digest}")) == (block(1), {0})


def test_a_name_only_to_write_under(store: BlockStore) -> None:
    """It names nothing afterwards; the hash does, and a pin of it goes over."""
    digest = hashlib.sha256(block(1)).hexdigest()
    store.write("temporary", 0, block(1))
    store.pin("temporary", "user")
    store.identify("temporary", digest, keep_name=False)
    store.flush()
    store.cool("temporary")
    assert store.get("temporary", 0) is None
    assert store.get(f"sha256:{digest}", 0) == block(1)
    store.evict(LIMIT)
    assert store.get(f"sha256:{digest}", 0) == block(1)


def test_dropping_one_name_leaves_the_others(tmp_path: Path, store: BlockStore) -> None:
    """The blocks go with the last of them."""
    name = fill(store, "a", block(1))
    fill(store, "b", block(1))
    store.flush()
    store.cool("a")
    store.drop("a")
    assert [store.get(key, 0) for key in ("a", "b", name)] == [None, block(1), block(1)]
    store.cool("b")
    store.drop("b")
    store.drop(name)
    assert (store.used_bytes(), files(tmp_path)) == (0, [])


def test_evicting_forgets_all_names(store: BlockStore) -> None:
    """No name leads to a blob that is gone."""
    name = fill(store, "a", block(1))
    store.flush()
    store.cool("a")
    store.evict(1)
    assert [store.get(key, 0) for key in ("a", name)] == [None, None]
    fill(store, "a", block(1))
    assert store.get(name, 0) == block(1)


# -- pins ------------------------------------------------------------------------------------------------------------


def test_pinned_contents_go_last_and_those_of_users_never(store: BlockStore) -> None:
    """Also if they are oldest; a pin may come before the content, and is taken back."""
    store.pin("user", "user")
    for name in ("user", "archive", "plain"):
        store.put(name, 0, block(1))
    store.pin("archive", "archive")
    store.flush()
    store.evict(1)
    assert [store.get(name, 0) is not None for name in ("user", "archive", "plain")] == [True, True, False]
    store.evict(LIMIT)
    assert [store.get(name, 0) is not None for name in ("user", "archive")] == [True, False]
    store.unpin("user")
    store.flush()
    store.evict(1)
    assert store.get("user", 0) is None


def test_a_pin_goes_over_to_the_blob_that_stays(store: BlockStore) -> None:
    """Of two equal contents one was pinned: what is left of both is."""
    fill(store, "a", block(1))
    store.write("b", 0, block(1))
    store.pin("b", "user")
    store.flush()
    fill(store, "b", block(1))
    store.flush()
    assert store.used_bytes() == BLOCK
    store.evict(LIMIT)
    assert store.used_bytes() == BLOCK


def test_a_pin_by_one_name_holds_for_all(store: BlockStore) -> None:
    """Whichever name is pinned, before or after it is known that they are the same."""
    fill(store, "a", block(1))
    fill(store, "b", block(1))
    store.pin("b", "user")
    store.flush()
    store.evict(LIMIT)
    assert store.get("a", 0) == block(1)
    store.cool("a")
    store.cool("b")
    store.drop("b")
    store.evict(LIMIT)
    assert store.get("a", 0) is None


def test_a_cache_full_of_what_users_pinned_takes_no_more(tmp_path: Path) -> None:
    """The limit holds, what is pinned stays, reads go on without being kept."""
    store = BlockStore(tmp_path, 4 * BLOCK, min_free=0)
    for number in range(4):
        store.pin(f"key {number}", "user")
        store.flush()
        store.put(f"key {number}", 0, block(number))
    assert not store.put("more", 0, block(9))
    assert all(store.get(f"key {number}", 0) == block(number) for number in range(4))
    store.close()


# -- several mounts --------------------------------------------------------------------------------------------------

HAMMER = """
import hashlib, random, sys
from pathlib import Path
from artifactfs.content.block_store import BlockStore
from artifactfs.content.extents import BLOCK

def content(number):
    return [(hashlib.sha256(b"%d %d" % (number, at)).digest() * 400)[: 9000 + number] for at in range(1 + number % 3)]

root, seed = Path(sys.argv[1]), int(sys.argv[2])
dice = random.Random(seed)
store = BlockStore(root, 600_000, min_free=0)
read = 0
for turn in range(600):
    number = dice.randrange(24)
    whole = content(number)
    name = "sha256:" + hashlib.sha256(b"".join(whole)).hexdigest()
    key = f"{dice.choice('ab')}/{number}"
    deed = dice.random()
    if deed < 0.4:
        for at, data in enumerate(whole):
            store.write(key, at, data)
        store.identify(key, name[7:], keep_name=dice.random() < 0.8)
    elif deed < 0.45:
        store.evict(100_000)
    elif deed < 0.5:
        store.drop(key)
    elif deed < 0.55:
        store.cool(key)
    elif deed < 0.6:
        store.pin(key, "archive")
    elif deed < 0.65:
        store.flush()
    else:
        for asked in (key, name):
            at = dice.randrange(len(whole))
            found = store.get(asked, at)
            assert found in (None, whole[at]), (asked, at)
            read += found is not None
store.close()
print(read)
"""


def test_two_processes_on_one_directory(tmp_path: Path) -> None:
    """Two mounts write, name, pin, evict, drop and read the same contents at once: no error, no wrong byte."""
    script = [sys.executable, "-c", HAMMER, str(tmp_path)]
    running = [
        subprocess.Popen([*script, str(seed)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for seed in (random.randrange(1 << 30), random.randrange(1 << 30))
    ]
    for process in running:
        out, err = process.communicate(timeout=100)
        assert (process.returncode, err) == (0, "")
        assert int(out) > 0
    after = BlockStore(tmp_path, LIMIT, min_free=0)
    index = after._writer.index
    assert index is not None
    blobs = index.blobs()
    recorded = {blob.id: sum(length for _, length, _ in index.blocks(blob.id)) for blob in blobs}
    assert recorded == {blob.id: blob.bytes for blob in blobs}
    assert after.used_bytes() == sum(recorded.values())
    assert len(files(tmp_path)) <= len(blobs)
    after.close()


def test_another_mount_sees_what_is_written_and_survives_what_is_evicted(tmp_path: Path, store: BlockStore) -> None:
    """What one knows by heart of the other's doings may be old: then it asks again, and is right."""
    other = BlockStore(tmp_path, LIMIT, min_free=0)
    assert (other.get("a", 0), other.present("a")) == (None, set())
    store.put("a", 0, block(1))
    assert (other.get("a", 0), other.present("a")) == (block(1), {0})
    store.drop("a")
    assert other.get("a", 0) in {None, block(1)}
    assert other.present("a") == set()
    store.put("a", 0, block(1))
    store.put("a", 1, block(2))
    assert (other.get("a", 0), other.get("a", 1)) == (block(1), block(2))
    other.close()


def test_readers_and_evictions_in_threads(store: BlockStore) -> None:
    """Descriptors are closed while others read: a number never leads to another file."""
    wrong: list[object] = []

    def evict() -> None:
        for turn in range(150):
            store.put(f"key {turn % 80}", 0, block(turn % 80, 500))
            if turn % 5 == 0:
                store.evict(5000)

    thread = threading.Thread(target=evict)
    thread.start()
    for turn in range(3000):
        found = store.get(f"key {turn % 80}", 0)
        if found not in {None, block(turn % 80, 500)}:
            wrong.append(turn)
    thread.join()
    assert not wrong


def test_another_program_can_read_the_cache(tmp_path: Path, store: BlockStore) -> None:
    """docs/cache.md is enough: SQLite and CRC-32, nothing of ours."""
    name = fill(store, "a", block(1), block(2, 77))
    store.flush()
    db = sqlite3.connect(f"file:{tmp_path}/blocks.db?mode=ro", uri=True)
    assert db.execute("PRAGMA user_version").fetchone() == (3,)
    ((file,),) = db.execute("SELECT file FROM name JOIN blob ON blob.id=name.blob WHERE key=?", (name,)).fetchall()
    rows = db.execute(
        "SELECT number, length, crc FROM name JOIN block USING (blob) WHERE key='a' ORDER BY number"
    ).fetchall()
    db.close()
    raw = (tmp_path / "blocks" / file[:2] / file[2:]).read_bytes()
    pieces = [raw[number * 262_144 : number * 262_144 + length] for number, length, _ in rows]
    assert [zlib.crc32(piece) for piece in pieces] == [crc for _, _, crc in rows]
    assert b"".join(pieces) == block(1) + block(2, 77)
