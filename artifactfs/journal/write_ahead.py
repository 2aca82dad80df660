"""Whether SQLite would leave out a part of a write-ahead log that was committed.

SQLite reads a log up to the first frame whose checksum is another one, and takes what follows for the rest of an
earlier use of the file, or of a transaction that a power cut or a kill has cut off. Here a frame that belongs to
the present use (it has the header's salts), ends a transaction, and stands behind such a place says that this is
damage. The format: sqlite.org/fileformat2.html, section 4.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

HEADER, FRAME = 32, 24
# The lowest bit says in which byte order the checksums are.
MAGIC = 0x377F0682
_WORD = 0xFFFFFFFF


def is_damaged(path: Path) -> bool:
    """Tell whether commits in a log are behind damage; a log that is not there is not damaged.

    Raises:
        OSError: it cannot be read.
    """
    if not os.path.lexists(path):
        return False
    # A pipe would be waited for.
    return not path.is_file() or path.is_symlink() or _is_damaged(path.read_bytes())


def _is_damaged(raw: bytes) -> bool:
    if len(raw) <= HEADER:
        return False  # nothing is committed in it
    magic, _, page, _, salt1, salt2, *given = struct.unpack_from(">8I", raw)
    if magic & ~1 != MAGIC:
        return True
    order = ">" if magic & 1 else "<"
    total = _checksum(raw[: HEADER - 8], order, (0, 0))
    if list(total) != given or not 512 <= page <= 65536:  # noqa: PLR2004 - SQLite's limits
        return True
    size, is_whole = FRAME + page, True
    for at in range(HEADER, len(raw) - FRAME + 1, size):
        _, commit, *salts = struct.unpack_from(">4I", raw, at)
        if is_whole:
            body = raw[at : at + 8] + raw[at + FRAME : at + size]
            after = _checksum(body, order, total)
            if salts == [salt1, salt2] and after == struct.unpack_from(">2I", raw, at + 16):
                total = after
                continue
            # The last commit may have been cut off by a kill, or was not written to its end.
            is_whole = False
        elif commit and salts == [salt1, salt2]:
            return True
    return False


def _checksum(data: bytes, order: str, start: tuple[int, int]) -> tuple[int, int]:
    first, second = start
    words = struct.unpack(f"{order}{len(data) // 4}I", data[: len(data) // 4 * 4])
    for at in range(0, len(words) - 1, 2):
        first = (first + words[at] + second) & _WORD
        second = (second + words[at + 1] + first) & _WORD
    return first, second
