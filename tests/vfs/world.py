"""A filesystem over a real local store without a mount: what happens between two operations, provoked on purpose.

The kernel sends many operations at once; here they meet at the worst moment. Time stands still unless a test says
otherwise, and what goes to the store can be held, lost or made to fail.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio
import trio.testing

from artifactfs import errors
from artifactfs.content.block_store import BlockStore
from artifactfs.content.facts import Facts
from artifactfs.content.reader import ContentReader
from artifactfs.journal.records import Journal
from artifactfs.journal.staging import Staged, Staging
from artifactfs.model.entry import Artifact
from artifactfs.providers.local.provider import LocalProvider
from artifactfs.store.catalog import Store
from artifactfs.store.rows import StoredArtifact
from artifactfs.tree.inodes import ROOT
from artifactfs.tree.nodes import Kind, Node
from artifactfs.vfs.control_dir import ControlFiles
from artifactfs.vfs.filesystem import FileSystem
from artifactfs.vfs.overlay import Edit, Overlay, WorkTree
from artifactfs.vfs.recovery import recover
from artifactfs.vfs.sources import Source
from artifactfs.vfs.writeback import Policy

READ, WRITE, EMPTY, BOTH = os.O_RDONLY, os.O_WRONLY, os.O_WRONLY | os.O_TRUNC, os.O_RDWR
# Longer than a quiet period and than the store's listings are believed.
LATER_S = 2.0
SAVES = frozenset({"create_file", "save_file", "save_tree", "remove"})


@dataclass(slots=True)
class Step:
    """What happens to one call: it is held before or after the real one, or its answer is an error.

    Attributes:
        error: raised instead of the call, or of its answer if ``lost``.
        lost: the call is made, its answer never comes.
        reached: set when the call is there.
        go: what a held call waits for.
        meanwhile: awaited before the real call.
        only: the name that it is for; other calls pass.
        answer: given instead of the real answer, without the call.
    """

    error: Exception | None = None
    lost: bool = False
    held: bool = False
    held_after: bool = False
    reached: trio.Event = field(default_factory=trio.Event)
    go: trio.Event = field(default_factory=trio.Event)
    meanwhile: Callable[[], Any] | None = None
    answer: Callable[..., Any] | None = None
    only: str = ""


class Publisher:
    """The real publisher, with a plan for its next calls and a list of those that were made."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.calls: list[str] = []
        self.asked: list[tuple[str, ...]] = []
        self.plan: list[Step] = []
        self.held = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.real, name)
        return partial(self._call, name, found) if name in SAVES else found

    def next(self, **how: Any) -> Step:
        """Plan the call after those that are planned already."""
        self.plan.append(Step(**how))
        return self.plan[-1]

    async def _call(self, name: str, real: Callable[..., Any], *args: Any, **more: Any) -> Any:
        path = args[0].path[-1:] if isinstance(args[0], Artifact) else args[1]
        self.calls.append(name)
        self.asked.append(path)
        step = Step()
        if self.plan and self.plan[0].only in {"", *path}:
            step = self.plan.pop(0)
        if not (step.held or step.held_after):
            step.reached.set()
        if step.held:
            await self._hold(step)
        if step.meanwhile is not None:
            await step.meanwhile()
        if step.error is not None and not step.lost:
            raise step.error
        answer = step.answer(*args) if step.answer is not None else await real(*args, **more)
        if step.held_after:
            await self._hold(step)
        if step.error is not None:
            raise step.error
        return answer

    async def _hold(self, step: Step) -> None:
        self.held += 1
        step.reached.set()
        await step.go.wait()
        self.held -= 1


@dataclass
class World:
    """A filesystem, with the few operations of the kernel that the tests need."""

    fs: FileSystem
    store: Store
    home: Staging
    publisher: Publisher
    clock: trio.testing.MockClock
    publishing: trio.CancelScope
    reports: list[str]

    @property
    def overlay(self) -> Overlay:
        return self.fs.writer.overlay

    # -- the kernel's operations -----------------------------------------------------------------------------

    async def look(self, path: str) -> Node:
        """Look a path up as the kernel does, counting."""
        node = self.fs.node(ROOT)
        for name in filter(None, path.split("/")):
            node = await self.fs.lookup(node.ino, name)
            self.fs.accepted(node)
        return self.fs.node(node.ino)

    async def above(self, path: str) -> tuple[int, str]:
        parent, _, name = path.rpartition("/")
        return (await self.look(parent)).ino, name

    async def mkdir(self, path: str) -> Node:
        node = await self.fs.mkdir(*await self.above(path))
        self.fs.accepted(node)
        return node

    async def create(self, path: str, data: bytes = b"") -> int:
        """Make a file and write to it; return the handle."""
        node, handle = await self.fs.create(*await self.above(path), executable=False)
        self.fs.accepted(node)
        self.fs.write(handle, 0, data)
        return handle

    async def open(self, path: str, flags: int) -> int:
        return (await self.fs.open((await self.look(path)).ino, flags)).handle

    async def close(self, handle: int) -> None:
        await self.fs.flush(handle)
        await self.fs.release(handle)

    async def put(self, path: str, data: bytes) -> None:
        """Write a whole file, new or not."""
        try:
            handle = await self.open(path, EMPTY)
            self.fs.write(handle, 0, data)
        except errors.NotFound:
            handle = await self.create(path, data)
        await self.close(handle)

    async def read(self, path: str) -> bytes:
        handle = await self.open(path, READ)
        data = await self.fs.read(handle, 0, 1 << 20)
        await self.fs.release(handle)
        return data

    async def unlink(self, path: str) -> None:
        await self.fs.unlink(*await self.above(path))

    async def rmdir(self, path: str) -> None:
        await self.fs.rmdir(*await self.above(path))

    async def rename(self, old: str, new: str) -> None:
        await self.fs.rename(await self.above(old), await self.above(new), replace=True)

    async def symlink(self, path: str, target: str) -> None:
        self.fs.accepted(await self.fs.symlink(*await self.above(path), target))

    async def names(self, path: str) -> set[str]:
        handle = await self.fs.opendir((await self.look(path)).ino)
        found = {node.name for _, node, _ in self.fs.readdir(handle)}
        await self.fs.release(handle)
        return found - {"by-id"}

    async def tree(self, path: str) -> dict[str, Any]:
        """Return what a directory shows below it: bytes of files, targets of links, None for directories."""
        found: dict[str, Any] = {}
        for name in await self.names(path):
            node = await self.look(f"{path}/{name}")
            if node.kind is Kind.DIRECTORY:
                found[name] = None
                found.update({f"{name}/{below}": what for below, what in (await self.tree(f"{path}/{name}")).items()})
            else:
                found[name] = node.target if node.kind is Kind.SYMLINK else await self.read(f"{path}/{name}")
        return found

    # -- publishing ------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Wait until nothing that can go on without time passing or a held call going on is under way."""
        writeback = self.fs.writer.writeback
        while True:
            await trio.testing.wait_all_tasks_blocked()
            if sum(writeback._busy.values()) == self.publisher.held:
                return
            await trio.to_thread.run_sync(threading.Event().wait, 0.002)

    async def elapse(self, seconds: float = LATER_S) -> None:
        """Let time pass, in steps, and all be published that is due meanwhile."""
        while seconds > 0:
            step = min(seconds, max(0.5, seconds / 100))
            self.clock.jump(step)
            await self.settle()
            seconds -= step

    async def reach(self, step: Step) -> None:
        """Let time pass until a planned call is there."""
        for _ in range(10_000):
            if step.reached.is_set():
                return
            self.clock.jump(0.1)
            await trio.testing.wait_all_tasks_blocked()
            await trio.to_thread.run_sync(threading.Event().wait, 0.002)
        raise TimeoutError

    def stop_publishing(self) -> None:
        """Publish nothing by itself any more."""
        self.publishing.cancel()

    # -- what is there ---------------------------------------------------------------------------------------

    def artifact(self, name: str, *, deleted: bool = False) -> StoredArtifact:
        (found,) = [one for one in self.store.artifacts(deleted=deleted) if one.name == name]
        return found

    def versions(self, name: str) -> list[bytes]:
        """Return what the store has of a file, removed or not, oldest first."""
        artifact = self.artifact(name, deleted=True)
        return [self.store.objects.read(version.sha256 or "") for version in self.store.versions(artifact.id)]

    def newest(self, artifact_id: str) -> str:
        return self.store.versions(artifact_id)[-1].sha256 or ""

    def stored(self, name: str) -> dict[str, Any]:
        """Return the newest version of a tree as ``tree`` does, with the directories that its files imply."""
        artifact, found = self.artifact(name), dict[str, Any]()
        for file in self.store.tree(artifact.id, artifact.current):
            above = file.path.split("/")[:-1]
            found.update({"/".join(above[:depth]): None for depth in range(1, len(above) + 1)})
            content = self.store.objects.read(file.sha256) if file.sha256 else None
            found[file.path] = file.target or content
        return found

    def edit(self, name: str) -> Edit:
        (found,) = [edit for edit in self.overlay.edits.values() if edit.node.name == name]
        return found

    def work(self) -> WorkTree:
        (found,) = self.overlay.trees.values()
        return found

    def drafts(self) -> list[str]:
        return sorted(path.name for path in self.home.root.glob("*.draft"))

    def nothing_is_left(self) -> None:
        """Check that nothing grows with what was done: neither in memory nor on the disk."""
        overlay = self.overlay
        left = (overlay.edits, overlay.trees, overlay.removals, overlay._names, overlay.notices)
        assert left == ({}, {}, {}, {}, {})
        assert self.home.journal.numbers() == []
        assert self.drafts() == []


@asynccontextmanager
async def opened(where: Path, *, policy: Policy | None = None, publishing: bool = True) -> AsyncIterator[World]:
    """Have a filesystem as a mount has it; its end is that of a killed one."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock), "the test has not asked for standing_still"
    store = Store(where / "store")
    # Of this machine alone: what is killed does not share it.
    scratch = Path(_fresh(where / "scratch"))
    facts, blocks = Facts(scratch / "facts.db"), BlockStore(scratch / "cache", 1 << 20, 0)
    provider = LocalProvider("mine", store)
    provider.publisher = publisher = Publisher(provider.publisher)
    left = Staging.abandoned(where / "drafts")
    home = left[0] if left else Staging.fresh(where / "drafts")
    reports: list[str] = []
    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        reader = ContentReader(
            nursery, blocks, facts, {"mine": provider}, local_path=provider.path, fingerprints={"mine": "fingerprint"}
        )
        fs = FileSystem(
            {"mine": Source("mine", provider, "fingerprint", 1)}, reader, {"mine": home}, ControlFiles(dict),
            single=True, policy=policy,
        )  # fmt: skip
        fs.writer.context.report = lambda _source, path, message: reports.append(f"{path}: {message}")
        await recover(fs.writer, "mine", home)
        if publishing:
            nursery.start_soon(_within, scope, fs.writer.writeback.keep_publishing)
        yield World(fs, store, home, publisher, clock, scope, reports)
        nursery.cancel_scope.cancel()
    reader.close()
    for edit in fs.writer.overlay.edits.values():
        for staged in filter(None, (edit.staged, edit.in_flight, edit.backup)):
            staged.close()
    home.close()
    for resource in (blocks, facts, store):
        resource.close()


async def _within(scope: trio.CancelScope, work: Callable[[], Any]) -> None:
    with scope:
        await work()


def _fresh(where: Path) -> Path:
    number = 1
    while (found := where / str(number)).exists():
        number += 1
    found.mkdir(parents=True)
    return found


# -- a tree --------------------------------------------------------------------------------------------------------

# What the fixture ``grown`` begins with.
BEGAN = {"a": b"a", "b": b"b", "d": None, "d/c": b"d/c", "d/e": None, "d/e/f": b"d/e/f"}


async def grow(world: World) -> None:
    """Have the tree ``t`` published as ``BEGAN`` says."""
    await world.mkdir("w/t")
    for path, content in BEGAN.items():
        await (world.mkdir(f"w/t/{path}") if content is None else world.put(f"w/t/{path}", content))
    await world.elapse()
    world.publisher.calls.clear()


def count(world: World) -> int:
    """Return how many versions the tree ``t`` has."""
    return len(world.store.versions(world.artifact("t").id))


async def agree(world: World, expected: Mapping[str, object]) -> None:
    """Check that all show the same of the tree ``t``: now, published, and the store itself."""
    assert await world.tree("w/t") == expected
    await world.elapse(5)
    assert await world.tree("w/t") == expected
    assert world.stored("t") == expected
    world.nothing_is_left()


# -- kills ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def images(where: Path, taken: Path) -> Iterator[list[Path]]:
    """Copy store and drafts before and after every step to the disk that the journal makes: what a kill would leave."""
    found: list[Path] = []

    def take() -> None:
        image = taken / str(len(found))
        for part in ("store", "drafts"):
            # A file that another thread takes away meanwhile was taken away.
            shutil.copytree(where / part, image / part, symlinks=True, copy_function=_copy)
        found.append(image)

    def around(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **more: Any) -> Any:
            take()
            try:
                return real(*args, **more)
            finally:
                take()

        return step

    with contextlib.ExitStack() as stack:
        for owner, name in ((Journal, "put"), (Staged, "delete"), (Staged, "sync")):
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, around(getattr(owner, name)))
        yield found


def _copy(source: str, target: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.copyfile(source, target)
