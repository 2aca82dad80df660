"""What was changed in a tree becomes one version, and the view is the same before, while and after it is made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from artifactfs import errors
from tests.vfs.world import BEGAN, BOTH, EMPTY, READ, WRITE, World, agree, count, grow, opened


async def test_many_changes_are_one_version(grown: World):
    await grown.put("w/t/a", b"A")
    await grown.put("w/t/d/n", b"new")
    await grown.unlink("w/t/b")
    await grown.mkdir("w/t/empty")
    await grown.symlink("w/t/d/l", "../a")
    await grown.rename("w/t/d/c", "w/t/c")
    before = count(grown)
    await agree(grown, {
        "a": b"A", "d": None, "d/n": b"new", "empty": None, "d/l": "../a", "c": b"d/c", "d/e": None, "d/e/f": b"d/e/f",
    })  # fmt: skip
    assert (count(grown) - before, grown.publisher.calls) == (1, ["save_tree"])


async def test_numbers_of_inodes_are_stable(grown: World):
    """Of files that were saved, renamed with their directory, or not touched at all."""
    await grown.put("w/t/a", b"A")
    await grown.rename("w/t/d", "w/t/g")
    await grown.put("w/t/new", b"new")
    paths = ("a", "b", "g", "g/c", "g/e", "g/e/f", "new")
    before = {path: (await grown.look(f"w/t/{path}")).ino for path in paths}
    held = {path: await grown.open(f"w/t/{path}", READ) for path in ("a", "b", "g/c", "new")}
    await grown.elapse(5)
    assert {path: (await grown.look(f"w/t/{path}")).ino for path in paths} == before
    for path, handle in held.items():
        assert await grown.fs.read(handle, 0, 9) == (await grown.read(f"w/t/{path}"))
        await grown.fs.release(handle)
    grown.nothing_is_left()


async def test_directories_go_over_one_another_and_back(grown: World):
    """Into each other, over an empty one, back to the old name: what the base had there does not come back."""
    await grown.rename("w/t/d/e", "w/t/e")
    await grown.rename("w/t/d", "w/t/e/d")
    await grown.mkdir("w/t/d")
    await grown.put("w/t/d/x", b"x")
    await agree(grown, {
        "a": b"a", "b": b"b", "e": None, "e/f": b"d/e/f", "e/d": None, "e/d/c": b"d/c", "d": None, "d/x": b"x",
    })  # fmt: skip
    await grown.unlink("w/t/d/x")
    await grown.rename("w/t/e/d", "w/t/d")
    await grown.rename("w/t/e", "w/t/d/e")
    await agree(grown, BEGAN)


async def test_a_directory_there_and_back_is_no_change(grown: World):
    before = count(grown)
    await grown.rename("w/t/d", "w/t/x")
    await grown.put("w/t/x/new", b"new")
    await grown.unlink("w/t/x/new")
    await grown.rename("w/t/x", "w/t/d")
    await agree(grown, BEGAN)
    assert count(grown) == before


async def test_a_directory_that_is_made_again_hides_what_was_in_it(grown: World):
    for path in ("d/e/f", "d/c"):
        await grown.unlink(f"w/t/{path}")
    for path in ("d/e", "d"):
        await grown.rmdir(f"w/t/{path}")
    await grown.mkdir("w/t/d")
    await agree(grown, {"a": b"a", "b": b"b", "d": None})
    await grown.mkdir("w/t/d/e")
    await grown.put("w/t/d/e/f", b"again")
    await agree(grown, {"a": b"a", "b": b"b", "d": None, "d/e": None, "d/e/f": b"again"})


async def test_a_file_in_place_of_a_directory_and_the_reverse(grown: World):
    await grown.unlink("w/t/a")
    await grown.mkdir("w/t/a")
    await grown.put("w/t/a/b", b"below")
    for path in ("d/e/f", "d/c"):
        await grown.unlink(f"w/t/{path}")
    for path in ("d/e", "d"):
        await grown.rmdir(f"w/t/{path}")
    await grown.put("w/t/d", b"file")
    await agree(grown, {"a": None, "a/b": b"below", "b": b"b", "d": b"file"})


async def test_what_is_open_comes_with_the_next_version(grown: World):
    """It is left out, as it was before, not half written; a sealed one, too."""
    handle = await grown.open("w/t/a", BOTH)
    grown.fs.write(handle, 1, b"...")
    await grown.fs.flush(handle)
    new = await grown.create("w/t/new", b"not done")
    await grown.put("w/t/b", b"B")
    await grown.elapse(5)
    assert grown.stored("t") == {**BEGAN, "b": b"B"}
    assert await grown.tree("w/t") == {**BEGAN, "a": b"a...", "b": b"B", "new": b"not done"}
    await grown.close(handle)
    await grown.close(new)
    await agree(grown, {**BEGAN, "a": b"a...", "b": b"B", "new": b"not done"})


Change = Callable[[World], Awaitable[None]]


CHANGES = pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda world: world.unlink("w/t/a"), {"a": None}),
        (lambda world: world.rename("w/t/a", "w/t/z"), {"a": None, "z": b"A"}),
        (lambda world: world.put("w/t/a", b"AA"), {"a": b"AA"}),
        (lambda world: world.put("w/t/z", b"z"), {"a": b"A", "z": b"z"}),
        (lambda world: world.unlink("w/t/n/x"), {"a": b"A", "n/x": None}),
        (lambda world: world.unlink("w/t/n/l"), {"a": b"A", "n/l": None}),
        (lambda world: world.rmdir("w/t/n/e"), {"a": b"A", "n/e": None}),
        (
            lambda world: world.rename("w/t/n", "w/t/m"),
            {
                "a": b"A", "m": ..., "m/e": ..., "m/x": b"x", "m/l": "x",
                "n": None, "n/e": None, "n/x": None, "n/l": None,
            },
        ),
        (lambda world: world.rename("w/t/b", "w/t/a"), {"a": b"b", "b": None}),
        (lambda world: world.rename("w/t/a", "w/t/n/x"), {"a": None, "n/x": b"A"}),
        (lambda world: world.rename("w/t/n/l", "w/t/l"), {"a": b"A", "n/l": None, "l": "x"}),
        (lambda world: world.rename("w/t/n/e", "w/t/e"), {"a": b"A", "n/e": None, "e": ...}),
        (lambda world: world.unlink("w/t/d/y"), {"a": b"A", "d/y": None}),
        (lambda world: world.unlink("w/t/s"), {"a": b"A", "s": None}),
        (lambda world: world.rmdir("w/t/k"), {"a": b"A", "k": None}),
        (lambda world: world.rename("w/t/d/y", "w/t/y"), {"a": b"A", "d/y": None, "y": b"y"}),
        (lambda world: world.rename("w/t/s", "w/t/d/s"), {"a": b"A", "s": None, "d/s": "x"}),
        (lambda world: world.rename("w/t/k", "w/t/d/k"), {"a": b"A", "k": None, "d/k": ...}),
    ],
)  # fmt: skip


async def changed(world: World) -> None:
    """Change a tree, so that a version of it will be made."""
    await world.put("w/t/a", b"A")
    await world.mkdir("w/t/n")
    await world.mkdir("w/t/n/e")
    await world.put("w/t/n/x", b"x")
    await world.symlink("w/t/n/l", "x")
    await world.put("w/t/d/y", b"y")
    await world.symlink("w/t/s", "x")
    await world.mkdir("w/t/k")


def with_all(expected: dict[str, object]) -> dict[str, object]:
    """Return what the tree is after ``changed`` and a change on top of it."""
    whole: dict[str, object] = {**BEGAN, "n": ..., "n/e": ..., "n/x": b"x", "n/l": "x", "d": ..., "d/e": ...}
    whole |= {"d/y": b"y", "s": "x", "k": ..., **expected}
    return {path: None if what is ... else what for path, what in whole.items() if what is not None}


@CHANGES
@pytest.mark.parametrize("fails", [False, True])
async def test_names_change_while_the_version_is_made(
    grown: World, change: Change, expected: dict[str, object], *, fails: bool
):
    """Between what was taken and the answer: the change is shown at once, and comes with the version after."""
    await changed(grown)
    held = grown.publisher.next(held=True, error=errors.Unavailable("not now") if fails else None)
    await grown.reach(held)
    await change(grown)
    wanted = with_all(expected)
    assert await grown.tree("w/t") == wanted
    held.go.set()
    await grown.settle()
    assert await grown.tree("w/t") == wanted
    await agree(grown, wanted)


@CHANGES
@pytest.mark.parametrize("when", ["before", "after"])
async def test_names_change_while_the_version_is_made_and_then_comes_a_kill(
    tmp_path: Path, standing_still: None, change: Change, expected: dict[str, object], when: str
):
    """The service has the version, this machine does not know it: what was taken out of it since stays out."""
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await grow(world)
        await changed(world)
        if when == "before":
            held = world.publisher.next(meanwhile=partial(change, world), held_after=True)
            await world.reach(held)
        else:
            held = world.publisher.next(held_after=True)
            await world.reach(held)
            await change(world)
        assert await world.tree("w/t") == with_all(expected)
    async with opened(tmp_path) as world:
        assert await world.tree("w/t") == with_all(expected)
        await agree(world, with_all(expected))


async def test_back_to_what_it_was_before_a_version_that_nobody_heard_of(tmp_path: Path, standing_still: None):
    """The service has a directory, which was removed here meanwhile: the next version is the one before again."""
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await world.mkdir("w/t")
        await world.mkdir("w/t/a")
        held = world.publisher.next(meanwhile=partial(world.rmdir, "w/t/a"), held_after=True)
        await world.reach(held)
    async with opened(tmp_path) as world:
        await agree(world, {})


async def test_a_writer_over_the_end_of_a_version(grown: World):
    """Opened while the version is made, written to after it: both contents, one after the other."""
    await grown.put("w/t/a", b"A")
    held = grown.publisher.next(held=True)
    await grown.reach(held)
    handle = await grown.open("w/t/a", WRITE)
    ino = (await grown.look("w/t/a")).ino
    held.go.set()
    await grown.settle()
    assert grown.stored("t")["a"] == b"A"
    grown.fs.write(handle, 1, b"A")
    await grown.close(handle)
    await agree(grown, {**BEGAN, "a": b"AA"})
    assert (await grown.look("w/t/a")).ino == ino


@pytest.mark.parametrize("flushed", [True, False])
async def test_a_reader_for_writing_over_the_end_of_a_version(grown: World, *, flushed: bool):
    """Opened for writing while the version is made, and closed after it without a write: it is what it was."""
    await grown.put("w/t/new", b"text")
    held = grown.publisher.next(held=True)
    await grown.reach(held)
    handle = await grown.open("w/t/new", BOTH)
    ino = (await grown.look("w/t/new")).ino
    held.go.set()
    await grown.settle()
    if flushed:
        await grown.fs.flush(handle)
    await grown.fs.release(handle)
    again = (await grown.fs.open(ino, READ)).handle
    assert await grown.fs.read(again, 0, 9) == b"text"
    await grown.fs.release(again)
    await agree(grown, {**BEGAN, "new": b"text"})


async def test_a_renamed_file_that_is_written_over_the_end_of_a_version(tmp_path: Path, standing_still: None):
    """Its content was told to be kept: a kill before the new one is flushed shows it, under the new name."""
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await world.mkdir("w/t")
        await world.put("w/t/a", b"told")
        held = world.publisher.next(held=True)
        await world.reach(held)
        handle = await world.open("w/t/a", EMPTY)
        await world.rename("w/t/a", "w/t/z")
        held.go.set()
        await world.settle()
        world.fs.write(handle, 0, b"not told")
    async with opened(tmp_path) as world:
        assert await world.tree("w/t") == {"z": b"told"}
        await agree(world, {"z": b"told"})


async def test_what_is_of_this_machine_never_leaves(tmp_path: Path, standing_still: None):
    """``.git`` and litter: not with any version, and there after the next mount."""
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await world.mkdir("w/t")
        await world.mkdir("w/t/.git")
        await world.mkdir("w/t/.git/refs")
        await world.put("w/t/.git/refs/HEAD", b"main")
        await world.put("w/t/a~", b"backup")
        await world.put("w/t/a", b"a")
        await world.rename("w/t/.git/refs/HEAD", "w/t/.git/HEAD")
        await world.elapse(100)
        shown = await world.tree("w/t")
        assert shown == {".git": None, ".git/refs": None, ".git/HEAD": b"main", "a~": b"backup", "a": b"a"}
        assert world.stored("t") == {"a": b"a"}
        assert count(world) == 2
    async with opened(tmp_path) as world:
        await world.elapse(100)
        assert await world.tree("w/t") == shown
        assert world.publisher.calls == []
        await world.rename("w/t/a~", "w/t/b")
        await world.rename("w/t/.git/HEAD", "w/t/HEAD")
        await world.elapse(5)
        assert world.stored("t") == {"a": b"a", "b": b"backup", "HEAD": b"main"}
        await world.rmdir("w/t/.git/refs")
        await world.rmdir("w/t/.git")
        await world.elapse(5)
        world.nothing_is_left()


@pytest.mark.parametrize("how", ["unlink", "rename over"])
async def test_what_is_being_sent_is_there_until_it_was(grown: World, how: str):
    """Written again and then taken away, while the version before is being made of it."""
    await grown.put("w/t/a", b"A")
    await grown.put("w/t/b", b"B")
    held = grown.publisher.next(held=True)
    await grown.reach(held)
    await grown.put("w/t/a", b"AA")
    await (grown.unlink("w/t/a") if how == "unlink" else grown.rename("w/t/b", "w/t/a"))
    left = {path: what for path, what in BEGAN.items() if path not in {"a", "b"}}
    left |= {"b": b"B"} if how == "unlink" else {"a": b"B"}
    assert await grown.tree("w/t") == left
    held.go.set()
    await grown.settle()
    assert grown.reports == []
    await agree(grown, left)
