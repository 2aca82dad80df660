"""A journal that is damaged between two mounts: what was acknowledged is saved, or the user is told where it is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.log_guard import LogGuard
from tests.support.saving import history, killed, local_mount, mount_again

pytestmark = pytest.mark.fuse

SLOW = {"ARTIFACTFS_MOUNT_PUBLISH_DELAY": "600"}
SOON = {"ARTIFACTFS_MOUNT_PUBLISH_DELAY": "0.2"}
SAVES = {f"file {number}.txt": f"acknowledged {number}\n" for number in range(12)}


def log_removed(journal: Path) -> None:
    journal.with_name("journal.db-wal").unlink()


def log_flipped(journal: Path) -> None:
    path = journal.with_name("journal.db-wal")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def all_removed(journal: Path) -> None:
    for path in journal.parent.glob("journal.db*"):
        path.unlink()


def head_scribbled(journal: Path) -> None:
    with journal.open("r+b") as file:
        file.write(os.urandom(200))


def a_directory(journal: Path) -> None:
    journal.unlink()
    journal.mkdir()


def is_saved(folder: Path, name: str) -> bool:
    return (folder / name).exists() and history(folder, name) == [SAVES[name].encode()]


@pytest.mark.parametrize("harm", [log_removed, log_flipped, all_removed, head_scribbled, a_directory])
def test_no_save_is_lost_in_silence(tmp_path: Path, harm: Callable[[Path], None], expected_logs: LogGuard) -> None:
    """By a mount that was killed with all of them pending; the old contents are not overwritten by anything else."""
    expected_logs("put aside|cannot be read|cannot be taken up")
    with local_mount(tmp_path, environ=SLOW) as mount:
        folder = mount.path / "w"
        folder.mkdir()
        for name, text in SAVES.items():
            (folder / name).write_text(text)
        killed(mount)
        (journal,) = mount.home.glob(".local/state/artifactfs/journal/*/mount-*/journal.db")
        harm(journal)
        mount.environ.update(SOON)
        mount_again(mount)
        mount.artifactfs("flush", str(mount.path))
        told = json.loads(mount.artifactfs("pending", "list", "--json").stdout)
        kept = {Path(draft).read_text() for draft in told["lost"]}
        saved = {text for name, text in SAVES.items() if is_saved(folder, name)}
        assert kept | saved == set(SAVES.values())
        assert any("cannot be read" in error["message"] for error in mount.status()["errors"]) == bool(kept)
        mount.artifactfs("pending", "export", str(tmp_path / "export"))
        assert {path.read_text() for path in (tmp_path / "export").rglob("*") if path.is_file()} >= kept
