"""What can be changed at VM0: whole versions of trees, pushed as the service's command line pushes them.

Rules of this file: a version is named by its files, so what was carried out is found again by its id and nothing is
done twice. The service moves the present to whatever is committed last, without a look at what was there: so the
present is read before anything is sent, again right before the commit, and after it. A commit whose answer was lost is
never sent again before that look.

Requests of a save: detail, prepare, two uploads, detail, commit, detail; of content that the service has already, as of
a version that is brought back, the same without uploads; of what is the present version, one detail.
"""

from __future__ import annotations

import errno
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

import trio

from artifactfs import errors
from artifactfs.model.content import Content
from artifactfs.model.entry import Archive, Artifact, DirRef
from artifactfs.providers.base import Attempt, Change, Manifest, Memory, Read
from artifactfs.providers.vm0 import push_plan
from artifactfs.providers.vm0.api import NoApi
from artifactfs.providers.vm0.bodies import OpenFile, with_files
from artifactfs.providers.vm0.generations import V1_ID
from artifactfs.providers.vm0.push_api import FilesMissing, PushApi, Target
from artifactfs.providers.vm0.push_plan import Fetch, Plan
from artifactfs.providers.vm0.spool import Spool, Spooled
from artifactfs.providers.vm0.unoffered import Unoffered
from artifactfs.providers.vm0.values import ROLES, role_of

if TYPE_CHECKING:
    import re

    from artifactfs.providers.vm0.api import Vm0Api
    from artifactfs.providers.vm0.schemas import Prepared

T = TypeVar("T")
Find = Callable[[str, str], Awaitable[Artifact | None]]
"""Returns an artifact of a role by id, as it is at this moment."""
ListAll = Callable[[str], Awaitable[list[Artifact]]]

# A link lives for an hour, so a second one that is refused is no accident.
MAX_LINKS = 2
# A commit is tried again when its answer was lost or its files were; each time something else must have failed.
MAX_COMMITS = 3
ANSWERED = "storages-api"
# A server that had no /api/storages is asked again after a day: it may have been what stands in front of it.
DAY_S = 86_400.0
READ_ONLY = "this server has no /api/storages, so it takes no writes"


@dataclass(slots=True)
class _Push:
    """A push under way.

    Attributes:
        archive: what was uploaded, if anything was.
        uploaded: the version that an earlier try had uploaded.
    """

    target: Target
    plan: Plan
    message: str | None = None
    archive: BinaryIO | None = None
    uploaded: str = ""
    fetch: Fetch = field(default=lambda _content, _offset, _size: b"")


class Vm0Publisher(Unoffered):
    """Pushes to one account."""

    unstorable: re.Pattern[bytes] | None = None

    def __init__(
        self, source: str, api: Vm0Api, pushes: PushApi, memory: Memory, find: Find, list_all: ListAll
    ) -> None:
        """Push through ``pushes``; ``find`` and ``list_all`` tell what is there as listings show it."""
        super().__init__(source)
        self._api = api
        self._pushes = pushes
        self._memory = memory
        self._find = find
        self._list_all = list_all
        self.spool = Spool()

    def __repr__(self) -> str:
        """Tell what it keeps."""
        return f"<Vm0Publisher {self._source} {self.spool!r}>"

    # -- what may be done ------------------------------------------------------------------------------------

    def vet(self, name: str, path: Path, size: int) -> None:
        """Refuse names that neither JSON nor tar can hold, and files over 100 MiB."""
        del path
        push_plan.check_path(name)
        push_plan.check_size(size, name)

    async def permits(self, change: Change) -> None:
        """Refuse all but new versions and new trees; and those where there is no /api/storages: asked once."""
        if not await self._takes_writes():
            raise errors.ReadOnly(READ_ONLY, provider=self._source)
        if change not in {Change.SAVE, Change.MAKE_TREE}:
            self.refuse(change.value)

    async def _takes_writes(self) -> bool:
        known = self._memory.get(ANSWERED)
        if known is True or (isinstance(known, int | float) and time.time() - known < DAY_S):
            return known is True
        is_there = await self._pushes.is_there()
        self._memory.put(ANSWERED, is_there or int(time.time()))
        return is_there

    # -- a new tree ------------------------------------------------------------------------------------------

    async def create_tree(self, ref: DirRef, path: tuple[str, ...]) -> Artifact:
        """Make an artifact whose first version is empty; raises also ``NameNotAllowed``."""
        role = ref.args[0] if ref.kind == "role" and ref.args else ""
        if role not in ROLES or len(path) != 1:
            raise errors.NotPermitted("artifacts are made in the workflow itself", provider=self._source)
        push_plan.check_name(path[0])
        with self._in_words():
            push = _Push(Target(role, path[0]), Plan((), {}, b"[]"))
            if not await self._is_empty(push.target):
                await self._create(push)
            return await self._listed(push.target)

    async def _create(self, push: _Push) -> None:
        for tries_left in range(MAX_COMMITS - 1, -1, -1):
            wanted = await self._uploaded(push)
            if await self._is_empty(push.target) or await self._committed(push, wanted, tries_left):
                return

    async def _is_empty(self, target: Target) -> bool:
        """Tell whether there is an empty tree of this name; one without any version is none yet.

        Raises:
            AlreadyExists: there is one that is not empty.
        """
        found = await self._api.storage(target.role, target.name)
        if found is not None and not (found.empty or found.file_count == 0):
            message = "there is an artifact of that name"
            raise errors.AlreadyExists(message, provider=self._source, subject=target.name)
        return found is not None

    async def _listed(self, target: Target) -> Artifact:
        """Return an artifact by name; of several the oldest, which is what /api/storages means."""
        found = [artifact for artifact in await self._list_all(target.role) if artifact.path == (target.name,)]
        made = await self._find(target.role, found[-1].id) if found else None
        if made is None:
            message = "the artifact was made, but the service does not list it yet"
            raise errors.Unavailable(message, provider=self._source, subject=target.name)
        return made

    # -- the next version ------------------------------------------------------------------------------------

    async def save_tree(
        self, artifact: Artifact, manifest: Manifest, attempt: Attempt, *, read: Read, message: str | None = None
    ) -> Artifact:
        """Push a version; what is the same in all files is the same version, whatever else differs."""
        with self._in_words():
            fetch = _in_thread(read)
            plan = await self._thread(partial(push_plan.plan, manifest, fetch))
            head = await self._head(artifact)
            advice = None
            if V1_ID.fullmatch(artifact.id):
                advice = await trio.to_thread.run_sync(plan.version_id, artifact.id)
            if _current(head) is not None and _current(head) == advice:
                return head
            self._refuse_moved(artifact, head)
            target = Target(role_of(artifact), _name(head))
            push = _Push(target, plan, message, uploaded=attempt.facts.get("uploaded", ""), fetch=fetch)
            try:
                return await self._saved(push, artifact, advice, attempt)
            finally:
                if push.archive is not None:
                    push.archive.close()

    async def _saved(self, push: _Push, artifact: Artifact, advice: str | None, attempt: Attempt) -> Artifact:
        for tries_left in range(MAX_COMMITS - 1, -1, -1):
            wanted = await self._uploaded(push, attempt)
            head = await self._head(artifact)
            if _current(head) == wanted:
                break
            self._refuse_moved(artifact, head)
            if wanted != advice:
                await self._refuse_another(push.target, head)
            if await self._committed(push, wanted, tries_left):
                head = await self._head(artifact)
                break
        if _current(head) != wanted:
            raise errors.Conflict("somebody else saved at the same moment", provider=self._source, subject=artifact.id)
        self._keep(push, head)
        return head

    async def _committed(self, push: _Push, wanted: str, tries_left: int) -> bool:
        """Commit; False if it must be looked at, and done again if need be."""
        try:
            await self._pushes.commit(push.target, wanted, push.plan.json, push.message)
        except FilesMissing:
            push.uploaded = ""
            if not tries_left:
                message = "the service loses what is uploaded"
                raise errors.ProviderMisbehaved(message, provider=self._source, subject=push.target.name) from None
            return False
        except (errors.Unavailable, errors.TimedOut):
            # Nobody knows whether it was carried out: the present tells.
            if not tries_left:
                raise
            return False
        return True

    def _keep(self, push: _Push, saved: Artifact) -> None:
        """Keep the archive, as whoever opens the new version would ask for it at once."""
        content = saved.current.content if saved.current else None
        if push.archive is not None and isinstance(content, Archive):
            archive, push.archive = push.archive, None
            self.spool.put(content.ref.locator, Spooled(archive, archive.seek(0, 2)))

    # -- what is there ---------------------------------------------------------------------------------------

    async def _head(self, artifact: Artifact) -> Artifact:
        found = await self._find(role_of(artifact), artifact.id)
        if found is None:
            raise errors.NotFound("the artifact is gone", provider=self._source, subject=artifact.id)
        return found

    def _refuse_moved(self, artifact: Artifact, head: Artifact) -> None:
        if _current(head) != _current(artifact):
            raise errors.Conflict("somebody else saved it first", provider=self._source, subject=artifact.id)

    async def _refuse_another(self, target: Target, head: Artifact) -> None:
        """Refuse to push where the name means another storage: the id of the version came out otherwise."""
        found = await self._api.storage(target.role, target.name)
        if (found.version_id if found else None) != _current(head):
            message = "another artifact has the same name, and this API tells them apart by nothing else"
            raise errors.NotPermitted(message, provider=self._source, subject=head.id)

    # -- uploads ---------------------------------------------------------------------------------------------

    async def _uploaded(self, push: _Push, attempt: Attempt | None = None) -> str:
        """Have a version uploaded, unless the service has it; return its id."""
        for _ in range(MAX_LINKS):
            prepared = await self._pushes.prepare(push.target, push.plan.json)
            if prepared.existing or prepared.version_id == push.uploaded:
                return prepared.version_id
            if await self._put(push, prepared):
                push.uploaded = prepared.version_id
                if attempt is not None:
                    await attempt.note(uploaded=prepared.version_id)
                return prepared.version_id
        message = "the storage refuses the links that the service gives"
        raise errors.AccessDenied(message, provider=self._source, subject=push.target.name)

    async def _put(self, push: _Push, prepared: Prepared) -> bool:
        """Upload archive and manifest, of no files the manifest alone; False if a link is no longer good."""
        links = prepared.uploads
        if push.plan.files:
            if push.archive is None:
                push.archive = await self._packed(push)
            link, size = links.archive if links else None, push.archive.seek(0, 2)
            url = link.presigned_url if link else None
            if not await self._pushes.put(url, OpenFile(push.archive, size), "application/gzip"):
                return False
        made = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        manifest = with_files({"version": 1, "createdAt": made}, push.plan.json)
        link = links.manifest if links else None
        return await self._pushes.put(link.presigned_url if link else None, manifest, "application/json")

    async def _packed(self, push: _Push) -> BinaryIO:
        """Return the archive in a file without a name.

        Raises:
            NoLocalSpace, Unavailable: the disk said no.
        """
        out = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 - the spool closes it
        try:
            await self._thread(partial(push.plan.write, out, push.fetch))
            out.flush()
        except OSError as error:
            out.close()
            kind = errors.NoLocalSpace if error.errno in {errno.ENOSPC, errno.EDQUOT} else errors.Unavailable
            raise kind(f"the archive cannot be written here: {error.strerror}", provider=self._source) from error
        except BaseException:
            out.close()
            raise
        return out

    @staticmethod
    async def _thread(work: Callable[[Callable[[], None]], T]) -> T:
        return await trio.to_thread.run_sync(work, trio.from_thread.check_cancelled)

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Put the source's name on errors that lack it; a server without this API takes no writes."""
        try:
            yield
        except NoApi as error:
            if error.subject.startswith("/api/"):
                raise errors.ReadOnly(READ_ONLY, provider=self._source, status=error.status) from error
            raise
        except errors.ArtifactFSError as error:
            error.provider = error.provider or self._source
            raise


def _in_thread(read: Read) -> Fetch:
    def fetch(content: Content, offset: int, size: int) -> bytes:
        return trio.from_thread.run(read, content, offset, size)

    return fetch


def _current(artifact: Artifact) -> str | None:
    return artifact.current.id if artifact.current else None


def _name(artifact: Artifact) -> str:
    name = artifact.metadata.get("name")
    if not isinstance(name, str):
        raise errors.ProviderMisbehaved("the service does not say the artifact's name", subject=artifact.id)
    return name
