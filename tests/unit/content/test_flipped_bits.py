"""Bits flipped anywhere in the databases of a cache: what is read of them is what was written, or is not known.

Most flips leave a database that SQLite finds nothing wrong with.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from artifactfs.content import block_writer, cache_check
from artifactfs.content.block_files import DIRECTORIES
from artifactfs.content.block_store import BlockStore
from artifactfs.content.facts import Facts
from artifactfs.content.metadata import KeptListing, KeptVersions, Metadata
from artifactfs.model.entry import DirRef, Empty, Folder, Version
from tests.support.examples import EXAMPLES
from tests.support.log_guard import LogGuard

FLIPS = (EXAMPLES or 1) * 150
NUMBERS = range(20)


@pytest.fixture(autouse=True)
def _it_is_said(expected_logs: LogGuard) -> None:
    expected_logs("in memory only|listings cannot be kept")


def checkpointed(path: Path) -> bytes:
    """Return a database, all of it in one file."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.read_bytes()


def flip_everywhere(path: Path, check: Callable[[], None]) -> None:
    """Flip one bit at a time, in what is of any use, and check what is then read."""
    raw, chance = checkpointed(path), random.Random(3)
    used = [at for at, byte in enumerate(raw) if byte]
    for place in chance.sample(used, FLIPS):
        for beside in path.parent.glob(f"{path.stem}*"):
            if beside.is_file():
                beside.unlink()
        harmed = bytearray(raw)
        harmed[place] ^= 1 << chance.randrange(8)
        path.write_bytes(harmed)
        check()


def test_no_flipped_bit_shows_other_bytes(tmp_path: Path) -> None:
    """Names that differ in one bit, and blobs whose numbers do: no block is that of another name."""
    contents = {f"vm0:artifact-{number:02}": b"%02d" % number * 500 for number in NUMBERS}
    store = BlockStore(tmp_path, 1 << 30, min_free=0)
    for key, data in contents.items():
        assert store.put(key, 0, data)
    store.close()
    found = 0

    def check() -> None:
        nonlocal found
        store = BlockStore(tmp_path, 1 << 30, min_free=0)
        for key, data in contents.items():
            read = store.get(key, 0)
            assert read in {None, data}, key
            found += read is not None
        # It heals: what is fetched again is here again.
        for key, data in contents.items():
            store.put(key, 0, data)
        for key, data in contents.items():
            assert store.get(key, 0) in {None, data}, key
            assert isinstance(store.present(key), set), key
        # Whatever its rows say, what writes and evicts goes on.
        assert isinstance(store.used_bytes(), int)
        for key, data in contents.items():
            store.write(key, 1, data)
            store.identify(key, hashlib.sha256(data * 2).hexdigest())
            store.pin(key, "archive")
            store.unpin(key)
        store.flush()
        store.evict(1500)
        store.drop(key)
        store.close()
        small = BlockStore(tmp_path, 10_000, min_free=0)
        for key, data in contents.items():
            small.put(key, 0, data)
        small.close()

    blocks = {path: path.read_bytes() for path in (tmp_path / "blocks").rglob("*") if path.is_file()}

    def check_with_blocks() -> None:
        for path, data in blocks.items():
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_bytes(data)
        check()

    flip_everywhere(tmp_path / "blocks.db", check_with_blocks)
    assert found > FLIPS * len(contents) / 2


@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_version_that_is_not_its_own(tmp_path: Path, version: int) -> None:
    """What cannot be brought from there to here is begun anew: neither is the cache off for ever."""
    store, facts = BlockStore(tmp_path, 1 << 30, min_free=0), Facts(tmp_path / "facts.db")
    assert store.put("a", 0, b"a")
    facts.put_size("a", 1)
    store.close()
    facts.close()
    for name in ("blocks.db", "facts.db"):
        with contextlib.closing(sqlite3.connect(tmp_path / name)) as db:
            db.execute(f"PRAGMA user_version={version}")
    store, facts = BlockStore(tmp_path, 1 << 30, min_free=0), Facts(tmp_path / "facts.db")
    assert store.get("a", 0) in {None, b"a"}
    assert facts.sizes(["a"]) in ({}, {"a": 1})
    assert store.put("b", 0, b"b")
    assert store.get("b", 0) == b"b"
    facts.put_size("b", 2)
    store.close()
    facts.close()
    assert Facts(tmp_path / "facts.db").sizes(["b"]) == {"b": 2}


def test_a_name_of_another_content_is_found_and_repaired(tmp_path: Path) -> None:
    """And so is a size of the whole cache that is none."""
    store = BlockStore(tmp_path, 1 << 30, min_free=0)
    for key in "ab":
        assert store.put(key, 0, key.encode() * 1000)
    store.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "blocks.db")) as db:
        db.execute("UPDATE name SET blob=(SELECT blob FROM name WHERE key='b') WHERE key='a'")
        db.execute("UPDATE total SET bytes=bytes+1048576")
        db.commit()
    store = BlockStore(tmp_path, 1 << 30, min_free=0)
    assert (store.get("a", 0), store.get("b", 0), store.present("a")) == (None, b"b" * 1000, set())
    store.close()
    found = cache_check.check(tmp_path, repair=False)
    assert (found.healthy, found.bad, found.miscounted) == (False, ["name: a"], 1048576)
    assert cache_check.check(tmp_path, repair=True).healthy
    found = cache_check.check(tmp_path, repair=False)
    assert (found.healthy, found.bad, found.miscounted) == (True, [], 0)
    assert cache_check.summary(tmp_path)["used_bytes"] == 2000
    # By itself, too: what is kept under the name is again what it means.
    store = BlockStore(tmp_path, 1 << 30, min_free=0)
    assert store.put("a", 0, b"c" * 1000)
    assert (store.get("a", 0), store.get("b", 0)) == (b"c" * 1000, b"b" * 1000)
    store.close()


def made_nothing(path: Path, table: str, column: str) -> None:
    """Have the values of a column be NULL where there should be none, as one bit of a row's header does it."""
    there, away = "' NOT NULL'", "'     NULL'"
    for change in (
        f"UPDATE sqlite_master SET sql=replace(sql, {there}, {away})",
        f"UPDATE {table} SET {column}=NULL",
        f"UPDATE sqlite_master SET sql=replace(sql, {away}, {there})",
    ):
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA writable_schema=ON")
            db.execute(change)
            db.commit()


@pytest.mark.parametrize(
    ("table", "column"),
    [("total", "bytes"), ("blob", "bytes"), ("blob", "file"), ("block", "length"), ("block", "crc"), ("name", "blob")],
)
def test_what_is_no_number_is_no_cache_and_then_one_again(tmp_path: Path, table: str, column: str) -> None:
    """It fails nobody, is found by a check, and what is fetched again is kept again; by a thread that goes on."""
    store = BlockStore(tmp_path, 1 << 30, min_free=0)
    assert store.put("a", 0, b"a" * 1000)
    store.close()
    made_nothing(tmp_path / "blocks.db", table, column)
    assert not cache_check.check(tmp_path, repair=False).healthy
    store = BlockStore(tmp_path, 3000, min_free=0)
    assert store.get("a", 0) in {None, b"a" * 1000}
    assert isinstance(store.used_bytes(), int)
    store.evict(1)
    for key in "abcdef":
        store.write(key, 0, key.encode() * 1000)
        store.flush()
    store.close()
    cache_check.check(tmp_path, repair=True)
    store = BlockStore(tmp_path, 3000, min_free=0)
    assert store.put("g", 0, b"g" * 1000)
    assert store.get("g", 0) == b"g" * 1000
    assert store.used_bytes() <= 3000
    store.close()
    assert cache_check.check(tmp_path, repair=False).healthy


def test_a_cache_counts_itself_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once in a round of its looks for orphans: else a flipped bit would be another limit for ever."""
    monkeypatch.setattr(block_writer, "SWEEP_EVERY_S", 0.0)
    store = BlockStore(tmp_path, 1 << 30, min_free=0)
    assert store.put("a", 0, b"a" * 1000)
    with contextlib.closing(sqlite3.connect(tmp_path / "blocks.db")) as db:
        db.execute("UPDATE total SET bytes=bytes-1048576")
        db.commit()
    for _ in range(DIRECTORIES):
        assert store.put("a", 0, b"a" * 1000)
    assert store.used_bytes() == 1000
    store.close()


def test_an_index_that_is_nothing_keeps_no_other_from_being_kept(tmp_path: Path) -> None:
    facts = Facts(tmp_path / "facts.db")
    facts.put_archive_index("a", b"index")
    facts.close()
    made_nothing(tmp_path / "facts.db", "archive_index", "data")
    facts = Facts(tmp_path / "facts.db")
    facts.put_archive_index("b", b"another")
    assert (facts.archive_index("a"), facts.archive_index("b")) == (None, b"another")
    facts.close()


def test_no_flipped_bit_makes_another_fact(tmp_path: Path) -> None:
    keys = [f"vm0:artifact-{number:02}" for number in NUMBERS]
    facts = Facts(tmp_path / "facts.db")
    seen = facts.first_seen(keys)
    for number, key in enumerate(keys):
        facts.put_size(key, 1000 + number)
        facts.put_pointer(key, f"{number:064x}", number, changed_ns=number)
        facts.put_archive_index(key, f"index of {key}".encode())
        facts.memory("source").put(key, {"id": number})
    facts.close()
    found = 0

    def check() -> None:
        nonlocal found
        facts = Facts(tmp_path / "facts.db")
        memory = facts.memory("source")
        sizes, again, items = facts.sizes(keys), facts.first_seen(keys), dict(memory.items("vm0:"))
        for number, key in enumerate(keys):
            assert sizes.get(key, 1000 + number) == 1000 + number
            assert again[key] == seen[key] or again[key] > max(seen.values())
            pointer = facts.pointer(key)
            assert pointer is None or (pointer.sha256, pointer.size) == (f"{number:064x}", number)
            assert facts.archive_index(key) in {None, f"index of {key}".encode()}
            assert memory.get(key) in (None, {"id": number})
            assert items.get(key, {"id": number}) == {"id": number}
            found += key in sizes
            facts.put_archive_index(key, f"index of {key}".encode())
        # It is now what it was a moment ago; unless it was begun anew meanwhile, since SQLite saw the damage.
        assert facts.first_seen(keys) == again or list(tmp_path.glob("facts.broken-*"))
        facts.close()

    flip_everywhere(tmp_path / "facts.db", check)
    assert found > FLIPS * len(keys) / 2


def test_no_flipped_bit_makes_another_listing(tmp_path: Path) -> None:
    """Not its entries, not its age, not whether it is complete, not whose it is."""
    path = tmp_path / "metadata.db"
    listings = {
        DirRef("source", "runs", (f"w{number}",)): KeptListing(
            [Folder((f"title {number}",), f"id {number}")], 1000.0 + number, 60.0, number % 2 == 0, None
        )
        for number in range(10)
    }  # fmt: skip
    versions = {
        f"a{number}": KeptVersions(
            [Version(f"v{number}", Empty())], 2000.0 + number, complete=True, current=f"v{number}"
        )
        for number in range(10)
    }
    kept = Metadata(path)
    for ref, listing in listings.items():
        kept.keep_listing("source", ref, listing)
    for artifact, one in versions.items():
        kept.keep_versions("source", artifact, one)
    kept.close()
    found = 0

    async def read() -> None:
        nonlocal found
        metadata = Metadata(path)
        for ref, listing in listings.items():
            read = await metadata.listing("source", ref)
            assert read in (None, listing), ref
            found += read is not None
        for artifact, one in versions.items():
            assert await metadata.versions("source", artifact) in (None, one), artifact
        metadata.close()

    trio.run(read)
    assert found == len(listings)
    flip_everywhere(path, lambda: trio.run(read))
    assert found > FLIPS * len(listings) / 2
