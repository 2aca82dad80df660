"""Content that is gone at its service while it is open here."""

from __future__ import annotations

import pytest

from artifactfs import errors
from tests.vfs.world import READ, World


async def test_what_is_gone_while_it_is_open_is_stale(world: World, monkeypatch: pytest.MonkeyPatch):
    """Not absent: the program has it open, and a name that it did not ask for cannot be missing."""
    await world.put("w/f", b"text")
    await world.elapse()
    handle = await world.open("w/f", READ)

    async def gone(*_: object) -> bytes:
        raise errors.NotFound("no such thing (404)", provider="mine", status=404)

    monkeypatch.setattr(world.fs.content, "read", gone)
    with pytest.raises(errors.StaleContent, match="no such thing") as caught:
        await world.fs.read(handle, 0, 10)
    assert (caught.value.provider, caught.value.status) == ("mine", 404)
    await world.fs.release(handle)


async def test_what_is_gone_when_it_is_opened_is_looked_for_again(world: World, monkeypatch: pytest.MonkeyPatch):
    """The name is shown no longer than until somebody looks: the service itself has said that there is nothing."""
    await world.mkdir("w/t")
    await world.put("w/f", b"text")
    await world.elapse()
    await world.names("w")
    node = await world.look("w/f")
    told: list[tuple[int, str]] = []
    monkeypatch.setattr(world.fs.directories.listings, "changed", lambda parent, name: told.append((parent, name)))
    world.store.delete_artifact(world.artifact("f").id)

    async def gone(*_: object) -> int:
        raise errors.NotFound("no such thing (404)", provider="mine", status=404)

    monkeypatch.setattr(world.fs.content, "size", gone)
    assert "f" in await world.names("w")  # believed still
    with pytest.raises(errors.NotFound):
        await world.fs.open(node.ino, READ)
    assert told[0] == (node.parent, "f")
    assert await world.names("w") == {"t"}


async def test_what_fails_when_it_is_opened_stays_listed(world: World, monkeypatch: pytest.MonkeyPatch):
    """Only the service can say that something is gone, not the line to it."""
    await world.put("w/f", b"text")
    await world.elapse()
    node = await world.look("w/f")
    ref = world.fs.listing_of(await world.look("w"))
    assert ref is not None

    async def failing(*_: object) -> int:
        raise errors.Unavailable("not now (503)", provider="mine", status=503)

    monkeypatch.setattr(world.fs.content, "size", failing)
    known = world.fs.directories.listings.peek(ref)
    assert known is not None
    fetched_at = known.fetched_at
    with pytest.raises(errors.Unavailable):
        await world.fs.open(node.ino, READ)
    assert known.fetched_at == fetched_at
