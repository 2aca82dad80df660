"""Finds what tests left behind: FUSE mounts, processes, temporary files, descriptors and threads.

Mounts are ours if they are below the session's temporary directory, so tests mount only there; other
sessions on the same machine have their own. Processes are ours if they are children of this one, or carry the
session's mark in their environment: a daemon that went to the background is no longer our child, but has it.
"""

import contextlib
import gc
import os
import re
import signal
import subprocess
import threading
import time
import uuid
from pathlib import Path

MARK = "ARTIFACTFS_TEST_SESSION"
# Seconds. A daemon that was unmounted needs a moment to drain its journal and exit.
GRACE_S = float(os.environ.get("ARTIFACTFS_TEST_GRACE_S", "5"))
POLL_S = 0.05
DATABASE = re.compile(r"\.db(-wal|-shm|-journal)?( \(deleted\))?$")
# What a cache holds open of its blocks, 64 at most, until it is closed, which many a test leaves out.
BLOCKS = re.compile(r"/blocks/[0-9a-f]{2}/[0-9a-f]{30}( \(deleted\))?$")
OF_CACHES = frozenset({"artifactfs-cache", "metadata"})


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


def descriptors() -> dict[int, str]:
    """Return what this process has open: number -> what it is.

    Without databases: those that a test leaves to the garbage collector are closed when that comes to them. Nor the
    blocks of caches.
    """
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one it is listed by
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return {number: what for number, what in found.items() if not (DATABASE.search(what) or BLOCKS.search(what))}


def threads() -> set[threading.Thread]:
    """Return the threads of this process, but for those that trio keeps for ten seconds for whoever needs one.

    Nor those of a cache that a test has not closed, which wait for ever for something to write.
    """
    return {one for one in threading.enumerate() if not _is_trios(one) and one.name not in OF_CACHES}


def _is_trios(thread: threading.Thread) -> bool:
    return type(getattr(getattr(thread, "_target", None), "__self__", None)).__module__ == "trio._core._thread_cache"


class Held:
    """What this process has open and runs; what comes on top of it is a leak.

    ``kept`` are made by fixtures of the session and stay; while there are such, connections come and go.
    """

    def __init__(self) -> None:
        self.descriptors, self.threads = descriptors(), threads()
        self.kept_descriptors: set[tuple[int, str]] = set()
        self.kept_threads: set[threading.Thread] = set()
        self.is_serving = False

    def keep(self, before: "Held") -> None:
        """Take what has come since ``before`` for what stays."""
        now = Held()
        self.kept_descriptors |= now.descriptors.items() - before.descriptors.items()
        self.kept_threads |= now.threads - before.threads
        self.is_serving = self.is_serving or bool(now.threads - before.threads)

    def more(self) -> list[str]:
        """Return what has come since, in words, once what is about to end has had time to."""
        deadline = time.monotonic() + GRACE_S
        while True:
            gc.collect()
            opened = descriptors().items() - self.descriptors.items() - self.kept_descriptors
            if self.is_serving:
                opened = {one for one in opened if one[1].startswith("/")}
            left = [f"descriptor {number}: {what}" for number, what in sorted(opened)]
            left += [f"thread {thread.name}" for thread in threads() - self.threads - self.kept_threads]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(POLL_S)  # noqa: TID251 - between two modules; there is no event loop


def find(directory: Path, mark: str, temporary: Path | None = None) -> list[str]:
    """What is still there once the grace time is over, in words; ``temporary`` is where temporary files are made."""
    deadline = time.monotonic() + GRACE_S
    while True:
        left = [f"mount {path}" for path in fuse_mounts_below(directory)]
        left += [f"temporary file {path}" for path in temporary.iterdir()] if temporary else []
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
