"""VM0's provider against servers that are broken, hostile, or only upstream's own quirks."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from artifactfs import errors
from artifactfs.model.content import ByteRange
from artifactfs.model.entry import Artifact, Empty
from artifactfs.model.limits import ANSWERS
from artifactfs.providers import http as transport
from artifactfs.providers.vm0 import Vm0Provider, api
from tests.support import vm0_world as world
from tests.support.log_guard import LogGuard
from tests.support.serving import serving
from tests.support.vm0_world import Service, not_found, page, row, to_archive

ARCHIVE = world.packed({"f": b"hello\n"})
GZIP = {"Content-Type": "application/gzip"}


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry after hundredths of seconds."""
    monkeypatch.setattr(transport, "BACKOFF_FIRST_S", 0.01)


@asynccontextmanager
async def at(service: Service, **options: Any) -> AsyncIterator[Vm0Provider]:
    async with serving(service.app) as running, world.provider_at(running.url, **options) as provider:
        yield provider


def raw(body: str | bytes, status: int = 200, media_type: str = "application/json") -> Response:
    return Response(body, status, media_type=media_type)


def error(status: int, message: str = "no", **headers: str) -> Response:
    return JSONResponse({"error": {"message": message, "code": "x"}}, status, headers=headers)


# -- paging ------------------------------------------------------------------------------------------------------


def upstream(rows: list[dict[str, Any]]) -> Any:
    """Page as the service does: sorted by time, newest first, but filtered by ids above the cursor."""

    def answer(request: Request) -> object:
        limit, cursor = int(request.query_params["limit"]), request.query_params.get("cursor", "")
        left = [item for item in rows if item["id"] > cursor]
        shown = left[:limit]
        return page(shown, shown[-1]["id"] if len(left) > limit else None)

    return answer


async def test_the_services_paging_is_survived_and_not_believed() -> None:
    """Rows come twice, others never: each is shown once, and the listing says that it may not be whole."""
    # Ids in an order unlike that of the times, as random ones are; 7919 is prime, so each comes once.
    rows = [row(number * 7919 % 1009) for number in range(350)]
    service = Service(index=upstream(rows), versions=upstream(rows))
    async with at(service) as provider:
        listing = await provider.list(world.ARTIFACTS, None)
        ids = [entry.id for entry in listing.entries if isinstance(entry, Artifact)]
        assert len(ids) == len(set(ids)) < 350
        assert not listing.complete
        assert listing.note is not None
        assert "paging" in listing.note
        assert not (await provider.versions(artifact(listing.entries[0]), None)).complete


async def test_one_page_of_the_service_is_whole() -> None:
    """Up to 100 rows nothing can be lost."""
    async with at(Service(index=upstream([row(number * 7919 % 1009) for number in range(100)]))) as provider:
        listing = await provider.list(world.ARTIFACTS, None)
        assert (len(listing.entries), listing.complete) == (100, True)


async def test_pages_that_prove_nothing_are_not_believed() -> None:
    """Ids that only rise are what both pagings would show."""
    async with at(Service(index=upstream([row(number) for number in range(150)]))) as provider:
        listing = await provider.list(world.ARTIFACTS, None)
        assert (len(listing.entries), listing.complete) == (150, False)


async def test_cursors_of_their_own_kind_are_believed() -> None:
    """Where a cursor is no row's id, the known bug is not there."""
    pages = {"": page([row(1), row(2)], "offset-2"), "offset-2": page([row(3)])}
    async with at(Service(index=lambda request: pages[request.query_params.get("cursor", "")])) as provider:
        listing = await provider.list(world.ARTIFACTS, None)
        assert (len(listing.entries), listing.complete) == (3, True)


@pytest.mark.parametrize("cursor", ["same", None])
async def test_pages_that_repeat_end(cursor: str | None) -> None:
    """The same cursor again, or the same rows under ever new cursors."""
    numbers = iter(range(1000))
    service = Service(index=lambda _: page([row(1)], cursor or f"c{next(numbers)}"))
    async with at(service) as provider:
        listing = await provider.list(world.ARTIFACTS, None)
        assert (len(listing.entries), listing.complete) == (1, False)
    assert len(service.requests) == 2


async def test_pages_that_never_end_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Always a new row, always more."""
    monkeypatch.setattr(api, "PAGE", ANSWERS.max_listing_rows // 20)
    numbers = iter(range(1000))
    service = Service(index=lambda _: page([row(number := next(numbers))], f"c{number}"))
    async with at(service) as provider:
        listing = await provider.list(world.ARTIFACTS, None)
        assert (len(listing.entries), listing.complete) == (20, False)
        assert "limits.max-listing = 1000000" in str(listing.note)


@pytest.mark.parametrize(
    "pagination",
    [None, [], "x", {"hasMore": True}, {"hasMore": True, "nextCursor": None}, {"hasMore": True, "nextCursor": 7}],
)
async def test_a_page_that_does_not_say_what_follows_is_not_whole(pagination: object) -> None:
    """Its rows are shown, the doubt is too."""
    body = {"data": [row(1)], "pagination": pagination}
    async with at(Service(index=body)) as provider:
        listing = await provider.list(world.ARTIFACTS, None)
        assert (len(listing.entries), listing.complete) == (1, False)


async def test_a_failure_on_the_second_page_is_no_short_listing() -> None:
    """What cannot be asked is an error, not less."""
    rows = [row(number) for number in range(150)]

    def answer(request: Request) -> object:
        return upstream(rows)(request) if "cursor" not in request.query_params else raw("", 500)

    async with at(Service(index=answer)) as provider:
        with pytest.raises(errors.Unavailable):
            await provider.list(world.ARTIFACTS, None)


# -- answers that are none ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(401, "Please set up your scope first"), errors.AccessDenied),
        (error(402), errors.QuotaExceeded),
        (error(403), errors.AccessDenied),
        (error(405), errors.NotPermitted),
        (error(409), errors.Conflict),
        (error(413), errors.TooLarge),
        (error(422), errors.InvalidRequest),
        (error(400), errors.InvalidRequest),
        (error(429, **{"Retry-After": "3600"}), errors.RateLimited),
        (error(500), errors.Unavailable),
        (raw("<html>", 502, "text/html"), errors.Unavailable),
        # There is always a list, if it has nothing in it.
        (error(404), errors.ProviderMisbehaved),
        (error(410), errors.ProviderMisbehaved),
        (raw("<html>", 403, "text/html"), errors.Barred),
        (raw('{"message": "no Route matched with those values"}', 404), errors.Unsupported),
        (raw("<html>", 200, "text/html"), errors.ProviderMisbehaved),
        (raw(json.dumps({"data": [], "pagination": {"hasMore": False}}), 206), errors.ProviderMisbehaved),
        (raw("", 204), errors.ProviderMisbehaved),
        (raw(""), errors.ProviderMisbehaved),
        (raw("[]"), errors.ProviderMisbehaved),
        (raw('{"data": {}}'), errors.ProviderMisbehaved),
        (raw("{}"), errors.ProviderMisbehaved),
        (raw("[" * 100_000), errors.ProviderMisbehaved),
        (raw(b"\xff\xfe{}"), errors.ProviderMisbehaved),
        (raw('{"data": [], "pagination": {"hasMore": false}', 200), errors.ProviderMisbehaved),
        (Response("", 302), errors.ProviderMisbehaved),
        (RedirectResponse("file:///etc/passwd"), errors.ProviderMisbehaved),
        (RedirectResponse("http://10.0.0.1/v1/artifacts"), errors.ProviderMisbehaved),
    ],
)
async def test_a_listing_is_rows_or_one_error_of_ours(answer: Response, kind: type[errors.ArtifactFSError]) -> None:
    """Whatever the server says; its own words are kept."""
    async with at(Service(index=answer)) as provider:
        with pytest.raises(errors.ArtifactFSError) as caught:
            await provider.list(world.ARTIFACTS, None)
        assert type(caught.value) is kind
        assert caught.value.provider == "work"
        if kind is errors.AccessDenied and answer.status_code == 401:
            assert "scope" in str(caught.value)


@pytest.mark.parametrize("words", ["error", "message"])
async def test_a_list_that_a_gateway_does_not_find_is_a_failure(words: str) -> None:
    """In both APIs: what is known of it stands, and the other API is not asked in its place."""
    gone = raw(json.dumps({words: {"message": "Not Found"}}), 404)
    cases: tuple[dict[str, list[Any]], ...] = (
        {"index": [page([row(1)]), gone]},
        {"index": [raw("<html>", 404, "text/html")] * 2, "storages": [[], gone]},
    )
    for lists in cases:
        served = {name: iter(answers) for name, answers in lists.items()}
        service = Service(**{name: lambda _, answers=answers: next(answers) for name, answers in served.items()})
        async with at(service) as provider:
            await provider.list(world.ARTIFACTS, None)
            with pytest.raises(errors.ProviderMisbehaved if words == "error" else errors.Unsupported):
                await provider.list(world.ARTIFACTS, None)


async def test_html_for_404_is_another_server() -> None:
    """Once /v1 has answered, that is a fault, not the other API; before, the older one is tried."""
    answers: list[object] = [page([row(1)]), raw("<html>", 404, "text/html")]
    service = Service(index=lambda _: answers.pop(0), storages=[])
    async with at(service) as provider:
        assert len((await provider.list(world.ARTIFACTS, None)).entries) == 1
        with pytest.raises(errors.Unsupported, match="no /v1 API"):
            await provider.list(world.ARTIFACTS, None)
    service = Service(index=raw("<html>", 404, "text/html"), storages=[])
    async with at(service) as provider:
        assert (await provider.list(world.ARTIFACTS, None)).entries == ()
    assert service.paths() == ["/v1/artifacts", "/api/storages/list"]


HOSTILE: list[Any] = [
    None, 7, "x", [], {}, {"id": None}, {"id": ""}, {"id": 7}, {"id": ["x"]}, {"id": "x" * 5000}, {"name": "no id"},
]  # fmt: skip


async def test_rows_that_are_none_are_skipped_and_counted() -> None:
    """The rest of the page is shown; the listing does not claim to be whole."""
    async with at(Service(index=page([*HOSTILE, row(1)]), versions=page([*HOSTILE, {"id": "v"}]))) as provider:
        listing = await provider.list(world.ARTIFACTS, None)
        assert [entry.id for entry in listing.entries if isinstance(entry, Artifact)] == [row(1)["id"]]
        assert listing.note == f"{len(HOSTILE)} rows could not be understood"
        versions = await provider.versions(artifact(listing.entries[0]), None)
        assert ([version.id for version in versions.versions], versions.complete) == (["v"], False)


WRONG: list[object] = [None, 7, -1, 2**70, 1.5, "x", True, [], {}, "9" * 5000]


@pytest.mark.parametrize("value", WRONG)
async def test_fields_of_the_wrong_type_count_as_absent(value: object) -> None:
    """One bad field does not cost the row."""
    fields = ("name", "currentVersionId", "currentVersion", "size", "fileCount", "createdAt", "updatedAt")
    bad = row(1) | dict.fromkeys(fields, value)
    version = {"id": "v", **dict.fromkeys(("size", "fileCount", "message", "createdBy", "createdAt"), value)}
    detail = bad | {"currentVersion": version}
    async with at(Service(index=page([bad]), versions=page([version]), detail=detail)) as provider:
        found = await world.only(provider)
        assert found.id == row(1)["id"]
        assert len((await provider.versions(found, None)).versions) == 1
        assert json.dumps(dict(found.metadata))


TITLES = ["", ".", "..", "a/b", "\0", "\x1b[31m", "\ud800", "x" * 10_000, "\u202e", " ", "versions", "artifact.json"]


async def test_titles_come_through_unchanged() -> None:
    """They are the tree's to encode; lone surrogates, which JSON can carry, included."""
    rows = [row(number, name=title) for number, title in enumerate(TITLES)]
    async with at(Service(index=raw(json.dumps(page(rows))))) as provider:
        entries = (await provider.list(world.ARTIFACTS, None)).entries
        assert [entry.path for entry in entries] == [(title,) for title in TITLES]


@pytest.mark.parametrize("hostile", ["a/b", "..", "../../x", "a?b#c", "%2e%2e", "\ud800", " ", "\0", "ü", "a%00"])
async def test_ids_are_opaque_and_stay_in_their_place(hostile: str) -> None:
    """In paths they are one segment; in keys they do not run into one another."""
    service = Service(
        index=raw(json.dumps(page([row(1, id=hostile, currentVersionId=hostile)]))),
        versions=not_found(),
        download=not_found("Artifact 'x' version has no files"),
    )
    async with at(service) as provider:
        found = await world.only(provider)
        assert found.id == hostile
        assert world.archive_of(found.current).key.count("/") == 1
        with pytest.raises((errors.NotFound, errors.Unsupported, errors.ProviderMisbehaved)):
            await provider.versions(found, None)
        with contextlib.suppress(errors.ArtifactFSError):
            assert world.members(await world.read(provider, found.current)) == {}
    assert all(path.startswith("/v1/artifacts") for path in service.paths())


async def test_a_detail_of_something_else_is_refused() -> None:
    """Another artifact's row, or none."""
    for body in (row(2), {}, {"id": 7}):
        async with at(Service(detail=body)) as provider:
            with pytest.raises(errors.ProviderMisbehaved):
                await provider.find(world.ARTIFACTS, row(1)["id"])


async def test_the_rows_own_file_count_makes_nothing_empty() -> None:
    """After a push of known content it is an earlier version's; the current version's own is believed."""
    stale = row(1, fileCount=0, size=0)
    current = {"id": stale["currentVersionId"], "fileCount": 0, "size": 0}
    service = Service(
        index=page([stale]), detail=stale | {"currentVersion": current}, download=to_archive,
        archive=Response(ARCHIVE, headers=GZIP),
    )  # fmt: skip
    async with at(service) as provider:
        found = await world.only(provider)
        assert world.members(await world.read(provider, found.current)) == {"f": b"hello\n"}
        detail = await provider.find(world.ARTIFACTS, stale["id"])
        assert detail is not None
        assert detail.current is not None
        assert isinstance(detail.current.content, Empty)


# -- downloads ---------------------------------------------------------------------------------------------------


def downloads(archive: Any, download: Any = to_archive) -> Service:
    return Service(index=page([row(1)]), download=download, archive=archive)


async def opened(service: Service, offset: int = 0, length: int | None = None) -> bytes:
    """Return an archive, or raise what came instead, outside of the server's nursery."""
    data, failure = b"", None
    async with at(service) as provider:
        try:
            data = await world.read(provider, (await world.only(provider)).current, offset, length)
        except errors.ArtifactFSError as error:
            failure = error
    if failure is not None:
        raise failure
    return data


async def test_the_version_is_asked_for_in_both_spellings() -> None:
    """The wrong one is ignored by the service, which would then send the present version."""
    service = downloads(Response(ARCHIVE, headers=GZIP))
    assert await opened(service) == ARCHIVE
    asked = service.requests[1].query_params
    assert asked["versionId"] == asked["version_id"] == row(1)["currentVersionId"]


async def test_the_token_does_not_follow_to_the_storage() -> None:
    """Another origin, and a signed link at home."""
    elsewhere = downloads(Response(ARCHIVE, headers=GZIP))
    async with serving(elsewhere.app) as other:
        service = downloads(None, lambda _: RedirectResponse(f"{other.url}/bucket/x", 302))
        assert await opened(service) == ARCHIVE
        assert "authorization" in service.requests[1].headers
        assert "authorization" not in elsewhere.requests[0].headers
    service = downloads(Response(ARCHIVE, headers=GZIP))
    await opened(service)
    assert "authorization" not in service.requests[2].headers


async def test_a_link_that_expired_is_asked_for_again() -> None:
    """Once; a storage that goes on refusing is access denied, in its own words."""
    expired = raw("<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", 403, "text/xml")
    answers = [expired, Response(ARCHIVE, headers=GZIP)]
    service = downloads(lambda _: answers.pop(0))
    assert await opened(service) == ARCHIVE
    assert len([path for path in service.paths() if path.endswith("/download")]) == 2
    with pytest.raises(errors.AccessDenied, match="Request has expired"):
        await opened(downloads(expired))
    service = downloads(None, error(403, "not yours"))
    with pytest.raises(errors.AccessDenied, match="not yours"):
        await opened(service)
    assert len(service.requests) == 2


async def test_a_range_that_is_ignored_or_wrong_is_told() -> None:
    """The whole instead is said to be the whole; another range than the one asked for is refused."""
    async with at(downloads(Response(ARCHIVE, headers=GZIP))) as provider:
        ref = world.archive_of((await world.only(provider)).current)
        async with provider.open(ref, ByteRange(10)) as stream:
            assert (stream.offset, stream.ranged, stream.total) == (0, False, len(ARCHIVE))
            assert b"".join([chunk async for chunk in stream.chunks]) == ARCHIVE
    for content_range in (f"bytes 11-20/{len(ARCHIVE)}", "", "bytes x"):
        wrong = Response(ARCHIVE[11:21], 206, headers={**GZIP, "Content-Range": content_range})
        with pytest.raises(errors.ProviderMisbehaved):
            await opened(downloads(wrong), 10)


async def test_an_archive_that_was_pushed_anew_is_stale() -> None:
    """The same version, other bytes: a resumed read must not be put together of both."""
    tags = ['"one"', '"two"', '"two"']

    def answer(request: Request) -> Response:
        headers = {**GZIP, "ETag": tags.pop(0)}
        if "range" not in request.headers:
            return Response(ARCHIVE, headers=headers)
        return Response(ARCHIVE[5:], 206, headers={**headers, "Content-Range": f"bytes 5-/{len(ARCHIVE)}"})

    async with at(downloads(answer)) as provider:
        current = (await world.only(provider)).current
        assert await world.read(provider, current) == ARCHIVE
        with pytest.raises(errors.StaleContent):
            await world.read(provider, current, 5)
        assert await world.read(provider, current, 5) == ARCHIVE[5:]


async def test_an_archive_cut_short_is_unavailable(expected_logs: LogGuard) -> None:
    """The announced length is what must come."""
    expected_logs("Error in ASGI Framework", logger="hypercorn.error", level=logging.ERROR)

    class Short(Response):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            headers = [(b"content-length", str(len(ARCHIVE)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": ARCHIVE[:20], "more_body": False})

    with pytest.raises(errors.Unavailable):
        await opened(downloads(Short()))


def wrong_version(_: Request) -> Response:
    return RedirectResponse(f"/bucket/{9:064x}/archive.tar.gz?X-Amz-Signature=1", 302)


@pytest.mark.parametrize(
    ("download", "archive", "kind"),
    [
        (to_archive, raw("<Error><Code>NoSuchKey</Code></Error>", 404, "text/xml"), errors.NotFound),
        (to_archive, raw("<html>", 200, "text/html"), errors.ProviderMisbehaved),
        (to_archive, raw("{}"), errors.ProviderMisbehaved),
        (to_archive, raw("", 416), errors.StaleContent),
        (to_archive, raw("", 503), errors.Unavailable),
        (to_archive, raw("", 204), errors.ProviderMisbehaved),
        (wrong_version, Response(ARCHIVE, headers=GZIP), errors.ProviderMisbehaved),
        (not_found("No such version"), None, errors.NotFound),
        (not_found("Artifact 'x has no files' has no versions"), None, errors.NotFound),
        (raw("<html>", 404, "text/html"), None, errors.Unsupported),
        (raw('{"version_id": "x", "files": []}'), None, errors.ProviderMisbehaved),
        (raw("<html>", 200, "text/html"), None, errors.ProviderMisbehaved),
        (error(401), None, errors.AccessDenied),
        (RedirectResponse("file:///etc/passwd", 302), None, errors.ProviderMisbehaved),
        (RedirectResponse("http://169.254.169.254/latest/", 302), None, errors.ProviderMisbehaved),
        (RedirectResponse("/v1/artifacts/x/download", 302), None, errors.ProviderMisbehaved),
    ],
)
async def test_a_download_is_bytes_or_one_error_of_ours(
    download: Any, archive: Any, kind: type[errors.ArtifactFSError]
) -> None:
    """What the storage or the service says instead of an archive."""
    with pytest.raises(errors.ArtifactFSError) as caught:
        await opened(downloads(archive, download))
    assert isinstance(caught.value, kind)
    assert "Signature" not in caught.value.subject


async def test_bytes_without_a_redirect_are_taken() -> None:
    """As a server may send the archive itself."""
    assert await opened(downloads(None, Response(ARCHIVE, headers=GZIP))) == ARCHIVE


async def test_a_version_is_only_confirmed_where_something_tells() -> None:
    """An address that names the version decides; one that names none confirms a full id, but no prefix."""
    version = f"{5:064x}"
    cases = [
        (RedirectResponse(f"http://s/{version}/archive.tar.gz?q=1", 302), version, version),
        (RedirectResponse(f"http://s/{version}/archive.tar.gz", 302), version[:8], version),
        (RedirectResponse(f"http://s/{9:064x}/archive.tar.gz", 302), version, None),
        (RedirectResponse("http://s/opaque", 302), version, version),
        (RedirectResponse("http://s/opaque", 302), version[:8], None),
        (error(400, "Ambiguous version prefix"), version[:8], None),
        (not_found(), version, None),
    ]
    for answer, asked, expected in cases:
        async with at(downloads(None, answer)) as provider:
            assert await provider.find_version(await world.only(provider), asked) == expected
    for answer in (error(401), error(400, "org required"), raw("<html>", 404, "text/html"), raw("", 503)):
        async with at(downloads(None, answer)) as provider:
            with pytest.raises(errors.ArtifactFSError):
                await provider.find_version(await world.only(provider), version)


# -- the older API -----------------------------------------------------------------------------------------------


def older(storage: Any, rows: Any = None, archive: Any = None) -> Service:
    rows = [{"name": "report", "size": 1, "fileCount": 1, "updatedAt": "2026-02-03"}] if rows is None else rows
    return Service(storages=rows, storage=storage, archive=archive)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(400, "Explicit org context required"), errors.InvalidRequest),
        (error(401), errors.AccessDenied),
        (raw("", 500), errors.Unavailable),
        (raw("<html>", 200, "text/html"), errors.ProviderMisbehaved),
        (raw("{}"), errors.ProviderMisbehaved),
        (raw('{"versionId": 7}'), errors.ProviderMisbehaved),
    ],
)
async def test_a_version_that_cannot_be_asked_fails_the_listing(
    answer: Response, kind: type[errors.ArtifactFSError]
) -> None:
    """A listing with one artifact less, or an empty one, would be a lie."""
    rows = [{"name": f"r{number}", "updatedAt": "x"} for number in range(20)]
    async with at(older(answer, rows)) as provider:
        with pytest.raises(kind):
            await provider.list(world.ARTIFACTS, None)


async def test_older_rows_that_are_none_are_skipped() -> None:
    """And counted; the rest is shown."""
    service = older(not_found(), [None, {}, {"name": 7}, {"name": ""}, {"name": "a", "size": "x"}, {"name": "a"}])
    async with at(service) as provider:
        listing = await provider.list(world.ARTIFACTS, None)
        assert [entry.path for entry in listing.entries] == [("a",)]
        assert (listing.complete, listing.note) == (False, "5 rows could not be understood")


@pytest.mark.parametrize("body", [{}, {"x": 1}, "x", 7, None])
async def test_an_older_list_that_is_none_is_misbehaviour(body: object) -> None:
    """It must be an array."""
    async with at(Service(storages=raw(json.dumps(body)))) as provider:
        with pytest.raises(errors.ProviderMisbehaved):
            await provider.list(world.ARTIFACTS, None)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "http://10.0.0.1/x", "", "x", "//x", "http://[", "http://x:port/", "\ud800", None, 7]
)
async def test_an_older_link_that_leads_astray_is_refused(url: object) -> None:
    """The address stands in a body, and is judged like a redirect."""
    version = f"{5:064x}"
    answers = [{"versionId": version, "fileCount": 1, "url": "x"}, {"versionId": version, "fileCount": 1, "url": url}]
    async with at(older(lambda _: raw(json.dumps(answers.pop(0))))) as provider:
        with pytest.raises(errors.ArtifactFSError):
            await world.read(provider, (await world.only(provider)).current)


async def test_an_older_link_that_expired_is_asked_for_again() -> None:
    """And what is empty by now is empty."""
    version = f"{5:064x}"

    def link(request: Request) -> object:
        return {"versionId": version, "fileCount": 1, "url": f"{request.base_url}bucket/{version}/archive.tar.gz"}

    answers = [raw("", 403, "text/xml"), Response(ARCHIVE, headers=GZIP)]
    async with at(older(link, archive=lambda _: answers.pop(0))) as provider:
        assert await world.read(provider, (await world.only(provider)).current) == ARCHIVE
    bodies: list[Any] = [{"versionId": version, "fileCount": 1}, {"versionId": version, "empty": True}, not_found()]
    async with at(older(lambda _: bodies.pop(0))) as provider:
        current = (await world.only(provider)).current
        assert world.members(await world.read(provider, current)) == {}
        with pytest.raises(errors.NotFound):
            await world.read(provider, current)


async def test_an_unreachable_service_is_that() -> None:
    """Not an empty listing."""
    async with serving(Starlette(routes=[Route("/", Response(""))])) as running:
        url = running.url
    async with world.provider_at(url) as provider:
        with pytest.raises(errors.Unreachable):
            await provider.list(world.ARTIFACTS, None)


def artifact(entry: object) -> Artifact:
    assert isinstance(entry, Artifact)
    return entry
