"""What the journal has of each change, and the change again from that.

Rules of this file: no I/O. A record says everything that is needed to carry a change out without asking anybody: the
next mount may begin offline. What cannot be read raises ``ValueError``, and its bytes are kept.
"""

from __future__ import annotations

import base64
import time
from typing import Any

from artifactfs.journal.drafts import Staged
from artifactfs.journal.records import Record
from artifactfs.model import codec
from artifactfs.model.content import Content, Exact
from artifactfs.model.entry import Accepts, Artifact, DirRef, Role, SingleFile, TreeMember, Version
from artifactfs.tree.inodes import number
from artifactfs.tree.merging import Began
from artifactfs.tree.names import raw_name
from artifactfs.tree.nodes import Kind, Listed, Node, VersionDir
from artifactfs.vfs.overlay import Edit, Gone, Job, Removal, Spot, WorkTree, join

FILE, REMOVAL, TREE, NAME = "file", "removal", "tree", "name"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _artifact_text(artifact: Artifact | None) -> str | None:
    return None if artifact is None else _text(codec.pack_entries([artifact]))


def artifact_of(text: object) -> Artifact | None:
    """Return an artifact that was written into a record."""
    if not isinstance(text, str):
        return None
    (entry,) = codec.Reader().entries(base64.b64decode(text))
    if not isinstance(entry, Artifact):
        message = "not an artifact"
        raise ValueError(message)  # noqa: TRY004 - what is on disk is wrong, not a type of ours
    return entry


def _content_text(content: Content | None, *, executable: bool) -> str | None:
    return None if content is None else _text(codec.pack_versions([Version("", SingleFile(content, executable))]))


def _content_of(text: object) -> Content | None:
    if not isinstance(text, str):
        return None
    (version,) = codec.Reader().versions(base64.b64decode(text))
    return version.content.content if isinstance(version.content, SingleFile) else None


def _spot(directory: Spot) -> dict[str, Any]:
    match directory:
        case Listed(ref=ref, prefix=prefix, role=role, accepts=accepts):
            return {"at": [ref.kind, list(ref.args), list(prefix), role.value, accepts.value]}
        case VersionDir(artifact=artifact, path=path):
            return {"tree": _artifact_text(artifact), "path": path}


def spot_of(what: dict[str, Any], source: str) -> Spot:
    """Return the directory that a record names."""
    if "tree" in what:
        artifact = artifact_of(what["tree"])
        if artifact is None:
            message = "a tree without an artifact"
            raise ValueError(message)
        return VersionDir(artifact, artifact.current, str(what["path"]), present=True)
    kind, args, prefix, role, accepts = what["at"]
    return Listed(DirRef(source, kind, tuple(args)), tuple(prefix), Role(role), Accepts(accepts))


def _record(job: Job, what: dict[str, Any]) -> Record:
    job.acknowledged()
    what["shown"] = job.shown
    return Record(
        number=job.number, what=what, state=job.state, tries=job.tries, error=job.error, facts=dict(job.facts),
        since_ns=job.since_ns,
    )  # fmt: skip


def of_edit(edit: Edit, staged: Staged | None = None) -> Record:
    """Return the record of a file that was written: of its newest bytes, or of others that it still has."""
    own = staged or edit.staged
    behind = edit.in_flight.number if edit.in_flight and edit.in_flight is not own else None
    what = {
        "kind": FILE, **_spot(edit.directory), "name": edit.node.name, "base": _artifact_text(edit.base),
        "base_sha256": edit.base_sha256, "unhashed": edit.is_unhashed, "local": edit.is_local, "after": behind,
        "instead": edit.backup.number if edit.backup and edit.backup is not own else None,
        "over": list(edit.over), "doomed": edit.doomed, "at_ns": time.time_ns(), "raw": edit.path,
        "replaces": edit.replaces.number if edit.replaces else None,
    }  # fmt: skip
    record = _record(edit, what)
    record.number, record.executable, record.mtime_ns = own.number, own.executable, own.mtime_ns
    return record


def is_of_removed(edit: Edit) -> bool:
    """Tell whether all that is durable of an edit is a save of its name that was removed before the edit took that."""
    flight = edit.flight_record
    return flight is not None and bool(flight.what["doomed"]) and not edit.staged.sealed and edit.backup is None


def of_all(edit: Edit) -> list[Record]:
    """Return the records of all bytes of a file that were acknowledged: it has another name now, or another base."""
    flight, backup = edit.in_flight, edit.backup
    records = [of_edit(edit, flight)] if flight is not None and flight is not edit.staged else []
    for one in records:
        one.what.update({"after": None, "instead": None, "doomed": is_of_removed(edit)})
    if backup is not None:
        records.append(of_edit(edit, backup))
        records[-1].what["instead"] = None
    return [*records, of_edit(edit)] if edit.staged.sealed else records


def of_removal(removal: Removal) -> Record:
    """Return the record of an artifact that is to be removed."""
    what = {
        "kind": REMOVAL, **_spot(removal.directory), "name": removal.name,
        "artifact": _artifact_text(removal.artifact),
    }  # fmt: skip
    return _record(removal, what)


def of_tree(tree: WorkTree) -> Record:
    """Return the record of a changed tree: what its changes were made on."""
    what = {
        "kind": TREE, "base": _artifact_text(tree.base), "message": tree.message,
        "opaque": sorted(tree.opaque),
        "began": {path: _began_text(seen) for path, seen in tree.began.items()},
    }  # fmt: skip
    return _record(tree, what)


def _began_text(seen: Began) -> dict[str, Any]:
    match seen:
        case None:
            return {"is": "nothing"}
        case str():
            return {"is": "hash", "sha256": seen}
        case Artifact():
            return {"is": "version", "of": _artifact_text(seen)}
        case _:
            content = _content_text(seen.content, executable=seen.executable)
            return {"is": seen.kind, "content": content, "executable": seen.executable, "target": seen.target}


def began_of(path: str, what: dict[str, Any]) -> Began:
    """Return what a path of a tree was to who changed it."""
    match what["is"]:
        case "nothing":
            return None
        case "hash":
            return str(what["sha256"])
        case "version":
            return artifact_of(what["of"])
        case kind:
            content, executable = _content_of(what["content"]), bool(what["executable"])
            return TreeMember(path, str(kind), content, executable=executable, target=what["target"])


def of_name(tree: WorkTree, path: str, name: str, entry: Node | Gone) -> Record:
    """Return the record of what a name in a changed tree stands for, if that is no edit."""
    what: dict[str, Any] = {"kind": NAME, "of": tree.number, "path": path, "name": name}
    if isinstance(entry, Node):
        what["raw"] = join(path, raw_name(name, entry.tree_path))
    if isinstance(entry, Gone):
        what.update({"is": "gone", "was": entry.path})
    else:
        what.update({
            "is": entry.kind.value, "executable": entry.executable, "mtime_ns": entry.mtime_ns,
            "target": entry.target, "size": getattr(entry.size, "value", 0),
            "content": _content_text(entry.content, executable=entry.executable),
        })  # fmt: skip
    return Record(number=tree.records[path, name], what=what, since_ns=tree.since_ns)


def name_of(what: dict[str, Any], tree: WorkTree) -> Node | Gone:
    """Return what a name in a changed tree stands for."""
    if what["is"] == "gone":
        return Gone(str(what["was"]))
    at = str(what["path"]), str(what["name"])
    node = made_node(tree, *at, Kind(what["is"]), int(what["mtime_ns"]), str(what.get("raw", "")))
    node.executable, node.target = bool(what["executable"]), what["target"]
    node.content = _content_of(what["content"])
    node.size = Exact(int(what["size"]))
    return node


def made_node(tree: WorkTree, path: str, name: str, kind: Kind, mtime_ns: int, known: str = "") -> Node:
    """Return a node of something that was made in a tree here, or stands there under a raw path that is ``known``."""
    whole = join(path, raw_name(name, known))
    identity = ("made", tree.source, tree.base.key, whole, kind.value, str(mtime_ns))
    below = VersionDir(tree.base, tree.base.current, whole, present=True) if kind is Kind.DIRECTORY else None
    return Node(
        number(identity), identity, kind, name, directory=below, mtime_ns=mtime_ns, artifact=tree.base,
        version=tree.base.current, tree_path=whole, writable=True, source=tree.source,
    )  # fmt: skip
