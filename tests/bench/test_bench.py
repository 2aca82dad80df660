"""The benchmark itself, run as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from artifactfs.bench import network, processes
from tests.support.lab import artifactfs, environment

# A small tree, two services, one round; machines are slow sometimes.
RUN_S = 400.0


def mounts_below(directory: Path) -> list[str]:
    places = (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())
    return [place for place in places if place.startswith(f"{directory}/")]


@pytest.mark.fuse
@pytest.mark.slow
@pytest.mark.timeout(RUN_S + 60)
@pytest.mark.parametrize("service", ["syntropic137", "vm0"])
def test_a_quick_run_measures_requests_and_seconds_and_leaves_nothing_behind(tmp_path: Path, service: str) -> None:
    env = environment(tmp_path / "home", TMPDIR=str(tmp_path))
    can_delay = network.lacks() is None
    done = artifactfs(
        env, "bench", "--quick", "--rtt", "20" if can_delay else "0", "--only", service,
        "--phases", "walk,grep all", "--json", str(tmp_path / "out.json"), "--svg", str(tmp_path / "out.svg"),
        timeout=RUN_S,
    )  # fmt: skip
    report = json.loads((tmp_path / "out.json").read_text())
    rtt_ms = 20.0 if can_delay else 0.0
    assert report["problems"] == []
    assert report["rtts_ms"] == [rtt_ms]
    rows = {(row["contender"], row["task"]): row for row in report["rows"]}
    mount = f"artifactfs {service}"
    for task in ("ls warm", "find warm", "grep all warm", "grep all restart"):
        assert rows[mount, task]["requests"] == 0, task
    cold = rows[mount, "grep all cold"]
    # One archive, or a request for each of 200 files; a listing or two.
    assert 1 <= cold["requests"] < (10 if service == "vm0" else 300)
    assert cold["received_bytes"] > 0
    assert cold["cpu_s"] > 0
    assert 10 < cold["rss_mib"] < 2000
    if can_delay:
        assert cold["wall_s"] >= 0.02  # one round trip at least: the link does delay
    assert all(row["wall_s"] > 0 for row in report["rows"])
    assert {row["aim"] for row in report["aims"]} >= {"cold `ls -lR`", "RSS of the daemon, most"}
    assert "warm `ls -lR`" in done.stdout
    assert (tmp_path / "out.svg").read_text().startswith("<svg")
    assert mounts_below(tmp_path) == []
    assert not list(tmp_path.glob("artifactfs-bench-*"))


@pytest.mark.fuse
@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_unmounts_and_removes_everything(tmp_path: Path, how: signal.Signals) -> None:
    env = environment(tmp_path / "home", TMPDIR=str(tmp_path))
    process = subprocess.Popen(
        [sys.executable, "-m", "artifactfs", "bench", "--quick", "--rtt", "0", "--only", "vm0"],
        env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "trying artifactfs" in line:
            break
    until = time.monotonic() + 60
    while not mounts_below(tmp_path) and time.monotonic() < until:
        processes.pause(0.05)
    process.send_signal(how)
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert mounts_below(tmp_path) == []
    assert not list(tmp_path.glob("artifactfs-bench-*"))


def test_a_path_is_read_twice_and_not_changed(tmp_path: Path) -> None:
    place = tmp_path / "place"
    (place / "below").mkdir(parents=True)
    (place / "below/small.txt").write_text("words\n")
    (place / "large.bin").write_bytes(os.urandom(2 << 20))
    before = sorted((path, path.stat().st_mtime_ns) for path in place.rglob("*"))
    env = environment(tmp_path / "home")
    done = artifactfs(env, "bench", str(place), "--json", str(tmp_path / "out.json"))
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["files"], report["bytes"]) == (2, (2 << 20) + 6)
    tasks = [row["task"] for row in report["rows"] if row["pass"] == "again"]
    assert tasks == ["find", "ls -lR", "grep -r", "tar c", "read of the largest file", "random 4 KiB in it"]
    assert all(row["wall_s"] > 0 and "requests" not in row for row in report["rows"])  # it is in no mount
    assert "nothing is written there" in done.stdout
    assert sorted((path, path.stat().st_mtime_ns) for path in place.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments", [["--rtt", "soon"], ["--peers", "floppy"], ["--phases", "lunch"], ["--from", "nowhere.json"]]
)
def test_what_makes_no_sense_is_said_and_nothing_is_run(tmp_path: Path, arguments: list[str]) -> None:
    done = artifactfs(environment(tmp_path / "home"), "bench", *arguments, check=False)
    assert done.returncode == 1
    assert arguments[1] in done.stderr
    assert "making" not in done.stdout
