"""Every byte of the demo's files arrives, on a cold mount, however a program reads."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.support import demo_tree
from tests.support.lab import Lab, mounted

pytestmark = pytest.mark.fuse


@pytest.mark.parametrize("way", sorted(demo_tree.WAYS))
def test_every_byte_is_the_stores(way: str, demo_lab: Lab, tmp_path: Path) -> None:
    """On a cold mount of all four sources, each way of reading finds exactly the store's files, bytes and sizes."""
    with mounted(tmp_path, demo_tree.sources(demo_lab), names=demo_tree.SERVICES) as mount:
        found = demo_tree.WAYS[way](mount, tmp_path)
    wanted = demo_tree.expected(demo_lab.store)
    assert len(found) > 2000
    assert demo_tree.shown(found) == wanted, demo_tree.differences(demo_tree.shown(found), wanted)


SIZES = {
    "wc -c": ["wc", "-c", "--"],
    "du -b": ["du", "-b", "--"],
    "stat": ["stat", "--format=%s %n", "--"],
    "ls -l": ["ls", "-l", "-U", "-N", "--"],
}


@pytest.mark.parametrize("command", sorted(SIZES))
def test_sizes_are_right_cold_where_the_service_says_none(command: str, demo_lab: Lab, tmp_path: Path) -> None:
    """The first command on a cold mount prints true sizes, though listings say nothing, or nothing that binds."""
    services = ("syntropic137", "vlmrun")
    with mounted(tmp_path, demo_tree.sources(demo_lab), names=services) as mount:
        paths = [path for path in demo_tree.files_below(mount.path) if not path.endswith("/response.json")]
        printed = mount.run(*SIZES[command], *paths).stdout
    lines = [line.split(None, 8 if command == "ls -l" else 1) for line in printed.splitlines()]
    column = 4 if command == "ls -l" else 0
    sizes = Counter((os.path.dirname(line[-1]), int(line[column])) for line in lines if line[-1] != "total")
    wanted: Counter[tuple[str, int]] = Counter()
    for (where, _, size), count in demo_tree.expected(demo_lab.store).items():
        if where.startswith(services):
            wanted[(where, size)] += count
    assert sizes == wanted, demo_tree.differences(sizes, wanted)
