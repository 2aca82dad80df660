"""What tests of saving share: a mounted local store, and what its artifacts have been, read through the mount."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from artifactfs.daemon.mounts import socket_path
from tests.support.control import exchange
from tests.support.lab import Mounted, mounted

# Longer than the local store's listings and the kernel's entries live, on a machine that does other things too.
SEEN_S = 10.0


@contextlib.contextmanager
def local_mount(tmp_path: Path, *options: str, store: Path | None = None, **more: Any) -> Iterator[Mounted]:
    """Mount a local store, by default one of its own below ``tmp_path``, at the root of the mount."""
    source = {"type": "local", "path": str(store or tmp_path / "store")}
    with mounted(tmp_path, {"mine": source}, *options, names=("mine",), **more) as mount:
        yield mount


def flushed(folder: Path) -> None:
    """Wait until what was changed at or below a path of a mount is at its service, as `artifactfs flush` does.

    Through the socket: a process for each of hundreds of saves would be most of what such tests cost.
    """
    home = home_of(folder)
    mountpoint = home.parent / "mnt"
    path = home / "run/artifactfs" / socket_path(mountpoint).name
    request: dict[str, Any] = {"verb": "flush", "path": "/".join(folder.relative_to(mountpoint).parts)}
    while True:
        answer = json.loads(exchange(path, json.dumps(request).encode() + b"\n"))["ok"]
        if not answer["left"]:
            assert not answer["pending"], answer["pending"]
            return
        request["since"] = answer["since"]


def home_of(folder: Path) -> Path:
    """Return the home directory of the mount that a path is in."""
    return next(above.parent / "home" for above in (folder, *folder.parents) if above.name == "mnt")


def artifact_id(folder: Path, name: str) -> str:
    """Return the id of the listed artifact of a name in a workflow."""
    for shelf in (folder / "by-id").iterdir():
        if json.loads((shelf / "artifact.json").read_text())["title"] == name:
            return shelf.name
    raise LookupError(name)


def versions(folder: Path, name: str) -> list[Path]:
    """Return the directories of the versions of an artifact in a workflow, oldest first, once all is published."""
    flushed(folder)
    shelf = folder / artifact_id(folder, name) / "versions"
    return [shelf / f"v{at}" for at in range(1, len(list(shelf.iterdir())) + 1)]


def history(folder: Path, name: str) -> list[bytes]:
    """Return what a single file has been, oldest first."""
    return [(version / name).read_bytes() for version in versions(folder, name)]


def listed(folder: Path) -> set[str]:
    """Return the names in a workflow or tree, without the way to the ids."""
    return {entry.name for entry in folder.iterdir()} - {"by-id"}


def need(program: str, package: str) -> None:
    """Fail where a program is missing, and say which package has it."""
    if shutil.which(program) is None:
        pytest.fail(f"{program} is missing: install the package {package}", pytrace=False)


def shell(script: str, cwd: Path, *, timeout: float = 60, **variables: str) -> str:
    """Run a shell script that must succeed; return what it prints."""
    done = subprocess.run(
        ["bash", "-euc", script], cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False,
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent",
             "LC_ALL": "C.UTF-8", **variables},
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


def fails(script: str, cwd: Path, **variables: str) -> str:
    """Run a shell command that must fail; return what it says."""
    done = subprocess.run(
        ["bash", "-uc", script], cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **variables},
    )  # fmt: skip
    assert done.returncode != 0, f"{script}\n{done.stdout}"
    return done.stderr


def names_of(entries: Sequence[Path]) -> list[str]:
    """Return the names of paths."""
    return [entry.name for entry in entries]


def killed(mount: Mounted) -> None:
    """Kill a mount's process, as a power cut would, and wait until it is gone."""
    os.kill(int(mount.status()["pid"]), signal.SIGKILL)
    end = time.monotonic() + SEEN_S
    while time.monotonic() < end:
        time.sleep(0.02)  # noqa: TID251 - no event loop here
        try:
            os.stat(mount.path / f".{time.monotonic_ns()}")  # nothing that the kernel could answer itself
        except OSError as error:
            if error.errno == errno.ENOTCONN:
                return
    raise TimeoutError(mount.path)


def mount_again(mount: Mounted) -> None:
    """Mount what was killed once more, as its owner would."""
    again = ["mount", str(mount.path), "mine", "--config", str(mount.home / "config.toml")]
    done = mount.artifactfs(*again, check=False)
    assert done.returncode == 0, done.stderr + mount.log_text()[-2000:]


def drafts(mount: Mounted) -> list[str]:
    """Return the files that the mounts of this home keep what is not saved yet in."""
    base = mount.home / ".local/state/artifactfs/journal"
    return sorted(str(path.relative_to(base)) for path in base.rglob("*.draft"))
