"""Copies of bytes that somebody may be writing to.

Rules of this file: who holds the edit's lock copies; nobody is kept from writing meanwhile, and nothing that was
written is missing in the copy that takes the place of the bytes.
"""

from __future__ import annotations

import trio

from artifactfs.journal.drafts import Staged
from artifactfs.journal.staging import Staging

# Copies beside a writer; after that everything waits for one more.
TRIES = 3


async def twin(home: Staging, staged: Staged) -> Staged:
    """Return a copy of a draft, as that is at the moment in which this returns.

    Raises:
        OSError: there is no room, or the disk says no; the other draft is as it was.
    """
    for _ in range(TRIES):
        written_at = staged.mtime_ns
        copy = await trio.to_thread.run_sync(home.clone, staged)
        if staged.mtime_ns == written_at:
            return copy
        await trio.to_thread.run_sync(home.discard, copy)
    return home.clone(staged)
