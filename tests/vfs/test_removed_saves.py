"""A file that was removed while nobody knew whether the service has it, and what takes its name then.

No kill brings it back, however little of what has taken its name is durable.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.vfs.test_kills import save_without_answer, shown_after_a_kill
from tests.vfs.world import World, opened

pytestmark = pytest.mark.usefixtures("standing_still")


@asynccontextmanager
async def removed(where: Path) -> AsyncIterator[World]:
    """Have a file ``w/f`` whose save was answered by nobody, and which was removed then."""
    async with opened(where) as world:
        await save_without_answer(world)
        assert world.edit("f").tries == 1
        await world.unlink("w/f")
        yield world


async def nothing_comes_back(where: Path, *, left: dict[str, bytes]) -> None:
    assert await shown_after_a_kill(where, "w") == left
    async with opened(where) as world:
        await world.elapse(20)
        assert await world.tree("w") == left
        assert {one.name: world.store.objects.read(world.newest(one.id)) for one in world.store.artifacts()} == left
        world.nothing_is_left()


async def test_a_removed_file_takes_no_place_with_what_is_renamed_after_it(tmp_path: Path):
    """Of what is renamed nothing is durable: what was under its new name stays, not what was removed at the old one."""
    async with removed(tmp_path) as world:
        await world.put("w/g", b"kept")
        await world.create("w/f")
        await world.rename("w/f", "w/g")
    await nothing_comes_back(tmp_path, left={"g": b"kept"})


async def test_a_removed_file_is_not_back_when_something_is_renamed_to_its_name(tmp_path: Path):
    """Of what has its name nothing is durable yet."""
    async with removed(tmp_path) as world:
        world.stop_publishing()
        await world.create("w/n")
        await world.rename("w/n", "w/f")
    await nothing_comes_back(tmp_path, left={})


async def test_what_takes_the_name_of_a_removed_file_is_its_next_version(tmp_path: Path):
    """Durable it has a place again, after a kill, too."""
    async with removed(tmp_path) as world:
        world.stop_publishing()
        handle = await world.create("w/n")
        await world.rename("w/n", "w/f")
        world.fs.write(handle, 0, b"3")
        await world.close(handle)
    assert await shown_after_a_kill(tmp_path, "w") == {"f": b"3"}
    async with opened(tmp_path) as world:
        await world.elapse(10)
        assert await world.tree("w") == {"f": b"3"}
        assert world.versions("f") == [b"1", b"2", b"3"]
        world.nothing_is_left()
