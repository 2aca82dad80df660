"""The process of a mount, in the foreground or started in the background."""

from __future__ import annotations

import logging
import os

import trio

from artifactfs import config, errors, observe
from artifactfs.cli import mounting, render
from artifactfs.cli.options import MountOptions
from artifactfs.daemon import demo, lifecycle

log = logging.getLogger(__name__)

# What shells say of a program that Ctrl-C ended: here, before there was a mount to end in order.
INTERRUPTED = 130


def run(options: MountOptions) -> int:
    """Mount and stay; return the exit code."""
    try:
        settings = options.settings()
        observe.set_up_logging(settings.log_level)
        if options.ready_fd is None:
            mounting.check_fuse()
            note = mounting.prepare(options.mountpoint)
            if note:
                render.say(note)
        trio.run(_demo if options.demo else _mount, options, settings)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is not None:
            return INTERRUPTED
        if not isinstance(group, ExceptionGroup):
            raise
        return _failed(options, group)
    except Exception as error:  # noqa: BLE001 - whoever started this must hear of it
        return _failed(options, error)
    return 0


def _ready(options: MountOptions) -> None:
    if options.ready_fd is not None:
        lifecycle.report(options.ready_fd, {"ok": True, "pid": os.getpid()})
    else:
        render.say(f"mounted {options.describe()} at {options.mountpoint}; Ctrl-C unmounts")


def _failed(options: MountOptions, error: Exception) -> int:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    expected = isinstance(error, (errors.ArtifactFSError, OSError))
    if not expected:
        log.error("the mount ended in an unforeseen way", exc_info=error)
    message = str(error) if expected else f"{type(error).__name__}: {error}"
    if options.ready_fd is not None:
        lifecycle.report(options.ready_fd, {"error": message})
    else:
        render.complain(message)
    return 1


async def _mount(options: MountOptions, settings: config.Config) -> None:
    sources = options.sources(settings)
    plan = lifecycle.Plan(
        settings, sources, options.mountpoint, at_root=len(sources) == 1, state=config.state_dir()
    )  # fmt: skip
    await lifecycle.run(plan, lambda: _ready(options))


async def _demo(options: MountOptions, settings: config.Config) -> None:
    async with demo.demo() as shown:
        cache = settings.cache.model_copy(update={"dir": shown.directory / "cache"})
        settings = settings.model_copy(update={"cache": cache})
        plan = lifecycle.Plan(
            settings, shown.sources, options.mountpoint, at_root=False, state=shown.directory / "state"
        )  # fmt: skip
        await lifecycle.run(plan, lambda: _ready(options))
