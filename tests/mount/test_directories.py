"""Directories as programs read them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.desks import desk
from tests.support.saving import local_mount

pytestmark = pytest.mark.fuse

FILES = 5


def test_who_rewinds_a_directory_sees_what_is_there_now(tmp_path):
    """A directory that stays open shows a new file to whoever begins to read it again."""
    with local_mount(tmp_path) as mount:
        workflow = mount.path / "work"
        workflow.mkdir()
        fd = os.open(workflow, os.O_RDONLY | os.O_DIRECTORY)
        try:
            assert os.listdir(fd) == ["by-id"]
            (workflow / "new.md").write_text("new\n")
            assert sorted(os.listdir(fd)) == ["by-id", "new.md"]
        finally:
            os.close(fd)


@pytest.fixture(scope="module", params=["files", "tree"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory whose names the kernel believes for a minute."""
    with desk(request.param, tmp_path_factory.mktemp("service"), files=FILES) as made:
        where, name = made.take()
        for number in range(FILES):
            (where / f"{name}.{number}").write_text("old\n")
        yield where


def changed_while_read(folder: Path, change: Callable[[Path], object]) -> Path:
    """Change a name after its directory was opened to be read, and before it is."""
    last = [entry.name for entry in os.scandir(folder)][-1]
    with os.scandir(folder) as reading:
        change(folder / last)
        assert len(list(reading)) > FILES
    return folder / last


def test_what_is_removed_while_its_directory_is_read_is_gone(folder: Path):
    """Told of the name by an answer from before, the kernel would show it for as long as it believes a listing."""
    path = changed_while_read(folder, os.unlink)
    assert not path.exists()


def test_what_takes_a_name_while_its_directory_is_read_is_what_is_read_and_written(folder: Path):
    """Else an editor that appends a moment later would do so to the file that was replaced."""

    def replace(path: Path) -> None:
        new = path.with_name(".goutputstream-AB12CD")
        new.write_text("new\n")
        new.rename(path)

    path = changed_while_read(folder, replace)
    assert path.read_text() == "new\n"
    with path.open("a") as file:
        file.write("more\n")
    assert path.read_text() == "new\nmore\n"
