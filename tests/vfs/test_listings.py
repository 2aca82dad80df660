"""Who looks at a listing while others do, and how often the service is asked."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from artifactfs import errors
from artifactfs.content.block_store import BlockStore
from artifactfs.content.facts import Facts
from artifactfs.content.metadata import KeptListing
from artifactfs.content.reader import ContentReader
from artifactfs.model.entry import DirRef, Folder, Listing
from artifactfs.tree.nodes import Kind, Listed, Node
from artifactfs.vfs.known import Known
from artifactfs.vfs.listings import Listings
from artifactfs.vfs.sources import Source

REF = DirRef("s", "dir")
NODE = Node(2, ("dir",), Kind.DIRECTORY, "dir", directory=Listed(REF), source="s")


async def unshelved(_place: object, _levels: object) -> None:
    """Have no shelves."""


class Service:
    """A source with one listing, answered when the gate opens."""

    service = "vm0"
    publisher = None
    is_here = False
    listing_ttl_s = 60.0

    def __init__(self) -> None:
        self.asked = 0
        self.was_asked = trio.Event()
        self.gate = trio.Event()

    def root(self) -> Folder:
        return Folder(("s",), "s", REF)

    def is_artifact_id(self, _name: str) -> bool:
        return False

    async def list(self, _ref: DirRef, _cursor: str | None) -> Listing:
        self.asked += 1
        self.was_asked.set()
        await self.gate.wait()
        return Listing((), None)


def made(service: Service, nursery: trio.Nursery, room: Path) -> tuple[Facts, Listings]:
    """Return the listings of one source, and what they are kept in, to be closed."""
    provider: Any = service
    facts = Facts(room / "facts.db")
    reader = ContentReader(
        nursery, BlockStore(room, 1 << 20, 0), facts, {"s": provider},
        local_path=lambda ref: room / ref.key, fingerprints={"s": "print"},
    )  # fmt: skip
    return facts, Listings({"s": Source("s", provider, "print", 1)}, reader, unshelved)


async def test_who_looked_for_it_on_disk_meanwhile_does_not_ask_again(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk answers late that it has nothing; by then the listing that another waited for is here."""
    service = Service()
    facts, listings = made(service, nursery, tmp_path)
    real, late = facts.metadata.listing, trio.Event()

    async def slowly(*args: Any) -> Any:
        found = await real(*args)
        if service.asked:
            await late.wait()
        return found

    monkeypatch.setattr(facts.metadata, "listing", slowly)
    found: list[object] = []
    has_looked = trio.Event()

    async def look() -> None:
        found.append(await listings.get(NODE, Listed(REF)))
        has_looked.set()

    with trio.fail_after(30):
        nursery.start_soon(look)
        await service.was_asked.wait()
        async with trio.open_nursery() as second:
            second.start_soon(look)
            await trio.sleep(0.1)
            service.gate.set()
            await has_looked.wait()
            late.set()
    assert service.asked == 1
    assert found[0] is found[1]
    facts.close()


async def test_a_listing_that_comes_just_behind_a_look_on_disk_is_not_asked_for_again(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk has said that it has nothing; before who asked it has its turn, the listing another waits for is here.

    Trio leaves to chance which of the two has its turn first, so that one round of two shows it.
    """
    service = Service()
    facts, listings = made(service, nursery, tmp_path)
    found: list[object] = []

    async def nothing_kept(*_args: Any) -> None:
        if service.was_asked.is_set():
            service.gate.set()

    async def look(place: Listed) -> None:
        node = Node(2, ("dir",), Kind.DIRECTORY, "dir", directory=place, source="s")
        found.append(await listings.get(node, place))

    monkeypatch.setattr(facts.metadata, "listing", nothing_kept)
    for number in range(20):
        place = Listed(DirRef("s", "dir", (str(number),)))
        service.was_asked, service.gate = trio.Event(), trio.Event()
        with trio.fail_after(30):
            async with trio.open_nursery() as looks:
                looks.start_soon(look, place)
                await service.was_asked.wait()
                looks.start_soon(look, place)
        assert service.asked == number + 1
        assert found[-1] is found[-2]
    facts.close()


async def test_what_is_saved_while_a_listing_is_looked_for_on_disk_is_shown(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the disk has is from before the save, and not taken for the present.

    A save that an earlier mount has left is made when nobody has looked at its directory yet.
    """
    service = Service()
    service.gate.set()
    facts, listings = made(service, nursery, tmp_path)
    before = Folder(("before",), "id")

    async def kept_from_before(*_args: Any) -> KeptListing:
        listings.own.forget(REF)
        return KeptListing([before], time.time(), 60.0, complete=True, note=None)

    monkeypatch.setattr(facts.metadata, "listing", kept_from_before)
    known = await listings.get(NODE, Listed(REF))
    assert service.asked == 1
    assert "before" not in known.levels[()].children
    facts.close()


class Failing(Service):
    """A source with one listing that is never believed for long, in two pages; ``fails`` is raised for one of them."""

    listing_ttl_s = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.fails: dict[str | None, Exception] = {}

    async def list(self, _ref: DirRef, cursor: str | None) -> Listing:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if cursor in self.fails:
            raise self.fails[cursor]
        return Listing((Folder((f"on {cursor}",), f"id {cursor}"),), "2" if cursor is None else None)


@pytest.fixture
def failing(nursery: trio.Nursery, tmp_path: Path) -> Iterator[tuple[Failing, Listings]]:
    service = Failing()
    facts, listings = made(service, nursery, tmp_path)
    yield service, listings
    facts.close()


WHOLE = {"on None", "on 2"}


def names(known: Known) -> set[str]:
    return set(known.levels[()].children) - {"by-id"}


@pytest.mark.parametrize("page", [None, "2"])
@pytest.mark.parametrize(
    "failure",
    [
        errors.Unavailable("503"), errors.RateLimited("429"), errors.TimedOut("silent"), errors.Unreachable("away"),
        errors.ProviderMisbehaved("a page of HTML"), errors.CorruptContent("not gzip"),
        errors.LimitExceeded("too many entries"), errors.Unsupported("501"), errors.InvalidRequest("422"),
        errors.Barred("a firewall's page"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)  # fmt: skip
async def test_no_failure_but_a_denial_takes_what_is_known_away(
    failing: tuple[Failing, Listings], page: str | None, failure: Exception
) -> None:
    """Whichever page fails, and however: the old listing is shown, with its age and the reason; and is mended."""
    service, listings = failing
    assert names(await listings.get(NODE, Listed(REF))) == WHOLE
    service.fails[page] = failure
    for _ in range(2):
        known = await listings.get(NODE, Listed(REF))
        assert names(known) == WHOLE
        assert known.failure is failure
    assert listings.report()[0]["stale_because"] == str(failure)
    assert service.asked <= 4, "a failing service is not asked for each look"
    service.fails.clear()
    known.retry_at = -math.inf
    assert (await listings.get(NODE, Listed(REF))).failure is None


@pytest.mark.parametrize("failure", [errors.NotFound("gone"), errors.AccessDenied("not for us")])
async def test_what_is_denied_is_not_shown(failing: tuple[Failing, Listings], failure: Exception) -> None:
    service, listings = failing
    await listings.get(NODE, Listed(REF))
    service.fails[None] = failure
    with pytest.raises(type(failure)):
        await listings.get(NODE, Listed(REF))


async def test_what_is_gone_is_not_on_a_shelf_either(failing: tuple[Failing, Listings]) -> None:
    service, listings = failing
    dropped: list[DirRef] = []
    listings._known._dropped = lambda ref, _known: dropped.append(ref)
    await listings.get(NODE, Listed(REF))
    service.fails[None] = errors.NotFound("gone")
    with pytest.raises(errors.NotFound):
        await listings.get(NODE, Listed(REF))
    assert dropped == [REF]


async def test_a_page_that_is_gone_does_not_take_its_directory_away(failing: tuple[Failing, Listings]) -> None:
    """The directory was there a page ago: that is no answer to whether it is."""
    service, listings = failing
    service.fails["2"] = errors.NotFound("no such page")
    with pytest.raises(errors.ProviderMisbehaved):
        await listings.get(NODE, Listed(REF))
    service.fails.clear()
    await listings.get(NODE, Listed(REF))
    service.fails["2"] = errors.NotFound("no such page")
    assert names(await listings.get(NODE, Listed(REF))) == WHOLE
