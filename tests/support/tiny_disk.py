"""A file system of a few MiB, to be filled."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def tiny(where: Path, mebibytes: int = 4) -> Iterator[Path]:
    """Have an empty file system of that size at a new directory, for the user of the tests."""
    where.mkdir()
    # scripts/test needs root or sudo anyway.
    become = [] if os.getuid() == 0 else ["sudo", "-n"]
    options = f"size={mebibytes}m,uid={os.getuid()},mode=0700"
    command = [*become, "mount", "-t", "tmpfs", "-o", options, "none", str(where)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"this test mounts a tmpfs, which needs root, or sudo without a password: {done.stderr}")
    try:
        yield where
    finally:
        subprocess.run([*become, "umount", str(where)], check=True)
