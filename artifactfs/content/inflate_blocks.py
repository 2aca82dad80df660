"""A decoder of gzip that tells where deflate blocks end, on the libz of the system.

A decoder can be started anew only between two deflate blocks, and Python's zlib does not say where those are. The
libz.so.1 that nearly every Linux has does (``Z_BLOCK``); where it cannot be loaded there are no restart points, and
what was evicted is streamed again from its beginning: slower, as right.

Rules of this file: the only user of ctypes. One decoder serves one stream, member after member, in one thread. A border
is noted at most once per ``MAP_STEP`` of input: a hostile stream of empty blocks has thousands in a kilobyte. One
behind a full flush is noted besides, once per ``FLUSH_STEP`` of output: nothing behind it refers to what is before, so
a point there costs no window, and who writes flushes puts them where points are wanted.
"""

from __future__ import annotations

import ctypes
import weakref
import zlib
from dataclasses import dataclass
from functools import cache
from typing import Any

from artifactfs.content.gunzip import MAX_PIECE

# Half of an ordinary block (19 KiB compressed on average, measured), so nearly every border is seen.
MAP_STEP = 16 * 1024
WINDOW = 32 * 1024
# What a flush ends with, and how far apart such borders are at least.
FLUSH = b"\x00\x00\xff\xff"
FLUSH_STEP = 32 * 1024

# zlib.h
_Z_NO_FLUSH, _Z_BLOCK = 0, 5
_Z_OK, _Z_STREAM_END, _Z_BUF_ERROR = 0, 1, -5
_GZIP_WBITS = 31
# Of ``data_type`` after a call with Z_BLOCK: unused bits of the last byte, "the last block", "at the end of a block".
_UNUSED_BITS, _LAST_BLOCK, _AT_BORDER = 7, 64, 128


@dataclass(frozen=True, slots=True)
class Border:
    """Where a deflate block begins.

    Attributes:
        begin: of its first byte in the compressed stream.
        bit: where in that byte it begins, 0 to 7.
        out: bytes that were decompressed before it.
        window: the last of them, at most 32 KiB.
    """

    begin: int
    bit: int
    out: int
    window: bytes


class _Stream(ctypes.Structure):
    """``z_stream`` of zlib.h."""

    _fields_ = [  # type: ignore[mutable-override]  # ctypes declares it as any sequence
        ("next_in", ctypes.c_void_p), ("avail_in", ctypes.c_uint), ("total_in", ctypes.c_ulong),
        ("next_out", ctypes.c_void_p), ("avail_out", ctypes.c_uint), ("total_out", ctypes.c_ulong),
        ("msg", ctypes.c_char_p), ("state", ctypes.c_void_p),
        ("zalloc", ctypes.c_void_p), ("zfree", ctypes.c_void_p), ("opaque", ctypes.c_void_p),
        ("data_type", ctypes.c_int), ("adler", ctypes.c_ulong), ("reserved", ctypes.c_ulong),
    ]  # fmt: skip


@cache
def load() -> ctypes.CDLL | None:
    """Return the system's libz, None if it cannot be used."""
    try:
        libz = ctypes.CDLL("libz.so.1")
        libz.zlibVersion.restype = ctypes.c_char_p
        version = libz.zlibVersion()
        pointer = ctypes.POINTER(_Stream)
        libz.inflateInit2_.argtypes = (pointer, ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
        libz.inflate.argtypes = (pointer, ctypes.c_int)
        libz.inflateReset.argtypes = libz.inflateEnd.argtypes = (pointer,)
        libz.inflateGetDictionary.argtypes = (pointer, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint))
    except (OSError, AttributeError):
        return None
    return libz if version.startswith(b"1.") else None


class BlockInflater:
    """The decoder of one stream; as ``Gunzip`` wants one. ``borders`` fills, and whoever uses them empties it."""

    def __init__(self, libz: ctypes.CDLL) -> None:
        """Prepare.

        Raises:
            MemoryError: zlib has none.
        """
        self._libz = libz
        self._stream = _Stream()
        version = libz.zlibVersion()
        if libz.inflateInit2_(self._stream, _GZIP_WBITS, version, ctypes.sizeof(_Stream)) != _Z_OK:
            raise MemoryError
        weakref.finalize(self, libz.inflateEnd, self._stream)
        self._out = ctypes.create_string_buffer(MAX_PIECE)
        self._window = ctypes.create_string_buffer(WINDOW)
        self._begin_in = self._begin_out = self._mapped = self._flushed_out = self._search_from = 0
        self.borders: list[Border] = []
        self.eof = False
        self.unused_data = self.unconsumed_tail = b""

    def begin(self, begin_in: int, begin_out: int) -> BlockInflater:
        """Begin a gzip member that stands so far into the compressed and the decompressed stream, in bytes."""
        self._libz.inflateReset(self._stream)
        # The first border, behind the header, is always wanted: nothing is needed to start there.
        self._begin_in, self._begin_out, self._mapped = begin_in, begin_out, -MAP_STEP
        self._flushed_out = self._search_from = 0
        self.eof = False
        self.unused_data = self.unconsumed_tail = b""
        return self

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Decode; at most ``max_length`` bytes come out.

        Raises:
            zlib.error: the data is damaged.
        """
        stream, room = self._stream, min(max_length, MAX_PIECE)
        begin = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0
        taken = 0
        stream.next_out, stream.avail_out = ctypes.addressof(self._out), room
        while stream.avail_out and not self.eof:
            border_wanted = stream.total_in - self._mapped >= MAP_STEP
            step = len(data) - taken
            if not border_wanted:
                step = min(step, self._mapped + MAP_STEP - stream.total_in)
            flush = data.find(FLUSH, taken, taken + step) if stream.total_in >= self._search_from else -1
            if flush >= 0:
                step = flush + len(FLUSH) - taken
            stream.next_in, stream.avail_in = begin + taken, step
            state = self._libz.inflate(stream, _Z_BLOCK if border_wanted else _Z_NO_FLUSH)
            taken += step - stream.avail_in
            if state == _Z_STREAM_END:
                self.eof = True
            elif state not in (_Z_OK, _Z_BUF_ERROR):
                message = f"Error {state} while decompressing data: {(stream.msg or b'').decode('ascii', 'replace')}"
                raise zlib.error(message)
            elif border_wanted and self._is_at_border():
                self._note()
            elif flush >= 0 and not stream.avail_in:
                self._note_flush()
            elif state == _Z_BUF_ERROR or (taken == len(data) and stream.avail_out):
                break
        rest = data[taken:]
        self.unused_data, self.unconsumed_tail = (rest, b"") if self.eof else (b"", rest)
        return ctypes.string_at(self._out, room - stream.avail_out)

    def _is_at_border(self) -> bool:
        return bool(self._stream.data_type & _AT_BORDER) and not self._stream.data_type & _LAST_BLOCK

    def _note_flush(self) -> None:
        """Note the border here if it is one; what only looks like a flush costs a search once per ``MAP_STEP``."""
        if self._is_at_border() and self._stream.total_out - self._flushed_out >= FLUSH_STEP:
            self._flushed_out = self._stream.total_out
            self._note()
        else:
            self._search_from = self._stream.total_in + MAP_STEP

    def _note(self) -> None:
        stream, length = self._stream, ctypes.c_uint(0)
        self._mapped = stream.total_in
        unused = stream.data_type & _UNUSED_BITS
        self._libz.inflateGetDictionary(stream, self._window, length)
        window = ctypes.string_at(self._window, length.value)
        begin = self._begin_in + stream.total_in - (1 if unused else 0)
        self.borders.append(Border(begin, (8 - unused) % 8, self._begin_out + stream.total_out, window))


def make() -> BlockInflater | None:
    """Return a decoder, None where the system has no libz."""
    libz: Any = load()
    return None if libz is None else BlockInflater(libz)
