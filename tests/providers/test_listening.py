"""Streams of events: taken apart however they come, beside the connections that others wait for, and ended at once."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from artifactfs import errors
from artifactfs.model.entry import DirRef
from artifactfs.providers import one_request, sse
from artifactfs.providers.http import HttpClient
from artifactfs.providers.sse import Events
from artifactfs.providers.syntropic.api import Api
from artifactfs.providers.syntropic.events import Told, listening
from tests.support.serving import serving
from tests.support.syntropic137_store import add_file, add_run, dialect, make_store

# -- taking apart ------------------------------------------------------------------------------------------------------


def test_only_data_counts() -> None:
    """Comments, names and ids are passed over; an event ends at an empty line, whatever ends its lines."""
    stream = b": hello\n\nevent: x\nid: 1\ndata: one\n\ndata:two\ndata: more\r\n\r\ndata: three\r\rdata: no end"
    assert Events().feed(stream) == [b"one", b"two\nmore", b"three"]


@given(st.lists(st.binary(max_size=20).filter(lambda b: not set(b) & set(b"\r\n")), max_size=5), st.data())
def test_events_do_not_depend_on_how_they_are_cut(values: list[bytes], data: st.DataObject) -> None:
    """Every byte alone, or all at once: the same."""
    end = data.draw(st.sampled_from([b"\n", b"\r\n"]))
    stream = b"".join(b"data: " + value + end + end for value in values)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    events, found = Events(), []
    for begin, until in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += events.feed(stream[begin:until])
    assert found == values


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_whatever_comes_is_taken_apart_or_refused(pieces: list[bytes]) -> None:
    events = Events()
    for piece in pieces:
        events.feed(piece)


def test_an_event_has_a_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one whose lines are short, and one whose line never ends."""
    monkeypatch.setattr(sse, "MAX_EVENT", 1000)
    for piece in (b"x" * 100, b"data: " + b"y" * 90 + b"\n"):
        events = Events()
        with pytest.raises(errors.ProviderMisbehaved):
            for _ in range(20):
                events.feed(piece)
    events = Events()
    for _ in range(50):
        assert events.feed(b": " + b"z" * 90 + b"\n\n") == []  # comments are not kept


# -- the connection ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def streaming() -> AsyncIterator[tuple[str, set[int]]]:
    """Serve endless streams at /stream, and JSON elsewhere; gives the address, and which streams are open."""
    open_now: set[int] = set()

    async def endless(number: int) -> AsyncGenerator[str]:
        open_now.add(number)
        try:
            yield "data: {}\n\n"
            await trio.sleep_forever()
        finally:
            open_now.discard(number)

    async def stream(request: Request) -> Response:
        return StreamingResponse(endless(id(request)), media_type="text/event-stream")

    async def plain(_request: Request) -> Response:
        return JSONResponse({"ok": True})

    async with serving(Starlette(routes=[Route("/stream", stream), Route("/plain", plain)])) as running:
        yield running.url, open_now


async def _hold(http: HttpClient, begun: list[trio.Event]) -> None:
    async with http.listen("/stream", silent_s=60) as reply:
        async for _ in reply.chunks:
            begun.pop().set()


async def test_streams_take_no_connection_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more streams open than there are connections, requests go on as if there were none; then all are closed."""
    monkeypatch.setattr(one_request, "MAX_CONNECTIONS", 2)
    with trio.fail_after(60):
        async with streaming() as (url, open_now):
            http = HttpClient("mine", url)
            async with trio.open_nursery() as nursery:
                waiting = [trio.Event() for _ in range(5)]
                begun = list(waiting)
                for _ in range(5):
                    nursery.start_soon(_hold, http, begun)
                for event in waiting:
                    await event.wait()
                for _ in range(3):
                    assert (await http.get("/plain")).json() == {"ok": True}
                began = trio.current_time()
                nursery.cancel_scope.cancel()
            assert trio.current_time() - began < 5
            while open_now:  # noqa: ASYNC110 - the server finds out by itself
                await trio.sleep(0.05)
            assert (await http.get("/plain")).status == 200
            await http.aclose()


async def test_a_stream_that_falls_silent_is_lost() -> None:
    """The network may be gone without a word: then nothing comes, not even what keeps a stream alive."""
    with trio.fail_after(60):
        async with streaming() as (url, _open_now):
            http = HttpClient("mine", url)
            with pytest.raises(errors.TimedOut):
                async with http.listen("/stream", silent_s=0.3) as reply:
                    async for _ in reply.chunks:
                        pass
            assert http.observer.counters("mine").failures == 0
            await http.aclose()


# -- Syntropic137 ------------------------------------------------------------------------------------------------------


async def told_until(told: AsyncIterator[Told], wanted: DirRef) -> list[Told]:
    found: list[Told] = []
    async for refs in told:
        found.append(refs)
        if refs is not None and wanted in refs:
            return found
    raise AssertionError(found)


async def test_what_a_run_does_names_its_workflow(tmp_path: Path) -> None:
    """First that anything may have changed; then its beginning, which may be that of a workflow, and its outputs."""
    store = make_store(tmp_path / "store")
    with trio.fail_after(60):
        async with dialect(store) as (url, _counting):
            http = HttpClient("mine", url)
            workflow = DirRef("mine", "workflow", ("wf-1",))
            async with listening(Api(http)) as told:
                assert await anext(told) is None
                run = add_run(store, "wf-1", 1, status="running")
                begun = await told_until(told, workflow)
                assert begun[-1] == frozenset({workflow, DirRef("mine", "root")})
                await trio.sleep(2)  # what was made before the run is listened to is not told
                add_file(store, "wf-1", "a.md", b"a", run=run, phase="plan")
                assert await told_until(told, workflow)
            await http.aclose()
    store.close()


@pytest.mark.parametrize(
    ("frames", "refs"),
    [
        ([{"type": "event", "event_type": "WorkflowCompleted", "data": {"workflow_id": "wf-9"}}], ["wf-9"]),
        ([{"type": "event", "event_type": "GitPush", "data": {"workflow_id": "wf-9"}}], []),
        ([{"type": "event", "event_type": "WorkflowFailed", "data": None}], []),
        ([{"type": "event", "event_type": ["x"], "data": []}, [], "x", 3, None], []),
        ([{"event_type": "WorkflowExecutionStarted", "data": {"workflow_id": "w", "execution_id": "\ud800"}}], ["w"]),
        ([{"event_type": "WorkflowExecutionStarted", "data": {"workflow_id": "w", "execution_id": "../x"}}], ["w"]),
    ],
)
async def test_events_are_a_strangers_words(frames: list[Any], refs: list[str]) -> None:
    """Whatever is told, what comes out names workflows or nothing; what cannot be read is passed over."""

    async def stream() -> AsyncGenerator[str]:
        yield "data: no json\n\n"
        for one in frames:
            yield f"data: {json.dumps(one)}\n\n"

    async def serve(request: Request) -> Response:
        if request.url.path.endswith("/sse/activity"):
            return StreamingResponse(stream(), media_type="text/event-stream")
        return JSONResponse({"status": "healthy"} if request.url.path.endswith("/health") else {"detail": "Not Found"})

    with trio.fail_after(60):
        async with serving(Starlette(routes=[Route("/{path:path}", serve)])) as running:
            http = HttpClient("mine", running.url)
            found: list[Told] = []
            async with listening(Api(http)) as told:
                found.extend([one async for one in told])
            named = [ref.args[0] for one in found for ref in one or () if ref.kind == "workflow"]
            assert named == refs
            await http.aclose()


async def test_streams_are_counted_by_what_they_are_and_not_by_run(tmp_path: Path) -> None:
    """Else each run would leave a number behind, in memory and in the metrics."""
    store = make_store(tmp_path / "store")
    runs = [add_run(store, "wf-1", number, status="running") for number in range(1, 4)]
    with trio.fail_after(60):
        async with dialect(store) as (url, _counting):
            http = HttpClient("mine", url)
            counted = http.observer.counters("mine").by_route
            async with listening(Api(http)) as told:
                assert await anext(told) is None
                while sum(counted[route] for route in counted if "/sse/" in route) < 4:  # noqa: ASYNC110 - by themselves
                    await trio.sleep(0.01)
            await http.aclose()
    store.close()
    streams = {route: count for route, count in counted.items() if "/sse/" in route}
    assert streams == {"GET /sse/activity": 1, "GET /sse/executions/{id}": len(runs)}


async def test_a_server_without_streams_says_so() -> None:
    """The gateway's page with 200, and 404: an error of ours by itself, not one in a group."""
    for answer in (Response("<html>", media_type="text/html"), JSONResponse({"detail": "Not Found"}, 404)):

        async def serve(request: Request, answer: Response = answer) -> Response:
            return JSONResponse({"status": "healthy"}) if request.url.path.endswith("/health") else answer

        with trio.fail_after(60):
            async with serving(Starlette(routes=[Route("/{path:path}", serve)])) as running:
                http = HttpClient("mine", running.url)
                with pytest.raises((errors.Unsupported, errors.NotFound)):
                    async with listening(Api(http)) as told, aclosing(told):  # type: ignore[type-var]  # a generator
                        await anext(told)
                await http.aclose()
