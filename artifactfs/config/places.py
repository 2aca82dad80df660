"""Where things lie on this machine."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

import platformdirs

from artifactfs import errors

APP = "artifactfs"


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where the configuration file is looked for."""
    given = environ.get("ARTIFACTFS_CONFIG")
    return Path(given).expanduser().absolute() if given else platformdirs.user_config_path(APP) / "config.toml"


def state_dir() -> Path:
    """Return where drafts and logs live: never in the cache."""
    return platformdirs.user_state_path(APP)


def runtime_dir() -> Path:
    """Return where the sockets of running mounts are: short, since a socket's path has 107 bytes at most.

    Raises:
        ConfigError: somebody else made it first, as anybody can in a directory that all may write.
    """
    given = Path(os.environ.get("XDG_RUNTIME_DIR") or "unset")
    # The specification has a relative one ignored, and a variable that is empty be as if it were not set.
    path = given / APP if given.is_absolute() and given.is_dir() else Path(f"/tmp/{APP}-{os.getuid()}")  # noqa: S108 - checked below
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        message = f"{path}: the directory for sockets cannot be made: {error.strerror}"
        raise errors.ConfigError(message) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        message = f"{path} belongs to somebody else, or is no directory; remove it, or set XDG_RUNTIME_DIR"
        raise errors.ConfigError(message)
    if stat.S_IMODE(found.st_mode) & 0o077:
        path.chmod(0o700)
    return path
