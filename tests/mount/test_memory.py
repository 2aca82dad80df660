"""The memory of the process of a mount."""

from __future__ import annotations

import platform
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from artifactfs.store.catalog import Store
from tests.support.lab import mounted

pytestmark = pytest.mark.fuse
# Where glibc puts the heap of a thread.
HEAP = 64 << 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries have nothing to tune")
def test_the_threads_of_a_mount_have_no_heaps_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    with closing(Store(tmp_path / "store")) as store:
        store.add_workflow("w")
    with mounted(tmp_path, {"local": {"type": "local", "path": str(tmp_path / "store")}}) as mount:
        list(mount.path.rglob("*"))
        areas = [area.split() for area in Path(f"/proc/{mount.status()['pid']}/maps").read_text().splitlines()]
    spans = [(int(area[0].split("-")[0], 16), int(area[0].split("-")[1], 16), area[1]) for area in areas]
    assert spans
    # Such a heap begins at a multiple of its size, and what it does not use yet is kept from others.
    heaps = [
        hex(begin)
        for (begin, end, rights), (after, last, unused) in pairwise(spans)
        if rights[:2] == "rw" and begin % HEAP == 0 and end == after and unused[:2] == "--" and last == begin + HEAP
    ]
    assert not heaps
