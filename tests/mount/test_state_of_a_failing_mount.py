"""The state of a mount can be read when its only service cannot be asked: that is when people look."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.support.lab import Lab, mounted, service_source

pytestmark = pytest.mark.fuse


def test_the_state_is_there_while_nothing_answers(tmp_path: Path) -> None:
    """One source, at the root of the mount, that nobody listens for; the failure is what is told."""
    with mounted(tmp_path, {"work": service_source("vlmrun", "http://127.0.0.1:1")}) as mount:
        with pytest.raises(OSError, match="No route to host") as caught:
            os.listdir(mount.path)
        assert caught.value.errno == errno.EHOSTUNREACH
        assert "no connection" in (mount.path / ".artifactfs/errors").read_text()
        assert "artifactfs_failures_total" in (mount.path / ".artifactfs/metrics").read_text()


def test_looking_at_the_state_asks_for_nothing(tmp_path: Path, own_demo: Lab) -> None:
    """Also where nothing of the source has been listed yet."""
    source = service_source("syntropic137", own_demo.bases()["syntropic137"])
    with mounted(tmp_path, {"work": source}) as mount, own_demo.counted() as seen:
        assert (mount.path / ".artifactfs/pending").read_text() == ""
        assert "README" in os.listdir(mount.path / ".artifactfs")
    assert seen == []
