"""VM0's public API, ``/v1/artifacts`` and ``/v1/volumes``, over the store.

Rules of this file: shapes, codes and messages are those of the service's last deployment (service source,
January and February 2026). Pages are cut by the same order that they are sorted by; the upstream service
filters by another one and loses rows.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import trio
from starlette.responses import RedirectResponse
from starlette.routing import BaseRoute, Route

from artifactfs.server import vm0_projection as projection
from artifactfs.server.vm0_wire import Endpoint, Refused, iso, v1_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

    from artifactfs.server.context import Context
    from artifactfs.store.catalog import Store
    from artifactfs.store.rows import StoredArtifact, StoredVersion

T = TypeVar("T")

# Rows of a page: the service's default and maximum.
DEFAULT_LIMIT = 20
MAX_LIMIT = 100


def routes(store: Store, context: Context, *, use_snake: bool) -> list[BaseRoute]:
    """Return the routes below the base URL, in one of the two spellings."""
    endpoint = Endpoint(
        context,
        v1_error,
        use_snake=use_snake,
        unauthorized=Refused(401, "Invalid API key provided", "invalid_api_key"),
        failed=Refused(500, "An unexpected error occurred", "internal_error"),
    )
    found: list[BaseRoute] = []
    for role in ("artifact", "volume"):
        views = Views(store, context, role, "version_id" if use_snake else "versionId")
        base = f"/v1/{role}s"
        found += [
            Route(base, endpoint(views.index)),
            Route(base + "/{id}", endpoint(views.detail)),
            Route(base + "/{id}/versions", endpoint(views.versions)),
            Route(base + "/{id}/download", endpoint(views.download)),
        ]
    return found


def _limit(request: Request) -> int:
    text = request.query_params.get("limit")
    if text is None:
        return DEFAULT_LIMIT
    if not text.isdecimal() or len(text) > 4 or not 1 <= int(text) <= MAX_LIMIT:  # noqa: PLR2004 - no long numbers
        raise Refused(400, f"limit must be between 1 and {MAX_LIMIT}", "invalid_parameter", "limit")
    return int(text)


def _page(rows: Sequence[T], limit: int) -> tuple[Sequence[T], bool]:
    return rows[:limit], len(rows) > limit


class Views:
    """The four endpoints of artifacts, or of volumes."""

    def __init__(self, store: Store, context: Context, role: str, version_param: str) -> None:
        """Serve the trees of one role; only ``version_param`` names a version, as in the service."""
        self._store = store
        self._context = context
        self._role = role
        self._version_param = version_param

    async def index(self, request: Request) -> object:
        """List, newest first."""
        return await trio.to_thread.run_sync(self._index, _limit(request), request.query_params.get("cursor") or "")

    def _index(self, limit: int, cursor: str) -> object:
        rows = projection.trees(self._store, self._role)
        if cursor:
            last = self._store.artifact(cursor)
            if last is None or last.uuid != cursor:
                raise Refused(400, f"No such cursor: '{cursor}'", "invalid_parameter", "cursor")
            rows = [row for row in rows if projection.newest_first(row) > projection.newest_first(last)]
        page, has_more = _page(rows, limit)
        return {
            "data": [self._item(row, projection.head(self._store, row)) for row in page],
            "pagination": {"hasMore": has_more, "nextCursor": page[-1].uuid if has_more else None},
        }

    async def detail(self, request: Request) -> object:
        """Show one, with the version in the present."""
        return await trio.to_thread.run_sync(self._detail, request.path_params["id"])

    def _detail(self, uuid: str) -> object:
        artifact = self._known(uuid)
        current = projection.head(self._store, artifact)
        shown = self._version(artifact, current) if current else None
        return {**self._item(artifact, current), "currentVersion": shown}

    async def versions(self, request: Request) -> object:
        """List the versions, newest first."""
        cursor = request.query_params.get("cursor") or ""
        work = partial(self._versions, request.path_params["id"], _limit(request), cursor)
        return await trio.to_thread.run_sync(work)

    def _versions(self, uuid: str, limit: int, cursor: str) -> object:
        artifact = self._known(uuid)
        rows = projection.distinct(self._store, artifact)
        if cursor:
            at = next((i for i, row in enumerate(rows) if row.id == cursor), None)
            if at is None:
                raise Refused(400, f"No such cursor: '{cursor}'", "invalid_parameter", "cursor")
            rows = rows[at + 1 :]
        page, has_more = _page(rows, limit)
        return {
            "data": [self._version(artifact, row) for row in page],
            "pagination": {"hasMore": has_more, "nextCursor": page[-1].id if has_more else None},
        }

    async def download(self, request: Request) -> object:
        """Lead to the archive of a version, of the present one without a parameter."""
        name = request.query_params.get(self._version_param)
        path = await trio.to_thread.run_sync(self._archive, request.path_params["id"], name)
        return RedirectResponse(self._context.link(path, seen_host=request.url.hostname), 302)

    def _archive(self, uuid: str, name: str | None) -> str:
        artifact = self._known(uuid)
        kind = self._role.capitalize()
        try:
            version = projection.resolve(self._store, artifact, name)
        except projection.NoVersion as error:
            reason = error.reason if name else f"{kind} {error.reason}"
            raise Refused(404, reason, "resource_not_found") from error
        if version.file_count == 0:
            raise Refused(404, f"{kind} '{artifact.name}' version has no files", "resource_not_found")
        return "/" + projection.archive_key(artifact, version.id)

    def _known(self, uuid: str) -> StoredArtifact:
        artifact = projection.by_uuid(self._store, self._role, uuid)
        if artifact is None:
            raise Refused(404, f"No such {self._role}: '{uuid}'", "resource_not_found")
        return artifact

    def _item(self, artifact: StoredArtifact, current: StoredVersion | None) -> dict[str, Any]:
        return {
            "id": artifact.uuid,
            "name": artifact.name,
            "currentVersionId": current.id if current else None,
            "size": current.size if current else 0,
            "fileCount": current.file_count if current else 0,
            "createdAt": iso(artifact.created_at_ns),
            "updatedAt": iso(artifact.updated_at_ns),
        }

    def _version(self, artifact: StoredArtifact, version: StoredVersion) -> dict[str, Any]:
        return {
            "id": version.id,
            f"{self._role}Id": artifact.uuid,
            "size": version.size,
            "fileCount": version.file_count,
            "message": version.message,
            "createdBy": version.created_by,
            "createdAt": iso(version.created_at_ns),
        }
