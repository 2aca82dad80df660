"""Layouts: whatever a listing says, each of its entries has a place and a name of its own, and ids stay reachable."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artifactfs.model.content import Access, ContentRef, Exact, Inline, Unknown
from artifactfs.model.entry import (
    Accepts,
    Artifact,
    ArtifactKind,
    DirRef,
    Empty,
    Folder,
    Note,
    Role,
    SingleFile,
    Version,
)
from artifactfs.tree import names
from artifactfs.tree.layout import BY_ID, CONTROL, LATEST, SHELF, Level, Path, Place, lay_out
from artifactfs.tree.nodes import Kind, Listed, Node, VersionDir

REF = DirRef("work", "workflow", ("wf-1",))
IDS = [f"art_{number:06x}" for number in range(24)]
# Titles that meet one another, the tree's own names, ids of other artifacts, and things Linux does not take.
TITLES = ["a", "a.md", "", ".", "..", "x/y", "latest", "by-id", ".artifacts", ".artifactfs", "a ~000001.md", "\ud800"]
TITLES += ["n" * 300, "versions", "artifact.json", *IDS[:6], "\u00e9", "e\u0301", "A.md", " "]
titles = st.one_of(st.sampled_from(TITLES), st.text(st.characters(), max_size=20))
paths = st.lists(titles, min_size=1, max_size=4).map(tuple)
times = st.one_of(st.none(), st.integers(0, 3))


def is_id(name: str) -> bool:
    return name in IDS


def place(role: Role = Role.WORKFLOW, *, show_ids: bool = False, reserved: frozenset[str] = frozenset()) -> Place:
    return Place(REF, role, Accepts.NOTHING, None, 77, is_id, show_ids, reserved)


def artifact(
    path: Path, artifact_id: str = IDS[0], at: int | None = None, *, tree: bool = False, media: str | None = None
) -> Artifact:
    content = ContentRef("work", artifact_id, (artifact_id,), Unknown(), Access.RANGED)
    version = Version("v", Empty() if tree else SingleFile(content))
    kind = ArtifactKind.TREE if tree else ArtifactKind.FILE
    return Artifact(path, artifact_id, artifact_id, kind, version, created_at_ns=at, media_type=media)


@st.composite
def listings(draw) -> list[Folder | Artifact | Note]:
    """Draw what a service might list: artifacts and notes at any depth, runs, folders with and without a listing."""
    entries: list[Folder | Artifact | Note] = []
    for artifact_id in draw(st.lists(st.sampled_from(IDS), unique=True, max_size=8)):
        media = draw(st.sampled_from([None, "text/markdown"]))
        entries.append(artifact(draw(paths), artifact_id, draw(times), tree=draw(st.booleans()), media=media))
    for number in range(draw(st.integers(0, 3))):
        ref = DirRef("work", "run", (str(number),)) if draw(st.booleans()) else None
        role = draw(st.sampled_from([Role.RUN, Role.PLAIN]))
        # A folder that the listing itself describes is known by its path: two of one path are one.
        folder = Folder(draw(paths), f"folder-{number}", ref, role, draw(times))
        if ref or all(not isinstance(e, Folder) or e.path != folder.path for e in entries):
            entries.append(folder)
    notes = draw(st.lists(st.tuples(paths, times), max_size=2))
    entries += [Note(path, f"note-{number}", b"{}", at) for number, (path, at) in enumerate(notes)]
    return entries


def walk(levels: dict[Path, Level], top: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Go through everything listed, as `find` does: from a folder into its level by what the node says."""
    for node in levels[top].children.values():
        yield top, node
        if isinstance(node.directory, Listed) and node.directory.ref == REF:
            assert node.directory.prefix[:-1] == top
            yield from walk(levels, node.directory.prefix)


@given(listings(), st.booleans())
def test_everything_listed_has_one_place_and_is_found_by_its_name(entries, show_ids):
    """No entry is lost or doubled, every key is the node's name, every level is reached from the top by names."""
    levels = lay_out(entries, place(show_ids=show_ids), complete=True)
    seen = list(walk(levels))
    assert {top for top, _ in seen} <= set(levels)
    for top, node in seen:
        assert levels[top].children[node.name] is node
        assert len(node.name.encode()) <= 255
        assert "/" not in node.name
    placed = sorted((top, n.artifact.key) for top, n in seen if n.artifact)
    assert placed == sorted((e.path[:-1], e.key) for e in entries if isinstance(e, Artifact))
    assert placed == sorted((top, key) for top, level in levels.items() for key in level.artifacts)
    notes = sum(1 for _, n in seen if n.kind is Kind.FILE and isinstance(n.content, Inline))
    assert notes == sum(1 for e in entries if isinstance(e, Note))
    points = [n.directory.ref for _, n in seen if isinstance(n.directory, Listed) and n.directory.ref != REF]
    assert sorted(points, key=repr) == sorted((e.ref for e in entries if isinstance(e, Folder) and e.ref), key=repr)


@given(listings(), st.randoms(use_true_random=False), st.integers(0, 3))
def test_order_and_paging_change_nothing(entries, chance: random.Random, repeated):
    """The same names, inode numbers, times and links, in whatever order and with whatever repeats the pages come."""
    listing = lay_out(entries, place(), complete=True)
    other = [*entries, *entries[:repeated]]
    chance.shuffle(other)
    again = lay_out(other, place(), complete=True)
    assert summary(again) == summary(listing)


def summary(levels: dict[Path, Level]) -> dict[Path, dict[str, tuple]]:
    return {
        top: {
            name: (node.ino, node.kind, node.target, node.mtime_ns, node.identity, node.directory)
            for name, node in (level.children | level.hidden).items()
        }
        for top, level in levels.items()
    }


@given(listings())
def test_inode_numbers_are_distinct_and_fit_a_signed_number(entries):
    """Everything a listing makes has a number of its own, above the kernel's own and below 2**63."""
    levels = lay_out(entries, place(show_ids=True), complete=True)
    nodes = [node for level in levels.values() for node in [*level.children.values(), *level.hidden.values()]]
    numbers = [node.ino for node in nodes]
    assert len(set(numbers)) == len(numbers)
    assert all(16 <= number < 2**63 for number in numbers)


@given(listings(), st.booleans())
def test_no_title_shadows_an_id_or_a_name_of_the_tree(entries, show_ids):
    """In a workflow ``by-id``, ``.artifacts``, ``latest`` and every artifact id mean what the tree says they mean."""
    level = lay_out(entries, place(show_ids=show_ids, reserved=frozenset({CONTROL})), complete=True)[()]
    assert level.children[BY_ID].target == SHELF
    assert level.hidden[SHELF].kind is Kind.DIRECTORY
    assert SHELF not in level.children
    assert CONTROL not in level.children
    runs = [e for e in entries if isinstance(e, Folder) and e.role is Role.RUN and len(e.path) == 1]
    if runs:
        target = level.children[LATEST].target
        assert target is not None
        pointed = level.children[target]
        newest = max(runs, key=lambda run: (run.mtime_ns or 0, run.id))
        assert isinstance(pointed.directory, Listed)
        assert pointed.directory.ref == (newest.ref or REF)
    for artifact_id in IDS:
        found = level.children.get(artifact_id)
        if found is not None and found.kind is not Kind.SYMLINK:
            # Only a folder that the service itself made may have a name of this form: a run, never a title's part.
            assert found.kind is Kind.DIRECTORY
            assert any(isinstance(e, Folder) and e.path[0] == artifact_id for e in entries)
        elif found is not None:
            assert show_ids
            assert found.target == f"{SHELF}/{artifact_id}"
    if show_ids:
        assert {a.id for a in level.artifacts.values()} <= set(level.children)


def test_a_title_that_is_another_artifacts_id_gets_a_suffix():
    """Files and trees; also a title that becomes an id only with the extension of its type taken away."""
    entries = [artifact((IDS[1],), IDS[0]), artifact((IDS[0],), IDS[1], tree=True), artifact((IDS[2],), IDS[2])]
    level = lay_out(entries, place(), complete=True)[()]
    shown = {node.artifact.id: name for name, node in level.children.items() if node.artifact}
    assert shown == {IDS[0]: f"{IDS[1]} ~000000", IDS[1]: f"{IDS[0]} ~000001", IDS[2]: f"{IDS[2]} ~000002"}
    named = lay_out([artifact((IDS[1],), IDS[0], media="text/plain")], place(), complete=True)[()]
    assert f"{IDS[1]}.txt" in named.children


def test_outside_a_workflow_nothing_is_reserved():
    """In a run's folder ``by-id`` and ids are names like any other: nothing resolves there."""
    entries = [
        artifact(("run", "by-id"), IDS[0]),
        artifact(("run", IDS[2]), IDS[1]),
        artifact(("run", "latest"), IDS[3]),
    ]
    levels = lay_out(entries, place(), complete=True)
    assert set(levels[("run",)].children) == {"by-id", IDS[2], "latest"}
    plain = lay_out([artifact(("by-id",), IDS[0])], place(Role.PLAIN), complete=True)
    assert set(plain[()].children) == {"by-id"}
    assert not plain[()].hidden


def test_one_listing_may_describe_many_levels():
    """Runs, phases and paths of one listing become directories; parents that nobody names are implied."""
    entries: list[Folder | Artifact | Note] = [
        Folder(("exec-1",), "exec-1", role=Role.RUN, mtime_ns=10),
        Folder(("exec-2",), "exec-2", role=Role.RUN, mtime_ns=20),
        artifact(("exec-1", "draft", "out", "deep", "a.md"), IDS[0], 5),
        artifact(("exec-1", "draft", "b.md"), IDS[1], 6),
        artifact(("top.md",), IDS[2], 7),
    ]
    levels = lay_out(entries, place(), complete=True)
    assert set(levels) == {
        (),
        ("exec-1",),
        ("exec-2",),
        ("exec-1", "draft"),
        ("exec-1", "draft", "out"),
        ("exec-1", "draft", "out", "deep"),
    }
    assert set(levels[()].children) == {"exec-1", "exec-2", "top.md", LATEST, BY_ID}
    assert levels[()].children[LATEST].target == "exec-2"
    assert set(levels[("exec-1", "draft")].children) == {"out", "b.md"}
    assert levels[("exec-2",)].children == {}
    assert levels[("exec-1",)].children["draft"].mtime_ns == 6
    assert levels[()].children["exec-1"].mtime_ns == 10


def test_a_folder_goes_before_a_file_of_its_name():
    """What is below a folder depends on its name, so the file gets the suffix, however old it is."""
    entries = [artifact(("notes",), IDS[0], 1), artifact(("notes", "a.md"), IDS[1], 2)]
    levels = lay_out(entries, place(), complete=True)
    assert isinstance(levels[()].children["notes"].directory, Listed)
    assert levels[()].children["notes ~000000"].artifact == entries[0]
    tree = [artifact(("notes",), IDS[0], 1, tree=True), artifact(("notes",), IDS[2], 2)]
    level = lay_out(tree, place(), complete=True)[()]
    assert isinstance(level.children["notes"].directory, VersionDir)


def test_two_folders_of_one_title_are_two_directories():
    """A folder with a listing of its own and one that titles imply do not mix."""
    own = Folder(("data",), "f-1", DirRef("work", "run", ("1",)), mtime_ns=1)
    levels = lay_out([own, artifact(("data", "a.md"), IDS[0])], place(), complete=True)
    inside = {name: n.directory.ref for name, n in levels[()].children.items() if isinstance(n.directory, Listed)}
    assert inside["data"] == own.ref
    assert sorted(inside.values(), key=repr) == sorted([own.ref, REF], key=repr)


@pytest.mark.parametrize(
    ("runs", "target"),
    [
        ([("r1", 1), ("r2", 2)], "r2"),
        ([("r1", 2), ("r2", 1)], "r1"),
        ([("r1", None), ("r2", None)], "r2"),
        ([("r1", 5), ("r2", 5)], "r2"),
        ([("r1", 1), ("latest", 2)], "latest ~latest"),
        ([("a/b", 3), ("r2", 1)], "a^2Fb"),
    ],
)
def test_latest_points_to_the_newest_run(runs, target):
    """By time, then by id, also to a run whose own title cannot be its name."""
    entries = [Folder((title,), title, role=Role.RUN, mtime_ns=at) for title, at in runs]
    level = lay_out(entries, place(), complete=True)[()]
    assert level.children[LATEST].target == target
    assert target in level.children


def test_without_runs_there_is_no_latest():
    """An artifact may be called ``latest`` where no run is."""
    level = lay_out([artifact(("latest",))], place(), complete=True)[()]
    assert level.children[LATEST].artifact is not None


def test_a_time_is_never_now():
    """The entry's own time, else an enclosing run's, else when it was first seen, else the directory's."""
    entries: list[Folder | Artifact | Note] = [
        Folder(("run",), "run", role=Role.RUN, mtime_ns=40),
        artifact(("own.md",), IDS[0], 30),
        artifact(("run", "phase", "a.md"), IDS[1]),
        artifact(("seen.md",), IDS[2]),
        artifact(("none.md",), IDS[3]),
    ]
    spot = Place(REF, Role.WORKFLOW, Accepts.NOTHING, None, 77, is_id, first_seen={IDS[2]: 50})
    levels = lay_out(entries, spot, complete=True)
    top = levels[()].children
    assert [top[n].mtime_ns for n in ("own.md", "seen.md", "none.md")] == [30, 50, 77]
    assert levels[("run", "phase")].children["a.md"].mtime_ns == 40


def test_an_incomplete_listing_says_so_on_every_level():
    """A name that is not there may exist all the same: negative look-ups must ask."""
    levels = lay_out([artifact(("a", "b.md"))], place(), complete=False)
    assert [level.complete for level in levels.values()] == [False, False]


def test_ten_thousand_entries_are_laid_out_quickly():
    """Flat with distinct titles or with equal ones, and in 5,000 folders: seconds at most, usually a fraction."""
    ids = [f"art_{number:06x}" for number in range(10_000)]
    shapes = {
        "distinct": [artifact((f"report {n}.md",), i, n) for n, i in enumerate(ids)],
        "equal": [artifact(("report.md",), i, n) for n, i in enumerate(ids)],
        "folders": [artifact((f"run {n % 5000}", "out", f"{n}.md"), i, n) for n, i in enumerate(ids)],
    }
    for entries in shapes.values():
        began = time.process_time()
        levels = lay_out(entries, place(), complete=True)
        took = time.process_time() - began
        assert sum(len(level.artifacts) for level in levels.values()) == 10_000
        # Takes 0.3 s on the slowest machine tried; what grows with the square takes minutes.
        assert took < 10


def test_names_of_inline_notes_follow_their_bytes():
    """A note with other bytes is another inode: its content never changes underneath a reader."""
    first, second = (
        lay_out([Note(("response.json",), "r", data, 1)], place(), complete=True)[()].children["response.json"]
        for data in (b"{}", b"[]")
    )
    assert first.ino != second.ino
    assert first.size == Exact(2)
    assert names.is_legal(first.name)
