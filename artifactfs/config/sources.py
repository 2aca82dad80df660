"""From what is configured to sources with address and token; where a token comes from is in ``tokens.py``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from artifactfs import errors
from artifactfs.config import explain, logins, tokens
from artifactfs.config.logins import Account, Login
from artifactfs.config.places import APP, config_path
from artifactfs.config.settings import Config, Service, SourceConfig
from artifactfs.config.values import parse_url

# What each service's own tools read: the variable with its address, its default address.
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

    ``fingerprint`` tells it apart in caches that outlive the configuration. ``authorization`` is the header's value,
    ``token_from`` where it comes from, in words; ``again`` looks once more, and may return another one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    service: Service
    url: str = ""
    authorization: SecretStr | None = None
    path: Path | None = None
    requests_per_minute: float | None = None
    allow_private_urls: bool = False
    token_from: str = ""
    again: Callable[[], Source] | None = Field(default=None, exclude=True, repr=False)

    @property
    def account(self) -> Account:
        """Return what its tokens are kept for."""
        return Account(self.name, self.service, str(self.path) if self.service == LOCAL else self.url)

    @property
    def fingerprint(self) -> str:
        """Return 16 hex digits of name, service and place."""
        return self.account.fingerprint


def all_sources(config: Config, environ: Mapping[str, str] = os.environ) -> dict[str, SourceConfig]:
    """Return the configured sources, and each service whose own variable is set or that has been logged in to."""
    found = dict(config.sources)
    services = {source.type for source in found.values()}
    for service, variable in PRESENCE_ENV.items():
        if service in services or service in found:
            continue
        if environ.get(variable) or logins.is_known(service, environ):
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
        message += (
            f": set the variable {PRESENCE_ENV[name]}, or put it under [sources.{name}] in {where},"
            f" or `artifactfs login {name}`"
        )
    raise errors.ConfigError(message + explain.near(name, sorted({*known, LOCAL}), "sources"))


def resolve(
    config: Config, name: str, environ: Mapping[str, str] = os.environ, *, login: Login | None = None
) -> Source:
    """Return a source with its address and token, or with the one of ``login``.

    Raises:
        ConfigError: the token is missing; the message says which variable to set.
    """
    given = all_sources(config, environ).get(name)
    if given is None:
        given = SourceConfig.model_validate({"type": name if login and name in PRESENCE_ENV else LOCAL})
    if given.type == LOCAL:
        return Source(name=name, service=LOCAL, path=given.path or platformdirs.user_data_path(APP) / "store")
    # What it holds now is what a mount goes on with, which forgets the variables that hold secrets.
    environ = dict(environ)
    url = _url(given, environ)
    account = Account(name, given.type, url)
    found = tokens.of_login(name, login) if login else tokens.authorization(account, given, environ)
    return Source(
        name=name, service=given.type, url=url, authorization=found.authorization, token_from=found.where,
        requests_per_minute=given.requests_per_minute, allow_private_urls=given.allow_private_urls,
        # A login that is only tried must not be saved by the one that is kept already.
        again=None if login else lambda: resolve(config, name, environ),
    )  # fmt: skip


def account_of(config: Config, name: str, environ: Mapping[str, str] = os.environ) -> Account:
    """Return what a token for a source is kept for; each service is one under its own name without being configured.

    Raises:
        ConfigError: there is no such source, it needs no token, or it takes one from elsewhere whatever is kept.
    """
    known = all_sources(config, environ)
    given = known.get(name)
    if given is None and name in PRESENCE_ENV and name not in {source.type for source in known.values()}:
        given = SourceConfig.model_validate({"type": name})
    if given is None and name != LOCAL:
        message = f"there is no source {name!r}" + explain.near(name, sorted({*known, *PRESENCE_ENV}), "sources")
        raise errors.ConfigError(message)
    if given is None or given.type == LOCAL:
        message = f"source {name!r} is a store on this machine, which needs no token"
        raise errors.ConfigError(message)
    if where := tokens.before_login(name, given, environ):
        message = f"source {name!r} takes its token from {where}, which goes before a login: change it there"
        raise errors.ConfigError(message)
    return Account(name, given.type, _url(given, environ))


def _url(given: SourceConfig, environ: Mapping[str, str]) -> str:
    """Return the address; the file's before the service's variable, which would redirect all sources of its type."""
    url = given.url
    if url is None:
        variable = URL_ENV[given.type]
        said = environ.get(variable) or tokens.own_settings(given.type, environ).get("url") or DEFAULT_URL[given.type]
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
