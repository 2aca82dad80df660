"""Files that are written: what is shown meanwhile, what is published when, and in which order."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from artifactfs import errors
from artifactfs.journal.staging import Staging
from artifactfs.vfs.filesystem import Change
from artifactfs.vfs.queue import queue_of
from artifactfs.vfs.writeback import EMPTY_S, PASSING_S, Policy
from tests.vfs.world import BOTH, EMPTY, LATER_S, READ, WRITE, World, opened

# -- when ----------------------------------------------------------------------------------------------------------


async def test_many_saves_within_the_quiet_period_are_one_version(world: World):
    for text in (b"one", b"two", b"three"):
        await world.put("w/f", text)
        await world.elapse(0.5)
    assert world.publisher.calls == []
    assert await world.read("w/f") == b"three"
    await world.elapse()
    assert world.versions("f") == [b"three"]
    assert await world.read("w/f") == b"three"
    world.nothing_is_left()


@pytest.mark.parametrize(
    ("name", "text", "pause_s"), [("4913", b"x", PASSING_S), ("f.tmp", b"x", PASSING_S), ("f", b"", EMPTY_S)]
)
async def test_what_is_probably_not_done_yet_waits_longer(world: World, name: str, text: bytes, pause_s: float):
    """A passing name and an empty new file: in every recorded save the rename or the content follows."""
    await world.put(f"w/{name}", text)
    await world.elapse(pause_s - 1)
    assert world.publisher.calls == []
    await world.elapse(LATER_S)
    assert world.versions(name) == [text]
    world.nothing_is_left()


async def test_a_dropping_never_leaves_this_machine(tmp_path: Path, standing_still: None):
    """Nor by the end of the mount, nor by the next one, which has it still."""
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await world.put("w/.f.swp", b"swap")
        await world.elapse(100)
        await world.fs.writer.finish()
    async with opened(tmp_path) as world:
        assert await world.read("w/.f.swp") == b"swap"
        await world.elapse(100)
        assert world.publisher.calls == []
        await world.unlink("w/.f.swp")
        world.nothing_is_left()
        assert world.store.artifacts(deleted=True) == []


async def test_a_dropping_that_is_renamed_is_saved(world: World):
    await world.put("w/f~", b"text")
    await world.rename("w/f~", "w/f")
    await world.elapse()
    assert world.versions("f") == [b"text"]
    world.nothing_is_left()


async def test_an_unchanged_save_makes_no_request(world: World):
    """The same bytes again, and what is only about the file: its time and its mode."""
    await world.put("w/f", b"text")
    await world.elapse()
    world.publisher.calls.clear()
    before = await world.look("w/f")
    await world.put("w/f", b"text")
    await world.elapse()
    await world.fs.setattr(before.ino, Change(mtime_ns=10**18), None)
    await world.fs.setattr(before.ino, Change(executable=True), None)
    await world.elapse()
    assert world.publisher.calls == []
    after = await world.look("w/f")
    assert (after.ino, after.mtime_ns, after.executable) == (before.ino, 10**18, True)
    world.nothing_is_left()


async def test_opening_for_writing_alone_makes_nothing(world: World):
    """Neither a version nor a draft that stays."""
    await world.put("w/f", b"text")
    await world.elapse()
    world.publisher.calls.clear()
    await world.close(await world.open("w/f", BOTH))
    world.nothing_is_left()
    assert world.publisher.calls == []
    assert await world.read("w/f") == b"text"


async def test_a_flush_publishes_nothing_and_the_last_release_does(world: World):
    handle = await world.create("w/f", b"text")
    other = await world.open("w/f", WRITE)
    for _ in range(2):
        await world.fs.flush(handle)
        await world.elapse(100)
    await world.fs.release(handle)
    await world.elapse(100)
    assert world.publisher.calls == []
    await world.close(other)
    await world.elapse()
    assert world.versions("f") == [b"text"]
    world.nothing_is_left()


async def test_write_through_waits_for_the_store(tmp_path: Path, standing_still: None):
    """A flush with new data returns when the store has it, a second one asks nobody, and a failure is told."""
    async with opened(tmp_path, policy=Policy(write_through=True)) as world:
        await world.mkdir("w")
        await world.mkdir("w/t")
        for path in ("w/f", "w/t/f"):
            handle = await world.create(path, b"text")
            await world.fs.flush(handle)
            await world.fs.flush(handle)
            if path == "w/f":
                assert world.versions("f") == [b"text"]
            else:
                assert world.stored("t") == {"f": b"text"}
            world.fs.write(handle, 4, b"!")
            world.publisher.next(error=errors.Unavailable("not now"))
            with pytest.raises(errors.Unavailable):
                await world.fs.flush(handle)
            await world.fs.release(handle)
            await world.elapse(10)
        assert world.versions("f") == [b"text", b"text!"]
        assert world.stored("t") == {"f": b"text!"}
        world.nothing_is_left()


# -- writers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [WRITE, EMPTY])
@pytest.mark.parametrize("is_saved", [True, False])
async def test_however_many_open_a_file_at_once_it_is_one_edit(world: World, *, flags: int, is_saved: bool):
    """Writers that come together, some of which empty the file, share one draft, and nothing of it is lost."""
    await world.put("w/f", b"0123456789")
    await world.elapse(LATER_S if is_saved else 0.1)
    ino = (await world.look("w/f")).ino
    handles: list[int] = []

    async def open_one(how: int) -> None:
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
    await world.elapse()
    assert world.versions("f") == [b"0123456789", expected][not is_saved :]
    assert await world.read("w/f") == expected
    world.nothing_is_left()


async def test_who_writes_during_a_save_writes_to_bytes_of_their_own(world: World):
    """Both contents are saved, in order, and what is shown is always the newer one."""
    await world.put("w/f", b"first")
    held = world.publisher.next(held=True)
    await world.reach(held)
    ino = (await world.look("w/f")).ino
    handle = await world.open("w/f", WRITE)
    world.fs.write(handle, 5, b" and second")
    assert await world.read("w/f") == b"first and second"
    held.go.set()
    await world.settle()
    assert world.versions("f") == [b"first"]
    assert await world.read("w/f") == b"first and second"
    await world.close(handle)
    await world.elapse()
    assert world.versions("f") == [b"first", b"first and second"]
    assert (await world.look("w/f")).ino == ino
    assert await world.read("w/f") == b"first and second"
    world.nothing_is_left()


@pytest.mark.parametrize("flushed", [True, False])
async def test_a_fork_that_nobody_wrote_to_falls_back(world: World, *, flushed: bool):
    await world.put("w/f", b"text")
    held = world.publisher.next(held=True)
    await world.reach(held)
    handle = await world.open("w/f", WRITE)
    if flushed:
        await world.fs.flush(handle)
    await world.fs.release(handle)
    assert world.drafts() == ["1.draft"]
    held.go.set()
    await world.elapse()
    assert world.versions("f") == [b"text"]
    assert await world.read("w/f") == b"text"
    world.nothing_is_left()


@pytest.mark.parametrize("flushed", [True, False])
async def test_a_fork_that_outlives_the_save_and_is_not_written_to(world: World, *, flushed: bool):
    """Who has the file open when its save ends, and closes it then, has changed nothing."""
    await world.put("w/f", b"text")
    held = world.publisher.next(held=True)
    await world.reach(held)
    ino = (await world.look("w/f")).ino
    handle = await world.open("w/f", BOTH)
    held.go.set()
    await world.settle()
    if flushed:
        await world.fs.flush(handle)
    await world.fs.release(handle)
    opened_again = (await world.fs.open(ino, READ)).handle
    assert await world.fs.read(opened_again, 0, 9) == b"text"
    await world.fs.release(opened_again)
    await world.elapse()
    assert world.versions("f") == [b"text"]
    assert await world.read("w/f") == b"text"
    world.nothing_is_left()


async def test_several_forks_during_one_save(world: World):
    """Written, closed and written again while the first content is on its way: the last content follows."""
    await world.put("w/f", b"0")
    held = world.publisher.next(held=True)
    await world.reach(held)
    for text in (b"1", b"2", b"3"):
        await world.put("w/f", text)
    handle = await world.open("w/f", WRITE)
    world.fs.write(handle, 1, b"4")
    held.go.set()
    await world.elapse()
    assert await world.read("w/f") == b"34"
    await world.close(handle)
    await world.elapse()
    assert world.versions("f") == [b"0", b"34"]
    world.nothing_is_left()


@pytest.mark.parametrize("saved_first", [True, False])
async def test_rename_and_unlink_wait_for_the_save(world: World, *, saved_first: bool):
    if saved_first:
        await world.put("w/f", b"old")
        await world.elapse()
    await world.put("w/f", b"text")
    held = world.publisher.next(held=True)
    await world.reach(held)
    order: list[str] = []

    async def change() -> None:
        await world.rename("w/f", "w/g")
        order.append("renamed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(change)
        await trio.testing.wait_all_tasks_blocked()
        order.append("saved")
        held.go.set()
    assert order == ["saved", "renamed"]
    await world.elapse()
    assert await world.names("w") == {"g"}
    assert await world.read("w/g") == b"text"
    await world.put("w/g", b"newer")
    held = world.publisher.next(held=True)
    await world.reach(held)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.unlink, "w/g")
        await trio.testing.wait_all_tasks_blocked()
        assert not world.overlay.removals
        held.go.set()
    await world.elapse()
    assert await world.names("w") == set()
    assert world.versions("g")[-1] == b"newer"
    world.nothing_is_left()


async def test_an_unlinked_file_stays_readable_and_leaves_nothing(world: World):
    """Whoever had it open for reading or writing, new or saved, also over the end of a save."""
    for is_saved in (False, True):
        await world.put("w/f", b"text")
        await world.elapse(LATER_S if is_saved else 0)
        reader, writer = await world.open("w/f", READ), await world.open("w/f", BOTH)
        await world.unlink("w/f")
        world.fs.write(writer, 4, b"!")
        assert await world.names("w") == set()
        for handle in (reader, writer):
            assert await world.fs.read(handle, 0, 9) == b"text!"
            await world.close(handle)
        await world.elapse()
        world.nothing_is_left()
    assert world.versions("f") == [b"text"]
    assert world.publisher.calls == ["create_file", "remove"]


# -- what the writer is told ---------------------------------------------------------------------------------------


async def test_a_failed_write_leaves_the_file_as_it_was(world: World):
    """The writer is told at each call; what is in the draft then is not what it meant and is not saved."""
    for is_saved in (True, False):
        await world.put("w/f", b"before")
        await world.elapse(LATER_S if is_saved else 0)
        ino = (await world.look("w/f")).ino
        handle = (await world.fs.open(ino, EMPTY)).handle
        world.fs.write(handle, 0, b"half of it")
        world.overlay.edits[ino].staged.broken = OSError(errno.ENOSPC, "No space left on device")
        with pytest.raises(OSError, match="No space"):
            await world.fs.flush(handle)
        await world.fs.release(handle)
        opened_again = await world.fs.open(ino, READ)
        assert not opened_again.keep_cache
        await world.fs.release(opened_again.handle)
        assert await world.read("w/f") == b"before"
    await world.elapse()
    assert world.versions("f") == [b"before"]
    assert world.reports == ["w/f: not written: No space left on device"] * 2
    world.nothing_is_left()


async def test_who_writes_to_what_was_overtaken_is_told_to_look_again(world: World):
    """Another mount saved the file within the lifetime of a listing: the open is ESTALE, and the next look has it."""
    await world.put("w/f", b"old")
    await world.elapse()
    node = await world.look("w/f")
    world.store.save_file(world.artifact("f").id, world.store.objects.put(b"newer"), 5)
    with pytest.raises(errors.StaleContent):
        await world.fs.open(node.ino, WRITE)
    handle = await world.open("w/f", WRITE)
    world.fs.write(handle, 5, b"!")
    await world.close(handle)
    await world.elapse()
    assert world.versions("f") == [b"old", b"newer", b"newer!"]


# -- inodes --------------------------------------------------------------------------------------------------------


async def test_an_inode_never_shows_two_contents(world: World):
    """Old content that comes back, by this mount or another, is never mixed up with what was saved over it."""
    for text in (b"A", b"B"):
        await world.put("w/f", text)
        await world.elapse()
    one = await world.look("w/f")
    world.store.save_file(world.artifact("f").id, world.store.objects.put(b"A"), 1)
    await world.elapse()  # longer than the listing is believed
    other = await world.look("w/f")
    assert other.ino != one.ino
    assert await world.read("w/f") == b"A"
    held = (await world.fs.open(one.ino, READ)).handle
    assert await world.fs.read(held, 0, 9) == b"B"
    await world.fs.release(held)
    await world.put("w/f", b"B")
    await world.elapse()
    assert await world.read("w/f") == b"B"
    assert world.versions("f") == [b"A", b"B", b"A", b"B"]


async def test_times_and_numbers_outlive_the_kernels_memory(world: World):
    """What an editor compares after the kernel has forgotten a saved file is what it was; old aliases are dropped."""
    await world.put("w/f", b"A")
    before = await world.look("w/f")
    await world.fs.setattr(before.ino, Change(mtime_ns=10**18), None)
    for pause_s in (0, LATER_S):
        world.fs.forget(before.ino, before.nlookup)
        await world.elapse(pause_s)
        after = await world.look("w/f")
        assert (after.ino, after.mtime_ns) == (before.ino, 10**18)
    for number in range(5):
        await world.put("w/f", f"{number}".encode())
        await world.elapse()
    assert (await world.look("w/f")).ino == before.ino
    assert len(world.overlay.saved) == 1


async def test_a_directory_that_the_kernel_forgot_keeps_its_local_names(world: World):
    """Names that stay on this machine belong to the place, not to an inode of it."""
    await world.mkdir("w/t")
    for place in ("w", "w/t"):
        await world.put(f"{place}/.f.swp", b"swap")
        node = await world.look(place)
        world.fs.forget(node.ino, node.nlookup)
        assert world.fs.inodes.get(node.ino) is None
        assert await world.read(f"{place}/.f.swp") == b"swap"
        await world.unlink(f"{place}/.f.swp")
    await world.elapse()
    world.nothing_is_left()


async def test_what_waits_is_found_by_its_path_after_the_kernel_has_forgotten_it(world: World):
    """Whoever needs memory has caches dropped: `status` and `flush PATH` must not lose a save over that."""
    await world.mkdir("w/tree")
    await world.put("w/f", b"text")
    await world.put("w/tree/g", b"text")
    for node in list(world.fs.inodes.nodes()):
        world.fs.forget(node.ino, node.nlookup)
    assert len(world.fs.inodes) == 1
    assert {row.path for row in queue_of(world.fs.writer)} == {"w/f", "w/tree/g"}
    writeback = world.fs.writer.writeback
    assert writeback.unsettled("w/f", 1.0) == [world.edit("f")]
    assert len(writeback.unsettled("w", 1.0)) == len(world.overlay.jobs())
    assert writeback.unsettled("elsewhere", 1.0) == []


# -- at once -------------------------------------------------------------------------------------------------------


async def test_nothing_is_published_between_the_steps_of_a_rename(world: World, monkeypatch: pytest.MonkeyPatch):
    """What it takes the place of was idle when it began, and is due while the new name is being made durable."""
    await world.put("w/f", b"old")
    await world.put("w/.goutputstream-AAAAAA", b"new")
    reached, go, seal = threading.Event(), threading.Event(), Staging.seal

    def slow(*args: Any) -> None:
        reached.set()
        go.wait(10)
        seal(*args)

    monkeypatch.setattr(Staging, "seal", slow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.rename, "w/.goutputstream-AAAAAA", "w/f")
        await trio.to_thread.run_sync(reached.wait, 10)
        world.clock.jump(5)
        await trio.to_thread.run_sync(threading.Event().wait, 0.1)
        go.set()
    await world.elapse(5)
    assert world.reports == []
    assert world.publisher.calls == ["create_file"]
    assert world.versions("f") == [b"new"]
    world.nothing_is_left()
