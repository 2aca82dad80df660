"""Versions that a person asks for: one now, or an earlier one again.

Rules of this file: whatever it makes is a change like any other: durable here first, published by the write-back. What
waits at a path is not overwritten unless somebody says so.
"""

from __future__ import annotations

import errno
import time
from dataclasses import dataclass

import trio

from artifactfs import errors
from artifactfs.journal.records import Record
from artifactfs.model.content import Exact
from artifactfs.model.entry import SingleFile, TreeMember, Version
from artifactfs.providers.base import Change
from artifactfs.tree import names
from artifactfs.tree.merging import above, same
from artifactfs.tree.nodes import Kind, Node, VersionDir, link_size
from artifactfs.vfs import intents
from artifactfs.vfs.comparing import Comparing, Difference, Staying
from artifactfs.vfs.filesystem import FileSystem
from artifactfs.vfs.giving_up import GivingUp
from artifactfs.vfs.overlay import Edit, Gone, WorkTree, is_below, join, stays_here
from artifactfs.vfs.places import Place, locate
from artifactfs.vfs.tree_records import write_tree
from artifactfs.vfs.tree_taken import path_of

KINDS = {"file": Kind.FILE, "dir": Kind.DIRECTORY, "symlink": Kind.SYMLINK}
Members = dict[str, TreeMember]


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for and is under way.

    Attributes:
        below: path of the artifact below the mount point; it is published when nothing below it waits.
        changes: what the next version changes; nothing: there is nothing to be done.
        staying: what is not in it.
    """

    below: str
    changes: list[Difference]
    staying: list[Staying]


@dataclass(slots=True)
class Versioning:
    """Makes versions of the artifacts of one mount."""

    fs: FileSystem

    # -- commit ----------------------------------------------------------------------------------------------

    async def commit(self, path: str, message: str | None, *, dry_run: bool = False) -> Asked:
        """Have the next version of the tree that a path is in made now.

        Raises:
            InvalidRequest: the path is in no tree.
        """
        place = await locate(self.fs, path)
        if not place.is_tree:
            raise errors.InvalidRequest(f"{path} is not in a tree: each save of such a file is a version of its own")
        if not dry_run:
            await self.fs.namespace.idle(place.changes(self.fs))
        tree = place.changes(self.fs)
        below = place.shown.strip("/")
        if tree is None:
            return Asked(below, [], [])
        whole = Place(place.source, place.artifact, place.shown, "", place.workflow, None)
        changes, staying = await Comparing(self.fs).next_version(tree, whole)
        if changes and not dry_run:
            async with self.fs.writer.order(tree.source):
                tree.message, tree.shown = message, tree.shown or below
                await write_tree(tree)
            self.fs.writer.writeback.hurry("", tree)
        return Asked(below, changes, staying)

    # -- restore ---------------------------------------------------------------------------------------------

    async def restore(self, path: str, version: str, *, force: bool) -> Asked:
        """Let a path be again what it was in an earlier version of its artifact.

        Raises:
            InvalidRequest: there is no such version, or it does not have the path; the service keeps none.
            Conflict: changes of the path wait, and ``force`` does not say to drop them; or it is open for writing.
        """
        place = await locate(self.fs, path)
        if place.artifact.only_version:
            raise errors.InvalidRequest(f"the service of {path} keeps no earlier versions")
        name, wanted = await place.version(self.fs, version)
        if place.is_tree:
            return await self._restore_tree(place, name, wanted, force=force)
        return await self._restore_file(place, name, wanted, force=force)

    async def _restore_file(self, place: Place, name: str, version: Version, *, force: bool) -> Asked:
        content, below = version.content, place.shown.strip("/")
        if place.node is None or not isinstance(content, SingleFile):
            raise errors.InvalidRequest(f"{name} is not one file")
        if place.edit is not None:
            if not force:
                raise errors.Conflict(f"{below} has changes that wait; --force drops them")
            await GivingUp(self.fs).drop_edit(place.edit)
            place = await locate(self.fs, below)
        differs = await Comparing(self.fs).between(place, version.id, None)
        if differs and place.node is not None:
            edit = await self._write(place.node, content)
            self.fs.writer.writeback.hurry("", edit)
        return Asked(below, [_turned(one) for one in differs], [])

    async def _write(self, node: Node, content: SingleFile) -> Edit:
        """Save a content over a file, as a program would."""
        writer = self.fs.writer
        edit = await writer.open(node, truncate=True)
        try:
            await writer.beginner.fill(edit, content.content, copy=True)
            edit.staged.touched = edit.staged.dirty = True
            edit.staged.uncopied, edit.staged.mtime_ns = 0, time.time_ns()
            edit.staged.executable = node.executable = content.executable
            await writer.sealing.flush(edit)
        except BaseException as error:
            # Its writer has failed: what is there of it must not be saved.
            edit.staged.broken = OSError(errno.EIO, f"the earlier version could not be read: {error}")
            with trio.CancelScope(shield=True):
                await writer.release(edit)
            raise
        await writer.release(edit)
        self.fs.size_settled(node.ino)
        await self.fs.directories.trees.spoiled(node.ino)
        return edit

    # -- of a tree -------------------------------------------------------------------------------------------

    async def _restore_tree(self, place: Place, name: str, version: Version, *, force: bool) -> Asked:
        trees, source = self.fs.directories.trees, place.source
        await self.fs.writer.publisher(source).permits(Change.SAVE)
        await self._make_way(place, force=force)
        at = VersionDir(place.artifact, place.artifact.current, "", present=True)
        tree = self.fs.writer.work_trees.tree_of_artifact(source, at)
        base = {m.path: m for m in await trees.members(source, tree.base, tree.base.current)}
        wanted = {m.path: m for m in await trees.members(source, place.artifact, version)}
        if place.path and not any(is_below(path, place.path) for path in wanted):
            await self._let_go(tree)
            raise errors.InvalidRequest(f"{name} has no {place.path}")
        entries = _entries(tree, _below(base, place.path), _below(wanted, place.path))
        for _, raw in entries:
            if names.encode(raw) != raw:
                await self._let_go(tree)
                raise errors.InvalidRequest(f"{raw!r} has a name that can only come back with the whole of {name}")
        below = place.shown.strip("/")
        if not entries:
            await self._let_go(tree)
            return Asked(below, [], [])
        tree.shown, tree.message = tree.shown or below, tree.message or f"restore of {name}"
        await self._put(tree, entries)
        whole = Place(source, place.artifact, place.shown, place.path, place.workflow, None)
        changes, _ = await Comparing(self.fs).next_version(tree, whole)
        self.fs.writer.writeback.schedule_tree(tree)
        return Asked(below, changes, [])

    async def _make_way(self, place: Place, *, force: bool) -> None:
        """Drop what waits at and below a path of a tree, if that was said."""
        await self.fs.namespace.idle(place.changes(self.fs))
        tree = place.changes(self.fs)
        if tree is None:
            return
        waiting = {
            (path, name)
            for path, name, entry in tree.entries()
            if is_below(path_of(path, name, entry), place.path) and not stays_here(join(path, name))
        }
        if not waiting:
            return
        if not force:
            raise errors.Conflict(f"{place.in_present(place.path)} has changes that wait; --force drops them")
        await GivingUp(self.fs).drop_names(tree, waiting)

    async def _let_go(self, tree: WorkTree) -> None:
        """Forget a tree in which nothing was changed after all."""
        async with self.fs.writer.order(tree.source):
            if not tree.names and not self.fs.writer.overlay.edits_of(tree):
                await self.fs.writer.writeback.trees.settling.write_down(tree, [])

    async def _put(self, tree: WorkTree, entries: dict[tuple[str, str], Node | Gone]) -> None:
        async with self.fs.writer.order(tree.source):
            if self.fs.writer.overlay.trees.get((tree.source, tree.base.key)) is not tree:
                raise errors.Conflict("its changes were published in the same moment; try again")
            records: list[Record] = []
            for (path, name), entry in entries.items():
                self.fs.writer.beginnings.note(tree, path, name, None)
                tree.names.setdefault(path, {})[name] = entry
                tree.records.setdefault((path, name), tree.home.next_number())
                if isinstance(entry, Node) and entry.kind is Kind.DIRECTORY:
                    tree.opaque.add(join(path, name))
                records.append(intents.of_name(tree, path, name, entry))
            await write_tree(tree, *records)
        for path, name in entries:
            try:
                parent = (await self.fs.walk(f"{tree.shown}/{names.encoded(path)}")).ino
            except errors.ArtifactFSError:
                continue  # a directory that comes back: the kernel has nothing of it
            self.fs.directories.listings.changed(parent, name)


def _turned(one: Difference) -> Difference:
    """Return a difference seen from the other side: what was the present is the old one."""
    return Difference(one.path, one.status, one.new, one.old, one.new_size, one.old_size, one.new_link, one.old_link)


def _below(members: Members, path: str) -> Members:
    """Return the members at and below a path, with the directories that they imply."""
    found = {at: member for at, member in members.items() if is_below(at, path)}
    for at in list(found):
        for directory in above(at):
            if is_below(directory, path):
                found.setdefault(directory, TreeMember(directory, "dir"))
    return found


def _entries(tree: WorkTree, base: Members, wanted: Members) -> dict[tuple[str, str], Node | Gone]:
    """Return what names have to stand for so that a part of a tree is what is wanted."""
    found: dict[tuple[str, str], Node | Gone] = {}
    for path in sorted(base.keys() | wanted.keys()):
        directory, _, name = path.rpartition("/")
        there = wanted.get(path)
        if there is None:
            hidden = any(base.get(up) is not None and not _is_directory(wanted.get(up)) for up in above(path))
            if not hidden:
                found[directory, name] = Gone(path)
        elif not same(base.get(path), there):
            found[directory, name] = _node(tree, there)
    return found


def _is_directory(member: TreeMember | None) -> bool:
    return member is not None and member.kind == "dir"


def _node(tree: WorkTree, member: TreeMember) -> Node:
    """Return a node of something that comes back; a new one, so that the kernel keeps nothing of the other."""
    directory, _, name = member.path.rpartition("/")
    now = time.time_ns()
    node = intents.made_node(tree, directory, name, KINDS[member.kind], now)
    node.content, node.target, node.executable = member.content, member.target, member.executable
    node.size = link_size(member.target) if node.kind is Kind.SYMLINK else Exact(member.size)
    node.mtime_ns = member.mtime_ns or now
    return node
