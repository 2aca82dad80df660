"""The numbers are what Prometheus reads, whatever the names in them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import pytest
from prometheus_client.parser import text_string_to_metric_families

from artifactfs.observe.exposition import Family, exposition
from artifactfs.observe.measures import OPERATION_BOUNDS, REQUEST_BOUNDS, Histogram
from tests.support.metrics import parsed

HOSTILE = 'a"b\\c\nd\r\x1b[2J\u2028e\udcff{}=,'


def test_labels_cannot_break_out_of_their_quotes() -> None:
    """Quotes, backslashes, line ends of every kind and what is no text stay in the value."""
    family = Family("artifactfs_test", "gauge", "One\nline \\ of help.")
    family.add(1, source=HOSTILE)
    text = exposition([family])
    assert len(text.splitlines()) == 3
    ((labels, value),) = parsed(text)["artifactfs_test"].items()
    assert value == 1
    assert dict(labels)["source"] == 'a"b\\c\\nd\\r\\x1b[2J\\u2028e\\udcff{}=,'


@pytest.mark.parametrize("bounds", [OPERATION_BOUNDS, REQUEST_BOUNDS])
def test_a_histogram_counts_each_entry_once_and_upwards(bounds: Sequence[float]) -> None:
    """A bound belongs to its bucket; the last has everything; sum and count agree."""
    assert sorted(set(bounds)) == list(bounds)
    histogram = Histogram(bounds)
    times = [0.0, bounds[0], bounds[0] * 1.01, bounds[-1], bounds[-1] * 2]
    for seconds in times:
        histogram.add(seconds)
    family = Family("artifactfs_test_seconds", "histogram", "Help.")
    family.add(histogram, operation="read")
    found = parsed(exposition([family]))
    buckets = {float(dict(labels)["le"]): count for labels, count in found["artifactfs_test_seconds_bucket"].items()}
    assert [buckets[bound] for bound in (bounds[0], bounds[1], bounds[-1], math.inf)] == [2, 3, 4, 5]
    assert sum(found["artifactfs_test_seconds_sum"].values()) == pytest.approx(sum(times))


def test_names_kinds_and_numbers_are_written_as_the_format_has_them() -> None:
    """A counter ends in _total, also in its type; infinities and NaN have names; what has no sample is left out."""
    counter = Family("artifactfs_sent", "counter", "Sent.")
    counter.add(3, source="a")
    odd = Family("artifactfs_odd", "gauge", "Odd.")
    for name, value in {"big": 1e300, "inf": math.inf, "neg": -math.inf, "nan": math.nan}.items():
        odd.add(value, name=name)
    text = exposition([counter, odd, Family("artifactfs_none", "gauge", "Nothing.")])
    assert '# TYPE artifactfs_sent_total counter\nartifactfs_sent_total{source="a"} 3\n' in text
    assert re.findall(r"artifactfs_odd\{\S+ (\S+)", text) == ["1e+300", "+Inf", "-Inf", "NaN"]
    assert "none" not in text
    assert {family.name for family in text_string_to_metric_families(text)} == {"artifactfs_sent", "artifactfs_odd"}
