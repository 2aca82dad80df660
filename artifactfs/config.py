"""Configuration: a TOML file, the environment, and what each service's own tools already use.

Rules of this file: precedence is flag, environment, file, default. A mistake is answered with file, line and what would be
valid. Tokens come from the environment, a file or a service's own settings, never from argv; they live in ``SecretStr`` and in
the Authorization header and nowhere else.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from artifactfs import errors

APP = "artifactfs"
Service = Literal["vm0", "syntropic137", "vlmrun", "local"]

_UNITS = {"": 1, "B": 1, "K": 1 << 10, "KB": 1000, "KIB": 1 << 10, "M": 1 << 20, "MB": 10**6, "MIB": 1 << 20,
          "G": 1 << 30, "GB": 10**9, "GIB": 1 << 30, "T": 1 << 40, "TB": 10**12, "TIB": 1 << 40}  # fmt: skip


def parse_size(value: object) -> object:
    """Return a number of bytes for ``10GiB``, ``500 MB``, ``64K`` or a plain number."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value)
    if not match or match[2].upper() not in _UNITS:
        message = f"{value!r} is not a size such as 10GiB or 500MB"
        raise ValueError(message)
    return int(float(match[1]) * _UNITS[match[2].upper()])


Bytes = Annotated[int, BeforeValidator(parse_size), Field(ge=0)]


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=lambda name: name.replace("_", "-"), populate_by_name=True
    )


class SourceConfig(_Section):
    """One source as configured."""

    type: Service
    url: str | None = None
    token_env: str | None = None
    token_file: Path | None = None
    path: Path | None = None
    requests_per_minute: float | None = Field(default=None, gt=0)
    allow_private_urls: bool = False


class CacheConfig(_Section):
    """Where and how much is cached."""

    dir: Path | None = None
    max_size: Bytes = 10 << 30
    min_free: Bytes = 1 << 30


class ArchiveConfig(_Section):
    """What an archive may expand to; the defaults are explained at ``content.archive_index.Limits``."""

    max_output: Bytes | None = None
    max_ratio: float | None = Field(default=None, gt=1)
    max_entries: int | None = Field(default=None, gt=0)


class MountConfig(_Section):
    """How a mount behaves."""

    timeout: float = Field(default=30.0, gt=0, description="seconds within which every operation is answered")
    show_ids: bool = False
    xattrs: bool = False
    allow_other: bool = False
    exec: bool = False


class Config(_Section):
    """The whole configuration."""

    default: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    sources: dict[str, SourceConfig] = Field(default_factory=dict)
    cache: CacheConfig = CacheConfig()
    archive: ArchiveConfig = ArchiveConfig()
    mount: MountConfig = MountConfig()


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


class Source(_Section):
    """A source ready to be used.

    ``fingerprint`` tells it apart in caches that outlive the configuration. ``authorization`` is the header's value.
    """

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
        place = str(self.path) if self.service == "local" else self.url
        return hashlib.sha256(f"{self.service}\0{self.name}\0{place}".encode()).hexdigest()[:16]


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the configuration file is looked for."""
    given = environ.get("ARTIFACTFS_CONFIG")
    return Path(given).expanduser() if given else platformdirs.user_config_path(APP) / "config.toml"


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read the configuration; a file that is not there is an empty one unless it was asked for by name.

    Raises:
        ConfigError: the message names file, line and what would be valid.
    """
    asked = path is not None or bool(environ.get("ARTIFACTFS_CONFIG"))
    where = path or config_path(environ)
    try:
        text = where.read_text(encoding="utf-8")
    except FileNotFoundError:
        if asked:
            message = f"{where}: there is no such configuration file"
            raise errors.ConfigError(message) from None
        return Config()
    except (OSError, UnicodeDecodeError) as error:
        message = f"{where}: cannot be read: {error}"
        raise errors.ConfigError(message) from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = f"{where}: {error}"
        raise errors.ConfigError(message) from error
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise errors.ConfigError("\n".join(_explain(where, text, problem) for problem in error.errors())) from error


def _explain(where: Path, text: str, problem: Any) -> str:
    loc = [str(part) for part in problem["loc"]]
    line = _line_of(text, loc)
    key = loc[-1] if loc else ""
    place = f"{where}, line {line}" if line else str(where)
    if problem["type"] == "extra_forbidden":
        valid = sorted(_valid_keys(loc))
        near = difflib.get_close_matches(key, valid, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return f"{place}: unknown key {key!r}{hint}; valid here: {', '.join(valid)}"
    if problem["type"] == "missing":
        return f"{place}: {'.'.join(loc[:-1])} needs the key {key!r}"
    return f"{place}: {'.'.join(loc)}: {problem['msg'].removeprefix('Value error, ')}"


def _valid_keys(loc: list[str]) -> set[str]:
    section: Any = Config
    if loc[:1] == ["sources"]:
        section = SourceConfig
    elif len(loc) > 1:
        section = {"cache": CacheConfig, "archive": ArchiveConfig, "mount": MountConfig}[loc[0]]
    return {name.replace("_", "-") for name in section.model_fields}


def _line_of(text: str, loc: list[str]) -> int | None:
    """Return the line of a key, by reading headers and keys as TOML lays them out; its table's line if it has none."""
    table: list[str] = []
    best = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        header = re.fullmatch(r"\[\s*([^\]]+?)\s*\]\s*(#.*)?", line)
        if header:
            table = [part.strip().strip("\"'") for part in header[1].split(".")]
            path = table
        else:
            key = re.match(r"([A-Za-z0-9_.\"'-]+)\s*=", line)
            if not key:
                continue
            path = [*table, *(part.strip("\"'") for part in key[1].split("."))]
        if path == loc:
            return number
        if path == loc[: len(path)] and (best is None or path == loc[:-1]):
            best = number
    return best


def all_sources(config: Config, environ: Mapping[str, str] = os.environ) -> dict[str, SourceConfig]:
    """Return the configured sources, and those whose service's own variable is set."""
    found = dict(config.sources)
    services = {source.type for source in found.values()}
    for service, variable in PRESENCE_ENV.items():
        if environ.get(variable) and service not in services and service not in found:
            found[service] = SourceConfig.model_validate({"type": service})
    return found


def choose(config: Config, names: list[str], *, everything: bool, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the names of the sources to mount: those named, all, the default, or whatever there is.

    Raises:
        ConfigError: a name is not a source.
    """
    known = all_sources(config, environ)
    for name in [*names, *([config.default] if config.default else [])]:
        if name not in known and name != "local":
            there = ", ".join(sorted({*known, "local"}))
            message = f"there is no source {name!r}; sources: {there}"
            raise errors.ConfigError(message)
    if names:
        return list(dict.fromkeys(names))
    if config.default and not everything:
        return [config.default]
    return list(known) or ["local"]


def resolve(config: Config, name: str, environ: Mapping[str, str] = os.environ) -> Source:
    """Return a source with its address and token.

    Raises:
        ConfigError: the token is missing; the message says which variable to set.
    """
    given = all_sources(config, environ).get(name) or SourceConfig.model_validate({"type": "local"})
    if given.type == "local":
        path = given.path or platformdirs.user_data_path(APP) / "store"
        return Source(name=name, service="local", path=path.expanduser().absolute())
    return Source(
        name=name,
        service=given.type,
        url=_url(given, environ),
        authorization=_authorization(name, given, environ),
        requests_per_minute=given.requests_per_minute,
        allow_private_urls=given.allow_private_urls,
    )


def _url(given: SourceConfig, environ: Mapping[str, str]) -> str:
    own = _own_settings(given.type, environ)
    url = given.url or environ.get(URL_ENV[given.type]) or own.get("url") or DEFAULT_URL[given.type]
    if not re.match(r"https?://", url):
        url = f"https://{url}"
    url = url.rstrip("/")
    return url.removesuffix("/api/v1") if given.type == "syntropic137" else url


def _authorization(name: str, given: SourceConfig, environ: Mapping[str, str]) -> SecretStr | None:
    token = _token(given, environ)
    if token:
        return SecretStr(f"Bearer {token}")
    if given.type == "syntropic137":
        # The service itself has no authentication; what stands before it may want a password.
        user, password = environ.get("SYN_API_USER", "admin"), environ.get("SYN_API_PASSWORD")
        if password:
            return SecretStr("Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
        if given.token_env is None:
            return None
    variable = given.token_env or TOKEN_ENV[given.type]
    message = (
        f"source {name!r} ({given.type}) has no token: set the environment variable {variable},"
        f" or token-env or token-file under [sources.{name}] in {config_path(environ)}"
    )
    raise errors.ConfigError(message)


def _token(given: SourceConfig, environ: Mapping[str, str]) -> str | None:
    if given.token_file is not None:
        try:
            return given.token_file.expanduser().read_text(encoding="utf-8").strip() or None
        except OSError as error:
            message = f"the token file {given.token_file} cannot be read: {error.strerror}"
            raise errors.ConfigError(message) from error
    if given.token_env is not None:
        return environ.get(given.token_env) or None
    return environ.get(TOKEN_ENV[given.type]) or _own_settings(given.type, environ).get("token") or None


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


def cache_dir(config: Config) -> Path:
    """Return where caches live."""
    return (config.cache.dir or platformdirs.user_cache_path(APP)).expanduser()


def state_dir() -> Path:
    """Return where drafts and logs live: never in the cache."""
    return platformdirs.user_state_path(APP)


def runtime_dir() -> Path:
    """Return where the sockets of running mounts are: short, since a socket's path has 107 bytes at most."""
    given = os.environ.get("XDG_RUNTIME_DIR")
    base = Path(given) if given and Path(given).is_dir() else Path("/tmp")  # noqa: S108 - made 0700 and checked
    path = base / (APP if given and Path(given).is_dir() else f"{APP}-{os.getuid()}")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        message = f"{path} belongs to somebody else"
        raise errors.ConfigError(message)
    return path
