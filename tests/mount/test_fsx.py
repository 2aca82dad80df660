"""Random reads, writes, truncations and maps of one file through a real mount, as `scripts/torture fsx` does longer."""

from pathlib import Path

import pytest

from tests.support.at_store import now_at
from tests.support.fsx import QUICKLY, Fsx
from tests.support.saving import local_mount, mount_again

pytestmark = pytest.mark.fuse

OPERATIONS = 1500


@pytest.mark.parametrize("place", ["f.bin", "t/d/f.bin"], ids=["a workflow's file", "a tree's file"])
def test_every_byte_is_the_models(tmp_path_factory: pytest.TempPathFactory, place: str):
    """After each operation, after a remount, and at the store."""
    tmp_path: Path = tmp_path_factory.mktemp("x")
    with local_mount(tmp_path, environ=QUICKLY) as mount:
        path = mount.path / "w" / place
        path.parent.mkdir(parents=True)
        path.touch()
        fsx = Fsx(path, seed=len(place))
        fsx.run(OPERATIONS)
        mount.artifactfs("umount", str(mount.path))
        assert now_at(tmp_path / "store", "w", place) == bytes(fsx.model), fsx.told("the store has other bytes")
        mount_again(mount)
        fsx.compare(path.read_bytes(), 0)


def test_a_byte_that_is_another_is_found(tmp_path: Path):
    """On a plain file all is well until somebody changes a byte; what is said then names seed, place and operations."""
    path = tmp_path / "f"
    path.touch()
    fsx = Fsx(path, seed=7, quiet_s=0)
    fsx.run(500)
    assert fsx.model
    assert path.read_bytes() == bytes(fsx.model)
    path.write_bytes(bytes(fsx.model[:-1]) + bytes([fsx.model[-1] ^ 1]))
    with pytest.raises(AssertionError, match=rf"seed 7, operation 500: differs at {len(fsx.model) - 1} (?s:.*)499: "):
        fsx.compare(path.read_bytes(), 0)
