"""What Syntropic137 tells by itself shows at once: real mounts whose own looks are far apart.

The stream goes through the laboratory, so that it can be refused, cut, and be seen to end with the mount.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.control import ask
from tests.support.lab import Lab, Mounted, mounted, service_source
from tests.support.log_guard import LogGuard
from tests.support.port import Port
from tests.support.syntropic137_store import START_NS, add_file, add_run

pytestmark = pytest.mark.fuse

# Looks by themselves come after this, or never within a test.
SELDOM = ("--poll-interval", "600")
SOON_S = 40.0


@pytest.fixture(autouse=True)
def _servers_may_complain(expected_logs: LogGuard) -> None:
    """The tests' own servers break their answers on purpose, and say so."""
    expected_logs("Error in ASGI Framework", logger="hypercorn", level=logging.ERROR)


@pytest.fixture
def research(lab: Lab) -> Lab:
    """A workflow of Syntropic137 with one file."""
    lab.store.add_workflow("Research", workflow_id="wf-1", created_at_ns=START_NS)
    add_file(lab.store, "wf-1", "one.md", b"one")
    return lab


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)  # noqa: TID251 - no event loop here


def polling(mount: Mounted) -> dict[str, Any]:
    found: dict[str, Any] = ask(mount, verb="status")["sources"][0]["polling"]
    return found


def listens(mount: Mounted) -> None:
    until(lambda: polling(mount)["announcing"] == "listening", "it listens once somebody has looked")


def source(lab: Lab, url: str = "") -> dict[str, dict[str, object]]:
    base = lab.bases()["syntropic137"]
    return {"mine": service_source("syntropic137", base.replace(lab.url, url) if url else base)}


def names(directory: Path) -> set[str]:
    return set(os.listdir(directory)) - {"by-id", "latest"}


def test_a_run_shows_as_it_goes(research: Lab, tmp_path: Path) -> None:
    """Its directory when it begins, each output when it is made, without a look in between; and its end."""
    with mounted(tmp_path, source(research), *SELDOM) as mount:
        place = mount.path / "Research"
        assert names(place) == {"one.md"}
        listens(mount)
        run = add_run(research.store, "wf-1", 1, status="running")
        output = place / run.id / "plan/report.md"
        assert not (place / run.id).exists()
        add_file(research.store, "wf-1", "plan.md", b"plan", run=run, phase="plan")
        until((place / run.id).is_dir, "the run shows")
        # Only the stream of the run itself tells of this: nothing begins and nothing ends.
        until(lambda: any("/sse/executions/" in seen.path for seen in research.seen), "it listens to the run")
        time.sleep(2)  # noqa: TID251 - what was made before it listened is not told
        add_file(research.store, "wf-1", "report.md", b"report", run=run, phase="plan")
        until(output.exists, "what the run has made shows")
        assert output.read_bytes() == b"report"
        add_file(research.store, "wf-1", "last.md", b"last", run=run, phase="plan")
        ended = dataclasses.replace(run, status="completed", completed_at_ns=START_NS)
        research.store.add_run(ended)
        until(lambda: "last.md" in names(place / run.id / "plan"), "what was made last shows")


def test_runs_that_began_before_are_listened_to(research: Lab, tmp_path: Path) -> None:
    run = add_run(research.store, "wf-1", 1, status="running")
    add_file(research.store, "wf-1", "plan.md", b"plan", run=run, phase="plan")
    with mounted(tmp_path, source(research), *SELDOM) as mount:
        place = mount.path / "Research" / run.id / "plan"
        assert names(place) == {"plan.md"}
        until(lambda: any("/sse/executions/" in seen.path for seen in research.seen), "it listens to the run")
        time.sleep(2)  # noqa: TID251 - as above
        add_file(research.store, "wf-1", "report.md", b"report", run=run, phase="plan")
        until((place / "report.md").exists, "what the run has made shows")


def test_a_lost_stream_is_taken_up_again_and_what_was_missed_shows(research: Lab, tmp_path: Path) -> None:
    """With the pauses of a mount that looks every two seconds; until then its own looks go on."""
    port = Port()
    port.open(research.url)
    with mounted(tmp_path, source(research, port.url), "--poll-interval", "2") as mount:
        place = mount.path / "Research"
        assert names(place) == {"one.md"}
        listens(mount)
        port.close()
        until(lambda: polling(mount)["announcing"].startswith("not listening"), "it finds out")
        assert names(place) == {"one.md"}
        run = add_run(research.store, "wf-1", 1, status="running")
        add_file(research.store, "wf-1", "plan.md", b"plan", run=run, phase="plan")
        back = Port(port.address)
        back.open(research.url)
        try:
            until((place / run.id).is_dir, "what was missed shows")
            listens(mount)
        finally:
            back.close()


def test_a_server_without_streams_is_polled(research: Lab, tmp_path: Path) -> None:
    """A gateway answers what it does not know with its page; that is asked for seldom, and costs no failure."""
    research.fault("/sse/", status=200, body=b"<html>dashboard</html>", headers={"content-type": "text/html"})
    with mounted(tmp_path, source(research), "--poll-interval", "1") as mount:
        place = mount.path / "Research"
        assert names(place) == {"one.md"}
        until(lambda: any("/sse/" in seen.path for seen in research.seen), "it tries")
        add_file(research.store, "wf-1", "two.md", b"two")
        until((place / "two.md").exists, "it looks by itself")
        assert "not listening" in polling(mount)["announcing"]
        state = ask(mount, verb="status")["sources"][0]
        assert (state["state"], state["counters"]["failures"]) == ("ok", 0)
        assert len([seen for seen in research.seen if "/sse/" in seen.path]) <= 6


def test_an_open_stream_ends_with_the_mount_at_once(research: Lab, tmp_path: Path) -> None:
    """And while it is open all connections are there for others."""
    with mounted(tmp_path, source(research), *SELDOM) as mount:
        assert names(mount.path / "Research") == {"one.md"}
        add_run(research.store, "wf-1", 1, status="running")
        listens(mount)
        until(lambda: any("/sse/executions/" in seen.path for seen in research.seen), "two streams are open")
        began = time.monotonic()
        mount.artifactfs("umount", str(mount.path))
        assert time.monotonic() - began < 10
        seen = len(research.seen)
        time.sleep(2)  # noqa: TID251 - no event loop here
        assert len(research.seen) == seen
        mount.artifactfs("mount", str(mount.path), "--config", str(mount.home / "config.toml"))
