"""Looking through a cache finds what is damaged and what belongs to nothing, and nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

from artifactfs.content import cache_check
from artifactfs.content.block_store import BlockStore
from tests.support.blocks import files


def fill(store: BlockStore, key: str, data: bytes) -> None:
    store.write(key, 0, data)
    store.identify(key, hashlib.sha256(data).hexdigest())
    store.flush()


def test_what_is_there_is_counted(tmp_path: Path, store: BlockStore) -> None:
    """Sharing counts what equal contents would have cost again; the names by hash are nobody's copy."""
    for key in ("a", "b", "c"):
        fill(store, key, b"x" * 1000)
    fill(store, "d", b"y" * 10)
    store.pin("a", "archive")
    store.pin("d", "user")
    store.flush()
    assert cache_check.summary(tmp_path) == {
        "blobs": 2, "names": 6, "blocks": 2, "used_bytes": 1010, "shared_bytes_saved": 2000,
        "pinned_bytes": 1010, "pinned_by_user_bytes": 10,
    }  # fmt: skip


def test_no_cache_is_an_empty_one(tmp_path: Path) -> None:
    """And none is made by looking."""
    assert set(cache_check.summary(tmp_path / "none").values()) == {0}
    assert cache_check.check(tmp_path / "none", repair=True).healthy
    assert cache_check.clear(tmp_path / "none", also_pinned=True) == 0
    assert not (tmp_path / "none").exists()


def test_damage_is_found_and_repaired(tmp_path: Path, store: BlockStore) -> None:
    """A flipped byte and a file that is gone; repaired means forgotten, so that it is fetched again."""
    for number in range(4):
        fill(store, f"key {number}", b"%d" % number * 1000)
    one, two, *_ = files(tmp_path)
    one.write_bytes(b"!" + one.read_bytes()[1:])
    two.unlink()
    found = cache_check.check(tmp_path, repair=False)
    assert (found.blocks, len(found.bad), found.healthy) == (4, 2, False)
    assert cache_check.check(tmp_path, repair=True).healthy
    assert cache_check.check(tmp_path, repair=False).bad == []
    assert store.used_bytes() == 2000


def test_orphans_are_told_and_removed_by_a_repair(tmp_path: Path, store: BlockStore) -> None:
    """They harm nobody, so that the cache is healthy with them."""
    fill(store, "a", b"x")
    orphan = tmp_path / "blocks/7f" / ("0" * 30)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"x" * 4096)
    found = cache_check.check(tmp_path, repair=False)
    assert (found.healthy, found.orphan_bytes) == (True, 4096)
    assert orphan.exists()
    cache_check.check(tmp_path, repair=True)
    assert not orphan.exists()
    assert store.get("a", 0) == b"x"


def test_a_database_that_is_none(tmp_path: Path, store: BlockStore) -> None:
    """Told, left alone without a repair, begun anew with one."""
    fill(store, "a", b"x")
    store.close()
    (tmp_path / "blocks.db").write_bytes(b"this is no database" * 500)
    found = cache_check.check(tmp_path, repair=False)
    assert (found.healthy, "blocks.db" in found.unreadable) == (False, True)
    assert (tmp_path / "blocks.db").read_bytes().startswith(b"this is no database")
    assert cache_check.check(tmp_path, repair=True).healthy
    assert cache_check.check(tmp_path, repair=False).healthy
    assert files(tmp_path) == []


def test_clearing_while_it_is_in_use(tmp_path: Path, store: BlockStore) -> None:
    """All goes but what users pinned; who has it open reads misses, and goes on writing."""
    fill(store, "a", b"x" * 1000)
    fill(store, "mine", b"y" * 1000)
    store.pin("mine", "user")
    store.flush()
    for key in ("a", "mine"):
        store.cool(key)
        assert store.get(key, 0)
    assert cache_check.clear(tmp_path, also_pinned=False) == 1000
    assert store.present("a") == set()
    store.flush()
    assert store.get("mine", 0) == b"y" * 1000
    assert cache_check.clear(tmp_path, also_pinned=True) == 1000
    assert files(tmp_path) == []
    fill(store, "b", b"z")
    store.cool("b")
    assert store.get("b", 0) == b"z"
