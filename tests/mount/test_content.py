"""What is shown is true: new versions, swapped content, caches that are damaged, full or gone."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from artifactfs.store.catalog import Store
from artifactfs.store.rows import StoredArtifact, TreeFile
from tests.support import demo_tree
from tests.support.demo_tree import sha256
from tests.support.lab import Lab, Mounted, mounted

pytestmark = pytest.mark.fuse

CACHE = ".cache/artifactfs"


def text(size: int, seed: str) -> bytes:
    """Return text of a size that no other seed gives."""
    line = f"{seed} line of the text\n".encode()
    return (line * (size // len(line) + 1))[:size]


def add_file(store: Store, name: str, data: bytes, workflow: str = "w") -> StoredArtifact:
    """Make an artifact that is one file."""
    found = [w for w in store.workflows() if w.name == workflow]
    home = found[0] if found else store.add_workflow(workflow)
    artifact = store.add_artifact(home.id, name, "file", created_at_ns=10**18)
    save(store, artifact, data)
    return artifact


def save(store: Store, artifact: StoredArtifact, data: bytes) -> None:
    """Make the next version of it, as another client of the service would."""
    store.save_file(artifact.id, store.objects.put(data), len(data))


def add_tree(store: Store, name: str, files: dict[str, bytes]) -> StoredArtifact:
    """Make an artifact that is a tree."""
    home = store.add_workflow(f"workflow of {name}")
    artifact = store.add_artifact(home.id, name, "tree")
    entries = [TreeFile(path, store.objects.put(data), len(data)) for path, data in files.items()]
    store.save_tree(artifact.id, entries)
    return artifact


def age_pointers(mount: Mounted) -> None:
    """Let a mount's knowledge of what pointers show be two minutes old; a row without a checksum is an earlier one."""
    db = sqlite3.connect(mount.home / CACHE / "facts.db", timeout=10)
    db.execute("UPDATE pointer SET checked_at = checked_at - 120, sum = NULL")
    db.commit()
    db.close()


def damage(mount: Mounted) -> int:
    """Flip a bit in every 4 KiB of every cached file; return how many files there are."""
    files = [path for path in (mount.home / CACHE / "blocks").rglob("*") if path.is_file()]
    for path in files:
        data = bytearray(path.read_bytes())
        for at in range(0, len(data), 4096):
            data[at] ^= 1
        path.write_bytes(data)
    return len(files)


# -- versions and swaps ----------------------------------------------------------------------------------------


def test_a_new_version_is_a_new_inode_and_an_open_file_keeps_the_old(lab: Lab, tmp_path: Path) -> None:
    """When another client saves, the name leads to a new inode with the new bytes; what was open reads on as it was."""
    old, new = text(700_000, "old"), text(400_000, "new")
    artifact = add_file(lab.store, "notes.txt", old)
    with mounted(tmp_path, demo_tree.sources(lab), names=("local",)) as mount:
        path = mount.path / "w/notes.txt"
        with path.open("rb") as file:
            before = os.fstat(file.fileno()).st_ino
            assert file.read(10) == old[:10]
            save(lab.store, artifact, new)
            mount.run("sleep", "1.3")  # listings of the local store are believed for a second
            assert path.read_bytes() == new
            assert os.stat(path).st_ino != before
            assert os.stat(path).st_size == len(new)
            assert file.read() == old[10:]
            assert os.fstat(file.fileno()).st_ino == before
        assert (mount.path / "w" / artifact.id / "versions/v1/notes.txt").read_bytes() == old
        assert (mount.path / "w" / artifact.id / "latest/notes.txt").read_bytes() == new


def test_swapped_content_is_noticed_and_never_mixed(lab: Lab, tmp_path: Path) -> None:
    """Content that Syntropic137 swaps in place is seen by the next open once the pointer's age is over.

    Who has the file open reads the old bytes to their end, also those that nobody had read before; a later size and
    read show the new. For content that became shorter, and for content that became longer.
    """
    old = text(600_000, "old")
    news = {"shorter.txt": text(1_000, "new"), "longer.txt": text(900_000, "new")}
    made = {name: add_file(lab.store, name, old) for name in news}
    with mounted(tmp_path, demo_tree.sources(lab), names=("syntropic137",)) as mount:
        for name, new in news.items():
            path = mount.path / "w" / name
            with path.open("rb", buffering=0) as file:
                assert file.read(10) == old[:10]
                save(lab.store, made[name], new)
                assert path.read_bytes() == old  # believed for a minute
                age_pointers(mount)
                assert path.read_bytes() == new
                assert mount.run("cat", f"w/{name}").stdout.encode() == new
                assert os.fstat(file.fileno()).st_size == len(old)
                assert sha256(file.readall()) == sha256(old[10:])
            assert path.read_bytes() == new
            assert os.stat(path).st_size == len(new)
            assert mount.run("wc", "-c", f"w/{name}").stdout.split()[0] == str(len(new))


def test_two_sources_with_the_same_ids_never_share_bytes(lab: Lab, tmp_path: Path) -> None:
    """Two servers with equal ids and other content (staging, production) are told apart, also when asked at once."""
    other = Store(tmp_path / "other")
    home = lab.store.add_workflow("w", workflow_id="11111111-1111-4111-8111-111111111111")
    copy = other.add_workflow("w", workflow_id=home.id)
    for store, place, data in ((lab.store, home, b"production\n"), (other, copy, b"staging!!!\n")):
        artifact = store.add_artifact(
            place.id, "notes.txt", "file", uuid="22222222-2222-4222-8222-222222222222", artifact_id="art_222222"
        )
        save(store, artifact, data)
    with Lab(other) as staging:
        one, two = demo_tree.sources(lab)["syntropic137"], demo_tree.sources(staging)["syntropic137"]
        with mounted(tmp_path, {"prod": one, "stage": two}, names=("prod", "stage")) as mount:
            mount.run("ls", "prod/w", "stage/w")
            for served in (lab, staging):
                served.fault("/content", delay_s=0.7)
            readers = [
                subprocess.Popen(["cat", f"{name}/w/notes.txt"], cwd=mount.path, stdout=subprocess.PIPE)
                for name in ("prod", "stage")
            ]
            assert [reader.communicate(timeout=30)[0] for reader in readers] == [b"production\n", b"staging!!!\n"]


# -- caches ----------------------------------------------------------------------------------------------------


def test_flipped_bits_in_the_cache_are_never_shown(lab: Lab, tmp_path: Path) -> None:
    """Blocks that were damaged on disk between two mounts are fetched again: the bytes are right, all of them."""
    files = {"a.bin": os.urandom(900_000), "b.txt": text(300_000, "b")}
    add_tree(lab.store, "tree", files)
    add_file(lab.store, "notes.txt", text(300_000, "n"))
    wanted = {"vm0/artifacts/tree/a.bin": files["a.bin"], "vm0/artifacts/tree/b.txt": files["b.txt"],
              "syntropic137/w/notes.txt": text(300_000, "n")}  # fmt: skip
    sources = demo_tree.sources(lab)
    with mounted(tmp_path, sources, names=("vm0", "syntropic137")) as mount:
        assert {path: (mount.path / path).read_bytes() for path in wanted} == wanted
    assert damage(mount) >= 2
    with mounted(tmp_path, sources, names=("vm0", "syntropic137")) as mount:
        assert {path: (mount.path / path).read_bytes() for path in wanted} == wanted


def test_a_cache_that_was_deleted_while_mounted(lab: Lab, tmp_path: Path) -> None:
    """``rm -rf`` of the cache directory costs requests, not bytes: everything reads right and the mount goes on."""
    files = {f"{number}.bin": os.urandom(400_000) for number in range(4)}
    add_tree(lab.store, "tree", files)
    first = add_file(lab.store, "first.txt", text(500_000, "first"))
    add_file(lab.store, "second.txt", text(500_000, "second"))
    with mounted(tmp_path, demo_tree.sources(lab), names=("vm0", "syntropic137")) as mount:
        assert (mount.path / "vm0/artifacts/tree/0.bin").read_bytes() == files["0.bin"]
        assert (mount.path / "syntropic137/w/first.txt").read_bytes() == text(500_000, "first")
        os.listdir(mount.path / "vm0/artifacts/tree")  # the end of the archive: nothing is written any more
        shutil.rmtree(mount.home / CACHE)
        found = {name: (mount.path / "vm0/artifacts/tree" / name).read_bytes() for name in files}
        assert found == files
        assert (mount.path / "syntropic137/w/second.txt").read_bytes() == text(500_000, "second")
        assert (mount.path / "syntropic137/w" / first.uuid / "versions/v1/first.txt").read_bytes()
        assert mount.status()["sources"]
    with mounted(tmp_path, demo_tree.sources(lab), names=("vm0", "syntropic137")) as mount:
        assert {name: (mount.path / "vm0/artifacts/tree" / name).read_bytes() for name in files} == files


def test_databases_that_are_none_are_begun_anew(lab: Lab, tmp_path: Path) -> None:
    """Cache databases that were overwritten with something else cost what they knew, nothing more."""
    add_file(lab.store, "notes.txt", text(10_000, "n"))
    for _ in range(2):
        with mounted(tmp_path, demo_tree.sources(lab), names=("syntropic137",)) as mount:
            assert (mount.path / "w/notes.txt").read_bytes() == text(10_000, "n")
        for name in ("blocks.db", "facts.db"):
            (mount.home / CACHE / name).write_bytes(b"no database at all" * 1000)


def test_a_cache_that_is_far_too_small(lab: Lab, tmp_path: Path) -> None:
    """With room for a fraction of what is read, everything still reads right, in order and not."""
    files = {f"{number:02d}.bin": os.urandom(1_500_000) for number in range(6)}
    add_tree(lab.store, "tree", files)
    big = text(9_000_000, "big")
    add_file(lab.store, "big.txt", big)
    extra = '[cache]\nmax-size = "1MiB"\n'
    with mounted(tmp_path, demo_tree.sources(lab), names=("vm0", "syntropic137"), extra_config=extra) as mount:
        for names in (sorted(files), sorted(files, reverse=True)):
            for name in names:
                assert sha256((mount.path / "vm0/artifacts/tree" / name).read_bytes()) == sha256(files[name])
        assert sha256((mount.path / "syntropic137/w/big.txt").read_bytes()) == sha256(big)
        used = sum(path.stat().st_blocks * 512 for path in (mount.home / CACHE / "blocks").rglob("*") if path.is_file())
        assert used < 20_000_000
