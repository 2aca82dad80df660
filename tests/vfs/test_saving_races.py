"""Who opens a file for writing just as its last save ends: the new save is one, whichever comes first."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from artifactfs.journal.drafts import Staged
from artifactfs.journal.staging import Staging
from tests.vfs.world import BOTH, EMPTY, World


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

    async with trio.open_nursery() as nursery:
        async with edit.lock:
            for _ in range(100):  # the save of a file waits for the lock at its end, that of a tree does not
                grown.clock.jump(0.1)
                await trio.testing.wait_all_tasks_blocked()
                await trio.to_thread.run_sync(threading.Event().wait, 0.002)
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
            trio.from_thread.run(grown.elapse, 5)
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
