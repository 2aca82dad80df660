"""``artifactfs cache``: what it says, what it returns, and that a mount survives it."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from artifactfs.content.block_store import BlockStore
from artifactfs.content.facts import Facts
from artifactfs.content.metadata import KeptVersions
from artifactfs.model.entry import Empty, Version
from artifactfs.store.catalog import Store
from tests.support import demo_tree
from tests.support.lab import Lab, artifactfs, environment, mounted
from tests.support.other_things import put_in_place

CACHE = ".cache/artifactfs"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path / "home", NO_COLOR="1", COLUMNS="100")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Make a cache with two contents of 1,000 bytes."""
    root = tmp_path / "home" / CACHE
    store = BlockStore(root, 1 << 30, min_free=0)
    for key in ("a", "b"):
        store.put(key, 0, key.encode() * 1000)
    store.close()
    return root


def damage(cache: Path) -> None:
    path = next(path for path in (cache / "blocks").rglob("*") if path.is_file())
    path.write_bytes(b"!" * 1000)


def test_an_empty_cache_is_shown(environ: dict[str, str]) -> None:
    """Zeros, where it would be, and its limit."""
    shown = json.loads(artifactfs(environ, "cache", "show", "--json").stdout)
    assert (shown["used_bytes"], shown["blobs"], shown["max_bytes"]) == (0, 0, 10 << 30)
    assert shown["directory"].endswith(CACHE)


def test_a_cache_is_shown_and_emptied(environ: dict[str, str], cache: Path) -> None:
    """In words and as JSON; afterwards it is empty."""
    assert "2.0 KiB of 10.0 GiB" in artifactfs(environ, "cache", "show").stdout
    assert "freed 2.0 KiB" in artifactfs(environ, "cache", "clear").stdout
    assert json.loads(artifactfs(environ, "cache", "show", "--json").stdout)["used_bytes"] == 0
    assert [path for path in (cache / "blocks").rglob("*") if path.is_file()] == []


def test_damage_is_an_exit_code(environ: dict[str, str], cache: Path) -> None:
    """0 if all is well, 1 with the block named if not, 0 once it is repaired."""
    assert "2 blocks read, 0 damaged" in artifactfs(environ, "cache", "check").stdout
    damage(cache)
    done = artifactfs(environ, "cache", "check", check=False)
    assert (done.returncode, "damaged block: " in done.stderr) == (1, True)
    told = artifactfs(environ, "cache", "check", "--json", check=False)
    assert (told.returncode, json.loads(told.stdout)["healthy"]) == (1, False)
    assert artifactfs(environ, "cache", "check", "--repair").returncode == 0
    assert "1 blocks read, 0 damaged" in artifactfs(environ, "cache", "check").stdout


def test_a_damaged_database_is_an_exit_code(environ: dict[str, str], cache: Path) -> None:
    """Told, not traced back."""
    (cache / "blocks.db").write_bytes(b"no database" * 1000)
    done = artifactfs(environ, "cache", "check", check=False)
    assert (done.returncode, "the database is damaged" in done.stderr) == (1, True)
    assert artifactfs(environ, "cache", "check", "--repair").returncode == 0
    assert "0 blocks read" in artifactfs(environ, "cache", "check").stdout


def flip(path: Path) -> None:
    """Change a byte in every 97, behind the first page."""
    raw = bytearray(path.read_bytes())
    for at in range(4096, len(raw), 97):
        raw[at] ^= 0x10
    path.write_bytes(raw)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def garbage(path: Path) -> None:
    path.write_bytes(b"garbage" * 2000)


HARMS = [flip, cut, garbage]


@pytest.mark.parametrize("name", ["facts.db", "metadata.db", "blocks.db"])
@pytest.mark.parametrize("harm", HARMS)
def test_each_database_is_looked_through(
    environ: dict[str, str], cache: Path, name: str, harm: Callable[[Path], None]
) -> None:
    """Damage is an exit code and names the file; repaired, all is well."""
    facts = Facts(cache / "facts.db")
    facts.first_seen([f"key {number}" for number in range(100)])
    versions = KeptVersions([Version("v", Empty())], 1.0, complete=True, current="v")
    for number in range(100):
        facts.metadata.keep_versions("source", f"artifact {number}", versions)
    facts.close()
    assert artifactfs(environ, "cache", "check").returncode == 0
    harm(cache / name)
    done = artifactfs(environ, "cache", "check", check=False)
    assert (done.returncode, f"the database is damaged: {name}: " in done.stderr) == (1, True)
    told = artifactfs(environ, "cache", "check", "--json", check=False)
    assert (told.returncode, list(json.loads(told.stdout)["unreadable"])) == (1, [name])
    assert artifactfs(environ, "cache", "check", "--repair").returncode == 0
    assert json.loads(artifactfs(environ, "cache", "check", "--json").stdout)["unreadable"] == {}


def test_damaged_rows_are_an_exit_code(environ: dict[str, str], cache: Path) -> None:
    """What SQLite finds nothing wrong with is not what was written."""
    facts = Facts(cache / "facts.db")
    facts.put_size("a", 5)
    facts.close()
    with contextlib.closing(sqlite3.connect(cache / "facts.db")) as db:
        db.execute("UPDATE size SET bytes=6")
        db.commit()
    done = artifactfs(environ, "cache", "check", check=False)
    assert (done.returncode, "damaged rows in facts.db: 1" in done.stderr) == (1, True)
    assert "repaired" in artifactfs(environ, "cache", "check", "--repair").stdout
    assert json.loads(artifactfs(environ, "cache", "check", "--json").stdout)["rows"] == {}


@pytest.mark.parametrize("what", ["a directory", "a pipe", "a link to nowhere"])
def test_what_is_no_database_is_damage(environ: dict[str, str], cache: Path, what: str) -> None:
    """It is put aside, whatever it is."""
    path = cache / "blocks.db"
    path.unlink()
    put_in_place(path, what)
    done = artifactfs(environ, "cache", "check", check=False)
    assert (done.returncode, "something that is not a file is in its place" in done.stderr) == (1, True)
    assert artifactfs(environ, "cache", "check", "--repair").returncode == 0
    assert path.is_file()
    assert "0 blocks read" in artifactfs(environ, "cache", "check").stdout


@pytest.mark.fuse
def test_the_cache_is_cleared_and_damaged_under_a_mount(tmp_path: Path) -> None:
    """The mount reads right all the while, and mends what it meets."""
    store = Store(tmp_path / "store")
    home = store.add_workflow("w")
    data = {f"{number}.bin": b"%d" % number * 8_000_000 for number in range(3)}  # more than stays in memory
    for name, content in data.items():
        artifact = store.add_artifact(home.id, name, "file", created_at_ns=10**18)
        store.save_file(artifact.id, store.objects.put(content), len(content))
    with Lab(store) as lab, mounted(tmp_path, demo_tree.sources(lab), names=("vm0", "syntropic137")) as mount:
        paths = [mount.path / "syntropic137/w" / name for name in data]

        def check() -> None:
            for path in paths:
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # not from the kernel's memory
                    assert file.read() == data[path.name]

        check()
        assert "freed" in mount.artifactfs("cache", "clear").stdout
        check()
        for path in (mount.home / CACHE / "blocks").rglob("*"):
            if path.is_file():
                path.write_bytes(b"!" + path.read_bytes()[1:])
        check()
        mount.artifactfs("cache", "check", "--repair")
        check()


@pytest.mark.fuse
def test_a_mount_over_a_repaired_cache_reads_right(tmp_path: Path) -> None:
    """Each database harmed, with a mount over it and without; names and bytes are those of the service."""
    store = Store(tmp_path / "store")
    home = store.add_workflow("w")
    artifact = store.add_artifact(home.id, "a.bin", "file", created_at_ns=10**18)
    data = b"content" * 100_000
    store.save_file(artifact.id, store.objects.put(data), len(data))
    with Lab(store) as lab:
        harms = [flip, garbage, None]
        for harm in harms:
            with mounted(tmp_path, demo_tree.sources(lab), names=("vm0", "syntropic137")) as mount:
                root, folder = mount.home / CACHE, mount.path / "syntropic137/w"
                assert [path.name for path in folder.iterdir() if path.suffix == ".bin"] == ["a.bin"]
                assert (folder / "a.bin").read_bytes() == data
                assert mount.artifactfs("cache", "check", "--repair").returncode == 0
                if harm is None:
                    for name in ("facts.db", "metadata.db"):
                        garbage(root / name)
                        mount.artifactfs("cache", "check", "--repair")
                    assert (folder / "a.bin").read_bytes() == data
                    assert [path.name for path in folder.iterdir() if path.suffix == ".bin"] == ["a.bin"]
                environ = mount.environ
            if harm is not None:
                for name in ("facts.db", "metadata.db", "blocks.db"):
                    harm(root / name)
                done = artifactfs(environ, "cache", "check", check=False)
                assert (done.returncode, "facts.db" in done.stderr, "metadata.db" in done.stderr) == (1, True, True)
                assert artifactfs(environ, "cache", "check", "--repair").returncode == 0
                assert artifactfs(environ, "cache", "check").returncode == 0
