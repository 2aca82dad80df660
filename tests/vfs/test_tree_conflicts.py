"""Trees that two change at once, and services that answer in unexpected ways."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from artifactfs import errors
from artifactfs.vfs import tree_publishing
from tests.vfs.world import BEGAN, EMPTY, WRITE, World, agree, count, opened

MARK = "conflict 2026-01-02 03.04.05"

Change = Callable[[World], Awaitable[None]]


@pytest.fixture(autouse=True)
def _one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all conflicts be of the same second."""
    monkeypatch.setattr(tree_publishing, "conflict_mark", lambda: MARK)


async def other(world: World, where: Path, work: Change) -> None:
    """Change the same store through another mount, and publish that, in no time."""
    (where / "drafts").mkdir(parents=True)
    (where / "store").symlink_to(world.store.objects.root.parent)
    async with opened(where, publishing=False) as second:
        await work(second)
        for job in second.overlay.jobs():
            await second.fs.writer.writeback.now(job)


async def test_two_who_change_other_paths_have_one_tree(grown: World, tmp_path: Path):
    await grown.put("w/t/a", b"A")
    await grown.rename("w/t/d/c", "w/t/c")
    await other(grown, tmp_path / "other", lambda second: second.put("w/t/b", b"theirs"))
    await grown.elapse()
    expected = {**BEGAN, "a": b"A", "b": b"theirs", "c": b"d/c"}
    del expected["d/c"]
    await agree(grown, expected)
    assert grown.reports == []


async def test_two_who_change_the_same_path_keep_both(grown: World, tmp_path: Path):
    """Theirs under the name, ours beside; the next flush of the name says so, once."""
    await grown.put("w/t/a", b"mine")
    ino = (await grown.look("w/t/a")).ino
    await other(grown, tmp_path / "other", lambda second: second.put("w/t/a", b"theirs"))
    await grown.elapse()
    expected = {**BEGAN, "a": b"theirs", f"a ({MARK})": b"mine"}
    assert await grown.tree("w/t") == grown.stored("t") == expected
    assert (await grown.look(f"w/t/a ({MARK})")).ino == ino
    assert grown.reports == [f"w/t/a: somebody else changed it first; this save is kept as 'a ({MARK})'"]
    handle = await grown.open("w/t/a", EMPTY)
    grown.fs.write(handle, 0, b"again")
    with pytest.raises(errors.Conflict):
        await grown.fs.flush(handle)
    await grown.close(handle)
    await agree(grown, {**expected, "a": b"again"})


async def test_who_has_seen_what_others_made_overwrites_it(grown: World, tmp_path: Path):
    """Changed by another while something else waits here: opened and saved on the sight of it, that is no conflict."""
    handle = await grown.create("w/t/waits", b"x")
    await grown.put("w/t/b", b"B")
    await other(grown, tmp_path / "other", lambda second: second.put("w/t/a", b"theirs"))
    grown.clock.jump(0.9)
    grown.fs.directories.listings.own.forget_source("mine")
    grown.fs.directories.history._newest_at.clear()
    assert await grown.read("w/t/a") == b"theirs"
    await grown.put("w/t/a", b"theirs and mine")
    await grown.close(handle)
    await grown.elapse()
    await agree(grown, {**BEGAN, "a": b"theirs and mine", "b": b"B", "waits": b"x"})
    assert grown.reports == []


async def notice(world: World, path: str) -> bytes:
    """Look at a file as if time had passed, so that what others made of it is seen; return its content."""
    world.fs.directories.listings.own.forget_source("mine")
    world.fs.directories.history._newest_at.clear()
    return await world.read(path)


@pytest.mark.parametrize("how", [WRITE, EMPTY], ids=["in place", "anew"])
@pytest.mark.parametrize("seen", [True, False], ids=["seen", "unseen"])
async def test_who_began_before_others_saved_overwrites_nothing(
    grown: World, tmp_path: Path, how: int, *, seen: bool
) -> None:
    """It is what a writer began with that counts, not what this mount has learnt of before it was durable."""
    handle = await grown.open("w/t/a", how)
    grown.fs.write(handle, 0, b"mine")
    await other(grown, tmp_path / "other", lambda second: second.put("w/t/a", b"theirs"))
    if seen:
        await notice(grown, "w/t/b")
    await grown.close(handle)
    await grown.elapse()
    expected = {**BEGAN, "a": b"theirs", f"a ({MARK})": b"mine"}
    assert await grown.tree("w/t") == grown.stored("t") == expected
    assert len(grown.reports) == 1


async def test_who_began_before_a_version_with_others_changes_overwrites_nothing(grown: World, tmp_path: Path):
    """The tree's next version, made of other files here, has taken up what others made of a file that is open."""
    handle = await grown.open("w/t/a", WRITE)
    grown.fs.write(handle, 0, b"mine")
    await other(grown, tmp_path / "other", lambda second: second.put("w/t/a", b"theirs"))
    await grown.put("w/t/b", b"B")
    await grown.elapse()
    assert grown.stored("t") == {**BEGAN, "a": b"theirs", "b": b"B"}
    await grown.close(handle)
    await grown.elapse()
    expected = {**BEGAN, "a": b"theirs", "b": b"B", f"a ({MARK})": b"mine"}
    assert await grown.tree("w/t") == grown.stored("t") == expected


async def test_who_writes_while_his_own_save_becomes_a_version_goes_on_with_that(grown: World):
    """What a writer began with is older than the tree, by a change of his own: that is no conflict."""
    handle = await grown.open("w/t/a", WRITE)
    grown.fs.write(handle, 0, b"1")
    await grown.fs.flush(handle)
    second = await grown.open("w/t/a", WRITE)
    for data in (b"2", b"3"):
        grown.fs.write(second, 0, data)
        await grown.fs.flush(second)
        await grown.elapse()
    await grown.close(handle)
    await grown.close(second)
    await grown.elapse()
    await agree(grown, {**BEGAN, "a": b"3"})
    assert grown.reports == []


async def test_what_was_written_elsewhere_takes_the_place_of_what_it_is_renamed_over(grown: World):
    """What its writer began with is no content of that name: nobody else has changed anything."""
    await grown.put("w/t/b", b"B")
    await grown.rename("w/t/b", "w/t/a")
    await grown.put("w/t/d/c", b"C")
    await grown.rename("w/t/d/c", "w/t/d/e/f")
    await grown.elapse()
    expected = {**BEGAN, "a": b"B", "d/e/f": b"C"}
    del expected["b"], expected["d/c"]
    await agree(grown, expected)
    assert grown.reports == []


async def test_what_was_written_elsewhere_takes_the_place_of_a_directory_that_went(grown: World):
    await grown.mkdir("w/t/n")
    await grown.put("w/t/n/c", b"new")
    await grown.elapse()
    handle = await grown.open("w/t/n/c", WRITE)
    grown.fs.write(handle, 0, b"NEW")
    await grown.rename("w/t/d", "w/t/old")
    await grown.rename("w/t/n", "w/t/d")
    await grown.close(handle)
    await grown.elapse()
    expected = {"a": b"a", "b": b"b", "d": None, "d/c": b"NEW"}
    expected |= {"old": None, "old/c": b"d/c", "old/e": None, "old/e/f": b"d/e/f"}
    await agree(grown, expected)
    assert grown.reports == []


@pytest.mark.parametrize("flushed", [True, False])
async def test_who_goes_on_writing_goes_on_with_the_copy(grown: World, tmp_path: Path, *, flushed: bool):
    """What is written while the version is made that keeps it beside is the copy's next content: theirs stays."""
    await grown.put("w/t/a", b"mine")
    held = grown.publisher.next(held=True)
    await grown.reach(held)
    handle = await grown.open("w/t/a", WRITE)
    grown.fs.write(handle, 4, b" and more")
    if flushed:
        await grown.fs.flush(handle)
    await other(grown, tmp_path / "other", lambda second: second.put("w/t/a", b"theirs"))
    held.go.set()
    await grown.settle()
    copy = f"a ({MARK})"
    assert await grown.tree("w/t") == {**BEGAN, "a": b"theirs", copy: b"mine and more"}
    with pytest.raises(errors.Conflict):
        await grown.fs.flush(handle)
    await grown.close(handle)
    await grown.elapse(5)
    assert grown.stored("t") == {**BEGAN, "a": b"theirs", copy: b"mine and more"}
    assert await grown.tree("w/t") == {**BEGAN, "a": b"theirs", copy: b"mine and more"}
    assert grown.home.journal.numbers() == []


async def test_what_somebody_else_changed_is_not_removed(grown: World, tmp_path: Path):
    await grown.unlink("w/t/a")
    await other(grown, tmp_path / "other", lambda second: second.put("w/t/a", b"theirs"))
    await grown.elapse()
    await agree(grown, {**BEGAN, "a": b"theirs"})
    assert grown.reports == ["w/t/a: somebody else changed it while it was removed here; it stays"]


async def test_somebody_else_is_first_while_we_save(grown: World):
    """A version is made between our look and our save: it is merged again, and nothing is reported."""
    artifact = grown.artifact("t")

    async def theirs() -> None:
        files = [file for file in grown.store.tree(artifact.id, grown.artifact("t").current) if file.path != "b"]
        await trio.to_thread.run_sync(grown.store.save_tree, artifact.id, files)

    await grown.put("w/t/a", b"A")
    grown.publisher.next(meanwhile=theirs)
    await grown.elapse()
    assert grown.publisher.calls == ["save_tree"] * 2
    expected = {**BEGAN, "a": b"A"}
    del expected["b"]
    await agree(grown, expected)
    assert grown.reports == []


@pytest.mark.parametrize("again", [False, True])
async def test_a_lost_answer_makes_no_second_version(grown: World, *, again: bool):
    """The version is there, the try failed: neither a copy nor a version more; also if it was written to meanwhile."""
    before = count(grown)
    await grown.put("w/t/a", b"A")
    await grown.rename("w/t/d", "w/t/g")
    lost = grown.publisher.next(error=errors.Unreachable("cut off"), lost=True, held_after=True)
    await grown.reach(lost)
    if again:
        await grown.put("w/t/a", b"AA")
    lost.go.set()
    await grown.elapse(5)
    expected = {path.replace("d", "g", 1) if path[0] == "d" else path: what for path, what in BEGAN.items()}
    expected["a"] = b"AA" if again else b"A"
    await agree(grown, expected)
    assert count(grown) - before == (2 if again else 1)
    assert grown.reports == ["w/t: not saved yet: cut off"]


async def test_changes_that_the_service_cannot_tell_are_sent_once(grown: World):
    """It answers with the version that it has: the change stays here, and is not sent again and again."""
    await grown.mkdir("w/t/empty")
    for _ in range(3):
        grown.publisher.next(answer=lambda artifact, *_: artifact)
    await grown.elapse(100)
    assert grown.publisher.calls == ["save_tree"]
    assert (await grown.tree("w/t"))["empty"] is None
    grown.publisher.plan.clear()
    await grown.put("w/t/a", b"A")
    await agree(grown, {**BEGAN, "a": b"A", "empty": None})


async def test_a_tree_that_somebody_removed_keeps_our_changes(grown: World, expected_logs):
    expected_logs("refused and kept here")
    await grown.put("w/t/a", b"A")
    held = grown.publisher.next(held=True, error=errors.NotFound("gone"))
    await grown.reach(held)
    held.go.set()
    await grown.settle()
    assert grown.work().state.value == "failed"
    assert await grown.read("w/t/a") == b"A"
    await grown.put("w/t/b", b"B")
    await agree(grown, {**BEGAN, "a": b"A", "b": b"B"})
