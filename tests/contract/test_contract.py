"""The contract of ``providers/base.py``, one suite over all providers against one really served store."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from pydantic import SecretStr

from artifactfs import config, errors
from artifactfs.model.content import ByteRange, ContentRef, Exact, Hint, Pointer, Unknown
from artifactfs.model.entry import ArtifactKind, DirRef, Folder, Role, SingleFile
from artifactfs.observe import Observer
from artifactfs.providers import registry
from artifactfs.providers.limits import Budget
from artifactfs.providers.window import MinuteBudget
from artifactfs.store.catalog import Store
from tests.contract import worlds
from tests.contract.worlds import REMOTE, WORLDS, Trial, single, trial
from tests.support.lab import TOKEN, Lab
from tests.support.log_guard import LogGuard

TRANSIENT = (errors.Unavailable, errors.Unreachable, errors.TimedOut, errors.QuotaExceeded)
everyone = pytest.mark.parametrize("name", WORLDS)
# One dialect of each service: where spellings and generations make no difference.
four = pytest.mark.parametrize("name", ["local", *worlds.SERVICES])
remote = pytest.mark.parametrize("name", REMOTE)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("contract") / "store"


@pytest.fixture(scope="module")
def served(directory: Path) -> Iterator[Lab]:
    store = Store(directory)
    worlds.fill(store)
    with Lab(store, token=TOKEN) as lab:
        yield lab
    store.close()


@pytest.fixture
def lab(served: Lab) -> Iterator[Lab]:
    yield served
    served.heal()


# -- directories ---------------------------------------------------------------------------------------------


@four
async def test_the_root_is_known_without_a_request(name: str, lab: Lab, directory: Path) -> None:
    """Making a provider, its root, what names look like and what is known of the server cost nothing."""
    async with trial(name, lab, directory) as t:
        with lab.counted() as sent:
            root = t.provider.root()
            t.provider.is_artifact_id("a")
            t.provider.describe()
            repr(t.provider)
    assert (root.path, sent) == ((), [])
    assert root.ref is not None
    assert root.ref.source == t.provider.source == "work"
    assert t.provider.service == WORLDS[name].service
    assert t.provider.listing_ttl_s > 0


@everyone
async def test_listings_show_everything_once_with_raw_titles(name: str, lab: Lab, directory: Path) -> None:
    """From the root down, page by page: exactly what the store holds, titles as the service has them."""
    async with trial(name, lab, directory) as t:
        artifacts, folders = await t.walk()
    assert set(artifacts) == set(t.world.files)
    assert len({a.key for a in artifacts.values()}) == len(artifacts)
    assert len({f.id for f in folders.values()}) == len(folders)
    refs = [f.ref for f in folders.values() if f.ref]
    assert len(set(refs)) == len(refs)
    assert all(ref.source == "work" for ref in refs)
    workflows = {path[0] for path in t.world.files}
    assert all(folders[(title,)].role is Role.WORKFLOW for title in workflows)
    runs = {path[:2] for path in t.world.files if len(path) > 2}
    assert all(folders[path].role is Role.RUN for path in runs)
    assert all(folders[path].mtime_ns == worlds.BEGAN_NS + 9 * worlds.MINUTE_NS for path in runs)


@everyone
async def test_an_artifact_says_what_the_tree_needs(name: str, lab: Lab, directory: Path) -> None:
    """Ids, kind, version, size and times are there and honest; the service's own words are JSON."""
    async with trial(name, lab, directory) as t:
        artifacts, _ = await t.walk()
    for path, artifact in artifacts.items():
        expected = t.world.files[path]
        assert artifact.id
        assert artifact.kind is (ArtifactKind.FILE if isinstance(expected, bytes) else ArtifactKind.TREE)
        assert artifact.current is not None
        assert artifact.path[-1] in artifact.path
        assert artifact.workflow
        times = [t for t in (artifact.created_at_ns, artifact.updated_at_ns, artifact.current.created_at_ns) if t]
        assert all(abs(at - worlds.BEGAN_NS) < 60 * worlds.MINUTE_NS for at in times)
        assert (artifact.run is not None) == (len(path) > 2)
        assert artifact.writable == (name != "vlmrun" or path[0] == "files")
        json.dumps(dict(artifact.metadata), allow_nan=False)
        content = artifact.current.content
        if isinstance(content, SingleFile) and isinstance(expected, bytes):
            assert isinstance(content.content, ContentRef | Pointer)
            size = content.content.size
            assert isinstance(size, Unknown | Hint) or size == Exact(len(expected))
            assert not (isinstance(content.content, Pointer) and isinstance(size, Exact))


@everyone
async def test_a_listing_is_the_same_when_asked_again(name: str, lab: Lab, directory: Path) -> None:
    """Also by another provider, as after a remount: equal values, so that names and inodes stay."""
    async with trial(name, lab, directory) as one, trial(name, lab, directory) as other:
        first, second, third = await one.walk(), await one.walk(), await other.walk()
    assert first == second == third


@four
async def test_a_directory_that_is_not_its_own_is_not_found(name: str, lab: Lab, directory: Path) -> None:
    """A reference of no kind it knows is ``NotFound``; nothing is sent."""
    async with trial(name, lab, directory) as t:
        with lab.counted() as sent, pytest.raises(errors.NotFound):
            await t.provider.list(DirRef("work", "no such kind", ("x",)), None)
    assert sent == []


@four
@pytest.mark.parametrize("title", ["no-such-folder", "../..", "", "a/b", "\ud800", "x" * 5000, *worlds.NOBODY])
async def test_a_folder_that_does_not_exist_does_not_resolve(name: str, title: str, lab: Lab, directory: Path) -> None:
    """None, for at most one request; none is sent for a name that cannot be an id, whatever it holds."""
    async with trial(name, lab, directory) as t:
        root = t.provider.root().ref
        assert root is not None
        await t.provider.list(root, None)
        with lab.counted() as sent:
            assert await t.provider.resolve(root, title) is None
    assert len(sent) <= (1 if title.isascii() and title.isprintable() and 0 < len(title) < 200 else 0)


# -- ids and versions ----------------------------------------------------------------------------------------


@everyone
async def test_what_was_listed_is_found_by_its_id(name: str, lab: Lab, directory: Path) -> None:
    """The same artifact with the same bytes, or None where only the listing tells; at most two requests."""
    async with trial(name, lab, directory) as t:
        artifacts, folders = await t.walk()
        for path, artifact in artifacts.items():
            workflow = folders[path[:1]].ref or t.provider.root().ref
            assert workflow is not None
            with lab.counted() as sent:
                found = await t.provider.find(workflow, artifact.id)
            assert len(sent) <= 2
            if found is None:
                assert name == "vlmrun"
                assert artifact.run is not None
                continue
            assert (found.id, found.key, found.path, found.kind) == (
                artifact.id,
                artifact.key,
                artifact.path,
                artifact.kind,
            )
            assert found.current is not None
            assert artifact.current is not None
            assert found.current.content == artifact.current.content
            assert t.provider.is_artifact_id(artifact.id)


@everyone
async def test_an_id_of_nobody_is_nothing(name: str, lab: Lab, directory: Path) -> None:
    """Neither an error nor an artifact; what does not look like an id costs no request."""
    odd = [
        "",
        ".",
        "..",
        "latest",
        "by-id",
        "notes.md",
        "a/b",
        "../x",
        "^2F",
        "art_",
        "x" * 5000,
        "art_\n",
        "\u7814",
        "\ud800",
    ]
    async with trial(name, lab, directory) as t:
        _, folders = await t.walk()
        places = [f.ref for f in folders.values() if f.ref and f.role is Role.WORKFLOW]
        for ref in places:
            for nobody in worlds.NOBODY:
                assert await t.provider.find(ref, nobody) is None
            with lab.counted() as sent:
                assert [await t.provider.find(ref, text) for text in odd] == [None] * len(odd)
            assert sent == []
    assert not any(t.provider.is_artifact_id(text) for text in odd)


@everyone
async def test_an_artifact_is_found_in_its_own_workflow_only(name: str, lab: Lab, directory: Path) -> None:
    """Another workflow's id is no artifact here: a path must say what is true."""
    async with trial(name, lab, directory) as t:
        artifacts, folders = await t.walk()
        for path, artifact in artifacts.items():
            for place, folder in folders.items():
                if folder.role is Role.WORKFLOW and folder.ref and place != path[:1]:
                    assert await t.provider.find(folder.ref, artifact.id) is None


@everyone
async def test_versions_hold_the_current_one_and_every_byte(name: str, lab: Lab, directory: Path) -> None:
    """In order of time; each version's bytes are those of that version; ids and unique prefixes lead to them."""
    async with trial(name, lab, directory) as t:
        artifacts, _ = await t.walk()
        for path, artifact in artifacts.items():
            page = await t.provider.versions(artifact, None)
            assert (page.next_cursor, page.complete) == (None, True)
            assert artifact.current is not None
            assert artifact.current.id in {v.id for v in page.versions}
            if artifact.only_version:
                assert [v.id for v in page.versions] == [artifact.current.id]
            times = [v.created_at_ns for v in page.versions if v.created_at_ns is not None]
            assert times in (sorted(times), sorted(times, reverse=True))
            if artifact.kind is ArtifactKind.TREE:
                oldest_first = sorted(page.versions, key=lambda v: v.created_at_ns or 0)
                assert [await t.read(artifact, v) for v in oldest_first] == worlds.TREE
                assert t.world.files[path] == worlds.TREE[-1]
            for version in page.versions:
                assert await t.provider.find_version(artifact, version.id) in {version.id, None}
            for nothing in ("ffffffff" * 8, "fffffffff", "..", "", "\ud800", "x" * 5000, "%2e", "a/b", "?x=1"):
                assert await t.provider.find_version(artifact, nothing) is None


# -- bytes ---------------------------------------------------------------------------------------------------


@everyone
async def test_every_byte_is_the_stores(name: str, lab: Lab, directory: Path) -> None:
    """Files and trees read whole are what was saved."""
    async with trial(name, lab, directory) as t:
        artifacts, _ = await t.walk()
        assert {path: await t.read(artifact) for path, artifact in artifacts.items()} == t.world.files


@four
@pytest.mark.parametrize(
    ("offset", "length"), [(0, 1), (0, None), (7, 9), (100, None), (123_456, 1), (399_999, 1), (399_990, 500)]
)
async def test_ranges_are_exact(name: str, offset: int, length: int | None, lab: Lab, directory: Path) -> None:
    """A range is what it says, or the whole from 0; ``total`` is the size of the whole where it is known."""
    async with trial(name, lab, directory) as t:
        content, whole = await largest(t)
        # The archives of one world are small; the others hold 400,000 bytes.
        offset = min(offset, len(whole) - 10)
        stream, data = await t.opened(content, offset, length)
        end = None if length is None else offset + length
    if stream.ranged:
        assert stream.offset == offset
        assert data == whole[offset:end]
    else:
        assert stream.offset == 0
        assert data == whole
    assert stream.total in {None, len(whole)}


async def largest(t: Trial) -> tuple[ContentRef | Pointer, bytes]:
    """Return what opens the largest content there is, and its bytes."""
    artifacts, _ = await t.walk()
    found = [(a, e) for path, a in artifacts.items() if isinstance(e := t.world.files[path], bytes)]
    if not found:
        artifact = next(iter(artifacts.values()))
        content = single(artifact)
        return content, (await t.opened(content))[1]
    artifact, expected = max(found, key=lambda pair: len(pair[1]))
    return single(artifact), expected


@four
@pytest.mark.parametrize("beyond", [0, 1, 1 << 40])
async def test_beyond_the_end_there_is_nothing(name: str, beyond: int, lab: Lab, directory: Path) -> None:
    """At the end and after it: no bytes, or the whole from 0; or that the content is no longer what was listed."""
    async with trial(name, lab, directory) as t:
        content, whole = await largest(t)
        for length in (1, None):
            try:
                assert await t.bytes_of(content, len(whole) + beyond, length) == b""
            except errors.StaleContent:
                assert t.world.service == "vm0"


@four
async def test_an_artifact_that_is_left_half_read_does_no_harm(name: str, lab: Lab, directory: Path) -> None:
    """A reader may stop at the first piece: the next one gets all of it."""
    async with trial(name, lab, directory) as t:
        content, whole = await largest(t)
        for _ in range(20):
            async with t.provider.open(content, ByteRange(0)) as stream:
                await anext(aiter(stream.chunks))
        assert await t.bytes_of(content) == whole


@pytest.mark.parametrize("name", ["local", "syntropic137", "vlmrun"])
async def test_an_empty_file_is_empty(name: str, tmp_path: Path) -> None:
    """No bytes and no error: an agent may well leave an empty file behind."""
    store = Store(tmp_path / "store")
    worlds.fill(store)
    empty = store.add_artifact(worlds.WORKFLOW, "empty.txt", "file", run_id=worlds.RUN, created_at_ns=worlds.BEGAN_NS)
    store.save_file(empty.id, store.objects.put(b""), 0, created_at_ns=worlds.BEGAN_NS)
    try:
        with Lab(store, token=TOKEN) as lab:
            async with trial(name, lab, tmp_path / "store") as t:
                artifacts, _ = await t.walk()
                (found,) = [a for path, a in artifacts.items() if path[-1] == "empty.txt"]
                assert await t.read(found) == b""
                assert await t.bytes_of(single(found), 5, 7) == b""
    finally:
        store.close()


# -- failures ------------------------------------------------------------------------------------------------

LATER = {"retry-after": "3600"}
HTML = b"<!doctype html><title>Sign in</title>"
Kinds = tuple[type[errors.ArtifactFSError], ...]
# What a failing answer means to all of them. What a service may mean by 200 with something else, its provider knows.
MEANING: dict[str, tuple[dict[str, Any], Kinds]] = {
    "400": ({"status": 400}, (errors.InvalidRequest,)),
    "401": ({"status": 401}, (errors.AccessDenied,)),
    "402": ({"status": 402}, (errors.QuotaExceeded,)),
    "403": ({"status": 403}, (errors.AccessDenied,)),
    "422": ({"status": 422}, (errors.InvalidRequest,)),
    "429": ({"status": 429, "headers": LATER}, (errors.RateLimited,)),
    "500": ({"status": 500}, TRANSIENT),
    "503": ({"status": 503, "headers": LATER}, (errors.Unavailable,)),
    "cut": ({"cut_after": 10}, TRANSIENT),
    "stalled": ({"stall_after": 10}, TRANSIENT),
    "silent": ({"delay_s": 60}, TRANSIENT),
    "html": (
        {"status": 200, "body": HTML, "headers": {"content-type": "text/html"}},
        (errors.ProviderMisbehaved, errors.Unsupported),
    ),
    "nothing": ({"status": 200, "body": b""}, (errors.ProviderMisbehaved, errors.Unsupported)),
    "other": (
        {"status": 200, "body": b'{"a": 1}'},
        (errors.ProviderMisbehaved, errors.Unsupported, errors.Unavailable),
    ),
}
services = pytest.mark.parametrize("name", worlds.SERVICES)
meanings = pytest.mark.parametrize(("what", "kinds"), MEANING.values(), ids=MEANING)


def deadline_for(kinds: Kinds) -> float:
    """Return seconds: few for what is tried again until the end, else enough for a busy machine."""
    return worlds.SHORT_S if kinds is TRANSIENT else 30.0


def check_error(error: errors.ArtifactFSError, kinds: Kinds) -> None:
    assert isinstance(error, kinds), repr(error)
    assert TOKEN not in f"{error} {error.subject} {error!r}"
    assert str(error).isprintable()


def announce(expected_logs: LogGuard, what: dict[str, Any]) -> None:
    """What the laboratory does to a connection its server reports."""
    if "cut_after" in what:
        expected_logs("Error in ASGI", logger="hypercorn.error", level=logging.ERROR)


@services
@meanings
async def test_a_listing_that_fails_is_an_error_never_a_short_one(
    name: str, what: dict[str, Any], kinds: Kinds, lab: Lab, directory: Path, expected_logs: LogGuard
) -> None:
    """The same answer means the same to all, in a sentence that never shows the token; healed, the listing is whole."""
    announce(expected_logs, what)
    async with trial(name, lab, directory) as t:
        artifacts, folders = await t.walk()
        path = max(artifacts, key=len)
        ref = next(f.ref for n in range(len(path), -1, -1) if (f := folders.get(path[:n])) and f.ref)
        whole = await t.pages(ref)
    async with trial(name, lab, directory, deadline_for(kinds)) as t:
        lab.fault(t.world.lists, **what)
        with pytest.raises(errors.ArtifactFSError) as caught:
            await t.pages(ref)
        lab.heal()
    check_error(caught.value, kinds)
    async with trial(name, lab, directory) as t:
        assert await t.pages(ref) == whole


@services
@meanings
async def test_content_that_fails_is_an_error_never_short(
    name: str, what: dict[str, Any], kinds: Kinds, lab: Lab, directory: Path, expected_logs: LogGuard
) -> None:
    """What a failing answer says is never taken for the content, nor a part for the whole."""
    announce(expected_logs, what)
    async with trial(name, lab, directory) as t:
        content, whole = await largest(t)
    async with trial(name, lab, directory, deadline_for(kinds)) as t:
        lab.fault(t.world.content, **what)
        failure, data = await outcome(t, content)
        lab.heal()
    if failure is not None:
        check_error(failure, kinds)
    else:
        # Bytes come as they are from these: that a 200 holds others can be told only by who checks what it reads.
        assert name in {"vlmrun", "vm0"}
        assert data == what["body"]
    async with trial(name, lab, directory) as t:
        assert await t.bytes_of(content) == whole


async def outcome(t: Trial, content: ContentRef | Pointer) -> tuple[errors.ArtifactFSError | None, bytes]:
    try:
        with trio.fail_after(30):
            return None, await t.bytes_of(content)
    except errors.ArtifactFSError as error:
        return error, b""


@services
async def test_what_is_gone_is_not_found(name: str, lab: Lab, directory: Path) -> None:
    """404 with an explanation means that the content is no more."""
    gone = {"status": 404, "body": b'{"error": {"message": "No such thing"}, "detail": "no such thing"}'}
    async with trial(name, lab, directory) as t:
        content, _ = await largest(t)
        lab.fault(t.world.content, **gone)
        with pytest.raises(errors.NotFound):
            await t.bytes_of(content)


@services
async def test_a_service_that_is_not_there_is_unreachable(name: str, lab: Lab, directory: Path) -> None:
    """No connection is ``Unreachable``, at once the second time; ``check`` reports it instead of raising."""
    source = worlds.source(WORLDS[name], lab, directory)
    port = source.url.partition("127.0.0.1:")[2].partition("/")[0]
    source = source.model_copy(update={"url": source.url.replace(port, "1")})
    provider = registry.create(source, worlds.Kept(), Observer(), 5.0)
    lists = [DirRef("work", "role", ("artifact",))] if WORLDS[name].service == "vm0" else [provider.root().ref]
    try:
        for ref in lists:
            assert ref is not None
            with pytest.raises(errors.Unreachable):
                await provider.list(ref, None)
        checks = await provider.check()
        assert not all(check.ok for check in checks)
    finally:
        await provider.aclose()


# -- credentials, budgets, ends ------------------------------------------------------------------------------


@remote
async def test_the_token_goes_to_its_service_and_nowhere_else(name: str, lab: Lab, directory: Path) -> None:
    """Every request to the service carries it, none to its storage; no text about the source shows it."""
    async with trial(name, lab, directory) as t:
        with lab.counted() as sent:
            artifacts, _ = await t.walk()
            for artifact in artifacts.values():
                await t.read(artifact)
            checks = await t.provider.check()
        shown = f"{t.provider!r} {t.provider.describe()} {checks} {t.observer.sources} {[*t.observer.incidents]}"
    assert TOKEN not in shown
    bases = ("/vm0", "/syntropic137", "/vlmrun/v1")
    for request in sent:
        holds = TOKEN in request.headers.get("authorization", "")
        signed = "x-amz-signature" in request.query.lower()
        assert holds == (request.origin == "main" and request.path.startswith(bases) and not signed), request
    assert all(TOKEN not in f"{request.path}?{request.query}" for request in sent)


@everyone
async def test_checks_say_that_all_is_well(name: str, lab: Lab, directory: Path) -> None:
    """And with a wrong token the remote ones say that it is not, without raising or showing it."""
    async with trial(name, lab, directory) as t:
        checks = await t.provider.check()
    assert checks
    assert all(check.ok for check in checks), checks
    if not t.world.is_remote:
        return
    wrong = worlds.source(t.world, lab, directory)
    wrong = wrong.model_copy(update={"authorization": SecretStr("Bearer not-this-one")})
    provider = registry.create(wrong, worlds.Kept(), Observer(), 5.0)
    try:
        found = await provider.check()
    finally:
        await provider.aclose()
    assert any(not check.ok for check in found)
    assert "not-this-one" not in repr(found)


@everyone
async def test_what_is_known_of_a_server_can_be_shown(name: str, lab: Lab, directory: Path) -> None:
    """``describe`` is for ``status --json``: keys and values that JSON has."""
    async with trial(name, lab, directory) as t:
        await t.walk()
        shown = json.loads(json.dumps(t.provider.describe(), allow_nan=False))
    assert shown
    assert all(isinstance(key, str) for key in shown)


@four
async def test_closing_twice_is_closing(name: str, lab: Lab, directory: Path) -> None:
    """A mount that ends while it fails may close more than once."""
    async with trial(name, lab, directory) as t:
        await t.walk()
        await t.provider.aclose()
        await t.provider.aclose()


@services
async def test_a_budget_is_kept_as_the_server_counts(name: str, lab: Lab, directory: Path) -> None:
    """Of many calls at once the server sees as many requests a minute as configured; the others are refused at once."""
    async with trial(name, lab, directory, 5.0, requests_per_minute=6) as t:
        ref = t.provider.root().ref if t.world.service != "vm0" else DirRef("work", "role", ("artifact",))
        assert ref is not None
        refused = []

        async def ask() -> None:
            try:
                await t.provider.list(ref, None)
            except errors.QuotaExceeded as error:
                refused.append(str(error))

        with lab.counted() as sent, trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(ask)
    assert len(sent) == 6
    assert refused
    assert all("budget" in said for said in refused)


@pytest.mark.parametrize("per_minute", [0.5, 1, 2.5, 10, 100])
async def test_no_minute_has_more_requests_than_allowed(per_minute: float, autojump_clock: Any) -> None:
    """Whenever requests come: any window of 60 s holds at most as many, and waiting is never longer than needed."""
    budget = MinuteBudget(per_minute)
    sent: list[float] = []
    for gap in [0.0] * 120 + [7.0] * 30 + [0.0] * 40:
        await trio.sleep(gap)
        await budget.take()
        sent.append(trio.current_time())
    most = max(1, int(per_minute))
    window = 60 * max(1, 1 / per_minute)
    assert all(later - earlier > window for earlier, later in zip(sent, sent[most:], strict=False))
    # 120 at once take as long as their number demands, and no longer.
    assert sent[119] - sent[0] <= (119 // most) * (window + 1) + 1e-6


async def test_a_wait_that_is_too_long_is_refused_at_once(autojump_clock: Any) -> None:
    """With the time until the next one; who may wait long enough gets it exactly then."""
    budget = MinuteBudget(2)
    assert budget.left() == 2
    await budget.take()
    await trio.sleep(20)
    await budget.take()
    assert budget.left() < 1
    with pytest.raises(errors.QuotaExceeded, match="41 s"):
        await budget.take(max_wait_s=30)
    began = trio.current_time()
    await budget.take(max_wait_s=45)
    assert trio.current_time() - began == pytest.approx(41)


@pytest.mark.parametrize(
    ("service", "url", "more", "kind", "burst"),
    [
        ("vlmrun", "https://api.vlm.run/v1", {}, MinuteBudget, 10),
        ("vlmrun", "https://agent.vlm.run/v1", {}, MinuteBudget, 10),
        ("vlmrun", "https://api.vlm.run/v1", {"requests_per_minute": 300}, MinuteBudget, 300),
        ("vlmrun", "http://localhost:1/v1", {}, Budget, float("inf")),
        ("syntropic137", "http://localhost:8137", {}, Budget, 50),
        ("syntropic137", "http://localhost:8137", {"requests_per_minute": 12}, MinuteBudget, 12),
        ("vm0", "https://api.vm0.ai", {}, Budget, float("inf")),
        ("vm0", "https://api.vm0.ai", {"requests_per_minute": 0.5}, MinuteBudget, 1),
    ],
)
def test_each_service_has_the_budget_it_is_known_for(
    service: Any, url: str, more: dict[str, float], kind: type[Budget], burst: float
) -> None:
    """What the configuration says goes before what the service is known to allow."""
    said: dict[str, Any] = {"name": "work", "service": service, "url": url, **more}
    budget = registry.budget_of(config.Source(**said))
    assert type(budget) is kind
    assert budget.burst == burst


def test_folders_and_listings_are_values() -> None:
    """Equal facts are equal: what was said about a directory can be compared with what is said now."""
    one = Folder(("a",), "1", DirRef("work", "x"), metadata={"n": 1})
    assert one == Folder(("a",), "1", DirRef("work", "x"), metadata={"n": 2})
    assert hash(one) == hash(Folder(("a",), "1", DirRef("work", "x")))
