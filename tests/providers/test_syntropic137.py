"""The Syntropic137 provider against the served dialect, in every generation, and against servers that misbehave."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from artifactfs import errors
from artifactfs.model.content import ByteRange, Hint, Pointer, Unknown
from artifactfs.model.entry import Artifact, ArtifactKind, DirRef, Folder, Listing, Role, SingleFile
from artifactfs.providers.base import Provider
from artifactfs.providers.http import HttpClient
from artifactfs.providers.syntropic.api import all_of
from artifactfs.providers.syntropic.provider import NO_WORKFLOW, NO_WORKFLOW_ID, Syntropic137Provider
from artifactfs.providers.syntropic.schemas import (
    artifact_row,
    content_bytes,
    page_of,
    session_row,
    workflow_row,
)
from artifactfs.providers.syntropic.titles import MAX_DEPTH, place
from artifactfs.store.catalog import Store
from tests.support.serving import serving
from tests.support.syntropic137_store import (
    MINUTE_NS,
    START_NS,
    Counting,
    add_file,
    add_run,
    dialect,
    make_store,
)

GENERATIONS = ["A", "B", "C"]
ROOT = DirRef("syn", "root")
WORKFLOW = DirRef("syn", "workflow", ("wf-1",))
ID = "00000000-0000-4000-8000-000000000001"
KEYS = st.sampled_from(["id", "workflow_id", "phase_id", "title", "size_bytes", "created_at", "content", "is_archived"])
SESSION = "00000000-0000-4000-8000-0000000000aa"


class DictMemory:
    """A memory that keeps what JSON keeps."""

    def __init__(self) -> None:
        self.facts: dict[str, str] = {}

    def get(self, key: str) -> Any | None:
        return json.loads(self.facts[key]) if key in self.facts else None

    def put(self, key: str, value: Any) -> None:
        key.encode("utf-8")
        self.facts[key] = json.dumps(value)

    def items(self, prefix: str) -> list[tuple[str, Any]]:
        return [(key, json.loads(value)) for key, value in self.facts.items() if key.startswith(prefix)]


@pytest.fixture
def store(tmp_path):
    store = make_store(tmp_path / "store")
    yield store
    store.close()


@asynccontextmanager
async def provider_at(
    url: str, memory: DictMemory | None = None, authorization: str = "", deadline_s: float = 30.0
) -> AsyncIterator[Syntropic137Provider]:
    headers = {"Authorization": authorization} if authorization else {}
    http = HttpClient("syn", url, headers=headers, deadline_s=deadline_s)
    provider = Syntropic137Provider("syn", http, memory or DictMemory())
    checked: Provider = provider
    try:
        yield provider
    finally:
        await checked.aclose()


@asynccontextmanager
async def served(
    store: Store, generation: str = "B", memory: DictMemory | None = None, **options: Any
) -> AsyncIterator[tuple[Syntropic137Provider, Counting]]:
    async with dialect(store, generation, **options) as (url, counting), provider_at(url, memory) as provider:
        yield provider, counting


@asynccontextmanager
async def misbehaving(
    answers: dict[str, Callable[[Request], Response]], **options: Any
) -> AsyncIterator[tuple[Syntropic137Provider, Counting]]:
    """Serve answers by path below ``/api/v1``; anything else is the gateway's dashboard."""
    routes = [Route(f"/api/v1{path}", make) for path, make in answers.items()]
    routes.append(Route("/{path:path}", lambda _: HTMLResponse("<html>dashboard</html>")))
    counting = Counting(Starlette(routes=routes))
    async with serving(counting) as running, provider_at(running.url, **options) as provider:
        yield provider, counting


def always(value: object, status: int = 200, **headers: str) -> Callable[[Request], Response]:
    body = json.dumps(value).encode()
    return lambda _: Response(body, status, headers, "application/json")


def raw(body: bytes, status: int = 200, kind: str = "application/json") -> Callable[[Request], Response]:
    return lambda _: Response(body, status, media_type=kind)


def row(number: int = 1, **fields: object) -> dict[str, object]:
    """One row of a list, as 0.25.4 gives it."""
    return {
        "id": f"00000000-0000-4000-8000-{number:012d}",
        "workflow_id": "wf-1",
        "phase_id": "",
        "artifact_type": "text",
        "title": f"{number}.txt",
        "size_bytes": 1,
        "created_at": None,
        **fields,
    }


def one_session(name: str, run: str | None, phase: str) -> dict[str, object]:
    times = {"started_at": "2026-05-01T10:00:00+00:00", "completed_at": "2026-05-01 10:05:00+00:00"}
    return {"id": name, "workflow_id": "wf-1", "execution_id": run, "phase_id": phase, "status": "completed", **times}


NO_SESSIONS = always({"sessions": [], "total": 0})
NO_WORKFLOWS = always({"workflows": [], "total": 0, "page": 1, "page_size": 100})


def artifacts_of(listing: Listing) -> list[Artifact]:
    return [entry for entry in listing.entries if isinstance(entry, Artifact)]


def folders_of(listing: Listing) -> list[Folder]:
    return [entry for entry in listing.entries if isinstance(entry, Folder)]


def paths_of(listing: Listing) -> set[tuple[str, ...]]:
    return {artifact.path for artifact in artifacts_of(listing)}


async def read(provider: Syntropic137Provider, artifact_id: str = ID) -> bytes:
    pointer = Pointer("syn", artifact_id, (artifact_id,), Unknown())
    async with provider.open(pointer, ByteRange(0)) as stream:
        data = b"".join([chunk async for chunk in stream.chunks])
        assert stream.total == len(data)
        assert (stream.offset, stream.ranged) == (0, False)
        return data


# ------------------------------------------------------------------------------------------- real dialect


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("prefixed", [True, False])
async def test_lists_workflows_runs_and_outputs_in_every_generation(store, generation, prefixed):
    """The same tree from 0.18.0, 0.25.4 and later, behind the gateway and at the bare API, for as few requests."""
    run = add_run(store, "wf-1", 1)
    made = add_file(store, "wf-1", "docs/deliverable.md", b"# x\n", run=run, phase="plan")
    add_file(store, "wf-1", "note.txt", b"hello")
    async with served(store, generation, prefixed=prefixed) as (provider, counting):
        assert provider.root() == Folder(path=(), id="syn", ref=ROOT)
        root = await provider.list(ROOT, None)
        assert len(counting.taken()) == (2 if prefixed else 3)
        (workflow,) = folders_of(root)
        assert (workflow.path, workflow.id, workflow.role) == (("Research",), "wf-1", Role.WORKFLOW)
        assert workflow.ref == WORKFLOW
        assert root.complete
        listing = await provider.list(workflow.ref, None)
        assert [target.split("?")[0].rsplit("/", 1)[1] for target in counting.taken()] == ["artifacts", "sessions"]
        assert provider.describe()["prefix"] == ("/api/v1" if prefixed else "")
        assert provider.describe()["generation"].startswith("C" if generation == "C" else "A/B")
    assert listing.complete
    assert listing.next_cursor is None
    assert paths_of(listing) == {(run.id, "plan", "docs", "deliverable.md"), ("note.txt",)}
    (folder,) = folders_of(listing)
    assert (folder.path, folder.id, folder.role, folder.ref) == ((run.id,), run.id, Role.RUN, None)
    assert folder.mtime_ns == run.completed_at_ns
    output = next(a for a in artifacts_of(listing) if a.run)
    assert (output.id, output.kind, output.only_version) == (made.uuid, ArtifactKind.FILE, True)
    assert (output.workflow, output.run) == ("wf-1", run.id)
    assert output.created_at_ns == (made.created_at_ns if generation == "C" else run.completed_at_ns)
    assert output.current is not None
    assert isinstance(output.current.content, SingleFile)
    assert output.current.content.content == Pointer("syn", made.uuid, (made.uuid,), Hint(4))
    assert output.metadata["title"] == "plan: artifacts/output/docs/deliverable.md"


@pytest.mark.parametrize("authorization", ["Bearer s3cret", "Basic " + base64.b64encode(b"admin:s3cret").decode()])
@pytest.mark.parametrize("generation", GENERATIONS)
async def test_credentials_open_the_server(store, authorization, generation):
    """Bearer and Basic both work; without them it is AccessDenied, not an empty tree."""
    add_file(store, "wf-1", "note.txt", b"hello")
    async with dialect(store, generation, token="s3cret") as (url, _):
        async with provider_at(url, authorization=authorization) as provider:
            assert paths_of(await provider.list(WORKFLOW, None)) == {("note.txt",)}
        for wrong in ("", "Bearer other"):
            async with provider_at(url, authorization=wrong) as provider:
                with pytest.raises(errors.AccessDenied):
                    await provider.list(WORKFLOW, None)
                (_, credentials) = await provider.check()
                assert (credentials.what, credentials.ok) == ("credentials", False)


async def test_phases_that_ran_once_are_joined_without_a_request_for_each(store):
    """Three phases, many outputs, one run: two requests."""
    run = add_run(store, "wf-1", 1)
    for phase in ("plan", "code", "Review: v2/x"):
        for number in range(20):
            add_file(store, "wf-1", f"{number}.md", b"x", run=run, phase=phase)
    async with served(store) as (provider, counting):
        listing = await provider.list(WORKFLOW, None)
        assert len(counting.taken()) == 2
    assert len(artifacts_of(listing)) == 60
    assert (run.id, "Review: v2/x", "7.md") in paths_of(listing)


@pytest.mark.parametrize("generation", ["A", "B"])
async def test_phases_that_ran_again_cost_one_request_each_once_for_ever(store, generation):
    """Two runs of one phase cannot be told apart by the list: each output is asked for, and then remembered."""
    memory = DictMemory()
    runs = [add_run(store, "wf-1", number) for number in (1, 2)]
    for run in runs:
        for number in range(10):
            add_file(store, "wf-1", f"{number}.md", b"x", run=run, phase="plan")
    async with served(store, generation, memory) as (provider, counting):
        first = await provider.list(WORKFLOW, None)
        assert len(counting.taken()) == 2 + 20
        again = await provider.list(WORKFLOW, None)
        assert len(counting.taken()) == 2
    async with served(store, generation, memory) as (provider, counting):
        remounted = await provider.list(WORKFLOW, None)
        assert len(counting.taken()) == 2
    assert first == again == remounted
    assert paths_of(first) == {(run.id, "plan", f"{n}.md") for run in runs for n in range(10)}
    assert {folder.id: folder.mtime_ns for folder in folders_of(first)} == {r.id: r.completed_at_ns for r in runs}


async def test_later_generation_asks_once_for_each_session_in_question(store):
    """With a filter by session, two ambiguous sessions cost two requests, not one for each of 20 outputs."""
    runs = [add_run(store, "wf-1", number) for number in (1, 2)]
    for run in runs:
        for number in range(10):
            add_file(store, "wf-1", f"{number}.md", b"x", run=run, phase="plan")
    async with served(store, "C") as (provider, counting):
        listing = await provider.list(WORKFLOW, None)
        asked = counting.taken()
    assert len(asked) == 2 + 2
    assert sum("session_id=" in target for target in asked) == 2
    assert paths_of(listing) == {(run.id, "plan", f"{n}.md") for run in runs for n in range(10)}


async def test_artifact_made_by_post_is_never_taken_for_an_output(store):
    """A POST may name a phase that ran exactly once: its title tells that the detail has to be asked."""
    run = add_run(store, "wf-1", 1)
    add_file(store, "wf-1", "a.md", b"x", run=run, phase="plan")
    posted = store.add_artifact("wf-1", "mine.md", "file", phase="plan")
    store.save_file(posted.id, store.objects.put(b"x", durable=False), 1)
    async with served(store) as (provider, counting):
        listing = await provider.list(WORKFLOW, None)
        assert len(counting.taken()) == 3
    assert paths_of(listing) == {(run.id, "plan", "a.md"), ("mine.md",)}


@pytest.mark.parametrize("generation", ["A", "B"])
async def test_200_rows_are_incomplete_and_199_are_not(store, generation):
    """A list that was cut says so, for the workflow and for the root."""
    for number in range(199):
        add_file(store, "wf-1", f"{number}.md", b"x", at_ns=START_NS + number)
    async with served(store, generation) as (provider, _):
        assert (await provider.list(WORKFLOW, None)).complete
        add_file(store, "wf-1", "199.md", b"x", at_ns=START_NS + 199)
        listing = await provider.list(WORKFLOW, None)
        root = await provider.list(ROOT, None)
        assert provider.describe()["lists_complete"] is False
    assert len(listing.entries) == 200
    assert not listing.complete
    assert "200 artifacts at most" in (listing.note or "")
    assert not root.complete


async def test_later_generation_lists_everything_page_by_page(store):
    """450 artifacts are three pages, and complete."""
    for number in range(450):
        add_file(store, "wf-1", f"{number}.md", b"x", at_ns=START_NS + number)
    async with served(store, "C") as (provider, counting):
        listing = await provider.list(WORKFLOW, None)
        assert len(counting.taken()) == 3 + 1
    assert listing.complete
    assert len(paths_of(listing)) == 450


@pytest.mark.parametrize(("generation", "requests", "complete"), [("A", 3, False), ("B", 3, True), ("C", 3, True)])
async def test_more_than_200_sessions_are_paged_by_their_start(store, generation, requests, complete):
    """250 runs without a living output: the sessions come in pages, which 0.18.0 cannot give."""
    for number in range(250):
        run = add_run(store, "wf-1", number)
        store.delete_artifact(add_file(store, "wf-1", "a.md", b"x", run=run, phase="plan").id)
    async with served(store, generation) as (provider, counting):
        listing = await provider.list(WORKFLOW, None)
        assert len(counting.taken()) == requests
    assert listing.complete is complete
    assert len(folders_of(listing)) == (250 if complete else 200)


async def test_root_shows_workflows_that_only_artifacts_name(store):
    """Ids of no defined workflow become directories too, odd ones as they are; no id at all has one of its own."""
    for odd in ("", "w/../x", "..", "gone"):
        store.add_workflow(odd, workflow_id=odd, description="named by an artifact")
        add_file(store, odd, f"in {odd}.txt", b"x")
    async with served(store) as (provider, _):
        root = await provider.list(ROOT, None)
        found = {folder.path: folder for folder in folders_of(root)}
        assert set(found) == {("Research",), (NO_WORKFLOW,), ("w/../x",), ("..",), ("gone",)}
        assert found[NO_WORKFLOW,].id == NO_WORKFLOW_ID
        for title, odd in ((NO_WORKFLOW, ""), ("w/../x", "w/../x"), ("..", ".."), ("gone", "gone")):
            ref = found[title,].ref
            assert ref is not None
            assert paths_of(await provider.list(ref, None)) == {(f"in {odd}.txt",)}


@pytest.mark.parametrize(("generation", "shown", "complete"), [("A", 100, False), ("B", 100, False), ("C", 150, True)])
async def test_more_than_100_workflows(store, generation, shown, complete):
    """Up to 0.25.4 the second page is empty, so the list is incomplete; a hidden one is found by its id."""
    for number in range(149):
        store.add_workflow(f"w{number}", workflow_id=f"id-{number:03d}", created_at_ns=START_NS + 1 + number)
    async with served(store, generation) as (provider, counting):
        root = await provider.list(ROOT, None)
        assert len(counting.taken()) == (2 if generation != "C" else 3)
        assert (len(folders_of(root)), root.complete) == (shown, complete)
        hidden = await provider.resolve(ROOT, "id-148")
        assert len(counting.taken()) == 1
        assert hidden is not None
        assert (hidden.path, hidden.id, hidden.metadata["name"]) == (("id-148",), "id-148", "w148")
        # Beginnings of ids, which the service takes for one, or refuses as ambiguous, are no ids.
        for name in ("wf", "id-14"):
            assert await provider.resolve(ROOT, name) is None
        assert await provider.resolve(ROOT, "no-such") is None
        counting.taken()
        for name in ("", ".hidden", "a/b", "x" * 101, "\ud800"):
            assert await provider.resolve(ROOT, name) is None
        assert await provider.resolve(WORKFLOW, "wf-1") is None
        assert counting.taken() == []


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_find_gives_what_the_listing_gives(store, generation):
    """By id an artifact is the same value as in its listing, for two requests at most."""
    run = add_run(store, "wf-1", 1)
    output = add_file(store, "wf-1", "a/b.md", b"x", run=run, phase="plan")
    posted = add_file(store, "wf-1", "note.txt", b"x")
    async with served(store, generation) as (provider, counting):
        listed = {a.id: a for a in artifacts_of(await provider.list(WORKFLOW, None))}
    async with served(store, generation) as (provider, counting):
        for row_id, cost in ((output.uuid, 2), (output.uuid, 1), (posted.uuid, 1)):
            found = await provider.find(WORKFLOW, row_id)
            assert found == listed[row_id]
            assert found is not None
            assert dict(found.metadata) == dict(listed[row_id].metadata)
            assert len(counting.taken()) == cost
        assert await provider.find(DirRef("syn", "workflow", ("other",)), output.uuid) is None
        assert await provider.find(WORKFLOW, ID) is None
        counting.taken()
        for name in ("", "art_123456", output.uuid[:8], output.uuid.upper(), "x/../y"):
            assert not provider.is_artifact_id(name)
            assert await provider.find(WORKFLOW, name) is None
        assert counting.taken() == []


async def test_versions_are_the_one_there_is(store):
    """No request is needed for them, nor for a tree, which no artifact is."""
    add_file(store, "wf-1", "note.txt", b"x")
    async with served(store) as (provider, counting):
        (artifact,) = artifacts_of(await provider.list(WORKFLOW, None))
        counting.taken()
        assert (await provider.versions(artifact, None)).versions == (artifact.current,)
        assert await provider.find_version(artifact, artifact.id) == artifact.id
        assert await provider.find_version(artifact, "0" * 64) is None
        assert await provider.tree(artifact, ()) == ()
        assert counting.taken() == []


@pytest.mark.parametrize("data", ["grüße\r\n", "", "x" * 3_000_000, '"\\\u2028\ufeff\U0001f600'])
@pytest.mark.parametrize("generation", GENERATIONS)
async def test_content_comes_as_the_bytes_that_were_stored(store, data, generation):
    """Text of any length, none at all included, is what UTF-8 makes of it; one request."""
    made = add_file(store, "wf-1", "note.txt", data.encode())
    async with served(store, generation) as (provider, counting):
        assert await read(provider, made.uuid) == data.encode()
        assert len(counting.taken()) == 1


async def test_content_after_an_upload_is_the_new_one(store):
    """The size stays that of creation, so it is a hint; what is read is what is there."""
    made = add_file(store, "wf-1", "note.txt", b"first")
    store.save_file(made.id, store.objects.put(b"", durable=False), 0)
    async with served(store) as (provider, _):
        assert await read(provider, made.uuid) == b""
        store.save_file(made.id, store.objects.put(b"second, longer", durable=False), 14)
        assert await read(provider, made.uuid) == b"second, longer"
        (artifact,) = artifacts_of(await provider.list(WORKFLOW, None))
        assert artifact.current is not None
        assert artifact.current.size == Hint(5)


async def test_reading_what_is_gone_is_not_found(store):
    """A deleted artifact and one that never was are 404."""
    made = add_file(store, "wf-1", "note.txt", b"x")
    store.delete_artifact(made.id)
    async with served(store) as (provider, _):
        for artifact_id in (made.uuid, ID):
            with pytest.raises(errors.NotFound):
                await read(provider, artifact_id)


async def test_check_and_describe_tell_what_was_found(store):
    """Address, credentials, generation and counts, for four requests; nothing is known before the first."""
    add_file(store, "wf-1", "note.txt", b"x")
    async with served(store) as (provider, counting):
        assert provider.describe()["prefix"] is None
        checks = {check.what: check for check in await provider.check()}
        assert len(counting.taken()) == 4
        assert provider.describe()["generation"].startswith("A/B")
        json.dumps(provider.describe())
    assert all(check.ok for check in checks.values())
    assert checks["address"].detail.endswith("/syn/api/v1")
    assert checks["artifacts"].detail == "1 listed"
    assert checks["metrics"].detail == "total_artifacts: 1"
    assert checks["health"].detail == "status: healthy"


# ---------------------------------------------------------------------------------------- misbehaving servers


async def test_a_gateway_that_answers_html_to_all_is_no_syntropic137():
    """HTML with 200 is the dashboard of the wrong address: an error, never an empty directory."""
    async with misbehaving({}) as (provider, counting):
        with pytest.raises(errors.Unsupported, match="answers as Syntropic137"):
            await provider.list(WORKFLOW, None)
        assert len(counting.taken()) == 2
        (check,) = await provider.check()
        assert (check.what, check.ok) == ("address", False)
        with pytest.raises(errors.Unsupported):
            await read(provider)
        assert provider.describe()["prefix"] is None


NO_ROUTE = [{"detail": "Not Found"}, {"message": "no Route matched with those values"}, {"detail": "no such list"}]


@pytest.mark.parametrize("says", NO_ROUTE)
@pytest.mark.parametrize("path", ["/workflows", "/artifacts", "/sessions"])
async def test_a_list_that_a_gateway_does_not_find_is_a_failure(path, says):
    """The service always has these: what is known of them stands."""
    lists = {"/workflows": {"workflows": []}, "/artifacts": [], "/sessions": {"sessions": []}}
    answers = {name: always(value) for name, value in lists.items()}
    is_gone: list[bool] = []
    answers[path] = lambda _: JSONResponse(says, 404) if is_gone else JSONResponse(lists[path])
    async with misbehaving(answers) as (provider, _):
        await provider.list(ROOT, None)
        await provider.list(WORKFLOW, None)
        is_gone.append(True)
        with pytest.raises((errors.ProviderMisbehaved, errors.Unsupported)):
            await provider.list(WORKFLOW if path == "/sessions" else ROOT, None)


@pytest.mark.parametrize("says", NO_ROUTE[:2])
async def test_what_a_gateway_does_not_find_is_not_gone(says):
    """The service says of what; that an address is not there it says only of addresses that it never had."""
    missing = always(says, 404)
    answers = {
        "/artifacts": always([]), "/workflows/{id}": missing, "/artifacts/{id}": missing,
        "/artifacts/{id}/content": missing, "/sessions": always({"sessions": []}),
    }  # fmt: skip
    async with misbehaving(answers) as (provider, _):
        await provider.list(WORKFLOW, None)
        failure = (errors.ProviderMisbehaved, errors.Unsupported)
        with pytest.raises(failure):
            await provider.find(WORKFLOW, ID)
        with pytest.raises(failure):
            await provider.resolve(ROOT, "wf-2")
        with pytest.raises(failure):
            await read(provider)


async def test_the_prefix_is_found_by_the_first_request_whatever_it_is():
    """A 404 of the API for an id is an answer of the API, and settles the prefix."""
    missing = always({"detail": f"Artifact not found: {ID}"}, 404)
    async with misbehaving({"/artifacts/{id}": missing}) as (provider, counting):
        assert await provider.find(WORKFLOW, ID) is None
        assert provider.describe()["prefix"] == "/api/v1"
        assert len(counting.taken()) == 1


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>dashboard</html>", "text/html"),
        (b"", "application/json"),
        (b"null", "application/json"),
        (b'{"artifacts": {}}', "application/json"),
        (b'"text"', "application/json"),
        (b"[" * 10_000 + b"]" * 10_000, "application/json"),
        (b'[{"id": "\xff"}]', "application/json"),
        (b'{"detail": "no list"}', "application/json"),
        (b"[" + b"9" * 5000 + b"]", "application/json"),
    ],
    ids=["html", "empty", "null", "object", "text", "deep", "not-utf8", "detail", "digits"],
)
async def test_lists_that_are_none_are_errors(body, kind):
    """Whatever else comes with 200 is an error, also once the prefix is known."""
    answers = {"/artifacts": raw(body, kind=kind), "/sessions": NO_SESSIONS, "/health": always({"status": "healthy"})}
    async with misbehaving(answers) as (provider, _):
        with pytest.raises(errors.ArtifactFSError):
            await provider.list(WORKFLOW, None)
        await provider.api.facts("/health")
        with pytest.raises(errors.ProviderMisbehaved):
            await provider.list(WORKFLOW, None)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (raw(b"<html>too many</html>", 429, "text/html"), errors.RateLimited),
        (raw(b"<html>bad gateway</html>", 502, "text/html"), errors.Unavailable),
        (always({"detail": [{"type": "x", "loc": ["query", 1], "msg": "wrong"}]}, 422), errors.InvalidRequest),
        (always({"detail": "Invalid isoformat string: 'x'"}, 500), errors.Unavailable),
        (always({"detail": "forbidden"}, 403), errors.AccessDenied),
        (always({"detail": "soon"}, 202), errors.Unavailable),
        (raw(b"", 204), errors.ProviderMisbehaved),
    ],
    ids=["429", "502", "422", "500", "403", "202", "204"],
)
async def test_failures_of_a_list_are_errors_never_an_empty_list(make, kind):
    """Each status has its meaning; the sessions failing fails the listing too."""
    good = {"/artifacts": always([row()]), "/sessions": NO_SESSIONS, "/workflows": NO_WORKFLOWS}
    for failing in ("/artifacts", "/sessions"):
        async with misbehaving({**good, failing: make}, deadline_s=0.2) as (provider, _):
            provider.api.prefix = "/api/v1"
            with pytest.raises(kind):
                await provider.list(WORKFLOW, None)
    async with misbehaving({**good, "/workflows": make}, deadline_s=0.2) as (provider, _):
        provider.api.prefix = "/api/v1"
        with pytest.raises(kind):
            await provider.list(ROOT, None)


async def test_poison_rows_degrade_or_are_skipped_and_the_listing_says_so():
    """Wrong types cost a field; a row whose id cannot be asked for is skipped, and the listing is incomplete."""
    rows: list[object] = [
        row(1, title=None, size_bytes="7", phase_id=3, created_at=17),
        row(2, title={"deep": []}, size_bytes=-1, workflow_id="wf-1", extra=[1]),
        row(3, size_bytes=True, created_at="yesterday"),
        row(4, size_bytes=2**70, title="\ud800.txt"),
        row(5, id=None),
        row(6, id=""),
        row(7, id=".."),
        row(8, id="\ud800"),
        row(9, id="a\nb"),
        row(10, id="x" * 600),
        row(11, id="a/../b?c#d%e"),
        row(11, id="a/../b?c#d%e", title="the same id again"),
        row(12, workflow_id="other"),
        None,
        7,
        [],
    ]
    async with misbehaving({"/artifacts": always(rows), "/sessions": always({"sessions": [1, {"id": 2}]})}) as (p, _):
        listing = await p.list(WORKFLOW, None)
    titles = {artifact.path for artifact in artifacts_of(listing)}
    assert titles == {(str(row(1)["id"]),), (str(row(2)["id"]),), ("3.txt",), ("\ud800.txt",), ("11.txt",)}
    assert {artifact.current and artifact.current.size for artifact in artifacts_of(listing)} >= {Unknown()}
    assert not listing.complete
    assert "9 rows could not be read" in (listing.note or "")


async def test_ids_are_encoded_whole_in_the_address():
    """An id with slashes, dots, ? and # cannot lead to another endpoint."""
    async with misbehaving({"/artifacts": always([])}) as (provider, counting):
        await provider.api.artifacts(None)
        with pytest.raises(errors.ArtifactFSError):
            await read(provider, "a/../b?c#d%e")
        assert counting.taken()[-1] == "/api/v1/artifacts/a%2F..%2Fb%3Fc%23d%25e/content"


async def test_root_skips_workflow_ids_that_cannot_be_asked_for():
    """A lone surrogate fits no query, and 600 characters no request line; the root says that it left something out."""
    rows = [row(1, workflow_id="\ud800"), row(2, workflow_id="x" * 600), row(3, workflow_id=None), row(4)]
    async with misbehaving({"/artifacts": always(rows), "/workflows": NO_WORKFLOWS}) as (provider, _):
        root = await provider.list(ROOT, None)
    assert [folder.path for folder in folders_of(root)] == [(NO_WORKFLOW,), ("wf-1",)]
    assert not root.complete
    assert "2 artifacts name a workflow" in (root.note or "")


async def test_rows_that_carry_their_session_or_execution_need_no_request():
    """What later generations may say themselves is taken; a session that is not listed is asked for once."""
    rows = [
        row(1, phase_id="p", title="p: artifacts/output/1", session_id=SESSION),
        row(2, phase_id="p", title="p: artifacts/output/2", execution_id="exec-2"),
        row(3, phase_id="p", title="p: artifacts/output/3", session_id="unlisted"),
        row(4, phase_id="p", title="p: artifacts/output/4", session_id="unknown"),
    ]
    page = {"artifacts": rows, "total": 4, "page": 1, "page_size": 200, "type_counts": {}}
    answers = {
        "/artifacts": always(page),
        "/sessions": always({"sessions": [one_session(SESSION, "exec-1", "p")]}),
        "/sessions/unlisted": always(one_session("unlisted", None, "p")),
        "/sessions/unknown": always({"detail": "Session not found"}, 404),
    }
    async with misbehaving(answers) as (provider, counting):
        listing = await provider.list(WORKFLOW, None)
        assert len(counting.taken()) == 4
    runs = ("exec-1", "exec-2", "unlisted", "unknown")
    assert paths_of(listing) == {(run, "p", str(number)) for number, run in enumerate(runs, 1)}
    assert {folder.id for folder in folders_of(listing)} == set(runs)


async def test_a_server_that_ignores_the_session_filter_is_noticed():
    """The same rows for two sessions prove nothing: each artifact is asked for instead."""
    rows = [row(n, phase_id="p", title=f"p: artifacts/output/{n}") for n in range(1, 5)]
    sessions = [one_session("s1", "exec-1", "p"), one_session("s2", "exec-2", "p")]

    def detail(request: Request) -> Response:
        number = int(request.path_params["id"][-1])
        return JSONResponse({**rows[number - 1], "session_id": "s1" if number < 3 else "s2"})

    answers = {
        "/artifacts": always({"artifacts": rows, "total": 4, "page": 1, "page_size": 200}),
        "/artifacts/{id}": detail,
        "/sessions": always({"sessions": sessions}),
    }
    async with misbehaving(answers) as (provider, counting):
        listing = await provider.list(WORKFLOW, None)
        assert len(counting.taken()) == 2 + 2 + 4
    assert paths_of(listing) == {(f"exec-{1 if n < 3 else 2}", "p", str(n)) for n in range(1, 5)}


async def test_a_failing_join_fails_the_listing_and_keeps_what_it_learnt():
    """One detail that fails is an error, not a shorter or a guessed list; the next try asks only for what is open."""
    rows = [row(n, phase_id="p", title=f"p: artifacts/output/{n}") for n in range(1, 9)]
    failing = {"now": True}

    def detail(request: Request) -> Response:
        if request.path_params["id"].endswith("8") and failing["now"]:
            return Response(status_code=503)
        return JSONResponse({**rows[0], "id": request.path_params["id"], "session_id": "s1"})

    sessions = [one_session("s1", "exec-1", "p"), one_session("s2", "exec-2", "p")]
    answers = {"/artifacts": always(rows), "/artifacts/{id}": detail, "/sessions": always({"sessions": sessions})}
    async with misbehaving(answers, deadline_s=0.3) as (provider, counting):
        with pytest.raises(errors.Unavailable):
            await provider.list(WORKFLOW, None)
        counting.taken()
        failing["now"] = False
        listing = await provider.list(WORKFLOW, None)
        assert len(counting.taken()) == 2 + 1
    assert len(paths_of(listing)) == 8


async def test_an_output_that_the_service_does_not_find_is_shown_by_its_title():
    """Listed, but 404 by id (beyond the 10,000th): no run is made up for it, and the listing says so."""
    title = "p: artifacts/output/a.md"
    answers = {
        "/artifacts": always([row(1, phase_id="p", title=title)]),
        "/artifacts/{id}": always({"detail": "Artifact x not found"}, 404),
        "/sessions": always([one_session("s1", "exec-1", "p"), one_session("s2", "exec-2", "p")]),
    }
    memory = DictMemory()
    async with misbehaving(answers, memory=memory) as (provider, _):
        listing = await provider.list(WORKFLOW, None)
    assert paths_of(listing) == {(title,)}
    assert not listing.complete
    assert memory.facts == {}


@pytest.mark.parametrize("total", [3, 5, 10**18, None, "x", -1])
async def test_pages_that_repeat_or_never_end_are_bounded_and_incomplete(total):
    """The same page again and again, whatever its total, ends; what was seen is shown once."""
    page = {"artifacts": [row(1), row(2)], "total": total, "page": 1, "page_size": 2}
    async with misbehaving({"/artifacts": always(page), "/sessions": NO_SESSIONS}) as (provider, counting):
        listing = await provider.list(WORKFLOW, None)
        assert len(counting.taken()) <= 101
    assert len(artifacts_of(listing)) == 2
    assert not listing.complete


@pytest.mark.parametrize(
    ("pages", "totals"),
    [
        # 4 is made where 1 stood, after the first page was read: 2 moves to the second page, and 5 beyond the last one.
        ([[1, 2], [2, 3]], [4, 5]),
        # As before, but the first page was read when 4 was there, and the second before that: 2 is on neither.
        ([[4, 1], [3, 5]], [5, 4]),
        # 1 is removed and 6 is made at the end between the pages: 3 is on neither, though there are as many as before.
        ([[1, 2], [4, 6]], [4, 3]),
        # A renamed row goes to the end (PostgreSQL), and all others move up: 3 is missed, and 1 is there twice.
        ([[1, 2], [4, 1]], [4, 4]),
    ],
)
async def test_a_list_that_moves_while_it_is_read_is_not_whole(pages, totals):
    """Its total tells, or a row that comes twice; it is asked for again soon."""

    def answer(request: Request) -> Response:
        number = int(request.query_params["page"])
        rows = [row(n) for n in (pages[number - 1] if number <= len(pages) else [])]
        total = totals[min(number, len(totals)) - 1]
        return JSONResponse({"artifacts": rows, "total": total, "page": number, "page_size": 2})

    async with misbehaving({"/artifacts": answer, "/sessions": NO_SESSIONS}) as (provider, _):
        listing = await provider.list(WORKFLOW, None)
    assert not listing.complete
    assert "changed while it was read" in (listing.note or "")
    assert listing.ttl_s is not None
    assert listing.ttl_s < provider.listing_ttl_s


async def test_sessions_that_never_end_are_bounded_and_incomplete():
    """A full page that always comes back, with or without times, is not asked for for ever."""
    for started in ("2026-05-01T10:00:00Z", "soon", None):
        full = [{**one_session(f"s{n}", None, "p"), "started_at": started} for n in range(200)]
        answers = {"/artifacts": always([]), "/sessions": always({"sessions": full})}
        async with misbehaving(answers) as (provider, counting):
            listing = await provider.list(WORKFLOW, None)
            assert len(counting.taken()) <= 3
        assert not listing.complete
        assert listing.entries == ()  # sessions of no run that made nothing


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ({"content": "\ud800", "size_bytes": 3}, errors.CorruptContent),
        ({"content": None, "size_bytes": 3}, errors.Unavailable),
        ({"content": None, "size_bytes": None}, errors.Unavailable),
        ({"content": None}, errors.Unavailable),
        ({"content": 7, "size_bytes": 1}, errors.ProviderMisbehaved),
        ({"content": ["x"]}, errors.ProviderMisbehaved),
        ({"content": "x", "artifact_id": "another"}, errors.ProviderMisbehaved),
        ([], errors.ProviderMisbehaved),
    ],
    ids=["surrogate", "null", "null-null", "null-only", "number", "list", "another", "array"],
)
async def test_content_that_is_none_is_an_error(answer, kind):
    """Lone surrogates have no bytes; null is only content where the size is 0; nothing else is content."""
    answers = {"/artifacts/{id}/content": always(answer), "/artifacts": always([])}
    async with misbehaving(answers) as (provider, _):
        await provider.api.artifacts(None)
        with pytest.raises(kind):
            await read(provider)


async def test_202_is_waited_for_and_then_unavailable():
    """202 is an error with a 2xx: tried again after Retry-After, and never read as content."""
    left = {"tries": 2}

    def content(_: Request) -> Response:
        left["tries"] -= 1
        if left["tries"] < 0:
            return JSONResponse({"artifact_id": ID, "content": "here", "size_bytes": 4})
        return JSONResponse({"detail": "not yet available"}, 202, {"Retry-After": "0"})

    async with misbehaving({"/artifacts/{id}/content": content}) as (provider, counting):
        assert await read(provider) == b"here"
        left["tries"] = 100
        counting.taken()
        with pytest.raises(errors.Unavailable, match="not yet available"):
            await read(provider)
        assert len(counting.taken()) == 3


async def test_a_detail_without_content_is_asked_for():
    """An empty artifact is 404 by id unless the content is left out: it must stay findable."""

    def detail(request: Request) -> Response:
        if request.query_params.get("include_content") != "false":
            return JSONResponse({"detail": f"Artifact {ID} content not found in projection."}, 404)
        return JSONResponse({**row(1), "session_id": None})

    async with misbehaving({"/artifacts/{id}": detail}) as (provider, _):
        found = await provider.find(WORKFLOW, ID)
    assert found is not None
    assert found.path == ("1.txt",)


async def test_unknown_directories_are_not_found(store):
    """A reference of another kind is no directory of this provider."""
    async with served(store) as (provider, counting):
        with pytest.raises(errors.NotFound):
            await provider.list(DirRef("syn", "run", ("x",)), None)
        assert counting.taken() == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(st.characters()), inner, max_size=5),
    max_leaves=20,
)


@given(JSON)
def test_no_json_leads_to_another_error(value):
    """Whatever JSON an answer is, reading it gives rows, bytes, or one of our errors."""
    for key, read_row in (("artifacts", artifact_row), ("sessions", session_row), ("workflows", workflow_row)):
        read_row(value)
        for answer in (value, [value], {key: [value], "total": value}):
            with contextlib.suppress(errors.ProviderMisbehaved):
                page = page_of(answer, key, read_row)
                assert page.skipped >= 0
    with contextlib.suppress(errors.ProviderMisbehaved, errors.Unavailable, errors.CorruptContent):
        assert isinstance(content_bytes(value, ID), bytes)


async def test_all_of_waits_for_all_and_raises_the_first_error():
    """No job is cancelled by the failure of another; none is begun after it."""
    done = []

    def job(number: int):
        async def work() -> int:
            await trio.lowlevel.checkpoint()
            done.append(number)
            if number == 3:
                raise errors.Unavailable("three")
            return number

        return work

    assert await all_of([job(n) for n in (1, 2)]) == [1, 2]
    assert sorted(done) == [1, 2]
    done.clear()
    assert await all_of([]) == []
    with pytest.raises(errors.Unavailable, match="three"):
        await all_of([job(n) for n in range(3, 50)], at_once=1)
    assert done == [3]


# --------------------------------------------------------------------------------------------------- titles


@pytest.mark.parametrize(
    ("title", "run", "expected"),
    [
        ("Plan: artifacts/output/a.md", "r", ("r", "Plan", "a.md")),
        ("Plan (partial): artifacts/output/a.md", "r", ("r", "Plan (partial)", "a.md")),
        ("Plan: v2/x: artifacts/output/d/a.md", "r", ("r", "Plan: v2/x", "d", "a.md")),
        ("P: artifacts/output/x: artifacts/output/a", "r", ("r", "P: artifacts/output/x", "a")),
        ("P: artifacts/output/../../etc/passwd", "r", ("r", "P", "../../etc/passwd")),
        ("P: artifacts/output//etc", "r", ("r", "P", "/etc")),
        ("P: artifacts/output/a/./b", "r", ("r", "P", "a/./b")),
        ("P: artifacts/output/a/", "r", ("r", "P", "a/")),
        ("P: artifacts/output/", "r", ("r", "P", "")),
        (": artifacts/output/a", "r", ("r", "phase", "a")),
        ("P: artifacts/output/" + "a/" * MAX_DEPTH + "a", "r", ("r", "P", "a/" * MAX_DEPTH + "a")),
        ("Report", "r", ("r", "phase", "Report")),
        ("a/b", "r", ("r", "phase", "a/b")),
        ("", "r", ("r", "phase", "")),
        (None, "r", ("r", "phase", "id")),
        ("P: artifacts/output/a.md", None, ("P: artifacts/output/a.md",)),
        ("a/b", None, ("a/b",)),
        ("..", None, ("..",)),
        ("\ud800\x00", None, ("\ud800\x00",)),
    ],
)
def test_titles_become_paths(title, run, expected):
    """Phase and path come from the last separator; nothing of a hostile title is dropped or resolved."""
    assert place(title, "id", "phase", run) == expected


async def test_mtime_is_the_sessions_where_the_service_has_no_time(store):
    """created_at is null up to 0.25.4: the end of the session stands in, of a running one its beginning."""
    done, running = add_run(store, "wf-1", 1), add_run(store, "wf-1", 2, status="running")
    add_file(store, "wf-1", "a.md", b"x", run=done, phase="plan", at_ns=done.started_at_ns + MINUTE_NS)
    add_file(store, "wf-1", "b.md", b"x", run=running, phase="code", at_ns=running.started_at_ns + MINUTE_NS)
    add_file(store, "wf-1", "c.md", b"x")
    async with served(store) as (provider, _):
        times = {a.path[-1]: a.created_at_ns for a in artifacts_of(await provider.list(WORKFLOW, None))}
    assert times == {"a.md": done.completed_at_ns, "b.md": running.started_at_ns, "c.md": None}
