"""What everybody needs who publishes changes of one mount."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio

from artifactfs import errors
from artifactfs.content.reader import ContentReader
from artifactfs.journal.records import Record
from artifactfs.journal.staging import Staging
from artifactfs.model.entry import Artifact
from artifactfs.providers.base import Publisher
from artifactfs.tree.nodes import Node
from artifactfs.vfs.directories import Directories
from artifactfs.vfs.overlay import Overlay
from artifactfs.vfs.sources import Source

# May pass by itself. Credentials may be mended while we wait.
PASSES = (
    errors.Unavailable, errors.Unreachable, errors.TimedOut, errors.QuotaExceeded, errors.AccessDenied,
    errors.NoLocalSpace,
)  # fmt: skip


@dataclass(slots=True)
class Context:
    """The mount that changes are published of.

    Attributes:
        orders: of each source, held by whoever changes names in it: each such change is one step. Of one source
            alone: what one service keeps waiting is nothing to the others.
        report: told of source, path and message of what a person may ask about.
        tried: told of the source of each try, and what came of it: ``done``, or the state that the change is in now.
        saved: told of the source of each save.
        path_of: says the path of a node.
        settle: says which inode the kernel knows of what is listed, which a later version lists as another object.
        pointer_saved: told of an inode whose bytes are now those of a pointer that this mount has written.
    """

    sources: Mapping[str, Source]
    directories: Directories
    content: ContentReader
    overlay: Overlay
    orders: defaultdict[str, trio.Lock] = field(default_factory=lambda: defaultdict(trio.Lock))
    report: Callable[[str, str, str], None] = lambda _source, _path, _message: None
    tried: Callable[[str, str], None] = lambda _source, _outcome: None
    saved: Callable[[str], None] = lambda _source: None
    path_of: Callable[[Node], str] = lambda node: node.name
    settle: Callable[[Node], Node] = lambda node: node
    pointer_saved: Callable[[Node], None] = lambda _node: None

    def shown_at(self, node: Node, before: str) -> str:
        """Return the path of a node; as it was ``before`` if the kernel has forgotten the directories above it."""
        path = self.path_of(node)
        return before if before.endswith(f"/{path}") else path

    def forget(self, source: str, artifact: Artifact) -> None:
        """Let go of what was remembered of an artifact that this mount has removed, or replaced by another."""
        self.overlay.saved.removed(source, artifact)
        self.directories.history.removed(source, artifact)

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


@dataclass(slots=True)
class Try:
    """The ``providers.base.Attempt`` of a change: what its record says of earlier tries."""

    home: Staging
    record: Record
    is_first: bool

    @property
    def facts(self) -> dict[str, str]:
        """Return what earlier tries have noted."""
        return self.record.facts

    async def note(self, **facts: str) -> None:
        """Remember facts, durably before it returns."""
        self.record.facts.update(facts)
        await trio.to_thread.run_sync(self.home.journal.put, self.record)
