"""`scripts/fuzz` works: each parser takes its seeds and what becomes of them, and a crash is kept to be replayed.

Where atheris is installed it searches by coverage, for as long as wanted; this is the loop that is there without it.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.__main__ import MAX_LENGTH, change, mutate
from tests.fuzz.targets import TARGETS, seeds

# A second or two for the slowest, whose seeds are archives of some kilobytes.
CHANGED = 150


@pytest.mark.parametrize("name", TARGETS)
def test_each_target_takes_its_seeds_and_what_becomes_of_them(name: str) -> None:
    """The same each time; what comes of it by hours of search is a test of its own then."""
    inputs, chance = list(seeds(name)), random.Random(5)
    assert inputs
    for data in inputs:
        TARGETS[name](data)
    for _ in range(CHANGED):
        changed = bytearray(chance.choice(inputs))
        for _ in range(chance.randint(1, 8)):
            change(changed, chance, inputs)
        TARGETS[name](bytes(changed[:MAX_LENGTH]))


def test_what_crashes_a_parser_is_kept(tmp_path: Path) -> None:
    """Beside the corpus, whole, so that `--replay` meets it again."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "seed").write_bytes(b"harmless")

    def breaks(data: bytes) -> None:
        if len(data) > 8:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        mutate(breaks, corpus, 60, seed=1)
    (crash,) = tmp_path.glob("crash-*")
    with pytest.raises(ZeroDivisionError):
        breaks(crash.read_bytes())
