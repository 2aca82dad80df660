"""What is shown of an archive while it is on its way, and what becomes of it."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from artifactfs.content.archive_flight import ArchiveFlight
from artifactfs.content.block_store import BlockStore
from artifactfs.content.facts import Facts
from artifactfs.content.reader import ContentReader
from artifactfs.model.content import Access, ByteRange, ContentRef, Unknown
from artifactfs.model.entry import Archive, Artifact, ArtifactKind, Version
from artifactfs.providers.base import ContentStream
from artifactfs.tree.nodes import Kind, Node, VersionDir
from artifactfs.vfs.history import History
from artifactfs.vfs.sources import Source
from artifactfs.vfs.trees import Trees


def version(name: str) -> Version:
    """Return a version that is an archive."""
    return Version(name, Archive(ContentRef("s", name, (), Unknown(), Access.RANGED)))


ARTIFACT = Artifact(("tree",), "a", "a", ArtifactKind.TREE, version("v"), writable=True)
PLACE = VersionDir(ARTIFACT, ARTIFACT.current, present=True)
ROOT = Node(99, ("present",), Kind.DIRECTORY, "tree", directory=PLACE, artifact=ARTIFACT, writable=True, source="s")


def packed(data: bytes) -> bytes:
    """Return an archive of one file, whose header passes long before the end."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("file")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


ARCHIVES = {"v": packed(b"v" * 300_000), "w": packed(b"w" * 300_000)}


class Storage:
    """A provider of archives, whose ends come when a test lets them."""

    listing_ttl_s = 60.0

    def __init__(self) -> None:
        self.newest = ARTIFACT
        self.asked: list[str] = []
        self.go_on = trio.Event()

    async def refresh(self, _artifact: Artifact) -> Artifact:
        return self.newest

    @asynccontextmanager
    async def open(self, ref: ContentRef, _span: ByteRange) -> AsyncIterator[ContentStream]:
        name = ref.key.rpartition("/")[2]  # after the fingerprint of the source
        self.asked.append(name)
        data = ARCHIVES[name]
        yield ContentStream(0, len(data), ranged=False, chunks=self._chunks(data))

    async def _chunks(self, data: bytes) -> AsyncIterator[bytes]:
        yield data[:-8]
        await self.go_on.wait()
        yield data[-8:]


class World:
    """The trees of a storage; what is compared with the end of an archive waits until a test lets it."""

    def __init__(self, nursery: trio.Nursery, base: Path) -> None:
        self.storage = Storage()
        given = cast("Any", self.storage)  # it has what trees ask of a provider
        sources = {"s": Source("s", given, "print", 1)}
        reader = ContentReader(
            nursery, BlockStore(base, 1 << 24, min_free=0), Facts(base / "facts.db"), {"s": given},
            local_path=lambda ref: base / ref.key, fingerprints={"s": "print"},
        )  # fmt: skip
        self.confirmed: list[tuple[Node, Node]] = []
        self.trees = Trees(sources, reader, History(sources, reader), confirmed=lambda *of: self.confirmed.append(of))
        self._compare, reader.archives.landed = reader.archives.landed, self._landed
        self.may_compare, self.compared = trio.Event(), trio.Event()

    async def _landed(self, flight: ArchiveFlight) -> None:
        await self.may_compare.wait()
        await self._compare(flight)
        self.compared.set()

    async def shown(self) -> Node:
        """Return the file as it is shown."""
        found = await self.trees.lookup(ROOT, PLACE, "file")
        assert found is not None
        return found


@pytest.fixture
def world(nursery: trio.Nursery, tmp_path: Path) -> World:
    return World(nursery, tmp_path)


async def test_an_inode_that_was_shown_early_stands_for_its_content_before_that_is_shown(world: World):
    """Whoever waits for the end may run before what was shown is compared with it, and would show it as another."""
    early = await world.shown()
    world.storage.go_on.set()
    node = (await world.trees.level(ROOT, PLACE)).children["file"]
    assert node.identity != early.identity
    assert world.confirmed == [(early, node)]
    world.may_compare.set()
    await world.compared.wait()
    assert world.confirmed == [(early, node)]


async def test_an_inode_that_was_shown_early_stands_for_its_content_though_nobody_looks(world: World):
    """An editor may have it open, and compare numbers later."""
    early = await world.shown()
    world.storage.go_on.set()
    world.may_compare.set()
    await world.compared.wait()
    assert world.confirmed == [(early, await world.shown())]


async def test_an_inode_that_was_shown_early_stands_for_the_version_it_was_shown_of(world: World):
    """Also if another was saved meanwhile, in which the file is as long and as old; that is not asked for."""
    early = await world.shown()
    world.storage.newest = replace(ARTIFACT, current=version("w"))
    world.storage.go_on.set()
    world.may_compare.set()
    await world.compared.wait()
    ((known, node),) = world.confirmed
    assert known is early
    assert node.version is not None
    assert node.version.id == "v"
    assert world.storage.asked == ["v"]


async def test_a_name_is_of_the_version_that_the_listing_is_of(world: World):
    """Who stays in a directory while another version is saved is not shown a file of the one before."""
    world.storage.newest = replace(ARTIFACT, current=version("w"))
    early = await world.shown()
    assert early.version is not None
    assert early.version.id == "w"
    world.storage.go_on.set()
    world.may_compare.set()
    assert "file" in (await world.trees.level(ROOT, PLACE)).children
    assert world.storage.asked == ["w"]
