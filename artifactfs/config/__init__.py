"""Configuration: a TOML file, the environment, and what each service's own tools already use.

Rules of this package: precedence is flag, environment, file, default; the services' own variables stand in for what a
source in the file does not say, since they would redirect every source of their type. A mistake is answered with file,
line and what would be valid. Tokens come from the environment, a file, a login (``logins.py``) or a service's own
settings, in the order that ``tokens.py`` tells, never from argv; they live in ``SecretStr`` and in the Authorization
header and nowhere else.
"""

from artifactfs.config.logins import Account, Login
from artifactfs.config.places import APP, config_path, runtime_dir, state_dir
from artifactfs.config.public import public, secrets_in, secrets_of
from artifactfs.config.settings import (
    CacheConfig,
    Config,
    LimitsConfig,
    MountConfig,
    Service,
    SourceConfig,
    cache_dir,
    defaults,
    load,
)
from artifactfs.config.sources import PRESENCE_ENV, URL_ENV, Source, account_of, all_sources, choose, resolve
from artifactfs.config.tokens import SERVE_ENV, TOKEN_ENV, secret_variables

__all__ = [
    "APP",
    "PRESENCE_ENV",
    "SERVE_ENV",
    "TOKEN_ENV",
    "URL_ENV",
    "Account",
    "CacheConfig",
    "Config",
    "LimitsConfig",
    "Login",
    "MountConfig",
    "Service",
    "Source",
    "SourceConfig",
    "account_of",
    "all_sources",
    "cache_dir",
    "choose",
    "config_path",
    "defaults",
    "load",
    "public",
    "resolve",
    "runtime_dir",
    "secret_variables",
    "secrets_in",
    "secrets_of",
    "state_dir",
]
