"""What a push sends: JSON, and an archive in a file without a name."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import BinaryIO

import trio

from artifactfs import errors
from artifactfs.providers.bodies import PIECE_BYTES, Bytes


@dataclass(frozen=True, slots=True)
class OpenFile:
    """The first ``length`` bytes of an open file, read without moving its position; it stays its owner's to close."""

    file: BinaryIO
    length: int

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Return them; each piece is read in a thread.

        Raises:
            Unavailable: the disk failed, or there are fewer.
        """
        at = 0
        while at < self.length:
            want = min(PIECE_BYTES, self.length - at)
            try:
                data = await trio.to_thread.run_sync(os.pread, self.file.fileno(), want, at)
            except OSError as error:
                raise errors.Unavailable(f"the packed archive cannot be read: {error.strerror}") from error
            if not data:
                raise errors.Unavailable("the packed archive is shorter than it was")
            at += len(data)
            yield data


async def json_body(value: object) -> Bytes:
    """Return JSON; made in a thread, as that of many files takes longer than an event loop should stand still."""
    return Bytes(await trio.to_thread.run_sync(lambda: json.dumps(value, separators=(",", ":")).encode("ascii")))
