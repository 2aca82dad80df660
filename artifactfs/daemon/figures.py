"""What a mount holds at this moment, in numbers: for whoever looks for what is never given back.

Rules of this file: no I/O but looking at this process; whatever is counted here must come back to where it was once
nobody uses the mount any more and the kernel has forgotten its names.
"""

from __future__ import annotations

import gc
import os
import threading
from collections import Counter
from collections.abc import Mapping

import trio

from artifactfs.daemon.compose import Mounted
from artifactfs.fuse.operations import Operations
from artifactfs.providers.base import Provider
from artifactfs.providers.connections import Pool


def figures(mounted: Mounted, operations: Operations) -> Mapping[str, int]:
    """Return the numbers.

    ``lookups`` is the sum of what the kernel has been told and not forgotten; ``running`` are operations that have not
    been answered, ``slots`` leaves to use a connection that are taken, ``idle`` connections that are kept for later.
    """
    fs = mounted.fs
    pools = [pool for source in fs.sources.values() if (pool := _pool(source.provider)) is not None]
    overlay = fs.writer.overlay
    return {
        "descriptors": len(os.listdir("/proc/self/fd")) - 1,  # the one it is listed by
        "threads": threading.active_count(),
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "inodes": len(fs.inodes),
        "lookups": sum(node.nlookup for node in fs.inodes.nodes()),
        "handles": len(fs.handles),
        "running": len(operations.running),
        "slots": sum(pool.slots.busy for pool in pools),
        "idle": sum(pool.idle_count() for pool in pools),
        "edits": len(overlay.edits) + len(overlay.removals),
        "journal_bytes": sum(home.used_bytes for home in mounted.homes),
    }


def _pool(provider: Provider) -> Pool | None:
    """Return the connections of a source, which its provider keeps to itself; a local store has none."""
    requester = getattr(getattr(provider, "_http", None), "_wire", None)
    sender = getattr(requester, "sender", None)
    return sender if isinstance(sender, Pool) else None


def types(most: int) -> Mapping[str, int]:
    """Return how many objects there are of the most frequent types: the ones that grow are what is kept."""
    gc.collect()
    counted = Counter(f"{type(found).__module__}.{type(found).__qualname__}" for found in gc.get_objects())
    return dict(counted.most_common(most))
