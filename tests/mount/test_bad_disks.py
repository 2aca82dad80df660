"""A cache and a state directory under attack: every read is right, no save is acknowledged that is not kept."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from artifactfs.content.block_writer import RETRY_S
from artifactfs.store.catalog import Store
from artifactfs.store.rows import TreeFile, Upload
from tests.support import demo_tree
from tests.support.lab import Lab, Mounted, artifactfs, mounted
from tests.support.log_guard import LogGuard
from tests.support.saving import history, killed, local_mount, mount_again
from tests.support.tiny_disk import failing, tiny

pytestmark = pytest.mark.fuse

NAMES = ("vm0", "syntropic137", "vlmrun")
CACHE = ".cache/artifactfs"
SIZES = {"large.bin": 1_500_000, "one block.bin": 262_144, "small.txt": 1234, "two.bin": 300_000}


@pytest.fixture(autouse=True)
def _servers_may_complain(expected_logs: LogGuard) -> None:
    """Mounts that are killed cut their connections, and those whose disks fail say so."""
    expected_logs("in memory only|listings cannot be kept|disk says|while it was in use|no save can be kept")
    expected_logs("Error in ASGI Framework", logger="hypercorn", level=logging.ERROR)


@pytest.fixture
def tmp_path(tmp_path_factory) -> Path:
    """A short name: the socket of a mount is below it, and has room for 107 bytes."""
    return tmp_path_factory.mktemp("b")


class World:
    """Contents that three services show, each other bytes, and the way to see that all of them are right."""

    def __init__(self, lab: Lab) -> None:
        self.lab, store = lab, lab.store
        home = store.add_workflow("w").id
        self.expected: dict[str, bytes] = {}
        for name, size in SIZES.items():
            data = self._content(f"syntropic137/w/{name}", size)
            artifact = store.add_artifact(home, name, "file", created_at_ns=10**18)
            store.save_file(artifact.id, store.objects.put(data), size)
            data = self._content(f"vlmrun/files/{name}", size)
            key, md5 = str(uuid.uuid4()), hashlib.md5(data).hexdigest()
            store.put_upload(Upload(key, name, "assistants", size, store.objects.put(data), md5, 10**18))
        files = []
        for name, size in SIZES.items():
            data = self._content(f"vm0/artifacts/tree/deep/{name}", size)
            files.append(TreeFile(f"deep/{name}", store.objects.put(data), size))
        store.save_tree(store.add_artifact(home, "tree", "tree").id, files)

    def _content(self, path: str, size: int) -> bytes:
        self.expected[path] = (path.encode() * (size // len(path) + 1))[:size]
        return self.expected[path]

    def check(self, mount: Mounted, *, but: str = "-") -> None:
        """Read everything, and not from the kernel's memory; leave out what has ``but`` in its path."""
        for path, data in self.expected.items():
            if but in path:
                continue
            with (mount.path / path).open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                found = file.read()
            assert (len(found), found == data) == (len(data), True), path

    def sources(self) -> dict[str, dict[str, object]]:
        return {name: source for name, source in demo_tree.sources(self.lab).items() if name in NAMES}

    @contextlib.contextmanager
    def mount(self, base: Path, **more) -> Iterator[Mounted]:
        with mounted(base, self.sources(), "--all", **more) as mount:
            yield mount


@pytest.fixture
def world(lab: Lab) -> World:
    return World(lab)


def remounted(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


def filled(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def eventually(value: Callable[[], int]) -> int:
    end = time.monotonic() + 20
    while not (found := value()) and time.monotonic() < end:
        time.sleep(0.1)  # noqa: TID251 - no event loop here
    return found


def warnings(mount: Mounted) -> list[str]:
    return [line for line in mount.log_text().splitlines() if " WARNING " in line or " ERROR " in line]


# -- disks that take nothing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["read-only", "read-only and filled before", "full", "a file in its place"])
def test_a_mount_begins_on_a_cache_that_takes_nothing(tmp_path: Path, world: World, how: str) -> None:
    """It reads right without one, says so once for each of its parts, and has one again when the disk is well."""
    with tiny(tmp_path / "disk", 16) as disk:
        cache = disk / "cache"
        extra = f'[cache]\ndir = "{cache}"\nmin-free = "0B"\n'
        if how == "read-only and filled before":
            with world.mount(tmp_path, extra_config=extra) as mount:
                world.check(mount)
        if "read-only" in how:
            remounted(disk, "ro")
        elif how == "full":
            filled(disk)
        else:
            cache.write_text("a file")
        with world.mount(tmp_path, extra_config=extra) as mount:
            for _ in range(2):
                world.check(mount, but="/small")
            told = warnings(mount)
            assert sum("kept in memory only" in line for line in told) == 1
            assert len(told) <= 2, told
            config = str(mount.home / "config.toml")
            for verb in ("show", "check", "clear"):
                done = artifactfs(mount.environ, "cache", verb, "--config", config, check=False)
                assert "Traceback" not in done.stderr
            if "read-only" in how:
                remounted(disk, "rw")
            else:
                (disk / "filler" if how == "full" else cache).unlink()
            time.sleep(RETRY_S)  # noqa: TID251 - no event loop here
            world.check(mount)
            assert eventually(lambda: mount.status()["cache"]["used_bytes"])
        with world.mount(tmp_path, extra_config=extra) as mount:
            world.check(mount)


def test_a_cache_whose_disk_becomes_read_only_is_none(tmp_path: Path, world: World) -> None:
    """As ext4 does it after an error, with everything open: all is read right, also what is not in it."""
    with failing(tmp_path / "disk", 32) as disk:
        extra = f'[cache]\ndir = "{disk.path / "cache"}"\nmin-free = "0B"\n'
        with world.mount(tmp_path, extra_config=extra) as mount:
            paths = sorted(world.expected)
            for path in paths[::2]:
                assert (mount.path / path).read_bytes() == world.expected[path]
            disk.fail()
            for _ in range(2):
                world.check(mount)


def test_saves_on_a_state_directory_that_takes_nothing(tmp_path: Path) -> None:
    """Read-only from the beginning: all is read, nothing is taken. Later: told before close returns."""
    store = Store(tmp_path / "store")
    artifact = store.add_artifact(store.add_workflow("w").id, "f", "file")
    store.save_file(artifact.id, store.objects.put(b"before"), 6)
    store.close()
    with failing(tmp_path / "disk", 16) as disk:
        environ = {"XDG_STATE_HOME": str(disk.path / "state")}
        with local_mount(tmp_path, environ=environ) as mount:
            folder = mount.path / "w"
            (folder / "g").write_text("kept")
            assert history(folder, "g") == [b"kept"]
            disk.fail()
            for name in ("f", "g", "new"):
                with pytest.raises(OSError) as caught:  # noqa: PT011 - the number tells
                    (folder / name).write_text("never kept")
                assert caught.value.errno in {errno.EROFS, errno.EIO, errno.ENOSPC}
            assert sorted(os.listdir(folder)) == ["by-id", "f", "g"]
            assert ((folder / "f").read_text(), (folder / "g").read_text()) == ("before", "kept")
    with tiny(tmp_path / "disk2", 4) as small:
        remounted(small, "ro")
        with local_mount(tmp_path, environ={"XDG_STATE_HOME": str(small / "state")}) as mount:
            folder = mount.path / "w"
            assert (folder / "f").read_text() == "before"
            with pytest.raises(OSError, match="Read-only"):
                (folder / "f").write_text("never kept")
            (source,) = mount.status()["sources"]
            assert (source["writable"], "for reading only" in source["state"]) == (False, True)
            logs = list((mount.home / "run/artifactfs").glob("*.log"))
            assert "no save can be kept" in logs[0].read_text()


def test_a_state_directory_that_is_removed_loses_nothing_in_silence(tmp_path: Path) -> None:
    """What was acknowledged is published all the same; what is saved then is told, or kept."""
    slow = {"ARTIFACTFS_MOUNT_PUBLISH_DELAY": "3"}
    with local_mount(tmp_path, environ=slow) as mount:
        folder = mount.path / "w"
        folder.mkdir()
        (folder / "early").write_text("acknowledged")
        with (folder / "open").open("w") as file:
            file.write("half")
            file.flush()
            shutil.rmtree(mount.home / ".local/state/artifactfs/journal")
            with pytest.raises(OSError) as caught:  # noqa: PT011 - the number tells
                os.fsync(file.fileno())
            assert caught.value.errno == errno.EIO
            with contextlib.suppress(OSError):
                file.close()
        assert (folder / "early").read_text() == "acknowledged"
        assert history(folder, "early") == [b"acknowledged"]
        (folder / "late").write_text("kept again")
        killed(mount)
        mount_again(mount)
        assert (folder / "late").read_text() == "kept again"
        assert history(folder, "late") == [b"kept again"]


# -- what is there is damaged ----------------------------------------------------------------------------------


def block_files(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "blocks").rglob("*") if path.is_file())


def flipped(cache: Path) -> None:
    for path in block_files(cache):
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)


def truncated(cache: Path) -> None:
    for path in block_files(cache):
        os.truncate(path, path.stat().st_size // 2)


def swapped(cache: Path) -> None:
    """Each file has the bytes of another."""
    files = block_files(cache)
    contents = [path.read_bytes() for path in files]
    for path, content in zip(files, [*contents[1:], contents[0]], strict=True):
        path.write_bytes(content)


def some_deleted(cache: Path) -> None:
    for path in block_files(cache)[::2]:
        path.unlink()


def blocks_deleted(cache: Path) -> None:
    shutil.rmtree(cache / "blocks")


def all_deleted(cache: Path) -> None:
    """As often as it takes: a mount may be making it again."""
    while cache.exists():
        shutil.rmtree(cache, ignore_errors=True)


def databases_deleted(cache: Path) -> None:
    for path in cache.glob("*.db*"):
        path.unlink()


def logs_deleted(cache: Path) -> None:
    """What SQLite has not yet copied into its databases, which it goes on with."""
    for path in [*cache.glob("*.db-wal"), *cache.glob("*.db-shm")]:
        path.unlink()


def bits_flipped_in_databases(cache: Path) -> None:
    """Which SQLite finds nothing wrong with, mostly."""
    chance = random.Random(5)
    for path in cache.glob("*.db"):
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        raw = bytearray(path.read_bytes())
        used = [at for at, byte in enumerate(raw) if byte and at > 4096]
        for at in chance.sample(used, min(40, len(used))):
            raw[at] ^= 1 << chance.randrange(8)
        path.write_bytes(raw)


def replaced_by_other_things(cache: Path) -> None:
    """Directories, links that lead nowhere or anywhere, and a pipe that nobody writes to."""
    for number, path in enumerate(block_files(cache)):
        path.unlink()
        match number % 4:
            case 0:
                path.mkdir()
            case 1:
                path.symlink_to("/dev/zero")
            case 2:
                path.symlink_to("nowhere")
            case _:
                os.mkfifo(path)


def extended(cache: Path) -> None:
    for path in block_files(cache):
        with path.open("ab") as file:
            file.write(b"more" * 100_000)


def databases_scribbled(cache: Path) -> None:
    for path in cache.glob("*.db"):
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(max(0, size - 4096)))


def all_cut(cache: Path) -> None:
    """The shared memory of SQLite too: who looks at a page of it that is not there gets SIGBUS."""
    for path in [path for path in cache.rglob("*") if path.is_file()]:
        os.truncate(path, path.stat().st_size // 2)


HARMS = (
    flipped, truncated, swapped, some_deleted, blocks_deleted, all_deleted, databases_deleted, logs_deleted,
    databases_scribbled, bits_flipped_in_databases, replaced_by_other_things, extended, all_cut,
)  # fmt: skip


@pytest.mark.parametrize("harm", HARMS)
def test_a_cache_that_is_harmed_under_a_mount(tmp_path: Path, world: World, harm: Callable[[Path], None]) -> None:
    """Every read is right at once and later, by this mount, another one beside it, and the next."""
    with world.mount(tmp_path) as mount:
        world.check(mount)
        config = str(mount.home / "config.toml")
        place = tmp_path / "second"
        assert artifactfs(mount.environ, "mount", str(place), "--all", "--config", config).returncode == 0
        second = Mounted(place, mount.home, mount.environ)
        try:
            for _ in range(2):
                harm(mount.home / CACHE)
                for one in (mount, second, mount):
                    world.check(one)
        finally:
            assert artifactfs(mount.environ, "umount", str(place)).returncode == 0
    with world.mount(tmp_path) as mount:
        world.check(mount)
        repaired = mount.artifactfs("cache", "check", "--repair", "--json", "--config", config)
        assert json.loads(repaired.stdout)["repaired"]
        found = json.loads(mount.artifactfs("cache", "check", "--json", "--config", config).stdout)
        assert (found["healthy"], found["bad"], found["orphan_bytes"]) == (True, [], 0)
        world.check(mount)
    with world.mount(tmp_path) as mount:  # the one before has in memory what a repair may have taken from the disk
        world.check(mount)
        shown = json.loads(mount.artifactfs("cache", "show", "--json", "--config", config).stdout)
        assert shown["used_bytes"] >= max(SIZES.values()), repaired.stdout
        mount.artifactfs("cache", "clear", "--pinned", "--config", config)
        shown = json.loads(mount.artifactfs("cache", "show", "--json", "--config", config).stdout)
        assert (shown["used_bytes"], shown["blobs"]) == (0, 0)
        world.check(mount)


def test_a_cache_that_is_harmed_between_two_mounts_says_so(tmp_path: Path, world: World) -> None:
    """`cache check` names what is damaged, and leaves it to the next mount or to --repair."""
    with world.mount(tmp_path) as mount:
        world.check(mount)
    environ, config = mount.environ, str(mount.home / "config.toml")
    for harm in (flipped, truncated, some_deleted):
        harm(mount.home / CACHE)
        found = json.loads(artifactfs(environ, "cache", "check", "--json", "--config", config, check=False).stdout)
        assert (found["healthy"], len(found["bad"]) > 3) == (False, True)
        with world.mount(tmp_path) as mount:
            world.check(mount)
        # What the mount had no need to read, as it knew the bytes by another name, is left: which that is, is chance.
        left = json.loads(artifactfs(environ, "cache", "check", "--json", "--config", config, check=False).stdout)
        assert len(left["bad"]) < len(found["bad"])
        assert artifactfs(environ, "cache", "check", "--repair", "--config", config).returncode == 0


def test_mounts_that_are_killed_while_they_fill(tmp_path: Path, world: World) -> None:
    """At several moments of the first read; what is recorded then verifies, and the next mount reads right."""
    config = ""
    for after_s in (0.05, 0.2, 0.5):
        with world.mount(tmp_path) as mount:
            config = str(mount.home / "config.toml")
            mount.artifactfs("cache", "clear", "--pinned", "--config", config)
            pid = mount.status()["pid"]
            readers = [
                subprocess.Popen(["cat", mount.path / path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                for path in world.expected
            ]
            time.sleep(after_s)  # noqa: TID251 - no event loop here
            os.kill(pid, signal.SIGKILL)
            for reader in readers:
                reader.wait(30)
            found = mount.artifactfs("cache", "check", "--json", "--config", config)
            assert json.loads(found.stdout)["bad"] == []
            assert mount.artifactfs("mount", str(mount.path), "--all", "--config", config).returncode == 0
            world.check(mount)
