"""From a path that a person types to the artifact it is in, its versions, and the path in its tree.

Rules of this file: the last name of a path may stand for nothing any more; what was removed can be asked for.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from artifactfs import errors
from artifactfs.model.entry import Artifact, ArtifactKind, Role, Version
from artifactfs.tree import names
from artifactfs.tree.inodes import ROOT
from artifactfs.tree.nodes import Kind, Listed, Node, VersionDir
from artifactfs.vfs.filesystem import FileSystem
from artifactfs.vfs.overlay import Edit, WorkTree, join

# As many symlinks in a path as the kernel follows.
MAX_LINKS = 40
# As many characters of a version's id as name it, at least; as below ``versions``.
PREFIX_MIN = 4

Trail = list[tuple[str, Node]]
"""The way to a path: each place below the mount point, beginning with a slash (the top: empty), and its node."""


async def follow(fs: FileSystem, todo: deque[str], trail: Trail) -> None:
    """Add what is on the way along some names; symlinks are followed, except the last.

    Raises:
        NotFound: a name stands for nothing; it is the first that is left in ``todo``.
    """
    links = 0
    while todo:
        name = todo[0]
        if name == "..":
            todo.popleft()
            del trail[max(1, len(trail) - 1) :]
            continue
        # Not the node's own idea of its path: the kernel may never have asked for what is above it.
        here = f"{trail[-1][0]}/{name}"
        node = await fs.walk(here)
        todo.popleft()
        link = node.link
        if link is not None and todo and links < MAX_LINKS:
            links += 1
            todo.extendleft(reversed(link.split("/")))
        else:
            trail.append((here, node))


@dataclass(frozen=True, slots=True)
class Place:
    """What a path is in.

    Attributes:
        source, artifact: the artifact, as this mount knows it last.
        shown: path of the artifact below the mount point.
        path: in its tree, raw; "" is the artifact itself.
        workflow: path of the workflow below the mount point, in which ids resolve; None outside of one.
        node: what the path stands for; None for nothing.
        edit: what was written to it and is not at the service.
    """

    source: str
    artifact: Artifact
    shown: str
    path: str
    workflow: str | None
    node: Node | None
    edit: Edit | None = None

    @property
    def is_tree(self) -> bool:
        """Tell whether it is in a tree."""
        return self.artifact.kind is ArtifactKind.TREE

    def changes(self, fs: FileSystem) -> WorkTree | None:
        """Return the changes of the tree, if there are any."""
        return fs.writer.overlay.trees.get((self.source, self.artifact.key))

    async def version(self, fs: FileSystem, text: str) -> tuple[str, Version]:
        """Return the version that ``v3``, an id or the beginning of one names, and its name ``vN``.

        Raises:
            InvalidRequest: none, or more than one.
        """
        known = await fs.directories.history.versions_of(self.source, self.artifact)
        ordered = list(enumerate(known.ordered, start=1))
        hits = [(at, one) for at, one in ordered if text in {f"v{at}", one.id}]
        if not hits and len(text) >= PREFIX_MIN:
            hits = [(at, one) for at, one in ordered if one.id.lower().startswith(text.lower())]
        if not hits or len({one.id for _, one in hits}) > 1:
            many = "more than one version" if hits else "no version"
            raise errors.InvalidRequest(f"{many} of {self.artifact.path[-1]} is {text}; see `artifactfs log`")
        return f"v{hits[-1][0]}", hits[-1][1]

    def in_version(self, name: str, path: str) -> str:
        """Return the path below the mount point of a file of a version.

        Raises:
            InvalidRequest: its versions have no place in the mount.
        """
        if self.workflow is None:
            raise errors.InvalidRequest("this artifact is in no workflow: its versions have no path")
        if self.is_tree:
            inner = names.encoded(path)
        else:
            inner = names.with_extension(names.encode(self.artifact.path[-1]), self.artifact.media_type)
        return f"{self.workflow}/.artifacts/{names.encode(self.artifact.id)}/versions/{name}/{inner}".strip("/")

    def in_present(self, path: str) -> str:
        """Return the path below the mount point of a file of the artifact as it is shown now."""
        return f"{self.shown}/{names.encoded(path)}".strip("/") if self.is_tree else self.shown.strip("/")


async def locate(fs: FileSystem, path: str) -> Place:
    """Return what a path below the mount point is in.

    Raises:
        NotFound: there is no such path, and it is in no tree.
        InvalidRequest: it is part of no artifact, or of a past version of one.
    """
    trail: Trail = [("", fs.node(ROOT))]
    todo = deque(filter(None, path.split("/")))
    try:
        await follow(fs, todo, trail)
    except errors.NotFound:
        inside = trail[-1][1].directory
        if not isinstance(inside, VersionDir) or not inside.present:
            raise
    workflow = next((at for at, one in reversed(trail) if _is_workflow(one)), None)
    shown, node = trail[-1]
    edit = fs.writer.overlay.edits.get(node.ino)
    inside = node.directory or (edit.directory if edit is not None else trail[-2][1].directory)
    if isinstance(inside, VersionDir):
        if not inside.present:
            raise errors.InvalidRequest(f"{path} is in a past version; name the artifact itself")
        raw = inside.path if node.directory else join(inside.path, names.raw_name(node.name))
        return _in_tree(fs, inside.artifact, trail, list(todo), (node.tree_path or raw, workflow))
    if node.artifact is None or node.kind is not Kind.FILE:
        what = "is not at its service yet" if edit is not None else "is not part of an artifact"
        raise errors.InvalidRequest(f"{path} {what}")
    artifact = fs.directories.history.newest(node.source, node.artifact)
    return Place(node.source, artifact, shown, "", workflow, node, edit)


def _is_workflow(node: Node) -> bool:
    return isinstance(node.directory, Listed) and node.directory.role is Role.WORKFLOW


def _in_tree(
    fs: FileSystem, artifact: Artifact, trail: Trail, missing: list[str], where: tuple[str, str | None]
) -> Place:
    raw, workflow = where
    shown, node = trail[-1]
    depth = raw.count("/") + 1 if raw else 0
    above = shown.split("/")
    path = "/".join(filter(None, (raw, *(names.decode(name) or name for name in missing))))
    newest = fs.directories.history.newest(node.source, artifact)
    edit = fs.writer.overlay.edits.get(node.ino)
    top = "/".join(above[: len(above) - depth])
    return Place(node.source, newest, top, path, workflow, None if missing else node, None if missing else edit)
