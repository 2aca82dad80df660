"""What is opened, written and moved in a tree at the same time: nothing is lost, and nothing is left."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from artifactfs import errors
from artifactfs.journal.drafts import Staged
from artifactfs.journal.staging import Staging
from artifactfs.vfs.beginning import Beginner
from artifactfs.vfs.handles import Change
from tests.vfs.test_saving_races import pass_time
from tests.vfs.world import BEGAN, BOTH, EMPTY, World, grow, opened

MOVES = pytest.mark.parametrize(
    ("old", "new", "path"), [("w/t/a", "w/t/x", "x"), ("w/t/d", "w/t/x", "x/c")], ids=["file", "directory"]
)


def moved(path: str) -> dict[str, bytes | None]:
    """Return the tree after one of the moves."""
    if path == "x":
        return {"x" if name == "a" else name: content for name, content in BEGAN.items()}
    return {f"x{name.removeprefix('d')}" if name.startswith("d") else name: BEGAN[name] for name in BEGAN}


@MOVES
async def test_what_was_moved_is_opened_for_writing_and_nothing_is_written(grown: World, old: str, new: str, path: str):
    """It stays where it was moved to: `mv a b; touch b` opens and closes it."""
    await grown.rename(old, new)
    await grown.close(await grown.open(f"w/t/{path}", BOTH))
    assert await grown.tree("w/t") == moved(path)
    await grown.elapse(10)
    assert await grown.tree("w/t") == grown.stored("t") == moved(path)
    grown.nothing_is_left()


@MOVES
async def test_what_is_open_for_writing_is_moved_and_nothing_is_written(grown: World, old: str, new: str, path: str):
    """Its version has it under its new name while it is open, and it stays there when it is closed."""
    handle = await grown.open(f"w/t/{'a' if path == 'x' else 'd/c'}", BOTH)
    await grown.rename(old, new)
    await grown.elapse(5)
    assert await grown.tree("w/t") == grown.stored("t") == moved(path)
    await grown.close(handle)
    await grown.elapse(5)
    assert await grown.tree("w/t") == grown.stored("t") == moved(path)
    grown.nothing_is_left()


@MOVES
async def test_what_is_open_for_writing_is_moved_and_then_comes_a_kill(
    tmp_path: Path, standing_still: None, old: str, new: str, path: str
):
    """It has its new name: it was told so."""
    async with opened(tmp_path, publishing=True) as world:
        await world.mkdir("w")
        await grow(world)
        world.stop_publishing()
        await world.open(f"w/t/{'a' if path == 'x' else 'd/c'}", BOTH)
        await world.rename(old, new)
    async with opened(tmp_path) as world:
        await world.elapse(5)
        assert await world.tree("w/t") == world.stored("t") == moved(path)


async def test_what_was_moved_is_written_while_its_version_is_made(grown: World):
    """What is written then goes into the version after."""
    step = grown.publisher.next(held=True)
    await grown.rename("w/t/a", "w/t/x")
    await grown.reach(step)
    await grown.put("w/t/x", b"new")
    step.go.set()
    await grown.elapse(10)
    assert (await grown.read("w/t/x"), grown.stored("t")["x"]) == (b"new", b"new")
    grown.nothing_is_left()


async def test_a_file_is_saved_twice_and_opened_while_the_version_of_its_old_name_is_made(grown: World):
    """Of what waits under its new name the newest acknowledged bytes are kept, and no others are left behind."""
    await grown.put("w/t/a", b"one")
    step = grown.publisher.next(held=True)
    await grown.reach(step)
    await grown.put("w/t/a", b"two")
    await grown.rename("w/t/a", "w/t/x")
    handle = await grown.open("w/t/x", BOTH)
    step.go.set()
    await grown.elapse(5)
    await grown.close(handle)
    await grown.elapse(10)
    assert (await grown.read("w/t/x"), grown.stored("t")["x"]) == (b"two", b"two")
    grown.nothing_is_left()
    assert grown.home.used_bytes == 0


async def test_a_file_is_removed_whose_failed_bytes_are_not_in_the_version_that_is_being_made(grown: World):
    """They are deleted with it: nobody else would."""
    failed = grown.publisher.next(error=errors.Unavailable("no answer"), held=True)
    await grown.put("w/t/a", b"one")
    await grown.reach(failed)
    handle = await grown.open("w/t/a", EMPTY)
    grown.fs.write(handle, 0, b"two")
    failed.go.set()
    await grown.settle()
    step = grown.publisher.next(held=True)
    await grown.put("w/t/b", b"new")
    await grown.reach(step)
    await grown.close(handle)
    await grown.unlink("w/t/a")
    step.go.set()
    await grown.elapse(10)
    assert "a" not in grown.stored("t")
    grown.nothing_is_left()
    assert grown.home.used_bytes == 0


async def test_a_file_is_removed_and_cut_while_the_version_that_has_it_is_made(grown: World):
    """Who cuts it had looked it up before; nothing of it stays."""
    await grown.put("w/t/a", b"one")
    step = grown.publisher.next(held=True)
    await grown.reach(step)
    node = await grown.look("w/t/a")
    await grown.unlink("w/t/a")
    await grown.fs.setattr(node.ino, Change(size=1), None)
    step.go.set()
    await grown.elapse(10)
    assert "a" not in grown.stored("t")
    grown.nothing_is_left()
    assert grown.home.used_bytes == 0


@pytest.mark.parametrize("what", ["rename", "remove", "replace"])
async def test_a_file_is_moved_or_removed_while_it_is_being_opened(
    grown: World, monkeypatch: pytest.MonkeyPatch, what: str
):
    """What is written then is not shown, nor published, under the name that is another file's now."""
    real, turns = Beginner.fill, [True]

    async def slow(self: Beginner, edit: object, content: object, *, copy: bool) -> None:
        await real(self, edit, content, copy=copy)  # type: ignore[arg-type]  # as they come
        if not turns:
            return
        turns.pop()
        if what == "rename":
            await grown.rename("w/t/a", "w/t/x")
        else:
            await grown.unlink("w/t/a")
        if what != "remove":
            await grown.put("w/t/a", b"another")

    monkeypatch.setattr(Beginner, "fill", slow)
    if what == "rename":
        handle = await grown.open("w/t/a", BOTH)
        grown.fs.write(handle, 0, b"X")
        await grown.close(handle)
    else:
        with pytest.raises(errors.StaleContent):  # the kernel looks the name up once more
            await grown.open("w/t/a", BOTH)
    await grown.elapse(10)
    wanted = {"rename": {"a": b"another", "x": b"X"}, "remove": {}, "replace": {"a": b"another"}}[what]
    assert {name: found for name, found in (await grown.tree("w/t")).items() if name in {"a", "x"}} == wanted
    assert {name: found for name, found in grown.stored("t").items() if name in {"a", "x"}} == wanted
    grown.nothing_is_left()


async def test_a_directory_is_moved_while_a_file_in_it_is_made_durable(grown: World, monkeypatch: pytest.MonkeyPatch):
    """Its record has the new place, and what its save has made unnecessary does not come back."""
    await grown.put("w/t/d/c", b"one")
    handle = await grown.open("w/t/d/c", EMPTY)
    grown.fs.write(handle, 0, b"two")
    real, begun = Staging.seal, trio.Event()

    def slow(self: Staging, staged: Staged, record: object) -> None:
        trio.from_thread.run_sync(begun.set)
        trio.from_thread.run(pass_time, grown)
        real(self, staged, record)  # type: ignore[arg-type]  # as it comes

    monkeypatch.setattr(Staging, "seal", slow)
    grown.stop_publishing()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(grown.fs.flush, handle)
        await begun.wait()
        await grown.rename("w/t/d", "w/t/x")
    files = [record for record in grown.home.journal.load() if record.what["kind"] == "file"]
    assert [(record.what["path"], record.what["name"]) for record in files] == [("x", "c")]
    assert await grown.read("w/t/x/c") == b"two"


async def test_a_file_that_was_published_in_the_same_moment_is_opened_anew(grown: World):
    """Who waited for it does not copy bytes that are not there any more."""
    await grown.put("w/f", b"zero")
    step = grown.publisher.next(held_after=True)
    await grown.reach(step)
    edit, handles = grown.edit("f"), list[int]()

    async def late() -> None:
        handles.append(await grown.open("w/f", BOTH))

    async with trio.open_nursery() as nursery, edit.lock:
        step.go.set()
        await pass_time(grown)  # the end of the save waits for the lock, and before who opens it
        nursery.start_soon(late)
        await trio.testing.wait_all_tasks_blocked()
    grown.fs.write(handles[0], 0, b"ONE")
    await grown.close(handles[0])
    await grown.elapse(10)
    assert grown.versions("f") == [b"zero", b"ONEo"]
    grown.nothing_is_left()


async def test_a_file_is_open_while_the_version_after_a_lost_answer_is_made(grown: World):
    """What the lost answer was of is ours: it is no change of somebody else's when the file is saved once more."""
    lost = grown.publisher.next(error=errors.Unavailable("no answer"), lost=True)
    await grown.put("w/t/a", b"one")
    await grown.reach(lost)
    await grown.settle()
    handle = await grown.open("w/t/a", BOTH)
    grown.fs.write(handle, 0, b"two")
    await grown.put("w/t/b", b"new")
    await grown.elapse(10)
    assert (grown.stored("t")["a"], grown.stored("t")["b"]) == (b"one", b"new")
    await grown.close(handle)
    await grown.elapse(10)
    assert grown.stored("t") == {**BEGAN, "a": b"two", "b": b"new"}
    grown.nothing_is_left()


async def test_a_file_that_is_moved_while_it_is_saved_leaves_its_name_to_another(grown: World):
    """Each name stands for its own file, also when the other one gets the identity that the listing gives the first."""
    await grown.put("w/t/a", b"one")
    await grown.elapse(5)
    await grown.put("w/t/a", b"two")
    await grown.rename("w/t/a", "w/t/x")
    await grown.put("w/t/a", b"one")
    await grown.put("w/t/b", b"new")
    handle = await grown.open("w/t/x", BOTH)
    await grown.elapse(5)
    assert (await grown.look("w/t/a")).ino != (await grown.look("w/t/x")).ino
    await grown.unlink("w/t/x")
    await grown.close(handle)
    await grown.elapse(5)
    assert grown.stored("t") == {**BEGAN, "a": b"one", "b": b"new"} == await grown.tree("w/t")
    grown.nothing_is_left()


async def test_a_file_is_moved_over_another_and_written_before_that_is_published(grown: World):
    """What its writer began with stood under another name: that there was something else says nothing of others."""
    await grown.rename("w/t/a", "w/t/b")
    handle = await grown.open("w/t/b", BOTH)
    grown.fs.write(handle, 0, b"X")
    await grown.close(handle)
    await grown.elapse(10)
    assert grown.stored("t") == {**{name: BEGAN[name] for name in BEGAN if name != "a"}, "b": b"X"}
    grown.nothing_is_left()


@pytest.mark.parametrize("how", ["create", "rename"])
async def test_a_new_file_takes_the_name_of_a_removed_one_and_goes_again(grown: World, how: str):
    """That the first one was removed is all that is left."""
    await grown.unlink("w/t/a")
    handle = await grown.create("w/t/a" if how == "create" else "w/t/new")
    if how == "rename":
        await grown.fs.flush(handle)
        await grown.rename("w/t/new", "w/t/a")
    edit = grown.edit("a")
    edit.staged.broken = OSError(28, "no space")
    with pytest.raises(OSError, match="no space"):
        await grown.fs.flush(handle)
    await grown.fs.release(handle)
    assert "a" not in await grown.names("w/t")
    await grown.elapse(10)
    assert "a" not in {**await grown.tree("w/t"), **grown.stored("t")}
    grown.nothing_is_left()


@pytest.mark.parametrize("is_open", [True, False])
async def test_a_directory_is_made_where_one_was_moved_away_and_the_answer_to_that_was_lost(
    grown: World, is_open: bool
):
    """It is another one: it stays, with what is made in it."""
    lost = grown.publisher.next(error=errors.Unavailable("no answer"), lost=True)
    await grown.rename("w/t/d", "w/t/x")
    await grown.reach(lost)
    await grown.settle()
    await grown.mkdir("w/t/d")
    handle = await grown.create("w/t/d/b", b"new") if is_open else None
    await grown.elapse(10)
    assert "d" in await grown.names("w/t")
    if handle is not None:
        await grown.close(handle)
        await grown.elapse(10)
    assert "d" in grown.stored("t")
    assert await grown.tree("w/t") == {**moved("x/c"), "d": None, **({"d/b": b"new"} if is_open else {})}
    grown.nothing_is_left()


async def test_three_files_of_a_tree_are_written_through_at_the_same_time(grown: World):
    """Each waits for its turn; what somebody goes on writing to is in no version before it is flushed again."""
    grown.fs.writer.sealing.policy.write_through = True
    step, handles = grown.publisher.next(held=True), list[int]()
    async with trio.open_nursery() as nursery:
        for name in ("a", "b", "c"):
            handles.append(await grown.create("w/t/new") if name == "c" else await grown.open(f"w/t/{name}", EMPTY))
            grown.fs.write(handles[-1], 0, name.encode() * 2)
            nursery.start_soon(grown.fs.flush, handles[-1])
            await trio.testing.wait_all_tasks_blocked()
        await grown.reach(step)
        step.go.set()
    for handle in handles:
        grown.fs.write(handle, 2, b"!")
        await grown.close(handle)
    await grown.elapse(5)
    expected = {**BEGAN, "a": b"aa!", "b": b"bb!", "new": b"cc!"}
    assert await grown.tree("w/t") == grown.stored("t") == expected
    grown.nothing_is_left()
