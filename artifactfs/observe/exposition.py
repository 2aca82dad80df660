"""Numbers in the text format that Prometheus reads, version 0.0.4.

Rules of this file: pure. A family is written once, its type and help before its samples; whatever a label's value is,
it stays in its quotes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

from artifactfs.model.text import printable
from artifactfs.observe.measures import Histogram

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels = Mapping[str, str]


@dataclass(slots=True)
class Family:
    """All samples of one name.

    Attributes:
        name: without ``_total``, ``_bucket`` and the like where its kind adds that.
        kind: a counter only grows, a gauge is what it is now.
        help: one sentence.
        samples: values by labels; of a histogram the histogram.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: list[tuple[Labels, float | Histogram]] = field(default_factory=list)

    def add(self, value: float | Histogram, **labels: str) -> None:
        """Add a sample."""
        self.samples.append((labels, value))


def exposition(families: Iterable[Family]) -> str:
    """Return families as text; those without a sample are left out."""
    return "".join(line + "\n" for family in families if family.samples for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    name = f"{family.name}_total" if family.kind == "counter" else family.name
    yield f"# HELP {name} {_escaped(family.help)}"
    yield f"# TYPE {name} {family.kind}"
    for labels, value in family.samples:
        if isinstance(value, Histogram):
            yield from _of_histogram(name, labels, value)
        else:
            yield f"{name}{_labels(labels)} {_number(value)}"


def _of_histogram(name: str, labels: Labels, histogram: Histogram) -> Iterator[str]:
    counts = list(accumulate(histogram.counts))
    for bound, count in zip((*histogram.bounds, math.inf), counts, strict=True):
        yield f"{name}_bucket{_labels({**labels, 'le': _number(bound)})} {count}"
    yield f"{name}_sum{_labels(labels)} {_number(histogram.total)}"
    yield f"{name}_count{_labels(labels)} {counts[-1]}"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_quoted(value)}"' for name, value in labels.items()) + "}"


def _quoted(value: str) -> str:
    return _escaped(value).replace('"', r"\"")


def _escaped(text: str) -> str:
    # Whatever is no ordinary character is an escape by now, the line end too, and its backslash is doubled.
    return printable(text).replace("\\", r"\\")


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return "NaN" if math.isnan(value) else repr(value)
