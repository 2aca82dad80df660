"""How the store looks through VM0: its trees, with one version per distinct content.

Rules of this file: reads only, synchronous, called in threads. VM0 names a version by its content, so a
content that came back is one version: the first one's times and bytes stand for all, and an archive never
changes under an id.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from artifactfs.store.catalog import Store
    from artifactfs.store.rows import StoredArtifact, StoredVersion

# The service's own rule for a prefix (service source, January 2026).
MIN_PREFIX = 8
HEX = re.compile(r"[0-9a-fA-F]+")


class NoVersion(Exception):
    """Why no version answers to a name; ``is_malformed`` if the name itself is what is wrong."""

    def __init__(self, reason: str, *, is_malformed: bool = False) -> None:
        """Keep the reason, in the service's words."""
        super().__init__(reason)
        self.reason = reason
        self.is_malformed = is_malformed


def trees(store: Store, role: str) -> list[StoredArtifact]:
    """Return the artifacts of a role (``artifact`` or ``volume``), newest first, then by id."""
    found = [a for a in store.artifacts() if a.kind == "tree" and a.role == role]
    return sorted(found, key=newest_first)


def newest_first(artifact: StoredArtifact) -> tuple[int, str]:
    """Return the key of the listing's order; it is total, so that pages never repeat or lose a row."""
    return -artifact.created_at_ns, artifact.uuid


def by_uuid(store: Store, role: str, uuid: str) -> StoredArtifact | None:
    """Return the tree of that UUID and role; None too if it was deleted."""
    found = store.artifact(uuid)
    if found is None or found.uuid != uuid or found.kind != "tree" or found.role != role or found.deleted:
        return None
    return found


def by_name(store: Store, role: str, name: str) -> StoredArtifact | None:
    """Return the tree of that name; of several the oldest, so that a later one never takes a name over."""
    found = [artifact for artifact in trees(store, role) if artifact.name == name]
    return found[-1] if found else None


def distinct(store: Store, artifact: StoredArtifact) -> list[StoredVersion]:
    """Return the first version of each content, newest first."""
    first: dict[str, StoredVersion] = {}
    for version in store.versions(artifact.id):
        first.setdefault(version.id, version)
    return sorted(first.values(), key=lambda v: (-v.created_at_ns, -v.seq))


def head(store: Store, artifact: StoredArtifact) -> StoredVersion | None:
    """Return the version in the present, None if there is none yet."""
    return store.version(artifact.id, artifact.current) if artifact.current else None


def resolve(store: Store, artifact: StoredArtifact, name: str | None) -> StoredVersion:
    """Return the version of that id or unique prefix, of the present without one.

    Raises:
        NoVersion: there is none; says why in the service's words.
    """
    known = distinct(store, artifact)
    if not name:
        current = head(store, artifact)
        if current is None:
            raise NoVersion(f"'{artifact.name}' has no versions")
        return next(version for version in known if version.id == current.id)
    exact = [version for version in known if version.id == name]
    if exact:
        return exact[0]
    if not HEX.fullmatch(name):
        raise NoVersion("Invalid version format. Expected hexadecimal characters.", is_malformed=True)
    if len(name) < MIN_PREFIX:
        raise NoVersion(f"Version prefix too short. Minimum {MIN_PREFIX} characters required.", is_malformed=True)
    matching = [version for version in known if version.id.startswith(name.lower())]
    if not matching:
        raise NoVersion(f"Version '{name}' not found")
    if len(matching) > 1:
        raise NoVersion(f"Ambiguous version prefix '{name}'", is_malformed=True)
    return matching[0]


def archive_key(artifact: StoredArtifact, version_id: str, name: str = "archive.tar.gz") -> str:
    """Return where a version's archive or manifest stands on the storage origin, without the leading slash."""
    return f"{artifact.role}/{artifact.uuid}/{version_id}/{name}"
