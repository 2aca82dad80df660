"""docs/hostile.md keeps its own promise: each row names tests that exist, and cases that they have."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.archives import CASES
from tests.support.tar_bytes import SENT

ROOT = Path(__file__).parents[2]
ROWS = [
    line.strip("| ").split(" | ")
    for line in (ROOT / "docs/hostile.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| tried")
]
PROOF = re.compile(r'\[([\w/]+\.py)::(\w+)\](?: of ("[^"]+"(?:, "[^"]+")*))?')
# Where a test's cases stand, if not in its own file.
TABLES = {"mount/test_hostile.py": CASES, "mount/test_hostile_bytes.py": SENT}


def test_every_row_names_tests_and_cases_that_exist() -> None:
    """Nothing is said to be seen that nothing shows."""
    assert len(ROWS) > 30
    for row in ROWS:
        assert len(row) == 3, row
        proofs = PROOF.findall(row[2])
        assert proofs, row
        assert not PROOF.sub("", row[2]).strip(), row
        for file, name, cases in proofs:
            text = (ROOT / "tests" / file).read_text(encoding="utf-8")
            assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), f"{file}::{name}"
            for case in re.findall('"([^"]+)"', cases):
                assert case in TABLES[file] if file in TABLES else f'"{case}"' in text, f"{file}: {case}"


def test_each_class_of_content_has_its_rows() -> None:
    """The three classes of content, and the limits, each have rows."""
    text = (ROOT / "docs/hostile.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == ["Titles", "Archives", "Answers", "Limits"]
