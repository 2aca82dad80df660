"""What can be changed at Syntropic137.

Rules of this file: an answer of 200 proves nothing here (an upload to an id that nobody has is 200, and so is a read
while the object store is down, which then gives what the artifact was made with), so what was saved is read back. What
that costs, in requests, where nothing goes wrong:

    create_file   2: made, read back; 3 if it is longer than 8 MiB; 4 if it is empty
    save_file     3: read, uploaded, read back; 1 if the service has the content already
    rename        1
    remove        1
    permits       1, once for a server, for renaming and removing

One more if the server's prefix is not known yet. Titles may repeat at the service: that a name is free in the listing
was decided before.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import trio

from artifactfs import errors
from artifactfs.model.codec import packed
from artifactfs.model.content import Hint
from artifactfs.providers import limits
from artifactfs.providers.base import Change
from artifactfs.providers.syntropic.creation import ARTIFACT, Creation, Wanted, is_of, note_sending, was_sent
from artifactfs.providers.syntropic.titles import place, retitled
from artifactfs.providers.syntropic.vetting import UNSTORABLE, vet_size, vet_text, vet_title
from artifactfs.providers.syntropic.writes import FORM_BYTES, Writes

if TYPE_CHECKING:
    import re
    from collections.abc import Callable
    from pathlib import Path

    from artifactfs.model.entry import Artifact, DirRef
    from artifactfs.providers.base import Attempt, Draft, Manifest, Read
    from artifactfs.providers.syntropic.api import Api
    from artifactfs.providers.syntropic.learnt import Learnt
    from artifactfs.providers.syntropic.rows import ArtifactRow

# The service gives its object store up after about 6 s (measured, May 2026); any other read takes a tenth of this.
STORE_DOWN_S = 3.0


class Syntropic137Publisher:
    """Writes to one Syntropic137 server; see ``base.Publisher``."""

    unstorable: re.Pattern[bytes] | None = UNSTORABLE

    def __init__(self, api: Api, learnt: Learnt, artifact_of: Callable[[ArtifactRow], Artifact]) -> None:
        """Write by the means of ``api``; ``artifact_of`` makes of a row what a listing would show."""
        self.api = api
        self.learnt = learnt
        self.writes = Writes(api, learnt)
        self.creation = Creation(self.writes)
        self._artifact_of = artifact_of

    def __repr__(self) -> str:
        """Tell which server it is."""
        return f"<Syntropic137Publisher {self.writes!r}>"

    # -- before anything is sent -----------------------------------------------------------------------------

    def vet(self, name: str, path: Path, size: int) -> None:
        """Refuse what the service could not give back as it is; called in a thread."""
        vet_title(name)
        vet_size(size)
        limit = self.learnt.largest
        if limit is not None and size + FORM_BYTES > limit:
            message = f"the service's gateway takes no request of more than {limit:,} bytes"
            raise errors.TooLarge(message, provider=self.api.source, subject=name)
        if size == 0 and self.learnt.uploads is False:
            message = "this server has no object store, so it cannot store an empty file"
            raise errors.InvalidRequest(message, provider=self.api.source, subject=name)
        vet_text(path, name, self.api.http.answer_limits)

    async def permits(self, change: Change) -> None:
        """Refuse what this server does not offer.

        Whether it can rename and remove shows what it answers to the removal of an artifact that nobody has. While
        it cannot be asked, everything is taken for offered: it may have been changed when it is back.
        """
        if change is Change.CREATE:
            return
        if change is Change.SAVE:
            if self.learnt.uploads is False:
                raise self.writes.no_uploads()
            return
        if change is Change.MAKE_TREE:
            self._refuse_trees()
        if self.api.generation == "C":
            return
        if self.learnt.changes is None:
            try:
                await self.writes.delete(str(uuid.uuid4()))
            except (errors.Unavailable, errors.Unreachable, errors.TimedOut, errors.QuotaExceeded):
                return
        if self.learnt.changes is False:
            raise self.writes.no_changes()

    # -- files -----------------------------------------------------------------------------------------------

    async def create_file(self, ref: DirRef, path: tuple[str, ...], draft: Draft, attempt: Attempt) -> Artifact:
        """Make an artifact of a workflow; it belongs to no run, as only the service's own agents make those."""
        if ref.kind != "workflow" or len(path) != 1 or not ref.args[0]:
            message = "files are made in a workflow itself; what is below its runs is made by them"
            raise errors.NotPermitted(message, provider=self.api.source, subject="/".join(path))
        vet_title(path[0])
        vet_size(draft.size)
        with limits.publishing():
            return self._artifact_of(await self.creation.make(Wanted(ref.args[0], path[0], draft), attempt))

    async def save_file(self, artifact: Artifact, draft: Draft, attempt: Attempt) -> Artifact:
        """Replace an artifact's content; one that was removed is made again under a new id, as nothing restores it.

        Raises:
            Conflict: the service has another content than the writer had seen, or got one meanwhile.
            NotFound: a run made it, and it was removed: what is made anew would belong to no run.
        """
        vet_size(draft.size)
        with limits.publishing():
            if attempt.facts.get(ARTIFACT):
                return await self._make_again(artifact, draft, attempt)
            began_s = trio.current_time()
            shown = await self._content(artifact)
            if shown is None:
                if await self.creation.is_there(artifact.id, _title_of(artifact)):
                    raise self._unavailable("the service did not find its content a moment ago", artifact)
                return await self._make_again(artifact, draft, attempt)
            may_be_old = trio.current_time() - began_s >= STORE_DOWN_S and _is_as_made(artifact, shown)
            if was_sent(shown, attempt) and not await _is_of(draft, shown):
                # Ours, of an earlier try, after which the draft was written to again: it is no conflict.
                draft = replace(draft, base_sha256=None)
            if await self._needs_upload(artifact, draft, shown, may_be_old=may_be_old):
                await note_sending(attempt, draft)
                await self.writes.upload(artifact.id, draft)
                await self._verify(artifact, draft, shown)
            return artifact

    async def _content(self, artifact: Artifact) -> bytes | None:
        """Return what the service shows, None if it does not find it."""
        try:
            return await self.api.content(artifact.id)
        except errors.NotFound:
            return None

    async def _needs_upload(self, artifact: Artifact, draft: Draft, shown: bytes, *, may_be_old: bool) -> bool:
        if await _is_of(draft, shown):
            # Someone who goes back to what it was made with must not be told that it is so while the store is down.
            return may_be_old and draft.base_sha256 not in {None, draft.sha256}
        if draft.base_sha256 is None or await _is_of(replace(draft, sha256=draft.base_sha256, size=len(shown)), shown):
            return True
        if may_be_old:
            raise self._unavailable("the service may be without its object store at present", artifact)
        message = "the service has another content than the one that was edited"
        raise errors.Conflict(message, provider=self.api.source, subject=artifact.id)

    async def _verify(self, artifact: Artifact, draft: Draft, before: bytes) -> None:
        """Read back what was uploaded: 200 is the answer to any id, and old bytes come while the store is down."""
        after = await self._content(artifact)
        if after is None:
            raise self._unavailable("it was removed while it was saved", artifact)
        if await _is_of(draft, after):
            return
        if after == before or _is_as_made(artifact, after):
            raise self._unavailable("the service still gives the old content: its object store may be down", artifact)
        message = "somebody else saved another content at the same time"
        raise errors.Conflict(message, provider=self.api.source, subject=artifact.id)

    async def _make_again(self, artifact: Artifact, draft: Draft, attempt: Attempt) -> Artifact:
        if artifact.run is not None or artifact.metadata.get("phase_id"):
            message = "it was removed, and what a run made cannot be made again"
            raise errors.NotFound(message, provider=self.api.source, subject=artifact.id)
        wanted = Wanted(artifact.workflow or "", _title_of(artifact), draft, returns=True)
        return self._artifact_of(await self.creation.make(wanted, attempt))

    def _unavailable(self, message: str, artifact: Artifact) -> errors.Unavailable:
        return errors.Unavailable(message, provider=self.api.source, subject=artifact.id)

    # -- names -----------------------------------------------------------------------------------------------

    async def rename(self, artifact: Artifact, ref: DirRef, path: tuple[str, ...]) -> Artifact:
        """Change the title, of which only the name or, in a run's output, the path below its phase can differ."""
        title, phase_id = _title_of(artifact), artifact.metadata.get("phase_id")
        new = retitled(title, path, phase_id)
        is_here = ref.kind == "workflow" and ref.args == (artifact.workflow or "",)
        if not is_here or place(new, artifact.id, phase_id, artifact.run) != path:
            message = "an artifact stays in its workflow, and the output of a run in its phase"
            raise errors.NotPermitted(message, provider=self.api.source, subject=artifact.id)
        vet_title(new)
        with limits.publishing():
            if not await self.writes.retitle(artifact.id, new):
                raise errors.NotFound("it was removed", provider=self.api.source, subject=artifact.id)
        return replace(artifact, path=path, metadata=packed({**artifact.metadata, "title": new}))

    async def remove(self, artifact: Artifact) -> None:
        """Remove an artifact for good; the service cannot bring it back."""
        with limits.publishing():
            await self.writes.delete(artifact.id)

    # -- what the service has no operation for ---------------------------------------------------------------

    async def make_workflow(self, title: str) -> None:
        """Refuse: a workflow is a definition, with phases and prompts."""
        raise errors.NotPermitted("workflows are defined at the service", provider=self.api.source, subject=title)

    async def remove_workflow(self, ref: DirRef) -> None:
        """Refuse: with its definition a workflow's runs would go."""
        raise errors.NotPermitted("workflows are removed at the service", provider=self.api.source, subject=ref.kind)

    async def create_tree(self, ref: DirRef, path: tuple[str, ...]) -> Artifact:
        """Refuse: every artifact is one text."""
        del ref, path
        self._refuse_trees()

    async def save_tree(
        self, artifact: Artifact, manifest: Manifest, attempt: Attempt, *, read: Read, message: str | None = None
    ) -> Artifact:
        """Refuse: every artifact is one text."""
        del artifact, manifest, attempt, read, message
        self._refuse_trees()

    def _refuse_trees(self) -> NoReturn:
        raise errors.NotPermitted("the service stores single text files only", provider=self.api.source)


def _title_of(artifact: Artifact) -> str:
    """Return an artifact's title as the service has it."""
    title = artifact.metadata.get("title")
    return title if isinstance(title, str) else artifact.path[-1]


def _is_as_made(artifact: Artifact, shown: bytes) -> bool:
    """Tell whether a content may be what the artifact was made with: its size is told for ever."""
    size = artifact.current.size if artifact.current else None
    return isinstance(size, Hint) and size.value == len(shown)


async def _is_of(draft: Draft, shown: bytes) -> bool:
    return await trio.to_thread.run_sync(is_of, draft, shown)
