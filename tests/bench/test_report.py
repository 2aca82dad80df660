"""What is made of measurements: medians, verdicts, tables, the document and the plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from artifactfs import errors
from artifactfs.bench import document, plot, results, workload
from artifactfs.bench.results import PhaseUse
from artifactfs.bench.tasks import Sample


def report(*samples: Sample, uses: tuple[PhaseUse, ...] = ()) -> dict[str, Any]:
    made: dict[str, Any] = {
        "date": "2026-05-01T08:00:00+00:00", "duration_s": 61, "rounds": 3, "rtts_ms": [20.0], "server": "nginx",
        "machine": {"cpu": "a", "cores": 2, "memory_gib": 1.0, "kernel": "6", "load_average": 0.5},
        "versions": {"rclone": "1"}, "problems": ["s3fs did not mount"],
        "workload": {"files": 9, "directories": 3, "part": 1, "big_mib": 1, "tree_bytes": 5},
        "contenders": [
            {"name": "artifactfs vm0", "kind": "artifactfs", "service": "vm0"},
            {"name": "artifactfs syntropic137", "kind": "artifactfs", "service": "syntropic137"},
            {"name": "rclone s3", "kind": "peer", "service": None},
            {"name": "sshfs", "kind": "peer", "service": None},
            {"name": results.LOCAL, "kind": "floor", "service": None},
        ],
        "rows": results.rows(samples), "phases": results.phase_rows(uses),
    }  # fmt: skip
    made["aims"] = [{"rtt_ms": 20.0, **row} for row in results.judge(made, 20.0)]
    return made


def verdict(made: dict[str, Any], aim: str, mount: str = "artifactfs vm0") -> dict[str, Any]:
    return next(row for row in made["aims"] if row["aim"] == aim and row["contender"] == mount)


def test_a_row_is_the_median_with_the_extremes() -> None:
    made = report(*(Sample("sshfs", "ls cold", 20.0, wall, requests=3) for wall in (5.0, 1.0, 2.0)))
    (row,) = made["rows"]
    assert (row["wall_s"], row["wall_min_s"], row["wall_max_s"], row["runs"]) == (2.0, 1.0, 5.0, 3)
    assert row["requests"] == 3
    assert row["cpu_s"] is None


def test_an_aim_is_judged_against_the_fastest_peer() -> None:
    peers = Sample("rclone s3", "ls cold", 20.0, 1.6), Sample("sshfs", "ls cold", 20.0, 2.4)
    assert verdict(report(Sample("artifactfs vm0", "ls cold", 20.0, 0.2), *peers), "cold `ls -lR`")["met"] is True
    slow = verdict(report(Sample("artifactfs vm0", "ls cold", 20.0, 0.25), *peers), "cold `ls -lR`")
    assert slow["met"] is False
    assert "rclone s3 1.6 s: 6.40x" in slow["measured"]


def test_an_aim_against_a_floor_is_a_most() -> None:
    floor = Sample(results.LOCAL, "ls warm", 20.0, 0.02)
    assert verdict(report(Sample("artifactfs vm0", "ls warm", 20.0, 0.03), floor), "warm `ls -lR`")["met"] is True
    assert verdict(report(Sample("artifactfs vm0", "ls warm", 20.0, 0.031), floor), "warm `ls -lR`")["met"] is False


def test_what_has_nothing_to_be_compared_with_is_neither_met_nor_missed() -> None:
    made = report(Sample("artifactfs vm0", "ls cold", 20.0, 0.2))
    assert verdict(made, "cold `ls -lR`")["met"] is None


def test_only_measurements_of_one_round_trip_are_compared() -> None:
    made = report(Sample("artifactfs vm0", "ls cold", 20.0, 0.2), Sample("sshfs", "ls cold", 0.0, 9.0))
    assert verdict(made, "cold `ls -lR`")["met"] is None


def test_cpu_is_compared_over_the_phases_that_both_ran() -> None:
    uses = (
        PhaseUse("artifactfs vm0", "walk", 20.0, 1.0, 60.0),
        PhaseUse("artifactfs vm0", "grep all", 20.0, 50.0, 101.0),
        PhaseUse("rclone s3", "walk", 20.0, 1.5, 80.0),
        PhaseUse("rclone s3", "big", 20.0, 9.0, 80.0),
    )
    made = report(uses=uses)
    cpu = verdict(made, "CPU of the daemon, whole set")
    assert (cpu["measured"], cpu["met"]) == ("1.00 s; 1.50 s", True)
    assert verdict(made, "RSS of the daemon, most")["met"] is False


def test_the_document_keeps_what_people_wrote(tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text(f"before\n{document.BEGIN}\nof an earlier run\n{document.END}\nafter\n")
    made = report(Sample("artifactfs vm0", "ls cold", 20.0, 0.2), Sample("sshfs", "ls cold", 20.0, 2.0))
    document.write_into(path, document.generated([made], {20.0: "performance/plot.svg"}))
    text = path.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "of an earlier run" not in text
    assert "| cold `ls -lR` | 0.20 | 2.00 |" in text
    assert "performance/plot.svg" in text
    assert "s3fs did not mount" in text
    again = text
    document.write_into(path, document.generated([made], {20.0: "performance/plot.svg"}))
    assert path.read_text() == again


def test_a_document_without_markers_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text("mine\n")
    with pytest.raises(errors.ConfigError):
        document.write_into(path, "text")
    assert path.read_text() == "mine\n"


def test_the_plot_has_a_bar_for_each_measurement() -> None:
    made = report(Sample("artifactfs vm0", "ls cold", 20.0, 0.2), Sample("sshfs", "ls cold", 20.0, 2.0))
    root = ET.fromstring(plot.svg(made, 20.0))
    titles = [element.text for element in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["artifactfs vm0: 0.2 s", "sshfs: 2 s"]
    ET.fromstring(plot.svg(report(), 20.0))


def test_the_workload_is_the_same_every_time_and_its_word_can_be_counted(tmp_path: Path) -> None:
    load = workload.Workload(files=20, directories=4, part=2, big_mib=1)
    workload.write_plain(load, tmp_path)
    names = list(load.names())
    assert len(set(names)) == 20
    for version in (1, 2):
        found = [(tmp_path / f"v{version}" / name).read_bytes() for name in names]
        assert found == [workload.file_bytes(at, version) for at in range(20)]
        assert sum(workload.WORD.encode() in data for data in found) == load.expected(part=False) == 1
    differing = sum(workload.file_bytes(at, 1) != workload.file_bytes(at, 2) for at in range(20))
    assert differing == 2
    assert (tmp_path / workload.BIG).stat().st_size == 1 << 20
