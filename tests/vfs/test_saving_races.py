"""Who opens a file for writing just as its last save ends: the new save is one, whichever comes first."""

from __future__ import annotations

import copy
import itertools
import threading

import pytest
import trio
import trio.testing

from artifactfs import errors
from artifactfs.journal.drafts import Staged
from artifactfs.journal.records import Record
from artifactfs.journal.staging import Staging
from artifactfs.model.entry import DirRef, Listing
from artifactfs.providers.local.provider import LocalProvider
from artifactfs.tree.layout import Level
from artifactfs.tree.nodes import Listed, Node
from artifactfs.vfs import listings
from artifactfs.vfs.handles import Change
from artifactfs.vfs.known import Known
from tests.vfs.world import BOTH, EMPTY, World


class Changing:
    """A store that always says that something has changed."""

    def __init__(self) -> None:
        self._revisions = itertools.count()

    async def revision(self) -> int:
        return next(self._revisions)


async def pass_time(world: World) -> None:
    """Let ten seconds pass, and what can begin and go on meanwhile do so: some of it may wait for the caller."""
    for _ in range(100):
        world.clock.jump(0.1)
        await trio.testing.wait_all_tasks_blocked()
        await trio.to_thread.run_sync(threading.Event().wait, 0.002)


async def lost_save(world: World) -> None:
    """Save ``w/f`` so that the store has it, and the answer that it has is lost."""
    step = world.publisher.next(error=errors.Unavailable("no answer"), lost=True)
    await world.put("w/f", b"one")
    await world.reach(step)
    await world.settle()


@pytest.mark.parametrize("flags", [BOTH, EMPTY])
@pytest.mark.parametrize("path", ["w/t/a", "w/f"])
async def test_a_writer_who_waits_while_the_save_before_ends(grown: World, path: str, flags: int):
    """Its bytes go into what the name stands for then, not into what was just saved and is nobody's any more."""
    await grown.put(path, b"first")
    name = path.rpartition("/")[2]
    edit = grown.edit(name)
    handles: list[int] = []

    async def late() -> None:
        handles.append(await grown.open(path, flags))

    async with trio.open_nursery() as nursery, edit.lock:
        await pass_time(grown)  # the save of a file waits for the lock at its end, that of a tree does not
        nursery.start_soon(late)
        await trio.testing.wait_all_tasks_blocked()
    grown.fs.write(handles[0], 0, b"SECOND")
    await grown.close(handles[0])
    assert await grown.read(path) == b"SECOND"
    await grown.elapse(5)
    assert await grown.read(path) == b"SECOND"
    assert (grown.stored("t")["a"] if "/t/" in path else grown.versions("f")[-1]) == b"SECOND"
    grown.nothing_is_left()


async def test_a_tree_that_is_saved_while_the_bytes_of_a_file_are_copied(grown: World, monkeypatch: pytest.MonkeyPatch):
    """An appending writer: the copy takes long enough for the version to be there when it is done."""
    await grown.put("w/t/a", b"first")
    real, turns = Staging.clone, [True]

    def slow(self: Staging, staged: Staged) -> Staged:
        fresh = real(self, staged)
        if turns and turns.pop():
            trio.from_thread.run(pass_time, grown)
        return fresh

    monkeypatch.setattr(Staging, "clone", slow)
    handle = await grown.open("w/t/a", BOTH)
    assert not turns
    grown.fs.write(handle, 5, b" more")
    await grown.close(handle)
    assert await grown.read("w/t/a") == b"first more"
    await grown.elapse(5)
    assert grown.stored("t")["a"] == await grown.read("w/t/a") == b"first more"
    grown.nothing_is_left()


@pytest.mark.parametrize("is_new", [True, False])
async def test_a_save_that_becomes_due_while_another_file_takes_its_name(
    grown: World, monkeypatch: pytest.MonkeyPatch, is_new: bool
):
    """It is not begun any more: its end would look like somebody else's change to the one that takes its place."""
    if not is_new:
        await grown.put("w/f", b"zero")
        await grown.elapse(5)
    await grown.put("w/f", b"one")
    await grown.put("w/x", b"two")
    real, turns = Staging.seal, [True]

    def slow(self: Staging, staged: Staged, record: Record) -> None:
        if turns and turns.pop():
            trio.from_thread.run(pass_time, grown)
        real(self, staged, record)

    monkeypatch.setattr(Staging, "seal", slow)
    await grown.rename("w/x", "w/f")
    assert not turns
    await grown.elapse(10)
    assert await grown.names("w") == {"f", "t"}
    assert await grown.read("w/f") == b"two"
    assert grown.versions("f") == ([b"two"] if is_new else [b"zero", b"two"])
    grown.nothing_is_left()


@pytest.mark.parametrize("path", ["w/t/a", "w/f", "w/t/new"])
async def test_a_listing_beside_a_writer_shows_the_size_that_is(grown: World, path: str):
    """The kernel believes it, and appends there: with the size of a moment ago in the middle of the file."""
    await grown.put(path, b"12345")
    node = await grown.fs.getattr((await grown.look(path)).ino)
    handle = await grown.open(path, EMPTY)
    grown.fs.write(handle, 0, b"1234567890")
    opened = await grown.fs.opendir((await grown.look(path.rpartition("/")[0])).ino)
    (shown,) = [entry for _, entry, _ in grown.fs.readdir(opened) if entry.name == node.name]
    assert (grown.fs.shown_size(shown), grown.fs.shown_size(await grown.look(path))) == (10, 10)
    await grown.fs.release(opened)
    await grown.close(handle)


def hold_a_list(monkeypatch: pytest.MonkeyPatch) -> tuple[trio.Event, trio.Event]:
    """Have the next list of a workflow answered, and not given; return what is set then, and what lets it go."""
    held, go, real = trio.Event(), trio.Event(), LocalProvider.list

    async def slow(provider: LocalProvider, ref: DirRef, cursor: str | None) -> Listing:
        listing = await real(provider, ref, cursor)
        if ref.args and not held.is_set():
            held.set()
            await go.wait()
        return listing

    monkeypatch.setattr(LocalProvider, "list", slow)
    monkeypatch.setattr(LocalProvider, "revision", Changing().revision)  # or nobody would ask
    return held, go


@pytest.mark.parametrize("how", ["remove", "save", "make"])
async def test_a_listing_from_before_a_change_is_not_shown_after_it(
    world: World, monkeypatch: pytest.MonkeyPatch, how: str
):
    """Asked for before, answered after our change is at the service and nothing here stands over it any more."""
    await world.put("w/f", b"old")
    await world.put("w/other", b"other")
    await world.elapse(5)
    if how == "remove":
        await world.unlink("w/f")
    else:
        await world.put("w/f" if how == "save" else "w/new", b"new")
    place = (await world.look("w")).directory
    assert isinstance(place, Listed)
    world.fs.directories.listings.own.forget(place.ref)  # who looks now has to wait for it
    held, go = hold_a_list(monkeypatch)
    shown: list[object] = []

    async def look() -> None:
        shown.append(await world.tree("w"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        with trio.fail_after(3600):
            await held.wait()
        await pass_time(world)
        assert world.publisher.calls[-1] == {"remove": "remove", "save": "save_file", "make": "create_file"}[how]
        go.set()
    expected = {"f": b"old", "other": b"other"}
    expected.update({"save": {"f": b"new"}, "make": {"new": b"new"}, "remove": {}}[how])
    if how == "remove":
        del expected["f"]
    assert shown == [expected]
    assert await world.tree("w") == expected


async def test_a_listing_that_came_too_late_gives_way_to_the_one_that_is_known(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """Asked for before two changes of ours, between which somebody else has asked: theirs has both."""
    await world.put("w/f", b"old")
    await world.elapse(5)
    await world.tree("w")
    await world.elapse(5)  # longer than the listing is believed
    held, go = hold_a_list(monkeypatch)
    monkeypatch.setattr(listings, "TRIES", 1)
    monkeypatch.setattr(listings, "GRACE_S", 3600.0)
    place = (await world.look("w")).directory
    assert isinstance(place, Listed)
    point = world.fs.directories.listings
    shown: list[Known | None] = []

    async def look() -> None:
        shown.append(await point.again(place.ref))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await held.wait()
        artifact = world.artifact("f")
        point.own.changes[place.ref] += 1  # of something else
        await point.again(place.ref)
        known = point.peek(place.ref)
        assert known is not None
        listed = known.levels[()].children["f"].artifact
        assert listed is not None
        assert listed.id == artifact.id
        point.own.remove(place, listed)
        go.set()
    (found,) = shown
    assert found is not None
    assert "f" not in found.levels[()].children


@pytest.mark.parametrize("flags", [BOTH, EMPTY])
async def test_a_file_made_again_while_its_removal_fails_and_written_to_while_it_is_saved(grown: World, flags: int):
    """The removal that became unnecessary is forgotten with the first of its saves: a kill would carry it out."""
    await grown.put("w/f", b"zero")
    await grown.elapse(5)
    removal = grown.publisher.next(held=True, error=errors.Unavailable("not now"), only="f")
    save = grown.publisher.next(held=True, only="f")
    await grown.unlink("w/f")
    await grown.reach(removal)
    await grown.put("w/f", b"one")
    await pass_time(grown)  # its save is due, and waits for what becomes of the removal
    removal.go.set()
    await grown.reach(save)
    handle = await grown.open("w/f", flags)
    grown.fs.write(handle, 0, b"two")
    save.go.set()
    await grown.settle()
    await grown.close(handle)
    await grown.elapse(10)
    assert await grown.read("w/f") == b"two"
    assert grown.versions("f") == [b"zero", b"one", b"two"]
    grown.nothing_is_left()


@pytest.mark.parametrize("how", ["remove", "rename"])
async def test_names_that_change_while_a_directory_is_read_are_marked(grown: World, how: str):
    """What is read of them is from before; who begins again reads what is."""

    def rest(handle: int) -> dict[str, bool]:
        return {node.name: is_sure for _, node, is_sure in grown.fs.readdir(handle)}

    opened, other = [await grown.fs.opendir((await grown.look(path)).ino) for path in ("w/t", "w/t/d")]
    await grown.fs.begin(opened)
    assert rest(opened) == {"a": True, "b": True, "d": True}
    await (grown.unlink("w/t/a") if how == "remove" else grown.rename("w/t/b", "w/t/a"))
    left = {"b", "d"} if how == "remove" else {"a", "d"}
    assert rest(opened) == dict.fromkeys(left, False)
    assert rest(other) == {"c": True, "e": True}
    await grown.fs.begin(opened)
    assert rest(opened) == dict.fromkeys(left, True)
    for handle in (opened, other):
        await grown.fs.release(handle)


@pytest.mark.parametrize("path", ["w/t/a", "w/f"])
@pytest.mark.parametrize("how", ["remove", "create", "rename"])
async def test_names_whose_change_is_published_while_a_directory_is_opened(
    grown: World, monkeypatch: pytest.MonkeyPatch, path: str, how: str
):
    """What the listing said before the change is not mixed with what is left of the change after it."""
    other = f"{path.rpartition('/')[0]}/other"
    await grown.put("w/f", b"zero")
    await grown.elapse(5)
    match how:
        case "remove":
            await grown.unlink(path)
        case "create":
            await grown.put(other, b"new")
        case _:
            await grown.rename(path, other)
    directories = grown.fs.directories
    real, turns = directories.children, [True]

    async def slow(node: Node) -> Level:
        level = copy.deepcopy(await real(node))
        if turns and node.name == path.split("/")[-2]:
            turns.pop()
            await grown.elapse(15)
        return level

    monkeypatch.setattr(directories, "children", slow)
    shown = await grown.names(path.rpartition("/")[0])
    assert not turns
    assert (path.rpartition("/")[2] in shown, "other" in shown) == (how == "create", how != "remove")
    grown.nothing_is_left()


async def test_a_file_whose_save_failed_is_removed_made_again_and_removed(grown: World):
    """What goes on with the save of before is of the artifact of before, and can be removed as that can."""
    await grown.put("w/f", b"zero")
    await grown.elapse(5)
    await lost_save(grown)
    await grown.unlink("w/f")
    await grown.put("w/f", b"two")
    await grown.unlink("w/f")
    assert "f" not in await grown.names("w")
    await grown.elapse(10)
    assert "f" not in await grown.names("w")
    assert grown.artifact("f", deleted=True).deleted
    grown.nothing_is_left()


@pytest.mark.parametrize("is_new", [True, False])
async def test_the_x_bit_of_a_file_is_set_after_the_answer_to_its_save_was_lost(grown: World, is_new: bool):
    """What the lost answer was of is ours."""
    if not is_new:
        await grown.put("w/f", b"zero")
        await grown.elapse(5)
    await lost_save(grown)
    await grown.fs.setattr((await grown.look("w/f")).ino, Change(executable=True), None)
    await grown.elapse(10)
    assert await grown.names("w") == {"t", "f"}
    newest = grown.store.version(grown.artifact("f").id, grown.artifact("f").current)
    assert newest is not None
    assert (newest.executable, grown.versions("f")[-1]) == (True, b"one")
    grown.nothing_is_left()


@pytest.mark.parametrize("path", ["w/f", "w/t/a"])
async def test_the_x_bit_of_a_file_is_set_while_somebody_opens_it_and_writes_nothing(grown: World, path: str):
    """What was written since the save that is under way is what the file holds: who closes it takes none back."""
    await grown.put(path, b"one")
    step = grown.publisher.next(held=True)
    await grown.reach(step)
    await grown.put(path, b"two")
    ino, edit, handles = (await grown.look(path)).ino, grown.edit(path[-1]), list[int]()

    async def open_it() -> None:
        handles.append((await grown.fs.open(ino, BOTH)).handle)

    async with trio.open_nursery() as nursery, edit.lock:
        nursery.start_soon(open_it)
        await grown.settle()
        nursery.start_soon(grown.fs.setattr, ino, Change(executable=True), None)
        await grown.settle()
    await grown.close(*handles)
    assert await grown.read(path) == b"two"
    step.go.set()
    await grown.elapse(10)
    assert await grown.read(path) == b"two"
    assert (grown.versions("f")[-1] if path == "w/f" else grown.stored("t")["a"]) == b"two"
    assert (await grown.look(path)).executable
    grown.nothing_is_left()


@pytest.mark.parametrize("write_through", [False, True])
async def test_a_file_made_again_is_saved_while_somebody_opens_it_and_writes_nothing(grown: World, write_through: bool):
    """It stands over the one that was removed only until it is saved: its end is not that removal once more."""
    grown.fs.writer.sealing.policy.write_through = write_through
    await grown.unlink("w/t/a")
    save = grown.publisher.next(held=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(grown.put, "w/t/a", b"again")
        await grown.reach(save)
        handle = await grown.open("w/t/a", BOTH)
        save.go.set()
    await grown.settle()
    await grown.close(handle)
    assert await grown.read("w/t/a") == b"again"
    await grown.elapse(10)
    assert await grown.read("w/t/a") == grown.stored("t")["a"] == b"again"
    grown.nothing_is_left()


@pytest.mark.parametrize("path", ["w/f", "w/t/a"])
async def test_a_file_is_written_to_while_another_writer_has_it_published(
    grown: World, monkeypatch: pytest.MonkeyPatch, path: str
):
    """What is published is a copy, or is not written to any more: nothing falls between the two."""
    grown.fs.writer.sealing.policy.write_through = True
    first = await (grown.create(path, b"one") if path == "w/f" else grown.open(path, EMPTY))
    second, real, turns = await grown.open(path, BOTH), Staging.clone, [True]

    def slow(home: Staging, staged: Staged) -> Staged:
        fresh = real(home, staged)
        if turns and turns.pop():
            trio.from_thread.run_sync(grown.fs.write, second, 3, b" more")
        return fresh

    grown.fs.write(first, 0, b"one")
    monkeypatch.setattr(Staging, "clone", slow)
    await grown.fs.flush(first)
    assert not turns
    assert await grown.read(path) == b"one more"
    await grown.close(second)
    await grown.close(first)
    await grown.elapse(5)
    assert await grown.read(path) == b"one more"
    assert (grown.versions("f")[-1] if path == "w/f" else grown.stored("t")["a"]) == b"one more"
    grown.nothing_is_left()
