"""What can be changed in the built-in store.

Rules of this file: a draft is a durable object before a row names it; each change is one transaction,
decided on what the store holds at that moment. A save onto a version that is no longer current is refused
with ``Conflict``; one that the store holds already, as after a crash between the commit and its
acknowledgement, succeeds and makes nothing. No facts need be remembered between two tries: where an earlier one may
have come through, the version that followed the base tells, also when others have followed that.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from artifactfs import errors
from artifactfs.providers.base import Draft
from artifactfs.providers.local import entries

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from artifactfs.model.entry import Artifact, DirRef
    from artifactfs.providers.base import Attempt, Change, Manifest, Read
    from artifactfs.providers.local.view import StoreView
    from artifactfs.store.catalog import Store
    from artifactfs.store.objects import Objects
    from artifactfs.store.rows import StoredArtifact, TreeFile, Workflow

T = TypeVar("T")

# Drafts that one turn of a thread copies: 1,000 small ones take about a second, and a mount that ends waits for that.
AT_ONCE = 1000


class LocalPublisher:
    """Writes to one store; every call does its work in a worker thread."""

    unstorable: re.Pattern[bytes] | None = None

    def __init__(self, view: StoreView, limiter: trio.CapacityLimiter) -> None:
        """Write to the store of ``view``."""
        self._view = view
        self._store = view.store
        self._limiter = limiter

    def __repr__(self) -> str:
        """Tell which store it is."""
        return f"<LocalPublisher {self._view!r}>"

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._limiter)

    # -- what can be stored ----------------------------------------------------------------------------------

    def vet(self, name: str, path: Path, size: int) -> None:  # noqa: ARG002 - any content is taken
        """Refuse a name that the store cannot keep.

        Raises:
            NameNotAllowed: UTF-8 cannot say it.
        """
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise errors.NameNotAllowed("the store keeps only text that UTF-8 can encode", subject=name) from error

    async def permits(self, change: Change) -> None:
        """Return: the store can do everything."""

    # -- workflows -------------------------------------------------------------------------------------------

    async def make_workflow(self, title: str) -> None:
        """Make a workflow.

        Raises:
            AlreadyExists: there is one of that title.
        """
        await self._in_thread(partial(self._make_workflow, title))

    def _make_workflow(self, title: str) -> None:
        with self._store.transaction():
            if self._store.workflows_named(title):
                raise errors.AlreadyExists("there is a workflow of that name", subject=title)
            self._store.add_workflow(title)

    async def remove_workflow(self, ref: DirRef) -> None:
        """Remove an empty workflow.

        Raises:
            DirectoryNotEmpty: it still lists artifacts.
            NotFound: there is none such.
        """
        await self._in_thread(partial(self._remove_workflow, ref))

    def _remove_workflow(self, ref: DirRef) -> None:
        with self._store.transaction():
            self._store.remove_workflow(self._view.workflow(ref).id)

    # -- files -----------------------------------------------------------------------------------------------

    async def create_file(self, ref: DirRef, path: tuple[str, ...], draft: Draft, attempt: Attempt) -> Artifact:
        """Make an artifact that is one file, v1.

        Raises:
            AlreadyExists: there is one of that name, of other content.
            NotPermitted: the place is not the workflow itself.
        """
        await self._take([draft])
        return await self._in_thread(partial(self._create_file, ref, path, draft, attempt))

    def _create_file(self, ref: DirRef, path: tuple[str, ...], draft: Draft, attempt: Attempt) -> Artifact:
        with self._store.transaction():
            workflow, name = self._view.workflow(ref), _name(path)
            for taken in self._store.artifacts_named(workflow.id, name):
                # An earlier try may have made it, and somebody else the next version.
                known = {taken.current} if attempt.is_first else {taken.current, 1}
                if _says(self._store, taken, known, draft, attempt):
                    return self._view.artifact(taken.id)
                raise errors.AlreadyExists("there is an artifact of that name", subject=name)
            made = self._store.add_artifact(workflow.id, name, "file", media_type=entries.media_type_of(name))
            self._store.save_file(made.id, draft.sha256, draft.size, executable=draft.executable)
            return self._view.artifact(made.id)

    async def save_file(self, artifact: Artifact, draft: Draft, attempt: Attempt) -> Artifact:
        """Make the next version of a file; one that was removed comes back with it.

        Raises:
            Conflict: its current version is no longer that of ``artifact``, and says something else.
            AlreadyExists: it was removed, and another one has its name.
            NotFound: there is no such artifact, or its workflow was removed.
        """
        await self._take([draft])
        return await self._in_thread(partial(self._save_file, artifact, draft, attempt))

    def _save_file(self, artifact: Artifact, draft: Draft, attempt: Attempt) -> Artifact:
        with self._store.transaction():
            stored = self._view.stored(artifact.key)
            if stored.deleted:
                self._view.artifact(stored.id)  # its workflow may be gone, too
                self._store.restore_artifact(stored.id)
            if self._is_current(artifact, stored):
                self._store.save_file(stored.id, draft.sha256, draft.size, executable=draft.executable)
            else:
                known = {stored.current, self._after(artifact, stored, attempt)}
                if not _says(self._store, stored, known, draft, attempt):
                    raise errors.Conflict("somebody else saved it first", subject=artifact.id)
            return self._view.artifact(stored.id)

    # -- trees -----------------------------------------------------------------------------------------------

    async def create_tree(self, ref: DirRef, path: tuple[str, ...]) -> Artifact:
        """Make an artifact that is a tree; v1 is empty.

        Raises:
            AlreadyExists: there is an artifact of that name which is no empty tree.
            NotPermitted: the place is not the workflow itself.
        """
        return await self._in_thread(partial(self._create_tree, ref, path))

    def _create_tree(self, ref: DirRef, path: tuple[str, ...]) -> Artifact:
        with self._store.transaction():
            workflow, name = self._view.workflow(ref), _name(path)
            for taken in self._store.artifacts_named(workflow.id, name):
                if taken.kind == "tree" and not self._store.tree(taken.id, taken.current):
                    return self._view.artifact(taken.id)
                raise errors.AlreadyExists("there is an artifact of that name", subject=name)
            made = self._store.add_artifact(workflow.id, name, "tree")
            self._store.save_tree(made.id, [])
            return self._view.artifact(made.id)

    async def save_tree(
        self,
        artifact: Artifact,
        manifest: Manifest,
        attempt: Attempt,
        *,
        read: Read,  # noqa: ARG002 - the members' bytes are here already
        message: str | None = None,
    ) -> Artifact:
        """Make the next version of a tree, which is then exactly ``manifest``; the same as the current one makes none.

        Raises:
            Conflict: the current version is no longer that of ``artifact``, and says something else.
            NotFound: the artifact was removed.
            NameNotAllowed, NotADirectory: no tree can be so.
            CorruptContent: the store has not got the bytes of a member, or a draft is not what it was sealed as.
        """
        files = await self._in_thread(partial(entries.tree_files, manifest))
        drafts = [wanted for wanted in manifest.values() if isinstance(wanted, Draft)]
        await self._take(drafts)
        taken = {draft.sha256 for draft in drafts}
        return await self._in_thread(partial(self._save_tree, artifact, files, taken, attempt, message))

    def _save_tree(
        self, artifact: Artifact, files: Sequence[TreeFile], taken: set[str], attempt: Attempt, message: str | None
    ) -> Artifact:
        with self._store.transaction():
            stored = self._living(artifact)
            if not self._is_current(artifact, stored):
                after = self._after(artifact, stored, attempt)
                if not any(self._store.is_tree(stored.id, seq, files) for seq in {stored.current, after}):
                    raise errors.Conflict("somebody else changed it first", subject=artifact.id)
                return self._view.artifact(stored.id)
            self._demand_objects(stored, files, taken)
            self._store.save_tree(stored.id, files, message=message)
            return self._view.artifact(stored.id)

    def _demand_objects(self, stored: StoredArtifact, files: Sequence[TreeFile], taken: set[str]) -> None:
        # The objects that a version names are here: to look at each file of 10,000 would take as long as the save.
        wanted = {file.sha256 for file in files if file.sha256} - taken
        if missing := wanted - self._store.objects_of(stored.id, stored.current):
            for sha256 in sorted(missing):
                if not self._store.objects.has(sha256):
                    raise errors.CorruptContent("the store has no such object", subject=sha256)

    def _is_current(self, artifact: Artifact, stored: StoredArtifact) -> bool:
        current = self._view.current(stored)
        return _version_id(artifact) == (current and entries.version_id(current))

    def _after(self, artifact: Artifact, stored: StoredArtifact, attempt: Attempt) -> int:
        """Return the version that was made onto that of ``artifact``: an earlier try may have; 0 if none can be it."""
        if attempt.is_first:
            return 0
        asked = _version_id(artifact)
        if asked is None:
            return 1
        seen = [version.seq for version in self._store.versions(stored.id) if entries.version_id(version) == asked]
        return seen[-1] + 1 if seen else 0

    # -- places ----------------------------------------------------------------------------------------------

    async def rename(self, artifact: Artifact, ref: DirRef, path: tuple[str, ...]) -> Artifact:
        """Give an artifact another name, within its run or in a workflow.

        Raises:
            AlreadyExists: another artifact has that name there.
            NotFound: it was removed, or the workflow was.
            NotPermitted: the place is neither its own run and phase nor a workflow itself.
        """
        return await self._in_thread(partial(self._rename, artifact, ref, path))

    def _rename(self, artifact: Artifact, ref: DirRef, path: tuple[str, ...]) -> Artifact:
        with self._store.transaction():
            stored, workflow = self._living(artifact), self._view.workflow(ref)
            inside = _inside_run(stored, workflow, path)
            name = inside or _name(path)
            run_id, phase = (stored.run_id, stored.phase) if inside else (None, "")
            for taken in self._store.artifacts_named(workflow.id, name, run_id=run_id, phase=phase):
                if taken.id != stored.id:
                    raise errors.AlreadyExists("there is an artifact of that name", subject=name)
            self._store.rename_artifact(
                stored.id,
                name,
                workflow_id=workflow.id,
                media_type=entries.media_type_of(name) if stored.kind == "file" else None,
                leave_run=not inside,
            )
            return self._view.artifact(stored.id)

    async def remove(self, artifact: Artifact) -> None:
        """Take an artifact out of the present; done already is done."""
        await self._in_thread(partial(self._store.delete_artifact, artifact.key))

    # -- what they share -------------------------------------------------------------------------------------

    async def _take(self, drafts: Sequence[Draft]) -> None:
        """Copy drafts into the objects, durably.

        Raises:
            CorruptContent: a draft is gone, or is not what it was sealed as.
            NoLocalSpace, Unavailable: the disk said no, or a draft cannot be read now.
        """
        for at in range(0, len(drafts), AT_ONCE):
            await self._in_thread(partial(_take, self._store.objects, drafts[at : at + AT_ONCE]))

    def _living(self, artifact: Artifact) -> StoredArtifact:
        stored = self._view.stored(artifact.key)
        if stored.deleted:
            raise errors.NotFound("the artifact was removed", subject=artifact.id)
        return stored


def _version_id(artifact: Artifact) -> str | None:
    return artifact.current.id if artifact.current else None


def _says(store: Store, stored: StoredArtifact, known: set[int], draft: Draft, attempt: Attempt) -> bool:
    """Tell whether one of some versions is what was to be saved.

    After an earlier try its x bit may be another one: its writer has changed that since, so it is set.
    """
    versions = [store.version(stored.id, seq) for seq in known]
    same = [one for one in versions if one is not None and one.sha256 == draft.sha256]
    if any(one.executable == draft.executable for one in same):
        return True
    if not same or attempt.is_first:
        return False
    if any(one.seq == stored.current for one in same):
        store.save_file(stored.id, draft.sha256, draft.size, executable=draft.executable)
    return True


def _take(objects: Objects, drafts: Sequence[Draft]) -> None:
    try:
        found = objects.put_files([draft.path for draft in drafts])
    except FileNotFoundError as error:
        raise errors.CorruptContent("what was to be saved is gone", subject=str(error.filename or "")) from error
    except OSError as error:
        # Too many open files, say: that passes, and the draft is still there.
        message = f"what was to be saved cannot be read: {error.strerror}"
        raise errors.Unavailable(message, subject=str(error.filename or "")) from error
    for draft, taken in zip(drafts, found, strict=True):
        if taken != (draft.sha256, draft.size):
            raise errors.CorruptContent("what was to be saved has changed", subject=str(draft.path))


def _inside_run(stored: StoredArtifact, workflow: Workflow, path: tuple[str, ...]) -> str | None:
    """Return the name that ``path`` means below the artifact's own run and phase, None if it is not there."""
    place = (stored.run_id, stored.phase) if stored.phase else (stored.run_id,)
    is_there = workflow.id == stored.workflow_id and path[: len(place)] == place
    return "/".join(path[len(place) :]) if is_there else None


def _name(path: tuple[str, ...]) -> str:
    if len(path) != 1:
        raise errors.NotPermitted("artifacts are made in a workflow itself", subject="/".join(path))
    return path[0]
