"""Archives as a hostile, a careless and an unusual author would make them, each with what must come of it.

Each function below is one class of hostile archive and makes one `Case`; ``CASES`` has them all by name. A
case says the *whole* tree that must be shown, or which error: tests at every level compare with that. Nothing
here uses artifactfs; headers are made by hand where `tarfile` would not make such a thing.
"""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Error = Literal["", "corrupt", "limit"]
GOOD = {"good.txt": b"good\n"}
MIB = 1024 * 1024


@dataclass(frozen=True)
class Case:
    """An archive and what must be shown of it; with ``error`` the version has that error and shows nothing.

    ``files`` has every regular file of the archive, ``dirs`` every directory, ``links`` every symbolic link
    with its target, ``broken`` the links shown as text files, ``refused`` the members left out, ``says`` a
    part of the error, ``executable`` (if not empty) the executable files.
    """

    data: bytes
    files: Mapping[str, bytes] = field(default_factory=dict)
    dirs: frozenset[str] = frozenset()
    links: Mapping[str, str] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    error: Error = ""
    says: str = ""
    executable: frozenset[str] = frozenset()


CASES: dict[str, Callable[[], Case]] = {}


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    CASES[make.__name__] = make
    return make


def gz(raw: bytes, level: int = 6) -> bytes:
    return gzip.compress(raw, level, mtime=0)


def number(value: int, width: int) -> bytes:
    """A header field: octal if it fits, else GNU base-256."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    lead = b"\xff" if value < 0 else b"\x80"
    return lead + (value % 256 ** (width - 1)).to_bytes(width - 1, "big")


class Tar:
    """A tar made by hand: every field may be wrong. Methods return the object, to be chained."""

    def __init__(self) -> None:
        self.raw = bytearray()

    def add(
        self,
        name: bytes,
        data: bytes = b"",
        typeflag: bytes = b"0",
        *,
        link: bytes = b"",
        mode: int = 0o644,
        mtime: int | bytes = 1_700_000_000,
        size: int | bytes | None = None,
        uid: int = 0,
        magic: bytes = b"ustar\x0000",
        prefix: bytes = b"",
        extra: tuple[int, bytes] = (500, b""),
        bad_checksum: bool = False,
    ) -> Tar:
        size = len(data) if size is None else size
        block = bytearray(512)
        fields = (
            (0, name[:100]),
            (100, number(mode, 8)),
            (108, number(uid, 8) + number(uid, 8)),
            (124, size if isinstance(size, bytes) else number(size, 12)),
            (136, mtime if isinstance(mtime, bytes) else number(mtime, 12)),
            (148, b" " * 8),
            (156, typeflag),
            (157, link[:100]),
            (257, magic),
            (345, prefix),
            extra,
        )
        for at, value in fields:
            block[at : at + len(value)] = value
        block[148:156] = b"%06o\0 " % (sum(block) + bad_checksum)
        self.raw += block + data + bytes(-len(data) % 512)
        return self

    def pax(self, *records: tuple[bytes, bytes], typeflag: bytes = b"x") -> Tar:
        return self.raw_pax(b"".join(pax_record(key, value) for key, value in records), typeflag)

    def raw_pax(self, data: bytes, typeflag: bytes = b"x") -> Tar:
        return self.add(b"././@PaxHeader", data, typeflag)

    def good(self) -> Tar:
        for name, data in GOOD.items():
            self.add(name.encode(), data)
        return self

    def end(self) -> bytes:
        return bytes(self.raw) + bytes(1024)

    def gz(self) -> bytes:
        return gz(self.end())


def pax_record(key: bytes, value: bytes) -> bytes:
    body = b" %s=%s\n" % (key, value)
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return b"%d%s" % (length, body)


def by_tarfile(format_: int, files: Mapping[str, bytes], prefix: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format_) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def parents(files: Mapping[str, bytes]) -> frozenset[str]:
    return frozenset("/".join(name.split("/")[:n]) for name in files for n in range(1, name.count("/") + 1))


def shown(data: bytes, files: Mapping[str, bytes]) -> Case:
    return Case(data, files, parents(files))


def bad(data: bytes, says: str = "", error: Error = "corrupt") -> Case:
    return Case(data, error=error, says=says)


# ------------------------------------------------------------------------------------------ sane but unusual

LONG = "deep/" * 30 + "é" * 60 + ".txt"
TREE = {
    "a.txt": b"alpha\n",
    "dir/b.bin": bytes(range(256)) * 9,
    "empty": b"",
    "dir/sub/ünïcödé ☂.txt": b"x" * 512,
}


@case
def format_pax() -> Case:
    files = {**TREE, LONG: b"long\n"}
    return shown(gz(by_tarfile(tarfile.PAX_FORMAT, files)), files)


@case
def format_gnu() -> Case:
    files = {**TREE, LONG: b"long\n"}
    return shown(gz(by_tarfile(tarfile.GNU_FORMAT, files)), files)


@case
def format_ustar_with_prefix() -> Case:
    files = {**TREE, "p" * 60 + "/" + "q" * 60 + "/n.txt": b"prefixed\n"}
    return shown(gz(by_tarfile(tarfile.USTAR_FORMAT, files)), files)


@case
def format_v7() -> Case:
    tar = Tar().add(b"d/", magic=b"", typeflag=b"\0").add(b"d/f", b"seven\n", magic=b"", typeflag=b"\0")
    return shown(tar.gz(), {"d/f": b"seven\n"})


@case
def gnu_times_in_place_of_the_prefix() -> Case:
    return shown(Tar().add(b"f", b"1", magic=b"ustar  \0", prefix=b"14000000000\x0014000000000").gz(), {"f": b"1"})


@case
def base_256_numbers() -> Case:
    size = b"\x80" + (3).to_bytes(11, "big")
    return shown(Tar().add(b"f", b"abc", size=size, mtime=2**40).good().gz(), {"f": b"abc", **GOOD})


@case
def dot_slash_prefixes() -> Case:
    tar = Tar().add(b"./", typeflag=b"5").add(b"./a.txt", b"a\n").add(b"././b//c.txt", b"c\n")
    return shown(tar.gz(), {"a.txt": b"a\n", "b/c.txt": b"c\n"})


@case
def directories_after_their_files() -> Case:
    tar = Tar().add(b"d/e/f", b"f").add(b"d/e/", typeflag=b"5").add(b"d", typeflag=b"5")
    return shown(tar.gz(), {"d/e/f": b"f"})


@case
def empty_directories() -> Case:
    return Case(Tar().add(b"d/e/", typeflag=b"5").good().gz(), GOOD, frozenset({"d", "d/e"}))


@case
def several_gzip_members() -> Case:
    raw = by_tarfile(tarfile.PAX_FORMAT, TREE)
    cuts = (0, 1, 100, 512, 700, 1500, len(raw))
    data = b"".join(gz(raw[start:stop]) for start, stop in itertools.pairwise(cuts))
    return shown(gz(b"") + data + gz(b""), TREE)


@case
def stored_blocks() -> Case:
    return shown(gz(by_tarfile(tarfile.PAX_FORMAT, TREE), level=0), TREE)


@case
def missing_end_blocks() -> Case:
    return shown(gz(bytes(Tar().good().raw)), GOOD)


@case
def one_end_block() -> Case:
    return shown(gz(bytes(Tar().good().raw) + bytes(512)), GOOD)


@case
def trailing_zeros_in_the_tar() -> Case:
    return shown(gz(Tar().good().end() + bytes(100_001)), GOOD)


@case
def trailing_zeros_after_the_gzip() -> Case:
    return shown(Tar().good().gz() + bytes(70_000), GOOD)


@case
def trailing_garbage_after_the_gzip() -> Case:
    return shown(Tar().good().gz() + b"\0\0garbage" * 5000, GOOD)


@case
def trailing_data_after_the_end_blocks() -> Case:
    return shown(gz(Tar().good().end() + b"not a header" * 1000), GOOD)


@case
def long_names() -> Case:
    name, deep = "n" * 255, "d/" * 255 + "f"
    files = {name: b"255\n", deep: b"256 levels\n"}
    return shown(gz(by_tarfile(tarfile.GNU_FORMAT, files)), files)


@case
def names_too_long() -> Case:
    names = ("n" * 256, "ü" * 128, "p/" * 100 + ("q" * 250 + "/") * 16 + "f")
    data = gz(by_tarfile(tarfile.PAX_FORMAT, {**dict.fromkeys(names, b"x"), **GOOD}))
    return Case(data, GOOD, refused=frozenset(names))


@case
def names_that_are_not_utf8() -> Case:
    return shown(
        Tar().add(b"caf\xe9", b"latin\n").add(b"nl\n:x", b"nl\n").gz(),
        {"caf\udce9": b"latin\n", "nl\n:x": b"nl\n"},
    )


@case
def pax_hdrcharset_binary() -> Case:
    tar = Tar().pax((b"hdrcharset", b"BINARY"), (b"path", b"caf\xe9")).add(b"cafe", b"1").good()
    return shown(tar.gz(), {"caf\udce9": b"1", **GOOD})


@case
def pax_padded_and_global() -> Case:
    tar = Tar().pax((b"comment", b"0123abc"), (b"mtime", b"1.5"), typeflag=b"g")
    tar.raw_pax(pax_record(b"path", b"renamed") + bytes(20)).add(b"f", b"1").good()
    return shown(tar.gz(), {"renamed": b"1", **GOOD})


@case
def pax_size_over_the_header() -> Case:
    return shown(Tar().pax((b"size", b"3")).add(b"f", b"abc", size=0).good().gz(), {"f": b"abc", **GOOD})


@case
def empty_archive() -> Case:
    return Case(gz(bytes(10240)))


@case
def gzip_of_nothing() -> Case:
    return Case(gz(b""))


# ------------------------------------------------------------------------------------------------ traversal


@case
def dotdot_and_absolute_names() -> Case:
    names = ("../up", "a/../../up", "a/..", "..", "/etc/passwd", "//x", "/", "./../x")
    tar = Tar()
    for name in names:
        tar.add(name.encode(), b"evil")
    return Case(tar.good().gz(), GOOD, refused=frozenset(names))


@case
def dotdot_directories() -> Case:
    tar = Tar().add(b"../d/", typeflag=b"5").add(b"/abs/", typeflag=b"5").good()
    return Case(tar.gz(), GOOD, refused=frozenset({"../d/", "/abs/"}))


@case
def pax_path_overrides() -> Case:
    tar = Tar().pax((b"path", b"../up")).add(b"harmless", b"evil").pax((b"path", b"/etc/x")).add(b"h2", b"evil")
    tar.add(b"././@LongLink", b"../gnu\0", b"L").add(b"h3", b"evil").pax((b"path", b"fine")).add(b"h4", b"fine")
    return Case(tar.gz(), {"fine": b"fine"}, refused=frozenset({"../up", "/etc/x", "../gnu"}))


@case
def pax_global_path() -> Case:
    return bad(Tar().pax((b"path", b"everything"), typeflag=b"g").good().gz(), "global PAX")


@case
def shadows_after_normalising() -> Case:
    tar = Tar().add(b"d/f", b"first").add(b"d//./f", b"second").add(b"./d/f", b"last")
    return shown(tar.gz(), {"d/f": b"last"})


@case
def names_of_the_root() -> Case:
    tar = Tar().add(b".", b"x").add(b"", b"x").add(b"./", typeflag=b"5").add(b".", typeflag=b"2", link=b"x").good()
    return Case(tar.gz(), GOOD, refused=frozenset({".", ""}))


# ---------------------------------------------------------------------------------------------------- links


def symlinks(links: Mapping[str, str], tar: Tar | None = None) -> Tar:
    tar = tar or Tar()
    for name, target in links.items():
        tar.pax((b"linkpath", target.encode())).add(name.encode(), typeflag=b"2", link=b"unused")
    return tar


@case
def symlinks_inside() -> Case:
    links = {
        "l": "d/f",
        "d/up": "../good.txt",
        "d/e/root": "../..",
        "dangling": "no/where",
        "dot": ".",
        "d/s": "f/",
    }
    data = symlinks(links, Tar().add(b"d/e/", typeflag=b"5").add(b"d/f", b"f").good()).gz()
    return Case(data, {"d/f": b"f", **GOOD}, frozenset({"d", "d/e"}), links)


@case
def symlinks_escaping() -> Case:
    links = {
        "abs": "/etc/passwd",
        "up": "..",
        "d/up2": "../../x",
        "zigzag": "d/../../x",
        "ghost": "none/../../x",
        "file": "good.txt/../../x",
        "long": "x" * 5000,
        "evil\x1b[2J": "/\x1b[2J\n",
    }
    data = symlinks(links, Tar().add(b"d/", typeflag=b"5").good()).gz()
    return Case(data, GOOD, frozenset({"d"}), broken=frozenset(links))


@case
def symlinks_escaping_through_others() -> Case:
    """As text each of the broken ones stays inside; the kernel would leave by them."""
    links = {
        "a/b/c/top": "../../..",
        "a/b/c/jump": "top/../x",
        "shallow": "a/b/c/top",
        "out": "shallow/../../y/../x",
    }
    escaping = {"out", "a/b/c/jump"}
    data = symlinks(links, Tar().good()).gz()
    kept = {name: target for name, target in links.items() if name not in escaping}
    return Case(data, GOOD, frozenset({"a", "a/b", "a/b/c"}), kept, frozenset(escaping))


@case
def symlink_loops() -> Case:
    links = {"self": "self", "a": "b", "b": "a", "d/x": "../d/y", "d/y": "x/z", "spin": "spin/spin"}
    return Case(symlinks(links, Tar().good()).gz(), GOOD, frozenset({"d"}), links)


@case
def symlink_chain_too_long() -> Case:
    links = {f"l{n:03}": f"l{n + 1:03}" for n in range(100)}
    kept = {name: target for name, target in links.items() if int(name[1:]) >= 59}
    return Case(symlinks(links, Tar().good()).gz(), GOOD, links=kept, broken=frozenset(links) - frozenset(kept))


@case
def file_through_a_symlinked_directory() -> Case:
    links = {"l": "d", "out": "/tmp"}
    tar = symlinks(links, Tar().add(b"d/", typeflag=b"5"))
    tar.add(b"l/f", b"evil").add(b"out/f", b"evil").add(b"l/x/f", b"evil").add(b"l/e/", typeflag=b"5")
    tar.add(b"h", typeflag=b"1", link=b"l/f").good()
    refused = frozenset({"l/f", "out/f", "l/x/f", "l/e/", "h"})
    return Case(tar.gz(), GOOD, frozenset({"d"}), {"l": "d"}, frozenset({"out"}), refused)


@case
def hard_links() -> Case:
    tar = Tar().add(b"d/f", b"content", mode=0o755).add(b"h", typeflag=b"1", link=b"./d/f")
    tar.add(b"h2", typeflag=b"1", link=b"h").add(b"d/f", b"newer").add(b"h2", typeflag=b"1", link=b"h2")
    files = {"d/f": b"newer", "h": b"content", "h2": b"content"}
    return Case(tar.gz(), files, frozenset({"d"}), executable=frozenset({"h", "h2"}))


@case
def hard_links_to_nowhere() -> Case:
    targets = {
        "out": "../x",
        "abs": "/etc/passwd",
        "miss": "nothing",
        "self": "self",
        "later": "z",
        "dir": "d",
        "e": "",
    }
    tar = Tar().add(b"d/", typeflag=b"5")
    for name, target in targets.items():
        tar.add(name.encode(), typeflag=b"1", link=target.encode())
    return Case(tar.add(b"z", b"z").gz(), {"z": b"z"}, frozenset({"d"}), refused=frozenset(targets))


@case
def hard_link_to_a_symlink() -> Case:
    tar = symlinks({"d/l": "f", "d/bad": "../../x"}, Tar().add(b"d/f", b"f"))
    tar.add(b"h", typeflag=b"1", link=b"d/l").add(b"h2", typeflag=b"1", link=b"d/bad")
    return Case(tar.gz(), {"d/f": b"f"}, frozenset({"d"}), {"d/l": "f", "h": "f"}, frozenset({"d/bad", "h2"}))


@case
def hard_link_chain_of_thousands() -> Case:
    tar = Tar().add(b"0", b"end of the chain")
    for n in range(1, 5000):
        tar.add(b"%d" % n, typeflag=b"1", link=b"%d" % (n - 1))
    return shown(tar.gz(), {str(n): b"end of the chain" for n in range(5000)})


# -------------------------------------------------------------------------------------- special files, modes


@case
def special_files() -> Case:
    tar = Tar().add(b"fifo", typeflag=b"6").add(b"chr", typeflag=b"3", size=7).add(b"dev/blk", typeflag=b"4")
    tar.add(b"odd", b"data", typeflag=b"Z").add(b"label", typeflag=b"V").add(b"vol", b"rest", typeflag=b"M").good()
    return Case(tar.gz(), GOOD, refused=frozenset({"fifo", "chr", "dev/blk", "odd", "label", "vol"}))


@case
def setuid_and_huge_owners() -> Case:
    tar = Tar().add(b"su", b"1", mode=0o6755, uid=2**55).add(b"sticky", b"2", mode=0o1644, uid=-1)
    return Case(tar.gz(), {"su": b"1", "sticky": b"2"}, executable=frozenset({"su"}))


ODD_TIMES = (b"-1", b"-1.5", b"253402300799", b"nan", b"inf", b"1e9", b"", b"9" * 400, b"1.", b"abc", b"1_0")


@case
def odd_mtimes() -> Case:
    tar = Tar().add(b"negative", b"1", mtime=-(2**60)).add(b"huge", b"1", mtime=2**80).add(b"junk", b"1", mtime=b"zz")
    for n, value in enumerate(ODD_TIMES):
        tar.pax((b"mtime", value)).add(b"p%d" % n, b"1")
    files = {"negative": b"1", "huge": b"1", "junk": b"1"} | {f"p{n}": b"1" for n in range(len(ODD_TIMES))}
    return shown(tar.gz(), files)


# ----------------------------------------------------------------------------------------------- duplicates


@case
def duplicates() -> Case:
    tar = Tar().add(b"a", b"first").add(b"b", b"only").add(b"./a", b"second").add(b"a", b"last")
    return shown(tar.gz(), {"a": b"last", "b": b"only"})


@case
def file_then_directory() -> Case:
    tar = Tar().add(b"a", b"file").add(b"a/", typeflag=b"5").add(b"i", b"file").add(b"i/f", b"f")
    return Case(tar.gz(), {"i/f": b"f"}, frozenset({"a", "i"}))


@case
def directory_then_file() -> Case:
    tar = Tar().add(b"a/", typeflag=b"5").add(b"a/b/c", b"below").add(b"h", typeflag=b"1", link=b"a/b/c")
    return shown(tar.add(b"a", b"file").gz(), {"a": b"file", "h": b"below"})


@case
def symlink_then_directory() -> Case:
    tar = symlinks({"l": "d"}, Tar().add(b"d/f", b"1")).add(b"l/", typeflag=b"5").add(b"l/g", b"2")
    return shown(tar.gz(), {"d/f": b"1", "l/g": b"2"})


@case
def refused_duplicate_hides_the_first() -> Case:
    tar = Tar().add(b"a", b"old").add(b"a", typeflag=b"6").good()
    return Case(tar.gz(), GOOD, refused=frozenset({"a"}))


@case
def nfc_nfd_and_case() -> Case:
    names = {"caf\u00e9": b"nfc", "cafe\u0301": b"nfd", "CAFE": b"upper", "cafe": b"lower"}
    return shown(gz(by_tarfile(tarfile.PAX_FORMAT, names)), names)


# --------------------------------------------------------------------------------------------------- broken

BROKEN_PAX = {
    "too_long": b"99 path=x\n",
    "too_short": b"5 path=x\n",
    "zero": b"0 path=x\n",
    "negative": b"-9 path=x\n",
    "no_number": b"path=x\n",
    "no_key": b"6 =ab\n",
    "no_equals": b"7 path\n",
    "cut": b"10 path=xy",
    "endless": b"9" * 5000,
    "after_padding": bytes(4) + b"9 path=x\n",
}


def broken_pax(data: bytes) -> Callable[[], Case]:
    return lambda: bad(Tar().good().raw_pax(data).add(b"f", b"1").gz(), "PAX header")


CASES |= {f"pax_record_{name}": broken_pax(data) for name, data in BROKEN_PAX.items()}


@case
def nul_in_a_path() -> Case:
    tar = Tar().pax((b"path", b"a\0b")).add(b"f", b"1").add(b"././@LongLink", b"c\0d\0", b"L").add(b"f", b"1")
    tar.pax((b"linkpath", b"good.txt\0x")).add(b"l", typeflag=b"2", link=b"x").good()
    return Case(tar.gz(), GOOD, refused=frozenset({"a\0b", "c\0d", "l"}))


BAD_SIZES = {
    "garbage": b"12x4567\0",
    "spaced": b"1 2\0",
    "underscore": b"1_0\0",
    "sign": b"+10\0",
    "8eib": b"\x80" + b"\0" * 3 + b"\x80" + b"\0" * 7,
}
BAD_SIZES |= {
    "negative": b"\xff" * 12,
    "octal_negative": b"-0000000001\0",
    "all_ones": b"\x80" + b"\xff" * 11,
}
CASES |= {
    f"size_{name}": lambda value=value: bad(Tar().good().add(b"f", b"abc", size=value).gz(), "size")  # type: ignore[misc]  # bound by default
    for name, value in BAD_SIZES.items()
}


@case
def size_of_8_eib_by_pax() -> Case:
    return bad(Tar().good().pax((b"size", b"9223372036854775808")).add(b"f", b"abc").gz(), "size")


@case
def size_beyond_the_limit() -> Case:
    return bad(Tar().good().add(b"f", b"abc", size=2**62).gz(), "limits.max-output", "limit")


@case
def member_cut_short() -> Case:
    return bad(gz(bytes(Tar().good().add(b"f", b"x" * 5000).raw)[:-1000]), "cut off")


@case
def header_cut_short() -> Case:
    return bad(gz(bytes(Tar().good().raw) + b"f" * 100), "cut off")


@case
def extension_without_its_member() -> Case:
    return bad(Tar().good().pax((b"path", b"x")).gz(), "within a member")


@case
def extension_cut_short() -> Case:
    return bad(gz(bytes(Tar().good().pax((b"path", b"x")).raw)), "cut off")


@case
def header_checksum_wrong() -> Case:
    return bad(Tar().good().add(b"f", b"1", bad_checksum=True).good().gz(), "checksum")


@case
def sparse_by_pax() -> Case:
    records = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"huge"))
    tar = Tar().pax(*records, (b"GNU.sparse.realsize", b"%d" % 2**40)).add(b"GNUSparseFile.0/huge", b"0\n" + bytes(510))
    return Case(tar.good().gz(), GOOD, refused=frozenset({"huge"}))


@case
def sparse_of_old_gnu() -> Case:
    """One TiB by its map, which goes on in two more blocks that its size does not count."""
    tar = Tar().add(b"huge", b"", b"S", magic=b"ustar  \0", size=700, extra=(482, b"\1" + number(2**40, 12)))
    tar.raw += bytes(504) + b"\1" + bytes(7) + bytes(512) + b"x" * 700 + bytes(1024 - 700)
    return Case(tar.good().gz(), GOOD, refused=frozenset({"huge"}))


# ---------------------------------------------------------------------------------------------------- bombs


@case
def bomb_of_zeros() -> Case:
    """Two GiB of zeros in two MiB: blocks that end in a full flush may be repeated."""
    head = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = head.compress(bytes(Tar().good().add(b"zeros", size=2048 * MIB).raw)) + head.flush(zlib.Z_FULL_FLUSH)
    body = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = body.compress(bytes(16 * MIB)) + body.flush(zlib.Z_FULL_FLUSH)
    return bad(b"\x1f\x8b\x08" + bytes(7) + data + block * 128, "limits.max-ratio", "limit")


@case
def bomb_gzip_in_gzip() -> Case:
    return bad(gz(gz(bytes(50 * MIB))), "gzip inside gzip")


@case
def hundred_thousand_entries() -> Case:
    block = Tar().add(b"n" * 12, b"").raw
    base = sum(b"n" * 12)
    checksum = int(bytes(block[148:154]), 8)
    raw = bytearray()
    for n in range(100_000):
        name = b"d%04d/f%06d" % (n // 100, n)
        block[0:12] = name[:12]
        block[148:154] = b"%06o" % (checksum - base + sum(name[:12]))
        raw += block
    files = {f"d{n // 100:04}/f{n:06}"[:12]: b"" for n in range(100_000)}
    return shown(gz(bytes(raw) + bytes(1024), 1), files)


@case
def levels_1500() -> Case:
    name = "d/" * 1500 + "f"
    data = gz(by_tarfile(tarfile.PAX_FORMAT, {name: b"deep", **GOOD}))
    return Case(data, GOOD, refused=frozenset({name}))


@case
def bomb_of_implied_directories() -> Case:
    tar = Tar()
    for n in range(4000):
        name = b"%d/" % n + b"d/" * 254 + b"f"
        tar.add(b"././@LongLink", name + b"\0", b"L").add(b"x")
    return bad(tar.gz(), "limits.max-entries", "limit")


@case
def bomb_of_a_long_name() -> Case:
    return bad(Tar().add(b"././@LongLink", b"n" * (20 * MIB), b"L").good().gz(), "limits.max-header", "limit")


@case
def bomb_of_links() -> Case:
    """Each link is a long walk through the same long link."""
    links = {"s": "./" * 2000 + "."} | {f"l{n}": "s/" * 40 for n in range(300)}
    return bad(symlinks(links, Tar()).gz(), "symbolic links", "limit")


# --------------------------------------------------------------------------------------------- corrupt gzip


def sample() -> bytes:
    noise = zlib.crc32
    files = {f"f{n}": b"".join(struct.pack("<I", noise(b"%d %d" % (n, i))) for i in range(500)) for n in range(20)}
    return gz(by_tarfile(tarfile.PAX_FORMAT, files))


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 0x10,)) + data[at + 1 :]


CASES |= {
    "gzip_crc_wrong": lambda: bad((data := sample())[:-8] + flip(data[-8:], 1), "data check"),
    "gzip_isize_wrong": lambda: bad((data := sample())[:-4] + flip(data[-4:], 0), "length check"),
    "gzip_bit_flipped": lambda: bad(flip(data := sample(), len(data) // 2), "damaged"),
    "gzip_header_flipped": lambda: bad(flip(sample(), 2), "damaged"),
    "gzip_cut_at_0": lambda: bad(b"", "empty"),
    "gzip_cut_at_1_byte": lambda: bad(sample()[:1], "cut off"),
    "gzip_cut_at_1": lambda: bad((data := sample())[: len(data) // 100], "cut off"),
    "gzip_cut_at_50": lambda: bad((data := sample())[: len(data) // 2], "cut off"),
    "gzip_cut_at_99": lambda: bad((data := sample())[: len(data) * 99 // 100], "cut off"),
    "gzip_without_trailer": lambda: bad(sample()[:-8], "cut off"),
    "gzip_with_half_a_trailer": lambda: bad(sample()[:-4], "cut off"),
}


@case
def gzip_second_member_unreadable() -> Case:
    """What follows a whole member is not gzip any more; taken for garbage, half a tar would be the whole."""
    raw = bytes(Tar().add(b"a", b"1").raw)
    return bad(gz(raw) + flip(gz(Tar().good().end()), 0), "does not end")


# ------------------------------------------------------------------------------------------- not an archive


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", "a")
    return out.getvalue()


FOREIGN: dict[str, tuple[Callable[[], bytes], str]] = {
    "html": (lambda: b"\n<!DOCTYPE html><html><title>Sign in</title></html>", "an HTML page"),
    "json": (lambda: b'{"error": {"code": "NoSuchKey"}}', "JSON"),
    "xml": (lambda: b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML document"),
    "empty": (lambda: b"", "empty"),
    "tar": (lambda: Tar().good().end(), "a plain tar archive"),
    "bzip2": (lambda: bz2.compress(Tar().good().end()), "bzip2"),
    "xz": (lambda: lzma.compress(Tar().good().end()), "xz"),
    "zip": (zipped, "a zip archive"),
    "zstd": (lambda: b"\x28\xb5\x2f\xfd\x04\x00" + bytes(100), "zstd"),
    "text": (lambda: "Überall nur Text.\n".encode() * 99, "text"),
    "noise": (lambda: bytes(range(255, 0, -1)) * 9, "data of an unknown kind"),
}
CASES |= {
    f"not_gzip_but_{name}": lambda make=make, says=says: bad(make(), says)  # type: ignore[misc]  # bound by default
    for name, (make, says) in FOREIGN.items()
}
CASES |= {
    f"gzip_of_{name}": lambda make=make, says=says: bad(gz(make()), says)  # type: ignore[misc]  # bound by default
    for name, (make, says) in FOREIGN.items()
    if name not in ("empty", "tar")
}


@case
def double_gzip() -> Case:
    return bad(gz(Tar().good().gz()), "gzip inside gzip")


# ---------------------------------------------------------------------------------------------------- names


@case
def names_of_droppings_and_of_the_tree() -> Case:
    names = (
        ".DS_Store",
        "._x",
        "a.swp",
        "~lock",
        "Thumbs.db",
        ".fuse_hidden0001",
        "versions/v1",
        "latest",
        "artifact.json",
    )
    more = (
        ".artifacts/x",
        ".artifactfs/status",
        "CON",
        "%2F",
        "a\u202eb",
        "x\x1b[31m",
        " ",
        "a\u2215b",
        "-rf",
        "*",
    )
    files = dict.fromkeys(names + more, b"shown")
    return shown(gz(by_tarfile(tarfile.PAX_FORMAT, files)), files)


# --------------------------------------------------------------------------- what else an attacker would think of


def gzip_with(flags: int, more: bytes) -> bytes:
    """Return a gzip file with optional fields in its header."""
    data = Tar().good().gz()
    return data[:3] + bytes((flags,)) + data[4:10] + more + data[10:]


@case
def gzip_header_fields() -> Case:
    """An extra field of 64 KiB, a long file name and a comment: all legal, all skipped."""
    extra = (65_535).to_bytes(2, "little") + b"e" * 65_535
    return shown(gzip_with(4 | 8 | 16, extra + b"../../etc/passwd" * 999 + b"\0" + b"\x1b]0;x\x07" * 999 + b"\0"), GOOD)


@case
def gzip_header_checksum_wrong() -> Case:
    return bad(gzip_with(2, b"\x12\x34"), "damaged")


@case
def gzip_reserved_flags() -> Case:
    return bad(gzip_with(0xE0, b""), "damaged")


@case
def zlib_in_place_of_gzip() -> Case:
    return bad(zlib.compress(Tar().good().end()), "data of an unknown kind")


@case
def hard_link_with_data() -> Case:
    """Some readers take the bytes behind it for content, others for a header: nobody can tell what was meant."""
    return bad(Tar().good().add(b"h", b"x" * 600, b"1", link=b"good.txt").gz(), "checksum")


@case
def backslashes_are_no_slashes() -> Case:
    names = ("..\\..\\up", "C:\\windows", "a\\b\\", "\\\\host\\share")
    files = dict.fromkeys(names, b"x")
    return shown(gz(by_tarfile(tarfile.PAX_FORMAT, files)), files)


@case
def names_like_the_escapes_of_names() -> Case:
    """What is shown of one may be what another is called."""
    files = {
        "a^2Fb": b"1",
        "a/b": b"2",
        "^2E^2E": b"3",
        "^empty": b"4",
        "x\x01": b"5",
        "x^01": b"6",
        " ": b"7",
        "^20": b"8",
    }
    return shown(gz(by_tarfile(tarfile.PAX_FORMAT, files)), files)


@case
def long_names_that_differ_at_their_end() -> Case:
    """Escaped they are three times as long, and are cut."""
    names = ["\x01" * 200 + str(number) + ".md" for number in range(5)]
    files = {name: name.encode() for name in names}
    return shown(gz(by_tarfile(tarfile.PAX_FORMAT, files)), files)


@case
def names_of_many_dots() -> Case:
    files = {"...": b"1", "a/...": b"2", "..a": b"3", "a../b": b"4", ". .": b"5"}
    tar = Tar()
    for name, data in files.items():
        tar.add(name.encode(), data)
    refused = {"a/./../x": b"", "x/..": b"", "....//../y": b""}
    for name in refused:
        tar.add(name.encode(), b"evil")
    return Case(tar.gz(), files, frozenset({"a", "a.."}), refused=frozenset(refused))


@case
def directory_then_symlink() -> Case:
    """The last wins: what was below the directory goes with it, and nothing is read through the link."""
    tar = Tar().add(b"d/", typeflag=b"5").add(b"d/f", b"below").add(b"e/f", b"below")
    tar.pax((b"linkpath", b"..")).add(b"d", typeflag=b"2", link=b"x").add(b"e", typeflag=b"2", link=b"good.txt").good()
    return Case(tar.gz(), GOOD, links={"e": "good.txt"}, broken=frozenset({"d"}))


@case
def a_link_becomes_a_way_out_later() -> Case:
    """Harmless when it was written; what it leads through was replaced behind it."""
    tar = symlinks({"a/way": "../b/c/.."}, Tar().add(b"b/c/f", b"1").good())
    tar.add(b"b/c", typeflag=b"2", link=b"../..").add(b"b/d", typeflag=b"2", link=b".")
    return Case(tar.gz(), GOOD, frozenset({"a", "b"}), {"b/d": "."}, broken=frozenset({"a/way", "b/c"}))


@case
def hard_link_to_what_was_refused() -> Case:
    tar = Tar().add(b"fifo", typeflag=b"6").add(b"h", typeflag=b"1", link=b"fifo").add(b"../up", b"evil")
    tar.add(b"h2", typeflag=b"1", link=b"../up").add(b"h3", typeflag=b"1", link=b"a/../good.txt").good()
    return Case(tar.gz(), GOOD, refused=frozenset({"fifo", "h", "../up", "h2", "h3"}))


@case
def pax_records_that_are_overruled() -> Case:
    """The last record of a key wins, an empty one is none, a name by PAX comes before one by GNU."""
    tar = Tar().pax((b"path", b"first"), (b"path", b"last")).add(b"x", b"1").pax((b"path", b"")).add(b"own", b"2")
    tar.pax((b"path", b"pax")).add(b"././@LongLink", b"gnu\0", b"L").add(b"x", b"3")
    tar.pax((b"path", b"one")).pax((b"mtime", b"5")).add(b"x", b"4").pax((b"size", b"0003")).add(b"s", b"abc", size=9)
    files = {"last": b"1", "own": b"2", "pax": b"3", "one": b"4", "s": b"abc"}
    return shown(tar.good().gz(), {**files, **GOOD})


BAD_PAX_SIZES = {
    "signed": b"+3",
    "spaced": b" 3",
    "float": b"3.0",
    "unicode": "\u0663".encode(),
    "endless": b"9" * 5000,
}
CASES |= {
    f"pax_size_{name}": lambda value=value: bad(Tar().good().pax((b"size", value)).add(b"f", b"abc").gz(), "size")  # type: ignore[misc]  # bound by default
    for name, value in BAD_PAX_SIZES.items()
}


@case
def sparse_of_older_pax() -> Case:
    """Formats 0.0 and 0.1, one TiB each by what they say."""
    tera = b"%d" % 2**40
    tar = Tar().pax((b"GNU.sparse.size", tera), (b"GNU.sparse.numblocks", b"0")).add(b"zero", b"")
    tar.pax((b"GNU.sparse.size", tera), (b"GNU.sparse.map", b"0,1," + tera + b",0")).add(b"one", b"x").good()
    return Case(tar.gz(), GOOD, refused=frozenset({"zero", "one"}))


@case
def types_of_other_systems() -> Case:
    """Each has its data skipped: access lists, attributes, old long names, contiguous files."""
    tar = Tar()
    for at, typeflag in enumerate((b"A", b"E", b"I", b"N", b"Q", b"\x80", b"9", b" ")):
        tar.add(b"t%d" % at, b"x" * 513, typeflag)
    files = {"contiguous": b"7", **GOOD}
    return Case(tar.add(b"contiguous", b"7", b"7").good().gz(), files, refused=frozenset(f"t{at}" for at in range(8)))


@case
def a_lone_block_of_zeros() -> Case:
    """It ends the archive for everybody; what follows is none of its members."""
    return shown(gz(bytes(Tar().good().raw) + bytes(512) + Tar().add(b"evil", b"x").end()), GOOD)


@case
def two_archives_in_one() -> Case:
    return shown(gz(Tar().good().end()) + gz(Tar().add(b"evil", b"x").end()), GOOD)


@case
def bomb_of_headers_without_members() -> Case:
    """PAX records are held until their member comes, which never does."""
    tar = Tar()
    for number in range(40):
        tar.raw_pax(pax_record(b"comment%d" % number, b"x" * (MIB // 2)))
    return bad(tar.good().gz(), "limits.max-header", "limit")


@case
def bomb_of_names_that_are_not_utf8() -> Case:
    """Stored as text each byte of them takes six."""
    tar = Tar()
    for number in range(5_000):
        tar.add(b"././@LongLink", b"%06d" % number + b"\xff" * 240, b"L").add(b"x")
    files = {f"{number:06}" + "\udcff" * 240: b"" for number in range(5_000)}
    return shown(gz(tar.end(), 1), files)
