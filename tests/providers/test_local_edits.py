"""Changes of a tree's entries, against the tree that a real directory would be."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactfs import errors
from artifactfs.providers.local.edits import change, move, overtaken
from artifactfs.store.rows import TreeFile
from artifactfs.store.trees import parents

PATHS = ("a", "b", "a/x", "a/y", "b/x", "a/x/deep", "c/d/e")


def file(path: str, text: str = "1") -> TreeFile:
    return TreeFile(path, hashlib.sha256(text.encode()).hexdigest(), len(text))


def shown(entries: list[TreeFile]) -> dict[str, str | None]:
    """Return what a directory of these entries shows: files with their hash, directories with None."""
    found: dict[str, str | None] = {parent: None for entry in entries for parent in parents(entry.path)}
    return found | {entry.path: entry.sha256 for entry in entries}


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["put", "rm", "mkdir", "mv"]), st.sampled_from(PATHS), st.sampled_from(PATHS)),
        max_size=14,
    )
)
def test_single_steps_do_what_a_directory_does(steps):
    """Each step either does what it would on a disk, or is refused with nothing changed."""
    entries: list[TreeFile] = []
    model: dict[str, str | None] = {}
    for number, (verb, path, other) in enumerate(steps):
        before = dict(model)
        try:
            if verb == "put":
                entries = change(entries, {path: file(path, str(number))})
                model |= dict.fromkeys(parents(path))
                model[path] = file(path, str(number)).sha256
            elif verb == "rm":
                entries = change(entries, {path: None})
                model.pop(path, None)
            elif verb == "mkdir":
                entries = change(entries, {}, [path])
                model |= dict.fromkeys([*parents(path), path])
            else:
                entries = move(entries, path, other)
                model |= dict.fromkeys(parents(other))
                for name in [n for n in model if n == path or n.startswith(f"{path}/")]:
                    model[other + name[len(path) :]] = model.pop(name)
        except errors.ArtifactFSError:
            assert model == before
        assert shown(entries) == model
        for name in model:
            assert all(model[parent] is None for parent in parents(name))


def test_a_directory_is_replaced_by_a_file_and_back_in_one_go():
    """Removals come first, so what they free can be taken."""
    entries = [file("a/x"), file("b")]
    entries = change(entries, {"a/x": None, "a": file("a"), "b": None, "b/y": file("b/y")})
    assert shown(entries).keys() == {"a", "b", "b/y"}


@pytest.mark.parametrize(
    ("changes", "made", "expected"),
    [
        ({"f/x": file("f/x")}, [], errors.NotADirectory),
        ({"l/x": file("l/x")}, [], errors.NotADirectory),
        ({}, ["f/x"], errors.NotADirectory),
        ({"d": file("d")}, [], errors.IsADirectory),
        ({"d": None}, [], errors.DirectoryNotEmpty),
        ({}, ["f"], errors.AlreadyExists),
        ({"../x": file("../x")}, [], errors.NameNotAllowed),
        ({"/x": file("/x")}, [], errors.NameNotAllowed),
        ({"a//b": file("a//b")}, [], errors.NameNotAllowed),
        ({}, ["a/.."], errors.NameNotAllowed),
        ({}, ["nul\0"], errors.NameNotAllowed),
    ],
)
def test_impossible_changes_are_refused(changes, made, expected):
    """Each for its own reason."""
    entries = [file("f"), file("d/x"), TreeFile("l", None, target="d")]
    with pytest.raises(expected):
        change(entries, changes, made)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("none", "x", errors.NotFound),
        ("d", "d/x/y", errors.InvalidRequest),
        ("d", "e", errors.DirectoryNotEmpty),
        ("d", "f", errors.NotADirectory),
        ("f", "e", errors.IsADirectory),
        ("f", "empty", errors.IsADirectory),
        ("e", "f/x", errors.NotADirectory),
        ("f", "../x", errors.NameNotAllowed),
    ],
)
def test_impossible_moves_are_refused(old, new, expected):
    """Each for its own reason."""
    entries = [file("f"), file("d/x"), file("e/x"), TreeFile("empty", None)]
    with pytest.raises(expected):
        move(entries, old, new)


def test_a_directory_may_take_the_place_of_an_empty_one():
    """And what it left stays a directory."""
    entries = move([file("p/d/x"), TreeFile("empty", None)], "p/d", "empty")
    assert shown(entries).keys() == {"p", "empty", "empty/x"}


def test_overtaken_means_changed_by_another_and_not_as_wanted():
    """Untouched paths, and those that are as wanted already, are nobody's conflict."""
    base = [file("same"), file("theirs"), file("removed")]
    now = [file("same"), file("theirs", "2"), file("new", "2")]
    assert overtaken(base, now, {"same": file("same", "3")}) is None
    assert overtaken(base, now, {"theirs": file("theirs", "2"), "removed": None}) is None
    assert overtaken(base, now, {"fresh": file("fresh")}) is None
    assert overtaken(base, now, {"theirs": file("theirs", "3")}) == "theirs"
    assert overtaken(base, now, {"theirs": None}) == "theirs"
    assert overtaken(base, now, {"removed": file("removed", "3")}) == "removed"
    assert overtaken(base, now, {"new": file("new", "3")}) == "new"
