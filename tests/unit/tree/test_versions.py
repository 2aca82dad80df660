"""An artifact's own directory, its versions and their files, as nodes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactfs.model.content import Access, ContentRef, Exact, Inline, Pointer, Unknown
from artifactfs.model.entry import Artifact, ArtifactKind, Empty, SingleFile, TreeMember, Version
from artifactfs.tree import names, versions
from artifactfs.tree.layout import Level
from artifactfs.tree.nodes import Kind, Node, VersionDir

SECOND = 10**9
HASHES = ["0123456789abcdef" * 4, "0123456789ffffff" * 4, "fedcba9876543210" * 4]


def version(version_id: str = "v", at: int | None = None, content: Any = None) -> Version:
    found = content or SingleFile(ContentRef("work", version_id, (version_id,), Unknown(), Access.RANGED))
    return Version(version_id, found, created_at_ns=at)


def artifact(title: str = "notes.md", **facts: Any) -> Artifact:
    said: dict[str, Any] = {"kind": ArtifactKind.FILE, "current": version(), **facts}
    return Artifact((title,), "art_7f3a2c", "key-1", **said)


def shelf(found: Artifact) -> Node:
    return versions.shelf_node(found, found.id, 7, "work")


# -- the artifact's directory --------------------------------------------------------------------------------


def test_an_artifact_has_its_metadata_its_versions_and_latest() -> None:
    """Three names; ``latest`` leads to the current version, and is not there before there is one."""
    node = shelf(artifact(created_at_ns=3 * SECOND))
    level = versions.artifact_level(node, "vm0", "v3")
    assert set(level.children) == {"artifact.json", "versions", "latest"}
    assert level.children["latest"].target == "versions/v3"
    assert level.children["versions"].kind is Kind.DIRECTORY
    assert node.mtime_ns == 3 * SECOND
    assert set(versions.artifact_level(node, "vm0", None).children) == {"artifact.json", "versions"}


@given(st.text(st.characters()), st.none() | st.integers(-(2**62), 2**63 - 1))
def test_artifact_json_is_json_whatever_the_title_holds(title: str, at: int | None) -> None:
    """The title itself stays available unchanged, surrogates included; the size is that of the bytes."""
    found = artifact(title, created_at_ns=at, metadata={"said": title, "odd": {1, 2}.__class__})
    node = versions.artifact_level(shelf(found), "vm0", None).children["artifact.json"]
    assert isinstance(node.content, Inline)
    said = json.loads(node.content.data)
    assert (said["title"], said["path"], said["metadata"]["said"]) == (title, [title], title)
    assert said["service"] == "vm0"
    assert node.size == Exact(len(node.content.data))


def test_other_metadata_is_another_inode() -> None:
    """What a reader has open does not change underneath it."""
    one, other = (
        versions.artifact_level(shelf(artifact(metadata={"n": n})), "vm0", None).children["artifact.json"].ino
        for n in (1, 2)
    )
    assert one != other


# -- the list of versions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given_times",
    [[1, 2, 3], [3, 2, 1], [2, 2, 1], [1, 2, 2], [None, None, None], [1, None, 3], [3, None, 1]],
)
def test_v1_is_the_oldest(given_times: list[int | None]) -> None:
    """By times where all have one; else in the service's order, turned round if that is newest first."""
    rows = [version(str(n), at) for n, at in enumerate(given_times)]
    ordered = versions.in_order(rows)
    known = [v.created_at_ns for v in ordered if v.created_at_ns is not None]
    assert known == sorted(known)
    assert {v.id for v in ordered} == {v.id for v in rows}


@given(st.permutations(range(6)))
def test_times_decide_the_order(order: list[int]) -> None:
    """However a service orders versions with distinct times, vN is the same version."""
    ordered = versions.in_order([version(str(n), n * SECOND) for n in order])
    assert [v.id for v in ordered] == [str(n) for n in range(6)]


def listed(*found: Version, complete: bool = True) -> tuple[Node, Level]:
    node = shelf(artifact())
    return node, versions.versions_level(node, found, complete=complete)


def test_versions_are_listed_as_v1_to_vn() -> None:
    """Immutable, each an inode of its own, also where a save brought old content back."""
    _, level = listed(version("a", 1), version("b", 2), version("a", 3))
    assert list(level.children) == ["v1", "v2", "v3"]
    assert all(node.immutable for node in level.children.values())
    assert len({node.ino for node in level.children.values()}) == 3
    assert versions.latest_name([version("a", 1), version("b", 2), version("a", 3)], version("a")) == "v3"
    assert versions.latest_name([], None) is None
    assert versions.latest_name([version("b")], version("a")) is None


def test_what_the_service_may_swap_is_not_immutable() -> None:
    """A version whose bytes are a pointer must not be believed for a year."""
    _, level = listed(version("a", content=SingleFile(Pointer("work", "a", ("a",), Unknown()))))
    assert not level.children["v1"].immutable


def test_a_version_resolves_by_its_id_and_by_a_unique_beginning() -> None:
    """From eight characters on, in either case; a beginning of several, or of none, is nothing."""
    found = [version(version_id) for version_id in HASHES]
    node, _ = listed(*found)

    def target(name: str) -> str | None:
        link = versions.by_prefix(node, found, name)
        return None if link is None else link.target

    assert target(HASHES[1]) == "v2"
    assert target("0123456789f") == "v2"
    assert target("FEDCBA98") == "v3"
    assert target("fedcba9") is None
    assert target("01234567") is None
    assert target("00000000") is None
    assert [target(odd) for odd in ("^FF", "^empty", "^2E", "\udcff", "^66edcba98")] == [None] * 5


def test_a_short_version_id_resolves_only_whole() -> None:
    """Services whose ids have fewer than eight characters are asked for by all of them."""
    found = [version("a1"), version("a12")]
    node, _ = listed(*found)
    link = versions.by_prefix(node, found, "a1")
    assert link is not None
    assert (link.name, link.target) == ("a1", "v1")
    assert versions.by_prefix(node, found, "a") is None


# -- the files of a version ----------------------------------------------------------------------------------


def place(found: Artifact, of: Version, *, present: bool = False) -> Node:
    identity = ("version", "work", of.id)
    where = VersionDir(found, of, "", present)
    return Node(99, identity, Kind.DIRECTORY, "v1", directory=where, artifact=found, version=of, immutable=True)


def test_a_version_of_one_file_holds_it_under_its_own_name() -> None:
    """The plain name, with the extension of its type, whatever suffix the present gives it."""
    of = version("a", 5 * SECOND, SingleFile(Inline(b"12345"), executable=True))
    found = artifact("not/es", media_type="text/markdown", current=of)
    root = place(found, of)
    assert isinstance(root.directory, VersionDir)
    ((name, node),) = versions.file_level(root, root.directory).children.items()
    assert name == "not^2Fes.md"
    assert (node.size, node.executable, node.mtime_ns, node.immutable) == (Exact(5), True, 5 * SECOND, True)


def test_a_tree_is_laid_out_by_the_paths_of_its_members() -> None:
    """Parents that nobody names are implied, odd names encoded, empty directories kept."""
    members = [
        TreeMember("a/b/c.txt", "file", Inline(b"x"), 1),
        TreeMember("empty", "dir"),
        TreeMember("a/caf\udce9", "file", Inline(b""), 0, executable=True),
        TreeMember("a/to", "symlink", target="b/c.txt"),
        TreeMember("versions", "file", Inline(b"own"), 3),
    ]
    of = version("a", content=Empty())
    levels = versions.tree_levels(place(artifact(kind=ArtifactKind.TREE), of), members)
    assert {path: set(level.children) for path, level in levels.items()} == {
        "": {"a", "empty", "versions"},
        "a": {"b", names.encode("caf\udce9"), "to"},
        "a/b": {"c.txt"},
        "empty": set(),
    }
    link = levels["a"].children["to"]
    assert (link.kind, link.target, link.size) == (Kind.SYMLINK, "b/c.txt", Exact(7))
    assert levels["a"].children[names.encode("caf\udce9")].executable
    nodes = [node for level in levels.values() for node in level.children.values()]
    assert len({node.ino for node in nodes}) == len(nodes)


components = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=8).filter(
    lambda s: s not in {".", ".."}
)
tree_paths = st.lists(components, min_size=1, max_size=4).map("/".join)


@given(st.lists(tree_paths, max_size=8, unique=True), st.randoms(use_true_random=False))
def test_every_file_of_a_tree_is_found_by_its_names(paths: list[str], chance: Any) -> None:
    """Walking from the root by the listed names reaches every member, in whatever order the members come."""
    files = [p for p in paths if not any(other.startswith(f"{p}/") for other in paths)]
    members = [TreeMember(path, "file", Inline(path.encode("utf-8", "surrogatepass"))) for path in files]
    of = version("a", content=Empty())
    root = place(artifact(kind=ArtifactKind.TREE), of)
    levels = versions.tree_levels(root, members)
    for path in files:
        at = ""
        for part in path.split("/"):
            node = levels[at].children[names.encode(part)]
            at = f"{at}/{part}" if at else part
            assert node.tree_path == at
        assert node.kind is Kind.FILE
    chance.shuffle(members)
    again = versions.tree_levels(root, members)
    assert {p: {n: c.ino for n, c in level.children.items()} for p, level in again.items()} == {
        p: {n: c.ino for n, c in level.children.items()} for p, level in levels.items()
    }


def test_an_edited_tree_keeps_the_inodes_of_what_did_not_change() -> None:
    """In the present of a writable tree a file with the same bytes is the same inode in the next version."""
    numbers = []
    for of in (version("a", content=Empty()), version("b", content=Empty())):
        root = place(artifact(kind=ArtifactKind.TREE, writable=True), of, present=True)
        root.writable, root.source = True, "work"
        refs = {
            "same": ContentRef("work", "1", (), Exact(1), Access.LOCAL),
            "other": ContentRef("work", of.id, (), Exact(1), Access.LOCAL),
        }
        level = versions.tree_levels(root, [TreeMember(path, "file", ref, 1) for path, ref in refs.items()])[""]
        numbers.append((level.children["same"].ino, level.children["other"].ino))
    assert numbers[0][0] == numbers[1][0]
    assert numbers[0][1] != numbers[1][1]
