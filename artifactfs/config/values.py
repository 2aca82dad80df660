"""Values as people write them: sizes, addresses, paths, names of variables."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

_UNITS = {"": 1, "B": 1, "K": 1 << 10, "KB": 1000, "KIB": 1 << 10, "M": 1 << 20, "MB": 10**6, "MIB": 1 << 20,
          "G": 1 << 30, "GB": 10**9, "GIB": 1 << 30, "T": 1 << 40, "TB": 10**12, "TIB": 1 << 40}  # fmt: skip

MAX_PORT = 65535


def parse_size(value: object) -> object:
    """Return a number of bytes for ``10GiB``, ``500 MB``, ``64K`` or a plain number.

    Raises:
        ValueError: it is text, but no size.
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*([A-Za-z]*)\s*", value)
    if not match or match[2].upper() not in _UNITS:
        message = f"{value!r} is not a size such as 10GiB or 500MB"
        raise ValueError(message)
    return int(float(match[1]) * _UNITS[match[2].upper()])


def parse_url(value: str) -> str:
    """Return an address without a trailing slash; one that names no scheme is https.

    Raises:
        ValueError: it cannot be a service's address; the message does not repeat it, as it may hold a password.
    """
    url = value if "://" in value else f"https://{value}"
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or any(char.isspace() for char in value):
        message = "should be an address such as https://host or http://localhost:8137"
        raise ValueError(message)
    if parts.username is not None or parts.query or parts.fragment:
        message = "should be an address alone, without user, password or query (for tokens: token-env or token-file)"
        raise ValueError(message)
    return url.rstrip("/")


def _anchored(path: Path, info: ValidationInfo) -> Path:
    """Return a path that means the same from everywhere: a relative one begins beside the file that says it."""
    base: Path = info.context or Path.cwd()
    return base / path.expanduser()


def _variable(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        message = "should be the name of an environment variable, one that holds the token"
        raise ValueError(message)
    return name


def parse_listen(value: str) -> str:
    """Return where to listen: ``unix``, ``HOST:PORT`` on this machine alone, or nothing for nowhere.

    Raises:
        ValueError: it is none of them, or an address that others can reach.
    """
    if value in {"", "unix"}:
        return value
    host, _, port = value.rpartition(":")
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host.strip("[]"))
        is_usable = port.isascii() and port.isdigit() and int(port) <= MAX_PORT
    except ValueError:
        is_usable = False
    if not is_usable:
        message = 'should be "unix", an address of this machine such as 127.0.0.1:9137, or ""'
        raise ValueError(message)
    if not address.is_loopback:
        message = "should be a loopback address: whoever can connect to it can read what is mounted and how it is used"
        raise ValueError(message)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"  # noqa: PLR2004 - of IP


Bytes = Annotated[int, BeforeValidator(parse_size), Field(ge=0)]
FilePath = Annotated[Path, AfterValidator(_anchored)]
Url = Annotated[str, AfterValidator(parse_url)]
Listen = Annotated[str, AfterValidator(parse_listen)]
Variable = Annotated[str, AfterValidator(_variable)]
