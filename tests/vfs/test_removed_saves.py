"""A file that goes while nobody knows whether the service has it, or while saves of it wait; what takes its name then.

No kill brings it back, however little of what has taken its name is durable, and no earlier one of its saves.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from artifactfs import errors
from artifactfs.vfs.giving_up import GivingUp
from artifactfs.vfs.tree_renaming import TreeRenamer
from tests.vfs.test_kills import save_without_answer, shown_after_a_kill
from tests.vfs.test_listed_races import meanwhile
from tests.vfs.test_saving_races import pass_time
from tests.vfs.world import BEGAN, EMPTY, World, grow, images, opened

pytestmark = pytest.mark.usefixtures("standing_still")


@asynccontextmanager
async def removed(where: Path) -> AsyncIterator[World]:
    """Have a file ``w/f`` whose save was answered by nobody, and which was removed then."""
    async with opened(where) as world:
        await save_without_answer(world)
        assert world.edit("f").tries == 1
        await world.unlink("w/f")
        yield world


async def nothing_comes_back(where: Path, *, left: dict[str, bytes]) -> None:
    assert await shown_after_a_kill(where, "w") == left
    async with opened(where) as world:
        await world.elapse(20)
        assert await world.tree("w") == left
        assert {one.name: world.store.objects.read(world.newest(one.id)) for one in world.store.artifacts()} == left
        world.nothing_is_left()


async def test_a_removed_file_takes_no_place_with_what_is_renamed_after_it(tmp_path: Path):
    """Of what is renamed nothing is durable: what was under its new name stays, not what was removed at the old one."""
    async with removed(tmp_path) as world:
        await world.put("w/g", b"kept")
        await world.create("w/f")
        await world.rename("w/f", "w/g")
    await nothing_comes_back(tmp_path, left={"g": b"kept"})


async def test_a_removed_file_is_not_back_when_something_is_renamed_to_its_name(tmp_path: Path):
    """Of what has its name nothing is durable yet."""
    async with removed(tmp_path) as world:
        world.stop_publishing()
        await world.create("w/n")
        await world.rename("w/n", "w/f")
    await nothing_comes_back(tmp_path, left={})


async def test_what_takes_the_name_of_a_removed_file_is_its_next_version(tmp_path: Path):
    """Durable it has a place again, after a kill, too."""
    async with removed(tmp_path) as world:
        world.stop_publishing()
        handle = await world.create("w/n")
        await world.rename("w/n", "w/f")
        world.fs.write(handle, 0, b"3")
        await world.close(handle)
    assert await shown_after_a_kill(tmp_path, "w") == {"f": b"3"}
    async with opened(tmp_path) as world:
        await world.elapse(10)
        assert await world.tree("w") == {"f": b"3"}
        assert world.versions("f") == [b"1", b"2", b"3"]
        world.nothing_is_left()


async def test_what_takes_the_name_of_a_removed_file_waits_for_what_is_being_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It is not saved beside the file that is about to be removed: that would be another file of its name."""
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await world.put("w/f", b"1")
        await world.elapse()
        await world.put("w/other", b"other")
        other = world.publisher.next(held=True, only="other")
        await world.reach(other)
        await world.put("w/f", b"2")
        await world.reach(world.publisher.next(error=errors.Unavailable("the answer is lost"), lost=True, only="f"))
        await world.settle()
        await world.unlink("w/f")
        await world.put("w/f~", b"3")
        step = world.publisher.next(held=True, only="f")

        async def find_out() -> None:
            other.go.set()  # what waits for the source is tried at once then, and no more one after the other
            await world.reach(step)

        turns = meanwhile(monkeypatch, TreeRenamer, "vet", find_out)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.rename, "w/f~", "w/f")
            await step.reached.wait()
            await pass_time(world)
            step.go.set()
        assert not turns
        await world.elapse(10)
        assert await world.tree("w") == {"f": b"3", "other": b"other"}
        assert world.store.objects.read(world.newest(world.artifact("f").id)) == b"3"
        world.nothing_is_left()


async def save_again(world: World) -> None:
    """Have a file ``w/f`` that was saved, and whose next save waits."""
    await world.mkdir("w")
    await world.put("w/f", b"1")
    await world.elapse()
    world.stop_publishing()
    await world.put("w/f", b"2")


async def go(world: World) -> None:
    await world.unlink("w/f")


async def go_and_be_found_out(world: World) -> None:
    """Remove a file whose save was answered by nobody; the service comes to remove what that save has become."""
    await world.unlink("w/f")
    world.publisher.next()
    await world.reach(world.publisher.next(held=True))
    assert world.publisher.calls[-2:] == ["save_file", "remove"]


@pytest.mark.parametrize(("begin", "way"), [(save_again, go), (save_without_answer, go_and_be_found_out)])
async def test_what_a_kill_leaves_of_a_removal_is_the_file_or_its_removal(
    tmp_path: Path, begin: Callable[[World], Awaitable[None]], way: Callable[[World], Awaitable[None]]
):
    """Both would be of one artifact, which has another name after a rename; what is made under the old one is new."""
    first = tmp_path / "first"
    async with opened(first) as world:
        await begin(world)
        with images(first, tmp_path / "images") as taken:
            await way(world)
    for image in taken:
        async with opened(image) as world:
            await world.put("w/f", b"3")
            await world.rename("w/f", "w/x")
            await world.put("w/f", b"4")
            await world.elapse(5)
            assert await world.tree("w") == {"f": b"4", "x": b"3"}, (image.name, world.reports)
            world.nothing_is_left()


# -- in a tree ---------------------------------------------------------------------------------------------------


async def unlink(world: World) -> None:
    await world.unlink("w/t/a")


async def rename(world: World) -> None:
    await world.rename("w/t/b", "w/t/a")


async def rename_saved(world: World) -> None:
    await world.rename("w/t/d/c", "w/t/a")


async def give_up(world: World) -> None:
    await GivingUp(world.fs).drop_names(world.work(), {("", "a")})


async def save_twice(world: World) -> None:
    """Have a file ``w/t/a`` written again while a version of its tree is made, which fails."""
    await world.put("w/t/a", b"1")
    held = world.publisher.next(held=True, error=errors.Unavailable())
    await world.reach(held)
    await world.put("w/t/a", b"2")
    held.go.set()
    await world.settle()
    world.stop_publishing()


# What goes, and what is there instead.
WAYS: dict[Callable[[World], Awaitable[None]], tuple[set[str], dict[str, bytes]]] = {
    unlink: ({"a"}, {}),
    rename: ({"a", "b"}, {"a": b"b"}),
    rename_saved: ({"a", "d/c"}, {"a": b"saved"}),
    give_up: ({"a"}, {"a": b"a"}),
}


@pytest.mark.parametrize(
    ("way", "is_open"),
    # What is open for writing is not given up.
    [(way, is_open) for way in WAYS for is_open in (False, True) if not (is_open and way is give_up)],
)
async def test_what_was_saved_twice_goes_in_one_step(
    tmp_path: Path, way: Callable[[World], Awaitable[None]], *, is_open: bool
):
    """The first save was to be in a version that failed; a kill finds the second one or what is wanted, never that."""
    first = tmp_path / "first"
    async with opened(first) as world:
        await world.mkdir("w")
        await grow(world)
        await save_twice(world)
        await world.put("w/t/d/c", b"saved")
        if is_open:
            await world.open("w/t/a", EMPTY)
        with images(first, tmp_path / "images") as taken:
            await way(world)
    before = {**BEGAN, "a": b"2", "d/c": b"saved"}
    gone, left = WAYS[way]
    after = {path: found for path, found in before.items() if path not in gone} | left
    for image in taken:
        assert await shown_after_a_kill(image, "w/t") in [before, after], image.name
    assert await shown_after_a_kill(taken[-1], "w/t") == after


async def remove(world: World) -> None:
    await world.unlink("w/f")


async def rename_away(world: World) -> None:
    await world.rename("w/f", "w/x")
    await world.unlink("w/x")


@pytest.mark.parametrize("way", [remove, rename_away])
async def test_a_removal_that_a_save_went_on_with_goes_with_that_save(
    tmp_path: Path, way: Callable[[World], Awaitable[None]]
) -> None:
    """Removed while nobody knows what became of it, the save is found out; nothing else removes the artifact."""
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await world.put("w/f", b"1")
        await world.elapse()
        await world.unlink("w/f")
        removing = world.publisher.next(held=True, error=errors.Unavailable())
        await world.reach(removing)
        await world.put("w/f", b"2")
        saving = world.publisher.next(error=errors.Unavailable("the answer is lost"), lost=True)
        while not world.edit("f").is_under_way:  # it waits for the removal
            await pass_time(world)
        removing.go.set()
        await world.reach(saving)
        await world.settle()
        assert world.edit("f").replaces is not None
        await way(world)
        await world.put("w/f", b"3")
        world.reports.clear()
        await world.elapse(20)
        assert (await world.tree("w"), world.reports) == ({"f": b"3"}, [])
        assert [one.name for one in world.store.artifacts()] == ["f"]
        world.nothing_is_left()
