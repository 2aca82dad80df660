"""Uploaded files of VLM Run as who saves looks for them: by id, by bytes, by name.

Rules of this file: it asks and changes nothing. By hash the service tells of one file only, under whatever name; so
where another one may be meant, all are looked through.
"""

from __future__ import annotations

import hashlib
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING

import trio

from artifactfs import errors
from artifactfs.model.content import ByteRange
from artifactfs.providers.vlmrun import entries, refs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from artifactfs.providers.base import Draft
    from artifactfs.providers.vlmrun.api import VlmRunApi
    from artifactfs.providers.vlmrun.contents import Contents
    from artifactfs.providers.vlmrun.schemas import File
    from artifactfs.providers.vlmrun.upload_api import UploadApi

# As many rows of a list as the service allows.
PAGE = 1000


def fits(row: File, name: str, draft: Draft) -> bool:
    """Tell whether a file has the name and, as far as the service tells, the size of what is saved."""
    return row.filename == name and row.bytes in {None, draft.size}


class Uploaded:
    """Looks through one account's files."""

    def __init__(self, api: VlmRunApi, uploads: UploadApi, contents: Contents) -> None:
        """Ask through these."""
        self._api = api
        self._uploads = uploads
        self._contents = contents

    async def look(self, file_id: str) -> File | None:
        """Return a file as it is now; None if it is gone. One request."""
        try:
            row = await self._api.file(file_id, link=False)
        except errors.NotFound:
            return None
        return row.model_copy(update={"id": file_id})

    async def find(self, name: str, draft: Draft, md5: str, *, everywhere: bool, but: str = "") -> File | None:
        """Return a file of this name with these bytes: the one known by its hash, and else ``everywhere`` any one.

        One request; one for each page of the list and the bytes of what might be it if it is looked for everywhere,
        where the file ``but`` is passed over.
        """
        row = await self._uploads.by_md5(md5)
        if row is not None and fits(row, name, draft):
            return row
        if not everywhere:
            return None
        async with aclosing(self._rows()) as rows:
            async for row in rows:
                if row.id != but and fits(row, name, draft) and await self.hash(row, draft.size) == draft.sha256:
                    return row
        return None

    async def has(self, name: str) -> bool:
        """Tell whether a file of this name is listed, whichever it is."""
        async with aclosing(self._rows()) as rows:
            async for row in rows:
                if row.filename == name:
                    return True
        return False

    async def hash(self, row: File, size: int) -> str | None:
        """Return the SHA-256 of a file's bytes; None if it has no usable id, is gone, or is longer than ``size``."""
        if row.id is None or not refs.UUID.fullmatch(row.id):
            return None
        sha256, count = hashlib.sha256(), 0
        try:
            async with self._contents.open(entries.file_content(self._api.source, row), ByteRange(0)) as stream:
                async for chunk in stream.chunks:
                    count += len(chunk)
                    if count > size:
                        return None
                    await trio.to_thread.run_sync(partial(sha256.update, chunk))
        except errors.NotFound:
            return None
        return sha256.hexdigest()

    async def _rows(self) -> AsyncGenerator[File]:
        for start in range(0, self._api.http.answer_limits.max_listing_rows, PAGE):
            page = await self._api.files(start, PAGE)
            for row in page.rows:
                yield row
            if page.last:
                return
