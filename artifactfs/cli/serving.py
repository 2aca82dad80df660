"""``artifactfs serve``."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import platformdirs
import trio

from artifactfs import config, errors, observe, private
from artifactfs.cli import render
from artifactfs.daemon import confinement
from artifactfs.server.app import Serving, serve
from artifactfs.store.catalog import Store


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for."""

    store: Path | None
    host: str
    port: int
    storage_port: int
    demo: bool
    token_file: Path | None
    as_json: bool
    until_eof: bool


def run(request: Request) -> None:
    """Serve until interrupted.

    Raises:
        ConfigError: the store or the token cannot be used, or the port is taken.
    """
    observe.set_up_logging("info")
    token = _token(request.token_file)
    confinement.no_core()
    confinement.forget_variables([config.SERVE_ENV])
    if request.store is None and request.demo:
        with tempfile.TemporaryDirectory(prefix="artifactfs-") as directory:
            _serve(request, Path(directory) / "store", token)
    else:
        _serve(request, (request.store or platformdirs.user_data_path(config.APP) / "store").expanduser(), token)


def _token(path: Path | None) -> str | None:
    if path is None:
        return os.environ.get(config.SERVE_ENV) or None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        message = f"the token file {path} cannot be read: {error.strerror}"
        raise errors.ConfigError(message) from error
    if not token:
        message = f"the token file {path} is empty"
        raise errors.ConfigError(message)
    return token


def _serve(request: Request, directory: Path, token: str | None) -> None:
    os.umask(private.OTHERS)  # also for what is uploaded
    store = Store(directory)
    try:
        if request.demo and not store.workflows():
            from artifactfs.store import demo

            demo.fill(store)
        trio.run(_main, request, store, token)
    except* OSError as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):  # a nursery in a nursery
            error = error.exceptions[0]
        message = f"cannot listen on {request.host} port {request.port}: {error}"
        raise errors.ConfigError(message) from group
    finally:
        store.close()


async def _main(request: Request, store: Store, token: str | None) -> None:
    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            running: Serving = await nursery.start(
                partial(serve, store, request.host, request.port, request.storage_port, token=token, stop=stop.wait)
            )
            _announce(request, running)
            await _until_told(signals, until_eof=request.until_eof)
            # Answers under way are finished: to cut the server off in the middle of one ends in a traceback.
            stop.set()


async def _until_told(signals: AsyncIterator[int], *, until_eof: bool) -> None:
    """Wait for a signal, or for the end of standard input (then the process that started this one is gone)."""

    async def wait_signal() -> None:
        async for _ in signals:
            nursery.cancel_scope.cancel()

    async def wait_eof() -> None:
        async with trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as stream:
            while await stream.receive_some():
                pass
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_signal)
        if until_eof:
            nursery.start_soon(wait_eof)


def _announce(request: Request, running: Serving) -> None:
    if request.as_json:
        sys.stdout.write(json.dumps(running.bases()) + "\n")
        sys.stdout.flush()
        return
    render.table(("service", "base URL"), running.bases().items())
