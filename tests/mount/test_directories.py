"""Directories as programs read them."""

import os

import pytest

from tests.support.saving import local_mount

pytestmark = pytest.mark.fuse


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
