"""A cache that was emptied, is full, or is shared: what it costs, and that every read is right."""

from __future__ import annotations

import logging
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support import demo_tree
from tests.support.lab import Lab, Mounted, artifactfs, mounted
from tests.support.log_guard import LogGuard
from tests.support.tiny_disk import tiny

pytestmark = pytest.mark.fuse

REMOTE = ("vm0", "syntropic137", "vlmrun")
CRAWL = "vm0/artifacts/crawl-2026-05"
READ_ALL = ("find", ".", "-type", "f", "-exec", "sha256sum", "{}", "+")


@pytest.fixture(autouse=True)
def _servers_may_complain(expected_logs: LogGuard) -> None:
    """Readers that end early cut their connections."""
    expected_logs("Error in ASGI Framework", logger="hypercorn", level=logging.ERROR)


def remote(lab: Lab) -> dict[str, dict[str, object]]:
    return {name: source for name, source in demo_tree.sources(lab).items() if name in REMOTE}


def sums(mount: Mounted) -> list[str]:
    """Return the SHA-256 of every file, sorted by path."""
    return sorted(mount.run(*READ_ALL).stdout.splitlines(), key=lambda line: line.split("  ", 1)[1])


def test_after_eviction_each_content_is_asked_for_once(own_demo: Lab, tmp_path: Path) -> None:
    """Names are known, so nothing is listed; of VM0 each archive comes once more, of the others each file."""
    with mounted(tmp_path, remote(own_demo), "--all") as mount:
        before = sums(mount)
        assert artifactfs(mount.environ, "cache", "clear", "--pinned").returncode == 0
    with mounted(tmp_path, remote(own_demo), "--all") as mount, own_demo.counted() as requests:
        assert sums(mount) == before
    asked = Counter((r.path, r.query, r.headers.get("range", "")) for r in requests)
    assert [what for what, times in asked.items() if times > 1] == []
    archives = [r for r in requests if r.path.endswith(".tar.gz")]
    assert len({r.path for r in archives}) == 4  # two artifacts and two volumes of the demo
    of_vm0 = [r for r in requests if "vm0" in r.path]
    # The service leads to the storage; one more each if an archive is asked for by ranges first.
    assert len(of_vm0) <= 4 * len({r.path for r in archives})
    # Two files with the same bytes are one content, also where another service has the other.
    own = {line.split()[0] for line in before if "  ./syntropic137/" in line}
    shared = own & {line.split()[0] for line in before if "  ./syntropic137/" not in line}
    assert len(own - shared) <= len([r for r in requests if r.path.endswith("/content")]) <= len(own)
    # An object is one request (a large one its ranges), a file of `files/` is asked for its address first.
    of_vlmrun = {r.path + r.query for r in requests if "/vlmrun" in r.path}
    assert 0 < len(of_vlmrun) <= 2 * len([line for line in before if "  ./vlmrun/" in line])


def test_a_disk_that_is_full_costs_requests_and_nothing_else(
    own_demo: Lab, tmp_path: Path, expected_logs: LogGuard
) -> None:
    """A cache on a disk of 8 MiB: reads of 64 MB and of thousands of files are right, again and again."""
    expected_logs("in memory only|listings cannot be kept")
    with tiny(tmp_path / "disk", 8) as disk:
        extra = f'[cache]\ndir = "{disk}"\nmin-free = "0B"\n'
        with mounted(tmp_path, remote(own_demo), "--all", extra_config=extra) as mount:
            first = sums(mount)
            assert len(first) > 2000
            assert sums(mount) == first
            # What the kernel keeps must not hide what the cache gives.
            pids = [subprocess.Popen(["cat", mount.path / line.split("  ", 1)[1]], stdout=subprocess.DEVNULL)
                    for line in first[:40]]  # fmt: skip
            assert [process.wait(60) for process in pids] == [0] * len(pids)
    elsewhere = tmp_path / "e"
    elsewhere.mkdir()
    with mounted(elsewhere, remote(own_demo), "--all") as mount:
        assert sums(mount) == first


def test_two_mounts_fill_one_cache_at_once(own_demo: Lab, tmp_path: Path) -> None:
    """Both read the same versions at the same time and see the same bytes; what one has brought serves both."""
    with mounted(tmp_path, remote(own_demo), "--all") as first:
        place = tmp_path / "second"
        config = first.home / "config.toml"
        assert artifactfs(first.environ, "mount", str(place), "--all", "--config", str(config)).returncode == 0
        try:
            second = Mounted(place, first.home, first.environ)
            with ThreadPoolExecutor() as pool:
                one, other = pool.map(sums, (first, second))
            assert one == other
            assert len(one) > 2000
            shown = artifactfs(first.environ, "cache", "check", "--config", str(config))
            assert shown.returncode == 0, shown.stdout + shown.stderr
        finally:
            assert artifactfs(first.environ, "umount", str(place)).returncode == 0
