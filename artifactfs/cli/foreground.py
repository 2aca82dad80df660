"""The process of a mount, in the foreground or started in the background."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

import trio

from artifactfs import config, errors, observe
from artifactfs.cli import mounting, render
from artifactfs.cli.options import MountOptions
from artifactfs.daemon import confinement, demo, lifecycle

log = logging.getLogger(__name__)

# What shells say of a program that Ctrl-C ended: here, before there was a mount to end in order.
INTERRUPTED = 130


Ready = Callable[[], None]


def run(options: MountOptions) -> int:
    """Mount and stay; return the exit code."""

    def work() -> None:
        settings = options.settings()
        shown = options.describe()  # while there are variables to describe it from
        observe.set_up_logging(settings.log_level, settings.log.format)
        mounting.check_fuse()
        note = mounting.prepare(options.mountpoint)
        if note:
            render.say(note)
        _serve(options, settings, lambda: render.say(f"mounted {shown} at {options.mountpoint}; Ctrl-C unmounts"))

    return _guarded(work, render.complain)


def run_in_background(found: dict[str, Any], answers: int) -> int:
    """Mount what the caller has checked; tell ``answers``, once, when it is ready or has failed."""
    options = MountOptions.from_json(found)

    def work() -> None:
        settings = options.settings()
        bounded = observe.BoundedLog(mounting.log_path(options.mountpoint), settings.log.max_size)
        observe.set_up_logging(settings.log_level, settings.log.format, bounded)
        _serve(options, settings, lambda: lifecycle.report(answers, {"ok": True, "pid": os.getpid()}))

    return _guarded(work, lambda message: lifecycle.report(answers, {"error": message}))


def _serve(options: MountOptions, settings: config.Config, ready: Ready) -> None:
    confinement.no_core()
    sources = [] if options.demo else options.sources(settings)
    confinement.forget_variables(config.secret_variables(settings))
    if options.demo:
        trio.run(_demo, options, settings, ready)
    else:
        trio.run(_mount, options, settings, sources, ready)


def _guarded(work: Callable[[], None], failed: Callable[[str], None]) -> int:
    """Return the exit code of what is done here; whoever started it must hear of any failure."""
    try:
        work()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt) is not None:
            return INTERRUPTED
        if not isinstance(group, ExceptionGroup):
            raise
        failed(_words(group))
        return 1
    except Exception as error:  # noqa: BLE001 - as the docstring says
        failed(_words(error))
        return 1
    return 0


def _words(error: Exception) -> str:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, (errors.ArtifactFSError, OSError)):
        return str(error)
    log.error("the mount ended in an unforeseen way", exc_info=error)
    return f"{type(error).__name__}: {error}"


async def _mount(
    options: MountOptions, settings: config.Config, sources: Sequence[config.Source], ready: Ready
) -> None:
    plan = lifecycle.Plan(
        settings, sources, options.mountpoint, at_root=len(sources) == 1, state=config.state_dir()
    )  # fmt: skip
    await lifecycle.run(plan, ready)


async def _demo(options: MountOptions, settings: config.Config, ready: Ready) -> None:
    async with demo.demo() as shown:
        cache = settings.cache.model_copy(update={"dir": shown.directory / "cache"})
        settings = settings.model_copy(update={"cache": cache})
        plan = lifecycle.Plan(
            settings, shown.sources, options.mountpoint, at_root=False, state=shown.directory / "state"
        )  # fmt: skip
        await lifecycle.run(plan, ready)
