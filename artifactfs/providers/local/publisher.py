"""What can be changed in the built-in store.

Rules of this file: a draft is a durable object before a row names it; each change is one transaction,
decided on what the store holds at that moment. A save onto a version that is no longer current is refused
with ``Conflict``; one that the store holds already, as after a crash between the commit and its
acknowledgement, succeeds and makes nothing.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from artifactfs import errors
from artifactfs.providers.local import edits, entries
from artifactfs.store.rows import TreeFile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from artifactfs.model.entry import Artifact, DirRef
    from artifactfs.providers.base import Draft
    from artifactfs.providers.local.view import StoreView
    from artifactfs.store.rows import StoredArtifact, Workflow

T = TypeVar("T")


class LocalPublisher:
    """Writes to one store; every call does its work in a worker thread."""

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

    async def create_file(self, ref: DirRef, path: tuple[str, ...], draft: Draft) -> Artifact:
        """Make an artifact that is one file, v1.

        Raises:
            AlreadyExists: there is one of that name, of other content.
            NotPermitted: the place is not the workflow itself.
        """
        await self._take([draft])
        return await self._in_thread(partial(self._create_file, ref, path, draft))

    def _create_file(self, ref: DirRef, path: tuple[str, ...], draft: Draft) -> Artifact:
        with self._store.transaction():
            workflow, name = self._view.workflow(ref), _name(path)
            for taken in self._store.artifacts_named(workflow.id, name):
                current = self._view.current(taken)
                if current and (current.sha256, current.executable) == (draft.sha256, draft.executable):
                    return self._view.artifact(taken.id)
                raise errors.AlreadyExists("there is an artifact of that name", subject=name)
            made = self._store.add_artifact(workflow.id, name, "file", media_type=entries.media_type_of(name))
            self._store.save_file(made.id, draft.sha256, draft.size, executable=draft.executable)
            return self._view.artifact(made.id)

    async def save_file(self, artifact: Artifact, draft: Draft) -> Artifact:
        """Make the next version of a file; one that was removed comes back with it.

        Raises:
            Conflict: its current version is no longer that of ``artifact``, and says something else.
            AlreadyExists: it was removed, and another one has its name.
            NotFound: there is no such artifact, or its workflow was removed.
        """
        await self._take([draft])
        return await self._in_thread(partial(self._save_file, artifact, draft))

    def _save_file(self, artifact: Artifact, draft: Draft) -> Artifact:
        with self._store.transaction():
            stored = self._view.stored(artifact.key)
            if stored.deleted:
                self._view.artifact(stored.id)  # its workflow may be gone, too
                self._store.restore_artifact(stored.id)
            current = self._view.current(stored)
            if current is None or (current.sha256, current.executable) != (draft.sha256, draft.executable):
                if _version_id(artifact) != (current and entries.version_id(current)):
                    raise errors.Conflict("somebody else saved it first", subject=artifact.id)
                self._store.save_file(stored.id, draft.sha256, draft.size, executable=draft.executable)
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

    async def change_tree(
        self, artifact: Artifact, changes: Mapping[str, Draft | None], made: Sequence[str] = ()
    ) -> Artifact:
        """Make the next version of a tree from what it now holds; one version for all changes together.

        Raises:
            Conflict: a path in ``changes`` is no longer as in the version of ``artifact``.
            NotFound: the artifact was removed.
            NameNotAllowed, NotADirectory, IsADirectory, AlreadyExists, DirectoryNotEmpty: no tree can be so.
        """
        await self._take([draft for draft in changes.values() if draft])
        wanted = {
            path: TreeFile(path, draft.sha256, draft.size, draft.executable, draft.mtime_ns) if draft else None
            for path, draft in changes.items()
        }
        return await self._in_thread(partial(self._change_tree, artifact, wanted, made))

    def _change_tree(self, artifact: Artifact, wanted: Mapping[str, TreeFile | None], made: Sequence[str]) -> Artifact:
        with self._store.transaction():
            stored = self._living(artifact)
            present = self._store.tree(stored.id, stored.current)
            self._refuse_overtaken(artifact, stored, present, wanted)
            self._store.save_tree(stored.id, edits.change(present, wanted, made))
            return self._view.artifact(stored.id)

    async def rename_in_tree(self, artifact: Artifact, old: str, new: str) -> Artifact:
        """Move a file or directory within a tree; a file at ``new`` is replaced. Done already is done.

        Raises:
            Conflict: what is at ``new`` is no longer as in the version of ``artifact``.
            NotFound: the artifact was removed, or has nothing at either path.
            NameNotAllowed, InvalidRequest, NotADirectory, IsADirectory, DirectoryNotEmpty: no tree can be so.
        """
        return await self._in_thread(partial(self._rename_in_tree, artifact, old, new))

    def _rename_in_tree(self, artifact: Artifact, old: str, new: str) -> Artifact:
        with self._store.transaction():
            stored = self._living(artifact)
            present = self._store.tree(stored.id, stored.current)
            here = {file.path: file for file in present}
            if not any(path == old or path.startswith(f"{old}/") for path in here):
                if not any(path == new or path.startswith(f"{new}/") for path in here):
                    raise errors.NotFound(f"{old} is not in the tree", subject=old)
                return self._view.artifact(stored.id)
            self._refuse_overtaken(artifact, stored, present, {new: here.get(old)})
            self._store.save_tree(stored.id, edits.move(present, old, new))
            return self._view.artifact(stored.id)

    def _refuse_overtaken(
        self,
        artifact: Artifact,
        stored: StoredArtifact,
        present: Sequence[TreeFile],
        wanted: Mapping[str, TreeFile | None],
    ) -> None:
        asked = _version_id(artifact)
        base = [v for v in self._store.versions(stored.id) if entries.version_id(v) == asked]
        if not base or base[-1].seq == stored.current:
            return
        if path := edits.overtaken(self._store.tree(stored.id, base[-1].seq), present, wanted):
            raise errors.Conflict(f"somebody else changed {path} first", subject=path)

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
            inside = self._inside_run(stored, workflow, path)
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

    @staticmethod
    def _inside_run(stored: StoredArtifact, workflow: Workflow, path: tuple[str, ...]) -> str | None:
        """Return the name that ``path`` means below the artifact's own run and phase, None if it is not there."""
        place = (stored.run_id, stored.phase) if stored.phase else (stored.run_id,)
        is_there = workflow.id == stored.workflow_id and path[: len(place)] == place
        return "/".join(path[len(place) :]) if is_there else None

    async def remove(self, artifact: Artifact) -> None:
        """Take an artifact out of the present; done already is done."""
        await self._in_thread(partial(self._store.delete_artifact, artifact.key))

    # -- what they share -------------------------------------------------------------------------------------

    async def _take(self, drafts: Sequence[Draft]) -> None:
        """Copy drafts into the objects, durably.

        Raises:
            CorruptContent: a draft is gone, or is not what it was sealed as.
            NoLocalSpace, Unavailable: the disk said no.
        """
        for draft in drafts:
            await self._in_thread(partial(self._take_one, draft))

    def _take_one(self, draft: Draft) -> None:
        try:
            found = self._store.objects.put_file(draft.path)
        except OSError as error:
            message = f"what was to be saved cannot be read: {error.strerror}"
            raise errors.CorruptContent(message, subject=str(draft.path)) from error
        if found != (draft.sha256, draft.size):
            raise errors.CorruptContent("what was to be saved has changed", subject=str(draft.path))

    def _living(self, artifact: Artifact) -> StoredArtifact:
        stored = self._view.stored(artifact.key)
        if stored.deleted:
            raise errors.NotFound("the artifact was removed", subject=artifact.id)
        return stored


def _version_id(artifact: Artifact) -> str | None:
    return artifact.current.id if artifact.current else None


def _name(path: tuple[str, ...]) -> str:
    if len(path) != 1:
        raise errors.NotPermitted("artifacts are made in a workflow itself", subject="/".join(path))
    return path[0]
