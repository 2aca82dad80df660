"""Random changes of a tree against a dictionary: as it is shown, as the store has it, and after a kill.

The same examples each time, unless ``ARTIFACTFS_TEST_EXAMPLES`` asks for that many new ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactfs import errors
from tests.support.examples import EXAMPLES
from tests.vfs.world import BOTH, World, opened

Tree = dict[str, Any]
# A few names, so that the operations meet.
NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), PATHS, st.binary(min_size=1, max_size=3)),
        st.tuples(st.just("append"), PATHS, st.binary(min_size=1, max_size=3)),
        st.tuples(st.just("mkdir"), PATHS, st.none()),
        st.tuples(st.just("rmdir"), PATHS, st.none()),
        st.tuples(st.just("unlink"), PATHS, st.none()),
        st.tuples(st.just("rename"), PATHS, PATHS),
        st.tuples(st.just("symlink"), PATHS, st.just("x")),
        st.tuples(st.just("publish"), st.none(), st.none()),
        st.tuples(st.just("begin"), st.none(), st.none()),
        st.tuples(st.just("fail"), st.none(), st.none()),
        st.tuples(st.just("lose"), st.none(), st.none()),
        st.tuples(st.just("kill"), st.none(), st.none()),
    ),
    max_size=14,
)
FILE_STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["put", "append"]), NAMES, st.binary(min_size=1, max_size=3)),
        st.tuples(st.just("unlink"), NAMES, st.none()),
        st.tuples(st.just("rename"), NAMES, NAMES),
        st.tuples(st.sampled_from(["publish", "begin", "fail", "lose", "kill"]), st.none(), st.none()),
    ),
    max_size=14,
)
PUBLISHING = {"publish", "begin", "fail", "lose", "kill"}


def above(path: str) -> str:
    return path.rpartition("/")[0]


def below(tree: Tree, path: str) -> list[str]:
    return [one for one in tree if one.startswith(f"{path}/")]


def is_directory(tree: Tree, path: str) -> bool:
    return not path or (path in tree and tree[path] is None)


def model(tree: Tree, what: str, path: str, more: Any) -> bool:
    """Do one step to the dictionary; tell whether it is possible."""
    if not is_directory(tree, above(path)):
        return False
    there, is_link = path in tree, isinstance(tree.get(path), str)
    match what:
        case "put" | "append" if not is_directory(tree, path) and not is_link and (there or what == "put"):
            tree[path] = more if what == "put" else tree[path] + more
        case "mkdir" if not there:
            tree[path] = None
        case "symlink" if not there:
            tree[path] = more
        case "rmdir" if is_directory(tree, path) and not below(tree, path):
            del tree[path]
        case "unlink" if there and not is_directory(tree, path):
            del tree[path]
        case "rename" if there:
            return _rename(tree, path, more)
        case _:
            return False
    return True


def _rename(tree: Tree, old: str, new: str) -> bool:
    into_itself = new == old or new.startswith(f"{old}/")
    if into_itself or not is_directory(tree, above(new)):
        return False
    if new in tree and (is_directory(tree, new) != is_directory(tree, old) or below(tree, new)):
        return False
    tree.pop(new, None)
    for path in [old, *below(tree, old)]:
        tree[new + path[len(old) :]] = tree.pop(path)
    return True


async def change(world: World, place: str, what: str, name: str, more: Any) -> None:
    """Do one step to the filesystem."""
    path = f"{place}/{name}"
    match what:
        case "put":
            await world.put(path, more)
        case "append":
            handle = await world.open(path, BOTH)
            size = len(await world.fs.read(handle, 0, 1 << 20))
            world.fs.write(handle, size, more)
            await world.close(handle)
        case "mkdir":
            await world.mkdir(path)
        case "symlink":
            await world.symlink(path, more)
        case "rmdir":
            await world.rmdir(path)
        case "unlink":
            await world.unlink(path)
        case _:
            try:
                await world.rename(path, f"{place}/{more}")
            except errors.Unreachable:  # of the removal that the new name waits for: whoever asked tries again
                await world.rename(path, f"{place}/{more}")


async def publish(world: World, how: str) -> None:
    """Let a version be made, begin one and let it go on, or let one fail."""
    match how:
        case "publish":
            await world.elapse(5)
        case "begin":
            if world.publisher.held or not world.overlay.jobs():
                return
            held = world.publisher.next(held=True)
            world.clock.jump(2)
            await trio.testing.wait_all_tasks_blocked()
            held.go.set()  # it waits for nothing, but others come in between
        case _:
            world.publisher.next(error=errors.Unreachable("no network"), lost=how == "lose")


async def tell(where: Path, place: str, steps: list[tuple[str, Any, Any]]) -> None:
    """Do all steps, with a new filesystem after each kill, and compare what is shown with the dictionary."""
    tree: Tree = {}
    rest = iter(steps)
    has_ended = False
    while not has_ended:
        async with opened(where) as world:
            if not world.store.workflows():
                for path in ("w", "w/t")[: 2 if place == "w/t" else 1]:
                    await world.mkdir(path)
            assert await world.tree(place) == tree
            for what, path, more in rest:
                if what == "kill":
                    break
                if what in PUBLISHING:
                    await publish(world, what)
                elif model(tree, what, path, more):
                    await change(world, place, what, path, more)
                assert await world.tree(place) == tree, (what, path, more)
            else:
                has_ended = True
                world.publisher.plan.clear()
                await world.elapse(200)
                assert await world.tree(place) == tree
                assert (world.stored("t") if place == "w/t" else files(world)) == tree
                assert [report for report in world.reports if "no network" not in report] == []
                world.nothing_is_left()


def files(world: World) -> Tree:
    """Return the newest content of each file in the store."""
    return {one.name: world.store.objects.read(world.newest(one.id)) for one in world.store.artifacts()}


def run(work: Callable[..., Any], *args: Any) -> None:
    trio.run(work, *args, clock=trio.testing.MockClock())


@settings(max_examples=EXAMPLES or 60, derandomize=not EXAMPLES)
@given(STEPS)
def test_a_tree_is_what_was_done_to_it(steps: list[tuple[str, Any, Any]]):
    """Whatever is done, published, lost and killed: shown, stored and recovered is the same."""
    with tempfile.TemporaryDirectory() as where:
        run(tell, Path(where), "w/t", steps)


@settings(max_examples=EXAMPLES or 60, derandomize=not EXAMPLES)
@given(FILE_STEPS)
def test_files_are_what_was_done_to_them(steps: list[tuple[str, Any, Any]]):
    """Artifacts of their own: whatever is done, published, lost and killed, nothing is lost or doubled."""
    with tempfile.TemporaryDirectory() as where:
        run(tell, Path(where), "w", steps)
