"""Finds what a test session left behind: FUSE mounts and processes.

Mounts are ours if they are below the session's temporary directory, so tests mount only there; other
sessions on the same machine have their own. Processes are ours if they are children of this one, or carry the
session's mark in their environment: a daemon that went to the background is no longer our child, but has it.
"""

import contextlib
import os
import signal
import subprocess
import time
import uuid
from pathlib import Path

MARK = "ARTIFACTFS_TEST_SESSION"
# Seconds. A daemon that was unmounted needs a moment to drain its journal and exit.
GRACE_S = 5.0
POLL_S = 0.05


def mark_session() -> str:
    """Put a mark into our environment that every process started from now on inherits."""
    mark = os.environ[MARK] = uuid.uuid4().hex
    return mark


def fuse_mounts_below(directory: Path) -> list[Path]:
    """FUSE mounts at or below `directory`, dead ones included (so nothing here may stat them)."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        fields, _, after = line.partition(" - ")
        # mountinfo writes space, tab, newline and backslash as \ooo.
        path = Path(fields.split()[4].encode("latin-1", "backslashreplace").decode("unicode_escape"))
        if after.startswith("fuse") and path.is_relative_to(directory):
            found.append(path)
    return found


def processes(mark: str) -> dict[int, str]:
    """Living processes of the session besides this one: pid -> command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        # A process may end, or belong to somebody else, at any line here.
        with contextlib.suppress(OSError):
            # After the command's name, which may hold anything: state, parent, ...
            state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            marked = f"{MARK}={mark}".encode() in (entry / "environ").read_bytes().split(b"\0")
            if state != "Z" and (marked or int(parent) == os.getpid()):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(entry.name)] = command.strip()
    return found


def find(directory: Path, mark: str) -> list[str]:
    """What is still there once the grace time is over, in words."""
    deadline = time.monotonic() + GRACE_S
    while True:
        left = [f"mount {path}" for path in fuse_mounts_below(directory)]
        left += [f"process {pid}: {command}" for pid, command in processes(mark).items()]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(POLL_S)  # noqa: TID251 - after the session; there is no event loop


def remove(directory: Path, mark: str) -> None:
    """Unmount and end what is left: a dead mount hangs whoever cleans up the temporary directory."""
    for path in fuse_mounts_below(directory):
        subprocess.run(["fusermount3", "-u", "-z", "--", path], check=False, capture_output=True)
    for pid in processes(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
