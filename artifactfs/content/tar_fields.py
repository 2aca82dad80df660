"""Fields of a tar header: numbers, times and texts as writers have left them there.

Rules of this file: pure. What is impossible as a size is an error of the archive; an odd mode or time counts as absent.
"""

from __future__ import annotations

import re

from artifactfs.errors import CorruptContent

BLOCK = 512  # POSIX.1-1988 ustar: everything stands in blocks of this size
# What fits 63 bits of nanoseconds, in whole seconds (the year 2262): SQLite and struct stop there.
_MAX_MTIME_S = (2**63 - 1) // 10**9
_PAX_TIME = re.compile(rb"(-?)([0-9]{1,20})(?:\.([0-9]*))?\Z")
_MAX_SIZE = 2**63 - 1  # POSIX off_t


def padding(size: int) -> int:
    """Return how many bytes stand between the end of a content and the next header."""
    return -size % BLOCK


def text(field: bytes) -> bytes:
    """Return a text that may end before its field does."""
    return field.partition(b"\0")[0]


def octal(field: bytes) -> int:
    """Read an octal number or raise ``ValueError``; int() alone would take signs and underscores too."""
    digits = text(field).strip(b" ")
    if digits and not digits.isdigit():
        raise ValueError(field)
    return int(digits or b"0", 8)


def _number(field: bytes) -> int:
    """Read a number, octal or GNU base-256 (first byte 0x80, or 0xff for a negative one)."""
    if field[0] == 0x80:  # noqa: PLR2004 - the numbers of the tar format
        return int.from_bytes(field[1:], "big")
    if field[0] == 0xFF:  # noqa: PLR2004 - the numbers of the tar format
        return int.from_bytes(field, "big", signed=True)
    return octal(field)


def size_of(field: bytes, pax: bytes | None = None) -> int:
    """Read the size, which a PAX record overrules: the header's field is then often nonsense."""
    try:
        # int() raises ValueError on more than 4300 digits too, but takes signs and underscores.
        size = _number(field) if not pax else int(pax) if pax.isdigit() else -1
    except ValueError:
        size = -1
    if not 0 <= size <= _MAX_SIZE:
        raise CorruptContent("a tar header has a size that is impossible or no number")
    return size


def mode(field: bytes) -> int:
    """Permission bits; setuid, setgid, sticky and whatever else is in the field is dropped."""
    try:
        return _number(field) & 0o777
    except ValueError:
        return 0o644


def header_time(field: bytes) -> int | None:
    """Return the nanoseconds of a header's own time, None if it is no number."""
    try:
        return _clamped(_number(field), 0)
    except ValueError:
        return None


def pax_time(value: bytes) -> int | None:
    """Decimal seconds to nanoseconds, not rounded as a float; anything else (NaN, 1e9) is no time."""
    match = _PAX_TIME.match(value)
    if match is None:
        return None
    minus, seconds, fraction = match.groups()
    return _clamped(-1 if minus else int(seconds), int((fraction or b"")[:9].ljust(9, b"0")))


def _clamped(seconds: int, nanoseconds: int) -> int:
    """Before 1970 is 1970, as FUSE counts unsigned seconds; beyond 2262 is 2262."""
    if seconds < 0:
        return 0
    if seconds >= _MAX_MTIME_S:
        return _MAX_MTIME_S * 10**9
    return seconds * 10**9 + nanoseconds
