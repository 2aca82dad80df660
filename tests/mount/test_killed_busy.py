"""A mount that is killed in the one moment that the kernel does not notice: it can be mounted again all the same."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from artifactfs.store.catalog import Store
from tests.support.lab import Mounted
from tests.support.saving import local_mount, mount_again
from tests.torture.writers import Ended, Gate

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

FILES = 20
# About every third kill hits it.
KILLS = 10


@contextlib.contextmanager
def both_write(folder: Path, store: Store) -> Iterator[Gate]:
    """Have names made and removed through the mount while the gate is open, and others changed at the store always."""
    gate, over = Gate(), threading.Event()
    (workflow,) = store.workflows()
    others = [store.add_artifact(workflow.id, f"x{number}", "file").id for number in range(FILES)]
    contents = [store.objects.put(str(number).encode()) for number in range(50)]

    def make(own: str) -> None:
        with contextlib.suppress(Ended):
            while True:
                with gate.passing(), contextlib.suppress(OSError):
                    (folder / own).write_text("x")
                    for number in range(FILES):
                        os.stat(folder / f"x{number}")
                    os.listdir(folder)
                    (folder / own).unlink()

    def change() -> None:
        for number in range(1_000_000):
            if over.wait(0.002):
                return
            store.save_file(others[number % FILES], contents[number % 50], 2)

    threads = [threading.Thread(target=make, args=(name,), daemon=True) for name in ("a", "b", "c")]
    threads.append(threading.Thread(target=change, daemon=True))
    for thread in threads:
        thread.start()
    try:
        yield gate
    finally:
        gate.end()
        over.set()
        for thread in threads:
            thread.join(10)


def killed_at_once(mount: Mounted, pid: int, gate: Gate) -> bool:
    """Kill the process of a mount; tell whether somebody goes on waiting for it."""
    os.kill(pid, signal.SIGKILL)
    return not gate.close(2)


def test_a_mount_killed_while_it_tells_of_a_change_is_mounted_again(tmp_path_factory: pytest.TempPathFactory):
    """Its thread waits in the kernel for a directory, whose lock a program holds that waits for the mount's answer."""
    tmp_path = tmp_path_factory.mktemp("b")
    store = Store(tmp_path / "store")
    store.add_workflow("w")
    with local_mount(tmp_path) as mount, both_write(mount.path / "w", store) as gate:
        try:
            for _ in range(KILLS):
                pid = int(mount.status()["pid"])
                gate.open()
                time.sleep(0.5)  # noqa: TID251 - a moment in the middle of the work
                hangs = killed_at_once(mount, pid, gate)
                mount_again(mount)
                assert gate.close(20), "who waited for the mount still does"
                if hangs:
                    break
        except BaseException:
            subprocess.run(["umount", "-l", "-f", str(mount.path)], check=False)  # sets free who waits
            raise
    store.close()
