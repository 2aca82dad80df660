"""One run: makes the workload, serves it, has everybody read it in turns, cleans up."""

from __future__ import annotations

import contextlib
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import artifactfs
from artifactfs import errors
from artifactfs.bench import network, peers, processes, results, servers, tasks, workload
from artifactfs.bench.contenders import Contender, LocalDisk, Ours, Source
from artifactfs.bench.network import Network
from artifactfs.bench.results import PhaseUse
from artifactfs.bench.servers import Servers
from artifactfs.bench.tasks import PHASES, Lap, Sample
from artifactfs.bench.workload import Workload

FORMAT = 1
# What a contender may do wrong: nothing of it ends the run.
FAILURES = (errors.ArtifactFSError, OSError, ValueError)
# `artifactfs serve` looks through a run's two thousand objects for each that is asked for; nginx asks it only once.
PRIME_S = 500.0
PREFIX = "artifactfs-bench-"
# Our mounts, by service, and the dialect of the server that each is given.
DIALECTS = {"syntropic137": "syntropic137-c", "vlmrun": "vlmrun", "vm0": "vm0"}
# What the servers need in memory: two trees three times, the big file four times.
SERVER_BYTES = 1 << 30
SHM = Path("/dev/shm")  # noqa: S108 - only mkdtemp uses it, for a private directory: what serves must not be a disk


_PATHS = re.compile(rf"/\S*{PREFIX}\w*")


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure."""

    load: Workload = field(default_factory=Workload)
    rtts_ms: Sequence[float] = (0.0, 20.0)
    rounds: int = 3
    phases: Sequence[str] = tuple(PHASES)
    peers: Sequence[str] = ()
    floors: bool = False
    local: bool = True
    with_nginx: bool = True
    only: Sequence[str] = ()


@dataclass(slots=True)
class Run:
    """What came out so far."""

    options: Options
    say: Callable[[str], None]
    samples: list[Sample] = field(default_factory=list)
    uses: list[PhaseUse] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def problem(self, text: str) -> None:
        """Keep what went wrong, without paths of this machine, and go on."""
        text = _PATHS.sub("...", text.replace(sys.executable, "python"))
        self.problems.append(text)
        self.say(f"  ! {text}")


@contextlib.contextmanager
def _directories() -> Iterator[tuple[Path, Path]]:
    """Have a directory in memory for the servers, and one on the disk for caches."""
    in_memory = SHM.is_dir() and shutil.disk_usage(SHM).free > SERVER_BYTES
    made: list[Path] = []
    try:
        made.append(Path(tempfile.mkdtemp(prefix=PREFIX, dir=SHM if in_memory else None)))
        made.append(Path(tempfile.mkdtemp(prefix=PREFIX)))
        made[1].chmod(0o711)  # davfs2 reaches its cache as a user of its own
        yield made[0], made[1]
    finally:
        for directory in made:
            shutil.rmtree(directory, ignore_errors=True)


def measure(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure and return the report.

    Raises:
        Unavailable: the workload cannot be served.
    """
    run, begin = Run(options, say), time.time()
    rtts = list(options.rtts_ms)
    lacking = network.lacks() if any(rtts) else None
    if lacking:
        run.problem(f"{lacking}: measured without latency only")
        rtts = [0.0]
    with_nginx = options.with_nginx and peers.has("nginx")
    with _directories() as (memory, disk):
        tree = _prepare(run, memory)
        with (
            network.network(delayed=any(rtts), log=disk / "link.log") as net,
            servers.serving(net, memory, memory / "store", tree, with_nginx=with_nginx) as served,
            _grounds(run, disk, tree, net, served) as ground,
        ):
            named = list(_contenders(run, disk, memory, tree, ground))
            able = [each for each in named if _prime(run, each, net, served, tree)]
            for rtt_ms in rtts:
                _laps(run, able, net, served, disk, rtt_ms)
    return _report(run, rtts, named, served.front, begin)


def _prepare(run: Run, memory: Path) -> Path:
    run.say(f"making {run.options.load.files} files and a store")
    tree = memory / "tree"
    tree.mkdir()
    workload.write_plain(run.options.load, tree)
    processes.ran(["tar", "czf", str(tree / "v1.tar.gz"), "-C", str(tree / "v1"), "."])
    workload.fill_store(run.options.load, memory / "store")
    return tree


@contextlib.contextmanager
def _grounds(run: Run, disk: Path, tree: Path, net: Network, served: Servers) -> Iterator[peers.Ground | None]:
    if not run.options.peers:
        yield None
    elif served.plain is None:
        run.problem("peers are served by nginx, which is not installed")
        yield None
    else:
        with peers.grounds(disk, tree, net, served) as ground:
            yield ground


def _contenders(run: Run, disk: Path, memory: Path, tree: Path, ground: peers.Ground | None) -> Iterator[Contender]:
    options = run.options
    for service in DIALECTS:
        if not options.only or service in options.only:
            yield Ours(f"artifactfs {service}", disk / service, Source(service, {}), memory / "run")
    if options.local and (not options.only or "local" in options.only):
        yield Ours("artifactfs local", disk / "local", Source("local", {"path": str(memory / "store")}), memory / "run")
    yield LocalDisk(results.LOCAL, disk / "plain", tree)
    if options.floors:
        yield from peers.floors(disk, disk / "plain" / "mnt", sys.executable)
    for name in options.peers if ground else ():
        program, maker = peers.MAKERS[name]
        if not peers.has(program):
            run.problem(f"{name}: {program} is not installed")
        elif ground:
            yield maker(name, ground)


def _aim(contender: Contender, net: Network, served: Servers, rtt_ms: float) -> None:
    contender.rtt_ms = rtt_ms
    if isinstance(contender, Ours) and contender.remote:
        contender.aim(served.base(DIALECTS[contender.source.service], net.host(rtt_ms)))


def _prime(run: Run, contender: Contender, net: Network, served: Servers, tree: Path) -> bool:
    """Have everything read once, unmeasured: servers keep their answers, and the bytes are seen to be right."""
    run.say(f"trying {contender.name}")
    _aim(contender, net, served, 0.0)
    try:
        contender.wipe()
        contender.start()
        place = contender.place()
        if contender.kind == "artifactfs" and place.tree and place.older and place.newer:
            parts = [f"{root}/d{at:02d}" for root in (place.older, place.newer) for at in range(run.options.load.part)]
            read = 'find "$@" -type f -print0 | xargs -0 -n 40 -P 8 cat > /dev/null'
            processes.ran(["sh", "-c", read, "sh", str(place.tree), *parts], timeout_s=PRIME_S)
        for mine, plain in ((place.tree, tree / "v1"), (place.newer, tree / "v2")):
            if mine:
                processes.ran(["diff", "-r", f"{mine}/d00", f"{plain}/d00"], timeout_s=60)
        if place.big:
            processes.ran(["cmp", str(place.big), str(tree / workload.BIG)], timeout_s=60)
    except FAILURES as error:
        run.problem(f"{contender.name} takes no part: {error}")
        return False
    finally:
        _stop(run, contender)
    return True


def _stop(run: Run, contender: Contender) -> None:
    try:
        contender.stop()
    except FAILURES as error:
        run.problem(f"{contender.name} did not end: {error}")


def _laps(run: Run, able: Sequence[Contender], net: Network, served: Servers, disk: Path, rtt_ms: float) -> None:
    net.set_delay(rtt_ms)
    scratch = disk / "scratch"
    scratch.mkdir(exist_ok=True)
    dice = random.Random(0)  # noqa: S311 - no secret: the seed makes each run go in the same order
    # A link makes no difference to the built-in store: once is enough.
    able = [c for c in able if c.remote or c.kind == "floor" or rtt_ms == min(run.options.rtts_ms)]
    for number in range(run.options.rounds):
        for phase in run.options.phases:
            order = [each for each in able if tasks.takes_part(each, phase, number)]
            dice.shuffle(order)
            for contender in order:
                _aim(contender, net, served, rtt_ms)
                _lap(run, Lap(contender, run.options.load, scratch, number), phase, number)


def _lap(run: Run, lap: Lap, phase: str, number: int) -> None:
    contender = lap.contender
    try:
        lap.fresh()
        PHASES[phase].run(lap)
        lap.close()
    except FAILURES as error:
        run.problem(f"{contender.name}, {phase}, {contender.rtt_ms:g} ms: {error}")
    finally:
        _stop(run, contender)
    run.samples += lap.samples
    if lap.rss_mib:
        run.uses.append(PhaseUse(contender.name, phase, contender.rtt_ms, round(lap.cpu_s, 3), round(lap.rss_mib, 1)))
    told = ", ".join(f"{sample.task} {sample.wall_s:.2f}" for sample in lap.samples)
    run.say(f"{contender.rtt_ms:g} ms, round {number + 1}/{run.options.rounds}, {contender.name}: {told}")


def _report(run: Run, rtts: Sequence[float], named: Sequence[Contender], front: str, begin: float) -> dict[str, Any]:
    report: dict[str, Any] = {
        "format": FORMAT,
        "date": datetime.fromtimestamp(begin, UTC).isoformat(timespec="seconds"),
        "duration_s": round(time.time() - begin),
        "machine": machine(),
        "versions": versions(run.options.peers, front),
        "workload": {**asdict(run.options.load), "tree_bytes": workload.tree_bytes(run.options.load)},
        "server": front,
        "rtts_ms": list(rtts),
        "rounds": run.options.rounds,
        "contenders": [
            {"name": c.name, "kind": c.kind, "service": c.source.service if isinstance(c, Ours) else None}
            for c in named
        ],
        "rows": results.rows(run.samples),
        "phases": results.phase_rows(run.uses),
        "problems": run.problems,
    }
    report["aims"] = [{"rtt_ms": rtt, **row} for rtt in rtts for row in results.judge(report, rtt)]
    return report


def machine() -> dict[str, Any]:
    """Return what this was measured on; no names of hosts or users."""
    facts = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    models = [line.partition(":")[2].strip() for line in facts.splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / (1 << 30), 1),
        "kernel": platform.release(),
        "load_average": round(os.getloadavg()[0], 1),
    }


def versions(names: Sequence[str], front: str) -> dict[str, str]:
    """Return the versions of what took part."""
    found = {"artifactfs": artifactfs.__version__, "python": platform.python_version(), "server": front}
    told = {"rclone": ["rclone", "version"], "s3fs": ["s3fs", "--version"], "sshfs": ["sshfs", "--version"],
            "davfs2": ["mount.davfs", "--version"], "curl": ["curl", "--version"]}  # fmt: skip
    for name, command in told.items():
        if any(each.startswith(name) for each in names) and peers.has(command[0]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            words = (done.stdout or done.stderr).splitlines()[:1]
            found[name] = words[0].strip() if words else "?"
    return found
