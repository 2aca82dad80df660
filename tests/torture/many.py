"""A million artifacts: what it costs to list them, in time and memory, and what others feel of it meanwhile.

Rules of this file: who serves, who mounts and who looks are processes of their own. Beside the many there is a small
store in the same mount, in which somebody goes on working: how long that one waits says whether the mount stands
still. Memory is the kernel's account of the mount's process. What is required of an entry is in ``BOUNDS``.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from artifactfs.store.catalog import Store
from tests.support.control import ask
from tests.support.lab import mounted
from tests.support.many import ManyElsewhere
from tests.torture.kills import Wrong
from tests.torture.soak import drop_caches

# Seconds between two looks of who works beside the many.
BEAT_S = 0.02
# The kernel tells of what it has forgotten when it comes to it.
FORGET_S = 60.0
PUBLISH_S = 0.2
# Saved into the directory of the many, where the service takes writes.
SAVES = 40
WHOLE_S = 3600.0
MIB = 1 << 20
Figures = dict[str, float]


@dataclass
class Beside:
    """Somebody who works in another directory; ``waits`` are how long each thing took, in seconds."""

    path: Path
    waits: list[float] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while not self._ended.wait(BEAT_S):
            begun = time.monotonic()
            # An open is an upcall each time; what stat says the kernel believes for a second.
            with self.path.open("rb") as file:
                file.read(1)
            self.path.stat()
            self.waits.append(time.monotonic() - begun)

    def beat(self) -> None:
        """Wait until what is waited for at this moment is there."""
        before = len(self.waits)
        while len(self.waits) == before:
            time.sleep(BEAT_S / 4)  # noqa: TID251 - no event loop here

    def since(self, begun: int) -> list[float]:
        """Return the waits after the first so many, sorted."""
        return sorted(self.waits[begun:]) or [0.0]


def fill(root: Path, folders: int, artifacts: int) -> None:
    """Make a store of so many artifacts in each of so many workflows, each one file of the same bytes."""
    with contextlib.closing(Store(root)) as store:
        sha256 = store.objects.put(b"what is in all of them\n")
        homes = [store.add_workflow(f"Workflow number {n}").id for n in range(folders)]
    db = sqlite3.connect(root / "catalog.db")
    for at, home in enumerate(homes):
        numbers = range(at * artifacts, (at + 1) * artifacts)
        db.executemany(
            "INSERT INTO artifact (id, uuid, workflow_id, name, kind, media_type, created_at, updated_at, current)"
            " VALUES (?, ?, ?, ?, 'file', 'text/markdown', ?, ?, 1)",
            ((f"art_{n:06x}", f"{n:032x}", home, f"Report number {n} of many.md", 10**18, 10**18) for n in numbers),
        )
        db.executemany(
            "INSERT INTO version (artifact_id, seq, id, sha256, size, file_count, created_by, created_at)"
            " VALUES (?, 1, ?, ?, 23, 1, 'agent', ?)",
            ((f"art_{n:06x}", sha256, sha256, 10**18) for n in numbers),
        )
    db.commit()
    db.close()


class ManyRun:
    """One service with many artifacts, mounted; use as a context manager."""

    def __init__(self, base: Path, service: str, folders: int, artifacts: int, told: Callable[[str], None]) -> None:
        self.base, self.service, self.told = base, service, told
        self.folders, self.artifacts = (1, folders * artifacts) if service == "vlmrun" else (folders, artifacts)
        self.total = folders * artifacts
        self.stack = ExitStack()
        self.figures: dict[str, Figures] = {}

    def __enter__(self) -> Self:
        with self.stack as stack:
            fill(self.base / "small", 1, 3)
            sources: dict[str, dict[str, object]] = {"small": {"type": "local", "path": str(self.base / "small")}}
            self.served: ManyElsewhere | None = None
            if self.service == "local":
                fill(self.base / "many", self.folders, self.artifacts)
                sources["many"] = {"type": "local", "path": str(self.base / "many")}
            else:
                self.served = stack.enter_context(ManyElsewhere(self.folders, self.artifacts))
                url = self.served.url
                sources["many"] = {
                    "type": self.service, "url": url, "token-env": "LAB_TOKEN", "requests-per-minute": 10**7,
                }  # fmt: skip
            self.sources = sources
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    @property
    def requests(self) -> int:
        return 0 if self.served is None else self.served.requests

    @contextlib.contextmanager
    def mount(self) -> Iterator[None]:
        """Have it mounted, and somebody beside it, while the block runs."""
        # An answer that takes longer than usual is not what is measured here.
        more = "[mount]\ntimeout = 3000\n"
        environ = {"ARTIFACTFS_MOUNT_PUBLISH_DELAY": str(PUBLISH_S)}
        with mounted(self.base, self.sources, "--all", extra_config=more, environ=environ) as self.mounted:
            self.pid = int(ask(self.mounted, verb="status")["pid"])
            with Beside(self.mounted.path / "small/Workflow number 0/Report number 1 of many.md") as self.beside:
                yield

    def memory(self, what: str) -> float:
        """Return a figure of the mount's memory in MiB: ``VmRSS`` or ``VmHWM``."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(what)).split()[1]) / 1024

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Figures]:
        """Measure what is done in the block."""
        waits, asked, begun = len(self.beside.waits), self.requests, time.monotonic()
        with contextlib.suppress(PermissionError):
            Path(f"/proc/{self.pid}/clear_refs").write_text("5\n")  # the peak begins anew
        figures = self.figures[name] = Figures()
        yield figures
        figures["seconds"] = time.monotonic() - begun
        self.beside.beat()
        felt = self.beside.since(waits)
        held = ask(self.mounted, verb="figures")
        figures |= {
            "requests": self.requests - asked, "longest_wait_ms": felt[-1] * 1000,
            "median_wait_ms": felt[len(felt) // 2] * 1000, "peak_mb": self.memory("VmHWM"),
            "rss_mb": self.memory("VmRSS"), "inodes": held["inodes"], "lookups": held["lookups"],
        }  # fmt: skip
        self.figures[name] = figures
        self.told(f"{name:32s} " + " ".join(f"{key}={value:.3g}" if value < 10**3 else f"{key}={value:.0f}"
                                            for key, value in figures.items()))  # fmt: skip

    def run(self, *command: str) -> str:
        """Return what a command writes whose working directory is the mount."""
        done = subprocess.run(
            command, cwd=self.mounted.path, capture_output=True, text=True, timeout=WHOLE_S, check=False,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
        if done.returncode:
            raise Wrong(f"{command} says {done.stderr[-500:]}")
        return done.stdout

    @property
    def top(self) -> str:
        """Return the directory of the many, or the first one."""
        return "many/files" if self.service == "vlmrun" else "many/Workflow number 0"

    def name(self, number: int) -> str:
        return f"Scan number {number} of many.pdf" if self.service == "vlmrun" else f"Report number {number} of many.md"

    # -- what is done ----------------------------------------------------------------------------------------

    def look(self) -> None:
        """Go through all that a person does with so many."""
        with self.step("beside alone"):
            time.sleep(1)  # noqa: TID251 - no event loop here
        with self.step("first ls -f"):
            self._shown(self.run("ls", "-f", self.top).splitlines())
        with self.step("second ls -f"):
            self._shown(self.run("ls", "-f", self.top).splitlines())
        with self.step("stat of one"):
            self.run("stat", f"{self.top}/{self.name(self.artifacts - 7)}")
        with self.step("a name that is not there"):
            if os.path.exists(f"{self.mounted.path}/{self.top}/no such name"):
                raise Wrong("a name that is not there is")
        with self.step("ls"):
            self._shown(self.run("ls", self.top).splitlines())
        with self.step("find"):
            self._all(self.run("find", "many").splitlines())
        with self.step("find again"):
            self._all(self.run("find", "many").splitlines())
        with (
            self.step("two finds at once"),
            subprocess.Popen(["find", "many"], cwd=self.mounted.path, stdout=subprocess.DEVNULL),
        ):
            self._all(self.run("find", "many").splitlines())
        self.forget()

    def _shown(self, names: list[str]) -> None:
        wanted = self.artifacts + 1  # and by-id; FUSE shows no dots
        if len(names) != wanted:
            raise Wrong(f"{len(names)} names, not {wanted}")

    def _all(self, paths: list[str]) -> None:
        if len(paths) < self.total:
            raise Wrong(f"{len(paths)} paths, not {self.total}")

    def forget(self) -> None:
        """Have the kernel forget: what is held of inodes must come back to a few."""
        with self.step("the kernel forgets"):
            end = time.monotonic() + FORGET_S
            while True:
                drop_caches()
                held = ask(self.mounted, verb="figures")
                if held["inodes"] < 100 + self.folders:
                    break
                if time.monotonic() > end:
                    raise Wrong(f"inodes are not given back: {held}")
                time.sleep(0.2)  # noqa: TID251 - no event loop here

    def save(self) -> None:
        """Save new files into the directory of the many; a few first, so that the listing is there."""
        run = self.base / "to save"
        run.mkdir(exist_ok=True)
        for n in range(SAVES):
            (run / f"new {n}.md").write_text(f"new {n}\n")
        with self.step(f"cp of {SAVES} files"):
            self.run("cp", *(str(path) for path in run.iterdir()), self.top)
        with self.step("until they are published"):
            self.mounted.artifactfs("flush", str(self.mounted.path), timeout=WHOLE_S)
        names = set(self.run("ls", "-f", self.top).splitlines())
        if missing := {path.name for path in run.iterdir()} - names:
            raise Wrong(f"saved and not shown: {missing}")


def many(
    base: Path, *, service: str, folders: int, artifacts: int, told: Callable[[str], None] = lambda _: None
) -> dict[str, Figures]:
    """Go through many artifacts of one service, mount anew, and go on; return what each step took."""
    with ManyRun(base, service, folders, artifacts, told) as run:
        with run.mount():
            run.look()
            if service == "local":
                run.save()
        with run.mount(), run.step("restarted: first ls -f"):
            found = run.run("ls", "-f", run.top).splitlines()
            if len(found) < run.artifacts:
                raise Wrong(f"{len(found)} names after a restart")
        return run.figures
