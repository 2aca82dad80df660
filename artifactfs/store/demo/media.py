"""Files of many formats, made by hand.

Rules of this file: the same bytes on every machine: nothing is compressed by a library (zlib and zlib-ng
differ), nothing is computed in floating point. Each file is valid: what opens the real thing opens these.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MIB = 1 << 20
# The longest that one block without compression can be (RFC 1951, 3.2.4).
STORED_BLOCK = 65535
# 160 x 112, quality 60: a page beside a sun.
JPEG = base64.b64decode(
    """
    /9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdBRkxO
    UlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09P
    T09PT09PT0//wAARCABwAKADASIAAhEBAxEB/8QAGwAAAgMBAQEAAAAAAAAAAAAAAQIABAYFAwf/xABAEAACAAQBCAMNBgcBAAAA
    AAAAAQIDBBEFBhIUFSFVk9ETMVQWNFFlc3SSlKOksbLhIjVBYXFyIyQlMjOEkYH/xAAaAQACAwEBAAAAAAAAAAAAAAACAwAEBQEG
    /8QAJBEBAQABAwIHAQEAAAAAAAAAAQACAxExBCESEzIzQVFhFCL/2gAMAwEAAhEDEQA/AM8kFIawUjZWpDKkFIawUgVmjBIKQbDJ
    ALMGVIKQyQUgFmjKkMkGwyQCzBlSCkNYKQCzRlsMkFIKQKzRhYKQyQUgFmDLYKQyQUgFmjCwUgpDJALMG5dgpBsMkaq3kxlsFI7m
    SVLT1WMxy6qRKnQKniahmQKJJ50G2zNjqbCt2UXAh5FXU1/DlttWcMNzfe+Z2GSPpWpsK3ZRcCHkTU2FbsouBDyF/wBP5MMNr5sk
    FI+kamwrdlFwIeRNTYVuyi4EPI55/wCRBtfOLDJH0XU2FbsouBDyJqbCt2UXAh5A+d+RjtfO7BSPoepsK3ZRcCHkZvKyipKSootE
    ppMjPgm53Ry1Dezgte36k8zeIzuDYKQ1gpEWeMLBSDYZIBZgypBSGSCkCs0ZbDJBsMkAswblWGSDYZI1FvJjdvIxf12PzaP5oDXV
    9RWSOj0Og0rOvnfxlBm9Vuvr/H/hk8jl/XY/No/mgNZX12hdH/KVdRn3/wAEvPzbW6/B1lHV9baGj6Cp6wxncXvcHImsMZ3F73By
    Jr3xTivq31Jr3xTivq31FzKawxncXvcHImsMZ3F73ByJr3xTivq31Jr3xTivq31JSmsMZ3F73ByJrDGdxe9wcia98U4r6t9SzQ4l
    pk5y9BrZFoc7Onys2F9Wy9+vaSlKGqr585w1eG6LAobqPp4Y7vZssv8A3/hw8s++aD9k34wGqMvlj31Qfsm/GA6c3TmztgpDWGUN
    3ZEcp2LJYZI94ZUK69rPRJLYipn1QPY3rmGhl81WwUiw4U+tCRQW2omPUGXZ7ROm497zsMkGwyQa3BuVYKQ1hkjVW8mN2MkPv2Lz
    aP5oDV1+J0eHdHpk7o+kvm/Zbva1+pfmjLZJffsXm0fzQGun1VNTZuk1EqTnf29JGob/AKXKmp6rT0PbLnd02Dds9lHyJ3TYN2z2
    UfIua0w7eFJxoeZNaYdvCk40PMCbU+6bBu2eyj5E7psG7Z7KPkXNaYdvCk40PMmtMO3hScaHmSklDjFBiE5yaSo6SOGHOazIls2L
    8V+aLxU1ph28KTjQ8ya0w7eFJxoeZLtbMxlf33Qfsm/GA0EitpKmNwU9VImxJXcMExRO3h2HAyt77oPJzfjLJcuDY9pcNlf8WIke
    xU6nPttXejx3yX6oQhClaNCEISkLbSJDIKRawy3xquf+crl2CkNYKRrrePG62Satjr82j+aA1s+lpqnN0mnlTs3+3pIFFb9LmUyV
    +/X5tH80Bpq/DKPEej0yT0nR3zftNWva/U/yQjLm1un9spqvDt30nBh5E1Xh276Tgw8in3M4N2P2sfMnczg3Y/ax8wZ1c1Xh276T
    gw8iarw7d9JwYeRT7mcG7H7WPmTuZwbsftY+ZKVzVeHbvpODDyJqvDt30nBh5FPuZwbsftY+ZZocHoMPnOdSU/RxxQ5refE9mx/i
    /wAkSl7yKKkpo3HT0siVE1ZxQS1C7eDYcHKzvyg8nN+Ms0pm8qu/aHyc74yzjxR4uLYclg2KeseIrHSaphls8MCEIVLWoQgUm3ZE
    uLt3YwK+0dIMMNlYZIcdjao5Z+LLe5dgpDWCkay3kBunkurY7/rTPmgNLX0Om9H/ADdXT5l/8EzMzr26/D1GbyZ+/f8AWmfNAa8B
    5tnpfaLkai8bYr6z9Cai8bYr6z9DrkOVi5GovG2K+s/QmovG2K+s/Q65CUqNDhuhznM06tn3hzc2fNzoV1bbW69heIQlKGcyo7+o
    fJzvjLNGZ3Kbv+h8lO+MsHLhhy4uTYKQUhkiqssZHAmDo34UeqQUhWWI1vT6nUxNhvJSvCz0hhSWwZIZIHscRZa2efLLYKQyQUgV
    ujcuwUhrBSNVbyQ3lHJlzbdJLgjt1Z0N7A0Om7PK9BHvYKQCzsc0+bw0Om7PK9BBVHTdmk+gixYKQLlNM8vur6HS9mk+gg6FS9mk
    +gixYKQDkzDN+6voVL2aT6CDoVL2aTw0WLDJAOTMMmraFSdlk8NHpKppEqLOlSZcETVrwwpHtYKQLkzDJlsMkGwyQtZgypBSGSCk
    As0ZbDJBsFIFZgwSCkMkFIBZo3//2Q==
    """
)


def _stored(data: bytes) -> bytes:
    """Return a deflate stream of blocks that are not compressed."""
    starts = range(0, max(1, len(data)), STORED_BLOCK)
    blocks = [data[start : start + STORED_BLOCK] for start in starts]
    out = bytearray()
    for number, block in enumerate(blocks, 1):
        out += struct.pack("<BHH", number == len(blocks), len(block), len(block) ^ 0xFFFF) + block
    return bytes(out)


def gzip_of(data: bytes) -> bytes:
    """Return a gzip member without name and time."""
    head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    return head + _stored(data) + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def png(width: int, height: int, rows: Sequence[bytes], palette: Sequence[tuple[int, int, int]]) -> bytes:
    """Return a PNG of one byte a pixel, each an index of ``palette``."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    raw = b"".join(b"\0" + row for row in rows)
    packed = b"\x78\x01" + _stored(raw) + struct.pack(">I", zlib.adler32(raw))
    colours = b"".join(bytes(colour) for colour in palette)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"PLTE", colours) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def bar_chart(values: Sequence[int], *, width: int = 320, height: int = 180) -> bytes:
    """Return a PNG with one bar a value; the highest reaches the top."""
    slot, highest = width // len(values), max(values)
    tops = [height - 12 - value * (height - 24) // highest for value in values]
    rows = []
    for y in range(height):
        row = bytearray(b"\1" * width if y == height - 12 else b"\0" * width)
        for number, top in enumerate(tops):
            if top <= y < height - 12:
                left = number * slot + slot // 5
                row[left : left + slot * 3 // 5] = bytes([2 + number % 3]) * (slot * 3 // 5)
        rows.append(bytes(row))
    palette = [(250, 250, 247), (90, 90, 90), (47, 93, 140), (214, 120, 60), (96, 142, 91)]
    return png(width, height, rows, palette)


def page_scan(lines: Sequence[int], *, width: int = 248, height: int = 350) -> bytes:
    """Return a PNG of a page with lines of text, each as long as given in percent."""
    rows = []
    for y in range(height):
        number, inside = divmod(y - 30, 14)
        is_line = 0 <= number < len(lines) and inside < 6  # noqa: PLR2004 - six pixels of ink, eight of air
        ink = lines[number] * (width - 48) // 100 if is_line else 0
        rows.append((b"\0" * 24 + b"\1" * ink).ljust(width, b"\0"))
    return png(width, height, rows, [(252, 251, 246), (70, 70, 74)])


def jpeg(comment: str) -> bytes:
    """Return a JPEG; the comment inside tells them apart."""
    text = comment.encode()
    return JPEG[:2] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + JPEG[2:]


def pdf(pages: Sequence[Sequence[str]]) -> bytes:
    """Return a PDF, a page for each list of lines; the lines are ASCII without parentheses."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, lines in enumerate(pages):
        shown = "\n".join(f"({line}) Tj T*" for line in lines)
        content = f"BT /F1 11 Tf 15 TL 60 780 Td\n{shown}\nET\n"
        objects.append(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842]"
            f" /Resources << /Font << /F1 3 0 R >> >> /Contents {5 + 2 * number} 0 R >>"
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}endstream")
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    places = []
    for number, text in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{text}\nendobj\n".encode("ascii")
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    size, start = len(objects) + 1, len(out)
    out += f"xref\n0 {size}\n0000000000 65535 f \n{table}".encode("ascii")
    out += f"trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode("ascii")
    return bytes(out)


def npy(values: Sequence[int], columns: int) -> bytes:
    """Return a numpy array of little-endian 32-bit floats (format 1.0), each a value divided by 256."""
    shape = f"({len(values) // columns}, {columns})"
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    # The data begins at a multiple of 64: magic, version and length are 10 bytes, the header ends in a
    # newline.
    header = header.ljust(-(len(header) + 11) % 64 + len(header)) + "\n"
    data = b"".join(struct.pack("<f", value / 256) for value in values)  # exact: a power of two
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode("ascii") + data


def mp3(frames: int) -> bytes:
    """Return silence: MPEG 1 layer III, 64 kbit/s, 32 kHz, mono, so a frame is 288 bytes and 36 ms."""
    title = b"\x00Narration, silent take"
    frame = b"TIT2" + struct.pack(">IH", len(title), 0) + title
    tag = b"ID3\x03\x00\x00" + bytes([0, 0, len(frame) >> 7, len(frame) & 0x7F]) + frame
    return tag + (b"\xff\xfb\x58\xc4" + bytes(284)) * frames


def spz(points: Sequence[tuple[int, int, int]]) -> bytes:
    """Return Gaussian splats in SPZ version 2: a gzip stream of columns; grey, round and opaque ones."""
    count = len(points)
    head = struct.pack("<IIIBBBB", 0x5053474E, 2, count, 0, 12, 0, 0)
    places = b"".join(value.to_bytes(3, "little", signed=True) for point in points for value in point)
    return gzip_of(head + places + b"\xff" * count + b"\x80" * (3 * count) + b"\x60" * (3 * count) * 2)


def mp4(mebibytes: int, name: str) -> Iterator[bytes]:
    """Return an MP4 file of that size, piece by piece: type, an empty movie, and data that nothing compresses."""
    kind = struct.pack(">I4s4sI", 32, b"ftyp", b"isom", 512) + b"isomiso2avc1mp41"
    matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    movie = struct.pack(">IIIIIIH10x", 0, 0, 0, 1000, 94000, 0x10000, 0x100) + matrix + bytes(24)
    movie += struct.pack(">I", 1)
    movie = struct.pack(">I4s", len(movie) + 8, b"mvhd") + movie
    movie = struct.pack(">I4s", len(movie) + 8, b"moov") + movie
    data = struct.pack(">I4s", mebibytes * MIB - len(kind) - len(movie), b"mdat")
    head = kind + movie + data
    yield head
    for number in range(mebibytes):
        piece = hashlib.shake_128(f"artifactfs demo {name} {number}".encode()).digest(MIB)
        yield piece if number else piece[len(head) :]
