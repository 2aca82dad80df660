"""The archive reader on random trees, random cuts and random damage."""

import io
import itertools
import random
import tarfile
import time

from hypothesis import example, given, settings
from hypothesis import strategies as st

from artifactfs.content.archive_index import (
    ArchiveIndex,
    ArchiveReader,
    Limits,
    RawMember,
    build_index,
    dump,
    load,
)
from artifactfs.errors import ArtifactFSError
from tests.support.archives import CASES, Tar, gz

LIMITS = Limits()

# Few letters, so that names collide; one that is no UTF-8, one that needs PAX in some formats.
PARTS = st.text(st.sampled_from("abcé☂.\udce9 \n"), min_size=1, max_size=3).filter(lambda part: part not in (".", ".."))
PATHS = st.lists(PARTS | st.just("long" * 30), min_size=1, max_size=4).map("/".join)
TREES = st.lists(st.tuples(PATHS, st.binary(max_size=1500) | st.none()), max_size=12)
FORMATS = st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])


def pack(entries, format_):
    """Write with tarfile; what the format cannot say is left out."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format_, encoding="utf-8", errors="surrogateescape") as tar:
        for path, data in entries:
            info = tarfile.TarInfo(path)
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            info.size = len(data or b"")
            try:
                tar.addfile(info, io.BytesIO(data or b""))
            except ValueError:
                continue
    return out.getvalue()


def read(data, cuts=()):
    reader = ArchiveReader(LIMITS)
    borders = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    steps = itertools.pairwise(borders)
    stream = b"".join(piece for start, stop in steps for piece in reader.feed(data[start:stop]))
    return reader.finish(), stream


def well_formed(index: ArchiveIndex) -> None:
    kinds = {member.path: member.kind for member in index.members}
    assert list(kinds) == sorted(kinds)
    for member in index.members:
        parts = member.path.split("/")
        assert not {"", ".", ".."} & set(parts)
        assert len(parts) == 1 or kinds["/".join(parts[:-1])] == "dir"
        assert member.inline is not None or member.offset + member.size <= index.stream_size
        if member.kind == "symlink":
            assert not escapes(index, member.path)


def escapes(index: ArchiveIndex, path: str) -> bool:
    """A second, slower opinion: follow the link as text, through what the index shows, to where it ends."""
    links = {member.path: member.target for member in index.members if member.target is not None}
    here: list[str] = []
    todo = path.split("/")[::-1]
    for _ in range(500):
        if not todo:
            return False
        part = todo.pop()
        if part == "..":
            if not here:
                return True
            here.pop()
        elif part not in ("", "."):
            target = links.get("/".join([*here, part]))
            if target is None:
                here.append(part)
            elif target.startswith("/"):
                return True
            else:
                todo += target.split("/")[::-1]
    return False  # a loop: the kernel stops after 40 links


@given(TREES, FORMATS, st.lists(st.integers(0, 3000), max_size=9))
def test_any_tree_is_shown_as_tarfile_reads_it_however_it_is_cut(entries, format_, cuts):
    raw = pack(entries, format_)
    data = gz(raw)
    index, stream = read(data, cuts)
    assert stream == raw
    assert (index, stream) == read(data)
    assert load(dump(index)) == index
    well_formed(index)
    expected: dict[str, bytes | None] = {}
    with tarfile.open(fileobj=io.BytesIO(raw), encoding="utf-8", errors="surrogateescape") as tar:
        for info in tar:
            content = tar.extractfile(info)
            place(expected, info.name.rstrip("/"), content.read() if content else None)
    shown = {m.path: None if m.kind == "dir" else stream[m.offset : m.offset + m.size] for m in index.members}
    assert shown == expected


def place(tree, path, data):
    """The model: a dict of paths, directories being None; the last wins."""
    parts = path.split("/")
    for end in range(1, len(parts)):
        tree["/".join(parts[:end])] = None
    if data is not None or tree.get(path) is not None:
        for below in [name for name in tree if name.startswith(path + "/")]:
            del tree[below]
    tree[path] = data


NAMES = st.lists(st.sampled_from(["a", "b", "c", ".", "..", "", "d"]), min_size=1, max_size=5).map("/".join)
RAW = st.builds(
    RawMember,
    kind=st.sampled_from(["file", "dir", "symlink", "hardlink", "refused"]),
    name=NAMES.map(str.encode),
    mode=st.integers(0, 0o777),
    mtime_ns=st.none(),
    size=st.just(1),
    offset=st.integers(0, 99),
    link=NAMES.map(str.encode),
    reason=st.just("said so"),
)


@settings(max_examples=500)
@given(st.lists(RAW, max_size=25))
def test_no_mixture_of_members_and_links_leaves_the_root(members):
    index = build_index(members, LIMITS, stream_size=100)
    well_formed(index)
    assert load(dump(index)) == index
    assert len({member.path for member in index.members}) == len(index.members)


def only_our_errors(data: bytes) -> None:
    start = time.perf_counter()
    try:
        index, stream = read(data)
    except ArtifactFSError:
        pass
    else:
        well_formed(index)
        assert index.stream_size == len(stream)
    assert time.perf_counter() - start < 10


@given(st.binary(max_size=3000))
@example(b"\x1f\x8b")
@example(b"\x1f\x8b\x08" + bytes(500))
def test_random_bytes_raise_only_our_errors(data):
    only_our_errors(data)
    only_our_errors(gz(data))
    only_our_errors(b"\x1f\x8b\x08" + bytes(7) + data)


SEEDS = [name for name in CASES if not name.startswith(("bomb", "hundred", "not_gzip", "levels", "hard_link_chain"))]


@settings(max_examples=300)
@given(st.sampled_from(SEEDS), st.randoms(use_true_random=False), st.booleans())
def test_damaged_archives_raise_only_our_errors(name, rnd: random.Random, inside):
    """Damage to the gzip stream, or to the tar within a good one (with the checksums put right again)."""
    data = bytearray(CASES[name]().data)
    if not inside:
        only_our_errors(bytes(damage(data, rnd)))
        return
    try:
        _, stream = read(bytes(data))
    except ArtifactFSError:
        return
    only_our_errors(gz(with_checksums(damage(bytearray(stream), rnd))))


def damage(data: bytearray, rnd: random.Random) -> bytearray:
    for _ in range(rnd.randint(1, 6)):
        if not data:
            break
        at = rnd.randrange(len(data))
        match rnd.randrange(4):
            case 0:
                data[at] = rnd.randrange(256)
            case 1:
                del data[at : at + rnd.choice([1, 511, 512])]
            case 2:
                data[at:at] = rnd.randbytes(rnd.choice([1, 8, 512]))
            case _:
                data[at : at + 12] = rnd.choice([b"\xff" * 12, b"\x80" + bytes(10) + b"\1", b"0" * 12, bytes(12)])
    return data


def with_checksums(raw: bytearray) -> bytes:
    """Make every block that looks like a header a valid one, so that damage gets behind the checksum."""
    for at in range(0, len(raw) - 511, 512):
        if raw[at + 257 : at + 262] == b"ustar":
            raw[at + 148 : at + 156] = b" " * 8
            raw[at + 148 : at + 156] = b"%06o\0 " % sum(raw[at : at + 512])
    return bytes(raw)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4))
def test_random_extension_headers_raise_only_our_errors(headers):
    tar = Tar()
    for number, header in enumerate(headers):
        tar.add(b"x", header, b"xgLK"[number : number + 1])
    only_our_errors(tar.good().gz())
