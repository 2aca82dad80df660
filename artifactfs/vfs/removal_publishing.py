"""One removal becomes one delete at its service.

Rules of this file: what somebody else has saved since is not removed, as far as that can be known. A removal is
forgotten only after its service has carried it out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import trio

from artifactfs.journal.states import State
from artifactfs.model.entry import Artifact
from artifactfs.tree.nodes import Listed
from artifactfs.vfs import attempts, intents, removals
from artifactfs.vfs.context import Context
from artifactfs.vfs.overlay import Edit, Removal

# A removal that is older has waited for its service, and others may have saved what it takes away.
WAITED_NS = 10 * 10**9
STAYS = "somebody else changed it while it was removed here; it stays"


@dataclass(slots=True)
class Removals:
    """Publishes removals of artifacts."""

    context: Context

    async def take_back(self, edit: Edit, artifact: Artifact | None) -> None:
        """Remove what a save has become whose name was taken away meanwhile."""
        if not isinstance(edit.directory, Listed):
            raise TypeError(edit)
        overlay, home = self.context.overlay, edit.home
        async with self.context.orders[edit.source], edit.lock:
            if artifact is not None and edit.base is not None and artifact.key != edit.base.key:
                # Where a save is a new artifact, the one before it went with it.
                self.context.directories.apply_removed(edit.source, edit.directory, edit.base)
                self.context.forget(edit.source, edit.base)
            overlay.edits.pop(edit.node.ino, None)
            if artifact is None:
                overlay.drop(edit.directory, edit.source, edit.node.name)
            elif not self._is_given(edit, artifact):
                removal = Removal(
                    source=edit.source, home=home, number=home.next_number(), state=State.SEALED, artifact=artifact,
                    directory=edit.directory, name=edit.node.name, shown=edit.shown, due_at=trio.current_time(),
                )  # fmt: skip
                before = overlay.removal_at(edit.directory, edit.source, edit.node.name)
                twice = [before] if before is not None and before.artifact.key == artifact.key else []
                # The save goes in the same step: what takes the name after a kill would go on with one of the two only.
                drop = [*edit.saves, *(one.number for one in twice)]
                await trio.to_thread.run_sync(lambda: home.journal.put(intents.of_removal(removal), drop=drop))
                for one in twice:
                    removals.drop(overlay, one)
                removals.add(overlay, removal)
            await trio.to_thread.run_sync(home.discard, edit.staged)

    def _is_given(self, edit: Edit, artifact: Artifact) -> bool:
        """Tell whether a newer edit goes on with an artifact; it goes on with what the save has made of it then."""
        given = (one for one in self.context.overlay.removals.values() if one.given_to is not None)
        removal = next((one for one in given if one.artifact.key == artifact.key and one.source == edit.source), None)
        if removal is None or removal.given_to is None:
            return False
        removal.artifact = artifact
        if removal.given_to.base is not None and removal.given_to.base.key == artifact.key:
            removal.given_to.base = artifact
        return True

    async def remove(self, removal: Removal) -> None:
        """Remove an artifact from its service.

        Raises:
            ArtifactFSError: it was not removed, and the removal is kept.
        """
        removal.tries += 1
        removal.state = attempts.begun(removal.state)
        stays = await self._was_overtaken(removal)
        if stays:
            self.context.report(removal.source, removal.shown, STAYS)
        else:
            await self.context.publisher(removal.source).remove(removal.artifact)
        async with self.context.orders[removal.source]:
            if stays:
                self.context.directories.listings.own.forget(removal.directory.ref)
            else:
                self.context.directories.apply_removed(removal.source, removal.directory, removal.artifact)
                self.context.forget(removal.source, removal.artifact)
            self.forget(removal)
            self.context.overlay.unhide(removal)
            await self.context.directories.listings.own.durable(removal.source)
            await trio.to_thread.run_sync(lambda: removal.home.journal.put(drop=[removal.number]))
        self.context.saved(removal.source)

    async def _was_overtaken(self, removal: Removal) -> bool:
        """Tell whether somebody else has saved what was removed here; asked where that costs nothing, or it waited."""
        provider = self.context.sources[removal.source].provider
        if not provider.is_here and time.time_ns() - removal.since_ns < WAITED_NS:
            return False
        found = await provider.refresh(removal.artifact)
        if found is None or found.current is None or removal.artifact.current is None:
            return False
        return found.current.id != removal.artifact.current.id

    async def spare(self, edit: Edit) -> None:
        """Forget the removal that an edit has made unnecessary: else a kill would have it carried out."""
        removal, edit.replaces = edit.replaces, None
        if removal is not None:
            self.forget(removal)
            await trio.to_thread.run_sync(lambda: removal.home.journal.put(drop=[removal.number]))

    def forget(self, removal: Removal) -> None:
        removals.drop(self.context.overlay, removal)
