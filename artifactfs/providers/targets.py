"""Where a request may go: the configured origin, and what it may lead to.

Rules of this file: an address that an answer names (redirect, ``url_`` body) is untrusted. http and https only; never
from https to http; never to this machine or a private network unless the service itself is there or the
configuration allows it; the token only ever goes to the configured origin.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import urllib.request
from urllib.parse import urlsplit

import trio

from artifactfs import errors

DEFAULT_PORTS = {"http": 80, "https": 443}
PUBLIC = frozenset({"public"})
# Where clouds tell a machine its secrets, beside the link-local 169.254.169.254: AWS (IPv6), Alibaba, Oracle, Azure.
METADATA = frozenset(
    map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"))
)  # fmt: skip
# What carries an IPv4 address in its last 32 bits: NAT64 (RFC 6052), IPv4-compatible (RFC 4291), translated (RFC 2765).
CARRIERS = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "::/96", "::ffff:0:0:0/96")))
# NAT64 of a network's own (RFC 8215): nobody outside knows where its addresses lead.
LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")

Origin = tuple[str, str, int]


@functools.lru_cache(64)
def origin(url: str) -> Origin:
    """Return (scheme, host, port) of a URL; one request asks for that of one URL five times.

    Raises:
        ProviderMisbehaved: it has no host, or a port that is no number.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        message = "an address in an answer cannot be understood"
        raise errors.ProviderMisbehaved(message) from error  # not which: it may hold a signature or a password
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower().rstrip("."), port or DEFAULT_PORTS.get(scheme, 0)


def has_proxy() -> bool:
    """Tell whether the environment names a proxy; NO_PROXY alone names none."""
    return not {"http", "https", "all"}.isdisjoint(urllib.request.getproxies())


def class_of(address: str) -> str:
    """Return ``public``, ``loopback``, ``link-local``, ``metadata`` or ``private`` for an IP address in text form.

    Being in a private network lets nobody into the two kinds that tell a machine of a cloud its secrets.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        ip = _carried(ip) or ip
    if ip in METADATA:
        return "metadata"
    if ip.is_loopback:
        return "loopback"
    if ip.is_link_local:
        return "link-local"
    is_local = isinstance(ip, ipaddress.IPv6Address) and (ip.is_site_local or ip in LOCAL_NAT64)
    return "public" if ip.is_global and not ip.is_multicast and not is_local else "private"


def _carried(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address only stands for, None if it stands for itself."""
    if ip.ipv4_mapped or ip.sixtofour:
        return ip.ipv4_mapped or ip.sixtofour
    if ip.teredo:
        return ip.teredo[1]
    if any(ip in network for network in CARRIERS) and int(ip) > 1:  # :: and ::1 are addresses of their own
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return None


class Gate:
    """Decides about addresses for one source."""

    def __init__(self, base_url: str, *, allow_private: bool) -> None:
        """Take ``base_url`` as home."""
        self.home = origin(base_url)
        self._allow_private = allow_private
        # Through a proxy every connection is to the proxy.
        self._vets = not has_proxy()

    def is_home(self, url: str) -> bool:
        """Tell whether the token may go there."""
        return origin(url) == self.home

    async def check(self, url: str, *, came_from: str | None = None, authored: bool = False) -> frozenset[str] | None:
        """Refuse an address that must not be asked.

        Args:
            url: where to.
            came_from: the address whose answer named it.
            authored: it stands in content (an agent wrote it) rather than in the service's own redirect.

        Returns:
            The classes of IP address that a connection may lead to: a name can come to mean another address between
            this look and the connection. None where any will do.

        Raises:
            ProviderMisbehaved: the address is refused, or is none; the message says why.
            Unreachable: its name means nothing.
        """
        scheme, host, _port = there = origin(url)
        if scheme not in DEFAULT_PORTS or not host:
            message = f"refused to follow an address with the scheme {scheme!r}"
            raise errors.ProviderMisbehaved(message)
        if came_from is not None and origin(came_from)[0] == "https" and scheme == "http":
            message = "refused to follow a redirect from https to http"
            raise errors.ProviderMisbehaved(message, subject=host)
        if there == self.home or self._allow_private:
            return None
        found = await self._classes(host)
        allowed = PUBLIC if authored else PUBLIC | await self._classes(self.home[1])
        if not found <= allowed:
            message = f"refused to follow an address on a private network ({host})"
            raise errors.ProviderMisbehaved(message, subject=host)
        return allowed if self._vets else None

    @staticmethod
    async def _classes(host: str) -> frozenset[str]:
        with contextlib.suppress(ValueError):
            return frozenset({class_of(host)})
        try:
            (host.encode() if host.isascii() else host.encode("idna")).decode("idna")
            found = await trio.socket.getaddrinfo(host, None)
        except UnicodeError as error:
            message = "an address in an answer cannot be understood"
            raise errors.ProviderMisbehaved(message, subject=host[:200]) from error
        except OSError as error:
            message = f"no address is known for {host}"
            raise errors.Unreachable(message, subject=host) from error
        return frozenset(class_of(str(row[4][0])) for row in found)
