"""The VLM Run provider against servers that misbehave: every answer ends as an error of ours or a row less."""

import json
import math
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import current_thread, main_thread

import pytest
import trio
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from artifactfs import errors
from artifactfs.model.content import ByteRange
from artifactfs.model.entry import Artifact, DirRef, Note
from artifactfs.model.limits import AnswerLimits
from artifactfs.observe import Observer
from artifactfs.providers.http import HttpClient
from artifactfs.providers.vlmrun import VlmRunProvider, entries, provider, refs
from artifactfs.providers.vlmrun.schemas import Execution
from tests.support import vlmrun_samples as samples
from tests.support.serving import serving

RUN = samples.RUN
ROOT, RUN_REF = DirRef("vr", "root"), DirRef("vr", "run", (RUN,))
SESSIONS, FILES = DirRef("vr", "sessions"), DirRef("vr", "files")
LONG_AGO = "2026-07-01T10:00:00Z"
NO_ROUTE = {"detail": "Not Found"}


def execution(run_id=RUN, **more):
    row = {
        "id": run_id,
        "name": "agent:v2",
        "status": "completed",
        "created_at": LONG_AGO,
        "completed_at": LONG_AGO,
        "response": {},
        "usage": {},
    }
    return {**row, **more}


def objects(*rows):
    return {"namespace_id": RUN, "items": list(rows)}


def listed(object_id, filename=None, source="store"):
    return {"object_id": object_id, "filename": filename, "source": source}


class Server:
    """Answers by path: a Response, a value for JSON, or a function of the request. Keeps what it was asked."""

    def __init__(self, answers):
        self.answers = {"/v1/agent/executions": [execution()], "/v1/artifacts/list": objects(), **answers}
        self.asked = []
        self.url = ""
        self.app = Starlette(routes=[Route("/{path:path}", self.answer)])

    async def answer(self, request):
        self.asked.append(request)
        found = self.answers.get(request.url.path)
        if callable(found) and not isinstance(found, Response):
            found = found(request)
        if isinstance(found, Response):
            return found
        return (
            JSONResponse(NO_ROUTE, 404) if found is None else Response(json.dumps(found), media_type="application/json")
        )

    def to(self, path):
        return [request for request in self.asked if request.url.path == path]


@asynccontextmanager
async def against(answers, *, caches=(), deadline_s=10.0):
    server = Server(answers)
    async with serving(server.app) as running:
        server.url = running.url
        async with asking(f"{running.url}/v1", caches=caches, deadline_s=deadline_s) as made:
            yield server, made


@asynccontextmanager
async def asking(base_url, *, caches=(), deadline_s=10.0):
    http = HttpClient(
        "vr", base_url, headers={"Authorization": "Bearer secret"}, observer=Observer(), deadline_s=deadline_s
    )
    made = VlmRunProvider("vr", http, samples.Memory(), caches)
    try:
        yield made
    finally:
        await made.aclose()


async def read(made, artifact, offset=0, length=None):
    async with made.open(artifact.current.content.content, ByteRange(offset, length)) as stream:
        return stream, b"".join([chunk async for chunk in stream.chunks])


async def only(made, ref=RUN_REF):
    """Return the one artifact of a directory."""
    listing = await made.list(ref, None)
    (artifact,) = [entry for entry in listing.entries if isinstance(entry, Artifact)]
    return artifact


def paths(listing, kind=Artifact):
    return [entry.path for entry in listing.entries if isinstance(entry, kind)]


# -- lists of artifacts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "missing",
    [JSONResponse(NO_ROUTE, 404), PlainTextResponse("404", 404), Response(status_code=405), Response(status_code=501)],
)
async def test_without_a_list_the_response_is_scanned(missing):
    """A server that cannot list: refs of the response are shown, the listing says so, and nobody asks again."""
    response = {
        "front": {"id": "img_a1b2c3"},
        "doc_number": "doc_number",
        "all": ["see `vid_4d0e56.mp4`", "img_a1b2c3"],
    }
    answers = {"/v1/artifacts/list": missing, "/v1/agent/executions": [execution(response=response)]}
    async with against(answers) as (server, made):
        await made.list(ROOT, None)
        for _ in range(2):
            listing = await made.list(RUN_REF, None)
            assert paths(listing) == [("img_a1b2c3.jpg",), ("vid_4d0e56.mp4",)]
            assert (listing.complete, listing.ttl_s) == (False, 300.0)
        assert listing.entries[0].metadata["field"] == "front.id"
        assert len(server.to("/v1/artifacts/list")) == (2 if missing.status_code == 404 else 1)
        with pytest.raises(errors.Unsupported):
            await made.resolve(SESSIONS, RUN)


@pytest.mark.parametrize("status", [405, 501])
async def test_that_there_is_no_list_is_believed_for_minutes_only(status, monkeypatch):
    """After that the server is asked again, and what it lists by then is shown."""
    answers = {"/v1/artifacts/list": Response(status_code=status)}
    async with against(answers) as (server, made):
        await made.list(ROOT, None)
        assert not (await made.list(RUN_REF, None)).complete
        server.answers["/v1/artifacts/list"] = objects(listed("img_a1b2c3", "chart.png"))
        assert not (await made.list(RUN_REF, None)).complete
        assert len(server.to("/v1/artifacts/list")) == 1
        now = trio.current_time()
        monkeypatch.setattr(trio, "current_time", lambda: now + 301)
        listing = await made.list(RUN_REF, None)
        assert (paths(listing), listing.complete) == ([("chart.png",)], True)


@pytest.mark.parametrize("status", [405, 501])
async def test_a_list_that_was_there_is_not_gone(status):
    """One odd answer, perhaps of a proxy, is a failure that passes, and no reason to show less."""
    async with against({}) as (server, made):
        await made.list(ROOT, None)
        assert (await made.list(RUN_REF, None)).complete
        server.answers["/v1/artifacts/list"] = Response(status_code=status)
        with pytest.raises(errors.Unavailable):
            await made.list(RUN_REF, None)
        assert made.describe()["lists_artifacts"] is True
        server.answers["/v1/artifacts/list"] = objects(listed("img_a1b2c3", "chart.png"))
        assert paths(await made.list(RUN_REF, None)) == [("chart.png",)]


async def test_a_missing_session_is_not_a_missing_list():
    """404 with a reason, or from an endpoint that complains when asked without parameters, is about the session."""

    def vague(request):
        return JSONResponse(NO_ROUTE, 404) if request.query_params else JSONResponse({"detail": []}, 422)

    for answer in (JSONResponse({"detail": "Session not found"}, 404), vague):
        async with against({"/v1/artifacts/list": answer}) as (server, made):
            # Once more, as the first answer may have been that of what stands before the service.
            once = 3 if answer is vague else 1
            assert await made.resolve(SESSIONS, RUN) is None
            assert len(server.asked) == once
            assert await made.resolve(SESSIONS, RUN) is None
            assert len(server.asked) == 2 * once
            assert made.describe()["lists_artifacts"] is True


GATEWAYS = [NO_ROUTE, {"message": "no Route matched with those values"}, {}]


@pytest.mark.parametrize("says", GATEWAYS)
async def test_what_a_gateway_does_not_find_is_not_gone(says):
    """Nothing of a run that has been listed is taken away, nor a list or an execution."""
    run = {"id": RUN, "name": "a", "status": "running", "created_at": LONG_AGO, "usage": {}}
    answers = {
        "/v1/artifacts/list": objects(listed("img_a1b2c3", "chart.png")), f"/v1/agent/executions/{RUN}": run,
        "/v1/files": [],
    }  # fmt: skip
    async with against(answers) as (server, made):
        assert paths(await made.list(RUN_REF, None)) == [("chart.png",)]
        for path, ref in (
            ("/v1/artifacts/list", RUN_REF), (f"/v1/agent/executions/{RUN}", RUN_REF), ("/v1/agent/executions", ROOT),
            ("/v1/files", FILES),
        ):  # fmt: skip
            server.answers[path], well = JSONResponse(says, 404), server.answers[path]
            made._known.clear()
            with pytest.raises((errors.Unavailable, errors.ProviderMisbehaved, errors.Unsupported)):
                await made.list(ref, None)
            server.answers[path] = well
        assert paths(await made.list(RUN_REF, None)) == [("chart.png",)]


@pytest.mark.parametrize("says", GATEWAYS)
@pytest.mark.parametrize("is_first", [True, False])
async def test_one_answer_of_a_gateway_in_place_of_a_list_is_asked_past(says, is_first):
    """Whether the server is known to list or not: it is there when it is asked without parameters."""
    answers = [
        JSONResponse(says, 404),
        JSONResponse({"detail": []}, 422),
        JSONResponse(objects(listed("img_a1b2c3", "a.png"))),
    ]
    async with against({} if is_first else {"/v1/artifacts/list": objects()}) as (server, made):
        await made.list(ROOT, None)
        if not is_first:
            await made.list(RUN_REF, None)
        server.answers["/v1/artifacts/list"] = lambda _: answers.pop(0)
        listing = await made.list(RUN_REF, None)
    assert (paths(listing), listing.complete) == ([("a.png",)], True)


async def test_a_run_whose_artifacts_are_gone_still_shows_its_response():
    """The execution is known though the namespace is not; that is believed only briefly."""
    answers = {
        "/v1/artifacts/list": JSONResponse({"detail": "Execution not found"}, 404),
        "/v1/agent/executions": [execution(response={"x": "doc_a1b2c3"})],
    }
    async with against(answers) as (_, made):
        await made.list(ROOT, None)
        listing = await made.list(RUN_REF, None)
    assert paths(listing) == [("doc_a1b2c3.pdf",)]
    assert paths(listing, Note) == [("response.json",)]
    assert listing.ttl_s == 30.0


async def test_list_and_response_are_united():
    """What is listed comes with its name; what only the response names follows; nothing comes twice."""
    answers = {
        "/v1/artifacts/list": objects(
            listed("img_a1b2c3"), listed("img_a1b2c3", "chart.png"), listed("vid_000001.mp4"), listed("new_type", "x.y")
        ),
        "/v1/agent/executions": [execution(response=["img_a1b2c3", "vid_000001", "aud_000002.WAV."])],
    }
    async with against(answers) as (_, made):
        await made.list(ROOT, None)
        listing = await made.list(RUN_REF, None)
    assert paths(listing) == [("chart.png",), ("vid_000001.mp4",), ("x.y",), ("aud_000002.wav",)]
    assert listing.complete
    assert listing.ttl_s == math.inf


HOSTILE = [
    "../../etc/passwd", "/etc/passwd", "a/../b", "..", ".", "a//b", "a/", "nul\0name", "line\nbreak", "\x1b]0;x\x07",
    "response.json", "x" * 5000, "/".join("d" * 100), "per%2Fcent", "\u202egpj.exe", "versions",
]  # fmt: skip


async def test_hostile_filenames_are_handed_on_unchanged():
    """Sane relative paths become directories, anything else one raw title; asked for by exactly the name given."""
    asked = []

    def artifact(request):
        asked.append(request.query_params["filename"])
        return PlainTextResponse(asked[-1])

    rows = [listed(f"item {n}", name, "workspace") for n, name in enumerate([*HOSTILE, "out/ok.csv"])]
    async with against({"/v1/artifacts/list": objects(*rows), "/v1/artifacts": artifact}) as (_, made):
        await made.list(ROOT, None)
        listing = await made.list(RUN_REF, None)
        found = [entry for entry in listing.entries if isinstance(entry, Artifact)]
        assert [entry.path for entry in found] == [*((name,) for name in HOSTILE), ("out", "ok.csv")]
        assert len({entry.key for entry in found}) == len(found)
        assert all(entry.id == entry.metadata["filename"] for entry in found)
        for entry in found:
            await read(made, entry)
    assert asked == [*HOSTILE, "out/ok.csv"]


async def test_rows_of_wrong_types_cost_only_themselves():
    """A row without usable id and name is left out and counted; a lone surrogate cannot be asked for."""
    rows = [
        None, 7, "text", [], {}, {"object_id": 5}, {"object_id": None, "filename": []}, {"object_id": ""},
        listed("x", "lone \udc80"), listed("img_a1b2c3", 5, ["store"]), listed(5, "kept.txt", "elsewhere"),
        listed("img_000002", "with \udc80.png"),
    ]  # fmt: skip
    async with against({"/v1/artifacts/list": objects(*rows)}) as (_, made):
        await made.list(ROOT, None)
        listing = await made.list(RUN_REF, None)
    assert paths(listing) == [("img_a1b2c3.jpg",), ("kept.txt",), ("with \udc80.png",)]
    assert not listing.complete
    assert listing.note == "9 artifacts cannot be shown: the service gave neither usable id nor filename"


BROKEN = [
    Response(status_code=204),
    Response(b"", media_type="application/json"),
    Response("<html>Sign in</html>", media_type="text/html"),
    Response(b"{", media_type="application/json"),
    Response(b'"text"', media_type="application/json"),
    Response(b"\xff\xfe", media_type="application/json"),
    Response(b"[" * 10_000 + b"]" * 10_000, media_type="application/json"),
    JSONResponse({"items": {"img_a1b2c3": {}}}),
    JSONResponse({"detail": "accepted"}, 202),
    JSONResponse({"detail": "credits"}, 402),
    JSONResponse({"error": {"message": "bad"}}, 400),
    RedirectResponse("file:///etc/passwd"),
    RedirectResponse("http://[broken"),
    RedirectResponse("/v1/artifacts/list"),
]


@pytest.mark.parametrize("answer", BROKEN, ids=range(len(BROKEN)))
async def test_broken_answers_are_errors_never_empty_directories(answer):
    """Whatever comes instead of a list, each directory is an error of ours."""
    broken = {"/v1/artifacts/list": answer, "/v1/agent/executions": answer, "/v1/files": answer}
    async with against({**broken, f"/v1/agent/executions/{RUN}": answer}) as (_, made):
        for ref in (ROOT, RUN_REF, FILES, DirRef("vr", "session", (RUN,))):
            # An object without items, and text in JSON, are lists of nothing only where the service says so.
            with pytest.raises(errors.ArtifactFSError):
                await made.list(ref, None)
        with pytest.raises(errors.ArtifactFSError):
            await made.resolve(SESSIONS, RUN)
        assert [check.ok for check in await made.check()] == [False]


# -- executions ---------------------------------------------------------------------------------------------


async def test_odd_executions_are_left_out_and_the_list_says_so():
    """Ids that cannot stand in a path, rows that are none; missing names and times do no harm."""
    rows = [
        execution("../x"), execution("a/b"), execution(""), execution(7), None, "x", {},
        execution("a?b#c%"), {"id": "kept-1"}, execution("kept-2", name=None, status=3, created_at="yesterday"),
        execution("kept-3", name="a/b:c:v1", created_at=5, completed_at="9999-12-31T23:59:60Z"),
        execution("kept-4", name="lone \udc80"),
    ]  # fmt: skip
    async with against({"/v1/agent/executions": rows}) as (_, made):
        listing = await made.list(ROOT, None)
    found = {entry.id: entry.path for entry in listing.entries}
    assert found["kept-1"] == ("unnamed agent", "kept-1")
    assert found["kept-2"] == ("unnamed agent", "kept-2")
    assert found["kept-3"] == ("a/b:c", "kept-3")
    assert found["kept-4"] == ("lone \udc80", "kept-4")
    assert sum(id_.startswith("agent/") for id_ in found) == 3
    assert listing.note == "8 executions cannot be shown: the service gave no usable id"
    assert not listing.complete
    for id_ in found:
        id_.encode()


def paged(rows, honour=True):
    def answer(request):
        skip, limit = int(request.query_params["skip"]), int(request.query_params["limit"])
        return JSONResponse(rows[skip : skip + limit] if honour else rows[:limit])

    return answer


async def walk(made, ref):
    """Return all pages of a directory."""
    cursor, listings = None, []
    while True:
        listings.append(await made.list(ref, cursor))
        cursor = listings[-1].next_cursor
        if cursor is None:
            return listings


async def test_pages_are_walked_and_repeats_dropped(monkeypatch):
    """Offsets shift when a run arrives: a row seen on an earlier page is dropped, a page asked again is the same."""
    monkeypatch.setattr(provider, "EXECUTIONS_PAGE", 10)
    rows = [execution(f"run-{n:03}") for n in range(25)]
    shifted = [execution("run-new"), *rows]
    served = {"rows": rows}

    def current(request):
        return paged(served["rows"])(request)

    async with against({"/v1/agent/executions": current}) as (server, made):
        first = await made.list(ROOT, None)
        served["rows"] = shifted
        second = await made.list(ROOT, first.next_cursor)
        assert await made.list(ROOT, first.next_cursor) == second
        third = await made.list(ROOT, second.next_cursor)
        assert third.next_cursor is None
        assert len(server.asked) == 4
    ids = [entry.id for page in (first, second, third) for entry in page.entries]
    assert len(ids) == len(set(ids)) == 25 + 1 + 2
    assert third.complete


@pytest.mark.parametrize(("ref", "path"), [(ROOT, "/v1/agent/executions"), (FILES, "/v1/files")])
async def test_a_list_that_shrinks_while_it_is_read_is_not_whole(monkeypatch, ref, path):
    """The first row goes, the others move up, and one of them is on no page: the next listing has it."""
    monkeypatch.setattr(provider, "EXECUTIONS_PAGE", 5)
    monkeypatch.setattr(provider, "FILES_PAGE", 5)
    rows = [execution(f"{n:08}-0000-4000-8000-000000000000") for n in range(12)]
    async with against({path: paged(rows)}) as (_, made):
        first = await made.list(ref, None)
        del rows[:2]
        second = await made.list(ref, first.next_cursor)
        last = await made.list(ref, second.next_cursor)
        assert last.next_cursor is None
        assert not last.complete
        assert "changed while it was read" in last.note
        assert last.ttl_s < made.listing_ttl_s
        again = await walk(made, ref)
    assert again[-1].complete
    assert len({entry.id for page in again for entry in page.entries if str(entry.id)[:8].isdigit()}) == 10


@pytest.mark.parametrize(("ref", "path"), [(ROOT, "/v1/agent/executions"), (FILES, "/v1/files")])
async def test_a_list_that_repeats_itself_ends(monkeypatch, ref, path):
    """A server that ignores skip gives the same page for ever: walked twice, then said to be incomplete."""
    monkeypatch.setattr(provider, "EXECUTIONS_PAGE", 5)
    monkeypatch.setattr(provider, "FILES_PAGE", 5)
    rows = [execution(f"{n:08}-0000-4000-8000-000000000000") for n in range(5)]
    async with against({path: paged(rows, honour=False)}) as (server, made):
        pages = await walk(made, ref)
    assert len(server.asked) == len(pages) == 2
    assert not pages[-1].complete
    assert "repeats" in pages[-1].note


async def test_a_list_that_never_ends_is_cut(monkeypatch):
    """New rows for ever stop at the limit, and the listing says so."""
    monkeypatch.setattr(provider, "EXECUTIONS_PAGE", 10)

    def endless(request):
        skip = int(request.query_params["skip"])
        return JSONResponse([execution(f"run-{n}") for n in range(skip, skip + 10)])

    async with against({"/v1/agent/executions": endless}) as (server, made):
        made._api.http.answer_limits = AnswerLimits(max_listing_rows=50)
        pages = await walk(made, ROOT)
    assert len(server.asked) == len(pages) == 6  # each begins with the last row of the one before
    assert not pages[-1].complete
    assert "limits.max-listing = 50" in pages[-1].note


async def test_a_response_that_the_list_leaves_out_is_asked_for_once():
    """Null for a completed run: one request for the run itself, and never again."""
    answers = {
        "/v1/agent/executions": [execution(response=None)],
        f"/v1/agent/executions/{RUN}": execution(response={"x": "img_a1b2c3"}),
    }
    async with against(answers) as (server, made):
        for _ in range(2):
            await made.list(ROOT, None)
            listing = await made.list(RUN_REF, None)
            assert paths(listing) == [("img_a1b2c3.jpg",)]
        assert len(server.to(f"/v1/agent/executions/{RUN}")) == 1
        assert len(server.asked) == 5


@pytest.mark.parametrize(
    ("status", "age_s", "ttl_s"),
    [
        ("completed", 0, 30.0),
        ("failed", 300, 30.0),
        ("completed", 700, math.inf),
        ("running", 5000, 30.0),
        ("odd", 5000, 30.0),
    ],
)
async def test_a_run_is_final_only_after_its_grace(status, age_s, ttl_s):
    """Artifacts of a run that just ended may come later, so its listing is believed for ever only after a while."""
    at = (datetime.now(UTC) - timedelta(seconds=age_s)).isoformat()
    async with against({"/v1/agent/executions": [execution(status=status, completed_at=at)]}) as (_, made):
        await made.list(ROOT, None)
        assert (await made.list(RUN_REF, None)).ttl_s == ttl_s


@pytest.mark.parametrize(
    "response",
    [
        "text with img_a1b2c3",
        ["\udc80 ü"],
        math.inf,
        0,
        False,
        {"deep": json.loads("[" * 900 + "]" * 900)},
        {"a" * 100_000: 1},
    ],
    ids=range(7),
)
async def test_any_response_becomes_valid_json(response):
    """What the SDK would refuse, what UTF-8 cannot hold, what is too deep to indent: the note is the same JSON."""
    async with against({"/v1/agent/executions": [execution(response=response)]}) as (_, made):
        await made.list(ROOT, None)
        listing = await made.list(RUN_REF, None)
    (note,) = [entry for entry in listing.entries if isinstance(entry, Note)]
    assert json.loads(note.data.decode()) == response


def nested(value, depth):
    for _ in range(depth):
        value = [value]
    return value


WIDE = {
    "zeros": nested([0] * 50_000, 600),
    "empty lists": nested([[]] * 50_000, 600),
    "a list in each list": nested([nested(0, 300)] * 100, 300),
    "objects": nested([{"a": 1, "b": {}}] * 10_000, 200),
}


@pytest.mark.parametrize("kind", WIDE)
async def test_a_response_is_not_shown_at_many_times_its_size(kind):
    """Each value on a line of its own, indented by its depth: 100 KB would be 60 MB, and 1 MB as much as 900."""
    sent = len(json.dumps(WIDE[kind]))
    async with against({"/v1/agent/executions": [execution(response=WIDE[kind])]}) as (_, made):
        await made.list(ROOT, None)
        listing = await made.list(RUN_REF, None)
    (note,) = [entry for entry in listing.entries if isinstance(entry, Note)]
    assert len(note.data) < 6 * sent
    assert json.loads(note.data) == WIDE[kind]


def test_a_response_is_indented_where_that_costs_little():
    """As far as one answer may go, and no further: the same response is one line if that is less."""
    row = Execution.model_validate(execution(response=[{"a": [1, 2], "b": {}, "c": []}] * 100))
    most = len(json.dumps(row.response, indent=2)) + 1
    for max_bytes in (most, most - 1):
        note = entries.response_note(row, max_bytes)
        assert note is not None
        assert json.loads(note.data) == row.response
        assert (note.data.count(b"\n") == 1) == (max_bytes < most)


async def test_what_is_made_of_a_response_is_made_beside_the_loop(monkeypatch):
    """However large and odd it is, other sources go on."""
    seen = []

    def watched(call):
        def watch(*args):
            seen.append(current_thread())
            return call(*args)

        return watch

    monkeypatch.setattr(entries, "response_note", watched(entries.response_note))
    monkeypatch.setattr(refs, "scan", watched(refs.scan))
    async with against({"/v1/agent/executions": [execution(response={"a": "img_a1b2c3"})]}) as (_, made):
        await made.list(ROOT, None)
        assert len((await made.list(RUN_REF, None)).entries) == 2
    assert len(seen) == 2
    assert main_thread() not in seen


async def test_a_response_that_names_millions_is_cut():
    """Ten thousand references are shown, and the listing says there are more."""
    text = " ".join(f"img_{n:06x}" for n in range(12_000))
    async with against({"/v1/agent/executions": [execution(response=text)]}) as (_, made):
        await made.list(ROOT, None)
        listing = await made.list(RUN_REF, None)
    assert len(paths(listing)) == 10_000
    assert not listing.complete


# -- bytes --------------------------------------------------------------------------------------------------

IMAGE = {"/v1/artifacts/list": objects(listed("img_a1b2c3.png"))}


async def first_object(made):
    await made.list(ROOT, None)
    return await only(made)


async def test_types_are_not_insisted_on_and_ids_lose_their_extension():
    """octet-stream for an image (seen from the live service) is the image; the id is sent bare, the name keeps it."""
    answers = {**IMAGE, "/v1/artifacts": Response(samples.png(), media_type="application/octet-stream")}
    async with against(answers) as (server, made):
        image = await first_object(made)
        stream, data = await read(made, image)
        (request,) = server.to("/v1/artifacts")
    assert (image.id, image.path, image.media_type) == ("img_a1b2c3", ("img_a1b2c3.png",), "image/png")
    assert dict(request.query_params) == {"object_id": "img_a1b2c3", "execution_id": RUN}
    assert (data, stream.media_type) == (samples.png(), "application/octet-stream")
    assert "range" not in request.headers


NOT_IT = [
    (Response("<html>", media_type="text/html"), errors.ProviderMisbehaved),
    (JSONResponse({"error": "x"}), errors.ProviderMisbehaved),
    (Response(b"", media_type="image/png"), errors.ProviderMisbehaved),
    (Response(status_code=204), errors.ProviderMisbehaved),
    (Response(b"", 202), errors.Unavailable),
    (Response(b"x", 206), errors.ProviderMisbehaved),
    (Response(b"x", 206, {"Content-Range": "bytes 5-5/9"}), errors.ProviderMisbehaved),
    (Response(status_code=416), errors.ProviderMisbehaved),
    (Response(status_code=416, headers={"Content-Range": "bytes */5"}), errors.ProviderMisbehaved),
    (JSONResponse({"detail": "Artifact not found"}, 404), errors.NotFound),
    (JSONResponse({"detail": "gone"}, 410), errors.NotFound),
    (JSONResponse({"detail": "no"}, 403), errors.AccessDenied),
    (JSONResponse({"detail": "pay"}, 402), errors.QuotaExceeded),
    (JSONResponse({"detail": [{"loc": ["query"], "msg": "x"}]}, 422), errors.InvalidRequest),
    (Response("<h1>404</h1>", 404, media_type="text/html"), errors.Unsupported),
]


@pytest.mark.parametrize(("answer", "kind"), NOT_IT, ids=range(len(NOT_IT)))
async def test_what_is_not_the_object_is_an_error(answer, kind):
    """No error page, empty body or wrong part is ever handed on as content."""
    async with against({**IMAGE, "/v1/artifacts": answer}) as (_, made):
        image = await first_object(made)
        with pytest.raises(kind):
            await read(made, image)


async def test_a_workspace_file_may_be_empty_or_a_page():
    """What an agent called index.html is HTML, and an empty file is empty."""
    answers = {
        "/v1/artifacts/list": objects(listed("x", "index.html", "workspace")),
        "/v1/artifacts": Response(b"", media_type="text/html"),
    }
    async with against(answers) as (_, made):
        stream, data = await read(made, await first_object(made))
    assert (data, stream.total) == (b"", 0)


async def test_an_ignored_range_and_a_missing_length_are_told():
    """A server without ranges sends the whole: the stream says so. Without a length, the size stays unknown."""

    async def pieces():
        for _ in range(3):
            yield b"abc"

    answers = {**IMAGE, "/v1/artifacts": lambda _: StreamingResponse(pieces(), media_type="image/png")}
    async with against(answers) as (server, made):
        stream, data = await read(made, await first_object(made), 4, 2)
        assert server.to("/v1/artifacts")[0].headers["range"] == "bytes=4-5"
    assert (stream.offset, stream.ranged, stream.total, data) == (0, False, None, b"abc" * 3)


@pytest.mark.parametrize(
    "tail",
    [b"Content-Length: 1000\r\n\r\nonly this", b"Transfer-Encoding: chunked\r\n\r\n5\r\nonly "],
    ids=["length", "chunked"],
)
async def test_a_body_cut_short_is_an_error(tail):
    """The bytes that came are followed by Unavailable, so that nobody takes them for the whole."""

    async def cut(stream):
        asked = await stream.receive_some(65536)
        if b"/artifacts?" in asked:
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n" + tail)
        elif b"/artifacts/list" in asked:
            body = json.dumps(IMAGE["/v1/artifacts/list"]).encode()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        else:
            body = json.dumps(execution()).encode()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, cut, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        async with asking(f"http://127.0.0.1:{port}/v1") as made:
            image = await only(made)
            got = []

            async def collect():
                async with made.open(image.current.content.content, ByteRange(0)) as stream:
                    async for chunk in stream.chunks:
                        got.append(chunk)  # noqa: PERF401 - what came before the error counts

            with pytest.raises(errors.Unavailable):
                await collect()
        nursery.cancel_scope.cancel()
    assert b"".join(got).startswith(b"only ")


async def test_a_pause_that_is_asked_for_is_kept():
    """429 with Retry-After is waited for if there is time, else it is an error that says how long."""
    answers = iter(
        [Response(status_code=429, headers={"Retry-After": "1"}), Response(samples.png(), media_type="image/png")]
    )
    async with against({**IMAGE, "/v1/artifacts": lambda _: next(answers)}) as (server, made):
        image = await first_object(made)
        began = trio.current_time()
        assert (await read(made, image))[1] == samples.png()
        assert trio.current_time() - began >= 1.0
        assert len(server.to("/v1/artifacts")) == 2
    busy = JSONResponse({"detail": "slow down"}, 429, {"Retry-After": "3600"})
    async with against({"/v1/agent/executions": busy}) as (server, made):
        with pytest.raises(errors.RateLimited) as caught:
            await made.list(ROOT, None)
        assert caught.value.retry_after_s == 3600.0
        assert len(server.asked) == 1


# -- addresses ----------------------------------------------------------------------------------------------


def linked(body, **more):
    """Answers of a server with one url_ object."""
    found = {"/v1/artifacts/list": objects(listed("url_a1b2c3")), "/v1/artifacts": PlainTextResponse(body)}
    return {**found, **more}


REFUSED = [
    "file:///etc/passwd", "ftp://example.org/x", "gopher://x/", "javascript:alert(1)", "data:text/plain,x", "HTTP://",
    "http://127.0.0.1:1/x", "http://localhost:1/x", "http://[::1]:1/x", "http://0x7f.1:1/x", "http://2130706433:1/",
    "http://10.0.0.1/x", "http://169.254.169.254/latest/meta-data/", "http://192.168.1.1:99999/", "http://[fe80::1]/",
    "http://[::ffff:10.0.0.1]/", "http://0.0.0.0:1/", "https://10.1.2.3/", "http://user:pw@10.0.0.1/",
    "", "   ", "no address", "http://a b/", "http://[broken", "//example.org/x", "/etc/passwd",
    "http://" + "a" * 70_000,
]  # fmt: skip


@pytest.mark.parametrize("body", REFUSED, ids=range(len(REFUSED)))
async def test_addresses_an_agent_wrote_are_judged(body):
    """Other schemes, this machine, private networks and nonsense are refused before anything is sent there."""
    async with against(linked(body)) as (server, made):
        link = await first_object(made)
        with pytest.raises(errors.ProviderMisbehaved):
            await read(made, link)
        assert len(server.to("/v1/artifacts")) == 1
        assert len(server.asked) == 3


@pytest.mark.parametrize("target", ["file:///etc/passwd", "http://10.0.0.1/x", "other", "http://xn--/"])
async def test_a_redirect_of_such_an_address_is_judged_too(target):
    """What may not be the address may not be reached through a redirect; another port of loopback neither."""
    asked = []

    async def spy(request):
        asked.append(request)
        return PlainTextResponse("secret")

    async with serving(Starlette(routes=[Route("/x", spy)])) as other, against({}) as (server, made):
        goal = f"{other.url}/x" if target == "other" else target
        server.answers.update(
            linked(f"{server.url}/hop", **{"/hop": Response(status_code=302, headers={"Location": goal})})
        )
        link = await first_object(made)
        with pytest.raises(errors.ProviderMisbehaved):
            await read(made, link)
        assert len(server.to("/hop")) == 1
    assert asked == []


async def test_no_token_goes_to_an_address_an_agent_wrote():
    """Not even at home: an agent must not make us ask our own account for something."""
    async with against({}) as (server, made):
        server.answers.update(
            linked(f"{server.url}/elsewhere \n".replace(" ", ""), **{"/elsewhere": PlainTextResponse("it")})
        )
        link = await first_object(made)
        assert (link.path, link.media_type) == (("url_a1b2c3",), None)
        assert (await read(made, link))[1] == b"it"
        (there,) = server.to("/elsewhere")
        assert "authorization" not in there.headers
        assert all("authorization" in request.headers for request in server.asked if request is not there)


async def test_a_refused_address_is_asked_for_anew_once():
    """An expired link costs two more requests; one that stays refused is an error after the second try."""
    stale = {"left": 1}

    def content(request):
        if stale["left"] > 0:
            stale["left"] -= 1
            return PlainTextResponse("<Error><Code>ExpiredToken</Code></Error>", 403)
        return PlainTextResponse("it")

    async with against({}) as (server, made):
        server.answers.update(linked(f"{server.url}/elsewhere", **{"/elsewhere": content}))
        link = await first_object(made)
        before = len(server.asked)
        assert (await read(made, link))[1] == b"it"
        assert len(server.asked) - before == 4
        assert (await read(made, link))[1] == b"it"
        assert len(server.asked) - before == 5
        stale["left"] = 1
        assert (await read(made, link))[1] == b"it"
        assert len(server.asked) - before == 8
        stale["left"] = 100
        with pytest.raises(errors.AccessDenied):
            await read(made, link)
        assert len(server.asked) - before == 11


async def test_other_bytes_at_an_address_are_stale():
    """Two parts of one file are never of two revisions: the ETag tells."""
    tags = iter(['"one"', '"one"', '"two"', 'W/"three"'])
    async with against({}) as (server, made):
        where = {"/elsewhere": lambda _: PlainTextResponse("it", headers={"ETag": next(tags)})}
        server.answers.update(linked(f"{server.url}/elsewhere", **where))
        link = await first_object(made)
        await read(made, link)
        await read(made, link)
        with pytest.raises(errors.StaleContent):
            await read(made, link)
        await read(made, link)


@pytest.mark.parametrize("status", [404, 410])
async def test_nothing_at_an_address_is_not_found(status):
    """Whatever a bucket's error looks like."""
    async with against({}) as (server, made):
        server.answers.update(linked(f"{server.url}/x", **{"/x": PlainTextResponse("<Code>NoSuchKey</Code>", status)}))
        link = await first_object(made)
        with pytest.raises(errors.NotFound):
            await read(made, link)


async def test_files_are_read_from_where_the_service_says():
    """Another origin gets no token; odd rows are left out and said; a file without an address is an error."""
    asked = []

    async def bucket(request):
        asked.append(request)
        return PlainTextResponse("content")

    first, second = samples.FILE, samples.UNKNOWN
    row = {"filename": "a.txt", "bytes": 7, "purpose": "odd", "created_at": None}
    rows = [
        {**row, "id": first},
        {**row, "id": second, "filename": None, "bytes": -1},
        {**row, "id": "../x"},
        row,
        None,
    ]
    async with serving(Starlette(routes=[Route("/signed", bucket)])) as other:
        answers = {
            "/v1/files": rows,
            f"/v1/files/{first}": {**row, "id": first, "public_url": f"{other.url}/signed"},
            f"/v1/files/{second}": {**row, "id": second, "public_url": None},
        }
        async with against(answers) as (server, made):
            listing = await made.list(FILES, None)
            assert paths(listing) == [("a.txt",), (second,)]
            assert (listing.complete, listing.note) == (
                False, "3 files cannot be shown: the service gave no usable id",
            )  # fmt: skip
            assert (await read(made, listing.entries[0]))[1] == b"content"
            assert server.asked[-1].query_params["generate_public_url"] == "true"
            with pytest.raises(errors.ProviderMisbehaved):
                await read(made, listing.entries[1])
    assert len(asked) == 1
    assert "authorization" not in asked[0].headers
