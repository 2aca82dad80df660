"""What a node takes over from a newer listing, and what it keeps."""

from __future__ import annotations

from artifactfs.model.content import Access, ContentRef, Exact, Hint, Inline, Unknown
from artifactfs.tree.nodes import Kind, Node, inline_size


def node(size: Exact | Hint | Unknown, *, mtime_ns: int = 1, draft: int | None = None) -> Node:
    content = ContentRef("work", "k", (), size, Access.RANGED)
    return Node(
        20, ("present", "k"), Kind.FILE, "a", content=content, size=size, mtime_ns=mtime_ns, parent=7, draft=draft
    )


def test_a_settled_size_stays_settled() -> None:
    """A listing that only hints does not unlearn what reading has shown: the inode's bytes are the same."""
    known = node(Exact(5))
    known.apply_refresh(node(Hint(9), mtime_ns=2))
    assert (known.size, known.mtime_ns) == (Exact(5), 2)
    known.apply_refresh(node(Unknown()))
    assert known.size == Exact(5)
    doubtful = node(Unknown())
    doubtful.apply_refresh(node(Exact(6)))
    assert doubtful.size == Exact(6)


def test_a_file_being_edited_keeps_what_its_writer_set() -> None:
    """Time, size and content are the draft's until it is published; name and place follow the listing."""
    edited = node(Exact(5), mtime_ns=99, draft=1)
    newer = node(Exact(7), mtime_ns=2)
    newer.name, newer.parent = "b", 8
    edited.apply_refresh(newer)
    assert (edited.size, edited.mtime_ns, edited.name, edited.parent) == (Exact(5), 99, "b", 8)


def test_a_node_without_a_parent_does_not_lose_one() -> None:
    """A node made by a listing that does not know its place keeps the known one."""
    known, newer = node(Exact(1)), node(Exact(1))
    newer.parent = 0
    known.apply_refresh(newer)
    assert known.parent == 7


def test_inline_bytes_say_their_size() -> None:
    """And nothing else does."""
    assert inline_size(Inline(b"abc")) == Exact(3)
    assert inline_size(None) == Exact(0)
