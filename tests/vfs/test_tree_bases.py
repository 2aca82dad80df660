"""What each change of a tree was made on: nobody's save is overwritten or removed by who had not seen it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from artifactfs import errors
from artifactfs.model.entry import Artifact, TreeMember, Version
from artifactfs.vfs import tree_publishing
from artifactfs.vfs.context import PASSES
from artifactfs.vfs.trees import Trees
from tests.vfs.test_tree_conflicts import MARK, notice, other
from tests.vfs.world import BEGAN, EMPTY, WRITE, World, agree

COPY = f"a ({MARK})"
STAYS = "w/t/a: somebody else changed it while it was removed here; it stays"
BESIDE = f"w/t/a: somebody else changed it first; this save is kept as {COPY!r}"


@pytest.fixture(autouse=True)
def _one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all conflicts be of the same second."""
    monkeypatch.setattr(tree_publishing, "conflict_mark", lambda: MARK)


async def ends_as(grown: World, expected: Mapping[str, object], *reports: str) -> None:
    """Check what all agree on at the end, and what a person was told."""
    await grown.elapse()
    grown.overlay.notices.clear()  # for the next flush of a name, which does not come
    await agree(grown, expected)
    assert grown.reports == list(reports)


async def current(grown: World) -> Version:
    """Return the current version of the tree, as this mount knows it."""
    artifact = (await grown.look("w/t")).artifact
    assert artifact is not None
    assert artifact.current is not None
    return artifact.current


async def begun_unhashed(grown: World) -> int:
    """Begin to write to ``a`` anew while nobody knows the hash of what it holds yet."""
    version = await current(grown)
    handle = await grown.open("w/t/a", EMPTY)
    grown.fs.write(handle, 0, b"mine")
    edit = grown.edit("a")
    assert edit.base is not None
    edit.base_sha256, edit.base, edit.is_unhashed = None, replace(edit.base, current=version), True
    return handle


def unreadable(monkeypatch: pytest.MonkeyPatch, version_id: str, error: Exception) -> None:
    """Let nobody read one version any more."""
    real = Trees.members

    async def members(self: Trees, source: str, artifact: Artifact, version: Version | None) -> Sequence[TreeMember]:
        if version is not None and version.id == version_id:
            raise error
        return await real(self, source, artifact, version)

    monkeypatch.setattr(Trees, "members", members)


# -- what a writer began with ----------------------------------------------------------------------------------


@pytest.mark.parametrize("hashed", [True, False])
async def test_what_is_renamed_while_a_version_is_made_of_it_overwrites_nothing(
    grown: World, tmp_path: Path, *, hashed: bool
) -> None:
    """The version is merged once more, after the rename: what the save began with is what it was when it was taken."""
    if hashed:
        handle = await grown.open("w/t/a", EMPTY)
        grown.fs.write(handle, 0, b"mine")
    else:
        handle = await begun_unhashed(grown)
    await other(grown, tmp_path / "other", lambda second: second.put("w/t/a", b"theirs"))
    await notice(grown, "w/t/b")
    await grown.close(handle)
    held = grown.publisher.next(held=True)
    await grown.reach(held)
    await grown.rename("w/t/a", "w/t/c")
    await other(grown, tmp_path / "another", lambda second: second.put("w/t/b", b"their b"))
    held.go.set()
    await grown.elapse(5)
    history = [
        {file.path: grown.store.objects.read(file.sha256 or "") for file in grown.store.tree(one.artifact_id, one.seq)
         if file.path in {"a", COPY}}
        for one in grown.store.versions(grown.artifact("t").id)
    ]  # fmt: skip
    assert {"a": b"theirs", COPY: b"mine"} in history


async def test_a_symlink_in_the_place_of_what_a_writer_began_with_is_not_overwritten(grown: World, tmp_path: Path):
    handle = await grown.open("w/t/a", WRITE)
    grown.fs.write(handle, 0, b"mine")

    async def theirs(second: World) -> None:
        await second.unlink("w/t/a")
        await second.symlink("w/t/a", "b")

    await other(grown, tmp_path / "other", theirs)
    await notice(grown, "w/t/b")
    await grown.close(handle)
    await ends_as(grown, {**BEGAN, "a": "b", COPY: b"mine"}, BESIDE)


# -- versions that nobody can read any more ----------------------------------------------------------------------


async def test_a_tree_whose_base_is_gone_goes_on_with_the_version_that_is_there(
    grown: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What others have not touched since is known by what the writer began with."""
    before = await current(grown)
    await grown.put("w/t/a", b"mine")
    await grown.put("w/t/new", b"new")
    await grown.unlink("w/t/b")
    await other(grown, tmp_path / "other", lambda second: second.put("w/t/d/c", b"theirs"))
    unreadable(monkeypatch, before.id, errors.CorruptContent("not a tar"))
    await grown.elapse()
    expected = {**BEGAN, "a": b"mine", "new": b"new", "d/c": b"theirs"}
    kept = "w/t/b: somebody else changed it while it was removed here; it stays"
    await ends_as(grown, expected, kept)


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (errors.NotFound("gone"), 0),
        (errors.ProviderMisbehaved("a page of a gateway"), 7),
        (errors.AccessDenied("not for you"), 7),
        (errors.Unavailable("not now"), 7),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_a_writer_began_with_is_asked_for_a_while_and_then_kept_beside(
    grown: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, tries: int
) -> None:
    """Not for ever: the other changes of the tree wait for it."""
    version = (await current(grown)).id
    handle = await begun_unhashed(grown)
    await other(grown, tmp_path / "other", lambda second: second.put("w/t/b", b"theirs"))
    await notice(grown, "w/t/b")
    unreadable(monkeypatch, version, error)
    await grown.close(handle)
    await grown.put("w/t/new", b"new")
    await grown.elapse(600)
    why = f"w/t: not saved yet: {'' if isinstance(error, PASSES) else 'what w/t was cannot be read: '}{error}"
    expected = {**BEGAN, "a": b"a", COPY: b"mine", "b": b"theirs", "new": b"new"}
    await ends_as(grown, expected, *[why] * tries, BESIDE)


async def test_an_older_version_is_asked_for_once_however_many_began_with_it(
    grown: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handles, version = list[int](), await current(grown)
    for name in "ab":
        handles.append(await grown.open(f"w/t/{name}", EMPTY))
        grown.fs.write(handles[-1], 0, b"mine")
        edit = grown.edit(name)
        edit.base_sha256, edit.is_unhashed = None, True
    await other(grown, tmp_path / "other", lambda second: second.put("w/t/d/c", b"theirs"))
    await notice(grown, "w/t/d/c")
    asked, real = list[Version | None](), Trees.members

    async def members(self: Trees, source: str, artifact: Artifact, of: Version | None) -> Sequence[TreeMember]:
        asked.append(of)
        return await real(self, source, artifact, of)

    monkeypatch.setattr(Trees, "members", members)
    for handle in handles:
        await grown.close(handle)
    await grown.elapse()
    assert asked.count(version) == 1
    monkeypatch.setattr(Trees, "members", real)
    await ends_as(grown, {**BEGAN, "a": b"mine", "b": b"mine", "d/c": b"theirs"})
