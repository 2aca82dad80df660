"""Tar headers found in a decompressed stream as it passes; contents are counted, not kept.

Rules of this file:

* No I/O, and names are only bytes: what they *mean* (parents, ``..``, links) is decided in ``archive_tree``.
* Held in memory: the extended headers of one member (``Limits.max_header_bytes``), and one ``RawMember`` per member.
* What breaks the framing (checksum, size, PAX record, cut member) is an error of the whole archive: behind it
  every header would be a guess. What concerns one member only (sparse, device, NUL in its name) refuses that
  member and goes on.
* Framing follows what libarchive, Go and CPython agree on: links, devices, fifos and directories have no data
  whatever their size field says; every other type has. The first block of zeros ends the archive.

Read: ustar with prefix, old GNU, v7; extensions ``x`` ``X`` ``g`` (PAX), ``L`` and ``K`` (GNU long names).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from artifactfs.content import tar_fields
from artifactfs.content.gunzip import describe_content
from artifactfs.content.tar_fields import BLOCK
from artifactfs.errors import CorruptContent, LimitExceeded
from artifactfs.model.limits import Limits, named

if TYPE_CHECKING:
    from collections.abc import Callable

RawKind = Literal["file", "dir", "symlink", "hardlink", "refused"]

_ZERO_BLOCK = bytes(BLOCK)

# Fields of a header, POSIX.1-1988. GNU and v7 agree on all but the prefix.
_NAME = slice(0, 100)
_MODE = slice(100, 108)
_SIZE = slice(124, 136)
_MTIME = slice(136, 148)
_CHECKSUM = slice(148, 156)
_TYPEFLAG = slice(156, 157)
_LINK = slice(157, 257)
_MAGIC = slice(257, 263)
_PREFIX = slice(345, 500)
_SPARSE_MORE = 482  # old GNU: non-zero if a block with more of the sparse map follows ...
_SPARSE_MORE_AGAIN = 504  # ... and the same flag in that block

_EXTENSIONS = frozenset((b"x", b"X", b"g", b"L", b"K"))
_KINDS: Final[dict[bytes, RawKind]] = {
    b"0": "file",
    b"\0": "file",
    b"7": "file",  # contiguous: POSIX lets readers treat it as a regular file
    b"1": "hardlink",
    b"2": "symlink",
    b"5": "dir",
}
_REFUSED_TYPES: Final[dict[bytes, str]] = {
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a fifo",
    b"S": "a sparse file",
    b"D": "a directory dump",
    b"M": "the continuation of a file on another volume",
    b"V": "a volume label",
}
_WITHOUT_DATA = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))

# A PAX record that frames what follows makes no sense for all members at once; no writer does it, and readers
# disagree about it, which is what an attacker looks for.
_LOCAL_ONLY = frozenset((b"path", b"linkpath", b"size"))
_SPARSE_KEY = b"GNU.sparse."
_REAL_SIZE = b"SCHILY.realsize"  # star's: of a sparse file, whose content here begins with a map of it

# A PAX header, a long name and a long target are all that one member needs, and one for all that follow is rare;
# without a bound an archive of nothing but such headers would be read for minutes.
EXTENSIONS_EACH = 4

# More digits than max_header_bytes can need; bounds the search for the space behind a record's length.
_PAX_LENGTH_DIGITS = 10


@dataclass(frozen=True, slots=True)
class RawMember:
    """One member as its headers state it. ``offset`` counts in the decompressed stream."""

    kind: RawKind
    name: bytes
    mode: int
    mtime_ns: int | None
    size: int
    offset: int
    link: bytes
    reason: str  # why it is refused, else empty


@dataclass(slots=True)
class _Pending:
    """What extension headers have said about the next member."""

    pax: dict[bytes, bytes]
    name: bytes | None = None
    link: bytes | None = None
    seen: bool = False
    size: int = 0


class TarScanner:
    """Reads headers out of a stream given in pieces of any size."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._partial = bytearray()  # of the header being collected
        self._wanted = BLOCK
        self._collected: Callable[[bytes], None] = self._header
        self._skip = 0  # bytes of content and padding before the next header
        self._after_sparse_map = 0
        self._offset = 0  # of the byte behind what was last collected
        self._pending = _Pending({})
        self._global_mtime: bytes | None = None
        self._name_bytes = 0
        self._extensions = 0
        self.members: list[RawMember] = []  # who reads them may take them out
        self.seen = 0
        self.stream_size = 0
        self.ended = False  # the end block was seen
        self.trailing_data = False  # ... and something other than zeros behind it

    def __repr__(self) -> str:
        return f"<TarScanner {self.seen} members in {self.stream_size} bytes, ended={self.ended}>"

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream.

        Raises:
            CorruptContent: the framing is broken.
            LimitExceeded: more entries, longer headers or larger files than allowed.
        """
        start, end, at = self.stream_size, len(data), 0
        self.stream_size += end
        while at < end:
            if self.ended:
                self.trailing_data = self.trailing_data or data.count(0, at) != end - at
                return
            if self._skip:
                step = min(self._skip, end - at)
                self._skip -= step
                at += step
                continue
            step = min(self._wanted - len(self._partial), end - at)
            self._partial += data[at : at + step]
            at += step
            if len(self._partial) == self._wanted:
                block = bytes(self._partial)
                self._partial.clear()
                self._offset = start + at
                self._collected(block)

    def close(self) -> None:
        """Say that the stream has ended.

        Raises:
            CorruptContent: in the middle of a member. Missing end blocks are no error.
        """
        if self.ended or not self.stream_size:
            return
        if not self.seen and self.stream_size < BLOCK:
            raise CorruptContent(_no_tar(bytes(self._partial)))
        if self._skip or self._partial or self._collected != self._header or self._pending.seen:
            last = f", in or behind member {self.seen}" if self.seen else ""
            raise CorruptContent(f"the tar archive is cut off after {self.stream_size} bytes{last}")

    def _header(self, block: bytes) -> None:
        if block == _ZERO_BLOCK:
            if self._pending.seen:
                raise CorruptContent(f"the tar archive ends within a member, at byte {self._offset}")
            self.ended = True
            return
        self._verify(block)
        typeflag = block[_TYPEFLAG]
        if typeflag in _EXTENSIONS:
            self._extension(block, typeflag)
        else:
            self._member(block, typeflag)

    def _verify(self, block: bytes) -> None:
        """Compare the checksum; some old writers summed signed bytes."""
        try:
            stated = tar_fields.octal(block[_CHECKSUM])
        except ValueError:
            stated = -1
        rest = block[: _CHECKSUM.start] + b" " * 8 + block[_CHECKSUM.stop :]
        total = sum(rest)
        # A byte b >= 128 counts as b - 256 when summed signed.
        if stated == total or stated == total - 256 * sum(byte > 127 for byte in rest):  # noqa: PLR2004 - the numbers of the tar format
            return
        if self._offset == BLOCK and block[_MAGIC][:5] != b"ustar":
            raise CorruptContent(_no_tar(block))
        raise CorruptContent(f"the tar header at byte {self._offset - BLOCK} has a wrong checksum")

    def _extension(self, block: bytes, typeflag: bytes) -> None:
        size = tar_fields.size_of(block[_SIZE])
        if self._pending.size + size > self._limits.max_header_bytes:
            raise LimitExceeded(f"one member's tar headers exceed {named(self._limits, 'max_header_bytes')} bytes")
        self._extensions += 1
        if self._extensions > EXTENSIONS_EACH * self._limits.max_entries:
            raise LimitExceeded(f"the archive has more headers than {named(self._limits, 'max_entries')} entries need")
        if typeflag != b"g":
            self._pending.seen = True
            self._pending.size += size

        def collected(data: bytes) -> None:
            self._wanted, self._collected = BLOCK, self._header
            self._apply_extension(typeflag, data[:size])

        if size:
            self._wanted, self._collected = size + tar_fields.padding(size), collected
        else:
            self._apply_extension(typeflag, b"")

    def _apply_extension(self, typeflag: bytes, data: bytes) -> None:
        if typeflag == b"L":
            self._pending.name = data.rstrip(b"\0")
        elif typeflag == b"K":
            self._pending.link = data.rstrip(b"\0")
        elif typeflag == b"g":
            records = parse_pax(data)
            if any(key in _LOCAL_ONLY or key.startswith(_SPARSE_KEY) for key in records):
                raise CorruptContent("a global PAX header sets the path, size or layout of every member")
            self._global_mtime = records.get(b"mtime", self._global_mtime)
        else:
            self._pending.pax.update(parse_pax(data))

    def _member(self, block: bytes, typeflag: bytes) -> None:
        pending, self._pending = self._pending, _Pending({})
        pax = pending.pax
        # An empty PAX value means: as if the record were not there.
        sparse = any(key.startswith(_SPARSE_KEY) for key in pax)
        name = pax.get(_SPARSE_KEY + b"name") or pax.get(b"path") or pending.name or _ustar_name(block)
        link = pax.get(b"linkpath") or pending.link or tar_fields.text(block[_LINK])
        pax_time = pax.get(b"mtime") or self._global_mtime
        size = 0 if typeflag in _WITHOUT_DATA else tar_fields.size_of(block[_SIZE], pax.get(b"size"))
        if size > self._limits.max_output:
            raise LimitExceeded(f"a member of {size} bytes is announced, {named(self._limits, 'max_output')} bytes")
        real = pax.get(_REAL_SIZE)
        kind, reason = _classify(typeflag, name, size, sparse=sparse or bool(real and real != b"%d" % size))
        self._add(
            RawMember(
                kind=kind,
                name=name,
                mode=tar_fields.mode(block[_MODE]),
                mtime_ns=tar_fields.pax_time(pax_time) if pax_time else tar_fields.header_time(block[_MTIME]),
                size=size,
                offset=self._offset,
                link=link if kind in ("symlink", "hardlink") else b"",
                reason=reason,
            )
        )
        self._skip = size + tar_fields.padding(size)
        if typeflag == b"S" and block[_SPARSE_MORE]:
            self._after_sparse_map, self._skip = self._skip, 0
            self._collected = self._sparse_map

    def _sparse_map(self, block: bytes) -> None:
        """Pass over a block of an old GNU sparse map; ``size`` does not count these."""
        if not block[_SPARSE_MORE_AGAIN]:
            self._collected, self._skip = self._header, self._after_sparse_map

    def _add(self, member: RawMember) -> None:
        if self.seen >= self._limits.max_entries:
            raise LimitExceeded(f"the archive has more entries than {named(self._limits, 'max_entries')}")
        self._name_bytes += len(member.name) + len(member.link)
        if self._name_bytes > self._limits.max_all_path_bytes:
            raise LimitExceeded(f"the archive's paths exceed {named(self._limits, 'max_all_path_bytes')} bytes")
        self.seen += 1
        self.members.append(member)


# -------------------------------------------------------------------------------------------------- fields


def parse_pax(data: bytes) -> dict[bytes, bytes]:
    """Read the records (``LENGTH KEY=VALUE`` and a newline) of a PAX header; a later one replaces an earlier.

    Values are kept as bytes: with or without ``hdrcharset``, a name is the bytes it is.

    Raises:
        CorruptContent: a record does not have the length it states. Its size might have been the member's.
    """
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        if not data[at]:  # some writers pad with NUL inside the stated size
            if data.count(0, at) != len(data) - at:
                raise CorruptContent("a PAX header has data behind its padding")
            break
        space = data.find(b" ", at, at + _PAX_LENGTH_DIGITS + 1)
        digits = data[at : max(space, at)]
        stop = at + int(digits) if digits.isdigit() else -1
        if not space < stop <= len(data) or data[stop - 1 : stop] != b"\n":
            raise CorruptContent("a PAX header has a record of wrong length")
        key, equals, value = data[space + 1 : stop - 1].partition(b"=")
        if not key or not equals:
            raise CorruptContent("a PAX header has a record without a key")
        records[key] = value
        at = stop
    return records


def _no_tar(head: bytes) -> str:
    content = describe_content(head)
    found = "gzip inside gzip" if content == "gzip" else f"not a tar archive but {content}"
    return f"the decompressed content is {found}"


def _ustar_name(block: bytes) -> bytes:
    name = tar_fields.text(block[_NAME])
    # Old GNU headers ("ustar  ") keep times where POSIX has the prefix.
    prefix = tar_fields.text(block[_PREFIX]) if block[_MAGIC] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _classify(typeflag: bytes, name: bytes, size: int, *, sparse: bool) -> tuple[RawKind, str]:
    """Say what the member is, and why it is refused if it is."""
    if b"\0" in name:
        return "refused", "its name contains NUL"
    if sparse:
        return "refused", "a sparse file"
    kind = _KINDS.get(typeflag)
    if kind is None:
        return "refused", _REFUSED_TYPES.get(typeflag, f"of an unknown type ({typeflag!r})")
    if kind == "file" and name.endswith(b"/"):
        # Before ustar a directory was a file whose name ends so. One with content is neither.
        return ("refused", "a file whose name ends with a slash") if size else ("dir", "")
    return kind, ""
