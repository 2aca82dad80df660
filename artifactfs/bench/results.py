"""Samples to medians, and medians to answers: is each aim met, by how much, against whom.

Rules of this file: pure. A ratio is only ever made of two medians of one run.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from artifactfs.bench.tasks import COMMON, Sample

LOCAL, PYFUSE3, LIBFUSE = "local disk", "passthrough (pyfuse3)", "passthrough_ll (C)"
CURL = "big curl 1"
Key = tuple[str, str, float]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PhaseUse:
    """What a contender's mount used in one phase, from its start to its end."""

    contender: str
    phase: str
    rtt_ms: float
    cpu_s: float
    rss_mib: float


def _grouped(items: Iterable[T], key_of: Callable[[T], Key]) -> dict[Key, list[T]]:
    groups: dict[Key, list[T]] = defaultdict(list)
    for item in items:
        groups[key_of(item)].append(item)
    return groups


def rows(samples: Iterable[Sample]) -> list[dict[str, Any]]:
    """Return the median of each task, with the best and the worst run."""
    groups = _grouped(samples, lambda sample: (sample.contender, sample.task, sample.rtt_ms))
    return [
        {
            "contender": contender,
            "task": task,
            "rtt_ms": rtt_ms,
            "wall_s": _median(s.wall_s for s in group),
            "wall_min_s": min(s.wall_s for s in group),
            "wall_max_s": max(s.wall_s for s in group),
            "runs": len(group),
            "cpu_s": _median(s.cpu_s for s in group),
            "requests": _median(s.requests for s in group),
            "received_bytes": _median(s.received for s in group),
            "rss_mib": _median(s.rss_mib for s in group),
        }
        for (contender, task, rtt_ms), group in groups.items()
    ]


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 5) if known else None


def phase_rows(uses: Iterable[PhaseUse]) -> list[dict[str, Any]]:
    """Return the median of what each phase used."""
    groups = _grouped(uses, lambda use: (use.contender, use.phase, use.rtt_ms))
    return [
        {
            "contender": contender,
            "phase": phase,
            "rtt_ms": rtt_ms,
            "cpu_s": _median(u.cpu_s for u in group),
            "rss_mib": max(u.rss_mib for u in group),
        }
        for (contender, phase, rtt_ms), group in groups.items()
    ]


@dataclass(frozen=True, slots=True)
class Aim:
    """One aim of issue 3: a task, what it is compared with (None: seconds), and how much it may be.

    ``atleast`` turns it round: so many times faster than the reference.
    """

    title: str
    task: str
    against: str | None
    limit: float
    atleast: bool = False
    services: tuple[str, ...] = ("syntropic137", "vlmrun", "vm0")

    def text(self) -> str:
        """Return the aim in words."""
        if self.against is None:
            return f"<= {self.limit:g} s"
        return (
            f">= {self.limit:g}x faster than {self.against}" if self.atleast else f"<= {self.limit:g}x {self.against}"
        )


PEER = "the fastest peer"
AIMS = (
    Aim("mount to first `ls`, cold", "mount", None, 0.3),
    Aim("mount to first `ls`, from persisted metadata", "mount restart", None, 0.15),
    Aim("cold `ls -lR`", "ls cold", PEER, 8, atleast=True),
    Aim("warm `ls -lR`", "ls warm", LOCAL, 1.5),
    Aim("cold `grep -r`, single files", "grep cold", PEER, 15, atleast=True, services=("syntropic137", "vlmrun")),
    Aim("cold `grep -r`, a VM0 version", "grep cold", PEER, 15, atleast=True, services=("vm0",)),
    Aim("warm `grep -r`, all files", "grep all warm", LIBFUSE, 1.0),
    Aim("cold `cp -r`", "cp cold", PEER, 12, atleast=True),
    Aim("cold big file", "big cold", "curl", 1.0, services=("vlmrun",)),
    Aim("cold big file", "big cold", PEER, 1.0, atleast=True, services=("vlmrun",)),
    Aim("warm big file", "big warm", LOCAL, 1.1, services=("vlmrun",)),
    Aim("random 4 KiB, cached file", "random cached", PYFUSE3, 1.2, services=("vlmrun",)),
)
RSS_AIM_MIB = 100.0


class Table:
    """The rows of one run, found by contender, task and round trip."""

    def __init__(self, report: Mapping[str, Any]) -> None:
        """Index ``report``."""
        self.report = report
        self.kinds = {row["name"]: row["kind"] for row in report["contenders"]}
        self.services = {row["name"]: row["service"] for row in report["contenders"]}
        self._rows = {(row["contender"], row["task"], row["rtt_ms"]): row for row in report["rows"]}

    def row(self, contender: str, task: str, rtt_ms: float) -> Mapping[str, Any] | None:
        """Return a row, None if that was not measured."""
        return self._rows.get((contender, task, rtt_ms))

    def wall(self, contender: str, task: str, rtt_ms: float) -> float | None:
        """Return the median wall seconds."""
        row = self.row(contender, task, rtt_ms)
        return row["wall_s"] if row else None

    def of_kind(self, kind: str) -> list[str]:
        """Return the contenders of a kind."""
        return [name for name, its in self.kinds.items() if its == kind]

    def tasks(self, rtt_ms: float) -> list[str]:
        """Return what was measured at a round trip, in order."""
        return list(dict.fromkeys(task for _, task, rtt in self._rows if rtt == rtt_ms))

    def reference(self, aim: Aim, rtt_ms: float) -> tuple[str, float] | None:
        """Return what an aim is compared with: its name and seconds."""
        if aim.against == PEER:
            found = [(self.wall(name, aim.task, rtt_ms), name) for name in self.of_kind("peer")]
            known = [(wall, name) for wall, name in found if wall]
            return (min(known)[1], min(known)[0]) if known else None
        if aim.against == "curl":
            wall = self.wall("curl", CURL, rtt_ms)
            return ("curl", wall) if wall else None
        wall = self.wall(str(aim.against), aim.task, rtt_ms)
        return (str(aim.against), wall) if wall else None


def judge(report: Mapping[str, Any], rtt_ms: float) -> list[dict[str, Any]]:
    """Return each aim with what was measured: one row for each of our mounts that it speaks of."""
    table = Table(report)
    judged = []
    for aim in AIMS:
        for name in table.of_kind("artifactfs"):
            row = table.row(name, aim.task, rtt_ms) if table.services[name] in aim.services else None
            if row is not None:
                judged.append(_judged(aim, table, row))
    return [*judged, *_judged_use(table, rtt_ms)]


def _judged(aim: Aim, table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    name, rtt_ms, ours = row["contender"], row["rtt_ms"], row["wall_s"]
    found = {"aim": aim.title, "wanted": aim.text(), "contender": name, "seconds": ours, "requests": row["requests"]}
    if aim.against is None:
        return {**found, "measured": f"{ours:.3g} s", "met": ours <= aim.limit}
    reference = table.reference(aim, rtt_ms)
    if reference is None:
        return {**found, "measured": f"{ours:.3g} s; {aim.against} was not measured", "met": None}
    who, theirs = reference
    ratio = theirs / ours if aim.atleast else ours / theirs
    words = f"{ours:.3g} s; {who} {theirs:.3g} s: {ratio:.2f}x"
    return {**found, "measured": words, "met": ratio >= aim.limit if aim.atleast else ratio <= aim.limit}


def _judged_use(table: Table, rtt_ms: float) -> list[dict[str, Any]]:
    """Compare CPU over the phases that both have run, and memory after each."""
    judged: list[dict[str, Any]] = []
    use: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for row in table.report["phases"]:
        if row["rtt_ms"] == rtt_ms:
            use[row["contender"]][row["phase"]] = row
    theirs = [name for name in table.of_kind("peer") if name.startswith("rclone") and use[name]]
    for name in table.of_kind("artifactfs"):
        for peer in theirs:
            both = COMMON & use[name].keys() & use[peer].keys()
            mine, its = (sum(use[who][phase]["cpu_s"] for phase in both) for who in (name, peer))
            judged.append({"aim": "CPU of the daemon, whole set", "wanted": f"< {peer}", "contender": name,
                           "measured": f"{mine:.2f} s; {its:.2f} s", "met": mine < its})  # fmt: skip
        if use[name]:
            most = max(row["rss_mib"] for row in use[name].values())
            judged.append({"aim": "RSS of the daemon, most", "wanted": f"<= {RSS_AIM_MIB:g} MiB", "contender": name,
                           "measured": f"{most:.0f} MiB", "met": most <= RSS_AIM_MIB})  # fmt: skip
    return judged


def speedups(table: Table, rtt_ms: float, tasks: Sequence[str]) -> dict[str, float]:
    """Return how many times faster our fastest mount is than the fastest peer, by task."""
    found = {}
    for task in tasks:
        ours = [w for name in table.of_kind("artifactfs") if (w := table.wall(name, task, rtt_ms))]
        peers = [w for name in table.of_kind("peer") if (w := table.wall(name, task, rtt_ms))]
        if ours and peers:
            found[task] = min(peers) / min(ours)
    return found
