"""Two saves of one path of a tree in one mount, of who have seen different contents: both are kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from artifactfs import errors
from artifactfs.vfs import overtaken
from tests.vfs.test_tree_conflicts import notice, other
from tests.vfs.world import BEGAN, WRITE, World, agree, grow, images, opened

pytestmark = pytest.mark.usefixtures("standing_still")

MARK = "conflict 2026-01-02 03.04.05"

Change = Callable[[World], Awaitable[None]]


@pytest.fixture(autouse=True)
def _one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all conflicts be of the same second."""
    monkeypatch.setattr(overtaken, "conflict_mark", lambda: MARK)


async def began(world: World, where: Path, theirs: Change) -> tuple[int, str]:
    """Begin to write to ``a`` before others change it, which this mount sees; return the handle and its copy's name."""
    handle = await world.open("w/t/a", WRITE)
    world.fs.write(handle, 0, b"mine1")
    edit = world.edit("a")
    await other(world, where, theirs)
    await notice(world, "w/t/b")
    return handle, f"a ({MARK} {edit.number})"


def all_contents(world: World) -> set[bytes]:
    """Return the contents of all files in all versions of the tree ``t``."""
    artifact, read = world.artifact("t"), world.store.objects.read
    files = [file for one in world.store.versions(artifact.id) for file in world.store.tree(artifact.id, one.seq)]
    return {read(file.sha256) for file in files if file.sha256}


async def told_once(world: World, path: str) -> None:
    """Check that who saves under the wanted name is told that another save of it is kept beside."""
    handle = await world.open(path, WRITE)
    with pytest.raises(errors.Conflict):
        await world.fs.flush(handle)
    await world.close(handle)


async def saved_theirs(second: World) -> None:
    await second.put("w/t/a", b"theirs")


async def removed_theirs(second: World) -> None:
    await second.unlink("w/t/a")


async def put(world: World) -> None:
    await world.put("w/t/a", b"mine2")


async def put_by_rename(world: World) -> None:
    await world.put("w/t/x", b"mine2")
    await world.rename("w/t/x", "w/t/a")


async def move(world: World) -> None:
    await world.rename("w/t/b", "w/t/a")


async def link(world: World) -> None:
    await world.symlink("w/t/a", "b")


async def make_directory(world: World) -> None:
    await world.mkdir("w/t/a")
    await world.put("w/t/a/below", b"mine2")


ROWS: dict[str, tuple[Change, Change, dict[str, Any]]] = {
    "saved": (saved_theirs, put, {"a": b"mine2"}),
    "saved by a rename": (saved_theirs, put_by_rename, {"a": b"mine2"}),
    "moved over": (saved_theirs, move, {"a": b"b", "b": None}),
    "made anew": (removed_theirs, put, {"a": b"mine2"}),
    "a link": (removed_theirs, link, {"a": "b"}),
    "a directory": (removed_theirs, make_directory, {"a": None, "a/below": b"mine2"}),
}


@pytest.mark.parametrize(("theirs", "mine", "changed"), ROWS.values(), ids=ROWS.keys())
async def test_what_was_saved_on_the_sight_of_others_change_keeps_its_name(
    grown: World, tmp_path: Path, theirs: Change, mine: Change, changed: dict[str, Any]
) -> None:
    """Who began before that is kept beside, and nothing is left behind."""
    handle, copy = await began(grown, tmp_path / "other", theirs)
    await mine(grown)
    await grown.close(handle)
    expected = {**BEGAN, **changed, copy: b"mine1"}
    if expected["b"] is None:
        del expected["b"]
    assert await grown.tree("w/t") == expected
    assert grown.reports == [f"w/t/a: another save here has its name; this save is kept as {copy!r}"]
    if isinstance(expected["a"], bytes):
        await told_once(grown, "w/t/a")
    grown.overlay.notices.clear()
    await agree(grown, expected)
    assert {b"a", b"mine1"} <= all_contents(grown)
    if theirs is saved_theirs:
        assert b"theirs" in all_contents(grown)


async def test_who_saves_second_is_kept_beside_also_if_he_has_seen_more(grown: World, tmp_path: Path) -> None:
    handle, _ = await began(grown, tmp_path / "other", saved_theirs)
    known = {edit.number for edit in grown.overlay.edits.values()}
    second = await grown.open("w/t/a", WRITE)
    grown.fs.write(second, 0, b"mine2 ")
    (number,) = {edit.number for edit in grown.overlay.edits.values()} - known
    await grown.close(handle)
    await grown.close(second)
    assert await grown.tree("w/t") == {**BEGAN, "a": b"mine1", f"a ({MARK} {number})": b"mine2 "}
    await grown.elapse(5)
    assert {b"theirs", b"mine1", b"mine2 "} <= set(grown.stored("t").values())
    assert grown.home.journal.numbers() == [] == grown.drafts()


async def test_what_a_writer_goes_on_to_save_is_the_copys_next_content(grown: World, tmp_path: Path) -> None:
    handle, copy = await began(grown, tmp_path / "other", saved_theirs)
    await put(grown)
    await grown.fs.flush(handle)
    grown.overlay.notices.clear()
    await grown.elapse(5)
    grown.fs.write(handle, 5, b", and more")
    await grown.close(handle)
    await agree(grown, {**BEGAN, "a": b"mine2", copy: b"mine1, and more"})


async def test_a_kill_between_two_saves_of_one_name_loses_neither(tmp_path: Path) -> None:
    """Whichever step was the last one: what was acknowledged is at the store in the end, and nothing is left behind."""
    async with opened(tmp_path / "first") as world:
        await world.mkdir("w")
        await grow(world)
        handle, _ = await began(world, tmp_path / "other", saved_theirs)
        with images(tmp_path / "first", tmp_path / "kills") as kills:
            await put(world)
            second = len(kills)
            await world.close(handle)
            first = len(kills)
            await world.elapse(5)
    assert len(kills) > first > second > 0
    for at, image in enumerate(kills):
        async with opened(image) as world:
            await world.elapse(5)
            assert await world.tree("w/t") == world.stored("t")
            expected = {b"theirs"} | ({b"mine2"} if at >= second else set()) | ({b"mine1"} if at >= first else set())
            assert expected <= all_contents(world), at
            assert world.home.journal.numbers() == [] == world.drafts(), at


async def test_a_kill_in_a_rename_over_a_file_that_is_being_published_brings_no_earlier_save_of_it_back(
    tmp_path: Path,
) -> None:
    """What was saved over what is being published is replaced, and that with it: neither was saved by anybody else."""
    first = tmp_path / "first"
    async with opened(first) as world:
        await world.mkdir("w")
        await grow(world)
        step = world.publisher.next(error=errors.Unavailable("the answer is lost"), lost=True, held=True)
        await world.put("w/t/a", b"published?")
        world.clock.jump(1.1)
        await step.reached.wait()
        await world.put("w/t/a", b"saved over it")
        step.go.set()
        await world.settle()
        world.stop_publishing()
        await world.put("w/t/new", b"moved")
        assert world.edit("a").in_flight is not None
        before = await world.tree("w/t")
        with images(first, tmp_path / "kills") as kills:
            await world.rename("w/t/new", "w/t/a")
        after = await world.tree("w/t")
    for at, image in enumerate(kills):
        async with opened(image) as world:
            assert await world.tree("w/t") in [before, after], at
            assert world.reports == [], at
            await world.elapse(5)
            assert world.stored("t") == await world.tree("w/t") in [before, after], at
            world.nothing_is_left()


async def test_a_file_that_is_made_under_a_name_that_a_save_takes_in_the_same_moment(
    grown: World, tmp_path: Path
) -> None:
    """The kernel believes that there is none, and looks again."""
    handle, _ = await began(grown, tmp_path / "other", removed_theirs)
    await grown.fs.flush(handle)
    with pytest.raises(errors.StaleContent):
        await grown.create("w/t/a", b"mine2")
    await grown.close(handle)
    await put(grown)
    await agree(grown, {**BEGAN, "a": b"mine2"})


async def test_a_save_whose_name_is_taken_while_it_becomes_durable_stands_beside_that(
    grown: World, tmp_path: Path
) -> None:
    """Somebody makes a directory in the moment after: what is durable is published under another name."""
    handle, copy = await began(grown, tmp_path / "other", removed_theirs)
    await grown.close(handle)
    await make_directory(grown)
    await grown.elapse(5)
    grown.overlay.notices.clear()
    await agree(grown, {**BEGAN, "a": None, "a/below": b"mine2", copy: b"mine1"})
