"""Saving to VLM Run against the served dialect: what comes of each change, what it costs, and what a failure leaves."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from artifactfs import errors
from artifactfs.model.content import ByteRange
from artifactfs.model.entry import Artifact, DirRef, Folder
from artifactfs.observe import Observer
from artifactfs.providers import http as transport
from artifactfs.providers.base import Change, Draft
from artifactfs.providers.http import HttpClient
from artifactfs.providers.limits import Budget
from artifactfs.providers.vlmrun import VlmRunProvider, publisher, upload_api
from artifactfs.store.rows import Upload
from tests.support import vlmrun_samples as samples
from tests.support.lab import Lab
from tests.support.log_guard import LogGuard

FILES = DirRef("vr", "files")
ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|(?<=/)[0-9a-f]{32}$")
# What each call sends; ids are left out.
HASH, POST, LOOK, DELETE, PAGE = (
    "GET /files/hash/*", "POST /files", "GET /files/*", "DELETE /files/*", "GET /files",
)  # fmt: skip
LINK, PUT, VERIFY, BYTES = (
    "POST /files/presigned-url", "PUT /uploads/*", "GET /files/verify-upload/*", "GET /objects/*",
)  # fmt: skip


class Journal:
    """What the journal remembers of one change; ``again`` is its next try, perhaps of the next process."""

    def __init__(self, facts: Mapping[str, str] | None = None, *, is_first: bool = True) -> None:
        self.facts = dict(facts or {})
        self.is_first = is_first
        self.dies_at: str | None = None

    async def note(self, **facts: str) -> None:
        self.facts.update(facts)
        if self.dies_at in facts:
            raise Killed

    def again(self) -> Journal:
        return Journal(self.facts, is_first=False)


class Killed(BaseException):
    """The process ends here."""


class Trial:
    """A provider and its publisher on a served store."""

    def __init__(self, lab: Lab, provider: VlmRunProvider, tmp_path: Path) -> None:
        assert provider.publisher is not None
        self.lab, self.provider, self.publisher, self.tmp_path = lab, provider, provider.publisher, tmp_path
        self._count = 0

    def draft(self, data: bytes, base: bytes | None = None) -> Draft:
        self._count += 1
        path = self.tmp_path / f"draft{self._count}"
        path.write_bytes(data)
        seen = None if base is None else hashlib.sha256(base).hexdigest()
        return Draft(path, len(data), hashlib.sha256(data).hexdigest(), False, 0, seen)

    async def create(self, name: str, data: bytes, journal: Journal | None = None) -> Artifact:
        return await self.publisher.create_file(FILES, (name,), self.draft(data), journal or Journal())

    async def save(
        self, artifact: Artifact, data: bytes, base: bytes | None = None, journal: Journal | None = None
    ) -> Artifact:
        return await self.publisher.save_file(artifact, self.draft(data, base), journal or Journal())

    async def listed(self) -> list[Artifact]:
        listing = await self.provider.list(FILES, None)
        return [entry for entry in listing.entries if isinstance(entry, Artifact) and entry.id != samples.FILE]

    async def read(self, artifact: Artifact) -> bytes:
        content: Any = artifact.current.content  # type: ignore[union-attr]  # a file has one
        async with self.provider.open(content.content, ByteRange(0)) as stream:
            return b"".join([chunk async for chunk in stream.chunks])

    async def there(self) -> Counter[tuple[str, bytes]]:
        """Return what somebody else sees: names and bytes."""
        return Counter([(artifact.path[0], await self.read(artifact)) for artifact in await self.listed()])

    def asked(self, since: int = 0) -> Counter[str]:
        """Return what was sent to the service, ids left out."""
        found = []
        for seen in self.lab.seen[since:]:
            path = seen.path.removeprefix("/vlmrun").removeprefix("/v1")
            found.append(f"{seen.method} " + re.sub(r"^(/objects)/.*", r"\1/*", ID.sub("*", path)))
        return Counter(found)

    async def costs(self, call: Callable[[], Any]) -> tuple[Any, Counter[str]]:
        since = len(self.lab.seen)
        return await call(), self.asked(since)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    store = samples.filled(tmp_path / "store")
    with Lab(store, token="secret") as lab:
        yield lab
    store.close()


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may be tried again is tried again at once."""
    monkeypatch.setattr(transport, "BACKOFF_FIRST_S", 0.001)


@asynccontextmanager
async def trial(lab: Lab, tmp_path: Path, memory: samples.Memory | None = None, **options: Any) -> AsyncIterator[Trial]:
    """Start over: nothing but the journal is known of what was before."""
    observer = Observer()
    headers = {"Authorization": "Bearer secret"}
    http = HttpClient("vr", lab.bases()["vlmrun"], headers=headers, observer=observer, **options)
    provider = VlmRunProvider("vr", http, memory or samples.Memory(), ())
    try:
        yield Trial(lab, provider, tmp_path)
    finally:
        await provider.aclose()


@pytest.fixture(autouse=True)
def _answers_get_lost(expected_logs: LogGuard) -> None:
    """The server says so of an answer that the laboratory loses."""
    expected_logs("Error in ASGI Framework", logger="hypercorn.error", level=logging.ERROR)


@pytest.fixture
def _by_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is too large to be sent directly."""
    monkeypatch.setattr(publisher, "MAX_DIRECT", -1)


def upload(lab: Lab, name: str, data: bytes, number: int = 1) -> Upload:
    """Somebody else uploads a file."""
    sha256 = lab.store.objects.put(data)
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    row = Upload(f"{number:08d}-0000-4000-8000-000000000000", name, "assistants", len(data), sha256, md5, number)
    lab.store.put_upload(row)
    return row


# -- what comes of a change ------------------------------------------------------------------------------------


async def test_a_new_file_is_an_upload(lab: Lab, tmp_path: Path) -> None:
    """Looked for by hash, sent, seen to be there; the receipt is what the listing then shows."""
    async with trial(lab, tmp_path) as t:
        root = await t.provider.list(DirRef("vr", "root"), None)
        accepting = {entry.path for entry in root.entries if isinstance(entry, Folder) and entry.accepts}
        assert accepting == {("files",)}
        made, cost = await t.costs(partial(t.create, "a.txt", b"hello"))
        assert cost == Counter([HASH, POST, LOOK])
        assert await t.listed() == [made]
        assert (made.path, made.writable, made.metadata) == (("a.txt",), True, (await t.listed())[0].metadata)
        assert await t.there() == {("a.txt", b"hello"): 1}
        page = await t.provider.versions(made, None)
        assert page.versions == (made.current,)


async def test_what_is_there_is_not_sent_again(lab: Lab, tmp_path: Path) -> None:
    """The same bytes under the same name are the receipt."""
    async with trial(lab, tmp_path) as t:
        made = await t.create("a.txt", b"hello")
        again, cost = await t.costs(partial(t.create, "a.txt", b"hello"))
        assert cost == {HASH: 1}
        assert again == made
        assert await t.there() == {("a.txt", b"hello"): 1}


async def test_the_same_bytes_under_another_name_are_a_file_of_their_own(lab: Lab, tmp_path: Path) -> None:
    """A saved file does not vanish from the listing because its bytes are known."""
    async with trial(lab, tmp_path) as t:
        await t.create("a.txt", b"hello")
        _, cost = await t.costs(partial(t.create, "b.txt", b"hello"))
        assert cost == Counter([HASH, POST, LOOK])
        assert await t.there() == {("a.txt", b"hello"): 1, ("b.txt", b"hello"): 1}


async def test_two_files_of_one_name_stand_side_by_side(lab: Lab, tmp_path: Path) -> None:
    """The service allows it; a save of one leaves the other alone."""
    async with trial(lab, tmp_path) as t:
        upload(lab, "a.txt", b"theirs")
        mine = await t.create("a.txt", b"mine!!")
        await t.save(mine, b"mine, changed", b"mine!!")
        assert await t.there() == {("a.txt", b"theirs"): 1, ("a.txt", b"mine, changed"): 1}


@pytest.mark.parametrize("data", [b"", b"\0\r\n--\r\n" * 1000, bytes(range(256)) * 5000], ids=["empty", "ends", "big"])
async def test_any_bytes_come_back(data: bytes, lab: Lab, tmp_path: Path) -> None:
    """Empty ones, and such as look like the form they are sent in."""
    async with trial(lab, tmp_path) as t:
        await t.create("data.bin", data)
        assert await t.there() == {("data.bin", data): 1}


async def test_a_save_takes_the_place_of_the_old_file(lab: Lab, tmp_path: Path) -> None:
    """A new id under the old name; the old one goes when the new one has been seen."""
    async with trial(lab, tmp_path) as t:
        old = await t.create("a.txt", b"one")
        since = len(lab.seen)
        new = await t.save(old, b"three", b"one")
        assert [f"{seen.method} {seen.path.split('/')[3]}" for seen in lab.seen[since:]] == [
            "GET files",
            "POST files",
            "GET files",
            "DELETE files",
        ]
        assert t.asked(since) == Counter([LOOK, POST, LOOK, DELETE])
        assert new.id != old.id
        assert await t.listed() == [new]
        assert await t.there() == {("a.txt", b"three"): 1}


@pytest.mark.parametrize(("base", "cost"), [(b"one", Counter([LOOK])), (None, Counter([LOOK, HASH]))])
async def test_a_save_that_changes_nothing_sends_nothing(
    base: bytes | None, cost: Counter[str], lab: Lab, tmp_path: Path
) -> None:
    """What the writer has seen tells, else the hash."""
    async with trial(lab, tmp_path) as t:
        old = await t.create("a.txt", b"one")
        same, asked = await t.costs(partial(t.save, old, b"one", base))
        assert asked == cost
        assert same == old
        assert await t.there() == {("a.txt", b"one"): 1}


async def test_a_save_that_changes_nothing_sends_nothing_where_another_file_is_the_same(
    lab: Lab, tmp_path: Path
) -> None:
    """By hash the service names one file, here the other one: then the bytes tell."""
    async with trial(lab, tmp_path) as t:
        files = [await t.create(name, b"one") for name in ("a.txt", "b.txt")]
        for old in files:
            same, asked = await t.costs(partial(t.save, old, b"one"))
            assert same == old
            assert asked in (Counter([LOOK, HASH]), Counter([LOOK, LOOK, HASH, BYTES]))
        _, asked = await t.costs(partial(t.save, files[0], b"two"))
        assert asked == Counter([LOOK, HASH, POST, LOOK, DELETE])
        assert await t.there() == {("a.txt", b"two"): 1, ("b.txt", b"one"): 1}


async def test_another_content_of_the_same_size_is_sent(lab: Lab, tmp_path: Path) -> None:
    """Without knowing what the writer had seen, size alone tells nothing."""
    async with trial(lab, tmp_path) as t:
        old = await t.create("a.txt", b"one")
        _, cost = await t.costs(partial(t.save, old, b"two"))
        assert cost == Counter([LOOK, HASH, POST, LOOK, DELETE])
        assert await t.there() == {("a.txt", b"two"): 1}


async def test_who_was_overtaken_is_told(lab: Lab, tmp_path: Path) -> None:
    """The old file is gone and another one has its name, or it is not what was seen: nothing is sent."""
    async with trial(lab, tmp_path) as t:
        old = await t.create("a.txt", b"one")
        with pytest.raises(errors.Conflict):
            await t.save(old, b"longer", b"longer")
        new = await t.save(old, b"theirs", b"one")
        since = len(lab.seen)
        with pytest.raises(errors.Conflict):
            await t.save(old, b"mine", b"one")
        assert t.asked(since) == {LOOK: 1, PAGE: 1}
        assert await t.listed() == [new]


async def test_what_was_removed_comes_back_with_a_save(lab: Lab, tmp_path: Path) -> None:
    """The old file is gone and no other one has its name: what is saved takes its place."""
    async with trial(lab, tmp_path) as t:
        old = await t.create("a.txt", b"one")
        await t.create("b.txt", b"two")
        await t.publisher.remove(old)
        saved, cost = await t.costs(partial(t.save, old, b"mine", b"one"))
        assert cost == Counter([LOOK, PAGE, POST, LOOK])
        assert saved.id != old.id
        assert await t.there() == {("a.txt", b"mine"): 1, ("b.txt", b"two"): 1}


async def test_40_mib_go_by_link_without_the_token(lab: Lab, tmp_path: Path) -> None:
    """An address is asked for, the bytes go there, and are verified."""
    data = random.Random(1).randbytes(1 << 20) * 40
    async with trial(lab, tmp_path) as t:
        made, cost = await t.costs(partial(t.create, "big é.mp4", data))
        assert cost == Counter([HASH, LINK, PUT, VERIFY])
        (put,) = [seen for seen in lab.seen if seen.method == "PUT"]
        assert "authorization" not in put.headers
        assert put.headers["content-length"] == str(len(data))
        assert put.headers["content-type"] == "video/mp4"
        assert await t.listed() == [made]
        assert hashlib.sha256(await t.read(made)).digest() == hashlib.sha256(data).digest()


async def test_the_limit_of_direct_uploads_is_the_sdks(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exactly 32 MiB are sent directly."""
    assert upload_api.MAX_DIRECT == 32 << 20
    monkeypatch.setattr(publisher, "MAX_DIRECT", 5)
    async with trial(lab, tmp_path) as t:
        _, five = await t.costs(partial(t.create, "five", b"12345"))
        _, six = await t.costs(partial(t.create, "six", b"123456"))
    assert (five, six) == (Counter([HASH, POST, LOOK]), Counter([HASH, LINK, PUT, VERIFY]))


# -- names -----------------------------------------------------------------------------------------------------

NAMES = st.text(min_size=1, max_size=60).filter(lambda name: "/" not in name and name not in {".", ".."})


@given(name=NAMES)
@example(name="Grüße 你好 🎉.txt")
@example(name="e\u0301 = é; filename=x; a*=b")
@example(name=" 100%22 'quoted' %0A ")
@example(name="=?utf-8?q?x?=")
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_name_comes_back_or_is_refused(name: str, lab: Lab, tmp_path: Path) -> None:
    """What is not refused stands in the listing as it was given, sent either way."""

    async def main() -> None:
        async with trial(lab, tmp_path) as t:
            try:
                t.publisher.vet(name, tmp_path, 5)
            except errors.NameNotAllowed:
                since = len(lab.seen)
                with pytest.raises(errors.NameNotAllowed):
                    await t.create(name, b"hello")
                assert not t.asked(since)
                return
            data = name.encode()
            made = await t.create(name, data)
            assert made.path == (name,)
            assert (await t.there())[name, data] == 1

    trio.run(main)


@pytest.mark.parametrize("name", ['say "hi".txt', "back\\slash", "line\nend", "re\rturn", "nul\0", "\x7f", "sur\udc80"])
async def test_what_a_form_cannot_carry_is_refused(name: str, lab: Lab, tmp_path: Path) -> None:
    """Before anything is acknowledged; without a request."""
    async with trial(lab, tmp_path) as t:
        with pytest.raises(errors.NameNotAllowed):
            t.publisher.vet(name, tmp_path, 1)
    assert not lab.seen


# -- what a failure leaves ---------------------------------------------------------------------------------------

AT_HASH, AT_POST, AT_LOOK, AT_DELETE = (
    r"/files/hash/", r"/files\?purpose", r"/files/[0-9a-f-]{36}\?generate", r"/files/[0-9a-f-]{36}\?$"
)  # fmt: skip
AT_LINK, AT_PUT, AT_VERIFY = r"presigned-url", r"/uploads/", r"verify-upload"


@pytest.mark.parametrize(
    ("where", "retry"),
    [
        (AT_HASH, None),
        (AT_POST, Counter([HASH])),
        (AT_LOOK, None),
    ],
)
@pytest.mark.parametrize("twin", [False, True], ids=["alone", "bytes known"])
async def test_a_lost_answer_makes_no_second_file(
    where: str, retry: Counter[str] | None, twin: bool, lab: Lab, tmp_path: Path
) -> None:
    """The next try, of another process, finds what this one has done; reading is tried again at once."""
    if twin:
        upload(lab, "other name", b"hello")
    journal = Journal()
    lab.fault(where, lose_answer=True, times=1)
    async with trial(lab, tmp_path) as t:
        if retry is None:
            await t.create("a.txt", b"hello", journal)
        else:
            with pytest.raises(errors.Unavailable):
                await t.create("a.txt", b"hello", journal)
    async with trial(lab, tmp_path) as t:
        _, cost = await t.costs(partial(t.create, "a.txt", b"hello", journal.again()))
        if retry is None:
            assert cost == {LOOK: 1}  # by the id that was noted
        elif twin:
            assert cost in (retry, Counter([HASH, PAGE, LOOK, BYTES]))  # as the hash tells of the one or the other
        else:
            assert cost == retry
        assert await t.there() == Counter([("a.txt", b"hello"), *[("other name", b"hello")] * twin])


@pytest.mark.usefixtures("_by_link")
@pytest.mark.parametrize(
    ("where", "retry"),
    [
        (AT_LINK, Counter([HASH, PAGE, LINK, PUT, VERIFY])),
        (AT_PUT, Counter([VERIFY])),
    ],
)
async def test_a_lost_answer_by_link_makes_no_second_file(
    where: str, retry: Counter[str], lab: Lab, tmp_path: Path
) -> None:
    """Bytes that have arrived need only be verified."""
    journal = Journal()
    lab.fault(where, lose_answer=True, times=1)
    async with trial(lab, tmp_path) as t:
        with pytest.raises(errors.Unavailable):
            await t.create("a.txt", b"hello", journal)
    async with trial(lab, tmp_path) as t:
        assert await t.there() == Counter()
        _, cost = await t.costs(partial(t.create, "a.txt", b"hello", journal.again()))
        assert cost == retry
        assert await t.there() == {("a.txt", b"hello"): 1}


@pytest.mark.usefixtures("_by_link")
async def test_bytes_that_never_came_are_sent_again(lab: Lab, tmp_path: Path) -> None:
    """To an address of their own; what was begun is never seen."""
    journal = Journal()
    lab.fault(AT_PUT, status=503, times=1)
    async with trial(lab, tmp_path) as t:
        with pytest.raises(errors.Unavailable):
            await t.create("a.txt", b"hello", journal)
        _, cost = await t.costs(partial(t.create, "a.txt", b"hello", journal.again()))
        assert cost == Counter([VERIFY, HASH, PAGE, LINK, PUT, VERIFY])
        assert await t.there() == {("a.txt", b"hello"): 1}


@pytest.mark.parametrize("by_link", [False, True], ids=["direct", "link"])
async def test_a_kill_after_an_id_is_known(
    by_link: bool, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next process goes on from what was noted."""
    if by_link:
        monkeypatch.setattr(publisher, "MAX_DIRECT", -1)
    journal = Journal()
    journal.dies_at = "file"
    with pytest.raises(BaseExceptionGroup) as dead:
        async with trial(lab, tmp_path) as t, trio.open_nursery():
            await t.create("a.txt", b"hello", journal)
    assert dead.group_contains(Killed)
    async with trial(lab, tmp_path) as t:
        _, cost = await t.costs(partial(t.create, "a.txt", b"hello", journal.again()))
        assert cost == (Counter([VERIFY, HASH, PAGE, LINK, PUT, VERIFY]) if by_link else {LOOK: 1})
        assert await t.there() == {("a.txt", b"hello"): 1}


@pytest.mark.parametrize(
    ("fault", "retry"),
    [
        ({"pattern": AT_POST, "lose_answer": True}, Counter([HASH, DELETE])),
        ({"pattern": AT_POST, "status": 503}, Counter([HASH, PAGE, LOOK, POST, LOOK, DELETE])),
        ({"pattern": AT_DELETE, "lose_answer": True}, Counter([LOOK, DELETE])),
        ({"pattern": AT_DELETE, "status": 500}, Counter([LOOK, DELETE])),
        ({"pattern": AT_DELETE, "status": 429}, Counter([LOOK, DELETE])),
    ],
    ids=["post lost", "post refused", "delete lost", "delete refused", "delete too early"],
)
async def test_a_save_that_broke_off_is_ended(
    fault: dict[str, Any], retry: Counter[str], lab: Lab, tmp_path: Path
) -> None:
    """Neither lost nor doubled: between the steps both files stand, after the next try the new one does."""
    async with trial(lab, tmp_path) as t:
        old = await t.create("a.txt", b"one")
        journal = Journal()
        lab.fault(times=1, **fault)
        with pytest.raises(errors.Unavailable):
            await t.save(old, b"two", b"one", journal)
        assert {("a.txt", b"one"), ("a.txt", b"two")} & set(await t.there())
    async with trial(lab, tmp_path) as t:
        new, cost = await t.costs(partial(t.save, old, b"two", b"one", journal.again()))
        assert cost == retry
        assert await t.listed() == [new]
        assert await t.there() == {("a.txt", b"two"): 1}


@pytest.mark.parametrize("step", ["noted", "removed"])
async def test_a_kill_between_the_steps_of_a_save(step: str, lab: Lab, tmp_path: Path) -> None:
    """With the id noted the old file goes; with the old one gone, the new one is there."""
    async with trial(lab, tmp_path) as t:
        old = await t.create("a.txt", b"one")
        journal = Journal()
        await t.save(old, b"two", b"one", journal)
        if step == "noted":
            upload(lab, "a.txt", b"one")
            old = replace(
                old, id="00000001-0000-4000-8000-000000000000", key="file/00000001-0000-4000-8000-000000000000"
            )
        new, cost = await t.costs(partial(t.save, old, b"two", b"one", journal.again()))
        assert cost == Counter([LOOK, DELETE])
        assert await t.listed() == [new]


async def test_who_has_the_name_and_the_size_is_not_taken_for_it(lab: Lab, tmp_path: Path) -> None:
    """After a failure others' files of this name are told apart by their bytes."""
    upload(lab, "a.txt", b"HELLO")
    journal = Journal()
    lab.fault(AT_POST, status=503, times=1)
    async with trial(lab, tmp_path) as t:
        with pytest.raises(errors.Unavailable):
            await t.create("a.txt", b"hello", journal)
        _, cost = await t.costs(partial(t.create, "a.txt", b"hello", journal.again()))
        assert cost == Counter([HASH, PAGE, LOOK, BYTES, POST, LOOK])
        assert await t.there() == {("a.txt", b"HELLO"): 1, ("a.txt", b"hello"): 1}


async def test_what_was_removed_after_it_was_noted_is_sent_again(lab: Lab, tmp_path: Path) -> None:
    """Nobody has seen the acknowledgement: the content is not to be lost."""
    journal = Journal()
    async with trial(lab, tmp_path) as t:
        made = await t.create("a.txt", b"hello", journal)
        await t.publisher.remove(made)
        await t.create("a.txt", b"hello", journal.again())
        assert await t.there() == {("a.txt", b"hello"): 1}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (500, errors.Unavailable), (429, errors.RateLimited), (402, errors.QuotaExceeded), (413, errors.TooLarge),
        (422, errors.InvalidRequest), (401, errors.AccessDenied), (405, errors.NotPermitted),
    ],
)  # fmt: skip
async def test_a_refused_upload_is_sent_once(
    status: int, kind: type[errors.ArtifactFSError], lab: Lab, tmp_path: Path
) -> None:
    """The answer says what it means; whether to try again is not decided here."""
    lab.fault(AT_POST, status=status)
    async with trial(lab, tmp_path) as t:
        with pytest.raises(kind):
            await t.create("a.txt", b"hello")
        assert t.asked() == Counter([HASH, POST])
        lab.heal()
        assert await t.there() == Counter()


@pytest.mark.parametrize("status", [404, 405, 422, 501])
async def test_a_server_that_knows_no_hashes_takes_files(status: int, lab: Lab, tmp_path: Path) -> None:
    """What the hash would tell, the list tells after a failure."""
    lab.fault(AT_HASH, status=status)
    journal = Journal()
    async with trial(lab, tmp_path) as t:
        lab.fault(AT_POST, lose_answer=True, times=1)
        with pytest.raises(errors.Unavailable):
            await t.create("a.txt", b"hello", journal)
        _, cost = await t.costs(partial(t.create, "a.txt", b"hello", journal.again()))
        assert cost == Counter([HASH, PAGE, LOOK, BYTES])
        assert await t.there() == {("a.txt", b"hello"): 1}


async def test_nothing_is_sent_over_the_budget(lab: Lab, tmp_path: Path) -> None:
    """What would come too late for the deadline is refused, and begins again later."""
    async with trial(lab, tmp_path, budget=Budget(0.001, 1)) as t:
        with pytest.raises(errors.QuotaExceeded):
            await t.create("a.txt", b"hello")
        assert t.asked() == {HASH: 1}


# -- removing, and what there is not ----------------------------------------------------------------------------


async def test_remove_and_again(lab: Lab, tmp_path: Path) -> None:
    """Gone is gone, also when the answer was lost."""
    async with trial(lab, tmp_path) as t:
        made = await t.create("a.txt", b"hello")
        lab.fault(AT_DELETE, lose_answer=True, times=1)
        with pytest.raises(errors.Unavailable):
            await t.publisher.remove(made)
        _, cost = await t.costs(partial(t.publisher.remove, made))
        assert cost == {DELETE: 1}
        assert await t.there() == Counter()


async def test_a_missing_page_is_no_missing_file(lab: Lab, tmp_path: Path) -> None:
    """A 404 that is not the API's says nothing of the file."""
    async with trial(lab, tmp_path) as t:
        made = await t.create("a.txt", b"hello")
        for body in (b"<html>", b'{"message": "no Route matched"}'):
            lab.fault(AT_DELETE, status=404, body=body, times=1)
            with pytest.raises(errors.Unsupported):
                await t.publisher.remove(made)


async def test_a_server_that_removes_nothing(lab: Lab, tmp_path: Path) -> None:
    """Rm is refused, from then on without asking, after a restart too; a save stands beside what it follows."""
    memory = samples.Memory()
    lab.fault(AT_DELETE, status=405)
    async with trial(lab, tmp_path, memory) as t:
        made = await t.create("a.txt", b"one")
        await t.publisher.permits(Change.REMOVE)
        with pytest.raises(errors.NotPermitted):
            await t.publisher.remove(made)
        new = await t.save(made, b"two", b"one")
        assert await t.there() == {("a.txt", b"one"): 1, ("a.txt", b"two"): 1}
    async with trial(lab, tmp_path, memory) as t:
        with pytest.raises(errors.NotPermitted):
            await t.publisher.permits(Change.REMOVE)
        lab.heal()
        await t.publisher.remove(new)


async def test_what_there_is_not_is_refused_without_a_request(lab: Lab, tmp_path: Path) -> None:
    """No directories, no new names, no agents; no files but in files/, and objects of runs stay as they are."""
    async with trial(lab, tmp_path) as t:
        p, listing = t.publisher, await t.provider.list(DirRef("vr", "run", (samples.RUN,)), None)
        found = next(entry for entry in listing.entries if isinstance(entry, Artifact))
        assert not found.writable
        since = len(lab.seen)
        for change in (Change.CREATE, Change.SAVE, Change.REMOVE):
            await p.permits(change)
        refused: list[Callable[[], Any]] = [
            partial(p.permits, Change.RENAME),
            partial(p.permits, Change.MAKE_TREE),
            partial(p.make_workflow, "x"),
            partial(p.remove_workflow, FILES),
            partial(p.create_tree, FILES, ("x",)),
            partial(p.save_tree, found, {}, Journal(), read=None),  # type: ignore[arg-type]  # never called
            partial(p.rename, found, FILES, ("x",)),
            partial(p.remove, found),
            partial(t.save, found, b"x"),
            partial(p.create_file, FILES, ("a", "b"), t.draft(b"x"), Journal()),
            partial(p.create_file, DirRef("vr", "sessions"), ("a",), t.draft(b"x"), Journal()),
        ]
        for call in refused:
            with pytest.raises(errors.NotPermitted):
                await call()
        assert not t.asked(since)


# -- answers that are not what they should be ---------------------------------------------------------------------


async def test_a_draft_that_changed_is_not_sent(lab: Lab, tmp_path: Path) -> None:
    """Its hash is looked at before the first request."""
    async with trial(lab, tmp_path) as t:
        draft = t.draft(b"hello")
        draft.path.write_bytes(b"HELLO")
        with pytest.raises(errors.CorruptContent):
            await t.publisher.create_file(FILES, ("a.txt",), draft, Journal())
        draft.path.unlink()
        with pytest.raises(errors.CorruptContent):
            await t.publisher.create_file(FILES, ("a.txt",), draft, Journal())
        assert not t.asked()


async def test_a_service_that_keeps_one_name_for_equal_bytes(lab: Lab, tmp_path: Path) -> None:
    """Then the file would not stand under its name: it is refused, and the other one stays."""
    other = upload(lab, "other", b"hello")
    answer = {"id": other.id, "filename": "other", "bytes": 5, "created_at": None}
    lab.fault(AT_POST, status=201, body=json.dumps(answer).encode())
    async with trial(lab, tmp_path) as t:
        with pytest.raises(errors.NotPermitted, match="another name"):
            await t.create("a.txt", b"hello")
        assert await t.there() == {("other", b"hello"): 1}


@pytest.mark.parametrize(
    ("where", "answer"),
    [
        (AT_POST, b"{}"),
        (AT_POST, b'{"id": "../../../x", "filename": "a.txt"}'),
        (AT_POST, b"no JSON"),
        (AT_LOOK, b'{"id": "bea05e4d-1c47-4b0a-9a3b-6f6ac1d0a001", "filename": "a.txt", "bytes": 4}'),
        (AT_LINK, b'{"id": "bea05e4d-1c47-4b0a-9a3b-6f6ac1d0a001", "url": "file:///etc/passwd"}'),
        (AT_LINK, b'{"id": "bea05e4d-1c47-4b0a-9a3b-6f6ac1d0a001", "url": "/v1/files"}'),
        (AT_LINK, b'{"id": "x", "url": "http://127.0.0.1/"}'),
    ],
)
async def test_an_answer_of_another_kind_is_no_receipt(
    where: str, answer: bytes, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is taken for saved that was not seen to be."""
    if where == AT_LINK:
        monkeypatch.setattr(publisher, "MAX_DIRECT", -1)
    lab.fault(where, status=201 if where == AT_POST else 200, body=answer)
    async with trial(lab, tmp_path) as t:
        with pytest.raises(errors.ProviderMisbehaved):
            await t.create("a.txt", b"hello")


@pytest.mark.usefixtures("_by_link")
async def test_an_address_gets_no_token_at_home_either(lab: Lab, tmp_path: Path) -> None:
    """Whoever made it: it carries its own leave, or none."""
    answer = {"id": samples.FILE, "url": f"{lab.url}/vlmrun/uploads/x", "content_type": "text/plain"}
    lab.fault(AT_LINK, status=200, body=json.dumps(answer).encode())
    async with trial(lab, tmp_path) as t:
        with pytest.raises(errors.AccessDenied):
            await t.create("a.txt", b"hello")
    (put,) = [seen for seen in lab.seen if seen.method == "PUT"]
    assert "authorization" not in put.headers


@pytest.mark.usefixtures("_by_link")
async def test_a_link_into_a_private_network_is_not_followed(lab: Lab, tmp_path: Path) -> None:
    """An address in an answer is untrusted, one that takes bytes too."""
    answer = {"id": samples.FILE, "url": "http://10.0.0.1/x", "content_type": "text/plain"}
    lab.fault(AT_LINK, status=200, body=json.dumps(answer).encode())
    async with trial(lab, tmp_path) as t:
        with pytest.raises(errors.ProviderMisbehaved, match="private"):
            await t.create("a.txt", b"hello")


async def test_a_file_that_does_not_show_yet_is_waited_for(lab: Lab, tmp_path: Path) -> None:
    """It has been taken: the next try looks again, and sends nothing."""
    journal = Journal()
    lab.fault(AT_LOOK, status=404, times=1)
    async with trial(lab, tmp_path) as t:
        with pytest.raises(errors.Unavailable):
            await t.create("a.txt", b"hello", journal)
        _, cost = await t.costs(partial(t.create, "a.txt", b"hello", journal.again()))
        assert cost == {LOOK: 1}
        assert await t.there() == {("a.txt", b"hello"): 1}
