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
from tests.vfs.world import BEGAN, EMPTY, WRITE, World, agree, grow, opened

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


# -- paths that somebody else takes over -------------------------------------------------------------------------


async def overtaken(grown: World, where: Path, path: str = "a") -> None:
    """Have a file written here that others have saved since it was opened, which this mount knows already."""
    handle = await grown.open(f"w/t/{path}", WRITE)
    grown.fs.write(handle, 0, b"mine")
    await other(grown, where, lambda second: second.put(f"w/t/{path}", b"theirs"))
    await notice(grown, "w/t/b")
    await grown.close(handle)
    assert await grown.read(f"w/t/{path}") == b"mine"


async def taken_away(mount: World, how: str) -> dict[str, object]:
    """Have the name ``a`` changed in some way; return what the tree has by that, beside what others have made."""
    if how == "renamed":
        await mount.rename("w/t/a", "w/t/c")
        return {"c": b"mine"}
    if how == "replaced":
        await mount.put("w/t/x", b"again")
        await mount.rename("w/t/x", "w/t/a")
        return {COPY: b"again"}
    await mount.unlink("w/t/a")
    if how == "removed":
        return {}
    await mount.put("w/t/a", b"again")
    return {COPY: b"again"}


@pytest.mark.parametrize("how", ["renamed", "removed", "replaced", "made anew"])
@pytest.mark.parametrize("killed", [False, True])
async def test_what_a_save_began_with_counts_for_what_becomes_of_its_name(
    tmp_path: Path, standing_still: None, how: str, *, killed: bool
) -> None:
    """Others' save stays, whatever was done here without having seen it; also by the next mount."""
    expected: dict[str, object] = {**BEGAN, "a": b"theirs"}
    async with opened(tmp_path) as mount:
        await mount.mkdir("w")
        await grow(mount)
        await overtaken(mount, tmp_path / "other")
        expected |= await taken_away(mount, how)
        report = BESIDE if COPY in expected else STAYS
        if not killed:
            await ends_as(mount, expected, report)
    if killed:
        async with opened(tmp_path) as mount:
            await mount.elapse()
            await ends_as(mount, expected, report)


async def test_what_a_save_began_with_counts_when_its_directory_is_renamed(grown: World, tmp_path: Path):
    await overtaken(grown, tmp_path / "other", "d/c")
    await grown.rename("w/t/d", "w/t/g")
    expected = {**BEGAN, "d/c": b"theirs", "g": None, "g/c": b"mine", "g/e": None, "g/e/f": b"d/e/f"}
    await ends_as(grown, expected, STAYS.replace("w/t/a", "w/t/d"))


# -- names that change while a version is made -------------------------------------------------------------------


async def test_who_made_a_name_that_others_have_made_since_overwrites_nothing(grown: World, tmp_path: Path):
    """A version of other files was made meanwhile, after which the tree has theirs."""
    handle = await grown.create("w/t/n", b"mine")
    await other(grown, tmp_path / "other", lambda second: second.put("w/t/n", b"theirs"))
    await grown.put("w/t/b", b"B")
    await grown.elapse()
    await grown.close(handle)
    expected = {**BEGAN, "b": b"B", "n": b"theirs", f"n ({MARK})": b"mine"}
    await ends_as(grown, expected, BESIDE.replace("w/t/a", "w/t/n").replace(COPY, f"n ({MARK})"))


@pytest.mark.parametrize("how", ["removed", "replaced", "made anew"])
@pytest.mark.parametrize("killed", [False, True])
async def test_what_changes_while_a_version_takes_up_others_changes_removes_none(
    tmp_path: Path, standing_still: None, how: str, *, killed: bool
) -> None:
    expected: dict[str, object] = {**BEGAN, "a": b"theirs", "b": b"B"}
    async with opened(tmp_path) as mount:
        await mount.mkdir("w")
        await grow(mount)
        await mount.put("w/t/b", b"B")
        held = mount.publisher.next(held=True)
        await mount.reach(held)
        expected |= await taken_away(mount, how)
        report = BESIDE if COPY in expected else STAYS
        await other(mount, tmp_path / "other", lambda second: second.put("w/t/a", b"theirs"))
        held.go.set()
        await mount.settle()
        assert mount.stored("t") == {**BEGAN, "a": b"theirs", "b": b"B"}
        if not killed:
            await ends_as(mount, expected, report)
    if killed:
        async with opened(tmp_path) as mount:
            await mount.elapse()
            await ends_as(mount, expected, report)


async def test_what_others_made_in_a_directory_that_is_removed_meanwhile_stays(grown: World, tmp_path: Path):
    await grown.unlink("w/t/d/e/f")
    await grown.elapse()
    await grown.put("w/t/b", b"B")
    held = grown.publisher.next(held=True)
    await grown.reach(held)
    await grown.rmdir("w/t/d/e")
    await other(grown, tmp_path / "other", lambda second: second.put("w/t/d/e/new", b"theirs"))
    held.go.set()
    expected = {**BEGAN, "b": b"B", "d/e/new": b"theirs"}
    del expected["d/e/f"]
    await ends_as(grown, expected, STAYS.replace("w/t/a", "w/t/d/e"))


async def test_who_removes_what_was_kept_beside_while_it_was_made_removes_no_other(grown: World, tmp_path: Path):
    """What he has seen there is his own; others' has come in its place."""
    await grown.put("w/t/a", b"mine")
    held = grown.publisher.next(held=True)
    await grown.reach(held)
    await grown.unlink("w/t/a")
    await other(grown, tmp_path / "other", lambda second: second.put("w/t/a", b"theirs"))
    held.go.set()
    await ends_as(grown, {**BEGAN, "a": b"theirs"}, BESIDE, STAYS)


# -- what has been seen ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["removed", "replaced", "directory"])
async def test_who_changes_names_on_the_sight_of_others_saves_is_in_no_conflict(grown: World, tmp_path: Path, how: str):
    """Something else has waited here since before: the tree's base is older than what is shown."""
    handle = await grown.create("w/t/waits", b"x")
    await grown.put("w/t/b", b"B")

    async def theirs(second: World) -> None:
        await second.put("w/t/a", b"theirs")
        await second.put("w/t/d/c", b"theirs")
        await second.put("w/t/d/new", b"theirs")

    await other(grown, tmp_path / "other", theirs)
    grown.clock.jump(0.9)
    assert await notice(grown, "w/t/a") == b"theirs"
    expected: dict[str, object] = {**BEGAN, "a": b"theirs", "b": b"B", "d/c": b"theirs", "d/new": b"theirs"}
    if how == "removed":
        await grown.unlink("w/t/a")
        del expected["a"]
    elif how == "replaced":
        await grown.put("w/t/a.tmp", b"again")
        await grown.rename("w/t/a.tmp", "w/t/a")
        expected["a"] = b"again"
    else:
        await grown.rename("w/t/d", "w/t/g")
        expected = {path.replace("d", "g", 1) if path[0] == "d" else path: what for path, what in expected.items()}
    await grown.close(handle)
    await ends_as(grown, {**expected, "waits": b"x"})


async def test_what_was_seen_while_a_version_is_made_may_be_overwritten(grown: World, tmp_path: Path):
    await other(grown, tmp_path / "other", lambda second: second.put("w/t/a", b"theirs"))
    await grown.put("w/t/b", b"B")
    held = grown.publisher.next(held=True)
    await grown.reach(held)
    assert await notice(grown, "w/t/a") == b"theirs"
    await grown.put("w/t/a.tmp", b"theirs and mine")
    await grown.rename("w/t/a.tmp", "w/t/a")
    held.go.set()
    await ends_as(grown, {**BEGAN, "a": b"theirs and mine", "b": b"B"})


async def test_a_directory_that_is_emptied_and_then_removed_meanwhile_is_nobody_elses(grown: World):
    await grown.unlink("w/t/d/e/f")
    held = grown.publisher.next(held=True)
    await grown.reach(held)
    await grown.rmdir("w/t/d/e")
    await grown.put("w/t/a", b"A")
    await grown.unlink("w/t/a")
    held.go.set()
    expected = dict(BEGAN)
    del expected["a"], expected["d/e"], expected["d/e/f"]
    await ends_as(grown, expected)


async def test_a_lost_answer_of_what_was_renamed_since_is_nobody_elses(grown: World):
    """The version is there, and what it has at the old name is our own, whatever the save began with."""
    await grown.put("w/t/a", b"A")
    lost = grown.publisher.next(error=errors.Unreachable("cut off"), lost=True, held_after=True)
    await grown.reach(lost)
    await grown.rename("w/t/a", "w/t/c")
    await grown.put("w/t/a", b"again")
    lost.go.set()
    await ends_as(grown, {**BEGAN, "a": b"again", "c": b"A"}, "w/t: not saved yet: cut off")


async def test_what_an_earlier_try_made_of_a_name_is_ours_also_when_it_was_renamed_since(grown: World):
    """Its answer was lost, the next version was made without it, since somebody went on writing."""
    await grown.put("w/t/a", b"1")
    lost = grown.publisher.next(error=errors.Unreachable("cut off"), lost=True, held_after=True)
    await grown.reach(lost)
    handle = await grown.open("w/t/a", WRITE)
    grown.fs.write(handle, 0, b"2")
    await grown.put("w/t/b", b"B")
    held = grown.publisher.next(held=True)
    lost.go.set()
    await grown.reach(held)
    await grown.rename("w/t/a", "w/t/c")
    held.go.set()
    await grown.settle()
    await grown.close(handle)
    expected = {**BEGAN, "b": b"B", "c": b"2"}
    del expected["a"]
    await ends_as(grown, expected, "w/t: not saved yet: cut off")


# -- directories that are made anew ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["moved back", "written again"])
@pytest.mark.parametrize("tries", [1, 2])
async def test_what_is_put_where_it_was_before_lost_answers_is_there_again(grown: World, how: str, tries: int):
    """The version is there that has an empty directory in its place: nobody else has removed it."""
    await grown.rename("w/t/d", "w/t/g")
    for left in reversed(range(tries)):
        if not left:
            await grown.mkdir("w/t/d")
        lost = grown.publisher.next(error=errors.Unreachable("cut off"), lost=True, held_after=True)
        await grown.reach(lost)
        lost.go.set()
        await grown.settle()
    expected: dict[str, object] = dict(BEGAN)
    if how == "moved back":
        await grown.rename("w/t/g", "w/t/d")
    else:
        await grown.put("w/t/d/c", b"d/c")
        del expected["d/e"], expected["d/e/f"]
        expected |= {"g": None, "g/c": b"d/c", "g/e": None, "g/e/f": b"d/e/f"}
    await ends_as(grown, expected, *["w/t: not saved yet: cut off"] * tries)


async def test_what_is_put_into_a_directory_made_anew_stays_whoever_has_removed_what_was_there(
    grown: World, tmp_path: Path
) -> None:
    """It has the same content as that: its writer has put it there nevertheless."""
    for path in ("d/c", "d/e/f"):
        await grown.unlink(f"w/t/{path}")
    for path in ("d/e", "d"):
        await grown.rmdir(f"w/t/{path}")
    await grown.mkdir("w/t/d")
    await grown.put("w/t/d/c", b"d/c")
    await other(grown, tmp_path / "other", lambda second: second.unlink("w/t/d/c"))
    await ends_as(grown, {"a": b"a", "b": b"b", "d": None, "d/c": b"d/c"})
