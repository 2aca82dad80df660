"""Where the token of a source comes from.

The first of these that has one: the variable that ``token-env`` names; the file that ``token-file`` names; what
``artifactfs login`` kept; and, where ``token-env`` names none, the variable of the service's own tools, then what its
own command line saved. For Syntropic137, which has no tokens of its own but may stand behind a password, SYN_API_USER
and SYN_API_PASSWORD come last.

Rules of this file: what it says of a token is where it comes from. A token is never repeated, nor what may be one.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import select
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import SecretStr

from artifactfs import errors
from artifactfs.config import logins
from artifactfs.config.logins import Account, Login
from artifactfs.config.places import config_path
from artifactfs.config.settings import Config, SourceConfig

# What each service's own tools read.
TOKEN_ENV: dict[str, str] = {"vm0": "VM0_TOKEN", "syntropic137": "SYN_API_TOKEN", "vlmrun": "VLMRUN_API_KEY"}
PASSWORD_ENV = "SYN_API_PASSWORD"  # noqa: S105 - the name of a variable
SERVE_ENV = "ARTIFACTFS_SERVE_TOKEN"
# A few KB are long for a token; what is longer is another file.
MAX_TOKEN = 64 * 1024
# A program that was started to write a token into a pipe may have to ask for it.
PIPE_S = 5.0


class Found(NamedTuple):
    """The value of the Authorization header, and where it comes from in words; None and "" where none is needed."""

    authorization: SecretStr | None
    where: str


def authorization(account: Account, given: SourceConfig, environ: Mapping[str, str]) -> Found:
    """Return what a source sends to its service to say who it is.

    Raises:
        ConfigError: there is no token, or one that cannot be sent; the message says where one can come from.
    """
    if found := _named(account.name, given, environ):
        return _bearer(account.name, *found)
    if login := logins.find(account, environ):
        return of_login(account.name, login)
    if given.token_env is None and (found := _of_the_service(given.type, environ)):
        return _bearer(account.name, *found)
    if given.type == "syntropic137":
        # The service itself has no authentication; what stands before it may want a password.
        if password := environ.get(PASSWORD_ENV):
            user = environ.get("SYN_API_USER") or "admin"
            return Found(_basic(user, password), f"the variable {PASSWORD_ENV}")
        if given.token_env is None:
            return Found(None, "")
    raise errors.ConfigError(_missing(account.name, given, environ))


def before_login(name: str, given: SourceConfig, environ: Mapping[str, str]) -> str | None:
    """Return where a source takes its token from whatever is kept for it, in words; None if a login would be used.

    Raises:
        ConfigError: it takes one from a file, and cannot.
    """
    found = _named(name, given, environ)
    return found[1] if found else None


def of_login(name: str, login: Login) -> Found:
    """Return what is sent with a login.

    Raises:
        ConfigError: it cannot be sent.
    """
    secret = login.secret.get_secret_value()
    if login.user is not None:
        return Found(_basic(login.user, secret), login.where)
    return _bearer(name, secret, login.where)


def secret_variables(config: Config) -> set[str]:
    """Return the names of the variables that hold secrets, of sources and of services."""
    named = {given.token_env for given in config.sources.values() if given.token_env}
    return {*named, *TOKEN_ENV.values(), PASSWORD_ENV, SERVE_ENV}


def own_settings(service: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return token and address from the file that the service's own command line writes, if there is one."""
    try:
        if service == "vm0":
            data = json.loads(_own_file(service, environ).read_text(encoding="utf-8"))
            pairs = {"token": data.get("token"), "url": data.get("apiUrl")}
        elif service == "vlmrun":
            data = tomllib.loads(_own_file(service, environ).read_text(encoding="utf-8"))
            pairs = {"token": data.get("api_key"), "url": data.get("base_url")}
        else:
            return {}
    except (OSError, ValueError, AttributeError):
        return {}
    return {key: value for key, value in pairs.items() if isinstance(value, str) and value}


def _own_file(service: str, environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME", "/")) / {"vm0": ".vm0/config.json", "vlmrun": ".vlmrun/config.toml"}[service]


def _bearer(name: str, token: str, where: str) -> Found:
    if not token.isascii() or not token.isprintable() or " " in token or len(token) > MAX_TOKEN:
        message = f"the token of source {name!r} cannot be sent: it holds spaces, line breaks or odd characters"
        raise errors.ConfigError(message)
    return Found(SecretStr(f"Bearer {token}"), where)


def _basic(user: str, password: str) -> SecretStr:
    return SecretStr("Basic " + base64.b64encode(f"{user}:{password}".encode("utf-8", "surrogateescape")).decode())


def _named(name: str, given: SourceConfig, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the token from what the source itself names, and where that is."""
    if given.token_env is not None and (token := environ.get(given.token_env, "").strip()):
        return token, f"the variable {given.token_env}"
    if given.token_file is None:
        return None
    try:
        token = _read(given.token_file).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        message = f"source {name!r}: the token file {given.token_file} cannot be read: {said}"
        raise errors.ConfigError(message) from None
    if not token:
        message = f"source {name!r}: the token file {given.token_file} is empty"
        raise errors.ConfigError(message)
    return token, f"the file {given.token_file}"


def _read(path: Path) -> bytes:
    """Return the beginning of a file; a pipe that nobody writes to is waited for, but not for ever.

    Raises:
        OSError: it cannot be read, or nothing came for so long.
    """
    data = b""
    with open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        coming = select.poll()
        coming.register(file, select.POLLIN)
        while len(data) <= MAX_TOKEN:
            # Before the first look, too: a pipe that nobody has opened to write is at its end, if it is read.
            if not coming.poll(PIPE_S * 1000):
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            piece = file.read(MAX_TOKEN + 1 - len(data))
            if piece == b"":
                break
            data += piece or b""
    return data


def _of_the_service(service: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the token that the service's own tools use, and where it is."""
    if token := environ.get(TOKEN_ENV[service], "").strip():
        return token, f"the variable {TOKEN_ENV[service]}"
    if token := own_settings(service, environ).get("token", "").strip():
        return token, f"the file {_own_file(service, environ)}"
    return None


def _missing(name: str, given: SourceConfig, environ: Mapping[str, str]) -> str:
    variable = given.token_env or TOKEN_ENV[given.type]
    if not variable.isupper():
        # Rather the token itself than a variable's name: it must not be shown.
        return (
            f"source {name!r} ({given.type}): token-env takes the name of a variable, and the one it names is not set"
        )
    return (
        f"source {name!r} ({given.type}) has no token: set the environment variable {variable},"
        f" or token-env or token-file under [sources.{name}] in {config_path(environ)}, or `artifactfs login {name}`"
    )
