"""From start to end of a mount's process.

The order. Start: demo server if asked, wiring, drafts an earlier mount left, the mount, the control socket, readiness.
End (unmounted, SIGTERM, SIGINT): the socket, the kernel's requests, requests under way, stores, the demo server; within
the bound that ``watchdog`` sets, and at once if told twice.
"""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import gc
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from artifactfs import config, errors, observe, private
from artifactfs.daemon import control, exporter, mounts
from artifactfs.daemon.allocator import keep_trimmed, tune_allocator
from artifactfs.daemon.compose import Mounted, composed
from artifactfs.daemon.verbs import Verbs
from artifactfs.daemon.watchdog import TELLING, Watchdog
from artifactfs.fuse.convert import Owner
from artifactfs.fuse.session import make_operations, session

log = logging.getLogger(__name__)

# The first has everything logged, the second what is configured.
LEVEL_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to mount where.

    ``at_root``: the one source's workflows stand at the top, instead of a directory for each source.
    """

    settings: config.Config
    sources: Sequence[config.Source]
    mountpoint: Path
    at_root: bool
    state: Path


def fuse_options(section: config.MountConfig) -> set[str]:
    """Return the mount options that the configuration asks for."""
    options = set()
    if section.allow_other:
        options.add("allow_other")
    if not section.exec:
        options.add("noexec")
    return options


@contextmanager
def _owner() -> Iterator[Owner]:
    """Have the owner that everything shown has; what this process makes itself meanwhile is that user's alone."""
    umask = os.umask(private.OTHERS)
    try:
        yield Owner(os.getuid(), os.getgid(), umask)
    finally:
        os.umask(umask)


def tune_collector() -> None:
    """Keep the garbage collector from stopping the loop: 100,000 inodes cost a full collection 31 ms (measured).

    What was made until now lives as long as the mount and is not looked at again. It is not collected first: that would
    cost 30 ms between the mount and its readiness and free next to nothing.
    """
    gc.freeze()
    # 80,000 objects at once in the middle generation, about 30 ms; a million took 200 (measured).
    gc.set_threshold(20_000, 4, 600)
    gc.enable()


@contextmanager
def _alone(mountpoint: Path) -> Iterator[None]:
    """Let one process at a time mount at a place, and only where there is no mount of ours.

    The lock is on the directory below the mount, so nothing is left over.

    Raises:
        ConfigError: another one was first.
    """
    fd = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if mountpoint in mounts.ours():
            message = f"artifactfs is mounted at {mountpoint} already; `artifactfs umount {mountpoint}` ends it"
            raise errors.ConfigError(message)
        yield
    finally:
        os.close(fd)


@asynccontextmanager
async def running(plan: Plan, watchdog: Watchdog | None = None) -> AsyncIterator[Mounted]:
    """Have a mount while the block runs."""
    async with AsyncExitStack() as stack:
        owner = stack.enter_context(_owner())
        mounted = await stack.enter_async_context(
            composed(plan.settings, plan.sources, plan.mountpoint, at_root=plan.at_root, state=plan.state)
        )
        section = plan.settings.mount
        operations = make_operations(mounted.fs, owner, mounted.observer, section.timeout, xattrs=section.xattrs)
        with _alone(plan.mountpoint):
            await stack.enter_async_context(session(operations, plan.mountpoint, fuse_options(section)))
        nursery = await stack.enter_async_context(trio.open_nursery())
        verbs = Verbs(mounted, operations, plan.settings)
        if watchdog is not None:
            mounted.status.loop = watchdog.report
            nursery.start_soon(watchdog.beat)
        await nursery.start(control.serve, verbs.table(), mounts.socket_path(plan.mountpoint))
        status = mounted.status
        await nursery.start(
            exporter.serve, plan.settings.metrics.listen, mounts.metrics_path(plan.mountpoint), status.metrics_text,
            status.served_at,
        )  # fmt: skip
        nursery.start_soon(mounted.poller.run)
        nursery.start_soon(keep_trimmed)
        tune_collector()
        yield mounted
        nursery.cancel_scope.cancel()


async def run(plan: Plan, ready: Callable[[], None]) -> None:
    """Mount, say so, and stay until unmounted or told to end."""
    tune_allocator()
    # `kill -QUIT` has the stacks of all threads in the log, also when the loop is stuck: `debug-bundle` asks for them.
    with contextlib.suppress(RuntimeError, ValueError, OSError):  # a stderr that is no file
        faulthandler.register(signal.SIGQUIT, all_threads=True, chain=False)
    watchdog = Watchdog(plan.mountpoint, plan.settings.mount.watchdog_abort)
    with trio.open_signal_receiver(*TELLING, *LEVEL_SIGNALS) as signals, watchdog.watching():
        async with running(plan, watchdog):
            try:
                ready()
                async for number in signals:
                    if number in LEVEL_SIGNALS:
                        observe.set_level("debug" if number == signal.SIGUSR1 else plan.settings.log_level)
                        continue
                    log.info("ending on %s", signal.Signals(number).name)
                    break
            finally:
                watchdog.ending()


def report(ready_fd: int, message: Mapping[str, object]) -> None:
    """Tell the process that started this one how it went, once."""
    try:
        os.write(ready_fd, json.dumps(message).encode() + b"\n")
        os.close(ready_fd)
    except OSError as error:
        log.debug("nobody waits to hear of it: %s", error)
