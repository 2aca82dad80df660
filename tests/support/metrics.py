"""Reads metrics as Prometheus does, and insists on what its parser lets pass."""

from __future__ import annotations

import re
from collections import defaultdict

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]

_LABEL = r'[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*"'
_SAMPLE = re.compile(rf"([a-zA-Z_:][\w:]*)(?:\{{{_LABEL}(?:,{_LABEL})*\}})? (?:\+Inf|-Inf|NaN|-?[\d.]+(?:e[+-]?\d+)?)")
_META = re.compile(r"# (HELP|TYPE) ([a-zA-Z_:][\w:]*) (\S.*)")


def parsed(text: str) -> dict[str, dict[Labels, float]]:
    """Return the samples by name and labels.

    Each line is one of the format's (version 0.0.4), help and type stand once and before their samples, no sample is
    there twice, and the buckets of a histogram rise to its count.
    """
    assert text.endswith("\n")
    described: list[tuple[str, str]] = []
    kinds: dict[str, str] = {}
    for line in text.split("\n")[:-1]:
        if meta := _META.fullmatch(line):
            described.append((meta[1], meta[2]))
            if meta[1] == "TYPE":
                kinds[meta[2]] = meta[3]
            continue
        sample = _SAMPLE.fullmatch(line)
        assert sample, line
        family = described[-1][1]
        assert sample[1] == family or (kinds[family] == "histogram" and sample[1].startswith(f"{family}_")), line
        assert (kinds[family] == "counter") == sample[1].endswith("_total"), line
    assert len(described) == len(set(described)), "a family is there twice"
    assert described == [pair for name in kinds for pair in (("HELP", name), ("TYPE", name))]
    found: dict[str, dict[Labels, float]] = defaultdict(dict)
    for read in text_string_to_metric_families(text):
        for one in read.samples:
            labels = frozenset(one.labels.items())
            assert labels not in found[one.name], one
            found[one.name][labels] = one.value
        if read.type == "histogram":
            _check_histogram(read.name, found)
    return found


def _check_histogram(name: str, found: dict[str, dict[Labels, float]]) -> None:
    buckets: dict[Labels, list[tuple[float, float]]] = defaultdict(list)
    for labels, count in found[f"{name}_bucket"].items():
        bound = dict(labels)["le"]
        buckets[labels - {("le", bound)}].append((float(bound), count))
    assert buckets.keys() == found[f"{name}_count"].keys() == found[f"{name}_sum"].keys()
    for labels, rows in buckets.items():
        counts = [count for _, count in sorted(rows)]
        assert counts == sorted(counts)
        assert max(rows)[0] == float("inf")
        assert counts[-1] == found[f"{name}_count"][labels]
