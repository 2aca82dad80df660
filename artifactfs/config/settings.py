"""What can be set, and reading it from file and environment."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from artifactfs import errors
from artifactfs.config import explain
from artifactfs.config.places import APP, config_path
from artifactfs.config.values import Bytes, FilePath, Url, Variable

Service = Literal["vm0", "syntropic137", "vlmrun", "local"]


class Section(BaseModel):
    """A table of the file: keys are written with ``-``, and an unknown one is a mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=lambda name: name.replace("_", "-"))


class SourceConfig(Section):
    """One source as configured."""

    type: Service
    url: Url | None = None
    token_env: Variable | None = None
    token_file: FilePath | None = None
    path: FilePath | None = None
    requests_per_minute: float | None = Field(default=None, gt=0)
    allow_private_urls: bool = False


class CacheConfig(Section):
    """Where and how much is cached."""

    dir: FilePath | None = None
    max_size: Bytes = 10 << 30
    min_free: Bytes = 1 << 30


class ArchiveConfig(Section):
    """What an archive may expand to; the defaults are explained at ``content.archive_index.Limits``."""

    max_output: Bytes | None = None
    max_ratio: float | None = Field(default=None, gt=1)
    max_entries: int | None = Field(default=None, gt=0)


class MountConfig(Section):
    """How a mount behaves."""

    timeout: float = Field(default=30.0, gt=0, description="seconds within which every operation is answered")
    show_ids: bool = False
    xattrs: bool = False
    allow_other: bool = False
    exec: bool = False
    read_only: bool = False
    write_through: bool = False
    watchdog_abort: float = Field(
        default=300.0, ge=0, description="seconds after which a process that answers nothing ends itself; 0 is never"
    )
    publish_delay: float = Field(default=1.0, ge=0, description="seconds without a change before a save is published")


class JournalConfig(Section):
    """What may wait here for its service."""

    max_size: Bytes = 10 << 30


class Config(Section):
    """The whole configuration."""

    default: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    sources: dict[str, SourceConfig] = Field(default_factory=dict)
    cache: CacheConfig = CacheConfig()
    archive: ArchiveConfig = ArchiveConfig()
    mount: MountConfig = MountConfig()
    journal: JournalConfig = JournalConfig()


SECTIONS: dict[str, type[Section]] = {
    "cache": CacheConfig, "archive": ArchiveConfig, "mount": MountConfig, "journal": JournalConfig
}  # fmt: skip


def keys_of(section: type[Section]) -> list[str]:
    """Return the keys of a table as the file has them."""
    return sorted(name.replace("_", "-") for name in section.model_fields)


def variables() -> dict[str, tuple[str, ...]]:
    """Return where the variables of settings belong: ``ARTIFACTFS_CACHE_MAX_SIZE`` is ``cache.max-size``."""
    places = [(key,) for key in keys_of(Config) if key not in {"sources", *SECTIONS}]
    nested = [(name, key) for name, section in SECTIONS.items() for key in keys_of(section)]
    return {"_".join(("ARTIFACTFS", *place)).replace("-", "_").upper(): place for place in (*places, *nested)}


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read the configuration; a file that is not there is an empty one unless it was asked for by name.

    Raises:
        ConfigError: the message names file (or variable), line and what would be valid.
    """
    where = path.expanduser().absolute() if path else config_path(environ)
    try:
        text = where.read_text(encoding="utf-8-sig")
        data = tomllib.loads(text)
        Config.model_validate(data, context=where.parent)
    except FileNotFoundError:
        if path is None and not environ.get("ARTIFACTFS_CONFIG"):
            return defaults(environ)
        message = f"{where}: there is no such configuration file"
        raise errors.ConfigError(message) from None
    except OSError as error:
        message = f"{where}: cannot be read: {error.strerror}"
        raise errors.ConfigError(message) from error
    except UnicodeDecodeError:
        message = f"{where}: cannot be read: it is not UTF-8"
        raise errors.ConfigError(message) from None
    except tomllib.TOMLDecodeError as error:
        message = f"{where}: not valid TOML: {error}"
        raise errors.ConfigError(message) from None
    except ValidationError as error:
        told = (explain.problem(where, text, found, _valid_keys) for found in error.errors())
        raise errors.ConfigError("\n".join(dict.fromkeys(told))) from None
    return _overlaid(data, environ, where.parent)


def defaults(environ: Mapping[str, str] = os.environ) -> Config:
    """Return the configuration without a file.

    Raises:
        ConfigError: a variable cannot be used; the message names it.
    """
    return _overlaid({}, environ, Path.cwd())


def cache_dir(config: Config) -> Path:
    """Return where caches live."""
    return config.cache.dir or platformdirs.user_cache_path(APP)


def _overlaid(data: dict[str, Any], environ: Mapping[str, str], base: Path) -> Config:
    """Put what the environment says over what the file says."""
    known = variables()
    for variable, place in known.items():
        if environ.get(variable):
            table = data.setdefault(place[0], {}) if place[1:] else data
            # A path in a variable is the caller's, whatever file there is and wherever that lies.
            is_path = place == ("cache", "dir")
            table[place[-1]] = str(Path.cwd() / Path(environ[variable]).expanduser()) if is_path else environ[variable]
    try:
        return Config.model_validate(data, context=base)
    except ValidationError as error:
        names = {place: variable for variable, place in known.items()}
        places = ((tuple(str(part) for part in found["loc"]), found) for found in error.errors())
        told = (f"the variable {names[place]}: {explain.said(found)}" for place, found in places)
        raise errors.ConfigError("\n".join(told)) from None


def _valid_keys(loc: Sequence[str]) -> list[str]:
    """Return the keys that are valid beside the one at a place."""
    if len(loc) > 1:
        return keys_of(SECTIONS.get(loc[0], SourceConfig))
    return keys_of(Config)
