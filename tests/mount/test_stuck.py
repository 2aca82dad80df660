"""A mount whose event loop does not come round: its watchdog says where, and the mount goes on once it can."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.control import ask
from tests.support.lab import Lab, Mounted, environment, service_source, write_config
from tests.support.log_guard import LogGuard

pytestmark = pytest.mark.fuse

# What a defect could do. The watchdog of this copy is less patient, so that a test need not be.
DEFECT = """

async def _hangs_here(self, request, *, sent=send_of_a_pool):
    if not getattr(self, "hung", False):
        self.hung = True
        time.sleep(3.0)
    return await sent(self, request)
Pool.send = _hangs_here
"""


def test_a_stuck_loop_of_a_mount_is_told_of_with_its_place(tmp_path: Path, lab: Lab, expected_logs: LogGuard) -> None:
    """In the log, by status and in the numbers; who waited gets the answer."""
    seen = expected_logs(logger="artifactfs.daemon.watchdog")  # each line of a stack
    lab.store.add_workflow("research")
    package = tmp_path / "broken/artifactfs"
    shutil.copytree(Path(__file__).parents[2] / "artifactfs", package)
    with (package / "providers/connections.py").open("a") as file:
        file.write(f"\nimport time\nsend_of_a_pool = Pool.send\n{DEFECT}")
    with (package / "daemon/watchdog.py").open("a") as file:
        file.write("\nSTUCK_S = 1.0\n")
    environ = environment(tmp_path / "home", LAB_TOKEN="x")
    sources = {"work": service_source("syntropic137", lab.bases()["syntropic137"])}
    config, place = str(write_config(tmp_path / "home", sources)), tmp_path / "mnt"
    mount = Mounted(place, tmp_path / "home", environ)

    def ours(*arguments: str) -> None:
        command = [sys.executable, "-m", "artifactfs", *arguments]
        subprocess.run(command, env=environ, cwd=package.parent, capture_output=True, check=True, timeout=60)

    ours("mount", str(place), "--config", config)
    try:
        assert os.listdir(place) == ["research"]
        loop = ask(mount, verb="status")["loop"]
        assert loop["stalls"] >= 1
        assert "artifactfs_loop_stalls_total 0\n" not in (place / ".artifactfs/metrics").read_text()
    finally:
        ours("umount", str(place))
    log = mount.log_text()
    assert "the event loop is stuck" in log
    assert "in _hangs_here" in log
    expected_logs.read_mounts()
    assert any("is stuck" in record.getMessage() for record in seen.seen)
