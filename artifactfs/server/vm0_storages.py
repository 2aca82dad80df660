"""VM0's older API, ``/api/storages``: what its command line reads and writes with.

Rules of this file: addressing is by name and type, camelCase always (service source, December 2025 to July
2026). An upload goes to the storage origin by a signed link and counts for nothing until it is committed; a
commit checks every byte against what was declared, which the upstream service does not. A commit of known
content only moves the present.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import trio
from starlette.routing import BaseRoute, Route

from artifactfs import errors
from artifactfs.server import vm0_projection as projection
from artifactfs.server.storage import staged_path, sweep_staged
from artifactfs.server.vm0_archives import keep_uploaded
from artifactfs.server.vm0_push import Push, read_push, version_id
from artifactfs.server.vm0_unpack import unpack
from artifactfs.server.vm0_wire import Endpoint, Refused, iso, read_json, storages_error

if TYPE_CHECKING:
    from starlette.requests import Request

    from artifactfs.server.context import Context
    from artifactfs.store.catalog import Store
    from artifactfs.store.rows import StoredArtifact, StoredVersion, TreeFile

ROLES = frozenset({"artifact", "volume"})
# Artifacts that come in by this API land in a workflow of this name.
WORKFLOW = "vm0"


def routes(store: Store, context: Context) -> list[BaseRoute]:
    """Return the routes below the base URL."""
    endpoint = Endpoint(
        context,
        storages_error,
        unauthorized=Refused(401, "Not authenticated", "UNAUTHORIZED"),
        failed=Refused(500, "Internal server error", "INTERNAL_ERROR"),
    )
    views = Views(store, context)
    return [
        Route("/api/storages/list", endpoint(views.index)),
        Route("/api/storages/download", endpoint(views.download)),
        Route("/api/storages/prepare", endpoint(views.prepare), methods=["POST"]),
        Route("/api/storages/commit", endpoint(views.commit), methods=["POST"]),
    ]


def _role(request: Request) -> str:
    role = request.query_params.get("type", "")
    if role not in ROLES:
        raise Refused(400, "type must be 'volume' or 'artifact'", "BAD_REQUEST")
    return role


class Views:
    """The four endpoints."""

    def __init__(self, store: Store, context: Context) -> None:
        """Serve a store."""
        self._store = store
        self._context = context

    # -- reading ---------------------------------------------------------------------------------------------

    async def index(self, request: Request) -> object:
        """List all of one type, the latest change first; no pages."""
        return await trio.to_thread.run_sync(self._index, _role(request))

    def _index(self, role: str) -> object:
        found = sorted(projection.trees(self._store, role), key=lambda a: -a.updated_at_ns)
        return [self._item(artifact) for artifact in found]

    def _item(self, artifact: StoredArtifact) -> dict[str, Any]:
        current = projection.head(self._store, artifact)
        return {
            "name": artifact.name,
            "size": current.size if current else 0,
            "fileCount": current.file_count if current else 0,
            "updatedAt": iso(artifact.updated_at_ns),
        }

    async def download(self, request: Request) -> object:
        """Tell where the archive of a version is."""
        name, version = request.query_params.get("name", ""), request.query_params.get("version")
        found = await trio.to_thread.run_sync(partial(self._download, _role(request), name, version))
        if isinstance(found, dict):
            return found
        artifact, asked = found
        path = "/" + projection.archive_key(artifact, asked.id)
        url = self._context.link(path, seen_host=request.url.hostname)
        return {"url": url, "versionId": asked.id, "fileCount": asked.file_count, "size": asked.size}

    def _download(
        self, role: str, name: str, version: str | None
    ) -> tuple[StoredArtifact, StoredVersion] | dict[str, Any]:
        artifact = projection.by_name(self._store, role, name)
        if artifact is None:
            raise Refused(404, f"Storage '{name}' not found", "NOT_FOUND")
        try:
            found = projection.resolve(self._store, artifact, version)
        except projection.NoVersion as error:
            if error.is_malformed:
                raise Refused(400, error.reason, "BAD_REQUEST") from error
            reason = error.reason if version else f"Storage {error.reason}"
            raise Refused(404, reason, "NOT_FOUND") from error
        if found.file_count == 0:
            return {"empty": True, "versionId": found.id, "fileCount": 0, "size": 0}
        return artifact, found

    # -- writing ---------------------------------------------------------------------------------------------

    async def prepare(self, request: Request) -> object:
        """Name the version that the files make; hand out links to upload it unless its content is here."""
        push = read_push(await read_json(request))
        artifact, wanted, is_here = await trio.to_thread.run_sync(self._prepare, push)
        if is_here:
            return {"versionId": wanted, "existing": True}
        uploads = {}
        for what, file in (("archive", "archive.tar.gz"), ("manifest", "manifest.json")):
            key = projection.archive_key(artifact, wanted, file)
            link = self._context.link("/" + key, method="PUT", seen_host=request.url.hostname)
            uploads[what] = {"key": key, "presignedUrl": link}
        return {"versionId": wanted, "existing": False, "uploads": uploads}

    def _prepare(self, push: Push) -> tuple[StoredArtifact, str, bool]:
        sweep_staged(self._store)
        artifact = projection.by_name(self._store, push.role, push.name) or self._made(push)
        wanted = version_id(self._store, artifact, push)
        known = self._version(artifact, wanted)
        return artifact, wanted, known is not None and self._is_whole(known) and not push.force

    def _made(self, push: Push) -> StoredArtifact:
        with self._store.transaction():
            again = projection.by_name(self._store, push.role, push.name)
            if again is not None:
                return again
            found = [w for w in self._store.workflows() if w.name == WORKFLOW]
            home = found[0] if found else self._store.add_workflow(WORKFLOW)
            return self._store.add_artifact(home.id, push.name, "tree", role=push.role)

    def _version(self, artifact: StoredArtifact, wanted: str) -> StoredVersion | None:
        return next((v for v in projection.distinct(self._store, artifact) if v.id == wanted), None)

    def _is_whole(self, version: StoredVersion) -> bool:
        files = self._store.tree(version.artifact_id, version.seq)
        return all(self._store.objects.has(file.sha256) for file in files if file.sha256)

    async def commit(self, request: Request) -> object:
        """Make the uploaded version the present one."""
        push = read_push(await read_json(request))
        return await trio.to_thread.run_sync(self._commit, push)

    def _commit(self, push: Push) -> object:
        artifact = projection.by_name(self._store, push.role, push.name)
        if artifact is None:
            raise Refused(404, f"Storage '{push.name}' not found", "NOT_FOUND")
        wanted = version_id(self._store, artifact, push)
        if wanted != push.version_id:
            raise Refused(400, "Version ID mismatch - files may have changed", "BAD_REQUEST")
        known = self._version(artifact, wanted)
        is_known = known is not None
        if known is None:
            files = self._uploaded(artifact, push)
            who = "agent" if push.run_id else "user"
            known = self._store.save_tree(artifact.id, files, message=push.message, created_by=who)
        elif not self._is_whole(known):
            self._restore(artifact, push)
        if artifact.current != known.seq:
            self._store.set_current(artifact.id, known.seq)
        self._settle(artifact, wanted)
        answer = {
            "success": True, "versionId": known.id, "storageName": push.name,
            "size": known.size, "fileCount": known.file_count,
        }  # fmt: skip
        return answer | ({"deduplicated": True} if is_known else {})

    def _settle(self, artifact: StoredArtifact, wanted: str) -> None:
        """Put away what was uploaded of a version that is committed now."""
        archive, manifest = (
            staged_path(self._store, "/" + projection.archive_key(artifact, wanted, name))
            for name in ("archive.tar.gz", "manifest.json")
        )
        manifest.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            keep_uploaded(self._store, wanted, archive)

    def _restore(self, artifact: StoredArtifact, push: Push) -> None:
        """Take the objects of a known version from a fresh upload, as they are gone here."""
        try:
            self._uploaded(artifact, push)
        except Refused as refused:
            message = "The files of this version are missing from storage. Please prepare and upload again."
            raise Refused(409, message, "S3_FILES_MISSING") from refused

    def _uploaded(self, artifact: StoredArtifact, push: Push) -> list[TreeFile]:
        """Return the tree that was uploaded, its objects stored."""
        base = partial(projection.archive_key, artifact, push.version_id)
        if not staged_path(self._store, "/" + base("manifest.json")).exists():
            raise Refused(400, "Manifest not uploaded. Please upload it before committing.", "BAD_REQUEST")
        if not push.files:
            return []
        try:
            with staged_path(self._store, "/" + base("archive.tar.gz")).open("rb") as archive:
                return unpack(archive, push.files, self._store.objects)
        except FileNotFoundError as error:
            message = "Archive not uploaded. Please upload it before committing."
            raise Refused(400, message, "BAD_REQUEST") from error
        except errors.CorruptContent as error:
            raise Refused(400, f"The uploaded archive is not accepted: {error}", "BAD_REQUEST") from error
