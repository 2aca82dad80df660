"""How the C library keeps the memory that this process gives back to it.

Rules of this file: it is tuned once, before there are threads; where the C library is not glibc nothing happens. What
somebody has set for glibc in the environment (``MALLOC_ARENA_MAX`` and its like) is left as it is. Free pages between
what is kept are given back from time to time: by itself glibc gives back the end of its heap alone.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

import trio

# Numbers of glibc's `malloc.h`.
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
# Larger than a block (``content.extents.BLOCK``): one that is mapped anew each time costs 110 us, not 10 (measured).
# Smaller than what is held for a moment only, 1 MiB and more: pieces of files and of archives.
MAPPED_BYTES = 512 * 1024
# So much that is free at the end of the heap is kept for the next block.
KEPT_BYTES = 4 * 1024 * 1024
# Giving 35 MB back takes 6 to 13 ms, in which others may wait for memory; with nothing to give, 0.1 ms (measured).
TRIM_S = 60.0


def tune_allocator(environ: Mapping[str, str] = os.environ) -> bool:
    """Have all threads share one heap, and large buffers lie outside of it; return whether it is so.

    By itself glibc gives every thread a heap of its own, and after the first large buffer puts all of them into those
    heaps, up to 32 MiB each. What is kept for a while then lies spread over a dozen heaps, which hardly shrink:
    two minutes of mixed load left 80 MB free and not given back beside 33 MB in use; this leaves 12 (measured). The
    threads hardly wait for each other: most of what they allocate is while they hold the interpreter's lock (SQLite and
    compression do it without).
    """
    if any(name.startswith("MALLOC_") for name in environ) or "glibc.malloc" in environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = {ARENA_MAX: 1, MMAP_THRESHOLD: MAPPED_BYTES, TRIM_THRESHOLD: KEPT_BYTES}
    return all(mallopt(parameter, value) for parameter, value in wanted.items())


async def keep_trimmed() -> None:
    """Give back what is free in the heap, again and again; return where the C library cannot."""
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    while True:
        await trio.sleep(TRIM_S)
        await trio.to_thread.run_sync(trim, KEPT_BYTES)
