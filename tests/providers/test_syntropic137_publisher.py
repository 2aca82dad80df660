"""Saving to Syntropic137's dialects: once, whole, and never over what somebody else saved."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from artifactfs import errors
from artifactfs.model.entry import Accepts, Artifact, DirRef, Folder
from artifactfs.providers import http as transport
from artifactfs.providers import limits
from artifactfs.providers.base import Change, Draft, Publisher
from artifactfs.providers.http import HttpClient
from artifactfs.providers.syntropic import creation, learnt, publisher, vetting
from artifactfs.providers.syntropic.kinds import artifact_type
from artifactfs.providers.syntropic.provider import NO_WORKFLOW_ID, Syntropic137Provider
from artifactfs.providers.syntropic.titles import place, retitled
from artifactfs.providers.syntropic.writes import FORM_BYTES, Writes
from artifactfs.server import syntropic137
from artifactfs.server.context import Context
from artifactfs.server.syntropic137_artifacts import TYPES
from artifactfs.store.catalog import Store
from tests.support.attempts import KilledError, Tries, draft_of
from tests.support.lab import Fault, Laboratory, Seen
from tests.support.serving import serving
from tests.support.syntropic137_store import add_file, add_run, make_store

GENERATIONS = ["A", "B", "C"]
ROOT = DirRef("syn", "root")
WORKFLOW = DirRef("syn", "workflow", ("wf-1",))
NGINX_413 = b"<html><head><title>413 Request Entity Too Large</title></head></html>"
HTML = {"content-type": "text/html"}
CREATE, UPLOAD = "POST /artifacts", "POST /artifacts/{id}/upload"
READ, DETAIL, LIST = "GET /artifacts/{id}/content", "GET /artifacts/{id}", "GET /artifacts"
PUT, DELETE = "PUT /artifacts/{id}", "DELETE /artifacts/{id}"
ONCE = {CREATE: 1, DETAIL: 1}
SAVE = {READ: 2, UPLOAD: 1}


class Facts:
    """A memory that keeps what JSON keeps."""

    def __init__(self) -> None:
        self.facts: dict[str, str] = {}

    def get(self, key: str) -> object | None:
        return json.loads(self.facts[key]) if key in self.facts else None

    def put(self, key: str, value: object) -> None:
        self.facts[key] = json.dumps(value)

    def items(self, prefix: str) -> list[tuple[str, object]]:
        return [(key, json.loads(value)) for key, value in self.facts.items() if key.startswith(prefix)]


@dataclass
class World:
    """A provider, what it publishes to, and what can go wrong on the way."""

    provider: Syntropic137Provider
    store: Store
    seen: list[Seen]
    faults: list[Fault]
    memory: Facts
    drafts: Path

    @property
    def publisher(self) -> Publisher:
        assert self.provider.publisher is not None
        return self.provider.publisher

    def asked(self) -> Counter[str]:
        """Return the requests since the last call, by method and route."""
        routes = (
            re.sub(r"/artifacts/[^/?]+", "/artifacts/{id}", one.path.partition("/api/v1")[2]) for one in self.seen
        )
        found = Counter(f"{one.method} {route}" for one, route in zip(self.seen, routes, strict=True))
        self.seen.clear()
        found.pop("GET /health", None)
        return found

    def fault(self, method: str, pattern: str, **what: object) -> Fault:
        self.faults.append(Fault(pattern, method=method, **what))  # type: ignore[arg-type]  # a fault's own words
        return self.faults[-1]

    def draft(self, data: bytes, base: bytes | None = None) -> Draft:
        return draft_of(self.drafts, data, base=base)

    async def create(self, name: str, data: bytes, tries: Tries | None = None) -> Artifact:
        return await self.publisher.create_file(WORKFLOW, (name,), self.draft(data), tries or Tries())

    async def save(
        self, artifact: Artifact, data: bytes, base: bytes | None = None, tries: Tries | None = None
    ) -> Artifact:
        return await self.publisher.save_file(artifact, self.draft(data, base), tries or Tries())

    async def listed(self) -> dict[str, Artifact]:
        """Return what the workflow lists by the last part of its path; fails if a name is there twice."""
        listing = await self.provider.list(WORKFLOW, None)
        found = [entry for entry in listing.entries if isinstance(entry, Artifact)]
        named = {artifact.path[-1]: artifact for artifact in found}
        assert len(named) == len(found), [artifact.path for artifact in found]
        return named

    async def contents(self) -> dict[str, bytes]:
        """Return what the service shows, by name."""
        return {name: await self.provider.api.content(found.id) for name, found in (await self.listed()).items()}

    def swap(self, artifact: Artifact, data: bytes) -> None:
        """Save as somebody else does."""
        self.store.save_file(self.store_id(artifact), self.store.objects.put(data), len(data), message="by another")

    def store_id(self, artifact: Artifact) -> str:
        found = self.store.artifact(artifact.id)
        assert found is not None
        return found.id


@pytest.fixture
def store(tmp_path):
    store = make_store(tmp_path / "store")
    yield store
    store.close()


@asynccontextmanager
async def world_of(
    store: Store, tmp_path: Path, generation: str = "B", *, memory: Facts | None = None, deadline_s: float = 30.0
) -> AsyncIterator[World]:
    seen: list[Seen] = []
    faults: list[Fault] = []
    app = Starlette(routes=[Mount("/syn", routes=syntropic137.routes(store, Context(None, ""), generation))])
    facts = memory or Facts()
    async with serving(Laboratory(app, seen, faults, "main")) as running:
        http = HttpClient("syn", f"{running.url}/syn", deadline_s=deadline_s)
        provider = Syntropic137Provider("syn", http, facts)
        try:
            yield World(provider, store, seen, faults, facts, tmp_path)
        finally:
            await provider.aclose()


@pytest.fixture
async def world(store, tmp_path):
    async with world_of(store, tmp_path) as world:
        yield world


@pytest.fixture
def _settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be under way any more once its answer was lost."""
    monkeypatch.setattr(creation, "SETTLE_S", 0.0)


# -- new files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_a_new_file_is_one_post_and_is_what_the_listing_shows(store, tmp_path, generation):
    """The receipt equals the listing's artifact: same key, path, size and times, so that no inode changes."""
    async with world_of(store, tmp_path, generation) as world:
        made = await world.create("Grüße 研究.md", "caf\u00e9\r\n\ufeff\U0001f600\n".encode())
        assert world.asked() == ONCE
        listed = await world.listed()
        assert listed == {"Grüße 研究.md": made}
        assert dict(listed["Grüße 研究.md"].metadata) == dict(made.metadata)
        assert await world.contents() == {"Grüße 研究.md": "caf\u00e9\r\n\ufeff\U0001f600\n".encode()}
        assert made.writable
        kind = {"A": "research_summary"}.get(generation, "markdown")
        assert made.metadata["artifact_type"] == kind


@pytest.mark.parametrize("name", ["a/b: c.txt", "x: artifacts/output/y.md", " ", "." * 3, "n" * 255, "a\nb\u202e"])
async def test_titles_go_out_raw(world, name):
    """The service takes any text for a title; what the tree makes of it is another matter."""
    made = await world.create(name, b"x")
    assert made.metadata["title"] == name
    assert made.path == (name,)
    assert (await world.listed())[name] == made


async def test_an_empty_file_is_a_placeholder_and_an_empty_upload(world):
    """POST refuses empty content; the placeholder never stays."""
    made = await world.create("empty.txt", b"")
    assert world.asked() == {CREATE: 1, UPLOAD: 1, READ: 1, DETAIL: 1}
    assert await world.contents() == {"empty.txt": b""}
    assert await world.listed() == {"empty.txt": made}


async def test_two_megabytes_go_in_one_request_where_no_gateway_is(world):
    """The service itself has no limit for JSON (measured: 60 MB)."""
    data = "zwölf Bytes\n".encode() * 170_000
    await world.create("long.txt", data)
    assert world.asked() == ONCE
    assert await world.contents() == {"long.txt": data}


async def test_a_very_long_text_is_uploaded(world, monkeypatch):
    """What is too long for one event goes to the object store."""
    monkeypatch.setattr(creation, "MAX_INLINE", 1000)
    data = b"line of text\n" * 200
    made = await world.create("long.txt", data)
    assert world.asked() == {CREATE: 1, UPLOAD: 1, DETAIL: 1}
    assert await world.contents() == {"long.txt": data}
    assert await world.listed() == {"long.txt": made}


async def test_what_a_publisher_does_goes_between_reader_and_prefetch(world):
    """A reader's request first, then what was saved, then what nobody waits for."""
    assert limits.Lane.FOREGROUND < limits.Lane.PUBLISHING < limits.Lane.BACKGROUND
    lanes = []

    async def take(lane: limits.Lane, max_wait_s: float = 0) -> None:
        lanes.append(lane)

    world.provider.http.budget.take = take
    made = await world.create("a.txt", b"x")
    await world.save(made, b"y")
    await world.publisher.remove(made)
    assert set(lanes) == {limits.Lane.PUBLISHING}


# -- answers that are lost -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_settled")
@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("data", [b"hello\n", b""])
async def test_a_post_whose_answer_is_lost_makes_no_second_artifact(store, tmp_path, generation, data):
    """It is found by title and content, or by this file's placeholder."""
    async with world_of(store, tmp_path, generation) as world:
        world.fault("POST", "/artifacts[?]", lose_answer=True, times=1)
        tries = Tries()
        with pytest.raises(errors.Unavailable):
            await world.create("note.txt", data, tries)
        assert world.asked() == {CREATE: 1}
        made = await world.create("note.txt", data, tries.again())
        assert world.asked()[CREATE] == 0
        assert await world.listed() == {"note.txt": made}
        assert await world.contents() == {"note.txt": data}


@pytest.mark.parametrize("data", [b"hello\n", b""])
async def test_a_kill_before_the_id_was_noted_makes_no_second_artifact(world, data):
    """The service answered, and the process ended before anything of it was remembered."""
    killed = Tries(killed_before="artifact")
    with pytest.raises(KilledError):
        await world.create("note.txt", data, killed)
    made = await world.create("note.txt", data, killed.again())
    assert world.asked()[CREATE] == 1
    assert await world.listed() == {"note.txt": made}
    assert await world.contents() == {"note.txt": data}


async def test_a_kill_between_post_and_upload_is_gone_on_with(world):
    """By the id that was noted: no list is asked for, and no second artifact made."""
    tries = Tries()
    world.fault("POST", "/upload", status=500)
    with pytest.raises(errors.Unavailable):
        await world.create("empty.txt", b"", tries)
    assert set(tries.facts) == {"artifact", "sent"}
    world.faults.clear()
    world.asked()
    made = await world.create("empty.txt", b"", tries.again())
    assert world.asked() == {DETAIL: 2, READ: 2, UPLOAD: 1}
    assert await world.contents() == {"empty.txt": b""}
    assert await world.listed() == {"empty.txt": made}


async def test_an_upload_whose_answer_is_lost_is_not_sent_again(world):
    """The next try sees the new bytes, and is done."""
    artifact = await world.create("a.txt", b"one\n")
    world.asked()
    world.fault("POST", "/upload", lose_answer=True, times=1)
    tries = Tries()
    with pytest.raises(errors.Unavailable):
        await world.save(artifact, b"two\n", b"one\n", tries)
    assert await world.save(artifact, b"two\n", b"one\n", tries.again()) == artifact
    assert world.asked() == {READ: 2, UPLOAD: 1}
    assert await world.contents() == {"a.txt": b"two\n"}


@pytest.mark.usefixtures("_settled")
@pytest.mark.parametrize(("old", "new"), [(b"one\n", b"two\n"), (b"", b"two\n"), (b"one\n", b"")])
async def test_what_is_saved_again_after_a_lost_answer_is_no_conflict_with_itself(world, old, new):
    """The draft was written to between two tries: what the service has of the first is replaced."""
    tries = Tries()
    world.fault("POST", "/artifacts[?]", lose_answer=True, times=1)
    with pytest.raises(errors.Unavailable):
        await world.create("a.txt", old, tries)
    made = await world.create("a.txt", new, tries.again())
    assert await world.contents() == {"a.txt": new}
    tries = Tries()
    world.fault("POST", "/upload", lose_answer=True, times=1)
    with pytest.raises(errors.Unavailable):
        await world.save(made, b"three\n", new, tries)
    assert await world.save(made, b"four\n", new, tries.again()) == made
    assert await world.contents() == {"a.txt": b"four\n"}


async def test_a_list_that_names_what_cannot_be_read_says_nothing(world):
    """It may be what an earlier try made, so nothing is made, and nothing is given up."""
    await world.create("a.txt", b"x")
    world.asked()
    world.fault("GET", "/content", status=404, body=b'{"detail": "Artifact x not found"}')
    with pytest.raises(errors.Unavailable, match="does not find"):
        await world.create("a.txt", b"x", Tries(is_first=False))
    assert world.asked() == {LIST: 1, READ: 1}


async def test_what_may_still_be_under_way_is_waited_for(world):
    """A request that timed out may arrive yet: nothing is sent until that is unlikely."""
    world.fault("POST", "/artifacts[?]", status=504, times=1)
    tries = Tries()
    with pytest.raises(errors.Unavailable):
        await world.create("a.txt", b"x", tries)
    with pytest.raises(errors.Unavailable, match="may still be making it"):
        await world.create("a.txt", b"x", tries.again())
    assert world.asked()[CREATE] == 1
    late = Tries(is_first=False, facts={"asked": str(time.time() - creation.SETTLE_S)})
    await world.create("a.txt", b"x", late)
    assert world.asked()[CREATE] == 1


async def test_where_the_list_is_cut_nothing_is_made_twice(world, monkeypatch):
    """Of more than 200 artifacts up to 0.25.4 shows 200: whether one of the others is ours cannot be told."""
    for number in range(201):
        add_file(world.store, "wf-1", f"{number}.txt", b"x")
    with pytest.raises(errors.Unsupported, match="cannot be told"):
        await world.create("a.txt", b"new", Tries(is_first=False))
    assert world.asked() == {LIST: 1}
    await world.create("a.txt", b"new")
    assert world.asked() == ONCE


async def test_another_artifact_of_the_same_title_is_not_taken_for_ours(world):
    """Titles repeat at the service: only the content, or our placeholder, tells."""
    add_file(world.store, "wf-1", "note.txt", b"12345")
    made = await world.create("note.txt", b"hello", Tries(is_first=False))
    assert await world.provider.api.content(made.id) == b"hello"
    assert len(world.store.artifacts("wf-1")) == 2


async def test_what_was_made_and_changed_since_is_not_overwritten(world):
    """Whoever saved onto it meanwhile keeps what they saved."""
    tries = Tries()
    made = await world.create("a.txt", b"ours", tries)
    world.swap(made, b"theirs")
    with pytest.raises(errors.AlreadyExists):
        await world.create("a.txt", b"ours", tries.again())
    assert await world.contents() == {"a.txt": b"theirs"}


async def test_what_was_made_and_removed_since_is_made_again(world):
    """What was saved is not lost because somebody removed what a try had made."""
    tries = Tries()
    made = await world.create("a.txt", b"ours", tries)
    await world.publisher.remove(made)
    world.asked()
    again = await world.create("a.txt", b"ours", tries.again())
    assert again.id != made.id
    assert world.asked() == {DETAIL: 2, PUT: 1, CREATE: 1}
    assert await world.listed() == {"a.txt": again}


@pytest.mark.usefixtures("_settled")
@pytest.mark.parametrize("seed", range(24))
async def test_whatever_happens_on_the_way_everything_is_there_once(store, tmp_path, monkeypatch, seed):
    """Requests that fail, answers that are lost and kills, in any order, until the service is well again."""
    monkeypatch.setattr(transport, "BACKOFF_FIRST_S", 0.001)
    monkeypatch.setattr(creation, "SHOWN_PAUSE_S", 0.001)
    monkeypatch.setattr(creation, "MAX_INLINE", 20)
    dice = random.Random(seed)
    kinds: list[dict[str, Any]] = [
        {"lose_answer": True},
        {"lose_answer": True},
        {"status": 500},
        {"status": 429},
        {},
        {},
        {},
    ]
    kills = ["", "", "", "artifact", "sent"]
    contents = [b"", b"short\n", b"long, so that it is uploaded\n" * 3]
    async with world_of(store, tmp_path, GENERATIONS[seed % 3]) as world:

        async def carried_out(change: Callable[[bytes, Tries], Awaitable[Artifact]]) -> tuple[Artifact, bytes]:
            data = dice.choice(contents)
            world.faults += [Fault(".", times=1, **dice.choice(kinds)) for _ in range(dice.randrange(12))]
            tries = Tries(killed_before=dice.choice(kills))
            while True:
                try:
                    return await change(data, tries), data
                except (errors.Unavailable, KilledError):
                    tries = tries.again()
                    tries.killed_before = dice.choice(kills) if world.faults else ""
                    world.faults[:] = [fault for fault in world.faults if fault.times]
                    data = dice.choice(contents) if dice.random() < 0.3 else data  # it is saved again meanwhile

        artifact, seen = await carried_out(partial(world.create, "a.txt"))
        for turn in range(4):
            if turn == 2 and seed % 3:
                store.delete_artifact(world.store_id(artifact))
            artifact, seen = await carried_out(
                lambda data, tries, base=seen, artifact=artifact: world.save(artifact, data, base, tries)  # type: ignore[misc]  # mypy does not see through the defaults
            )
        world.faults.clear()
        assert await world.contents() == {"a.txt": seen}
        assert [row.uuid for row in store.artifacts("wf-1")] == [artifact.id]


# -- refusals and failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 503, 429])
async def test_a_post_that_fails_is_sent_once(world, status):
    """What may pass is for the core to try again."""
    world.fault("POST", "/artifacts[?]", status=status)
    with pytest.raises(errors.RateLimited if status == 429 else errors.Unavailable):
        await world.create("a.txt", b"x")
    assert world.asked() == {CREATE: 1}


@pytest.mark.parametrize(("said", "expected"), [
    ("Invalid artifact_type 'x'. Valid types: code", errors.InvalidRequest),
    ("1 validation error for CreateArtifactCommand", errors.InvalidRequest),
    ("could not connect to the event store", errors.Unavailable),
])  # fmt: skip
async def test_what_a_400_says_tells_whether_it_may_pass(world, said, expected):
    """POST answers 400 to every failure, storage included."""
    world.fault("POST", "/artifacts[?]", status=400, body=json.dumps({"detail": said}).encode())
    with pytest.raises(expected):
        await world.create("a.txt", b"x")


async def test_what_the_service_does_not_show_is_not_saved(world, monkeypatch):
    """Its database drops some rows after a 201: only reading back tells."""
    monkeypatch.setattr(creation, "SHOWN_PAUSE_S", 0.01)
    tries = Tries()
    world.fault("GET", "/artifacts/[^/]+[?]", status=404, body=b'{"detail": "Artifact not found: x"}')
    with pytest.raises(errors.Unavailable, match="does not show"):
        await world.create("a.txt", b"x", tries)
    world.faults.clear()
    await world.create("a.txt", b"x", tries.again())
    assert world.asked()[CREATE] == 1


async def test_a_limit_of_the_gateway_is_met_once(store, tmp_path):
    """HTML 413: nothing was made, and the next save of that size is refused before it is acknowledged."""
    memory = Facts()
    data = b"x" * (2 << 20)
    async with world_of(store, tmp_path, memory=memory) as world:
        world.publisher.vet("a.txt", world.draft(data).path, len(data))
        world.fault("POST", "/artifacts", status=413, body=NGINX_413, headers=HTML)
        with pytest.raises(errors.TooLarge, match=r"1,048,576"):
            await world.create("a.txt", data)
        assert world.asked() == {CREATE: 1}
    async with world_of(store, tmp_path, memory=memory) as world:
        with pytest.raises(errors.TooLarge, match="gateway"):
            world.publisher.vet("a.txt", world.draft(data).path, len(data))
        small = b"y" * (learnt.GATEWAY_BYTES - FORM_BYTES)
        world.publisher.vet("a.txt", world.draft(small).path, len(small))
        assert world.provider.describe()["largest_request"] == learnt.GATEWAY_BYTES
        await world.create("a.txt", data)  # it was raised: what is taken ends the belief
        assert world.provider.describe()["largest_request"] is None or world.asked() == {
            CREATE: 1,
            UPLOAD: 1,
            DETAIL: 1,
        }


async def test_what_only_fits_as_an_upload_is_uploaded(world):
    """A text of quotes is twice as long as JSON: it fits the gateway's limit without."""
    data = b'"' * 900_000
    limit = world.fault("POST", "/artifacts[?]", status=413, body=NGINX_413, headers=HTML, times=1)
    made = await world.create("quotes.txt", data)
    assert limit.times == 0
    assert world.asked() == {CREATE: 2, UPLOAD: 1, DETAIL: 1}
    assert await world.listed() == {"quotes.txt": made}
    assert await world.contents() == {"quotes.txt": data}


async def test_no_placeholder_stays_where_the_content_cannot_follow(world, monkeypatch):
    """The upload is refused for good: what was made for it is removed."""
    monkeypatch.setattr(creation, "MAX_INLINE", 10)
    world.fault("POST", "/upload", status=413, body=NGINX_413, headers=HTML)
    with pytest.raises(errors.TooLarge):
        await world.create("long.txt", b"more than ten bytes")
    assert world.asked() == {CREATE: 1, UPLOAD: 1, DELETE: 1}
    assert await world.listed() == {}


async def test_the_services_own_limit_is_no_gateways(world):
    """JSON 413: 50 MB, which is known anyway."""
    artifact = await world.create("a.txt", b"one")
    world.fault("POST", "/upload", status=413, body=b'{"detail": "Upload exceeds maximum size of 50 MB"}')
    with pytest.raises(errors.TooLarge, match="50 MB"):
        await world.save(artifact, b"two")
    assert world.provider.learnt.largest is None


async def test_a_limit_is_forgotten_after_a_day(monkeypatch):
    """Gateways are configured anew; what a server has it keeps."""
    known = learnt.Learnt(Facts())
    known.refused(5000)
    known.uploads, known.changes = False, True
    assert (known.largest, known.uploads, known.changes) == (4999, False, True)
    monkeypatch.setattr(learnt, "BELIEVED_S", -1.0)
    assert (known.largest, known.uploads, known.changes) == (None, None, True)


# -- saving over what is there -------------------------------------------------------------------------------------


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_a_save_is_one_upload(store, tmp_path, generation):
    """Of an agent's output too; and the artifact is the same as before."""
    run = add_run(store, "wf-1", 1)
    add_file(store, "wf-1", "docs/plan.md", b"# one\n", run=run, phase="plan")
    async with world_of(store, tmp_path, generation) as world:
        artifact = (await world.listed())["plan.md"]
        world.asked()
        assert await world.save(artifact, b"# two\n", b"# one\n") == artifact
        assert world.asked() == SAVE
        assert await world.save(artifact, b"", b"# two\n") == artifact
        assert world.asked() == SAVE
        assert await world.listed() == {"plan.md": artifact}
        assert await world.contents() == {"plan.md": b""}


async def test_a_save_of_two_megabytes_is_one_upload(world):
    artifact = await world.create("a.txt", b"x")
    data = "zwölf Bytes\n".encode() * 170_000
    world.asked()
    await world.save(artifact, data, b"x")
    assert world.asked() == SAVE
    assert await world.contents() == {"a.txt": data}


async def test_what_the_service_has_already_is_not_uploaded(world):
    """Whoever put it there."""
    artifact = await world.create("a.txt", b"one")
    world.swap(artifact, b"two")
    world.asked()
    await world.save(artifact, b"two", b"one")
    await world.save(artifact, b"two", b"two")
    await world.save(artifact, b"two")
    assert world.asked() == {READ: 3}


async def test_what_somebody_else_saved_is_not_overwritten(world):
    """Both stay: theirs at the service, ours in the journal."""
    artifact = await world.create("a.txt", b"one")
    world.swap(artifact, b"theirs")
    world.asked()
    with pytest.raises(errors.Conflict):
        await world.save(artifact, b"ours", b"one")
    assert world.asked() == {READ: 1}
    assert await world.contents() == {"a.txt": b"theirs"}
    await world.save(artifact, b"ours")  # whoever looked at nothing replaces what there is
    assert await world.contents() == {"a.txt": b"ours"}


async def test_a_save_that_somebody_else_outran_is_a_conflict(world, monkeypatch):
    """Theirs arrives between our upload and our look."""
    artifact = await world.create("a.txt", b"one")

    async def outrun(*_: object) -> None:
        world.swap(artifact, b"theirs")

    monkeypatch.setattr(Writes, "upload", outrun)
    with pytest.raises(errors.Conflict):
        await world.save(artifact, b"ours", b"one")
    assert await world.contents() == {"a.txt": b"theirs"}


async def test_old_bytes_after_an_upload_are_no_success(world):
    """While its object store is down the service answers 200, and gives what the artifact was made with."""
    artifact = await world.create("a.txt", b"one")
    world.fault("POST", "/upload", status=200, body=b'{"artifact_id": "x", "status": "uploaded"}')
    tries = Tries()
    for _ in range(2):
        with pytest.raises(errors.Unavailable, match="old content"):
            await world.save(artifact, b"two", b"one", tries)
        tries = tries.again()
    world.faults.clear()
    await world.save(artifact, b"two", b"one", tries)
    assert await world.contents() == {"a.txt": b"two"}


@pytest.mark.parametrize("draft", [b"edited", b"made"])
async def test_what_a_service_without_its_object_store_shows_is_not_believed(world, monkeypatch, draft):
    """It falls back to the creation's text, slowly: neither a conflict nor proof that it is saved already."""
    artifact = await world.create("a.txt", b"made")
    monkeypatch.setattr(publisher, "STORE_DOWN_S", 0.0)
    down = json.dumps({"detail": "Could not connect to the endpoint URL"}).encode()
    world.fault("POST", "/upload", status=400, body=down)
    with pytest.raises(errors.Unavailable):
        await world.save(artifact, draft, b"uploaded before")


async def test_a_server_without_an_object_store_says_so_lastingly(store, tmp_path):
    """The provider `local` outside of docker: a save is refused before it is acknowledged from then on."""
    memory = Facts()
    said = b'{"detail": "Local artifact storage not yet implemented. Use minio."}'
    async with world_of(store, tmp_path, memory=memory) as world:
        artifact = await world.create("a.txt", b"one")
        await world.publisher.permits(Change.SAVE)
        world.fault("POST", "/upload", status=400, body=said)
        with pytest.raises(errors.NotPermitted, match="no object store"):
            await world.save(artifact, b"two", b"one")
    async with world_of(store, tmp_path, memory=memory) as world:
        with pytest.raises(errors.NotPermitted, match="no object store"):
            await world.publisher.permits(Change.SAVE)
        with pytest.raises(errors.InvalidRequest, match="no object store"):
            world.publisher.vet("e.txt", world.draft(b"").path, 0)
        with pytest.raises(errors.NotPermitted):
            await world.create("e.txt", b"")
        assert await world.contents() == {"a.txt": b"one"}
        await world.publisher.permits(Change.CREATE)
        await world.create("b.txt", b"x")


@pytest.mark.parametrize("status", [500, 503, 429, 400])
async def test_a_failed_upload_is_sent_once_and_tried_again_later(world, status):
    artifact = await world.create("a.txt", b"one")
    world.asked()
    world.fault("POST", "/upload", status=status, times=1)
    tries = Tries()
    with pytest.raises(errors.Unavailable):
        await world.save(artifact, b"two", b"one", tries)
    assert world.asked() == {READ: 1, UPLOAD: 1}
    await world.save(artifact, b"two", b"one", tries.again())
    assert world.asked() == SAVE
    assert await world.contents() == {"a.txt": b"two"}


async def test_a_draft_that_is_not_what_it_was_is_not_sent(world):
    artifact = await world.create("a.txt", b"one")
    draft = world.draft(b"two")
    draft.path.write_bytes(b"t")
    with pytest.raises(errors.CorruptContent):
        await world.publisher.save_file(artifact, draft, Tries())
    with pytest.raises(errors.CorruptContent):
        await world.publisher.create_file(WORKFLOW, ("b.txt",), draft, Tries())
    assert await world.contents() == {"a.txt": b"one"}


# -- saving what was removed ---------------------------------------------------------------------------------------


async def test_what_was_removed_comes_back_with_a_save_under_a_new_id(world):
    """An editor unlinks and creates within one save, and an upload to a removed id would be 200 and gone."""
    artifact = await world.create("a.txt", b"one")
    await world.publisher.remove(artifact)
    world.asked()
    tries = Tries()
    saved = await world.save(artifact, b"two", b"one", tries)
    assert saved.id != artifact.id
    assert world.asked() == {READ: 1, DETAIL: 2, PUT: 1, LIST: 1, CREATE: 1}
    assert await world.save(artifact, b"two", b"one", tries.again()) == saved
    assert world.asked() == {DETAIL: 2, READ: 1}
    assert await world.listed() == {"a.txt": saved}
    assert await world.contents() == {"a.txt": b"two"}
    assert len(world.store.artifacts("wf-1")) == 1


@pytest.mark.usefixtures("_settled")
async def test_what_comes_back_comes_back_once(world):
    """Also if the answer is lost."""
    artifact = await world.create("a.txt", b"one")
    await world.publisher.remove(artifact)
    world.fault("POST", "/artifacts[?]", lose_answer=True, times=1)
    tries = Tries()
    with pytest.raises(errors.Unavailable):
        await world.save(artifact, b"two", b"one", tries)
    saved = await world.save(artifact, b"two", b"one", tries.again())
    assert await world.listed() == {"a.txt": saved}


async def test_what_comes_back_takes_nobodys_name(world):
    artifact = await world.create("a.txt", b"one")
    await world.publisher.remove(artifact)
    await world.create("a.txt", b"another")
    with pytest.raises(errors.AlreadyExists):
        await world.save(artifact, b"two", b"one")
    assert await world.contents() == {"a.txt": b"another"}


async def test_the_removed_output_of_a_run_cannot_come_back(store, tmp_path):
    """No artifact can be given to a run."""
    add_file(store, "wf-1", "plan.md", b"one", run=add_run(store, "wf-1", 1), phase="plan")
    async with world_of(store, tmp_path) as world:
        artifact = (await world.listed())["plan.md"]
        await world.publisher.remove(artifact)
        with pytest.raises(errors.NotFound, match="run"):
            await world.save(artifact, b"two", b"one")
        assert await world.listed() == {}


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_what_is_only_out_of_sight_is_not_made_again(store, tmp_path, generation):
    """A detail is 404 for an artifact beyond the 10,000th, and for any fault of the service's."""
    async with world_of(store, tmp_path, generation) as world:
        artifact = await world.create("a.txt", b"one")
        world.fault("GET", "/artifacts/", status=404, body=b'{"detail": "Artifact x not found"}')
        with pytest.raises(errors.Unavailable):
            await world.save(artifact, b"two", b"one")
        world.faults.clear()
        assert await world.contents() == {"a.txt": b"one"}


# -- names and removing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generation", ["B", "C"])
async def test_a_rename_is_a_new_title(store, tmp_path, generation):
    """One PUT; of a run's output the phase stays, as its title is all that the service knows of its path."""
    run = add_run(store, "wf-1", 1)
    add_file(store, "wf-1", "docs/plan.md", b"one", run=run, phase="v2/x: plan")
    async with world_of(store, tmp_path, generation) as world:
        made = await world.create("a.txt", b"x")
        output = (await world.listed())["plan.md"]
        world.asked()
        renamed = await world.publisher.rename(made, WORKFLOW, ("ü b.txt",))
        moved = await world.publisher.rename(output, WORKFLOW, (run.id, "v2/x: plan", "deep", "er", "new.md"))
        assert world.asked() == {PUT: 2}
        assert await world.listed() == {"ü b.txt": renamed, "new.md": moved}
        assert moved.metadata["title"] == "v2/x: plan: artifacts/output/deep/er/new.md"
        assert (moved.id, renamed.id) == (output.id, made.id)


async def test_an_artifact_stays_in_its_workflow_run_and_phase(store, tmp_path):
    run = add_run(store, "wf-1", 1)
    add_file(store, "wf-1", "plan.md", b"one", run=run, phase="plan")
    async with world_of(store, tmp_path) as world:
        made = await world.create("a.txt", b"x")
        output = (await world.listed())["plan.md"]
        world.asked()
        elsewhere = DirRef("syn", "workflow", ("wf-2",))
        for artifact, ref, path in [
            (made, elsewhere, ("a.txt",)), (made, ROOT, ("a.txt",)), (made, WORKFLOW, (run.id, "plan", "a.txt")),
            (output, WORKFLOW, ("plan.md",)), (output, WORKFLOW, (run.id, "other", "plan.md")),
            (output, WORKFLOW, ("exec-2", "plan", "plan.md")), (output, WORKFLOW, (run.id, "plan", "a/b.md")),
        ]:  # fmt: skip
            with pytest.raises(errors.NotPermitted):
                await world.publisher.rename(artifact, ref, path)
        assert world.asked() == {}


@pytest.mark.parametrize(("title", "phase_id", "run", "path"), [
    ("plan: artifacts/output/a.md", "p1", "exec-1", ("exec-1", "plan", "x", "y.md")),
    (": artifacts/output/a.md", "p1", "exec-1", ("exec-1", "p1", "x", "y.md")),
    (": artifacts/output/a.md", None, "exec-1", ("exec-1", "x", "y.md")),
    ("a.md", "p1", "exec-1", ("exec-1", "p1", "y.md")),
    ("plan: artifacts/output/a.md", None, None, ("y.md",)),
])  # fmt: skip
def test_a_new_title_stands_where_it_should(title, phase_id, run, path):
    """Also where the phase is named by its id, or not at all."""
    assert place(retitled(title, path, phase_id), "id", phase_id, run) == path


async def test_what_is_removed_already_is_removed(world):
    """200, then 409; 404 for what was never there. No other request."""
    made = await world.create("a.txt", b"x")
    world.asked()
    await world.publisher.remove(made)
    await world.publisher.remove(made)
    assert world.asked() == {DELETE: 2}
    assert await world.listed() == {}
    with pytest.raises(errors.NotFound):
        await world.publisher.rename(made, WORKFLOW, ("b.txt",))


async def test_a_removal_whose_answer_is_lost_is_done(world):
    made = await world.create("a.txt", b"x")
    world.fault("DELETE", "/artifacts/", lose_answer=True, times=1)
    with pytest.raises(errors.Unavailable):
        await world.publisher.remove(made)
    await world.publisher.remove(made)
    assert await world.listed() == {}


async def test_a_removal_that_failed_is_not_done(world):
    """A gateway's page, or a fault, is no answer of the service."""
    made = await world.create("a.txt", b"x")
    world.fault("DELETE", "/artifacts/", status=404, body=b"<html>", headers=HTML, times=1)
    world.fault("DELETE", "/artifacts/", status=404, body=b'{"message": "no Route matched"}', times=1)
    world.fault("DELETE", "/artifacts/", status=404, body=b'{"detail": "Not Found"}', times=1)
    world.fault("DELETE", "/artifacts/", status=200, body=b"<html>dashboard", headers=HTML, times=1)
    world.fault("DELETE", "/artifacts/", status=500, times=1)
    passing = (errors.Unavailable, errors.Unavailable)
    for kind in (errors.Unsupported, *passing, errors.ProviderMisbehaved, errors.Unavailable):
        with pytest.raises(kind):
            await world.publisher.remove(made)


async def test_a_save_that_a_gateway_does_not_find_is_tried_again(world):
    """It is not taken for one of something that was removed, which would be made anew."""
    made = await world.create("a.txt", b"x")
    for path, body in (("/upload", b'{"detail": "Not Found"}'), ("/content", b'{"message": "no Route matched"}')):
        world.fault("POST" if path == "/upload" else "GET", path, status=404, body=body, times=1)
        with pytest.raises((errors.Unavailable, errors.Unsupported)):
            await world.save(made, b"longer", b"x")
    assert len(await world.listed()) == 1


# -- what a server offers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_what_a_server_offers_is_asked_once(store, tmp_path, generation):
    """0.18.0 has neither PUT nor DELETE; one harmless request tells, and a remount remembers."""
    memory = Facts()
    for mount in range(2):
        async with world_of(store, tmp_path, generation, memory=memory) as world:
            for change in (Change.CREATE, Change.SAVE):
                await world.publisher.permits(change)
            assert world.asked() == {}
            for _ in range(2):
                for change in (Change.RENAME, Change.REMOVE):
                    if generation == "A":
                        with pytest.raises(errors.NotPermitted, match=r"0\.19\.0"):
                            await world.publisher.permits(change)
                    else:
                        await world.publisher.permits(change)
            with pytest.raises(errors.NotPermitted):
                await world.publisher.permits(Change.MAKE_TREE)
            assert world.asked() == ({DELETE: 1} if mount == 0 else {})


async def test_the_oldest_generation_refuses_renames_and_removals(store, tmp_path):
    """405 is the answer, and is remembered; new artifacts get one of the three types it knows."""
    async with world_of(store, tmp_path, "A") as world:
        made = await world.create("a.py", b"x")
        world.asked()
        with pytest.raises(errors.NotPermitted):
            await world.publisher.remove(made)
        with pytest.raises(errors.NotPermitted):
            await world.publisher.rename(made, WORKFLOW, ("b.txt",))
        assert world.asked() == {DELETE: 1}
        notes = await world.create("notes.md", b"x")
        assert (made.metadata["artifact_type"], notes.metadata["artifact_type"]) == ("code", "documentation")


@pytest.mark.parametrize("status", [500, 429])
async def test_while_it_cannot_be_asked_everything_is_taken_for_offered(world, status):
    """Edits queue offline."""
    world.fault("DELETE", "/artifacts/", status=status)
    await world.publisher.permits(Change.REMOVE)
    assert world.provider.describe()["can_rename_and_remove"] is None
    world.faults.clear()
    await world.publisher.permits(Change.REMOVE)
    assert world.provider.describe()["can_rename_and_remove"] is True


async def _never(*_: object) -> bytes:
    raise AssertionError


async def test_places_that_take_no_files_refuse_them(world):
    for ref, path in [
        (ROOT, ("a.txt",)),
        (DirRef("syn", "workflow", ("",)), ("a.txt",)),
        (WORKFLOW, ("exec-000000000001", "plan", "a.txt")),
    ]:
        with pytest.raises(errors.NotPermitted):
            await world.publisher.create_file(ref, path, world.draft(b"x"), Tries())
    made = await world.create("a.txt", b"x")
    world.asked()
    for refused in (
        world.publisher.make_workflow("x"),
        world.publisher.remove_workflow(WORKFLOW),
        world.publisher.create_tree(WORKFLOW, ("x",)),
        world.publisher.save_tree(made, {}, Tries(), read=_never),
    ):
        with pytest.raises(errors.NotPermitted):
            await refused
    assert world.asked() == {}


async def test_workflows_take_files_but_for_what_names_none(world):
    """Nothing can be given to the directory of those that name no workflow."""
    add_file(world.store, "wf-1", "a.txt", b"x")
    world.fault("GET", "/artifacts[?]", status=200, body=json.dumps([{"id": "x", "workflow_id": None}]).encode())
    listing = await world.provider.list(ROOT, None)
    accepts = {entry.id: entry.accepts for entry in listing.entries if isinstance(entry, Folder)}
    assert accepts == {"wf-1": Accepts.FILES, NO_WORKFLOW_ID: Accepts.NOTHING}


# -- what is refused before it is acknowledged ---------------------------------------------------------------------


@pytest.mark.parametrize(("data", "kind"), [
    (b"\xff\xfe", errors.InvalidRequest),
    (b"a\0b", errors.InvalidRequest),
    ("ü".encode()[:1], errors.InvalidRequest),
    (b"x" * (vetting.PIECE - 1) + "ü".encode(), None),
    (b"x" * (vetting.PIECE - 1) + b"\xc3", errors.InvalidRequest),
    (b"\xed\xa0\x80", errors.InvalidRequest),
    ("\ufeffgrüße \U0001f600\r\n".encode(), None),
    (b"", None),
], ids=["bytes", "NUL", "cut", "over two pieces", "cut at a piece", "surrogate", "text", "empty"])  # fmt: skip
async def test_only_text_is_taken(world, data, kind):
    draft = world.draft(data)
    if kind is None:
        world.publisher.vet("a.txt", draft.path, draft.size)
        await world.create("a.txt", data)
        assert await world.contents() == {"a.txt": data}
        return
    with pytest.raises(kind):
        world.publisher.vet("a.txt", draft.path, draft.size)


@pytest.mark.parametrize("name", ["a\0b", "\udcff.txt", "\ud83d\ude00"])
async def test_names_that_poison_the_service_never_leave(world, name):
    """A lone surrogate in a title makes every list of the service 500; a row with NUL never appears."""
    draft = world.draft(b"x")
    with pytest.raises(errors.NameNotAllowed):
        world.publisher.vet(name, draft.path, draft.size)
    with pytest.raises(errors.NameNotAllowed):
        await world.create(name, b"x")
    made = await world.create("a.txt", b"x")
    world.asked()
    with pytest.raises(errors.NameNotAllowed):
        await world.publisher.rename(made, WORKFLOW, (name,))
    assert world.asked() == {}


async def test_fifty_megabytes_are_vetted_in_a_moment(world):
    """And one byte more is refused without being read."""
    path = world.drafts / "large"
    path.write_bytes("0123456789 zwölf €\n".encode() * (vetting.MAX_CONTENT // 22))
    before = time.process_time()
    world.publisher.vet("a.txt", path, path.stat().st_size)
    assert time.process_time() - before < 1.0
    with pytest.raises(errors.TooLarge, match="50 MB"):
        world.publisher.vet("a.txt", path, vetting.MAX_CONTENT + 1)


async def test_what_could_not_be_read_again_is_refused(world):
    """As JSON a control character takes six bytes, and an answer of more than 64 MiB is not read."""
    path = world.drafts / "controls"
    path.write_bytes(b"\x01" * (12 << 20))
    with pytest.raises(errors.TooLarge, match="JSON"):
        world.publisher.vet("a.txt", path, 12 << 20)
    text = "".join(map(chr, range(1, 256)))
    assert vetting._in_json(text.encode()) == len(json.dumps(text, ensure_ascii=False).encode()) - 2


@pytest.mark.parametrize(("name", "kind"), [
    ("a.md", "markdown"), ("A.PY", "code"), ("x.sh", "script"), ("data.json", "json"), ("c.yml", "yaml"),
    ("README", "readme"), ("readme.md", "readme"), ("pyproject.toml", "configuration"), ("x.txt", "text"),
    ("noext", "other"), (".md", "other"), ("a.", "other"), ("x.unknown", "other"),
])  # fmt: skip
def test_types_by_name(name, kind):
    """Each is one of the service's own, and none says that the content is elsewhere."""
    assert artifact_type(name) == kind
    assert kind in TYPES[:19]
    assert artifact_type(name, is_old=True) in {"code", "document"}
