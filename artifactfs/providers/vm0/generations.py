"""The two APIs that a VM0 server may have, each answering the same five questions.

Rules of this file: which requests are sent for which question; what a row means is decided in ``values``. A
transient failure is an exception, also of one request among many: a listing is never short by what could
not be asked.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

import trio

from artifactfs import errors
from artifactfs.model.entry import Artifact, Listing, VersionPage
from artifactfs.providers.vm0.schemas import StorageDownload, StorageRow, read
from artifactfs.providers.vm0.values import STORAGES, V1, Values, role_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from artifactfs.providers.base import Memory
    from artifactfs.providers.vm0.api import Link, Vm0Api

# UUIDs in the service; its documentation shows `art_abc123`, which a server written from that may have.
V1_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|(art|vol)_[0-9A-Za-z]{3,64}")
# As many requests at once as a browser sends to one host, and a margin below the client's 16 connections.
AT_ONCE = 8


class Generation(Protocol):
    """What the provider asks of either."""

    async def list(self, role: str) -> Listing:
        """Return all artifacts of a role."""

    async def find(self, role: str, artifact_id: str) -> Artifact | None:
        """Return one by id, None if there is none."""

    async def versions(self, artifact: Artifact) -> VersionPage:
        """Return all versions that can be known."""

    async def find_version(self, artifact: Artifact, name: str) -> str | None:
        """Return the full id of a version by id or prefix, None if it is not there or not told."""

    async def link(self, role: str, where: str, version_id: str) -> Link:
        """Return what leads to an archive."""


class V1Generation:
    """``/v1/artifacts`` and ``/v1/volumes``."""

    def __init__(self, api: Vm0Api, values: Values) -> None:
        """Ask through ``api``."""
        self._api = api
        self._values = values

    async def list(self, role: str) -> Listing:
        """Send one request per 100 artifacts."""
        pages = await self._api.artifacts(role)
        doubts = pages.doubts()
        found = tuple(self._values.artifact(role, row) for row in pages.rows)
        return Listing(found, complete=not doubts, note=doubts or None)

    async def find(self, role: str, artifact_id: str) -> Artifact | None:
        """Send one request, none for what cannot be an id."""
        if not V1_ID.fullmatch(artifact_id):
            return None
        row = await self._api.artifact(role, artifact_id)
        return None if row is None else self._values.artifact(role, row)

    async def versions(self, artifact: Artifact) -> VersionPage:
        """Send one request per 100 versions."""
        role = role_of(artifact)
        pages = await self._api.versions(role, artifact.id)
        listed = [self._values.version(role, artifact.id, row) for row in pages.rows]
        return VersionPage(self._values.with_found(artifact, V1, listed), complete=not pages.doubts())

    async def find_version(self, artifact: Artifact, name: str) -> str | None:
        """Send one request."""
        return await self._api.resolve_version(role_of(artifact), artifact.id, name)

    async def link(self, role: str, where: str, version_id: str) -> Link:
        """Send none: the service's own address redirects."""
        return self._api.v1_link(role, where, version_id)


class StoragesGeneration:
    """``/api/storages``: no ids, no versions but the present one, and that only one by one."""

    def __init__(self, api: Vm0Api, values: Values, memory: Memory) -> None:
        """Ask through ``api``; ``memory`` keeps which version was present at which ``updatedAt``."""
        self._api = api
        self._values = values
        self._memory = memory

    async def list(self, role: str) -> Listing:
        """Send one request, and one for each artifact that changed since it was last seen."""
        rows, skipped = await self._api.storages(role)
        heads: dict[str, StorageDownload | None] = {}
        failures: list[errors.ArtifactFSError] = []
        pending = iter(rows)

        async def ask(rows: Iterator[StorageRow]) -> None:
            for row in rows:
                if failures:
                    return
                try:
                    heads[row.name] = await self._head(role, row)
                except errors.ArtifactFSError as error:
                    failures.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(min(AT_ONCE, len(rows))):
                nursery.start_soon(ask, pending)
        if failures:
            raise failures[0]
        found = tuple(self._values.storage(role, row, heads[row.name]) for row in rows)
        note = f"{skipped} rows could not be understood" if skipped else None
        return Listing(found, complete=not skipped, note=note)

    async def _head(self, role: str, row: StorageRow) -> StorageDownload | None:
        """Return the present version: every commit changes ``updatedAt``, so it is asked for once per change."""
        key = f"head/{role}/{row.name}"
        known = self._memory.get(key)
        if isinstance(known, dict) and row.updated_at and known.get("updatedAt") == row.updated_at:
            remembered = read(StorageDownload, known)
            if remembered is not None:
                return remembered
        head = await self._api.storage(role, row.name)
        if head is not None and row.updated_at:
            fact = {
                "updatedAt": row.updated_at, "versionId": head.version_id, "empty": head.empty,
                "fileCount": head.file_count, "size": head.size,
            }  # fmt: skip
            self._memory.put(key, fact)
        return head

    async def find(self, role: str, artifact_id: str) -> Artifact | None:
        """Send two requests at most, none for what cannot be an id."""
        kind, _, name = artifact_id.partition(":")
        if kind != role or not name:
            return None
        rows, _ = await self._api.storages(role)
        row = next((row for row in rows if row.name == name), None)
        return None if row is None else self._values.storage(role, row, await self._head(role, row))

    async def versions(self, artifact: Artifact) -> VersionPage:
        """Send none: this API shows no versions but the present one, so there may be more."""
        listed = [artifact.current] if artifact.current else []
        return VersionPage(self._values.with_found(artifact, STORAGES, listed), complete=False)

    async def find_version(self, artifact: Artifact, name: str) -> str | None:
        """Send one request."""
        found = await self._api.storage(role_of(artifact), artifact.path[-1], name)
        return found.version_id if found is not None and found.version_id.startswith(name) else None

    async def link(self, role: str, where: str, version_id: str) -> Link:
        """Send one request."""
        return await self._api.storage_link(role, where, version_id)
