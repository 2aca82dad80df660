"""Who is measured: the mount over each service, the local disk, and the floors that FUSE sets.

Rules of this file: a contender starts from nothing (``wipe``) or from what it kept, and says where the tree is. What
counts as its CPU are the processes that serve its mount, not the commands that read it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactfs import errors
from artifactfs.bench import processes
from artifactfs.bench.processes import Usage
from artifactfs.bench.workload import BIG, PHASE, WORKFLOW

# The servers of a benchmark take any; a source is not configured without one.
BEARER = "benchmark"
START_S = 30.0
# The server is ours and has no budget; that of the public services would be the only thing measured.
PER_MINUTE = 1_000_000
CACHE_BYTES = 10 << 30


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contender shows things; None where it does not."""

    top: Path
    tree: Path | None = None
    older: Path | None = None
    newer: Path | None = None
    big: Path | None = None


@dataclass(frozen=True, slots=True)
class Counters:
    """What a mount has asked its service for since it began."""

    requests: int
    received: int


class Contender(ABC):
    """One way to read the workload."""

    kind = "peer"
    # Whether it reads all files in the time there is, or only a part of them, as those that ask once a file.
    reads_all = False
    # Whether a round trip makes a difference to it.
    remote = True
    # The only phases it takes part in; empty: all.
    phases: frozenset[str] = frozenset()

    def __init__(self, name: str, directory: Path) -> None:
        """Keep everything that is written below ``directory``."""
        self.name = name
        self.directory = directory
        self.top = directory / "mnt"
        self.rtt_ms = 0.0
        directory.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def start(self) -> None:
        """Mount; returns once it can be used.

        Raises:
            ArtifactFSError: it cannot be mounted.
        """

    @abstractmethod
    def place(self) -> Place:
        """Return where things are; may look into the mount the first time."""

    @abstractmethod
    def stop(self) -> None:
        """Unmount; what it keeps stays."""

    @abstractmethod
    def wipe(self) -> None:
        """Remove what it keeps."""

    def pids(self) -> list[int]:
        """Return the processes that serve the mount."""
        return []

    def usage(self) -> Usage:
        """Return what these have used."""
        return processes.usage(self.pids())

    def counters(self) -> Counters | None:
        """Return what the service was asked; None if nobody counts."""
        return None

    def shrink(self, max_bytes: int | None) -> None:
        """Let the cache be that large from the next start on, or as large as before.

        Raises:
            Unsupported: there is no such limit.
        """
        raise errors.Unsupported(f"{self.name} has no cache of {max_bytes} bytes")


def unmount(top: Path) -> None:
    """Unmount whatever is mounted there, also if it hangs."""
    for command in (["umount", str(top)], ["umount", "-l", str(top)]):
        with contextlib.suppress(errors.ArtifactFSError):
            if os.path.ismount(top):
                processes.ran(command, timeout_s=20.0)


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the tree is below the mount point of a source; ``*`` stands for the name of the only directory there."""

    tree: str | None = None
    older: str | None = None
    newer: str | None = None
    big: str | None = None

    def under(self, top: Path) -> Place:
        """Return the places, the stars filled in."""
        found = (_only(top, below) for below in (self.tree, self.older, self.newer, self.big))
        return Place(top, *found)


def _only(top: Path, below: str | None) -> Path | None:
    if below is None:
        return None
    return next(iter(top.glob(below)), None) if "*" in below else top / below


def _runs(run: str, big: str | None) -> Layout:
    """Return where single files are, by run."""
    tree, newer = (f"run{version}/{run}/{PHASE}" for version in (1, 2))
    return Layout(tree, tree, newer, big)


LAYOUTS: Mapping[str, Layout] = {
    "syntropic137": _runs("exec-*", None),
    "vlmrun": _runs("[0-9a-f]*-*", f"files/{BIG}"),
    # The present is what was saved last, and that is version 1 of the workload.
    "vm0": Layout("artifacts/tree", "artifacts/by-id/*/versions/v2", "artifacts/by-id/*/versions/v1"),
    "local": _runs("exec-*", f"{WORKFLOW}/{BIG}"),
}


@dataclass(slots=True)
class Source:
    """How a source is configured: type, and address or path."""

    service: str
    values: Mapping[str, str | int]


class Ours(Contender):
    """The mount of one source, through the commands a user types."""

    kind = "artifactfs"
    reads_all = True

    def __init__(self, name: str, directory: Path, source: Source, runtime: Path) -> None:
        """Mount ``source``; home, cache and state are below ``directory``; ``runtime`` is short, for sockets."""
        super().__init__(name, directory)
        self.source = source
        self.remote = source.service != "local"
        self._max_bytes = CACHE_BYTES
        self._home = directory / "home"
        self._runtime = runtime
        self._pid: int | None = None
        self._layout = LAYOUTS[source.service]
        self._place: Place | None = None

    def aim(self, url: str) -> None:
        """Mount the service at that address from the next start on."""
        self.source = Source(self.source.service, {**self.source.values, "url": url})

    def _environ(self) -> dict[str, str]:
        self._home.mkdir(exist_ok=True)
        self._runtime.mkdir(mode=0o700, exist_ok=True)
        kept = {
            k: v for k, v in os.environ.items() if not k.startswith(("ARTIFACTFS_", "XDG_", "VM0_", "SYN_", "VLMRUN_"))
        }
        # What a command costs is measured, not what is asked for while nobody waits.
        own = {"ARTIFACTFS_MOUNT_POLL_INTERVAL": "0", "BENCH_TOKEN": BEARER}
        return {**kept, **own, "HOME": str(self._home), "XDG_RUNTIME_DIR": str(self._runtime)}

    def _command(self, *arguments: str) -> str:
        return processes.ran(
            [sys.executable, "-m", "artifactfs", *arguments], timeout_s=START_S * 2, env=self._environ()
        )

    def _configure(self) -> Path:
        lines = ["[sources.bench]", f'type = "{self.source.service}"']
        if self.remote:
            lines += ['token-env = "BENCH_TOKEN"', f"requests-per-minute = {PER_MINUTE}"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in self.source.values.items()]
        lines += ["[cache]", f"max-size = {self._max_bytes}", "min-free = 0"]
        path = self.directory / "config.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def start(self) -> None:
        """Mount."""
        self._command("mount", str(self.top), "bench", "--config", str(self._configure()))

    def place(self) -> Place:
        """Return where things are; looks into the mount the first time."""
        if self._place is None:
            if not os.path.ismount(self.top):
                raise errors.Unavailable(f"{self.name} has not been mounted")
            self._place = self._layout.under(self.top)
        return self._place

    def stop(self) -> None:
        """Unmount by the product's own command, else by force."""
        self._pid = None
        if not os.path.ismount(self.top):
            return
        try:
            self._command("umount", str(self.top))
        finally:
            unmount(self.top)

    def wipe(self) -> None:
        """Forget cache and state."""
        shutil.rmtree(self._home, ignore_errors=True)

    def _status(self) -> dict[str, Any]:
        """Return what the mount says of itself: in a file of its own, which costs less than a command."""
        found: dict[str, Any] = json.loads((self.top / ".artifactfs/status.json").read_text(encoding="utf-8"))
        return found

    def pids(self) -> list[int]:
        """Return the mount's process, as the mount itself says it."""
        if self._pid is None and os.path.ismount(self.top):
            with contextlib.suppress(OSError, ValueError, KeyError):
                self._pid = int(self._status()["pid"])
        return [self._pid] if self._pid else []

    def counters(self) -> Counters:
        """Return requests and bytes, as ``status`` says."""
        counted = [source["counters"] for source in self._status()["sources"]]
        return Counters(sum(c["requests"] for c in counted), sum(c["bytes_received"] for c in counted))

    def shrink(self, max_bytes: int | None) -> None:
        """Limit the cache."""
        self._max_bytes = max_bytes or CACHE_BYTES


class LocalDisk(Contender):
    """Plain files on this machine's disk."""

    kind = "floor"
    reads_all = True
    remote = False

    def __init__(self, name: str, directory: Path, tree: Path) -> None:
        """Copy ``tree`` to the disk that the others cache on."""
        super().__init__(name, directory)
        shutil.copytree(tree, self.top)

    def start(self) -> None:
        """Do nothing: it is there."""

    def place(self) -> Place:
        """Return where the copy is."""
        return plain(self.top)

    def stop(self) -> None:
        """Do nothing."""

    def wipe(self) -> None:
        """Do nothing: dropping the page cache is all there is to forget."""


def plain(top: Path) -> Place:
    """Return where things are in a plain copy of the workload."""
    return Place(top, top / "v1", top / "v1", top / "v2", top / BIG)


class Mounter(Contender):
    """A program that stays in the foreground and serves a plain copy of the tree at a mount point."""

    def __init__(self, name: str, directory: Path, *, kind: str = "peer") -> None:
        """Mount below ``directory``."""
        super().__init__(name, directory)
        self.kind = kind
        self.cache = directory / "cache"
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """Return what to start; it must not go to the background."""

    def environ(self) -> dict[str, str]:
        """Return the environment to start it in: none of the user's own settings of these programs."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RCLONE_", "SSH_"))}
        return {**kept, "HOME": str(self.directory)}

    def place(self) -> Place:
        """Return where the plain copy is shown."""
        return plain(self.top)

    def start(self) -> None:
        """Start it, and wait until the kernel has the mount."""
        self.top.mkdir(exist_ok=True)
        self.cache.mkdir(exist_ok=True)
        log = self.directory / "log"
        self.process = processes.started(self.command(), log, env=self.environ())
        for _ in range(int(START_S / 0.005)):
            if os.path.ismount(self.top):
                return
            if self.process.poll() is not None:
                break
            processes.pause(0.005)
        raise errors.Unavailable(f"{self.name} did not mount: {log.read_text(errors='replace')[-300:]}")

    def stop(self) -> None:
        """Unmount and end it."""
        unmount(self.top)
        if self.process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(2.0)
            processes.end(self.process)
            self.process = None
        unmount(self.top)

    def wipe(self) -> None:
        """Forget its cache."""
        shutil.rmtree(self.cache, ignore_errors=True)

    def pids(self) -> list[int]:
        """Return the process and its children."""
        if self.process is None:
            return []
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        found = [self.process.pid]
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in children.read_text().split()]
        return found


class Passthrough(Mounter):
    """A FUSE program that shows a plain copy of the tree on the local disk: what FUSE itself costs."""

    reads_all = True
    remote = False

    def __init__(self, name: str, directory: Path, tree: Path, argv: list[str]) -> None:
        """Start ``argv``, in which ``SOURCE`` and ``TARGET`` stand for the directories."""
        super().__init__(name, directory, kind="floor")
        self._tree, self._argv = tree, argv

    def command(self) -> list[str]:
        """Return the command with its directories."""
        places = {"SOURCE": str(self._tree), "TARGET": str(self.top)}
        return [self._filled(word, places) for word in self._argv]

    @staticmethod
    def _filled(word: str, places: Mapping[str, str]) -> str:
        for name, value in places.items():
            word = word.replace(name, value)
        return word
