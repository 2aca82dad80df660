"""Making an artifact at Syntropic137 exactly once.

Rules of this file: the service has no idempotency key, and titles repeat, so an answer that was lost leaves open
whether there is an artifact now. Who comes again looks for it before anything is sent: under the id that was noted,
else in the list, where it must have the title and either the content that was to be saved or this file's placeholder.
Where the list is cut nothing can be told, and then nothing is made.

A draft may be written to between two tries. So before a content is sent its hash is noted: what the service shows of an
earlier one is ours, to be replaced, and nobody else's.

A content that is empty, or too long for one request of JSON, is uploaded onto an artifact that was made with a
placeholder, which holds the hash of what is to come.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from artifactfs import errors
from artifactfs.providers.syntropic.kinds import artifact_type
from artifactfs.providers.syntropic.writes import FORM_BYTES

if TYPE_CHECKING:
    from artifactfs.providers.base import Attempt, Draft
    from artifactfs.providers.syntropic.rows import ArtifactRow
    from artifactfs.providers.syntropic.writes import Writes

ARTIFACT = "artifact"
"""Fact of an attempt: the id of what was made, "" if it was removed again."""
ASKED = "asked"
"""Fact of an attempt: when a request was sent whose answer did not come, in seconds since the epoch."""
SENT = "sent"
"""Fact of an attempt: the hashes of the contents that may have reached the service, oldest first."""
# A save that fails for an hour, and is made again each second try, has as many.
MAX_SENT = 64

# Longer contents are uploaded: the service keeps what it is sent as JSON in one event, and reads all of these for
# every detail it is asked for (service source, May 2026).
MAX_INLINE = 8 * 1024 * 1024
# What a request of JSON holds beside content and title.
FIELDS_BYTES = 512
# A request whose answer did not come may still be at work; the gateway itself waits 300 s, but for a server that hangs.
SETTLE_S = 10.0
GATEWAY_STATUS = frozenset({408, 502, 504})
# What was made shows in the lists a moment after its 201, when the service has projected it; measured: at once.
SHOWN_TRIES = 4
SHOWN_PAUSE_S = 0.25


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be made.

    Attributes:
        returns: it was removed and comes back: nothing else may have its title then.
    """

    workflow_id: str
    title: str
    draft: Draft
    returns: bool = False

    @property
    def placeholder(self) -> str:
        """Return what stands for the content until that is uploaded."""
        return _placeholder(self.draft.sha256)

    def state_of(self, shown: bytes, attempt: Attempt) -> bool | None:
        """Tell whether a content is what is to be saved; None if it is ours and to be replaced by that."""
        if is_of(self.draft, shown):
            return True
        hashes = {self.draft.sha256, *sent_before(attempt)}
        is_ours = was_sent(shown, attempt) or shown in {_placeholder(one).encode() for one in hashes}
        return None if is_ours else False


def _placeholder(sha256: str) -> str:
    return f"The content of this file is being uploaded by artifactfs (SHA-256 {sha256}).\n"


def sent_before(attempt: Attempt) -> list[str]:
    """Return the hashes of what may have reached the service."""
    return attempt.facts.get(SENT, "").split()


def was_sent(shown: bytes, attempt: Attempt) -> bool:
    """Tell whether a content is one that an earlier try may have sent."""
    sent = sent_before(attempt)
    return bool(sent) and hashlib.sha256(shown).hexdigest() in sent


async def note_sending(attempt: Attempt, draft: Draft) -> None:
    """Remember that a content may reach the service from now on."""
    sent = sent_before(attempt)
    if draft.sha256 not in sent:
        await attempt.note(**{SENT: " ".join([*sent, draft.sha256][-MAX_SENT:])})


def is_of(draft: Draft, shown: bytes) -> bool:
    """Tell whether a content is that of a draft."""
    return len(shown) == draft.size and hashlib.sha256(shown).hexdigest() == draft.sha256


class Creation:
    """Makes artifacts at one server."""

    def __init__(self, writes: Writes) -> None:
        """Send by ``writes``."""
        self.api = writes.api
        self.writes = writes
        self.learnt = writes.learnt

    def __repr__(self) -> str:
        """Tell which server it is."""
        return f"<Creation {self.writes!r}>"

    async def make(self, wanted: Wanted, attempt: Attempt) -> ArtifactRow:
        """Make it, or find what an earlier try made; return it as the service has it.

        Raises:
            AlreadyExists: what was made has another content by now, or the title is another one's.
            Unsupported: nobody can tell whether an earlier try made it.
        """
        made = await self._made_before(wanted, attempt)
        if made is not None:
            return await self._completed(made, wanted, attempt)
        if self._goes_inline(wanted):
            try:
                made = await self._post(wanted, attempt, await _text_of(wanted.draft))
            except errors.TooLarge:
                if not self._fits_upload(wanted.draft):
                    raise
            else:
                return await self._verified(made, wanted, attempt)
        if self.learnt.uploads is False:
            raise self.writes.no_uploads()
        made = await self._post(wanted, attempt, wanted.placeholder)
        return await self._filled(made, wanted, attempt)

    # -- what there may be already ---------------------------------------------------------------------------

    async def _made_before(self, wanted: Wanted, attempt: Attempt) -> str | None:
        """Return the id of what an earlier try made, None if it certainly made nothing that is still there."""
        known = attempt.facts.get(ARTIFACT)
        if known and await self.is_there(known, wanted.title):
            return known
        if attempt.is_first and not wanted.returns:
            return None
        if known:
            # It was made, and is gone: whoever asks for the title now wants a new one.
            return None
        return await self._found(wanted, attempt)

    async def is_there(self, artifact_id: str, title: str) -> bool:
        """Tell whether an artifact exists: what cannot be read may have been removed, or be out of the service's sight.

        A detail is 404 for a removed artifact, for one beyond the 10,000th and for a fault of the service; what
        changes a title knows better.

        Raises:
            Unavailable: it exists, and cannot be read.
        """
        if await self.api.artifact(artifact_id) is not None:
            return True
        try:
            if not await self.writes.retitle(artifact_id, title):
                return False
        except errors.NotPermitted:
            pass  # where nothing can be removed, nothing was
        message = "the service has the artifact, but does not find it at present"
        raise errors.Unavailable(message, provider=self.api.source, subject=artifact_id)

    async def _found(self, wanted: Wanted, attempt: Attempt) -> str | None:
        """Look through the list of the workflow for what an earlier try made."""
        rows = await self.api.artifacts(wanted.workflow_id or None)
        taken = False
        for row in rows.rows:
            if (row.workflow_id or "", row.title) != (wanted.workflow_id, wanted.title) or row.phase_id is not None:
                continue
            if wanted.state_of(await self._listed_content(row.id), attempt) is not False:
                await attempt.note(**{ARTIFACT: row.id})
                return row.id
            taken = True
        if taken and wanted.returns:
            raise self._exists(wanted)
        if attempt.is_first:
            return None
        if not rows.complete:
            message = f"whether an earlier try made it cannot be told: {rows.note}"
            raise errors.Unsupported(message, provider=self.api.source, subject=wanted.title)
        asked = float(attempt.facts.get(ASKED, "0"))
        if 0 <= time.time() - asked < SETTLE_S:
            message = "the service did not answer a moment ago, and may still be making it"
            raise errors.Unavailable(message, provider=self.api.source, subject=wanted.title)
        return None

    async def _listed_content(self, artifact_id: str) -> bytes:
        try:
            return await self.api.content(artifact_id)
        except errors.NotFound as error:
            message = "the service lists an artifact that it does not find, which may be the one that was made"
            raise errors.Unavailable(message, provider=self.api.source, subject=artifact_id) from error

    # -- making it -------------------------------------------------------------------------------------------

    def _goes_inline(self, wanted: Wanted) -> bool:
        """Tell whether the content goes with the request that makes the artifact."""
        size, limit = wanted.draft.size, self.learnt.largest
        if limit is not None and not self._fits_upload(wanted.draft):
            return size > 0  # the limit may have been raised, and a refusal leaves nothing behind
        is_short = limit is None or size + len(wanted.title.encode()) + FIELDS_BYTES <= limit
        return 0 < size <= MAX_INLINE and is_short

    def _fits_upload(self, draft: Draft) -> bool:
        limit = self.learnt.largest
        return limit is not None and draft.size + FORM_BYTES <= limit

    async def _post(self, wanted: Wanted, attempt: Attempt, text: str) -> str:
        kind = artifact_type(wanted.title, is_old=self.learnt.changes is False)
        failure: errors.ArtifactFSError | None = None
        await note_sending(attempt, wanted.draft)
        try:
            made = await self.writes.create(wanted.workflow_id, wanted.title, kind, text)
        except (errors.Unavailable, errors.TimedOut) as error:
            failure = error
        if failure is not None:
            # Whoever answers with a status of its own has done with it, but for a gateway that speaks for it.
            if failure.status is None or failure.status in GATEWAY_STATUS:
                await attempt.note(**{ASKED: str(time.time())})
            try:
                raise failure
            finally:
                del failure  # it knows this frame: neither would go before the garbage collector comes
        await attempt.note(**{ARTIFACT: made})
        return made

    async def _completed(self, made: str, wanted: Wanted, attempt: Attempt) -> ArtifactRow:
        """Bring what an earlier try made to its end."""
        state = wanted.state_of(await self.api.content(made), attempt)
        if state is None:
            return await self._filled(made, wanted, attempt)
        return await self._verified(made, wanted, attempt)

    async def _filled(self, made: str, wanted: Wanted, attempt: Attempt) -> ArtifactRow:
        """Put the content in the place of the placeholder; what cannot be is not left behind."""
        refusal: errors.ArtifactFSError | None = None
        await note_sending(attempt, wanted.draft)
        try:
            await self.writes.upload(made, wanted.draft)
        except (errors.TooLarge, errors.NotPermitted) as error:
            refusal = error
        if refusal is not None:
            with contextlib.suppress(errors.ArtifactFSError):
                await self.writes.delete(made)
            await attempt.note(**{ARTIFACT: ""})
            raise refusal
        return await self._verified(made, wanted, attempt)

    async def _verified(self, made: str, wanted: Wanted, attempt: Attempt) -> ArtifactRow:
        """Return the artifact, once the service gives back what was saved."""
        row, shown = await self._shown(made, wanted.draft)
        state = wanted.state_of(shown, attempt)
        if state is None:
            message = "the service still gives what was there before the upload: its object store may be down"
            raise errors.Unavailable(message, provider=self.api.source, subject=made)
        if not state:
            raise self._exists(wanted)
        return row

    async def _shown(self, made: str, draft: Draft) -> tuple[ArtifactRow, bytes]:
        """Return an artifact and its content, waiting for a moment until the service shows what it has made."""
        for left in reversed(range(SHOWN_TRIES)):
            with contextlib.suppress(errors.NotFound):
                # A detail with an empty content is 404, so that one takes two requests.
                if draft.size:
                    return await self.api.whole(made)
                shown = await self.api.content(made)
                row = await self.api.artifact(made)
                if row is not None:
                    return row, shown
            if left:
                await trio.sleep(SHOWN_PAUSE_S * (SHOWN_TRIES - left))
        raise errors.Unavailable("the service does not show what was made", provider=self.api.source, subject=made)

    def _exists(self, wanted: Wanted) -> errors.AlreadyExists:
        message = "another content has this title"
        return errors.AlreadyExists(message, provider=self.api.source, subject=wanted.title)


async def _text_of(draft: Draft) -> str:
    """Return a draft's content.

    Raises:
        CorruptContent: it is not what it was.
        InvalidRequest: it is no text.
    """
    try:
        data = await trio.to_thread.run_sync(draft.path.read_bytes)
        if not is_of(draft, data):
            raise errors.CorruptContent("what is to be saved has changed", subject=str(draft.path))
        return data.decode("utf-8")
    except OSError as error:
        message = f"what is to be saved cannot be read: {error.strerror}"
        raise errors.CorruptContent(message, subject=str(draft.path)) from error
    except UnicodeDecodeError as error:
        raise errors.InvalidRequest("the service stores text only", subject=str(draft.path)) from error
