"""The built-in store as a provider: what it describes, what it reads, what it publishes."""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio

from artifactfs import errors
from artifactfs.model.content import Access, ByteRange, Content, ContentRef, Exact
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
    TreeMember,
    Version,
)
from artifactfs.providers.base import Change, Draft, Provider, Publisher
from artifactfs.providers.local.provider import CHUNK, LocalProvider
from artifactfs.providers.local.view import StoreView
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


@dataclass(frozen=True)
class Try:
    """An attempt that remembers nothing: the store needs no facts."""

    is_first: bool
    facts: Mapping[str, str] = field(default_factory=dict)

    async def note(self, **facts: str) -> None:
        raise AssertionError(facts)


FIRST, AGAIN = Try(is_first=True), Try(is_first=False)


async def no_bytes(content: Content, offset: int, length: int) -> bytes:
    """Stand for what reads a member: the store has its bytes."""
    raise AssertionError((content, offset, length))


def object_named(sha256: str | None) -> ContentRef:
    """Return what names bytes that the store has not got."""
    return ContentRef("mine", "k", (), Exact(1), Access.LOCAL, sha256)


@pytest.fixture
def members(provider: LocalProvider):
    async def listed(artifact: Artifact) -> dict[str, TreeMember]:
        content = current(artifact).content
        assert isinstance(content, Tree)
        return {member.path: member for member in await provider.tree(artifact, content.locator)}

    return listed


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
    artifact = await publisher.create_file(workflow, ("big",), draft(data), FIRST)
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
    artifact = await publisher.create_file(workflow, ("big",), draft(bytes(4 * CHUNK)), FIRST)
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
    artifact = await publisher.create_file(workflow, ("a",), draft(b"hello"), FIRST)
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
    await publisher.create_file(workflow, ("a",), draft(b"1"), FIRST)
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
    artifact = await publisher.create_file(folder.ref, ("a",), draft(b"1"), FIRST)
    with pytest.raises(errors.DirectoryNotEmpty):
        await publisher.remove_workflow(folder.ref)
    await publisher.remove(artifact)
    await publisher.remove_workflow(folder.ref)
    with pytest.raises(errors.NotFound):
        await publisher.remove_workflow(folder.ref)
    assert store.workflows() == []


async def test_each_save_is_a_version_and_an_equal_one_none(provider, publisher: Publisher, workflow, draft):
    """v1 by creating; then one version for each content or x bit that differs."""
    artifact = await publisher.create_file(workflow, ("notes.md",), draft(b"1"), FIRST)
    assert (artifact.path, artifact.media_type, artifact.kind) == (("notes.md",), "text/markdown", ArtifactKind.FILE)
    assert current(artifact).created_by == "user"
    for data, executable in ((b"1", False), (b"2", False), (b"2", True), (b"2", True), (b"1", False)):
        artifact = await publisher.save_file(artifact, draft(data, executable=executable), FIRST)
        assert await read(provider, artifact) == data
    assert [artifact] == await artifacts(provider, workflow)
    assert len((await provider.versions(artifact, None)).versions) == 4


async def test_a_name_that_is_taken(provider, publisher: Publisher, workflow, draft):
    """Other content is AlreadyExists; the same content is a create repeated after a crash, and succeeds."""
    artifact = await publisher.create_file(workflow, ("a",), draft(b"1"), FIRST)
    assert await publisher.create_file(workflow, ("a",), draft(b"1"), FIRST) == artifact
    with pytest.raises(errors.AlreadyExists):
        await publisher.create_file(workflow, ("a",), draft(b"2"), FIRST)
    with pytest.raises(errors.AlreadyExists):
        await publisher.create_tree(workflow, ("a",))
    with pytest.raises(errors.NotPermitted):
        await publisher.create_file(workflow, ("run", "a"), draft(b"1"), FIRST)
    await publisher.remove(artifact)
    again = await publisher.create_file(workflow, ("a",), draft(b"2"), FIRST)
    assert again.id != artifact.id


async def test_a_save_over_somebody_elses_is_a_conflict(provider, publisher: Publisher, store, workflow, draft):
    """The store decides at the moment of the save; the same content saved twice is no conflict."""
    base = await publisher.create_file(workflow, ("a",), draft(b"1"), FIRST)
    theirs = await publisher.save_file(base, draft(b"theirs"), FIRST)
    with pytest.raises(errors.Conflict):
        await publisher.save_file(base, draft(b"mine"), FIRST)
    assert await publisher.save_file(base, draft(b"theirs"), FIRST) == theirs
    assert await read(provider, theirs) == b"theirs"
    assert await read(provider, await publisher.save_file(theirs, draft(b"mine"), FIRST)) == b"mine"


async def test_a_removed_artifact_comes_back_with_a_save(provider, publisher: Publisher, store, workflow, draft):
    """Removing twice is no error, its versions stay by id; a save makes the next of them, the same content none."""
    artifact = await publisher.create_file(workflow, ("a",), draft(b"1"), FIRST)
    await publisher.remove(artifact)
    await publisher.remove(artifact)
    found = await provider.find(workflow, artifact.id)
    assert found is not None
    assert await read(provider, found) == b"1"
    assert not (await provider.list(workflow, None)).entries
    back = await publisher.save_file(artifact, draft(b"1"), FIRST)
    assert (back.id, len(store.versions(back.id))) == (artifact.id, 1)
    await publisher.remove(back)
    assert await read(provider, await publisher.save_file(back, draft(b"2"), FIRST)) == b"2"
    assert len(store.versions(back.id)) == 2
    assert [entry.id for entry in (await provider.list(workflow, None)).entries] == [artifact.id]


async def test_a_removed_artifact_does_not_come_back_over_another(publisher: Publisher, store, workflow, draft):
    """Its name was given away, or its workflow removed: the save is refused, and nothing is changed."""
    artifact = await publisher.create_file(workflow, ("a",), draft(b"1"), FIRST)
    await publisher.remove(artifact)
    other = await publisher.create_file(workflow, ("a",), draft(b"other"), FIRST)
    with pytest.raises(errors.AlreadyExists):
        await publisher.save_file(artifact, draft(b"2"), FIRST)
    await publisher.remove(other)
    await publisher.remove_workflow(workflow)
    with pytest.raises(errors.NotFound):
        await publisher.save_file(artifact, draft(b"2"), FIRST)
    assert [found.deleted for found in store.artifacts(deleted=True)] == [True, True]


async def test_a_draft_that_is_not_what_it_was_is_refused(publisher: Publisher, store, workflow, draft):
    """A draft that changed or vanished after it was sealed is CorruptContent, and nothing is made."""
    changed, gone = draft(b"sealed"), draft(b"sealed too")
    changed.path.write_bytes(b"other!")
    gone.path.unlink()
    for bad in (changed, gone):
        with pytest.raises(errors.CorruptContent):
            await publisher.create_file(workflow, ("a",), bad, FIRST)
    assert store.artifacts() == []


async def test_a_draft_that_cannot_be_read_now_may_be_later(publisher: Publisher, store, workflow, draft):
    """Not every failure of a disk is the end of a save; the same call succeeds when it has passed."""
    sealed = draft(b"1")
    away = sealed.path.rename(sealed.path.with_name("away"))
    sealed.path.symlink_to(sealed.path)  # a loop, which even root cannot open
    with pytest.raises(errors.Unavailable):
        await publisher.create_file(workflow, ("a",), sealed, FIRST)
    away.replace(sealed.path)
    assert current(await publisher.create_file(workflow, ("a",), sealed, AGAIN)).size == Exact(1)


async def test_a_full_disk_is_no_local_space(publisher: Publisher, store, workflow, draft, monkeypatch):
    """Nothing is acknowledged, and nothing is made."""

    def refuse(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(errors.NoLocalSpace):
        await publisher.create_file(workflow, ("a",), draft(b"1"), FIRST)
    assert store.artifacts() == []


async def test_odd_names_are_kept_as_they_are(provider, publisher: Publisher, workflow, draft):
    """No trimming, no folding: what was named is what is listed."""
    names = [" a ", "e\u0301", "\u00e9", "A", "a", "100%", "a\\b", "\U0001f4e6", ".hidden", "\x1b[31m", "x" * 255]
    for name in names:
        await publisher.create_file(workflow, (name,), draft(name.encode()), FIRST)
    assert [a.path for a in await artifacts(provider, workflow)] == [(name,) for name in names]
    with pytest.raises(errors.NameNotAllowed):
        await publisher.create_file(workflow, (os.fsdecode(b"\xff"),), draft(b"1"), FIRST)


async def test_renaming(provider, publisher: Publisher, store, workflow, draft):
    """To a free name, into another workflow; a taken one is AlreadyExists; the type follows the name."""
    one = await publisher.create_file(workflow, ("a.txt",), draft(b"1"), FIRST)
    await publisher.create_file(workflow, ("b",), draft(b"2"), FIRST)
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


async def test_a_tree_is_made_and_saved(provider, publisher: Publisher, members, workflow, draft):
    """Each save is one version, exactly what was asked for; what is there already is taken by its hash."""
    artifact = await publisher.create_tree(workflow, ("t",))
    assert current(artifact).content == Empty()
    assert await publisher.create_tree(workflow, ("t",)) == artifact
    made = {
        "a/b": draft(b"1"),
        "a/run.sh": draft(b"2", executable=True),
        "made/deep": TreeMember("made/deep", "dir"),
        "link": TreeMember("link", "symlink", target="a/b"),
    }
    artifact = await publisher.save_tree(artifact, made, FIRST, read=no_bytes, message="begun")
    expected = {
        "a/b": ("file", False),
        "a/run.sh": ("file", True),
        "link": ("symlink", False),
        "made/deep": ("dir", False),
    }
    assert await tree(provider, artifact) == expected
    kept = await members(artifact)
    assert (kept["a/b"].size, kept["a/b"].mtime_ns, kept["link"].target) == (1, 1_700_000_000 * 10**9, "a/b")
    moved = {f"x/{path}": replace(member, path=f"x/{path}") for path, member in kept.items()}
    artifact = await publisher.save_tree(artifact, moved | {"c": draft(b"3")}, FIRST, read=no_bytes)
    assert await tree(provider, artifact) == {f"x/{path}": kind for path, kind in expected.items()} | {
        "c": ("file", False)
    }
    async with provider.open((await members(artifact))["x/a/b"].content, ByteRange(0)) as stream:
        assert b"".join([chunk async for chunk in stream.chunks]) == b"1"
    artifact = await publisher.save_tree(artifact, {}, FIRST, read=no_bytes, message="over")
    assert await tree(provider, artifact) == {}
    messages = [version.message for version in (await provider.versions(artifact, None)).versions]
    assert messages == [None, "begun", None, "over"]
    with pytest.raises(errors.AlreadyExists):
        await publisher.create_file(workflow, ("t",), draft(b"1"), FIRST)


async def test_a_tree_that_is_the_same_makes_no_version(provider, publisher: Publisher, members, workflow, draft):
    """Times, and directories that are implied anyway, are no difference; a message alone is none either."""
    artifact = await publisher.create_tree(workflow, ("t",))
    artifact = await publisher.save_tree(artifact, {"d/a": draft(b"1")}, FIRST, read=no_bytes, message="m")
    for same in (
        await members(artifact),
        {"d/a": replace(draft(b"1"), mtime_ns=5)},
        {"d/a": draft(b"1"), "d": TreeMember("d", "dir")},
    ):
        assert await publisher.save_tree(artifact, same, FIRST, read=no_bytes, message="other") == artifact
    assert len((await provider.versions(artifact, None)).versions) == 2
    for other in ({"d/a": draft(b"1", executable=True)}, {"d/a": draft(b"1"), "e": TreeMember("e", "dir")}):
        saved = await publisher.save_tree(artifact, other, FIRST, read=no_bytes)
        assert current(saved).id != current(artifact).id
        artifact = saved


async def test_a_tree_that_was_overtaken_is_a_conflict(provider, publisher: Publisher, store, workflow, draft):
    """Nothing is written over; what the store says already is done."""
    base = await publisher.create_tree(workflow, ("t",))
    theirs = await publisher.save_tree(base, {"a": draft(b"theirs")}, FIRST, read=no_bytes)
    with pytest.raises(errors.Conflict):
        await publisher.save_tree(base, {"a": draft(b"mine")}, FIRST, read=no_bytes)
    assert await publisher.save_tree(base, {"a": draft(b"theirs")}, FIRST, read=no_bytes) == theirs
    assert len(store.versions(base.id)) == 2
    await publisher.remove(theirs)
    with pytest.raises(errors.NotFound):
        await publisher.save_tree(theirs, {"a": draft(b"mine")}, FIRST, read=no_bytes)


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        ({"../x": None}, errors.NameNotAllowed),
        ({"/x": None}, errors.NameNotAllowed),
        ({"a//b": None}, errors.NameNotAllowed),
        ({"a/..": None}, errors.NameNotAllowed),
        ({"nul\0": None}, errors.NameNotAllowed),
        ({"": None}, errors.NameNotAllowed),
        ({"f": None, "f/x": None}, errors.NotADirectory),
        ({"l/x/y": None, "l": TreeMember("l", "symlink", target="d")}, errors.NotADirectory),
        ({"gone": TreeMember("gone", "file", object_named("0" * 64))}, errors.CorruptContent),
        ({"unknown": TreeMember("unknown", "file", object_named(None))}, errors.CorruptContent),
    ],
)
async def test_impossible_trees_are_refused(publisher: Publisher, store, workflow, draft, manifest, expected):
    """Each for its own reason, and nothing is made."""
    artifact = await publisher.create_tree(workflow, ("t",))
    wanted = {path: value or draft(b"1") for path, value in manifest.items()}
    with pytest.raises(expected):
        await publisher.save_tree(artifact, wanted, FIRST, read=no_bytes)
    assert len(store.versions(artifact.id)) == 1


async def test_a_tree_may_bring_back_what_an_older_version_had(
    provider, publisher: Publisher, members, workflow, draft
):
    """Its bytes are in the store, though not in the current version."""
    artifact = await publisher.create_tree(workflow, ("t",))
    old = await publisher.save_tree(artifact, {"a": draft(b"old")}, FIRST, read=no_bytes)
    new = await publisher.save_tree(old, {}, FIRST, read=no_bytes)
    back = await publisher.save_tree(new, await members(old), FIRST, read=no_bytes)
    assert current(back).id == current(old).id
    assert len((await provider.versions(back, None)).versions) == 4


# -- publishing: again ---------------------------------------------------------------------------------------


async def test_what_was_saved_before_a_crash_is_not_saved_twice(publisher: Publisher, store, workflow, draft):
    """Between the commit and its acknowledgement: the same call is made again, and finds its work done."""
    made = [await publisher.create_file(workflow, ("a",), draft(b"1"), attempt) for attempt in (FIRST, AGAIN)]
    assert made[0] == made[1]
    saved = [await publisher.save_file(made[0], draft(b"2"), attempt) for attempt in (FIRST, AGAIN)]
    assert saved[0] == saved[1]
    empty = await publisher.create_tree(workflow, ("t",))
    trees = [await publisher.save_tree(empty, {"a": draft(b"1")}, attempt, read=no_bytes) for attempt in (FIRST, AGAIN)]
    assert trees[0] == trees[1]
    assert [len(store.versions(artifact.id)) for artifact in (made[0], empty)] == [2, 2]


async def test_what_was_saved_before_a_crash_and_followed_by_others_is_no_conflict(
    publisher: Publisher, store, workflow, draft
):
    """The version after the base is what was to be saved, and who followed has seen it; a first try has made none."""
    made = await publisher.create_file(workflow, ("a",), draft(b"1"), FIRST)
    theirs = await publisher.save_file(made, draft(b"theirs"), FIRST)
    assert await publisher.create_file(workflow, ("a",), draft(b"1"), AGAIN) == theirs
    with pytest.raises(errors.AlreadyExists):
        await publisher.create_file(workflow, ("a",), draft(b"1"), FIRST)
    newest = await publisher.save_file(theirs, draft(b"newest"), FIRST)
    assert await publisher.save_file(made, draft(b"theirs"), AGAIN) == newest
    for attempt, data in ((FIRST, b"theirs"), (AGAIN, b"other"), (AGAIN, b"1")):
        with pytest.raises(errors.Conflict):
            await publisher.save_file(made, draft(data), attempt)
    assert len(store.versions(made.id)) == 3
    empty = await publisher.create_tree(workflow, ("t",))
    first = await publisher.save_tree(empty, {"a": draft(b"1")}, FIRST, read=no_bytes)
    second = await publisher.save_tree(first, {"a": draft(b"2")}, FIRST, read=no_bytes)
    assert await publisher.save_tree(empty, {"a": draft(b"1")}, AGAIN, read=no_bytes) == second
    for attempt, data in ((FIRST, b"1"), (AGAIN, b"3")):
        with pytest.raises(errors.Conflict):
            await publisher.save_tree(empty, {"a": draft(data)}, attempt, read=no_bytes)
    assert len(store.versions(empty.id)) == 3


async def test_a_crash_before_the_commit_leaves_no_version(publisher: Publisher, store, workflow, draft, monkeypatch):
    """The rows of a tree come with its version or not at all; the same call then makes them."""
    empty = await publisher.create_tree(workflow, ("t",))
    made = {"a": draft(b"1"), "b": draft(b"2")}

    def die(view: StoreView, artifact_id: str) -> None:  # asked last, when all rows are written
        assert len(view.store.tree(artifact_id, 2)) == 2
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(StoreView, "artifact", die)
        with pytest.raises(RuntimeError, match="killed"):
            await publisher.save_tree(empty, made, FIRST, read=no_bytes)
    assert len(store.versions(empty.id)) == 1
    assert current(await publisher.save_tree(empty, made, AGAIN, read=no_bytes)).file_count == 2
    assert len(store.versions(empty.id)) == 2


async def test_the_store_takes_everything_it_can_give_back(publisher: Publisher, tmp_path):
    """Any change, any bytes; of names only what UTF-8 cannot say is refused."""
    for change in Change:
        await publisher.permits(change)
    for name in ("a", "\x1b", "..", "x" * 255):
        publisher.vet(name, tmp_path / "any", 1 << 40)
    with pytest.raises(errors.NameNotAllowed):
        publisher.vet(os.fsdecode(b"\xff"), tmp_path / "any", 1)


async def test_a_large_tree_is_saved_in_little_time(publisher: Publisher, provider, members, workflow, draft):
    """10,000 files of which one changes: 0.12 s on two busy cores, the 100th save of it too."""
    artifact = await publisher.create_tree(workflow, ("t",))
    artifact = await publisher.save_tree(artifact, {"one": draft(b"1")}, FIRST, read=no_bytes)
    (member,) = (await members(artifact)).values()
    many = {path: replace(member, path=path) for path in (f"d{at % 100}/f{at}" for at in range(10_000))}
    artifact = await publisher.save_tree(artifact, many, FIRST, read=no_bytes)
    started = time.perf_counter()
    artifact = await publisher.save_tree(artifact, many | {"d7/f7": draft(b"new")}, FIRST, read=no_bytes)
    assert time.perf_counter() - started < 3
    assert current(artifact).file_count == 10_000


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
