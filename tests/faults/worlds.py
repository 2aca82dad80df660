"""Where a cell of the table happens: a store behind one service's dialect, and a line to it that can be disturbed.

Rules of this file: each world has a store, servers and ports of its own: what one cell does is seen by no other.
Worlds of one table row share a thread and a mount.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from artifactfs.store.catalog import Store
from artifactfs.store.rows import TreeFile, Upload
from tests.support.at_store import AtStore
from tests.support.faulty_proxy import NONE, Line, Trouble
from tests.support.lab import Lab
from tests.support.serving import ServedInThread

T = TypeVar("T")

WORKFLOW = "w"
SMALL = b"# Notes\n\nAs they were.\n"
CHANGED = b"# Notes\n\nAs they are now.\n"
SAVED = b"saved while the service was as it was\n"
# Larger than what is fetched ahead of its first bytes (1 MiB), so that who reads on asks again. ASCII, as Syntropic137
# keeps text; drawn at random, so that an archive of it is as large.
LARGE_BYTES = 3 << 20
LARGE = random.Random(1).randbytes(LARGE_BYTES * 3 // 4).hex().encode()[:LARGE_BYTES]
# 2026-02-03 08:00 UTC; entries are a second apart, as lists are sorted by time.
FIRST_NS = 1_770_105_600 * 10**9
STEP_NS = 10**9


@dataclass(frozen=True)
class Place:
    """What the table needs to know of a service.

    Attributes:
        service: its name.
        dialect: which of the server's dialects is mounted; ``paged`` is the one whose lists have pages.
        listed: the directory that is listed, below the source.
        entry: a name in it.
        small: a file, and ``large`` another, none of which is read while others are.
        parent: where a file is made, and ``new`` its name.
        refusal: how the service says no.
        page: entries a page.
        checks_bytes: what came can be told from what was sent.
        asks: how many questions each operation needs, as the service's provider says at the top of its file.
    """

    service: str
    dialect: str
    paged: str
    listed: str
    entry: str
    small: str
    large: str
    parent: str
    refusal: bytes
    page: int
    checks_bytes: bool
    has_links: bool
    asks: Mapping[str, int]
    new: str = "new.md"

    @property
    def _large_entry(self) -> str:
        return self.large.removeprefix(f"{self.listed}/").partition("/")[0]

    def put(self, store: Store, name: str, data: bytes, at: int) -> None:
        """Put something of this name into the list; the later ones come first there."""
        sha256, at_ns = store.objects.put(data, durable=False), FIRST_NS + at * STEP_NS
        if self.service == "vlmrun":
            md5, identifier = hashlib.md5(data).hexdigest(), f"00000000-0000-4000-8000-{at:012x}"
            store.put_upload(Upload(identifier, name, "assistants", len(data), sha256, md5, at_ns))
            return
        (workflow,) = store.workflows()
        kind = "tree" if self.service == "vm0" else "file"
        made = store.add_artifact(workflow.id, name, kind, created_at_ns=at_ns)
        if kind == "tree":
            store.save_tree(made.id, [TreeFile("notes.md", sha256, len(data))], created_at_ns=at_ns)
        else:
            store.save_file(made.id, sha256, len(data), created_at_ns=at_ns)

    def fill(self, store: Store, entries: int) -> None:
        """Make the small and the large one, and so many others."""
        store.add_workflow(WORKFLOW, workflow_id="w-1", created_at_ns=FIRST_NS)
        self.put(store, self.entry, SMALL, 0)
        self.put(store, self._large_entry, LARGE, 1)
        for number in range(entries):
            self.put(store, f"e{number:04}", b"x", 2 + number)

    def names(self, store: Store) -> set[str]:
        """Return what the list has."""
        if self.service == "vlmrun":
            return {upload.filename for upload in store.uploads()}
        return {artifact.name for artifact in store.artifacts()}

    def change(self, store: Store) -> None:
        """Give the small and the large one other content, as the service's users would."""
        for name, data in (
            (self.entry, CHANGED),
            (self.large.removeprefix(f"{self.listed}/").partition("/")[0], CHANGED),
        ):
            sha256 = store.objects.put(data, durable=False)
            if self.service == "vlmrun":
                (old,) = [upload for upload in store.uploads() if upload.filename == name]
                store.put_upload(
                    Upload(
                        "1" + old.id[1:], name, old.purpose, len(CHANGED), sha256, hashlib.md5(CHANGED).hexdigest(),
                        old.created_at_ns + STEP_NS // 2,
                    )
                )  # fmt: skip
                store.delete_upload(old.id)
                continue
            (artifact,) = [one for one in store.artifacts() if one.name == name]
            if artifact.kind == "tree":
                store.save_tree(artifact.id, [TreeFile("notes.md", sha256, len(CHANGED))])
            else:
                store.save_file(artifact.id, sha256, len(CHANGED))

    def remove_newest(self, store: Store) -> None:
        """Take the entry out that stands first in the list."""
        if self.service == "vlmrun":
            store.delete_upload(store.uploads()[0].id)
            return
        newest = max(store.artifacts(), key=lambda artifact: artifact.created_at_ns)
        store.delete_artifact(newest.id)

    def held(self, store: Store) -> list[bytes | None]:
        """Return what the service has under the name of the new file: each artifact of it."""
        at = AtStore(store)
        path = f"{self.entry}/{self.new}" if self.service == "vm0" else self.new
        files = at.uploads() if self.service == "vlmrun" else at.files(WORKFLOW)
        return [store.objects.read(file.now) for file in files if file.path == path and file.now]


def _envelope(message: str) -> bytes:
    return b'{"error": {"code": "NOT_FOUND", "message": "%s"}}' % message.encode()


PLACES = {
    place.service: place
    for place in (
        Place(
            "vm0", "vm0", "vm0", "artifacts", "site", "artifacts/site/notes.md", "artifacts/big/notes.md",
            "artifacts/site", _envelope("the laboratory says no"), 100, checks_bytes=True, has_links=True,
            asks={"list": 1, "stat": 1, "open": 2, "first read": 2, "later read": 2, "write": 1},
        ),
        Place(
            "syntropic137", "syntropic137", "syntropic137-c", WORKFLOW, "site.md", f"{WORKFLOW}/site.md",
            f"{WORKFLOW}/big.md", WORKFLOW, b'{"detail": "the laboratory says no"}', 200, checks_bytes=False,
            has_links=False, asks={"list": 2, "stat": 3, "open": 1, "first read": 1, "later read": 0},
        ),
        Place(
            "vlmrun", "vlmrun", "vlmrun", "files", "site.md", "files/site.md", "files/big.bin", "files",
            b'{"detail": "the laboratory says no"}', 1000, checks_bytes=False, has_links=True,
            asks={"list": 1, "stat": 1, "open": 0, "first read": 2, "later read": 2},
        ),
    )
}  # fmt: skip


class ProxiedLab(Lab):
    """A laboratory behind lines; ``main`` is the one to the service, ``storage`` that to where its links lead."""

    def __init__(self, store: Store, name: str) -> None:
        """Prepare to serve."""
        super().__init__(store)
        self.asked: list[str] = []
        """The requests that came, to the service and its storage, in their order."""
        self.lines = {origin: Line(f"{name} {origin}", self.asked) for origin in ("main", "storage")}

    async def way(self, origin: str, url: str, nursery: trio.Nursery) -> str:
        """Lead through a line."""
        return (await self.lines[origin].open(nursery, url)).url


@dataclass
class World:
    """A service, the way to it, and the thread that both live in."""

    place: Place
    lab: ProxiedLab
    is_paged: bool
    thread: ServedInThread | None = None
    before: set[str] = field(default_factory=set)

    @property
    def store(self) -> Store:
        """Return what the service serves."""
        return self.lab.store

    @property
    def base(self) -> str:
        """Return the address to mount."""
        return self.lab.bases()[self.place.paged if self.is_paged else self.place.dialect]

    @property
    def seen(self) -> list[str]:
        """Return the requests that came, to the service and its storage, in their order."""
        return self.lab.asked

    def _there(self, work: Callable[[], T]) -> T:
        """Do something in the thread of the lines."""
        assert self.thread is not None
        assert self.thread._token is not None
        return trio.from_thread.run_sync(work, trio_token=self.thread._token)

    # -- what faults do ----------------------------------------------------------------------------------------

    def disturb(self, trouble: Trouble) -> None:
        """Have trouble on the line to where bytes come from, and on that to the service."""
        for line in self.lab.lines.values():
            self._there(partial(line.disturb, trouble))

    def leave(self, *, silently: bool) -> None:
        """Have nobody there."""
        assert self.thread is not None
        for line in self.lab.lines.values():
            trio.from_thread.run(partial(line.leave, silently=silently), trio_token=self.thread._token)

    def heal(self) -> None:
        """Have everything well again."""
        self.lab.heal()
        assert self.thread is not None
        for line in self.lab.lines.values():
            trio.from_thread.run(line.heal, trio_token=self.thread._token)

    def grow(self) -> None:
        """Make an entry when the first page of a list has been sent."""
        self.lab.fault("limit|page|skip", times=1, then=partial(self.place.put, self.store, "late.md", b"x", 5000))
        self.disturb(NONE)

    def shrink(self) -> None:
        """Take an entry out when the first page of a list has been sent."""
        self.lab.fault("limit|page|skip", times=1, then=partial(self.place.remove_newest, self.store))
        self.disturb(NONE)

    def change(self) -> None:
        """Give other content to what is listed, and to what is open."""
        self.place.change(self.store)
        self.disturb(NONE)


class Laboratories(ServedInThread):
    """Many laboratories in one thread."""

    def __init__(self, worlds: Iterable[World]) -> None:
        """Prepare to serve all of them."""
        super().__init__()
        self.worlds = list(worlds)
        for world in self.worlds:
            world.thread = self

    async def begin(self, nursery: trio.Nursery) -> str:
        """Serve them."""
        for world in self.worlds:
            await world.lab.begin(nursery)
        return ""


def template(root: Path, place: Place, entries: int) -> Path:
    """Make a store once, to be copied for each world."""
    path = root / f"{place.service}-{entries}"
    if not path.exists():
        store = Store(path)
        place.fill(store, entries)
        store.close()
    return path


def make_world(root: Path, templates: Path, place: Place, name: str, *, is_paged: bool) -> World:
    """Return a world over a copy of its service's store."""
    made = template(templates, place, place.page + 20 if is_paged else 5)
    # Objects never change: they are linked, what is not one is copied.
    shutil.copytree(made, root / name, copy_function=_link_objects)
    return World(place, ProxiedLab(Store(root / name), name), is_paged)


def _link_objects(source: str, target: str) -> None:
    if "objects" in Path(source).parts:
        Path(target).hardlink_to(source)
    else:
        shutil.copy2(source, target)
