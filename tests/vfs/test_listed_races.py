"""What storms of programs on files beside each other have found, one at a time and on purpose."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from artifactfs import errors
from artifactfs.journal.drafts import Staged
from artifactfs.journal.staging import Staging
from artifactfs.vfs.beginning import Beginner
from artifactfs.vfs.lineage import Lineage
from artifactfs.vfs.namespace import Namespace
from artifactfs.vfs.removing import Remover
from artifactfs.vfs.sealing import Sealing
from artifactfs.vfs.writing import Writer
from tests.vfs.test_saving_races import lost_save, pass_time
from tests.vfs.world import BEGAN, BOTH, EMPTY, READ, World


def meanwhile(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, begin: Callable[[], Awaitable[None]]
) -> list[bool]:
    """Have something begun, and go as far as it can, before the next call of a method; say if not yet."""
    real, turns = getattr(owner, name), [True]

    async def slow(*args: Any, **more: Any) -> Any:
        if turns and turns.pop():
            await begin()
        return await real(*args, **more)

    monkeypatch.setattr(owner, name, slow)
    return turns


@pytest.mark.parametrize("is_written_again", [False, True])
async def test_a_file_is_renamed_over_one_that_says_the_same(grown: World, is_written_again: bool):
    """Nothing need be saved, and the inode that the kernel has under the name holds what it held."""
    await grown.put("w/f", b"same")
    await grown.elapse(5)
    await grown.put("w/x", b"same")
    await grown.rename("w/x", "w/f")
    ino = (await grown.look("w/f")).ino
    await grown.elapse(5)
    assert (await grown.look("w/f")).ino == ino
    handle = (await grown.fs.open(ino, READ)).handle
    assert await grown.fs.read(handle, 0, 100) == b"same"
    await grown.fs.release(handle)
    if is_written_again:
        handle = (await grown.fs.open(ino, BOTH)).handle
        grown.fs.write(handle, 4, b" and more")
        await grown.close(handle)
        await grown.elapse(5)
        assert grown.versions("f") == [b"same", b"same and more"]
    else:
        assert grown.versions("f") == [b"same"]
    grown.nothing_is_left()


async def test_a_file_is_flushed_while_another_one_takes_its_name(grown: World, monkeypatch: pytest.MonkeyPatch):
    """The name stands for the other one from then on, whichever is durable last."""
    await grown.put("w/f", b"zero")
    await grown.elapse(5)
    await grown.unlink("w/f")
    handle = await grown.create("w/f", b"one")
    await grown.put("w/x", b"two")
    ino = (await grown.look("w/x")).ino
    async with trio.open_nursery() as nursery:

        async def flush() -> None:
            nursery.start_soon(grown.fs.flush, handle)
            await pass_time(grown)

        turns = meanwhile(monkeypatch, Sealing, "_settle_removal", flush)
        await grown.rename("w/x", "w/f")
    assert not turns
    assert (await grown.look("w/f")).ino == ino
    await grown.close(handle)
    await grown.elapse(5)
    assert (await grown.look("w/f")).ino == ino
    assert grown.versions("f") == [b"zero", b"two"]
    grown.nothing_is_left()


async def test_a_new_file_of_a_tree_leaves_it_while_the_version_that_has_it_is_made(grown: World):
    """It is on its way to the service, so it is copied and removed like any other: its bytes are not taken away."""
    await grown.put("w/t/new", b"new")
    step = grown.publisher.next(held=True)
    await grown.reach(step)
    with pytest.raises(errors.CrossesArtifacts):
        await grown.rename("w/t/new", "w/f")
    await grown.put("w/f", await grown.read("w/t/new"))
    await grown.unlink("w/t/new")
    await pass_time(grown)
    step.go.set()
    await grown.settle()
    assert not grown.reports
    await grown.elapse(5)
    assert "new" not in grown.stored("t")
    assert grown.versions("f") == [b"new"]
    grown.nothing_is_left()


class Renames:
    """What renames at the store can be told to do before they begin, and before they answer."""

    def __init__(self, world: World) -> None:
        self._real = world.publisher.real.rename
        self.before: list[Callable[[], Awaitable[None]]] = []
        self.after: list[Callable[[], Awaitable[None]]] = []
        world.publisher.rename = self._rename  # type: ignore[attr-defined]

    async def _rename(self, *args: Any) -> Any:
        for one in self.before:
            await one()
        answer = await self._real(*args)
        for one in self.after:
            await one()
        return answer


async def saved_twice(grown: World) -> None:
    """Have a file of which a save was refused; it is tried again, and the one behind it will be refused, too."""
    await grown.put("w/f", b"zero")
    await grown.elapse(5)
    step = grown.publisher.next(error=errors.Unavailable("not now"))
    await grown.put("w/f", b"one")
    await grown.reach(step)
    await grown.settle()
    handle = await grown.open("w/f", EMPTY)
    grown.fs.write(handle, 0, b"two")
    await grown.close(handle)
    grown.publisher.next()
    for _ in range(10):
        grown.publisher.next(error=errors.Unavailable("not now"))


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_file_is_saved_while_its_service_renames_it(grown: World, when: str):
    """What the rename answers is not of before a save: the next one would find somebody else's change, our own."""
    await saved_twice(grown)
    renames = Renames(grown)
    getattr(renames, when).append(partial(pass_time, grown))
    await grown.rename("w/f", "w/g")
    grown.publisher.plan.clear()
    await grown.elapse(100)
    assert await grown.names("w") == {"t", "g"}
    assert grown.versions("g") == [b"zero", b"one", b"two"]
    grown.nothing_is_left()


async def test_a_file_is_renamed_at_its_service_just_as_it_is_saved(grown: World, monkeypatch: pytest.MonkeyPatch):
    """The rename waits for that save, and is of what it made."""
    await grown.put("w/f", b"zero")
    await grown.elapse(5)
    await grown.put("w/f", b"one")
    step = grown.publisher.next(held=True)

    async def end() -> None:
        await pass_time(grown)
        step.go.set()

    async def begin() -> None:
        await grown.reach(step)
        nursery.start_soon(end)

    turns = meanwhile(monkeypatch, Namespace, "free", begin)
    async with trio.open_nursery() as nursery:
        await grown.rename("w/f", "w/g")
    assert not turns
    await grown.put("w/g", b"two")
    await grown.elapse(5)
    assert grown.versions("g") == [b"zero", b"one", b"two"]
    assert await grown.names("w") == {"t", "g"}
    grown.nothing_is_left()


async def test_a_file_is_renamed_at_its_service_while_it_is_being_opened(grown: World, monkeypatch: pytest.MonkeyPatch):
    """What is saved then is the next version of what has the new name: some services would give it the old one back."""
    await grown.put("w/f", b"zero")
    await grown.elapse(5)
    ino = (await grown.look("w/f")).ino

    async def rename() -> None:
        await grown.rename("w/f", "w/g")

    turns = meanwhile(monkeypatch, Beginner, "fill", rename)
    handle = (await grown.fs.open(ino, BOTH)).handle
    assert not turns
    (edit,) = grown.overlay.edits.values()
    assert edit.base == edit.node.artifact
    assert edit.base is not None
    assert edit.base.path == ("g",)
    grown.fs.write(handle, 0, b"ONE")
    await grown.close(handle)
    await grown.elapse(5)
    assert grown.versions("g") == [b"zero", b"ONEo"]
    grown.nothing_is_left()


async def test_a_file_is_renamed_over_another_one_while_it_is_saved(grown: World, monkeypatch: pytest.MonkeyPatch):
    """The version that was made a moment ago is ours, and goes with the old name."""
    await grown.put("w/g", b"old")
    await saved_twice(grown)
    ino, handles = (await grown.look("w/f")).ino, list[int]()

    async def save() -> None:
        await grown.reach(grown.publisher.plan[0])
        handles.append((await grown.fs.open(ino, BOTH)).handle)
        await grown.settle()

    meanwhile(monkeypatch, Writer, "begin", save)
    await grown.rename("w/f", "w/g")
    grown.publisher.plan.clear()
    await grown.close(*handles)
    await grown.elapse(100)
    assert await grown.names("w") == {"t", "g"}
    # Where time has passed, the newest was tried under the old name, too: that is found out then, and removed.
    assert grown.versions("f")[:2] == [b"zero", b"one"]
    assert grown.versions("g") == [b"old", b"two"]
    grown.nothing_is_left()


@pytest.mark.parametrize("is_open", [True, False])
@pytest.mark.parametrize("over", ["nothing", "a file", "a save whose answer was lost"])
async def test_a_file_leaves_a_tree_after_its_version_failed_and_it_was_written_again(
    grown: World, over: str, is_open: bool
):
    """What the tree had of it is of no use any more: nothing of it is saved elsewhere, or left."""
    step = grown.publisher.next(held=True, error=errors.Unavailable("no answer"), lost=True)
    await grown.put("w/t/new", b"one")
    await grown.reach(step)
    handle = await grown.open("w/t/new", EMPTY)
    if over != "nothing":
        if over != "a file":
            grown.publisher.next(error=errors.Unavailable("no answer"), lost=True, only="f")
        await grown.put("w/f", b"zero")
        await grown.elapse(3)
    step.go.set()
    await grown.settle()
    grown.fs.write(handle, 0, b"two")
    if not is_open:
        await grown.close(handle)
    await grown.rename("w/t/new", "w/f")
    if is_open:
        await grown.close(handle)
    await grown.elapse(100)
    assert await grown.read("w/f") == b"two"
    assert grown.versions("f") == ([b"two"] if over == "nothing" else [b"zero", b"two"])
    assert "new" not in grown.stored("t")
    grown.nothing_is_left()


async def test_a_file_is_flushed_while_it_leaves_a_tree(grown: World, monkeypatch: pytest.MonkeyPatch):
    """It is not shown where it was any more, whichever is durable last."""
    handle, real = await grown.create("w/t/new", b"one"), Remover.vacate

    async def slow(remover: Remover, *args: Any) -> None:
        await real(remover, *args)
        nursery.start_soon(grown.fs.flush, handle)
        await pass_time(grown)

    monkeypatch.setattr(Remover, "vacate", slow)
    async with trio.open_nursery() as nursery:
        await grown.rename("w/t/new", "w/f")
    assert "new" not in await grown.names("w/t")
    await grown.close(handle)
    await grown.elapse(5)
    assert grown.versions("f") == [b"one"]
    assert "new" not in await grown.names("w/t")
    grown.nothing_is_left()


async def test_a_file_is_removed_while_it_is_opened_for_writing(grown: World, monkeypatch: pytest.MonkeyPatch):
    """Who opens it is told that it is gone, not that its bytes cannot be read."""
    await lost_save(grown)
    ino, real, told = (await grown.look("w/f")).ino, Staging.clone, list[errors.StaleContent]()

    def slow(home: Staging, staged: Staged) -> Staged:
        trio.from_thread.run(pass_time, grown)
        return real(home, staged)

    async def open_it() -> None:
        with pytest.raises(errors.StaleContent) as caught:
            await grown.fs.open(ino, BOTH)
        told.append(caught.value)

    async def begin() -> None:
        nursery.start_soon(open_it)
        await trio.testing.wait_all_tasks_blocked()

    monkeypatch.setattr(Staging, "clone", slow)
    meanwhile(monkeypatch, Lineage, "doom", begin)
    async with trio.open_nursery() as nursery:
        await grown.unlink("w/f")
    assert len(told) == 1
    await grown.elapse(20)
    assert await grown.names("w") == {"t"}
    grown.nothing_is_left()


@pytest.mark.parametrize("how", ["unlink", "rename"])
@pytest.mark.parametrize("path", ["w/f", "w/t/new"])
@pytest.mark.parametrize("is_new", [True, False])
async def test_a_file_goes_between_being_looked_up_and_being_opened(grown: World, is_new: bool, path: str, how: str):
    """Who opens it is sent back to look it up again: what it held is nowhere any more, and it was never empty."""
    if not is_new:
        await grown.put(path, b"one")
        await grown.elapse(5)
    await grown.put(path, b"two")
    ino = (await grown.look(path)).ino
    other = f"{path}x"
    await grown.put(other, b"three")
    await (grown.unlink(path) if how == "unlink" else grown.rename(other, path))
    for flags in (READ, BOTH):
        with pytest.raises(errors.StaleContent):
            await grown.fs.open(ino, flags)
    if how == "unlink":
        await grown.unlink(other)
    await grown.elapse(5)
    grown.nothing_is_left()


@pytest.mark.parametrize("is_saved", [True, False])
async def test_a_removed_file_that_somebody_has_open_is_opened_once_more(grown: World, is_saved: bool):
    """As through ``/proc/self/fd``: it is what it was."""
    await grown.put("w/f", b"one")
    if is_saved:
        await grown.elapse(5)
    ino, handle = (await grown.look("w/f")).ino, await grown.open("w/f", READ)
    await grown.unlink("w/f")
    again = (await grown.fs.open(ino, READ)).handle
    assert await grown.fs.read(again, 0, 100) == b"one"
    for one in (handle, again):
        await grown.fs.release(one)
    await grown.elapse(5)
    grown.nothing_is_left()


@pytest.mark.parametrize("is_removed_in_vain", [False, True])
async def test_a_file_is_renamed_over_a_new_one_in_the_place_of_a_removed_one(grown: World, is_removed_in_vain: bool):
    """What it held under its old name says nothing of what the removed one held: it is saved there."""
    for name in ("f", "g"):
        await grown.put(f"w/{name}", name.encode())
    await grown.elapse(5)
    if is_removed_in_vain:
        lost = grown.publisher.next(error=errors.Unavailable("no answer"), lost=True, held=True)
        await grown.unlink("w/f")
        await grown.reach(lost)
        handle = await grown.create("w/f")
        lost.go.set()
        await grown.settle()
    else:
        await grown.unlink("w/f")
        handle = await grown.create("w/f")
    await grown.rename("w/g", "w/f")
    await grown.close(handle)
    await grown.elapse(20)
    assert await grown.tree("w") == {**{f"t/{path}": held for path, held in BEGAN.items()}, "t": None, "f": b"g"}
    assert grown.versions("f") == [b"f", b"g"]
    assert not grown.artifact("f").deleted
    grown.nothing_is_left()


async def test_a_save_ends_while_who_opened_the_file_meanwhile_closes_it(grown: World, monkeypatch: pytest.MonkeyPatch):
    """Who wrote nothing has nothing to publish then."""
    await grown.put("w/f", b"one")
    step, real, turns = grown.publisher.next(held=True), Staging.discard, [True]
    await grown.reach(step)
    handle = await grown.open("w/f", BOTH)

    def slow(home: Staging, staged: Staged) -> None:
        if turns and turns.pop():
            trio.from_thread.run_sync(step.go.set)
            trio.from_thread.run(pass_time, grown)
        real(home, staged)

    monkeypatch.setattr(Staging, "discard", slow)
    await grown.close(handle)
    assert not turns
    await grown.elapse(5)
    assert grown.versions("f") == [b"one"]
    grown.nothing_is_left()


async def test_a_file_is_renamed_twice_at_once(grown: World):
    """A program that was killed in its rename, and the next one: neither takes what the other holds."""
    await grown.put("w/f", b"one")
    await grown.elapse(5)
    node = await grown.look("w/f")
    namespace, steps = grown.fs.namespace, list[str]()

    async def second() -> None:
        async with namespace.unsaved(node):
            steps.append("second")

    async with trio.open_nursery() as nursery, namespace.unsaved(node):
        nursery.start_soon(second)
        await grown.settle()
        steps.append("first")
    assert steps == ["first", "second"]
    assert not grown.fs.writer.unsaved
