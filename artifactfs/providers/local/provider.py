"""The built-in store as a provider.

Rules of this file: no request is ever sent, so nothing here is cached and each listing is asked for anew.
SQLite and disk are touched in worker threads only: another process may hold the store for a moment, and the
event loop must not wait for it.
"""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from artifactfs import errors
from artifactfs.model.entry import DirRef
from artifactfs.providers.base import Check, ContentStream
from artifactfs.providers.local import entries
from artifactfs.providers.local.publisher import LocalPublisher
from artifactfs.providers.local.view import StoreView

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from artifactfs.model.content import ByteRange, ContentRef, Pointer
    from artifactfs.model.entry import Artifact, Folder, Listing, TreeMember, VersionPage
    from artifactfs.providers.base import Publisher
    from artifactfs.store.catalog import Store

T = TypeVar("T")

# The largest piece handed on at once: a thread's round trip costs about 50 us, 1 MiB from the page cache
# about 100.
CHUNK = 1 << 20
# Reads beyond a few at once only queue at the same disk and at SQLite's one reading connection.
MAX_THREADS = 8


class LocalProvider:
    """One store on this machine."""

    service = "local"
    # Saves through the same mount are seen at once (it forgets what it changes); those of other processes within this.
    listing_ttl_s = 1.0
    is_here = True

    def __init__(self, source: str, store: Store) -> None:
        """Offer ``store``, which stays the caller's to close, under the name of the source."""
        self.source = source
        self._view = StoreView(source, store)
        self._limiter = trio.CapacityLimiter(MAX_THREADS)
        self.publisher: Publisher | None = LocalPublisher(self._view, self._limiter)

    def __repr__(self) -> str:
        """Tell which store it is and how busy."""
        return f"<LocalProvider {self._view!r} {self._limiter.borrowed_tokens} threads>"

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._limiter)

    def root(self) -> Folder:
        """Return the top directory."""
        return entries.root_folder(self.source)

    async def list(self, ref: DirRef, cursor: str | None) -> Listing:  # noqa: ARG002 - one page holds all
        """Return a directory, whole: one query for a workflow's artifacts, one for its runs."""
        return await self._in_thread(partial(self._view.listing, ref))

    async def revision(self) -> int:
        """Return a number that is another one after any change of the store."""
        return await self._in_thread(self._view.store.revision)

    async def resolve(self, ref: DirRef, name: str) -> Folder | None:  # noqa: ARG002 - the contract's arguments
        """Return None: every folder is listed."""
        return None

    def is_artifact_id(self, name: str) -> bool:
        """Tell whether a name is ``art_`` and six hex digits."""
        return entries.ARTIFACT_ID.fullmatch(name) is not None

    async def find(self, workflow: DirRef, artifact_id: str) -> Artifact | None:
        """Return an artifact of this workflow by id; one that was removed too, read-only."""
        if not self.is_artifact_id(artifact_id):
            return None
        return await self._in_thread(partial(self._view.find, workflow, artifact_id))

    async def refresh(self, artifact: Artifact) -> Artifact | None:
        """Return an artifact as it is now; one that was removed too, read-only."""
        return await self.find(DirRef(self.source, entries.ROOT), artifact.id)

    async def versions(self, artifact: Artifact, cursor: str | None) -> VersionPage:  # noqa: ARG002 - one page
        """Return all versions, oldest first; those that are equal share an id."""
        return await self._in_thread(partial(self._view.versions, artifact.key))

    async def find_version(self, artifact: Artifact, version_id: str) -> str | None:
        """Return the full id for a version id, or for a unique beginning of at least eight characters."""
        return await self._in_thread(partial(self._view.find_version, artifact.key, version_id))

    async def tree(self, artifact: Artifact, locator: tuple[str, ...]) -> Sequence[TreeMember]:  # noqa: ARG002 - the locator says it all
        """Return the files of a version that is a tree."""
        return await self._in_thread(partial(self._view.tree, locator))

    def path(self, ref: ContentRef) -> Path:
        """Return the file that LOCAL content of this source lies in. No I/O."""
        return self._view.store.objects.path(ref.locator[0])

    @contextlib.asynccontextmanager
    async def open(self, ref: ContentRef | Pointer, span: ByteRange) -> AsyncIterator[ContentStream]:
        """Open an object; the first piece comes with the opening, so a small read is one turn of a thread.

        Raises:
            NotFound: the object is not in the store.
            CorruptContent: it has another size than the catalog says.
        """
        opened = await self._in_thread(partial(self._open, ref, span))
        chunks = self._chunks(opened)
        try:
            yield ContentStream(offset=span.offset, total=opened.total, ranged=True, chunks=chunks)
        finally:
            # One that was not read to its end would be reported when it is collected.
            await chunks.aclose()
            os.close(opened.fd)

    def _open(self, ref: ContentRef | Pointer, span: ByteRange) -> _Opened:
        path = self._view.store.objects.path(ref.locator[0] if ref.locator else "")
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise errors.NotFound("the object is not in the store", provider=self.source) from error
        except OSError as error:
            raise errors.Unavailable(f"the object cannot be read: {error.strerror}") from error
        try:
            return _Opened(fd, ref, span)
        except BaseException:
            os.close(fd)
            raise

    async def _chunks(self, opened: _Opened) -> AsyncGenerator[bytes, None]:
        chunk = opened.first
        while chunk:
            yield chunk
            chunk = await self._in_thread(opened.read) if opened.left else b""

    async def check(self) -> Sequence[Check]:
        """Try to read the catalog and to write beside it."""
        return await self._in_thread(self._check)

    def _check(self) -> Sequence[Check]:
        store = self._view.store
        try:
            found = f"{len(store.workflows())} workflows, {len(store.artifacts())} artifacts"
            readable = Check("catalog", ok=True, detail=found)
        except errors.ArtifactFSError as error:
            readable = Check("catalog", ok=False, detail=str(error))
        ok = os.access(store.objects.root, os.R_OK | os.W_OK | os.X_OK)
        return [readable, Check("objects", ok=ok, detail=str(store.objects.root))]

    def spare(self) -> float:
        """Return 1: there is no budget."""
        return 1.0

    def describe(self) -> dict[str, Any]:
        """Return where the store is."""
        return {"dialect": "local", "root": str(self._view.store.root)}

    async def aclose(self) -> None:
        """Do nothing: the store is closed by who opened it."""


class _Opened:
    """An object that is being read; used by one thread at a time."""

    def __init__(self, fd: int, ref: ContentRef | Pointer, span: ByteRange) -> None:
        """Judge the size and read the first piece."""
        self.fd = fd
        self.total = os.fstat(fd).st_size
        expected = getattr(ref.size, "value", None)
        if expected is not None and expected != self.total:
            message = f"the object has {self.total} bytes, the catalog says {expected}"
            raise errors.CorruptContent(message, provider=ref.source, subject=ref.key)
        after = max(0, self.total - span.offset)
        self.left = after if span.length is None else min(span.length, after)
        self._offset = span.offset
        self.first = self.read() if self.left > 0 else b""

    def read(self) -> bytes:
        """Return the next piece.

        Raises:
            Unavailable: the disk failed, or the object has become shorter.
        """
        try:
            chunk = os.pread(self.fd, min(CHUNK, self.left), self._offset)
        except OSError as error:
            raise errors.Unavailable(f"the object cannot be read: {error.strerror}") from error
        if not chunk:
            raise errors.Unavailable(f"the object ended {self.left} bytes early")
        self._offset += len(chunk)
        self.left -= len(chunk)
        return chunk
