"""Lists whose rows are of every wrong kind, through a real mount: each can be looked at, or is counted as not shown.

Every field of every row of the three services takes each wrong value in turn, and each kind of time and of size.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.support.awkward import Served, uuid_of
from tests.support.lab import Mounted, mounted, service_source

pytestmark = pytest.mark.fuse

TIMES: Sequence[Any] = (
    "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "10000-01-01T00:00:00Z",
    "-0001-01-01T00:00:00Z", "2026-06-30T23:59:60Z", "2026-06-30T23:59:61Z", "2026-02-03 08:00:00 UTC",
    "2026-02-03T08:00:00z", "2026-02-03T08:00:00+9999", "2026-W05-1", "20260203T080000Z", "1700000000", "1e400",
    "\u0662\u0660\u0662\u0666-02-03T08:00:00Z", "2026-02-03T08:00:00." + "9" * 5000 + "Z", "1677-01-01T00:00:00Z",
    "2262-12-31T00:00:00Z", "1960-01-01T00:00:00Z", " " * 10_000, 1700000000, -1, 1700000000.5, 10**400, math.inf,
    math.nan, True, [], {}, None,
)  # fmt: skip
SIZES: Sequence[Any] = (
    -1, 0, 2**31, 2**63 - 1, 2**63, 10**400, 1.5, -0.0, math.inf, math.nan, "5", "0x10", "", True, None, [], {},
    "9" * 5000,
)  # fmt: skip
OTHERS: Sequence[Any] = (None, "", 5, 1.5, True, [], {}, ["x"], {"a": 1}, "\ud800", "\udc00\ud800", "\0", "..", "a/b")
NO_ROWS: Sequence[Any] = (None, 1, "x", [], {}, [[]], {"id": None})


def rows(plain: Mapping[str, Any], sizes: Sequence[str], times: Sequence[str]) -> list[Any]:
    """Rows that each have one wrong value; the first keys of ``plain`` are the id and the title."""
    identifier, title = list(plain)[:2]
    wrong = [{key: value} for key in times for value in TIMES] + [{key: value} for key in sizes for value in SIZES]
    wrong += [{key: value} for key in plain for value in OTHERS]
    named = ({**plain, identifier: uuid_of(f"row {number}"), title: f"r{number}.txt"} for number in range(len(wrong)))
    return [{**row, **change} for row, change in zip(named, wrong, strict=True)] + list(NO_ROWS)


OF_VM0 = rows({"id": "", "name": "", "currentVersionId": "0" * 64, "currentVersion": {"id": "0" * 64}, "fileCount": 1},
              ["size", "fileCount"], ["createdAt"])  # fmt: skip
OF_SYNTROPIC137 = rows(
    {"id": "", "title": "", "workflow_id": "wf", "phase_id": "p", "execution_id": "e", "session_id": "s",
     "artifact_type": "text", "content_type": "text/plain", "created_by": "x"},
    ["size_bytes"], ["created_at"],
)  # fmt: skip
OF_VLMRUN = rows({"id": "", "filename": "", "purpose": "assistants", "public_url": None}, ["bytes"], ["created_at"])


def of_vm0(path: str, _base: str) -> Any:
    return {"data": OF_VM0, "pagination": {"hasMore": False}} if path == "/v1/artifacts" else None


def of_syntropic137(path: str, _base: str) -> Any:
    if path == "/api/v1/sessions":
        wrong = rows({"id": "", "execution_id": "e", "phase_id": "p", "workflow_id": "wf"}, ["total"], ["started_at"])
        return {"sessions": wrong, "total": 2**70}
    known = {"/api/v1/workflows": {"workflows": [{"id": "wf", "name": "wf"}], "total": -1, "page": "x"},
             "/api/v1/artifacts": OF_SYNTROPIC137}  # fmt: skip
    return {"content": "x", "artifact_id": path.split("/")[4]} if path.endswith("/content") else known.get(path)


def of_vlmrun(path: str, base: str) -> Any:
    if path.startswith("/v1/files/"):
        return {"id": path.rpartition("/")[2], "filename": "x", "public_url": f"{base}content"}
    return {"/v1/files": OF_VLMRUN, "/v1/agent/executions": [], "/content": "x"}.get(path)


WORLDS: Mapping[str, tuple[Callable[[str, str], Any], str, Sequence[Any]]] = {
    "vm0": (of_vm0, "artifacts", OF_VM0),
    "syntropic137": (of_syntropic137, "wf", OF_SYNTROPIC137),
    "vlmrun": (of_vlmrun, "files", OF_VLMRUN),
}


@pytest.fixture(scope="module", params=WORLDS)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mounted, str]]:
    """One service whose rows are these."""
    service = str(request.param)
    found = WORLDS[service][0]

    async def answer(asked: Request) -> Response:
        value = found(asked.url.path, str(asked.base_url))
        body, status = ({"detail": "no such thing", "error": {"message": "no such thing"}}, 404)
        return Response(json.dumps(body if value is None else value), status if value is None else 200,
                        media_type="application/json")  # fmt: skip

    with (
        Served(Starlette(routes=[Route("/{path:path}", answer)])) as served,
        mounted(
            tmp_path_factory.mktemp(service),
            {"one": service_source(service, served.url + ("/v1" if service == "vlmrun" else ""))},
            extra_config="[mount]\nxattrs = true\n",
        ) as mount,
    ):
        yield mount, service


def is_whole(row: Any) -> bool:
    """Tell whether a row says what it is, and is of the place that is looked at."""
    has_id = isinstance(row, dict) and isinstance(row.get("id"), str) and len(row["id"]) == len(uuid_of(""))
    return has_id and row.get("workflow_id", "wf") == "wf"


def test_rows_are_shown_or_counted(world: tuple[Mounted, str]) -> None:
    """Every name can be looked at, none says a size or a time that is impossible, and what is left out is told."""
    mount, service = world
    place = os.fsencode(mount.path / WORLDS[service][1])
    names = set(os.listdir(place))
    asked_for = [row["id"] for row in WORLDS[service][2] if is_whole(row)]
    assert len(asked_for) > len(TIMES) + len(SIZES)
    for identifier in asked_for:
        assert os.path.isdir(os.path.join(place, identifier.encode())), identifier
    for name in names:
        assert 1 <= len(name) <= 255
        assert not {0, 47} & set(name)
        status = os.lstat(os.path.join(place, name))
        assert 0 <= status.st_size < 2**63
        assert abs(status.st_mtime_ns) < 2**63
        for key in os.listxattr(os.path.join(place, name), follow_symlinks=False):
            if not os.path.islink(os.path.join(place, name)):  # which have no attributes of users
                os.getxattr(os.path.join(place, name), key)
    told = [row for row in mount.status()["sources"][0]["listings"] if row["note"]]
    assert told
    assert not any(row["complete"] for row in told)


def test_nothing_was_unforeseen(world: tuple[Mounted, str]) -> None:
    """Whatever is asked of it afterwards, our own commands included."""
    mount, service = world
    where = WORLDS[service][1]
    mount.run("ls", "-la", where, check=False)
    assert mount.why(where)["exists"] is True
    assert mount.artifactfs("status", str(mount.path)).returncode == 0
    log = mount.log_text()
    assert " ERROR " not in log
    assert "Traceback" not in log
