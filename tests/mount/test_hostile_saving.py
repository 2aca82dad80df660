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
        with tarfile.open(_newest(lab, tree.id)) as pushed:
            return {info.name: info.linkname for info in pushed if info.issym()}

    return links


def _newest(lab: Lab, tree: str) -> Path:
    newest = max(lab.store.versions(tree), key=lambda one: one.seq)
    assert newest.seq == 2
    return lab.store.root / "archives" / f"{newest.id}.tar.gz"


def pushed_files(lab: Lab) -> dict[bytes, bytes]:
    """Return the files of the next version of ``hostile`` by their raw names."""
    (tree,) = [one for one in lab.store.artifacts() if one.name == "hostile"]
    with tarfile.open(_newest(lab, tree.id)) as pushed:
        files = ((info, pushed.extractfile(info)) for info in pushed)
        return {info.name.encode("utf-8", "surrogateescape"): file.read() for info, file in files if file is not None}


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


# Raw names and how they are shown: with control characters, one that turns the text, in such a directory, too long.
NAMES = {
    b"x\ny": "x^0Ay", b"a\xe2\x80\xaeb": "a^E2^80^AEb", b"d\x02/t\x01": "d^02/t^01", b"d\x02/plain": "d^02/plain",
    b"\x01" * 90: "",
}  # fmt: skip


def push_names(lab: Lab) -> None:
    """Have an artifact whose files are called ``NAMES``."""
    packed = Tar()
    for raw in NAMES:
        packed.add(raw, b"old")
    pushed_archive(lab, packed.good().gz())


def _in_place(path: Path) -> None:
    path.write_bytes(b"mine")


def _by_rename(path: Path) -> None:
    new = path.with_name("new")
    new.write_bytes(b"mine")
    new.rename(path)


@pytest.mark.parametrize("save", [_in_place, _by_rename])
def test_a_save_under_a_name_as_it_is_shown_is_the_next_version_of_the_file_that_it_stands_for(
    lab: Lab, tmp_path: Path, save: Callable[[Path], None]
) -> None:
    """It must not become another file, beside the one that keeps its old content and its name."""
    push_names(lab)
    with mounted(tmp_path, demo_tree.sources(lab), names=("vm0",)) as mount:
        here = mount.path / "artifacts/hostile"
        (cut,) = [name for name in os.listdir(here) if "^~" in name]
        files = {raw: here / (shown or cut) for raw, shown in NAMES.items()}
        before = sorted(path.relative_to(here) for path in here.rglob("*"))
        for path in files.values():
            assert path.read_bytes() == b"old"
            save(path)
        mount.artifactfs("flush", str(here))
        assert {path.read_bytes() for path in files.values()} == {b"mine"}
        assert sorted(path.relative_to(here) for path in here.rglob("*")) == before
    assert pushed_files(lab) == {**dict.fromkeys(NAMES, b"mine"), b"good.txt": b"good\n"}


def test_what_is_renamed_with_its_directory_keeps_the_names_that_cannot_be_shown(lab: Lab, tmp_path: Path) -> None:
    push_names(lab)
    with mounted(tmp_path, demo_tree.sources(lab), names=("vm0",)) as mount:
        here = mount.path / "artifacts/hostile"
        (here / "d^02/t^01").write_bytes(b"mine")
        (here / "d^02").rename(here / "moved")
        (here / "x^0Ay").rename(here / "plain")
        mount.artifactfs("flush", str(here))
        assert sorted(os.listdir(here / "moved")) == ["plain", "t^01"]
        assert {path: (here / path).read_bytes() for path in ("moved/t^01", "plain")} == {
            "moved/t^01": b"mine", "plain": b"old",
        }  # fmt: skip
    kept = {b"a\xe2\x80\xaeb": b"old", b"\x01" * 90: b"old", b"good.txt": b"good\n"}
    moved = {b"moved/t\x01": b"mine", b"moved/plain": b"old", b"plain": b"old"}
    assert pushed_files(lab) == {**kept, **moved}
