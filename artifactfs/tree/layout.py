"""From what a provider listed to directories with names.

Rules of this file: pure. One listing may describe several levels (an artifact's path has several titles); a folder with
a listing of its own is a level of that listing, not of this one. The present is listed, the past is addressable: what
begins with ``hidden`` resolves but is not listed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from artifactfs.model.content import Exact, Inline
from artifactfs.model.entry import (
    Accepts,
    Artifact,
    ArtifactKind,
    DirRef,
    Entry,
    Folder,
    Note,
    Role,
    SingleFile,
)
from artifactfs.tree import names
from artifactfs.tree.inodes import number
from artifactfs.tree.nodes import IdShelf, Kind, Listed, Node, VersionDir, inline_size

Path = tuple[str, ...]

SHELF = ".artifacts"
BY_ID = "by-id"
LATEST = "latest"
CONTROL = ".artifactfs"


@dataclass(slots=True)
class Level:
    """One directory.

    Attributes:
        children: listed nodes by name.
        hidden: nodes that resolve by name without being listed.
        complete: False if a name that is not here may exist all the same.
    """

    children: dict[str, Node] = field(default_factory=dict)
    hidden: dict[str, Node] = field(default_factory=dict)
    complete: bool = True
    _names: dict[str, str] | None = None

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """Return what stands directly here, by key."""
        return {node.artifact.key: node.artifact for node in self.children.values() if node.artifact is not None}

    def of(self, key: str) -> Node | None:
        """Return the node of an artifact that stands directly here."""
        if self._names is None:
            # Made at the first change or question: each after that would go through a million otherwise.
            self._names = {node.artifact.key: name for name, node in self.children.items() if node.artifact is not None}
        node = self.children.get(self._names.get(key, ""))
        return node if node is not None and node.artifact is not None and node.artifact.key == key else None

    def put(self, name: str, node: Node) -> None:
        """Let a name stand for a node."""
        self.children[name] = node
        if self._names is not None and node.artifact is not None:
            self._names[node.artifact.key] = name

    def take_out(self, key: str) -> Artifact | None:
        """Show an artifact here no more; return it as it was shown."""
        node = self.of(key)
        if node is None or self._names is None:
            return None
        del self.children[self._names.pop(key)]
        return node.artifact


@dataclass(frozen=True, slots=True)
class Place:
    """Where a listing stands.

    Attributes:
        ref: the listing point.
        role: what its own folder means.
        accepts: what may be made in it.
        workflow: the workflow it stands in, if it is below one.
        mtime_ns: of its folder, for what says no time of its own.
        is_artifact_id: whether a name has the form of this source's artifact ids.
        show_ids: list the id links too.
        reserved: names the tree itself uses at the top of this listing.
        first_seen: when artifacts without any time were seen first, by their key, in ns.
    """

    ref: DirRef
    role: Role
    accepts: Accepts
    workflow: tuple[DirRef, Path] | None
    mtime_ns: int
    is_artifact_id: Callable[[str], bool]
    show_ids: bool = False
    reserved: frozenset[str] = frozenset()
    first_seen: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Shape:
    """The levels before they have names, by raw path.

    ``inner`` are folders whose contents this listing says (``None``: only implied by what is below them); ``points``
    are folders with a listing of their own, by the path of their parent.
    """

    inner: dict[Path, Folder | None] = field(default_factory=dict)
    points: dict[Path, dict[str, Folder]] = field(default_factory=dict)
    leaves: dict[Path, list[Artifact | Note]] = field(default_factory=dict)


def lay_out(entries: Iterable[Entry], place: Place, *, complete: bool) -> dict[Path, Level]:
    """Return the levels of a listing by raw prefix; () is the listed directory itself."""
    shape = _gather(entries)
    by_parent: dict[Path, list[Folder]] = {}
    for path, folder in shape.inner.items():
        by_parent.setdefault(path[:-1], []).append(folder or Folder(path, id=""))
    for parent, points in shape.points.items():
        by_parent.setdefault(parent, []).extend(points.values())
    return {
        prefix: _level(prefix, by_parent.get(prefix, []), shape, place, complete=complete)
        for prefix in ((), *shape.inner)
    }


def _gather(entries: Iterable[Entry]) -> _Shape:
    shape = _Shape()
    for entry in entries:
        parent = entry.path[:-1]
        for depth in range(1, len(parent) + 1):
            shape.inner.setdefault(parent[:depth])
        if not isinstance(entry, Folder):
            shape.leaves.setdefault(parent, []).append(entry)
        elif entry.ref is None:
            shape.inner[entry.path] = shape.inner.get(entry.path) or entry
        else:
            shape.points.setdefault(parent, {}).setdefault(entry.id, entry)
    return shape


def _level(prefix: Path, folders: list[Folder], shape: _Shape, place: Place, *, complete: bool) -> Level:
    level = Level(complete=complete)
    role, workflow = _meaning(prefix, shape, place)
    claims, makers = _claims(prefix, folders, shape, place, workflow)
    reserved = set(place.reserved) if not prefix else set()
    runs = [folder for folder in folders if folder.role is Role.RUN]
    if runs:
        reserved.add(LATEST)
    if role is Role.WORKFLOW:
        reserved |= {SHELF, BY_ID}
        claims = [_not_an_id(claim, place) for claim in claims]
    given = names.assign(claims, reserved)
    for key, make in makers.items():
        node = make(given[key])
        level.children[node.name] = node
    if runs:
        newest = max(runs, key=lambda run: (run.mtime_ns or 0, run.id))
        when = newest.mtime_ns or place.mtime_ns
        level.children[LATEST] = _link((place.ref, prefix), LATEST, given[_folder_key(newest)], when)
    if role is Role.WORKFLOW:
        _add_shelf(level, prefix, place)
    return level


# What the key of a folder without an id begins with.
IMPLIED = "d:\0"


def _folder_key(folder: Folder) -> str:
    return f"d:{folder.id}\0{folder.path[-1]}"


def _not_an_id(claim: names.Claim, place: Place) -> names.Claim:
    """Mark a title that reads as an artifact id: the plain name belongs to the artifact of that id."""
    # A folder that only titles imply is as much their maker's word as a title; the service's own folders are not.
    if (claim.folder and not claim.key.startswith(IMPLIED)) or not place.is_artifact_id(
        names.with_extension(names.encode(claim.title), claim.media_type)
    ):
        return claim
    return names.Claim(
        claim.title + f" ~{names.short_id(claim.id)}", claim.key, claim.id, claim.age, claim.folder, claim.media_type
    )


def _meaning(prefix: Path, shape: _Shape, place: Place) -> tuple[Role, tuple[DirRef, Path] | None]:
    """Return what a level is, and the workflow it stands in (the level itself, if it is one)."""
    role = place.role
    workflow = (place.ref, ()) if role is Role.WORKFLOW else place.workflow
    for depth in range(1, len(prefix) + 1):
        folder = shape.inner.get(prefix[:depth])
        role = folder.role if folder else Role.PLAIN
        if role is Role.WORKFLOW:
            workflow = (place.ref, prefix[:depth])
    return role, workflow


def _claims(
    prefix: Path, folders: list[Folder], shape: _Shape, place: Place, workflow: tuple[DirRef, Path] | None
) -> tuple[list[names.Claim], dict[str, Callable[[str], Node]]]:
    claims: list[names.Claim] = []
    makers: dict[str, Callable[[str], Node]] = {}
    for folder in folders:
        raw, key = folder.path[-1], _folder_key(folder)
        claims.append(names.Claim(raw, key, folder.id or raw, _age(folder.mtime_ns, folder.id), folder=True))
        makers[key] = _folder_maker(folder, place, workflow, shape)
    for leaf in shape.leaves.get(prefix, ()):
        key = f"f:{leaf.key}" if isinstance(leaf, Artifact) else f"n:{leaf.id}"
        if key in makers:
            continue
        media = leaf.media_type if isinstance(leaf, Artifact) and leaf.kind is ArtifactKind.FILE else None
        created = leaf.created_at_ns if isinstance(leaf, Artifact) else leaf.mtime_ns
        claims.append(names.Claim(leaf.path[-1], key, leaf.id, _age(created, leaf.id), media_type=media))
        makers[key] = _leaf_maker(leaf, prefix, shape, place)
    return claims, makers


def _age(created_ns: int | None, identifier: str) -> tuple[float, str]:
    # Not as a float: those of our time are 256 ns apart.
    return (created_ns if created_ns is not None else float("inf"), identifier)


def _folder_maker(
    folder: Folder, place: Place, workflow: tuple[DirRef, Path] | None, shape: _Shape
) -> Callable[[str], Node]:
    ref, prefix = (folder.ref or place.ref), (() if folder.ref else folder.path)
    if folder.role is Role.WORKFLOW:
        workflow = (ref, prefix)
    directory = Listed(ref, prefix, folder.role, folder.accepts, workflow)
    identity = directory_identity(ref, prefix)
    mtime = folder.mtime_ns or _newest(folder.path, shape) or place.mtime_ns

    def make(name: str) -> Node:
        return Node(
            number(identity), identity, Kind.DIRECTORY, name, directory=directory, mtime_ns=mtime, source=ref.source
        )

    return make


def directory_identity(ref: DirRef, prefix: Path) -> tuple[str, ...]:
    """Return what a listed directory is."""
    return ("dir", ref.source, ref.kind, *ref.args, "", *prefix)


def _newest(path: Path, shape: _Shape) -> int:
    """Return the newest time among what stands directly in a folder, 0 if nothing says one."""
    times = [_leaf_time(leaf) or 0 for leaf in shape.leaves.get(path, ())]
    return max(times, default=0)


def _leaf_time(leaf: Artifact | Note) -> int | None:
    return (leaf.updated_at_ns or leaf.created_at_ns) if isinstance(leaf, Artifact) else leaf.mtime_ns


def _leaf_maker(leaf: Artifact | Note, prefix: Path, shape: _Shape, place: Place) -> Callable[[str], Node]:
    enclosing = next(
        (f.mtime_ns for n in range(len(prefix), 0, -1) if (f := shape.inner.get(prefix[:n])) and f.mtime_ns), None
    )
    seen = place.first_seen.get(leaf.key) if isinstance(leaf, Artifact) else None
    mtime = _leaf_time(leaf) or enclosing or seen or place.mtime_ns

    def make(name: str) -> Node:
        if isinstance(leaf, Note):
            return inline_node(("note", place.ref.source, leaf.id), name, leaf.data, mtime, place.ref.source)
        return present_node(leaf, name, mtime, place.ref.source)

    return make


def present_node(artifact: Artifact, name: str, mtime_ns: int, source: str) -> Node:
    """Return the node that shows an artifact's current version among the listed."""
    version = artifact.current
    base = ("present", source, artifact.key, version.id if version else "")
    if artifact.kind is ArtifactKind.TREE:
        # A tree that is edited in place keeps its inode from version to version, or a shell in it would be lost.
        identity = ("edited", source, artifact.key, "tree") if artifact.writable else (*base, "tree")
        return Node(
            number(identity), identity, Kind.DIRECTORY, name,
            directory=VersionDir(artifact, version, present=True), mtime_ns=mtime_ns, artifact=artifact,
            version=version, writable=artifact.writable, source=source,
        )  # fmt: skip
    return file_node((*base, "file"), name, artifact, mtime_ns, source)


def present_place(identity: Path) -> Path:
    """Return what an identity of ``present_node``, or of what is below it, says but for the version."""
    return (*identity[:3], *identity[4:])


def file_node(identity: Path, name: str, artifact: Artifact, mtime_ns: int, source: str) -> Node:
    """Return the node of an artifact that is one file, at its current version."""
    version = artifact.current
    node = Node(
        number(identity), identity, Kind.FILE, name, mtime_ns=mtime_ns, artifact=artifact, version=version,
        writable=artifact.writable, source=source,
    )  # fmt: skip
    if version is not None and isinstance(version.content, SingleFile):
        content = version.content.content
        node.content, node.executable = content, version.content.executable
        node.size = inline_size(content) if isinstance(content, Inline) else getattr(content, "size", Exact(0))
    return node


def inline_node(identity: Path, name: str, data: bytes, mtime_ns: int, source: str) -> Node:
    """Return a small read-only file whose bytes are known; other bytes make another inode."""
    whole = (*identity, hashlib.sha256(data).hexdigest())
    return Node(
        number(whole), whole, Kind.FILE, name, content=Inline(data), size=Exact(len(data)), mtime_ns=mtime_ns,
        source=source,
    )  # fmt: skip


def _link(where: tuple[DirRef, Path], name: str, target: str, mtime_ns: int) -> Node:
    ref, prefix = where
    identity = ("link", ref.source, ref.kind, *ref.args, "", *prefix, name, target)
    return Node(
        number(identity), identity, Kind.SYMLINK, name, target=target,
        size=Exact(len(target.encode())), mtime_ns=mtime_ns, source=ref.source,
    )  # fmt: skip


def _add_shelf(level: Level, prefix: Path, place: Place) -> None:
    where = (place.ref, prefix)
    identity = ("shelf", place.ref.source, place.ref.kind, *place.ref.args, "", *prefix)
    level.hidden[SHELF] = Node(
        number(identity), identity, Kind.DIRECTORY, SHELF, directory=IdShelf(place.ref, prefix),
        mtime_ns=place.mtime_ns, source=place.ref.source,
    )  # fmt: skip
    level.children[BY_ID] = _link(where, BY_ID, SHELF, place.mtime_ns)
    if place.show_ids:
        for artifact in level.artifacts.values():
            node = id_link(place.ref, prefix, artifact.id, place.mtime_ns)
            level.children.setdefault(node.name, node)


def id_link(ref: DirRef, prefix: Path, artifact_id: str, mtime_ns: int) -> Node:
    """Return the symlink by which an artifact's id resolves in its workflow."""
    name = names.encode(artifact_id)
    return _link((ref, prefix), name, f"{SHELF}/{name}", mtime_ns)
