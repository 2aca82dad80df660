"""What an earlier mount did not finish: its sealed drafts become saves, or local names again.

Rules of this file: a draft leaves the disk only when its content is safe elsewhere; one that cannot be saved is left
where it is, said, and tried by the next mount. Nothing that has changed since is overwritten. No failure stops a
mount.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import trio

from artifactfs import errors
from artifactfs.journal.staging import Staged, Staging
from artifactfs.model.entry import Artifact, ArtifactKind, DirRef, SingleFile
from artifactfs.tree.inodes import number
from artifactfs.tree.nodes import Kind, Listed, Node, VersionDir
from artifactfs.vfs.overlay import Edit, Spot
from artifactfs.vfs.publishing import OVERTAKEN
from artifactfs.vfs.sources import Source
from artifactfs.vfs.writing import Writer

log = logging.getLogger(__name__)


async def recover(writer: Writer, staging: Staging) -> int:
    """Take over the drafts of a mount that has ended, and their directory; return how many."""
    taken = 0
    lives_on = False
    for staged in await trio.to_thread.run_sync(staging.left_over):
        source = writer.sources.get(str(staged.intent.get("source")))
        if source is None or source.fingerprint != staged.intent.get("fingerprint"):
            staged.close()  # of a source that is not mounted here
            continue
        try:
            edit = await _edit_of(staged, source)
            if edit.stays_here:
                writer.overlay.begin(edit)
                writer.overlay.show(edit)
                lives_on = True
            else:
                await _save(writer, edit)
                staging.discard(staged)
            taken += 1
        except (errors.ArtifactFSError, OSError, KeyError, TypeError) as error:
            staged.close()
            name = str(staged.intent.get("name"))
            writer.saver.report(source.name, "", f"{name}: an unfinished save is kept in {staged.path}: {error}")
            log.info("an unfinished save is kept in %s: %s", staged.path, error)
    if lives_on:
        writer.adopted.append(staging)
    else:
        staging.close()
    return taken


async def _edit_of(staged: Staged, source: Source) -> Edit:
    """Return the edit that a record describes."""
    intent = staged.intent
    name = str(intent["name"])
    known = intent.get("tree") or intent.get("artifact")
    artifact = await source.provider.find(source.top, str(known)) if known else None
    directory = _directory_of(intent, source, artifact)
    identity = ("draft", source.name, str(staged.path))
    node = Node(number(identity), identity, Kind.FILE, name, executable=staged.executable, writable=True,
                source=source.name)  # fmt: skip
    return Edit(node, staged, directory, artifact, is_local=bool(intent.get("local")))


def _directory_of(intent: dict[str, Any], source: Source, artifact: Artifact | None) -> Spot:
    if "tree" not in intent:
        return Listed(DirRef(source.name, str(intent["kind"]), tuple(intent["args"])), tuple(intent["prefix"]))
    if artifact is None or not artifact.writable or artifact.kind is not ArtifactKind.TREE:
        message = "the tree it belongs to is gone"
        raise errors.NotFound(message)
    return VersionDir(artifact, artifact.current, str(intent["path"]), present=True)


async def _save(writer: Writer, edit: Edit) -> None:
    """Save under its own name what was the latest when it was written, beside it what has been overtaken."""
    draft = await trio.to_thread.run_sync(edit.staged.draft)
    if edit.base is not None and _holds(edit.base, draft.sha256):
        return
    edit.base = _as_it_was(edit.base, edit.staged.intent.get("base"))
    try:
        await writer.saver.put(edit, draft)
    except OVERTAKEN:
        await writer.saver.save_beside(edit, draft, f"recovered {edit.staged.number}")


def _as_it_was(artifact: Artifact | None, version: object) -> Artifact | None:
    """Return an artifact at the version that a draft was begun on: the publisher finds out what has happened since."""
    if artifact is None or artifact.current is None or not isinstance(version, str):
        return artifact
    return replace(artifact, current=replace(artifact.current, id=version))


def _holds(artifact: Artifact, sha256: str) -> bool:
    """Tell whether a file has this content already: the save was made, only nobody came to hear of it."""
    content = artifact.current.content if artifact.current else None
    return artifact.writable and isinstance(content, SingleFile) and getattr(content.content, "sha256", None) == sha256
