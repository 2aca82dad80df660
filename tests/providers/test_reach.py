"""The circuit breaker and the pause a service asks for, by the virtual clock; and where both show in a client."""

from __future__ import annotations

import json
import socket
import time

import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from trio.testing import MockClock

from artifactfs import errors
from artifactfs.observe import Observer
from artifactfs.providers import targets
from artifactfs.providers.http import HttpClient
from artifactfs.providers.limits import Budget
from artifactfs.providers.messages import Reply
from artifactfs.providers.reach import MAX_QUIET_S, ORIGINS, REST_S, TRIAL_S, Reach
from tests.support.serving import serving

HOST = ("https", "one.example", 443)
OTHER = ("https", "two.example", 443)


async def test_silence_rests_a_host_at_once_and_refusals_after_two(autojump_clock: MockClock) -> None:
    """Others are not touched; an answer forgets everything."""
    reach = Reach()
    reach.failed(HOST, silent=True)
    assert not reach.admits(HOST)
    assert reach.is_resting(HOST)
    assert reach.admits(OTHER)
    reach.failed(OTHER, silent=False)
    assert reach.admits(OTHER)
    reach.failed(OTHER, silent=False)
    assert not reach.admits(OTHER)
    assert "2 of 2" in repr(reach)
    reach.answered(HOST)
    assert reach.admits(HOST)
    assert not reach.is_resting(HOST)


async def test_after_a_rest_one_tries_for_all(autojump_clock: MockClock) -> None:
    """The others fail at once until it is known; a trial that never ends is not waited for."""
    reach = Reach()
    reach.failed(HOST, silent=True)
    await trio.sleep(REST_S)
    assert reach.admits(HOST)
    assert not reach.admits(HOST)
    reach.failed(HOST, silent=False)
    assert not reach.admits(HOST)
    await trio.sleep(REST_S)
    assert reach.admits(HOST)
    await trio.sleep(TRIAL_S)
    assert reach.admits(HOST)
    reach.answered(HOST)
    assert reach.admits(HOST)
    assert reach.admits(HOST)


async def test_memory_is_bounded(autojump_clock: MockClock) -> None:
    """Addresses that an agent wrote may be as many as it likes."""
    reach = Reach()
    for number in range(10 * ORIGINS):
        reach.failed(("https", f"h{number}", 443), silent=True)
    assert f"of {ORIGINS} " in repr(reach)


async def test_a_pause_is_kept_and_bounded(autojump_clock: MockClock) -> None:
    """The longest one asked for counts, a year does not."""
    reach = Reach()
    assert reach.quiet_s() == 0
    reach.hush(10)
    reach.hush(5)
    assert reach.quiet_s() == pytest.approx(10)
    await trio.sleep(11)
    assert reach.quiet_s() == 0
    reach.hush(1e9)
    assert reach.quiet_s() == MAX_QUIET_S


async def test_a_dead_service_costs_one_client_little() -> None:
    """After the first call no connection is tried and nothing is taken from the budget, for a while."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        observer, budget = Observer(), Budget(0.01, 10)
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        client = HttpClient("work", url, observer=observer, budget=budget)
        begin = time.monotonic()
        for _ in range(20):
            with pytest.raises(errors.Unreachable):
                await client.get("/x")
        assert time.monotonic() - begin < 10
        assert observer.counters("work").requests <= 10
        assert budget.left() >= 1
        await client.aclose()


async def test_a_pause_asked_for_holds_for_other_calls_too() -> None:
    """Nothing is sent before it is over: who cannot wait so long is told at once, who can waits."""
    asked: list[float] = []

    async def answer(_request: Request) -> Response:
        asked.append(time.monotonic())
        return Response("", 429, headers={"Retry-After": "2"}) if len(asked) == 1 else JSONResponse({})

    async with serving(Starlette(routes=[Route("/{path:path}", answer)])) as at:
        client = HttpClient("work", at.url, deadline_s=1)
        with pytest.raises(errors.RateLimited):
            await client.get("/x")
        with pytest.raises(errors.RateLimited) as caught:
            await client.get("/y")
        assert caught.value.retry_after_s is not None
        assert len(asked) == 1
        client.deadline_s = 10
        await client.get("/z")
        assert asked[1] - asked[0] >= 1.9
        await client.aclose()


async def test_all_tries_together_stay_within_the_deadline() -> None:
    """A server that takes its time with every refusal cannot hold a caller longer than it said it would wait."""

    async def slow(_request: Request) -> Response:
        await trio.sleep(0.9)
        return Response("", 500)

    async with serving(Starlette(routes=[Route("/{path:path}", slow)])) as at:
        client = HttpClient("work", at.url, deadline_s=2)
        begin = time.monotonic()
        with pytest.raises((errors.Unavailable, errors.TimedOut)):
            await client.get("/x")
        assert time.monotonic() - begin < 3.5
        await client.aclose()


async def test_a_body_cut_short_once_is_read_again() -> None:
    """Of an answer that is read whole, breaking off is as much a failure that may pass as a 503."""
    asked = 0

    async def handle(stream: trio.SocketStream) -> None:
        nonlocal asked
        asked += 1
        async with stream:
            await stream.receive_some()
            whole = b"[1]" if asked > 1 else b"["
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n" + whole)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, handle, listeners)
        client = HttpClient("work", f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}")
        assert (await client.get("/x")).json() == [1]
        assert asked == 2
        await client.aclose()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("token", ["Bearer a\nb", "Bearer ", "Bearer é", "Bearer \x00"])
def test_a_token_that_cannot_be_sent_is_refused_unseen(token: str) -> None:
    """What libraries say of a header they refuse quotes it; so none is given to them."""
    with pytest.raises(errors.ConfigError) as caught:
        HttpClient("work", "http://127.0.0.1:1", headers={"Authorization": token})
    assert token.removeprefix("Bearer ").strip() not in str(caught.value) or not token.removeprefix("Bearer ").strip()


async def test_a_name_that_means_another_address_by_then_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked at, and the connection again: between the two its owner can change what it means."""
    asked: list[str] = []

    async def answer(request: Request) -> Response:
        asked.append(request.headers.get("host", ""))
        return JSONResponse({})

    monkeypatch.setattr(targets.Gate, "_classes", staticmethod(_says_public))
    async with serving(Starlette(routes=[Route("/{path:path}", answer)])) as at:
        goal = f"http://localhost:{at.port}/secret"

        async def leads_astray(_request: Request) -> Response:
            return RedirectResponse(goal)

        async with serving(Starlette(routes=[Route("/{path:path}", leads_astray)])) as home:
            client = HttpClient("work", home.url)
            with pytest.raises(errors.ProviderMisbehaved, match="private network"):
                await client.get("/x")
            with pytest.raises(errors.ProviderMisbehaved, match="private network"):
                async with client.stream(goal, authored=True):
                    pass
            assert asked == []
            await client.aclose()


async def _says_public(_host: str) -> frozenset[str]:
    await trio.lowlevel.checkpoint()
    return frozenset({"public"})


@pytest.mark.parametrize("piece", [b"[],", b"{},", b'"",', b'{"a":"\\\\"},', b"1,", b'"\\"[",', b'"\\"\\"'])
def test_json_of_millions_of_values_is_refused_unparsed(piece: bytes) -> None:
    """Nothing else runs while it is parsed: 26 s for 60 MB of these."""
    begin = time.monotonic()
    reply = Reply(200, {}, b"[" + piece * (30_000_000 // len(piece)) + b"0]", "http://x/")
    with pytest.raises(errors.ProviderMisbehaved):
        reply.json()
    assert time.monotonic() - begin < 5


def test_long_text_in_json_is_no_number_of_values() -> None:
    """A CSV of 10 MB has as many commas, and is one value."""
    value = {"content": 'a,"[b]",{c}\\\n' * 1_000_000, "more": [1, 2]}
    assert Reply(200, {}, json.dumps(value).encode(), "http://x/").json() == value


@pytest.mark.parametrize("path", ["/v1/..", "/v1/../x", "/v1/./x", "/v1/%2e%2E/x", "/.", "/a/.%2e"])
async def test_an_id_of_dots_is_not_sent(path: str) -> None:
    """Clients take such segments away, and what stands before them: that would be another question."""
    client = HttpClient("work", "http://127.0.0.1:1/base")
    with pytest.raises(errors.ProviderMisbehaved, match="an id"):
        await client.get(path)
    with pytest.raises(errors.ProviderMisbehaved, match="an id"):
        async with client.stream(path):
            pass
    await client.aclose()
