"""VM0's provider against the real server built here, in both spellings and with only the older API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from artifactfs import errors
from artifactfs.model.content import ByteRange, Exact, Hint
from artifactfs.model.entry import Artifact, DirRef, Empty, Folder, Role
from artifactfs.observe import Observer
from artifactfs.providers.base import Provider
from artifactfs.providers.vm0 import Vm0Provider
from artifactfs.server import storage, vm0_storages
from artifactfs.server.context import Context, Signer
from artifactfs.server.vm0_projection import distinct
from artifactfs.store.catalog import Store
from artifactfs.store.rows import StoredArtifact
from tests.support import vm0_world as world
from tests.support.serving import serving

ROLES = (world.ARTIFACTS, world.VOLUMES)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = world.new_store(tmp_path)
    yield made
    made.close()


@asynccontextmanager
async def served(store: Store, base: str = "/vm0") -> AsyncIterator[tuple[Vm0Provider, Observer]]:
    """A provider at a server that asks for a token and would refuse a request that takes it to the storage."""
    observer = Observer()
    async with (
        world.serving_store(store, token=world.TOKEN) as at,
        world.provider_at(at.url + base, observer=observer) as provider,
    ):
        yield provider, observer


@asynccontextmanager
async def storages_only(store: Store, memory: world.Kept | None = None) -> AsyncIterator[tuple[Vm0Provider, Observer]]:
    """A provider at a server that has the older API and nothing else."""
    signer, observer = Signer(), Observer()
    async with serving(storage.build(store, signer)) as bytes_at:
        routes = vm0_storages.routes(store, Context(None, bytes_at.url, signer))
        async with (
            serving(Starlette(routes=[Mount("/", routes=routes)])) as at,
            world.provider_at(at.url, observer=observer, memory=memory) as provider,
        ):
            yield provider, observer


def sent(observer: Observer) -> dict[str, int]:
    return dict(observer.counters("work").by_route)


async def test_it_is_a_provider(store: Store) -> None:
    """The contract's protocol, checked by mypy here; the root and its two workflows need no request."""
    async with served(store) as (provider, observer):
        as_provider: Provider = provider
        root = as_provider.root()
        assert root.ref is not None
        listing = await provider.list(root.ref, None)
        folders = [entry for entry in listing.entries if isinstance(entry, Folder)]
        assert [(f.path, f.role, f.ref) for f in folders] == [
            (("artifacts",), Role.WORKFLOW, world.ARTIFACTS),
            (("volumes",), Role.WORKFLOW, world.VOLUMES),
        ]
        assert listing.complete
        assert await provider.resolve(world.ARTIFACTS, "x") is None
        assert sent(observer) == {}
        with pytest.raises(errors.NotFound):
            await provider.list(DirRef("work", "elsewhere"), None)


@pytest.mark.parametrize(("base", "spelling"), [("/vm0", "camelCase"), ("/vm0-snake", "snake_case")])
async def test_both_spellings_say_the_same(store: Store, base: str, spelling: str) -> None:
    """Listing, detail, versions and bytes, with the requests that each costs."""
    made = world.tree(store, "weekly-report", {"a/b.txt": b"one"}, {"a/b.txt": b"two"})
    world.tree(store, "data", {"x.csv": b"1"}, role="volume", at=1)
    first, second = store.versions(made.id)
    async with served(store, base) as (provider, observer):
        artifact = await world.only(provider)
        assert (artifact.id, artifact.key, artifact.path) == (made.uuid, made.uuid, ("weekly-report",))
        assert (artifact.workflow, artifact.writable) == ("artifacts", True)
        assert artifact.created_at_ns == world.FIRST_NS
        assert artifact.metadata["currentVersionId"] == second.id
        assert artifact.metadata["fileCount"] == 1
        assert sent(observer) == {"GET /v1/artifacts": 1}
        assert artifact.current is not None
        assert artifact.current.size == Hint(3)
        assert world.members(await world.read(provider, artifact.current)) == {"a/b.txt": b"two"}
        page = await provider.versions(artifact, None)
        assert [version.id for version in page.versions] == [second.id, first.id]
        assert page.complete
        assert page.versions[1].created_at_ns == first.created_at_ns // 10**6 * 10**6
        assert world.members(await world.read(provider, page.versions[1])) == {"a/b.txt": b"one"}
        assert await provider.find(world.ARTIFACTS, made.uuid) == artifact_with(artifact, file_count=1)
        volume = await world.only(provider, world.VOLUMES)
        assert (volume.path, volume.workflow) == (("data",), "volumes")
        assert world.members(await world.read(provider, volume.current)) == {"x.csv": b"1"}
        assert provider.describe()["spelling"] == spelling
        assert provider.describe()["api"] == "/v1"


def artifact_with(artifact: Artifact, *, file_count: int) -> object:
    """Return something equal to an artifact but for what only its own page says."""

    class Like:
        def __eq__(self, other: object) -> bool:
            return (
                isinstance(other, Artifact)
                and (other.id, other.path, other.workflow) == (artifact.id, artifact.path, artifact.workflow)
                and other.current is not None
                and artifact.current is not None
                and other.current.content == artifact.current.content
                and other.current.file_count == file_count
            )

        __hash__ = None  # type: ignore[assignment]  # compared, never hashed

    return Like()


async def test_the_archive_is_ranged_and_immutable(store: Store) -> None:
    """Any range of it, with the size of the whole; the size of the version is a hint, never exact."""
    made = world.tree(store, "report", {f"{n}.txt": str(n).encode() * 100 for n in range(50)})
    async with served(store) as (provider, _):
        artifact = await world.only(provider)
        ref = world.archive_of(artifact.current)
        assert ref.key == f"{made.uuid}/{store.versions(made.id)[0].id}"
        assert not isinstance(ref.size, Exact)
        whole = await world.read(provider, artifact.current)
        # The last is what a connection that broke behind the last byte is resumed with: nothing is missing.
        for offset, length in ((10, None), (0, 10), (100, 50), (len(whole) - 1, 1), (len(whole), None)):
            async with provider.open(ref, ByteRange(offset, length)) as stream:
                data = b"".join([chunk async for chunk in stream.chunks])
            end = None if length is None else offset + length
            assert data == whole[offset:end]
            assert (stream.ranged, stream.offset, stream.total) == (True, offset, len(whole))
        with pytest.raises(errors.StaleContent):
            await world.read(provider, artifact.current, len(whole) + 1)


async def test_empty_versions_cost_no_download(store: Store) -> None:
    """No version, a version without files, and one whose row in the listing says nothing reliable."""
    world.tree(store, "none")
    world.tree(store, "empty", {}, at=1)
    world.tree(store, "emptied", {"f": b"x"}, {}, at=2)
    async with served(store) as (provider, _):
        entries = (await provider.list(world.ARTIFACTS, None)).entries
        by_name = {entry.path[0]: entry for entry in entries if isinstance(entry, Artifact)}
        assert by_name["none"].current is None
        for name in ("empty", "emptied"):
            # The listing's fileCount may be another version's, so it is asked, and the 404 means "empty".
            assert world.members(await world.read(provider, by_name[name].current)) == {}
            async with provider.open(world.archive_of(by_name[name].current), ByteRange(5, 10)) as stream:
                assert (stream.offset, stream.ranged) == (0, False)
            page = await provider.versions(by_name[name], None)
            assert isinstance(page.versions[0].content, Empty)
        found = await provider.find(world.ARTIFACTS, by_name["empty"].id)
        assert found is not None
        assert found.current is not None
        assert isinstance(found.current.content, Empty)


async def test_a_checkpoint_names_its_run(store: Store) -> None:
    """Once a version's own row has been seen, the listing knows the run too."""
    made = world.tree(store, "report")
    files = [world.file(store, "f", b"x")]
    store.save_tree(made.id, files, message="Checkpoint from run run-42", created_by="agent")
    async with served(store) as (provider, _):
        artifact = await world.only(provider)
        assert artifact.run is None
        page = await provider.versions(artifact, None)
        assert page.versions[0].message == "Checkpoint from run run-42"
        assert page.versions[0].created_by == "agent"
        assert (await world.only(provider)).run == "run-42"
        found = await provider.find(world.ARTIFACTS, artifact.id)
        assert found is not None
        assert (found.run, found.metadata["run"]) == ("run-42", "run-42")
        assert found.metadata["currentVersion"]["createdBy"] == "agent"


@pytest.mark.parametrize("base", ["/vm0", "/vm0-snake"])
async def test_versions_are_found_by_id_and_prefix(store: Store, base: str) -> None:
    """One request each, none for what cannot be a version's name; what was found is shown from then on."""
    made = world.tree(store, "report", {"f": b"1"}, {"f": b"2"}, {})
    first, _, empty = store.versions(made.id)
    async with served(store, base) as (provider, observer):
        artifact = await world.only(provider)
        assert await provider.find_version(artifact, first.id) == first.id
        assert await provider.find_version(artifact, first.id[:8].upper()) == first.id
        assert await provider.find_version(artifact, "0" * 64) is None
        assert await provider.find_version(artifact, "0" * 12) is None
        assert await provider.find_version(artifact, empty.id) == empty.id
        assert await provider.find_version(artifact, empty.id[:10]) is None
        before = sent(observer)
        for name in ("", "latest", "v1", first.id[:7], first.id + "0", "../" + first.id):
            assert await provider.find_version(artifact, name) is None
        assert sent(observer) == before


async def test_artifacts_are_found_by_id(store: Store) -> None:
    """In their own workflow; no request for what has not the form of an id."""
    made = world.tree(store, "report", {"f": b"1"})
    async with served(store) as (provider, observer):
        assert provider.is_artifact_id(made.uuid)
        assert provider.is_artifact_id("art_abc123")
        for name in ("report", "", "latest", made.uuid[:-1], made.uuid + "0", f"../{made.uuid}"):
            assert not provider.is_artifact_id(name)
            assert await provider.find(world.ARTIFACTS, name) is None
        assert sent(observer) == {}
        assert await provider.find(world.VOLUMES, made.uuid) is None
        assert (
            await provider.find(world.ARTIFACTS, made.uuid.replace(made.uuid[0], "f" if made.uuid[0] != "f" else "0"))
            is None
        )
        found = await provider.find(world.ARTIFACTS, made.uuid)
        assert found is not None
        assert found.path == ("report",)


async def test_more_than_one_page_is_put_together(store: Store) -> None:
    """Our server's order is sound, which its rows prove, so the listing is complete."""
    for number in range(230):
        world.tree(store, f"a{number}", {}, at=number)
    async with served(store) as (provider, observer):
        listing = await provider.list(world.ARTIFACTS, None)
        assert len({entry.id for entry in listing.entries if isinstance(entry, Artifact)}) == 230
        assert (listing.complete, listing.note) == (True, None)
        assert sent(observer) == {"GET /v1/artifacts": 3}


async def test_the_wrong_token_is_refused_in_the_services_words(store: Store) -> None:
    """Access denied, with the message; ``check`` says so instead of raising."""
    async with world.serving_store(store, token="other") as at, world.provider_at(at.url + "/vm0") as provider:
        with pytest.raises(errors.AccessDenied, match="Invalid API key provided"):
            await provider.list(world.ARTIFACTS, None)
        (check,) = await provider.check()
        assert not check.ok
        assert "Invalid API key" in check.detail


async def test_check_names_the_api(store: Store) -> None:
    """And how much it found."""
    world.tree(store, "report", {})
    async with served(store, "/vm0-snake") as (provider, _):
        checks = await provider.check()
        assert all(check.ok for check in checks)
        assert [check.detail for check in checks] == ["1 artifacts", "/v1 snake_case"]
    async with storages_only(store) as (provider, _):
        assert [check.detail for check in await provider.check()] == ["1 artifacts", "/api/storages"]
    async with world.provider_at("http://127.0.0.1:1") as provider:
        assert [check.ok for check in await provider.check()] == [False]


async def test_the_wrong_server_is_called_that(store: Store) -> None:
    """404 without the service's envelope from both APIs is not an empty listing."""
    async with world.serving_store(store) as at, world.provider_at(at.url + "/nothing") as provider:
        for ref in ROLES:
            with pytest.raises(errors.Unsupported, match="neither"):
                await provider.list(ref, None)


# -- a server with only /api/storages ----------------------------------------------------------------------------


async def test_the_older_api_alone_serves_too(store: Store) -> None:
    """Artifacts by name, the present version of each, bytes by range; what it costs, and that it is remembered."""
    made = world.tree(store, "report", {"f": b"1"}, {"f": b"22"})
    world.tree(store, "empty", {}, at=1)
    world.tree(store, "none", at=2)
    current = store.versions(made.id)[-1]
    memory = world.Kept()
    async with storages_only(store, memory) as (provider, observer):
        listing = await provider.list(world.ARTIFACTS, None)
        by_name = {entry.path[0]: entry for entry in listing.entries if isinstance(entry, Artifact)}
        assert listing.complete
        assert by_name["none"].current is None
        empty, report = by_name["empty"].current, by_name["report"]
        assert empty is not None
        assert isinstance(empty.content, Empty)
        assert (report.id, report.workflow) == ("artifact:report", "artifacts")
        assert report.current is not None
        assert (report.current.id, report.current.file_count) == (current.id, 1)
        assert sent(observer) == {"GET /v1/artifacts": 1, "GET /api/storages/list": 1, "GET /api/storages/download": 3}
        whole = await world.read(provider, report.current)
        assert world.members(whole) == {"f": b"22"}
        assert await world.read(provider, report.current, 7, 9) == whole[7:16]
        await provider.list(world.ARTIFACTS, None)
        # The two with a version are known; the one without is asked again, as that can change without notice.
        assert sent(observer)["GET /api/storages/download"] == 3 + 2 + 1
        assert sent(observer)["GET /v1/artifacts"] == 1
    async with storages_only(store, memory) as (provider, observer):
        await provider.list(world.ARTIFACTS, None)
        assert sent(observer)["GET /api/storages/download"] == 1


async def test_the_older_api_shows_a_new_version(store: Store) -> None:
    """Every commit changes ``updatedAt``, which is what is looked at."""
    made = world.tree(store, "report", {"f": b"1"})
    async with storages_only(store) as (provider, _):
        before = (await world.only(provider)).current
        store.save_tree(made.id, [world.file(store, "f", b"2")])
        after = (await world.only(provider)).current
        assert before is not None
        assert after is not None
        assert after.id == store.versions(made.id)[-1].id != before.id


async def test_the_older_api_knows_versions_by_name_only(store: Store) -> None:
    """The present one, and those that were asked for by id or prefix; so the list is never complete."""
    made = world.tree(store, "report", {"f": b"1"}, {"f": b"2"})
    first, second = store.versions(made.id)
    async with storages_only(store) as (provider, _):
        artifact = await world.only(provider)
        page = await provider.versions(artifact, None)
        assert ([version.id for version in page.versions], page.complete) == ([second.id], False)
        assert await provider.find_version(artifact, "0" * 64) is None
        assert await provider.find_version(artifact, first.id[:9]) == first.id
        page = await provider.versions(artifact, None)
        assert [version.id for version in page.versions] == [second.id, first.id]
        assert world.members(await world.read(provider, page.versions[1])) == {"f": b"1"}


async def test_the_older_api_finds_by_its_own_ids(store: Store) -> None:
    """``artifact:report``; a UUID means nothing there."""
    made = world.tree(store, "report", {"f": b"1"})
    async with storages_only(store) as (provider, _):
        await provider.list(world.ARTIFACTS, None)
        found = await provider.find(world.ARTIFACTS, "artifact:report")
        assert found is not None
        assert found.current is not None
        assert await provider.find(world.VOLUMES, "artifact:report") is None
        assert await provider.find(world.ARTIFACTS, "artifact:other") is None
        assert await provider.find(world.ARTIFACTS, made.uuid) is None


async def test_found_versions_are_kept_across_mounts(store: Store) -> None:
    """A version that exists never ceases to: what was found once is shown in the next mount too."""
    made = world.tree(store, "report", {"f": b"1"}, {"f": b"2"})
    memory = world.Kept()
    async with storages_only(store, memory) as (provider, _):
        await provider.find_version(await world.only(provider), store.versions(made.id)[0].id)
    async with storages_only(store, memory) as (provider, _):
        page = await provider.versions(await world.only(provider), None)
        assert {version.id for version in page.versions} == ids(store, made)


def ids(store: Store, artifact: StoredArtifact) -> set[str]:
    return {version.id for version in distinct(store, artifact)}
