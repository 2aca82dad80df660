"""The VLM Run provider against the served dialect: the tree it describes, the bytes, and what each call costs."""

import json
import math
from contextlib import asynccontextmanager
from functools import partial

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from artifactfs import errors
from artifactfs.model.content import Access, ByteRange, Exact, Unknown
from artifactfs.model.entry import ArtifactKind, DirRef, Note, Role
from artifactfs.observe import Observer
from artifactfs.providers.http import HttpClient
from artifactfs.providers.vlmrun import VlmRunProvider
from artifactfs.server import vlmrun
from artifactfs.server.context import Context
from artifactfs.store.rows import Run
from tests.support import vlmrun_samples as samples
from tests.support.serving import serving

ROOT, SESSIONS, FILES = DirRef("vr", "root"), DirRef("vr", "sessions"), DirRef("vr", "files")
RUN = DirRef("vr", "run", (samples.RUN,))


@pytest.fixture
def store(tmp_path):
    store = samples.filled(tmp_path / "store")
    yield store
    store.close()


class Trial:
    """A provider and what it has sent."""

    def __init__(self, provider, observer, memory):
        self.provider, self.observer, self.memory = provider, observer, memory

    @property
    def sent(self):
        return self.observer.counters("vr").requests

    async def costs(self, call):
        """Return what a call returns and how many requests it took."""
        before = self.sent
        result = await call()
        return result, self.sent - before

    async def read(self, artifact, offset=0, length=None):
        """Return the stream's facts and its bytes."""
        content = artifact.current.content.content
        async with self.provider.open(content, ByteRange(offset, length)) as stream:
            data = b"".join([chunk async for chunk in stream.chunks])
        return stream, data


@asynccontextmanager
async def trial(store, *, token="secret", caches=(), memory=None):
    app = Starlette(routes=[Mount("/vlmrun", routes=vlmrun.routes(store, Context("secret", storage_url="")))])
    observer, memory = Observer(), memory or samples.Memory()
    async with serving(app) as running:
        headers = {"Authorization": f"Bearer {token}"}
        http = HttpClient("vr", f"{running.url}/vlmrun/v1", headers=headers, observer=observer)
        provider = VlmRunProvider("vr", http, memory, caches)
        try:
            yield Trial(provider, observer, memory)
        finally:
            await provider.aclose()


def by_path(listing):
    return {entry.path: entry for entry in listing.entries}


async def test_the_root_has_agents_runs_sessions_and_files(store):
    """One request tells all runs of all agents; the version of an agent is no part of its name."""
    async with trial(store) as t:
        root = t.provider.root()
        listing, cost = await t.costs(partial(t.provider.list, root.ref, None))
    found = by_path(listing)
    assert (cost, listing.next_cursor, listing.complete) == (1, None, True)
    assert set(found) == {
        ("image/blur-image",),
        ("image/blur-image", samples.RUN),
        ("transcribe",),
        ("transcribe", samples.RUNNING),
        ("transcribe", samples.FAILED),
        ("sessions",),
        ("files",),
    }
    agent, run = found["image/blur-image",], found["image/blur-image", samples.RUN]
    assert (agent.role, agent.ref) == (Role.WORKFLOW, None)
    assert (run.role, run.ref, run.id) == (Role.RUN, RUN, samples.RUN)
    assert run.mtime_ns == samples.DONE_NS + 41 * 10**9
    assert run.metadata["agent_version"] == "v1"
    assert run.metadata["usage"]["duration_seconds"] == 41
    assert found["sessions",].ref == SESSIONS
    assert found["files",].ref == FILES
    assert len({entry.id for entry in listing.entries}) == len(listing.entries)


async def test_agents_called_like_our_folders_stay_apart(store):
    """An agent named files or sessions has another id than our folder of that name."""
    flow = store.add_workflow("files")
    store.add_run(Run("exec-00000000000a", samples.UNKNOWN, flow.id, "completed", 1, 2, {}))
    async with trial(store) as t:
        listing = await t.provider.list(ROOT, None)
    both = [entry for entry in listing.entries if entry.path == ("files",)]
    assert len(both) == 2
    assert both[0].id != both[1].id
    assert {entry.ref for entry in both} == {None, FILES}


async def test_a_run_costs_one_request_and_reading_one_more(store):
    """Objects, workspace files and the response stand in a run; sizes are unknown until somebody reads."""
    async with trial(store) as t:
        await t.provider.list(ROOT, None)
        listing, cost = await t.costs(partial(t.provider.list, RUN, None))
        found = by_path(listing)
        assert cost == 1
        assert listing.ttl_s == math.inf
        for object_id, (name, media_type, data) in samples.CONTENT.items():
            artifact = found[name,]
            assert (artifact.id, artifact.key) == (object_id, f"{samples.RUN}/{object_id}")
            assert (artifact.kind, artifact.only_version) == (ArtifactKind.FILE, True)
            content = artifact.current.content.content
            assert (content.size, content.access) == (Unknown(), Access.RANGED)
            if media_type.startswith(("image", "video", "audio")):
                assert artifact.media_type == media_type
            (stream, got), cost = await t.costs(partial(t.read, artifact))
            assert (got, cost, stream.total) == (data, 1, len(data))
        for path, data in ((("out dir", "report é.csv"), samples.REPORT), (("review", "notes.md"), b"# Notes\n")):
            assert found[path].id == "/".join(path)
            assert (await t.read(found[path]))[1] == data
        page = await t.provider.versions(found["chart.png",], None)
        assert page.versions == (found["chart.png",].current,)
    assert len(found) == 10


async def test_the_response_is_a_note(store):
    """response.json holds what the agent answered; a run that gave none has none."""
    async with trial(store) as t:
        listing, cost = await t.costs(partial(t.provider.list, RUN, None))
        found = by_path(listing)
        failed = await t.provider.list(DirRef("vr", "run", (samples.FAILED,)), None)
    # Nothing was known of the run: one request for it, one for its artifacts.
    assert cost == 2
    note = found["response.json",]
    assert isinstance(note, Note)
    assert json.loads(note.data) == samples.RESPONSE
    assert note.data.startswith(b'{\n  "image"')
    assert note.mtime_ns == samples.DONE_NS + 41 * 10**9
    assert failed.entries == ()


async def test_ranges_are_asked_for_and_honoured(store):
    """A span costs one request and brings only its bytes; past the end is nothing, not an error."""
    async with trial(store) as t:
        video = by_path(await t.provider.list(RUN, None))["cut.mp4",]
        size = len(samples.MP4)
        for offset, length in ((0, 10), (100, 1), (size - 5, None), (size - 5, 100)):
            stream, data = await t.read(video, offset, length)
            assert data == samples.MP4[offset : None if length is None else offset + length]
            assert (stream.offset, stream.total, stream.ranged) == (offset, size, True)
        stream, data = await t.read(video, size, 10)
        assert (data, stream.total, stream.ranged) == (b"", size, True)


async def test_a_url_object_is_followed_without_the_token(store):
    """Two requests for the first read, one for the next; the bytes are those behind the address."""
    async with trial(store) as t:
        clip = by_path(await t.provider.list(RUN, None))["clip_final.mp4",]
        assert clip.id == samples.URL_OBJECT
        (stream, data), cost = await t.costs(partial(t.read, clip))
        assert (data, cost, stream.media_type) == (samples.CLIP, 2, "video/mp4")
        (stream, data), cost = await t.costs(partial(t.read, clip, 4, 6))
        assert (data, cost, stream.ranged) == (samples.CLIP[4:10], 1, True)


async def test_files_have_exact_sizes_and_are_found_by_id(store):
    """One request lists, two read the first time; an id resolves at the cost of one, a wrong one to None."""
    samples.add_upload(store, "ümlaut/odd.bin", b"x" * 70_000, upload_id=samples.UNKNOWN)
    async with trial(store) as t:
        listing, cost = await t.costs(partial(t.provider.list, FILES, None))
        found = by_path(listing)
        assert (cost, listing.complete, set(found)) == (1, True, {("scan ü.pdf",), ("ümlaut/odd.bin",)})
        scan = found["scan ü.pdf",]
        assert scan.current.size == scan.current.content.content.size == Exact(len(samples.pdf()))
        assert scan.created_at_ns == samples.DONE_NS + 123_456_000
        assert (scan.id, scan.media_type) == (samples.FILE, "application/pdf")
        (_, data), cost = await t.costs(partial(t.read, scan))
        assert (data, cost) == (samples.pdf(), 2)
        (stream, data), cost = await t.costs(partial(t.read, scan, 5, 5))
        assert (data, cost, stream.ranged) == (samples.pdf()[5:10], 1, True)
        by_id, cost = await t.costs(partial(t.provider.find, FILES, samples.FILE))
        assert (by_id, cost) == (scan, 1)
        assert await t.provider.find(FILES, samples.RUN) is None
        store.delete_upload(samples.UNKNOWN)
        with pytest.raises(errors.NotFound):
            await t.read(found["ümlaut/odd.bin",])


async def test_names_that_can_be_no_id_cost_nothing(store):
    """Resolve and find send a request only for the form of an id."""
    names = ("x", "", "..", "img_a1b2c3", "a/b", samples.RUN.upper(), samples.RUN + "0", "x" * 1000, "\udc80")
    async with trial(store) as t:
        for name in names:
            assert await t.provider.resolve(SESSIONS, name) is None
            assert await t.provider.find(FILES, name) is None
        for ref in (ROOT, FILES, RUN):
            assert await t.provider.resolve(ref, samples.RUN) is None
        assert await t.provider.find(RUN, "img_a1b2c3") is None
        assert t.sent == 0


def test_what_an_artifact_id_looks_like(tmp_path):
    """References and UUIDs; words of JSON that only look like references are none."""
    provider = VlmRunProvider("vr", HttpClient("vr", "http://h/v1"), samples.Memory(), ())
    for name in ("img_a1b2c3", "recon_000000", "url_f41446", "arr_abcdef", samples.FILE):
        assert provider.is_artifact_id(name)
    for name in ("img_A1B2C3", "img_a1b2c3.png", "doc_number", "img_a1b2c", "xid_a1b2c3", "img_a1b2c3\n", "report.csv"):
        assert not provider.is_artifact_id(name)


async def test_sessions_are_resolved_once_and_remembered(store):
    """A look-up of a UUID costs one request, listing it then none; it is listed ever after, by other mounts too."""
    async with trial(store) as t:
        listing, cost = await t.costs(partial(t.provider.list, SESSIONS, None))
        assert (listing.entries, listing.complete, cost) == ((), False, 0)
        folder, cost = await t.costs(partial(t.provider.resolve, SESSIONS, samples.RUN))
        assert (folder.path, folder.ref.kind, cost) == ((samples.RUN,), "session", 1)
        inside, cost = await t.costs(partial(t.provider.list, folder.ref, None))
        assert cost == 0
        chart = by_path(inside)["chart.png",]
        assert chart.key == f"session/{samples.RUN}/img_a1b2c3"
        assert (await t.read(chart))[1] == samples.png()
        _, cost = await t.costs(partial(t.provider.list, folder.ref, None))
        assert cost == 1
        absent, cost = await t.costs(partial(t.provider.resolve, SESSIONS, samples.UNKNOWN))
        assert (absent, cost) == (None, 1)
        memory = t.memory
    async with trial(store, memory=memory) as t:
        listing = await t.provider.list(SESSIONS, None)
        assert [entry.path for entry in listing.entries] == [(samples.RUN,)]
        assert listing.entries[0].mtime_ns == folder.mtime_ns
        again, cost = await t.costs(partial(t.provider.resolve, SESSIONS, samples.RUN))
        assert (again, cost) == (folder, 0)


async def test_the_caches_of_the_sdk_tell_of_sessions(store, tmp_path):
    """Directories named by a UUID are sessions, unless known to be executions; nothing else there counts."""
    caches = [tmp_path / "new", tmp_path / "old", tmp_path / "missing"]
    for path in (caches[0] / samples.UNKNOWN, caches[1] / samples.RUN, caches[1] / "not a session"):
        path.mkdir(parents=True)
    (caches[0] / samples.FILE).write_text("a file")
    async with trial(store, caches=caches) as t:
        before = await t.provider.list(SESSIONS, None)
        assert [entry.path for entry in before.entries] == [(samples.UNKNOWN,), (samples.RUN,)]
        await t.provider.list(ROOT, None)
        after = await t.provider.list(SESSIONS, None)
        assert [entry.path for entry in after.entries] == [(samples.UNKNOWN,)]
        with pytest.raises(errors.NotFound):
            await t.provider.list(after.entries[0].ref, None)


async def test_a_running_execution_is_asked_again(store):
    """What may still grow is believed half a minute; what it becomes is seen after that."""
    ref = DirRef("vr", "run", (samples.RUNNING,))
    async with trial(store) as t:
        await t.provider.list(ROOT, None)
        listing, cost = await t.costs(partial(t.provider.list, ref, None))
        assert (listing.entries, listing.ttl_s, cost) == ((), 30.0, 1)
        run = store.run(samples.RUNNING)
        samples.add_object(store, run, "art_ccc001", "new.txt", "text/plain", b"new")
        assert [entry.path for entry in (await t.provider.list(ref, None)).entries] == [("new.txt",)]


async def test_an_unknown_run_and_a_wrong_key_are_errors(store):
    """Neither passes for an empty directory."""
    async with trial(store) as t:
        with pytest.raises(errors.NotFound):
            await t.provider.list(DirRef("vr", "run", (samples.UNKNOWN,)), None)
        with pytest.raises(errors.NotFound):
            await t.provider.list(DirRef("vr", "run", ("../x",)), None)
        checks = await t.provider.check()
        assert [check.ok for check in checks] == [True, True]
        assert t.provider.describe()["service"] == "vlmrun"
    async with trial(store, token="wrong") as t:
        for ref in (ROOT, RUN, FILES):
            with pytest.raises(errors.AccessDenied):
                await t.provider.list(ref, None)
        with pytest.raises(errors.AccessDenied):
            await t.provider.resolve(SESSIONS, samples.RUN)
        assert [check.ok for check in await t.provider.check()] == [False]
        assert t.sent == 5


async def test_versions_and_trees_beyond_the_one_there_is(store):
    """No other version is known, and nothing is a tree; neither costs a request."""
    async with trial(store) as t:
        chart = by_path(await t.provider.list(RUN, None))["chart.png",]
        before = t.sent
        assert await t.provider.find_version(chart, "v2") is None
        with pytest.raises(errors.NotADirectory):
            await t.provider.tree(chart, ())
        assert t.sent == before
