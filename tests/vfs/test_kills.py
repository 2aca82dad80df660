"""Kills in the middle of races: what storms of them have found, each at the moment that shows it."""

from __future__ import annotations

import errno
import functools
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from artifactfs import errors
from artifactfs.journal.drafts import Staged
from artifactfs.journal.records import Journal, Record
from artifactfs.journal.staging import Staging
from artifactfs.vfs.lineage import Lineage
from artifactfs.vfs.moves import Move
from artifactfs.vfs.tree_renaming import TreeRenamer
from tests.vfs.world import EMPTY, WRITE, World, images, opened

pytestmark = pytest.mark.usefixtures("standing_still")


class Slow:
    """Has the threads of one method wait before it, the first time that a call is the one that is meant."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, meant: Callable[..., bool]) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        real = getattr(owner, name)

        @functools.wraps(real)
        def slow(*args: Any, **more: Any) -> Any:
            if not self.reached.is_set() and meant(*args):
                self.reached.set()
                assert self.go.wait(30)
            return real(*args, **more)

        monkeypatch.setattr(owner, name, slow)

    async def wait(self) -> None:
        """Wait until a thread is there."""
        assert await trio.to_thread.run_sync(self.reached.wait, 30)


async def save_without_answer(world: World) -> None:
    """Have a file ``w/f`` whose second save was answered by nobody."""
    await world.mkdir("w")
    await world.put("w/f", b"1")
    await world.elapse()
    await world.put("w/f", b"2")
    world.publisher.next(error=errors.Unavailable("the answer is lost"), lost=True)
    await world.elapse(1)


async def shown_after_a_kill(where: Path, path: str) -> dict[str, Any]:
    """Return what the next mount shows."""
    async with opened(where, publishing=False) as world:
        return await world.tree(path)


async def test_a_directory_made_while_a_publisher_notes_something_is_empty_after_a_kill(tmp_path: Path):
    """What is noted of a try says nothing of the changes of its tree since."""
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await world.mkdir("w/t")
        for path in ("w/t/d", "w/t/e"):
            await world.mkdir(path)
            await world.put(f"{path}/old", b"old")
        await world.elapse()

        async def save(_head: Any, _manifest: Any, attempt: Any, **_more: Any) -> Any:
            await world.rename("w/t/d", "w/t/x")
            await world.mkdir("w/t/d")
            await attempt.note(uploaded="1")
            raise errors.Unavailable

        world.publisher.real.save_tree = save
        await world.put("w/t/e/new", b"new")
        await world.elapse(1)
        assert world.work().facts["uploaded"] == "1", "the next try of this mount is told, too"
        told = await world.tree("w/t")
    assert told == {"d": None, "x": None, "x/old": b"old", "e": None, "e/old": b"old", "e/new": b"new"}
    assert await shown_after_a_kill(tmp_path, "w/t") == told


async def test_what_is_known_of_a_tree_is_never_older_than_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A directory that is made while the beginning of a try is written down: that is of before, and comes before."""
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await world.mkdir("w/t")
        await world.mkdir("w/t/d")
        await world.put("w/t/d/old", b"old")
        await world.elapse()
        await world.rename("w/t/d", "w/t/x")
        slow = Slow(monkeypatch, Journal, "put", lambda _self, *records: any(one.tries for one in records))
        world.publisher.next(error=errors.Unavailable())
        world.clock.jump(1.1)
        await slow.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.mkdir, "w/t/d")
            for _ in range(50):
                await trio.testing.wait_all_tasks_blocked()
                await trio.to_thread.run_sync(threading.Event().wait, 0.002)
            slow.go.set()
        await world.settle()
    assert await shown_after_a_kill(tmp_path, "w/t") == {"d": None, "x": None, "x/old": b"old"}


async def test_who_flushes_while_another_one_does_is_told_when_it_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two programs have one file open: neither is told that it is kept before it is, or what went wrong with that."""
    async with opened(tmp_path, publishing=False) as world:
        await world.mkdir("w")
        one = await world.create("w/f", b"text")
        other = await world.open("w/f", EMPTY)
        world.fs.write(other, 0, b"other")
        slow = Slow(monkeypatch, Staged, "sync", lambda _self: True)
        told = trio.Event()

        async def flush() -> None:
            await world.fs.flush(other)
            told.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.fs.flush, one)
            await slow.wait()
            nursery.start_soon(flush)
            await trio.testing.wait_all_tasks_blocked()
            assert not told.is_set()
            slow.go.set()
        assert told.is_set()
        assert world.home.journal.numbers() == [world.edit("f").number]


@pytest.mark.parametrize("place", ["w", "w/t"])
async def test_what_a_file_that_is_not_durable_was_renamed_over_is_kept_until_it_is(tmp_path: Path, place: str):
    """Made, and renamed over another one while it is open: until it is closed a kill leaves what was there, whole."""

    async def told(where: Path) -> dict[str, Any]:
        shown = await shown_after_a_kill(where, "w")
        return {name: found for name, found in shown.items() if found is not None}

    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await world.mkdir("w/t")
        await world.put(f"{place}/f", b"1")
        await world.elapse()
        await world.put(f"{place}/f", b"2")
        await world.create(f"{place}/n")
        await world.rename(f"{place}/n", f"{place}/f")
        assert await world.read(f"{place}/f") == b""
    file = f"{place}/f".removeprefix("w/")
    assert await told(tmp_path) == {file: b"2"}
    async with opened(tmp_path) as world:
        handle = await world.create(f"{place}/n")
        await world.rename(f"{place}/n", f"{place}/f")
        world.fs.write(handle, 0, b"3")
        await world.close(handle)
    assert await told(tmp_path) == {file: b"3"}
    async with opened(tmp_path) as world:
        await world.elapse(10)
        assert {name: found for name, found in (await world.tree("w")).items() if found is not None} == {file: b"3"}
        world.nothing_is_left()


@pytest.mark.parametrize("is_there", [False, True])
async def test_a_file_whose_save_may_be_there_is_never_lost_by_a_rename(tmp_path: Path, is_there: bool):
    """What has become of the save is taken back; at no step is that all there is of the file."""
    first = tmp_path / "first"
    async with opened(first) as world:
        await world.mkdir("w")
        if is_there:
            await world.put("w/g", b"other")
            await world.elapse()
        await world.put("w/f", b"text")
        world.publisher.next(error=errors.Unavailable("the answer is lost"), lost=True)
        await world.elapse(1)
        assert world.edit("f").tries == 1
        world.stop_publishing()
        before = await world.tree("w")
        with images(first, tmp_path / "images") as taken:
            await world.rename("w/f", "w/g")
    for image in taken:
        shown = await shown_after_a_kill(image, "w")
        assert shown in [before, {"g": b"text"}], image.name
    assert shown == {"g": b"text"}
    async with opened(taken[-1]) as world:
        await world.elapse(20)
        assert await world.tree("w") == {"g": b"text"}
        assert [one.name for one in world.store.artifacts()] == ["g"]
        world.nothing_is_left()


async def test_what_goes_on_from_an_earlier_save_goes_on_with_a_removal_too(tmp_path: Path):
    """Two records of a name, the earlier one tried: the later one keeps the artifact that was removed a moment ago."""
    first = tmp_path / "first"
    async with opened(first, publishing=False) as world:
        await world.mkdir("w")
        await world.put("w/f", b"old")
        world.fs.writer.writeback.hurry()
        await world.fs.writer.writeback.now(world.edit("f"))
        early = world.home.open()
        await world.unlink("w/f")
        with images(first, tmp_path / "images") as taken:
            await world.put("w/f", b"new")
    async with opened(taken[-1], publishing=False) as world:
        assert world.overlay.removals == {}, "the last image is of what is durable"
    image = next(image for image in taken if _has_both(image))
    (home,) = Staging.abandoned(image / "drafts")
    late = next(record for record in home.journal.load() if record.what["kind"] == "file")
    (home.root / early.path.name).write_bytes(b"mid")
    what = {**late.what, "at_ns": 1, "replaces": None, "doomed": True}
    home.journal.put(Record(early.number, what, tries=1, size=3))
    home.close()
    early.close()
    async with opened(image, publishing=False) as world:
        (removal,) = world.overlay.removals.values()
        assert removal.given_to is world.edit("f")
        assert world.edit("f").replaces is removal
        assert await world.read("w/f") == b"new"


def _has_both(image: Path) -> bool:
    """Tell whether there is a removal and what has taken its place."""
    (home,) = Staging.abandoned(image / "drafts")
    kinds = [record.what["kind"] for record in home.journal.load()]
    home.close()
    return kinds == ["removal", "file"]


async def test_what_is_taken_back_is_not_removed_from_under_a_newer_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its artifact was removed and given to a new file of its name already: that is its next version."""
    async with opened(tmp_path) as world:
        await save_without_answer(world)
        artifact = world.artifact("f").id
        listed = world.edit("f").base
        assert listed is not None
        await world.unlink("w/f")
        remover = world.fs.remover
        await remover.remove_later(remover.removal_of(await world.look("w"), "f", listed))
        # As between the changes that two mounts left: those of one are not handed to the other.
        monkeypatch.setattr(Lineage, "inherit", lambda *_: False)
        handle = await world.create("w/f", b"3")
        await world.elapse(5)
        await world.close(handle)
        await world.elapse(10)
        assert await world.tree("w") == {"f": b"3"}
        assert [(one.id, one.name) for one in world.store.artifacts()] == [(artifact, "f")]
        assert world.versions("f") == [b"1", b"2", b"3"]
        assert world.reports == [world.reports[0]]
        assert "answer is lost" in world.reports[0]
        world.nothing_is_left()


async def test_a_renamed_file_whose_save_may_be_there_has_its_new_name_after_a_kill(tmp_path: Path):
    """Written again after a save of which nobody knows the end: both go on under the new name."""
    async with opened(tmp_path) as world:
        await save_without_answer(world)
        await world.put("w/f", b"3")
        world.stop_publishing()
        await world.rename("w/f", "w/g")
    assert await shown_after_a_kill(tmp_path, "w") == {"g": b"3"}
    async with opened(tmp_path) as world:
        await world.elapse(20)
        assert await world.tree("w") == {"g": b"3"}
        assert [one.name for one in world.store.artifacts()] == ["g"]
        assert world.versions("g") == [b"1", b"2", b"3"]
        world.nothing_is_left()


async def test_a_file_that_is_saved_while_it_is_renamed_over_another_one_does_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The removal of its old name is of what it is now, not of what it was when the rename began."""
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        for name in ("f", "g"):
            await world.put(f"w/{name}", b"old")
        await world.elapse()
        await world.put("w/f", b"new")
        handles = []

        async def vet(_self: TreeRenamer, _move: Move) -> None:
            held = world.publisher.next(held_after=True)
            await world.reach(held)
            # Somebody writes on: the edit outlives the save.
            handles.append(await world.open("w/f", WRITE))
            world.fs.write(handles[0], 0, b"NEW")
            held.go.set()
            await world.settle()

        monkeypatch.setattr(TreeRenamer, "vet", vet)
        await world.rename("w/f", "w/g")
        await world.close(handles[0])
        await world.elapse(20)
        assert await world.tree("w") == {"g": b"NEW"}
        assert world.reports == []
        world.nothing_is_left()


@pytest.mark.parametrize("is_saved", [False, True])
async def test_a_rename_over_another_file_is_one_step(tmp_path: Path, is_saved: bool):
    """After a kill the file has its old name or its new one; its old name never shows what its service has of it."""
    first = tmp_path / "first"
    async with opened(first) as world:
        await world.mkdir("w")
        await world.put("w/f", b"old")
        await world.put("w/g", b"other")
        await world.elapse()
        world.stop_publishing()
        if not is_saved:
            await world.put("w/f", b"new")
        before = await world.tree("w")
        with images(first, tmp_path / "images") as taken:
            await world.rename("w/f", "w/g")
    for image in taken:
        assert await shown_after_a_kill(image, "w") in [before, {"g": before["f"]}], image.name
    assert await shown_after_a_kill(taken[-1], "w") == {"g": before["f"]}


async def test_a_file_is_not_removed_before_what_it_was_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Made durable while it is removed: what it was before is just being dropped, and must not come back."""
    async with opened(tmp_path, publishing=False) as world:
        await world.mkdir("w")
        await world.put("w/f", b"0")
        await world.fs.writer.writeback.now(world.edit("f"))
        await world.put("w/f", b"1")
        first = world.edit("f").number
        handle = await world.open("w/f", EMPTY)
        world.fs.write(handle, 0, b"2")
        removing = Slow(
            monkeypatch, Journal, "put", lambda _self, *records: any(one.what["kind"] == "removal" for one in records)
        )
        dropping = Slow(monkeypatch, Staging, "unlink", lambda _self, staged: staged.number == first)
        told = trio.Event()

        async def unlink() -> None:
            await world.unlink("w/f")
            told.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(unlink)
            await removing.wait()
            nursery.start_soon(world.fs.flush, handle)
            await trio.testing.wait_all_tasks_blocked()
            removing.go.set()
            await dropping.wait()
            for _ in range(20):
                await trio.testing.wait_all_tasks_blocked()
                await trio.to_thread.run_sync(threading.Event().wait, 0.005)
            was_told = told.is_set()
            dropping.go.set()
        assert not was_told
        assert [record.what["kind"] for record in world.home.journal.load()] == ["removal"]


@pytest.mark.parametrize("is_open", [False, True])
async def test_a_save_is_kept_whose_rename_finds_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_open: bool
):
    """Nobody knows what became of its first try; it is not given up for what is not durable, now or after a kill."""
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        world.publisher.next(error=errors.Unavailable(), lost=True)
        await world.put("w/f", b"acknowledged")
        await world.elapse(1.5)
        assert world.edit("f").tries == 1
        if is_open:
            world.fs.write(await world.open("w/f", WRITE), 0, b"and written to")
        with monkeypatch.context() as patch:
            patch.setattr(Staging, "seal", _no_room)
            with pytest.raises(OSError, match="No space"):
                await world.rename("w/f", "w/g")
        await world.elapse(30)
        with images(tmp_path, tmp_path / "images") as found:
            await trio.to_thread.run_sync(world.home.journal.put)
        assert b"acknowledged" in (await shown_after_a_kill(found[-1], "w")).values()
    async with opened(found[-1]) as world:
        await world.elapse(30)
        world.nothing_is_left()
        assert b"acknowledged" in (await world.tree("w")).values()


def _no_room(*_args: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_a_draft_that_lost_bytes_does_not_stand_before_what_is_saved_next(tmp_path: Path):
    """That is what is wanted now; the damaged one stays where it is only while it is all there is."""
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await world.put("w/f", b"acknowledged")
        os.truncate(world.edit("f").staged.path, 3)
        await world.elapse(3)
        assert "3 of the 12 bytes" in world.edit("f").error
        handle = await world.open("w/f", EMPTY)
        world.fs.write(handle, 0, b"anew")
        await world.elapse(30)
        assert not world.publisher.calls
        await world.close(handle)
        await world.elapse(120)
        assert world.versions("f") == [b"anew"]
        world.nothing_is_left()
