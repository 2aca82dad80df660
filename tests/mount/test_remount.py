"""What is the same after a remount: inode numbers, times, names, and what was downloaded."""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import demo_tree
from tests.support.lab import Lab, Mounted, artifactfs, mounted
from tests.support.lab import Seen as Request

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


@dataclass
class Twice:
    """What two mounts of one home showed: names and attributes, sums of all bytes, and the requests of the second."""

    started_ns: int
    seen: tuple[Seen, Seen]
    sums: tuple[list[str], list[str]]
    requests: list[Request]


@pytest.fixture(scope="module")
def twice(demo_lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Twice:
    """Look at everything and read everything, unmount, mount again and do the same."""
    room, sources, started = tmp_path_factory.mktemp("twice"), demo_tree.sources(demo_lab), time.time_ns()
    read = ["find", ".", "-type", "f", "-exec", "cksum", "{}", "+"]
    with mounted(room, sources, names=demo_tree.SERVICES) as mount:
        first, sums = everything(mount), mount.run(*read).stdout
    with mounted(room, sources, names=demo_tree.SERVICES) as mount, demo_lab.counted() as requests:
        second, again = everything(mount), mount.run(*read).stdout
    return Twice(started, (first, second), (sorted(sums.splitlines()), sorted(again.splitlines())), requests)


def test_everything_is_the_same_after_a_remount(twice: Twice) -> None:
    """Inode numbers, mtimes and sizes are equal on the next mount, and no two things share a number."""
    first, second = twice.seen
    assert len(first) > 500
    assert {path: facts for path, facts in first.items() if second.get(path) != facts} == {}
    assert first.keys() == second.keys()
    numbers = Counter(facts[0] for facts in first.values())
    assert not {number: count for number, count in numbers.items() if count > 1}


def test_no_time_is_now(twice: Twice) -> None:
    """A file's time is the service's; what has none (sources, VM0's two roles, folders without runs) is first seen."""
    young = {path for path, (_, mtime_ns, _) in twice.seen[0].items() if mtime_ns > twice.started_ns}
    assert not [path for path in young if os.path.splitext(path)[1]]
    assert len(young) < 40


def test_what_was_read_is_served_from_disk_after_a_remount(twice: Twice) -> None:
    """Blocks and archive indexes outlive the mount: reading everything again gives the same and transfers nothing."""
    assert twice.sums[0] == twice.sums[1]
    # Lists are asked for anew, and the versions of the artifacts that were looked into; bytes are not.
    lists = (
        "/artifacts", "/volumes", "/workflows", "/sessions", "/artifacts/list", "/agent/executions", "/files",
        "/versions",
    )  # fmt: skip
    assert not [r for r in twice.requests if not r.path.endswith(lists) or r.path == "/vlmrun/v1/artifacts"]


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
