"""What cannot be published: tried again or kept, in order, told once, and never lost."""

from __future__ import annotations

import errno
import itertools
import math
import time

import pytest
import trio

from artifactfs import errors
from artifactfs.journal.states import State
from artifactfs.vfs.queue import queue_of
from artifactfs.vfs.writeback import LOOK_S, PATIENCE, RETRY_MAX_S
from tests.vfs.world import BOTH, EMPTY, LATER_S, World


def refused() -> errors.InvalidRequest:
    return errors.InvalidRequest("no such text")


async def test_what_may_pass_is_tried_again_and_each_time_later(world: World, expected_logs):
    expected_logs("could not be published", level=40)
    for _ in range(9):
        world.publisher.next(error=errors.Unavailable("not now"))
    await world.put("w/f", b"text")
    began, tries = trio.current_time(), []
    while world.publisher.plan:
        before = len(world.publisher.calls)
        await world.elapse(0.5)
        tries += [trio.current_time() - began] * (len(world.publisher.calls) - before)
        assert await world.read("w/f") == b"text"
        assert "f" in await world.names("w")
    pauses = [later - one for one, later in itertools.pairwise(tries)]
    longest = [min(2**n, RETRY_MAX_S) for n in range(len(pauses))]
    assert all(most / 2 - 0.5 <= pause <= most + 1 for most, pause in zip(longest, pauses, strict=True))
    (row,) = queue_of(world.fs.writer)
    assert (row.path, row.what, row.state, row.tries, row.error) == ("w/f", "save", "sealed", 9, "not now")
    await world.elapse(RETRY_MAX_S + 1)
    assert world.versions("f") == [b"text"]
    assert world.reports == ["w/f: not saved yet: not now"] * 9
    world.nothing_is_left()


async def test_a_source_that_fails_gets_one_change_at_a_time_oldest_first(world: World):
    for number in range(6):
        await world.put(f"w/f{number}", b"old")
    await world.elapse()
    for number in (3, 1, 4, 0, 5, 2):
        await world.put(f"w/f{number}", f"new {number}".encode())
    failing = [world.publisher.next(error=errors.Unreachable("no network")) for _ in range(8)]
    world.publisher.asked.clear()
    await world.elapse(120)
    assert not world.publisher.plan
    assert all(step.reached.is_set() for step in failing)
    names = [path[0] for path in world.publisher.asked]
    # Those that had begun before the source was known to fail, then the oldest until it is saved, then the others.
    assert (sorted(names[:4]), names[4:9]) == (["f0", "f1", "f3", "f4"], ["f3"] * 5)
    assert sorted(names[9:]) == ["f0", "f1", "f2", "f4", "f5"]
    assert all(len(world.versions(f"f{number}")) == 2 for number in range(6))
    world.nothing_is_left()


async def test_a_change_that_always_fails_does_not_stop_those_behind_it(world: World):
    """One that its service never takes, for whatever reason: the others wait for it some minutes, not for ever."""
    await world.put("w/f", b"old")
    await world.elapse()
    await world.put("w/f", b"poison")
    for _ in range(2 * PATIENCE):
        world.publisher.next(error=errors.Unavailable("it does something to me")).only = "f"
    await world.elapse(4)
    await world.put("w/g", b"text")
    await world.elapse(300)
    assert world.versions("g") == [b"text"]
    await world.elapse(1200)
    assert world.versions("f") == [b"old", b"poison"]
    world.nothing_is_left()


async def test_nothing_is_tried_while_a_source_is_known_to_fail(world: World):
    """A new save waits behind the one that failed."""
    await world.put("w/f", b"1")
    for _ in range(6):
        world.publisher.next(error=errors.Unreachable("no network"))
    await world.elapse(12)
    before = len(world.publisher.calls)
    await world.put("w/g", b"2")
    await world.elapse(LATER_S)
    assert len(world.publisher.calls) - before <= 1
    await world.elapse(120)
    created = {one.name: one.created_at_ns for one in world.store.artifacts()}
    assert created["f"] < created["g"]


async def test_what_waits_is_tried_when_the_source_has_answered_something_else(world: World):
    """A listing that came through shows that the source is well again: nobody waits for the end of the pause."""
    answered_at = 0.0
    world.fs.writer.writeback.outages.well_at = lambda _source: answered_at
    await world.put("w/f", b"text")
    for _ in range(7):
        world.publisher.next(error=errors.Unreachable("no network"))
    while world.publisher.plan:
        await world.elapse(1)
    assert world.edit("f").due_at > trio.current_time() + 20
    answered_at = time.time() + 3600
    await world.elapse(2 * LOOK_S)
    assert world.versions("f") == [b"text"]
    world.nothing_is_left()


async def test_a_failing_source_keeps_the_processor_free(world: World, expected_logs):
    """Also while a try takes long, and when what failed is refused at last, nothing is looked at without end."""
    expected_logs("refused and kept here")
    writeback = world.fs.writer.writeback
    world.publisher.next(error=errors.Unreachable("no network"))
    held = world.publisher.next(held=True, error=refused())
    await world.put("w/f", b"text")
    await world.reach(held)
    world.clock.jump(10)
    assert writeback._next_look() >= trio.current_time() + LOOK_S
    held.go.set()
    await world.elapse(5)
    assert world.edit("f").state is State.FAILED
    assert writeback._next_look() == math.inf


async def test_a_refusal_is_kept_told_once_and_tried_again_after_the_next_write(world: World, expected_logs):
    expected_logs("refused and kept here")
    world.publisher.next(error=refused())
    await world.put("w/f", b"bad")
    await world.elapse(3600)
    assert world.publisher.calls == ["create_file"]
    assert [row.state for row in queue_of(world.fs.writer)] == ["failed"]
    assert await world.read("w/f") == b"bad"
    handle = await world.open("w/f", EMPTY)
    world.fs.write(handle, 0, b"good")
    with pytest.raises(errors.InvalidRequest, match="no such text"):
        await world.fs.flush(handle)
    await world.fs.flush(handle)
    await world.fs.release(handle)
    await world.elapse()
    assert world.versions("f") == [b"good"]
    world.nothing_is_left()


async def test_who_writes_while_it_is_refused_gets_a_try_of_its_own(world: World, expected_logs):
    """The refusal speaks of the content that was sent, which is wanted no more."""
    expected_logs("refused and kept here")
    for is_closed in (True, False):
        held = world.publisher.next(held=True, error=refused())
        await world.put("w/f", b"bad")
        await world.reach(held)
        handle = await world.open("w/f", EMPTY)
        world.fs.write(handle, 0, b"good %d" % is_closed)
        if is_closed:
            await world.close(handle)
        held.go.set()
        await world.elapse()
        if not is_closed:
            with pytest.raises(errors.InvalidRequest):
                await world.fs.flush(handle)
            await world.close(handle)
        await world.elapse(10)
        assert world.versions("f")[-1] == b"good %d" % is_closed
    assert b"bad" not in world.versions("f")
    world.nothing_is_left()


async def test_a_failure_that_nobody_foresaw_costs_nothing(world: World, expected_logs):
    """Of a file, a tree and a removal, and of a step to the disk: the others go on, and this one is tried again."""
    expected_logs("in an unforeseen way", level=40)
    await world.mkdir("w/t")
    await world.put("w/gone", b"x")
    await world.elapse()
    await world.put("w/f", b"text")
    await world.put("w/t/f", b"text")
    await world.unlink("w/gone")
    for _ in range(3):
        world.publisher.next(error=ZeroDivisionError("surprise"))
    await world.put("w/g", b"other")
    await world.elapse(30)
    assert world.versions("f") == [b"text"]
    assert world.versions("g") == [b"other"]
    assert world.stored("t") == {"f": b"text"}
    assert [one.name for one in world.store.artifacts() if one.name == "gone"] == []
    world.nothing_is_left()


@pytest.mark.parametrize("is_tree", [False, True])
async def test_a_refused_change_whose_draft_cannot_be_read_ends_nobody(
    world: World, expected_logs, monkeypatch: pytest.MonkeyPatch, *, is_tree: bool
):
    """What was refused fails in another way when it is tried again: the worker goes on."""
    expected_logs("refused and kept here")
    await world.mkdir("w/t")
    path = "w/t/f" if is_tree else "w/f"
    world.publisher.next(error=refused())
    await world.put(path, b"text")
    await world.elapse()
    edit = world.edit("f")
    with monkeypatch.context() as patched:
        patched.setattr(type(edit.staged), "draft", lambda *_: _raise(OSError(errno.EIO, "Input/output error")))
        world.fs.writer.writeback.hurry()
        await world.settle()
    await world.elapse(10)
    assert await world.read(path) == b"text"
    assert (world.stored("t")["f"] if is_tree else world.versions("f")[-1]) == b"text"
    world.nothing_is_left()


def _raise(error: Exception) -> None:
    raise error


async def test_a_failing_removal_is_tried_again_and_a_refused_one_is_kept(world: World, expected_logs):
    expected_logs("refused and kept here")
    for name in ("f", "g"):
        await world.put(f"w/{name}", b"text")
    await world.elapse()
    world.publisher.calls.clear()
    for error in (errors.Unavailable("not now"), errors.TimedOut("too slow")):
        world.publisher.next(error=error)
    await world.unlink("w/f")
    await world.elapse(20)
    assert world.publisher.calls == ["remove"] * 3
    world.publisher.next(error=errors.NotPermitted("never"))
    await world.unlink("w/g")
    await world.elapse(3600)
    assert await world.names("w") == set()
    assert [(row.path, row.what, row.state) for row in queue_of(world.fs.writer)] == [("w/g", "remove", "failed")]
    assert [one.name for one in world.store.artifacts()] == ["g"]
    await world.put("w/g", b"again")
    await world.elapse()
    assert world.versions("g") == [b"text", b"again"]
    world.nothing_is_left()


async def test_a_writer_during_a_failing_save_of_a_tree_leaves_no_old_bytes(world: World):
    """What was on its way when somebody wrote again is not kept when the newer content is saved."""
    await world.mkdir("w/t")
    await world.elapse()
    for is_closed in (True, False):
        await world.put("w/t/f", b"old")
        failing = world.publisher.next(held=True, error=errors.Unavailable("not now"))
        await world.reach(failing)
        handle = await world.open("w/t/f", BOTH)
        world.fs.write(handle, 0, b"newer %d" % is_closed)
        if is_closed:
            await world.close(handle)
        failing.go.set()
        await world.elapse()
        if not is_closed:
            await world.close(handle)
        await world.elapse(10)
        assert world.stored("t") == {"f": b"newer %d" % is_closed}
        world.nothing_is_left()


async def test_a_file_of_a_tree_that_is_removed_while_it_is_published_stops_nothing(world: World):
    """Its bytes are gone before the store has taken them: the other changes are published all the same."""
    await world.mkdir("w/t")
    for name in ("f", "g"):
        await world.put(f"w/t/{name}", b"text")
    held = world.publisher.next(held=True)
    await world.reach(held)
    await world.unlink("w/t/f")
    held.go.set()
    await world.elapse(10)
    assert world.stored("t") == {"g": b"text"}
    assert await world.names("w/t") == {"g"}
    world.nothing_is_left()
