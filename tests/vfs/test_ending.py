"""A mount that ends, and who waits for what is published: each change is waited for once, whatever others do."""

from __future__ import annotations

import time

import trio

from artifactfs import errors
from tests.vfs.world import World


async def test_an_ending_mount_tries_each_change_once_while_others_take_long(world: World):
    """Where many sources fail slowly, one of them is always being asked: that is no reason to ask the others again."""
    slow = world.publisher.next(held=True)
    await world.put("w/g", b"slow")
    await world.reach(slow)
    # Not a failure of its source, which would hold the other up: as if each had a source of its own.
    tries = [world.publisher.next(error=OSError("in vain")) for _ in range(50)]
    await world.put("w/f", b"text")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.fs.writer.finish)
        await world.elapse(200)
        assert sum(step.reached.is_set() for step in tries) == 1
        slow.go.set()
        with trio.fail_after(1):
            await world.settle()
    assert world.versions("g") == [b"slow"]
    assert [job.shown for job in world.overlay.jobs()] == ["w/f"]


async def test_who_waits_for_a_change_does_not_wait_for_its_second_try(world: World):
    """It failed once since they asked: that is the answer, also while it is tried again."""
    first = world.publisher.next(error=errors.Unavailable("not now"))
    second = world.publisher.next(held=True)
    writeback, since = world.fs.writer.writeback, time.time()
    await world.put("w/f", b"text")
    assert len(writeback.unsettled("", since)) == 1
    await world.reach(first)
    await world.settle()
    await world.reach(second)
    assert world.edit("f").is_under_way
    assert writeback.unsettled("", since) == []
    second.go.set()
    await world.elapse()
    world.nothing_is_left()
