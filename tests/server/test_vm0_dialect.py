"""VM0's dialect of the store over real HTTP: shapes, order, paging, errors, links, and pushes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from artifactfs.server.app import Serving
from artifactfs.server.vm0_wire import iso
from artifactfs.store.catalog import Store
from artifactfs.store.rows import TreeFile, content_id
from tests.support import vm0_world as world


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = world.new_store(tmp_path)
    yield made
    made.close()


@asynccontextmanager
async def client_of(store: Store, base: str = "/vm0", token: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    async with world.serving_store(store, token=token) as at, client_at(at, base) as client:
        yield client


def client_at(at: Serving, base: str = "/vm0", **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=at.url + base, **options)


async def test_the_list_has_the_documented_rows(store: Store) -> None:
    """Camel case is the default, each row has the service's seven fields, volumes are apart."""
    made = world.tree(store, "weekly-report", {"a.txt": b"one"}, {"a.txt": b"one", "b.txt": b"two!"})
    world.tree(store, "dataset", {"x.csv": b"1"}, role="volume", at=1)
    async with client_of(store) as client:
        answer = await client.get("/v1/artifacts")
        assert answer.headers["x-request-id"].startswith("req_")
        assert answer.headers["x-api-version"] == "v1"
        current = store.versions(made.id)[-1]
        assert answer.json() == {
            "data": [
                {
                    "id": made.uuid,
                    "name": "weekly-report",
                    "currentVersionId": current.id,
                    "size": 7,
                    "fileCount": 2,
                    "createdAt": "2026-02-03T08:00:00.000Z",
                    "updatedAt": "2026-02-03T08:00:00.020Z",
                }
            ],
            "pagination": {"hasMore": False, "nextCursor": None},
        }
        volumes = (await client.get("/v1/volumes")).json()["data"]
        assert [row["name"] for row in volumes] == ["dataset"]


async def test_snake_case_is_a_mount_of_its_own(store: Store) -> None:
    """The older spelling has the same values under the older names, and its own name of the version parameter."""
    made = world.tree(store, "report", {"a.txt": b"one"}, {"a.txt": b"two"})
    first, second = store.versions(made.id)
    async with client_of(store, "/vm0-snake") as client:
        body = (await client.get("/v1/artifacts")).json()
        assert body["pagination"] == {"has_more": False, "next_cursor": None}
        assert body["data"][0]["current_version_id"] == second.id
        assert {"file_count", "created_at", "updated_at"} < set(body["data"][0])
        versions = (await client.get(f"/v1/artifacts/{made.uuid}/versions")).json()["data"]
        assert versions[0]["artifact_id"] == made.uuid
        download = f"/v1/artifacts/{made.uuid}/download"
        asked = await client.get(download, params={"version_id": first.id})
        assert first.id in asked.headers["location"]
        ignored = await client.get(download, params={"versionId": first.id})
        assert second.id in ignored.headers["location"]


async def test_pages_are_in_order_and_whole(store: Store) -> None:
    """Newest first; following the cursor shows every row once, equal times included."""
    names = [f"a{number}" for number in range(7)]
    for number, name in enumerate(names):
        world.tree(store, name, {"f": b"x"}, at=number // 2)
    async with client_of(store) as client:
        seen: list[str] = []
        times: list[str] = []
        cursor: str | None = None
        while True:
            params = {"limit": "3"} | ({"cursor": cursor} if cursor else {})
            body = (await client.get("/v1/artifacts", params=params)).json()
            seen += [row["name"] for row in body["data"]]
            times += [row["createdAt"] for row in body["data"]]
            cursor = body["pagination"]["nextCursor"]
            assert body["pagination"]["hasMore"] == (cursor is not None)
            if cursor is None:
                break
        assert sorted(seen) == names
        assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "1.5", "9" * 5000])
async def test_a_limit_out_of_bounds_is_refused(store: Store, limit: str) -> None:
    """400 in the documented envelope, naming the parameter."""
    async with client_of(store) as client:
        answer = await client.get("/v1/artifacts", params={"limit": limit})
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_parameter", "limit")


async def test_detail_shows_the_current_version(store: Store) -> None:
    """With message and maker; null while there is no version yet."""
    made = world.tree(store, "report")
    files = [world.file(store, "a.txt", b"hello\n")]
    empty = world.tree(store, "empty")
    store.save_tree(made.id, files, message="Checkpoint from run r-1", created_by="agent")
    async with client_of(store) as client:
        current = (await client.get(f"/v1/artifacts/{made.uuid}")).json()["currentVersion"]
        assert current["message"] == "Checkpoint from run r-1"
        assert current["createdBy"] == "agent"
        assert current["artifactId"] == made.uuid
        body = (await client.get(f"/v1/artifacts/{empty.uuid}")).json()
        assert body["currentVersion"] is None
        assert body["currentVersionId"] is None


async def test_content_that_came_back_is_one_version(store: Store) -> None:
    """Versions are distinct contents, newest first, each with its first time; the present may be an old one."""
    made = world.tree(store, "report", {"f": b"1"}, {"f": b"2"}, {"f": b"1"})
    first, second, _ = store.versions(made.id)
    async with client_of(store) as client:
        rows = (await client.get(f"/v1/artifacts/{made.uuid}/versions")).json()["data"]
        assert [row["id"] for row in rows] == [second.id, first.id]
        assert rows[1]["createdAt"] == iso(first.created_at_ns)
        detail = (await client.get(f"/v1/artifacts/{made.uuid}")).json()
        assert detail["currentVersionId"] == first.id
        page = (await client.get(f"/v1/artifacts/{made.uuid}/versions", params={"limit": "1"})).json()
        cursor = page["pagination"]["nextCursor"]
        rest = await client.get(f"/v1/artifacts/{made.uuid}/versions", params={"cursor": cursor})
        assert [row["id"] for row in rest.json()["data"]] == [first.id]


async def test_download_leads_to_the_archive(store: Store) -> None:
    """302 to the other origin; by id, by prefix in any case, and the present one without a parameter."""
    made = world.tree(store, "report", {"a/b.txt": b"one"}, {"a/b.txt": b"two"})
    first, second = store.versions(made.id)
    async with world.serving_store(store) as at, client_at(at) as client:
        for asked, expected in ((None, second), (first.id, first), (first.id[:8].upper(), first)):
            params = {"versionId": asked} if asked else {}
            answer = await client.get(f"/v1/artifacts/{made.uuid}/download", params=params)
            assert answer.status_code == 302
            location = answer.headers["location"]
            assert location.startswith(at.storage.url)
            archive = await client.get(location)
            assert world.members(archive.content) == {"a/b.txt": b"one" if expected is first else b"two"}


async def test_what_cannot_be_downloaded_is_404_with_a_reason(store: Store) -> None:
    """No version, an empty version, a short, unknown or malformed name: all 404, as the service answers."""
    none = world.tree(store, "none")
    empty = world.tree(store, "empty", {})
    full = world.tree(store, "full", {"f": b"x"})
    expected = [
        (none.uuid, "", "Artifact 'none' has no versions"),
        (empty.uuid, "", "Artifact 'empty' version has no files"),
        (full.uuid, "abc", "Version prefix too short. Minimum 8 characters required."),
        (full.uuid, "0" * 64, f"Version '{'0' * 64}' not found"),
        ("00000000-0000-4000-8000-000000000000", "", "No such artifact: '00000000-0000-4000-8000-000000000000'"),
    ]
    async with client_of(store) as client:
        for uuid, version, message in expected:
            answer = await client.get(f"/v1/artifacts/{uuid}/download", params={"versionId": version})
            assert answer.status_code == 404
            assert answer.json()["error"]["message"] == message
            assert answer.json()["error"]["code"] == "resource_not_found"


async def test_single_files_and_deleted_trees_are_not_shown(store: Store) -> None:
    """VM0 knows trees only; what was deleted is gone here."""
    world.tree(store, "gone", {"f": b"x"})
    workflow = store.workflows()[0]
    single = store.add_artifact(workflow.id, "notes.md", "file")
    store.save_file(single.id, store.objects.put(b"x"), 1)
    (gone,) = [artifact for artifact in store.artifacts() if artifact.kind == "tree"]
    store.delete_artifact(gone.id)
    async with client_of(store) as client:
        assert (await client.get("/v1/artifacts")).json()["data"] == []
        for uuid in (gone.uuid, single.uuid, gone.id):
            assert (await client.get(f"/v1/artifacts/{uuid}")).status_code == 404


async def test_a_token_is_asked_for_where_one_is_set(store: Store) -> None:
    """Without it or with another: 401 in each API's envelope; the index needs none."""
    async with world.serving_store(store, token=world.TOKEN) as at, client_at(at) as client:
        assert (await client.get(at.url)).json()["vm0"] == f"{at.url}/vm0"
        for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": f"bearer {world.TOKEN}"}):
            refused = await client.get("/v1/artifacts", headers=headers)
            assert refused.status_code == 401
            assert refused.json()["error"]["type"] == "authentication_error"
            older = await client.get("/api/storages/list?type=artifact", headers=headers)
            assert older.json()["error"]["code"] == "UNAUTHORIZED"
        granted = await client.get("/v1/artifacts", headers={"Authorization": f"Bearer {world.TOKEN}"})
        assert granted.status_code == 200


async def test_unknown_paths_have_no_envelope(store: Store) -> None:
    """As a server without that API answers: a client must be able to tell."""
    async with client_of(store) as client:
        answer = await client.get("/v1/sessions")
        assert answer.status_code == 404
        assert "error" not in answer.text


# -- /api/storages -----------------------------------------------------------------------------------------------


def declared(files: dict[str, bytes]) -> list[dict[str, Any]]:
    return [{"path": path, "hash": world.sha256(data), "size": len(data)} for path, data in files.items()]


async def push(
    client: httpx.AsyncClient, name: str, files: dict[str, bytes], archive: bytes | None = None, **more: Any
) -> httpx.Response:
    """Push as the service's command line does; return the answer to the commit."""
    body = {"storageName": name, "storageType": "artifact", "files": declared(files)}
    prepared = (await client.post("/api/storages/prepare", json=body)).json()
    if not prepared["existing"]:
        uploads = prepared["uploads"]
        if files:
            data = world.packed(files) if archive is None else archive
            assert (await client.put(uploads["archive"]["presignedUrl"], content=data)).status_code == 200
        assert (await client.put(uploads["manifest"]["presignedUrl"], content=b"{}")).status_code == 200
    return await client.post("/api/storages/commit", json=body | {"versionId": prepared["versionId"]} | more)


async def test_storages_are_listed_and_downloaded_by_name(store: Store) -> None:
    """The older API's shapes: no id, no version in the list; a link, or ``empty``."""
    made = world.tree(store, "report", {"f": b"one"}, {"f": b"two"})
    world.tree(store, "empty", {}, at=1)
    world.tree(store, "none", at=2)
    first, second = store.versions(made.id)
    async with client_of(store) as client:
        rows = (await client.get("/api/storages/list", params={"type": "artifact"})).json()
        assert [row["name"] for row in rows] == ["none", "empty", "report"]
        assert set(rows[0]) == {"name", "size", "fileCount", "updatedAt"}
        download = "/api/storages/download"
        found = (await client.get(download, params={"name": "report", "type": "artifact"})).json()
        assert (found["versionId"], found["fileCount"], found["size"]) == (second.id, 1, 3)
        assert world.members((await client.get(found["url"])).content) == {"f": b"two"}
        params = {"name": "report", "type": "artifact", "version": first.id[:10]}
        assert (await client.get(download, params=params)).json()["versionId"] == first.id
        empty = (await client.get(download, params={"name": "empty", "type": "artifact"})).json()
        assert (empty["empty"], empty["fileCount"]) == (True, 0)
        for query, status in (
            ({"name": "none", "type": "artifact"}, 404),
            ({"name": "nobody", "type": "artifact"}, 404),
            ({"name": "report", "type": "artifact", "version": "abc"}, 400),
            ({"name": "report", "type": "artifact", "version": "zzzzzzzzzz"}, 400),
            ({"name": "report", "type": "artifact", "version": "0" * 64}, 404),
            ({"name": "report", "type": "memory"}, 400),
        ):
            assert (await client.get(download, params=query)).status_code == status


async def test_a_push_becomes_a_version_with_the_right_bytes(store: Store) -> None:
    """prepare, two uploads, commit: a tree in the workflow ``vm0``, named by its content."""
    files = {"report.md": b"hello\n", "data/empty.csv": b"", "bin/run": b"#!/bin/sh\n"}
    async with client_of(store) as client:
        answer = (await push(client, "weekly-report", files, message="Checkpoint from run r7", runId="r7")).json()
        assert (answer["success"], answer["storageName"], answer["size"], answer["fileCount"]) == (
            True, "weekly-report", 16, 3,
        )  # fmt: skip
    (made,) = store.artifacts()
    (version,) = store.versions(made.id)
    expected = content_id(made.uuid, [(path, world.sha256(data)) for path, data in files.items()])
    assert answer["versionId"] == version.id == expected
    assert (version.message, version.created_by) == ("Checkpoint from run r7", "agent")
    assert {f.path: store.objects.read(f.sha256 or "") for f in store.tree(made.id, 1)} == files
    assert store.workflows()[0].name == "vm0"


async def test_known_content_needs_no_upload_but_moves_the_present(store: Store) -> None:
    """The commit of an old content is deduplicated and makes it the present one again."""
    async with client_of(store) as client:
        first = (await push(client, "report", {"f": b"1"})).json()
        await push(client, "report", {"f": b"2"})
        again = (await push(client, "report", {"f": b"1"})).json()
        assert again["deduplicated"] is True
        assert again["versionId"] == first["versionId"]
        (made,) = store.artifacts()
        assert len(store.versions(made.id)) == 2
        assert made.current == 1
        repeated = (await push(client, "report", {"f": b"1"})).json()
        assert repeated["deduplicated"] is True


async def test_an_empty_push_makes_an_empty_version(store: Store) -> None:
    """No archive is uploaded for a tree without files."""
    async with client_of(store) as client:
        answer = await push(client, "report", {})
        assert answer.json()["fileCount"] == 0
        params = {"name": "report", "type": "artifact"}
        assert (await client.get("/api/storages/download", params=params)).json()["empty"] is True


async def test_links_modes_and_times_survive_a_push(store: Store) -> None:
    """Symlinks stay links, a hard link becomes a file, x bits and times are kept, setuid is not."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in (("./a.sh", b"#!"), ("b.txt", b"x")):
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), 0o4755 if name == "./a.sh" else 0o644, 1_770_105_600
            tar.addfile(info, io.BytesIO(data))
        for name, kind, target in (("link", tarfile.SYMTYPE, "../out"), ("hard", tarfile.LNKTYPE, "./a.sh")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
        info = tarfile.TarInfo("dir/empty")
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    files = {"a.sh": b"#!", "b.txt": b"x", "hard": b"#!"}
    async with client_of(store) as client:
        assert (await push(client, "report", files, out.getvalue())).status_code == 200
    (made,) = store.artifacts()
    found = {f.path: f for f in store.tree(made.id, 1)}
    assert found["a.sh"].executable
    assert not found["b.txt"].executable
    assert found["a.sh"].mtime_ns == 1_770_105_600 * 10**9
    assert found["hard"].sha256 == found["a.sh"].sha256
    assert found["link"].target == "../out"
    assert found["dir/empty"].sha256 is None


async def test_an_archive_is_given_back_as_it_was_pushed(store: Store) -> None:
    """Byte by byte, as the service's storage does; without it an equal one is made of what is stored."""
    files = {"report.md": b"hello\n", "data/empty.csv": b""}
    pushed = world.packed(files)
    async with client_of(store) as client:
        await push(client, "report", files, pushed)
        params = {"name": "report", "type": "artifact"}
        found = (await client.get("/api/storages/download", params=params)).json()
        assert (await client.get(found["url"])).content == pushed
        assert not list((store.root / "uploads").iterdir())
        for path in (store.root / "archives").iterdir():
            path.unlink()
        assert world.members((await client.get(found["url"])).content) == files


async def test_a_symlink_declared_as_a_file_becomes_that_file(store: Store) -> None:
    """The service's command line hashes what a link leads to, but packs the link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo("d/real.txt")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))
        info = tarfile.TarInfo("d/link.txt")
        info.type, info.linkname = tarfile.SYMTYPE, "real.txt"
        tar.addfile(info)
    async with client_of(store) as client:
        files = {"d/real.txt": b"x", "d/link.txt": b"x"}
        assert (await push(client, "report", files, out.getvalue())).status_code == 200
    (made,) = store.artifacts()
    assert {f.path for f in store.tree(made.id, 1) if f.sha256} == set(files)


def _evil(name: str = "f", kind: bytes = tarfile.REGTYPE, data: bytes = b"x", linkname: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, linkname
        info.size = len(data) if kind == tarfile.REGTYPE else 0
        tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


GOOD = _evil()


@pytest.mark.parametrize(
    "archive",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>", id="no archive"),
        pytest.param(_evil(data=b"y"), id="another hash"),
        pytest.param(_evil(data=b"xx"), id="another size"),
        pytest.param(_evil("g"), id="another name"),
        pytest.param(_evil("../f"), id="traversal"),
        pytest.param(_evil("/f"), id="absolute"),
        pytest.param(_evil(kind=tarfile.FIFOTYPE), id="fifo"),
        pytest.param(_evil(kind=tarfile.CHRTYPE), id="device"),
        pytest.param(_evil(kind=tarfile.LNKTYPE, linkname="f"), id="hard link to itself"),
        pytest.param(_evil(kind=tarfile.SYMTYPE, linkname="/etc/passwd"), id="symlink instead of a file"),
        pytest.param(_evil(data=bytes(1 << 20)), id="larger than declared"),
        pytest.param(GOOD[:-8], id="no trailer"),
        pytest.param(GOOD[:-8] + bytes(8), id="wrong checksum"),
        pytest.param(GOOD[: len(GOOD) // 2], id="cut short"),
    ],
)
async def test_an_archive_that_is_not_what_was_declared_is_refused(store: Store, archive: bytes) -> None:
    """400, no version is made, and nothing was written outside the store."""
    async with client_of(store) as client:
        answer = await push(client, "report", {"f": b"x"}, archive)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "BAD_REQUEST"
    (made,) = store.artifacts()
    assert store.versions(made.id) == []


async def test_a_commit_without_its_uploads_is_refused(store: Store) -> None:
    """Wrong id, no manifest, no archive, and an unknown name each have their answer."""
    files = {"f": b"x"}
    body: dict[str, Any] = {"storageName": "report", "storageType": "artifact", "files": declared(files)}
    async with client_of(store) as client:
        unknown = await client.post("/api/storages/commit", json=body | {"versionId": "0" * 64})
        assert unknown.status_code == 404
        prepared = (await client.post("/api/storages/prepare", json=body)).json()
        commit = body | {"versionId": prepared["versionId"]}
        mismatch = await client.post("/api/storages/commit", json=commit | {"versionId": "0" * 64})
        assert (mismatch.status_code, "mismatch" in mismatch.text) == (400, True)
        assert "Manifest not uploaded" in (await client.post("/api/storages/commit", json=commit)).text
        await client.put(prepared["uploads"]["manifest"]["presignedUrl"], content=b"{}")
        assert "Archive not uploaded" in (await client.post("/api/storages/commit", json=commit)).text


async def test_lost_files_of_a_known_version_are_asked_for_again(store: Store) -> None:
    """409 S3_FILES_MISSING, and a new prepare hands out links instead of saying that all is there."""
    files = {"f": b"x"}
    async with client_of(store) as client:
        first = (await push(client, "report", files)).json()
        store.objects.path(world.sha256(b"x")).unlink()
        body = {"storageName": "report", "storageType": "artifact", "files": declared(files)}
        refused = await client.post("/api/storages/commit", json=body | {"versionId": first["versionId"]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "S3_FILES_MISSING")
        again = await push(client, "report", files)
        assert again.status_code == 200
    assert store.objects.read(world.sha256(b"x")) == b"x"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"storageName": ""}, 400),
        ({"storageName": "x" * 65}, 400),
        ({"storageName": 7}, 400),
        ({"storageName": "\ud800"}, 400),
        ({"storageType": "memory"}, 400),
        ({"files": None}, 400),
        ({"files": [{"path": "f"}]}, 400),
        ({"files": ["f"]}, 400),
        ({"files": [{"path": "../f", "hash": "0" * 64, "size": 1}]}, 400),
        ({"files": [{"path": "/f", "hash": "0" * 64, "size": 1}]}, 400),
        ({"files": [{"path": "a//f", "hash": "0" * 64, "size": 1}]}, 400),
        ({"files": [{"path": "f", "hash": "0" * 63, "size": 1}]}, 400),
        ({"files": [{"path": "f", "hash": "0" * 64, "size": -1}]}, 400),
        ({"files": [{"path": "f", "hash": "0" * 64, "size": True}]}, 400),
        ({"files": [{"path": "f", "hash": "0" * 64, "size": 1}] * 2}, 400),
        ({"files": [{"path": p, "hash": "0" * 64, "size": 1} for p in ("f", "f/g")]}, 400),
        ({"files": [{"path": "f", "hash": "0" * 64, "size": 104857601}]}, 413),
        ({"files": [{"path": f"f{n}", "hash": "0" * 64, "size": 60_000_000} for n in range(2)]}, 413),
    ],
)
async def test_a_malformed_push_is_refused(store: Store, change: dict[str, Any], status: int) -> None:
    """Whatever the JSON holds, the answer is an error of the service's kind."""
    body = {"storageName": "report", "storageType": "artifact", "files": []} | change
    async with client_of(store) as client:
        # json= would refuse to encode lone surrogates; the escape is what travels.
        import json

        answer = await client.post("/api/storages/prepare", content=json.dumps(body))
        assert answer.status_code == status
        assert answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"\xff", b"[" * 100_000, b'{"files": ' + b"9" * 5000 + b"}"])
async def test_a_body_that_is_no_object_is_refused(store: Store, body: bytes) -> None:
    """400, never a failure of the server."""
    async with client_of(store) as client:
        assert (await client.post("/api/storages/commit", content=body)).status_code == 400


async def test_an_incremental_prepare_names_the_merged_version(store: Store) -> None:
    """Files on top of a base version, less what was deleted."""
    async with client_of(store) as client:
        base = (await push(client, "report", {"keep": b"1", "drop": b"2", "old": b"3"})).json()["versionId"]
        body = {
            "storageName": "report", "storageType": "artifact", "files": declared({"old": b"4"}),
            "baseVersion": base, "changes": {"added": [], "modified": ["old"], "deleted": ["drop"]},
        }  # fmt: skip
        prepared = (await client.post("/api/storages/prepare", json=body)).json()
    (made,) = store.artifacts()
    merged = [("keep", world.sha256(b"1")), ("old", world.sha256(b"4"))]
    assert prepared["versionId"] == content_id(made.uuid, merged)


async def test_an_archive_says_all_that_the_tree_knows(store: Store) -> None:
    """Long and odd names, x bits, times to the nanosecond, symlinks and empty directories reach the reader."""
    made = world.tree(store, "report")
    long = "/".join(["d" * 200] * 3) + "/naïve ☃\n.txt"
    store.save_tree(
        made.id,
        [
            world.file(store, long, b"x", mtime_ns=1_700_000_000_123_456_789),
            world.file(store, "old", b"", executable=True, mtime_ns=-1_500_000_000),
            TreeFile("link", None, target="../" + "t" * 150),
            TreeFile("empty", None),
        ],
    )
    async with client_of(store) as client:
        answer = await client.get(f"/v1/artifacts/{made.uuid}/download", follow_redirects=True)
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        found = {member.name: member for member in tar}
    assert found[long].pax_headers["mtime"] == "1700000000.123456789"
    assert found["old"].mtime == -1.5
    assert (found["old"].mode, found[long].mode) == (0o755, 0o644)
    assert found["link"].linkname == "../" + "t" * 150
    assert found["empty"].isdir()
