"""What stands in a directory, made current when somebody looks.

Rules of this file:
* ``DirectoryKind`` is matched here and nowhere else.
* One flight per listing, however many look. A transient failure never empties or shortens what is known: the old listing
  is served and its age shown; without an old listing the failure is the answer.
* A complete listing answers a look-up of an absent name without a request.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

import trio
from cachetools import LRUCache

from artifactfs import errors
from artifactfs.content.reader import ContentReader
from artifactfs.model.entry import (
    Archive,
    Artifact,
    DirRef,
    Empty,
    Entry,
    Role,
    SingleFile,
    Tree,
    TreeMember,
    Version,
)
from artifactfs.tree import names, versions
from artifactfs.tree.inodes import number
from artifactfs.tree.layout import CONTROL, Level, Path, Place, directory_identity, id_link, lay_out
from artifactfs.tree.nodes import (
    ArtifactDir,
    ControlDir,
    IdShelf,
    Kind,
    Listed,
    MountRoot,
    Node,
    VersionDir,
    VersionsDir,
)
from artifactfs.vfs.shelf import Shelf
from artifactfs.vfs.sources import Source

log = logging.getLogger(__name__)

# After a failed refresh the old listing is served this long before the next try, so that a command over many names does
# not wait for the failing service once per name.
RETRY_S = 5.0
# Trees of versions kept laid out; one of 2,000 files takes about 2 MB.
TREES = 64
# Listings asked for at once when an id is searched in every run of a workflow.
SEARCHERS = 8
# A page that never says it is the last would never end; 10,000 pages of 100 are a million artifacts.
MAX_PAGES = 10_000

TRANSIENT = (errors.Unavailable, errors.Unreachable, errors.TimedOut, errors.QuotaExceeded)


@dataclass(slots=True)
class Known:
    """What is known of one listing point."""

    levels: dict[Path, Level]
    fetched_at: float
    ttl_s: float
    complete: bool
    note: str | None
    retry_at: float = -math.inf
    failure: errors.ArtifactFSError | None = None

    def is_fresh(self, now: float) -> bool:
        """Tell whether it is still believed without asking."""
        return now < self.fetched_at + self.ttl_s or now < self.retry_at


@dataclass(slots=True)
class KnownVersions:
    """What is known of the versions of one artifact."""

    ordered: list[Version]
    complete: bool
    fetched_at: float
    current: str | None


Changed = Callable[[int, str], None]


@dataclass(slots=True)
class Directories:
    """All directories of one mount."""

    sources: Mapping[str, Source]
    content: ContentReader
    control: Callable[[Node], Level]
    show_ids: bool = False
    changed: Changed = lambda _parent, _name: None
    _known: dict[DirRef, Known] = field(default_factory=dict)
    _versions: dict[tuple[str, str], KnownVersions] = field(default_factory=dict)
    _trees: LRUCache[tuple[str, ...], dict[str, Level]] = field(default_factory=lambda: LRUCache(TREES))
    _shelves: dict[tuple[DirRef, Path], Shelf] = field(default_factory=dict)
    _numbers: dict[tuple[str, ...], int] = field(default_factory=dict)
    _newest: dict[tuple[str, str], Artifact] = field(default_factory=dict)

    # -- the two questions -----------------------------------------------------------------------------------

    async def children(self, node: Node) -> Level:
        """Return the current content of a directory."""
        match node.directory:
            case MountRoot():
                return self._mount_root(node)
            case Listed() as place:
                return await self._listed(node, place)
            case IdShelf() as place:
                return await self._shelf_level(node, place)
            case ArtifactDir(artifact):
                return await self._artifact_level(node, artifact)
            case VersionsDir(artifact):
                known = await self.versions_of(node.source, artifact)
                return versions.versions_level(node, known.ordered, complete=known.complete)
            case VersionDir() as place:
                return await self._version_level(node, place)
            case ControlDir():
                return self.control(node)
            case None:
                raise errors.NotADirectory(subject=node.name)
            case _:
                assert_never(node.directory)

    async def lookup(self, node: Node, name: str) -> Node | None:
        """Return what a name stands for in a directory, None if for nothing."""
        if isinstance(node.directory, IdShelf):
            artifact = await self.find(node.source, node.directory, name)
            return None if artifact is None else versions.shelf_node(artifact, name, node.mtime_ns, node.source)
        level = await self.children(node)
        found = level.children.get(name) or level.hidden.get(name)
        if found is not None:
            return found
        if isinstance(node.directory, Listed):
            return await self._unlisted(node, node.directory, level, name)
        if isinstance(node.directory, VersionsDir):
            return await self._version_by_id(node, node.directory.artifact, name)
        return None

    # -- listings --------------------------------------------------------------------------------------------

    def _mount_root(self, node: Node) -> Level:
        level = Level()
        given = names.assign((names.Claim(name, name, name, folder=True) for name in self.sources), reserved={CONTROL})
        for name, source in self.sources.items():
            level.children[given[name]] = self.source_node(source, given[name])
        level.hidden[CONTROL] = control_node(node)
        return level

    @staticmethod
    def source_node(source: Source, name: str) -> Node:
        """Return the top directory of a source."""
        folder = source.provider.root()
        identity = directory_identity(source.top, ())
        return Node(
            number(identity), identity, Kind.DIRECTORY, name,
            directory=Listed(source.top, (), folder.role, folder.accepts),
            mtime_ns=folder.mtime_ns or source.first_seen_ns, source=source.name,
        )  # fmt: skip

    async def _listed(self, node: Node, place: Listed) -> Level:
        self._numbers[directory_identity(place.ref, place.prefix)] = node.ino
        known = await self.listing(node, place)
        level = known.levels.get(place.prefix)
        if level is None:
            raise errors.NotFound(subject=node.name)
        if node.ino == 1 and CONTROL not in level.hidden:
            level.hidden[CONTROL] = control_node(node)
        return level

    async def listing(self, node: Node, place: Listed) -> Known:
        """Return what is known of a listing point, asked for again if it is no longer fresh."""
        known = self._known.get(place.ref)
        if known is not None and known.is_fresh(trio.current_time()):
            return known
        return await self.content.flights.run(("list", place.ref), lambda: self._refresh(node, place))

    async def _refresh(self, node: Node, place: Listed) -> Known:
        old = self._known.get(place.ref)
        try:
            fresh = await self._fetch(node, place)
        except TRANSIENT as error:
            if old is None:
                raise
            log.info("serving an older listing of %s: %s", place.ref.kind, error)
            old.failure, old.retry_at = error, trio.current_time() + RETRY_S
            return old
        self._known[place.ref] = fresh
        if old is not None:
            self._announce(place.ref, old, fresh)
        return fresh

    async def _fetch(self, node: Node, place: Listed) -> Known:
        source = self.sources[node.source]
        entries: list[Entry] = []
        cursor: str | None = None
        seen: set[str] = set()
        for _ in range(MAX_PAGES):
            page = await source.provider.list(place.ref, cursor)
            entries.extend(page.entries)
            cursor = page.next_cursor
            if cursor is None or cursor in seen:
                break
            seen.add(cursor)
        complete = page.complete and cursor is None
        # A folder without a listing point of its own is described by its ancestor's; what is below is laid out there.
        timeless = [
            entry.key
            for entry in entries
            if isinstance(entry, Artifact) and entry.updated_at_ns is None and entry.created_at_ns is None
        ]
        first_seen = self._first_seen(source, timeless)
        spot = Place(
            place.ref, self._point_role(place), place.accepts, place.workflow, node.mtime_ns or source.first_seen_ns,
            source.provider.is_artifact_id, self.show_ids,
            frozenset({CONTROL}) if node.ino == 1 or place.ref == source.top else frozenset(), first_seen,
        )  # fmt: skip
        levels = lay_out(entries, spot, complete=complete)
        self._shelve(place, levels)
        ttl = source.provider.listing_ttl_s if page.ttl_s is None else page.ttl_s
        return Known(levels, trio.current_time(), ttl, complete, page.note)

    @staticmethod
    def _point_role(place: Listed) -> Role:
        return place.role if not place.prefix else Role.PLAIN

    def _first_seen(self, source: Source, keys: list[str]) -> dict[str, int]:
        if not keys:
            return {}
        prefixed = {f"{source.fingerprint}/{key}": key for key in keys}
        found = self.content.facts.first_seen(prefixed)
        return {prefixed[whole]: ns for whole, ns in found.items()}

    def _announce(self, ref: DirRef, old: Known, fresh: Known) -> None:
        """Tell the kernel which names of a listing stand for something else now."""
        for prefix, level in old.levels.items():
            parent = self._numbers.get(directory_identity(ref, prefix))
            if parent is None:
                continue
            now = fresh.levels.get(prefix, Level()).children
            for name, node in level.children.items():
                other = now.get(name)
                if other is None or other.identity != node.identity:
                    self.changed(parent, name)

    async def _unlisted(self, node: Node, place: Listed, level: Level, name: str) -> Node | None:
        title = names.decode(name)
        if title is None:
            return None
        provider = self.sources[node.source].provider
        if place.role is Role.WORKFLOW and (provider.is_artifact_id(title) or name in self._shelf(place).by_name()):
            shelf = IdShelf(place.ref, place.prefix)
            if await self.find(node.source, shelf, name) is not None:
                return id_link(place.ref, place.prefix, title, node.mtime_ns)
        if place.prefix or level.complete:
            return None
        folder = await self.content.flights.run(
            ("resolve", place.ref, title), lambda: provider.resolve(place.ref, title)
        )
        if folder is None:
            return None
        spot = Place(
            place.ref, place.role, place.accepts, place.workflow, node.mtime_ns, provider.is_artifact_id
        )  # fmt: skip
        found = next(iter(lay_out([folder], spot, complete=True)[()].children.items()))[1]
        found.name = name
        return found

    # -- artifacts by id -------------------------------------------------------------------------------------

    def _shelf(self, place: Listed | IdShelf) -> Shelf:
        return self._shelves.setdefault((place.ref, place.prefix), Shelf())

    def _shelve(self, place: Listed, levels: Mapping[Path, Level]) -> None:
        """Remember the artifacts of a listing under the workflow they stand in."""
        for prefix, level in levels.items():
            where = place.workflow or ((place.ref, ()) if place.role is Role.WORKFLOW else None)
            if where is None and prefix:
                where = (place.ref, prefix[:1])
            for artifact in level.artifacts.values():
                if artifact.writable:
                    self._newest[(place.ref.source, artifact.key)] = artifact
            if where is not None:
                self._shelves.setdefault(where, Shelf()).add(place.ref, prefix, level.artifacts.values())

    async def find(self, source: str, place: IdShelf, name: str) -> Artifact | None:
        """Return an artifact by the name of its id in its workflow: known, asked for, or searched in every run."""
        shelf = self._shelf(place)
        await self._ensure_workflow(source, place)
        known = shelf.by_name().get(name)
        if known is not None:
            return known
        title = names.decode(name)
        provider = self.sources[source].provider
        if title is None or not provider.is_artifact_id(title):
            return None
        found = await self.content.flights.run(
            ("find", place.ref, place.prefix, title), lambda: provider.find(place.ref, title)
        )
        if found is not None:
            shelf.add(place.ref, ("found", title), [found])
            return found
        await self._expand(source, place, until=name)
        return shelf.by_name().get(name)

    async def _ensure_workflow(self, source: str, place: IdShelf) -> None:
        """Have the workflow's own listing, which says what its artifacts and runs are."""
        if place.ref not in self._known:
            node = self.source_node(self.sources[source], source)
            where = Listed(place.ref, (), Role.PLAIN if place.prefix else Role.WORKFLOW)
            await self.listing(node, where)

    async def _expand(self, source: str, place: IdShelf, until: str | None = None) -> None:
        """List every listing point below a workflow, a few at once, until a name turns up."""
        shelf = self._shelf(place)
        todo = self._points(place.ref, place.prefix)
        while todo:
            batch, todo = todo[:SEARCHERS], todo[SEARCHERS:]
            failures: list[errors.ArtifactFSError] = []
            async with trio.open_nursery() as nursery:
                for node in batch:
                    nursery.start_soon(self._expand_one, node, failures)
            if until is not None and until in shelf.by_name():
                return
            if failures:
                raise failures[0]
            for node in batch:
                if isinstance(node.directory, Listed):
                    todo.extend(self._points(node.directory.ref, ()))

    async def _expand_one(self, node: Node, failures: list[errors.ArtifactFSError]) -> None:
        try:
            await self.children(node)
        except errors.ArtifactFSError as error:
            failures.append(error)

    def _points(self, ref: DirRef, prefix: Path) -> list[Node]:
        """Return the folders at or below a prefix that have a listing of their own, newest first."""
        known = self._known.get(ref)
        if known is None:
            return []
        found = [
            node
            for at, level in known.levels.items()
            if at[: len(prefix)] == prefix
            for node in level.children.values()
            if isinstance(node.directory, Listed) and node.directory.ref != ref
        ]
        return sorted(found, key=lambda node: -node.mtime_ns)

    async def _shelf_level(self, node: Node, place: IdShelf) -> Level:
        await self._ensure_workflow(node.source, place)
        await self._expand(node.source, place)
        level = Level()
        for name, artifact in self._shelf(place).by_name().items():
            level.children[name] = versions.shelf_node(artifact, name, node.mtime_ns, node.source)
        return level

    # -- versions --------------------------------------------------------------------------------------------

    async def _artifact_level(self, node: Node, artifact: Artifact) -> Level:
        known = await self.versions_of(node.source, artifact)
        latest = versions.latest_name(known.ordered, artifact.current)
        return versions.artifact_level(node, self.sources[node.source].provider.service, latest)

    async def versions_of(self, source: str, artifact: Artifact) -> KnownVersions:
        """Return the versions of an artifact, oldest first."""
        current = artifact.current.id if artifact.current else None
        if artifact.only_version:
            return KnownVersions([artifact.current] if artifact.current else [], True, math.inf, current)
        key = (source, artifact.key)
        known = self._versions.get(key)
        ttl = self.sources[source].provider.listing_ttl_s
        if known and known.current == current and trio.current_time() < known.fetched_at + ttl:
            return known
        try:
            return await self.content.flights.run(("versions", key), lambda: self._fetch_versions(key, artifact))
        except TRANSIENT:
            if known is None:
                raise
            return known

    async def _fetch_versions(self, key: tuple[str, str], artifact: Artifact) -> KnownVersions:
        provider = self.sources[key[0]].provider
        found: list[Version] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await provider.versions(artifact, cursor)
            found.extend(page.versions)
            cursor = page.next_cursor
            if cursor is None:
                break
        current = artifact.current
        if current is not None and all(version.id != current.id for version in found):
            found.append(current)
        known = KnownVersions(
            versions.in_order(found), page.complete, trio.current_time(), current.id if current else None
        )
        self._versions[key] = known
        return known

    async def _version_by_id(self, node: Node, artifact: Artifact, name: str) -> Node | None:
        known = await self.versions_of(node.source, artifact)
        link = versions.by_prefix(node, known.ordered, name)
        if link is not None or known.complete:
            return link
        provider = self.sources[node.source].provider
        full = await self.content.flights.run(
            ("version", node.source, artifact.key, name), lambda: provider.find_version(artifact, name)
        )
        return None if full is None else versions.by_prefix(node, known.ordered, full)

    def newest(self, source: str, artifact: Artifact) -> Artifact:
        """Return the latest that is known of an artifact that this mount may change."""
        return self._newest.get((source, artifact.key), artifact)

    def apply_artifact(self, source: str, artifact: Artifact) -> None:
        """Take over what a save made of an artifact; its listings are looked at again."""
        self._newest[(source, artifact.key)] = artifact
        for ref in self._known:
            if ref.source == source:
                self.forget_listing(ref)

    async def _version_level(self, node: Node, place: VersionDir) -> Level:
        if place.present and node.writable:
            artifact = self.newest(node.source, place.artifact)
            place = VersionDir(artifact, artifact.current, place.path, present=True)
        version = place.version
        if version is None or isinstance(version.content, Empty):
            return Level()
        if isinstance(version.content, SingleFile):
            return versions.file_level(node, place)
        levels = await self._tree(node, place, version)
        level = levels.get(place.path)
        if level is None:
            raise errors.NotFound(subject=place.path)
        return level

    async def _tree(self, node: Node, place: VersionDir, version: Version) -> dict[str, Level]:
        # Both places of a version show the same files as different inodes: the present one may be edited.
        key = (node.source, version.id, str(place.present), *self._root_identity(node, place))
        levels = self._trees.get(key)
        if levels is None:
            members = await self._members(node.source, place.artifact, version)
            root = self._tree_root(node, place)
            levels = await trio.to_thread.run_sync(versions.tree_levels, root, members)
            self._trees[key] = levels
        return levels

    @staticmethod
    def _root_identity(node: Node, place: VersionDir) -> tuple[str, ...]:
        identity = node.identity
        return identity[: identity.index("/")] if place.path and "/" in identity else identity

    def _tree_root(self, node: Node, place: VersionDir) -> Node:
        """Return a node that stands for the root of the tree that ``node`` is in."""
        identity = self._root_identity(node, place)
        return Node(
            node.ino, identity, Kind.DIRECTORY, node.name,
            directory=VersionDir(place.artifact, place.version, "", place.present), mtime_ns=node.mtime_ns,
            immutable=node.immutable, artifact=node.artifact, version=node.version, writable=node.writable,
            source=node.source,
        )  # fmt: skip

    async def _members(self, source: str, artifact: Artifact, version: Version) -> list[TreeMember]:
        match version.content:
            case Archive(ref):
                index = await self.content.index(ref)
                return [self.content.tree_member(ref, index, member) for member in index.members]
            case Tree(locator):
                return list(await self.sources[source].provider.tree(artifact, locator))
            case _:
                return []

    # -- what others ask -------------------------------------------------------------------------------------

    def forget_listing(self, ref: DirRef) -> None:
        """Ask for a listing again at the next look."""
        known = self._known.get(ref)
        if known is not None:
            known.fetched_at, known.retry_at = -math.inf, -math.inf

    def age_s(self, ref: DirRef) -> float | None:
        """Return how old what is known of a listing is, in seconds."""
        known = self._known.get(ref)
        return None if known is None else trio.current_time() - known.fetched_at

    def report(self) -> list[dict[str, Any]]:
        """Return what ``status`` shows of the listings: age, completeness, the failure behind an old one."""
        now, wall = trio.current_time(), time.time()
        return [
            {
                "source": ref.source,
                "directory": "/".join((ref.kind, *ref.args)),
                "age_s": round(now - known.fetched_at, 1) if known.fetched_at > -math.inf else None,
                "complete": known.complete,
                "note": known.note,
                "stale_because": str(known.failure) if known.failure and now < known.retry_at else None,
                "at": wall,
            }
            for ref, known in self._known.items()
        ]


def control_node(root: Node) -> Node:
    """Return ``.artifactfs``, which resolves at the top of the mount."""
    identity = ("control",)
    return Node(
        number(identity), identity, Kind.DIRECTORY, CONTROL, directory=ControlDir(), mtime_ns=root.mtime_ns
    )  # fmt: skip
