"""A store with trees, served whole; and what tests of VM0's provider need around it."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from artifactfs.model.content import ByteRange, ContentRef
from artifactfs.model.entry import Archive, Artifact, DirRef, Version
from artifactfs.providers.http import HttpClient
from artifactfs.providers.vm0 import Vm0Provider
from artifactfs.server import app
from artifactfs.store.catalog import Store
from artifactfs.store.rows import StoredArtifact, TreeFile

ARTIFACTS = DirRef("work", "role", ("artifact",))
VOLUMES = DirRef("work", "role", ("volume",))
TOKEN = "vm0_live_" + "0" * 64
# 2026-02-03 08:00 UTC, and a step between artifacts: times that rise are what listings are sorted by.
FIRST_NS = 1_770_105_600 * 10**9
STEP_NS = 10**9


class Kept(dict[str, Any]):
    """A provider's memory that lasts as long as the test."""

    def put(self, key: str, value: Any) -> None:
        self[key] = value

    def items(self, prefix: str = "") -> Any:
        return [(key, value) for key, value in super().items() if key.startswith(prefix)]


def file(store: Store, path: str, data: bytes, *, executable: bool = False, mtime_ns: int | None = None) -> TreeFile:
    """Put bytes into the store; return the entry that names them."""
    return TreeFile(path, store.objects.put(data), len(data), executable, mtime_ns)


def tree(store: Store, name: str, *versions: dict[str, bytes], role: str = "artifact", at: int = 0) -> StoredArtifact:
    """Make an artifact with these versions, oldest first."""
    workflow = next(iter(store.workflows()), None) or store.add_workflow("research")
    made_ns = FIRST_NS + at * STEP_NS
    made = store.add_artifact(workflow.id, name, "tree", role=role, created_at_ns=made_ns)
    for count, content in enumerate(versions, 1):
        files = [file(store, path, data) for path, data in content.items()]
        store.save_tree(made.id, files, created_at_ns=made_ns + count * STEP_NS // 100)
    return made


@asynccontextmanager
async def serving_store(store: Store, *, token: str | None = None) -> AsyncIterator[app.Serving]:
    """Serve a store on two ports of loopback while the block runs."""
    async with trio.open_nursery() as nursery:
        yield await nursery.start(partial(app.serve, store, token=token))
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def provider_at(url: str, *, token: str | None = TOKEN, **options: Any) -> AsyncIterator[Vm0Provider]:
    """Make a provider that speaks to ``url``."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    memory = options.pop("memory", None)
    made = Vm0Provider(
        "work", HttpClient("work", url, headers=headers, **options), Kept() if memory is None else memory
    )
    try:
        yield made
    finally:
        await made.aclose()


async def read(provider: Vm0Provider, version: Version | None, offset: int = 0, length: int | None = None) -> bytes:
    """Return the bytes of a version's archive."""
    async with provider.open(archive_of(version), ByteRange(offset, length)) as stream:
        assert stream.offset in {0, offset}
        return b"".join([chunk async for chunk in stream.chunks])


def archive_of(version: Version | None) -> ContentRef:
    assert version is not None
    assert isinstance(version.content, Archive)
    return version.content.ref


async def only(provider: Vm0Provider, ref: DirRef = ARTIFACTS) -> Artifact:
    """Return the one artifact there is."""
    listing = await provider.list(ref, None)
    (artifact,) = listing.entries
    assert isinstance(artifact, Artifact)
    return artifact


def members(data: bytes) -> dict[str, bytes]:
    """Return the files of a tar.gz."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                found[member.name] = content.read()
    return found


def packed(files: dict[str, bytes]) -> bytes:
    """Return a tar.gz with these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def new_store(path: Path) -> Store:
    return Store(path / "store")


def row(number: int, **facts: Any) -> dict[str, Any]:
    """Return a row of /v1/artifacts as the service writes it."""
    return {
        "id": f"{number:08x}-5d3f-4f0a-9a77-2f6f1c7a1d10",
        "name": f"artifact-{number}",
        "currentVersionId": f"{number:064x}",
        "size": 12,
        "fileCount": 1,
        "createdAt": "2026-02-03T08:00:00.000Z",
        "updatedAt": "2026-02-10T08:00:00.000Z",
    } | facts


def page(rows: list[Any], cursor: str | None = None) -> dict[str, Any]:
    return {"data": rows, "pagination": {"hasMore": cursor is not None, "nextCursor": cursor}}


def not_found(message: str = "No such artifact") -> Response:
    error = {"type": "not_found_error", "code": "resource_not_found", "message": message}
    return JSONResponse({"error": error}, 404)


class Service:
    """A server made for one misbehaviour: answers by path, and what it was asked."""

    def __init__(self, **answers: Any) -> None:
        """Take answers: ``index``, ``detail``, ``versions``, ``download``, ``storages``, ``archive``."""
        self.answers = answers
        self.requests: list[Request] = []
        paths = {
            "/v1/artifacts": "index",
            "/v1/artifacts/{id:path}/versions": "versions",
            "/v1/artifacts/{id:path}/download": "download",
            "/v1/artifacts/{id:path}": "detail",
            "/api/storages/list": "storages",
            "/api/storages/download": "storage",
            "/bucket/{key:path}": "archive",
        }
        self.app = Starlette(
            routes=[Route(path, self._endpoint(name)) for path, name in paths.items() if name in answers]
        )

    def _endpoint(self, name: str) -> Any:
        async def endpoint(request: Request) -> Response:
            self.requests.append(request)
            answer = self.answers[name]
            if callable(answer) and not isinstance(answer, Response):
                answer = answer(request)
            return answer if isinstance(answer, Response) else JSONResponse(answer)

        return endpoint

    def paths(self) -> list[str]:
        return [request.url.path for request in self.requests]


def to_archive(request: Request) -> Response:
    """Lead to ``/bucket/<version>/archive.tar.gz`` on the same server."""
    version = request.query_params["versionId"]
    return RedirectResponse(f"{request.base_url}bucket/{version}/archive.tar.gz?X-Amz-Signature=1", 302)
