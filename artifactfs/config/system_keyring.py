"""The system's keyring, by the library of that name where it is installed.

Rules of this file: the only importer of ``keyring``, and only when something is asked. What a keyring says when it
fails is repeated by the kind of failure alone: its words are another program's, and may hold anything.
"""

from __future__ import annotations

from typing import Any

from artifactfs import errors
from artifactfs.config.places import APP

# What the library calls fit to be used: below it are those that keep what they are given in plain text, or nowhere.
RECOMMENDED = 1


def put(user: str, secret: str) -> str | None:
    """Keep a secret; return None if it is kept, else why it is not, in words."""
    try:
        ring = _ring()
        if ring is None:
            return "there is no system keyring here"
        ring.set_password(APP, user, secret)
        # Some take what they are given, and keep nothing.
        return None if ring.get_password(APP, user) == secret else "the system keyring does not keep it"
    except ImportError:
        return "the library for system keyrings is not installed: artifactfs[keyring]"
    except Exception as error:  # noqa: BLE001 - backends raise what their own libraries raise
        return f"the system keyring does not take it: {type(error).__name__}"


def get(user: str) -> str | None:
    """Return a secret, None if it is not there.

    Raises:
        ConfigError: the keyring cannot be asked.
    """
    try:
        ring = _ring()
        found = ring.get_password(APP, user) if ring is not None else None
    except ImportError:
        message = "a login is in the system keyring, and its library is not installed: artifactfs[keyring]"
        raise errors.ConfigError(message) from None
    except Exception as error:  # noqa: BLE001 - backends raise what their own libraries raise
        message = f"the system keyring cannot be asked: {type(error).__name__}"
        raise errors.ConfigError(message) from None
    return str(found) if found is not None else None


def drop(user: str) -> str | None:
    """Remove a secret; return None if it is gone or was not there, else what stands against it."""
    try:
        ring = _ring()
        if ring is None:
            return "there is none here"
        if ring.get_password(APP, user) is not None:
            ring.delete_password(APP, user)
    except ImportError:
        return "its library is not installed: artifactfs[keyring]"
    except Exception as error:  # noqa: BLE001 - backends raise what their own libraries raise
        return type(error).__name__
    return None


def _ring() -> Any:  # noqa: ANN401 - the library is optional, and with it its types
    """Return the system's keyring, None if there is none that is fit to keep a token.

    Raises:
        ImportError: the library is not installed.
    """
    import keyring  # noqa: PLC0415 - 0.1 s and more, which only those pay who keep something there

    ring = keyring.get_keyring()
    return ring if getattr(ring, "priority", 0) >= RECOMMENDED else None
