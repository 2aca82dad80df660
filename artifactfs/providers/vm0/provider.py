"""VM0 as values: two workflows, ``artifacts`` and ``volumes``, of trees that are archives.

Rules of this file: no request where the listing already says it; what the listing may say wrongly is not
repeated. An artifact's own ``fileCount`` can be that of an earlier version, so it never makes a version
empty; a version's own does. A server with only ``/api/storages`` names artifacts by type and name: their
ids here are ``artifact:<name>``.

Requests: ``list`` one per 100 artifacts (with only /api/storages: one, and one for each artifact that
changed since it was last seen, eight at a time); ``versions`` one per 100; ``find`` one (two);
``find_version`` one; ``open`` two, one to the service and one to its storage, and again if the storage
refuses the link. Once per mount one more tells that a server has no /v1. What was pushed a moment ago is opened without
a request.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import re
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import cachetools

from artifactfs import errors
from artifactfs.model.entry import Accepts, Artifact, DirRef, Folder, Listing, Role, TreeMember, VersionPage
from artifactfs.providers.base import Check, ContentStream, Memory, Publisher
from artifactfs.providers.vm0.api import EmptyVersion, NoApi, Vm0Api
from artifactfs.providers.vm0.generations import V1_ID, Generation, StoragesGeneration, V1Generation
from artifactfs.providers.vm0.publisher import Vm0Publisher
from artifactfs.providers.vm0.push_api import PushApi
from artifactfs.providers.vm0.values import ROLES, V1, Values

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from artifactfs.model.content import ByteRange, ContentRef, Pointer
    from artifactfs.providers.http import HttpClient, StreamReply

T = TypeVar("T")

# An archive without members: zero blocks, as many as tar writes at least.
EMPTY_ARCHIVE = gzip.compress(bytes(20 * 512), mtime=0)
STORAGE_ID = re.compile(r"(artifact|volume):.+", re.DOTALL)
# The service's own rule for a version's id and prefixes of it.
VERSION = re.compile(r"[0-9a-f]{8,64}")
# ETags of archives that were opened, to know that one resumed is still the same; each is at most some 200
# bytes.
MAX_ETAGS = 4096
MAX_ETAG = 200


Checks = list[Check]
Artifacts = list[Artifact]
"""Named here because a method of the class below is called ``list``."""


class Vm0Provider:
    """One account on VM0, or on a server that speaks its API."""

    service = "vm0"
    # An agent's checkpoint shows after at most this many seconds; a listing of 100 artifacts is one request.
    listing_ttl_s = 60.0
    is_here = False

    def __init__(self, source: str, http: HttpClient, memory: Memory) -> None:
        """Speak through ``http``, whose base URL is the host's, without /v1; nothing is sent yet."""
        self.source = source
        self._http = http
        self._api = Vm0Api(source, http)
        values = Values(source, memory)
        self._values = values
        self._v1: Generation = V1Generation(self._api, values)
        self._storages: Generation = StoragesGeneration(self._api, values, memory)
        self._has_v1: bool | None = None
        self._pushed = Vm0Publisher(source, self._api, PushApi(source, http), memory, self._find, self._all)
        self.publisher: Publisher | None = self._pushed
        self._etags: cachetools.LRUCache[str, str] = cachetools.LRUCache(MAX_ETAGS)

    def __repr__(self) -> str:
        """Tell which API is spoken."""
        return f"<Vm0Provider {self.source} {self.describe()['api']}>"

    async def _ask(self, question: Callable[[Generation], Awaitable[T]]) -> T:
        """Ask /v1, and /api/storages once it is known that there is no /v1.

        Raises:
            Unsupported: the server has neither.
        """
        with self._named():
            return await self._answer(question)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Put the source's name on errors of layers that do not know it."""
        try:
            yield
        except errors.ArtifactFSError as error:
            error.provider = error.provider or self.source
            raise

    async def _answer(self, question: Callable[[Generation], Awaitable[T]]) -> T:
        if self._has_v1 is not False:
            try:
                answer = await question(self._v1)
            except NoApi:
                if self._has_v1:
                    # It was there before: a fault of what stands in front of the service, not another
                    # service.
                    raise
            else:
                self._has_v1 = True
                return answer
        try:
            answer = await question(self._storages)
        except NoApi as error:
            self._has_v1 = None
            message = "this server has neither VM0's /v1 API nor its /api/storages"
            raise errors.Unsupported(message, provider=self.source, subject=error.subject, status=404) from error
        if isinstance(answer, Listing):
            # Only this was a request for certain; the other questions may have been answered without one.
            self._has_v1 = False
        return answer

    # -- directories -----------------------------------------------------------------------------------------

    def root(self) -> Folder:
        """Return the directory that holds the two workflows."""
        return Folder((), "root", DirRef(self.source, "root"))

    async def list(self, ref: DirRef, cursor: str | None) -> Listing:
        """Return all of a directory at once: pages are put together here, where repeats can be told.

        ``complete`` is False if the service's paging may have lost rows (``pages`` has the rule), or rows
        could not be understood.
        """
        del cursor
        if ref.kind == "root":
            folders = (
                Folder((f"{role}s",), role, DirRef(self.source, "role", (role,)), Role.WORKFLOW, accepts=Accepts.TREES)
                for role in ROLES
            )
            return Listing(tuple(folders), ttl_s=math.inf)
        role = self._role(ref)
        return await self._ask(lambda generation: generation.list(role))

    @staticmethod
    def _role(ref: DirRef) -> str:
        if ref.kind == "role" and ref.args and ref.args[0] in ROLES:
            return ref.args[0]
        message = f"there is no directory {ref.kind} {'/'.join(ref.args)}"
        raise errors.NotFound(message, provider=ref.source)

    async def resolve(self, ref: DirRef, name: str) -> Folder | None:
        """Return None, as no folder exists that is not listed; no request."""
        del ref, name
        return None

    # -- artifacts and versions ------------------------------------------------------------------------------

    def is_artifact_id(self, name: str) -> bool:
        """Tell whether it is a UUID, ``art_`` or ``vol_`` and more, or ``artifact:`` or ``volume:`` and a name."""
        return bool(V1_ID.fullmatch(name) or STORAGE_ID.fullmatch(name))

    async def find(self, workflow: DirRef, artifact_id: str) -> Artifact | None:
        """Return an artifact by id."""
        role = self._role(workflow)
        if not self.is_artifact_id(artifact_id):
            return None
        return await self._find(role, artifact_id)

    async def refresh(self, artifact: Artifact) -> Artifact | None:
        """Return an artifact as it is now."""
        return await self._find((artifact.workflow or "").removesuffix("s"), artifact.id)

    async def _find(self, role: str, artifact_id: str) -> Artifact | None:
        if self._has_v1 is None and not V1_ID.fullmatch(artifact_id):
            return await self._find_by_name(role, artifact_id)
        return await self._ask(lambda generation: generation.find(role, artifact_id))

    async def _find_by_name(self, role: str, artifact_id: str) -> Artifact | None:
        """Find one by an id that only a server without /v1 gives, when it is not known yet whether this is one."""
        with self._named():
            try:
                await self._v1.list(role)
            except NoApi:
                return await self._storages.find(role, artifact_id)
            self._has_v1 = True
            return None

    async def _all(self, role: str) -> Artifacts:
        listing = await self._ask(lambda generation: generation.list(role))
        return [entry for entry in listing.entries if isinstance(entry, Artifact)]

    async def versions(self, artifact: Artifact, cursor: str | None) -> VersionPage:
        """Return all versions at once, newest first; with only /api/storages the present one."""
        del cursor
        return await self._ask(lambda generation: generation.versions(artifact))

    async def find_version(self, artifact: Artifact, version_id: str) -> str | None:
        """Return the full id of a version that no page shows; ``versions`` shows it from then on."""
        name = version_id.lower()
        if not VERSION.fullmatch(name):
            return None
        found = await self._ask(lambda generation: generation.find_version(artifact, name))
        if found is not None:
            self._values.found(artifact, found)
        return found

    async def tree(self, artifact: Artifact, locator: tuple[str, ...]) -> Sequence[TreeMember]:
        """Refuse: trees are archives here.

        Raises:
            NotFound: always.
        """
        message = "VM0 lists no files; they are the members of an archive"
        raise errors.NotFound(message, provider=self.source, subject="/".join((artifact.id, *locator)))

    # -- bytes -----------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def open(self, ref: ContentRef | Pointer, span: ByteRange) -> AsyncIterator[ContentStream]:
        """Open the archive of a version; of one without files, an archive without members.

        Raises:
            NotFound: the version, or its archive in the service's storage, is gone.
            StaleContent: the archive was pushed anew since it was begun to be read.
        """
        if len(ref.locator) != 4:  # noqa: PLR2004 - api, role, where, version
            message = "this is no address of a VM0 archive"
            raise errors.NotFound(message, provider=self.source, subject=ref.key)
        api, role, where, version_id = ref.locator
        generation = self._v1 if api == V1 else self._storages
        link = partial(generation.link, role, where, version_id)
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(self._named())
            spooled = stack.enter_context(self._pushed.spool.open(ref.locator, span))
            if spooled is not None:
                yield spooled
                return
            try:
                reply = await stack.enter_async_context(self._api.archive(version_id, link, _range(span)))
            except EmptyVersion:
                stream = ContentStream(0, len(EMPTY_ARCHIVE), ranged=False, chunks=_once(EMPTY_ARCHIVE))
            else:
                stream = self._stream(ref.key, span, reply)
            yield stream

    def _stream(self, key: str, span: ByteRange, reply: StreamReply) -> ContentStream:
        self._check_etag(key, span, reply)
        media_type = reply.headers.get("content-type")
        if reply.status == 416:  # noqa: PLR2004 - the field's own number
            if reply.end() != span.offset:  # pushed anew by force
                raise _changed(self.source, key)
            # A connection that broke behind the last byte is resumed there.
            return ContentStream(span.offset, span.offset, ranged=True, chunks=_once(b""))
        if reply.status != 206:  # noqa: PLR2004 - the field's own number
            return ContentStream(0, reply.length, ranged=False, chunks=reply.chunks, media_type=media_type)
        found = reply.content_range()
        if found is None or found[0] != span.offset:
            message = "the storage answered with another range than was asked for"
            raise errors.ProviderMisbehaved(message, provider=self.source, subject=key, status=206)
        return ContentStream(found[0], found[1], ranged=True, chunks=reply.chunks, media_type=media_type)

    def _check_etag(self, key: str, span: ByteRange, reply: StreamReply) -> None:
        """Refuse to continue an archive that was pushed anew: its bytes may be others, though its files are not."""
        etag = reply.headers.get("etag", "")[:MAX_ETAG]
        known = self._etags.get(key)
        if etag and (known is None or span.offset == 0):
            self._etags[key] = etag
        elif known and etag and known != etag:
            del self._etags[key]
            raise _changed(self.source, key)

    # -- about the server ------------------------------------------------------------------------------------

    async def check(self) -> Checks:
        """Try address and credentials by listing the artifacts; say which API answered."""
        try:
            listing = await self.list(DirRef(self.source, "role", ("artifact",)), None)
        except errors.ArtifactFSError as error:
            return [Check("list artifacts", ok=False, detail=str(error))]
        about = self.describe()
        api = " ".join(str(about[key]) for key in ("api", "spelling") if about.get(key))
        found = f"{len(listing.entries)} artifacts" + (f"; {listing.note}" if listing.note else "")
        return [Check("list artifacts", ok=True, detail=found), Check("API", ok=True, detail=api)]

    def spare(self) -> float:
        """Return which share of the request budget is unused."""
        return self._http.budget.spare()

    def describe(self) -> dict[str, Any]:
        """Return the API that answered (``/v1`` or ``/api/storages``), its spelling, and what may still be sent."""
        names = {None: "not asked yet", True: "/v1", False: "/api/storages"}
        left = self._http.budget.left()
        return {
            "api": names[self._has_v1],
            "spelling": self._api.spelling,
            "requests_left": None if math.isinf(left) else int(left),
        }

    async def aclose(self) -> None:
        """Close connections, and let go of what was kept of pushes."""
        self._pushed.spool.close()
        await self._http.aclose()


def _changed(source: str, key: str) -> errors.StaleContent:
    message = "the archive has changed since it was begun to be read"
    return errors.StaleContent(message, provider=source, subject=key)


def _range(span: ByteRange) -> dict[str, str]:
    if span.offset == 0 and span.length is None:
        return {}
    last = "" if span.length is None else str(span.offset + max(1, span.length) - 1)
    return {"Range": f"bytes={span.offset}-{last}"}


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
