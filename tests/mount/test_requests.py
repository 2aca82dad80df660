"""How many requests commands cost, counted at the server."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from artifactfs.server import app as server_app
from artifactfs.server import storage
from tests.support import demo_tree
from tests.support.demo_tree import sha256
from tests.support.lab import Lab, Mounted, Seen, mounted

pytestmark = pytest.mark.fuse

CRAWL = "vm0/artifacts/crawl-2026-05"
VIDEO = "vlmrun/video-review/latest/watch/clip.mp4"
MIB = 1 << 20


@pytest.fixture(scope="module")
def warm(demo_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """A mount of the four sources on which everything has been looked at and read once."""
    with mounted(tmp_path_factory.mktemp("warm"), demo_tree.sources(demo_lab), names=demo_tree.SERVICES) as mount:
        mount.run("ls", "-lAR", ".")
        mount.run("find", ".", "-type", "f", "-exec", "cksum", "{}", "+")
        yield mount


def is_list(request: Seen) -> bool:
    """Tell whether a request asked for a page of a listing."""
    ends = ("/artifacts", "/volumes", "/workflows", "/sessions", "/artifacts/list", "/agent/executions", "/files")
    is_bytes = request.path == "/vlmrun/v1/artifacts"  # of one object
    return request.origin == "main" and request.path.endswith(ends) and not is_bytes


def archives(requests: Sequence[Seen]) -> list[str]:
    """Return the archives that were downloaded."""
    return [request.path for request in requests if request.path.endswith("/archive.tar.gz")]


def repeated(requests: Sequence[Seen]) -> dict[tuple[str, str], int]:
    """Return what was asked for more than once."""
    counted = Counter((request.path, request.query) for request in requests)
    return {what: count for what, count in counted.items() if count > 1}


@pytest.mark.parametrize("command", [["find", "."], ["ls", "-R", "."]], ids=["find", "ls -R"])
def test_cold_names_cost_list_pages_and_nothing_else(command: list[str], demo_lab: Lab, tmp_path: Path) -> None:
    """Names alone cost each list page once, and of VM0 also once the archive of each version entered."""
    with (
        mounted(tmp_path, demo_tree.sources(demo_lab), names=demo_tree.SERVICES) as mount,
        demo_lab.counted() as cold,
    ):
        mount.run(*command)
    others = [request for request in cold if not is_list(request)]
    trees = 4  # two artifacts and two volumes of the demo
    assert len(archives(cold)) == trees
    assert len(others) == 2 * trees  # the service leads to the storage
    assert all(request.path.endswith(("/download", "/archive.tar.gz")) for request in others)
    assert not repeated(cold)


@pytest.mark.parametrize(
    "command",
    [["ls", "-lR", "."], ["grep", "-rc", "e", "."], ["find", ".", "-size", "+1k"], ["du", "-sb", "."]],
    ids=["ls -lR", "grep -r", "find -size", "du"],
)
def test_warm_commands_make_no_request(command: list[str], warm: Mounted, demo_lab: Lab) -> None:
    """What was seen once costs no request."""
    with demo_lab.counted() as requests:
        warm.run(*command, check=False)
    assert not requests


def test_a_stat_storm_makes_no_request(warm: Mounted, demo_lab: Lab) -> None:
    """Thousands of stats of the same files ask nobody."""
    paths = [warm.path / service / path for service in ("syntropic137", "vlmrun") for path in
             demo_tree.files_below(warm.path / service)]  # fmt: skip
    with demo_lab.counted() as requests:
        for _ in range(20):
            for path in paths:
                os.stat(path)
    assert not requests


@pytest.mark.parametrize("name", [".git", ".hidden", "foo", "Thumbs.db", "notes.md~"])
def test_absent_names_make_no_request(name: str, warm: Mounted, demo_lab: Lab) -> None:
    """A complete listing answers for names that are not in it."""
    places = ("", "local", "local/product-docs", "vm0", "vm0/artifacts", CRAWL, f"{CRAWL}/pages", "syntropic137",
              "syntropic137/product-docs", "vlmrun/market-research", "vlmrun/market-research/latest/plan")  # fmt: skip
    with demo_lab.counted() as requests:
        for place in places:
            with pytest.raises(FileNotFoundError):
                os.stat(warm.path / place / name)
    assert not requests


def test_grep_over_a_version_is_one_download_ever(demo_lab: Lab, tmp_path: Path) -> None:
    """2,000 files of a VM0 version cost its list page and one archive; on the next mount the page alone."""
    sources = demo_tree.sources(demo_lab)
    for downloads in (1, 0):
        with mounted(tmp_path, sources, names=demo_tree.SERVICES) as mount:
            with demo_lab.counted() as requests:
                found = mount.run("grep", "-rc", "", CRAWL).stdout.splitlines()
            assert len(found) == 2000
            assert len(archives(requests)) == downloads
            assert len([r for r in requests if not is_list(r)]) == 2 * downloads


def test_reading_one_file_transfers_that_file(demo_lab: Lab, tmp_path: Path) -> None:
    """Among its siblings only the file that is read is asked for, once."""
    with mounted(tmp_path, demo_tree.sources(demo_lab), names=demo_tree.SERVICES) as mount:
        for path in (
            "syntropic137/product-docs/runbook.md", "vlmrun/site-audit/latest/write/audit.md", "vlmrun/files/shelf.jpg",
        ):  # fmt: skip
            mount.run("ls", os.path.dirname(path))
            with demo_lab.counted() as requests:
                assert (mount.path / path).read_bytes()
            bytes_of = [request for request in requests if not is_list(request)]
            # An uploaded file of VLM Run is asked for its address first.
            assert len(bytes_of) == (2 if "/files/" in path else 1)
            assert not repeated(requests)


SLOW = {
    "syntropic137/product-docs/runbook.md": "/content",
    "vlmrun/site-audit/latest/crawl/screenshots/home.jpg": r"/v1/artifacts\?",
    "vm0/volumes/pricing-history/2026-01.csv": r"archive\.tar\.gz",
}


def test_two_readers_cost_one_request(demo_lab: Lab, tmp_path: Path) -> None:
    """Who reads a file while it is on its way waits for the same bytes."""
    with mounted(tmp_path, demo_tree.sources(demo_lab), names=demo_tree.SERVICES) as mount:
        for path, answer in SLOW.items():
            mount.run("ls", os.path.dirname(os.path.dirname(path)))
            demo_lab.fault(answer, delay_s=1.0)
            try:
                with demo_lab.counted() as requests:
                    readers = [
                        subprocess.Popen(["sha256sum", path], cwd=mount.path, stdout=subprocess.PIPE) for _ in range(4)
                    ]
                    answers = {reader.communicate(timeout=60)[0] for reader in readers}
            finally:
                demo_lab.heal()
            assert answers == {f"{sha256((mount.path / path).read_bytes())}  {path}\n".encode()}
            assert len([r for r in requests if not is_list(r) and not r.path.endswith("/download")]) == 1


def received(mount: Mounted) -> int:
    """Return how many bytes of answers a mount has taken."""
    return sum(source["counters"]["bytes_received"] for source in mount.status()["sources"])


def test_the_head_of_a_large_file_is_cheap(demo_lab: Lab, tmp_path: Path) -> None:
    """head, stat and the middle of the 64 MiB video transfer a few MiB, where ranges work."""
    with mounted(tmp_path, demo_tree.sources(demo_lab), names=demo_tree.SERVICES) as mount:
        before = received(mount)
        assert os.stat(mount.path / VIDEO).st_size == 64 * MIB
        with (mount.path / VIDEO).open("rb") as file:
            head = file.read(1000)
            file.seek(50 * MIB)
            middle = file.read(1000)
        assert received(mount) - before < 12 * MIB
        with (mount.path / "local/video-review/latest/watch/clip.mp4").open("rb") as file:
            assert file.read(1000) == head
            file.seek(50 * MIB)
            assert file.read(1000) == middle


class WithoutRange:
    """An application whose server has never heard of Range."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0].lower() != b"range"]}
        await self.app(scope, receive, send)


def test_a_server_that_ignores_ranges_is_read_right(
    demo_lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Range is ignored the head, the middle and the whole of a large file are right all the same."""
    for module in (server_app, storage):
        build: Any = module.build
        monkeypatch.setattr(module, "build", lambda *a, _build=build, **k: WithoutRange(_build(*a, **k)))
    with Lab(demo_lab.store) as lab, mounted(tmp_path, demo_tree.sources(lab), names=demo_tree.SERVICES) as mount:
        original = (mount.path / "local/video-review/latest/watch/clip.mp4").read_bytes()
        with (mount.path / VIDEO).open("rb") as file:
            assert file.read(1000) == original[:1000]
            file.seek(50 * MIB + 17)
            assert file.read(100_000) == original[50 * MIB + 17 :][:100_000]
        assert sha256((mount.path / VIDEO).read_bytes()) == sha256(original)
