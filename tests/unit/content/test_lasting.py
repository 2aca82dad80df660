"""Databases of the cache whose disk is read-only, full, damaged or removed: nothing raises, and all mends itself."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio

from artifactfs.content.block_store import BlockStore
from artifactfs.content.facts import Facts
from artifactfs.content.metadata import KeptListing, KeptVersions, Metadata
from artifactfs.model.entry import DirRef, Empty, Folder, Version
from tests.support.log_guard import LogGuard
from tests.support.other_things import put_in_place
from tests.support.tiny_disk import tiny

REF = DirRef("s", "folder", ("x",))
KEPT = KeptListing([Folder(("x",), "a name")], time.time(), 60.0, complete=True, note="a note")
VERSIONS = KeptVersions([Version("id", Empty())], time.time(), complete=True, current="id")


@pytest.fixture(autouse=True)
def _told(expected_logs: LogGuard, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each failing disk is told once; and it is tried again at once."""
    expected_logs("kept in memory only|listings cannot be kept")
    monkeypatch.setattr("artifactfs.content.lasting.RETRY_S", 0.0)


def remounted(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


def filled(disk: Path) -> None:
    with pytest.raises(OSError, match="No space"), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


async def kept(metadata: Metadata) -> KeptListing | None:
    """Have a listing kept, and return what a later mount would find."""
    metadata.keep_listing("s", REF, KEPT)
    with trio.fail_after(20):
        while metadata.backlog():  # noqa: ASYNC110 - a thread does it
            await trio.sleep(0.01)
    later = Metadata(metadata._path)
    found = await later.listing("s", REF)
    later.close()
    return found


@pytest.mark.parametrize("how", ["read-only", "full", "a file in its place"])
async def test_what_starts_without_a_disk_goes_on_in_memory(tmp_path: Path, how: str) -> None:
    """And is on the disk once that takes something again."""
    with tiny(tmp_path / "disk", 1) as disk:
        path = disk / "cache" / "facts.db"
        if how == "read-only":
            remounted(disk, "ro")
        elif how == "full":
            filled(disk)
        else:
            path.parent.write_text("a file")
        facts = Facts(path)
        seen = facts.first_seen(["s"])
        facts.put_size("a", 1)
        fact = facts.put_pointer("p", "ab" * 32, 7)
        assert (facts.sizes(["a"]), facts.pointer("p"), facts.first_seen(["s"])) == ({"a": 1}, fact, seen)
        assert await kept(facts.metadata) is None
        if how == "read-only":
            remounted(disk, "rw")
        else:
            (disk / "filler" if how == "full" else path.parent).unlink()
        facts.put_size("b", 2)
        again = Facts(path)
        assert (again.sizes(["a", "b"]), again.pointer("p"), again.first_seen(["s"])) == ({"a": 1, "b": 2}, fact, seen)
        assert await kept(facts.metadata) == KEPT
        for made in (again, facts):
            made.close()


@pytest.mark.parametrize("what", ["a directory", "a pipe", "a link", "a link to nowhere"])
async def test_what_is_no_database_makes_way(tmp_path: Path, what: str) -> None:
    """In the place of any of them, or of its log: nobody else would take it away, and nothing would be kept again."""
    for part in ("", "-wal"):
        cache = tmp_path / f"cache{part}"
        cache.mkdir()
        for name in ("facts.db", "blocks.db"):
            put_in_place(cache / f"{name}{part}", what)
        facts, blocks = Facts(cache / "facts.db"), BlockStore(cache, 1 << 30, min_free=0)
        facts.put_size("a", 1)
        assert blocks.put("a", 0, b"block" * 1000)
        facts.close()
        blocks.close()
        again, blocks = Facts(cache / "facts.db"), BlockStore(cache, 1 << 30, min_free=0)
        assert (again.sizes(["a"]), blocks.get("a", 0)) == ({"a": 1}, b"block" * 1000)
        again.close()
        blocks.close()


async def test_who_holds_the_database_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a mount that was stopped in the midst of a transaction: the event loop of this one asks and learns on."""
    monkeypatch.setattr("artifactfs.content.lasting.RETRY_S", 3.0)
    facts = Facts(tmp_path / "facts.db")
    with closing(sqlite3.connect(tmp_path / "facts.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        begin = time.monotonic()
        for number in range(100):
            facts.put_size(f"key {number}", number)
            assert facts.sizes([f"key {number}"]) == {f"key {number}": number}
        assert time.monotonic() - begin < 2.5
        other.execute("ROLLBACK")
    with trio.fail_after(20):
        while _on_disk(tmp_path / "facts.db") < 100:
            await trio.sleep(0.1)
            facts.put_size("key 0", 0)
    facts.close()


def _on_disk(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        found: int = db.execute("SELECT count(*) FROM size").fetchone()[0]
    return found


async def test_what_was_there_and_is_read_only_is_not_asked_for(tmp_path: Path) -> None:
    """SQLite cannot read a log that it cannot write beside: what was known is learnt anew, and nothing fails."""
    with tiny(tmp_path / "disk", 4) as disk:
        first = Facts(disk / "facts.db")
        first.put_size("a", 1)
        before = first.first_seen(["s"])
        first.close()
        remounted(disk, "ro")
        facts = Facts(disk / "facts.db")
        facts.put_size("b", 2)
        facts.first_seen(["s"])
        assert facts.sizes(["b"]) == {"b": 2}
        assert await facts.metadata.listing("s", REF) is None
        remounted(disk, "rw")
        facts.put_size("c", 3)
        # What the disk had all the time is the older, and stays.
        assert (facts.sizes(["a", "b", "c"]), facts.first_seen(["s"])) == ({"a": 1, "b": 2, "c": 3}, before)
        facts.close()


def deleted(path: Path) -> None:
    for part in path.parent.glob(f"{path.name}*"):
        part.unlink()


def emptied(path: Path) -> None:
    shutil.rmtree(path.parent)


def scribbled(path: Path) -> None:
    """Nonsense in all pages but the first, and nothing in the log."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))


@pytest.mark.parametrize("harm", [deleted, emptied, scribbled])
async def test_what_is_removed_or_damaged_while_it_is_open_is_begun_anew(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    """Nothing raises, and what is learnt from then on is found by the next mount."""
    path = tmp_path / "cache" / "facts.db"
    facts = Facts(path)
    facts.put_size("a", 1)
    facts.put_pointer("p", "ab" * 32, 7)
    assert await kept(facts.metadata) == KEPT
    for name in ("facts.db", "metadata.db"):
        if path.with_name(name).exists():
            harm(path.with_name(name))
    assert facts.sizes(["a"]) in ({}, {"a": 1})
    assert facts.first_seen(["s"]).keys() == {"s"}
    assert facts.recall_all("source", "") == []
    for _ in range(2):  # the first to meet the damage is kept in memory
        facts.put_size("b", 2)
        assert facts.sizes(["b"]) == {"b": 2}
    fact = facts.put_pointer("p", "cd" * 32, 8)
    assert facts.pointer("p") == fact
    assert await facts.metadata.listing("s", REF) in (None, KEPT)
    await kept(facts.metadata)
    assert await kept(facts.metadata) == KEPT
    facts.close()
    again = Facts(path)
    assert (again.sizes(["b"]), again.pointer("p")) == ({"b": 2}, fact)
    assert await again.metadata.listing("s", REF) == KEPT
    again.close()


async def test_the_thread_survives_a_damaged_database_that_cannot_be_put_aside(tmp_path: Path) -> None:
    """It would be gone for good, with all that waits for it: who fetches much would wait for room for ever."""
    with tiny(tmp_path / "disk", 4) as disk:
        (disk / "metadata.db").write_bytes(b"no database" * 1000)
        remounted(disk, "ro")
        metadata = Metadata(disk / "metadata.db")
        assert await metadata.listing("s", REF) is None
        assert await kept(metadata) is None
        remounted(disk, "rw")
        assert await kept(metadata) == KEPT
        metadata.close()


@pytest.mark.parametrize("table", ["part", "versions"])
async def test_a_flipped_bit_in_what_is_kept_is_not_shown(tmp_path: Path, table: str) -> None:
    """SQLite has no checksums: what does not verify is not known."""
    metadata = Metadata(tmp_path / "metadata.db")
    metadata.keep_listing("s", REF, KEPT)
    metadata.keep_versions("s", "a", VERSIONS)
    metadata.close()
    with closing(sqlite3.connect(tmp_path / "metadata.db")) as db:
        (data,) = db.execute(f"SELECT data FROM {table}").fetchone()
        for at in range(len(data)):
            flipped = bytearray(data)
            flipped[at] ^= 1
            db.execute(f"UPDATE {table} SET data=?", (bytes(flipped),))
            db.commit()
            again = Metadata(tmp_path / "metadata.db")
            assert (await again.listing("s", REF) if table == "part" else await again.versions("s", "a")) is None
            again.close()


def test_what_another_process_kept_from_the_disk_is_there_after_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has let go of it since, but nothing more was learnt: the last facts are no fewer than the others."""
    monkeypatch.setattr("artifactfs.content.lasting.RETRY_S", 60.0)
    facts = Facts(tmp_path / "facts.db")
    with closing(sqlite3.connect(tmp_path / "facts.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        seen = facts.first_seen(["s"])
    facts.close()
    later = Facts(tmp_path / "facts.db")
    assert later.first_seen(["s"]) == seen
    later.close()
