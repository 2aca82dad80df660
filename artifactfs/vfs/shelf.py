"""The artifacts known in one workflow, by the name of their id."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import trio

from artifactfs.model.entry import Artifact, DirRef
from artifactfs.tree import names
from artifactfs.tree.layout import Level
from artifactfs.tree.nodes import Node

# More are named in a thread: one takes about a microsecond, four where ids are not unique (measured).
INLINE_ENTRIES = 3000
# So often it is tried again when something changes meanwhile; then everything waits until it is done.
TRIES = 3


class Shelf:
    """Artifacts of one workflow, gathered from every listing that shows some; names are assigned over all of them.

    Where a service repeats an id between runs (VLM Run's have 24 bits), the oldest keeps the plain name.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._parts: dict[DirRef, list[Level]] = {}
        self._found: dict[str, Artifact] = {}
        self._by_name: dict[str, Artifact] | None = {}
        self._is_plain = True
        self._making = trio.Lock()
        self._changes = 0
        self._held = 0
        self._surplus: list[DirRef] = []

    def clear(self, ref: DirRef) -> None:
        """Forget what a listing showed, and what was found by id since: it is asked for anew."""
        if self._parts.pop(ref, None) is not None:
            self._found.clear()
            self._forget_names()

    def put(self, ref: DirRef, levels: Iterable[Level]) -> None:
        """Take what a listing shows, instead of what it showed before."""
        self.clear(ref)
        if ref in self._surplus:
            self._surplus.remove(ref)
        self._parts[ref] = list(levels)
        self._forget_names()

    def drop(self, ref: DirRef) -> None:
        """Let go of what a listing shows, for which there is no room in memory; not while somebody searches here."""
        if self._held:
            self._surplus.append(ref)
        elif self._parts.pop(ref, None) is not None:
            self._forget_names()

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing is lost with it: nothing is known, and nobody searches here."""
        return not (self._parts or self._found or self._held)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep everything that is put here while the block runs: it may be more than there is room for."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            if not self._held:
                surplus, self._surplus = self._surplus, []
                for ref in surplus:
                    self.drop(ref)

    def add_found(self, artifact: Artifact) -> None:
        """Take what the service said of one artifact, until a listing is made again."""
        self._found[artifact.key] = artifact
        self._forget_names()

    def _forget_names(self) -> None:
        self._changes += 1
        self._by_name = None

    def change(self, gone: Artifact | None, made: Artifact | None) -> None:
        """Take over that this mount has changed one artifact in what a listing shows, without naming all anew."""
        for artifact in (gone, made):
            if artifact is not None:
                self._found.pop(artifact.key, None)
        self._changes += 1
        by_name = self._by_name
        if by_name is None:
            return
        if gone is not None:
            found = by_name.pop(names.encode(gone.id), None)
            if not self._is_plain or found is None or found.key != gone.key:
                self._by_name = None
                return
        if made is not None and by_name.setdefault(names.encode(made.id), made) is not made:
            self._by_name = None

    async def by_name(self) -> Mapping[str, Artifact]:
        """Return the artifacts by the names of their ids."""
        if self._by_name is not None:
            return self._by_name
        async with self._making:
            tries = 0
            while self._by_name is None:
                changes, tries = self._changes, tries + 1
                known = [list(level.children.values()) for part in self._parts.values() for level in part]
                work = partial(_named, list(self._found.values()), known)
                if sum(map(len, known)) <= INLINE_ENTRIES or tries > TRIES:
                    made = work()
                else:
                    made = await trio.to_thread.run_sync(work)
                if changes == self._changes:
                    self._by_name, self._is_plain = made
            return self._by_name


def _named(found: list[Artifact], levels: list[list[Node]]) -> tuple[dict[str, Artifact], bool]:
    """Return the artifacts by the names of their ids, and whether no two have the same."""
    known = {artifact.key: artifact for artifact in found}
    known.update({node.artifact.key: node.artifact for level in levels for node in level if node.artifact is not None})
    plain = {names.encode(artifact.id): artifact for artifact in known.values()}
    if len(plain) == len(known):
        return plain, True
    claims = [
        names.Claim(artifact.id, key, key, (float(artifact.created_at_ns or 0) or float("inf"), key), folder=True)
        for key, artifact in known.items()
    ]
    given = names.assign(claims)
    return {given[key]: artifact for key, artifact in known.items()}, False
