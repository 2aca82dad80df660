"""Archives written byte by byte by somebody who knows the format and means harm; what has to be shown of each.

Rules of this file: it owes nothing to the generators in ``archives.py``: what one misunderstands, the other may not.
What is expected is written down by hand, never computed by the code that is tested.
"""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

DIRECTORY = b"\0directory"
ENDS = bytes(1024)


def header(name: bytes, size: int | bytes = 0, kind: bytes = b"0", link: bytes = b"", prefix: bytes = b"") -> bytes:
    """A ustar header; ``size`` as bytes is put into its field as it is."""
    block = bytearray(512)
    fields = {
        0: name[:100],
        100: b"0000644\0" * 3,
        124: size if isinstance(size, bytes) else b"%011o\0" % size,
        136: b"14524770400\0",
        148: b" " * 8,
        156: kind,
        157: link[:100],
        257: b"ustar\x0000",
        345: prefix,
    }
    for at, value in fields.items():
        block[at : at + len(value)] = value
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def file(name: bytes, data: bytes = b"x", *, size: int | bytes | None = None, prefix: bytes = b"") -> bytes:
    """A member with its content and padding."""
    return header(name, len(data) if size is None else size, prefix=prefix) + data + bytes(-len(data) % 512)


def link(name: bytes, target: bytes, kind: bytes = b"2") -> bytes:
    """A symlink; with kind 1 a hard link."""
    return header(name, 0, kind, target)


def before(kind: bytes, data: bytes) -> bytes:
    """A header that says something of the next one: PAX (x, g) or GNU (L, K)."""
    return header(b"@", len(data), kind) + data + bytes(-len(data) % 512)


def pax(key: bytes, value: bytes) -> bytes:
    """One record."""
    length = len(key) + len(value) + 3
    while length != len(key) + len(value) + 3 + len(str(length)):
        length = len(key) + len(value) + 3 + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def base256(value: int) -> bytes:
    """A size as GNU writes large ones."""
    return b"\x80" + value.to_bytes(11, "big")


def member(raw: bytes, flags: int = 0, more: bytes = b"", trailer: tuple[int, int] | None = None) -> bytes:
    """A gzip member by hand; ``trailer`` is CRC and size where they lie."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    head = b"\x1f\x8b\x08" + bytes([flags]) + b"\0\0\0\0\x02\x03" + more
    if flags & 2:
        head += struct.pack("<H", zlib.crc32(head) & 0xFFFF)
    ends = (zlib.crc32(raw), len(raw)) if trailer is None else trailer
    return head + packer.compress(raw) + packer.flush() + struct.pack("<II", *ends)


@dataclass(frozen=True)
class Sent:
    """An archive, and what a user must see of it.

    Attributes:
        data: as it is sent.
        shows: contents by the names in the mount; ``DIRECTORY`` for a directory, ``b"-> x"`` for a symlink.
        errno: in place of that, the name of the error that every look gets.
        hides: names that ``why`` explains, with a word of the reason.
    """

    data: bytes
    shows: Mapping[str, bytes] = field(default_factory=dict)
    errno: str = ""
    hides: Mapping[str, str] = field(default_factory=dict)


GOOD = file(b"good.txt", b"good\n")
SHOWN = {"good.txt": b"good\n"}


def of(raw: bytes, shows: Mapping[str, bytes] | None = None, **hides: str) -> Sent:
    """What is shown beside the good file, which is always the last member."""
    return Sent(gzip.compress(raw + GOOD + ENDS, 6, mtime=0), {**SHOWN, **(shows or {})}, hides=hides)


def wrong(raw: bytes, errno: str = "EIO") -> Sent:
    return Sent(gzip.compress(GOOD + raw + GOOD + ENDS, 6, mtime=0), errno=errno)


TWO = GOOD + file(b"two", b"2" * 5000) + ENDS
BOTH = {**SHOWN, "two": b"2" * 5000}
HALVES = gzip.compress(TWO[:1024]), gzip.compress(TWO[1024:])
NAMED = struct.pack("<H", 5) + b"AB\1\0x" + b"\x1b]0;pwned\x07\0" + b"a comment\0"
CUT = "^01" * 81 + "^~" + hashlib.sha256(b"\x01" * 255).hexdigest()[:10]
HIDDEN = (b".artifacts", b".artifactfs", b"by-id")
UNKNOWN = b"ABCEFGHJOPQZabcz89:;~\xff!"
DEEP = b"/".join([b"d"] * 49)

SENT: Mapping[str, Sent] = {
    # -- what a header of another one says
    "global path": wrong(before(b"g", pax(b"path", b"evil"))),
    "global size": wrong(before(b"g", pax(b"size", b"1000"))),
    "global link": wrong(before(b"g", pax(b"linkpath", b"/etc/passwd"))),
    "global charset": of(before(b"g", pax(b"hdrcharset", b"BINARY")) + before(b"x", pax(b"path", b"\xff")) + file(b"a"),
                         {"^ED^B3^BF": b"x"}),
    "charset binary": of(before(b"x", pax(b"hdrcharset", b"BINARY") + pax(b"path", b"caf\xe9")) + file(b"a"),
                         {"caf^ED^B3^A9": b"x"}),
    "charset of two bytes": of(before(b"x", pax(b"path", b"a\0b")) + file(b"a")),
    "line end in a path": of(before(b"x", pax(b"path", b"a\n12 path=evil")) + file(b"a"), {"a^0A12 path=evil": b"x"}),
    "record of length 0": wrong(before(b"x", b"0 path=ab\n") + file(b"a")),
    "record of length +11": wrong(before(b"x", b"+11 path=a\n") + file(b"a")),
    "record without a key": wrong(before(b"x", b"6 =ab\n") + file(b"a")),
    "extension cut short": Sent(gzip.compress(GOOD + header(b"@", 100, b"x") + b"30 path=abc"), errno="EIO"),
    "extension of nothing": Sent(gzip.compress(GOOD + before(b"x", pax(b"path", b"q")) + ENDS), errno="EIO"),
    "thousand long names": of(b"".join(before(b"L", b"n%d\0" % n) for n in range(1000)) + file(b"s"), {"n999": b"x"}),
    "long name of 2 GiB": wrong(header(b"@", 2**31, b"K"), "EFBIG"),
    "long name of 1 EiB": wrong(header(b"@", base256(2**60), b"L"), "EFBIG"),
    "NUL in a long name": of(before(b"L", b"good.txt\0evil\0") + file(b"s", b"evil")),
    # -- sizes
    "size in base 256": of(file(b"a", b"abc", size=base256(3)), {"a": b"abc"}),
    "size of 4 EiB": wrong(file(b"a", size=base256(2**62)), "EFBIG"),
    "size of 8 EiB": wrong(file(b"a", size=base256(2**63))),
    "size of -512": wrong(file(b"a", size=(-512).to_bytes(12, "big", signed=True))),
    "size with a sign": wrong(file(b"a", size=b"-0000000001\0")),
    "size with an 8": wrong(file(b"a", size=b"00000000008\0")),
    "size without an end": of(file(b"a", b"abc", size=b"000000000003"), {"a": b"abc"}),
    "size of a hard link": of(GOOD + header(b"h", base256(2**70), b"1", b"good.txt"), {"h": b"good\n"}),
    # -- kinds
    "unknown kinds": of(b"".join(header(b"k%d" % n, 4, bytes([kind])) + b"data" + bytes(508)
                                 for n, kind in enumerate(UNKNOWN)), k0="unknown type"),
    "sparse 1.0": of(before(b"x", pax(b"GNU.sparse.major", b"1") + pax(b"GNU.sparse.minor", b"0")
                            + pax(b"GNU.sparse.name", b"sp") + pax(b"GNU.sparse.realsize", b"1000000"))
                     + file(b"GNUSparseFile.0/sp", b"1\n0\n3\n" + bytes(506) + b"abc"), sp="sparse"),
    "sparse 0.1": of(before(b"x", pax(b"GNU.sparse.size", b"1000") + pax(b"GNU.sparse.map", b"0,3"))
                     + file(b"sp", b"abc"), sp="sparse"),
    "sparse of star": of(before(b"x", pax(b"SCHILY.realsize", b"1000000") + pax(b"SCHILY.filetype", b"sparse"))
                         + file(b"sp", b"abc"), sp="sparse"),
    # -- names
    "no name": of(file(b"", b"evil") + header(b"", 0, b"5")),
    "slash behind a file": of(file(b"d/", b"data"), d="ends with a slash"),
    "slash behind links": of(GOOD + link(b"s/", b"good.txt") + link(b"h/", b"good.txt/", b"1"),
                             {"s": b"-> good.txt", "h": b"good\n"}),
    "one name in four spellings": of(file(b"a//b", b"1") + file(b"a/./b", b"2") + file(b"./a/b", b"3")
                                     + file(b".//a/.//b", b"4"), {"a": DIRECTORY, "a/b": b"4"}),
    "path of 65,535 bytes": of(before(b"x", pax(b"path", (b"d" * 200 + b"/") * 326 + b"f" * 9)) + file(b"s")),
    "name of 256 bytes": of(before(b"x", pax(b"path", b"n" * 256)) + file(b"s")
                            + before(b"x", pax(b"path", b"n" * 255)) + file(b"s", b"1"), {"n" * 255: b"1"}),
    "name cut within a character": of(before(b"x", pax(b"path", "\U0001f600".encode() * 64)) + file(b"s")
                                      + before(b"x", pax(b"path", "\U0001f600".encode() * 63)) + file(b"s", b"1"),
                                      {"\U0001f600" * 63: b"1"}),
    "300 marks on a letter": of(before(b"x", pax(b"path", ("Z" + "\u0301" * 300).encode())) + file(b"s")
                                + before(b"x", pax(b"path", ("Z" + "\u0301" * 127).encode())) + file(b"s", b"1"),
                                {"Z" + "\u0301" * 127: b"1"}),
    "100,000 levels": of(before(b"x", pax(b"path", b"d/" * 100_000 + b"f")) + file(b"s")),
    "49 levels and then 300": of(before(b"x", pax(b"path", DEEP + b"/f")) + file(b"s", b"deep")
                                 + before(b"x", pax(b"path", b"x/" * 299 + b"f")) + file(b"s"),
                                 {**{"/".join(["d"] * n): DIRECTORY for n in range(1, 50)},
                                  DEEP.decode() + "/f": b"deep"}, x="limits.max-depth = 256"),
    "prefixes that lead out": of(file(b"x", prefix=b"..") + file(b"y", prefix=b"/etc") + file(b"z", b"Z", prefix=b"."),
                                 {"z": b"Z"}),
    "no UTF-8": of(file(b"\xed\xa0\x80", b"1") + file(b"\xc0\xaf", b"2") + file(b"\xf4\x90\x80\x80", b"3"), {
        "^ED^B3^AD^ED^B2^A0^ED^B2^80": b"1", "^ED^B3^80^ED^B2^AF": b"2", "^ED^B3^B4^ED^B2^90^ED^B2^80^ED^B2^80": b"3"}),
    "the tree's own names": of(b"".join(file(name, name) for name in (b"versions", b"latest", b"artifact.json"))
                               + b"".join(file(name + b"/v1", name) for name in HIDDEN),
                               {"versions": b"versions", "latest": b"latest", "artifact.json": b"artifact.json",
                                **{name.decode(): DIRECTORY for name in HIDDEN},
                                **{f"{name.decode()}/v1": name for name in HIDDEN}}),
    # -- links
    "links to names that are escaped": of(
        file(b"t\x01", b"one") + file(b"t^01", b"two") + file(b"d\x02/in \xff", b"three") + link(b"l1", b"t\x01")
        + link(b"l2", b"./t^01") + link(b"l3", b"d\x02/../d\x02//in \xff"),
        {"t^01": b"one", "t^5E01": b"two", "d^02": DIRECTORY, "d^02/in ^ED^B3^BF": b"three", "l1": b"-> t^01",
         "l2": b"-> ./t^5E01", "l3": b"-> d^02/../d^02//in ^ED^B3^BF"}),
    "link of 4,095 bytes": of(before(b"x", pax(b"path", b"\x01" * 255)) + file(b"s", b"cut")
                              + before(b"x", pax(b"linkpath", b"\x01" * 255)) + link(b"m", b"")
                              + before(b"x", pax(b"linkpath", b"a" * 4095)) + link(b"l", b""),
                              {"l": b"-> " + b"a" * 4095, CUT: b"cut", "m": b"-> " + CUT.encode()}),
    "link that grows when it is shown": of(before(b"x", pax(b"linkpath", b"\x01/" * 2000)) + link(b"l", b""),
                                           {"l": b"-> !ENAMETOOLONG"}),
    "link with NUL": of(before(b"x", pax(b"linkpath", b"good.txt\0/../../x")) + link(b"l", b"x"), l="possible target"),
    "link to nothing": of(link(b"l", b""), l="possible target"),
    "hard link to a later member": of(link(b"h", b"good.txt", b"1"), h="no earlier member"),
    "hard link twice, then a file": of(GOOD + link(b"h", b"good.txt", b"1") * 2 + file(b"h", b"new"), {"h": b"new"}),
    "hard link to what is replaced": of(file(b"a", b"1") + link(b"h", b"a", b"1") + file(b"a", b"2"),
                                        {"a": b"2", "h": b"1"}),
    "hard link to itself": of(file(b"h", b"was") + link(b"h", b"h", b"1"), {"h": b"was"}),
    "hard link to a directory": of(header(b"d/", 0, b"5") + link(b"h", b"d", b"1"), {"d": DIRECTORY}, h="a directory"),
    "file, then a child of it": of(file(b"a", b"1") + file(b"a/b", b"2"), {"a": DIRECTORY, "a/b": b"2"}),
    "children, then a file": of(file(b"a/b", b"2") + file(b"a", b"1"), {"a": b"1"}),
    "link, then a file below it": of(link(b"s", b".") + file(b"s/x", b"evil"), {"s": b"-> ."}),
    "link, then a directory": of(link(b"s", b"/tmp") + header(b"s/", 0, b"5") + file(b"s/x", b"1"),
                                 {"s": DIRECTORY, "s/x": b"1"}),
    # -- gzip
    "every field of a gzip header": Sent(member(TWO, 0x1E, NAMED), BOTH),
    "checksum of a gzip header": Sent(member(TWO, 0x02)[:10] + b"??" + member(TWO)[10:], errno="EIO"),
    "64 KiB in a gzip header": Sent(member(TWO, 4, struct.pack("<H", 65535) + b"E" * 65535), BOTH),
    "another method": Sent(b"\x1f\x8b\x07" + member(TWO)[3:], errno="EIO"),
    "garbage between members": Sent(HALVES[0] + b"GARBAGE" + HALVES[1], errno="EIO"),
    "zeros between members": Sent(HALVES[0] + bytes(700) + HALVES[1], BOTH),
    "garbage behind members": Sent(b"".join(HALVES) + b"GARBAGE", BOTH),
    "half a header behind members": Sent(b"".join(HALVES) + b"\x1f\x8b\x08", errno="EIO"),
    "empty members": Sent(gzip.compress(b"") * 50 + b"".join(HALVES) + gzip.compress(b"") * 50, BOTH),
    "size that lies": Sent(member(TWO, trailer=(zlib.crc32(TWO), len(TWO) + 1)), errno="EIO"),
    "checksum that lies": Sent(member(TWO, trailer=(0, len(TWO))), errno="EIO"),
    "last byte missing": Sent(member(TWO)[:-1], errno="EIO"),
    "one byte": Sent(b"\x1f", errno="EIO"),
    "bomb of members": Sent(gzip.compress(bytes(10 << 20), 9) * 60, errno="EFBIG"),
}  # fmt: skip
