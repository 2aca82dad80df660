"""A gzip stream decoded as it arrives, with bounds, and believed only when it ends well.

Rules of this file:

* No I/O, no clock, nothing kept but the decoder's window: memory does not depend on what is fed.
* A piece handed out is at most ``MAX_PIECE`` long, whatever the data expands to.
* CRC and length of every member are compared by zlib itself (``wbits`` 31). ``close()`` raises unless the
  last member was seen to its trailer: until then nothing that was handed out may be believed.
* Members follow each other until the end of the input (bgzip, ``pigz -i``, eStargz). Zeros after a member are
  padding. Anything else that is no gzip header is ignored, as GNU gzip does, but told in
  ``trailing_garbage``: it could be the damaged rest of the content, so its reader must know the end by other
  means.
* What inflates is given from outside: zlib of Python, or one that also tells where deflate blocks end
  (``inflate_blocks``).
* It does not know what it decodes; ``describe_content`` names what is there in place of something expected.
"""

from __future__ import annotations

import codecs
import enum
import zlib
from typing import TYPE_CHECKING, Protocol

from artifactfs.errors import CorruptContent, LimitExceeded
from artifactfs.model.limits import named

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from artifactfs.model.limits import Limits

MIB = 1024 * 1024

# What is handed from thread to thread should not be smaller than this (archives.md 2.3), and a bomb of 1028:1
# would turn a network chunk into gigabytes if it were not cut somewhere.
MAX_PIECE = 256 * 1024

# Input goes to zlib in steps of this size. zlib copies what it leaves over, after each full piece and at each
# member's end. Measured: an ordinary archive gives 220 MB/s with 16 KiB, 238 with 64 KiB, 242 with 1 MiB; a
# stream of 20-byte members takes 0.10, 0.14 and 1.17 s per MiB.
INPUT_STEP = 64 * 1024

# A tar archive shows its magic at 257..262; one block is enough to name everything else too.
SNIFF_LENGTH = 512

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WBITS = 16 + zlib.MAX_WBITS  # 16 tells zlib: gzip header, and a trailer that is checked


class Inflater(Protocol):
    """What decodes one gzip member, as ``zlib.decompressobj`` does."""

    @property
    def eof(self) -> bool:
        """Whether the member has ended."""

    @property
    def unused_data(self) -> bytes:
        """What stands behind the member's end."""

    @property
    def unconsumed_tail(self) -> bytes:
        """What of the last input was not taken for want of room."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Decode; at most ``max_length`` bytes come out."""


def plain_inflater(_begin_in: int, _begin_out: int) -> Inflater:
    """Return Python's own."""
    return zlib.decompressobj(_GZIP_WBITS)


class _State(enum.Enum):
    """Where in the stream the next byte stands."""

    BETWEEN = "between"  # at the start, or behind a member's trailer
    MEMBER = "member"
    GARBAGE = "garbage"  # behind the last member, to the end of the input


class Gunzip:
    """Incremental decoder of a gzip stream of any number of members.

    ``feed`` must be iterated to its end before it is called again. After an error the object is of no use.
    """

    def __init__(self, limits: Limits, make_inflater: Callable[[int, int], Inflater] = plain_inflater) -> None:
        """``make_inflater`` is told where a member begins: in the input and in the output, in bytes."""
        self._limits = limits
        self._make_inflater = make_inflater
        self._state = _State.BETWEEN
        self._head = b""  # bytes between members that do not decide yet; shorter than SNIFF_LENGTH
        self._inflater: Inflater = zlib.decompressobj(_GZIP_WBITS)
        self.bytes_in = 0
        self.bytes_out = 0
        self.members = 0  # complete ones

    def __repr__(self) -> str:
        return (
            f"<Gunzip {self._state.value}: {self.bytes_in} bytes in, {self.bytes_out} out, "
            f"{self.members} members complete>"
        )

    @property
    def trailing_garbage(self) -> bool:
        """Whether bytes behind the last member were ignored."""
        return self._state is _State.GARBAGE

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Decode what follows; yields pieces of at most ``MAX_PIECE``.

        Raises:
            CorruptContent: not gzip, or damaged.
            LimitExceeded: it grows beyond what was allowed.
        """
        for start in range(0, len(data), INPUT_STEP):
            step = data[start : start + INPUT_STEP]
            self.bytes_in += len(step)
            if self.bytes_in > self._limits.max_archive:
                raise LimitExceeded(f"the archive is larger than {named(self._limits, 'max_archive')} bytes")
            while step and self._state is not _State.GARBAGE:
                step = (yield from self._inflate(step)) if self._state is _State.MEMBER else self._enter(step)

    def close(self) -> None:
        """Say that the input has ended.

        Raises:
            CorruptContent: it ended too early, or there was no gzip stream.
        """
        cut = self._state is _State.MEMBER or (self._head and _GZIP_MAGIC.startswith(self._head))
        if cut:
            raise CorruptContent(f"the gzip stream is cut off after {self.bytes_in} bytes")
        if not self.members:
            raise CorruptContent(f"not a gzip archive but {describe_content(self._head)}")
        if self._head:
            self._state = _State.GARBAGE

    def _enter(self, step: bytes) -> bytes:
        """Decide what stands between two members; returns what belongs to the next one."""
        head = self._head + step
        if self.members:
            head = head.lstrip(b"\0")
        self._head = head
        if len(head) < len(_GZIP_MAGIC):
            return b""
        if head.startswith(_GZIP_MAGIC):
            self._begin_member(self.bytes_in - len(head))
            return head
        if self.members:
            self._state = _State.GARBAGE
        elif len(head) >= SNIFF_LENGTH:
            raise CorruptContent(f"not a gzip archive but {describe_content(head)}")
        return b""

    def _begin_member(self, begin_in: int) -> None:
        if self.members >= self._limits.max_gzip_members:
            raise LimitExceeded(f"the archive has more gzip members than {named(self._limits, 'max_gzip_members')}")
        self._inflater = self._make_inflater(begin_in, self.bytes_out)
        self._head = b""
        self._state = _State.MEMBER

    def _inflate(self, step: bytes) -> Generator[bytes, None, bytes]:
        """Decode within a member; returns what stands behind its trailer."""
        while True:
            try:
                piece = self._inflater.decompress(step, MAX_PIECE)
            except zlib.error as exc:
                raise CorruptContent(
                    f"the gzip stream is damaged near byte {self.bytes_in} (member {self.members + 1}): {exc}"
                ) from exc
            if piece:
                self._account(len(piece))
                yield piece
            if self._inflater.eof:
                self.members += 1
                self._state = _State.BETWEEN
                return self._inflater.unused_data
            step = self._inflater.unconsumed_tail
            # A full piece may hide more output inside zlib (half a match), even with all input consumed.
            if not step and len(piece) < MAX_PIECE:
                return b""

    def _account(self, length: int) -> None:
        self.bytes_out += length
        limits = self._limits
        if self.bytes_out > limits.max_output:
            raise LimitExceeded(f"the archive unpacks to more than {named(limits, 'max_output')} bytes")
        if self.bytes_out > limits.ratio_floor and self.bytes_out > limits.max_ratio * self.bytes_in:
            raise LimitExceeded(f"the archive unpacks to more than {named(limits, 'max_ratio')} times its size: a bomb")


_MAGICS: tuple[tuple[bytes, str], ...] = (
    (_GZIP_MAGIC, "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "a zip archive (empty)"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\x1f\x9d", "a Unix compress file"),
    (b"%PDF-", "a PDF document"),
)
_MARKUPS: tuple[tuple[bytes, str], ...] = (
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<?xml", "an XML document (object stores answer errors so)"),
    (b"<error", "an XML document (object stores answer errors so)"),
    (b"{", "JSON"),
    (b"[", "JSON"),
)


def describe_content(head: bytes) -> str:
    """Name what begins with ``head`` (up to ``SNIFF_LENGTH`` bytes), for a person. Never quotes it."""
    if not head:
        return "empty"
    if head[257:262] == b"ustar":
        return "a plain tar archive"
    for magic, name in _MAGICS:
        if head.startswith(magic):
            return name
    text = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    for start, name in _MARKUPS:
        if text.startswith(start):
            return name
    if b"\0" not in head:
        try:
            codecs.getincrementaldecoder("utf-8")().decode(head)  # incremental: the end may be half a character
        except UnicodeDecodeError:
            pass
        else:
            return "text"
    return "data of an unknown kind"
