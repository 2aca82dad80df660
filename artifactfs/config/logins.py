"""Tokens that ``artifactfs login`` keeps: in the system's keyring where there is one, else in private files.

Rules of this file: a token is kept for one source at one address, and is never used for another. What stands in the
directory says where the token is, so that the keyring's library, which costs 0.1 s and more to import, is loaded only
by who has a token there. A file with a token is whole or not there, and nobody else's for a moment.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from pydantic import SecretStr

from artifactfs import errors, private
from artifactfs.config import system_keyring
from artifactfs.config.places import APP

# Of a source's name, so much is shown in a file's; what tells files apart is behind it.
SHOWN_NAME = 80
# A file of ours holds a token of a few KB at most; more is not ours.
MAX_BYTES = 256 * 1024
UNFINISHED = ".new-"


class Account(NamedTuple):
    """What a token is for: a source by its name, its service, and the address that gets the token."""

    name: str
    service: str
    place: str

    @property
    def fingerprint(self) -> str:
        """Return 16 hex digits that tell it apart."""
        return hashlib.sha256(f"{self.service}\0{self.name}\0{self.place}".encode()).hexdigest()[:16]

    @property
    def in_keyring(self) -> str:
        """Return what the keyring calls it."""
        return f"{self.name} at {self.place}"


@dataclass(frozen=True, slots=True)
class Login:
    """A token, or with ``user`` a password; ``where`` it is kept, in words."""

    secret: SecretStr
    user: str | None = None
    where: str = ""


def directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where logins are: beside the user's configuration file, wherever the one in use is."""
    given = environ.get("XDG_CONFIG_HOME", "")
    base = Path(given) if os.path.isabs(given) else Path(environ.get("HOME", "/")) / ".config"
    return base / APP / "tokens"


def find(account: Account, environ: Mapping[str, str] = os.environ) -> Login | None:
    """Return the login for a source at an address.

    Raises:
        ConfigError: there is one, but it cannot be read.
    """
    path = _path(account, environ)
    record = _read(path)
    if record is None:
        return None
    user = record.get("user")
    user = user if isinstance(user, str) else None
    if record.get("kept") == "keyring":
        secret = system_keyring.get(account.in_keyring)
        if secret is None:
            message = f"the login of {account.name!r} is no longer in the system keyring: `artifactfs login` renews it"
            raise errors.ConfigError(message)
        return Login(SecretStr(secret), user, "login (system keyring)")
    return Login(SecretStr(str(record.get("token", ""))), user, f"login ({path})")


def keep(account: Account, login: Login, environ: Mapping[str, str] = os.environ) -> str:
    """Keep a login in the place of the one before; return where, in a sentence's words.

    Raises:
        ConfigError: it could not be kept; what was there before still is, or is in no place.
    """
    secret = login.secret.get_secret_value()
    facts = {"source": account.name, "service": account.service, "url": account.place, "user": login.user}
    path = _path(account, environ)
    why_not = system_keyring.put(account.in_keyring, secret)
    with _told(path):
        _write(path, {**facts, "kept": "keyring"} if why_not is None else {**facts, "kept": "file", "token": secret})
    if why_not is None:
        return "in the system keyring"
    system_keyring.drop(account.in_keyring)  # an older one, of a time when there was a keyring that worked
    return f"in {path}, which only you can read ({why_not})"


def drop(name: str, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Forget every login of a source, whatever its address was; return from where.

    Raises:
        ConfigError: one could not be removed.
    """
    gone = []
    for path in _paths(name, environ):
        try:
            record = _read(path) or {}
        except errors.ConfigError:
            record = {}  # damaged, or open to others: it goes, too
        if record.get("source", name) != name:
            continue  # the names of both are too long to be told apart by their files'
        if record.get("kept") == "keyring":
            problem = system_keyring.drop(Account(name, "", str(record.get("url"))).in_keyring)
            if problem:
                message = f"the login of {name!r} could not be removed from the system keyring: {problem}"
                raise errors.ConfigError(message)
        with _told(path):
            path.unlink()
        gone.append("the system keyring" if record.get("kept") == "keyring" else str(path))
    with contextlib.suppress(FileNotFoundError), _told(directory(environ)):
        _sweep(directory(environ))
    return gone


def is_known(name: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Tell whether there is a login for a source of that name, at whatever address; nothing is read."""
    return bool(_paths(name, environ))


def _path(account: Account, environ: Mapping[str, str]) -> Path:
    return directory(environ) / f"{_shown(account.name)}-{account.fingerprint}.json"


def _paths(name: str, environ: Mapping[str, str]) -> list[Path]:
    pattern = re.compile(re.escape(_shown(name)) + r"-[0-9a-f]{16}\.json")
    try:
        found = os.listdir(directory(environ))
    except OSError:
        return []
    return [directory(environ) / file for file in sorted(found) if pattern.fullmatch(file)]


def _shown(name: str) -> str:
    return quote(name, safe="")[:SHOWN_NAME]


def _read(path: Path) -> dict[str, Any] | None:
    """Return what a file of ours says, None if there is none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        message = f"the login in {path} cannot be read: {error.strerror}"
        raise errors.ConfigError(message) from error
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in {os.geteuid(), private.ROOT}:
            message = f"the login in {path} is not used: it belongs to somebody else"
            raise errors.ConfigError(message)
        if stat.S_IMODE(found.st_mode) & private.OTHERS:
            message = f"the login in {path} is not used: others can read it; log in again, with a new token"
            raise errors.ConfigError(message)
        raw = file.read(MAX_BYTES)
    try:
        record = json.loads(raw)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        # Not what is wrong with it: the words would hold a piece of it.
        message = f"the login in {path} is damaged: `artifactfs login` renews it"
        raise errors.ConfigError(message)
    return record


def _write(path: Path, record: Mapping[str, object]) -> None:
    """Put a file in its place, whole and durable."""
    private.directory(path.parent)
    _sweep(path.parent)
    new = path.with_name(f"{UNFINISHED}{os.getpid()}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, private.FILE)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(json.dumps(record).encode())
            file.flush()
            os.fsync(fd)
        new.rename(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    above = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(above)
    finally:
        os.close(above)


def _sweep(place: Path) -> None:
    """Remove what a process left that ended while it wrote: there may be a token in it."""
    for path in place.glob(f"{UNFINISHED}*"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{path}: {error.strerror}"
        raise errors.ConfigError(message) from error
