"""A mount that a signal ends publishes what waits first, for a bounded time; the rest is the next mount's."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

import pytest

from artifactfs.daemon.compose import FINISH_S
from tests.support.at_store import AtStore
from tests.support.control import ask
from tests.support.lab import Lab, mounted, service_source
from tests.support.log_guard import LogGuard
from tests.support.saving import flushed

pytestmark = pytest.mark.fuse

# Beyond what the end waits for saves: the process, and a machine that does other things.
SLACK_S = 25.0
# Nothing is published by itself meanwhile.
HOLD = ("--publish-delay", "600")


@pytest.fixture(autouse=True)
def _servers_may_complain(expected_logs: LogGuard) -> None:
    """What a service does not answer before the mount ends is an error of its server."""
    expected_logs("Error in ASGI Framework", logger="hypercorn", level=logging.ERROR)


@pytest.fixture
def research(lab: Lab) -> Lab:
    lab.store.add_workflow("research")
    return lab


def held(lab: Lab) -> dict[str, bytes | None]:
    """Return what the service has."""
    store = lab.store
    return {file.path: store.objects.read(file.now) for file in AtStore(store).files("research") if file.now}


def ended(pid: int) -> float:
    """Send SIGTERM; return after how many seconds the process is gone."""
    begin = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() - begin < FINISH_S + SLACK_S, "it does not end"
        time.sleep(0.05)  # noqa: TID251 - no event loop here
    return time.monotonic() - begin


def test_sigterm_publishes_what_waits(tmp_path: Path, research: Lab) -> None:
    """Before the process is gone: the service has it, and nothing is left to a next mount."""
    sources = {"work": service_source("syntropic137", research.bases()["syntropic137"])}
    with mounted(tmp_path, sources, *HOLD) as mount:
        for number in range(3):
            (mount.path / f"research/{number}.md").write_text(f"saved {number}")
        assert held(research) == {}
        ended(mount.status()["pid"])
        assert held(research) == {f"{number}.md": b"saved %d" % number for number in range(3)}
        mount.artifactfs("mount", str(mount.path), "--config", str(mount.home / "config.toml"))
        assert ask(mount, verb="pending")["pending"] == []


@pytest.mark.slow
def test_sigterm_waits_for_a_service_that_hangs_no_longer_than_it_may(tmp_path: Path, research: Lab) -> None:
    """And what could not be published is there for the next mount, which publishes it once."""
    sources = {"work": service_source("syntropic137", research.bases()["syntropic137"])}
    with mounted(tmp_path, sources, *HOLD) as mount:
        (mount.path / "research/kept.md").write_text("kept")
        research.fault("/artifacts", delay_s=120)
        ended(mount.status()["pid"])
        assert not os.path.ismount(mount.path)
        assert held(research) == {}
        research.heal()
        mount.artifactfs("mount", str(mount.path), "--config", str(mount.home / "config.toml"))
        assert (mount.path / "research/kept.md").read_text() == "kept"
        flushed(mount.path)
        assert held(research) == {"kept.md": b"kept"}
