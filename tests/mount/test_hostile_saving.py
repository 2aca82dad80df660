"""Saving into a tree that a hostile author has packed: what was not shown as it is, is not changed by that."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from artifactfs.store.rows import TreeFile
from tests.support import demo_tree
from tests.support.archives import Tar, symlinks
from tests.support.lab import Lab, mounted

pytestmark = pytest.mark.fuse

LINKS = {"out": "../../etc/passwd", "abs": "/etc/passwd", "d/up": "../../x", "fine": "good.txt"}


def test_links_that_are_shown_as_text_stay_links_in_the_next_version(lab: Lab, tmp_path: Path) -> None:
    """Somebody's edit of another file must not replace them by the words that are shown in their place."""
    workflow = lab.store.add_workflow("w")
    tree = lab.store.add_artifact(workflow.id, "hostile", "tree")
    lab.store.save_tree(tree.id, [TreeFile("only", lab.store.objects.put(b"x"), 1)])
    version = lab.store.version(tree.id, 1)
    assert version is not None
    kept = lab.store.root / "archives"
    kept.mkdir(exist_ok=True)
    (kept / f"{version.id}.tar.gz").write_bytes(symlinks(LINKS, Tar().add(b"d/", typeflag=b"5").good()).gz())
    with mounted(tmp_path, demo_tree.sources(lab), names=("vm0",)) as mount:
        here = mount.path / "artifacts/hostile"
        assert (here / "out").read_text().startswith("artifactfs: this symbolic link")
        (here / "good.txt").write_text("better\n")
        mount.artifactfs("flush", str(here))
        assert (here / "out").read_text().startswith("artifactfs: this symbolic link")
        assert (here / "good.txt").read_text() == "better\n"
    newest = max(lab.store.versions(tree.id), key=lambda one: one.seq)
    assert newest.seq == 2
    with tarfile.open(fileobj=io.BytesIO((kept / f"{newest.id}.tar.gz").read_bytes())) as pushed:
        found = {info.name: info.linkname for info in pushed if info.issym()}
    assert found == LINKS
