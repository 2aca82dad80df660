"""The archive reader: every hostile archive ends as it must, and the details the cases do not say."""

import io
import json
import tarfile
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from artifactfs.content.archive_index import (
    ArchiveIndex,
    ArchiveReader,
    Limits,
    Member,
    RawMember,
    TarScanner,
    build_index,
    dump,
    load,
)
from artifactfs.content.tar_headers import parse_pax
from artifactfs.errors import CorruptContent, LimitExceeded
from tests.support.archives import CASES, MIB, ODD_TIMES, Case, Tar, gz, pax_record, symlinks

LIMITS = Limits()
ERRORS = {"corrupt": CorruptContent, "limit": LimitExceeded}


def pieces(reader: ArchiveReader, data: bytes, chunk: int) -> Iterator[bytes]:
    for at in range(0, len(data), chunk):
        yield from reader.feed(data[at : at + chunk])


def read(data: bytes, chunk: int = MIB, limits: Limits = LIMITS) -> tuple[ArchiveIndex, bytes]:
    reader = ArchiveReader(limits)
    stream = b"".join(pieces(reader, data, chunk))
    index = reader.finish()
    assert index.stream_size == len(stream) == reader.bytes_out
    assert reader.bytes_in == len(data)
    return index, stream


def by_path(index: ArchiveIndex) -> dict[str, Member]:
    return {member.path: member for member in index.members}


def check_shape(index: ArchiveIndex) -> None:
    """What holds for every index, whatever it was made from."""
    members = by_path(index)
    assert list(members) == sorted(members)
    assert len(members) == len(index.members)
    for path, member in members.items():
        assert not {"", ".", ".."} & set(path.split("/"))
        assert "\0" not in path
        parent = path.rpartition("/")[0]
        assert not parent or members[parent].kind == "dir"
        assert 0 <= member.offset <= member.offset + (0 if member.inline else member.size) <= index.stream_size
        # A link that is shown as a file is still one in what is made of this version.
        assert (member.target is not None) == (member.kind == "symlink" or member.inline is not None)
        assert member.inline is None or (member.kind == "file" and len(member.inline) == member.size)
    assert index.total_size == sum(member.size for member in index.members)
    assert load(dump(index)) == index


def check_case(case: Case, chunk: int) -> None:
    index, stream = read(case.data, chunk)
    check_shape(index)
    members = by_path(index)
    files = {
        path: stream[member.offset : member.offset + member.size]
        for path, member in members.items()
        if member.kind == "file" and member.inline is None
    }
    assert files == case.files
    assert {path for path, member in members.items() if member.kind == "dir"} == case.dirs
    assert {path: m.target for path, m in members.items() if m.kind == "symlink"} == case.links
    assert {path for path, member in members.items() if member.inline} == case.broken
    assert {refused.path for refused in index.refused} == case.refused
    assert all(refused.reason for refused in index.refused)
    if case.executable:
        assert {path for path, member in members.items() if member.executable} == case.executable


@pytest.mark.parametrize("chunk", [1000, MIB])
@pytest.mark.parametrize("name", CASES)
def test_every_class_of_archive_ends_as_it_must(name, chunk):
    case = CASES[name]()
    start = time.perf_counter()
    if not case.error:
        check_case(case, chunk)
    else:
        reader = ArchiveReader()
        with pytest.raises(ERRORS[case.error], match=case.says):
            for _ in pieces(reader, case.data, chunk):
                pass
            reader.finish()
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize("name", ["format_pax", "several_gzip_members", "sparse_of_old_gnu", "pax_padded_and_global"])
def test_pieces_may_be_single_bytes(name):
    check_case(CASES[name](), 1)
    raw = zlib.decompressobj(31).decompress(CASES["format_gnu"]().data)
    whole, single = TarScanner(LIMITS), TarScanner(LIMITS)
    whole.feed(raw)
    for at in range(len(raw)):
        single.feed(raw[at : at + 1])
    assert whole.members == single.members


def test_members_are_known_as_they_pass():
    reader = ArchiveReader()
    data = CASES["hundred_thousand_entries"]().data
    for _ in pieces(reader, data[: len(data) // 2], 1000):
        pass
    assert 20_000 < reader.members_seen < 80_000
    assert 0 < reader.bytes_in < reader.bytes_out
    assert "TarScanner" in repr(reader)


def test_a_hundred_thousand_members_take_seconds():
    data = CASES["hundred_thousand_entries"]().data
    start = time.perf_counter()
    index, _ = read(data)
    packed = dump(index)
    assert load(packed) == index
    assert time.perf_counter() - start < 10
    assert len(packed) < 2 * MIB


# ------------------------------------------------------------------------------------------------- details


def test_text_of_a_broken_link_says_where_it_leads_and_cannot_command_a_terminal():
    members = by_path(read(CASES["symlinks_escaping"]().data)[0])
    assert members["abs"].inline == (
        "artifactfs: this symbolic link to “/etc/passwd” leaves the artifact, so it is not followed.\n".encode()
    )
    text = members["evil\x1b[2J"].inline
    assert text is not None
    assert text.decode().rstrip("\n").isprintable()
    assert "longer than a link can be" in (members["long"].inline or b"").decode()


def test_mtimes():
    members = by_path(read(CASES["odd_mtimes"]().data)[0])
    last = (2**63 - 1) // 10**9 * 10**9
    assert members["negative"].mtime_ns == 0
    assert members["huge"].mtime_ns == last
    assert members["junk"].mtime_ns is None
    odd = [members[f"p{n}"].mtime_ns for n in range(len(ODD_TIMES))]
    header = 1_700_000_000 * 10**9
    assert odd == [0, 0, last, None, None, None, header, None, 10**9, None, None]
    data = Tar().pax((b"mtime", b"1700000000.123456789123")).add(b"a").add(b"b").pax((b"mtime", b"0.5")).add(b"c").gz()
    exact = by_path(read(data)[0])
    assert [exact[name].mtime_ns for name in "abc"] == [1_700_000_000_123_456_789, header, 500_000_000]


def test_global_mtime_holds_until_a_member_has_its_own():
    tar = Tar().pax((b"mtime", b"5"), typeflag=b"g").add(b"a").pax((b"mtime", b"7")).add(b"b").add(b"c")
    members = by_path(read(tar.gz())[0])
    assert [members[name].mtime_ns for name in "abc"] == [5 * 10**9, 7 * 10**9, 5 * 10**9]


def test_directories_keep_their_own_time_and_implied_ones_have_none():
    members = by_path(read(Tar().add(b"d/e/f").add(b"d/e", typeflag=b"5", mtime=9).gz())[0])
    assert (members["d"].mtime_ns, members["d/e"].mtime_ns) == (None, 9 * 10**9)


def test_only_the_x_bit_is_kept():
    modes = {"a": 0o644, "b": 0o755, "c": 0o7100, "d": 0o001, "e": 0o7666}
    tar = Tar()
    for name, mode in modes.items():
        tar.add(name.encode(), mode=mode)
    members = by_path(read(tar.add(b"junk", mode=0).gz())[0])
    assert {name for name, member in members.items() if member.executable} == {"b", "c", "d"}


def test_a_mode_that_is_no_number_is_that_of_a_plain_file():
    raw = bytearray(Tar().add(b"f", mode=0o755).end())
    raw[100:108] = b"zzzzzzz\0"
    raw[148:156] = b"%06o\0 " % (sum(raw[:148]) + sum(raw[156:512]) + 8 * 32)
    assert not by_path(read(gz(bytes(raw)))[0])["f"].executable


def test_signed_checksums_of_old_writers():
    raw = bytearray(Tar().add(b"caf\xe9", b"1").end())
    signed = sum(byte - 256 if byte > 127 else byte for byte in raw[:148] + raw[156:512]) + 8 * 32
    raw[148:156] = b"%06o\0 " % signed
    assert by_path(read(gz(bytes(raw)))[0])["caf\udce9"].size == 1


def test_a_damaged_first_header_is_not_called_another_format():
    with pytest.raises(CorruptContent, match="checksum"):
        read(Tar().add(b"f", bad_checksum=True).gz())


def test_checksum_that_is_no_number():
    raw = bytearray(Tar().good().good().end())
    raw[1024 + 148 : 1024 + 156] = b"zzzzzz\0 "
    with pytest.raises(CorruptContent, match="checksum"):
        read(gz(bytes(raw)))


def test_old_directories_and_files_named_like_them():
    tar = Tar().add(b"d/", typeflag=b"0").add(b"e/", b"content", typeflag=b"0").good()
    index, _ = read(tar.gz())
    assert by_path(index)["d"].kind == "dir"
    assert [refused.path for refused in index.refused] == ["e/"]


def test_header_only_types_have_no_data_whatever_their_size_says():
    tar = Tar().add(b"l", typeflag=b"2", link=b"x", size=5000).add(b"d", typeflag=b"5", size=5000).good()
    members = by_path(read(tar.gz())[0])
    assert [(m.path, m.kind, m.size) for m in members.values()] == [
        ("d", "dir", 0),
        ("good.txt", "file", 5),
        ("l", "symlink", 0),
    ]


def test_notes_say_what_was_ignored():
    assert not read(CASES["trailing_zeros_in_the_tar"]().data)[0].notes
    assert "gzip stream" in read(CASES["trailing_garbage_after_the_gzip"]().data)[0].notes[0]
    assert "tar archive" in read(CASES["trailing_data_after_the_end_blocks"]().data)[0].notes[0]


def test_the_trailer_behind_the_end_blocks_is_read():
    """A tar reader stops at the end blocks; the checksum of the compressed stream stands behind them."""
    data = gz(Tar().good().end() + bytes(MIB))
    reader = ArchiveReader()
    assert b"good" in b"".join(reader.feed(data[:-1]))
    with pytest.raises(CorruptContent, match="cut off"):
        reader.finish()


def test_empty_symlink_targets_are_refused():
    index, _ = read(Tar().add(b"l", typeflag=b"2").good().gz())
    assert [refused.path for refused in index.refused] == ["l"]


def test_a_symlink_hard_linked_elsewhere_is_judged_from_there():
    tar = symlinks({"d/l": "../good.txt"}, Tar().good()).add(b"h", typeflag=b"1", link=b"d/l")
    members = by_path(read(tar.gz())[0])
    assert members["d/l"].target == "../good.txt"
    assert members["h"].inline is not None


def test_unknown_pax_records_are_ignored_and_empty_ones_mean_none():
    records = parse_pax(pax_record(b"SCHILY.xattr.user.x", b"a\nb=c") + pax_record(b"path", b""))
    assert records == {b"SCHILY.xattr.user.x": b"a\nb=c", b"path": b""}
    tar = Tar().pax((b"path", b""), (b"size", b"")).add(b"f", b"1").good()
    assert set(by_path(read(tar.gz())[0])) == {"f", "good.txt"}


def test_an_extension_may_be_empty():
    assert set(by_path(read(Tar().raw_pax(b"").add(b"f", b"1").gz())[0])) == {"f"}


# ------------------------------------------------------------------------------------------------- limits


def raw(name: str, kind: str = "file", link: str = "") -> RawMember:
    return RawMember(kind, name.encode("utf-8", "surrogateescape"), 0o644, None, 0, 0, link.encode(), "")  # type: ignore[arg-type]  # any kind


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (replace(LIMITS, max_entries=2), r"limits\.max-entries = 2"),
        (replace(LIMITS, max_all_path_bytes=8), r"limits\.max-paths = 8"),
        (replace(LIMITS, max_output=4), r"limits\.max-output = 4"),
        (replace(LIMITS, max_header_bytes=10), r"limits\.max-header = 10"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_limits_of_the_stream_are_named(limits, says):
    data = Tar().add(b"aaa", b"12345").pax((b"path", b"bbb")).add(b"x").add(b"ccc").gz()
    assert len(read(data)[0].members) == 3
    with pytest.raises(LimitExceeded, match=says):
        read(data, limits=limits)


def test_implied_directories_count():
    with pytest.raises(LimitExceeded, match=r"limits\.max-entries = 5"):
        build_index([raw("a/b/c/d/e")] * 2, replace(LIMITS, max_entries=5))
    with pytest.raises(LimitExceeded, match=r"limits\.max-paths = 15"):
        build_index([raw("a/b/c/d/e")], replace(LIMITS, max_all_path_bytes=15))


def test_depth_and_name_limits_refuse_the_member_alone():
    limits = replace(LIMITS, max_depth=2, max_name_bytes=4, max_path_bytes=9)
    names = ["a/b", "a/b/c", "aaaa/bbbb", "aaaaa", "üü", "üüü", "a////////b"]
    index = build_index(map(raw, names), limits)
    assert {refused.path for refused in index.refused} == {"a/b/c", "aaaaa", "üüü", "a////////b"}


# ------------------------------------------------------------------------------------------- the stored form


def test_a_stored_index_survives_any_name():
    for name in (
        "names_that_are_not_utf8",
        "symlinks_escaping",
        "nul_in_a_path",
        "empty_archive",
        "odd_mtimes",
    ):
        index, _ = read(CASES[name]().data)
        assert load(dump(index)) == index


def framed(*rows: object) -> bytes:
    """The stored form of an index, put together by hand."""
    parts = [zlib.compress(json.dumps(row).encode()) for row in rows]
    return b"AFSIDX3\n" + b"".join(len(part).to_bytes(4, "little") + part for part in parts)


def unframed(data: bytes) -> list:
    rows: list = []
    at = 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        rows.append(json.loads(zlib.decompress(data[at + 4 : at + 4 + size])))
        at += 4 + size
    return rows


def test_a_damaged_stored_index_is_said_to_be():
    good = dump(read(CASES["format_pax"]().data)[0])
    facts, columns = unframed(good)
    assert load(framed(facts, columns)) == load(good)
    rows: tuple = ({**columns, "size": []}, {**columns, "kind": "?" * len(columns["kind"])}, [], 7, {}, None, columns)
    for row in rows:
        bad = framed(facts, row) if row is not columns else framed(facts, columns, columns)
        with pytest.raises(CorruptContent, match="stored archive index"):
            load(bad)
    flipped = good[:20] + bytes((good[20] ^ 1,)) + good[21:]
    for bad in (b"", good[:-9], good[:12], good[:8], b"AFSIDX2\n" + good[8:], flipped, good + b"x", framed(7)):
        with pytest.raises(CorruptContent, match="stored archive index"):
            load(bad)


def test_storing_many_long_names_takes_little_memory():
    """Written as one text it took six times the names: 1.1 GB of an archive of 6 MB."""
    index = build_index([raw(f"{n:06}" + "\udcff" * 240) for n in range(20_000)], LIMITS)
    tracemalloc.start()
    data = dump(index)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert load(data) == index
    # As one text: 60 MB.
    assert peak < 10 * 1024 * 1024


def test_tarfile_agrees_on_offsets():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for n in range(50):
            info = tarfile.TarInfo(f"dir{n % 7}/é{n}" + "x" * (n * 4))
            info.size = n * 37
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        theirs = {member.name: (member.offset_data, member.size) for member in tar}
    index, _ = read(gz(out.getvalue()))
    assert {m.path: (m.offset, m.size) for m in index.members if m.kind == "file"} == theirs
