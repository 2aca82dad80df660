"""Directories of a tree that are moved, and trees whose changes end at that moment: nothing is lost or left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from artifactfs import errors
from artifactfs.vfs import tree_publishing
from artifactfs.vfs.own_changes import OwnChanges
from artifactfs.vfs.tree_renaming import TreeRenamer
from artifactfs.vfs.trees import Trees
from artifactfs.vfs.versioning import Versioning
from tests.vfs.test_moving_races import moved
from tests.vfs.test_saving_races import pass_time
from tests.vfs.test_tree_conflicts import MARK, other
from tests.vfs.world import BEGAN, World, agree, count, grow, opened


async def test_a_file_is_made_in_a_directory_while_that_is_moved(grown: World, monkeypatch: pytest.MonkeyPatch):
    """It goes along: the kernel does not keep those two apart."""
    real, handles = TreeRenamer._detach, list[int]()

    async def slow(self: TreeRenamer, *args: object) -> None:
        await real(self, *args)  # type: ignore[arg-type]  # as they come
        if not handles:
            handles.append(-1)
            handles.append(await grown.create("w/t/d/e/new", b"new"))

    monkeypatch.setattr(TreeRenamer, "_detach", slow)
    await grown.rename("w/t/d", "w/t/x")
    await grown.close(handles[1])
    expected = {**moved("x/c"), "x/e/new": b"new"}
    assert await grown.tree("w/t") == expected
    await grown.elapse(10)
    assert await grown.tree("w/t") == grown.stored("t") == expected
    grown.nothing_is_left()


async def test_a_file_is_moved_while_the_changes_of_its_tree_are_found_to_be_none(
    grown: World, monkeypatch: pytest.MonkeyPatch
):
    """The move is not put into changes that are given up at that moment."""
    await grown.put("w/t/new", b"new")
    await grown.unlink("w/t/new")
    durable, detach, gone = OwnChanges.durable, TreeRenamer._detach, trio.Event()

    async def slow(self: OwnChanges, source: str) -> None:
        if not gone.is_set():
            nursery.start_soon(grown.rename, "w/t/a", "w/t/x")
            await pass_time(grown)
            gone.set()
        await durable(self, source)

    async def late(self: TreeRenamer, *args: object) -> None:
        await gone.wait()
        await pass_time(grown)
        await detach(self, *args)  # type: ignore[arg-type]  # as they come

    monkeypatch.setattr(OwnChanges, "durable", slow)
    monkeypatch.setattr(TreeRenamer, "_detach", late)
    async with trio.open_nursery() as nursery:
        await grown.elapse()
        await gone.wait()
    await agree(grown, moved("x"))


async def test_a_directory_is_moved_after_a_version_of_a_tree_that_an_earlier_mount_has_saved(
    tmp_path: Path, standing_still: None
):
    """What a program has open in it, or works in, goes along, though the new version lists it anew."""
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await grow(world)
    async with opened(tmp_path) as world:
        parent, below, file = [await world.look(f"w/t{path}") for path in ("", "/d/e", "/d/e/f")]
        await world.put("w/t/a", b"new")
        await world.elapse(5)
        await world.fs.rename((parent.ino, "d"), (parent.ino, "x"), replace=True)
        assert [(await world.look(f"w/t/x/{path}")).ino for path in ("e", "e/f")] == [below.ino, file.ino]
        node, handle = await world.fs.create(below.ino, "new", executable=False)
        world.fs.accepted(node)
        world.fs.write(handle, 0, b"new")
        await world.close(handle)
        await agree(world, {**moved("x/c"), "a": b"new", "x/e/new": b"new"})


async def test_a_version_is_restored_while_the_changes_of_its_tree_end(grown: World, monkeypatch: pytest.MonkeyPatch):
    """Who asked is told that nothing came of it, or it is done: it is not put into changes that are given up."""
    await grown.put("w/t/a", b"new")
    await grown.elapse(5)
    members, turns, before = Trees.members, [True], f"v{count(grown) - 1}"

    async def slow(self: Trees, *args: object) -> object:
        if turns:
            turns.pop()
            await grown.put("w/t/new", b"new")
            await grown.unlink("w/t/new")
            await grown.elapse(5)
        return await members(self, *args)  # type: ignore[arg-type]  # as they come

    monkeypatch.setattr(Trees, "members", slow)
    with pytest.raises(errors.Conflict):
        await Versioning(grown.fs).restore("w/t", before, force=False)
    await Versioning(grown.fs).restore("w/t", before, force=False)
    await agree(grown, BEGAN)


async def test_a_new_file_is_given_up_while_it_is_being_moved(grown: World, monkeypatch: pytest.MonkeyPatch):
    """Its writer was told that there is nothing of it: its new name does not stand for nothing for ever."""
    handle = await grown.create("w/t/new", b"new")
    vet = TreeRenamer.vet

    async def slow(self: TreeRenamer, *args: object) -> None:
        await vet(self, *args)  # type: ignore[arg-type]  # as they come
        grown.edit("new").staged.broken = OSError(28, "no space")
        await grown.fs.release(handle)

    monkeypatch.setattr(TreeRenamer, "vet", slow)
    with pytest.raises(errors.StaleContent):
        await grown.rename("w/t/new", "w/t/x")
    await agree(grown, BEGAN)


async def test_a_file_is_moved_whose_save_is_kept_beside_somebody_elses_at_that_moment(
    grown: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What has the name by now is not taken for it, and not removed."""
    monkeypatch.setattr(tree_publishing, "conflict_mark", lambda: MARK)
    await grown.put("w/t/a", b"mine")
    await other(grown, tmp_path / "other", lambda second: second.put("w/t/a", b"theirs"))
    vet = TreeRenamer.vet

    async def slow(self: TreeRenamer, *args: object) -> None:
        await vet(self, *args)  # type: ignore[arg-type]  # as they come
        await grown.elapse(5)

    monkeypatch.setattr(TreeRenamer, "vet", slow)
    with pytest.raises(errors.StaleContent):
        await grown.rename("w/t/a", "w/t/x")
    await grown.elapse(5)
    assert await grown.tree("w/t") == grown.stored("t") == {**BEGAN, "a": b"theirs", f"a ({MARK})": b"mine"}


@pytest.mark.parametrize("is_made", [False, True])
async def test_a_directory_that_is_made_anew_while_its_version_is_made_holds_nothing_of_the_earlier_one(
    tmp_path: Path, standing_still: None, *, is_made: bool
) -> None:
    """Nor after a kill, while what was made in it is not durable."""
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await grow(world)
        await world.mkdir("w/t/x")
        await world.put("w/t/x/f", b"moved away")
        step = world.publisher.next(held=True)
        await world.reach(step)
        await world.rename("w/t/x", "w/t/y")
        await world.mkdir("w/t/x")
        if is_made:
            await world.create("w/t/x/f", b"not durable")
        step.go.set()
        await world.elapse(0.1)
        assert world.stored("t")["x/f"] == b"moved away"
    async with opened(tmp_path) as world:
        expected = {**BEGAN, "x": None, "y": None, "y/f": b"moved away"}
        assert await world.tree("w/t") == expected
        await world.elapse(5)
        assert await world.tree("w/t") == world.stored("t") == expected
        world.nothing_is_left()
