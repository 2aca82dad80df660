"""Whatever bytes a parser is given: a value of its kind, or the one error that its callers expect. Nothing else."""

from __future__ import annotations

import contextlib
import json
import logging
import random
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifactfs import errors
from artifactfs.content import archive_index, gunzip, tar_fields, tar_headers
from artifactfs.content.restart import RestartMap
from artifactfs.daemon import control
from artifactfs.errors import CorruptContent
from artifactfs.journal import rows
from artifactfs.model import codec
from artifactfs.model.entry import Accepts, Artifact, ArtifactKind, DirRef, Folder, Listing, Role, Version
from artifactfs.model.limits import Limits
from artifactfs.providers.base import Provider
from artifactfs.providers.http import HttpClient
from artifactfs.providers.messages import Reply, StreamReply
from artifactfs.providers.syntropic.provider import Syntropic137Provider
from artifactfs.providers.vlmrun.provider import VlmRunProvider
from artifactfs.providers.vm0.provider import Vm0Provider
from artifactfs.tree.layout import Place, lay_out
from tests.support.archives import CASES
from tests.support.log_guard import LogGuard
from tests.support.vm0_world import Kept

TEXT = st.text(st.characters(), max_size=12)
ODD = st.sampled_from(
    ["", "..", "a/b", "a?b#c%d", "\ud800", "\0", "x" * 2000, "2026-02-30T00:00:00Z", "9" * 30, "img_a1b2c3"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(2**62, 2**70) | st.floats() | TEXT | ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | ODD, inner, max_size=3),
    max_leaves=6,
)


# -- archives --------------------------------------------------------------------------------------------------


@given(st.binary(max_size=12))
def test_a_number_of_a_header_is_one_or_none(field: bytes) -> None:
    """Sizes fit 63 bits or are an error of the archive; times fit 63 bits of nanoseconds; modes are permissions."""
    padded = field.ljust(12, b"\0")
    with contextlib.suppress(CorruptContent):
        assert 0 <= tar_fields.size_of(padded) < 2**63
    with contextlib.suppress(CorruptContent):
        assert 0 <= tar_fields.size_of(padded, field) < 2**63
    assert 0 <= tar_fields.mode(padded) <= 0o777
    for time in (tar_fields.header_time(padded), tar_fields.pax_time(field)):
        assert time is None or 0 <= time < 2**63


@given(st.binary(max_size=200))
def test_records_of_pax_are_a_table_or_an_error(data: bytes) -> None:
    with contextlib.suppress(CorruptContent):
        assert all(key and isinstance(value, bytes) for key, value in tar_headers.parse_pax(data).items())


@given(st.binary(max_size=600))
def test_anything_can_be_named(head: bytes) -> None:
    """In words that a terminal may be shown."""
    assert gunzip.describe_content(head).isprintable()


# -- what is kept on disk --------------------------------------------------------------------------------------


def index_of(name: str) -> bytes:
    reader = archive_index.ArchiveReader(Limits())
    for _ in reader.feed(CASES[name]().data):
        pass
    return archive_index.dump(reader.finish())


DUMPED = [
    index_of(name)
    for name in ("format_pax", "symlinks_escaping", "names_that_are_not_utf8", "dotdot_and_absolute_names")
]


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Flip, cut, double or fill in some bytes."""
    raw = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(raw) + 1)
        match chance.randrange(4):
            case 0:
                raw[at : at + 1] = chance.randbytes(1)
            case 1:
                del raw[at : at + chance.choice((1, 4, 100))]
            case 2:
                raw[at:at] = raw[at : at + chance.choice((1, 8, 50))]
            case _:
                raw[at : at + 4] = b"\xff\xff\xff\xff"
    return bytes(raw)


def inside(data: bytes, head: int, chance: random.Random) -> bytes:
    """Damage what is compressed behind ``head`` bytes, and compress it again."""
    return data[:head] + zlib.compress(damaged(zlib.decompress(data[head:]), chance))


@given(st.sampled_from(DUMPED), st.randoms(use_true_random=False))
def test_a_damaged_index_is_said_to_be(data: bytes, chance: random.Random) -> None:
    """The archive is read again then; an index is never half of one."""
    with contextlib.suppress(CorruptContent):
        found = archive_index.load(damaged(data, chance))
        assert archive_index.load(archive_index.dump(found)) == found


@given(
    st.lists(VALUES, max_size=3),
    st.sampled_from(["members", "refused", "notes", "path", "kind", "target", "inline"]),
    VALUES,
)
def test_an_index_of_other_values_is_said_to_be(rows: list[Any], key: str, value: object) -> None:
    """Valid frames with anything in them."""

    def frame(row: object) -> bytes:
        part = zlib.compress(json.dumps(row).encode())
        return len(part).to_bytes(4, "little") + part

    facts: dict[str, Any] = {"members": 1, "refused": 0, "stream_size": 0, "total_size": 0, "notes": []}
    column: dict[str, Any] = {name: ["x"] for name in ("path", "offset", "size", "mtime_ns", "sha256")}
    column |= {"kind": "f", "executable": [], "target": {}, "inline": {}, "serial": {}}
    for row in ([{**facts, key: value}, {**column, key: value}], rows):
        with contextlib.suppress(CorruptContent):
            archive_index.load(b"AFSIDX3\n" + b"".join(map(frame, row)))


@given(st.binary(max_size=300))
def test_damaged_restart_points_are_said_to_be(raw: bytes) -> None:
    for data in (
        raw,
        b"AFSPTS1\n" + raw,
        b"AFSPTS1\n" + zlib.compress(raw),
        b"AFSPTS1\n" + zlib.compress(bytes(64) + raw),
    ):
        with contextlib.suppress(CorruptContent):
            RestartMap.load(data)


KEPT = codec.pack_entries(
    [
        Folder(("a", "b"), "f", DirRef("vm0", "root"), mtime_ns=5),
        Artifact(("x.md",), "id", "key", ArtifactKind.FILE, None, created_at_ns=7, metadata={"a": [1, {"b": None}]}),
    ]
)


@given(st.randoms(use_true_random=False), st.booleans(), VALUES)
def test_a_damaged_listing_is_said_to_be(chance: random.Random, within: bool, value: object) -> None:
    """Flipped bytes, and valid JSON of anything: entries, or ``ValueError``."""
    made = KEPT[:1] + zlib.compress(json.dumps(value).encode())
    for data in (inside(KEPT, 1, chance) if within else damaged(KEPT, chance), made):
        for read in (codec.Reader().entries, codec.Reader().versions):
            with contextlib.suppress(ValueError):
                assert isinstance(read(data), list)


@pytest.fixture
def _told(expected_logs: LogGuard) -> None:
    expected_logs("cannot be read and is left as it is", logger="artifactfs.journal.rows", level=logging.WARNING)


@pytest.mark.usefixtures("_told")
@given(
    VALUES.map(json.dumps),
    st.sampled_from([b"waits", b"failed", b"\xff", b""]),
    VALUES.map(json.dumps),
    VALUES.map(json.dumps),
)
def test_a_record_of_the_journal_is_one_or_is_left_as_it_is(what: str, state: bytes, error: str, facts: str) -> None:
    """Never an error: what cannot be read may be the only copy of somebody's change."""
    found = rows.record_of((1, state, what, 0, error, facts, 0, 0, 0, 5, rows.NO_SUM))
    assert found is None or isinstance(found.what, dict)
    assert rows.record_of((1, state, what[:-1], 0, error, "{", 0, 0, 0, 5, rows.NO_SUM)) is None


# -- the control socket ----------------------------------------------------------------------------------------


async def echo(request: dict[str, Any]) -> object:
    return str(request.get("path"))


async def fails(request: dict[str, Any]) -> object:
    raise errors.NotFound(str(request.get("path")))


REQUESTS = (
    st.binary(max_size=200)
    | VALUES.map(lambda value: json.dumps(value).encode())
    | st.builds(
        lambda verb, path: json.dumps({"verb": verb, "path": path}).encode(),
        st.sampled_from(["echo", "fails"]) | VALUES,
        VALUES,
    )
)


@settings(max_examples=60)
@given(st.lists(REQUESTS, min_size=1, max_size=3).map(b"".join), st.booleans())
def test_any_request_has_one_line_of_json_for_an_answer(raw: bytes, ends: bool) -> None:
    """With or without a line end, in one piece or many."""

    async def ask() -> bytes:
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(control._answer, theirs, verbs={"echo": echo, "fails": fails}))
            for at in range(0, len(raw), 7):
                with contextlib.suppress(trio.BrokenResourceError):
                    await ours.send_all(raw[at : at + 7])
            with contextlib.suppress(trio.BrokenResourceError):
                await (ours.send_all(b"\n") if ends else ours.send_eof())
            return b"".join([chunk async for chunk in ours])

    reply = trio.run(ask)
    assert reply.count(b"\n") == 1
    assert reply.endswith(b"\n")
    assert json.loads(reply).keys() in ({"ok"}, {"error"})


# -- answers of services ---------------------------------------------------------------------------------------

UUID = "00000000-0000-4000-8000-00000000000%d"
ROWS: Mapping[str, dict[str, Any]] = {
    "vm0": {
        "id": UUID % 1, "name": "report", "currentVersionId": "0" * 64, "size": 5, "fileCount": 1,
        "createdAt": "2026-02-03T08:00:00Z", "currentVersion": {"id": "0" * 64, "size": 5, "fileCount": 1},
    },
    "syntropic137": {
        "id": UUID % 1, "workflow_id": "wf-1", "phase_id": "p", "artifact_type": "text", "title": "1.txt",
        "size_bytes": 1, "created_at": "2026-02-03 08:00:00", "execution_id": UUID % 2, "session_id": UUID % 3,
    },
    "vlmrun": {
        "id": UUID % 1, "name": "agent:v2", "status": "completed", "created_at": "2026-07-01T10:00:00Z",
        "completed_at": "2026-07-01T10:00:00Z", "response": {"url": "img_a1b2c3.png"}, "usage": {}, "filename": "b.png",
        "object_id": "img_a1b2c3", "source": "store", "bytes": 5,
    },
}  # fmt: skip


class Answering(HttpClient):
    """A client that gets the same value for every question, in the envelope that the question has."""

    def __init__(self, value: Callable[[str], object]) -> None:
        super().__init__("work", "http://service.invalid/v1")
        self.value = value
        self.left = 40

    def reply(self, path: str) -> Reply:
        self.left -= 1
        if self.left < 0:
            raise errors.Unavailable("enough was asked")
        body = json.dumps(self.value(path)).encode()
        return Reply(200, {"content-type": "application/json"}, body, self.base_url + path)

    async def get(self, path: str, *_more: Any, **_options: Any) -> Reply:
        await trio.lowlevel.checkpoint()
        return self.reply(path)

    @contextlib.asynccontextmanager
    async def stream(self, url: str, *_more: Any, **_options: Any) -> AsyncIterator[StreamReply]:
        reply = self.reply(url)

        async def chunks() -> AsyncIterator[bytes]:
            yield reply.body

        yield StreamReply(200, reply.headers, reply.url, chunks())


def enveloped(service: str, rows: list[Any], path: str) -> object:
    if service == "vm0":
        return {"data": rows, "pagination": {"hasMore": False, "nextCursor": None}}
    if service == "vlmrun":
        return {"items": rows} if path.endswith("/list") else rows
    for key in ("sessions", "workflows", "executions"):
        if path.endswith(key):
            return {key: rows, "total": len(rows), "page": 1, "page_size": 100}
    return rows


MAKE: Mapping[str, Callable[[HttpClient], Provider]] = {
    "vm0": lambda http: Vm0Provider("work", http, Kept()),
    "syntropic137": lambda http: Syntropic137Provider("work", http, Kept()),
    "vlmrun": lambda http: VlmRunProvider("work", http, Kept()),
}


async def look_at_everything(provider: Provider) -> None:
    """List what there is, keep it, lay it out, and ask for the versions of it."""
    todo: list[DirRef] = [ref for ref in (provider.root().ref,) if ref]
    for _ in range(6):
        if not todo:
            return
        ref = todo.pop()
        try:
            listing = await provider.list(ref, None)
        except errors.ArtifactFSError:
            continue
        check(listing, ref)
        todo += [entry.ref for entry in listing.entries if isinstance(entry, Folder) and entry.ref]
        for artifact in [entry for entry in listing.entries if isinstance(entry, Artifact)][:2]:
            with contextlib.suppress(errors.ArtifactFSError):
                page = await provider.versions(artifact, None)
                assert all(isinstance(version, Version) for version in page.versions)


def check(listing: Listing, ref: DirRef) -> None:
    entries = list(listing.entries)
    with contextlib.suppress(ValueError, RecursionError):  # told by the codec: then it is not kept
        assert codec.Reader().entries(codec.pack_entries(entries)) == entries
    place = Place(ref, Role.WORKFLOW, Accepts.NOTHING, None, 77, lambda _name: False, False, frozenset())
    for level in lay_out(entries, place, complete=listing.complete).values():
        for name, node in level.children.items():
            assert 1 <= len(name.encode()) <= 255
            assert node.mtime_ns is None or abs(node.mtime_ns) < 2**63


@st.composite
def answers(draw: st.DrawFn, service: str) -> Callable[[str], object]:
    """A valid answer with some fields of some rows replaced, or something else altogether."""
    if draw(st.integers(0, 9)) == 0:
        value = draw(VALUES)
        return lambda _path: value
    rows: list[Any] = []
    for number in range(draw(st.integers(0, 3))):
        row = {**ROWS[service], "id": UUID % number}
        for key in draw(st.lists(st.sampled_from(sorted(row)), max_size=4)):
            row[key] = draw(VALUES)
        rows.append(draw(st.just(row) | VALUES) if draw(st.booleans()) else row)
    return lambda path: enveloped(service, rows, path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@pytest.mark.parametrize("service", list(ROWS))
@given(data=st.data())
def test_whatever_json_a_service_answers_is_a_listing_or_an_error_of_ours(service: str, data: st.DataObject) -> None:
    """Names are legal, times fit, and what is kept of it comes back."""
    http = Answering(data.draw(answers(service)))
    trio.run(look_at_everything, MAKE[service](http))
