"""``login`` and ``logout``."""

from __future__ import annotations

import getpass
import sys
import warnings
from pathlib import Path

from pydantic import SecretStr

from artifactfs import config, errors
from artifactfs.cli import checks, client, render
from artifactfs.config import logins, tokens
from artifactfs.daemon.mounts import socket_path

# What a token may have, and a byte more: whoever pipes a disk in is told so at once.
MAX_READ = tokens.MAX_TOKEN + 1


def login(config_file: Path | None, name: str, user: str | None, *, check: bool) -> None:
    """Ask for the token of a source, try it, keep it, and tell running mounts.

    Raises:
        ConfigError: there is no such source, or the token is none; nothing is kept.
        AccessDenied: the service does not take it; nothing is kept.
    """
    settings = config.load(config_file)
    account = config.account_of(settings, name)
    if user is not None and account.service != "syntropic137":
        message = f"{account.service} knows no users with passwords; leave out --user"
        raise errors.ConfigError(message)
    what = f"password of {user}" if user is not None else "token"
    given = config.Login(SecretStr(_asked(f"{what} for {name} ({account.place}): ", what)), user)
    tokens.of_login(name, given)
    if check:
        _must_work(settings, name, given)
    render.say(f"{name}: the {what} is kept {logins.keep(account, given)}")
    _tell_mounts(name)


def logout(config_file: Path | None, name: str) -> None:
    """Forget what was kept for a source, here and in running mounts.

    Raises:
        ConfigError: nothing was, or it cannot be removed.
    """
    gone = logins.drop(name)
    for place in gone:
        render.say(f"{name}: removed from {place}")
    # Also if there was nothing: an earlier try may have come this far.
    _tell_mounts(name, forget=True)
    if not gone:
        known = config.all_sources(config.load(config_file))
        message = f"there is no login for {name!r}" + ("" if name in known else ", and no such source")
        raise errors.ConfigError(message)


def _asked(prompt: str, what: str) -> str:
    """Return what was typed without echo, or came through a pipe, without blanks and line ends around it."""
    try:
        given = _typed(prompt) if sys.stdin.isatty() else sys.stdin.buffer.read(MAX_READ).decode()
    except EOFError:
        given = ""
    except UnicodeDecodeError:
        message = f"the {what} is not UTF-8"
        raise errors.ConfigError(message) from None
    if not given.strip():
        message = f"no {what} was given; it is asked for on a terminal, or read from standard input"
        raise errors.ConfigError(message)
    if len(given) > tokens.MAX_TOKEN:
        message = f"the {what} is longer than {tokens.MAX_TOKEN >> 10} KiB: that is something else"
        raise errors.ConfigError(message)
    if not given.strip().isprintable():
        message = f"the {what} holds line breaks or control characters: that is something else, or more than one"
        raise errors.ConfigError(message)
    return given.strip()


def _typed(prompt: str) -> str:
    with warnings.catch_warnings():
        # It would go on and show what is typed.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass(prompt)
        except getpass.GetPassWarning:
            message = "this terminal would show what is typed: pipe it in"
            raise errors.ConfigError(message) from None


def _must_work(settings: config.Config, name: str, given: config.Login) -> None:
    failed = [one for one in checks.ask(settings, config.resolve(settings, name, login=given)) if not one.ok]
    if failed:
        said = "; ".join(f"{one.what}: {one.detail}" for one in failed)
        message = f"nothing is kept, as {name} does not work with it (--no-check keeps it anyway): {said}"
        raise errors.AccessDenied(message)


def _tell_mounts(name: str, *, forget: bool = False) -> None:
    """Have running mounts look for what is new; one that does not answer finds it when it is refused."""
    for mountpoint in client.our_mounts():
        if not socket_path(mountpoint).exists():
            continue  # another user's
        try:
            answer = client.ask(mountpoint, client.QUICK_S, verb="renew", source=name, forget=forget)
        except errors.ArtifactFSError as error:
            render.complain(f"{mountpoint} could not be told: {error}")
            continue
        if answer["mounted"]:
            what = f"{'now uses' if answer['renewed'] else 'goes on with'} {answer['where'] or 'no token'}"
            render.say(f"{name}: the mount at {mountpoint} {what}")
