"""Many readers at once while a service fails at random: nobody hangs, and nobody sees a wrong byte."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from artifactfs.store.catalog import Store
from tests.support.control import ask
from tests.support.lab import Fault, Lab, Mounted, mounted, service_source
from tests.support.log_guard import LogGuard

pytestmark = pytest.mark.fuse


@pytest.fixture(autouse=True)
def _servers_may_complain(expected_logs: LogGuard) -> None:
    """The tests' own servers break their answers on purpose, and say so."""
    expected_logs("Error in ASGI Framework", logger="hypercorn", level=logging.ERROR)


SERVICES = ("vm0", "syntropic137", "vlmrun")
# What passes, in the ways it comes; chosen by lot for each request.
TROUBLES: tuple[dict[str, object], ...] = (
    {"status": 500},
    {"status": 503, "headers": {"retry-after": "1"}},
    {"status": 429, "headers": {"retry-after": "1"}},
    {"status": 502, "body": b"<html>", "headers": {"content-type": "text/html"}},
    {"cut_after": 0},
    {"cut_after": 700},
    {"cut_after": 70_000},
    {"delay_s": 0.3},
)
# What a reader may be told; and never ENOENT of what was listed, ESTALE, or half a file.
ALLOWED = {errno.EIO, errno.ETIMEDOUT, errno.EHOSTUNREACH}


@pytest.fixture
def unlucky(demo_lab: Lab) -> Iterator[Lab]:
    with Lab(Store(demo_lab.store.root)) as lab:
        yield lab


def stir(lab: Lab, stop: threading.Event, seed: int) -> None:
    """Change every few milliseconds what the next requests meet: mostly nothing."""
    lot = random.Random(seed)
    while not stop.wait(0.01):
        lab.faults[:] = [Fault(".", **lot.choice(TROUBLES), times=1)] if lot.randrange(3) == 0 else []  # type: ignore[arg-type]  # of a table
    lab.faults[:] = []


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sources(lab: Lab) -> dict[str, dict[str, object]]:
    return {s: service_source(s, lab.bases()[s], **{"allow-private-urls": True}) for s in SERVICES}


def wait_for(mount: Mounted) -> list[Path]:
    """Return all files of the mount, found while nothing is wrong; a 64 MB video is left out."""
    done = mount.run("find", ".", "-type", "f", "-size", "-8M", "-print0", timeout=100)
    return [mount.path / name for name in done.stdout.split("\0") if name and "site-audit" not in name]


def test_fifty_readers_and_a_service_that_fails_at_random(tmp_path: Path, demo_lab: Lab, unlucky: Lab) -> None:
    """Each read is the whole file or an error; what failed is right when it is read again; and nothing is left."""
    with mounted(tmp_path, sources(unlucky), "--all", extra_config="[mount]\ntimeout = 15\n") as mount:
        files = wait_for(mount)
        assert len(files) > 50
        pid = ask(mount, verb="status")["pid"]
        stop = threading.Event()
        trouble = threading.Thread(target=stir, args=(unlucky, stop, 7))
        trouble.start()
        outcomes: Counter[str] = Counter()
        wrong: list[str] = []

        def read(path: Path) -> None:
            try:
                found = digest(path)
            except OSError as error:
                outcomes[errno.errorcode[error.errno or 0]] += 1
                if error.errno not in ALLOWED:
                    wrong.append(f"{path}: {error}")
            else:
                outcomes["right"] += 1
                if not demo_lab.store.objects.has(found) and path.name != "response.json":
                    wrong.append(f"{path}: bytes that the store does not have")

        order = random.Random(11)
        wanted = [path for _ in range(5) for path in order.sample(files, len(files))]
        begin = time.monotonic()
        try:
            with ThreadPoolExecutor(50) as pool:
                list(pool.map(read, wanted))
        finally:
            stop.set()
            trouble.join()
        assert not wrong, wrong[:10]
        assert outcomes["right"] > len(files), outcomes
        assert time.monotonic() - begin < 100
        # Programs, in the way people start them; every fault is over.
        script = "find . -type f -size -8M -not -path '*site-audit*' -print0 | xargs -0 -P 16 -n 8 cat | wc -c"
        deadline = time.monotonic() + 60
        while True:
            done = subprocess.run(
                ["sh", "-c", script], cwd=mount.path, capture_output=True, text=True, check=True, timeout=100
            )
            if not done.stderr or time.monotonic() > deadline:
                break
            time.sleep(0.5)  # noqa: TID251 - until pauses that were asked for are over; no event loop here
        assert done.stderr == ""
        assert int(done.stdout) == sum(os.stat(path).st_size for path in files)
        status = ask(mount, verb="status")
        assert status["pid"] == pid
        assert status["handles"] == 0
