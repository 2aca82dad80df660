"""A kill at any moment: what was acknowledged is shown by the next mount, and published once."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from artifactfs import errors
from artifactfs.vfs.filesystem import Change
from tests.vfs.world import BOTH, EMPTY, LATER_S, WRITE, World, images, opened

pytestmark = pytest.mark.usefixtures("standing_still")

Story = Callable[[World], Awaitable[None]]
# Of the smallest story; fewer would mean that the kills miss what they are for.
MIN_KILLS = 6


async def killed_everywhere(where: Path, before: Story, story: Story, check: Story) -> int:
    """Tell a story, and check what the next mount makes of it after a kill at any of its steps to the disk."""
    async with opened(where / "first") as world:
        await world.mkdir("w")
        await before(world)
        await world.elapse()
        with images(where / "first", where / "images") as taken:
            await story(world)
    assert len(taken) >= MIN_KILLS
    for image in taken:
        async with opened(image) as world:
            try:
                await check(world)
            except AssertionError as error:
                error.add_note(f"killed at step {image.name}; reported: {world.reports}")
                raise
    return len(taken)


async def nothing(_world: World) -> None:
    """Begin with an empty workflow."""


async def test_a_save_shows_the_old_or_the_new_content_at_every_step(tmp_path: Path):
    """Over a saved file: opened, emptied, written, flushed, closed, published."""

    async def before(world: World) -> None:
        await world.put("w/f", b"old")

    async def story(world: World) -> None:
        await world.put("w/f", b"new")
        await world.elapse()

    async def check(world: World) -> None:
        shown = await world.read("w/f")
        assert shown in {b"old", b"new"}
        await world.elapse(10)
        assert world.versions("f") in ([b"old"], [b"old", b"new"])
        assert world.versions("f")[-1] == await world.read("w/f") == shown
        assert await world.names("w") == {"f"}
        world.nothing_is_left()

    await killed_everywhere(tmp_path, before, story, check)


@pytest.mark.parametrize("path", ["w/f", "w/t/f"])
async def test_an_acknowledged_draft_that_is_written_again_is_never_lost(tmp_path: Path, path: str):
    """Sealed, opened again, emptied, written, sealed: at no step there is neither content."""

    async def before(world: World) -> None:
        await world.mkdir("w/t")

    async def story(world: World) -> None:
        handle = await world.open(path, EMPTY)
        await world.fs.flush(handle)
        world.fs.write(handle, 0, b"second")
        await world.close(handle)
        await world.elapse()

    async def check(world: World) -> None:
        shown = await world.read(path)
        assert shown in {b"first", b"second"}
        await world.elapse(10)
        assert await world.read(path) == shown
        assert (world.stored("t")["f"] if "t" in path else world.versions("f")[-1]) == shown
        world.nothing_is_left()

    async with opened(tmp_path / "first") as world:
        await world.mkdir("w")
        await before(world)
        await world.elapse()
        await world.put(path, b"first")
        with images(tmp_path / "first", tmp_path / "images") as taken:
            await story(world)
    assert len(taken) >= MIN_KILLS
    for image in taken:
        async with opened(image) as world:
            await check(world)


@pytest.mark.parametrize("path", ["w/f", "w/t/f"])
async def test_written_again_while_it_is_published(tmp_path: Path, path: str):
    """Forks, one of them over a sealed fork: what is shown after a kill is what is published, and nothing is beside."""

    async def before(world: World) -> None:
        await world.mkdir("w/t")
        await world.put(path, b"0")

    async def story(world: World) -> None:
        await world.put(path, b"1")
        held = world.publisher.next(held=True)
        await world.reach(held)
        await world.put(path, b"2")
        handle = await world.open(path, WRITE)
        world.fs.write(handle, 0, b"3")
        held.go.set()
        await world.elapse()
        await world.close(handle)
        await world.elapse()

    async def check(world: World) -> None:
        shown = await world.read(path)
        assert shown in {b"0", b"1", b"2", b"3"}
        await world.elapse(10)
        assert await world.read(path) == shown
        assert await world.names(path.rpartition("/")[0]) == ({"f"} if "t" in path else {"f", "t"})
        if "t" in path:
            assert world.stored("t") == {"f": shown}
        else:
            found = world.versions("f")
            assert found == sorted(set(found))
            assert found[-1] == shown
        world.nothing_is_left()

    await killed_everywhere(tmp_path, before, story, check)


async def test_a_removal_that_is_taken_back_never_costs_the_name(tmp_path: Path):
    """Removed and made again: after a kill it is there, old or new, or removed as its owner was told."""

    async def before(world: World) -> None:
        await world.put("w/f", b"old")

    async def story(world: World) -> None:
        await world.unlink("w/f")
        await world.put("w/f", b"new")
        await world.elapse()

    async def check(world: World) -> None:
        shown = await world.tree("w")
        assert shown in ({"f": b"old"}, {}, {"f": b"new"})
        await world.elapse(10)
        assert await world.tree("w") == shown
        assert [one.name for one in world.store.artifacts()] == list(shown)
        assert world.versions("f") in ([b"old"], [b"old", b"new"])
        world.nothing_is_left()

    await killed_everywhere(tmp_path, before, story, check)


@pytest.mark.parametrize("place", ["w", "w/t"])
async def test_a_save_by_rename_never_costs_the_name(tmp_path: Path, place: str):
    """Most editors: write a new file, rename it over the old one."""

    async def before(world: World) -> None:
        await world.mkdir("w/t")
        await world.put(f"{place}/f", b"old")

    async def story(world: World) -> None:
        await world.put(f"{place}/f.tmp", b"new")
        await world.rename(f"{place}/f.tmp", f"{place}/f")
        await world.elapse()

    async def check(world: World) -> None:
        assert await world.read(f"{place}/f") in {b"old", b"new"}
        await world.elapse(20)
        names = await world.names(place) - {"t"}
        if "f.tmp" in names:
            assert await world.read(f"{place}/f.tmp") == b"new"
        else:
            assert names == {"f"}
        assert await world.read(f"{place}/f") in {b"old", b"new"}
        world.nothing_is_left()

    await killed_everywhere(tmp_path, before, story, check)


async def test_a_version_of_a_tree_is_made_once(tmp_path: Path):
    """Files, directories, links, renames and removals: whatever was told to be kept is in the newest version."""

    async def before(world: World) -> None:
        await world.mkdir("w/t")
        await world.mkdir("w/t/d")
        for name in ("a", "b", "d/c"):
            await world.put(f"w/t/{name}", name.encode())

    told: list[dict[str, object]] = []

    async def story(world: World) -> None:
        for step in (
            lambda: world.put("w/t/a", b"A"),
            lambda: world.rename("w/t/d", "w/t/e"),
            lambda: world.unlink("w/t/b"),
            lambda: world.symlink("w/t/l", "a"),
            lambda: world.mkdir("w/t/n"),
            lambda: world.rename("w/t/e/c", "w/t/n/c"),
            lambda: world.rmdir("w/t/e"),
        ):
            told.append(await world.tree("w/t"))
            await step()
        told.append(await world.tree("w/t"))
        await world.elapse()

    async def check(world: World) -> None:
        shown = await world.tree("w/t")
        assert shown in told, shown
        await world.elapse(10)
        assert await world.tree("w/t") == shown
        assert world.stored("t") == shown
        assert world.reports == []
        world.nothing_is_left()

    await killed_everywhere(tmp_path, before, story, check)


async def test_what_was_told_of_a_file_outlives_failed_tries(tmp_path: Path):
    """Its time and its mode are those of the draft, also when a try was cut off."""
    for path in ("w/f", "w/t/f"):
        where = tmp_path / path.replace("/", "-")
        async with opened(where) as world:
            await world.mkdir("w")
            await world.mkdir("w/t")
            handle = await world.create(path, b"text")
            for change in (Change(mtime_ns=10**18), Change(executable=True)):
                await world.fs.setattr((await world.look(path)).ino, change, handle)
            await world.close(handle)
            world.publisher.next(error=errors.Unavailable("not now"))
            await world.elapse(1)
            assert world.publisher.calls[-1] in {"create_file", "save_tree"}
        async with opened(where) as world:
            node = await world.look(path)
            assert (node.executable, node.mtime_ns) == (True, 10**18)
            await world.elapse()
            artifact = world.artifact(path.split("/")[1])
            if path == "w/f":
                assert world.store.versions(artifact.id)[-1].executable
            else:
                assert [file.executable for file in world.store.tree(artifact.id, artifact.current)] == [True]


async def test_a_save_whose_answer_was_lost_by_a_kill_is_made_once(tmp_path: Path):
    """The store has it, nobody was told: the next mount finds that out, for files, trees and removals."""
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await world.mkdir("w/t")
        for name in ("f", "gone"):
            await world.put(f"w/{name}", b"old")
        await world.elapse()
        for path in ("w/f", "w/new", "w/t/f"):
            await world.put(path, b"new")
        await world.unlink("w/gone")
        held = [world.publisher.next(held_after=True) for _ in range(4)]
        for step in held:
            await world.reach(step)
    async with opened(tmp_path) as world:
        await world.elapse()
        assert await world.tree("w") == {"f": b"new", "new": b"new", "t": None, "t/f": b"new"}
        assert (world.versions("f"), world.versions("new")) == ([b"old", b"new"], [b"new"])
        assert [version.seq for version in world.store.versions(world.artifact("t").id)] == [1, 2]
        assert world.reports == []
        world.nothing_is_left()


async def test_what_cannot_be_read_is_kept_and_said(tmp_path: Path, expected_logs):
    """Neither stops the mount, nor is deleted by it."""
    expected_logs("cannot be taken up", level=logging.WARNING)
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await world.put("w/f", b"text")
        await world.put("w/g", b"other")
        broken = world.edit("f")
        record = next(one for one in world.home.journal.load() if one.number == broken.number)
        record.what["at"] = ["nonsense"]
        world.home.journal.put(record)
    async with opened(tmp_path) as world:
        await world.elapse()
        assert await world.tree("w") == {"g": b"other"}
        assert world.drafts() == [f"{record.number}.draft"]
        assert any("kept in" in report for report in world.reports)
        assert world.home.journal.numbers() == [record.number]


async def test_what_was_open_when_the_mount_ended_is_kept(tmp_path: Path):
    """Written and not flushed by the program: the end of a mount makes it durable, and the next one publishes it."""
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await world.put("w/f", b"old")
        await world.elapse()
        handle = await world.open("w/f", BOTH)
        world.fs.write(handle, 3, b" and new")
        world.fs.writer.writeback.leave = True
        await world.fs.writer.finish()
        assert world.versions("f") == [b"old"]
    async with opened(tmp_path) as world:
        assert await world.read("w/f") == b"old and new"
        await world.elapse(LATER_S)
        assert world.versions("f") == [b"old", b"old and new"]
        world.nothing_is_left()


async def test_a_number_is_not_used_again_while_something_speaks_of_it(tmp_path: Path):
    """A save that took the place of a later draft outlives it, and the mount; the next one makes another draft."""
    async with opened(tmp_path, publishing=False) as world:
        await world.mkdir("w")
        handle = await world.create("w/.goutputstream-AAAAAA", b"new")
        await world.put("w/f", b"old")
        await world.close(handle)
        await world.rename("w/.goutputstream-AAAAAA", "w/f")
    for name in ("g", "h", "i"):
        async with opened(tmp_path, publishing=False) as world:
            await world.put(f"w/{name}", name.encode())
    async with opened(tmp_path) as world:
        assert await world.tree("w") == {"f": b"new", "g": b"g", "h": b"h", "i": b"i"}


async def test_what_was_being_appended_when_the_mount_was_killed_is_no_save(tmp_path: Path):
    """Half of it was made durable: that is what is there, not that with a part of what came after."""
    async with opened(tmp_path, publishing=False) as world:
        await world.mkdir("w")
        for name in ("f", "g"):
            handle = await world.create(f"w/{name}", b"half\n")
            await world.fs.flush(handle)
            world.fs.write(handle, 5, b"and a par")
        await world.rename("w/g", "w/h")  # which makes durable what there is
    async with opened(tmp_path) as world:
        assert await world.tree("w") == {"f": b"half\n", "h": b"half\nand a par"}
