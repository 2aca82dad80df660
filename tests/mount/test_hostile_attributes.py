"""What an archive says beside bytes, through a real mount: owners, modes, times and kinds; where its links would lead.

``test_hostile.py`` compares names and bytes; this is the rest of what ``ls -l``, ``cat`` and ``find`` would show.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.archives import CASES, Case
from tests.support.awkward import mounted_archives
from tests.support.lab import Mounted

pytestmark = pytest.mark.fuse

LINKS = (
    "symlinks_escaping", "symlinks_escaping_through_others", "a_link_becomes_a_way_out_later", "symlink_chain_too_long",
)  # fmt: skip
OTHERS = ("setuid_and_huge_owners", "odd_mtimes", "special_files", "symlink_loops", "hard_link_to_a_symlink")
MADE: dict[str, Case] = {name: CASES[name]() for name in (*LINKS, *OTHERS)}
# 2026-02-03 08:00 UTC: when the service says that each of these versions was made.
VERSION_S = 1_770_105_600
# What the headers of ``tests.support.archives`` say.
HEADER_S = 1_700_000_000


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    """All of them as artifacts of one source at the root."""
    made = {name: lambda case=case: case.data for name, case in MADE.items()}
    with mounted_archives(tmp_path_factory.mktemp("attributes"), made) as mount:
        yield mount


def everything(root: Path) -> Iterator[Path]:
    yield root
    for entry in os.scandir(root):
        if entry.is_dir(follow_symlinks=False):
            yield from everything(Path(entry.path))
        else:
            yield Path(entry.path)


@pytest.mark.parametrize("name", MADE)
def test_everything_is_a_plain_thing_of_the_mounts_owner(mount: Mounted, name: str) -> None:
    """No device, no fifo, no setuid, no owner of the archive's choice, and no time that a program cannot have."""
    found = list(everything(mount.path / "artifacts" / name))
    assert len(found) > 1
    for path in found:
        seen = path.lstat()
        assert stat.S_IFMT(seen.st_mode) in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}, path
        assert stat.S_IMODE(seen.st_mode) & 0o7022 == 0 or path.is_symlink(), (path, oct(seen.st_mode))
        assert (seen.st_uid, seen.st_gid, seen.st_rdev) == (os.getuid(), os.getgid(), 0), path
        assert 0 <= seen.st_mtime_ns < 2**63, path


def test_modes_are_the_x_bit_and_nothing_else(mount: Mounted) -> None:
    root = mount.path / "artifacts/setuid_and_huge_owners"
    assert {name: oct(stat.S_IMODE((root / name).stat().st_mode)) for name in ("su", "sticky")} == {
        "su": "0o755", "sticky": "0o644",
    }  # fmt: skip


def test_a_time_that_is_none_is_that_of_the_version(mount: Mounted) -> None:
    """Never the time of the look: also one before 1970, which is what archives say that have no times."""
    root = mount.path / "artifacts/odd_mtimes"
    times = {name: (root / name).stat().st_mtime for name in os.listdir(root)}
    assert len(times) == len(MADE["odd_mtimes"].files)
    assert {times.pop("junk"), times.pop("negative")} == {VERSION_S}
    last = times.pop("huge")
    # Its own, that of the member's header where another record is nonsense, or the last one that can be said.
    assert set(times.values()) <= {VERSION_S, HEADER_S, 1.0, 1e9, last}, times
    assert last == 2**63 // 10**9


@pytest.mark.parametrize("name", LINKS)
def test_a_link_that_leads_out_is_a_text_that_says_so(mount: Mounted, name: str) -> None:
    """With its target, harmless for a terminal; nobody who reads it gets what is there."""
    root, case = mount.path / "artifacts" / name, MADE[name]
    assert case.broken
    texts = [path for path in everything(root) if path.is_file() and not path.is_symlink()]
    said = [path.read_bytes() for path in texts]
    said = [text for text in said if text.startswith(b"artifactfs: this symbolic link to ")]
    assert len(said) == len(case.broken)
    for text in said:
        assert b"is not followed" in text
        assert text.endswith(b"\n")
        assert text[:-1].decode().isprintable()


def test_links_in_a_loop_end(mount: Mounted) -> None:
    """For whoever follows them: ELOOP at once."""
    root = mount.path / "artifacts/symlink_loops"
    for link in ("self", "a", "b", "spin"):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at
            (root / link).read_bytes()
        assert errno.errorcode[caught.value.errno or 0] == "ELOOP", link
