"""Saving to VM0, against the really served dialect: what arrives, what is sent for it, and what breaks on the way."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from artifactfs import errors
from artifactfs.content.block_store import BlockStore
from artifactfs.content.facts import Facts
from artifactfs.content.readahead import Pattern
from artifactfs.content.reader import ContentReader
from artifactfs.model.content import ArchiveMember, ByteRange, Content, Inline
from artifactfs.model.entry import Accepts, Archive, Artifact, DirRef, Empty, Folder, TreeMember
from artifactfs.providers.base import Change, Draft, Manifest
from artifactfs.providers.vm0 import Vm0Provider, push_api, push_plan
from artifactfs.providers.vm0.publisher import Vm0Publisher
from artifactfs.server.vm0_archives import archive_path
from artifactfs.store.rows import TreeFile
from tests.support import vm0_world as world
from tests.support.lab import Lab, Seen
from tests.support.log_guard import LogGuard

AT_NS = 1_770_105_600_123_456_789
DETAIL = "GET v1/artifacts/:id"
PREPARE, COMMIT = "POST api/storages/prepare", "POST api/storages/commit"
ARCHIVE, MANIFEST = "PUT archive.tar.gz", "PUT manifest.json"
PUSH = Counter({DETAIL: 3, PREPARE: 1, ARCHIVE: 1, MANIFEST: 1, COMMIT: 1})
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


class Attempt:
    """What the journal remembers of one change."""

    def __init__(self) -> None:
        self.is_first = True
        self.facts: dict[str, str] = {}

    async def note(self, **facts: str) -> None:
        self.facts.update(facts)


class Desk:
    """A served store, a provider of it, and files to be saved."""

    def __init__(self, lab: Lab, provider: Vm0Provider, directory: Path) -> None:
        self.lab, self.store, self.provider, self.directory = lab, lab.store, provider, directory
        publisher = provider.publisher
        assert isinstance(publisher, Vm0Publisher)
        self.publisher = publisher
        self.reads: list[tuple[Content, int, int]] = []
        self.contents: dict[Content, bytes] = {}

    def draft(self, data: bytes, *, executable: bool = False, mtime_ns: int = AT_NS) -> Draft:
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.directory / sha256
        path.write_bytes(data)
        return Draft(path, len(data), sha256, executable, mtime_ns)

    def drafts(self, **files: bytes) -> dict[str, Draft]:
        return {path: self.draft(data) for path, data in files.items()}

    async def read(self, content: Content, offset: int, size: int) -> bytes:
        self.reads.append((content, offset, size))
        await trio.lowlevel.checkpoint()
        return self.contents[content][offset : offset + size]

    async def save(
        self, artifact: Artifact, manifest: Manifest, attempt: Attempt | None = None, message: str | None = None
    ) -> Artifact:
        return await self.publisher.save_tree(artifact, manifest, attempt or Attempt(), read=self.read, message=message)

    async def artifact(self, ref: DirRef = world.ARTIFACTS) -> Artifact:
        """Return the one artifact as it is now, with its current version."""
        listed = await world.only(self.provider, ref)
        found = await self.provider.find(ref, listed.id)
        assert found is not None
        return found

    async def files(self, artifact: Artifact) -> dict[str, bytes]:
        """Return what a version's archive holds."""
        return world.members(await world.read(self.provider, artifact.current))

    def versions(self) -> list[str]:
        (stored,) = self.store.artifacts()
        return [version.id for version in self.store.versions(stored.id)]

    def tree(self) -> dict[str, TreeFile]:
        """Return what the service has of the current version."""
        (stored,) = self.store.artifacts()
        return {file.path: file for file in self.store.tree(stored.id, stored.current)}

    def tree_of(self, name: str) -> set[str]:
        (stored,) = (found for found in self.store.artifacts() if (found.name, found.role) == (name, "artifact"))
        return {file.path for file in self.store.tree(stored.id, stored.current)}

    @contextmanager
    def counted(self) -> Iterator[Counter[str]]:
        found: Counter[str] = Counter()
        with self.lab.counted() as seen:
            yield found
        found.update(map(route_of, seen))


def route_of(seen: Seen) -> str:
    """Return what kind of request it was."""
    if seen.origin == "storage":
        return f"{seen.method} {seen.path.rpartition('/')[2]}"
    return f"{seen.method} {UUID.sub(':id', seen.path.split('/', 2)[2])}"


@pytest.fixture(params=["vm0", "vm0-snake"])
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(push_api, "PAUSE_S", 0.01)


@asynccontextmanager
async def desk_at(tmp_path: Path, dialect: str = "vm0", memory: Any = None, **files: bytes) -> AsyncIterator[Desk]:
    """Serve a store with one artifact ``report`` that holds these files."""
    store = world.new_store(tmp_path)
    world.tree(store, "report", files)
    with Lab(store, token=world.TOKEN) as lab:
        async with world.provider_at(lab.bases()[dialect], memory=memory) as provider:
            yield Desk(lab, provider, tmp_path)


# -- what arrives --------------------------------------------------------------------------------------------------


async def test_a_save_becomes_the_next_version(tmp_path: Path, dialect: str) -> None:
    """Seven requests; the artifact comes back as the service shows it, its version with message, size and time."""
    async with desk_at(tmp_path, dialect, old=b"1") as desk:
        artifact = await desk.artifact()
        with desk.counted() as requests:
            saved = await desk.save(artifact, desk.drafts(new=b"hello\n"), message="a word")
        assert requests == PUSH
        assert saved == await desk.provider.find(world.ARTIFACTS, artifact.id)
        current = saved.current
        assert current is not None
        assert (current.file_count, current.message, current.created_by) == (1, "a word", "user")
        assert current.created_at_ns is not None
        assert current.id == desk.versions()[-1]
        assert len(desk.versions()) == 2
        assert (await desk.files(saved)) == {"new": b"hello\n"}
        assert saved.writable


async def test_the_token_stays_at_home(tmp_path: Path) -> None:
    """Uploads are announced with length and type, and carry no Authorization."""
    async with desk_at(tmp_path, old=b"1") as desk:
        with desk.lab.counted() as seen:
            await desk.save(await desk.artifact(), desk.drafts(new=b"2"))
        puts = {request.path.rpartition("/")[2]: request.headers for request in seen if request.method == "PUT"}
        assert {name: headers["content-type"] for name, headers in puts.items()} == {
            "archive.tar.gz": "application/gzip", "manifest.json": "application/json",
        }  # fmt: skip
        for headers in puts.values():
            assert int(headers["content-length"]) > 0
            assert "authorization" not in headers
            assert "transfer-encoding" not in headers


async def test_all_that_a_tree_can_hold_comes_back(tmp_path: Path, dialect: str) -> None:
    """X bits, times to the nanosecond, symlinks, those that lead out too, empty directories, names of any kind."""
    async with desk_at(tmp_path, dialect, old=b"1") as desk:
        long, odd = "n" * 255, "ünïcödé/日本語\n😀.txt"
        manifest: dict[str, Draft | TreeMember] = {
            "bin": TreeMember("bin", "dir"),
            "bin/run": desk.draft(b"#!", executable=True, mtime_ns=1),
            "link": TreeMember("link", "symlink", mtime_ns=AT_NS, target="bin/run"),
            "out": TreeMember("out", "file", Inline(b"leads out"), 9, mtime_ns=AT_NS, target="../../etc/passwd"),
            "empty": TreeMember("empty", "dir", mtime_ns=AT_NS),
            long: desk.draft(b""),
            odd: desk.draft(b"ok"),
            "inline": TreeMember("inline", "file", Inline(b"abc"), 3),
        }
        saved = await desk.save(await desk.artifact(), manifest)
        found = desk.tree()
        assert set(found) == set(manifest) - {"bin"}
        assert (found["bin/run"].executable, found["bin/run"].mtime_ns) == (True, 1)
        assert not found[long].executable
        assert (found["link"].target, found["out"].target) == ("bin/run", "../../etc/passwd")
        assert (found["empty"].sha256, found["empty"].target, found["empty"].mtime_ns) == (None, None, AT_NS)
        assert await desk.files(saved) == {"bin/run": b"#!", long: b"", odd: b"ok", "inline": b"abc"}


async def test_members_that_stand_in_another_version_are_read(tmp_path: Path) -> None:
    """Those of known hash once, for the archive; others once more, for their hash."""
    async with desk_at(tmp_path, old=b"1") as desk:
        artifact = await desk.artifact()
        version = artifact.current
        assert version is not None
        assert isinstance(version.content, Archive)
        kept = os.urandom(push_plan.CHUNK + 5)
        known = ArchiveMember(version.content.ref, 512, len(kept), hashlib.sha256(kept).hexdigest())
        unknown = ArchiveMember(version.content.ref, 9999, 3)
        desk.contents = {known: kept, unknown: b"xyz"}
        manifest = {
            "known": TreeMember("known", "file", known, len(kept)),
            "unknown": TreeMember("unknown", "file", unknown, 3),
        }
        saved = await desk.save(artifact, manifest)
        assert await desk.files(saved) == {"known": kept, "unknown": b"xyz"}
        assert desk.reads == [
            (unknown, 0, 3), (known, 0, push_plan.CHUNK), (known, push_plan.CHUNK, 5), (unknown, 0, 3),
        ]  # fmt: skip


async def test_five_thousand_files_are_one_version(tmp_path: Path) -> None:
    """In the seven requests of any other, while the loop stays free."""
    async with desk_at(tmp_path, old=b"1") as desk:
        same = desk.draft(b"the same")
        manifest = {f"d{n % 50}/file-{n}": same for n in range(5000)}
        longest, last = 0.0, time.thread_time()

        async def watch() -> None:
            nonlocal longest, last
            while True:
                await trio.sleep(0.005)
                longest, last = max(longest, time.thread_time() - last), time.thread_time()

        artifact = await desk.artifact()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            with desk.counted() as requests:
                saved = await desk.save(artifact, manifest)
            nursery.cancel_scope.cancel()
        assert requests == PUSH
        assert saved.current is not None
        assert saved.current.file_count == 5000
        # CPU time of the loop's own thread, so that a loaded machine does not count; it is some 5 ms.
        assert longest < 0.05


async def test_volumes_are_written_as_artifacts_are(tmp_path: Path, dialect: str) -> None:
    """With their type."""
    async with desk_at(tmp_path, dialect) as desk:
        desk.store.delete_artifact(desk.store.artifacts()[0].id)
        world.tree(desk.store, "skills", {"f": b"1"}, role="volume", at=1)
        saved = await desk.save(await desk.artifact(world.VOLUMES), desk.drafts(f=b"2"))
        assert (saved.workflow, await desk.files(saved)) == ("volumes", {"f": b"2"})


# -- what makes no version -----------------------------------------------------------------------------------------


async def test_the_same_files_make_no_version(tmp_path: Path, dialect: str) -> None:
    """Whatever else differs: one request tells, nothing is written."""
    async with desk_at(tmp_path, dialect, f=b"1") as desk:
        artifact = await desk.artifact()
        manifest: Manifest = {"f": desk.draft(b"1", executable=True), "empty": TreeMember("empty", "dir")}
        with desk.counted() as requests:
            assert await desk.save(artifact, manifest) == artifact
        assert requests == {DETAIL: 1}
        assert len(desk.versions()) == 1


async def test_a_restored_version_moves_no_bytes(tmp_path: Path, dialect: str) -> None:
    """The service has it already: prepare and commit, no upload; the old version is the present one again."""
    async with desk_at(tmp_path, dialect, f=b"1") as desk:
        first = await desk.artifact()
        second = await desk.save(first, desk.drafts(f=b"2"))
        with desk.counted() as requests:
            again = await desk.save(second, desk.drafts(f=b"1"))
        assert requests == {DETAIL: 3, PREPARE: 1, COMMIT: 1}
        assert again.current == first.current
        assert len(desk.versions()) == 2


async def test_all_files_can_be_removed(tmp_path: Path, dialect: str) -> None:
    """A version of no files has no archive."""
    async with desk_at(tmp_path, dialect, f=b"1") as desk:
        artifact = await desk.artifact()
        with desk.counted() as requests:
            saved = await desk.save(artifact, {})
        assert requests == PUSH - Counter([ARCHIVE])
        assert saved.current is not None
        assert isinstance(saved.current.content, Empty)


# -- who was first -------------------------------------------------------------------------------------------------


def push_by_somebody(desk: Desk, **files: bytes) -> None:
    """Make a version as another client would."""
    (stored,) = desk.store.artifacts()
    desk.store.save_tree(stored.id, [world.file(desk.store, path, data) for path, data in files.items()])


async def test_a_present_that_has_moved_is_a_conflict(tmp_path: Path, dialect: str) -> None:
    """Found before anything is sent."""
    async with desk_at(tmp_path, dialect, f=b"1") as desk:
        artifact = await desk.artifact()
        push_by_somebody(desk, f=b"theirs")
        with desk.counted() as requests, pytest.raises(errors.Conflict):
            await desk.save(artifact, desk.drafts(f=b"mine"))
        assert requests == {DETAIL: 1}


def after(desk: Desk, monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], None]) -> None:
    """Do something once, right after a request of this name was answered."""
    real = getattr(desk.publisher._pushes, name)
    left = [act]

    async def acting(*args: Any, **kwargs: Any) -> Any:
        answer = await real(*args, **kwargs)
        while left:
            left.pop()()
        return answer

    monkeypatch.setattr(desk.publisher._pushes, name, acting)


async def test_a_present_that_moves_during_the_upload_is_a_conflict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found before the commit, so theirs stays the present one."""
    async with desk_at(tmp_path, f=b"1") as desk:
        artifact = await desk.artifact()
        after(desk, monkeypatch, "put", lambda: push_by_somebody(desk, f=b"theirs"))
        with desk.counted() as requests, pytest.raises(errors.Conflict):
            await desk.save(artifact, desk.drafts(f=b"mine"))
        assert COMMIT not in requests
        assert desk.tree()["f"].sha256 == world.sha256(b"theirs")


async def test_a_present_that_moves_right_after_the_commit_is_a_conflict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was saved is a version, but not what is shown."""
    async with desk_at(tmp_path, f=b"1") as desk:
        artifact = await desk.artifact()
        after(desk, monkeypatch, "commit", lambda: push_by_somebody(desk, f=b"theirs"))
        with pytest.raises(errors.Conflict):
            await desk.save(artifact, desk.drafts(f=b"mine"))
        assert len(desk.versions()) == 3


async def test_somebody_who_saved_the_same_is_no_conflict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither before nor while it is uploaded."""
    async with desk_at(tmp_path, f=b"1") as desk:
        artifact = await desk.artifact()
        after(desk, monkeypatch, "put", lambda: push_by_somebody(desk, f=b"both"))
        with desk.counted() as requests:
            saved = await desk.save(artifact, desk.drafts(f=b"both"))
        assert COMMIT not in requests
        assert await desk.save(artifact, desk.drafts(f=b"both")) == saved
        assert len(desk.versions()) == 2


async def test_an_artifact_that_is_gone_is_not_made_again(tmp_path: Path) -> None:
    """Prepare would make one of its name."""
    async with desk_at(tmp_path, f=b"1") as desk:
        artifact = await desk.artifact()
        desk.store.delete_artifact(desk.store.artifacts()[0].id)
        with pytest.raises(errors.NotFound):
            await desk.save(artifact, desk.drafts(f=b"2"))
        assert not desk.store.artifacts()


async def test_another_artifact_of_the_same_name_is_left_alone(tmp_path: Path) -> None:
    """Pushes are by name: one that the name does not mean cannot be saved, and nothing else is saved in its place."""
    async with desk_at(tmp_path, f=b"1") as desk:
        world.tree(desk.store, "report", {"g": b"1"}, at=9)
        younger = (await desk.provider.list(world.ARTIFACTS, None)).entries[0]
        assert isinstance(younger, Artifact)
        with desk.counted() as requests, pytest.raises(errors.NotPermitted):
            await desk.save(younger, desk.drafts(g=b"2"))
        assert COMMIT not in requests
        assert [len(desk.store.versions(stored.id)) for stored in desk.store.artifacts()] == [1, 1]


# -- what breaks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", ["storages/prepare", r"archive\.tar\.gz", r"manifest\.json", "storages/commit"])
@pytest.mark.parametrize("how", [{"lose_answer": True}, {"cut_after": 0}], ids=["no answer", "half an answer"])
async def test_a_lost_answer_does_no_harm(
    tmp_path: Path, dialect: str, pattern: str, how: dict[str, Any], expected_logs: LogGuard
) -> None:
    """The request was carried out; the save ends well, in one version."""
    expected_logs("ASGI", logger="hypercorn.error", level=logging.ERROR)
    async with desk_at(tmp_path, dialect, f=b"1") as desk:
        artifact = await desk.artifact()
        desk.lab.fault(pattern, times=1, **how)
        with desk.counted() as requests:
            saved = await desk.save(artifact, desk.drafts(f=b"2"))
        assert await desk.files(saved) == {"f": b"2"}
        assert len(desk.versions()) == 2
        assert requests[COMMIT] == 1


async def test_a_commit_that_was_lost_and_overtaken_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would move the present back."""
    async with desk_at(tmp_path, f=b"1") as desk:
        artifact = await desk.artifact()
        real = desk.publisher._pushes.commit

        async def commit(*args: Any) -> None:
            await real(*args)
            push_by_somebody(desk, f=b"theirs")
            raise errors.Unavailable

        monkeypatch.setattr(desk.publisher._pushes, "commit", commit)
        with pytest.raises(errors.Conflict):
            await desk.save(artifact, desk.drafts(f=b"2"))
        assert desk.tree()["f"].sha256 == world.sha256(b"theirs")


@pytest.mark.parametrize(
    ("dies_at", "left"),
    [
        ("storages/prepare", PUSH),
        (r"archive\.tar\.gz", PUSH),
        (r"manifest\.json", PUSH),
        # What was uploaded stays uploaded.
        ("storages/commit", PUSH - Counter([ARCHIVE, MANIFEST])),
    ],
)
async def test_a_save_that_failed_is_taken_up_again(tmp_path: Path, dies_at: str, left: Counter[str]) -> None:
    """As after a kill: another process, the same manifest and attempt; only what is missing is done."""
    async with desk_at(tmp_path, f=b"1") as desk:
        artifact, attempt = await desk.artifact(), Attempt()
        desk.lab.fault(dies_at, status=503)
        with pytest.raises(errors.Unavailable):
            await desk.save(artifact, desk.drafts(f=b"2"), attempt)
        desk.lab.heal()
        async with world.provider_at(desk.lab.bases()["vm0"]) as provider:
            later = Desk(desk.lab, provider, tmp_path)
            with desk.counted() as requests:
                saved = await later.save(artifact, later.drafts(f=b"2"), attempt)
            assert requests == left
            with desk.counted() as requests:
                assert await later.save(artifact, later.drafts(f=b"2"), attempt) == saved
            assert requests == {DETAIL: 1}
        assert len(desk.versions()) == 2


async def test_an_expired_link_is_asked_for_anew(tmp_path: Path) -> None:
    """A 403 of the storage; two in a row are no accident."""
    async with desk_at(tmp_path, f=b"1") as desk:
        artifact = await desk.artifact()
        desk.lab.fault(r"archive\.tar\.gz", status=403, times=1)
        with desk.counted() as requests:
            saved = await desk.save(artifact, desk.drafts(f=b"2"))
        assert requests == PUSH + Counter([PREPARE, ARCHIVE])
        desk.lab.fault(r"manifest\.json", status=403)
        with pytest.raises(errors.AccessDenied):
            await desk.save(saved, desk.drafts(f=b"3"))


async def test_files_that_the_service_has_lost_are_uploaded_again(tmp_path: Path) -> None:
    """409 S3_FILES_MISSING: prepared, uploaded and committed once more."""
    async with desk_at(tmp_path, f=b"1") as desk:
        artifact = await desk.artifact()
        body = b'{"error":{"message":"The files are missing from storage","code":"S3_FILES_MISSING"}}'
        desk.lab.fault("storages/commit", status=409, body=body, times=1)
        with desk.counted() as requests:
            saved = await desk.save(artifact, desk.drafts(f=b"2"))
        assert requests == PUSH + Counter([PREPARE, ARCHIVE, MANIFEST, DETAIL, COMMIT])
        assert await desk.files(saved) == {"f": b"2"}
        desk.lab.fault("storages/commit", status=409, body=body)
        with pytest.raises(errors.ProviderMisbehaved):
            await desk.save(saved, desk.drafts(f=b"3"))


async def test_uploads_that_were_swept_away_are_made_again(tmp_path: Path) -> None:
    """The attempt remembers them; the service says what is not so."""
    async with desk_at(tmp_path, f=b"1") as desk:
        artifact, attempt = await desk.artifact(), Attempt()
        desk.lab.fault("storages/commit", status=503)
        with pytest.raises(errors.Unavailable):
            await desk.save(artifact, desk.drafts(f=b"2"), attempt)
        desk.lab.heal()
        for path in (desk.store.root / "uploads").iterdir():
            path.unlink()
        saved = await desk.save(artifact, desk.drafts(f=b"2"), attempt)
        assert await desk.files(saved) == {"f": b"2"}


@pytest.mark.parametrize(
    ("status", "code", "message", "error"),
    [
        (400, "BAD_REQUEST", "Version ID mismatch - files may have changed", errors.ProviderMisbehaved),
        (400, "BAD_REQUEST", "storageName is wrong", errors.InvalidRequest),
        (401, "UNAUTHORIZED", "Not authenticated", errors.AccessDenied),
        (403, "FORBIDDEN", "no", errors.AccessDenied),
        (404, "NOT_FOUND", "Storage not found", errors.NotFound),
        (413, "PAYLOAD_TOO_LARGE", "too large", errors.TooLarge),
        (402, "PAYMENT", "no credits", errors.QuotaExceeded),
        (500, "INTERNAL_ERROR", "Internal server error", errors.Unavailable),
    ],
)
@pytest.mark.parametrize("step", ["prepare", "commit"])
async def test_refusals_mean_what_they_mean_everywhere(
    tmp_path: Path, step: str, status: int, code: str, message: str, error: type[Exception]
) -> None:
    """The envelope of /api/storages, in the words of the service."""
    async with desk_at(tmp_path, f=b"1") as desk:
        artifact = await desk.artifact()
        body = f'{{"error":{{"message":"{message}","code":"{code}"}}}}'.encode()
        desk.lab.fault(f"storages/{step}", status=status, body=body)
        with pytest.raises(error) as caught:
            await desk.save(artifact, desk.drafts(f=b"2"))
        assert isinstance(caught.value, errors.ArtifactFSError)
        assert caught.value.provider == "work"
        assert world.TOKEN not in f"{caught.value!r} {caught.value.subject}"
        assert len(desk.versions()) == 1


ID = "0" * 64


@pytest.mark.parametrize(
    ("step", "answer"),
    [
        ("prepare", {}),
        ("prepare", {"versionId": 7, "existing": True}),
        ("prepare", {"versionId": ID, "existing": False}),
        ("prepare", {"versionId": ID, "existing": False, "uploads": {"archive": "x"}}),
        ("prepare", {"versionId": ID, "uploads": {"archive": {"presignedUrl": "file:///etc/passwd"}}}),
        ("prepare", {"versionId": ID, "uploads": {"archive": {"presignedUrl": "http://192.168.7.7/x"}}}),
        ("commit", {}),
        ("commit", {"success": False, "versionId": ID}),
        ("commit", {"success": True, "versionId": ID}),
        ("commit", []),
    ],
)
async def test_nonsense_from_the_service_is_told(tmp_path: Path, step: str, answer: object) -> None:
    """Nothing is taken for done, and nothing goes where links must not lead."""
    async with desk_at(tmp_path, f=b"1") as desk:
        artifact = await desk.artifact()
        desk.lab.fault(f"storages/{step}", status=200, body=json.dumps(answer).encode())
        with pytest.raises(errors.ProviderMisbehaved):
            await desk.save(artifact, desk.drafts(f=b"2"))
        assert len(desk.versions()) == 1


async def test_a_draft_that_is_not_what_was_sealed_is_not_sent(tmp_path: Path) -> None:
    """Changed, shorter, longer, or gone."""
    async with desk_at(tmp_path, f=b"1") as desk:
        artifact = await desk.artifact()
        for damage in (b"12345", b"1234567", b"abcdef", None):
            draft = desk.draft(b"123456")
            draft.path.unlink()
            if damage is not None:
                draft.path.write_bytes(damage)
            with desk.counted() as requests, pytest.raises(errors.CorruptContent):
                await desk.save(artifact, {"f": draft})
            assert ARCHIVE not in requests


async def test_a_save_can_be_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While bytes are being read: the thread ends with it, nothing stays open."""
    async with desk_at(tmp_path, f=b"1") as desk:
        artifact, before = await desk.artifact(), nameless_files()
        assert artifact.current is not None
        known = ArchiveMember(world.archive_of(artifact.current), 512, 5, "0" * 64)

        async def never(*_: object) -> bytes:
            await trio.sleep_forever()
            raise AssertionError

        monkeypatch.setattr(desk, "read", never)
        with trio.move_on_after(0.5) as scope:
            await desk.save(artifact, {"f": TreeMember("f", "file", known, 5)})
        assert scope.cancelled_caught
        assert nameless_files() == before


# -- limits and names ----------------------------------------------------------------------------------------------


async def test_too_much_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """More than 100 MiB together, more than 50,000 files, more than 8 MiB of paths."""
    async with desk_at(tmp_path, f=b"1") as desk:
        artifact = await desk.artifact()
        half = Draft(tmp_path / "none", 60 << 20, "0" * 64, executable=False, mtime_ns=0)
        empty = Draft(tmp_path / "none", 0, push_plan.EMPTY, executable=False, mtime_ns=0)
        for manifest in (
            {"a": half, "b": half},
            {str(n): empty for n in range(50_001)},
            {f"{n}/{'x' * 200}": empty for n in range(45_000)},
        ):
            with desk.counted() as requests, pytest.raises(errors.TooLarge):
                await desk.save(artifact, manifest)
            assert not requests


@pytest.mark.parametrize("name", ["a\udc80", "a\0b", "/abs", "a/../b", "a//b", f"a:{'0' * 64}\nb", "d/" * 256 + "f"])
async def test_a_name_that_would_not_come_back_is_refused(tmp_path: Path, name: str) -> None:
    """Before the save is acknowledged, and before anything is sent."""
    async with desk_at(tmp_path, f=b"1") as desk:
        with pytest.raises(errors.NameNotAllowed):
            desk.publisher.vet(name, tmp_path, 1)
        artifact = await desk.artifact()
        with desk.counted() as requests, pytest.raises(errors.NameNotAllowed):
            await desk.save(artifact, {name: desk.draft(b"1")})
        assert not requests


async def test_what_is_acknowledged_fits(tmp_path: Path) -> None:
    """A file of 100 MiB does, one byte more does not."""
    async with desk_at(tmp_path) as desk:
        desk.publisher.vet("dir/ä\n.txt", tmp_path, 100 << 20)
        with pytest.raises(errors.TooLarge):
            desk.publisher.vet("f", tmp_path, (100 << 20) + 1)


def test_version_ids_are_those_of_the_service() -> None:
    """Vectors made from the service's published algorithm."""
    storage = "3f0c9b52-1c7e-4d55-9a43-0d6b8f2e7711"
    hello = TreeMember("", "file", Inline(b"hello\n"), 6)
    empty = TreeMember("", "file", None, 0)
    for manifest, expected in (
        ({}, "e245bb54d3033ea7a5f99add9ad60d35b13d1572b2ad6e63afc1140a13dcb15b"),
        (
            {"report.md": hello, "data/empty.csv": empty},
            "0e7fccae33cbef0bcbf1d4e9d2bc05433911cdcf2ff413f090d07473ca55374b",
        ),
        (
            {"a.txt": hello, "a b.txt": hello, "a": empty},
            "81b3b6efbd2f15d8e3d24d9cf9161b4f324fddc0a1c3809ad5071f82958c7827",
        ),
    ):
        plan = push_plan.plan(manifest, lambda _content, _offset, _size: b"", lambda: None)
        assert plan.version_id(storage) == expected


# -- new trees -----------------------------------------------------------------------------------------------------


async def test_mkdir_makes_an_empty_artifact(tmp_path: Path, dialect: str) -> None:
    """As listings show it, by its UUID; it can be saved to at once."""
    async with desk_at(tmp_path, dialect) as desk:
        desk.store.delete_artifact(desk.store.artifacts()[0].id)
        made = await desk.publisher.create_tree(world.ARTIFACTS, ("new-tree",))
        assert made == await desk.artifact()
        assert UUID.fullmatch(made.id)
        assert made.path == ("new-tree",)
        assert made.current is not None
        assert isinstance(made.current.content, Empty)
        saved = await desk.save(made, desk.drafts(f=b"1"))
        assert await desk.files(saved) == {"f": b"1"}


async def test_mkdir_of_what_is_there(tmp_path: Path) -> None:
    """An empty one is taken for it, without a write; one with files is not touched."""
    async with desk_at(tmp_path, f=b"1") as desk:
        with desk.counted() as requests, pytest.raises(errors.AlreadyExists):
            await desk.publisher.create_tree(world.ARTIFACTS, ("report",))
        assert sum(requests.values()) == 1
        made = await desk.publisher.create_tree(world.ARTIFACTS, ("other",))
        with desk.counted() as requests:
            assert await desk.publisher.create_tree(world.ARTIFACTS, ("other",)) == made
        assert {route.split()[0] for route in requests} == {"GET"}
        assert desk.tree_of("report") == {"f"}
        # The same name among the volumes is another one.
        volume = await desk.publisher.create_tree(world.VOLUMES, ("report",))
        assert volume.workflow == "volumes"


@pytest.mark.parametrize("pattern", ["storages/prepare", r"manifest\.json", "storages/commit"])
async def test_mkdir_survives_lost_answers(tmp_path: Path, pattern: str, expected_logs: LogGuard) -> None:
    """One artifact, one version."""
    expected_logs("ASGI", logger="hypercorn.error", level=logging.ERROR)
    async with desk_at(tmp_path) as desk:
        desk.lab.fault(pattern, lose_answer=True, times=1)
        made = await desk.publisher.create_tree(world.ARTIFACTS, ("new-tree",))
        stored = [found for found in desk.store.artifacts() if found.name == "new-tree"]
        assert [found.uuid for found in stored] == [made.id]
        assert len(desk.store.versions(stored[0].id)) == 1


async def test_mkdir_does_not_empty_what_somebody_fills_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at again right before the commit."""
    async with desk_at(tmp_path) as desk:
        desk.store.delete_artifact(desk.store.artifacts()[0].id)
        after(desk, monkeypatch, "put", lambda: push_by_somebody(desk, f=b"theirs"))
        with pytest.raises(errors.AlreadyExists):
            await desk.publisher.create_tree(world.ARTIFACTS, ("new-tree",))
        assert desk.tree_of("new-tree") == {"f"}


@pytest.mark.parametrize(
    "name", ["ab", "a" * 65, "Report", "with space", "-abc", "abc-", "a--b", "under_score", "a/b", "ünï", "abc\n", ""]
)
async def test_names_that_the_service_does_not_take_are_refused(tmp_path: Path, name: str) -> None:
    """Without a request."""
    async with desk_at(tmp_path) as desk:
        with desk.counted() as requests, pytest.raises(errors.NameNotAllowed):
            await desk.publisher.create_tree(world.ARTIFACTS, (name,))
        assert not requests


async def test_the_workflows_accept_trees(tmp_path: Path) -> None:
    """And nothing else."""
    async with desk_at(tmp_path) as desk:
        folders = (await desk.provider.list(DirRef("work", "root"), None)).entries
        assert [folder.accepts for folder in folders if isinstance(folder, Folder)] == [Accepts.TREES] * 2
        for ref, path in ((DirRef("work", "root"), ("abc",)), (world.ARTIFACTS, ("abc", "def"))):
            with pytest.raises(errors.NotPermitted):
                await desk.publisher.create_tree(ref, path)


# -- what the server takes -----------------------------------------------------------------------------------------


async def test_what_is_permitted_is_asked_once(tmp_path: Path) -> None:
    """And remembered over restarts."""
    memory = world.Kept()
    async with desk_at(tmp_path, memory=memory) as desk:
        with desk.counted() as requests:
            for _ in range(2):
                await desk.publisher.permits(Change.SAVE)
                await desk.publisher.permits(Change.MAKE_TREE)
            for change in (Change.CREATE, Change.RENAME, Change.REMOVE):
                with pytest.raises(errors.NotPermitted):
                    await desk.publisher.permits(change)
        assert sum(requests.values()) == 1
        async with world.provider_at(desk.lab.bases()["vm0"], memory=memory) as provider:
            with desk.counted() as requests:
                await Desk(desk.lab, provider, tmp_path).publisher.permits(Change.SAVE)
        assert not requests


async def test_a_server_without_storages_takes_no_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remembered too, for a day; a save that comes all the same is refused so."""
    memory = world.Kept()
    async with desk_at(tmp_path, memory=memory, f=b"1") as desk:
        artifact = await desk.artifact()
        desk.lab.fault("api/storages", status=404, body=b"<html>", headers={"content-type": "text/html"})
        with desk.counted() as requests:
            for change in Change:
                with pytest.raises(errors.ReadOnly):
                    await desk.publisher.permits(change)
        assert sum(requests.values()) == 1
        with pytest.raises(errors.ReadOnly):
            await desk.save(artifact, desk.drafts(f=b"2"))
        with pytest.raises(errors.ReadOnly):
            await desk.publisher.create_tree(world.ARTIFACTS, ("new-tree",))
        desk.lab.heal()
        with pytest.raises(errors.ReadOnly):
            await desk.publisher.permits(Change.SAVE)
        later = time.time() + 90_000
        monkeypatch.setattr("artifactfs.providers.vm0.publisher.time.time", lambda: later)
        await desk.publisher.permits(Change.SAVE)


async def test_a_failure_is_no_answer_to_whether_writes_are_taken(tmp_path: Path) -> None:
    """Neither a refused token nor an error of the server is remembered."""
    memory = world.Kept()
    async with desk_at(tmp_path, memory=memory) as desk:
        fault = desk.lab.fault("api/storages", status=401, body=b'{"error":{"message":"no","code":"UNAUTHORIZED"}}')
        with pytest.raises(errors.AccessDenied):
            await desk.publisher.permits(Change.SAVE)
        fault.times = 0
        await desk.publisher.permits(Change.SAVE)


async def test_a_server_with_only_storages_takes_writes(tmp_path: Path) -> None:
    """No UUIDs there: the service names the version, and the present is asked for by name."""
    async with desk_at(tmp_path, f=b"1") as desk:
        desk.lab.fault("/v1/", status=404, body=b"not here", headers={"content-type": "text/plain"})
        artifact = await desk.artifact()
        assert artifact.id == "artifact:report"
        assert await desk.save(artifact, desk.drafts(f=b"1")) == artifact
        saved = await desk.save(artifact, desk.drafts(f=b"2"))
        assert await desk.files(saved) == {"f": b"2"}
        push_by_somebody(desk, f=b"theirs")
        with pytest.raises(errors.Conflict):
            await desk.save(saved, desk.drafts(f=b"3"))
        made = await desk.publisher.create_tree(world.ARTIFACTS, ("new-tree",))
        assert made.id == "artifact:new-tree"
        # After a restart a save may be the first thing that is asked for.
        async with world.provider_at(desk.lab.bases()["vm0"]) as provider:
            later = Desk(desk.lab, provider, tmp_path)
            assert await later.files(await later.save(made, later.drafts(f=b"4"))) == {"f": b"4"}


async def test_what_no_request_can_do_is_refused_without_one(tmp_path: Path) -> None:
    """Files as artifacts, names, removal, workflows."""
    async with desk_at(tmp_path, f=b"1") as desk:
        artifact, publisher, draft = await desk.artifact(), desk.publisher, desk.draft(b"1")
        with desk.counted() as requests:
            for refused in (
                publisher.create_file(world.ARTIFACTS, ("f.txt",), draft, Attempt()),
                publisher.save_file(artifact, draft, Attempt()),
                publisher.rename(artifact, world.ARTIFACTS, ("other",)),
                publisher.remove(artifact),
                publisher.make_workflow("mine"),
                publisher.remove_workflow(world.ARTIFACTS),
            ):
                with pytest.raises(errors.NotPermitted):
                    await refused
        assert not requests


# -- what was just uploaded ----------------------------------------------------------------------------------------


async def test_what_was_just_pushed_is_not_downloaded(tmp_path: Path) -> None:
    """Whole and in ranges, the very bytes that the service has; after the process the service is asked again."""
    async with desk_at(tmp_path, f=b"1") as desk:
        saved = await desk.save(await desk.artifact(), desk.drafts(f=os.urandom(5000)))
        assert saved.current is not None
        data = archive_path(desk.store, saved.current.id).read_bytes()
        with desk.counted() as requests:
            assert await world.read(desk.provider, saved.current) == data
            ref = world.archive_of(saved.current)
            for begin, length in ((0, 10), (100, 50), (4000, None), (len(data), 5), (len(data) + 9, None)):
                async with desk.provider.open(ref, ByteRange(begin, length)) as stream:
                    found = b"".join([chunk async for chunk in stream.chunks])
                assert (stream.ranged, stream.offset, stream.total) == (True, begin, len(data))
                assert found == data[begin:][:length]
        assert not requests
        await desk.provider.aclose()
        with desk.counted() as requests:
            assert await world.read(desk.provider, saved.current) == data
        assert sum(requests.values()) == 2


async def test_entering_what_was_just_pushed_costs_no_request(tmp_path: Path) -> None:
    """The core reads index, files and restart points from the spool, under its own names for them."""
    async with desk_at(tmp_path, f=b"1") as desk:
        data = os.urandom(300_000)
        manifest: Manifest = {
            "big": desk.draft(data), "run": desk.draft(b"#!", executable=True),
            "link": TreeMember("link", "symlink", target="run"), "empty": TreeMember("empty", "dir", mtime_ns=1),
        }  # fmt: skip
        saved = await desk.save(await desk.artifact(), manifest)
        facts, blocks = Facts(tmp_path / "facts.db"), BlockStore(tmp_path / "blocks", 64 << 20, 0)
        try:
            async with trio.open_nursery() as nursery:
                reader = ContentReader(
                    nursery, blocks, facts, {"work": desk.provider},
                    local_path=lambda _: tmp_path, fingerprints={"work": "finger"},
                )  # fmt: skip
                with desk.counted() as requests:
                    archive = world.archive_of(saved.current)
                    members = {member.path: member for member in (await reader.index(archive)).members}
                    big = reader.tree_member(archive, members["big"])
                    assert big.content is not None
                    assert await reader.read(big.content, 200_000, 99, Pattern()) == data[200_000:][:99]
                assert not requests
                nursery.cancel_scope.cancel()
        finally:
            blocks.close()
            facts.close()
        assert set(members) == set(manifest)
        assert members["big"].sha256 == world.sha256(data)
        assert (members["run"].executable, members["link"].target) == (True, "run")


def nameless_files() -> int:
    """Return how many files without a name this process holds open."""
    links = (path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
    return sum(str(link).endswith("(deleted)") for link in links)


async def test_only_the_last_few_archives_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four, of so many bytes; what is being read is read to its end."""
    async with desk_at(tmp_path, f=b"0") as desk:
        saved, before = await desk.artifact(), nameless_files()
        for n in range(1, 7):
            saved = await desk.save(saved, desk.drafts(f=b"%d" % n))
        assert repr(desk.publisher.spool).startswith("<Spool 4 archives")
        assert nameless_files() == before + 4
        ref = world.archive_of(saved.current)
        async with desk.provider.open(ref, ByteRange(0)) as stream:
            desk.publisher.spool.close()
            assert world.members(b"".join([chunk async for chunk in stream.chunks])) == {"f": b"6"}
        monkeypatch.setattr("artifactfs.providers.vm0.spool.MAX_BYTES", 1)
        await desk.save(saved, desk.drafts(f=b"7"))
        assert repr(desk.publisher.spool).startswith("<Spool 0 archives")


async def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent of an archive that could not be written."""
    async with desk_at(tmp_path, f=b"1") as desk:
        artifact = await desk.artifact()
        monkeypatch.setattr("tempfile.TemporaryFile", lambda: open("/dev/full", "r+b", buffering=0))  # noqa: SIM115 - the code under test closes it
        with desk.counted() as requests, pytest.raises(errors.NoLocalSpace):
            await desk.save(artifact, desk.drafts(f=os.urandom(1 << 20)))
        assert ARCHIVE not in requests
