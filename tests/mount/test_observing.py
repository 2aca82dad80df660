"""What a running mount tells of itself: numbers, log lines by operation, and how much of them, changed at run time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.control import ask
from tests.support.lab import Lab, Mounted, mounted, service_source
from tests.support.metrics import Labels, parsed

pytestmark = pytest.mark.fuse

SERVICE = "syntropic137"


@pytest.fixture
def lab(lab: Lab) -> Lab:
    lab.store.add_workflow("market-research")
    return lab


def source(lab: Lab) -> dict[str, dict[str, object]]:
    return {"work": service_source(SERVICE, lab.bases()[SERVICE])}


def records(mount: Mounted) -> list[dict[str, Any]]:
    """Return the log's records; each line is one."""
    return [json.loads(line) for line in mount.log_text().splitlines()]


def eventually(is_so: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)  # noqa: TID251 - no event loop here


def has_level(mount: Mounted, level: str) -> bool:
    return bool(ask(mount, verb="status")["log"]["level"] == level)


def test_all_lines_of_an_operation_have_its_id(tmp_path: Path, lab: Lab) -> None:
    """A look into a directory, and the requests that it caused; saving a file and publishing it are two things."""
    extra = 'log-level = "debug"\n[log]\nformat = "json"'
    with mounted(tmp_path, source(lab), extra_config=extra) as mount:
        with lab.counted() as sent:
            os.listdir(mount.path)
        found = records(mount)
        looked = [one for one in found if one.get("operation") == "opendir" and one.get("path") == "/"]
        assert looked[-1]["ino"] == 1
        assert looked[-1]["pid"] == os.getpid()
        caused = [one["request"] for one in found if one.get("id") == looked[-1]["id"] and "request" in one]
        assert len(caused) == len(sent) > 0
        assert {(one["source"], one["method"], one["status"]) for one in caused} == {("work", "GET", "200")}
        assert all(one["ms"] > 0 and "?" not in one["url"] for one in caused)
        (mount.path / "market-research/new.md").write_text("new")
        mount.artifactfs("flush", str(mount.path))
        found = records(mount)
        published = {one["id"] for one in found if one.get("operation") == "publish"}
        assert len(published) == 1
        (posted,) = [one for one in found if one.get("request", {}).get("method") == "POST"]
        assert {posted["id"]} == published
        assert posted["path"].endswith("/new.md")
        assert published.isdisjoint(one["id"] for one in found if one.get("operation") == "create")


def test_a_failed_request_is_found_by_its_id(tmp_path: Path, lab: Lab) -> None:
    """The service's own id of it, the status, and the errno that came of it."""
    with mounted(tmp_path, source(lab), "--log-level", "debug") as mount:
        lab.fault("", status=403, headers={"x-request-id": "req-\x1b[31m7"})
        with pytest.raises(PermissionError):
            os.listdir(mount.path)
        lines = mount.log_text().splitlines()
        (line,) = [line for line in lines if "-> EACCES" in line]
        number = line.partition("[")[2].split()[0]
        caused = [line for line in lines if f"[{number} opendir" in line]
        assert any("status 403 after" in line for line in caused)
        assert all(line.isprintable() for line in lines)


def test_the_log_level_changes_at_once(tmp_path: Path, lab: Lab) -> None:
    """By a command, which says no to what is none, and by signals; status shows it."""
    with mounted(tmp_path, source(lab)) as mount:

        def logged() -> int:
            before = mount.log_text().count("DEBUG")
            os.stat(mount.path)
            os.listdir(mount.path)
            return mount.log_text().count("DEBUG") - before

        assert mount.status()["log"]["level"] == "info"
        assert logged() == 0
        said = mount.artifactfs("set", "--log-level", "debug", str(mount.path)).stdout
        (file,) = mount.home.glob(".local/state/artifactfs/log/*.log")
        assert said == f"{mount.path} logs debug to {file}\n"
        assert mount.status()["log"] == {"level": "debug", "format": "text", "file": str(file)}
        assert f"logs debug to {file}" in mount.artifactfs("status", str(mount.path)).stdout
        assert logged() > 0
        mount.artifactfs("set", "--log-level", "warning", str(mount.path / "market-research"))
        assert logged() == 0
        assert mount.artifactfs("set", "--log-level", "loud", str(mount.path), check=False).returncode == 2
        pid = mount.status()["pid"]
        for number, level in ((signal.SIGUSR1, "debug"), (signal.SIGUSR2, "info")):
            os.kill(pid, number)
            eventually(partial(has_level, mount, level))
        with pytest.raises(KeyError):
            ask(mount, verb="set", log_level=["debug"])


def test_the_numbers_are_true_wherever_they_are_read(tmp_path: Path, lab: Lab) -> None:
    """The file in the mount and the socket give what Prometheus reads; requests, handles, look-ups, bytes to save."""
    with mounted(tmp_path, source(lab), "--publish-delay", "600", "--poll-interval", "30") as mount:
        where = mount.status()["metrics"]
        assert where.startswith(f"unix:{mount.home}/run/artifactfs/")
        name = frozenset({("source", "work")})
        os.listdir(mount.path)
        (mount.path / "market-research/new.md").write_text("12345")
        with (mount.path / "market-research/new.md").open("rb"):
            found = agreeing(lab, where)
        assert found["artifactfs_requests_total"][name] > 0
        assert found["artifactfs_dirty_bytes"][name] == 5
        assert found["artifactfs_pending_changes"][name] == 1
        assert found["artifactfs_source_up"][name] == 1
        assert found["artifactfs_circuit_open"][name] == 0
        assert found["artifactfs_pool_slots"][name] == 32
        assert found["artifactfs_listings"][name] >= 1
        assert found["artifactfs_looks_total"][name] >= 0
        assert found["artifactfs_looks_failed"][name] == 0
        assert found["artifactfs_listings_watched"][name] >= 1
        assert name in found["artifactfs_announcing"]
        assert found["artifactfs_loop_stalls_total"] == {frozenset(): 0}
        (handles,) = found["artifactfs_open_handles"].values()
        assert handles == 1
        (lookups,) = found["artifactfs_kernel_lookups"].values()
        (inodes,) = found["artifactfs_inodes"].values()
        assert lookups >= inodes >= 3
        (fds,) = found["process_open_fds"].values()
        assert abs(fds - len(os.listdir(f"/proc/{mount.status()['pid']}/fd"))) <= 3
        assert {"opendir", "create", "write"} <= {
            dict(labels)["operation"] for labels in found["artifactfs_operation_duration_seconds_count"]
        }
        inside = parsed((mount.path / ".artifactfs/metrics").read_text())
        assert inside.keys() >= found.keys()
        lab.fault("", status=500)
        with pytest.raises(OSError, match="Input/output error"):
            os.stat(mount.path / "market-research/by-id/3f2b8c1e-9d4a-4c55-8b1a-0e6d7f9a1b2c")
        failed = parsed(fetched(where))
        assert failed["artifactfs_failures_total"][name] >= 1
        assert failed["artifactfs_source_up"][name] == 0
        assert sum(failed["artifactfs_operation_errors_total"].values()) >= 1
        lab.heal()


def agreeing(lab: Lab, where: str) -> dict[str, dict[Labels, float]]:
    """Return the numbers of a moment at which they say what the service has seen: the mount asks by itself, too."""
    end = time.monotonic() + 30
    while True:
        before, found = len(lab.seen), parsed(fetched(where))
        counters = (
            "artifactfs_requests_total",
            "artifactfs_answers_total",
            "artifactfs_request_duration_seconds_count",
        )
        told = {name: sum(found[name].values()) for name in counters}
        if {*told.values(), len(lab.seen)} == {before}:
            return found
        assert time.monotonic() < end, (told, before)
        time.sleep(0.2)  # noqa: TID251 - no event loop here


def fetched(where: str) -> str:
    """Return what curl gets."""
    done = subprocess.run(
        ["curl", "-sf", "--unix-socket", where.removeprefix("unix:"), "http://x/metrics"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout


def test_the_numbers_can_be_on_loopback_or_nowhere(tmp_path: Path) -> None:
    """As configured; the address that is free is told."""
    local = {"mine": {"type": "local", "path": str(tmp_path / "store")}}
    with mounted(tmp_path, local, extra_config='[metrics]\nlisten = "127.0.0.1:0"') as mount:
        where = mount.status()["metrics"]
        done = subprocess.run(["curl", "-sf", where], capture_output=True, text=True, check=True, timeout=60)
        assert parsed(done.stdout)["artifactfs_build_info"]
        assert not list(mount.home.glob("run/artifactfs/*.prom"))
    with mounted(tmp_path, local, extra_config='[metrics]\nlisten = ""') as mount:
        assert mount.status()["metrics"] is None
        assert not list(mount.home.glob("run/artifactfs/*.prom"))


def test_a_log_does_not_fill_the_disk(tmp_path: Path) -> None:
    """However much there is to say: the file and the one before it."""
    local = {"mine": {"type": "local", "path": str(tmp_path / "store")}}
    with mounted(tmp_path, local, "--log-level", "debug", extra_config='[log]\nmax-size = "16KiB"') as mount:
        for _ in range(300):
            os.statvfs(mount.path)
        files = sorted(mount.home.glob(".local/state/artifactfs/log/*"))
        assert len(files) == 2
        assert all(1000 < file.stat().st_size <= 16 << 10 for file in files)
        assert "statfs" in files[0].read_text().splitlines()[-1]
