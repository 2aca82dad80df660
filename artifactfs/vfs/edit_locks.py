"""Several edits at rest while names and records change.

Rules of this file: who holds the locks of several edits holds the order of their source first, so that two never wait
for each other; who holds one edit's lock waits for no order. Sealing takes the lock: what is held here must not seal.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

from artifactfs.vfs.overlay import Edit


async def at_rest(edits: Iterable[Edit | None]) -> None:
    """Wait for what is being done to edits at this moment, before others have to wait for it, too."""
    for edit in edits:
        if edit is not None:
            async with edit.lock:
                pass


@asynccontextmanager
async def all_locked(edits: Iterable[Edit | None]) -> AsyncIterator[None]:
    """Keep edits from being made durable, and from being written to anew, while the block runs."""
    async with AsyncExitStack() as held:
        for edit in {id(edit): edit for edit in edits if edit is not None}.values():
            await held.enter_async_context(edit.lock)
        yield
