"""Values as bytes, to be kept from one mount to the next.

Rules of this file: pure. What is kept came from a service, which may be hostile, so it is data and never code: rows of
JSON, compressed. A field has its place in a row and no name; whoever changes a row changes ``FORMAT``, and rows of
another format are not read but asked for again. Titles may hold lone surrogates, also two that would make a pair.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, assert_never

from artifactfs.model.content import (
    Access,
    ArchiveMember,
    Content,
    ContentRef,
    Exact,
    Hint,
    Inline,
    Pointer,
    Size,
    Unknown,
)
from artifactfs.model.entry import (
    NOTHING,
    Accepts,
    Archive,
    Artifact,
    ArtifactKind,
    DirRef,
    Empty,
    Entry,
    Folder,
    Note,
    Role,
    SingleFile,
    Tree,
    Version,
    VersionContent,
)

FORMAT = 2
# The quickest: an entry of 400 bytes becomes about 50 (measured).
LEVEL = 1

Row = list[Any]

# Made once: one for each call costs as much as the call.
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str)
_ACCESS = {access.value: access for access in Access}
_ROLES = {role.value: role for role in Role}
_KINDS = {kind.value: kind for kind in ArtifactKind}


class Facts(Mapping[str, Any]):
    """What a service said of something, as the text it is kept in: a third of the memory of a dict, read when asked.

    Equal facts make equal texts, so it also compares.
    """

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        """Keep the text of a JSON object."""
        self.text = text

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401 - JSON
        return json.loads(self.text)[key]

    def __iter__(self) -> Iterator[str]:
        return iter(json.loads(self.text))

    def __len__(self) -> int:
        return len(json.loads(self.text))


def packed(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the same facts in little memory."""
    if not facts or isinstance(facts, Facts):
        return facts or NOTHING
    return Facts(_JSON.encode(dict(facts)))


def _text_of(facts: Mapping[str, Any]) -> str | None:
    found = packed(facts)
    return found.text if isinstance(found, Facts) else None


# -- to rows -------------------------------------------------------------------------------------------------------


def _of_size(size: Size) -> int | Row | None:
    match size:
        case Exact(value):
            return value
        case Hint(value):
            return [value]
        case Unknown():
            return None
        case _:
            assert_never(size)


def _of_content(content: Content) -> Row:
    match content:
        case ContentRef(source, key, locator, size, access, sha256):
            return ["r", source, key, locator, _of_size(size), access.value, sha256]
        case Pointer(source, key, locator, size):
            return ["p", source, key, locator, _of_size(size)]
        case Inline(data):
            return ["i", base64.b64encode(data).decode("ascii")]
        case ArchiveMember(archive, offset, length, sha256):
            return ["m", _of_content(archive), offset, length, sha256]
        case _:
            assert_never(content)


def _of_version_content(content: VersionContent) -> Row:
    match content:
        case SingleFile(inner, executable):
            return ["s", _of_content(inner), executable]
        case Archive(ref):
            return ["a", _of_content(ref)]
        case Tree(locator):
            return ["t", locator]
        case Empty():
            return ["e"]
        case _:
            assert_never(content)


def _of_version(version: Version | None) -> Row | None:
    if version is None:
        return None
    return [
        version.id, _of_version_content(version.content), _of_size(version.size), version.file_count,
        version.created_at_ns, version.created_by, version.message,
    ]  # fmt: skip


def _of_entry(entry: Entry) -> Row:
    match entry:
        case Folder():
            ref = entry.ref and [entry.ref.source, entry.ref.kind, entry.ref.args]
            facts = _text_of(entry.metadata)
            return ["f", entry.path, entry.id, ref, entry.role.value, entry.mtime_ns, entry.accepts.value, facts]
        case Artifact():
            return [
                "a", entry.path, entry.id, entry.key, entry.kind.value, _of_version(entry.current), entry.only_version,
                entry.created_at_ns, entry.updated_at_ns, entry.media_type, entry.writable, entry.workflow, entry.run,
                _text_of(entry.metadata),
            ]  # fmt: skip
        case Note():
            return ["n", entry.path, entry.id, base64.b64encode(entry.data).decode("ascii"), entry.mtime_ns]
        case _:
            assert_never(entry)


def _pack(rows: Sequence[Row]) -> bytes:
    # Not as escapes: two lone surrogates that stand side by side would come back as one character.
    return bytes([FORMAT]) + zlib.compress(_JSON.encode(rows).encode("utf-8", "surrogatepass"), LEVEL)


def pack_entries(entries: Iterable[Entry]) -> bytes:
    """Return entries as bytes.

    Raises:
        ValueError, RecursionError: a fact of the service's cannot be written (numbers of thousands of digits, or
            nested a thousand deep).
    """
    return _pack([_of_entry(entry) for entry in entries])


def pack_versions(versions: Iterable[Version]) -> bytes:
    """Return versions as bytes."""
    return _pack([row for version in versions if (row := _of_version(version)) is not None])


# -- from rows -----------------------------------------------------------------------------------------------------


class Reader:
    """Reads rows; texts that repeat from one to another are shared between all that one reader has read."""

    def __init__(self) -> None:
        """Start without texts."""
        self._texts: dict[str, str] = {}
        self._latest: Hint = Hint(0)

    def _one(self, text: str) -> str:
        return self._texts.setdefault(text, text)

    def _any(self, text: str | None) -> str | None:
        return None if text is None else self._texts.setdefault(text, text)

    def _path(self, parts: Sequence[str]) -> tuple[str, ...]:
        if len(parts) == 1:
            return (self._texts.setdefault(parts[0], parts[0]),)
        return tuple([self._texts.setdefault(part, part) for part in parts])

    def _size(self, row: int | Row | None) -> Size:
        if row is None:
            return Unknown()
        if not isinstance(row, list):
            return Exact(row)
        # A version of one file has its size twice.
        if row[0] != self._latest.value:
            self._latest = Hint(row[0])
        return self._latest

    def _ref(self, row: Row) -> ContentRef:
        _, source, key, locator, size, access, sha256 = row
        return ContentRef(
            self._one(source), self._one(key), self._path(locator), self._size(size), _ACCESS[access], sha256
        )  # fmt: skip

    def _content(self, row: Row) -> Content:
        match row[0]:
            case "r":
                return self._ref(row)
            case "p":
                _, source, key, locator, size = row
                return Pointer(self._one(source), self._one(key), self._path(locator), self._size(size))
            case "i":
                return Inline(base64.b64decode(row[1]))
            case "m":
                return ArchiveMember(self._ref(row[1]), row[2], row[3], row[4])
            case kind:
                raise ValueError(kind)

    def _version_content(self, row: Row) -> VersionContent:
        match row[0]:
            case "s":
                return SingleFile(self._content(row[1]), row[2])
            case "a":
                return Archive(self._ref(row[1]))
            case "t":
                return Tree(self._path(row[1]))
            case "e":
                return Empty()
            case kind:
                raise ValueError(kind)

    def _version(self, row: Row) -> Version:
        name, content, size, count, created, by, message = row
        return Version(
            self._one(name), self._version_content(content), self._size(size), count, created, self._any(by), message
        )  # fmt: skip

    def _entry(self, row: Row) -> Entry:
        kind = row[0]
        if kind == "a":
            (_, path, name, key, shown, current, only, created, updated, media, writable, workflow, run, facts) = row
            return Artifact(
                self._path(path), self._one(name), self._one(key), _KINDS[shown],
                None if current is None else self._version(current), only, created,
                created if updated == created else updated, self._any(media), writable,
                self._any(workflow), self._any(run), NOTHING if facts is None else Facts(facts),
            )  # fmt: skip
        if kind == "f":
            _, path, name, ref, role, mtime, accepts, facts = row
            where = None if ref is None else DirRef(self._one(ref[0]), self._one(ref[1]), self._path(ref[2]))
            return Folder(
                self._path(path), self._one(name), where, _ROLES[role], mtime, Accepts(accepts),
                NOTHING if facts is None else Facts(facts),
            )  # fmt: skip
        if kind == "n":
            _, path, name, data, mtime = row
            return Note(self._path(path), self._one(name), base64.b64decode(data), mtime)
        raise ValueError(kind)

    @staticmethod
    def _rows(data: bytes) -> list[Row]:
        if data[:1] != bytes([FORMAT]):
            message = f"written in the format {data[:1]!r}"
            raise ValueError(message)
        try:
            rows: list[Row] = json.loads(zlib.decompress(data[1:]).decode("utf-8", "surrogatepass"))
        except zlib.error as error:
            message = "damaged"
            raise ValueError(message) from error
        return rows

    def entries(self, data: bytes) -> list[Entry]:
        """Return what ``pack_entries`` was given.

        Raises:
            ValueError: it is damaged, or of another format.
        """
        try:
            return [self._entry(row) for row in self._rows(data)]
        except (TypeError, LookupError, RecursionError) as error:
            raise ValueError(str(error)) from error

    def versions(self, data: bytes) -> list[Version]:
        """Return what ``pack_versions`` was given.

        Raises:
            ValueError: it is damaged, or of another format.
        """
        try:
            return [self._version(row) for row in self._rows(data)]
        except (TypeError, LookupError, RecursionError) as error:
            raise ValueError(str(error)) from error
