"""Many artifacts: what a walk over all of them costs in memory and requests."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from artifactfs.vfs.known import MAX_ENTRIES
from tests.support.lab import Mounted, mounted
from tests.support.many import PAGE, Many
from tests.torture.many import MIB, many

pytestmark = pytest.mark.fuse

# `ARTIFACTFS_TEST_WORKFLOWS=1000` walks over a million; takes minutes.
WORKFLOWS = int(os.environ.get("ARTIFACTFS_TEST_WORKFLOWS", "50"))
EACH = 1000
# Of a listing in memory with all it holds, and of a node that the kernel holds besides (measured: 1.7 and 1.4 kB).
KNOWN_BYTES, HELD_BYTES = 2600, 2200
# The interpreter, its libraries and what they keep: 56 MB before the first look (measured).
BASE_BYTES = 75 << 20


def memory(mount: Mounted, pid: int) -> int:
    """Return the resident memory of the mount's process, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024


def walk(mount: Mounted) -> int:
    """Return how many names `find` shows."""
    return len(mount.run("find", ".", timeout=1200).stdout.splitlines())


@pytest.mark.timeout(1800)
def test_a_walk_over_many_artifacts_is_bounded_and_free_the_second_time(tmp_path: Path) -> None:
    """Memory holds the latest listings and what the kernel holds, no more; a restart walks without a request."""
    expected = WORKFLOWS * (EACH + 2) + 1  # each with its folder and `by-id`
    with Many(WORKFLOWS, EACH) as many:
        source = {"type": "syntropic137", "url": many.url, "token-env": "LAB_TOKEN", "requests-per-minute": 10**7}
        with mounted(tmp_path, {"many": source}) as mount:
            assert walk(mount) == expected
        asked = many.requests
        assert asked <= WORKFLOWS * (EACH // 200 + 2) + WORKFLOWS
        with mounted(tmp_path, {"many": source}) as mount:
            status = mount.status()
            pid = status["pid"]
            assert walk(mount) == expected
            assert many.requests == asked
            status = mount.status()
            shown = sum(1 + EACH for source in status["sources"] for _ in source["listings"])
            assert shown <= MAX_ENTRIES + 2 * EACH
            bound = BASE_BYTES + MAX_ENTRIES * KNOWN_BYTES + status["inodes"] * HELD_BYTES
            assert memory(mount, pid) < bound
            # What fell out of memory is read from disk again.
            first = mount.path / "Workflow number 0"
            assert len(os.listdir(first)) == EACH + 1
            assert many.requests == asked
            if os.getuid() == 0:
                Path("/proc/sys/vm/drop_caches").write_text("2\n")
                deadline = time.monotonic() + 30
                while mount.status()["inodes"] > WORKFLOWS + 1000:
                    assert time.monotonic() < deadline, "what the kernel forgets should not be kept"
                    time.sleep(0.2)  # noqa: TID251 - no event loop here


def test_an_absent_name_beside_many_is_quick(tmp_path: Path) -> None:
    """A complete listing answers for it without a request, and without going through all the names."""
    with Many(1, 5 * EACH) as many:
        source = {"type": "syntropic137", "url": many.url, "token-env": "LAB_TOKEN", "requests-per-minute": 10**7}
        with mounted(tmp_path, {"many": source}) as mount:
            top = mount.path / "Workflow number 0"
            assert len(os.listdir(top)) == 5 * EACH + 1
            asked = many.requests
            names = [str(top / f"no such name {n}") for n in range(500)]
            begin = time.monotonic()
            done = subprocess.run(["stat", *names], capture_output=True, text=True, check=False)
            assert done.stderr.count("No such file") == len(names)
            # 500 look-ups in 5,000 names; assigning the names of all ids for each took minutes.
            assert time.monotonic() - begin < 20
            assert many.requests == asked


@pytest.mark.slow
@pytest.mark.parametrize(("service", "artifacts"), [("syntropic137", 20_000), ("local", 10_000)])
def test_one_directory_of_many_is_bounded_for_each_entry(
    tmp_path_factory: pytest.TempPathFactory, service: str, artifacts: int
) -> None:
    """`scripts/torture many` with fewer: memory and requests for each, none the second time, inodes given back."""
    found = many(tmp_path_factory.mktemp("m"), service=service, folders=1, artifacts=artifacts)
    empty, first, last = found["beside alone"], found["first ls -f"], found["two finds at once"]
    # Measured: 2,400 bytes an entry of Syntropic137, 3,700 of a store, which gives more about each.
    assert (first["peak_mb"] - empty["rss_mb"]) * MIB < artifacts * 6000
    # A walk a minute after the first one may have the listing asked for again, and both in memory for a moment.
    assert (last["peak_mb"] - empty["rss_mb"]) * MIB < artifacts * 10_000
    assert first["requests"] <= artifacts // PAGE + 3 if service == "syntropic137" else first["requests"] == 0
    assert found["restarted: first ls -f"]["inodes"] < artifacts + 100
    if os.getuid() == 0:
        assert found["the kernel forgets"]["lookups"] < 200 + artifacts // 100
    # 0.06 s on a quiet machine; what goes through all entries at once took 0.2 s there, and seconds beside others.
    assert max(step["longest_wait_ms"] for step in found.values()) < 3000
    if service == "local":
        # A quarter of a second; to list 10,000 anew for each of 40 took 2.5 s.
        assert found["cp of 40 files"]["seconds"] < 2.5 + 10 * empty["median_wait_ms"] / 1000
