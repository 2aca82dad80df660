"""Saving in a tree whose names cannot be shown as they are: what is saved is what stands there, under its raw name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from artifactfs.tree import names
from artifactfs.tree.nodes import Node
from artifactfs.vfs import tree_publishing
from artifactfs.vfs.handles import Change as Attributes
from tests.vfs.test_tree_conflicts import MARK, notice, other
from tests.vfs.world import WRITE, World, images, opened

pytestmark = pytest.mark.usefixtures("standing_still")

LONG = "\x01" * 90 + "long.txt"
"""Its name would be too long, so it is cut: nothing but the listing knows what it stands for."""
HOSTILE = {"x\ny": b"x", LONG: b"long", "e\tf": None, "e\tf/g\th": b"g", "e\tf/plain": b"plain", "n": b"n"}
FILES = ["x\ny", LONG, "e\tf/g\th", "e\tf/plain"]

Change = Callable[[World], Awaitable[None]]
Wanted = dict[str, bytes | None]


def shown(path: str) -> str:
    """Return the path in the mount of a raw one in the tree ``t``."""
    return "/".join(["w/t", *map(names.encode, path.split("/"))])


def as_shown(tree: Wanted) -> Wanted:
    return {shown(path).removeprefix("w/t/"): what for path, what in tree.items()}


async def pack(world: World) -> None:
    """Let somebody else make a version of the tree ``t`` that holds ``HOSTILE``."""
    artifact = world.artifact("t")
    (one, *_) = world.store.tree(artifact.id, artifact.current)
    files = {path: data for path, data in HOSTILE.items() if data is not None}
    objects = world.store.objects
    packed = [replace(one, path=path, sha256=objects.put(data), size=len(data)) for path, data in files.items()]
    world.store.save_tree(artifact.id, packed)
    await notice(world, shown("n"))
    assert await world.tree("w/t") == as_shown(HOSTILE)


@pytest.fixture
async def hostile(grown: World) -> World:
    await pack(grown)
    return grown


async def agree(world: World, expected: Wanted) -> None:
    """Check that all show the same of the tree ``t``, and that the store has it under its raw names."""
    assert await world.tree("w/t") == as_shown(expected)
    await world.elapse(5)
    assert await world.tree("w/t") == as_shown(expected)
    assert world.stored("t") == expected
    world.nothing_is_left()
    assert world.reports == []


def saved(path: str) -> tuple[Change, Wanted]:
    return lambda world: world.put(shown(path), b"mine"), {**HOSTILE, path: b"mine"}


def renamed(path: str) -> tuple[Change, Wanted]:
    expected = {**HOSTILE, "plain": HOSTILE[path]}
    del expected[path]
    return lambda world: world.rename(shown(path), "w/t/plain"), expected


def saved_and_renamed(path: str) -> tuple[Change, Wanted]:
    async def change(world: World) -> None:
        await world.put(shown(path), b"mine")
        await world.rename(shown(path), "w/t/plain")

    return change, {**renamed(path)[1], "plain": b"mine"}


def renamed_over(path: str) -> tuple[Change, Wanted]:
    expected = {**HOSTILE, path: b"n"}
    del expected["n"]
    return lambda world: world.rename("w/t/n", shown(path)), expected


def saved_atomically(path: str) -> tuple[Change, Wanted]:
    async def change(world: World) -> None:
        await world.put("w/t/new", b"mine")
        await world.rename("w/t/new", shown(path))

    return change, {**HOSTILE, path: b"mine"}


def brought_in(path: str) -> tuple[Change, Wanted]:
    async def change(world: World) -> None:
        await world.put("w/new.tmp", b"mine")
        await world.rename("w/new.tmp", shown(path))

    return change, {**HOSTILE, path: b"mine"}


def removed(path: str) -> tuple[Change, Wanted]:
    expected = {**HOSTILE}
    del expected[path]
    return lambda world: world.unlink(shown(path)), expected


def saved_and_removed(path: str) -> tuple[Change, Wanted]:
    async def change(world: World) -> None:
        await world.put(shown(path), b"mine")
        await world.unlink(shown(path))

    return change, removed(path)[1]


def below_another(path: str) -> tuple[Change, Wanted]:
    """A directory is renamed with all that is in it: what is below keeps its raw names."""
    top = "e\tf"

    async def change(world: World) -> None:
        await world.put(shown(path), b"mine")
        await world.rename(shown(top), "w/t/moved")

    whole: Wanted = {**HOSTILE, path: b"mine"}
    return change, {("moved" + at[len(top) :] if at.startswith(top) else at): what for at, what in whole.items()}


CHANGES = [
    saved, renamed, saved_and_renamed, renamed_over, saved_atomically, brought_in, removed, saved_and_removed,
    below_another,
]  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=["escaped", "cut", "below", "plain below"])
@pytest.mark.parametrize("how", CHANGES)
async def test_what_is_changed_under_a_name_as_it_is_shown_is_what_stands_there(
    hostile: World, how: Callable[[str], tuple[Change, Wanted]], path: str
) -> None:
    change, expected = how(path)
    await change(hostile)
    await agree(hostile, expected)


@pytest.mark.parametrize("path", FILES, ids=["escaped", "cut", "below", "plain below"])
@pytest.mark.parametrize("how", CHANGES)
async def test_the_next_mount_changes_what_stood_under_the_name(
    tmp_path: Path, how: Callable[[str], tuple[Change, Wanted]], path: str
) -> None:
    change, expected = how(path)
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await world.mkdir("w/t")
        await world.put("w/t/a", b"a")
        await world.elapse()
        await pack(world)
        world.stop_publishing()
        await change(world)
        assert await world.tree("w/t") == as_shown(expected)
    async with opened(tmp_path) as world:
        assert await world.tree("w/t") == as_shown(expected)
        await agree(world, expected)


async def test_a_kill_while_a_file_is_saved_whose_name_is_cut_leaves_it_where_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path / "first") as world:
        await world.mkdir("w")
        await world.mkdir("w/t")
        await world.put("w/t/a", b"a")
        await world.elapse()
        await pack(world)
        with images(tmp_path / "first", tmp_path / "kills") as kills:
            await world.put(shown(LONG), b"mine")
            await world.elapse()
    for image in kills:
        async with opened(image) as world:
            await world.elapse(5)
            assert world.stored("t") in ({**HOSTILE}, {**HOSTILE, LONG: b"mine"}), image
            assert await world.tree("w/t") == as_shown(world.stored("t"))


@pytest.mark.parametrize("path", FILES, ids=["escaped", "cut", "below", "plain below"])
async def test_who_makes_a_file_executable_changes_no_other(hostile: World, path: str) -> None:
    handle = await hostile.open(shown(path), WRITE)
    hostile.fs.write(handle, 0, b"m")
    await hostile.fs.setattr((await hostile.look(shown(path))).ino, Attributes(executable=True), None)
    await hostile.close(handle)
    await agree(hostile, {**HOSTILE, path: b"m" + (HOSTILE[path] or b"")[1:]})
    artifact = hostile.artifact("t")
    files = hostile.store.tree(artifact.id, artifact.current)
    assert [file.path for file in files if file.executable] == [path]


@pytest.mark.parametrize("path", ["x\ny", LONG], ids=["escaped", "cut"])
async def test_both_are_kept_of_a_name_that_two_have_saved(
    hostile: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """The copy stands beside the other under the raw name with a mark; it is told as it is shown."""
    monkeypatch.setattr(tree_publishing, "conflict_mark", lambda: MARK)
    handle = await hostile.open(shown(path), WRITE)
    hostile.fs.write(handle, 0, b"mine")
    ino = (await hostile.look(shown(path))).ino
    await other(hostile, tmp_path / "other", lambda second: second.put(shown(path), b"theirs"))
    await hostile.close(handle)
    await hostile.elapse()
    stem, extension = names.split_extension(path)
    copy = f"{stem} ({MARK}){extension}"
    mine = b"mine" + (HOSTILE[path] or b"")[4:]
    assert await hostile.tree("w/t") == as_shown(hostile.stored("t"))
    assert hostile.stored("t") == {**HOSTILE, path: b"theirs", copy: mine}
    assert (await hostile.look(shown(copy))).ino == ino
    at = shown(path)
    assert hostile.reports == [f"{at}: somebody else changed it first; this save is kept as {names.encode(copy)!r}"]
    assert [name for _, name in hostile.overlay.notices] == [names.encode(path)]


async def test_who_goes_on_writing_under_such_a_name_saves_the_same_file(hostile: World) -> None:
    handle = await hostile.open(shown("x\ny"), WRITE)
    node: Node = await hostile.look(shown("x\ny"))
    for data in (b"1", b"2"):
        hostile.fs.write(handle, 0, data)
        await hostile.fs.flush(handle)
        await hostile.put("w/t/n", data)
        await hostile.elapse()
    await hostile.close(handle)
    await hostile.put(shown("x\ny"), b"3")
    assert (await hostile.look(shown("x\ny"))).ino == node.ino
    await agree(hostile, {**HOSTILE, "x\ny": b"3", "n": b"2"})


async def in_place(world: World, at: str) -> None:
    await world.put(at, b"mine")


async def by_rename(world: World, at: str) -> None:
    await world.put("w/new.tmp", b"mine")
    await world.rename("w/new.tmp", at)


@pytest.mark.parametrize("title", ["x\ny", LONG, "same"], ids=["escaped", "cut", "twice"])
@pytest.mark.parametrize("save", [in_place, by_rename])
async def test_a_save_of_a_listed_file_goes_to_the_artifact_that_its_name_stands_for(
    world: World, save: Callable[[World, str], Awaitable[None]], title: str
) -> None:
    """What is shown as a name is known by its artifact: whatever the service, that is what the save is of."""
    workflow = world.store.workflows()[0].id
    titles = ["other", title, *([title] if title == "same" else [])]
    ids = [world.store.add_artifact(workflow, one, "file").id for one in titles]
    for one in ids:
        world.store.save_file(one, world.store.objects.put(one.encode()), len(one))
    world.fs.directories.listings.own.forget_source("mine")
    listed = {await world.read(f"w/{name}"): name for name in await world.names("w")}
    await save(world, f"w/{listed[ids[-1].encode()]}")
    await world.elapse(5)
    contents = {one: world.store.objects.read(world.newest(one)) for one in ids}
    assert contents == {**{one: one.encode() for one in ids[:-1]}, ids[-1]: b"mine"}
    assert set(world.publisher.asked) == {(title,)}
    assert await world.names("w") == set(listed.values())
    world.nothing_is_left()
