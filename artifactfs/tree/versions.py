"""Artifact directories, version lists and the files of a version, as nodes.

Rules of this file: pure. Everything below a version id is immutable unless its bytes are a pointer. ``v1`` is the
oldest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from artifactfs.model.content import ArchiveMember, Content, Exact, Inline, Pointer
from artifactfs.model.entry import Artifact, ArtifactKind, SingleFile, TreeMember, Version
from artifactfs.tree import names
from artifactfs.tree.inodes import number
from artifactfs.tree.layout import LATEST, Level, inline_node
from artifactfs.tree.nodes import ArtifactDir, Kind, Node, VersionDir, VersionsDir, inline_size, link_size

METADATA = "artifact.json"
VERSIONS = "versions"
# The least of a version id that names it, as VM0's own rule; shorter prefixes meet too easily.
PREFIX_MIN = 8


def iso(ns: int | None) -> str | None:
    """Return a time as ISO 8601 in UTC."""
    if ns is None:
        return None
    return datetime.fromtimestamp(ns / 1e9, tz=UTC).isoformat().replace("+00:00", "Z")


def describe(artifact: Artifact, service: str, source: str) -> dict[str, Any]:
    """Return what ``artifact.json`` says."""
    current = artifact.current
    return {
        "id": artifact.id,
        "title": artifact.path[-1],
        "path": list(artifact.path),
        "kind": artifact.kind.value,
        "service": service,
        "source": source,
        "workflow": artifact.workflow,
        "run": artifact.run,
        "content_type": artifact.media_type,
        "current_version": current.id if current else None,
        "created_at": iso(artifact.created_at_ns),
        "updated_at": iso(artifact.updated_at_ns),
        "created_by": current.created_by if current else None,
        "metadata": dict(artifact.metadata),
    }


def shelf_node(artifact: Artifact, name: str, mtime_ns: int, source: str) -> Node:
    """Return an artifact's own directory, as ``.artifacts`` lists it."""
    identity = ("artifact", source, artifact.key)
    return Node(
        number(identity), identity, Kind.DIRECTORY, name, directory=ArtifactDir(artifact),
        mtime_ns=artifact.updated_at_ns or artifact.created_at_ns or mtime_ns, artifact=artifact, source=source,
    )  # fmt: skip


def artifact_level(node: Node, service: str, latest: str | None) -> Level:
    """Return the content of an artifact's own directory; ``latest`` is the name of the current version."""
    artifact = node.artifact
    if artifact is None:
        raise TypeError(node)
    text = json.dumps(describe(artifact, service, node.source), indent=2, ensure_ascii=False, default=str) + "\n"
    data = text.encode("utf-8", "backslashreplace")
    level = Level()
    level.children[METADATA] = inline_node(
        ("metadata", node.source, artifact.key), METADATA, data, node.mtime_ns, node.source
    )
    identity = ("versions", node.source, artifact.key)
    level.children[VERSIONS] = Node(
        number(identity), identity, Kind.DIRECTORY, VERSIONS, directory=VersionsDir(artifact),
        mtime_ns=node.mtime_ns, artifact=artifact, source=node.source,
    )  # fmt: skip
    if latest is not None:
        level.children[LATEST] = _link(node, LATEST, f"{VERSIONS}/{latest}")
    return level


def _link(node: Node, name: str, target: str) -> Node:
    artifact = node.artifact
    identity = ("version link", node.source, artifact.key if artifact else "", name, target)
    return Node(
        number(identity), identity, Kind.SYMLINK, name, target=target, size=Exact(len(target.encode())),
        mtime_ns=node.mtime_ns, source=node.source,
    )  # fmt: skip


def in_order(versions: Sequence[Version], current: Version | None = None) -> list[Version]:
    """Return versions oldest first: by their times, and where those are equal or missing by the service's order.

    ``current`` is added as the newest if the service's list was made before it.
    """
    ordered = list(versions)
    times = [v.created_at_ns for v in ordered if v.created_at_ns is not None]
    if times and times[0] > times[-1]:
        ordered.reverse()
    if len(times) == len(ordered):
        ordered.sort(key=lambda v: v.created_at_ns or 0)
    if current is not None and all(version.id != current.id for version in ordered):
        ordered.append(current)
    return ordered


def latest_name(ordered: Sequence[Version], current: Version | None) -> str | None:
    """Return ``vN`` of the current version: the newest with its id."""
    if current is None:
        return None
    for at in range(len(ordered), 0, -1):
        if ordered[at - 1].id == current.id:
            return f"v{at}"
    return None


def versions_level(node: Node, ordered: Sequence[Version], *, complete: bool) -> Level:
    """Return ``versions/``: vN listed, ids and their prefixes resolvable (see ``by_prefix``)."""
    artifact = node.artifact
    if artifact is None:
        raise TypeError(node)
    level = Level(complete=complete)
    seen: set[str] = set()
    for at, version in enumerate(ordered, start=1):
        identity: tuple[str, ...] = ("version", node.source, artifact.key, version.id)
        if version.id in seen:
            # The built-in store keeps every save, also one that brings old content back.
            identity = (*identity, str(at))
        seen.add(version.id)
        level.children[f"v{at}"] = Node(
            number(identity), identity, Kind.DIRECTORY, f"v{at}", directory=VersionDir(artifact, version),
            mtime_ns=version.created_at_ns or node.mtime_ns, artifact=artifact, version=version,
            # Of a list that is cut short nobody knows where it begins: what is v1 today may be v7 once it is whole.
            immutable=complete and not _is_pointer(version), source=node.source,
        )  # fmt: skip
    return level


def _is_pointer(version: Version) -> bool:
    return isinstance(version.content, SingleFile) and isinstance(version.content.content, Pointer)


def by_prefix(node: Node, ordered: Sequence[Version], name: str) -> Node | None:
    """Return the symlink for a version id or a unique prefix of one, None if it names none or several."""
    text = names.decode(name)
    if text is None or len(text) < 1:
        return None
    exact = [at for at, version in enumerate(ordered, start=1) if version.id == text]
    if exact:
        return _link(node, name, f"v{exact[-1]}")
    if len(text) < PREFIX_MIN:
        return None
    lowered = text.lower()
    hits = {version.id: at for at, version in enumerate(ordered, start=1) if version.id.lower().startswith(lowered)}
    return _link(node, name, f"v{next(iter(hits.values()))}") if len(hits) == 1 else None


def file_level(node: Node, place: VersionDir) -> Level:
    """Return the directory of a version that is one file."""
    version, artifact = place.version, place.artifact
    level = Level()
    if version is None or not isinstance(version.content, SingleFile):
        return level
    name = names.encode(artifact.path[-1])
    if artifact.kind is ArtifactKind.FILE:
        name = names.with_extension(name, artifact.media_type)
    content = version.content.content
    identity = (*node.identity, "file")
    level.children[name] = Node(
        number(identity), identity, Kind.FILE, name, content=content,
        size=inline_size(content) if isinstance(content, Inline) else getattr(content, "size", Exact(0)),
        mtime_ns=version.created_at_ns or node.mtime_ns, executable=version.content.executable,
        immutable=node.immutable, artifact=artifact, version=version, source=node.source,
    )  # fmt: skip
    return level


def tree_levels(root: Node, members: Iterable[TreeMember]) -> dict[str, Level]:
    """Return the directories of a version that is a tree by raw path; "" is its root.

    Members have safe relative paths and every parent is among them or implied.
    """
    by_parent: dict[str, dict[str, TreeMember]] = {"": {}}
    for member in members:
        _imply(by_parent, member.path)
        parent, _, name = member.path.rpartition("/")
        by_parent[parent][name] = member
        if member.kind == "dir":
            by_parent.setdefault(member.path, {})
    return {path: _tree_level(root, children) for path, children in by_parent.items()}


def _imply(by_parent: dict[str, dict[str, TreeMember]], path: str) -> None:
    """Have every directory above a path, each one in its own parent."""
    above = path.rpartition("/")[0]
    missing = []
    while above not in by_parent:  # "" always is
        missing.append(above)
        by_parent[above] = {}
        above = above.rpartition("/")[0]
    for directory in missing:
        parent, _, name = directory.rpartition("/")
        by_parent[parent].setdefault(name, TreeMember(directory, "dir"))


def _tree_level(root: Node, children: Mapping[str, TreeMember]) -> Level:
    claims = [names.Claim(raw, raw, raw, folder=member.kind == "dir") for raw, member in children.items()]
    given = names.assign(claims)
    level = Level()
    for raw, member in children.items():
        node = member_node(root, member, given[raw])
        level.children[node.name] = node
    return level


def _content_mark(content: Content | None, place: VersionDir) -> str:
    """Return what tells the content of a file in an edited tree from others that its path has had."""
    match content:
        case ArchiveMember(sha256=str(sha256)):
            return sha256
        case ArchiveMember():  # while its archive arrives; ``vfs.trees`` gives it its own when that is here
            return place.version.id if place.version else ""
        case Inline(data):
            return hashlib.sha256(data).hexdigest()
        case _:
            return str(getattr(content, "key", ""))


def apart_from_content(identity: tuple[str, ...]) -> tuple[str, ...]:
    """Return what an identity of ``member_node`` says but for the content that a file of an edited tree has."""
    return identity if identity[0] != "edited" else (*identity[:6], *identity[7:])


def member_place(identity: tuple[str, ...]) -> tuple[str, ...]:
    """Return what an identity of ``member_node`` says of where it stands, in an edited tree; others are as they are."""
    return identity if identity[0] != "edited" else (*identity[:5], *identity[9:])


def member_node(root: Node, member: TreeMember, name: str) -> Node:
    """Return the node of one file, directory or symlink of a version."""
    place = root.directory
    if not isinstance(place, VersionDir):
        raise TypeError(root)
    # Where a tree is edited in place, an unchanged file keeps its inode from one version to the next.
    content = member.content
    stable = place.present and root.writable
    mark = () if not stable else (_content_mark(content, place), str(member.executable), member.target or "")
    base = ("edited", root.source, place.artifact.key) if stable else root.identity
    again = (str(member.serial),) if member.serial else ()
    identity = (*base, "/", member.path, member.kind, *mark, *again)
    kind = {"dir": Kind.DIRECTORY, "symlink": Kind.SYMLINK}.get(member.kind, Kind.FILE)
    size = link_size(member.target) if kind is Kind.SYMLINK else Exact(member.size)
    below = VersionDir(place.artifact, place.version, member.path, place.present) if kind is Kind.DIRECTORY else None
    return Node(
        number(identity), identity, kind, name, directory=below,
        content=content, target=member.target, size=size, mtime_ns=member.mtime_ns or root.mtime_ns,
        executable=member.executable, immutable=root.immutable, artifact=place.artifact, version=place.version,
        tree_path=member.path, writable=root.writable, source=root.source,
    )  # fmt: skip
