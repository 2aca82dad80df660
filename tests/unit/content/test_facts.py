"""What stays known: one database, several mounts."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from artifactfs.content import database
from artifactfs.content.facts import CHUNK, MIGRATIONS, Facts, PointerFact
from tests.support.log_guard import LogGuard
from tests.support.tiny_disk import tiny


def test_facts_outlive_the_process(tmp_path: Path) -> None:
    """Sizes, pointers, indexes, first-seen times and memories are there for the next mount."""
    facts = Facts(tmp_path / "facts.db")
    facts.put_size("a", 12)
    fact = facts.put_pointer("p", "ab" * 32, 7)
    facts.put_archive_index("x", b"\0index")
    seen = facts.first_seen(["s"])
    facts.memory("source").put("key", {"deep": [1, None]})
    facts.close()
    again = Facts(tmp_path / "facts.db")
    assert again.sizes(["a", "b"]) == {"a": 12}
    assert again.pointer("p") == fact
    assert again.archive_index("x") == b"\0index"
    assert again.archive_index("y") is None
    assert again.first_seen(["s"]) == seen
    assert again.memory("source").get("key") == {"deep": [1, None]}
    assert again.memory("other").get("key") is None
    again.close()


def test_a_pointer_says_when_other_bytes_were_seen_first(tmp_path: Path) -> None:
    """The same bytes again change nothing but the age; other bytes have a time, which stays."""
    facts = Facts(tmp_path / "facts.db")
    assert facts.put_pointer("p", "a", 1).changed_ns == 0
    again = facts.put_pointer("p", "a", 1)
    assert again.changed_ns == 0
    changed = facts.put_pointer("p", "b", 2)
    assert changed.changed_ns > 0
    assert facts.put_pointer("p", "b", 2).changed_ns == changed.changed_ns


def test_first_seen_is_the_first_time(tmp_path: Path) -> None:
    """Seeing something again, also in a crowd larger than SQLite takes at once, keeps its time."""
    facts = Facts(tmp_path / "facts.db")
    first = facts.first_seen(["k7"])
    everything = facts.first_seen([f"k{number}" for number in range(2 * CHUNK + 1)])
    assert len(everything) == 2 * CHUNK + 1
    assert everything["k7"] == first["k7"] <= everything["k8"]


def test_prefixes_are_taken_literally(tmp_path: Path) -> None:
    """A prefix is not a pattern."""
    memory = Facts(tmp_path / "facts.db").memory("s")
    for key in ("a%b", "a_b", "aXb", "a%bc", "b"):
        memory.put(key, key)
    assert sorted(key for key, _ in memory.items("a%b")) == ["a%b", "a%bc"]
    assert len(memory.items("")) == 5


def test_mounts_that_start_together_share_one_database(tmp_path: Path) -> None:
    """Several open a fresh database at the same time; all see what each learns."""
    opened: list[Facts] = []
    threads = [threading.Thread(target=lambda: opened.append(Facts(tmp_path / "facts.db"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 6
    opened[0].put_size("a", 1)
    assert all(facts.sizes(["a"]) == {"a": 1} for facts in opened)


def test_a_broken_database_is_set_aside(tmp_path: Path) -> None:
    """What cannot be read is kept for whoever wants to look, and begun anew."""
    path = tmp_path / "facts.db"
    facts = Facts(path)
    facts.put_size("a", 1)
    facts.close()
    path.write_bytes(b"this is no database" * 500)
    path.with_name("facts.db-wal").write_bytes(b"nor is this a log")
    again = Facts(path)
    assert again.sizes(["a"]) == {}
    again.put_size("a", 2)
    assert again.sizes(["a"]) == {"a": 2}
    assert [p for p in tmp_path.iterdir() if ".broken-" in p.name]


def test_a_database_that_is_only_locked_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected_logs: LogGuard
) -> None:
    """Another mount's transaction is no damage, and does not keep this one from starting."""
    facts = Facts(tmp_path / "facts.db")
    facts.put_size("a", 1)
    monkeypatch.setattr("artifactfs.database.BUSY_S", 0.05)
    expected_logs("kept in memory only")
    with closing(sqlite3.connect(tmp_path / "facts.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert Facts(tmp_path / "facts.db").sizes(["a"]) == {"a": 1}
    with closing(sqlite3.connect(tmp_path / "new.db", isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode=WAL")
        other.execute("BEGIN EXCLUSIVE")
        new = Facts(tmp_path / "new.db")
        new.put_size("b", 2)
        assert new.sizes(["b"]) == {"b": 2}
        other.execute("ROLLBACK")
    assert not [p for p in tmp_path.iterdir() if ".broken-" in p.name]


def test_a_database_of_an_earlier_version_keeps_what_is_in_it(tmp_path: Path) -> None:
    """A later version adds to what is there; the first half of a migration that fails is not there."""
    path = tmp_path / "facts.db"
    facts = Facts(path)
    facts.put_size("a", 1)
    facts.memory("s").put("k", [1])
    facts.close()
    second = "CREATE TABLE more (x INTEGER); INSERT INTO more SELECT bytes FROM size;"
    with pytest.raises(sqlite3.DatabaseError):
        database.open_database(path, (*MIGRATIONS, second + "nonsense"))
    with closing(database.open_database(path, (*MIGRATIONS, second))) as new:
        assert new.execute("SELECT x FROM more").fetchall() == [(1,)]
        assert new.execute("SELECT value FROM memory").fetchall() == [("[1]",)]
        assert new.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS) + 1
    # And back: what a newer one wrote is not understood, and not lost.
    assert Facts(path).sizes(["a"]) == {}
    assert sqlite3.connect(tmp_path / "facts.newer").execute("SELECT x FROM more").fetchall() == [(1,)]


def test_facts_of_the_first_release_are_read(tmp_path: Path) -> None:
    """A database made by the statements of 0.1.0, not by ours, opens with everything in it."""
    path = tmp_path / "facts.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute("PRAGMA journal_mode=WAL")
        old.executescript(VERSION_1)
    facts = Facts(path)
    assert facts.sizes(["a"]) == {"a": 12}
    assert facts.pointer("p") == PointerFact("ab", 7, 1.5, 0)
    assert facts.archive_index("x") == b"index"
    assert facts.first_seen(["s"]) == {"s": 99}
    assert facts.memory("source").get("key") == {"deep": [1, None]}


VERSION_1 = """
CREATE TABLE size (key TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE pointer (
    key TEXT PRIMARY KEY, sha256 TEXT NOT NULL, bytes INTEGER NOT NULL, checked_at REAL NOT NULL,
    changed_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE archive_index (key TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE first_seen (key TEXT PRIMARY KEY, ns INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE memory (
    source TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (source, key)
) WITHOUT ROWID;
INSERT INTO size VALUES ('a', 12);
INSERT INTO pointer VALUES ('p', 'ab', 7, 1.5, 0);
INSERT INTO archive_index VALUES ('x', CAST('index' AS BLOB));
INSERT INTO first_seen VALUES ('s', 99);
INSERT INTO memory VALUES ('source', 'key', '{"deep": [1, null]}');
PRAGMA user_version=1;
"""


def test_what_a_full_disk_does_not_take_is_known_until_the_end(tmp_path: Path, expected_logs: LogGuard) -> None:
    """Newest first, beside what the disk holds; nothing raises, and after a restart it is learnt again."""
    expected_logs("kept in memory only", logger="artifactfs", level=logging.WARNING)
    with tiny(tmp_path / "disk", 2) as disk:
        facts = Facts(disk / "facts.db")
        facts.put_size("early", 1)
        facts.put_size("a", 1)
        (disk / "ballast").write_bytes(bytes(2 << 20)[: _free(disk)])
        for number in range(2000):
            facts.put_size(f"size {number}", number)
        facts.put_size("a", 2)
        fact = facts.put_pointer("p", "ab" * 32, 7)
        facts.put_archive_index("x", bytes(100_000))
        seen = facts.first_seen(["s", "t"])
        facts.memory("source").put("key", [1])
        assert facts.sizes(["early", "a", "size 7", "size 1999"]) == {
            "early": 1,
            "a": 2,
            "size 7": 7,
            "size 1999": 1999,
        }
        assert facts.pointer("p") == fact
        assert facts.archive_index("x") == bytes(100_000)
        assert facts.first_seen(["t", "s"]) == seen
        assert facts.memory("source").items("k") == [("key", [1])]
        (disk / "ballast").unlink()
        facts.put_size("a", 3)
        assert facts.sizes(["a"]) == {"a": 3}
        facts.close()
        again = Facts(disk / "facts.db")
        assert again.sizes(["early", "a"]) == {"early": 1, "a": 3}
        again.close()


def _free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def test_a_pointer_that_another_mount_has_read_is_the_newer_one(tmp_path: Path) -> None:
    """What is kept in memory is not believed when somebody else has written."""
    mine, other = Facts(tmp_path / "facts.db"), Facts(tmp_path / "facts.db")
    old = mine.put_pointer("p", "a", 1)
    assert mine.pointer("p") is old
    new = other.put_pointer("p", "b", 2)
    assert mine.pointer("p") == new
    assert mine.pointer("p") is mine.pointer("p")
    assert mine.pointer("q") is None
    mine.close()
    other.close()


def test_a_services_ids_are_kept_whatever_is_in_them(tmp_path: Path) -> None:
    """Lone surrogates, which JSON can carry and SQLite cannot; each stays apart from what stands for it there."""
    ids = ["\ud800", "\udc00\ud800", "\0d800", "\0", "\0\ud800", "\\ud800", "plain", "\0000000"]
    with closing(Facts(tmp_path / "facts.db")) as facts:
        assert facts.first_seen(ids).keys() == set(ids)
        for number, one in enumerate(ids):
            facts.put_size(one, number)
            facts.put_archive_index(one, b"%d" % number)
            facts.put_pointer(one, "ab" * 32, number)
            facts.memory(one).put(f"run/{one}", one)
    with closing(Facts(tmp_path / "facts.db")) as again:
        assert again.sizes(ids) == {one: number for number, one in enumerate(ids)}
        assert [again.archive_index(one) for one in ids] == [b"%d" % number for number, _ in enumerate(ids)]
        assert [fact.size for fact in map(again.pointer, ids) if fact] == list(range(len(ids)))
        assert [again.memory(one).items("run/") for one in ids] == [[(f"run/{one}", one)] for one in ids]


def test_of_many_archives_the_ones_used_last_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount that sees versions of a tree for months must not fill the disk with what it knows of them."""
    monkeypatch.setattr("artifactfs.content.facts.INDEX_BYTES", 40_000)
    facts = Facts(tmp_path / "facts.db")
    for number in range(100):
        facts.put_archive_index(f"v{number}", bytes(10_000))
        assert facts.archive_index("v0") == bytes(10_000), "in use"
        assert facts.archive_index(f"v{number}") == bytes(10_000)
    facts.put_archive_index("large", bytes(50_000))
    facts.close()
    again = Facts(tmp_path / "facts.db")
    assert [number for number in range(100) if again.archive_index(f"v{number}") is not None] == []
    assert again.archive_index("large") == bytes(50_000), "the last one is kept, whatever it takes"
    again.put_archive_index("next", b"small")
    assert again.archive_index("large") is None
    again.close()
    assert (tmp_path / "facts.db").stat().st_size < 300_000


def test_archives_known_to_an_earlier_version_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody wrote down when they were used."""
    with closing(sqlite3.connect(tmp_path / "facts.db", isolation_level=None)) as old:
        old.executescript(VERSION_1)
        old.execute("INSERT INTO archive_index VALUES ('old', ?)", (bytes(30_000),))
    monkeypatch.setattr("artifactfs.content.facts.INDEX_BYTES", 40_000)
    facts = Facts(tmp_path / "facts.db")
    facts.put_archive_index("new", bytes(20_000))
    assert facts.archive_index("old") is None
    assert facts.archive_index("new") == bytes(20_000)
    facts.close()
