"""Saves under kill -9: what was acknowledged is at the service in the end, whole, once, and nothing else is.

What is at the service is asked of its store, never through the mount.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from artifactfs.store.catalog import Store
from tests.support.at_store import AtStore, Held
from tests.support.control import socket_of
from tests.support.lab import TOKEN, Lab, Mounted, artifactfs, environment, service_source, write_config
from tests.torture.record import Record, judge
from tests.torture.services import Service
from tests.torture.weather import BadDay
from tests.torture.writers import DEAD, HANG_S, Gate, Writer

WRITERS = 4
# Seconds of load before a kill; from none, so that what a mount does as it begins is interrupted, too.
LOAD_S = (0.0, 0.5)
# Every second kill waits so long for the next save that is acknowledged, and comes right after it.
NEXT_SAVE_S = 0.5
# Of publishing, in seconds: short, so that a kill finds saves before, in and after it.
QUIET_S = (0.05, 0.3)
CHECK_EVERY = 20
# The kernel answers for a mount that is gone at once; a busy machine takes a moment to end its process.
DEAD_S = 10.0
# Until everything is published once the service is well: longer than any pause between tries ought to be then.
SETTLE_S = 90.0
# struct ucred of unix(7): process, user and group of whoever listens.
UCRED = struct.Struct("3i")


class Wrong(AssertionError):
    """Something acknowledged is not as it should be."""


@dataclass
class Counts:
    """What a run was; ``hung`` are kills after which a call waited on until the next mount cleaned up."""

    kills: int = 0
    pending: int = 0
    hung: int = 0
    published: int = 0
    conflicts: int = 0
    requests: int = 0
    begun_at: float = field(default_factory=time.monotonic)
    refused: Counter[str] = field(default_factory=Counter)


class Run:
    """One service under load; use as a context manager."""

    def __init__(self, service: Service, base: Path, seed: int) -> None:
        self.service, self.base, self.seed = service, base, seed
        self.chance = random.Random(seed)
        self.weather = BadDay(seed)
        self.store = Store(base / "store")
        service.prepare(self.store)
        self.at = AtStore(self.store)
        self.lab: Lab | None = None
        self.place, self.home = base / "mnt", base / "home"
        self.environ = environment(self.home, LAB_TOKEN=TOKEN)
        self.gate = Gate()
        self.records = [Record(path) for path in service.files]
        self.writers = [
            Writer(self.gate, self.place / service.folder, self.records[at::WRITERS], seed * 1000 + at)
            for at in range(WRITERS)
        ]
        self.counts = Counts()
        self.pid = 0

    def __enter__(self) -> Self:
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _begin(self) -> None:
        source: dict[str, object] = {"type": "local", "path": str(self.store.root)}
        if self.service.name != "local":
            self.lab = Lab(self.store, weather=self.weather).__enter__()
            source = service_source(self.service.name, self.lab.bases()[self.service.name])
        write_config(self.home, {"it": source})
        self.mount()
        for writer in self.writers:
            writer.start()
        self.gate.open()

    def __exit__(self, *_: object) -> None:
        """Kill the mount, which sets free whoever hangs in it, and end everything."""
        self.gate.end()
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        subprocess.run(["umount", "-l", str(self.place)], check=False, capture_output=True)
        for writer in self.writers:
            if writer.is_alive():
                writer.join(HANG_S)
        if self.lab is not None:
            self.lab.__exit__()
        self.store.close()

    # -- the mount -------------------------------------------------------------------------------------------

    def mount(self) -> None:
        """Mount, over what a kill has left, with another quiet period each time."""
        # A variable that this version does not know is none of its settings.
        self.environ["ARTIFACTFS_MOUNT_PUBLISH_DELAY"] = f"{self.chance.uniform(*QUIET_S):.3f}"
        config = str(self.home / "config.toml")
        done = artifactfs(self.environ, "mount", str(self.place), "it", "--config", config, check=False)
        if done.returncode:
            raise Wrong(f"it does not mount: {done.stderr}{self.log()}")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(socket_of(self.mounted)))
            raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
        self.pid = UCRED.unpack(raw)[0]

    @property
    def mounted(self) -> Mounted:
        return Mounted(self.place, self.home, self.environ)

    def log(self) -> str:
        return "\n" + self.mounted.log_text()[-4000:]

    def kill(self) -> None:
        """Kill the mount while writers write, count whether that hit a save, and mount again."""
        if self.chance.random() < 0.5:
            self.gate.acknowledged.clear()
            self.gate.acknowledged.wait(NEXT_SAVE_S)
        os.kill(self.pid, signal.SIGKILL)
        hangs = not self.gate.close(DEAD_S)
        self.counts.kills += 1
        self.counts.hung += hangs
        held = self.held()
        self.counts.pending += any(not record.is_at(held.get(record.path, [])) for record in self.records)
        self.mount()
        self.empty()
        self.gate.open()

    def empty(self) -> None:
        """Wait until nobody is saving any more.

        Raises:
            Wrong: somebody hangs.
        """
        if not self.gate.close(HANG_S):
            where = ", ".join(f"{writer.doing}" for writer in self.writers)
            raise Wrong(f"a writer hangs in the mount ({where}){self.log()}")

    # -- what is at the service ------------------------------------------------------------------------------

    def held(self) -> dict[str, list[Held]]:
        found: dict[str, list[Held]] = {}
        for file in self.service.held(self.at):
            found.setdefault(file.path, []).append(file)
        return found

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Have nobody write, and the service well, while the block runs."""
        self.empty()
        self.weather.calm = True
        yield
        self.weather.calm = False
        self.gate.open()

    def settle(self) -> None:
        """Have everything published now, and wait until the mount says that nothing is pending, twice."""
        end, calm, said = time.monotonic() + SETTLE_S, 0, ""
        if self.can_flush:
            done = self.mounted.artifactfs("flush", str(self.place), check=False, timeout=SETTLE_S)
            said = done.stdout + done.stderr
        while calm < 2:
            pending = self.mounted.status()["pending"]
            calm = 0 if pending else calm + 1
            if time.monotonic() > end:
                raise Wrong(f"pending for {SETTLE_S:.0f} s on a healthy service: {pending}\n{said}{self.log()}")

    @functools.cached_property
    def can_flush(self) -> bool:
        """Tell whether this version has the command: without it one waits for the next try."""
        return self.mounted.artifactfs("flush", "--help", check=False).returncode == 0

    def check(self) -> None:
        """Compare what the service holds with what was acknowledged.

        Raises:
            Wrong: they differ.
        """
        held = list(self.service.held(self.at))
        wrong = [line for writer in self.writers for line in writer.wrong]
        wrong += judge(self.records, held, known=set(self.service.known), keeps_all=self.service.keeps_all)
        for file in held:
            if file.now and file.now != self.store.objects.put(self.store.objects.read(file.now), durable=False):
                wrong.append(f"{file.path}: its bytes are not what its hash says")
        self._count(held)
        if "unforeseen" in (log := self.mounted.log_text()):
            wrong.append("the log has something unforeseen: " + log[log.index("unforeseen") - 200 :][:3000])
        if self.service.name == "local":
            for writer in self.writers:
                wrong += [f"a call failed: {how}" for name, how in writer.example.items() if name not in DEAD]
        if wrong:
            raise Wrong("\n".join(wrong + self.strange(held)) + self.told())

    def strange(self, held: Sequence[Held]) -> list[str]:
        """Describe contents that nobody saved by the saves that their lines are of."""
        records, found = {record.path: record for record in self.records}, []
        for file in held:
            record = records.get(file.path)
            for sha256 in set(file.past) if record else ():
                if record and sha256 and not record.knows(sha256):
                    words = (line.split(" ")[-3:-2] for line in self.store.objects.read(sha256).decode().splitlines())
                    parts = [f"{len(list(same))} lines of save {number}" for number, same in itertools.groupby(words)]
                    found.append(f"{file.path}: {', '.join(parts[:9])}; asked for was {record.last()}")
        return found

    def told(self) -> str:
        """Return what the mount itself says went wrong."""
        if not self.pid:
            return self.log()
        return "\n" + "\n".join(json.dumps(incident) for incident in self.mounted.status()["errors"]) + self.log()

    def _count(self, held: Sequence[Held]) -> None:
        self.counts.published = len({sha for file in held for sha in file.past})
        self.counts.conflicts = len({file.path for file in held if "(conflict" in file.path})
        self.counts.requests = len(self.lab.seen) if self.lab else 0
        self.counts.refused = sum((writer.refused for writer in self.writers), Counter())

    # -- the run ---------------------------------------------------------------------------------------------

    def run(self, kills: int) -> None:
        """Kill so many times; compare from time to time, at the end, and once more after it was unmounted.

        Raises:
            Wrong: something acknowledged is not at the service as it should be; or no kill has met a pending save.
        """
        while self.counts.kills < kills:
            time.sleep(self.chance.uniform(*LOAD_S))  # noqa: TID251 - no event loop here
            self.kill()
            if self.counts.kills % CHECK_EVERY == 0 or self.counts.kills == kills:
                with self.quiet():
                    self.settle()
                    self.check()
        self.empty()
        self.weather.calm = True
        done = self.mounted.artifactfs("umount", str(self.place), check=False, timeout=SETTLE_S)
        if done.returncode:
            raise Wrong(f"it does not unmount: {done.stderr}{self.log()}")
        self.pid = 0
        self.check()
        if not self.counts.pending:
            raise Wrong(f"none of {kills} kills has met a save that was not at the service yet")

    def summary(self) -> str:
        """Return one line."""
        counts = self.counts
        acked = sum(writer.acked for writer in self.writers)
        refused = ", ".join(f"{count} {name}" for name, count in sorted(counts.refused.items()))
        odd = [how for writer in self.writers for name, how in writer.example.items() if name not in DEAD]
        bad = ", ".join(f"{count} {kind}" for kind, count in sorted(self.weather.counted.items()))
        return (
            f"{self.service.name}: seed {self.seed}, {counts.kills} kills, {counts.pending} with pending saves,"
            f" {counts.hung} that left a call hanging,"
            f" {acked} saves acknowledged, {counts.published} contents published, {counts.requests} requests"
            f" ({bad or 'no faults'}), {counts.conflicts} conflicts, {time.monotonic() - counts.begun_at:.1f} s;"
            f" calls that failed: {refused or 'none'}{''.join(f'; {how}' for how in odd)}"
        )


def torture(service: Service, base: Path, *, kills: int, seed: int) -> str:
    """Kill a mount of a service under load below an empty directory; return what happened, in a line.

    Raises:
        Wrong: see ``Run.run``; the directory then stays as it is.
    """
    with Run(service, base, seed) as run:
        try:
            run.run(kills)
        except AssertionError as error:
            raise Wrong(f"{run.summary()}\n{error}") from error
    shutil.rmtree(base)
    return run.summary()
