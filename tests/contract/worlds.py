"""One store, known to the byte, as each of the four providers must show it."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from artifactfs import config
from artifactfs.model.content import ByteRange, ContentRef, Inline, Pointer
from artifactfs.model.entry import Archive, Artifact, DirRef, Folder, Note, SingleFile, Tree, Version
from artifactfs.observe import Observer
from artifactfs.providers import registry
from artifactfs.providers.base import ContentStream, Provider
from artifactfs.store.catalog import Store
from artifactfs.store.rows import Run, TreeFile, Upload
from tests.support.lab import TOKEN, Lab

# 2026-07-01T10:00:00Z; each thing is made a minute after the one before.
BEGAN_NS = 1_782_900_000 * 10**9
MINUTE_NS = 60 * 10**9
# For what never succeeds: the shorter, the sooner the test is over.
SHORT_S = 0.7

WORKFLOW = "5d3f0000-0000-4000-8000-000000000001"
WORKFLOW_TITLE = "Research / \u7814\u7a76"
RUN, RUN_UUID = "exec-00000000000a", "0b6f6a52-93f8-4c11-8a57-2f6f0f6a1c11"
UPLOAD = "bea05e4d-1c47-4b0a-9a3b-6f6ac1d0a001"
# Well-formed for every service, and nobody's.
NOBODY = ["00000000-0000-4000-8000-00000000dead", "art_dead00", "img_dead00"]

# Hostile, and to be handed on as they are: the tree makes names of them.
HOSTILE = "Q3/Q4 \u202e fdp.md "
LONG = "".join(f"{number:07d}\n" for number in range(50_000)).encode()
TEXT = "caf\u00e9 \u7814\u7a76\n".encode()
TREE = [{"a.txt": b"one\n", "deep/b.txt": TEXT}, {"a.txt": b"two\n", "deep/b.txt": TEXT, "c.bin": bytes(range(256))}]


def fill(store: Store) -> None:
    """Put in what the worlds below expect."""
    store.add_workflow(WORKFLOW_TITLE, workflow_id=WORKFLOW, created_at_ns=BEGAN_NS)
    store.add_run(Run(RUN, RUN_UUID, WORKFLOW, "completed", BEGAN_NS, BEGAN_NS + 9 * MINUTE_NS, {"said": "done"}))
    _file(store, 1, "report.md", TEXT, run=True)
    _file(store, 2, "data/long.txt", LONG, run=True)
    _file(store, 3, HOSTILE, TEXT)
    for number, role in ((4, "artifact"), (5, "volume")):
        _tree(store, number, f"{role} / {HOSTILE}", role)
    _upload(store)


def _file(store: Store, number: int, name: str, data: bytes, *, run: bool = False) -> None:
    at = BEGAN_NS + number * MINUTE_NS
    made = store.add_artifact(
        WORKFLOW, name, "file", artifact_id=f"art_00000{number}", uuid=uuid(number), run_id=RUN if run else None,
        phase="draft" if run else "", created_at_ns=at,
    )  # fmt: skip
    store.save_file(made.id, store.objects.put(data), len(data), created_by="agent", created_at_ns=at)


def _tree(store: Store, number: int, name: str, role: str) -> None:
    at = BEGAN_NS + number * MINUTE_NS
    made = store.add_artifact(
        WORKFLOW, name, "tree", artifact_id=f"art_00000{number}", uuid=uuid(number), role=role, created_at_ns=at
    )
    for version, files in enumerate(TREE):
        rows = [TreeFile(path, store.objects.put(data), len(data)) for path, data in files.items()]
        store.save_tree(made.id, rows, created_at_ns=at + version * MINUTE_NS // 10)


def _upload(store: Store) -> None:
    digest = hashlib.md5(TEXT).hexdigest()
    store.put_upload(Upload(UPLOAD, HOSTILE, "assistants", len(TEXT), store.objects.put(TEXT), digest, BEGAN_NS, True))


def uuid(number: int) -> str:
    return f"5d3f0000-0000-4000-8000-0000000000f{number}"


@dataclass(frozen=True)
class World:
    """One source on the store.

    Attributes:
        service: whose dialect it speaks.
        base: which of the server's bases; empty for the one that needs no server.
        files: what must be read, by raw path from the source's top: bytes, or the members of an archive.
        lists: a path of the server that a listing needs, and ``content`` one that reading needs (regular expressions).
    """

    service: str
    base: str
    files: Mapping[tuple[str, ...], bytes | dict[str, bytes]]
    lists: str = "^$"
    content: str = "^$"
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_remote(self) -> bool:
        return bool(self.base)


_RUN_FILES = {("draft", "report.md"): TEXT, ("draft", "data", "long.txt"): LONG}
_TREES = {role: (f"{role} / {HOSTILE}",) for role in ("artifact", "volume")}
_LOCAL: dict[tuple[str, ...], Any] = {
    **{(WORKFLOW_TITLE, RUN, *path): data for path, data in _RUN_FILES.items()},
    (WORKFLOW_TITLE, HOSTILE): TEXT,
    **{(WORKFLOW_TITLE, *path): TREE[-1] for path in _TREES.values()},
}
_VM0: dict[tuple[str, ...], Any] = {(f"{role}s", *path): TREE[-1] for role, path in _TREES.items()}
_SYN: dict[tuple[str, ...], Any] = {path: data for path, data in _LOCAL.items() if isinstance(data, bytes)}
_VLM: dict[tuple[str, ...], Any] = {
    **{(WORKFLOW_TITLE, RUN_UUID, *path): data for path, data in _RUN_FILES.items()},
    ("files", HOSTILE): TEXT,
}
WORLDS = {
    "local": World("local", "", _LOCAL),
    "vm0": World("vm0", "vm0", _VM0, "/v1/artifacts[?]", "/artifact/"),
    "vm0-snake": World("vm0", "vm0-snake", _VM0, "/v1/artifacts[?]", "/artifact/"),
    "syntropic137": World("syntropic137", "syntropic137", _SYN, "/artifacts[?]", "/content"),
    "syntropic137-a": World("syntropic137", "syntropic137-a", _SYN, "/artifacts[?]", "/content"),
    "syntropic137-c": World("syntropic137", "syntropic137-c", _SYN, "/artifacts[?]", "/content"),
    "vlmrun": World("vlmrun", "vlmrun", _VLM, "/artifacts/list", "/v1/artifacts[?]"),
}
REMOTE = [name for name, world in WORLDS.items() if world.is_remote]
SERVICES = ["vm0", "syntropic137", "vlmrun"]


class Kept(dict[str, Any]):
    """A provider's memory that lasts as long as the test."""

    def put(self, key: str, value: Any) -> None:
        self[key] = value

    def items(self, prefix: str = "") -> Any:
        return [(key, value) for key, value in super().items() if key.startswith(prefix)]


@dataclass
class Trial:
    """A provider at its world's store, and what came by."""

    world: World
    lab: Lab
    provider: Provider
    observer: Observer

    async def pages(self, ref: DirRef) -> list[Folder | Artifact | Note]:
        """Return a directory, all of its pages."""
        found: list[Folder | Artifact | Note] = []
        cursor: str | None = None
        while True:
            page = await self.provider.list(ref, cursor)
            found.extend(page.entries)
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def walk(self) -> tuple[dict[tuple[str, ...], Artifact], dict[tuple[str, ...], Folder]]:
        """Return all artifacts and folders by raw path from the top, as the tree would find them."""
        top = self.provider.root()
        assert top.ref is not None
        artifacts: dict[tuple[str, ...], Artifact] = {}
        folders: dict[tuple[str, ...], Folder] = {(): top}
        todo: list[tuple[tuple[str, ...], DirRef]] = [((), top.ref)]
        for path, ref in todo:
            for entry in await self.pages(ref):
                place = (*path, *entry.path)
                if isinstance(entry, Artifact):
                    assert place not in artifacts
                    artifacts[place] = entry
                elif isinstance(entry, Folder):
                    folders[place] = entry
                    todo += [(place, entry.ref)] if entry.ref else []
        return artifacts, folders

    async def read(self, artifact: Artifact, version: Version | None = None) -> bytes | dict[str, bytes]:
        """Return all bytes of a version: a file's, or a tree's by path."""
        version = version or artifact.current
        assert version is not None
        match version.content:
            case SingleFile(content):
                return await self.bytes_of(content)
            case Archive(ref):
                return members(await self.bytes_of(ref))
            case Tree(locator):
                rows = await self.provider.tree(artifact, locator)
                return {row.path: await self.bytes_of(row.content) for row in rows if row.kind == "file"}
            case _:
                return {}

    async def bytes_of(self, content: Any, offset: int = 0, length: int | None = None) -> bytes:
        """Return a range, whether the server honoured it or sent the whole."""
        if isinstance(content, Inline):
            data = content.data
            return data[offset:] if length is None else data[offset : offset + length]
        stream, data = await self.opened(content, offset, length)
        assert stream.offset == (offset if stream.ranged else 0)
        data = data if stream.ranged else data[offset:]
        return data if length is None else data[:length]

    async def opened(
        self, content: ContentRef | Pointer, offset: int = 0, length: int | None = None
    ) -> tuple[ContentStream, bytes]:
        """Return an answer and all that it sent."""
        async with self.provider.open(content, ByteRange(offset, length)) as stream:
            return stream, b"".join([chunk async for chunk in stream.chunks])


def members(archive: bytes) -> dict[str, bytes]:
    """Return the files of a tar.gz."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                found[member.name.removeprefix("./")] = content.read()
    return found


def single(artifact: Artifact) -> ContentRef | Pointer:
    """Return what opens an artifact's first bytes: a file's content, an archive, or nothing else."""
    assert artifact.current is not None
    content = artifact.current.content
    if isinstance(content, Archive):
        return content.ref
    assert isinstance(content, SingleFile)
    assert isinstance(content.content, ContentRef | Pointer)
    return content.content


def source(world: World, lab: Lab, store: Path, **more: Any) -> config.Source:
    """Return what configuration would make of this world."""
    if not world.is_remote:
        return config.Source(name="work", service="local", path=store, **more)
    url = lab.bases()[world.base]
    authorization = SecretStr(f"Bearer {TOKEN}")
    service: Any = world.service
    return config.Source(name="work", service=service, url=url, authorization=authorization, **more)


@asynccontextmanager
async def trial(name: str, lab: Lab, store: Path, deadline_s: float = 30.0, **more: Any) -> AsyncIterator[Trial]:
    """Make the provider as a mount makes it, through the registry."""
    world, observer = WORLDS[name], Observer()
    provider = registry.create(source(world, lab, store, **more), Kept(), observer, deadline_s)
    try:
        yield Trial(world, lab, provider, observer)
    finally:
        await provider.aclose()
