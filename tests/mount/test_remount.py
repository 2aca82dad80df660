"""What is the same after a remount: inode numbers, times, names, and what was downloaded."""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.support import demo_tree
from tests.support.lab import Lab, Mounted, artifactfs, mounted

pytestmark = pytest.mark.fuse

Seen = dict[str, tuple[int, int, int]]


def everything(mount: Mounted) -> Seen:
    """Return inode number, mtime and size of everything that is listed, and of an artifact's versions."""
    found: Seen = {}
    roots = [mount.path]
    for service, workflow in (("vm0", "artifacts"), ("local", "site-audit"), ("syntropic137", "product-docs")):
        shelf = mount.path / service / workflow / ".artifacts"
        roots.append(shelf / min(os.listdir(shelf)))
    for root in roots:
        for where, folders, names in os.walk(root):
            if where.endswith("crawl-2026-05/pages"):
                folders[:] = sorted(folders)[:5]
            for path in (where, *(os.path.join(where, name) for name in (*names, *folders))):
                at = os.lstat(path)
                found[os.path.relpath(path, mount.path)] = (at.st_ino, at.st_mtime_ns, at.st_size)
    return found


def test_everything_is_the_same_after_a_remount(demo_lab: Lab, tmp_path: Path) -> None:
    """Inode numbers, mtimes and sizes are equal on the next mount, numbers differ between things, no time is now.

    The second mount downloads no content at all.
    """
    sources, started = demo_tree.sources(demo_lab), time.time_ns()
    with mounted(tmp_path, sources, names=demo_tree.SERVICES) as mount:
        first = everything(mount)
    with mounted(tmp_path, sources, names=demo_tree.SERVICES) as mount, demo_lab.counted() as requests:
        second = everything(mount)
    assert len(first) > 500
    assert {path: facts for path, facts in first.items() if second.get(path) != facts} == {}
    assert first == second
    numbers = Counter(facts[0] for facts in first.values())
    assert not {number: count for number, count in numbers.items() if count > 1}
    young = {path for path, (_, mtime_ns, _) in first.items() if mtime_ns > started}
    # What no service gives a time has that of the first mount: sources, VM0's two roles, folders without runs.
    assert not [path for path in young if os.path.splitext(path)[1]]
    assert len(young) < 40
    assert not [r.path for r in requests if r.path.endswith(("/content", "/archive.tar.gz")) or "/objects/" in r.path]


def test_what_was_read_is_served_from_disk_after_a_remount(demo_lab: Lab, tmp_path: Path) -> None:
    """Blocks and archive indexes outlive the mount: reading everything again transfers nothing."""
    sources = demo_tree.sources(demo_lab)
    with mounted(tmp_path, sources, names=("vm0", "vlmrun", "syntropic137")) as mount:
        first = mount.run("find", ".", "-type", "f", "-exec", "cksum", "{}", "+").stdout
    with mounted(tmp_path, sources, names=("vm0", "vlmrun", "syntropic137")) as mount, demo_lab.counted() as requests:
        second = mount.run("find", ".", "-type", "f", "-exec", "cksum", "{}", "+").stdout
    assert sorted(first.splitlines()) == sorted(second.splitlines())
    lists = ("/artifacts", "/volumes", "/workflows", "/sessions", "/artifacts/list", "/agent/executions", "/files")
    bytes_of = [r for r in requests if not r.path.endswith(lists) or r.path == "/vlmrun/v1/artifacts"]
    assert not bytes_of


def test_two_mounts_share_one_cache(demo_lab: Lab, tmp_path: Path) -> None:
    """A second mount of the same account at the same time reads what the first one fetched, and both go on."""
    sources = demo_tree.sources(demo_lab)
    with mounted(tmp_path, sources, names=("vm0",)) as mount:
        assert mount.run("grep", "-rc", "", "artifacts/crawl-2026-05/pages/00").stdout
        place = tmp_path / "second"
        artifactfs(mount.environ, "mount", str(place), "vm0", "--config", str(mount.home / "config.toml"))
        try:
            with demo_lab.counted() as requests:
                done = subprocess.run(
                    ["diff", "-r", "--no-dereference", mount.path / "artifacts", place / "artifacts"], check=False
                )
            assert done.returncode == 0
        finally:
            artifactfs(mount.environ, "umount", str(place))
        # Only the other tree, which neither had entered, was downloaded; by one or both.
        assert len([r for r in requests if r.path.endswith("archive.tar.gz")]) <= 2
        assert mount.run("ls", "volumes").stdout
