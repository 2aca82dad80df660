"""The service's own Python SDK, unmodified, judges the VLM Run dialect.

It runs in a process of its own: importing it makes directories in HOME, and its log set-up is global.
"""

import hashlib
import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest
import trio
from starlette.applications import Starlette
from starlette.routing import Mount

from artifactfs.server import vlmrun
from artifactfs.server.context import Context
from tests.support import vlmrun_samples as samples
from tests.support.serving import serving

PRELUDE = """
import hashlib, json, sys
from pathlib import Path
from vlmrun.client import VLMRun
from vlmrun.client import exceptions as sdk_errors

url, key, RUN, RUNNING, UNKNOWN = sys.argv[1:6]
here = Path.cwd()
out = {}

def digest(value):
    data = value.read_bytes() if isinstance(value, Path) else value
    return hashlib.sha256(data).hexdigest()

def error_of(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except Exception as error:
        return type(error).__name__
    return None
"""
CLIENT = "client = VLMRun(api_key=key, base_url=url, max_retries=1)\n"
END = "\nprint('RESULT ' + json.dumps(out))\n"


@pytest.fixture
def store(tmp_path):
    store = samples.filled(tmp_path / "store")
    yield store
    store.close()


@asynccontextmanager
async def judged(store, tmp_path):
    """Serve the store; yield what runs a script of the SDK against it and returns its ``out``."""
    home = tmp_path / "home"
    home.mkdir()
    app = Starlette(routes=[Mount("/vlmrun", routes=vlmrun.routes(store, Context("secret", storage_url="")))])

    async with serving(app) as running:

        async def run(script, key="secret", client=CLIENT):
            program = PRELUDE + client + script + END
            ids = [samples.RUN, samples.RUNNING, samples.UNKNOWN]
            command = [sys.executable, "-c", program, f"{running.url}/vlmrun/v1", key, *ids]
            env = {**os.environ, "HOME": str(home), "VLMRUN_CACHE_DIR": str(home / "cache"), "NO_PROXY": "*"}
            for name in ("VLMRUN_API_KEY", "VLMRUN_BASE_URL"):
                env.pop(name, None)
            done = await trio.run_process(
                command, cwd=home, env=env, check=False, capture_stdout=True, stderr=subprocess.STDOUT
            )
            text = done.stdout.decode()
            assert "RESULT " in text, text
            return json.loads(text.rpartition("RESULT ")[2])

        yield run


def sha(data):
    return hashlib.sha256(data).hexdigest()


async def test_all_object_types(store, tmp_path):
    """get() of every type, twice; by filename; raw; with a session's id; and list()."""
    script = """
get, at = client.artifacts.get, {"execution_id": RUN}
image = get(object_id="img_a1b2c3", **at)
out["image"] = [image.mode, list(image.size), list(image.getpixel((2, 1)))]
for name in ("vid_0d0e01", "aud_0d0e02", "doc_0d0e03", "recon_0d0e04", "url_0d0e06"):
    path = get(object_id=name, **at)
    out[name] = [path.name, digest(path), get(object_id=name, **at) == path]
out["arr"] = digest(get(object_id="arr_0d0e05", **at))
out["named"] = digest(get(filename="out dir/report \\u00e9.csv", **at))
out["raw"] = digest(get(object_id="vid_0d0e01", raw_response=True, session_id=RUN))
listed = client.artifacts.list(**at)
out["list"] = [[row.object_id, row.filename, row.source] for row in listed.items]
out["same"] = client.artifacts.list(session_id=RUN) == listed
out["namespace"] = listed.namespace_id
out["missing"] = error_of(get, object_id="img_ffffff", **at)
out["unknown"] = error_of(client.artifacts.list, session_id=UNKNOWN)
"""
    async with judged(store, tmp_path) as run:
        out = await run(script)
    assert out["image"] == ["RGB", [3, 2], [80, 60, 7]]
    for name, ending in (("vid_0d0e01", "mp4"), ("aud_0d0e02", "mp3"), ("doc_0d0e03", "pdf"), ("recon_0d0e04", "spz")):
        assert out[name] == [f"{name}.{ending}", sha(samples.CONTENT[name][2]), True]
    assert out["url_0d0e06"] == ["clip_final.mp4.mp4", sha(samples.CLIP), True]
    assert out["arr"] == sha(samples.npy())
    assert out["named"] == sha(samples.REPORT)
    assert out["raw"] == sha(samples.MP4)
    assert ["img_a1b2c3", "chart.png", "store"] in out["list"]
    assert ["review/notes.md", "review/notes.md", "workspace"] in out["list"]
    assert len(out["list"]) == 9
    assert (out["same"], out["namespace"]) == (True, samples.RUN)
    assert (out["missing"], out["unknown"]) == ("ResourceNotFoundError", "ResourceNotFoundError")


async def test_executions_and_predictions(store, tmp_path):
    """list(), get() and wait() parse; an unknown id is not found; predictions are an empty list."""
    script = """
rows = client.executions.list()
out["list"] = [[row.id, row.name, row.status] for row in rows]
out["page"] = [row.id for row in client.executions.list(skip=2, limit=1)]
done = client.executions.wait(RUN, timeout=5)
out["done"] = [done.response, done.completed_at.isoformat(), done.usage.duration_seconds]
out["running"] = client.executions.get(RUNNING).response
out["unknown"] = error_of(client.executions.get, UNKNOWN)
out["predictions"] = client.predictions.list()
out["healthy"] = client.healthcheck()
"""
    async with judged(store, tmp_path) as run:
        out = await run(script)
    assert out["list"] == [
        [samples.FAILED, "transcribe", "failed"],
        [samples.RUNNING, "transcribe", "running"],
        [samples.RUN, "image/blur-image:v1", "completed"],
    ]
    assert out["page"] == [samples.RUN]
    assert out["done"] == [samples.RESPONSE, "2026-07-01T10:00:41+00:00", 41]
    assert out["running"] is None
    assert out["unknown"] == "ResourceNotFoundError"
    assert (out["predictions"], out["healthy"]) == ([], True)


async def test_files(store, tmp_path):
    """list, get, upload in both ways, the look before an upload, delete."""
    script = """
import requests
out["list"] = [[row.id, row.filename, row.bytes] for row in client.files.list()]
one = client.files.get(out["list"][0][0])
out["content"] = digest(requests.get(one.public_url).content)
direct, linked = here / "gr\\u00f6\\u00dfe.txt", here / "film.mp4"
direct.write_bytes(b"direct" * 1000)
linked.write_bytes(b"linked" * 300_000)
out["direct"] = [client.files.upload(direct).filename, client.files.upload(direct, method="direct", force=True).bytes]
row = client.files.upload(linked, method="presigned-url", purpose="vision")
out["linked"] = [row.filename, row.bytes, row.purpose, digest(requests.get(row.public_url).content)]
out["again"] = client.files.upload(linked).id == row.id
out["count"] = len(client.files.list())
out["deleted"] = client.files.delete(row.id).filename
out["gone"] = error_of(client.files.get, row.id)
out["left"] = len(client.files.list())
"""
    async with judged(store, tmp_path) as run:
        out = await run(script)
    assert out["list"] == [[samples.FILE, "scan ü.pdf", len(samples.pdf())]]
    assert out["content"] == sha(samples.pdf())
    assert out["direct"] == ["größe.txt", 6000]
    assert out["linked"] == ["film.mp4", 1_800_000, "vision", sha(b"linked" * 300_000)]
    assert out["again"] is True
    assert (out["count"], out["deleted"], out["gone"], out["left"]) == (4, "film.mp4", "ResourceNotFoundError", 3)


async def test_a_wrong_key_is_refused(store, tmp_path):
    """The constructor's health check and every later call raise the SDK's AuthenticationError."""
    script = """
out["constructor"] = error_of(VLMRun, api_key=key, base_url=url, max_retries=1)
client = VLMRun(api_key="secret", base_url=url, max_retries=1)
client.api_key = key
out["call"] = error_of(client.artifacts.list, session_id=RUN)
"""
    async with judged(store, tmp_path) as run:
        out = await run(script, key="wrong", client="")
    assert out == {"constructor": "AuthenticationError", "call": "AuthenticationError"}
