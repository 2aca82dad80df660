"""Gunzip: every member verified, every bound kept, everything that is no gzip named."""

import gzip
import random
import time
import tracemalloc
import zlib
from dataclasses import replace

import pytest

from artifactfs.content.gunzip import MAX_PIECE, MIB, Gunzip, describe_content
from artifactfs.errors import ArtifactFSError, CorruptContent, LimitExceeded
from artifactfs.model.limits import Limits
from tests.support.archives import FOREIGN, flip, gz

TEXT = random.Random(1).randbytes(3000) * 400
LIMITS = Limits()


def decode(data: bytes, chunk: int = 1 << 20, limits: Limits = LIMITS) -> bytes:
    decoder = Gunzip(limits)
    out = [piece for at in range(0, len(data), chunk) for piece in decoder.feed(data[at : at + chunk])]
    decoder.close()
    assert decoder.bytes_in == len(data)
    assert decoder.bytes_out == sum(map(len, out))
    return b"".join(out)


@pytest.mark.parametrize("level", [0, 1, 6, 9])
@pytest.mark.parametrize("chunk", [7, 4096, 1 << 20])
def test_decodes_what_gzip_encodes(level, chunk):
    assert decode(gz(TEXT, level), chunk) == TEXT


@pytest.mark.parametrize("chunk", [1, 2, 3, 100])
def test_members_follow_each_other_with_and_without_zeros_between(chunk):
    data = gz(b"") + gz(b"one ") + bytes(1000) + gz(b"two ") + gz(b"") + b"\0" + gz(b"three") + bytes(600)
    assert decode(data, chunk) == b"one two three"


def test_header_fields_are_passed_over_and_their_checksum_is_compared():
    # FLG: header CRC, extra, name, comment (RFC 1952).
    head = b"\x1f\x8b\x08\x1e" + bytes(6) + b"\x03\x00abc" + b"name\0" + b"comment\0"
    body = gz(b"content")[10:]
    crc = (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little")
    assert decode(head + crc + body, 1) == b"content"
    with pytest.raises(CorruptContent, match="header crc"):
        decode(head + flip(crc, 0) + body)


@pytest.mark.parametrize("member", [0, 1])
@pytest.mark.parametrize(("at", "says"), [(-8, "data check"), (-5, "data check"), (-4, "length check"), (-1, "length")])
def test_crc_and_length_of_every_member_are_compared(member, at, says):
    members = [gz(b"first"), gz(TEXT)]
    members[member] = flip(members[member], at + len(members[member]))
    with pytest.raises(CorruptContent, match=says):
        decode(b"".join(members))


def test_every_cut_is_noticed():
    data = gz(b"first") + gz(TEXT[:3000])
    whole = {len(gz(b"first")), len(data)}
    for cut in range(len(data)):
        if cut not in whole:
            with pytest.raises(CorruptContent, match=r"cut off|empty"):
                decode(data[:cut])


def test_no_flipped_bit_passes():
    data = bytearray(gz(b"some content that is short enough to flip each of its bits"))
    # Covered by no checksum and changing nothing: the header's time, flags and system; what fills the last
    # byte of the deflate stream, before the trailer of eight bytes.
    idle = {*range(80), *range(8 * (len(data) - 9), 8 * (len(data) - 8))}
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        try:
            got = decode(bytes(data))
        except ArtifactFSError:
            pass
        else:
            assert bit in idle
            assert got == b"some content that is short enough to flip each of its bits"
        data[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("chunk", [1, 1 << 20])
@pytest.mark.parametrize("garbage", [b"x", b"garbage" * 9999, b"\x1f", b"\x1fx", b"\0\0\0x"])
def test_garbage_behind_the_last_member_is_ignored_and_told(garbage, chunk):
    decoder = Gunzip(LIMITS)
    data = gz(b"content") + garbage
    out = b"".join(p for at in range(0, len(data), chunk) for p in decoder.feed(data[at : at + chunk]))
    assert out == b"content"
    if garbage == b"\x1f":  # may be the first byte of a further member
        with pytest.raises(CorruptContent, match="cut off"):
            decoder.close()
    else:
        decoder.close()
        assert decoder.trailing_garbage


def test_zeros_behind_the_last_member_are_no_garbage():
    decoder = Gunzip(LIMITS)
    list(decoder.feed(gz(b"content") + bytes(99_999)))
    decoder.close()
    assert not decoder.trailing_garbage
    assert repr(decoder) == "<Gunzip between: 100026 bytes in, 7 out, 1 members complete>"


@pytest.mark.parametrize("chunk", [1, 1 << 20])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_not_gzip_is_named(kind, chunk):
    make, says = FOREIGN[kind]
    with pytest.raises(CorruptContent, match=f"not a gzip archive but {says}"):
        decode(make(), chunk)


def test_a_text_may_end_in_half_a_character():
    assert describe_content("ü".encode()[:1]) == "text"
    assert describe_content(b"\xff\xfe" * 9) == "data of an unknown kind"


def test_pieces_are_bounded_and_so_is_memory():
    data = gz(bytes(200 * MIB), 9)
    decoder = Gunzip(LIMITS)
    tracemalloc.start()
    longest = max(len(piece) for piece in decoder.feed(data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert longest == MAX_PIECE
    assert peak < 2 * MIB
    decoder.close()


def test_output_limit():
    limits = replace(LIMITS, max_output=1000)
    assert decode(gz(bytes(1000)), limits=limits) == bytes(1000)
    with pytest.raises(LimitExceeded, match=r"limits\.max-output = 1000"):
        decode(gz(bytes(1001)), limits=limits)


def test_ratio_limit_counts_from_its_floor():
    limits = replace(LIMITS, ratio_floor=MIB)
    assert len(decode(gz(bytes(MIB)), limits=limits)) == MIB
    with pytest.raises(LimitExceeded, match=r"limits\.max-ratio = 600"):
        decode(gz(bytes(2 * MIB), 9), limits=limits)


def test_member_limit():
    limits = replace(LIMITS, max_gzip_members=3)
    assert decode(gz(b"x") * 3, limits=limits) == b"xxx"
    with pytest.raises(LimitExceeded, match=r"limits\.max-gzip-members = 3"):
        decode(gz(b"x") * 4, limits=limits)


def test_a_stream_of_tiny_members_is_not_slow():
    data = gz(b"") * 100_000
    start = time.perf_counter()
    assert decode(data) == b""
    assert time.perf_counter() - start < 5


def test_python_agrees():
    data = gz(TEXT) + gz(b"x") + bytes(10)
    assert decode(data) == gzip.decompress(data)
