"""``artifactfs bench``: what to measure, and where the answer goes."""

from __future__ import annotations

import json
import signal
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from artifactfs import errors
from artifactfs.bench import document, on_path, peers, plot
from artifactfs.bench import run as runs
from artifactfs.bench.tasks import MEDIUM, PHASES
from artifactfs.bench.workload import Workload
from artifactfs.cli import render

# A second is more than any link takes.
MAX_RTT_MS = 1000.0
# Shows in a minute that everything works, and the requests; too few files for seconds to mean much.
QUICK = runs.Options(
    load=Workload(files=200, directories=10, part=2, big_mib=16),
    rtts_ms=(0.0, 20.0),
    rounds=1,
    phases=("walk", "big", "grep all"),
    local=False,
    with_nginx=False,
)


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for on the command line."""

    path: Path | None
    json_file: Path | None
    svg_file: Path | None
    rtts: str | None
    rounds: int | None
    peers: str
    only: str
    phases: str
    quick: bool
    document: Path | None
    report: Path | None


def run(request: Request) -> None:
    """Measure, print, write the files that were asked for.

    Raises:
        ConfigError: what was asked for makes no sense.
    """
    # So that everything is ended and unmounted as after ^C; in the background of a script even that is ignored.
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    if request.path is not None:
        report = on_path.measure(request.path.absolute(), render.say)
        _show_path(report)
    else:
        report = _given(request) or runs.measure(_options(request), render.say)
        _show(report)
    if request.json_file:
        request.json_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if request.svg_file and request.path is None:
        request.svg_file.write_text(plot.svg(report, report["rtts_ms"][-1]), encoding="utf-8")
    if request.document:
        _write_document(request.document, report)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _given(request: Request) -> dict[str, Any] | None:
    if request.report is None:
        return None
    try:
        report: dict[str, Any] = json.loads(request.report.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{request.report} is no report of an earlier run: {error}"
        raise errors.ConfigError(message) from None
    return report


def _options(request: Request) -> runs.Options:
    base = QUICK if request.quick else runs.Options()
    named = _peers(request.peers)
    return runs.Options(
        load=base.load,
        rtts_ms=_rtts(request.rtts) if request.rtts else base.rtts_ms,
        rounds=request.rounds or base.rounds,
        phases=_phases(request.phases) if request.phases else base.phases,
        peers=named,
        floors=bool(named),
        local=base.local,
        with_nginx=base.with_nginx,
        only=tuple(filter(None, request.only.split(","))),
    )


def _peers(text: str) -> tuple[str, ...]:
    named = peers.DEFAULT if text == "all" else tuple(filter(None, text.split(",")))
    return _known(named, peers.MAKERS, "peer")


def _phases(text: str) -> tuple[str, ...]:
    return MEDIUM if text == "medium" else _known(tuple(text.split(",")), PHASES, "phase")


def _known(named: tuple[str, ...], known: Collection[str], what: str) -> tuple[str, ...]:
    for name in named:
        if name not in known:
            message = f"there is no {what} {name!r}; there are: {', '.join(known)}"
            raise errors.ConfigError(message)
    return named


def _rtts(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0 <= rtt <= MAX_RTT_MS for rtt in found):
        message = f"--rtt takes milliseconds such as 0,20,100, not {text!r}"
        raise errors.ConfigError(message)
    return found


def _show(report: dict[str, Any]) -> None:
    for rtt_ms in report["rtts_ms"]:
        render.say("")
        render.say(f"{rtt_ms:g} ms round trip")
        for columns, rows in (
            document.walls(report, rtt_ms),
            document.costs(report, rtt_ms),
            document.aims(report, rtt_ms),
        ):
            render.say("")
            render.table(columns, rows)
    for problem in report["problems"]:
        render.complain(problem)


def _show_path(report: dict[str, Any]) -> None:
    columns = ("task", "pass", "seconds", "requests", "received", "CPU s", "RSS MiB")
    render.table(
        columns,
        [
            (row["task"], row["pass"], document.seconds(row["wall_s"]), row.get("requests"),
             render.size(row.get("received_bytes")), row.get("cpu_s"), row.get("rss_mib"))
            for row in report["rows"]
        ],
    )  # fmt: skip


def _write_document(path: Path, report: dict[str, Any]) -> None:
    """Put tables and plots into a document; plots and the report itself go into a directory of its name beside it."""
    beside = path.with_suffix("")
    beside.mkdir(exist_ok=True)
    plots = {}
    for rtt_ms in report["rtts_ms"]:
        name = f"rtt-{rtt_ms:g}ms.svg"
        (beside / name).write_text(plot.svg(report, rtt_ms), encoding="utf-8")
        plots[rtt_ms] = f"{beside.name}/{name}"
    (beside / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    document.write_into(path, document.generated([report], plots))
