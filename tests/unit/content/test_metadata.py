"""What is kept of listings and versions, without a mount."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from artifactfs.content import metadata as module
from artifactfs.content.metadata import PART, KeptListing, KeptVersions, Metadata
from artifactfs.model.entry import Artifact, ArtifactKind, DirRef, Empty, Folder, Version

REF = DirRef("s", "workflow", ("a", "\ud800 b"))


def folders(count: int, mark: str = "") -> list[Folder]:
    return [Folder((f"{mark}{number}",), f"{number}") for number in range(count)]


def kept(count: int = 3, mark: str = "") -> KeptListing:
    return KeptListing(folders(count, mark), time.time(), 60.0, complete=True, note="why \ud800")


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Metadata]:
    made = Metadata(tmp_path / "metadata.db")
    yield made
    made.close()


@pytest.mark.parametrize("count", [0, 1, PART, PART + 1, 3 * PART])
async def test_a_listing_outlives_the_process(opened: Metadata, tmp_path: Path, count: int) -> None:
    """Entries in their order, and what is known of them; those of another source are others."""
    before = KeptListing(folders(count), time.time(), float("inf"), complete=False, note="why")
    opened.keep_listing("f", REF, before)
    assert await opened.listing("f", REF) == before  # from memory, or from disk: whoever asks cannot tell
    opened.close()
    with closing(Metadata(tmp_path / "metadata.db")) as again:
        assert await again.listing("f", REF) == before
        assert await again.listing("g", REF) is None
        assert await again.listing("f", DirRef("s", "workflow", ("a",))) is None


async def test_what_nobody_asked_for_in_half_a_year_is_dropped(opened: Metadata, tmp_path: Path) -> None:
    """By the next mount that writes."""
    opened.keep_listing("f", REF, KeptListing(folders(2), 12.5, 60.0, complete=True, note=None))
    opened.close()
    with closing(Metadata(tmp_path / "metadata.db")) as again:
        assert await again.listing("f", REF) is not None
        again.keep_listing("g", REF, kept())
    with closing(Metadata(tmp_path / "metadata.db")) as third:
        assert await third.listing("f", REF) is None
        assert await third.listing("g", REF) is not None


async def test_a_listing_is_replaced_or_dropped_as_a_whole(opened: Metadata, tmp_path: Path) -> None:
    """The newest wins, whether it is the same, shorter or gone; no part of an older one is left."""
    for listing in (kept(3 * PART), kept(3 * PART), kept(2), kept(2, "other ")):
        opened.keep_listing("f", REF, listing)
        opened.keep_listing("g", REF, kept(1))
        opened.close()
        opened = Metadata(tmp_path / "metadata.db")
        found = await opened.listing("f", REF)
        assert found is not None
        assert (found.entries, found.fetched_at, found.note) == (listing.entries, listing.fetched_at, listing.note)
    opened.drop_listing("f", REF)
    assert await opened.listing("f", REF) is None
    opened.close()
    with closing(sqlite3.connect(tmp_path / "metadata.db")) as db:
        assert db.execute("SELECT count(*) FROM part").fetchone() == (1,)
    with closing(Metadata(tmp_path / "metadata.db")) as again:
        assert await again.listing("f", REF) is None
        assert await again.listing("g", REF) is not None


async def test_versions_outlive_the_process(opened: Metadata, tmp_path: Path) -> None:
    """In their order, with the one that was current."""
    before = KeptVersions([Version("v\ud800", Empty()), Version("w", Empty())], time.time(), True, "v\ud800")
    opened.keep_versions("f", "key \ud800", before)
    opened.close()
    with closing(Metadata(tmp_path / "metadata.db")) as again:
        assert await again.versions("f", "key \ud800") == before
        assert await again.versions("f", "other") is None


async def test_what_cannot_be_written_is_not_kept_and_stops_nothing(opened: Metadata, tmp_path: Path) -> None:
    """Facts nested deeper than anything reads them: that listing is asked for again, the next one is kept."""
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    odd = Artifact(("a",), "a", "a", ArtifactKind.TREE, None, metadata={"deep": deep})
    opened.keep_listing("f", REF, KeptListing([odd], time.time(), 60.0, complete=True, note=None))
    opened.keep_listing("g", REF, kept())
    opened.close()
    with closing(Metadata(tmp_path / "metadata.db")) as again:
        assert await again.listing("f", REF) is None
        assert await again.listing("g", REF) is not None


async def test_who_waits_for_a_removal_finds_it_on_the_disk(opened: Metadata, tmp_path: Path) -> None:
    """While somebody else writes to the database it is not there yet, and whoever waits for it waits."""
    opened.keep_listing("f", REF, kept())
    with trio.fail_after(10):
        while opened.backlog():  # noqa: ASYNC110 - a thread writes
            await trio.sleep(0.01)
    with closing(sqlite3.connect(tmp_path / "metadata.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        opened.drop_listing("f", REF)
        with trio.move_on_after(0.3) as waiting:
            await opened.dropped()
        assert waiting.cancelled_caught
        other.execute("ROLLBACK")
        with trio.fail_after(10):
            await opened.dropped()
        assert other.execute("SELECT count(*) FROM listing").fetchone() == (0,)


async def test_who_fetches_much_waits_for_what_is_to_be_written(
    opened: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits is bounded, and is written in the end."""
    monkeypatch.setattr(module, "BACKLOG", 2 * PART)
    for number in range(20):
        opened.keep_listing("f", DirRef("s", "w", (f"{number}",)), kept(PART))
        await opened.room()
        assert opened.backlog() <= 2 * PART
