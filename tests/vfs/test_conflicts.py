"""Somebody else was first: both contents are kept and shown, and whoever saved is told once."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from artifactfs import errors
from artifactfs.vfs import overtaken, tree_publishing
from artifactfs.vfs.queue import queue_of
from tests.vfs.world import EMPTY, LATER_S, WRITE, World, opened

MARK = "conflict 2026-01-02 03.04.05"


@pytest.fixture(autouse=True)
def _one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all conflicts be of the same second."""
    monkeypatch.setattr(overtaken, "conflict_mark", lambda: MARK)
    monkeypatch.setattr(tree_publishing, "conflict_mark", lambda: MARK)


def overtake(world: World, data: bytes, name: str = "f") -> None:
    """Save the file as another client does."""
    world.store.save_file(world.artifact(name).id, world.store.objects.put(data), len(data))


async def saved_late(world: World, data: bytes = b"mine") -> None:
    """Save a file of which another client has made a version meanwhile."""
    await world.put("w/f", data)
    overtake(world, b"theirs " + data)
    await world.elapse()


@pytest.fixture
async def late(world: World) -> World:
    """A file ``f`` that was saved too late."""
    await world.put("w/f", b"base")
    await world.elapse()
    await saved_late(world)
    return world


async def test_a_save_that_came_too_late_is_kept_beside(late: World):
    await late.elapse()
    assert await late.tree("w") == {"f": b"theirs mine", f"f ({MARK})": b"mine"}
    assert late.versions("f") == [b"base", b"theirs mine"]
    assert late.versions(f"f ({MARK})") == [b"mine"]
    assert late.reports == [f"w/f: somebody else saved it first; this save is kept as 'f ({MARK})'"]
    assert queue_of(late.fs.writer) == []


async def test_the_inode_goes_with_the_copy(world: World):
    """What a program holds is its own content; the name that it wanted is another inode."""
    await world.put("w/f", b"base")
    await world.elapse()
    before = (await world.look("w/f")).ino
    await saved_late(world)
    assert (await world.look(f"w/f ({MARK})")).ino == before
    assert (await world.look("w/f")).ino != before


@pytest.mark.parametrize("how", ["open", "create"])
async def test_the_next_flush_of_the_wanted_name_tells_it_once(late: World, how: str):
    if how == "create":
        await late.unlink("w/f")
        await late.elapse()
        handle = await late.create("w/f", b"again")
    else:
        handle = await late.open("w/f", EMPTY)
        late.fs.write(handle, 0, b"again")
    with pytest.raises(errors.Conflict, match="conflict 2026"):
        await late.fs.flush(handle)
    await late.fs.flush(handle)
    await late.fs.release(handle)
    await late.put("w/f", b"once more")
    await late.elapse()
    assert late.versions(f"f ({MARK})") == [b"mine"]
    await late.elapse()
    late.nothing_is_left()


async def test_a_second_conflict_in_the_same_second_has_a_name_of_its_own(late: World):
    with pytest.raises(errors.Conflict):
        await late.put("w/f", b"not flushed")
    await late.fs.release(max(late.fs.handles._handles))
    overtake(late, b"theirs again")
    await late.elapse(5)
    assert await late.tree("w") == {
        "f": b"theirs again", f"f ({MARK})": b"mine", f"f ({MARK} 2)": b"not flushed",
    }  # fmt: skip


async def test_a_conflict_while_somebody_writes_again(world: World):
    """What was sent is kept, and what is being written follows it under the name of the copy."""
    await world.put("w/f", b"base")
    await world.elapse()
    await world.put("w/f", b"mine")
    held = world.publisher.next(held=True)
    await world.reach(held)
    handle = await world.open("w/f", WRITE)
    world.fs.write(handle, 4, b" and more")
    overtake(world, b"theirs")
    held.go.set()
    await world.elapse()
    assert await world.tree("w") == {"f": b"theirs", f"f ({MARK})": b"mine and more"}
    with pytest.raises(errors.Conflict):
        await world.fs.flush(handle)
    await world.close(handle)
    await world.elapse()
    assert world.versions(f"f ({MARK})") == [b"mine", b"mine and more"]
    assert world.versions("f") == [b"base", b"theirs"]


@pytest.mark.parametrize("is_sealed", [True, False])
async def test_a_kill_during_a_conflict_while_somebody_writes(tmp_path: Path, standing_still: None, *, is_sealed: bool):
    """Acknowledged is what was sent, and what was flushed since: both contents are somewhere after the kill."""
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await world.put("w/f", b"base")
        await world.elapse()
        await world.put("w/f", b"mine")
        held = world.publisher.next(held=True)
        await world.reach(held)
        handle = await world.open("w/f", WRITE)
        world.fs.write(handle, 4, b" and more")
        if is_sealed:
            await world.fs.flush(handle)
        overtake(world, b"theirs")
        world.publisher.next(error=errors.Unreachable("no network"))
        held.go.set()
        await world.settle()
    async with opened(tmp_path) as world:
        await world.elapse(5)
        copy = b"mine and more" if is_sealed else b"mine"
        assert await world.tree("w") == {"f": b"theirs", f"f ({MARK})": copy}
        assert world.versions(f"f ({MARK})")[0] == b"mine"
        assert world.home.journal.numbers() == []


async def test_the_journal_has_the_copy_under_its_name(tmp_path: Path, standing_still: None):
    """Killed between the conflict and the copy's save: the next mount goes on with the copy."""
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await world.put("w/f", b"base")
        await world.elapse()
        await world.put("w/f", b"mine")
        overtake(world, b"theirs")
        world.publisher.next()
        world.publisher.next(error=errors.Unreachable("no network"))
        await world.elapse(1)
    async with opened(tmp_path) as world:
        assert await world.tree("w") == {"f": b"theirs", f"f ({MARK})": b"mine"}
        assert [row.path for row in queue_of(world.fs.writer)] == [f"w/f ({MARK})"]
        await world.elapse()
        assert world.versions(f"f ({MARK})") == [b"mine"]
        world.nothing_is_left()


async def test_a_new_file_whose_name_was_taken_meanwhile(world: World):
    await world.put("w/f", b"mine")
    workflow = world.store.workflows()[0]
    made = world.store.add_artifact(workflow.id, "f", "file")
    world.store.save_file(made.id, world.store.objects.put(b"theirs"), 6)
    await world.elapse(5)
    assert await world.tree("w") == {"f": b"theirs", f"f ({MARK})": b"mine"}


async def test_the_same_content_is_no_conflict(world: World):
    await world.put("w/f", b"base")
    await world.elapse()
    await world.put("w/f", b"same")
    overtake(world, b"same")
    await world.elapse()
    assert world.versions("f") == [b"base", b"same"]
    assert world.reports == []
    world.nothing_is_left()


@pytest.mark.parametrize("comes_back", [True, False])
async def test_a_file_that_somebody_removed_comes_back_under_its_name(world: World, *, comes_back: bool):
    """As the same artifact where the service can do so, else as another one."""
    await world.put("w/f", b"base")
    await world.elapse()
    await world.put("w/f", b"mine")
    world.store.delete_artifact(world.artifact("f").id)
    if not comes_back:
        world.publisher.next(error=errors.NotFound("gone for good"))
    await world.elapse(LATER_S + 1)
    assert await world.tree("w") == {"f": b"mine"}
    assert world.reports == []
    assert len(world.store.artifacts(deleted=True)) == (1 if comes_back else 2)
    world.nothing_is_left()


async def test_a_file_that_is_gone_for_good_while_somebody_writes_again(world: World):
    await world.put("w/f", b"base")
    await world.elapse()
    await world.put("w/f", b"mine")
    held = world.publisher.next(held=True, error=errors.NotFound("gone for good"))
    await world.reach(held)
    handle = await world.open("w/f", WRITE)
    world.fs.write(handle, 4, b"!")
    world.store.delete_artifact(world.artifact("f").id)
    held.go.set()
    await world.elapse()
    await world.close(handle)
    await world.elapse()
    assert await world.tree("w") == {"f": b"mine!"}
    (made,) = world.store.artifacts()
    assert len(world.store.versions(made.id)) == 2
    world.nothing_is_left()


# -- removals ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def listed(world: World) -> World:
    """A saved file ``f``."""
    await world.put("w/f", b"old")
    await world.elapse()
    world.publisher.calls.clear()
    return world


async def test_a_name_that_is_taken_again_is_the_next_version(listed: World):
    """Removed and made again within the quiet period: the same artifact, one version, no removal."""
    await listed.unlink("w/f")
    await listed.put("w/f", b"new")
    await listed.elapse()
    assert listed.versions("f") == [b"old", b"new"]
    assert listed.publisher.calls == ["save_file"]
    listed.nothing_is_left()


async def test_a_name_that_is_taken_again_and_given_back(listed: World):
    """Made again and removed again, before or after its content was flushed: the artifact goes."""
    for is_written in (False, True):
        await listed.unlink("w/f")
        handle = await listed.create("w/f", b"new" if is_written else b"")
        if is_written:
            await listed.fs.flush(handle)
        await listed.unlink("w/f")
        await listed.fs.release(handle)
        assert await listed.names("w") == set()
        await listed.elapse(20)
        assert listed.publisher.calls == ["remove"]
        assert listed.store.artifacts() == []
        listed.nothing_is_left()
        await listed.put("w/f", b"old")
        await listed.elapse()
        listed.publisher.calls.clear()


async def test_a_name_that_is_taken_while_the_removal_is_on_its_way(listed: World):
    """The new file is shown from its creation on, and is an artifact of its own, without a conflict."""
    removal = listed.publisher.next(held=True)
    await listed.unlink("w/f")
    await listed.reach(removal)
    await listed.put("w/f", b"new")
    listed.clock.jump(LATER_S)
    await trio.testing.wait_all_tasks_blocked()
    assert await listed.tree("w") == {"f": b"new"}
    removal.go.set()
    await trio.testing.wait_all_tasks_blocked()
    assert await listed.tree("w") == {"f": b"new"}
    await listed.elapse()
    assert await listed.tree("w") == {"f": b"new"}
    assert listed.reports == []
    assert [one.name for one in listed.store.artifacts()] == ["f"]
    listed.nothing_is_left()


async def test_a_name_that_is_taken_while_the_removal_fails(listed: World):
    """The removal cannot be made yet: what has the name now goes on with the artifact."""
    removal = listed.publisher.next(held=True, error=errors.Unavailable("not now"))
    await listed.unlink("w/f")
    await listed.reach(removal)
    await listed.put("w/f", b"new")
    removal.go.set()
    await listed.elapse(10)
    assert await listed.tree("w") == {"f": b"new"}
    assert [one.name for one in listed.store.artifacts()] == ["f"]
    assert all("conflict" not in report for report in listed.reports)
    listed.nothing_is_left()


@pytest.mark.parametrize("is_flushed", [True, False])
async def test_a_name_that_is_taken_again_and_moved_on(listed: World, *, is_flushed: bool):
    """``rm f; cp new f; mv f g``: what was removed does not come back."""
    await listed.unlink("w/f")
    handle = await listed.create("w/f", b"new")
    if is_flushed:
        await listed.fs.flush(handle)
    await listed.rename("w/f", "w/g")
    assert await listed.tree("w") == {"g": b"new"}
    await listed.close(handle)
    await listed.elapse()
    assert await listed.tree("w") == {"g": b"new"}
    assert [one.name for one in listed.store.artifacts()] == ["g"]
    listed.nothing_is_left()


@pytest.mark.parametrize("how", ["mkdir", "rename"])
async def test_what_takes_the_name_otherwise_waits_for_the_removal(listed: World, how: str):
    """A directory, or another artifact, cannot be the next version: the old one is removed first."""
    await listed.put("w/g", b"other")
    await listed.elapse()
    await listed.unlink("w/f")
    if how == "mkdir":
        await listed.mkdir("w/f")
    else:
        await listed.rename("w/g", "w/f")
    assert len([one for one in listed.store.artifacts() if one.name == "f"]) == 1
    await listed.elapse()
    shown = await listed.tree("w")
    assert shown == ({"f": None, "g": b"other"} if how == "mkdir" else {"f": b"other"})
    listed.nothing_is_left()


async def test_a_workflow_is_empty_when_all_in_it_was_removed(listed: World):
    await listed.unlink("w/f")
    await listed.rmdir("w")
    assert listed.store.workflows() == []
    listed.nothing_is_left()


async def test_a_removal_outlives_a_kill(tmp_path: Path, standing_still: None):
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await world.put("w/f", b"old")
        await world.put("w/g", b"old")
        await world.elapse()
        await world.unlink("w/f")
        await world.unlink("w/g")
        await world.put("w/g", b"new")
    async with opened(tmp_path) as world:
        assert await world.tree("w") == {"g": b"new"}
        await world.elapse()
        assert await world.tree("w") == {"g": b"new"}
        assert world.versions("g") == [b"old", b"new"]
        assert [one.name for one in world.store.artifacts()] == ["g"]
        world.nothing_is_left()


async def test_rename_over_a_file_that_is_open_for_writing(world: World):
    """The new file is what was renamed there; what the old one's writer goes on writing is nobody's."""
    for is_saved in (True, False):
        await world.put("w/f", b"old")
        await world.elapse(LATER_S if is_saved else 0.1)
        await world.put("w/g", b"new")
        await world.elapse(LATER_S if is_saved else 0.1)
        handle = await world.open("w/f", WRITE)
        world.fs.write(handle, 0, b"too late")
        await world.rename("w/g", "w/f")
        assert await world.fs.read(handle, 0, 99) == b"too late"
        await world.close(handle)
        assert await world.tree("w") == {"f": b"new"}
        await world.elapse()
        assert await world.tree("w") == {"f": b"new"}
        world.nothing_is_left()
        await world.unlink("w/f")
        await world.elapse()


@pytest.mark.parametrize("how", ["remove", "rename", "replace"])
async def test_a_name_is_changed_in_the_moment_in_which_its_save_is_kept_beside(world: World, how: str):
    """It is what was saved here that goes, as if before that moment; what somebody else has saved stays."""
    await world.put("w/f", b"base")
    await world.put("w/x", b"new")
    await world.elapse()
    await world.put("w/f", b"mine")
    held = world.publisher.next(held=True)
    await world.reach(held)
    overtake(world, b"theirs")
    under_way = world.edit("f").under_way
    assert under_way is not None
    assert not under_way.statistics().tasks_waiting
    async with trio.open_nursery() as nursery:
        if how == "remove":
            nursery.start_soon(world.unlink, "w/f")
        else:
            nursery.start_soon(world.rename, *(("w/f", "w/g") if how == "rename" else ("w/x", "w/f")))
        while not under_way.statistics().tasks_waiting:  # before, it looks names up in threads
            await trio.testing.wait_all_tasks_blocked(0.002)
        held.go.set()
    await world.elapse(10)
    added = {"remove": {"x": b"new"}, "rename": {"x": b"new", "g": b"mine"}, "replace": {f"f ({MARK})": b"new"}}
    assert await world.tree("w") == {"f": b"theirs", **added[how]}
    await world.elapse(10)
    assert world.versions("f") == [b"base", b"theirs"]
    handle = await world.open("w/f", EMPTY)
    world.fs.write(handle, 0, b"next")
    if how == "replace":  # the copy is there, so that is told
        with pytest.raises(errors.Conflict):
            await world.fs.flush(handle)
    await world.close(handle)
    await world.elapse()
    assert world.versions("f") == [b"base", b"theirs", b"next"]
    world.nothing_is_left()
