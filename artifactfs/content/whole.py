"""Content that is read whole, because only its bytes can say what it is.

Rules of this file: what did not come to its end leaves no blocks.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractAsyncContextManager

from artifactfs.content.block_store import BlockStore
from artifactfs.content.extents import BLOCK
from artifactfs.providers.base import ContentStream


async def read_whole(
    opened: AbstractAsyncContextManager[ContentStream], store: BlockStore, key: str
) -> tuple[str, int]:
    """Keep a stream as the blocks of a key; return the SHA-256 and the number of its bytes."""
    digest, buffer, number, size = hashlib.sha256(), bytearray(), 0, 0
    try:
        async with opened as stream:
            async for chunk in stream.chunks:
                digest.update(chunk)
                size += len(chunk)
                buffer += chunk
                while len(buffer) >= BLOCK:
                    store.write(key, number, bytes(buffer[:BLOCK]))
                    del buffer[:BLOCK]
                    number += 1
                    await store.room()
        if buffer:
            store.write(key, number, bytes(buffer))
    except BaseException:
        store.discard(key)
        raise
    return digest.hexdigest(), size
