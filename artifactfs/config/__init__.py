"""Configuration: a TOML file, the environment, and what each service's own tools already use.

Rules of this package: precedence is flag, environment, file, default; the services' own variables stand in for what a
source in the file does not say, since they would redirect every source of their type. A mistake is answered with file,
line and what would be valid. Tokens come from the environment, a file or a service's own settings, never from argv;
they live in ``SecretStr`` and in the Authorization header and nowhere else.
"""

from artifactfs.config.places import APP, config_path, runtime_dir, state_dir
from artifactfs.config.public import public, secrets_in, secrets_of
from artifactfs.config.settings import (
    ArchiveConfig,
    CacheConfig,
    Config,
    MountConfig,
    Service,
    SourceConfig,
    cache_dir,
    defaults,
    load,
)
from artifactfs.config.sources import PRESENCE_ENV, TOKEN_ENV, URL_ENV, Source, all_sources, choose, resolve

__all__ = [
    "APP",
    "PRESENCE_ENV",
    "TOKEN_ENV",
    "URL_ENV",
    "ArchiveConfig",
    "CacheConfig",
    "Config",
    "MountConfig",
    "Service",
    "Source",
    "SourceConfig",
    "all_sources",
    "cache_dir",
    "choose",
    "config_path",
    "defaults",
    "load",
    "public",
    "resolve",
    "runtime_dir",
    "secrets_in",
    "secrets_of",
    "state_dir",
]
