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
from artifactfs.config.values import Bytes, FilePath, Listen, Url, Variable
from artifactfs.model.limits import ANSWERS, AnswerLimits, Bounds, Limits

Service = Literal["vm0", "syntropic137", "vlmrun", "local"]

_ARCHIVES = Limits()
# Beyond this the parser itself gives up.
MAX_JSON_DEPTH = ANSWERS.max_json_depth
# Browsers stop at 20; whoever wants more than this has a loop.
MAX_REDIRECTS = 50


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


class LimitsConfig(Section):
    """What archives and answers from outside may cost; the defaults are explained in ``model/limits.py``."""

    max_output: Bytes = Field(default=_ARCHIVES.max_output, gt=0, description="bytes that an archive unpacks to")
    max_archive: Bytes = Field(default=_ARCHIVES.max_archive, gt=0, description="bytes of an archive as it is sent")
    max_ratio: float = Field(default=_ARCHIVES.max_ratio, gt=1, description="bytes unpacked for each that was sent")
    max_entries: int = Field(default=_ARCHIVES.max_entries, gt=0, description="files and directories of an archive")
    max_depth: int = Field(default=_ARCHIVES.max_depth, gt=0, description="directories within one another")
    max_paths: Bytes = Field(default=_ARCHIVES.max_all_path_bytes, gt=0, description="bytes of all names together")
    max_header: Bytes = Field(default=_ARCHIVES.max_header_bytes, gt=0, description="bytes of one extended tar header")
    max_gzip_members: int = Field(default=_ARCHIVES.max_gzip_members, gt=0, description="gzip streams in one archive")
    max_answer: Bytes = Field(default=ANSWERS.max_answer_bytes, gt=0, description="bytes of one metadata answer")
    max_values: int = Field(default=ANSWERS.max_values, gt=0, description="values in one answer")
    max_json_depth: int = Field(default=ANSWERS.max_json_depth, gt=0, le=MAX_JSON_DEPTH, description="of one answer")
    max_redirects: int = Field(default=ANSWERS.max_redirects, ge=0, le=MAX_REDIRECTS, description="of one request")
    max_file: Bytes = Field(default=ANSWERS.max_file_bytes, gt=0, description="bytes of content that says no size")
    max_listing: int = Field(default=ANSWERS.max_listing_rows, gt=0, description="rows of one list, over all its pages")

    def bounds(self) -> Bounds:
        """Return them as who keeps them has them."""
        archives = Limits(
            max_output=self.max_output, max_archive=self.max_archive, max_ratio=self.max_ratio,
            max_entries=self.max_entries, max_depth=self.max_depth, max_all_path_bytes=self.max_paths,
            max_header_bytes=self.max_header, max_gzip_members=self.max_gzip_members,
        )  # fmt: skip
        answers = AnswerLimits(
            max_answer_bytes=self.max_answer, max_values=self.max_values, max_json_depth=self.max_json_depth,
            max_redirects=self.max_redirects, max_file_bytes=self.max_file, max_listing_rows=self.max_listing,
        )  # fmt: skip
        return Bounds(archives, answers)


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
    poll_interval: float = Field(
        default=30.0, ge=0, description="seconds between looks for what others have changed; 0 does without"
    )


class JournalConfig(Section):
    """What may wait here for its service."""

    max_size: Bytes = 10 << 30


class LogConfig(Section):
    """How a mount writes its log; in the background it is bounded: the file and the one before it."""

    format: Literal["text", "json"] = "text"
    max_size: Bytes = 10 << 20


class MetricsConfig(Section):
    """Where counters can be fetched by HTTP, besides ``.artifactfs/metrics``: ``unix``, a loopback address, nowhere."""

    listen: Listen = "unix"


class Config(Section):
    """The whole configuration."""

    default: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    sources: dict[str, SourceConfig] = Field(default_factory=dict)
    cache: CacheConfig = CacheConfig()
    limits: LimitsConfig = LimitsConfig()
    mount: MountConfig = MountConfig()
    journal: JournalConfig = JournalConfig()
    log: LogConfig = LogConfig()
    metrics: MetricsConfig = MetricsConfig()


SECTIONS: dict[str, type[Section]] = {
    "cache": CacheConfig, "limits": LimitsConfig, "mount": MountConfig, "journal": JournalConfig,
    "log": LogConfig, "metrics": MetricsConfig,
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
