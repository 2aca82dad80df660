"""What the kernel is told without having asked.

Rules of this file: an invalidation that may wait for pages or for a directory's lock never runs on the event loop:
with a request of that inode in flight it would stop the process beyond SIGINT (measured). ``invalidate_entry_async``
hands over to a thread of pyfuse3's own.
"""

from __future__ import annotations

import contextlib

import pyfuse3
import trio

from artifactfs.fuse.convert import bytes_of


def entry_changed(parent_ino: int, name: str) -> None:
    """Make the kernel look a name up again."""
    pyfuse3.invalidate_entry_async(pyfuse3.InodeT(parent_ino), bytes_of(name), ignore_enoent=True)


async def pages_spoiled(ino: int) -> None:
    """Make the kernel forget the bytes of an inode: the next read of an open file asks again, and gets the error."""

    def forget() -> None:
        with contextlib.suppress(OSError):  # the kernel does not know the inode: nothing to forget
            pyfuse3.invalidate_inode(pyfuse3.InodeT(ino), attr_only=False)

    await trio.to_thread.run_sync(forget, abandon_on_cancel=True)
