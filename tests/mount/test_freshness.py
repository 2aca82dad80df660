"""How old what is shown is, and whether it is all there is: said in every place where a person may look."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from artifactfs.server.syntropic137_records import Records
from tests.support.control import ask
from tests.support.lab import Lab, mounted, service_source
from tests.support.syntropic137_store import START_NS, add_file

pytestmark = pytest.mark.fuse

# One more than the service lists, and some.
MANY = 205


@pytest.fixture
def cut_short(lab: Lab) -> Lab:
    """A workflow with more artifacts than the service lists, and one with a few."""
    lab.store.add_workflow("Full", workflow_id="wf-1", created_at_ns=START_NS)
    lab.store.add_workflow("Small", workflow_id="wf-2", created_at_ns=START_NS)
    for number in range(MANY):
        add_file(lab.store, "wf-1", f"{number:03}.md", b"%d" % number)
    add_file(lab.store, "wf-2", "one.md", b"one")
    return lab


def test_age_and_what_is_missing_are_shown(cut_short: Lab, tmp_path: Path) -> None:
    """By status, why, attributes and .artifactfs; an id that is not listed resolves all the same."""
    source = service_source("syntropic137", cut_short.bases()["syntropic137"])
    with mounted(tmp_path, {"mine": source}, "--xattrs", names=("mine",)) as mount:
        full, small = mount.path / "Full", mount.path / "Small"
        shown = set(os.listdir(full)) - {"by-id"}
        assert os.listdir(small)
        assert len(shown) == 200
        assert os.getxattr(full, "user.artifactfs.complete") == b"no"
        assert os.getxattr(small, "user.artifactfs.complete") == b"yes"
        assert 0 <= int(os.getxattr(small / "one.md", "user.artifactfs.age")) < 600
        assert os.getxattr(small / "one.md", "user.artifactfs.complete") == b"yes"
        lines = (mount.path / ".artifactfs/listings").read_text().splitlines()
        assert any("wf-1" in line and "200 artifacts at most" in line and " s old" in line for line in lines)
        assert any("wf-2" in line and line.endswith(" s old, complete") for line in lines)
        why = ask(mount, verb="why", path="Full")
        assert (why["listing_complete"], "200 artifacts at most" in why["listing_note"]) == (False, True)
        assert why["listing_age_s"] >= 0
        assert ask(mount, verb="why", path="Small/one.md")["listing_complete"] is True
        text = mount.artifactfs("status", str(mount.path)).stdout
        assert "incomplete: mine workflow/wf-1: the service lists 200 artifacts at most" in text
        _unlisted(cut_short, full, shown)


def _unlisted(lab: Lab, full: Path, shown: set[str]) -> None:
    """Check that what is not listed is found by its id, and that absence is never believed where it is not known."""
    (hidden,) = [row for row in lab.store.artifacts("wf-1") if row.name == min(_all() - shown)]
    record = Records(lab.store, prefixes=True).record(hidden)
    assert record is not None
    assert (full / record.id / "latest").exists()
    assert (full / record.id / "latest" / hidden.name).read_bytes() == b"%d" % int(hidden.name[:3])
    absent = full / "later.md"
    assert not absent.exists()
    with lab.counted() as requests:
        subprocess.run(["stat", full / "00000000-0000-4000-8000-000000000000"], capture_output=True, check=False)
    assert [one for one in requests if "/artifacts/00000000" in one.path]  # asked for, not denied from 200 rows


def _all() -> set[str]:
    return {f"{number:03}.md" for number in range(MANY)}
