"""Who looks at a listing while others do, and how often the service is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from artifactfs.content.block_store import BlockStore
from artifactfs.content.facts import Facts
from artifactfs.content.reader import ContentReader
from artifactfs.model.entry import DirRef, Folder, Listing
from artifactfs.tree.nodes import Kind, Listed, Node
from artifactfs.vfs.listings import Listings
from artifactfs.vfs.sources import Source

REF = DirRef("s", "dir")


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


async def test_who_looked_for_it_on_disk_meanwhile_does_not_ask_again(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk answers late that it has nothing; by then the listing that another waited for is here."""
    facts, service = Facts(tmp_path / "facts.db"), Service()
    provider: Any = service
    reader = ContentReader(
        nursery, BlockStore(tmp_path, 1 << 20, 0), facts, {"s": provider},
        local_path=lambda ref: tmp_path / ref.key, fingerprints={"s": "print"},
    )  # fmt: skip
    listings = Listings({"s": Source("s", provider, "print", 1)}, reader, lambda _place, _levels: None)
    node = Node(2, ("dir",), Kind.DIRECTORY, "dir", directory=Listed(REF), source="s")
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
        found.append(await listings.get(node, Listed(REF)))
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
