"""The benchmark of a path that somebody has: reads it the ways people do, twice, and writes nothing there.

Rules of this file: nothing is dropped, wiped or unmounted, so the first pass is as cold as the path happens to be; the
second is warm.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactfs import errors
from artifactfs.bench import processes
from artifactfs.bench.tasks import READS, TIMEOUT_S
from artifactfs.bench.workload import WORD

PASSES = ("first", "again")
# What is read without asking: more than that on somebody's disk and link is not a measurement but a download.
MAX_BYTES = 2 << 30
# A smaller file is read in one piece: to read at random places of it says nothing.
MIN_BIG = 1 << 20


@dataclass(frozen=True, slots=True)
class Census:
    """What is below a path, as its directories say."""

    files: int
    size: int
    largest: Path | None


def census(path: Path) -> Census:
    """Walk a path without reading a file; symlinks are not followed.

    Raises:
        ConfigError: it is no directory.
    """
    if not path.is_dir():
        raise errors.ConfigError(f"{path} is not a directory")
    files = size = 0
    largest, most = None, MIN_BIG - 1
    for base, _, names in os.walk(path):
        for name in names:
            found = os.lstat(os.path.join(base, name))
            files, size = files + 1, size + found.st_size
            if found.st_size > most:
                largest, most = Path(base, name), found.st_size
    return Census(files, size, largest)


def measure(path: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure and return the report.

    Raises:
        ConfigError: it is no directory.
    """
    found = census(path)
    say(f"{path}: {found.files} files, {found.size / 1e6:.1f} MB; nothing is written there")
    small = found.size <= MAX_BYTES
    if not small:
        say("that is too much to read all of it: only listed and walked")
    rows = []
    with tempfile.TemporaryDirectory(prefix="artifactfs-bench-") as scratch:
        output = Path(scratch) / "output"
        for which in PASSES:
            for task, command, reads in _tasks(path, found, all_of_it=small):
                row = _timed(path, command, output, reads=reads)
                say(f"{which}: {task} {row['wall_s']:.3f} s")
                rows.append({"task": task, "pass": which, **row})
    return {"format": 1, "path": str(path), "files": found.files, "bytes": found.size, "rows": rows}


def _tasks(path: Path, found: Census, *, all_of_it: bool) -> list[tuple[str, list[str], bool]]:
    where = str(path)
    tasks: list[tuple[str, list[str], bool]] = [
        ("find", ["find", where], False),
        ("ls -lR", ["ls", "-lR", where], False),
    ]
    if all_of_it:
        tasks += [
            ("grep -r", ["grep", "-r", WORD, where], False),
            ("tar c", ["sh", "-c", 'tar cf - -C "$1" . | cat > /dev/null', "sh", where], False),
        ]
    if found.largest and (all_of_it or os.lstat(found.largest).st_size <= MAX_BYTES):
        big = str(found.largest)
        reader = [sys.executable, "-m", "artifactfs.bench.reader", big, str(READS), "0"]
        tasks += [
            ("read of the largest file", ["dd", f"if={big}", f"of={os.devnull}", "bs=1M", "status=none"], False),
            ("random 4 KiB in it", reader, True),
        ]
    return tasks


def _timed(path: Path, command: Sequence[str], output: Path, *, reads: bool) -> dict[str, Any]:
    before = _status(path)
    pids = [before["pid"]] if before else []
    used = processes.usage(pids)
    wall = processes.timed(command, output, timeout_s=TIMEOUT_S)
    spent = processes.usage(pids)
    if reads:
        wall = float(output.read_text())
    row: dict[str, Any] = {"wall_s": round(wall, 5)}
    after = _status(path)
    if before and after:
        row["requests"], row["received_bytes"] = (
            _count(after, counter) - _count(before, counter) for counter in ("requests", "bytes_received")
        )
        row["cpu_s"], row["rss_mib"] = round(spent.cpu_s - used.cpu_s, 3), round(spent.rss_mib, 1)
    return row


def _status(path: Path) -> dict[str, Any] | None:
    """Return what the mount around a path says of itself, None if it is in none of ours."""
    try:
        said = processes.ran([sys.executable, "-m", "artifactfs", "status", "--json", str(path)])
        found: dict[str, Any] = json.loads(said)[0]
    except (errors.ArtifactFSError, ValueError, LookupError):
        return None
    return found if "pid" in found else None


def _count(status: dict[str, Any], counter: str) -> int:
    return sum(source["counters"][counter] for source in status["sources"])
