"""kill -9 under a writing load, and a mixed load with faults, short; `scripts/torture` does so as long as wanted."""

import logging
from pathlib import Path

import pytest

from tests.support.log_guard import LogGuard
from tests.torture.kills import Run, Wrong, torture
from tests.torture.services import SERVICES
from tests.torture.soak import soak

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

KILLS = {"local": 10, "syntropic137": 5, "vm0": 5, "vlmrun": 5}


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short name: the socket of a mount is below it, and has room for 107 bytes."""
    return tmp_path_factory.mktemp("k")


@pytest.mark.parametrize("name", KILLS)
def test_what_was_acknowledged_is_at_the_service_once(base: Path, name: str):
    """Whole and in the present, whenever the mount was killed; some kills came before that was so."""
    assert f"{KILLS[name]} kills" in torture(SERVICES[name], base, kills=KILLS[name], seed=1)


def test_a_save_that_is_lost_is_found(base: Path, monkeypatch: pytest.MonkeyPatch):
    """A mount that is killed and loses its drafts with its state directory has lost saves, and is told so."""
    mount = Run.mount

    def forgetful(self: Run) -> None:
        for path in sorted((self.home / ".local/state").rglob("*"), reverse=True):
            if path.is_file() and path.suffix != ".log":
                path.unlink()
        mount(self)

    monkeypatch.setattr(Run, "mount", forgetful)
    with pytest.raises(Wrong, match="the last acknowledged is"):
        torture(SERVICES["local"], base, kills=6, seed=1)


@pytest.mark.timeout(300)
def test_nothing_is_kept_after_a_mixed_load_with_faults(base: Path, expected_logs: LogGuard):
    """Memory, descriptors, threads, tasks, slots, inodes and look-ups come back; stable files are read right."""
    expected_logs("", logger="hypercorn", level=logging.ERROR)  # its connections are cut in the middle
    assert "saves acknowledged" in soak(base, seconds=25, seed=1)
