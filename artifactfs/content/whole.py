"""Content that is read whole, because only its bytes can say what it is.

Rules of this file: what did not come to its end leaves no blocks; what does not end, ends at ``limits.max-file``.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from artifactfs.content.block_store import BlockStore
from artifactfs.content.extents import BLOCK
from artifactfs.errors import CorruptContent, LimitExceeded
from artifactfs.model.limits import ANSWERS, AnswerLimits, named
from artifactfs.providers.base import ContentStream


def check_size(size: int, limits: AnswerLimits) -> None:
    """Refuse content of so many bytes.

    Raises:
        LimitExceeded: as ``read_whole`` says.
    """
    if size > limits.max_file_bytes:
        raise LimitExceeded(
            f"the content is larger than {named(limits, 'max_file_bytes')} bytes, and must be read whole"
        )


def _check_end(size: int, announced: int | None) -> None:
    """Refuse a part, asked for or not, where the whole was wanted.

    Raises:
        CorruptContent: as ``read_whole`` says.
    """
    if announced is not None and size != announced:
        raise CorruptContent(f"the content ended after {size} of {announced} bytes")


@asynccontextmanager
async def closing(chunks: AsyncIterator[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    """End a stream's chunks with the block: a generator that is left in its middle would end when it is collected."""
    try:
        yield chunks
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


async def read_whole(
    opened: AbstractAsyncContextManager[ContentStream], store: BlockStore, key: str, limits: AnswerLimits = ANSWERS
) -> tuple[str, int]:
    """Keep a stream as the blocks of a key; return the SHA-256 and the number of its bytes.

    Raises:
        LimitExceeded: it is larger than content that has to be read whole may be, or says that it will be.
        CorruptContent: it has another size than it says.
    """
    digest, buffer, number, size = hashlib.sha256(), bytearray(), 0, 0
    try:
        async with opened as stream, closing(stream.chunks) as chunks:
            check_size(stream.total or 0, limits)
            async for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                check_size(size, limits)
                buffer += chunk
                while len(buffer) >= BLOCK:
                    store.write(key, number, bytes(buffer[:BLOCK]))
                    del buffer[:BLOCK]
                    number += 1
                    await store.room()
            _check_end(size, stream.total)
        if buffer:
            store.write(key, number, bytes(buffer))
    except BaseException:
        store.discard(key)
        raise
    return digest.hexdigest(), size
