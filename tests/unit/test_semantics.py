"""docs/semantics.md keeps its own promise: each sentence names a test that exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SENTENCES = [
    line[2:] for line in (ROOT / "docs/semantics.md").read_text(encoding="utf-8").splitlines() if line.startswith("- ")
]


def test_every_sentence_names_tests_that_exist():
    """Each sentence of the document ends in at least one test, and each of those is defined where it says."""
    assert len(SENTENCES) > 30  # the document was read at all
    for sentence in SENTENCES:
        named = re.findall(r"\[([\w/]+\.py)::(\w+)\]", sentence)
        assert named, sentence
        for file, name in named:
            text = (ROOT / "tests" / file).read_text(encoding="utf-8")
            assert re.search(rf"^\s*(async )?def {name}\(", text, re.MULTILINE), f"{file}::{name}"


def test_the_layers_drawn_are_the_layers_checked():
    """The picture in docs/architecture.md names the layers of the contract in pyproject.toml, in their order."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    contract = re.search(r"layers = \[(.*?)\]", project, re.DOTALL)
    assert contract
    checked = [re.split(r"\s*[|:]\s*", row) for row in re.findall(r'"([^"]+)"', contract[1])]
    picture = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").split("## Layers")[1]
    drawn = [line.strip() for line in picture.splitlines() if line.startswith("    ")]
    rows = [re.split(r"\s*\|\s*", re.split(r"\s{2,}", line)[0]) for line in drawn]
    assert rows == checked
