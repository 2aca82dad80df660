"""The cases of a merge that have a name of their own; what holds for all of them is in tests/property."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from artifactfs.model.content import Access, ArchiveMember, ContentRef, Exact, Inline
from artifactfs.model.entry import TreeMember
from artifactfs.providers.base import Draft
from artifactfs.tree.merging import Wanted, marked, merge, same

MARK = "conflict 10:00"


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def ref(text: str, *, known: bool = True) -> ContentRef:
    return ContentRef("s", f"key of {text}", (), Exact(len(text)), Access.RANGED, sha(text) if known else None)


def tree(**files: str) -> dict[str, TreeMember]:
    """Return a tree; two underscores stand for a slash, no content for a directory."""
    paths = {name.replace("__", "/"): text for name, text in files.items()}
    return {
        path: TreeMember(path, "file", ref(text), len(text)) if text else TreeMember(path, "dir")
        for path, text in paths.items()
    }


def draft(text: str, *, executable: bool = False) -> Draft:
    return Draft(Path("/nowhere"), len(text), sha(text), executable=executable, mtime_ns=0)


def file(content: ContentRef | Inline | ArchiveMember, *, executable: bool = False) -> TreeMember:
    return TreeMember("p", "file", content, 1, executable=executable)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (None, None, True),
        (draft("x"), None, False),
        (draft("x"), file(ref("x")), True),
        (draft("x"), file(ref("y")), False),
        (draft("x", executable=True), file(ref("x")), False),
        (file(ref("x"), executable=True), file(ref("x")), False),
        (draft("x"), file(Inline(b"x")), True),
        (file(Inline(b"x")), file(Inline(b"y")), False),
        # What nobody has hashed is the same only by its name.
        (draft("x"), file(ref("x", known=False)), False),
        (file(ref("x")), file(ref("x", known=False)), True),
        (file(ref("x", known=False)), file(ref("y", known=False)), False),
        (file(ArchiveMember(ref("a"), 512, 1, sha("x"))), draft("x"), True),
        (file(ArchiveMember(ref("a"), 512, 1)), file(ArchiveMember(ref("a"), 512, 1)), True),
        (file(ArchiveMember(ref("a"), 512, 1)), file(ArchiveMember(ref("a"), 1024, 1)), False),
        (TreeMember("p", "symlink", target="a"), TreeMember("p", "symlink", target="b"), False),
        (TreeMember("p", "symlink", target="a", mtime_ns=1), TreeMember("p", "symlink", target="a"), True),
        (TreeMember("p", "dir"), TreeMember("p", "dir", mtime_ns=1), True),
        (TreeMember("p", "dir"), TreeMember("p", "symlink", target="a"), False),
    ],
)
def test_same_is_what_a_path_says_but_not_when(one, other, expected):
    """Content by hash, x bit, kind and target."""
    assert same(one, other) is expected
    assert same(other, one) is expected


def test_both_changed_a_file_and_both_are_kept():
    """Theirs keeps the path, ours the extension."""
    merged = merge(tree(d__n="1", e="1"), tree(d__n="2", e="1"), {"d/n": draft("3"), "e": draft("1")}, MARK)
    beside = f"d/n ({MARK})"
    assert merged.beside == {"d/n": beside}
    assert merged.manifest == tree(d__n="2", e="1") | {beside: draft("3")}
    assert merged.changes


def test_a_name_that_is_taken_is_numbered():
    """By theirs, by something that the writer made or removed there, and by another one that is kept."""
    long = "n" * 250
    theirs = {path: TreeMember(path, "file", ref("2")) for path in (f"{long}1.md", f"{long}2.md")}
    cut = marked(f"{long}1.md", MARK)
    head = theirs | {cut: TreeMember(cut, "file", ref("9"))}
    numbered = [marked(f"{long}1.md", f"{MARK} {number}") for number in (2, 3, 4)]
    changes = {path: draft("3") for path in theirs} | {numbered[0]: None}
    merged = merge({}, head, changes, MARK)
    assert merged.beside == {f"{long}1.md": numbered[1], f"{long}2.md": numbered[2]}
    assert merged.manifest.keys() == head.keys() | set(numbered[1:])


def test_a_removal_loses_against_a_change_on_either_side():
    """The file that was removed comes back, or stays."""
    merged = merge(tree(a="1", b="1", c="1"), tree(b="2"), {"a": draft("3"), "b": None, "c": None}, MARK)
    assert merged.manifest == tree(b="2") | {"a": draft("3")}
    assert merged.kept == {"b"}
    assert merged.beside == {}


def test_their_file_where_we_need_a_directory():
    """What is below it goes into one marked directory, an own empty one too."""
    changes: dict[str, Wanted] = {
        "d.x/1": draft("1"),
        "d.x/e/2": draft("2"),
        "f": TreeMember("f", "dir"),
        "f/3": draft("3"),
    }
    merged = merge(
        {}, {"d.x": TreeMember("d.x", "file", ref("9")), "f": TreeMember("f", "file", ref("9"))}, changes, MARK
    )
    assert merged.beside == {
        "d.x/1": f"d.x ({MARK})/1",
        "d.x/e/2": f"d.x ({MARK})/e/2",
        "f": f"f ({MARK})",
        "f/3": f"f ({MARK})/3",
    }
    assert merged.manifest.keys() == {"d.x", "f", *merged.beside.values()}


def test_a_marked_directory_is_nobody_elses():
    """Not one that the base had, nor the one of another directory whose marked name is cut to the same."""
    long = "n" * 250
    head = {f"{long}{at}": TreeMember(f"{long}{at}", "file", ref("9")) for at in (1, 2)}
    merged = merge({}, head, {f"{long}1/a": draft("1"), f"{long}2/a": draft("2")}, MARK)
    first, second = (marked(long, mark, folder=True) for mark in (MARK, f"{MARK} 2"))
    assert merged.beside == {f"{long}1/a": f"{first}/a", f"{long}2/a": f"{second}/a"}
    head = {"d": TreeMember("d", "file", ref("9"))}
    merged = merge({f"d ({MARK})": TreeMember(f"d ({MARK})", "dir")}, head, {"d/a": draft("1")}, MARK)
    assert merged.beside == {"d/a": f"d ({MARK} 2)/a"}


def test_their_directory_where_we_need_a_file():
    """Theirs stays, with what we have not removed in it."""
    merged = merge(tree(d__x="1"), tree(d__x="1", d__y="2"), {"d/x": None, "d": draft("3")}, MARK)
    assert merged.manifest == tree(d__y="2") | {f"d ({MARK})": draft("3")}
    assert merged.beside == {"d": f"d ({MARK})"}


def test_a_removed_directory_goes_only_if_nobody_changed_anything_in_it():
    """An addition of theirs keeps it; so does what the writer puts there."""
    base = tree(d__x="1", d__e="")
    assert merge(base, base, {"d": None}, MARK).manifest == {}
    merged = merge(base, base | tree(d__y="2"), {"d": None}, MARK)
    assert merged.manifest == base | tree(d__y="2")
    assert (set(merged.kept), merged.changes) == ({"d"}, False)
    merged = merge(base, base, {"d": None, "d/z": draft("3")}, MARK)
    assert merged.manifest == base | {"d/z": draft("3")}
    assert merged.kept == frozenset()


def test_an_empty_directory_of_theirs_keeps_what_it_is_in():
    """It is a member like any other; one that was there already is not."""
    assert merge(tree(d__x="1"), tree(d__e=""), {"d": None, "d/x": None}, MARK).kept == {"d"}
    assert merge(tree(d__e__x="1"), tree(d__e=""), {"d": None}, MARK).manifest == {}


def test_a_directory_in_place_of_a_removed_file_is_theirs_unless_it_is_ours():
    """Theirs keeps the name; one that an earlier merge of the same changes has made is as it was wanted."""
    assert merge(tree(d="1"), tree(d=""), {"d": None}, MARK).kept == {"d"}
    assert merge(tree(d="1"), tree(d__x="2"), {"d": None}, MARK).kept == {"d"}
    assert merge(tree(d="1"), tree(d__x="2"), {"d": None, "d/x": draft("2")}, MARK).kept == frozenset()


def test_a_path_that_was_put_as_it_had_been_is_not_changed():
    """So what somebody else did there stands, a removal too."""
    merged = merge(tree(a="1", b="1"), tree(b="2"), {"a": draft("1"), "b": draft("1")}, MARK)
    assert (merged.manifest, merged.beside, merged.changes) == (tree(b="2"), {}, False)


def test_removing_the_last_file_leaves_its_directory():
    """As on a disk; unless it was removed too."""
    base = tree(d__e__x="1")
    assert merge(base, base, {"d/e/x": None}, MARK).manifest == tree(d__e="")
    assert merge(base, base, {"d/e/x": None, "d/e": None}, MARK).manifest == tree(d="")
    base = tree(d__e__x="1", d__y="1")
    assert merge(base, base, {"d/e/x": None, "d/y": None}, MARK).manifest == tree(d__e="")


def test_a_moved_member_knows_its_new_path():
    """What is kept beside, too."""
    base = tree(a="1", b="1")
    moved = base["a"]
    assert merge(base, base, {"a": None, "c": moved}, MARK).manifest == tree(b="1", c="1")
    found = merge(base, base | tree(c="2"), {"a": None, "c": moved}, MARK).manifest
    assert found[f"c ({MARK})"] == TreeMember(f"c ({MARK})", "file", ref("1"), 1)


@pytest.mark.parametrize(
    ("name", "folder", "expected"),
    [
        ("a.md", False, f"a ({MARK}).md"),
        ("a", False, f"a ({MARK})"),
        (".profile", False, f".profile ({MARK})"),
        ("v1.2", True, f"v1.2 ({MARK})"),
        ("\udcff.md", False, f"\udcff ({MARK}).md"),
        ("\u65e5" * 85, False, "\u65e5" * 79 + f" ({MARK})"),
        ("n" * 300 + ".tgz", False, "n" * 234 + f" ({MARK}).tgz"),
    ],
)
def test_a_marked_name_fits_and_keeps_its_extension(name, folder, expected):
    """Cut at a code point."""
    assert marked(name, MARK, folder=folder) == expected
    assert len(expected.encode("utf-8", "surrogatepass")) <= 255


def test_a_large_tree_is_merged_in_little_time():
    """10,000 files in 100 directories, most of them changed on both sides; 0.15 s here, quadratic would be minutes."""
    paths = [f"d{at % 100}/f{at}" for at in range(10_000)]
    base = {path: TreeMember(path, "file", ref("1")) for path in paths}
    head = {path: TreeMember(path, "file", ref("2")) for path in paths}
    changes = dict.fromkeys(paths, draft("3")) | {f"d{at}": None for at in range(100)}
    started = time.perf_counter()
    merged = merge(base, head, changes, MARK)
    assert time.perf_counter() - started < 5
    assert len(merged.manifest) == 20_000
