"""Programs that work in one tree, or on files of a workflow; the service fails, and the mount is killed in between.

Each life of the mount is a process of its own that is killed as ``kill -9`` does it, at any step: of a task, or of what
a thread does to the disk. What was acknowledged before is what the next life shows, and in the end what the store has.
A few storms each time, unless ``ARTIFACTFS_TEST_EXAMPLES`` asks for more; threads make each of them another one.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import shutil
import signal
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from artifactfs import errors
from artifactfs.journal.drafts import Staged
from artifactfs.journal.records import Journal
from tests.support.examples import EXAMPLES
from tests.vfs.bad_weather import RATE
from tests.vfs.history import History, Log, Value
from tests.vfs.test_saving_storm import DIRECTORIES, NAMES, Storm, above
from tests.vfs.world import BOTH, EMPTY, World, grow, opened

PROGRAMS, STEPS, KILLS = 5, 15, 4
# Steps of a life: it is killed at one of them, or when its programs are done.
MOST_STEPS = 2300
# To see what a life began with; for who looks for the cause of a failure.
KEEP = "ARTIFACTFS_TEST_KEEP_KILLED" in os.environ
LEAVES = (*NAMES, "e/f")


class Killer(trio.abc.Instrument):
    """Ends the process at one of its steps."""

    def __init__(self, at: int) -> None:
        self.left, self.is_on = at, False

    def before_task_step(self, _task: trio.lowlevel.Task) -> None:
        self.step()

    def step(self) -> None:
        self.left -= self.is_on
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self) -> None:
        """Count what is done to the disk, too; only in a process that ends with its life."""
        for owner, name in ((Journal, "put"), (Staged, "delete"), (Staged, "sync"), (Journal, "_commit")):
            setattr(owner, name, self._around(getattr(owner, name)))

    def _around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*args: Any, **more: Any) -> Any:
            self.step()
            answer = real(*args, **more)
            self.step()
            return answer

        return stepping


class Told(Storm):
    """Programs whose operations are written down, and each of which writes whole files that nobody else writes."""

    def __init__(self, world: World, seed: int, log: Log, life: int) -> None:
        super().__init__(world, seed)
        self.log, self.life, self.count = log, life, 0

    def above(self, path: str) -> list[str]:
        return above(path)

    @contextlib.asynccontextmanager
    async def told(self, kind: str, *paths: str) -> Any:
        number = self.log.begin(kind, *paths)
        try:
            yield
        except errors.ArtifactFSError as error:
            self.log.end(number, type(error).__name__)
            raise
        self.log.end(number)

    async def write(self) -> None:
        path, fs = self.path(), self.world.fs
        self.count += 1
        value = f"{self.life}-{self.count:04}"
        flags = self.chance.choice([BOTH, EMPTY, EMPTY])
        number = self.log.begin("anew" if flags == EMPTY else "write", path, value=value)
        is_told = False
        try:
            handle = await self._open(path, flags)
        except errors.ArtifactFSError as error:
            self.log.end(number, type(error).__name__)
            raise
        failure = ""
        try:
            await self._pause(2)
            self.log.writes(number)
            fs.write(handle, 0, value.encode())
            self.log.wrote(number)
            await self._pause(1)
            await fs.flush(handle)
            if self.chance.random() < 0.5:
                self.log.end(number)
                is_told = True
                await self._pause(2)
        except (errors.ArtifactFSError, OSError) as error:
            failure = type(error).__name__
            raise
        finally:
            try:
                await fs.flush(handle)
            except (errors.ArtifactFSError, OSError) as error:
                failure = type(error).__name__
                raise
            finally:
                await fs.release(handle)
                if not is_told:
                    self.log.end(number, failure)
                self.log.closed(number)

    async def unlink(self) -> None:
        path = self.path()
        async with self.holding(*self.above(path)):
            await self.world.look(path)
            async with self.told("unlink", path):
                await self.world.unlink(path)

    async def rename(self) -> None:
        old, new = self.path(), self.path()
        if old == new:
            return
        async with self.holding(*self.above(old), *self.above(new)):
            await self.world.look(old)
            async with self.told("rename", old, new):
                await self.world.rename(old, new)

    async def rmdir(self) -> None:
        path = f"w/t/{self.chance.choice(DIRECTORIES)}"
        async with self.holding("w/t", path):
            await self.world.look(path)
            async with self.told("rmdir", path):
                await self.world.rmdir(path)

    async def move(self) -> None:
        old, new = (f"w/t/{name}" for name in self.chance.sample(DIRECTORIES, 2))
        async with self.holding("w/t", old, new):
            await self.world.look(old)
            async with self.told("move", old, new):
                await self.world.rename(old, new)

    def ways(self) -> list[Callable[[], Awaitable[None]]]:
        return [*[self.write] * 8, *[self.unlink] * 2, *[self.rename] * 3, self.mkdir, self.rmdir, self.move]

    async def program(self) -> None:
        ways = self.ways()
        for _ in range(STEPS):
            with contextlib.suppress(errors.ArtifactFSError):
                await self.chance.choice(ways)()
            await self._pause(2)


class Listed(Told):
    """Programs that work on files of a workflow."""

    def above(self, path: str) -> list[str]:
        return [path.rpartition("/")[0]]

    def path(self) -> str:
        return f"w/{self.chance.choice(NAMES)}"

    def ways(self) -> list[Callable[[], Awaitable[None]]]:
        return [*[self.write] * 6, *[self.unlink] * 2, *[self.rename] * 2]

    async def _open(self, path: str, flags: int) -> int:
        with contextlib.suppress(errors.NotFound):
            return await self._open_there(path, flags)
        async with self.holding("w"):
            with contextlib.suppress(errors.NotFound):
                return (await self.world.fs.open((await self.world.look(path)).ino, flags)).handle
            return await self.world.create(path)

    async def _open_there(self, path: str, flags: int) -> int:
        async with self.holding("w"):
            node = await self.world.look(path)
        await self._pause(0.1)
        return (await self.world.fs.open(node.ino, flags)).handle


class Lives:
    """A mount that is killed, again and again."""

    def __init__(self, where: Path, seed: int, storm: type[Told], top: str) -> None:
        self.where, self.chance, self.storm, self.top = where, random.Random(seed), storm, top
        self.history = History(LEAVES, are_alone=top == "w")
        self.paths = [f"{top}/{name}" for name in NAMES]
        if top == "w/t":
            self.paths += [f"{top}/{d}/{n}" for d in DIRECTORIES for n in LEAVES]
        self.number = 0

    def live(self, *, last: bool = False) -> None:
        """Live once more, in a process of its own, and see that nothing was lost or found that was not there."""
        self.number += 1
        log = self.where / f"{self.number}.log"
        seed, at = self.chance.random(), self.chance.randint(1, MOST_STEPS)
        if KEEP and self.number > 1:
            shutil.copytree(self.where / "world", self.where / f"image-{self.number}", symlinks=True)
        pid = os.fork()
        if pid == 0:
            self._be(log, int(seed * 1e9), 0 if last else at, last=last)
        _, status = os.waitpid(pid, 0)
        said = log.read_text() if log.exists() else ""
        assert status == (0 if last else signal.SIGKILL), (status, said[-3000:])
        assert '"bad"' not in said, said
        self.history.read(log)
        self.history.work_out()

    def _be(self, log: Path, seed: int, at: int, *, last: bool) -> None:
        code = 1
        try:
            gc.freeze()  # what is garbage of the parent's is its own
            self.killer = killer = Killer(at)
            killer.is_on = self.number > 1  # what the programs begin with is there, and said
            if at:
                killer.watch()
            told = Log(log)
            handler = logging.Handler(logging.ERROR)
            handler.emit = lambda record: told.say("bad", 0, logging.Formatter().format(record))  # type: ignore[method-assign]
            logging.getLogger().addHandler(handler)
            clock = trio.testing.MockClock()
            trio.run(self._life, told, seed, last, clock=clock, instruments=[killer] if at else [])
            code = 0
        except BaseException:  # noqa: BLE001 - the parent is told
            Log(log).say("bad", 0, traceback.format_exc())
        finally:
            os._exit(code)

    async def _life(self, log: Log, seed: int, last: bool) -> None:
        async with opened(self.where / "world") as world:
            if self.number == 1:
                await world.mkdir("w")
                await (grow(world) if self.top == "w/t" else world.put("w/a", b"a"))
                await world.elapse()
            shown = await self.shown(world)
            if self.number > 1:
                wrong = self.history.wrong(shown, self.paths)
                wrong += [f"{path} is there" for path in set(shown) - set(self.paths)]
                if wrong:
                    log.say("bad", 0, {"at the beginning": wrong, "reports": world.reports})
                shown = await self._as_one(world, log, shown)
            log.say("seen", {path: shown.get(path) for path in self.paths})
            self.killer.is_on = True
            storm = self.storm(world, seed, log, self.number)
            world.clock.rate = RATE
            if not last:
                async with trio.open_nursery() as nursery:
                    for _ in range(PROGRAMS):
                        nursery.start_soon(storm.program)
                os.kill(os.getpid(), signal.SIGKILL)
            await storm.settled()
            self._end(world, log, shown, await self.shown(world))

    async def _as_one(self, world: World, log: Log, shown: dict[str, Value]) -> dict[str, Value]:
        """Wait until nothing is shown under two names; return what is shown then.

        A rename at the service that was cut off leaves its file with both until it is saved. Programs that change one
        of the names change the other one, too: no history says what comes of that.
        """
        twice = self.history.twice(shown)
        if not twice:
            return shown
        world.clock.rate = RATE
        await self.storm(world, 0, log, self.number).settled()
        ((old, new),) = twice
        moved = {path: value for path, value in shown.items() if path != old} | {new: shown[old]}
        if (now := await self.shown(world)) not in (shown, moved):
            log.say("bad", 0, {"of two names": twice, "shown": shown, "now": now, "reports": world.reports})
        return now

    async def shown(self, world: World) -> dict[str, Value]:
        """Return the files that the mount shows."""
        return {f"{self.top}/{p}": v.decode() for p, v in (await world.tree(self.top)).items() if v is not None}

    def stored(self, world: World) -> dict[str, Value]:
        """Return the files that the store has."""
        if self.top == "w/t":
            return {f"w/t/{path}": found.decode() for path, found in world.stored("t").items() if found is not None}
        return {
            f"w/{one.name}": world.store.objects.read(world.newest(one.id)).decode() for one in world.store.artifacts()
        }

    def _end(self, world: World, log: Log, began: dict[str, Value], shown: dict[str, Value]) -> None:
        # A rename that was cut off when the service had carried it out shows both names for a moment.
        if set(shown.values()) != set(began.values()) or not shown.items() <= began.items():
            log.say("bad", 0, {"began": began, "now": shown, "reports": world.reports})
        if shown != (stored := self.stored(world)):
            log.say("bad", 0, {"shown": shown, "stored": stored, "reports": world.reports})
        try:
            world.nothing_is_left()
        except AssertionError:
            log.say("bad", 0, traceback.format_exc())


PLACES: dict[str, tuple[type[Told], str]] = {"a tree": (Told, "w/t"), "files": (Listed, "w")}


@pytest.mark.parametrize("seed", range(EXAMPLES or 3))
@pytest.mark.parametrize("place", PLACES)
def test_programs_whose_mount_is_killed(tmp_path: Path, place: str, seed: int):
    """Each life shows what the one before has acknowledged; in the end the store has it, and nothing is left."""
    lives = Lives(tmp_path, seed, *PLACES[place])
    for number in range(KILLS + 1):
        lives.live(last=number == KILLS)
