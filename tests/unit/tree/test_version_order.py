"""Which version is v1, and for how long: what a mount may promise the kernel."""

from __future__ import annotations

import itertools

from artifactfs.model.content import Access, ContentRef, Exact, Inline
from artifactfs.model.entry import Archive, Artifact, ArtifactKind, TreeMember, Version
from artifactfs.tree import versions
from artifactfs.tree.inodes import InodeTable, number
from artifactfs.tree.nodes import Kind, Node, VersionDir, VersionsDir

REF = ContentRef("work", "key", (), Exact(0), Access.STREAMED)


def version(identifier: str, at: int | None = None) -> Version:
    return Version(identifier, Archive(REF), created_at_ns=at)


def versions_node() -> Node:
    made = Artifact(("data",), "id", "id", ArtifactKind.TREE, None)
    return Node(7, ("versions",), Kind.DIRECTORY, "versions", directory=VersionsDir(made), artifact=made, source="work")


def tree_root() -> Node:
    made = Artifact(("data",), "id", "id", ArtifactKind.TREE, None)
    return Node(9, ("version",), Kind.DIRECTORY, "v1", directory=VersionDir(made, None), source="work", mtime_ns=5)


def test_directories_that_are_only_implied_are_listed_at_every_level() -> None:
    """A tree whose only member is deep down shows each directory above it, in the directory above that."""
    levels = versions.tree_levels(tree_root(), [TreeMember("pages/00/deep/a.txt", "file", Inline(b"x"), 1)])
    assert {path: list(level.children) for path, level in levels.items()} == {
        "": ["pages"], "pages": ["00"], "pages/00": ["deep"], "pages/00/deep": ["a.txt"],
    }  # fmt: skip


def test_the_tree_does_not_depend_on_the_order_of_its_members() -> None:
    """Files before their directories, directories named or implied: the same tree."""
    members = [
        TreeMember("a/b/c.txt", "file", Inline(b"x"), 1), TreeMember("a", "dir", mtime_ns=9), TreeMember("a/b", "dir"),
        TreeMember("a/d", "dir"), TreeMember("e.txt", "file", Inline(b""), 0),
    ]  # fmt: skip
    found = set()
    for order in itertools.permutations(members):
        levels = versions.tree_levels(tree_root(), order)
        found.add(
            tuple(
                (path, tuple(sorted((name, node.ino, node.mtime_ns) for name, node in level.children.items())))
                for path, level in sorted(levels.items())
            )
        )
    assert len(found) == 1


def test_a_current_version_that_the_list_does_not_have_yet_is_the_newest() -> None:
    """A version made between two requests becomes the last, also where the list is newest first, without a time."""
    a, b, new = version("a", 1), version("b", 2), version("new")
    assert versions.in_order([b, a], new) == [a, b, new]
    assert versions.in_order([b, a], b) == [a, b]


def test_only_a_whole_list_of_versions_is_for_ever() -> None:
    """v1 of a list that is cut short may be another version tomorrow: the kernel must not keep it for a year."""
    whole = versions.versions_level(versions_node(), [version("a")], complete=True)
    part = versions.versions_level(versions_node(), [version("a")], complete=False)
    assert whole.children["v1"].immutable
    assert not part.children["v1"].immutable


def test_a_content_that_came_back_is_a_version_and_an_inode_of_its_own() -> None:
    """The built-in store keeps a save that brings old content back: two places, two inodes, one id."""
    level = versions.versions_level(versions_node(), [version("a"), version("b"), version("a")], complete=True)
    assert len({node.ino for node in level.children.values()}) == 3
    link = versions.by_prefix(versions_node(), [version("a"), version("b"), version("a")], "a")
    assert link is not None
    assert link.target == "v3"


def test_identities_never_make_one_text() -> None:
    """Whatever titles hold (NUL, quotes, surrogates), other identities have other numbers."""
    identities = [("a", "b\0c"), ("a\0b", "c"), ("a", "b", "c"), ("a\0b\0c",), ("a', 'b", "c"), ("a", "b', 'c"),
                  ("\ud800",), ("\\ud800",)]  # fmt: skip
    assert len({number(identity) for identity in identities}) == len(identities)


def test_a_reply_counts_for_the_node_in_the_table() -> None:
    """A directory read long after it was opened holds nodes that look-ups have replaced: the counts add up."""
    table = InodeTable(Node(1, ("root",), Kind.DIRECTORY, ""))
    listed, looked_up = (Node(number(("x",)), ("x",), Kind.FILE, "x") for _ in range(2))
    table.apply_lookup(table.settle(looked_up))
    table.apply_lookup(listed)
    assert table.get(listed.ino) is looked_up
    assert looked_up.nlookup == 2
    table.apply_forget(listed.ino, 2)
    assert table.get(listed.ino) is None
