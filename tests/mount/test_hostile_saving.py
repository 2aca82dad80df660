"""Saving into a tree that a hostile author has packed: what was not shown as it is, is not changed by that."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from artifactfs.store.rows import TreeFile
from tests.support import demo_tree
from tests.support.archives import Tar, symlinks
from tests.support.lab import Lab, mounted

pytestmark = pytest.mark.fuse

LINKS = {"out": "../../etc/passwd", "abs": "/etc/passwd", "d/up": "../../x", "fine": "good.txt"}


def pushed_archive(lab: Lab, archive: bytes) -> Callable[[], dict[str, str]]:
    """Have a tree ``hostile`` whose version is an archive; return what gives the symlinks of the next version."""
    tree = lab.store.add_artifact(lab.store.add_workflow("w").id, "hostile", "tree")
    lab.store.save_tree(tree.id, [TreeFile("only", lab.store.objects.put(b"x"), 1)])
    kept = lab.store.root / "archives"
    kept.mkdir(exist_ok=True)
    (version,) = lab.store.versions(tree.id)
    (kept / f"{version.id}.tar.gz").write_bytes(archive)

    def links() -> dict[str, str]:
        newest = max(lab.store.versions(tree.id), key=lambda one: one.seq)
        assert newest.seq == 2
        with tarfile.open(kept / f"{newest.id}.tar.gz") as pushed:
            return {info.name: info.linkname for info in pushed if info.issym()}

    return links


def test_links_that_are_shown_as_text_stay_links_in_the_next_version(lab: Lab, tmp_path: Path) -> None:
    """Somebody's edit of another file must not replace them by the words that are shown in their place."""
    pushed = pushed_archive(lab, symlinks(LINKS, Tar().add(b"d/", typeflag=b"5").good()).gz())
    with mounted(tmp_path, demo_tree.sources(lab), names=("vm0",)) as mount:
        here = mount.path / "artifacts/hostile"
        assert (here / "out").read_text().startswith("artifactfs: this symbolic link")
        (here / "good.txt").write_text("better\n")
        mount.artifactfs("flush", str(here))
        assert (here / "out").read_text().startswith("artifactfs: this symbolic link")
        assert (here / "good.txt").read_text() == "better\n"
    assert pushed() == LINKS


def test_a_link_that_is_made_to_a_name_as_it_is_shown_is_sent_to_the_name_that_it_stands_for(
    lab: Lab, tmp_path: Path
) -> None:
    """Names that had to be escaped are others in the next version's archive; what could not come back is refused."""
    packed = Tar().add(b"t\x01", b"one").add(b"t^01", b"two").add(b"old", typeflag=b"2", link=b"t^01").good()
    pushed = pushed_archive(lab, packed.gz())
    with mounted(tmp_path, demo_tree.sources(lab), names=("vm0",)) as mount:
        here = mount.path / "artifacts/hostile"
        (here / "new").symlink_to("./t^01")
        for impossible in ("a^2Fb", "^2E^2E/x", "x ", "a\nb"):
            with pytest.raises(OSError, match="Invalid or incomplete multibyte"):
                (here / "bad").symlink_to(impossible)
        assert {name: (here / name).read_bytes() for name in ("new", "old")} == {"new": b"one", "old": b"two"}
        assert (here / "new").lstat().st_size == len(os.readlink(here / "new")) == len("./t^01")
        mount.artifactfs("flush", str(here))
        assert {name: (here / name).read_bytes() for name in ("new", "old")} == {"new": b"one", "old": b"two"}
    assert pushed() == {"new": "./t\x01", "old": "t^01"}
