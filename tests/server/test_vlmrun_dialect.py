"""The VLM Run dialect on the wire: shapes, content types, ranges, refusals, links and uploads."""

import hashlib
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from artifactfs.server import vlmrun
from artifactfs.server.context import Context
from artifactfs.store.rows import Run
from tests.support import vlmrun_samples as samples
from tests.support.serving import serving

KEY = {"Authorization": "Bearer secret"}


@pytest.fixture
def store(tmp_path):
    store = samples.filled(tmp_path / "store")
    yield store
    store.close()


@asynccontextmanager
async def client(store, *, token="secret", headers=KEY):
    context = Context(token, storage_url="")
    app = Starlette(routes=[Mount("/vlmrun", routes=vlmrun.routes(store, context))])
    async with serving(app) as running, httpx.AsyncClient(base_url=f"{running.url}/vlmrun", headers=headers) as http:
        yield http


def by_id(object_id, **more):
    return {"object_id": object_id, "execution_id": samples.RUN, **more}


async def test_an_execution_has_the_documented_shape(store):
    """Every field that the SDK insists on is there with its type; ids are UUIDs, names those of workflows."""
    async with client(store) as http:
        rows = (await http.get("/v1/agent/executions")).json()
        one = (await http.get(f"/v1/agent/executions/{samples.RUN}")).json()
        none = await http.get(f"/v1/agent/executions/{samples.UNKNOWN}")
    assert [row["id"] for row in rows] == [samples.FAILED, samples.RUNNING, samples.RUN]
    assert [row["status"] for row in rows] == ["failed", "running", "completed"]
    assert one == rows[2]
    assert one["name"] == "image/blur-image:v1"
    assert one["created_at"] == "2026-07-01T10:00:00Z"
    assert one["completed_at"] == "2026-07-01T10:00:41Z"
    assert one["response"] == samples.RESPONSE
    assert one["usage"]["duration_seconds"] == 41
    assert rows[1]["completed_at"] is None
    assert rows[1]["response"] is None
    assert (none.status_code, none.json()) == (404, {"detail": "Agent execution not found"})


async def test_pages_are_cut_by_skip_and_limit(store):
    """Skip and limit work; what is no number or out of bounds is refused with 422."""
    async with client(store) as http:
        page = (await http.get("/v1/agent/executions", params={"skip": 1, "limit": 1})).json()
        beyond = (await http.get("/v1/agent/executions", params={"skip": 3})).json()
        refused = [
            (await http.get("/v1/agent/executions", params=params)).status_code
            for params in ({"limit": 0}, {"limit": 1001}, {"skip": -1}, {"skip": "x"}, {"limit": "9" * 5000})
        ]
        predictions = (await http.get("/v1/predictions")).json()
    assert [row["id"] for row in page] == [samples.RUNNING]
    assert beyond == predictions == []
    assert refused == [422] * 5


async def test_a_response_that_is_no_object_is_wrapped(store):
    """The SDK refuses arrays and text as response; NaN and lone surrogates do not break the answer."""
    flow = store.workflows()[0]
    odd = ["\udc80", float("inf")]
    store.add_run(Run("exec-000000000009", samples.UNKNOWN, flow.id, "odd", 1, 2, odd))
    async with client(store) as http:
        row = (await http.get(f"/v1/agent/executions/{samples.UNKNOWN}")).json()
    assert row["response"] == {"result": odd}
    assert row["status"] == "failed"


async def test_the_list_names_each_object_by_its_type(store):
    """References by type, workspace items by filename; phases are directories of the filename."""
    async with client(store) as http:
        answer = (await http.get("/v1/artifacts/list", params={"execution_id": samples.RUN})).json()
        same = (await http.get("/v1/artifacts/list", params={"session_id": samples.RUN})).json()
        empty = (await http.get("/v1/artifacts/list", params={"execution_id": samples.FAILED})).json()
    rows = {row["object_id"]: (row["filename"], row["source"]) for row in answer["items"]}
    expected = {object_id: (name, "store") for object_id, (name, _, _) in samples.CONTENT.items()}
    expected[samples.URL_OBJECT] = ("clip_final.mp4", "store")
    expected["out dir/report é.csv"] = ("out dir/report é.csv", "workspace")
    expected["review/notes.md"] = ("review/notes.md", "workspace")
    assert rows == expected
    assert answer["namespace_id"] == samples.RUN
    assert same == answer
    assert empty == {"namespace_id": samples.FAILED, "items": []}


@pytest.mark.parametrize(
    ("object_id", "content_type"),
    [
        ("img_a1b2c3", "image/png"),
        ("vid_0d0e01", "video/mp4"),
        ("aud_0d0e02", "audio/mpeg"),
        ("doc_0d0e03", "application/pdf"),
        ("recon_0d0e04", "application/octet-stream"),
        ("arr_0d0e05", "application/octet-stream"),
    ],
)
async def test_objects_have_exact_types_and_lengths(store, object_id, content_type):
    """The bytes, the Content-Type without parameters, the length; a range gives 206."""
    data = samples.CONTENT[object_id][2]
    async with client(store) as http:
        whole = await http.get("/v1/artifacts", params=by_id(object_id))
        part = await http.get("/v1/artifacts", params=by_id(object_id), headers={"Range": "bytes=3-9"})
        past = await http.get("/v1/artifacts", params=by_id(object_id), headers={"Range": f"bytes={len(data)}-"})
    assert whole.content == data
    assert whole.headers["content-type"] == content_type
    assert whole.headers["content-length"] == str(len(data))
    assert b"Content-Type" in [name for name, _ in whole.headers.raw]
    assert (part.status_code, part.content) == (206, data[3:10])
    assert part.headers["content-range"] == f"bytes 3-9/{len(data)}"
    assert (past.status_code, past.headers["content-range"]) == (416, f"bytes */{len(data)}")


async def test_types_the_sdk_refuses_are_workspace_items(store):
    """A WebP image or a Word document would fail the SDK as img_ or doc_: they are asked for by name."""
    run = store.run(samples.FAILED)
    samples.add_object(store, run, "art_aaaaa1", "x.webp", "image/webp", b"RIFF")
    samples.add_object(store, run, "art_aaaaa2", "x.docx", "", b"PK")
    samples.add_object(store, run, "art_aaaaa3", "x.jpg", "image/jpg", b"\xff\xd8")
    async with client(store) as http:
        namespace = {"execution_id": samples.FAILED}
        items = (await http.get("/v1/artifacts/list", params=namespace)).json()["items"]
        webp = await http.get("/v1/artifacts", params={"filename": "x.webp", **namespace})
        jpeg = await http.get("/v1/artifacts", params={"object_id": "img_aaaaa3", **namespace})
    assert [row["object_id"] for row in items] == ["x.webp", "x.docx", "img_aaaaa3"]
    assert webp.headers["content-type"] == "image/webp"
    assert jpeg.headers["content-type"] == "image/jpeg"


async def test_an_object_never_changes_under_its_id(store):
    """A later save of the stored artifact is the store's history; the dialect keeps what the run left."""
    store.save_file("art_a1b2c3", store.objects.put(b"edited"), 6)
    async with client(store) as http:
        answer = await http.get("/v1/artifacts", params=by_id("img_a1b2c3"))
        store.delete_artifact("art_a1b2c3")
        gone = await http.get("/v1/artifacts", params=by_id("img_a1b2c3"))
    assert answer.content == samples.png()
    assert gone.status_code == 404


async def test_a_url_object_leads_to_signed_bytes(store):
    """The body is an absolute URL of the same origin that needs no token, honours ranges and expires."""
    async with client(store) as http:
        answer = await http.get("/v1/artifacts", params=by_id(samples.URL_OBJECT))
        url = answer.text
        async with httpx.AsyncClient() as anonymous:
            whole = await anonymous.get(url)
            part = await anonymous.get(url, headers={"Range": "bytes=1-4"})
            forged = await anonymous.get(url[:-3] + "000")
            other = await anonymous.get(url.replace("clip_final", "other"))
            unsigned = await anonymous.get(url.partition("?")[0])
        origin = str(http.base_url)
    assert answer.headers["content-type"] == "text/plain"
    assert url.startswith(f"{origin}objects/")
    assert url.partition("?")[0].endswith("/clip_final.mp4")
    assert whole.content == samples.CLIP
    assert whole.headers["content-type"] == "video/mp4"
    assert (part.status_code, part.content) == (206, samples.CLIP[1:5])
    assert [reply.status_code for reply in (forged, other, unsigned)] == [403, 403, 403]


async def test_links_expire(store):
    """A link whose time is over gives 403, as a bucket's does."""
    context = Context(None, storage_url="")
    sha256 = store.objects.put(samples.CLIP)
    app = Starlette(routes=[Mount("/vlmrun", routes=vlmrun.routes(store, context))])
    async with serving(app) as running, httpx.AsyncClient() as http:
        path = f"/objects/{sha256}/clip.mp4"
        good = await http.get(context.signer.link(f"{running.url}/vlmrun", path, lifetime_s=60))
        late = await http.get(context.signer.link(f"{running.url}/vlmrun", path, lifetime_s=-1))
        unknown = await http.get(context.signer.link(f"{running.url}/vlmrun", f"/objects/{'0' * 64}/x"))
    assert good.content == samples.CLIP
    assert (late.status_code, late.json()) == (403, {"detail": "The link has expired"})
    assert unknown.status_code == 404


@pytest.mark.parametrize(
    ("stored", "served"),
    [
        (b"https://example.org/a.mp4", "https://example.org/a.mp4"),
        (b"# comment\r\nhttps://example.org/b\r\nhttps://example.org/c\r\n", "https://example.org/b"),
        (b"/vlmrun/v1/health", "{origin}/vlmrun/v1/health"),
        (b"file:///etc/passwd", "file:///etc/passwd"),
    ],
)
async def test_other_stored_urls_are_served_as_they_are(store, stored, served):
    """What an agent stored is its own business, except that a path is one on this server."""
    samples.add_object(store, store.run(samples.FAILED), "art_bbbbb1", "l", "text/uri-list", stored)
    async with client(store) as http:
        params = {"object_id": "url_bbbbb1", "execution_id": samples.FAILED}
        answer = await http.get("/v1/artifacts", params=params)
        origin = str(http.base_url).removesuffix("/vlmrun/")
    assert answer.text == served.format(origin=origin)


async def test_exactly_one_of_each_pair_is_needed(store):
    """Neither or both of session and execution, of object and filename: 400; unknown ones: 404."""
    run, image = ("execution_id", samples.RUN), ("object_id", "img_a1b2c3")
    async with client(store) as http:

        async def ask(path, *params):
            reply = await http.get(path, params=params)
            assert isinstance(reply.json()["detail"], str)
            return reply.status_code

        assert await ask("/v1/artifacts", image) == 400
        assert await ask("/v1/artifacts", run) == 400
        assert await ask("/v1/artifacts", image, run, ("session_id", samples.RUN)) == 400
        assert await ask("/v1/artifacts", image, run, ("filename", "x")) == 400
        assert await ask("/v1/artifacts/list") == 400
        assert await ask("/v1/artifacts/list", run, ("session_id", samples.RUN)) == 400
        assert await ask("/v1/artifacts", image, ("execution_id", samples.UNKNOWN)) == 404
        assert await ask("/v1/artifacts", run, ("object_id", "img_ffffff")) == 404
        assert await ask("/v1/artifacts", run, ("object_id", "vid_a1b2c3")) == 404
        assert await ask("/v1/artifacts", run, ("filename", "../../etc/passwd")) == 404
        assert await ask("/v1/artifacts/list", ("session_id", samples.UNKNOWN)) == 404


async def test_the_token_is_needed_where_one_is_set(store):
    """Missing and wrong bearers get 401 everywhere; without a token set, any is accepted."""
    paths = [
        "/v1/health",
        "/v1/artifacts",
        "/v1/artifacts/list",
        "/v1/agent/executions",
        "/v1/files",
        "/v1/predictions",
    ]
    async with client(store, headers={}) as http:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}):
            for path in paths:
                reply = await http.get(path, headers=headers)
                assert (path, reply.status_code) == (path, 401)
                assert isinstance(reply.json()["detail"], str)
        assert (await http.post("/v1/files", files={"file": ("x", b"x")})).status_code == 401
        assert (await http.delete(f"/v1/files/{samples.FILE}")).status_code == 401
    async with client(store, token=None, headers={}) as http:
        assert (await http.get("/v1/health")).status_code == 200


async def test_files_are_listed_read_and_removed(store):
    """A file object has the documented keys; its content is behind the public URL; DELETE returns the object."""
    async with client(store) as http:
        (row,) = (await http.get("/v1/files")).json()
        one = (await http.get(f"/v1/files/{samples.FILE}")).json()
        declined = (await http.get(f"/v1/files/{samples.FILE}", params={"generate_public_url": "false"})).json()
        found = (await http.get(f"/v1/files/hash/{hashlib.md5(samples.pdf()).hexdigest()}")).json()
        absent = await http.get(f"/v1/files/hash/{'0' * 32}")
        async with httpx.AsyncClient() as anonymous:
            content = await anonymous.get(one["public_url"])
        deleted = (await http.delete(f"/v1/files/{samples.FILE}")).json()
        after = [(await http.get(path)).status_code for path in (f"/v1/files/{samples.FILE}", "/v1/files")]
        left = (await http.get("/v1/files")).json()
    assert row == declined == deleted
    assert row == {
        "id": samples.FILE,
        "filename": "scan ü.pdf",
        "bytes": len(samples.pdf()),
        "purpose": "assistants",
        "created_at": "2026-07-01T10:00:00.123456Z",
        "object": "file",
        "public_url": None,
    }
    assert one["id"] == found["id"] == samples.FILE
    assert content.content == samples.pdf()
    assert content.headers["content-type"] == "application/pdf"
    assert absent.status_code == 404
    assert (after, left) == ([404, 200], [])


async def test_an_upload_is_a_file_at_once(store):
    """POST answers 201 with the object; large bodies and odd names survive."""
    data = bytes(range(256)) * 20_000
    async with client(store) as http:
        reply = await http.post(
            "/v1/files", params={"purpose": "vision"}, files={"file": ("größe {x}.bin", data, "x/y")}
        )
        row = reply.json()
        read = await http.get(row["public_url"])
        bad = [
            await http.post("/v1/files", params={"purpose": "evil"}, files={"file": ("x", b"x")}),
            await http.post("/v1/files", files={"other": ("x", b"x")}),
            await http.post("/v1/files", content=b"no multipart"),
        ]
    assert (reply.status_code, row["filename"], row["bytes"], row["purpose"]) == (
        201,
        "größe {x}.bin",
        len(data),
        "vision",
    )
    assert read.content == data
    assert [answer.status_code for answer in bad] == [400, 422, 422]
    assert len(store.uploads()) == 2


async def test_an_upload_by_link_counts_once_verified(store):
    """The link takes one PUT of the announced type; the file shows after verify-upload, not before."""
    data = b"z" * 3_000_000
    async with client(store) as http:
        made = (await http.post("/v1/files/presigned-url", json={"filename": "b.pdf", "expiration": 60})).json()
        early = await http.get(f"/v1/files/verify-upload/{made['id']}")
        async with httpx.AsyncClient() as anonymous:
            headers = {"Content-Type": made["content_type"]}
            wrong = await anonymous.put(made["url"], content=data, headers={"Content-Type": "text/html"})
            forged = await anonymous.put(made["url"][:-2] + "00", content=data, headers=headers)
            put = await anonymous.put(made["url"], content=data, headers=headers)
            fetched = await anonymous.get(made["url"])
        hidden = await http.get(f"/v1/files/{made['id']}")
        row = (await http.get(f"/v1/files/verify-upload/{made['id']}")).json()
        read = await http.get(row["public_url"])
        again = await http.put(made["url"], content=b"other", headers=headers)
        bad = [await http.post("/v1/files/presigned-url", content=body) for body in (b"", b"[]", b'{"filename": 1}')]
    assert made["content_type"] == "application/pdf"
    assert set(made) == {
        "id", "url", "filename", "content_type", "upload_method", "public_url", "created_at", "expiration", "method",
    }  # fmt: skip
    assert [early.status_code, wrong.status_code, forged.status_code, put.status_code] == [404, 403, 403, 200]
    assert fetched.status_code == 405
    assert hidden.status_code == 404
    assert row["bytes"] == len(data)
    assert read.content == data
    assert again.status_code == 409
    assert [reply.status_code for reply in bad] == [422, 422, 422]


async def test_an_upload_that_breaks_off_leaves_nothing(store):
    """A client that goes away in the middle leaves no object and no temporary file."""

    async def half():
        yield b"x" * 100_000
        raise ConnectionError

    before = sorted(path for path in store.objects.root.rglob("*"))
    async with client(store) as http:
        made = (await http.post("/v1/files/presigned-url", json={"filename": "b.bin"})).json()
        headers = {"Content-Type": made["content_type"], "Content-Length": "200000"}
        with pytest.raises(ConnectionError):
            await http.put(made["url"], content=half(), headers=headers)
        row = next(upload for upload in store.uploads() if upload.id == made["id"])
    deadline = time.monotonic() + 5
    while sorted(store.objects.root.rglob("*")) != before and time.monotonic() < deadline:
        pass
    assert sorted(store.objects.root.rglob("*")) == before
    assert row == replace(row, ready=False, size=0, sha256="")
