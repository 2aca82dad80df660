"""Addresses that only look public: every spelling of a private one is refused, by number, by name, at every moment."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from artifactfs import errors
from artifactfs.providers import targets
from artifactfs.providers.http import HttpClient
from artifactfs.providers.targets import Gate, class_of
from tests.support.serving import serving

CLASSES = {
    "127.0.0.1": "loopback", "127.255.255.254": "loopback", "::1": "loopback", "::ffff:127.0.0.1": "loopback",
    "10.0.0.1": "private", "172.31.255.255": "private", "192.168.0.1": "private", "100.64.0.1": "private",
    "0.0.0.0": "private", "::": "private", "224.0.0.1": "private", "255.255.255.255": "private", "fd00::1": "private",
    "fec0::1": "private", "ff02::1": "private", "198.18.0.1": "private", "64:ff9b:1::808:808": "private",
    "169.254.1.1": "link-local", "169.254.169.254": "link-local", "fe80::1": "link-local", "fe80::1%eth0": "link-local",
    "fd00:ec2::254": "metadata", "100.100.100.200": "metadata", "192.0.0.192": "metadata", "168.63.129.16": "metadata",
    "1.1.1.1": "public", "2606:4700::1111": "public", "64:ff9b::808:808": "public", "2002:808:808::1": "public",
}  # fmt: skip


@pytest.mark.parametrize("address", CLASSES)
def test_an_address_is_of_one_class(address: str) -> None:
    """What is public for sure, and the kinds of what is not."""
    assert class_of(address) == CLASSES[address]


FORMS = ("::ffff:{0}", "64:ff9b::{0}", "::{0}", "::ffff:0:{0}")


@given(st.integers(2, 2**32 - 1).map(ipaddress.IPv4Address))
@example(ipaddress.IPv4Address("127.0.0.1"))
@example(ipaddress.IPv4Address("169.254.169.254"))
def test_what_carries_an_address_is_of_its_class(inner: ipaddress.IPv4Address) -> None:
    """In IPv6 the same machine has many spellings."""
    wanted = class_of(str(inner))
    for form in FORMS:
        assert class_of(form.format(inner)) == wanted, form
    six_to_four = ipaddress.IPv6Address((0x2002 << 112) | (int(inner) << 80) | 1)
    teredo = ipaddress.IPv6Address((0x20010000 << 96) | (0x01010101 << 64) | (int(inner) ^ 0xFFFFFFFF))
    assert class_of(str(six_to_four)) == wanted
    assert class_of(str(teredo)) == wanted


@given(st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address))
def test_every_address_has_a_class(address: ipaddress.IPv6Address) -> None:
    assert class_of(str(address)) in {"public", "private", "loopback", "link-local", "metadata"}


LOOPBACK = ("2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0x7f.1", "127.0.0.1.", "LOCALHOST", "localhost.")


@pytest.mark.parametrize("host", [*LOOPBACK, "[::ffff:7f00:1]", "[64:ff9b::a9fe:a9fe]", "[2002:a00:1::]", "user@10.1"])
@pytest.mark.parametrize("authored", [True, False])
async def test_no_spelling_of_a_private_address_passes(host: str, authored: bool) -> None:
    """Decimal, octal, hex, short, with a dot behind it, within IPv6: the resolver reads them all."""
    gate = Gate("https://1.1.1.1", allow_private=False)
    with pytest.raises((errors.ProviderMisbehaved, errors.Unreachable)):
        await gate.check(f"https://{host}/x", came_from="https://1.1.1.1/", authored=authored)


@pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]", "100.100.100.200", "168.63.129.16"])
@pytest.mark.parametrize("home", ["http://10.0.0.5", "http://127.0.0.1:8137", "http://[fd00::5]"])
async def test_a_service_in_a_private_network_does_not_lead_to_its_machines_secrets(home: str, host: str) -> None:
    """It may lead to its neighbours, but not to what tells a machine of a cloud its credentials."""
    gate = Gate(home, allow_private=False)
    with pytest.raises(errors.ProviderMisbehaved):
        await gate.check(f"http://{host}/latest/meta-data/", came_from=home)
    same = {"http://10.0.0.5": "http://10.9.9.9/", "http://127.0.0.1:8137": "http://127.0.0.1:1/"}.get(home)
    if same:
        await gate.check(same, came_from=home)


class Names(trio.abc.HostnameResolver):
    """Answers for names in turn: the last answer stays."""

    def __init__(self, names: Mapping[str, list[Sequence[str]]]) -> None:
        self.names = names
        self.asked: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, *_more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        self.asked.append(name)
        turns = self.names[name]
        addresses = turns.pop(0) if len(turns) > 1 else turns[0]
        return [(2, 1, 6, "", (address, port or 0)) for address in addresses]

    async def getnameinfo(self, *_: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["169.254.169.254"]])
async def test_a_name_is_judged_by_all_that_it_means(addresses: Sequence[str]) -> None:
    """One private address among public ones is enough."""
    trio.socket.set_custom_hostname_resolver(Names({"rebind.example": [addresses]}))
    gate = Gate("https://1.1.1.1", allow_private=False)
    with pytest.raises(errors.ProviderMisbehaved, match="private network"):
        await gate.check("https://rebind.example/x", came_from="https://1.1.1.1/")


async def test_a_name_that_means_another_address_a_moment_later_gets_no_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was public when it was looked at, and is this machine when it is connected to: nothing is sent there."""
    asked: list[str] = []

    async def answer(request: Request) -> Response:
        asked.append(request.url.path)
        return JSONResponse({})

    async with serving(Starlette(routes=[Route("/{path:path}", answer)])) as at:
        port = at.url.rpartition(":")[2]
        trio.socket.set_custom_hostname_resolver(Names({"rebind.example": [["8.8.8.8"], ["127.0.0.1"]]}))
        client = HttpClient("work", "http://1.1.1.1", deadline_s=5)
        try:
            with pytest.raises(errors.ProviderMisbehaved, match="private network"):
                async with client.stream(f"http://rebind.example:{port}/x", authored=True):
                    pass
        finally:
            await client.aclose()
    assert asked == []


def test_an_address_that_is_none_is_not_repeated() -> None:
    """It may hold a signature, or a password."""
    with pytest.raises(errors.ProviderMisbehaved) as caught:
        targets.origin("http://user:secret@[::bad/x?X-Amz-Signature=secret")
    assert "secret" not in str(caught.value) + caught.value.subject
