"""What is remembered of saves is bounded by what there is, not by how often it was saved."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from artifactfs.model.entry import Artifact, ArtifactKind, DirRef, Role
from artifactfs.tree.inodes import InodeTable
from artifactfs.tree.layout import Level, directory_identity, present_node
from artifactfs.tree.nodes import Kind, Listed, Node
from artifactfs.vfs.announcing import MANY, Announcer
from artifactfs.vfs.ids import Ids
from artifactfs.vfs.known import Known
from artifactfs.vfs.saved import SAVED, Saved
from tests.vfs.world import World, grow

TIMES = 5


async def over(world: World, path: str, data: bytes) -> None:
    """Save as most editors do: another file takes the place of the old one."""
    await world.put(f"{path}.tmp", data)
    await world.rename(f"{path}.tmp", path)


@pytest.mark.parametrize("save", [World.put, over], ids=["in place", "by rename"])
@pytest.mark.parametrize("path", ["w/f", "w/t/a"])
async def test_a_file_that_is_saved_often_is_remembered_once(
    world: World, path: str, save: Callable[[World, str, bytes], Awaitable[None]]
):
    await grow(world)
    await world.put("w/f", b"first")
    await world.elapse()
    kept = len(world.overlay.saved)
    for number in range(TIMES):
        await save(world, path, f"{number}".encode())
        await world.elapse()
        node = await world.look(path)
        assert world.overlay.saved.get(node.identity) is node
        assert await world.read(path) == f"{number}".encode()
    assert len(world.overlay.saved) == kept


async def test_a_file_that_was_removed_is_not_remembered(world: World):
    history = world.fs.directories.history
    await world.put("w/stays", b"stays")
    await world.elapse()
    held = len(world.overlay.saved), len(history._newest), len(history._newest_at)
    for number in range(TIMES):
        await world.put("w/f", f"{number}".encode())
        await world.elapse()
        await world.unlink("w/f")
        await world.elapse()
    assert (len(world.overlay.saved), len(history._newest), len(history._newest_at)) == held
    assert await world.names("w") == {"stays"}


@pytest.mark.parametrize("save", [World.put, over], ids=["in place", "by rename"])
async def test_what_a_save_has_replaced_by_another_artifact_is_not_remembered(
    world: World, save: Callable[[World, str, bytes], Awaitable[None]]
):
    """Of some services each save is an upload of its own, under another key."""
    history = world.fs.directories.history
    await world.put("w/f", b"first")
    await world.elapse()
    (before,) = history._newest.values()
    await save(world, "w/f", b"second")
    made = replace(before, key="another", id="another", updated_at_ns=(before.updated_at_ns or 0) + 10**9)
    world.publisher.next(answer=lambda *_: made)
    await world.elapse()
    assert world.publisher.calls[-1] == "save_file"
    assert history.newest("mine", made) is made
    assert ("mine", before.key) not in history._newest
    assert len(world.overlay.saved) == 1


def node_of(key: str) -> Node:
    artifact = Artifact((key,), key, key, ArtifactKind.FILE, None, writable=True)
    return present_node(artifact, key, 0, "mine")


def test_no_more_than_so_many_are_remembered():
    saved, first = Saved(), node_of("first")
    saved.put(first)
    assert saved.get(first.identity) is first
    assert first.identity in saved
    for number in range(SAVED):
        saved.put(node_of(str(number)))
    assert len(saved) == SAVED
    assert first.identity not in saved


def test_only_what_stands_for_an_identity_now_is_found():
    saved, old, new = Saved(), node_of("one"), node_of("one")
    new.identity = (*new.identity[:3], "another version", *new.identity[4:])
    saved.put(old)
    assert saved.get(new.identity) is None
    saved.put(new)
    assert saved.get(old.identity) is None
    saved.drop(old)
    assert saved.get(new.identity) is new


def test_levels_that_the_kernel_has_forgotten_are_not_remembered():
    root = Node(1, ("root",), Kind.DIRECTORY, "")
    announcer = Announcer(inodes=InodeTable(root))
    announcer.stands_at(Listed(DirRef("s", "top")), root.ino)
    for number in range(10 * MANY):
        announcer.stands_at(Listed(DirRef("s", "run", (str(number),))), 100 + number)
        assert len(announcer._numbers) <= 2 + MANY
    assert announcer.holds(DirRef("s", "top"))
    assert announcer._numbers[directory_identity(DirRef("s", "run", (str(number),)), ())] == 100 + number


async def test_a_workflow_without_listings_has_no_shelf(world: World):
    ids = Ids({}, world.fs.directories.history)
    place = Listed(DirRef("mine", "workflow", ("w",)), role=Role.WORKFLOW)
    known = Known({(): Level({"f": node_of("f")})}, 0.0, 60.0, complete=True, note=None)
    await ids.shelve(place, known.levels)
    shelf = ids.shelf(place)
    with shelf.held():
        ids.unshelve(place.ref, known)
        assert ids.shelf(place) is shelf, "somebody searches in it"
    await ids.shelve(place, known.levels)
    ids.unshelve(place.ref, known)
    assert ids._shelves == {}
