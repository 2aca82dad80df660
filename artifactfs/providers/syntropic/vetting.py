"""What Syntropic137 could not give back as it is, told before a save is acknowledged.

Rules of this file: reads one file, in pieces, in a thread; sends nothing. Contents and titles are JSON strings at the
service: bytes that are not UTF-8 come back as other ones, a row with NUL never appears, a lone surrogate makes every
list fail (all measured, May 2026).
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING

from artifactfs import errors
from artifactfs.model.limits import ANSWERS, AnswerLimits, named

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What the service takes as one content: above it an upload is 413 (service source, May 2026).
MAX_CONTENT = 50 * 1024 * 1024
PIECE = 1024 * 1024
# What an answer holds beside its content; a title is not in it.
ENVELOPE = 1024
# JSON writes these with two characters, and all other control characters with six.
SHORT_ESCAPES = b'"\\\n\r\t\b\f'
CONTROLS = bytes(code for code in range(0x20) if code not in SHORT_ESCAPES)


def vet_title(title: str) -> None:
    """Refuse a title that the service cannot store.

    Raises:
        NameNotAllowed: it has NUL or lone surrogates.
    """
    if "\0" in title or any("\ud800" <= c <= "\udfff" for c in title):
        raise errors.NameNotAllowed("the service takes only names that are text (UTF-8, without NUL)", subject=title)


# NUL, which its database takes in no text, and bytes that stand nowhere in UTF-8 (RFC 3629).
UNSTORABLE = re.compile(rb"[\x00\xc0\xc1\xf5-\xff]")


def vet_size(size: int) -> None:
    """Refuse a content that the service takes nowhere.

    Raises:
        TooLarge: it has more than 50 MB.
    """
    if size > MAX_CONTENT:
        raise errors.TooLarge(f"the service takes {MAX_CONTENT >> 20} MB as one file at most")


def vet_text(path: Path, name: str, limits: AnswerLimits = ANSWERS) -> None:
    """Refuse a content that is no text, or that no answer could hold.

    Raises:
        InvalidRequest: it is not UTF-8, or has NUL.
        TooLarge: so many of its characters must be escaped that an answer with it would not be read.
        CorruptContent: the file cannot be read.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    in_json = ENVELOPE
    try:
        for piece in _pieces(path):
            if b"\0" in piece:
                raise errors.InvalidRequest("the service stores text only, and this has NUL characters", subject=name)
            decoder.decode(piece)
            in_json += _in_json(piece)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        message = "the service stores text only, and this is not UTF-8"
        raise errors.InvalidRequest(message, subject=name) from error
    except OSError as error:
        message = f"what is to be saved cannot be read: {error.strerror}"
        raise errors.CorruptContent(message, subject=name) from error
    if in_json > limits.max_answer_bytes:
        message = (
            f"written as JSON this is larger than {named(limits, 'max_answer_bytes')}, and could not be read again"
        )
        raise errors.TooLarge(message, subject=name)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE):
            yield piece


def _in_json(piece: bytes) -> int:
    short = len(piece) - len(piece.translate(None, SHORT_ESCAPES))
    controls = len(piece) - len(piece.translate(None, CONTROLS))
    return len(piece) + short + 5 * controls
