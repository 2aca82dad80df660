"""Programs that work in one tree at the same time, while its service fails: in the end all is saved, and nothing left.

The kernel's part is played as it is: one change of names in a directory at a time, a directory that is moved or removed
is held, a name is looked up before it is made. A few storms each time, unless ``ARTIFACTFS_TEST_EXAMPLES`` asks for
more; threads make each of them another one, so a seed says where to look and no more.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from artifactfs import errors
from artifactfs.vfs.handles import Change, WriteHandle
from tests.support.examples import EXAMPLES
from tests.vfs.bad_weather import RATE, BadWeather
from tests.vfs.world import BOTH, EMPTY, READ, World, grow, opened

PROGRAMS, STEPS = 5, 20
NAMES, DIRECTORIES = "abc", "dx"


def above(path: str) -> list[str]:
    """Return the directories in which names are looked up on the way to a path."""
    return sorted({"w/t", path.rpartition("/")[0]})


class Storm(BadWeather):
    """The programs, and what they share."""

    def __init__(self, world: World, seed: int) -> None:
        super().__init__(world, seed)
        self.locks: defaultdict[str, trio.Lock] = defaultdict(trio.Lock)

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
