"""A service that fails as it likes while programs work, until all is to be saved: what every storm has."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import trio

from artifactfs import errors
from tests.vfs.world import World

# Seconds that pass in one: a save that waits a second for more to come waits 5 ms.
RATE = 200.0


class BadWeather:
    """A world whose service refuses changes, or loses its answers, until ``is_calm``."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.chance = world, random.Random(seed)
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
