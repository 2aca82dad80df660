"""File systems of a few MiB, to be filled, or to fail."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@contextlib.contextmanager
def tiny(where: Path, mebibytes: int = 4) -> Iterator[Path]:
    """Have an empty file system of that size at a new directory, for the user of the tests."""
    where.mkdir()
    become = _become()
    options = f"size={mebibytes}m,uid={os.getuid()},mode=0700"
    command = [*become, "mount", "-t", "tmpfs", "-o", options, "none", str(where)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"this test mounts a tmpfs, which needs root, or sudo without a password: {done.stderr}")
    try:
        yield where
    finally:
        subprocess.run([*become, "umount", str(where)], check=True)


@dataclass(frozen=True)
class FailingDisk:
    """A file system that an error makes read-only, whoever has files of it open."""

    path: Path
    device: str

    def fail(self) -> None:
        """Have the error."""
        trigger = f"/sys/fs/ext4/{self.device}/trigger_fs_error"
        subprocess.run([*_become(), "tee", trigger], input=b"1", stdout=subprocess.DEVNULL, check=True)


@contextlib.contextmanager
def failing(where: Path, mebibytes: int = 16) -> Iterator[FailingDisk]:
    """Have an ext4 of that size at a new directory, for the user of the tests; it needs a loop device."""
    where.mkdir()
    image = where.with_name(f"{where.name}.img")
    with image.open("wb") as file:
        file.truncate(mebibytes << 20)
    _must(["mkfs.ext4", "-q", "-F", "-E", f"root_owner={os.getuid()}:{os.getgid()}", str(image)])
    _must([*_become(), "mount", "-o", "loop,errors=remount-ro", str(image), str(where)])
    try:
        found = _must(["findmnt", "-n", "-o", "SOURCE", str(where)])
        yield FailingDisk(where, Path(found.strip()).name)
    finally:
        subprocess.run([*_become(), "umount", str(where)], check=True)
        image.unlink()


def _become() -> list[str]:
    # scripts/test needs root or sudo anyway.
    return [] if os.getuid() == 0 else ["sudo", "-n"]


def _must(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = " ".join(command)
        pytest.fail(f"this test makes an ext4 in a file, which needs root and a loop device: {words}: {done.stderr}")
    return done.stdout
