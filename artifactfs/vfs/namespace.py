"""Making, removing and renaming through the mount.

Rules of this file: what a place accepts is asked before anything is done; a change of a published artifact is one call to
its publisher. A rename between two artifacts is refused as a rename (``mv`` then copies), except for a draft.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import trio

from artifactfs import errors
from artifactfs.journal.droppings import is_dropping
from artifactfs.journal.staging import Staged
from artifactfs.model.entry import Accepts, Artifact, ArtifactKind, Role
from artifactfs.tree import names
from artifactfs.tree.layout import BY_ID, CONTROL, LATEST, SHELF
from artifactfs.tree.nodes import Kind, Listed, Node, VersionDir
from artifactfs.vfs.directories import Directories
from artifactfs.vfs.writing import Writer

RESERVED = frozenset({BY_ID, CONTROL, LATEST, SHELF})


def check_name(name: str) -> None:
    """Refuse a name that could not be given back as it was typed.

    Raises:
        NameTooLong: over 255 bytes.
        NameNotAllowed: not legal text, or a name of the tree's own.
    """
    if len(name.encode("utf-8", "surrogateescape")) > names.NAME_MAX:
        message = "a name has at most 255 bytes"
        raise errors.NameTooLong(message)
    if not names.is_legal(name):
        message = "this name cannot be kept as it is"
        raise errors.NameNotAllowed(message)


@dataclass(slots=True)
class Namespace:
    """Changes of names for the sources that take writes."""

    directories: Directories
    writer: Writer

    def _accepting(self, parent: Node, what: Accepts) -> None:
        """Refuse a place that takes no such thing.

        Raises:
            ReadOnly, NotPermitted.
        """
        match parent.directory:
            case Listed(accepts=accepts):
                if not accepts:
                    message = "nothing can be made here"
                    raise errors.ReadOnly(message)
                if not accepts & what:
                    message = "a file needs a workflow to be in" if what is Accepts.FILES else "not in this place"
                    raise errors.NotPermitted(message)
            case VersionDir(present=True) if parent.writable:
                return
            case _:
                message = "nothing can be made here"
                raise errors.ReadOnly(message)

    def create(self, parent: Node, name: str, *, executable: bool) -> tuple[Node, Staged]:
        """Begin a new file."""
        self._accepting(parent, Accepts.FILES)
        check_name(name)
        if isinstance(parent.directory, Listed) and name in RESERVED:
            raise errors.NameNotAllowed(f"{name} is a name of the tree itself")
        return self.writer.create(parent, name, executable=executable)

    async def mkdir(self, parent: Node, name: str) -> None:
        """Make a workflow, a tree artifact, or a directory in a tree."""
        self._accepting(parent, Accepts.WORKFLOWS | Accepts.TREES)
        check_name(name)
        if isinstance(parent.directory, Listed) and name in RESERVED:
            raise errors.NameNotAllowed(f"{name} is a name of the tree itself")
        publisher = self.writer.publisher(parent.source)
        async with self.writer.publishing():
            match parent.directory:
                case Listed(accepts=accepts, ref=ref, prefix=prefix):
                    if accepts & Accepts.WORKFLOWS:
                        await publisher.make_workflow(name)
                    else:
                        await publisher.create_tree(ref, (*prefix, name))
                    self.directories.listings.forget(ref)
                case VersionDir() as place:
                    await self._change(parent, place.artifact, {}, made=[_join(place.path, name)])
                case _:  # pragma: no cover - _accepting has refused everything else
                    raise errors.ReadOnly

    async def _change(
        self, node: Node, artifact: Artifact, changes: dict[str, None], made: list[str] | None = None
    ) -> None:
        newest = self.directories.history.newest(node.source, artifact)
        changed = await self.writer.publisher(node.source).change_tree(newest, changes, made or [])
        self.directories.apply_artifact(node.source, changed)

    async def unlink(self, parent: Node, name: str, node: Node) -> None:
        """Remove a file from the present."""
        if self.writer.overlay.drafts.get(parent.ino, {}).get(name) is node:
            self._unlink_draft(parent, name, node)
            return
        publisher = self.writer.publisher(parent.source)
        if not node.writable or node.artifact is None:
            message = "this cannot be removed"
            raise errors.ReadOnly(message)
        async with self.writer.publishing():
            if isinstance(parent.directory, VersionDir):
                await self._change(parent, node.artifact, {node.tree_path: None})
            else:
                await publisher.remove(node.artifact)
                self.writer.overlay.reserve(parent, name, node.artifact)
                self._forget(parent)
        self.writer.forget_draft(node)

    def _unlink_draft(self, parent: Node, name: str, node: Node) -> None:
        if node.artifact is not None:
            self.writer.overlay.reserve(parent, name, node.artifact)
        self.writer.forget_draft(node)

    def _forget(self, node: Node) -> None:
        if isinstance(node.directory, Listed):
            self.directories.listings.forget(node.directory.ref)

    async def rmdir(self, parent: Node, name: str, node: Node) -> None:
        """Remove an empty directory: of a tree, a tree artifact, or a workflow."""
        if (await self.directories.children(node)).children and not self._is_workflow(node):
            raise errors.DirectoryNotEmpty(subject=name)
        if self.writer.overlay.drafts.get(node.ino):
            raise errors.DirectoryNotEmpty(subject=name)
        publisher = self.writer.publisher(parent.source)
        async with self.writer.publishing():
            match node.directory:
                case VersionDir(present=True, artifact=artifact, path=path) if node.writable:
                    if path:
                        await self._change(node, artifact, {path: None})
                    else:
                        await publisher.remove(artifact)
                case Listed(ref=ref) if self._is_workflow(node):
                    await publisher.remove_workflow(ref)
                case _:
                    message = "this cannot be removed"
                    raise errors.NotPermitted(message)
            self._forget(parent)

    @staticmethod
    def _is_workflow(node: Node) -> bool:
        return isinstance(node.directory, Listed) and node.directory.role is Role.WORKFLOW

    # -- rename ----------------------------------------------------------------------------------------------

    async def rename(self, old: tuple[Node, str, Node], new_parent: Node, new_name: str, target: Node | None) -> None:
        """Give ``old`` = (directory, name, node) another name, in place of ``target`` if there is one."""
        old_parent, old_name, node = old
        self._accepting(new_parent, Accepts.FILES | Accepts.TREES)
        check_name(new_name)
        if target is node:
            return
        if target is not None and (target.kind is Kind.DIRECTORY) != (node.kind is Kind.DIRECTORY):
            raise errors.IsADirectory if target.kind is Kind.DIRECTORY else errors.NotADirectory
        if old_parent.source != new_parent.source:
            raise errors.CrossesArtifacts
        if node.kind is Kind.DIRECTORY:
            await self._rename_directory(node, new_parent, new_name, target)
        elif node.ino in self.writer.overlay.staged:
            await self._rename_draft(old_parent, old_name, node, new_parent, new_name, target)
        else:
            await self._rename_file(old_parent, old_name, node, new_parent, new_name, target)
        self._forget(old_parent)
        self._forget(new_parent)

    async def _rename_draft(
        self, old_parent: Node, old_name: str, node: Node, new_parent: Node, new_name: str, target: Node | None
    ) -> None:
        """Move a file that is being written, or was never published; over an existing one it becomes its next version."""
        drafts = self.writer.overlay.drafts
        if drafts.get(old_parent.ino, {}).get(old_name) is not node:
            message = "the file is being written; it can be renamed when it is closed"
            raise errors.CrossesArtifacts(message)
        staged = self.writer.overlay.staged[node.ino]
        if target is not None:
            if target.ino in self.writer.overlay.staged:
                self.writer.forget_draft(target)
            node.artifact = target.artifact if isinstance(new_parent.directory, Listed) else None
        else:
            node.artifact = self.writer.overlay.take_reserved(new_parent, new_name)
        del drafts[old_parent.ino][old_name]
        drafts.setdefault(new_parent.ino, {})[new_name] = node
        node.name, node.parent = new_name, new_parent.ino
        staged.intent = {"name": new_name, **self.writer.place(new_parent)}
        if staged.writers == 0 and not is_dropping(new_name):
            await trio.to_thread.run_sync(self.writer.staging.seal, staged)
            await self.writer.publish(node, new_parent, new_name)

    async def _rename_file(
        self, old_parent: Node, old_name: str, node: Node, new_parent: Node, new_name: str, target: Node | None
    ) -> None:
        artifact = node.artifact
        if artifact is None or not node.writable:
            message = "this cannot be renamed"
            raise errors.ReadOnly(message)
        in_tree = isinstance(new_parent.directory, VersionDir)
        if is_dropping(new_name) or target is not None or in_tree != bool(node.tree_path):
            await self._rename_by_copy(old_parent, old_name, node, new_parent, new_name, target)
            return
        publisher = self.writer.publisher(node.source)
        async with self.writer.publishing():
            if isinstance(new_parent.directory, VersionDir):
                place = new_parent.directory
                if place.artifact.key != artifact.key:
                    raise errors.CrossesArtifacts
                newest = self.directories.history.newest(node.source, artifact)
                changed = await publisher.rename_in_tree(newest, node.tree_path, _join(place.path, new_name))
                self.directories.apply_artifact(node.source, changed)
            elif isinstance(new_parent.directory, Listed):
                place_ref = new_parent.directory
                await publisher.rename(artifact, place_ref.ref, (*place_ref.prefix, new_name))

    async def _rename_by_copy(
        self, old_parent: Node, old_name: str, node: Node, new_parent: Node, new_name: str, target: Node | None
    ) -> None:
        """Make the content a draft under the new name, then take the old name out of the present."""
        if node.tree_path and isinstance(new_parent.directory, Listed):
            raise errors.CrossesArtifacts
        original = replace(node, nlookup=0, handles=0)
        staged = await self.writer.open(node, truncate=False)
        staged.touched, staged.writers = True, 0
        self.writer.overlay.drafts.setdefault(old_parent.ino, {})[old_name] = node
        node.artifact, node.parent, node.tree_path = None, old_parent.ino, ""
        await self._rename_draft(old_parent, old_name, node, new_parent, new_name, target)
        if original.artifact is None:
            return
        async with self.writer.publishing():
            if original.tree_path:
                await self._change(original, original.artifact, {original.tree_path: None})
            else:
                await self.writer.publisher(node.source).remove(original.artifact)
                self.writer.overlay.reserve(old_parent, old_name, original.artifact)

    async def _rename_directory(self, node: Node, new_parent: Node, new_name: str, target: Node | None) -> None:
        place, goal = node.directory, new_parent.directory
        if not isinstance(place, VersionDir) or not node.writable:
            message = "only a tree and what is in it can be renamed"
            raise errors.NotPermitted(message)
        if target is not None and (await self.directories.children(target)).children:
            raise errors.DirectoryNotEmpty(subject=new_name)
        publisher = self.writer.publisher(node.source)
        artifact = self.directories.history.newest(node.source, place.artifact)
        async with self.writer.publishing():
            if place.path and isinstance(goal, VersionDir) and goal.artifact.key == artifact.key:
                changed = await publisher.rename_in_tree(artifact, place.path, _join(goal.path, new_name))
                self.directories.apply_artifact(node.source, changed)
            elif not place.path and isinstance(goal, Listed) and artifact.kind is ArtifactKind.TREE:
                if target is not None and target.artifact is not None:
                    await publisher.remove(target.artifact)
                await publisher.rename(artifact, goal.ref, (*goal.prefix, new_name))
            else:
                raise errors.CrossesArtifacts


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name
