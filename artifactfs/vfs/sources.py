"""The sources of one mount and what is known of each."""

from __future__ import annotations

from dataclasses import dataclass

from artifactfs.model.entry import DirRef
from artifactfs.providers.base import Provider
from artifactfs.tree.inodes import number
from artifactfs.tree.layout import directory_identity
from artifactfs.tree.nodes import Kind, Listed, Node


@dataclass(frozen=True, slots=True)
class Source:
    """One source in the mount.

    Attributes:
        name: in the configuration, and of its directory when several are mounted.
        provider: speaks its service.
        fingerprint: of service, address and account; keeps facts of different places apart.
        first_seen_ns: when this machine saw the source first; the time of what has no other.
    """

    name: str
    provider: Provider
    fingerprint: str
    first_seen_ns: int

    @property
    def keeps_listings(self) -> bool:
        """Tell whether the next mount may begin with what is known of this source.

        Not where this machine makes what is listed: asking costs no request, and nothing old may stand in for a save.
        """
        return not self.provider.is_here

    @property
    def top(self) -> DirRef:
        """Return the reference of the source's top directory."""
        ref = self.provider.root().ref
        if ref is None:
            message = f"the provider of {self.name} has a root without a listing"
            raise TypeError(message)
        return ref


def source_node(source: Source, name: str) -> Node:
    """Return the top directory of a source."""
    folder = source.provider.root()
    identity = directory_identity(source.top, ())
    return Node(
        number(identity), identity, Kind.DIRECTORY, name,
        directory=Listed(source.top, (), folder.role, folder.accepts),
        mtime_ns=folder.mtime_ns or source.first_seen_ns, source=source.name,
    )  # fmt: skip
