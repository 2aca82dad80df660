"""Programs that work on files beside each other at the same time, while the store fails: nothing saved is lost.

Files that are artifacts of their own, alone and with files in a tree, from one to the other. The kernel's part is
played as it is: who looks a name up shares its directory with others who do, who makes, removes or renames has it
alone; who sets a length or writes has the inode alone; between looking up and opening anything may happen. What each
name stands for and what each inode holds is kept account of beside it, so whatever is shown is compared with what was
done. A few storms each time, unless ``ARTIFACTFS_TEST_EXAMPLES`` asks for more; threads make each of them another one.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from artifactfs import errors
from artifactfs.tree.nodes import Node
from artifactfs.vfs.handles import Change, WriteHandle
from tests.support.examples import EXAMPLES
from tests.vfs.bad_weather import RATE, BadWeather
from tests.vfs.world import BOTH, EMPTY, READ, World, opened

PROGRAMS, STEPS = 5, 20
LISTED, IN_TREE = ("w/f", "w/g", "w/h"), ("w/t/a", "w/t/b")
PLACES = {
    "one": LISTED[:1], "listed": LISTED, "mixed": (*LISTED[:2], *IN_TREE), "workflows": (*LISTED[:2], "v/f", "v/g"),
}  # fmt: skip


class Turns:
    """A directory's lock: shared by who looks names up, alone for who changes them."""

    def __init__(self) -> None:
        self._turn, self._looking, self._left = trio.Lock(), 0, trio.Event()

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        async with self._turn:
            self._looking += 1
        try:
            yield
        finally:
            self._looking -= 1
            self._left.set()

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self._turn:
            while self._looking:
                self._left = trio.Event()
                await self._left.wait()
            yield


class Storm(BadWeather):
    """The programs, and what they share.

    Attributes:
        names: the inode that each path stands for.
        held: what each inode holds; None while it changes.
        used: inodes that somebody has looked up to do something with them, so many times.
        emptied: how often each inode was emptied by who opened it.
        cutting: inodes whose length is being set.
        wrong: what was shown otherwise than it is.
    """

    def __init__(self, world: World, seed: int, places: tuple[str, ...]) -> None:
        super().__init__(world, seed)
        self.places = places
        self.directories: defaultdict[str, Turns] = defaultdict(Turns)
        self.inodes: defaultdict[int, trio.Lock] = defaultdict(trio.Lock)
        self.names: dict[str, int] = {}
        self.held: dict[int, bytes | None] = {}
        self.used: Counter[int] = Counter()
        self.emptied: Counter[int] = Counter()
        self.cutting: set[int] = set()
        self.wrong: list[str] = []
        self.numbers = itertools.count(1)
        world.publisher.rename = partial(self._rename, world.publisher.real.rename)  # type: ignore[attr-defined]

    async def _rename(self, real: Callable[..., Any], *args: Any) -> Any:
        """Rename at the service: its answer is never lost, for who loses it cannot know what he has."""
        await self._pause(2)
        if self.chance.random() < 0.25 and not self.is_calm:
            raise errors.Unavailable("refused")
        answer = await real(*args)
        await self._pause(2)
        return answer

    @contextlib.asynccontextmanager
    async def alone(self, *paths: str) -> AsyncIterator[None]:
        """Have the directories of some paths for oneself, as the kernel gives them to who changes names."""
        async with contextlib.AsyncExitStack() as held:
            for directory in sorted({path.rpartition("/")[0] for path in paths}):
                await held.enter_async_context(self.directories[directory].alone())
            yield

    @contextlib.asynccontextmanager
    async def at(self, path: str) -> AsyncIterator[int]:
        """Have the inode that a path stands for, which is not forgotten meanwhile, but may be moved or removed."""
        async with self.directories[path.rpartition("/")[0]].looking():
            ino = (await self.look(path)).ino
            self.used[ino] += 1
        try:
            yield ino
        finally:
            self.used[ino] -= 1

    def forget(self, path: str) -> None:
        """Forget an inode that nobody uses at this moment, as the kernel does when it wants room."""
        node = self.world.fs.inodes.get(self.names.get(path, 0))
        if node is not None and not node.handles and not self.used[node.ino] and not self.inodes[node.ino].locked():
            self.world.fs.forget(node.ino, node.nlookup)

    async def look(self, path: str) -> Node:
        """Look a path up, its directory in hand: it stands for what was done with its name last."""
        try:
            node = await self.world.look(path)
        except errors.NotFound:
            if path in self.names:
                self.wrong.append(f"{path} is not shown")
            raise
        if self.names.get(path) != node.ino:
            self.wrong.append(f"{path} is shown as {node.ino}, and is {self.names.get(path)}")
        return node

    # -- what programs do ------------------------------------------------------------------------------------

    async def write(self, path: str, flags: int = 0) -> None:
        """Open a file, or make it; write, flush and set its time now and then; close it. Or write nothing at all."""
        handle = await self._open(path, flags or self.chance.choice([BOTH, BOTH, EMPTY]))
        fs = self.world.fs
        try:
            for _ in range(self.chance.randint(0, 2)):
                await self._pause(2)
                edit = fs.handles.get(handle, WriteHandle).edit
                ino, data = edit.node.ino, self.chance.randbytes(self.chance.randint(1, 9))
                async with self.inodes[ino]:
                    fs.write(handle, edit.staged.size, data)
                    before = self.held[ino]
                    self.held[ino] = None if before is None else before + data
                if self.chance.random() < 0.5:
                    await fs.flush(handle)
                if self.chance.random() < 0.2:
                    change = Change(mtime_ns=self.chance.randint(1, 10**18), executable=self.chance.random() < 0.5)
                    async with self.inodes[ino]:
                        await fs.setattr(ino, change, handle)
        finally:
            await self._close(handle)

    async def _close(self, handle: int) -> None:
        try:
            await self.world.fs.flush(handle)
        finally:
            await self.world.fs.release(handle)

    async def _open(self, path: str, flags: int) -> int:
        with contextlib.suppress(errors.NotFound):
            return await self._open_there(path, flags)
        async with self.alone(path):
            if path not in self.names:
                handle = await self.world.create(path)
                ino = self.world.fs.handles.any(handle).node.ino
                self.names[path], self.held[ino] = ino, b""
                return handle
        return await self._open_there(path, flags)

    async def _open_there(self, path: str, flags: int) -> int:
        """Look a file up, and open it then: between the two it may be moved or removed."""
        async with self.at(path) as ino:
            await self._pause(0.1)
            return await self._open_inode(ino, flags)

    async def _open_inode(self, ino: int, flags: int) -> int:
        handle = (await self.world.fs.open(ino, flags)).handle
        if flags == EMPTY:
            # Who sets a length at the same time may be before or after that.
            self.held[ino], self.emptied[ino] = None if ino in self.cutting else b"", self.emptied[ino] + 1
        elif flags == BOTH:
            staged, held = self.world.fs.handles.get(handle, WriteHandle).edit.staged, self.held[ino]
            if held is not None and staged.read(0, 1000) != held:
                self.wrong.append(f"{ino} is opened as {staged.read(0, 1000)!r}, and is {held!r}")
        return handle

    async def read(self, path: str) -> None:
        handle = await self._open_there(path, READ)
        await self._pause(1)
        ino = self.world.fs.handles.any(handle).node.ino
        before = self.held[ino]
        found = await self.world.fs.read(handle, 0, 1000)
        if before is not None and before == self.held[ino] != found:
            self.wrong.append(f"{ino} is read as {found!r}, and is {before!r}")
        await self.world.fs.release(handle)

    async def cut(self, path: str) -> None:
        size = self.chance.randint(0, 3)
        async with self.at(path) as ino, self.inodes[ino]:
            before, emptied = self.held[ino], self.emptied[ino]
            self.held[ino] = None
            self.cutting.add(ino)
            try:
                await self.world.fs.setattr(ino, Change(size=size), None)
            finally:
                self.cutting.discard(ino)
            if self.emptied[ino] == emptied and (before is not None or not size):
                self.held[ino] = (before or b"")[:size].ljust(size, b"\0")

    async def chmod(self, path: str) -> None:
        async with self.at(path) as ino, self.inodes[ino]:
            await self.world.fs.setattr(ino, Change(executable=self.chance.random() < 0.5), None)

    async def unlink(self, path: str) -> None:
        async with self.alone(path):
            await self.look(path)
            await self.world.unlink(path)
            del self.names[path]

    async def rename(self, old: str, new: str) -> None:
        if old == new:
            return
        async with self.alone(old, new):
            await self.look(old)
            with contextlib.suppress(errors.NotFound):
                await self.look(new)
            await self.world.rename(old, new)
            self.names[new] = self.names.pop(old)

    async def replace(self, path: str) -> None:
        """Save as an editor does: into a temporary file, which is renamed."""
        other = f"{path.rpartition('/')[0]}/new-{next(self.numbers)}{self.chance.choice(['.tmp', '~', ''])}"
        await self.write(other, BOTH)
        await self._pause(2)
        try:
            await self.rename(other, path)
        except errors.ArtifactFSError:
            await self.unlink(other)
            raise

    async def program(self) -> None:
        ways: list[Callable[[str], Awaitable[None]]] = [
            *[self.write] * 8, *[self.replace] * 3, self.read, self.cut, self.chmod, *[self.unlink] * 2,
            *[lambda path: self.rename(path, self.chance.choice(self.places))] * 3,
        ]  # fmt: skip
        for _ in range(STEPS):
            with contextlib.suppress(errors.ArtifactFSError):
                await self.chance.choice(ways)(self.chance.choice(self.places))
            self.forget(self.chance.choice(self.places))
            await self._pause(3)

    # -- the end ---------------------------------------------------------------------------------------------

    def expected(self) -> dict[str, bytes | None]:
        """Return what each path holds."""
        return {path: self.held[ino] for path, ino in self.names.items()}

    async def shown(self) -> dict[str, bytes]:
        """Return what is shown, by path."""
        found = {f"{top}/{path}": held for top in ("v", "w") for path, held in (await self.world.tree(top)).items()}
        return {path: held for path, held in found.items() if held is not None}

    def stored(self) -> dict[str, bytes]:
        """Return what the store has, by path."""
        store = self.world.store
        titles = {workflow.id: workflow.name for workflow in store.workflows()}
        files = {f"{titles[one.workflow_id]}/{one.name}": one for one in store.artifacts() if one.kind == "file"}
        newest = {path: store.version(one.id, one.current) for path, one in files.items()}
        found = {path: store.objects.read(version.sha256 or "") for path, version in newest.items() if version}
        return {**found, **{f"w/t/{path}": held for path, held in self.world.stored("t").items()}}


@pytest.mark.parametrize("seed", range(EXAMPLES or 1))
@pytest.mark.parametrize("where", PLACES)
async def test_programs_beside_each_other(tmp_path: Path, standing_still: None, where: str, seed: int):
    """All that was done is shown, and the store has it in the end; nothing is left of it in memory or on the disk."""
    async with opened(tmp_path) as world:
        for path in ("v", "w", "w/t"):
            await world.mkdir(path)
        storm = Storm(world, seed, PLACES[where])
        world.clock.rate = RATE
        async with trio.open_nursery() as nursery:
            for _ in range(PROGRAMS):
                nursery.start_soon(storm.program)
        await storm.settled()
        assert storm.wrong == []
        assert not [str(one) for one in world.overlay.notices.values()]
        assert not [(edit.path, edit.number, edit.staged.writers, edit.error) for edit in world.overlay.edits.values()]
        assert not [(one.name, one.error) for one in world.overlay.removals.values()]
        shown = await storm.shown()
        assert shown == storm.stored()
        assert shown == {path: shown.get(path) if held is None else held for path, held in storm.expected().items()}
        world.nothing_is_left()
        assert world.home.used_bytes == 0
        assert len(world.fs.handles) == 0
