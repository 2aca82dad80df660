"""The contract between a service and the filesystem.

Rules of this file: protocols only. A provider describes; the core decides. It never sees an inode, a path of the
mount or an errno. Every method that may send a request is ``async``; one that is not must not. Calls run in tasks
owned by the mount, never by the kernel's request: a waiter may be cancelled, a request is not.

What holds for every call (``tests/contract`` runs it over all providers). Titles and ids go out raw. Whatever a
service answers, what comes out is a value or an ``ArtifactFSError``, the same for the same answer from every service:
401 and 403 ``AccessDenied``, 402 ``QuotaExceeded``, 404 of the API ``NotFound``, 400 and 422 ``InvalidRequest``, 429
``RateLimited``, what may pass ``Unavailable``, ``Unreachable`` or ``TimedOut``, anything else ``ProviderMisbehaved`` or
``Unsupported``. A transient failure is an exception, never an empty or a shorter answer. No text, error or repr shows a
token. Names come from whoever types them: for what cannot be an id the answer is None, without a request.
"""

from __future__ import annotations

import enum
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from artifactfs.model.content import ByteRange, Content, ContentRef, Pointer
from artifactfs.model.entry import (
    Artifact,
    DirRef,
    Folder,
    Listing,
    TreeMember,
    VersionPage,
)


@dataclass(frozen=True, slots=True)
class ContentStream:
    """Bytes on their way.

    Attributes:
        offset: where in the content the first byte of ``chunks`` stands; 0 although a range was asked means that
            the server ignored the range and sends the whole.
        total: size of the whole content in bytes, if the answer says.
        ranged: True if the server honoured the range.
        media_type: the Content-Type of the answer, if any.
        chunks: the bytes; ends only when all that the server announced has come, else raises ``Unavailable``.
    """

    offset: int
    total: int | None
    ranged: bool
    chunks: AsyncIterator[bytes]
    media_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Memory(Protocol):
    """Facts a provider has learnt that never change, kept across mounts; small JSON values by key."""

    def get(self, key: str) -> object | None:
        """Return what was put, or None."""

    def put(self, key: str, value: object) -> None:
        """Keep it; the newest wins."""

    def items(self, prefix: str) -> Sequence[tuple[str, object]]:
        """Return all facts whose key begins so."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of ``source test``: what was tried, whether it worked, and what was found."""

    what: str
    ok: bool
    detail: str


class Provider(Protocol):
    """One configured account on one service."""

    source: str
    """Name of the source in the configuration."""
    service: str
    """``vm0``, ``syntropic137``, ``vlmrun`` or ``local``."""
    listing_ttl_s: float
    """How long a listing without its own ``ttl_s`` is believed."""
    publisher: Publisher | None
    """None if nothing can be written to this source."""
    is_here: bool
    """What it lists is made on this machine: asking costs no request, and nothing old may stand in for a change."""

    def root(self) -> Folder:
        """Return the source's top directory, whose listing holds its workflows. No I/O."""

    async def list(self, ref: DirRef, cursor: str | None) -> Listing:
        """Return one page of a directory.

        ``cursor`` is None or one that this provider gave for this directory. Equal facts make equal entries, whoever
        asks and when: names and inodes come from them. Over all pages a folder is there once by id, an artifact once
        by key. The cost is one request for a page, plus the joins that the provider documents.

        Raises:
            NotFound: the reference is not one of this source's, or the service no longer has the directory.
        """

    async def resolve(self, ref: DirRef, name: str) -> Folder | None:
        """Return a folder that is not listed but exists by its raw name, None if the service says it does not.

        At most one request; none for a name that cannot be one of its ids.
        """

    def is_artifact_id(self, name: str) -> bool:
        """Tell whether a name has the form of this service's artifact ids.

        True for every id that ``find`` may find; those it is false for are known from listings alone.
        """

    async def find(self, workflow: DirRef, artifact_id: str) -> Artifact | None:
        """Return an artifact of this workflow by id, also one no listing shows; None if there is none such.

        At most two requests. None too where the service can only tell by listing every run, and for an artifact of
        another workflow.
        """

    async def refresh(self, artifact: Artifact) -> Artifact | None:
        """Return an artifact of this source as it is now; None if it is gone. At most two requests."""

    async def versions(self, artifact: Artifact, cursor: str | None) -> VersionPage:
        """Return one page of the artifact's versions, oldest or newest first; times tell.

        The current one is among them. Of equal contents in the place of one another a service may show one version.
        """

    async def find_version(self, artifact: Artifact, version_id: str) -> str | None:
        """Return the full id for a version id or unique prefix that is in no page, or None."""

    async def tree(self, artifact: Artifact, locator: tuple[str, ...]) -> Sequence[TreeMember]:
        """Return the files of a version whose content is ``Tree``; the only locators it is called with."""

    def open(self, ref: ContentRef | Pointer, span: ByteRange) -> AbstractAsyncContextManager[ContentStream]:
        """Open the bytes of exactly that revision, from ``span.offset`` on.

        A stream may hold more than was asked for: the whole where ranges are not to be had, or what follows
        ``span.length``. At or beyond the end there are no bytes, or ``StaleContent`` from who cannot tell that from
        content that was replaced. A stream may be left at any point.

        Raises:
            StaleContent: the service has other bytes there now.
            NotFound: the service no longer has them.
        """

    async def check(self) -> Sequence[Check]:
        """Try address, credentials and API generation; never raises for what it finds."""

    def spare(self) -> float:
        """Return which share of the request budget is unused at this moment, 0 to 1; 1 if there is none. No I/O."""

    def describe(self) -> dict[str, Any]:
        """Return what is known of the server (dialect, prefix, budget left), as JSON has it. No I/O, no secrets."""

    async def aclose(self) -> None:
        """Close connections; once more does nothing."""


@runtime_checkable
class Announcing(Protocol):
    """A ``Provider`` whose service tells by itself that something has changed; most do not."""

    def events(self) -> AbstractAsyncContextManager[AsyncIterator[frozenset[DirRef] | None]]:
        """Listen until the block is left: each item names listings in which something has changed.

        None, which comes first and perhaps again, says that anything may have changed meanwhile. What is told may come
        before it is listed; not all that changes is told. The iterator ends when the stream is lost; listening again is
        up to the caller.

        Raises:
            ArtifactFSError: there is no such stream, or it broke.
        """


@runtime_checkable
class Revised(Protocol):
    """A ``Provider`` that tells for next to nothing whether anything has changed, so that it need not be listed."""

    async def revision(self) -> int:
        """Return a number that is another one after any change of what its listings say."""


@dataclass(frozen=True, slots=True)
class Draft:
    """Content to be saved: a sealed file that will not change any more.

    Attributes:
        path: the file on this machine.
        size: bytes.
        sha256: lower-case hex.
        executable: the x bit.
        mtime_ns: what the writer set, or when it wrote.
        base_sha256: of the content that the writer had seen; None if nobody looked at it, or there was none.
    """

    path: Path
    size: int
    sha256: str
    executable: bool
    mtime_ns: int
    base_sha256: str | None = None


Manifest = Mapping[str, Draft | TreeMember]
"""What a tree is to hold, by path: new files as drafts, everything else as it stands in a version that exists."""
Read = Callable[[Content, int, int], Awaitable[bytes]]
"""Returns bytes of a content from an offset on, at most so many; fewer only at its end."""


class Change(enum.Enum):
    """What can be done to a source, for ``Publisher.permits``."""

    CREATE = "create"
    """A new artifact that is one file."""
    SAVE = "save"
    """The next content of a file, or version of a tree."""
    MAKE_TREE = "make a tree"
    RENAME = "rename"
    """Of an artifact; within a tree it is a save."""
    REMOVE = "remove"
    """Of an artifact; within a tree it is a save."""


class Attempt(Protocol):
    """What the journal remembers of one change over all its tries, over the end of the process too."""

    @property
    def is_first(self) -> bool:
        """Tell whether no earlier try of this change can have reached the service."""

    @property
    def facts(self) -> Mapping[str, str]:
        """Return what earlier tries have noted."""

    async def note(self, **facts: str) -> None:
        """Remember facts, durably before it returns: an id that the service has just given, say."""


class Publisher(Protocol):
    """What can be changed at a source.

    What holds for every call. It is made again after any failure, and after a kill at any moment, with the same draft
    and the same attempt: what was carried out already is then found and not done twice. It returns when the service has
    been seen to have what was saved. A failure that may pass is ``Unavailable``, ``Unreachable``, ``TimedOut`` or
    ``QuotaExceeded``; any other is final for this content.

    Attributes:
        unstorable: bytes that no content has which the service could give back; None: it takes any. They are refused as
            they are written, since a shell does not look at what ``close`` says.
    """

    unstorable: re.Pattern[bytes] | None

    def vet(self, name: str, path: Path, size: int) -> None:
        """Refuse what the service could not give back as it is; called in a thread, before a save is acknowledged.

        Raises:
            InvalidRequest: the content, such as bytes that are no text.
            TooLarge: it is over a limit that is known.
            NameNotAllowed: the name cannot be stored.
        """

    async def permits(self, change: Change) -> None:
        """Refuse what this server does not offer; at most one request, whose answer is remembered over restarts.

        Raises:
            NotPermitted: the server has no such operation.
            ReadOnly: it takes no writes at all.
        """

    async def make_workflow(self, title: str) -> None:
        """Create a top directory.

        Raises:
            AlreadyExists: there is one of that title.
        """

    async def remove_workflow(self, ref: DirRef) -> None:
        """Remove an empty top directory.

        Raises:
            DirectoryNotEmpty: it still lists artifacts.
        """

    async def create_file(self, ref: DirRef, path: tuple[str, ...], draft: Draft, attempt: Attempt) -> Artifact:
        """Make a new artifact that is one file.

        Raises:
            AlreadyExists: another one of other content has the name.
        """

    async def save_file(self, artifact: Artifact, draft: Draft, attempt: Attempt) -> Artifact:
        """Make the next content of a file; the same content as the current one makes none.

        One that was removed comes back with the save, if the service can do so.

        Raises:
            Conflict: its content is no longer that of ``artifact``, or no longer ``draft.base_sha256``.
            AlreadyExists: it was removed, and another one has its name.
            NotFound: it is gone and cannot come back.
        """

    async def create_tree(self, ref: DirRef, path: tuple[str, ...]) -> Artifact:
        """Make a new artifact that is an empty tree; an empty one of that name is taken for it.

        Raises:
            AlreadyExists: the name is taken.
        """

    async def save_tree(
        self, artifact: Artifact, manifest: Manifest, attempt: Attempt, *, read: Read, message: str | None = None
    ) -> Artifact:
        """Make the next version of a tree, which is then exactly ``manifest``; ``read`` gives bytes of its members.

        Where the service would not tell the next version from the current one, nothing is made, and the current one
        comes back.

        Raises:
            Conflict: the current version is no longer that of ``artifact``.
            NotFound: the artifact is gone.
        """

    async def rename(self, artifact: Artifact, ref: DirRef, path: tuple[str, ...]) -> Artifact:
        """Give an artifact another title or place.

        Raises:
            NotPermitted: the service cannot, or not to this place.
            AlreadyExists: the name is taken.
        """

    async def remove(self, artifact: Artifact) -> None:
        """Take an artifact out of the present; done already is done."""
