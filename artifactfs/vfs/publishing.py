"""One edit becomes one version: the call to the publisher, and what to do when somebody else was first.

Rules of this file: nothing is overwritten that the writer has not seen. A save that comes too late, or whose name was
taken meanwhile, is kept beside the other one under a name that says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, assert_never

import trio

from artifactfs import errors
from artifactfs.model.entry import Artifact
from artifactfs.providers.base import Draft, Publisher
from artifactfs.tree import names
from artifactfs.tree.layout import present_node
from artifactfs.tree.nodes import Listed, Node, VersionDir
from artifactfs.vfs.directories import Directories
from artifactfs.vfs.overlay import Edit, Overlay
from artifactfs.vfs.sources import Source

# Somebody else was first: changed it, made one of the name, or removed it for good.
OVERTAKEN = (errors.Conflict, errors.AlreadyExists)
# Saves of one file that are overtaken in the same second; more would be a loop of ours.
MAX_COPIES = 20


def join(path: str, name: str) -> str:
    """Return the path of a name in a directory of a tree."""
    return f"{path}/{name}" if path else name


def beside(name: str, mark: str) -> str:
    """Return ``name (mark)`` with the mark before the extension, in at most 255 bytes."""
    stem, extension = names.split_extension(name)
    tail = f" ({mark}){extension}"
    return stem.encode()[: names.NAME_MAX - len(tail.encode())].decode("utf-8", "ignore") + tail


def intent_of(edit: Edit, source: Source) -> dict[str, Any]:
    """Return where an edit belongs, in words that survive a restart."""
    current = edit.base.current if edit.base else None
    common = {
        "source": source.name,
        "fingerprint": source.fingerprint,
        "name": edit.node.name,
        "artifact": edit.base.id if edit.base else None,
        "base": current.id if current else None,
        "local": edit.is_local,
    }
    match edit.directory:
        case Listed(ref=ref, prefix=prefix):
            return {**common, "kind": ref.kind, "args": list(ref.args), "prefix": list(prefix)}
        case VersionDir(artifact=artifact, path=path):
            return {**common, "tree": artifact.id, "path": path}
        case _:
            assert_never(edit.directory)


@dataclass(slots=True)
class Saver:
    """Turns edits into versions.

    ``report`` is told of source, path and message of what a person may ask about, ``saved`` of the source of each save;
    ``path_of`` says the path of a node.
    """

    sources: Mapping[str, Source]
    directories: Directories
    overlay: Overlay
    report: Callable[[str, str, str], None] = lambda _source, _path, _message: None
    saved: Callable[[str], None] = lambda _source: None
    path_of: Callable[[Node], str] = lambda node: node.name

    def publisher(self, source: str) -> Publisher:
        """Return what can change a source.

        Raises:
            ReadOnly: nothing can.
        """
        publisher = self.sources[source].provider.publisher if source in self.sources else None
        if publisher is None:
            message = f"{source or 'this place'} takes no writes"
            raise errors.ReadOnly(message)
        return publisher

    async def save(self, edit: Edit) -> Node | None:
        """Save an edit; return what the source lists for it now, None if somebody removed it in the same moment."""
        draft = await trio.to_thread.run_sync(edit.staged.draft)
        try:
            listed = await self.put(edit, draft)
            self.saved(edit.node.source)
            return listed
        except OVERTAKEN as error:
            wanted = self.path_of(edit.node)
            listed = await self.save_beside(edit, draft, time.strftime("conflict %Y-%m-%d %H.%M.%S"))
            self.report(edit.node.source, wanted, f"{error}; this save is kept as {edit.node.name!r}")
            return listed

    async def save_beside(self, edit: Edit, draft: Draft, mark: str) -> Node | None:
        """Save an edit as a new file beside the one it was meant to be."""
        wanted = edit.node.name
        for attempt in range(1, MAX_COPIES + 1):
            self._move_beside(edit, beside(wanted, mark if attempt == 1 else f"{mark} {attempt}"))
            try:
                return await self.put(edit, draft)
            except OVERTAKEN:
                continue
        message = f"there is no free name beside {wanted!r}"
        raise errors.AlreadyExists(message)

    def _move_beside(self, edit: Edit, name: str) -> None:
        node = edit.node
        self.overlay.hide(edit)
        self.overlay.leave(node)
        self.directories.listings.changed(node.parent, node.name)
        node.name, edit.is_local = name, True
        if isinstance(edit.directory, VersionDir):
            edit.base = self.directories.history.newest(node.source, edit.base or edit.directory.artifact)
        else:
            edit.base = None

    async def put(self, edit: Edit, draft: Draft) -> Node | None:
        node, publisher = edit.node, self.publisher(edit.node.source)
        match edit.directory:
            case Listed(ref=ref, prefix=prefix):
                if edit.base is not None:
                    saved = await publisher.save_file(edit.base, draft)
                else:
                    saved = await publisher.create_file(ref, (*prefix, node.name), draft)
                self.directories.apply_artifact(node.source, saved)
                return present_node(saved, node.name, node.mtime_ns, node.source)
            case VersionDir(artifact=artifact, path=path) as place:
                saved = await publisher.change_tree(edit.base or artifact, {join(path, node.name): draft})
                self.directories.apply_artifact(node.source, saved)
                return await self._listed_in_tree(saved, place, node)
            case _:
                assert_never(edit.directory)

    async def _listed_in_tree(self, saved: Artifact, place: VersionDir, node: Node) -> Node | None:
        root = present_node(saved, node.name, node.mtime_ns, node.source)
        root.directory = VersionDir(saved, saved.current, place.path, present=True)
        try:
            level = await self.directories.children(root)
        except errors.NotFound:
            return None
        return level.children.get(node.name)
