"""Artifacts by their ids: ``/<workflow>/<artifact id>`` resolves for every artifact of every source.

Rules of this file: what is known answers first, then the service, then a search through every run of the workflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import trio

from artifactfs import errors
from artifactfs.concurrency import in_slices
from artifactfs.model.entry import Artifact, DirRef, Role
from artifactfs.tree import names, versions
from artifactfs.tree.layout import Level, Path
from artifactfs.tree.nodes import IdShelf, Listed, Node
from artifactfs.vfs.history import History
from artifactfs.vfs.known import Known
from artifactfs.vfs.listings import TRANSIENT, Listings
from artifactfs.vfs.shelf import Shelf
from artifactfs.vfs.sources import Source, source_node

# Listings asked for at once when an id is searched in every run of a workflow.
SEARCHERS = 8


def _workflow_of(place: Listed, prefix: Path) -> tuple[DirRef, Path] | None:
    """Return the workflow in whose shelf a level of a listing is."""
    if place.workflow is not None:
        return place.workflow
    if place.role is Role.WORKFLOW:
        return (place.ref, ())
    return (place.ref, prefix[:1]) if prefix else None


@dataclass(slots=True)
class Ids:
    """The shelves of every workflow of a mount."""

    sources: Mapping[str, Source]
    history: History
    _shelves: dict[tuple[DirRef, Path], Shelf] = field(default_factory=dict)
    _places: dict[DirRef, set[tuple[DirRef, Path]]] = field(default_factory=dict)
    _listings: Listings | None = None

    @property
    def listings(self) -> Listings:
        """Return the listings that fill the shelves; set once, when everything is wired."""
        if self._listings is None:
            message = "the shelves are not wired to the listings"
            raise TypeError(message)
        return self._listings

    def wire(self, listings: Listings) -> None:
        """Take the listings, which in turn tell these shelves of what they find."""
        self._listings = listings

    def shelf(self, place: Listed | IdShelf) -> Shelf:
        """Return the shelf of a workflow."""
        return self._shelves.setdefault((place.ref, place.prefix), Shelf())

    async def shelve(self, place: Listed, levels: Mapping[Path, Level]) -> None:
        """Remember the artifacts of a listing under the workflow they stand in, instead of those it showed before."""
        parts: dict[tuple[DirRef, Path], list[Level]] = {}
        for prefix, level in levels.items():
            where = _workflow_of(place, prefix)
            if where is not None:
                parts.setdefault(where, []).append(level)
        for where in self._places.get(place.ref, set()) - parts.keys():
            self._shelves[where].clear(place.ref)
        for where, part in parts.items():
            self._shelves.setdefault(where, Shelf()).put(place.ref, part)
        self._places[place.ref] = set(parts)
        for level in levels.values():
            await in_slices(list(level.children), partial(self._apply, place.ref.source, level))

    def _apply(self, source: str, level: Level, shown: Sequence[str]) -> None:
        nodes = (level.children.get(name) for name in shown)
        self.history.apply_listed(source, (node.artifact for node in nodes if node is not None))

    def reshelve(self, place: Listed, prefix: Path, gone: Artifact | None, made: Artifact | None) -> None:
        """Take over what this mount has changed in a listing that is shelved."""
        where = _workflow_of(place, prefix)
        if where is not None and where in self._places.get(place.ref, ()):
            self._shelves[where].change(gone, made)

    def unshelve(self, ref: DirRef, known: Known) -> None:
        """Let go of the artifacts of a listing that there is no room for in memory, or that is gone."""
        for where in self._places.pop(ref, set()):
            self._shelves[where].drop(ref)
            if self._shelves[where].is_empty:
                del self._shelves[where]
        for level in known.levels.values():
            self.history.let_go(ref.source, (node.artifact for node in level.children.values()))

    async def find(self, source: str, place: IdShelf, name: str) -> Artifact | None:
        """Return an artifact by the name of its id in its workflow: known, asked for, or searched in every run."""
        shelf = self.shelf(place)
        with shelf.held():
            top = await self._ensure_workflow(source, place)
            known = (await shelf.by_name()).get(name)
            if known is not None:
                return known
            title = names.decode(name)
            provider = self.sources[source].provider
            if title is None or not provider.is_artifact_id(title):
                return None
            failure: errors.ArtifactFSError | None = None
            found: Artifact | None = None
            try:
                found = await self.listings.content.flights.run(
                    ("find", place.ref, place.prefix, title), partial(self._ask, source, place, title)
                )
            except TRANSIENT as error:
                failure = error
            if found is not None:
                return found
            # Also where the service cannot be asked: a run that was listed before may show it.
            await self._expand(place, top, until=name)
            known = (await shelf.by_name()).get(name)
            if known is None and failure is not None:
                raise failure
            return known

    async def _ask(self, source: str, place: IdShelf, title: str) -> Artifact | None:
        """Ask the service for an artifact; it is shelved also if whoever asked does not wait any more."""
        found = await self.sources[source].provider.find(place.ref, title)
        if found is not None:
            self.shelf(place).add_found(found)
        return found

    async def _ensure_workflow(self, source: str, place: IdShelf) -> Known:
        """Return the workflow's own listing, which says what its artifacts and runs are, as it is now."""
        known = await self.listings.again(place.ref)
        if known is None:
            node = source_node(self.sources[source], source)
            where = Listed(place.ref, (), Role.PLAIN if place.prefix else Role.WORKFLOW)
            known = await self.listings.get(node, where)
        return known

    async def _expand(self, place: IdShelf, top: Known, until: str | None = None) -> None:
        """List every listing point below a workflow, a few at once, until a name turns up."""
        shelf = self.shelf(place)
        todo = self._points(top, place.ref, place.prefix)
        while todo:
            batch, todo = todo[:SEARCHERS], todo[SEARCHERS:]
            failures: list[errors.ArtifactFSError] = []
            found: list[tuple[DirRef, Known]] = []
            async with trio.open_nursery() as nursery:
                for node in batch:
                    nursery.start_soon(self._expand_one, node, found, failures)
            if until is not None and until in await shelf.by_name():
                return
            if failures:
                raise failures[0]
            for ref, known in found:
                todo.extend(self._points(known, ref, ()))

    async def _expand_one(
        self, node: Node, found: list[tuple[DirRef, Known]], failures: list[errors.ArtifactFSError]
    ) -> None:
        try:
            if isinstance(node.directory, Listed):
                found.append((node.directory.ref, await self.listings.get(node, node.directory)))
        except errors.ArtifactFSError as error:
            failures.append(error)

    @staticmethod
    def _points(known: Known, ref: DirRef, prefix: Path) -> list[Node]:
        """Return the folders at or below a prefix that have a listing of their own, newest first."""
        found = [
            node
            for at, level in known.levels.items()
            if at[: len(prefix)] == prefix
            for node in level.children.values()
            if isinstance(node.directory, Listed) and node.directory.ref != ref
        ]
        return sorted(found, key=lambda node: -node.mtime_ns)

    async def level(self, node: Node, place: IdShelf) -> Level:
        """Return ``.artifacts``: every artifact of the workflow."""
        shelf, level = self.shelf(place), Level()
        with shelf.held():
            top = await self._ensure_workflow(node.source, place)
            await self._expand(place, top)
            by_name = await shelf.by_name()

            def show(part: Sequence[str]) -> None:
                for name in part:
                    if (artifact := by_name.get(name)) is not None:
                        level.children[name] = versions.shelf_node(artifact, name, node.mtime_ns, node.source)

            await in_slices(list(by_name), show)
        return level
