"""The built-in store as a provider: what it describes, what it reads, what it publishes."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from artifactfs import errors
from artifactfs.model.content import Access, ByteRange, ContentRef, Exact
from artifactfs.model.entry import (
    Accepts,
    Artifact,
    ArtifactKind,
    DirRef,
    Empty,
    Folder,
    Role,
    SingleFile,
    Tree,
    Version,
)
from artifactfs.providers.base import Draft, Provider, Publisher
from artifactfs.providers.local.provider import CHUNK, LocalProvider
from artifactfs.store import demo
from artifactfs.store.catalog import Store
from artifactfs.store.rows import Run, TreeFile

HELLO = hashlib.sha256(b"hello").hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture
def provider(store: Store) -> LocalProvider:
    return LocalProvider("mine", store)


@pytest.fixture
def publisher(provider: LocalProvider) -> Publisher:
    assert provider.publisher is not None
    return provider.publisher


@pytest.fixture
def workflow(store: Store) -> DirRef:
    return DirRef("mine", "workflow", (store.add_workflow("w", created_at_ns=5).id,))


@pytest.fixture
def draft(tmp_path: Path):
    def make(data: bytes, *, executable: bool = False) -> Draft:
        path = tmp_path / f"draft-{len(os.listdir(tmp_path))}"
        path.write_bytes(data)
        return Draft(path, len(data), hashlib.sha256(data).hexdigest(), executable, 1_700_000_000 * 10**9)

    return make


async def artifacts(provider: Provider, ref: DirRef) -> list[Artifact]:
    return [entry for entry in (await provider.list(ref, None)).entries if isinstance(entry, Artifact)]


async def read(provider: Provider, artifact: Artifact, offset: int = 0, length: int | None = None) -> bytes:
    assert artifact.current is not None
    assert isinstance(artifact.current.content, SingleFile)
    ref = artifact.current.content.content
    assert isinstance(ref, ContentRef)
    async with provider.open(ref, ByteRange(offset, length)) as stream:
        assert (stream.offset, stream.ranged) == (offset, True)
        return b"".join([chunk async for chunk in stream.chunks])


async def tree(provider: Provider, artifact: Artifact) -> dict[str, tuple[str, bool]]:
    if isinstance(current(artifact).content, Empty):
        return {}
    content = current(artifact).content
    assert isinstance(content, Tree)
    members = await provider.tree(artifact, content.locator)
    return {m.path: (m.kind, m.executable) for m in members}


def current(artifact: Artifact) -> Version:
    assert artifact.current is not None
    return artifact.current


# -- listings ------------------------------------------------------------------------------------------------


async def test_the_root_lists_workflows(provider: Provider, store: Store, workflow: DirRef):
    """Each workflow is a folder that takes files and trees; its mtime is that of the last change in it."""
    root = provider.root()
    assert (root.accepts, provider.service, provider.source) == (Accepts.WORKFLOWS, "local", "mine")
    assert root.ref is not None
    listing = await provider.list(root.ref, None)
    (folder,) = listing.entries
    assert isinstance(folder, Folder)
    assert (folder.path, folder.role, folder.ref, folder.mtime_ns) == (("w",), Role.WORKFLOW, workflow, 5)
    assert folder.accepts == Accepts.FILES | Accepts.TREES
    assert listing.complete
    assert listing.next_cursor is None
    artifact = store.add_artifact(workflow.args[0], "a", "file", created_at_ns=9)
    (folder,) = (await provider.list(root.ref, None)).entries
    assert isinstance(folder, Folder)
    assert folder.mtime_ns == artifact.updated_at_ns == 9


async def test_outputs_of_runs_stand_where_their_names_say(provider: Provider, store: Store, workflow: DirRef):
    """A run is a folder; an output's path is run, phase and the parts of its name, unless one is no name."""
    run = Run("exec-1", "u1", workflow.args[0], "completed", 10, 20, {"image": {"id": "img_1"}})
    store.add_run(run)
    for name in ("out/deep/a.md", "/etc/passwd", "a//b", "../x", "a/.", "plain"):
        store.add_artifact(workflow.args[0], name, "file", run_id=run.id, phase="write")
    store.add_artifact(workflow.args[0], "n", "file", run_id=run.id)
    store.add_artifact(workflow.args[0], "Q3/Q4", "file")
    store.add_artifact(workflow.args[0], "..", "file")
    listing = await provider.list(workflow, None)
    assert {entry.path for entry in listing.entries if isinstance(entry, Artifact)} == {
        ("exec-1", "write", "out", "deep", "a.md"),
        ("exec-1", "write", "/etc/passwd"),
        ("exec-1", "write", "a//b"),
        ("exec-1", "write", "../x"),
        ("exec-1", "write", "a/."),
        ("exec-1", "write", "plain"),
        ("exec-1", "n"),
        ("Q3/Q4",),
        ("..",),
    }
    (folder,) = (entry for entry in listing.entries if isinstance(entry, Folder))
    assert (folder.path, folder.role, folder.mtime_ns, folder.ref) == (("exec-1",), Role.RUN, 20, None)
    assert folder.accepts == Accepts.NOTHING
    assert folder.metadata["response"] == run.response


async def test_files_and_trees_are_described(provider: Provider, store: Store, workflow: DirRef):
    """A file's content is its object, exact and local; a tree's is asked for, unless it is empty."""
    run = Run("exec-1", "u1", workflow.args[0], "running", 10, None)
    store.add_run(run)
    file = store.add_artifact(workflow.args[0], "a.sh", "file", media_type="text/x-sh")
    store.objects.put(b"hello")
    store.save_file(file.id, HELLO, 5, executable=True, message="m", created_by="agent", created_at_ns=7)
    full = store.add_artifact(workflow.args[0], "t", "tree", run_id=run.id)
    store.save_tree(full.id, [TreeFile("only an empty directory", None)])
    empty = store.add_artifact(workflow.args[0], "e", "tree")
    store.save_tree(empty.id, [])
    none = store.add_artifact(workflow.args[0], "n", "file")
    found = {a.id: a for a in await artifacts(provider, workflow)}
    ref = ContentRef("mine", f"sha256:{HELLO}", (HELLO,), Exact(5), Access.LOCAL, HELLO)
    one = current(found[file.id])
    assert one.content == SingleFile(ref, executable=True)
    assert (one.size, one.file_count, one.created_at_ns, one.created_by, one.message) == (
        Exact(5),
        1,
        7,
        "agent",
        "m",
    )
    assert found[file.id].media_type == "text/x-sh"
    assert found[file.id].writable
    assert (found[file.id].workflow, found[full.id].run) == ("w", "exec-1")
    assert found[file.id].metadata["uuid"] == file.uuid
    assert current(found[full.id]).content == Tree((full.id, "1"))
    assert current(found[empty.id]).content == Empty()
    assert found[empty.id].kind is ArtifactKind.TREE
    assert found[none.id].current is None


async def test_a_workflow_that_is_gone_is_not_an_empty_one(provider: Provider, store: Store, workflow: DirRef):
    """Listing what was removed, or what never was ours, is NotFound."""
    store.remove_workflow(workflow.args[0])
    for ref in (workflow, DirRef("mine", "workflow", ("x",)), DirRef("mine", "workflow"), DirRef("mine", "?")):
        with pytest.raises(errors.NotFound):
            await provider.list(ref, None)


# -- by id, versions, trees ----------------------------------------------------------------------------------


async def test_artifacts_are_found_by_id_in_their_workflow(provider: Provider, store: Store, workflow: DirRef):
    """One that was removed too, read-only; not through another workflow, nor by its UUID."""
    artifact = store.add_artifact(workflow.args[0], "a", "file")
    other = DirRef("mine", "workflow", (store.add_workflow("other").id,))
    assert provider.is_artifact_id(artifact.id)
    assert not any(provider.is_artifact_id(name) for name in ("art_12345", "art_ABCDEF", artifact.uuid, "notes"))
    found = await provider.find(workflow, artifact.id)
    assert found is not None
    assert found.writable
    assert await provider.find(other, artifact.id) is None
    root = provider.root().ref
    assert root is not None
    assert await provider.find(root, artifact.id) == found
    assert await provider.find(root, "art_000000") is None
    assert await provider.find(workflow, artifact.uuid) is None
    assert await provider.find(workflow, "art_000000") is None
    store.delete_artifact(artifact.id)
    assert await artifacts(provider, workflow) == []
    found = await provider.find(workflow, artifact.id)
    assert found is not None
    assert not found.writable
    assert await provider.resolve(workflow, "anything") is None


async def test_versions_are_all_there_and_found_by_prefix(provider: Provider, store: Store, workflow: DirRef):
    """Oldest first; a content that came back shares its id; a prefix must be unique and long enough."""
    artifact = store.add_artifact(workflow.args[0], "a", "file")
    for data in (b"1", b"2", b"1"):
        store.save_file(artifact.id, store.objects.put(data), 1)
    (found,) = await artifacts(provider, workflow)
    page = await provider.versions(found, None)
    one, two, three = page.versions
    assert (one.id == three.id, one.id == two.id, page.complete) == (True, False, True)
    assert found.current == three
    assert await provider.find_version(found, one.id) == one.id
    assert await provider.find_version(found, two.id[:8]) == two.id
    assert await provider.find_version(found, two.id[:7]) is None
    assert await provider.find_version(found, "f" * 64) is None


async def test_versions_share_an_id_only_if_they_are_equal(provider: Provider, store: Store, workflow: DirRef):
    """An x bit, a symlink or an empty directory more is another version with another id."""
    store.objects.put(b"hello")
    artifact = store.add_artifact(workflow.args[0], "t", "tree")
    base = [TreeFile("a", HELLO, 5)]
    for files in (
        base,
        [*base, TreeFile("d", None)],
        [*base, TreeFile("d", None, target="a")],
        [TreeFile("a", HELLO, 5, executable=True)],
        base,
    ):
        store.save_tree(artifact.id, files)
    (found,) = await artifacts(provider, workflow)
    ids = [version.id for version in (await provider.versions(found, None)).versions]
    assert len(ids) == 5
    assert len(set(ids)) == 4
    assert ids[0] == ids[4]


async def test_trees_have_members(provider: Provider, store: Store, workflow: DirRef):
    """Files with their objects, directories and links; a locator of another version is NotFound."""
    store.objects.put(b"hello")
    artifact = store.add_artifact(workflow.args[0], "t", "tree")
    entries = [TreeFile("d/a", HELLO, 5, True, 3), TreeFile("e", None), TreeFile("l", None, target="d/a")]
    store.save_tree(artifact.id, entries)
    (found,) = await artifacts(provider, workflow)
    members = {m.path: m for m in await provider.tree(found, (artifact.id, "1"))}
    assert {path: m.kind for path, m in members.items()} == {"d/a": "file", "e": "dir", "l": "symlink"}
    one = members["d/a"]
    assert (one.size, one.executable, one.mtime_ns, members["l"].target) == (5, True, 3, "d/a")
    assert isinstance(one.content, ContentRef)
    async with provider.open(one.content, ByteRange(0)) as stream:
        assert b"".join([chunk async for chunk in stream.chunks]) == b"hello"
    for locator in ((artifact.id, "2"), (artifact.id, "-1"), ("art_none", "1"), (), (artifact.id, "1", "x")):
        with pytest.raises(errors.NotFound):
            await provider.tree(found, locator)


async def test_illegal_paths_of_a_tree_are_not_shown(provider: Provider, store: Store, workflow: DirRef, expected_logs):
    """What another writer of the store let in stays inside its version, and the log says so."""
    announced = expected_logs("illegal paths", logger="artifactfs.providers.local")
    artifact = store.add_artifact(workflow.args[0], "t", "tree")
    bad = ("/etc/passwd", "../up", "a//b", "a/./b", "nul\0", "")
    store.save_tree(artifact.id, [TreeFile(path, HELLO, 5) for path in (*bad, "good", "...", "a\\b")])
    (found,) = await artifacts(provider, workflow)
    assert (await tree(provider, found)).keys() == {"good", "...", "a\\b"}
    assert len(announced.seen) == 1


# -- reading -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, None), (0, 0), (0, 1), (5, None), (CHUNK - 1, 2), (CHUNK, CHUNK), (3 * CHUNK, 100), (99 * CHUNK, None)],
)
async def test_any_range_is_read(provider: Provider, publisher: Publisher, workflow, draft, offset, length):
    """Exactly the bytes asked for, in pieces of at most 1 MiB; beyond the end nothing."""
    data = bytes(range(256)) * 4096 * 3 + b"end"
    artifact = await publisher.create_file(workflow, ("big",), draft(data))
    end = None if length is None else offset + length
    assert await read(provider, artifact, offset, length) == data[offset:end]
    content = current(artifact).content
    assert isinstance(content, SingleFile)
    assert isinstance(content.content, ContentRef)
    async with provider.open(content.content, ByteRange(offset, length)) as stream:
        assert stream.total == len(data)
        async for chunk in stream.chunks:
            assert 0 < len(chunk) <= CHUNK


async def test_reading_can_be_broken_off(provider: Provider, publisher: Publisher, workflow, draft):
    """Leaving early, by an error or by cancellation, leaves no descriptor open."""
    artifact = await publisher.create_file(workflow, ("big",), draft(bytes(4 * CHUNK)))
    content = current(artifact).content
    assert isinstance(content, SingleFile)
    assert isinstance(content.content, ContentRef)
    before = len(os.listdir("/proc/self/fd"))
    async with provider.open(content.content, ByteRange(0)) as stream:
        async for _ in stream.chunks:
            break
    with trio.CancelScope() as scope:
        async with provider.open(content.content, ByteRange(0)) as stream:
            async for _ in stream.chunks:
                scope.cancel()
    assert scope.cancelled_caught
    assert len(os.listdir("/proc/self/fd")) == before


async def test_bytes_that_are_gone_or_changed_are_said_so(provider: Provider, publisher, store, workflow, draft):
    """A missing object is NotFound, one of another size CorruptContent, and a strange locator no file."""
    artifact = await publisher.create_file(workflow, ("a",), draft(b"hello"))
    path = store.objects.path(HELLO)
    path.chmod(0o600)
    path.write_bytes(b"hell")
    with pytest.raises(errors.CorruptContent):
        await read(provider, artifact)
    path.unlink()
    with pytest.raises(errors.NotFound):
        await read(provider, artifact)
    for locator in (("../../catalog.db",), ()):
        ref = ContentRef("mine", "k", locator, Exact(5), Access.LOCAL)
        with pytest.raises(errors.NotFound):
            async with provider.open(ref, ByteRange(0)):
                pass


async def test_the_event_loop_does_not_wait_for_the_store(provider: Provider, publisher, store, workflow, draft):
    """While a writer elsewhere holds the store, listings answer and other tasks run; the save then lands."""
    await publisher.create_file(workflow, ("a",), draft(b"1"))
    held, release = trio.Event(), trio.Event()
    token = trio.lowlevel.current_trio_token()

    def hold():
        with store.transaction():
            trio.from_thread.run_sync(held.set, trio_token=token)
            trio.from_thread.run(release.wait, trio_token=token)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, hold)
            await held.wait()
            nursery.start_soon(publisher.make_workflow, "later")
            await trio.sleep(0.01)
            assert len(await artifacts(provider, workflow)) == 1
            release.set()
    assert [w.name for w in store.workflows()] == ["w", "later"]


# -- publishing: workflows and files -------------------------------------------------------------------------


async def test_workflows_are_made_and_removed(provider: Provider, publisher: Publisher, store: Store, draft):
    """A second of the same name is AlreadyExists; one that holds something DirectoryNotEmpty."""
    await publisher.make_workflow("new")
    with pytest.raises(errors.AlreadyExists):
        await publisher.make_workflow("new")
    with pytest.raises(errors.NameNotAllowed):
        await publisher.make_workflow(os.fsdecode(b"\xff"))
    root = provider.root().ref
    assert root is not None
    (folder,) = (await provider.list(root, None)).entries
    assert isinstance(folder, Folder)
    assert folder.ref is not None
    artifact = await publisher.create_file(folder.ref, ("a",), draft(b"1"))
    with pytest.raises(errors.DirectoryNotEmpty):
        await publisher.remove_workflow(folder.ref)
    await publisher.remove(artifact)
    await publisher.remove_workflow(folder.ref)
    with pytest.raises(errors.NotFound):
        await publisher.remove_workflow(folder.ref)
    assert store.workflows() == []


async def test_each_save_is_a_version_and_an_equal_one_none(provider, publisher: Publisher, workflow, draft):
    """v1 by creating; then one version for each content or x bit that differs."""
    artifact = await publisher.create_file(workflow, ("notes.md",), draft(b"1"))
    assert (artifact.path, artifact.media_type, artifact.kind) == (("notes.md",), "text/markdown", ArtifactKind.FILE)
    assert current(artifact).created_by == "user"
    for data, executable in ((b"1", False), (b"2", False), (b"2", True), (b"2", True), (b"1", False)):
        artifact = await publisher.save_file(artifact, draft(data, executable=executable))
        assert await read(provider, artifact) == data
    assert [artifact] == await artifacts(provider, workflow)
    assert len((await provider.versions(artifact, None)).versions) == 4


async def test_a_name_that_is_taken(provider, publisher: Publisher, workflow, draft):
    """Other content is AlreadyExists; the same content is a create repeated after a crash, and succeeds."""
    artifact = await publisher.create_file(workflow, ("a",), draft(b"1"))
    assert await publisher.create_file(workflow, ("a",), draft(b"1")) == artifact
    with pytest.raises(errors.AlreadyExists):
        await publisher.create_file(workflow, ("a",), draft(b"2"))
    with pytest.raises(errors.AlreadyExists):
        await publisher.create_tree(workflow, ("a",))
    with pytest.raises(errors.NotPermitted):
        await publisher.create_file(workflow, ("run", "a"), draft(b"1"))
    await publisher.remove(artifact)
    again = await publisher.create_file(workflow, ("a",), draft(b"2"))
    assert again.id != artifact.id


async def test_a_save_over_somebody_elses_is_a_conflict(provider, publisher: Publisher, store, workflow, draft):
    """The store decides at the moment of the save; the same content saved twice is no conflict."""
    base = await publisher.create_file(workflow, ("a",), draft(b"1"))
    theirs = await publisher.save_file(base, draft(b"theirs"))
    with pytest.raises(errors.Conflict):
        await publisher.save_file(base, draft(b"mine"))
    assert await publisher.save_file(base, draft(b"theirs")) == theirs
    assert await read(provider, theirs) == b"theirs"
    assert await read(provider, await publisher.save_file(theirs, draft(b"mine"))) == b"mine"


async def test_a_removed_artifact_comes_back_with_a_save(provider, publisher: Publisher, store, workflow, draft):
    """Removing twice is no error, its versions stay by id; a save makes the next of them, the same content none."""
    artifact = await publisher.create_file(workflow, ("a",), draft(b"1"))
    await publisher.remove(artifact)
    await publisher.remove(artifact)
    found = await provider.find(workflow, artifact.id)
    assert found is not None
    assert await read(provider, found) == b"1"
    assert not (await provider.list(workflow, None)).entries
    back = await publisher.save_file(artifact, draft(b"1"))
    assert (back.id, len(store.versions(back.id))) == (artifact.id, 1)
    await publisher.remove(back)
    assert await read(provider, await publisher.save_file(back, draft(b"2"))) == b"2"
    assert len(store.versions(back.id)) == 2
    assert [entry.id for entry in (await provider.list(workflow, None)).entries] == [artifact.id]


async def test_a_removed_artifact_does_not_come_back_over_another(publisher: Publisher, store, workflow, draft):
    """Its name was given away, or its workflow removed: the save is refused, and nothing is changed."""
    artifact = await publisher.create_file(workflow, ("a",), draft(b"1"))
    await publisher.remove(artifact)
    other = await publisher.create_file(workflow, ("a",), draft(b"other"))
    with pytest.raises(errors.AlreadyExists):
        await publisher.save_file(artifact, draft(b"2"))
    await publisher.remove(other)
    await publisher.remove_workflow(workflow)
    with pytest.raises(errors.NotFound):
        await publisher.save_file(artifact, draft(b"2"))
    assert [found.deleted for found in store.artifacts(deleted=True)] == [True, True]


async def test_a_draft_that_is_not_what_it_was_is_refused(publisher: Publisher, store, workflow, draft):
    """A draft that changed or vanished after it was sealed is CorruptContent, and nothing is made."""
    changed, gone = draft(b"sealed"), draft(b"sealed too")
    changed.path.write_bytes(b"other!")
    gone.path.unlink()
    for bad in (changed, gone):
        with pytest.raises(errors.CorruptContent):
            await publisher.create_file(workflow, ("a",), bad)
    assert store.artifacts() == []


async def test_a_full_disk_is_no_local_space(publisher: Publisher, store, workflow, draft, monkeypatch):
    """Nothing is acknowledged, and nothing is made."""

    def refuse(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(errors.NoLocalSpace):
        await publisher.create_file(workflow, ("a",), draft(b"1"))
    assert store.artifacts() == []


async def test_odd_names_are_kept_as_they_are(provider, publisher: Publisher, workflow, draft):
    """No trimming, no folding: what was named is what is listed."""
    names = [" a ", "e\u0301", "\u00e9", "A", "a", "100%", "a\\b", "\U0001f4e6", ".hidden", "\x1b[31m", "x" * 255]
    for name in names:
        await publisher.create_file(workflow, (name,), draft(name.encode()))
    assert [a.path for a in await artifacts(provider, workflow)] == [(name,) for name in names]
    with pytest.raises(errors.NameNotAllowed):
        await publisher.create_file(workflow, (os.fsdecode(b"\xff"),), draft(b"1"))


async def test_renaming(provider, publisher: Publisher, store, workflow, draft):
    """To a free name, into another workflow; a taken one is AlreadyExists; the type follows the name."""
    one = await publisher.create_file(workflow, ("a.txt",), draft(b"1"))
    await publisher.create_file(workflow, ("b",), draft(b"2"))
    with pytest.raises(errors.AlreadyExists):
        await publisher.rename(one, workflow, ("b",))
    moved = await publisher.rename(one, workflow, ("c.png",))
    assert (moved.id, moved.path, moved.media_type) == (one.id, ("c.png",), "image/png")
    assert await publisher.rename(one, workflow, ("c.png",)) == moved
    other = DirRef("mine", "workflow", (store.add_workflow("other").id,))
    gone = await publisher.rename(moved, other, ("b",))
    assert (gone.workflow, gone.path) == ("other", ("b",))
    assert await read(provider, gone) == b"1"
    assert len((await provider.versions(gone, None)).versions) == 1


async def test_renaming_what_a_run_left(publisher: Publisher, store, workflow):
    """Within its run and phase it stays an output of the run; in the workflow it is one no more."""
    store.add_run(Run("exec-1", "u1", workflow.args[0], "completed", 10, 20))
    stored = store.add_artifact(workflow.args[0], "a/b.md", "file", run_id="exec-1", phase="p")
    artifact = Artifact(("exec-1", "p", "a", "b.md"), stored.id, stored.id, ArtifactKind.FILE, None)
    inside = await publisher.rename(artifact, workflow, ("exec-1", "p", "c", "d.md"))
    assert (inside.path, inside.run) == (("exec-1", "p", "c", "d.md"), "exec-1")
    with pytest.raises(errors.NotPermitted):
        await publisher.rename(inside, workflow, ("exec-2", "p", "x"))
    with pytest.raises(errors.NotPermitted):
        await publisher.rename(inside, workflow, ("exec-1", "p"))
    outside = await publisher.rename(inside, workflow, ("d.md",))
    assert (outside.path, outside.run) == (("d.md",), None)


# -- publishing: trees ---------------------------------------------------------------------------------------


async def test_a_tree_is_made_and_changed(provider, publisher: Publisher, workflow, draft):
    """One version for all changes of a call; a removed file leaves its directory; no change, no version."""
    artifact = await publisher.create_tree(workflow, ("t",))
    assert current(artifact).content == Empty()
    assert await publisher.create_tree(workflow, ("t",)) == artifact
    changes = {"a/b": draft(b"1"), "a/run.sh": draft(b"2", executable=True), "c": draft(b"3")}
    artifact = await publisher.change_tree(artifact, changes, ["made/deep"])
    assert await tree(provider, artifact) == {
        "a/b": ("file", False),
        "a/run.sh": ("file", True),
        "c": ("file", False),
        "made/deep": ("dir", False),
    }
    same = await publisher.change_tree(artifact, {"c": draft(b"3")}, ["a"])
    assert current(same).id == current(artifact).id
    artifact = await publisher.change_tree(artifact, {"a/b": None, "a/run.sh": None, "none/such": None})
    assert (await tree(provider, artifact)).keys() == {"a", "c", "made/deep"}
    artifact = await publisher.change_tree(artifact, {"a": None, "made/deep": None, "made": None, "c": None})
    assert await tree(provider, artifact) == {}
    assert len((await provider.versions(artifact, None)).versions) == 4
    with pytest.raises(errors.AlreadyExists):
        await publisher.create_file(workflow, ("t",), draft(b"1"))


async def test_changes_of_a_tree_meet(provider, publisher: Publisher, workflow, draft):
    """What others changed elsewhere in the tree stays; the same path changed twice is a conflict."""
    base = await publisher.create_tree(workflow, ("t",))
    base = await publisher.change_tree(base, {"a": draft(b"1"), "b": draft(b"1")})
    await publisher.change_tree(base, {"b": draft(b"theirs"), "d": draft(b"theirs")})
    merged = await publisher.change_tree(base, {"a": draft(b"mine"), "d": draft(b"theirs")})
    assert (await tree(provider, merged)).keys() == {"a", "b", "d"}
    for change in ({"b": draft(b"mine")}, {"b": None}, {"d": draft(b"mine")}):
        with pytest.raises(errors.Conflict) as caught:
            await publisher.change_tree(base, change)
        assert caught.value.subject in change
    with pytest.raises(errors.Conflict):
        await publisher.rename_in_tree(base, "a", "d")


async def test_moving_in_a_tree(provider, publisher: Publisher, workflow, draft):
    """A file or a directory moves as one version; done already is done; what is nowhere is NotFound."""
    artifact = await publisher.create_tree(workflow, ("t",))
    artifact = await publisher.change_tree(artifact, {"d/a": draft(b"1"), "d/b/c": draft(b"2"), "x": draft(b"3")})
    moved = await publisher.rename_in_tree(artifact, "d", "e/f")
    assert (await tree(provider, moved)).keys() == {"e/f/a", "e/f/b/c", "x"}
    assert current(await publisher.rename_in_tree(moved, "d", "e/f")).id == current(moved).id
    over = await publisher.rename_in_tree(moved, "x", "e/f/a")
    assert (await tree(provider, over)).keys() == {"e/f/a", "e/f/b/c"}
    with pytest.raises(errors.NotFound):
        await publisher.rename_in_tree(over, "none", "such")
    assert len((await provider.versions(over, None)).versions) == 4


# -- the whole of it -----------------------------------------------------------------------------------------


async def test_a_provider_reads_the_sample_data(provider: Provider, store: Store):
    """Every workflow, artifact, version and tree of the demo is described, and each file opens."""
    demo.fill(store)
    root = provider.root().ref
    assert root is not None
    seen = 0
    for folder in (await provider.list(root, None)).entries:
        assert isinstance(folder, Folder)
        assert folder.ref is not None
        for artifact in await artifacts(provider, folder.ref):
            seen += 1
            assert await provider.find(folder.ref, artifact.id) == artifact
            assert (await provider.versions(artifact, None)).versions[-1] == artifact.current
            if artifact.kind is ArtifactKind.TREE:
                assert await tree(provider, artifact)
            else:
                size = current(artifact).size
                assert isinstance(size, Exact)
                assert len(await read(provider, artifact, 0, 100)) == min(100, size.value)
    assert seen == len(store.artifacts())
    checks = await provider.check()
    assert all(check.ok for check in checks)
    assert provider.describe()["root"] == str(store.root)
    await provider.aclose()
