"""Directories of many entries: what one change costs, and how long others wait while they are gone through."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any, cast

import trio

from artifactfs.concurrency import SLICE
from artifactfs.content.block_store import BlockStore
from artifactfs.content.facts import Facts
from artifactfs.content.reader import ContentReader
from artifactfs.model.content import Exact, Pointer
from artifactfs.model.entry import Artifact, ArtifactKind, DirRef, Folder, Listing, Role, SingleFile, Version
from artifactfs.tree.layout import Level, Place, lay_out, present_node
from artifactfs.tree.nodes import Kind, Listed, Node
from artifactfs.vfs.history import History
from artifactfs.vfs.ids import Ids
from artifactfs.vfs.listings import Listings
from artifactfs.vfs.own_changes import OwnChanges
from artifactfs.vfs.shelf import INLINE_ENTRIES, Shelf
from artifactfs.vfs.sources import Source

REF = DirRef("s", "workflow", ("w",))
TOP = Listed(REF, role=Role.WORKFLOW)
MANY = 60_000


def artifact(number: int, *, identifier: str | None = None, title: str | None = None) -> Artifact:
    """Return a file that can be saved."""
    key = f"{number:08x}-0000-4000-8000-000000000000"
    size = Exact(number)
    content = SingleFile(Pointer("s", key, (key,), size))
    return Artifact(
        (title or f"report {number}.md",), identifier or key, key, ArtifactKind.FILE, Version(key, content, size),
        only_version=True, created_at_ns=number, updated_at_ns=number, writable=True,
    )  # fmt: skip


def laid_out(artifacts: list[Artifact]) -> Level:
    """Return them as the directory of a workflow."""
    place = Place(REF, Role.WORKFLOW, TOP.accepts, None, 1, lambda _name: False)
    return lay_out(artifacts, place, complete=True)[()]


class Provider:
    """A source of one workflow, which may tell whether anything has changed."""

    service = "vm0"
    publisher = None
    is_here = True
    listing_ttl_s = 0.0

    def __init__(self, artifacts: list[Artifact]) -> None:
        self.artifacts = artifacts
        self.asked, self.revisions = 0, 1

    def root(self) -> Folder:
        return Folder(("s",), "s", DirRef("s", "root"))

    def is_artifact_id(self, _name: str) -> bool:
        return False

    async def revision(self) -> int:
        return self.revisions

    async def list(self, _ref: DirRef, _cursor: str | None) -> Listing:
        self.asked += 1
        return Listing(tuple(self.artifacts))


def wired(nursery: trio.Nursery, base: Path, provider: object) -> tuple[Listings, Ids, Facts]:
    """Return listings with their shelves."""
    facts, given = Facts(base / "facts.db"), cast("Any", provider)  # it has what listings ask of a provider
    reader = ContentReader(
        nursery, BlockStore(base, 1 << 20, 0), facts, {"s": given},
        local_path=lambda ref: base / ref.key, fingerprints={"s": "print"},
    )  # fmt: skip
    sources = {"s": Source("s", given, "print", 1)}
    ids = Ids(sources, History(sources, reader))
    listings = Listings(sources, reader, ids.shelve, unshelve=ids.unshelve)
    listings.own.reshelve = ids.reshelve
    ids.wire(listings)
    return listings, ids, facts


async def test_a_save_into_a_large_directory_does_not_go_through_it(nursery: trio.Nursery, tmp_path: Path) -> None:
    """What 300 saves, and the look-ups before them, take does not depend on what is there; the ids are right."""
    provider = Provider([artifact(number) for number in range(MANY)])
    listings, ids, facts = wired(nursery, tmp_path, provider)
    node = Node(2, ("dir",), Kind.DIRECTORY, "dir", directory=TOP, source="s")
    known = await listings.get(node, TOP)
    shelf = ids.shelf(TOP)
    assert len(await shelf.by_name()) == MANY
    own: OwnChanges = listings.own
    own.put(TOP, "first", artifact(MANY), present_node(artifact(MANY), "first", 1, "s"))  # makes the index
    begun = time.process_time()
    for number in range(MANY + 1, MANY + 301):
        made = artifact(number)
        own.unkeep("s", made)
        own.put(TOP, f"new {number}", made, present_node(made, f"new {number}", 1, "s"))
        assert (await shelf.by_name())[made.id] is made
    own.remove(TOP, artifact(7))
    # To go through 60,000 once for each takes 300 x 5 ms at least.
    assert time.process_time() - begun < 0.5
    assert len(known.levels[()].children) == MANY + 1 + 300  # with by-id
    assert artifact(7).id not in await shelf.by_name()
    facts.close()


async def test_names_of_ids_after_changes_are_those_of_a_shelf_made_anew() -> None:
    """Also where a service repeats an id, so that only the oldest has it plain."""
    chance = random.Random(1)
    shown = {number: artifact(number, identifier=f"id {number % 40}") for number in range(60)}
    level = laid_out(list(shown.values()))
    shelf = Shelf()
    shelf.put(REF, [level])
    for _ in range(200):
        number = chance.randrange(90)
        gone, made = level.take_out(artifact(number).key), None
        if chance.random() < 0.5:
            made = artifact(number, identifier=f"id {number % chance.choice((40, 1000))}")
            level.put(f"name {number}", present_node(made, f"name {number}", 1, "s"))
        shelf.change(gone, made)
        anew = Shelf()
        anew.put(REF, [level])
        assert dict(await shelf.by_name()) == dict(await anew.by_name())


async def test_a_shelf_that_is_changed_while_it_is_named_is_right() -> None:
    """It is named in a thread, and what is saved meanwhile is there."""
    level = laid_out([artifact(number) for number in range(INLINE_ENTRIES * 5)])
    shelf, new = Shelf(), artifact(10**6)
    shelf.put(REF, [level])

    async def save() -> None:
        level.put("new", present_node(new, "new", 1, "s"))
        shelf.change(None, new)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shelf.by_name)
        nursery.start_soon(save)
    assert (await shelf.by_name())[new.id] is new
    assert len(await shelf.by_name()) == INLINE_ENTRIES * 5 + 1


async def test_others_have_their_turn_while_a_large_listing_is_taken_over(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    """Laying it out, shelving it and telling the kernel of it take seconds for a million; nobody waits for them."""
    provider = Provider([artifact(number) for number in range(MANY)])
    listings, _, facts = wired(nursery, tmp_path, provider)
    listings.announcer.stands_at(TOP, 2)
    told: list[str] = []
    listings.announcer.changed = lambda _parent, name: told.append(name)
    node = Node(2, ("dir",), Kind.DIRECTORY, "dir", directory=TOP, source="s")
    turns = 0

    async def beside() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    await listings.get(node, TOP)
    provider.artifacts, provider.revisions = provider.artifacts[1:], 2
    nursery.start_soon(beside)
    before = turns
    await listings.look(REF)
    nursery.cancel_scope.cancel()
    assert told == ["report 0.md"]
    assert turns - before > 2 * (MANY // SLICE)
    facts.close()


async def test_what_says_that_nothing_has_changed_is_not_listed_again(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Unless this mount has changed it: then only the listing itself says what is so."""
    provider = Provider([artifact(1)])
    listings, _, facts = wired(nursery, tmp_path, provider)
    node = Node(2, ("dir",), Kind.DIRECTORY, "dir", directory=TOP, source="s")
    first = await listings.get(node, TOP)
    assert await listings.get(node, TOP) is first
    assert provider.asked == 1
    provider.revisions += 1
    assert await listings.get(node, TOP) is not first
    assert provider.asked == 2
    listings.own.forget(REF)
    await listings.get(node, TOP)
    assert provider.asked == 3
    facts.close()
