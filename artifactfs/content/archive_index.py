"""The index of a tar.gz: what the rest of artifactfs uses of the archive modules.

``ArchiveReader`` takes compressed bytes and hands out decompressed ones, with an ``ArchiveIndex`` at the end.
``dump`` and ``load`` keep an index for later, so that no listing needs the archive twice.

Rules of this file:

* No I/O: who feeds the reader also writes what comes out of it, in a worker thread of its own.
* Nothing is believed before ``finish()``: a tar ends at its end blocks, and the checksum of the compressed
  stream stands behind them.
* The parts: ``gunzip`` (stream and limits), ``tar_headers`` (members), ``archive_tree`` and ``archive_links`` (what
  they mean), ``archive_cutter`` (their bytes), ``restart`` (where decoding can begin again).
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import TYPE_CHECKING, Any, Final

from artifactfs.content.archive_links import NOTHING, ArchiveIndex, Kind, Member, build_index, index_of
from artifactfs.content.archive_tree import GrowingTree, Refused
from artifactfs.content.gunzip import Gunzip, Inflater, plain_inflater
from artifactfs.content.tar_headers import RawMember, TarScanner
from artifactfs.errors import CorruptContent
from artifactfs.model.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = [
    "ArchiveIndex",
    "ArchiveReader",
    "GrowingTree",
    "Kind",
    "Limits",
    "Member",
    "RawMember",
    "Refused",
    "TarScanner",
    "build_index",
    "dump",
    "load",
]

_FORMAT: Final = b"AFSIDX3\n"
# Members of one row of the stored form. Written as one text, 400,000 long names that are not UTF-8 took 1.1 GB and held
# the interpreter for seconds; in rows it is some megabytes, and others run between two.
ROW: Final = 500
_LENGTH: Final = struct.Struct("<I")
_KINDS: Final[dict[str, Kind]] = {"f": "file", "d": "dir", "l": "symlink"}


class ArchiveReader:
    """Compressed bytes in, decompressed bytes out, and the index when all has passed.

    Not thread-safe; meant for one worker thread. The counters may be read from any thread.
    """

    def __init__(
        self, limits: Limits | None = None, make_inflater: Callable[[int, int], Inflater] = plain_inflater
    ) -> None:
        self._limits = limits or Limits()
        self._gunzip = Gunzip(self._limits, make_inflater)
        self._scanner = TarScanner(self._limits)

    def __repr__(self) -> str:
        return f"<ArchiveReader {self._gunzip!r} {self._scanner!r}>"

    @property
    def bytes_in(self) -> int:
        return self._gunzip.bytes_in

    @property
    def bytes_out(self) -> int:
        return self._gunzip.bytes_out

    @property
    def members_seen(self) -> int:
        return self._scanner.seen

    def take_members(self) -> list[RawMember]:
        """Return the members whose headers have passed since the last call; ``finish`` needs them then, in a tree."""
        taken, self._scanner.members = self._scanner.members, []
        return taken

    def feed(self, compressed: bytes) -> Iterator[bytes]:
        """Decode and scan what follows; a piece is scanned before it is handed out.

        A generator: it does nothing until iterated, and must be iterated to its end before the next call.

        Raises:
            CorruptContent: not a tar.gz, or damaged. Nothing handed out so far may be believed.
            LimitExceeded: larger than allowed.
        """
        for piece in self._gunzip.feed(compressed):
            self._scanner.feed(piece)
            yield piece

    def finish(self, tree: GrowingTree | None = None, sha256: Mapping[int, str] = NOTHING) -> ArchiveIndex:
        """Say that the archive has ended, and get its index.

        Args:
            tree: made of the members that were taken; None if none were.
            sha256: of the contents, by their offsets.

        Raises:
            CorruptContent: it has not ended as an archive does. Nothing handed out may be believed.
            LimitExceeded: the tree is larger than allowed.
        """
        self._gunzip.close()
        self._scanner.close()
        notes = []
        if self._gunzip.trailing_garbage:
            if not self._scanner.ended:
                # The garbage may be a damaged member of the gzip stream with the rest of the tar.
                raise CorruptContent("the tar archive does not end before data that is not gzip")
            notes.append("data behind the end of the gzip stream is ignored")
        if self._scanner.trailing_data:
            notes.append("data behind the end of the tar archive is ignored")
        tree = tree or GrowingTree(self._limits)
        for raw in self._scanner.members:
            tree.apply(raw)
        size = self._scanner.stream_size
        return index_of(tree, self._limits, stream_size=size, notes=tuple(notes), sha256=sha256)


# ------------------------------------------------------------------------------------------- the stored form


def dump(index: ArchiveIndex) -> bytes:
    """Serialise: rows of columns, each compressed by itself; about 20 bytes a member."""
    facts = {
        "members": len(index.members),
        "refused": len(index.refused),
        "stream_size": index.stream_size,
        "total_size": index.total_size,
        "notes": index.notes,
    }
    rows: list[bytes] = [_FORMAT, _framed(facts)]
    rows += (_framed(_columns(index.members[at : at + ROW])) for at in range(0, len(index.members), ROW))
    pairs = [[refused.path, refused.reason] for refused in index.refused]
    rows += (_framed(pairs[at : at + ROW]) for at in range(0, len(pairs), ROW))
    return b"".join(rows)


def _framed(row: object) -> bytes:
    # Lone surrogates (names that are not UTF-8) survive only as ASCII escapes, which is json's default.
    data = zlib.compress(json.dumps(row, separators=(",", ":")).encode("ascii"))
    return _LENGTH.pack(len(data)) + data


def _columns(members: Sequence[Member]) -> dict[str, Any]:
    return {
        "path": [member.path for member in members],
        "kind": "".join("l" if member.kind == "symlink" else member.kind[0] for member in members),
        "offset": [member.offset for member in members],
        "size": [member.size for member in members],
        "executable": [at for at, member in enumerate(members) if member.executable],
        "mtime_ns": [member.mtime_ns for member in members],
        "target": {at: member.target for at, member in enumerate(members) if member.target is not None},
        "inline": {at: base64.b64encode(member.inline).decode() for at, member in enumerate(members) if member.inline},
        "serial": {at: member.serial for at, member in enumerate(members) if member.serial},
        "sha256": [member.sha256 for member in members],
    }


def load(data: bytes) -> ArchiveIndex:
    """Read what ``dump`` wrote.

    Raises:
        CorruptContent: it is not that, or of another version. The archive has to be read again.
    """
    if not data.startswith(_FORMAT):
        raise CorruptContent("a stored archive index has another format")
    try:
        return _from_rows(_unframed(data))
    except (zlib.error, ValueError, LookupError, TypeError, AttributeError, RecursionError, StopIteration) as exc:
        raise CorruptContent("a stored archive index is damaged") from exc


def _unframed(data: bytes) -> Iterator[Any]:
    at = len(_FORMAT)
    while at < len(data):
        begin = at + _LENGTH.size
        at = begin + int.from_bytes(data[at:begin], "little")
        if at > len(data):
            raise ValueError(at)
        yield json.loads(zlib.decompress(data[begin:at]))


def _from_rows(rows: Iterator[Any]) -> ArchiveIndex:
    facts = next(rows)
    members: list[Member] = []
    refused: list[Refused] = []
    while len(members) < facts["members"]:
        members += _from_columns(next(rows))
    while len(refused) < facts["refused"]:
        refused += (Refused(path, reason) for path, reason in next(rows))
    if (len(members), len(refused)) != (facts["members"], facts["refused"]) or next(rows, None) is not None:
        raise ValueError(facts)
    return ArchiveIndex(
        tuple(members), tuple(refused), facts["stream_size"], facts["total_size"], tuple(facts["notes"])
    )


def _from_columns(columns: dict[str, Any]) -> Iterator[Member]:
    executable = set(columns["executable"])
    targets = {int(at): target for at, target in columns["target"].items()}
    inlines = {int(at): base64.b64decode(text) for at, text in columns["inline"].items()}
    serials = {int(at): serial for at, serial in columns["serial"].items()}
    named = ("path", "kind", "offset", "size", "mtime_ns", "sha256")
    rows = zip(*(columns[name] for name in named), strict=True)
    for at, (path, kind, offset, size, mtime_ns, sha256) in enumerate(rows):
        more = targets.get(at), inlines.get(at), serials.get(at, 0), sha256
        yield Member(path, _KINDS[kind], offset, size, at in executable, mtime_ns, *more)
