"""How bytes are named and reached.

Rules of this file: values only, frozen; nothing here does I/O. Bytes never change under a ``ContentRef``. What a
service may swap in place is a ``Pointer``; it becomes a ``ContentRef`` only by being read whole and named by its
SHA-256, so a pointer can never reach the block store: the types say so.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exact:
    """The size is known, in bytes, and will not change."""

    value: int


@dataclass(frozen=True, slots=True)
class Hint:
    """A size the service gave that may lie; good for progress, for nothing else."""

    value: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody has said how large it is."""


Size = Exact | Hint | Unknown


class Access(enum.Enum):
    """How the bytes behind a reference can be asked for."""

    RANGED = "ranged"
    """Ranges are worth trying; a server that ignores them is read as STREAMED."""
    STREAMED = "streamed"
    """Only the whole, from its first byte."""
    LOCAL = "local"
    """Already on this machine: read through, never copied into the cache."""


@dataclass(frozen=True, slots=True)
class ContentRef:
    """Names immutable bytes.

    Attributes:
        source: name of the configured source whose provider can open it.
        key: identity of the bytes within the source; never reused for other bytes.
        locator: the provider's own words for asking for them; opaque to everyone else.
        size: in bytes, with its confidence.
        access: how they can be asked for.
        sha256: lower-case hex, where it is known before reading.
    """

    source: str
    key: str
    locator: tuple[str, ...]
    size: Size
    access: Access
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Pointer:
    """Names a place whose bytes the service may swap; only ever read whole.

    Attributes are those of ``ContentRef``; ``size`` is never Exact.
    """

    source: str
    key: str
    locator: tuple[str, ...]
    size: Size


@dataclass(frozen=True, slots=True)
class Inline:
    """Bytes that came with the metadata."""

    data: bytes


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """A file inside an archive.

    Attributes:
        archive: the compressed bytes it is in.
        offset: where its content begins in the decompressed stream, in bytes.
        length: of its content, in bytes.
        sha256: of its content, in lower-case hex; None while the archive has not been read to its end.
        flight: which reading of the archive has shown it, while nothing is sure of it yet.
    """

    archive: ContentRef
    offset: int
    length: int
    sha256: str | None = None
    flight: str = ""


Content = ContentRef | Pointer | Inline | ArchiveMember


@dataclass(frozen=True, slots=True)
class ByteRange:
    """``length`` bytes from ``offset``; ``length`` None means to the end."""

    offset: int
    length: int | None = None
