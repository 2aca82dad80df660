"""Three-way merges of trees: what was made by anybody is there afterwards, and in its place unless that is disputed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from artifactfs.model.content import Access, ContentRef, Exact
from artifactfs.model.entry import TreeMember
from artifactfs.providers.base import Draft
from artifactfs.tree.merging import Merged, merge

MARK = "conflict 10:00"
# Few of them, so that two writers meet; one that reads as what is kept beside another.
NAMES = ("a", "b.md", "b (conflict 10:00).md")
PATHS = (*NAMES, *(f"{one}/{two}" for one in NAMES for two in NAMES), "a/a/a", "a/b.md/a")


def sha(text: str) -> str:
    """Return the hash of a content that only has a name."""
    return hashlib.sha256(text.encode()).hexdigest()


def member(path: str, text: str) -> TreeMember:
    """Return a file as a service has it, a symlink if its content says so."""
    if text.startswith("->"):
        return TreeMember(path, "symlink", target=text[2:])
    return TreeMember(path, "file", ContentRef("s", f"sha256:{sha(text)}", (), Exact(1), Access.LOCAL, sha(text)))


def draft(text: str) -> Draft:
    """Return a file as the journal has it."""
    return Draft(Path("/nowhere"), 1, sha(text), executable=False, mtime_ns=0)


def content(value: Draft | TreeMember) -> str:
    """Return what a file or symlink holds, in one word."""
    if isinstance(value, Draft):
        return value.sha256
    return f"->{value.target}" if value.kind == "symlink" else getattr(value.content, "sha256", "")


def above(path: str) -> list[str]:
    """Return the directories above a path."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


@dataclass
class Disk:
    """The simple model: what a directory of a disk does."""

    files: dict[str, str] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)

    def copy(self) -> Disk:
        """Return one that changes by itself."""
        return Disk(dict(self.files), set(self.directories))

    def do(self, verb: str, path: str, text: str) -> None:
        """Do one step of a writer's, as ``rm -rf`` and ``mkdir -p`` would first make it possible."""
        if verb == "rm":
            for name in [name for name in self.files if name == path or name.startswith(f"{path}/")]:
                del self.files[name]
            self.directories = {d for d in self.directories if d != path and not d.startswith(f"{path}/")}
            return
        if verb == "unlink":
            self.files.pop(path, None)
            return
        for parent in above(path):
            if parent in self.files:
                del self.files[parent]
            self.directories.add(parent)
        if verb == "mkdir":
            self.files.pop(path, None)
            self.directories.add(path)
        else:
            self.do("rm", path, "")
            self.files[path] = text

    def members(self) -> dict[str, TreeMember]:
        """Return it as a service lists it: directories that something is in are implied."""
        implied = {parent for path in [*self.files, *self.directories] for parent in above(path)}
        found = {path: TreeMember(path, "dir") for path in self.directories - implied}
        return found | {path: member(path, text) for path, text in self.files.items()}

    def shown(self) -> dict[str, str | None]:
        """Return every path with its content, None for a directory."""
        found: dict[str, str | None] = dict.fromkeys(self.directories)
        return found | {path: content(member(path, text)) for path, text in self.files.items()}


def shown(manifest: dict[str, Draft | TreeMember]) -> dict[str, str | None]:
    """Return every path of a manifest with its content, None for a directory, implied ones too."""
    found: dict[str, str | None] = {parent: None for path in manifest for parent in above(path)}
    for path, value in manifest.items():
        found[path] = None if isinstance(value, TreeMember) and value.kind == "dir" else content(value)
    return found


def changes_from(base: Disk, mine: Disk, *, coarse: bool) -> dict[str, Draft | TreeMember | None]:
    """Return what makes one of the other; ``coarse`` says of a removed directory nothing but that."""
    found: dict[str, Draft | TreeMember | None] = {}
    gone = base.directories - mine.directories
    taken = {path for path in gone if path in mine.files}
    for path in [*base.files, *gone]:
        if path in mine.files or path in mine.directories:
            continue
        if not (coarse and any(parent in gone for parent in above(path))):
            found[path] = None
    for path, text in mine.files.items():
        if base.files.get(path) != text or path in taken:
            found[path] = member(path, text) if text.startswith("->") else draft(text)
    for path in mine.directories - base.directories:
        found[path] = TreeMember(path, "dir")
    return found


steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "unlink", "rm", "mkdir"]),
        st.sampled_from(PATHS),
        st.sampled_from(["1", "2", "3", "->a"]),
    ),
    max_size=6,
)


def after(disk: Disk, done: list[tuple[str, str, str]]) -> Disk:
    """Return what a disk is after these steps."""
    found = disk.copy()
    for step in done:
        found.do(*step)
    return found


def taken_for_members(manifest: dict[str, Draft | TreeMember]) -> dict[str, TreeMember]:
    """Return a manifest as the service has it once it was saved."""
    refs = {path: v for path, v in manifest.items() if isinstance(v, TreeMember)}
    for path, value in manifest.items():
        if isinstance(value, Draft):
            refs[path] = TreeMember(
                path, "file", ContentRef("s", f"sha256:{value.sha256}", (), Exact(1), Access.LOCAL, value.sha256)
            )
    return refs


def assert_legal(manifest: dict[str, Draft | TreeMember]) -> None:
    """No file is above another path, and each member knows its path."""
    for path, value in manifest.items():
        assert isinstance(value, Draft) or value.path == path
        for parent in above(path):
            over = manifest.get(parent)
            assert over is None or (isinstance(over, TreeMember) and over.kind == "dir"), (parent, path)


@given(before=steps, done=steps, coarse=st.booleans())
@example(before=[("put", "a/a", "1")], done=[("unlink", "a/a", "")], coarse=False)
@example(before=[("put", "a/a", "1")], done=[("put", "a", "1")], coarse=True)
def test_changes_that_nobody_else_met_are_what_their_writer_saw(before, done, coarse):
    """Exactly that, empty directories too; nothing is kept beside."""
    base = after(Disk(), before)
    mine = after(base, done)
    merged = merge(base.members(), base.members(), changes_from(base, mine, coarse=coarse), MARK)
    assert shown(merged.manifest) == mine.shown()
    assert (merged.beside, merged.kept) == ({}, frozenset())
    assert merged.changes == (mine.shown() != base.shown())
    assert_legal(merged.manifest)


@given(before=steps, here=steps, there=steps, coarse=st.booleans())
@example(
    before=[("put", "b (conflict 10:00).md", "1")],
    here=[("put", "b.md", "1")],
    there=[("put", "b.md", "2")],
    coarse=False,
)
def test_whatever_two_have_done_no_content_of_either_is_lost(before, here, there, coarse):
    """What is wanted is at its path or beside it; what somebody else made is where it was."""
    base = after(Disk(), before)
    mine, theirs = after(base, here), after(base, there)
    merged = merge(base.members(), theirs.members(), changes_from(base, mine, coarse=coarse), MARK)
    assert_legal(merged.manifest)
    found = shown(merged.manifest)
    for path, text in theirs.shown().items():
        if text is not None and base.shown().get(path) != text:
            assert found[path] == text
    for path, text in mine.shown().items():
        if text is not None and base.shown().get(path) != text:
            assert found[merged.beside.get(path, path)] == text
    for path, name in merged.beside.items():
        assert path != name
        assert name not in base.shown().keys() | mine.shown().keys()
    for path in merged.kept:
        assert path in found
        assert path not in mine.shown()


@given(before=steps, here=steps, there=steps, coarse=st.booleans())
@example(
    before=[("put", "a/b (conflict 10:00).md", "1")],
    here=[("put", "a/b.md", "2")],
    there=[("put", "a/b.md", "1"), ("unlink", "a/b (conflict 10:00).md", "")],
    coarse=False,
)
def test_merging_again_onto_the_result_changes_nothing(before, here, there, coarse):
    """So it can be done again when an answer was lost."""
    base = after(Disk(), before)
    mine, theirs = after(base, here), after(base, there)
    changes = changes_from(base, mine, coarse=coarse)
    once = merge(base.members(), theirs.members(), changes, MARK)
    again = merge(base.members(), taken_for_members(once.manifest), changes, MARK)
    assert shown(again.manifest) == shown(once.manifest)
    assert not again.changes
    assert again.beside == once.beside


@given(before=steps, there=steps)
def test_no_changes_are_what_is_there(before, there):
    """Not even the entries of directories differ."""
    base = after(Disk(), before)
    theirs = after(base, there).members()
    assert merge(base.members(), theirs, {}, MARK) == Merged({**theirs}, {}, frozenset(), changes=False)


flat = st.dictionaries(st.sampled_from(["p", "q", "r"]), st.sampled_from(["1", "2", "3"]))


@given(base=flat, mine=flat, theirs=flat)
def test_each_file_is_settled_by_itself(base, mine, theirs):
    """Against the table that says what a three-way merge is."""
    expected = {}
    for path in base.keys() | mine.keys() | theirs.keys():
        before, ours, other = base.get(path), mine.get(path), theirs.get(path)
        winner = other if ours == before or (other not in {before, None}) else ours
        if ours is None and other != before:
            winner = other
        if winner is not None:
            expected[path] = winner
        if ours not in {before, winner, None}:
            expected[f"{path} ({MARK})"] = ours
    changes = changes_from(Disk(base), Disk(mine), coarse=False)
    merged = merge(Disk(base).members(), Disk(theirs).members(), changes, MARK)
    assert shown(merged.manifest) == {path: sha(text) for path, text in expected.items()}
    assert merged.kept == {path for path in base if path not in mine and theirs.get(path) not in {base[path], None}}
