"""The demo: a temporary store with sample data, served on loopback, as four sources.

Rules of this file: the server is a process of its own that ends when its standard input does, so it cannot outlive this
one, however this one ends. What a killed demo left on the disk is removed by the next demo.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio
from pydantic import SecretStr

from artifactfs import config, errors

# Filling the store takes about 2 s on a fast machine.
START_S = 50.0
# Its directory's name, told from whatever else a temporary directory holds.
PREFIX = "artifactfs-demo-"
# Any token will do: the demo's server listens on loopback and asks for none in particular.
TOKEN = SecretStr("Bearer demo")


@dataclass(frozen=True, slots=True)
class Demo:
    """A running demo: its directory and its sources."""

    directory: Path
    sources: list[config.Source]


@asynccontextmanager
async def demo() -> AsyncIterator[Demo]:
    """Have a demo while the block runs."""
    directory, lock = _make_directory()
    try:
        store = directory / "store"
        async with _server(store) as bases:
            yield Demo(directory, _sources(store, bases))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _make_directory() -> tuple[Path, int]:
    """Return a locked directory of this demo; those of dead ones are gone."""
    base = config.runtime_dir()
    # One demo at a time: a directory that is not locked yet would look like a dead one's.
    turn = _lock(base, fcntl.LOCK_EX)
    try:
        _remove_dead(base)
        _remove_dead(Path(tempfile.gettempdir()))
        parent = tempfile.gettempdir() if _small(base) else base
        directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        return directory, _lock(directory, fcntl.LOCK_EX)
    finally:
        os.close(turn)


def _small(base: Path) -> bool:
    """Tell whether a runtime directory is too small for the demo (they are often a tmpfs of a few MB)."""
    return shutil.disk_usage(base).free < 1 << 30


def _lock(directory: Path, how: int) -> int:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, how)
    except OSError:
        os.close(fd)
        raise
    return fd


def _remove_dead(base: Path) -> None:
    for directory in base.glob(f"{PREFIX}*"):
        try:
            lock = _lock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # it is alive, or somebody else's
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


@asynccontextmanager
async def _server(store: Path) -> AsyncIterator[dict[str, str]]:
    command = [sys.executable, "-m", "artifactfs", "serve", "--demo", "--store", str(store), "--port", "0",
               "--json", "--until-eof"]  # fmt: skip
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, check=False)
        )
        line = b""
        with trio.move_on_after(START_S):
            while not line.endswith(b"\n"):
                chunk = await process.stdout.receive_some()
                if not chunk:
                    break
                line += chunk
        if not line.endswith(b"\n"):
            nursery.cancel_scope.cancel()
            message = "the demo's server did not start"
            raise errors.ConfigError(message)
        try:
            yield json.loads(line)
        finally:
            with trio.CancelScope(shield=True):
                await process.stdin.aclose()
                with trio.move_on_after(5) as scope:
                    await process.wait()
                if scope.cancelled_caught:
                    process.kill()


def _sources(store: Path, bases: dict[str, str]) -> list[config.Source]:
    # Of Syntropic137 its newest contract: it can list by session, so a walk of the tree is list pages and nothing else.
    places: dict[config.Service, str] = {
        "vm0": bases["vm0"],
        "syntropic137": bases["syntropic137-c"],
        "vlmrun": bases["vlmrun"],
    }
    remote = [
        config.Source(name=name, service=name, url=url, authorization=TOKEN, allow_private_urls=True)
        for name, url in places.items()
    ]
    return [config.Source(name="local", service="local", path=store), *remote]
