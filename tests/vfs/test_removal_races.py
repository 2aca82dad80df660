"""What is removed, made again and renamed over while its service is removing it: nothing comes back, or is lost."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from artifactfs import errors
from artifactfs.vfs.giving_up import GivingUp
from tests.vfs.world import Step, World


async def being_removed(grown: World, error: Exception | None = None) -> Step:
    """Have the file ``w/f`` that the store is just removing; return what that waits for."""
    await grown.put("w/f", b"one")
    await grown.elapse(5)
    step = grown.publisher.next(held=True, error=error)
    await grown.unlink("w/f")
    await grown.reach(step)
    return step


@pytest.mark.parametrize("how", ["unlink", "rename"])
@pytest.mark.parametrize("replaced", [False, True])
async def test_a_new_file_goes_while_what_had_its_name_is_being_removed(grown: World, how: str, *, replaced: bool):
    """What was removed first is not shown again meanwhile; a second new file stands over it as the first did."""
    step = await being_removed(grown)
    await grown.put("w/f", b"two")
    if replaced:
        await grown.put("w/x", b"three")
        await grown.rename("w/x", "w/f")
    await (grown.unlink("w/f") if how == "unlink" else grown.rename("w/f", "w/g"))
    assert "f" not in await grown.names("w")
    step.go.set()
    await grown.elapse(10)
    assert ("f" in await grown.names("w"), "g" in await grown.names("w")) == (False, how == "rename")
    grown.nothing_is_left()


async def test_a_new_file_goes_when_what_had_its_name_is_removed_already(grown: World):
    """Its name is free then, for others too."""
    step = await being_removed(grown)
    handle = await grown.create("w/f", b"two")
    step.go.set()
    await grown.settle()
    await grown.rename("w/f", "w/g")
    await grown.close(handle)
    await grown.elapse(10)
    assert grown.overlay._names == {}
    assert {"g"} <= await grown.names("w")
    grown.nothing_is_left()


async def test_a_workflow_is_made_while_what_had_its_name_is_being_removed(grown: World):
    """Who makes it waits for that."""
    step = await being_removed(grown, errors.Unavailable("no answer"))
    removal = next(iter(grown.overlay.removals.values()))
    step.go.set()
    await grown.fs.writer.writeback.now(removal)
    await grown.mkdir("w/f")
    await grown.elapse(10)
    assert "f" in await grown.names("w")
    grown.nothing_is_left()


async def test_a_file_is_renamed_over_one_whose_place_was_to_be_given_up(grown: World):
    """What was to be removed goes over to the one that has the name last."""
    failing = await being_removed(grown, errors.Unavailable("no answer"))
    await grown.put("w/f", b"one")
    await grown.put("w/g", b"two")
    lost = grown.publisher.next(lost=True, error=errors.Unavailable("no answer"), only="f")
    failing.go.set()
    await grown.reach(lost)
    await grown.settle()
    await grown.rename("w/g", "w/f")
    await grown.elapse(20)
    assert await grown.read("w/f") == b"two"
    grown.nothing_is_left()


async def test_the_later_of_two_artifacts_that_had_a_name_is_removed_first(grown: World):
    """The earlier one is not shown again meanwhile, and is what the name waits for."""
    for name in ("f", "g"):
        await grown.put(f"w/{name}", b"one")
        await grown.elapse(5)
    grown.stop_publishing()
    later = (await grown.look("w/g")).artifact
    assert later is not None
    await grown.unlink("w/f")
    (first,) = grown.overlay.removals.values()
    second = grown.fs.remover.removal_of(await grown.look("w"), "f", later)
    await grown.fs.remover.remove_later(second)
    await grown.fs.writer.writeback.now(second)
    assert "f" not in await grown.names("w")
    assert list(grown.overlay.removals.values()) == [first]
    await grown.mkdir("w/f")
    assert grown.overlay.removals == {}


async def test_a_removal_is_given_up_whose_name_a_new_file_has(grown: World):
    """The new file keeps it until it is saved."""
    step = await being_removed(grown, errors.Unavailable("no answer"))
    handle = await grown.create("w/f", b"two")
    step.go.set()
    await grown.settle()
    (removal,) = grown.overlay.removals.values()
    await GivingUp(grown.fs)._drop_removal(removal)
    assert (await grown.look("w/f")).ino == grown.edit("f").node.ino
    await grown.close(handle)
    await grown.elapse(10)
    found = {name: await grown.read(f"w/{name}") for name in await grown.names("w") if name.startswith("f")}
    assert (found.pop("f"), list(found.values())) == (b"one", [b"two"])  # beside what is not removed after all


async def test_a_new_file_is_written_through_while_the_removal_of_what_had_its_name_fails(grown: World):
    """It is the next version of that one then, not another file of its name that somebody else has made."""
    grown.fs.writer.sealing.policy.write_through = True
    step = await being_removed(grown, errors.Unavailable("no answer"))
    handle = await grown.create("w/f", b"two")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(grown.fs.flush, handle)
        await trio.testing.wait_all_tasks_blocked()
        step.go.set()
    await grown.close(handle)
    await grown.elapse(10)
    assert await grown.names("w") == {"t", "f"}
    assert grown.versions("f") == [b"one", b"two"]
    grown.nothing_is_left()
