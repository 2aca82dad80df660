"""When the poller looks at what: time stands still but for what a test lets pass, and no mount is needed for it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from artifactfs import errors
from artifactfs.content.block_store import BlockStore
from artifactfs.content.facts import Facts
from artifactfs.content.reader import ContentReader
from artifactfs.model.entry import DirRef, Folder, Listing
from artifactfs.tree.nodes import Kind, Listed, Node
from artifactfs.vfs import polling
from artifactfs.vfs.listings import Listings
from artifactfs.vfs.polling import Poller
from artifactfs.vfs.sources import Source

INTERVAL_S = 30.0


async def unshelved(_place: object, _levels: object) -> None:
    """Have no shelves."""


class Service:
    """A source with any number of listings; notes when it is asked."""

    service = "vm0"
    publisher = None
    is_here = False
    listing_ttl_s = 60.0

    def __init__(self) -> None:
        self.asked: list[tuple[float, str]] = []
        self.failure: Exception | None = None
        self.ttl_s: float | None = None
        self.left = 1.0
        self.takes_s = 0.0

    def root(self) -> Folder:
        return Folder(("s",), "s", DirRef("s", "root"))

    def is_artifact_id(self, _name: str) -> bool:
        return False

    def spare(self) -> float:
        return self.left

    async def list(self, ref: DirRef, _cursor: str | None) -> Listing:
        self.asked.append((trio.current_time(), ref.kind))
        await trio.sleep(self.takes_s)
        if self.failure is not None:
            raise self.failure
        return Listing((), None, ttl_s=self.ttl_s)

    def times(self) -> int:
        """Return how often it was asked since the last call."""
        found, self.asked[:] = len(self.asked), []
        return found


class Bench:
    """A poller at work, with listings that somebody has looked at."""

    def __init__(self, service: Service, listings: Listings, poller: Poller, clock: trio.testing.MockClock) -> None:
        self.service, self.listings, self.poller, self.clock = service, listings, poller, clock

    async def look(self, kind: str) -> None:
        self.clock.jump(0.01)
        place = Listed(DirRef("s", kind))
        await self.listings.get(Node(2, ("dir", kind), Kind.DIRECTORY, kind, directory=place, source="s"), place)

    async def elapse(self, seconds: float) -> None:
        for _ in range(math.ceil(seconds)):
            self.clock.jump(1.0)
            await trio.testing.wait_all_tasks_blocked(0.001)


@asynccontextmanager
async def working(where: Path) -> AsyncIterator[Bench]:
    """Have a poller that looks every 30 s."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, trio.testing.MockClock)
    service, facts = Service(), Facts(where / "facts.db")
    provider: Any = service
    sources = {"s": Source("s", provider, "print", 1)}
    async with trio.open_nursery() as nursery:
        reader = ContentReader(
            nursery, BlockStore(where, 1 << 20, 0), facts, {"s": provider},
            local_path=lambda ref: where / ref.key, fingerprints={"s": "print"},
        )  # fmt: skip
        listings = Listings(sources, reader, unshelved)
        poller = Poller(sources, listings, INTERVAL_S)
        nursery.start_soon(poller.run)
        yield Bench(service, listings, poller, clock)
        nursery.cancel_scope.cancel()
    facts.close()


@pytest.mark.usefixtures("standing_still")
async def test_what_was_looked_at_is_looked_at_every_interval(tmp_path: Path) -> None:
    """Nothing before somebody looks; then each listing once an interval; of many only those looked at last."""
    async with working(tmp_path) as bench:
        await bench.elapse(65)
        assert bench.service.times() == 0
        await bench.look("a")
        await bench.look("b")
        assert bench.service.times() == 2
        await bench.elapse(91)
        assert 5 <= bench.service.times() <= 6
        for number in range(40):
            await bench.look(f"dir {number}")
        bench.service.times()
        await bench.elapse(31)
        kinds = {kind for _, kind in bench.service.asked}
        assert kinds == {f"dir {number}" for number in range(40 - polling.WATCHED, 40)}


@pytest.mark.usefixtures("standing_still")
async def test_who_is_away_costs_nothing_and_what_is_final_neither(tmp_path: Path) -> None:
    """After ten minutes without a look of anybody a directory that the kernel does not hold is left alone."""
    async with working(tmp_path) as bench:
        await bench.look("a")
        bench.service.ttl_s = math.inf
        await bench.look("final")
        bench.service.ttl_s = None
        await bench.elapse(polling.ACTIVE_S + 60)
        assert {kind for _, kind in bench.service.asked[2:]} == {"a"}
        bench.service.times()
        await bench.elapse(300)
        assert bench.service.times() == 0
        await bench.look("a")
        await bench.elapse(65)
        assert bench.service.times() >= 2


@pytest.mark.usefixtures("standing_still")
async def test_a_failing_source_is_asked_ever_more_seldom(tmp_path: Path) -> None:
    """One listing for all; what is shown stays, also after an answer that makes no sense; then it goes on."""
    async with working(tmp_path) as bench:
        for kind in "abc":
            await bench.look(kind)
        for failure in (errors.Unavailable("down"), errors.ProviderMisbehaved("a page of HTML")):
            bench.service.failure = failure
            bench.service.times()
            await bench.elapse(600)
            # 60, 120, 240, 300 s and so on, each of them at least half of it: not 60 looks.
            assert 2 <= bench.service.times() <= 10
            known = bench.listings.peek(DirRef("s", "a"))
            assert known is not None
            assert known.may_be_shown()
            bench.service.failure = None
            await bench.elapse(polling.MAX_PAUSE_S + 31)
            for kind in "abc":
                await bench.look(kind)
            bench.service.times()
            await bench.elapse(31)
            assert bench.service.times() >= 3


@pytest.mark.usefixtures("standing_still")
async def test_most_of_the_budget_is_left_to_people(tmp_path: Path) -> None:
    async with working(tmp_path) as bench:
        await bench.look("a")
        bench.service.times()
        bench.service.left = polling.LEAVE - 0.01
        await bench.elapse(200)
        assert bench.service.times() == 0
        bench.service.left = 1.0
        await bench.elapse(31)
        assert bench.service.times() == 1


@pytest.mark.usefixtures("standing_still")
async def test_what_takes_long_is_looked_at_seldom(tmp_path: Path) -> None:
    """A listing of ten seconds every 200 s, not every 30."""
    async with working(tmp_path) as bench:
        await bench.look("a")
        bench.service.takes_s = 10.0
        bench.service.times()
        await bench.elapse(440)
        assert 2 <= bench.service.times() <= 3


@pytest.mark.usefixtures("standing_still")
async def test_what_happens_is_looked_at_at_once_and_once_more(tmp_path: Path) -> None:
    """Many events of one listing are one look, and one after what they told of had time to be listed."""
    async with working(tmp_path) as bench:
        await bench.look("a")
        await bench.look("b")
        await bench.elapse(5)
        bench.service.times()
        for _ in range(50):
            bench.poller._happened("s", frozenset({DirRef("s", "a"), DirRef("s", "never seen")}))
        await bench.elapse(1)
        assert [kind for _, kind in bench.service.asked] == ["a"]
        await bench.elapse(4)
        assert [kind for _, kind in bench.service.asked] == ["a", "a"]
        bench.service.times()
        bench.poller._happened("s", None)
        await bench.elapse(1)
        assert {kind for _, kind in bench.service.asked} == {"a", "b"}
