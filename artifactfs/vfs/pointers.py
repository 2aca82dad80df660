"""Files whose bytes the service may swap in place.

Rules of this file: an open file keeps the bytes it was opened on. Pages and size are shared by all who have an inode
open, so other bytes than theirs never go through them. A size is told to the kernel for as long as it is believed, and
not longer.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

from artifactfs.content.facts import PointerFact
from artifactfs.content.reader import ContentReader, pinned
from artifactfs.model.content import ContentRef, Hint, Inline, Pointer
from artifactfs.tree.nodes import Node
from artifactfs.vfs.handles import HandleTable, ReadHandle
from artifactfs.vfs.listings import TRANSIENT

# A pointer's bytes are believed for as long as a listing is; after that the next open reads them again.
BELIEVED_S = 60.0


@dataclass(slots=True)
class Pointers:
    """What the kernel has been shown of pointers, by inode number."""

    content: ContentReader
    handles: HandleTable
    _shown: dict[int, PointerFact] = field(default_factory=dict)

    def forget(self, ino: int) -> None:
        """Drop what is known of an inode that the kernel has dropped."""
        self._shown.pop(ino, None)

    def saved(self, node: Node) -> None:
        """Take note that an inode shows what this mount has just written to its pointer."""
        fact = self.content.pointer_fact(node.content) if isinstance(node.content, Pointer) else None
        if fact is not None:
            self._shown[node.ino] = fact
            node.size = Hint(fact.size)

    def believed_s(self, node: Node) -> float:
        """Return how much longer the size that was settled may be believed, in seconds; 0 if none was."""
        fact = self._shown.get(node.ino)
        return 0.0 if fact is None else max(0.0, fact.checked_at + BELIEVED_S - time.time())

    async def published(self, opened: ReadHandle) -> None:
        """Let who opened a file while it was being written read what that has become."""
        content = opened.node.content or Inline(b"")
        if isinstance(content, Pointer):
            content, *_ = await self.open(opened.node, content)
        opened.size = await self.content.size(content)
        opened.content, opened.of_edit = content, False

    def open_at_once(self, node: Node, pointer: Pointer) -> tuple[ContentRef, int] | None:
        """Return the bytes for a new handle and their number, if those that the kernel was shown are still believed."""
        shown, fact = self._shown.get(node.ino), self.content.pointer_fact(pointer)
        if shown is None or fact is None or fact.sha256 != shown.sha256:
            return None
        if time.time() - fact.checked_at > BELIEVED_S:
            return None
        return pinned(pointer, fact), fact.size

    async def settle(self, node: Node, pointer: Pointer) -> None:
        """Have the size of what a pointer shows: that last read, however old, or else what it is now."""
        _, fact = await self.content.pin(pointer, math.inf)
        if not self._is_held(node, fact):
            self._show(node, fact)

    async def open(self, node: Node, pointer: Pointer) -> tuple[ContentRef, bool, bool]:
        """Return the bytes for a new handle, whether the kernel may keep its pages, whether it must not use them."""
        before = self._shown.get(node.ino)
        content, fact = await self._pin(pointer)
        held = self._is_held(node, fact)
        if not held:
            self._show(node, fact)
        same = before is not None and before.sha256 == fact.sha256
        return content, same or held, held

    async def _pin(self, pointer: Pointer) -> tuple[ContentRef, PointerFact]:
        """Name the bytes there are now; those of the last time if the service cannot be asked."""
        try:
            return await self.content.pin(pointer, BELIEVED_S)
        except TRANSIENT:
            if self.content.pointer_fact(pointer) is None:
                raise
            return await self.content.pin(pointer, math.inf)

    def _show(self, node: Node, fact: PointerFact) -> None:
        self._shown[node.ino] = fact
        # Never exact: the same inode may show other bytes after the next open.
        node.size = Hint(fact.size)
        if fact.changed_ns:
            node.mtime_ns = fact.changed_ns

    def _is_held(self, node: Node, fact: PointerFact) -> bool:
        """Tell whether somebody reads other bytes through the kernel's pages: these and their size must stay."""
        shown = self._shown.get(node.ino)
        return (
            shown is not None
            and shown.sha256 != fact.sha256
            and any(isinstance(handle, ReadHandle) for handle in self.handles.of(node))
        )
