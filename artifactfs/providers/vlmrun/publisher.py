"""Saving to VLM Run: the uploaded files, which are all that takes writes there.

Rules of this file:
* A file never changes under its id: a save is a new file of the same name, seen to be there before the old one is
  removed. A kill between the two leaves both, and the next try removes the old one.
* What an earlier try may have done is looked for before anything is sent: by the id it noted, by the MD5, and where
  the service knows these bytes by another name, by name, size and the bytes themselves.
* Only a file that a save replaces is removed, and what half came of an upload of our own.
* Names need not differ: a new file does not look for others of its name. Two of one name stand side by side, which the
  listing tells apart.

    call              requests
    create            3; 4 above 32 MiB; 1 if the file is there already
    save              4; 5 above 32 MiB; 1 if nothing changed
    remove            1
    and               1 for a save of the same size whose writer had not seen the old content, 2 and its bytes if
                      another file has the same as are saved; 1 for each page of the list if the old file is gone;
                      after a failure what it takes to find out what became of it, mostly 1 or 2
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, NoReturn

import trio

from artifactfs import errors
from artifactfs.providers.base import Change
from artifactfs.providers.bodies import file_pieces
from artifactfs.providers.vlmrun import entries, refs
from artifactfs.providers.vlmrun.upload_api import MAX_DIRECT, UNSENDABLE
from artifactfs.providers.vlmrun.uploaded import Uploaded, fits

if TYPE_CHECKING:
    import re
    from pathlib import Path

    from artifactfs.model.entry import Artifact, DirRef
    from artifactfs.providers.base import Attempt, Draft, Manifest, Memory, Read
    from artifactfs.providers.vlmrun.api import VlmRunApi
    from artifactfs.providers.vlmrun.contents import Contents
    from artifactfs.providers.vlmrun.schemas import File
    from artifactfs.providers.vlmrun.upload_api import UploadApi

# Pieces that the SDK hashes files in.
PIECE = 4 * 1024 * 1024
# What is remembered of a server that removes no file, and for how long it is believed: it may learn.
REFUSED_KEY = "files/delete-refused"
REFUSED_NS = 24 * 3600 * 10**9


def digests(draft: Draft) -> str:
    """Return the MD5 of a draft, in hex, having seen that it is what was sealed. To be used in a thread.

    Raises:
        CorruptContent: it is something else.
    """
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    for piece in file_pieces(draft.path, PIECE):
        md5.update(piece)
        sha256.update(piece)
        size += len(piece)
    if (sha256.hexdigest(), size) != (draft.sha256, draft.size):
        raise errors.CorruptContent("what was to be saved has changed", subject=str(draft.path))
    return md5.hexdigest()


class VlmRunPublisher:
    """Writes to one account's files."""

    unstorable: re.Pattern[bytes] | None = None

    def __init__(self, api: VlmRunApi, uploads: UploadApi, contents: Contents, memory: Memory) -> None:
        """Write through ``uploads``, look through ``api`` and ``contents``."""
        self._api = api
        self._uploads = uploads
        self._uploaded = Uploaded(api, uploads, contents)
        self._memory = memory

    def __repr__(self) -> str:
        """Tell whose it is."""
        return f"<VlmRunPublisher {self._api.source}>"

    # -- what is possible ------------------------------------------------------------------------------------

    def vet(self, name: str, path: Path, size: int) -> None:  # noqa: ARG002 - any bytes, of any number
        """Refuse a name that an upload would not bring over as it is. The service names no limit of size.

        Raises:
            NameNotAllowed: it has a quote, a backslash, a control character, or is no text.
        """
        if UNSENDABLE.search(name):
            message = "VLM Run takes no names with quotes, backslashes or control characters"
            raise errors.NameNotAllowed(message, provider=self._api.source, subject=name)

    async def permits(self, change: Change) -> None:
        """Refuse trees and new names. No request: that a server removes no files is known once it said so."""
        if change in {Change.MAKE_TREE, Change.RENAME}:
            self._refuse("VLM Run has no directories" if change is Change.MAKE_TREE else "VLM Run renames no files")
        if change is Change.REMOVE and self._refuses_removal():
            self._refuse("this server removes no files")

    def _refuses_removal(self) -> bool:
        fact = self._memory.get(REFUSED_KEY)
        at = fact.get("at_ns") if isinstance(fact, dict) else None
        return isinstance(at, int) and 0 <= time.time_ns() - at < REFUSED_NS

    def _refuse(self, message: str) -> NoReturn:
        raise errors.NotPermitted(message, provider=self._api.source)

    async def make_workflow(self, title: str) -> None:  # noqa: ARG002 - there is no such operation
        self._refuse("agents are made at VLM Run, not here")

    async def remove_workflow(self, ref: DirRef) -> None:  # noqa: ARG002 - there is no such operation
        self._refuse("agents are removed at VLM Run, not here")

    async def create_tree(self, ref: DirRef, path: tuple[str, ...]) -> Artifact:  # noqa: ARG002 - there are none
        self._refuse("VLM Run has no directories")

    async def save_tree(
        self,
        artifact: Artifact,  # noqa: ARG002 - there are none
        manifest: Manifest,  # noqa: ARG002 - as above
        attempt: Attempt,  # noqa: ARG002 - as above
        *,
        read: Read,  # noqa: ARG002 - as above
        message: str | None = None,  # noqa: ARG002 - as above
    ) -> Artifact:
        self._refuse("VLM Run has no directories")

    async def rename(self, artifact: Artifact, ref: DirRef, path: tuple[str, ...]) -> Artifact:  # noqa: ARG002 - not offered
        self._refuse("VLM Run renames no files")

    # -- changes ---------------------------------------------------------------------------------------------

    async def create_file(self, ref: DirRef, path: tuple[str, ...], draft: Draft, attempt: Attempt) -> Artifact:
        """Upload a file; one of that name with these bytes is taken for it.

        Raises:
            NotPermitted: the place is not ``files`` itself, or the service keeps the bytes under another name.
            NameNotAllowed: the name cannot be sent.
            CorruptContent: the draft is not what was sealed.
        """
        if ref.kind != "files" or len(path) != 1:
            self._refuse("VLM Run takes files in files/ alone")
        self.vet(path[0], draft.path, draft.size)
        md5 = await trio.to_thread.run_sync(digests, draft)
        row = await self._noted(path[0], draft, attempt)
        if row is None:
            row = await self._uploaded.find(path[0], draft, md5, everywhere=not attempt.is_first)
        return self._artifact(row or await self._upload(path[0], draft, attempt))

    async def save_file(self, artifact: Artifact, draft: Draft, attempt: Attempt) -> Artifact:
        """Upload the next content under the name of ``artifact``, then remove what it takes the place of.

        Where the server removes no files, both stand side by side.

        Raises:
            Conflict: the old file is gone and another one has its name: somebody else has replaced it.
            NotPermitted: it is no uploaded file, or the service keeps the bytes under another name.
            NameNotAllowed, CorruptContent: as for ``create_file``.
        """
        name, old_id = artifact.path[-1], self._file_id(artifact)
        self.vet(name, draft.path, draft.size)
        md5 = await trio.to_thread.run_sync(digests, draft)
        row = await self._noted(name, draft, attempt)
        if row is None and not attempt.is_first:
            row = await self._uploaded.find(name, draft, md5, everywhere=True, but=old_id)
        if row is None:
            old = await self._old(artifact, old_id)
            if old is not None and await self._holds(old, draft, md5):
                return self._artifact(old)
            row = await self._upload(name, draft, attempt)
            if old is None:
                return self._artifact(row)
        if row.id != old_id:
            await self._remove_old(old_id)
        return self._artifact(row)

    async def remove(self, artifact: Artifact) -> None:
        """Remove an uploaded file; one that is gone is removed.

        Raises:
            NotPermitted: it is none, or this server removes none.
        """
        try:
            await self._uploads.delete(self._file_id(artifact))
        except errors.NotPermitted:
            self._memory.put(REFUSED_KEY, {"at_ns": time.time_ns()})
            raise

    async def _remove_old(self, old_id: str) -> None:
        try:
            await self._uploads.delete(old_id)
        except errors.NotPermitted:
            # Both stand there from now on, which loses nothing; that this server removes none is worth knowing.
            self._memory.put(REFUSED_KEY, {"at_ns": time.time_ns()})

    # -- uploading -------------------------------------------------------------------------------------------

    async def _upload(self, name: str, draft: Draft, attempt: Attempt) -> File:
        """Upload a file and return it as the service then shows it."""
        if draft.size <= MAX_DIRECT:
            made = await self._uploads.post(name, draft)
            if made.filename not in {None, name}:
                # Nothing of this id is removed: it may be another file with these bytes, which was there before.
                self._refuse(f"the service keeps these bytes under another name ({made.filename})")
            await attempt.note(file=made.id or "", via="post")
            row = await self._uploaded.look(made.id or "")
        else:
            link = await self._uploads.link(name)
            await attempt.note(file=link.id or "", via="link")
            await self._uploads.put(link, draft)
            row = await self._uploads.verify(link.id or "")
        if row is None:
            message = "the service has taken the file, but does not show it yet"
            raise errors.Unavailable(message, provider=self._api.source, subject=name)
        if not fits(row, name, draft):
            if draft.size > MAX_DIRECT:
                await self._remove_old(row.id or "")
            message = f"the service shows {row.bytes} bytes as {row.filename!r}, which is not what was sent"
            raise errors.ProviderMisbehaved(message, provider=self._api.source, subject=name)
        return row

    # -- what an earlier try has done ------------------------------------------------------------------------

    async def _noted(self, name: str, draft: Draft, attempt: Attempt) -> File | None:
        """Return what an earlier try has uploaded, if it came to an end; what half came is removed."""
        file_id = attempt.facts.get("file", "")
        if not refs.UUID.fullmatch(file_id):
            return None
        by_link = attempt.facts.get("via") == "link"
        row = await self._uploads.verify(file_id) if by_link else await self._uploaded.look(file_id)
        if row is None or fits(row, name, draft):
            return row
        if by_link:
            await self._remove_old(file_id)
        return None

    # -- what is replaced ------------------------------------------------------------------------------------

    async def _old(self, artifact: Artifact, old_id: str) -> File | None:
        """Return the file that is replaced; None if it was removed, and comes back with what is saved."""
        row = await self._uploaded.look(old_id)
        if row is None and await self._uploaded.has(artifact.path[-1]):
            message = "somebody else has replaced it"
            raise errors.Conflict(message, provider=self._api.source, subject=artifact.id)
        return row

    async def _holds(self, old: File, draft: Draft, md5: str) -> bool:
        """Tell whether a file has the bytes of the draft already.

        A file never changes under its id, so what the writer has seen of it is what it has.
        """
        if draft.base_sha256 == draft.sha256 and old.bytes not in {None, draft.size}:
            message = "it is not what was seen of it"
            raise errors.Conflict(message, provider=self._api.source, subject=old.id or "")
        if draft.base_sha256 is not None or old.bytes not in {None, draft.size}:
            return draft.base_sha256 == draft.sha256
        same = await self._uploads.by_md5(md5)
        # It names one of the files with these bytes, and this may be another of them.
        return same is not None and (same.id == old.id or await self._uploaded.hash(old, draft.size) == draft.sha256)

    def _file_id(self, artifact: Artifact) -> str:
        if artifact.key != f"file/{artifact.id}" or not refs.UUID.fullmatch(artifact.id):
            self._refuse("what agents and sessions have left cannot be changed at VLM Run")
        return artifact.id

    def _artifact(self, row: File) -> Artifact:
        """Return a file as the listing shows it."""
        artifact = entries.file_artifact(self._api.source, row)
        if artifact is None:
            message = "the service gave a file an id that no file has"
            raise errors.ProviderMisbehaved(message, provider=self._api.source)
        return artifact
