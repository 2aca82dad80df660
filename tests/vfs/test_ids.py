"""Artifacts that are looked up by their ids, by who does not wait for the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio
import trio.testing

from artifactfs.model.content import Exact, Pointer
from artifactfs.model.entry import Artifact, ArtifactKind, DirRef, Folder, Listing, Role, SingleFile, Version
from artifactfs.tree.nodes import IdShelf, Kind, Listed, Node
from tests.vfs.test_many import wired

REF = DirRef("s", "workflow", ("w",))
KEY = "00000000-0000-4000-8000-000000000001"
THERE = Artifact(
    ("report.md",), KEY, KEY, ArtifactKind.FILE, Version(KEY, SingleFile(Pointer("s", KEY, (KEY,), Exact(1))), Exact(1))
)


class Service:
    """A workflow that lists nothing and is slow to tell of an artifact."""

    service = "vm0"
    publisher = None
    is_here = False
    listing_ttl_s = 60.0

    def __init__(self) -> None:
        self.asked, self.was_asked, self.gate = 0, trio.Event(), trio.Event()

    def root(self) -> Folder:
        return Folder(("s",), "s", ref=REF)

    def is_artifact_id(self, name: str) -> bool:
        return name == KEY

    async def list(self, _ref: DirRef, _cursor: str | None) -> Listing:
        return Listing(())

    async def find(self, _workflow: DirRef, _artifact_id: str) -> Artifact | None:
        self.asked += 1
        self.was_asked.set()
        await self.gate.wait()
        return THERE


async def test_what_a_look_up_that_was_given_up_has_found_is_there_for_the_next(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    """Else who looks again and again, and may wait for less than a round trip, never sees it."""
    service: Any = Service()
    listings, ids, facts = wired(nursery, tmp_path, service)
    await listings.get(Node(2, ("s",), Kind.DIRECTORY, "s", source="s"), Listed(REF, role=Role.WORKFLOW))
    with trio.fail_after(20):
        async with trio.open_nursery() as looking:
            looking.start_soon(ids.find, "s", IdShelf(REF, ()), KEY)
            await service.was_asked.wait()
            looking.cancel_scope.cancel()
        service.gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert await ids.find("s", IdShelf(REF, ()), KEY) is THERE
    assert service.asked == 1
    facts.close()
