"""Programs that work in one tree at the same time, while its service fails: in the end all is saved, and nothing left.

The kernel's part is played as it is: one change of names in a directory at a time, a directory that is moved or removed
is held, a name is looked up before it is made. A few storms each time, unless ``ARTIFACTFS_TEST_EXAMPLES`` asks for
more; threads make each of them another one, so a seed says where to look and no more.
"""

from __future__ import annotations

import contextlib
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from artifactfs import errors
from artifactfs.vfs.handles import Change, WriteHandle
from tests.support.examples import EXAMPLES
from tests.vfs.world import BOTH, EMPTY, READ, World, grow, opened

PROGRAMS, STEPS = 5, 20
# Seconds that pass in one: a save that waits a second for more to come waits 5 ms.
RATE = 200.0
NAMES, DIRECTORIES = "abc", "dx"


def above(path: str) -> list[str]:
    """Return the directories in which names are looked up on the way to a path."""
    return sorted({"w/t", path.rpartition("/")[0]})


class Storm:
    """The programs, and what they share."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.chance = world, random.Random(seed)
        self.locks: defaultdict[str, trio.Lock] = defaultdict(trio.Lock)
        self.is_calm = False
        self._real = world.publisher._call
        world.publisher._call = self._call  # type: ignore[method-assign]  # the service, as it is today

    async def _call(self, name: str, real: Callable[..., Any], *args: Any, **more: Any) -> Any:
        luck = 1.0 if self.is_calm else self.chance.random()
        if luck < 0.25:
            await self._pause(2)
            raise errors.Unavailable("refused")
        await self._pause(3)
        answer = await self._real(name, real, *args, **more)
        if luck < 0.4:
            raise errors.Unavailable("the answer is lost")
        await self._pause(3)
        return answer

    async def _pause(self, most_s: float) -> None:
        if not self.is_calm and self.chance.random() < 0.6:
            await trio.sleep(self.chance.random() * most_s)

    @contextlib.asynccontextmanager
    async def holding(self, *paths: str) -> AsyncIterator[None]:
        """Have directories for oneself, as the kernel gives them to who changes names."""
        async with contextlib.AsyncExitStack() as held:
            for path in sorted(set(paths)):
                await held.enter_async_context(self.locks[path])
            yield

    def path(self) -> str:
        directory = self.chance.choice(["w/t", *(f"w/t/{name}" for name in DIRECTORIES)])
        return f"{directory}/{self.chance.choice(NAMES)}"

    # -- what programs do ------------------------------------------------------------------------------------

    async def write(self) -> None:
        """Open a file, or make it; write, flush and set its time now and then; close it. Or write nothing at all."""
        path, flags = self.path(), self.chance.choice([BOTH, BOTH, EMPTY])
        handle = await self._open(path, flags)
        fs = self.world.fs
        try:
            for _ in range(self.chance.randint(0, 2)):
                await self._pause(2)
                edit = fs.handles.get(handle, WriteHandle).edit
                fs.write(handle, edit.staged.size, self.chance.randbytes(self.chance.randint(1, 9)))
                if self.chance.random() < 0.5:
                    await fs.flush(handle)
                if self.chance.random() < 0.2:
                    await fs.setattr(edit.node.ino, Change(mtime_ns=self.chance.randint(1, 10**18)), handle)
        finally:
            try:
                await fs.flush(handle)
            finally:
                await fs.release(handle)

    async def _open(self, path: str, flags: int) -> int:
        with contextlib.suppress(errors.NotFound):
            return await self._open_there(path, flags)
        async with self.holding(*above(path)):
            with contextlib.suppress(errors.NotFound):
                return (await self.world.fs.open((await self.world.look(path)).ino, flags)).handle
            return await self.world.create(path)

    async def _open_there(self, path: str, flags: int) -> int:
        """Look a file up, and open it then: between the two it may be moved or removed."""
        async with self.holding(*above(path)):
            node = await self.world.look(path)
        await self._pause(0.1)
        return (await self.world.fs.open(node.ino, flags)).handle

    async def read(self) -> None:
        handle = await self._open_there(self.path(), READ)
        await self._pause(1)
        await self.world.fs.read(handle, 0, 100)
        await self.world.fs.release(handle)

    async def cut(self) -> None:
        path = self.path()
        async with self.holding(*above(path)):
            node = await self.world.look(path)
        await self.world.fs.setattr(node.ino, Change(size=self.chance.randint(0, 3)), None)

    async def unlink(self) -> None:
        path = self.path()
        async with self.holding(*above(path)):
            await self.world.unlink(path)

    async def rename(self) -> None:
        old, new = self.path(), self.path()
        async with self.holding(*above(old), *above(new)):
            await self.world.rename(old, new)

    async def mkdir(self) -> None:
        path = f"w/t/{self.chance.choice(DIRECTORIES)}"
        async with self.holding("w/t"):
            with contextlib.suppress(errors.NotFound):
                await self.world.look(path)
                return
            await self.world.mkdir(path)

    async def rmdir(self) -> None:
        path = f"w/t/{self.chance.choice(DIRECTORIES)}"
        async with self.holding("w/t", path):
            await self.world.rmdir(path)

    async def move(self) -> None:
        old, new = (f"w/t/{name}" for name in self.chance.sample(DIRECTORIES, 2))
        async with self.holding("w/t", old, new):
            await self.world.rename(old, new)

    async def program(self) -> None:
        ways: list[Callable[[], Awaitable[None]]] = [
            *[self.write] * 9, self.read, self.cut, *[self.unlink] * 2, *[self.rename] * 2, self.mkdir, self.rmdir,
            self.move,
        ]  # fmt: skip
        for _ in range(STEPS):
            with contextlib.suppress(errors.ArtifactFSError):
                await self.chance.choice(ways)()
            await self._pause(3)

    # -- the end ---------------------------------------------------------------------------------------------

    async def settled(self) -> None:
        """Let the service work, and wait until it has everything."""
        self.is_calm = True
        overlay = self.world.overlay
        with trio.move_on_after(300):
            while overlay.edits or overlay.trees or overlay.removals:
                self.world.fs.writer.writeback.hurry()
                await trio.sleep(2)
        self.world.clock.rate = 0.0
        await self.world.settle()


@pytest.mark.parametrize("seed", range(EXAMPLES or 4))
async def test_programs_in_one_tree(tmp_path: Path, standing_still: None, seed: int):
    """Everything that is shown in the end is what the store has; no edit, record, draft or handle is left."""
    async with opened(tmp_path) as world:
        await world.mkdir("w")
        await grow(world)
        storm = Storm(world, seed)
        world.clock.rate = RATE
        async with trio.open_nursery() as nursery:
            for _ in range(PROGRAMS):
                nursery.start_soon(storm.program)
        await storm.settled()
        shown, stored = await world.tree("w/t"), world.stored("t")
        assert {path: found for path, found in shown.items() if found is not None} == {
            path: found for path, found in stored.items() if found is not None
        }
        assert not [name for name in shown if "conflict" in name], "nobody else has written here"
        assert not [str(one) for one in world.overlay.notices.values()]
        assert not [(edit.path, edit.number, edit.staged.writers, edit.error) for edit in world.overlay.edits.values()]
        assert not [(tree.names, tree.error) for tree in world.overlay.trees.values()]
        world.nothing_is_left()
        assert world.home.used_bytes == 0
        assert len(world.fs.handles) == 0
