"""The configuration as it may be shown to somebody else, and what of the environment may not.

Rules of this file: addresses are shown without user and query, variables by their names alone; of a name that is none
(somebody may have put the token itself there) nothing is shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from artifactfs import errors
from artifactfs.config.settings import Config
from artifactfs.config.sources import all_sources, resolve

HIDDEN = "[removed]"
# Values of variables that are called like this are secrets, whoever they belong to.
_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSW|KEY|CREDENTIAL|AUTH", re.IGNORECASE)


def public(config: Config, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return what is configured, as JSON has it, without secrets."""
    shown: dict[str, Any] = config.model_dump(mode="json", by_alias=True)
    shown["sources"] = {}
    for name, source in all_sources(config, environ).items():
        row = source.model_dump(mode="json", by_alias=True, exclude_none=True)
        if source.url:
            row["url"] = bare_address(source.url)
        if source.token_env is not None and not source.token_env.isupper():
            row["token-env"] = HIDDEN
        shown["sources"][name] = row
    return shown


def bare_address(url: str) -> str:
    """Return an address without user, password and query."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return HIDDEN
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def secrets_of(environ: Mapping[str, str]) -> Iterator[str]:
    """Return the values in an environment that must not be shown."""
    for name, value in environ.items():
        if value and _SECRET_NAME.search(name):
            yield value
        elif "://" in value and "@" in value:
            yield value.partition("://")[2].rpartition("@")[0]


def secrets_in(config: Config, environ: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Return what the sources of a configuration log in with, and what was written in the place of a name."""
    for name, given in all_sources(config, environ).items():
        if given.token_env is not None:
            yield environ.get(given.token_env, "")
            if not given.token_env.isupper():
                yield given.token_env
        try:
            authorization = resolve(config, name, environ).authorization
        except errors.ConfigError:
            continue
        if authorization is not None:
            yield authorization.get_secret_value()
            yield authorization.get_secret_value().partition(" ")[2]
