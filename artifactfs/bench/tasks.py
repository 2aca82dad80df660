"""What is measured: phases of tasks. A phase begins with a new mount that knows nothing.

Rules of this file: what a command prints is checked (a search must find what is there), so that nothing that fails
looks fast. grep and tar write to a file and a pipe: both do less when they write to /dev/null.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from artifactfs import errors
from artifactfs.bench import processes
from artifactfs.bench.contenders import Contender, Counters, Place
from artifactfs.bench.peers import STREAMS, Curl
from artifactfs.bench.workload import MIB, WORD, Workload, tree_bytes

READS = 400
# One command; the slowest honest one (a request for each of 2,000 files at 20 ms) takes about a minute.
TIMEOUT_S = 150.0

# What each task is, for people. `part` is the part of the tree that every peer reads in bearable time.
LABELS: Mapping[str, str] = {
    "mount": "mount to first `ls`",
    "ls cold": "cold `ls -lR`",
    "ls warm": "warm `ls -lR`",
    "find warm": "warm `find`",
    "find cold": "cold `find`",
    "grep cold": "cold `grep -r`, part",
    "grep warm": "warm `grep -r`, part",
    "cp cold": "cold `cp -r`, part",
    "tar cold": "cold `tar c`, part",
    "rsync cold": "cold `rsync -a`, part",
    "git diff cold": "cold `git diff --no-index`, one directory",
    "diff warm": "warm `diff -r`, one directory",
    "big cold": "cold read of the big file",
    "big warm": "warm read of the big file",
    "random cached": "random 4 KiB, cached file",
    "random cold": "random 4 KiB, cold file",
    "grep all cold": "cold `grep -r`, all",
    "grep all warm": "warm `grep -r`, all",
    "cp all cold": "cold `cp -r`, all",
    "mount restart": "mount to first `ls`, restarted",
    "ls restart": "`ls -lR`, restarted",
    "grep all restart": "`grep -r`, all, restarted",
    "grep all evicted": "`grep -r`, all, cache smaller than the tree",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One task, once: wall seconds; CPU seconds of the mount; what it asked its service for; where it was measured."""

    contender: str
    task: str
    rtt_ms: float
    wall_s: float
    cpu_s: float | None = None
    requests: int | None = None
    received: int | None = None
    rss_mib: float | None = None
    detail: str = ""


def drop_caches(directory: Path) -> bool:
    """Empty the kernel's caches if this user may; ``directory`` is synced first, as dirty pages would stay."""
    if os.getuid() != 0:
        return False
    processes.ran(["sync", "-f", str(directory)])
    with contextlib.suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        return True
    return False


class Lap:
    """One phase of one contender: measures tasks and keeps the samples."""

    def __init__(self, contender: Contender, load: Workload, scratch: Path, seed: int) -> None:
        """Write what must be written below ``scratch``."""
        self.contender, self.load, self.scratch, self.seed = contender, load, scratch, seed
        self.samples: list[Sample] = []
        self.cpu_s = self.rss_mib = 0.0
        self._output = scratch / "output"

    @property
    def place(self) -> Place:
        """Return where things are."""
        return self.contender.place()

    def fresh(self, *, keep: bool = False) -> None:
        """Have the contender not mounted, without what it kept and without the kernel's caches."""
        self._end()
        if not keep:
            self.contender.wipe()
        drop_caches(self.scratch)

    def mount(self) -> None:
        """Mount from nothing, unmeasured."""
        self.fresh()
        self.contender.start()

    def _end(self) -> None:
        used = self.contender.usage()
        self.cpu_s += used.cpu_s
        self.rss_mib = max(self.rss_mib, used.rss_mib)
        self.contender.stop()

    def close(self) -> None:
        """Unmount; what was used is known from here on."""
        self._end()

    def first_ls(self, task: str) -> None:
        """Measure from the command that mounts to the end of the first ``ls``."""
        begin = time.perf_counter()
        self.contender.start()
        processes.timed(["ls", str(self.contender.top)], timeout_s=TIMEOUT_S)
        wall = time.perf_counter() - begin
        self._keep(task, wall, self.contender.usage().cpu_s, None)

    def run(self, task: str, command: list[str], *, atleast: int | None = None, reads: bool = False) -> None:
        """Measure a command; ``atleast`` so many lines must come out, or it failed."""
        before, used = self.contender.counters(), self.contender.usage()
        wall = processes.timed(command, self._output, timeout_s=TIMEOUT_S)
        spent = self.contender.usage().cpu_s - used.cpu_s
        if reads:
            wall = float(self._output.read_text())
        if atleast is not None:
            with self._output.open("rb") as lines:
                count = sum(1 for _ in lines)
            if count < atleast:
                raise errors.Unavailable(f"{task}: {count} lines came out, not {atleast}")
        self._keep(task, wall, spent, before)

    def _keep(self, task: str, wall: float, cpu: float, before: Counters | None, detail: str = "") -> None:
        after = self.contender.counters()
        begin = before or Counters(0, 0)
        self.samples.append(
            Sample(
                self.contender.name, task, self.contender.rtt_ms, round(wall, 5),
                round(cpu, 3) if self.contender.pids() else None,
                after.requests - begin.requests if after else None,
                after.received - begin.received if after else None,
                round(self.contender.usage().rss_mib, 1) or None, detail,
            )
        )  # fmt: skip

    # -- the commands ----------------------------------------------------------------------------------------

    def part(self, tree: Path | None) -> list[str]:
        """Return the directories of the part."""
        return [f"{tree}/d{at:02d}" for at in range(self.load.part)]

    def ls(self, task: str) -> None:
        """List everything with attributes."""
        self.run(task, ["ls", "-lR", str(self.place.tree)], atleast=self.load.files)

    def find(self, task: str) -> None:
        """Walk everything."""
        self.run(task, ["find", str(self.place.tree)], atleast=self.load.files)

    def grep(self, task: str, *, part: bool = True) -> None:
        """Search for the word that is in one file of a hundred."""
        where = self.part(self.place.tree) if part else [str(self.place.tree)]
        self.run(task, ["grep", "-r", WORD, *where], atleast=self.load.expected(part=part))

    def copy(self, task: str, *, part: bool = True) -> None:
        """Copy to the local disk."""
        where = self.part(self.place.tree) if part else [f"{self.place.tree}/."]
        with self.target(self.load.part_files if part else self.load.files) as into:
            self.run(task, ["cp", "-r", *where, str(into)])

    def tar(self, task: str) -> None:
        """Pack."""
        parts = " ".join(Path(path).name for path in self.part(self.place.tree))
        self.run(task, ["sh", "-c", f"tar cf - -C {self.place.tree} {parts} | cat >/dev/null"])

    def rsync(self, task: str) -> None:
        """Copy with times and modes."""
        with self.target(self.load.part_files) as into:
            self.run(task, ["rsync", "-a", *self.part(self.place.tree), str(into)])

    def compare(self, task: str, program: str) -> None:
        """Compare a directory in two versions: some peers need a second for a file of it."""
        old, new = shlex.quote(str(self.place.older)), shlex.quote(str(self.place.newer))
        self.run(task, ["sh", "-c", f"{program} {old}/d00 {new}/d00; true"], atleast=1)

    def read_big(self, task: str) -> None:
        """Read the big file from its beginning to its end."""
        self.run(task, ["dd", f"if={self.place.big}", f"of={os.devnull}", "bs=1M", "status=none"])

    def random(self, task: str, *, forget: bool) -> None:
        """Read 4 KiB, many times, anywhere in the big file."""
        more = ["forget"] if forget else []
        command = [sys.executable, "-m", "artifactfs.bench.reader", str(self.place.big), str(READS), str(self.seed)]
        self.run(task, [*command, *more], reads=True)

    @contextlib.contextmanager
    def target(self, files: int) -> Iterator[Path]:
        """Have an empty directory on the local disk, in which so many files must be in the end."""
        into = self.scratch / "copy"
        shutil.rmtree(into, ignore_errors=True)
        into.mkdir()
        try:
            yield into
            found = sum(1 for path in into.rglob("*") if path.is_file())
            if found != files:
                self.samples.pop()
                raise errors.Unavailable(f"{found} files were copied, not {files}")
        finally:
            shutil.rmtree(into, ignore_errors=True)


# -- the phases --------------------------------------------------------------------------------------------------


def _walk(lap: Lap) -> None:
    lap.mount()  # once unmeasured: the program itself is read from the disk
    lap.contender.stop()
    lap.contender.wipe()
    lap.first_ls("mount")
    lap.ls("ls cold")
    lap.ls("ls warm")
    lap.find("find warm")


def _find(lap: Lap) -> None:
    lap.mount()
    lap.find("find cold")


def _grep(lap: Lap) -> None:
    lap.mount()
    lap.grep("grep cold")
    lap.grep("grep warm")


def _cp(lap: Lap) -> None:
    lap.mount()
    lap.copy("cp cold")


def _tar(lap: Lap) -> None:
    lap.mount()
    lap.tar("tar cold")


def _rsync(lap: Lap) -> None:
    lap.mount()
    lap.rsync("rsync cold")


def _diff(lap: Lap) -> None:
    lap.mount()
    lap.compare("git diff cold", "git diff --no-index --stat")
    lap.compare("diff warm", "diff -rq")


def _big(lap: Lap) -> None:
    lap.mount()
    if isinstance(lap.contender, Curl):
        for streams in (1, *STREAMS):
            lap.run(f"big curl {streams}", lap.contender.big(lap.load.big_mib * MIB, streams))
        return
    lap.read_big("big cold")
    lap.read_big("big warm")
    lap.random("random cached", forget=True)


def _random(lap: Lap) -> None:
    lap.mount()
    lap.random("random cold", forget=False)


def _grep_all(lap: Lap) -> None:
    lap.mount()
    lap.grep("grep all cold", part=False)
    lap.grep("grep all warm", part=False)
    lap.fresh(keep=True)
    lap.first_ls("mount restart")
    lap.ls("ls restart")
    lap.grep("grep all restart", part=False)


def _cp_all(lap: Lap) -> None:
    lap.mount()
    if isinstance(lap.contender, Curl):
        with lap.target(lap.load.files) as into:
            lap.run("cp all cold", lap.contender.archive(into))
        return
    lap.copy("cp all cold", part=False)


def _evicted(lap: Lap) -> None:
    lap.contender.shrink(tree_bytes(lap.load) // 4)
    try:
        lap.mount()
        processes.timed(["grep", "-r", WORD, str(lap.place.tree)], lap.scratch / "output", timeout_s=TIMEOUT_S)
        drop_caches(lap.scratch)
        lap.grep("grep all evicted", part=False)
    finally:
        lap.contender.shrink(None)


@dataclass(frozen=True, slots=True)
class Phase:
    """Tasks that follow each other in one mount; ``big`` if they need the big file, ``all`` if all files are read."""

    run: Callable[[Lap], None]
    big: bool = False
    all: bool = False
    remote_only: bool = False


PHASES: Mapping[str, Phase] = {
    "walk": Phase(_walk),
    "find": Phase(_find),
    "grep": Phase(_grep),
    "cp": Phase(_cp),
    "tar": Phase(_tar),
    "rsync": Phase(_rsync),
    "diff": Phase(_diff),
    "big": Phase(_big, big=True),
    "random": Phase(_random, big=True),
    "grep all": Phase(_grep_all, all=True),
    "cp all": Phase(_cp_all, all=True),
    "evicted": Phase(_evicted, all=True, remote_only=True),
}
MEDIUM = ("walk", "grep", "cp", "big", "grep all")
# Each of these takes a peer a minute or more at 20 ms, and says what grep and cp say: peers run them in one round only.
ONCE_FOR_PEERS = frozenset({"find", "tar", "rsync", "diff", "random"})
# Those of the set that everybody runs: their CPU and memory are compared.
COMMON = frozenset({"walk", "find", "grep", "cp", "tar", "rsync", "diff", "big", "random"})


def takes_part(contender: Contender, phase: str, number: int) -> bool:
    """Tell whether a contender runs a phase in a round (0 is the first)."""
    what = PHASES[phase]
    if number and phase in ONCE_FOR_PEERS and contender.kind == "peer":
        return False
    if contender.phases:
        return phase in contender.phases
    if what.all and not contender.reads_all:
        return False
    if what.remote_only and not (contender.kind == "artifactfs" and contender.remote):
        return False
    return contender.place().big is not None if what.big else contender.place().tree is not None
