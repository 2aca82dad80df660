"""The filesystem over a real local store, without a mount: what happens between two operations.

The kernel sends many operations at once; here they meet at the worst moment on purpose.
"""

import errno
import itertools
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from artifactfs import errors
from artifactfs.content.block_store import BlockStore
from artifactfs.content.facts import Facts
from artifactfs.content.reader import ContentReader
from artifactfs.journal.staging import Staging
from artifactfs.providers.local.provider import LocalProvider
from artifactfs.store.catalog import Store
from artifactfs.tree.inodes import ROOT
from artifactfs.tree.nodes import Node
from artifactfs.vfs.control_dir import ControlFiles
from artifactfs.vfs.filesystem import Change, FileSystem
from artifactfs.vfs.overlay import RESERVED_S, Edit
from artifactfs.vfs.recovery import recover
from artifactfs.vfs.sources import Source

WRITE, EMPTY = os.O_WRONLY, os.O_WRONLY | os.O_TRUNC


@dataclass
class World:
    """A filesystem over a store, with the few operations of the kernel that the tests need."""

    fs: FileSystem
    store: Store
    reports: list[str]

    async def look(self, path: str) -> Node:
        """Look a path up as the kernel does, counting."""
        node = self.fs.node(ROOT)
        for name in path.split("/"):
            node = await self.fs.lookup(node.ino, name)
            self.fs.accepted(node)
        return self.fs.node(node.ino)

    async def mkdir(self, path: str) -> Node:
        parent, _, name = path.rpartition("/")
        above = await self.look(parent) if parent else self.fs.node(ROOT)
        node = await self.fs.mkdir(above.ino, name)
        self.fs.accepted(node)
        return node

    async def create(self, path: str, data: bytes = b"") -> int:
        """Make a file and write to it; return the handle."""
        parent, _, name = path.rpartition("/")
        node, handle = await self.fs.create((await self.look(parent)).ino, name, executable=False)
        self.fs.accepted(node)
        self.fs.write(handle, 0, data)
        return handle

    async def close(self, handle: int) -> None:
        await self.fs.flush(handle)
        await self.fs.release(handle)

    async def put(self, path: str, data: bytes) -> None:
        """Write a whole file, new or not."""
        try:
            handle = (await self.fs.open((await self.look(path)).ino, EMPTY)).handle
            self.fs.write(handle, 0, data)
        except errors.NotFound:
            handle = await self.create(path, data)
        await self.close(handle)

    async def read(self, path: str) -> bytes:
        opened = await self.fs.open((await self.look(path)).ino, os.O_RDONLY)
        data = await self.fs.read(opened.handle, 0, 1 << 20)
        await self.fs.release(opened.handle)
        return data

    async def names(self, path: str) -> set[str]:
        handle = await self.fs.opendir((await self.look(path)).ino)
        found = {node.name for node in self.fs.readdir(handle)}
        await self.fs.release(handle)
        return found - {"by-id"}

    def versions(self, name: str) -> list[bytes]:
        """Return what the store has of an artifact of a name, oldest first."""
        (artifact,) = [a for a in self.store.artifacts(deleted=True) if a.name == name]
        return [self.store.objects.read(version.sha256 or "") for version in self.store.versions(artifact.id)]


@asynccontextmanager
async def opened(tmp_path: Path) -> AsyncIterator[World]:
    """Have a filesystem as a mount has it."""
    store = Store(tmp_path / "store")
    facts = Facts(tmp_path / "facts.db")
    blocks = BlockStore(tmp_path / "cache", 1 << 20, 0)
    provider = LocalProvider("mine", store)
    source = Source("mine", provider, "fingerprint", 1)
    staging = Staging.fresh(tmp_path / "drafts")
    reports: list[str] = []
    async with trio.open_nursery() as nursery:
        reader = ContentReader(
            nursery, blocks, facts, {"mine": provider}, local_path=provider.path, fingerprints={"mine": "fingerprint"}
        )
        fs = FileSystem({"mine": source}, reader, staging, ControlFiles(dict), single=True)
        fs.writer.saver.report = lambda _source, path, message: reports.append(f"{path}: {message}")
        for left in Staging.abandoned(tmp_path / "drafts"):
            await recover(fs.writer, left)
        yield World(fs, store, reports)
        await fs.writer.finish()
        nursery.cancel_scope.cancel()
    reader.close()
    for resource in (staging, blocks, facts, store):
        resource.close()


@pytest.fixture
async def world(tmp_path: Path):
    async with opened(tmp_path) as found:
        await found.mkdir("w")
        yield found
    assert not found.fs.writer.overlay.edits
    assert not list((tmp_path / "drafts").rglob("*.draft"))


async def eventually(is_so) -> None:
    """Wait until something is so: the clock jumps, but the store works in real time."""
    for _ in range(1000):
        if is_so():
            return
        await trio.sleep(10)
        await trio.to_thread.run_sync(threading.Event().wait, 0.01)
    raise TimeoutError


async def begun(edit: Edit) -> None:
    """Wait until the save of an edit has begun, and not a step longer."""
    with trio.fail_after(30):
        for _ in itertools.count():
            if edit.saving is not None:
                return
            await trio.lowlevel.checkpoint()


async def test_however_many_open_a_file_at_once_it_is_one_edit(world: World):
    """Writers that come together, some of which empty the file, share one draft, and nothing of it is lost."""
    for flags in (WRITE, EMPTY):
        await world.put("w/f", b"0123456789")
        ino = (await world.look("w/f")).ino
        handles: list[int] = []

        async def open_one(how: int, ino: int = ino, handles: list[int] = handles) -> None:
            handles.append((await world.fs.open(ino, how)).handle)

        async with trio.open_nursery() as nursery:
            for how in (WRITE, flags, WRITE, os.O_RDWR):
                nursery.start_soon(open_one, how)
        for number, handle in enumerate(handles):
            world.fs.write(handle, number, b"ABCD"[number : number + 1])
        for handle in handles:
            await world.close(handle)
        expected = b"ABCD456789" if flags == WRITE else b"ABCD"
        assert await world.read("w/f") == expected
        assert world.versions("f")[-1] == expected


async def test_who_opens_during_a_save_waits_for_it(world: World):
    """A writer that comes while the file is being saved changes the next version, not the one under way."""
    handle = await world.create("w/f", b"x" * 3_000_000)
    ino = (await world.look("w/f")).ino
    order = []

    async def release() -> None:
        await world.close(handle)
        order.append("saved")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(release)
        await begun(world.fs.writer.overlay.edits[ino])
        again = (await world.fs.open(ino, EMPTY)).handle
        order.append("opened")
    world.fs.write(again, 0, b"second")
    await world.close(again)
    assert sorted(order) == ["opened", "saved"]
    assert world.versions("f") == [b"x" * 3_000_000, b"second"]


async def test_a_deadline_ends_the_wait_and_not_the_save(world: World):
    """The kernel's request is given up in the middle of a save: it is made all the same."""
    for number in range(20):
        handle = await world.create(f"w/f{number}", b"text")
        await world.fs.flush(handle)
        with trio.move_on_after(number / 2000):
            await world.fs.release(handle)  # given up sooner or later
    await world.fs.writer.turns.all_done()
    assert all(world.versions(f"f{number}") == [b"text"] for number in range(20))


async def test_a_look_waits_for_the_save_before_it(world: World):
    """A release that has begun is seen by the listing, the size and the versions that are asked for after it."""
    handle = await world.create("w/f", b"text")
    await world.fs.flush(handle)
    (edit,) = world.fs.writer.overlay.edits.values()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.fs.release, handle)
        await begun(edit)
        assert "f" in await world.names("w")
        assert world.versions("f") == [b"text"]


async def test_an_inode_never_shows_two_contents(world: World):
    """Old content that comes back, by this mount or another, is never mixed up with what was saved over it."""
    await world.put("w/f", b"A")
    await world.put("w/f", b"B")
    one = await world.look("w/f")
    artifact = world.store.artifacts()[0]
    await trio.sleep(1.1)  # longer than the listing is believed
    world.store.save_file(artifact.id, world.store.objects.put(b"A"), 1)
    other = await world.look("w/f")
    assert other.ino != one.ino
    assert await world.read("w/f") == b"A"
    held = await world.fs.open(one.ino, os.O_RDONLY)
    assert await world.fs.read(held.handle, 0, 9) == b"B"
    await world.fs.release(held.handle)
    await world.put("w/f", b"B")
    assert await world.read("w/f") == b"B"
    assert world.versions("f") == [b"A", b"B", b"A", b"B"]


async def test_who_writes_to_what_was_overtaken_is_told_to_look_again(world: World):
    """Another mount saved the file within the lifetime of a listing: the open is ESTALE, and the next look has it."""
    await world.put("w/f", b"old")
    node = await world.look("w/f")
    world.store.save_file(world.store.artifacts()[0].id, world.store.objects.put(b"newer"), 5)
    with pytest.raises(errors.StaleContent):
        await world.fs.open(node.ino, WRITE)
    again = await world.look("w/f")
    handle = (await world.fs.open(again.ino, WRITE)).handle
    world.fs.write(handle, 5, b"!")
    await world.close(handle)
    assert world.versions("f") == [b"old", b"newer", b"newer!"]


async def test_what_cannot_be_saved_is_shown_and_saved_later(world: World, autojump_clock: trio.testing.MockClock):
    """A failing store: the file is what was written, pending and reported; the save is tried again by itself."""
    objects = world.store.objects.root
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.fs.writer.keep_saving)
        objects.rename(objects.with_name("away"))
        objects.write_text("")
        await world.put("w/f", b"text")
        node = await world.look("w/f")
        world.fs.forget(node.ino, node.nlookup)
        assert await world.read("w/f") == b"text"
        assert "f" in await world.names("w")
        assert [(node.name, why) for node, why in world.fs.writer.overlay.pending()] == [
            ("f", "the store's disk failed: Not a directory")
        ]
        assert world.reports == ["w/f: not saved yet: the store's disk failed: Not a directory"]
        await eventually(lambda: len(world.reports) > 2)
        objects.unlink()
        objects.with_name("away").rename(objects)
        await eventually(lambda: world.fs.writer.overlay.pending() == [])
        assert world.fs.writer.overlay.pending() == []
        nursery.cancel_scope.cancel()
    assert world.versions("f") == [b"text"]


async def test_a_failed_write_leaves_the_file_as_it_was(world: World):
    """The writer is told at each call; what is in the draft then is not what it meant and is not saved."""
    await world.put("w/f", b"before")
    ino = (await world.look("w/f")).ino
    handle = (await world.fs.open(ino, EMPTY)).handle
    world.fs.write(handle, 0, b"half of it")
    world.fs.writer.overlay.edits[ino].staged.broken = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space"):
        await world.fs.flush(handle)
    await world.fs.release(handle)
    opened_again = await world.fs.open(ino, os.O_RDONLY)
    assert not opened_again.keep_cache
    await world.fs.release(opened_again.handle)
    assert await world.read("w/f") == b"before"
    assert world.versions("f") == [b"before"]
    assert world.reports == ["w/f: not written: No space left on device"]


async def test_a_directory_that_the_kernel_forgot_keeps_its_local_names(world: World):
    """Names that stay on this machine belong to the place, not to an inode of it."""
    await world.mkdir("w/t")
    for place in ("w", "w/t"):
        await world.put(f"{place}/.f.swp", b"swap")
        node = await world.look(place)
        world.fs.forget(node.ino, node.nlookup)
        assert world.fs.inodes.get(node.ino) is None
        assert await world.read(f"{place}/.f.swp") == b"swap"
        await world.fs.unlink((await world.look(place)).ino, ".f.swp")


async def test_times_and_numbers_outlive_the_kernels_memory(world: World):
    """What an editor compares after the kernel has forgotten a saved file is what it was; the old alias is dropped."""
    await world.put("w/f", b"A")
    before = await world.look("w/f")
    await world.fs.setattr(before.ino, Change(mtime_ns=10**18), None)
    world.fs.forget(before.ino, before.nlookup)
    after = await world.look("w/f")
    assert (after.ino, after.mtime_ns) == (before.ino, 10**18)
    for number in range(50):
        await world.put("w/f", f"{number}".encode())
    assert len(world.fs.writer.overlay.saved) == 1


async def test_nothing_grows_with_what_was_done(world: World, autojump_clock: trio.testing.MockClock):
    """After saves, renames and removals there are no edits, no local names, and no old reservations left."""
    overlay = world.fs.writer.overlay
    for number in range(10):
        await world.put(f"w/f{number}", b"x")
        await world.fs.unlink((await world.look("w")).ino, f"f{number}")
    assert len(overlay._reserved) == 10
    await trio.sleep(RESERVED_S + 1)
    await world.put("w/g", b"x")
    await world.fs.unlink((await world.look("w")).ino, "g")
    assert (len(overlay._reserved), overlay.edits, overlay._names) == (1, {}, {})


async def test_a_reserved_name_is_an_artifact_of_its_own_later(world: World, autojump_clock: trio.testing.MockClock):
    """Removed and made again within a minute it is the same artifact; after that, another one."""
    await world.put("w/f", b"1")
    for pause, artifacts in ((1, 1), (RESERVED_S + 1, 2)):
        await world.fs.unlink((await world.look("w")).ino, "f")
        await trio.sleep(pause)
        await world.put("w/f", b"2")
        assert len(world.store.artifacts(deleted=True)) == artifacts


async def test_rename_over_a_file_that_is_open_for_writing(world: World):
    """The new file is what was renamed there; what the old one's writer goes on writing is nobody's."""
    await world.put("w/f", b"old")
    await world.put("w/g", b"new")
    folder = (await world.look("w")).ino
    handle = (await world.fs.open((await world.look("w/f")).ino, WRITE)).handle
    world.fs.write(handle, 0, b"too late")
    await world.fs.rename((folder, "g"), (folder, "f"), replace=True)
    assert await world.fs.read(handle, 0, 99) == b"too late"
    await world.close(handle)
    assert await world.names("w") == {"f"}
    assert await world.read("w/f") == b"new"
    assert world.versions("f") == [b"old", b"new"]


async def test_a_recovery_that_was_made_already_makes_nothing(tmp_path: Path):
    """Killed between the save and its acknowledgement: the next mount finds that the content is there."""
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await world.put("w/f", b"base")
        handle = (await world.fs.open((await world.look("w/f")).ino, EMPTY)).handle
        world.fs.write(handle, 0, b"saved")
        await world.fs.flush(handle)
        edit = next(iter(world.fs.writer.overlay.edits.values()))
        world.store.save_file(world.store.artifacts()[0].id, world.store.objects.put(b"saved"), 5)
        # As a killed process leaves it: neither saved nor discarded by this mount.
        world.fs.writer.overlay.edits.clear()
        edit.staged.close()
    async with opened(tmp_path) as world:
        assert await world.names("w") == {"f"}
        assert world.versions("f") == [b"base", b"saved"]
    assert not list((tmp_path / "drafts").iterdir())


async def test_drafts_of_a_source_that_is_not_mounted_wait_for_it(tmp_path: Path):
    """Another account's unfinished save stays where it is until that account is mounted."""
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        handle = await world.create("w/f", b"text")
        await world.fs.flush(handle)
        edit = next(iter(world.fs.writer.overlay.edits.values()))
        world.fs.writer.overlay.edits.clear()
        edit.staged.close()
    (record,) = (tmp_path / "drafts").rglob("*.json")
    text = record.read_text()
    record.write_text(text.replace('"fingerprint": "fingerprint"', '"fingerprint": "another"'))
    async with opened(tmp_path) as world:
        assert await world.names("w") == set()
    assert record.exists()
    record.write_text(text)
    async with opened(tmp_path) as world:
        assert await world.read("w/f") == b"text"
