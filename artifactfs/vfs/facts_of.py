"""What is known of a node, for xattrs and ``why``."""

from __future__ import annotations

from typing import Any

import trio

from artifactfs.content.reader import ContentReader
from artifactfs.model.content import ArchiveMember, ContentRef, Exact, Hint, Pointer
from artifactfs.tree.nodes import Node
from artifactfs.tree.versions import iso
from artifactfs.vfs.known import Known

PREFIX = "user.artifactfs."


def describe(node: Node, service: str, content: ContentReader) -> dict[str, Any]:
    """Return the facts about what a node shows; None where nobody says."""
    artifact, version = node.artifact, node.version
    if artifact is None:
        return {"service": service or None, "state": "synced"}
    return {
        "id": artifact.id,
        "version": version.id if version else None,
        "service": service,
        "title": artifact.path[-1],
        "workflow": artifact.workflow,
        "run": artifact.run,
        "content-type": artifact.media_type,
        "created-at": iso((version.created_at_ns if version else None) or artifact.created_at_ns),
        "created-by": version.created_by if version else None,
        "message": version.message if version else None,
        "sha256": _sha256(node, content),
        "state": "draft" if node.draft is not None else "synced",
    }


def _sha256(node: Node, content: ContentReader) -> str | None:
    if isinstance(node.content, ContentRef | ArchiveMember):
        return node.content.sha256
    if isinstance(node.content, Pointer):
        fact = content.pointer_fact(node.content)
        return fact.sha256 if fact else None
    return None


def size_known(node: Node) -> str:
    """Return how sure the size is."""
    return {Exact: "exact", Hint: "hint"}.get(type(node.size), "unknown")


def freshness(known: Known | None) -> dict[str, str]:
    """Return as extended attributes how old the listing is that shows a node, in seconds, and whether it is whole."""
    if known is None:
        return {}
    age_s = known.age_s(trio.current_time())
    found = {PREFIX + "complete": "yes" if known.complete else "no"}
    if age_s is not None:
        found[PREFIX + "age"] = f"{age_s:.0f}"
    if known.failure is not None:
        found[PREFIX + "stale-because"] = str(known.failure)
    return found


def xattrs(node: Node, service: str, content: ContentReader) -> dict[str, str]:
    """Return the extended attributes of a node by their full names."""
    return {PREFIX + name: str(value) for name, value in describe(node, service, content).items() if value is not None}
