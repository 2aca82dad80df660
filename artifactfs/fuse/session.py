"""One FUSE session: mount, answer until unmounted, close."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import pyfuse3
import trio

from artifactfs import observe
from artifactfs.fuse import connection, interrupts, notify
from artifactfs.fuse.convert import Owner
from artifactfs.fuse.operations import Operations, WritableOperations
from artifactfs.fuse.xattrs import WritableXattrOperations, XattrOperations
from artifactfs.vfs.filesystem import FileSystem

log = logging.getLogger(__name__)

FSNAME = "artifactfs"
# pyfuse3 answers this many requests at once before it stops reading new ones: as many as a busy build tree opens files;
# its default of 99 lets 99 stuck downloads stall the whole mount.
MAX_TASKS = 500
# Requests that have been given up are answered within milliseconds.
END_S = 2.0
# What pyfuse3 says of an answer to a program that was killed while it waited; the kernel says ENOENT.
GONE = re.compile(r"fuse_\w+\(\): fuse_reply_\* failed with No such file or directory")


def _matters(record: logging.LogRecord) -> bool:
    """Tell whether a record of pyfuse3 is news: that nobody takes an answer any more is not, its program was killed."""
    return not (record.levelno >= logging.ERROR and GONE.fullmatch(record.getMessage()))


def make_operations(
    fs: FileSystem, owner: Owner, observer: observe.Observer, timeout_s: float, *, xattrs: bool
) -> Operations:
    """Return the handlers that fit what is mounted."""
    writable = any(source.provider.publisher is not None for source in fs.sources.values())
    kinds = {
        (False, False): Operations,
        (True, False): WritableOperations,
        (False, True): XattrOperations,
        (True, True): WritableXattrOperations,
    }
    return kinds[(writable, xattrs)](fs, owner, observer, timeout_s)


@asynccontextmanager
async def session(operations: Operations, mountpoint: Path, extra_options: Collection[str]) -> AsyncIterator[None]:
    """Mount, and answer requests while the block runs; unmount at its end.

    Raises:
        OSError: the mount was refused.
    """
    options = set(pyfuse3.default_options)
    options |= {f"fsname={FSNAME}", f"subtype={FSNAME}", "nosuid", "nodev", "noatime", *extra_options}
    announcer = operations.fs.announcer
    announcer.changed = notify.entry_changed
    operations.fs.directories.trees.spoiled = notify.pages_spoiled
    for name in ("pyfuse3", "pyfuse3._pyfuse3"):
        logging.getLogger(name).addFilter(_matters)
    try:
        pyfuse3.init(operations, str(mountpoint), options)
    except RuntimeError as error:
        raise OSError(str(error)) from error
    clean = False
    try:
        async with trio.open_nursery() as nursery:
            ended = trio.Event()
            nursery.start_soon(_answer, ended)
            nursery.start_soon(_end_with, ended, nursery.cancel_scope)
            nursery.start_soon(_widen, mountpoint)
            nursery.start_soon(interrupts.watch, operations)
            yield
            # Whoever waits for a service is told now; those are the requests that would keep the loop from ending.
            operations.interrupt(older_than_s=0.0)
            pyfuse3.terminate()
            with trio.move_on_after(END_S):
                await ended.wait()
            nursery.cancel_scope.cancel()
        clean = True
    finally:
        announcer.changed = lambda _parent, _name: None  # requests that are under way still end
        pyfuse3.close(unmount=True)
        log.debug("the session is closed%s", "" if clean else " after an error")


async def _widen(mountpoint: Path) -> None:
    await trio.to_thread.run_sync(connection.widen, mountpoint, abandon_on_cancel=True)


async def _answer(ended: trio.Event) -> None:
    try:
        await pyfuse3.main(max_tasks=MAX_TASKS)
    finally:
        ended.set()


async def _end_with(ended: trio.Event, scope: trio.CancelScope) -> None:
    """End the block when the kernel has ended the session (somebody unmounted)."""
    await ended.wait()
    scope.cancel()
