"""What the tests of saving begin with: a filesystem in which time stands still unless a test lets it pass."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.vfs.world import World, grow, opened


def _standing_still(work: Any, **more: Any) -> Any:
    return trio.run(work, **{**more, "clock": trio.testing.MockClock()})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests with a standing clock one: pytest-trio takes a clock only from a test's own arguments."""
    for item in items:
        if "standing_still" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.trio(run=_standing_still), append=False)


@pytest.fixture
def standing_still() -> None:
    """Let the time of trio stand still."""


@pytest.fixture
async def world(tmp_path: Path, standing_still: None) -> AsyncIterator[World]:
    """A filesystem with a workflow ``w``."""
    async with opened(tmp_path) as found:
        await found.mkdir("w")
        yield found


@pytest.fixture
async def grown(world: World) -> World:
    """A tree ``t`` with two files and a directory with a file and a directory, published: ``BEGAN``."""
    await grow(world)
    return world
