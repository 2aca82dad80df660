"""The Syntropic137 dialect answers as the service does, its quirks included, in all three generations."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio

from artifactfs.server import syntropic137, syntropic137_events
from artifactfs.server.context import Context
from artifactfs.server.syntropic137_records import session_id
from artifactfs.store.catalog import Store
from tests.support.syntropic137_store import MINUTE_NS, START_NS, add_file, add_run, dialect, make_store

POST = {"workflow_id": "wf-1", "artifact_type": "text", "title": "note.txt", "content": "hello"}


@pytest.fixture
def store(tmp_path):
    store = make_store(tmp_path / "store")
    yield store
    store.close()


@asynccontextmanager
async def client(store: Store, generation: str = "B", **options) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        dialect(store, generation, **options) as (url, _),
        httpx.AsyncClient(base_url=f"{url}/api/v1", trust_env=False) as http,
    ):
        yield http


async def test_list_is_an_array_of_seven_fields_without_times(store):
    """Up to 0.25.4 a list is an array, its rows have seven fields, and created_at is null."""
    run = add_run(store, "wf-1", 1)
    row = add_file(store, "wf-1", "out/deliverable.md", b"# hi\n", run=run, phase="plan")
    async with client(store) as http:
        answer = await http.get("/artifacts")
    assert answer.json() == [
        {
            "id": row.uuid,
            "workflow_id": "wf-1",
            "phase_id": "plan",
            "artifact_type": "markdown",
            "title": "plan: artifacts/output/out/deliverable.md",
            "size_bytes": 5,
            "created_at": None,
        }
    ]
    assert "etag" not in answer.headers


async def test_list_of_generation_c_is_an_object_with_pages(store):
    """Later an object wraps the rows, with a total of all pages, counts by type, and times."""
    for number in range(5):
        add_file(store, "wf-1", f"{number}.md", b"x", at_ns=START_NS + number)
    async with client(store, "C") as http:
        page = (await http.get("/artifacts", params={"page": 2, "page_size": 2})).json()
    assert [row["title"] for row in page["artifacts"]] == ["2.md", "3.md"]
    assert (page["total"], page["page"], page["page_size"]) == (5, 2, 2)
    assert page["type_counts"] == {"markdown": 5}
    assert page["artifacts"][0]["created_at"] == "2026-05-01 10:00:00+00:00"


async def test_only_text_files_are_shown(store):
    """Binary files, text with NUL, trees and artifacts without a version are not artifacts of this service."""
    add_file(store, "wf-1", "a.txt", "grüße".encode())
    add_file(store, "wf-1", "b.bin", b"\xff\xfe")
    add_file(store, "wf-1", "c.txt", b"a\0b")
    add_file(store, "wf-1", "cut.txt", "ü".encode()[:1])
    tree = store.add_artifact("wf-1", "tree", "tree")
    store.save_tree(tree.id, [])
    store.add_artifact("wf-1", "draft", "file")
    async with client(store) as http:
        assert [row["title"] for row in (await http.get("/artifacts")).json()] == ["a.txt"]


async def test_filters_of_a_b_run_after_the_limit(store):
    """With limit=2 only the first two rows are filtered; in the later generation the filter comes first."""
    for number, name in enumerate(["1.md", "2.md", "3.json"]):
        add_file(store, "wf-1", name, b"x", at_ns=START_NS + number)
    query: dict[str, str | int] = {"limit": 2, "artifact_type": "json"}
    async with client(store) as http:
        assert (await http.get("/artifacts", params=query)).json() == []
        assert (await http.get("/artifacts", params={"artifact_type": "JSON"})).json() == []
        assert len((await http.get("/artifacts", params={"artifact_type": "", "offset": 2})).json()) == 3
    async with client(store, "C") as http:
        found = (await http.get("/artifacts", params=query)).json()["artifacts"]
        assert [row["title"] for row in found] == ["3.json"]


async def test_generation_c_filters_by_session_and_time_and_text(store):
    """session_id, created_after, created_before and q work later; before they are ignored."""
    run = add_run(store, "wf-1", 1)
    add_file(store, "wf-1", "a.md", b"x", run=run, phase="plan")
    add_file(store, "wf-1", "b.md", b"x", run=run, phase="code", at_ns=run.started_at_ns + 2 * MINUTE_NS)
    async with client(store, "C") as http:
        detail = (await http.get("/artifacts", params={"q": "PLAN"})).json()["artifacts"]
        session = (await http.get(f"/artifacts/{detail[0]['id']}")).json()["session_id"]
        found = (await http.get("/artifacts", params={"session_id": session})).json()
        assert [row["phase_id"] for row in found["artifacts"]] == ["plan"]
        found = (await http.get("/artifacts", params={"created_after": "2026-05-01T11:01:30+00:00"})).json()
        assert [row["phase_id"] for row in found["artifacts"]] == ["code"]
        assert (await http.get("/artifacts", params={"created_after": "2026-05-01T11:01:30"})).status_code == 422
    async with client(store) as http:
        assert len((await http.get("/artifacts", params={"session_id": session})).json()) == 2


@pytest.mark.parametrize(
    ("limit", "kind"), [("0", "greater_than_equal"), ("201", "less_than_equal"), ("x", "int_parsing")]
)
async def test_limit_out_of_range_is_422_in_the_services_words(store, limit, kind):
    """A limit that is no number from 1 to 200 is refused with type, loc, msg and input."""
    async with client(store) as http:
        answer = await http.get("/artifacts", params={"limit": limit})
    (detail,) = answer.json()["detail"]
    assert answer.status_code == 422
    assert (detail["type"], detail["loc"], detail["input"]) == (kind, ["query", "limit"], limit)


async def test_detail_has_dead_fields_and_content_unless_told_not_to(store):
    """A detail carries the content by default; hash, maker and metadata never carry anything."""
    run = add_run(store, "wf-1", 1)
    row = add_file(store, "wf-1", "a.md", b"text", run=run, phase="plan")
    async with client(store) as http:
        full = (await http.get(f"/artifacts/{row.uuid}")).json()
        bare = (await http.get(f"/artifacts/{row.uuid}", params={"include_content": "false"})).json()
    assert (full["content"], full["content_type"]) == ("text", "text/plain")
    assert (bare["content"], bare["content_type"]) == (None, "text/markdown")
    dead: dict[str, object] = {
        "content_hash": None,
        "created_by": None,
        "derived_from": [],
        "metadata": {},
        "created_at": None,
    }
    assert {key: full[key] for key in dead} == dead
    assert full["is_primary_deliverable"] is True
    assert full["session_id"] == session_id(run.id, "plan")


async def test_empty_artifact_is_404_in_detail_and_null_or_empty_in_content(store):
    """An empty artifact is a 404 with content asked for, null if made empty, "" if emptied by an upload."""
    made = add_file(store, "wf-1", "made.txt", b"")
    emptied = add_file(store, "wf-1", "emptied.txt", b"full")
    async with client(store) as http:
        sent = await http.post(f"/artifacts/{emptied.uuid}/upload", files={"file": ("x", b"")})
        assert sent.status_code == 200
        for row in (made, emptied):
            answer = await http.get(f"/artifacts/{row.uuid}")
            assert answer.status_code == 404
            assert answer.json() == {"detail": f"Artifact {row.uuid} content not found in projection."}
            assert (await http.get(f"/artifacts/{row.uuid}?include_content=false")).status_code == 200
        one = (await http.get(f"/artifacts/{made.uuid}/content")).json()
        two = (await http.get(f"/artifacts/{emptied.uuid}/content")).json()
    assert (one["content"], one["size_bytes"]) == (None, 0)
    assert (two["content"], two["size_bytes"]) == ("", 4)


async def test_missing_bytes_are_202_with_an_error_and_200_null_in_generation_a(store):
    """Content that should be there but is not: a 2xx with an error body and Retry-After, before 0.25.1 null."""
    row = add_file(store, "wf-1", "a.txt", b"bytes")
    store.objects.path(store.versions(row.id)[0].sha256).unlink()
    async with client(store) as http:
        answer = await http.get(f"/artifacts/{row.uuid}/content")
        assert (answer.status_code, answer.headers["retry-after"]) == (202, "2")
        assert "not yet available" in answer.json()["detail"]
    async with client(store, "A") as http:
        answer = await http.get(f"/artifacts/{row.uuid}/content")
        assert (answer.status_code, answer.json()["content"]) == (200, None)


async def test_create_answers_201_and_drops_session_and_content_type(store):
    """POST echoes the type's spelling, lists it lower-cased, and keeps neither session nor content type."""
    body = {**POST, "artifact_type": "TEXT", "session_id": "s", "content_type": "application/json", "phase_id": "p"}
    async with client(store) as http:
        answer = await http.post("/artifacts", json=body)
        made = answer.json()
        assert answer.status_code == 201
        assert made == {"id": made["id"], "title": "note.txt", "artifact_type": "TEXT", "status": "created"}
        again = (await http.post("/artifacts", json=body)).json()
        assert again["id"] != made["id"]
        row = (await http.get(f"/artifacts/{made['id']}")).json()
    assert (row["artifact_type"], row["session_id"], row["phase_id"]) == ("text", None, "p")
    assert (row["content"], row["title"], row["size_bytes"]) == ("hello", "note.txt", 5)


@pytest.mark.parametrize(
    ("body", "loc", "kind"),
    [
        (b'{"workflow_id": "w"', ["body", 19], "json_invalid"),
        (b"", ["body"], "missing"),
        (b"[]", ["body"], "model_type"),
        (json.dumps({**POST, "x": 1}).encode(), ["body", "x"], "extra_forbidden"),
        (json.dumps({**POST, "title": 1}).encode(), ["body", "title"], "string_type"),
        (json.dumps({k: v for k, v in POST.items() if k != "title"}).encode(), ["body", "title"], "missing"),
        (b"[" * 100_000, ["body", 0], "json_invalid"),
    ],
)
async def test_create_refuses_a_wrong_body_with_422(store, body, loc, kind):
    """Broken JSON, unknown keys, missing keys and wrong types are validation errors."""
    async with client(store) as http:
        answer = await http.post("/artifacts", content=body)
    (detail,) = answer.json()["detail"]
    assert (answer.status_code, detail["loc"], detail["type"]) == (422, loc, kind)


@pytest.mark.parametrize("change", [{"content": ""}, {"artifact_type": "document"}, {"artifact_type": "nope"}])
async def test_create_refuses_empty_content_and_unknown_types_with_400(store, change):
    """Empty content and a type that is none of the 26 are application errors."""
    async with client(store) as http:
        answer = await http.post("/artifacts", json={**POST, **change})
    assert answer.status_code == 400
    assert isinstance(answer.json()["detail"], str)
    assert not store.artifacts()


async def test_generation_a_takes_any_type_for_a_summary(store):
    """0.18.0 knew three types and stored every other as research_summary."""
    async with client(store, "A") as http:
        for kind in ("document", "code", "plan"):
            await http.post("/artifacts", json={**POST, "artifact_type": kind})
        kinds = [row["artifact_type"] for row in (await http.get("/artifacts")).json()]
    assert sorted(kinds) == ["code", "documentation", "research_summary"]


async def test_surrogates_are_a_fault_and_nul_is_accepted_and_lost(store):
    """A lone surrogate is a 500 in plain text; a NUL is answered 201, and the artifact never appears."""
    async with client(store) as http:
        body = json.dumps({**POST, "title": "\ud800"}).encode()
        answer = await http.post("/artifacts", content=body)
        assert (answer.status_code, answer.text) == (500, "Internal Server Error")
        assert answer.headers["content-type"].startswith("text/plain")
        lost = await http.post("/artifacts", json={**POST, "content": "a\0b"})
        assert lost.status_code == 201
        assert (await http.get("/artifacts")).json() == []
        assert (await http.get(f"/artifacts/{lost.json()['id']}")).status_code == 404


@pytest.mark.parametrize("workflow_id", ["", "w/../x", "never defined"])
async def test_workflow_ids_of_artifacts_are_free_text(store, workflow_id):
    """An artifact may name a workflow that does not exist; the workflow is not listed for it."""
    async with client(store) as http:
        assert (await http.post("/artifacts", json={**POST, "workflow_id": workflow_id})).status_code == 201
        assert (await http.post("/artifacts", json={**POST, "workflow_id": workflow_id})).status_code == 201
        assert [w["id"] for w in (await http.get("/workflows")).json()["workflows"]] == ["wf-1"]
        rows = (await http.get("/artifacts", params={"workflow_id": workflow_id})).json()
    assert [row["workflow_id"] for row in rows] == [workflow_id] * 2


async def test_upload_changes_the_content_and_nothing_else(store):
    """After an upload size and title are those of creation; the storage address is no place to go."""
    row = add_file(store, "wf-1", "a.txt", b"first")
    async with client(store) as http:
        answer = await http.post(f"/artifacts/{row.uuid}/upload", files={"file": ("name.bin", b"second, longer")})
        assert answer.json() == {
            "artifact_id": row.uuid,
            "storage_url": f"s3://syn-artifacts/artifacts/{row.uuid}.md",
            "status": "uploaded",
        }
        content = (await http.get(f"/artifacts/{row.uuid}/content")).json()
        (listed,) = (await http.get("/artifacts")).json()
    assert (content["content"], content["size_bytes"]) == ("second, longer", 5)
    assert (listed["size_bytes"], listed["title"]) == (5, "a.txt")


async def test_uploaded_binary_stays_listed_and_reads_lossy(store):
    """Bytes that are no UTF-8 come back with replacement characters."""
    row = add_file(store, "wf-1", "a.txt", b"text")
    async with client(store) as http:
        await http.post(f"/artifacts/{row.uuid}/upload", files={"file": ("x", b"a\xffb")})
        assert len((await http.get("/artifacts")).json()) == 1
        assert (await http.get(f"/artifacts/{row.uuid}/content")).json()["content"] == "a\ufffdb"


async def test_upload_never_checks_that_the_artifact_exists(store):
    """Unknown, deleted and shortened ids are all 200, and change nothing."""
    row = add_file(store, "wf-1", "a.txt", b"text")
    gone = add_file(store, "wf-1", "b.txt", b"text")
    store.delete_artifact(gone.id)
    async with client(store) as http:
        for artifact_id in ("no-such", gone.uuid, row.uuid[:8]):
            answer = await http.post(f"/artifacts/{artifact_id}/upload", files={"file": ("x", b"new")})
            assert (answer.status_code, answer.json()["status"]) == (200, "uploaded")
    assert len(store.versions(row.id)) == len(store.versions(gone.id)) == 1


async def test_upload_without_a_file_is_422_and_a_huge_one_413(store):
    """A part without a file name is no file; 50 MB is the limit."""
    row = add_file(store, "wf-1", "a.txt", b"text")
    path = f"/artifacts/{row.uuid}/upload"
    async with client(store) as http:
        plain = await http.post(path, files={"file": (None, b"text")})
        none = await http.post(path, files={"other": ("x", b"text")})
        huge = await http.post(path, files={"file": ("x", b"x" * (50 * 1024 * 1024 + 1))})
    assert plain.status_code == none.status_code == 422
    assert "Expected UploadFile" in plain.json()["detail"][0]["msg"]
    assert none.json()["detail"][0]["type"] == "missing"
    assert (huge.status_code, huge.json()) == (413, {"detail": "Upload exceeds maximum size of 50 MB"})


async def test_put_renames_and_delete_is_soft_and_409_the_second_time(store):
    """PUT gives another title; after DELETE the artifact is gone, and both say 409."""
    row = add_file(store, "wf-1", "a.txt", b"text")
    path = f"/artifacts/{row.uuid}"
    async with client(store) as http:
        done = await http.put(path, json={"title": "", "metadata": {"k": 1}})
        assert done.json() == {"artifact_id": row.uuid, "status": "updated"}
        assert (await http.get(path)).json()["title"] == ""
        assert (await http.get(path)).json()["metadata"] == {}
        assert (await http.put(path, json={})).status_code == 400
        assert (await http.put(path, json={"content": "x"})).status_code == 422
        assert (await http.put(f"/artifacts/{row.uuid[:8]}", json={"title": "x"})).status_code == 404
        assert (await http.patch(path, json={"title": "x"})).status_code == 405
        assert (await http.delete(path)).json() == {"artifact_id": row.uuid, "status": "deleted"}
        again = await http.delete(path)
        assert (again.status_code, again.json()) == (409, {"detail": "Artifact is already deleted"})
        assert (await http.put(path, json={"title": "x"})).json() == {"detail": "Artifact is deleted"}
        assert (await http.get(path)).json() == {"detail": f"Artifact not found: {row.uuid}"}
        assert (await http.delete("/artifacts/nope")).status_code == 404
        assert (await http.get("/metrics?workflow_id=none")).json()["total_artifacts"] == 1
    assert store.artifact(row.id).deleted


@pytest.mark.parametrize("title", ["plan: artifacts/output/new/b.md", "plan", "other: artifacts/output/b.md"])
async def test_put_on_an_output_gives_exactly_that_title(store, title):
    """The title of a run's output can become anything, also what does not name its phase."""
    run = add_run(store, "wf-1", 1)
    row = add_file(store, "wf-1", "a.md", b"text", run=run, phase="plan")
    async with client(store) as http:
        await http.put(f"/artifacts/{row.uuid}", json={"title": title})
        assert (await http.get(f"/artifacts/{row.uuid}")).json()["title"] == title
    assert store.artifact(row.id).name == title.removeprefix("plan: artifacts/output/")


async def test_generation_a_cannot_put_or_delete(store):
    """Before 0.19.0 both are 405."""
    row = add_file(store, "wf-1", "a.txt", b"text")
    async with client(store, "A") as http:
        for answer in (
            await http.put(f"/artifacts/{row.uuid}", json={"title": "x"}),
            await http.delete(f"/artifacts/{row.uuid}"),
        ):
            assert (answer.status_code, answer.json()) == (405, {"detail": "Method Not Allowed"})


async def test_ids_may_be_shortened_until_they_are_ambiguous(store):
    """Since 0.21 a unique beginning finds the artifact, an ambiguous one is 409; 0.18.0 knows full ids only."""
    for n in range(12):
        uuid = f"ab{n:06d}-0000-4000-8000-000000000000"
        row = store.add_artifact("wf-1", f"{n}.txt", "file", uuid=uuid)
        store.save_file(row.id, store.objects.put(b"x", durable=False), 1)
    async with client(store) as http:
        assert (await http.get("/artifacts/ab000003")).json()["id"].startswith("ab000003")
        answer = await http.get("/artifacts/ab")
        assert (await http.get("/workflows/wf")).json()["id"] == "wf-1"
    lines = answer.json()["detail"].split("\n")
    assert answer.status_code == 409
    assert lines[0] == "Ambiguous artifact ID 'ab' matches 10 entries:"
    assert lines[1] == "  - ab000000-000..."
    assert len(lines) == 6
    async with client(store, "A") as http:
        assert (await http.get("/artifacts/ab000003")).status_code == 404


@pytest.mark.parametrize(("generation", "second", "total"), [("A", 0, 100), ("B", 0, 100), ("C", 50, 150)])
async def test_second_page_of_workflows_is_empty_up_to_0_25_4(store, generation, second, total):
    """A page is sliced twice there, and its length passed off as the total."""
    for number in range(149):
        store.add_workflow(f"w{number}", created_at_ns=START_NS + 1 + number)
    query: dict[str, str | int] = {"page_size": 100, "include_archived": "true"}
    async with client(store, generation) as http:
        pages = [(await http.get("/workflows", params={**query, "page": page})).json() for page in (1, 2)]
        assert (await http.get("/workflows", params={"page_size": 101})).status_code == 422
    assert [len(page["workflows"]) for page in pages] == [100, second]
    assert pages[0]["total"] == total


async def test_workflow_detail_and_runs(store):
    """A workflow tells its phases in order and all its runs, newest first."""
    for number in (1, 2):
        run = add_run(store, "wf-1", number)
        add_file(store, "wf-1", "a.md", b"x", run=run, phase="plan")
        add_file(store, "wf-1", "b.md", b"x", run=run, phase="code", at_ns=run.started_at_ns + 2 * MINUTE_NS)
    async with client(store) as http:
        detail = (await http.get("/workflows/wf-1")).json()
        runs = (await http.get("/workflows/wf-1/runs")).json()
        assert (await http.get("/workflows/none")).status_code == 404
    assert [(p["phase_id"], p["order"]) for p in detail["phases"]] == [("plan", 1), ("code", 2)]
    assert [run["workflow_execution_id"] for run in runs["runs"]] == ["exec-000000000002", "exec-000000000001"]
    assert (runs["total"], runs["workflow_name"]) == (2, "Research")


async def test_execution_names_only_the_first_artifact_of_a_phase(store):
    """Three outputs of one phase, one id; the two spellings of a time stand side by side."""
    run = add_run(store, "wf-1", 1)
    rows = [add_file(store, "wf-1", f"{n}.md", b"x", run=run, phase="plan", at_ns=START_NS + n) for n in range(3)]
    async with client(store) as http:
        detail = (await http.get(f"/executions/{run.id}")).json()
        listed = (await http.get("/executions", params={"status": "completed"})).json()
        assert (await http.get("/executions", params={"status": "failed"})).json()["total"] == 0
        assert (await http.get("/executions/none")).status_code == 404
    assert detail["artifact_ids"] == [rows[0].uuid]
    assert [phase["artifact_id"] for phase in detail["phases"]] == [rows[0].uuid]
    assert (listed["total"], listed["executions"][0]["workflow_execution_id"]) == (1, run.id)
    assert (detail["started_at"], detail["completed_at"]) == ("2026-05-01T11:00:00+00:00", "2026-05-01 11:30:00+00:00")


async def test_sessions_page_backwards_by_their_start(store):
    """started_before is inclusive; a naive time is a fault; 0.18.0 ignores it."""
    for number in range(3):
        add_file(store, "wf-1", "a.md", b"x", run=add_run(store, "wf-1", number), phase="plan")
    query = {"workflow_id": "wf-1", "started_before": "2026-05-01T11:00:00+00:00"}
    async with client(store) as http:
        found = (await http.get("/sessions", params=query)).json()["sessions"]
        naive = await http.get("/sessions", params={"started_before": "2026-05-01T11:00:00"})
        assert (await http.get("/sessions", params={"started_before": "soon"})).status_code == 422
        one = (await http.get(f"/sessions/{found[0]['id']}")).json()
        assert (await http.get("/sessions/none")).status_code == 404
    assert [row["execution_id"] for row in found] == ["exec-000000000001", "exec-000000000000"]
    assert (one["id"], one["phase_id"], one["operations"]) == (found[0]["id"], "plan", [])
    assert naive.status_code == 500
    async with client(store, "A") as http:
        assert (await http.get("/sessions", params=query)).json()["total"] == 3


async def test_errors_outside_the_api_have_its_shape(store):
    """Unknown route, wrong method, HEAD and a trailing slash answer as FastAPI does."""
    row = add_file(store, "wf-1", "a.txt", b"text")
    async with client(store) as http:
        assert (await http.get("/agents")).json() == {"detail": "Not Found"}
        assert (await http.put("/artifacts")).json() == {"detail": "Method Not Allowed"}
        assert (await http.head(f"/artifacts/{row.uuid}/content")).status_code == 405
        moved = await http.get("/artifacts/")
        assert moved.status_code == 307
        assert moved.headers["location"].endswith("/api/v1/artifacts")


async def test_health_and_root_with_and_without_the_prefix(store):
    """Every route exists below /api/v1 and at the address itself."""
    async with dialect(store) as (url, _), httpx.AsyncClient(trust_env=False) as http:
        for base in (url, f"{url}/api/v1"):
            assert (await http.get(f"{base}/health")).json() == {"status": "healthy", "mode": "full"}
            assert (await http.get(f"{base}/")).json()["name"] == "Syntropic137 API"
            assert (await http.get(f"{base}/sse/health")).status_code == 200


async def test_a_token_is_asked_for_as_bearer_or_as_basic_password(store):
    """With a token nothing is answered without it, not even an unknown route; the Basic user does not matter."""
    async with client(store, token="s3cret:with:colons") as http:
        basic = base64.b64encode(b"admin:s3cret:with:colons").decode()
        for good in ("Bearer s3cret:with:colons", f"Basic {basic}", f"basic {basic}"):
            assert (await http.get("/artifacts", headers={"Authorization": good})).status_code == 200
        wrong = base64.b64encode(b"admin:other").decode()
        for bad in ("Bearer other", f"Basic {wrong}", "Basic !", "Basic /w==", "s3cret:with:colons", ""):
            answer = await http.get("/nowhere", headers={"Authorization": bad})
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Basic")


def test_unknown_generation_is_refused(store):
    """There are three generations."""
    with pytest.raises(ValueError, match="generations"):
        syntropic137.routes(store, Context(None, ""), "D")


class Stream:
    """An event stream read from the bare connection: httpx cannot leave one early without warnings."""

    def __init__(self, connection: trio.SocketStream) -> None:
        self.connection = connection
        self.seen = b""

    async def frame(self) -> dict:
        """Return the next frame."""
        with trio.fail_after(20):
            while not (found := re.search(rb"data: ([^\n]*)\n\n", self.seen)):
                received = await self.connection.receive_some()
                assert received, "the stream has ended"
                self.seen += received
        self.seen = self.seen[found.end() :]
        return json.loads(found[1])

    async def has_ended(self) -> bool:
        """Read to the end; tell whether it was a proper one."""
        with trio.fail_after(20):
            while not self.seen.endswith(b"0\r\n\r\n"):
                self.seen += await self.connection.receive_some()
        return True


@asynccontextmanager
async def events(store: Store, path: str) -> AsyncIterator[tuple[Stream, str]]:
    async with dialect(store) as (url, _):
        target = httpx.URL(f"{url}/api/v1{path}")
        connection = await trio.open_tcp_stream(target.host, target.port or 80)
        async with connection:
            await connection.send_all(f"GET {target.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            yield Stream(connection), url


async def test_execution_stream_tells_new_outputs_and_ends_with_the_run(store):
    """After "connected" come outputs made from then on, whole; at the end of the run a terminal frame."""
    run = add_run(store, "wf-1", 1, status="running")
    add_file(store, "wf-1", "old.md", b"x", run=run, phase="plan")
    async with events(store, f"/sse/executions/{run.id}") as (stream, _):
        assert (await stream.frame())["type"] == "connected"
        row = await trio.to_thread.run_sync(lambda: add_file(store, "wf-1", "new", b"news", run=run, phase="plan"))
        made = await stream.frame()
        await trio.to_thread.run_sync(lambda: add_run(store, "wf-1", 1))
        last = await stream.frame()
        assert await stream.has_ended()
    assert (made["type"], made["event_type"], made["execution_id"]) == ("event", "ArtifactCreated", run.id)
    assert (made["data"]["artifact_id"], made["data"]["content"]) == (row.uuid, "news")
    assert made["data"]["title"] == "plan: artifacts/output/new"
    assert (last["type"], last["event_type"]) == ("terminal", "WorkflowCompleted")


async def test_execution_stream_of_an_unknown_run_connects_and_waits(store, monkeypatch):
    """An unknown id gets "connected" as any other, then comments that keep the connection alive."""
    monkeypatch.setattr(syntropic137_events, "KEEPALIVE_S", 1.0)
    monkeypatch.setattr(syntropic137_events, "POLL_S", 0.5)
    async with events(store, "/sse/executions/none") as (stream, _):
        assert (await stream.frame())["type"] == "connected"
        with trio.fail_after(20):
            while b": keepalive\n\n" not in stream.seen:
                stream.seen += await stream.connection.receive_some()


async def test_activity_stream_tells_runs_but_not_posted_artifacts(store):
    """Beginnings and ends of runs are told, with all artifact ids at the end; artifacts by POST never."""
    add_run(store, "wf-1", 1)

    def begin():
        run = add_run(store, "wf-1", 2, status="running")
        return [add_file(store, "wf-1", f"{n}.md", b"x", run=run, phase="plan").uuid for n in range(2)]

    async with events(store, "/sse/activity") as (stream, url), httpx.AsyncClient(trust_env=False) as http:
        assert (await stream.frame())["type"] == "connected"
        assert (await http.post(f"{url}/artifacts", json=POST)).status_code == 201
        made = await trio.to_thread.run_sync(begin)
        told = [await stream.frame()]
        await trio.to_thread.run_sync(lambda: add_run(store, "wf-1", 2, status="failed"))
        told.append(await stream.frame())
    assert [frame["event_type"] for frame in told] == ["WorkflowExecutionStarted", "WorkflowFailed"]
    assert told[0]["execution_id"] is None
    assert told[0]["data"]["execution_id"] == "exec-000000000002"
    assert sorted(told[1]["data"]["artifact_ids"]) == sorted(made)
