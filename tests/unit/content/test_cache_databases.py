"""Looking through a cache finds what is damaged in any of its databases, mends that, and takes nothing else."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from artifactfs.content import cache_check
from artifactfs.content.block_store import BlockStore
from artifactfs.content.facts import Facts
from artifactfs.content.metadata import KeptListing, KeptVersions, Metadata
from artifactfs.model.entry import DirRef, Empty, Folder, Version
from tests.support.blocks import LIMIT
from tests.support.log_guard import LogGuard
from tests.support.other_things import put_in_place

KEYS = [f"vm0:artifact-{number:03}\0" for number in range(100)]
LISTINGS = {
    DirRef("source", "runs", (key,)): KeptListing(
        [Folder((f"title {at}",), f"id {at} of {key}") for at in range(700)], 1e3, 60.0, complete=True, note="n"
    )
    for key in KEYS[:10]
}  # fmt: skip
VERSIONS = {key: KeptVersions([Version(f"of {key}", Empty())], 2e3, complete=True, current="v") for key in KEYS}
FILES = ("facts.db", "metadata.db", "blocks.db")
FLIPS = 15
PAGE = 4096


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Make a cache of some facts, listings and blocks, that nobody has open."""
    store = BlockStore(tmp_path, LIMIT, min_free=0)
    for key in KEYS:
        store.put(key, 0, key.encode() * 10)
    store.close()
    keep(tmp_path)
    for name in FILES:
        with contextlib.closing(sqlite3.connect(tmp_path / name)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return tmp_path


def keep(root: Path) -> None:
    facts = Facts(root / "facts.db")
    facts.first_seen(KEYS)
    for number, key in enumerate(KEYS):
        facts.put_size(key, number)
        facts.put_pointer(key, f"{number:064x}", number, changed_ns=number)
        facts.put_archive_index(key, f"index of {key}".encode() * 10)
        facts.memory("source").put(key, {"id": number})
    for ref, listing in LISTINGS.items():
        facts.metadata.keep_listing("source", ref, listing)
    for key, versions in VERSIONS.items():
        facts.metadata.keep_versions("source", key, versions)
    facts.close()


def known(root: Path) -> list[object]:
    """Return what a mount would know, each None or, as is asserted, right."""
    facts = Facts(root / "facts.db")
    memory, found = facts.memory("source"), list[object]()
    for number, key in enumerate(KEYS):
        pointer = facts.pointer(key)
        found += [facts.sizes([key]).get(key), pointer and pointer.sha256, facts.archive_index(key), memory.get(key)]
        right = (number, f"{number:064x}", f"index of {key}".encode() * 10, {"id": number})
        assert all(one in {None, want} for one, want in zip(found[-4:-1], right, strict=False))
        assert found[-1] in (None, right[-1])
    facts.close()

    async def listed() -> None:
        kept = Metadata(root / "metadata.db")
        for ref, listing in LISTINGS.items():
            found.append(await kept.listing("source", ref))
            assert found[-1] in (None, listing)
        for key, versions in VERSIONS.items():
            found.append(await kept.versions("source", key))
            assert found[-1] in (None, versions)
        kept.close()

    trio.run(listed)
    return found


def flip(path: Path) -> None:
    """Change a byte in every 97."""
    raw = bytearray(path.read_bytes())
    for at in range(PAGE, len(raw), 97):
        raw[at] ^= 0x10
    path.write_bytes(raw)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: -2 * PAGE - 5])


def replace_it(path: Path) -> None:
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))


def change_rows(path: Path) -> None:
    """Change what SQLite can not see."""
    change = {
        "facts.db": "UPDATE size SET bytes=bytes+1 WHERE key LIKE '%05%'; UPDATE memory SET key=key||'x' WHERE rowid<3",
        "metadata.db": "UPDATE part SET listing=99 WHERE listing=2; UPDATE versions SET artifact='\"b\"' WHERE rowid=3",
        "blocks.db": "UPDATE name SET blob=1 WHERE blob=2",
    }[path.name].replace("rowid<3", "key<'vm0:artifact-002'")
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(change)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", [flip, cut, replace_it, change_rows])
def test_damage_is_found_by_file_and_mended(cache: Path, name: str, harm: Callable[[Path], None]) -> None:
    """It is left alone without a repair; after one all is well, and what is still known is right."""
    assert cache_check.check(cache, repair=False) == cache_check.check(cache, repair=True).__class__(blocks=len(KEYS))
    before = known(cache)
    assert None not in before
    harm(cache / name)
    raw = (cache / name).read_bytes()
    found = cache_check.check(cache, repair=False)
    assert not found.healthy
    named = {*found.unreadable, *found.rows} | ({"blocks.db"} if found.bad or found.miscounted else set())
    assert named == {name}
    assert (cache / name).read_bytes() == raw
    assert cache_check.check(cache, repair=True).healthy
    again = cache_check.check(cache, repair=False)
    assert (again.unreadable, again.rows, again.bad, again.miscounted) == ({}, {}, [], 0)
    after = known(cache)
    others = sum(one is not None for one in after)
    if name == "blocks.db":
        assert after == before
    elif harm is change_rows:
        assert found.rows[name] in range(1, 25)
        assert others >= len(before) - 25


def test_healthy_is_what_reads_right(cache: Path, expected_logs: LogGuard) -> None:
    """One bit at a time: what is called healthy is known as before, and what is not is mended."""
    expected_logs("in memory only|listings cannot be kept")
    all_known, chance, ill = known(cache), random.Random(5), 0
    raws = {name: (cache / name).read_bytes() for name in FILES[:2]}
    for name, raw in raws.items():
        used = [at for at, byte in enumerate(raw) if byte]
        for place in chance.sample(used, FLIPS):
            for path in (one for other in raws for one in cache.glob(f"{other[:-3]}*")):
                path.unlink()
            harmed = bytearray(raw)
            harmed[place] ^= 1 << chance.randrange(8)
            for other, whole in raws.items():
                (cache / other).write_bytes(harmed if other == name else whole)
            found = cache_check.check(cache, repair=False)
            if found.healthy:
                assert known(cache) == all_known, (name, place)
                continue
            ill += 1
            assert cache_check.check(cache, repair=True).healthy
            assert cache_check.check(cache, repair=False).healthy, (name, place)
            known(cache)
    assert ill > FLIPS


@pytest.mark.parametrize("name", FILES[:2])
@pytest.mark.parametrize("part", ["", "-wal", "-shm"])
@pytest.mark.parametrize("what", ["a directory", "a link to nowhere"])
def test_what_is_no_file_is_put_aside(cache: Path, name: str, part: str, what: str) -> None:
    """In the place of a database or of its log."""
    path = cache / (name + part)
    path.unlink(missing_ok=True)
    put_in_place(path, what)
    assert "not a file" in cache_check.check(cache, repair=False).unreadable[name]
    assert cache_check.check(cache, repair=True).healthy
    assert cache_check.check(cache, repair=False).healthy
    assert bool(part) == (None not in known(cache))


def test_what_a_newer_artifactfs_wrote_is_put_aside(cache: Path) -> None:
    """As a mount does."""
    with contextlib.closing(sqlite3.connect(cache / "facts.db")) as db:
        db.execute("PRAGMA user_version=67")
    assert "67" in cache_check.check(cache, repair=False).unreadable["facts.db"]
    assert cache_check.check(cache, repair=True).healthy
    assert (cache / "facts.newer").is_file()


@pytest.fixture
def facts(cache: Path) -> Iterator[Facts]:
    """Return the facts of the cache as a mount has them open."""
    opened = Facts(cache / "facts.db")
    yield opened
    opened.close()


def test_free_pages_and_lost_logs_are_no_damage(cache: Path) -> None:
    """Pages that nothing is in, and what is beside a database that nobody has open."""
    for name, emptied in (("facts.db", "archive_index"), ("metadata.db", "versions")):
        with contextlib.closing(sqlite3.connect(cache / name)) as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute(f"DELETE FROM {emptied}")
            db.execute(f"DELETE FROM {'part' if emptied == 'versions' else 'memory'}")
            db.execute("DELETE FROM listing" if emptied == "versions" else "DELETE FROM first_seen")
            db.commit()
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            free = db.execute("PRAGMA freelist_count").fetchone()[0]
        assert free > 2
        raw = bytearray((cache / name).read_bytes())
        trunk = int.from_bytes(raw[32:36], "big")
        leaf = int.from_bytes(raw[(trunk - 1) * PAGE + 8 : (trunk - 1) * PAGE + 12], "big")
        raw[(leaf - 1) * PAGE : leaf * PAGE] = random.Random(2).randbytes(PAGE)
        (cache / name).write_bytes(raw)
        for part in ("-wal", "-shm"):
            (cache / (name + part)).write_bytes(random.Random(3).randbytes(40_000))
    found = cache_check.check(cache, repair=False)
    assert (found.healthy, found.unreadable, found.rows) == (True, {}, {})


def test_a_mount_goes_on(cache: Path, facts: Facts) -> None:
    """What it has open stays what it is while it is sound, and is begun anew under it if it is not."""
    facts.put_size("new", 5)
    assert cache_check.check(cache, repair=True).healthy
    assert facts.sizes([KEYS[7], "new"]) == {KEYS[7]: 7, "new": 5}
    change_rows(cache / "facts.db")
    assert cache_check.check(cache, repair=True).rows == {"facts.db": 11 + 2}
    assert facts.sizes([KEYS[7], KEYS[5], "new"]) == {KEYS[7]: 7, "new": 5}
    replace_it(cache / "facts.db")
    (cache / "facts.db-wal").unlink()
    assert cache_check.check(cache, repair=True).healthy
    facts.put_size("newer", 6)
    assert facts.sizes([KEYS[7], "newer"]) == {"newer": 6}
    assert cache_check.check(cache, repair=False).healthy


def test_an_index_of_a_log_cut_short_ends_nobody(cache: Path, facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look is repeated."""
    from artifactfs.content import cache_databases

    left, look = [1], cache_databases._bad_facts

    def harmed(db: sqlite3.Connection) -> Iterator[cache_databases.Bad]:
        if left:
            left.pop()
            os.truncate(cache / "facts.db-shm", 0)
        return look(db)

    facts.put_size("new", 5)
    monkeypatch.setattr(cache_databases, "_bad_facts", harmed)
    assert cache_check.check(cache, repair=False).healthy
    assert facts.sizes(["new"]) == {"new": 5}
