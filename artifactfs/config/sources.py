"""From what is configured to sources with address and token."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs
from pydantic import BaseModel, ConfigDict, SecretStr

from artifactfs import errors
from artifactfs.config import explain
from artifactfs.config.places import APP, config_path
from artifactfs.config.settings import Config, Service, SourceConfig
from artifactfs.config.values import parse_url

# What each service's own tools read: the variable with its token, the one with its address, its default address.
TOKEN_ENV: dict[str, str] = {"vm0": "VM0_TOKEN", "syntropic137": "SYN_API_TOKEN", "vlmrun": "VLMRUN_API_KEY"}
URL_ENV: dict[str, str] = {"vm0": "VM0_API_URL", "syntropic137": "SYN_API_URL", "vlmrun": "VLMRUN_BASE_URL"}
DEFAULT_URL: dict[str, str] = {
    "vm0": "https://api.vm0.ai",
    "syntropic137": "http://localhost:8137",
    "vlmrun": "https://api.vlm.run/v1",
}
# A source exists without a file for each service whose own variable is set.
PRESENCE_ENV: dict[str, str] = {"vm0": "VM0_TOKEN", "syntropic137": "SYN_API_URL", "vlmrun": "VLMRUN_API_KEY"}
LOCAL = "local"


class Source(BaseModel):
    """A source ready to be used.

    ``fingerprint`` tells it apart in caches that outlive the configuration. ``authorization`` is the header's value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    service: Service
    url: str = ""
    authorization: SecretStr | None = None
    path: Path | None = None
    requests_per_minute: float | None = None
    allow_private_urls: bool = False

    @property
    def fingerprint(self) -> str:
        """Return 16 hex digits of name, service and place."""
        place = str(self.path) if self.service == LOCAL else self.url
        return hashlib.sha256(f"{self.service}\0{self.name}\0{place}".encode()).hexdigest()[:16]


def all_sources(config: Config, environ: Mapping[str, str] = os.environ) -> dict[str, SourceConfig]:
    """Return the configured sources, and those whose service's own variable is set."""
    found = dict(config.sources)
    services = {source.type for source in found.values()}
    for service, variable in PRESENCE_ENV.items():
        if environ.get(variable) and service not in services and service not in found:
            found[service] = SourceConfig.model_validate({"type": service})
    return found


def choose(
    config: Config, names: Sequence[str], *, everything: bool, environ: Mapping[str, str] = os.environ
) -> list[str]:
    """Return the names of the sources to mount: those named, all, the default, or whatever there is.

    Raises:
        ConfigError: a name is not a source.
    """
    known = all_sources(config, environ)
    for name in names:
        _must_be_known(name, known, environ, f"there is no source {name!r}")
    if names:
        return list(dict.fromkeys(names))
    if config.default and not everything:
        _must_be_known(config.default, known, environ, f"the default source {config.default!r} does not exist")
        return [config.default]
    return list(known) or [LOCAL]


def _must_be_known(name: str, known: Mapping[str, SourceConfig], environ: Mapping[str, str], message: str) -> None:
    if name in known or name == LOCAL:
        return
    if name in PRESENCE_ENV:
        where = config_path(environ)
        message += f": set the variable {PRESENCE_ENV[name]}, or put it under [sources.{name}] in {where}"
    raise errors.ConfigError(message + explain.near(name, sorted({*known, LOCAL}), "sources"))


def resolve(config: Config, name: str, environ: Mapping[str, str] = os.environ) -> Source:
    """Return a source with its address and token.

    Raises:
        ConfigError: the token is missing; the message says which variable to set.
    """
    given = all_sources(config, environ).get(name) or SourceConfig.model_validate({"type": LOCAL})
    if given.type == LOCAL:
        return Source(name=name, service=LOCAL, path=given.path or platformdirs.user_data_path(APP) / "store")
    return Source(
        name=name,
        service=given.type,
        url=_url(given, environ),
        authorization=_authorization(name, given, environ),
        requests_per_minute=given.requests_per_minute,
        allow_private_urls=given.allow_private_urls,
    )


def _url(given: SourceConfig, environ: Mapping[str, str]) -> str:
    """Return the address; the file's before the service's variable, which would redirect all sources of its type."""
    url = given.url
    if url is None:
        variable = URL_ENV[given.type]
        said = environ.get(variable) or _own_settings(given.type, environ).get("url") or DEFAULT_URL[given.type]
        try:
            url = parse_url(said)
        except ValueError as error:
            whose = variable if environ.get(variable) else f"the address in the own settings of {given.type}"
            message = f"{whose}: {error}"
            raise errors.ConfigError(message) from None
    # The prefix is part of what people copy from each service's pages; where the provider adds it, it is taken off.
    match given.type:
        case "syntropic137":
            return url.removesuffix("/api/v1")
        case "vm0":
            return url.removesuffix("/v1")
        case "vlmrun":
            return url if urlsplit(url).path else f"{url}/v1"
        case _:
            return url


def _authorization(name: str, given: SourceConfig, environ: Mapping[str, str]) -> SecretStr | None:
    token = _token(name, given, environ)
    if token:
        if not token.isascii() or not token.isprintable() or " " in token:
            message = f"the token of source {name!r} cannot be sent: it holds spaces, line breaks or odd characters"
            raise errors.ConfigError(message)
        return SecretStr(f"Bearer {token}")
    if given.type == "syntropic137":
        # The service itself has no authentication; what stands before it may want a password.
        user, password = environ.get("SYN_API_USER") or "admin", environ.get("SYN_API_PASSWORD")
        if password:
            return SecretStr("Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
        if given.token_env is None:
            return None
    raise errors.ConfigError(_missing(name, given, environ))


def _missing(name: str, given: SourceConfig, environ: Mapping[str, str]) -> str:
    variable = given.token_env or TOKEN_ENV[given.type]
    if not variable.isupper():
        # Rather the token itself than a variable's name: it must not be shown.
        return (
            f"source {name!r} ({given.type}): token-env takes the name of a variable, and the one it names is not set"
        )
    return (
        f"source {name!r} ({given.type}) has no token: set the environment variable {variable},"
        f" or token-env or token-file under [sources.{name}] in {config_path(environ)}"
    )


def _token(name: str, given: SourceConfig, environ: Mapping[str, str]) -> str | None:
    """Return the token: from what the source itself names, else from the service's variable or settings."""
    if given.token_env is not None and environ.get(given.token_env):
        return environ[given.token_env].strip()
    if given.token_file is not None:
        try:
            token = given.token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            said = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            message = f"source {name!r}: the token file {given.token_file} cannot be read: {said}"
            raise errors.ConfigError(message) from None
        if not token:
            message = f"source {name!r}: the token file {given.token_file} is empty"
            raise errors.ConfigError(message)
        return token
    if given.token_env is not None:
        return None
    own = _own_settings(given.type, environ)
    return (environ.get(TOKEN_ENV[given.type]) or own.get("token") or "").strip() or None


def _own_settings(service: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return token and address from the file that the service's own command line writes, if there is one."""
    home = Path(environ.get("HOME", "/"))
    try:
        if service == "vm0":
            data = json.loads((home / ".vm0/config.json").read_text(encoding="utf-8"))
            pairs = {"token": data.get("token"), "url": data.get("apiUrl")}
        elif service == "vlmrun":
            data = tomllib.loads((home / ".vlmrun/config.toml").read_text(encoding="utf-8"))
            pairs = {"token": data.get("api_key"), "url": data.get("base_url")}
        else:
            return {}
    except (OSError, ValueError, AttributeError):
        return {}
    return {key: value for key, value in pairs.items() if isinstance(value, str) and value}
