"""The long run of `tests/support/fsx.py`: one file of a workflow, one of a tree, of a local store."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from tests.support.at_store import now_at
from tests.support.fsx import QUICKLY, Fsx
from tests.support.saving import local_mount, mount_again

PLACES = {"a workflow's file": "f.bin", "a tree's file": "t/d/f.bin"}


def fsx(base: Path, place: str, operations: int, seed: int) -> str:
    """Do random operations on a file; compare after each, after a remount and at the store.

    Raises:
        AssertionError: something differs; it names the seed and the last operations.
    """
    begun_at, below = time.monotonic(), PLACES[place]
    with local_mount(base, environ=QUICKLY) as mount:
        path = mount.path / "w" / below
        path.parent.mkdir(parents=True)
        path.touch()
        run = Fsx(path, seed)
        run.run(operations)
        mount.artifactfs("umount", str(mount.path))
        assert now_at(base / "store", "w", below) == bytes(run.model), run.told("the store has other bytes")
        mount_again(mount)
        run.compare(path.read_bytes(), 0)
    shutil.rmtree(base)
    return f"fsx, {place}: seed {seed}, {run.count} operations agree, {time.monotonic() - begun_at:.1f} s"
