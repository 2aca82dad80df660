"""Credentials that change while they are used, and that nothing which holds them shows them."""

from __future__ import annotations

import base64
import json
import logging
import pickle
import threading
import traceback
from collections.abc import AsyncIterator, Iterator, Mapping

import pytest
import trio
import trio.testing
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from artifactfs import config, errors
from artifactfs.config import logins, tokens
from artifactfs.observe import Observer
from artifactfs.providers import credentials, one_request, registry, wire
from artifactfs.providers.bodies import Bytes
from artifactfs.providers.credentials import LOOK_S, Credentials
from artifactfs.providers.http import REFUSAL_BYTES, HttpClient
from tests.support.serving import serving
from tests.support.vlmrun_samples import Memory

OLD, NEW = {"Authorization": "Bearer 01d"}, {"Authorization": "Bearer 2ew"}
SECRET = "canary-7f3a91c2d4"


class Service:
    """Accepts one token, and keeps which it was sent."""

    def __init__(self, accepted: Mapping[str, str] = NEW) -> None:
        self.accepted, self.sent = accepted, list[str]()
        self.bodies: list[bytes] = []
        self.app = Starlette(routes=[Route("/{path:path}", self.answer, methods=["GET", "POST"])])

    async def answer(self, request: Request) -> Response:
        self.sent.append(request.headers.get("authorization", ""))
        self.bodies.append(await request.body())
        return PlainTextResponse("", 200 if self.sent[-1] == self.accepted["Authorization"] else 401)


class Place:
    """Where tokens come from; counts who looks."""

    def __init__(self, *found: Mapping[str, str] | None) -> None:
        self.found, self.looks = list(found), 0

    def look(self) -> tuple[Mapping[str, str], str]:
        self.looks += 1
        found = self.found.pop(0) if len(self.found) > 1 else self.found[0]
        if found is None:
            raise errors.ConfigError("there is no token")
        return found, "a place"


async def test_a_refused_request_is_sent_again_with_a_newer_token() -> None:
    """Also one with a body: what was refused was not carried out. After that the new one is what is sent."""
    service, place = Service(), Place(NEW)
    async with serving(service.app) as running:
        client = HttpClient("work", running.url, headers=Credentials(OLD, "", place.look))
        assert (await client.get("/a")).status == 200
        assert (await client.send("POST", "/b", body=Bytes(b"text"))).status == 200
        await client.aclose()
        assert service.sent == ["Bearer 01d", "Bearer 2ew", "Bearer 2ew"]
        service.accepted = {"Authorization": "Bearer 3rd"}
        place.found = [service.accepted]
        client = HttpClient("work", running.url, headers=Credentials(OLD, "", place.look))
        assert (await client.send("POST", "/c", body=Bytes(b"text"))).status == 200
        assert service.bodies[-2:] == [b"text", b"text"]
        async with client.stream("/d") as reply:
            assert reply.status == 200
        await client.aclose()


@pytest.mark.parametrize("found", [OLD, None])
async def test_without_a_newer_token_a_refusal_is_one(found: Mapping[str, str] | None) -> None:
    """It is looked for once in a while, however often the service refuses."""
    service, place = Service(), Place(found)
    async with serving(service.app) as running:
        client = HttpClient("work", running.url, headers=Credentials(OLD, "", place.look))
        assert [(await client.get("/a")).status for _ in range(5)] == [401] * 5
        await client.aclose()
    assert len(service.sent) == 5
    assert place.looks == 1


async def test_many_that_are_refused_at_once_look_once() -> None:
    """Who was refused with the old one while another found the new one is sent again without a look."""
    service, place = Service(), Place(NEW)
    async with serving(service.app) as running:
        client = HttpClient("work", running.url, headers=Credentials(OLD, "", place.look))
        statuses: list[int] = []

        async def get() -> None:
            statuses.append((await client.get("/a")).status)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(get)
        await client.aclose()
    assert statuses == [200] * 8
    assert place.looks == 1


class Prompt:
    """A keyring that asks its user first."""

    def __init__(self) -> None:
        self.looks, self.answered = 0, threading.Event()

    def look(self) -> tuple[Mapping[str, str], str]:
        self.looks += 1
        assert self.answered.wait(60)
        return NEW, "a keyring"


async def refused(client: HttpClient, path: str, statuses: list[int]) -> None:
    statuses.append((await client.get(path)).status)


@pytest.fixture
def prompt() -> Iterator[Prompt]:
    """Return a keyring that asks, and is answered at the end if it was not before."""
    made = Prompt()
    yield made
    made.answered.set()


async def test_who_looks_for_a_token_holds_no_connection(prompt: Prompt, monkeypatch: pytest.MonkeyPatch) -> None:
    """More requests are refused than there are connections, and the keyring prompts: others still get one."""
    monkeypatch.setattr(one_request, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(credentials, "LOOKING_S", 60.0)

    async def answer(request: Request) -> Response:
        is_open = request.url.path == "/open" or request.headers.get("authorization") == NEW["Authorization"]
        return PlainTextResponse("no", 200 if is_open else 401)

    statuses: list[int] = []
    with trio.fail_after(50):
        async with serving(Starlette(routes=[Route("/{path:path}", answer)])) as running:
            client = HttpClient("work", running.url, headers=Credentials(OLD, "", prompt.look), deadline_s=50)
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(refused, client, f"/{number}", statuses)
                await trio.testing.wait_all_tasks_blocked(0.2)
                assert (await client.get("/open")).status == 200
                assert statuses == []
                prompt.answered.set()
            await client.aclose()
    assert statuses == [200] * 4
    assert prompt.looks == 1


async def test_a_look_that_does_not_end_is_waited_for_once(prompt: Prompt, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal is passed on with its words; who comes later does not wait again, nor begin another look."""
    monkeypatch.setattr(credentials, "LOOKING_S", 0.2)
    monkeypatch.setattr(credentials, "LOOK_S", 0.0)
    service = Service()
    with trio.fail_after(50):
        async with serving(service.app) as running:
            held = Credentials(OLD, "", prompt.look)
            client = HttpClient("work", running.url, headers=held)
            assert [(await client.get("/a")).status for _ in range(5)] == [401] * 5
            assert prompt.looks == 1
            changed = trio.Event()
            held.renewed = changed.set
            prompt.answered.set()
            await changed.wait()  # what is found after all is taken
            assert (await client.get("/a")).status == 200
            await client.aclose()
    assert len(service.sent) == 6


async def test_who_waited_for_a_look_and_left_leaves_it_to_others(prompt: Prompt) -> None:
    """A request that is cancelled takes nothing along."""
    held = Credentials(OLD, "", prompt.look)
    with trio.fail_after(50):
        refused_ones = held.headers
        with trio.move_on_after(0.1):
            await held.others_than(refused_ones)
        prompt.answered.set()
        assert await held.others_than(refused_ones)
    assert prompt.looks == 1


async def test_what_somebody_asks_for_is_looked_for_anew(prompt: Prompt) -> None:
    """What began before a login may not see it; what it finds in the end is not taken any more."""
    places = iter([prompt.look, lambda: ({"Authorization": "Bearer 3rd"}, "a login")])

    def look() -> tuple[Mapping[str, str], str]:
        return next(places)()

    held = Credentials(OLD, "", look)
    with trio.fail_after(50):
        with trio.move_on_after(0.1):
            await held.others_than(held.headers)
        assert await held.look()
        prompt.answered.set()
        await trio.testing.wait_all_tasks_blocked(0.2)
    assert (held.headers["Authorization"], held.where) == ("Bearer 3rd", "a login")


async def test_a_refusal_keeps_its_words() -> None:
    """It was read to its end before a token was looked for."""

    async def answer(_request: Request) -> Response:
        return PlainTextResponse("x" * 100_000 + "the end", 401, headers={"x-request-id": "r1"})

    async with serving(Starlette(routes=[Route("/{path:path}", answer)])) as running:
        client = HttpClient("work", running.url, headers=Credentials(OLD, "", Place(None).look))
        reply = await client.get("/a")
        async with client.stream("/a") as streamed:
            body = b"".join([chunk async for chunk in streamed.chunks])
        await client.aclose()
    assert reply.status == streamed.status == 401
    assert reply.headers["x-request-id"] == "r1"
    assert reply.body.startswith(b"x" * REFUSAL_BYTES)
    assert body.startswith(b"x" * REFUSAL_BYTES)


async def test_a_request_that_carried_no_token_looks_for_none() -> None:
    """A link that an agent wrote may answer 401 as it likes."""
    service, place = Service(), Place(NEW)
    async with serving(service.app) as running:
        client = HttpClient("work", running.url, headers=Credentials(OLD, "", place.look))
        async with client.stream(f"{running.url}/a", authored=True) as reply:
            assert reply.status == 401
        await client.aclose()
    assert (service.sent, place.looks) == ([""], 0)


async def test_who_waits_for_a_change_is_told(autojump_clock: trio.testing.MockClock) -> None:
    """Once for each; without a token there is none any more only for who asks for that."""
    place, told = Place(OLD, NEW, NEW, None, None), list[str]()
    held = Credentials({**OLD, "X-Client-Id": "us"}, "", place.look)
    place.found[0] = held.headers
    held.renewed = lambda: told.append(str(held.headers.get("Authorization")))
    assert [await held.look() for _ in range(4)] == [False, True, False, False]
    assert await held.look(forget=True)
    assert told == ["Bearer 2ew", "None"]
    assert await held.others_than(OLD)
    await trio.sleep(LOOK_S)
    assert not await held.others_than(held.headers)


# -- what shows them -------------------------------------------------------------------------------------------------


def holders() -> list[object]:
    """Return one of everything that holds a token on its way from where it is kept to the wire."""
    settings = config.Config.model_validate({"sources": {"work": {"type": "vm0"}, "syn": {"type": "syntropic137"}}})
    environ = {"VM0_TOKEN": SECRET, "SYN_API_PASSWORD": SECRET}
    source, basic = (config.resolve(settings, name, environ) for name in ("work", "syn"))
    login = config.Login(SecretStr(SECRET), None, "login")
    held = registry.credentials_of(source)
    client = HttpClient("work", "http://127.0.0.1:1", headers=held)
    ask = client._ask("/a", None, None, None)
    request = wire.Outgoing("http://h/a", client._wire._headers(ask, ask.target), None, 1, 1, 1)
    assert request.headers["Authorization"] == f"Bearer {SECRET}"
    given = settings.sources["work"]
    found = tokens.authorization(logins.Account("work", "vm0", "https://h"), given, environ)
    provider = registry.create(source, Memory(), Observer(), 1.0)
    return [settings, source, basic, login, held, client, ask, request, found, provider, client._wire]


async def test_what_holds_a_token_does_not_show_it() -> None:
    """Nor the base64 of a password; however it is asked."""
    for one in holders():
        for said in (repr(one), str(one), f"{one!r:>3}", repr([one]), repr(getattr(one, "model_dump", dict)())):
            assert SECRET not in said, type(one)
            assert "Basic" not in said, type(one)


async def test_a_traceback_does_not_show_it(caplog: pytest.LogCaptureFixture) -> None:
    """With everything that held it in the words of the exception, nor the log that has both."""
    found = holders()

    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError(*found)
    said = "".join(traceback.format_exception(caught.value))
    with caplog.at_level(logging.INFO):
        logging.getLogger("tests").info("it failed: %s", found, exc_info=caught.value)
    assert "RuntimeError" in said
    assert "it failed" in caplog.text
    assert SECRET not in said + caplog.text


def test_a_source_cannot_be_written_down() -> None:
    """What would put it on a disk or on a wire fails, or leaves the token out."""
    source = config.Source(name="w", service="vm0", authorization=SecretStr(SECRET), again=lambda: None)  # type: ignore[arg-type,return-value]  # never asked
    assert SECRET not in source.model_dump_json()
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(source)


# -- services that repeat it -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [SECRET, 'a/b+c="7f3a91"'])
async def test_a_refusal_that_repeats_a_token_is_passed_on_without(secret: str) -> None:
    """Its words go to screens and logs. In the body, whole or in pieces, as JSON writes it, and in headers."""

    async def echo(request: Request) -> Response:
        sent = request.headers["authorization"]
        pieces = [json.dumps({"error": f"no: {sent}"}).encode(), sent.encode()]
        pieces = [bytes([byte]) for byte in b" ".join(pieces)] if "streamed" in request.url.path else pieces

        async def body() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        return StreamingResponse(body(), 403, headers={"x-request-id": sent})

    async with serving(Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])])) as running:
        client = HttpClient("work", running.url, headers={"Authorization": f"Bearer {secret}"})
        replies = [await client.get("/a"), await client.send("POST", "/b", body=Bytes(b"x"))]
        said = [reply.body + str(reply.headers).encode() for reply in replies]
        async with client.stream("/streamed") as reply:
            said.append(b"".join([chunk async for chunk in reply.chunks]) + str(reply.headers).encode())
        await client.aclose()
    for one in said:
        assert one.count(b"***") == 3
        assert secret.encode() not in one
        assert json.dumps(secret)[1:-1].encode() not in one


async def test_what_is_too_short_to_be_a_token_is_left_in_words() -> None:
    """A test's token of one letter must not make a message unreadable."""
    assert Credentials({"Authorization": "Bearer t"}).hidden(b"the token") == b"the token"
    held = Credentials({"Authorization": "Basic " + base64.b64encode(b"admin:pass/word1").decode()})
    assert held.hidden(b"not pass/word1, nor pass\\/word1") == b"not ***, nor ***"
