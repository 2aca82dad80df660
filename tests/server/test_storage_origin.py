"""The storage origin: signed links, ranges, conditions and uploads as S3-type stores have them."""

from __future__ import annotations

import gzip
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
import trio

from artifactfs.server import storage
from artifactfs.server.context import Context, Signer, Verdict
from artifactfs.server.vm0_archives import Archives
from artifactfs.store.catalog import Store
from tests.support import vm0_world as world
from tests.support.serving import serving


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = world.new_store(tmp_path)
    yield made
    made.close()


@asynccontextmanager
async def origin(store: Store) -> AsyncIterator[tuple[httpx.AsyncClient, Context]]:
    """Serve the storage origin; yield a client and what makes links to it."""
    signer = Signer()
    async with serving(storage.build(store, signer)) as at, httpx.AsyncClient() as client:
        yield client, Context(None, at.url, signer)


def archive_path(store: Store) -> str:
    made = world.tree(store, "report", {"a.txt": b"hello\n" * 1000, "b.txt": os.urandom(5000)})
    return f"/artifact/{made.uuid}/{store.versions(made.id)[0].id}/archive.tar.gz"


async def test_the_whole_archive_comes_with_its_length_and_tag(store: Store) -> None:
    """And is made once: the same bytes from a second store that has the same content."""
    path = archive_path(store)
    async with origin(store) as (client, context):
        answer = await client.get(context.link(path))
        assert answer.status_code == 200
        assert int(answer.headers["content-length"]) == len(answer.content)
        assert answer.headers["accept-ranges"] == "bytes"
        assert set(world.members(answer.content)) == {"a.txt", "b.txt"}
        again = await client.get(context.link(path))
        assert (again.headers["etag"], again.content) == (answer.headers["etag"], answer.content)
        for file in (store.root / "archives").iterdir():
            file.unlink()
        assert (await client.get(context.link(path))).content == answer.content


async def test_ranges_are_served(store: Store) -> None:
    """206 with Content-Range; from a byte, to a byte, the last bytes, and beyond the end."""
    path = archive_path(store)
    async with origin(store) as (client, context):
        link = context.link(path)
        whole = (await client.get(link)).content
        size = len(whole)
        for header, start, end in (
            ("bytes=0-9", 0, 10),
            ("bytes=10-", 10, size),
            ("bytes=-7", size - 7, size),
            ("bytes=5-999999999", 5, size),
            (f"bytes=-{size * 2}", 0, size),
        ):
            answer = await client.get(link, headers={"Range": header})
            assert answer.status_code == 206
            assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
            assert answer.content == whole[start:end]
            assert int(answer.headers["content-length"]) == end - start
        beyond = await client.get(link, headers={"Range": f"bytes={size}-"})
        assert beyond.status_code == 416
        assert beyond.headers["content-range"] == f"bytes */{size}"
        for ignored in ("bytes=9-3", "bytes=1-2,4-5", "bytes=x-", "lines=0-1", "bytes=-", "bytes=" + "1" * 5000 + "-"):
            answer = await client.get(link, headers={"Range": ignored})
            assert (answer.status_code, len(answer.content)) == (200, size)


async def test_conditions_are_honoured(store: Store) -> None:
    """If-Range falls back on the whole, If-Match on 412, If-None-Match on 304."""
    path = archive_path(store)
    async with origin(store) as (client, context):
        link = context.link(path)
        etag = (await client.get(link)).headers["etag"]
        ranged = {"Range": "bytes=0-1"}
        assert (await client.get(link, headers={**ranged, "If-Range": etag})).status_code == 206
        assert (await client.get(link, headers={**ranged, "If-Range": '"other"'})).status_code == 200
        assert (await client.get(link, headers={**ranged, "If-Match": etag})).status_code == 206
        refused = await client.get(link, headers={**ranged, "If-Match": '"other"'})
        assert (refused.status_code, "PreconditionFailed" in refused.text) == (412, True)
        assert (await client.get(link, headers={"If-None-Match": etag})).status_code == 304


async def test_only_a_good_signature_opens(store: Store) -> None:
    """Expired, missing, for another path, by another process, HEAD: 403 as XML; a token beside it: 400."""
    path = archive_path(store)
    async with origin(store) as (client, context):
        expired = await client.get(context.link(path, lifetime_s=-1))
        assert (expired.status_code, "Request has expired" in expired.text) == (403, True)
        good = context.link(path)
        base, _, query = good.partition("?")
        for link in (
            base,
            good + "0",
            good.replace("X-Amz-Expires=3600", "X-Amz-Expires=9999999"),
            f"{context.storage_url}/artifact/x/y/archive.tar.gz?{query}",
            Signer().link(context.storage_url, path),
            context.link(path, method="PUT"),
        ):
            refused = await client.get(link)
            assert refused.status_code == 403
            assert "<Code>SignatureDoesNotMatch</Code>" in refused.text
        assert (await client.head(good)).status_code == 403
        twice = await client.get(good, headers={"Authorization": "Bearer x"})
        assert (twice.status_code, "<Code>InvalidArgument</Code>" in twice.text) == (400, True)


async def test_what_is_not_there_is_no_such_key(store: Store) -> None:
    """Unknown paths, unknown versions, and a version whose bytes the store has lost."""
    path = archive_path(store)
    async with origin(store) as (client, context):
        for unknown in (
            "/",
            "/x",
            path + "/y",
            path.replace("/artifact/", "/volume/"),
            path[:-20] + "0/archive.tar.gz",
        ):
            answer = await client.get(context.link(unknown))
            assert (answer.status_code, "NoSuchKey" in answer.text) == (404, True)
        store.objects.path(world.sha256(b"hello\n" * 1000)).unlink()
        assert (await client.get(context.link(path))).status_code == 404
        assert list((store.root / "archives").iterdir()) == []


async def test_an_upload_is_kept_until_it_is_collected(store: Store) -> None:
    """Whole or not at all, under a name that the path gives, for one method and with a length."""
    async with origin(store) as (client, context):
        link = context.link("/artifact/some/key", method="PUT")
        data = os.urandom(1 << 20)
        answer = await client.put(link, content=data)
        assert answer.status_code == 200
        assert answer.headers["etag"]
        assert storage.staged_path(store, "/artifact/some/key").read_bytes() == data
        assert (await client.put(context.link("/artifact/some/key"), content=b"x")).status_code == 403

        async def chunks() -> AsyncIterator[bytes]:
            yield b"x"

        assert (await client.put(link, content=chunks())).status_code == 411
        assert storage.staged_path(store, "/artifact/some/key").read_bytes() == data


async def test_an_upload_cut_short_leaves_nothing(store: Store) -> None:
    """A connection that ends early is no upload."""
    async with origin(store) as (_, context):
        parts = urlsplit(context.link("/key", method="PUT"))
        stream = await trio.open_tcp_stream(parts.hostname or "", parts.port or 0)
        head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nonly this"
        await stream.send_all(head.encode())
        await trio.sleep(0.1)
        await stream.aclose()
        await trio.sleep(0.2)
    assert list((store.root / "uploads").iterdir()) == []


async def test_uploads_that_nobody_wants_are_swept(store: Store) -> None:
    """A day old: gone; younger: kept."""
    directory = store.root / "uploads"
    directory.mkdir()
    old, young = directory / "old", directory / "young"
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    storage.sweep_staged(store)
    assert [path.name for path in directory.iterdir()] == ["young"]


async def test_many_readers_make_one_archive(store: Store) -> None:
    """Readers that come together wait for one, and all get the same file."""
    made = world.tree(store, "report", {"a.txt": b"x" * 100_000})
    version = store.versions(made.id)[0]
    archives = Archives(store)
    inodes: list[int] = []

    async def open_one() -> None:
        with await archives.open(version) as file:
            inodes.append(os.fstat(file.fileno()).st_ino)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(open_one)
    assert len(set(inodes)) == 1
    assert len(inodes) == 10


async def test_archives_are_bounded(store: Store) -> None:
    """The least recently used go first; what is open stays readable."""
    made = world.tree(store, "report", *({"f": os.urandom(20_000)} for _ in range(4)))
    first, second, third, fourth = store.versions(made.id)
    archives = Archives(store, max_kept=70_000)
    with await archives.open(first) as opened:
        for version in (second, third):
            (await archives.open(version)).close()
        (await archives.open(first)).close()
        (await archives.open(fourth)).close()
        kept = {path.name.partition(".")[0] for path in (store.root / "archives").iterdir()}
        assert kept == {first.id, third.id, fourth.id}
        assert len(gzip.decompress(opened.read())) > 20_000


def test_a_link_names_the_host_its_client_knows() -> None:
    """A server that listens everywhere does not send clients to 0.0.0.0."""
    context = Context(None, "http://0.0.0.0:8138")
    assert context.link("/k", seen_host="box.lan").startswith("http://box.lan:8138/k?")
    assert context.link("/k", seen_host="::1").startswith("http://[::1]:8138/k?")
    assert Context(None, "http://127.0.0.1:1").link("/k", seen_host="box").startswith("http://127.0.0.1:1/k?")


def test_a_signature_holds_for_one_path_however_odd() -> None:
    """Paths are signed decoded, and sent encoded."""
    signer = Signer()
    link = signer.link("http://x", "/a b/é%2F?#")
    query = dict(parse_qsl(urlsplit(link).query))
    assert urlsplit(link).path == "/a%20b/%C3%A9%252F%3F%23"
    assert signer.check("GET", "/a b/é%2F?#", query) is Verdict.GOOD
    assert signer.check("GET", "/a b/é/?#", query) is Verdict.FORGED
    assert signer.check("GET", "/a b/é%2F?#", {}) is Verdict.FORGED


def test_the_token_is_compared_whole() -> None:
    """Exactly ``Bearer <token>``; without a token anyone is admitted."""
    context = Context("secret", "http://x")
    assert context.admits("Bearer secret")
    for other in (None, "", "secret", "bearer secret", "Bearer secret ", "Bearer sécret"):
        assert not context.admits(other)
    assert Context(None, "http://x").admits(None)
