"""A long mixed load with faults: what the mount holds must come back to where it was, and every read be right.

Rules of this file: the base is measured on a mount that has been through everything once: connections, threads and
buffers that are kept on purpose are there by then. Both the base and the end are measured at rest: nobody uses the
mount, the services are well, everything is published, and the kernel has forgotten its names.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import md5
from pathlib import Path
from typing import Self

from artifactfs.store.catalog import Store
from artifactfs.store.rows import TreeFile, Upload
from tests.support.at_store import AtStore
from tests.support.control import ask
from tests.support.lab import Fault, Lab, Mounted, mounted, service_source
from tests.torture.kills import SETTLE_S, Wrong
from tests.torture.record import Record, judge
from tests.torture.services import SERVICES, Service
from tests.torture.weather import BadDay
from tests.torture.writers import Ended, Gate, Writer

# Of the whole time, how long it is warmed up before the base is measured.
WARM_SHARE = 0.25
# Seconds between two samples; of being offline, and of being well in between.
SAMPLE_S = 10.0
OFFLINE_S, ONLINE_S = 5.0, 25.0
# Stable files of each service, and their sizes: more together than the cache may hold, so that it evicts all the time.
STATIC = 30
SIZES = (100, 5_000, 70_000, 300_000, 900_000)
CACHE = "16MB"
# Seconds between two things that a reader does: two cores serve, mount and read.
PAUSE_S = 0.05
# What may differ between two measurements at rest. Descriptors: block files that stay open (64), idle connections (8 of
# each of six origins) which are closed after a while. Threads: trio keeps one for 10 s. Tasks: refreshes that are due.
# Memory: allocators give back little of what the largest moment took; a leak of one buffer a minute is above it.
SLACK = {"descriptors": 80, "threads": 12, "tasks": 8, "inodes": 40, "lookups": 40, "rss_mb": 48}
# What must be nothing at rest.
NOTHING = ("handles", "running", "slots", "edits", "journal_bytes")
# The kernel tells of what it has forgotten when it comes to it; leases and refreshes under way end.
REST_S = 60.0
Figures = Mapping[str, int]


class Rough(BadDay):
    """A bad day on which answers are also cut in the middle or stall, and on which the service is offline at times."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.offline = False

    def __call__(self, where: str) -> Fault | None:
        if self.calm:
            return None
        if self.offline:
            return Fault("", refuse=True)
        fault = super().__call__(where)
        if fault is not None and fault.status is None and where.startswith("GET ") and self.chance.random() < 0.03:
            self.counted["cut in the middle"] += 1
            fault.cut_after = self.chance.choice((1, 1000, 100_000))
        return fault


@dataclass
class World:
    """One service with its store: files that stay as they are, and files that are written."""

    service: Service
    store: Store
    weather: Rough
    source: str = ""
    expected: dict[str, bytes] = field(default_factory=dict)

    def fill(self, chance: random.Random) -> None:
        """Put the files into its store that nobody changes."""
        self.service.prepare(self.store)
        home, tree = self.store.add_workflow("static").id, list[TreeFile]()
        for at in range(STATIC):
            name = f"static {at}.txt"
            # Text: one of the services takes nothing else.
            data = chance.randbytes(SIZES[at % len(SIZES)] // 2).hex().encode()
            sha256 = self.store.objects.put(data)
            match self.service.name:
                case "vm0":
                    tree.append(TreeFile(f"deep/{name}", sha256, len(data)))
                    self.expected[f"vm0/artifacts/static/deep/{name}"] = data
                case "vlmrun":
                    key, digest = str(uuid.UUID(int=chance.getrandbits(128))), md5(data).hexdigest()
                    self.store.put_upload(Upload(key, name, "assistants", len(data), sha256, digest, 10**18))
                    self.expected[f"vlmrun/files/{name}"] = data
                case _:
                    artifact = self.store.add_artifact(home, name, "file", created_at_ns=10**18)
                    self.store.save_file(artifact.id, sha256, len(data))
                    self.expected[f"{self.service.name}/static/{name}"] = data
        if tree:
            self.store.save_tree(self.store.add_artifact(home, "static", "tree").id, tree)


class Load:
    """Programs that read, until they are told to end; what they may not see is in ``wrong``."""

    def __init__(self, mount: Mounted, expected: Mapping[str, bytes], gate: Gate, scratch: Path) -> None:
        self.mount, self.expected, self.gate, self.scratch = mount, expected, gate, scratch
        self.wrong: list[str] = []
        self.done: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.example: dict[str, str] = {}
        self.paths = sorted(expected)

    def threads(self, seed: int) -> list[threading.Thread]:
        ways = (self._read, self._read, self._read, self._read_parts, self._grep, self._copy, self._list)
        return [
            threading.Thread(target=self._repeat, args=(way, random.Random(seed * 100 + at)), daemon=True)
            for at, way in enumerate(ways)
        ]

    def _repeat(self, way: Callable[[random.Random], None], chance: random.Random) -> None:
        with contextlib.suppress(Ended):
            while True:
                with self.gate.passing():
                    try:
                        way(chance)
                        self.done[way.__name__.strip("_")] += 1
                    except FileNotFoundError as error:
                        self.wrong.append(f"a failure that passes became ENOENT: {error}")
                    except OSError as error:
                        self._note(error.strerror or "?", error.filename)
                time.sleep(PAUSE_S)  # noqa: TID251 - no event loop here

    def _same(self, path: str, found: bytes, wanted: bytes) -> None:
        if found != wanted:
            self.wrong.append(f"{path}: {len(found)} bytes that are not what the service has ({len(wanted)})")

    def _read(self, chance: random.Random) -> None:
        path = chance.choice(self.paths)
        self._same(path, (self.mount.path / path).read_bytes(), self.expected[path])

    def _read_parts(self, chance: random.Random) -> None:
        path = chance.choice(self.paths)
        data = self.expected[path]
        with (self.mount.path / path).open("rb", buffering=0) as file:
            for _ in range(5):
                at = chance.randrange(len(data))
                file.seek(at)
                found = file.read(1000)
                self._same(path, found, data[at : at + len(found)])

    def _grep(self, chance: random.Random) -> None:
        folder = os.path.dirname(chance.choice(self.paths))
        self._run("grep", "-rlE", "--exclude-dir=by-id", "seed|no such text", str(self.mount.path / folder))

    def _copy(self, chance: random.Random) -> None:
        folder = os.path.dirname(chance.choice(self.paths))
        self._run("cp", "-r", "--", str(self.mount.path / folder), str(self.scratch / "copy"))
        for name in os.listdir(self.scratch / "copy") if (self.scratch / "copy").exists() else ():
            path, copy = f"{folder}/{name}", self.scratch / "copy" / name
            # Who copies sees that a read failed; what was copied whole is right.
            if path in self.expected and copy.stat().st_size == len(self.expected[path]):
                self._same(path, copy.read_bytes(), self.expected[path])
        shutil.rmtree(self.scratch / "copy", ignore_errors=True)

    def _list(self, _: random.Random) -> None:
        self._run("find", str(self.mount.path), "-ls")

    def _run(self, *command: str) -> None:
        done = subprocess.run(["nice", *command], capture_output=True, check=False, timeout=300)
        if done.returncode > (command[0] == "grep"):  # 1: it has found nothing
            self._note(f"{command[0]} complains", done.stderr.decode(errors="replace")[-200:])

    def _note(self, what: str, where: object) -> None:
        self.refused[what] += 1
        self.example[what] = str(where)


class Soak:
    """The whole run; use as a context manager."""

    def __init__(self, base: Path, seed: int) -> None:
        self.base, self.seed, self.chance = base, seed, random.Random(seed)
        self.stack = ExitStack()
        self.gate = Gate()
        self.rows: list[dict[str, int]] = []
        self.begun_at = time.monotonic()

    def __enter__(self) -> Self:
        with self.stack as stack:
            stack.callback(self.gate.end)
            self.worlds = [self._world(stack, service) for service in SERVICES.values()]
            sources = {world.service.name: self._source(stack, world) for world in self.worlds}
            extra = f'[cache]\nmax-size = "{CACHE}"\nmin-free = "0B"\n'
            environ = {"ARTIFACTFS_MOUNT_PUBLISH_DELAY": "0.3"}
            self.mount = stack.enter_context(
                mounted(self.base, sources, "--all", extra_config=extra, environ=environ)
            )  # fmt: skip
            self.pid = int(self.mount.status()["pid"])
            expected = {path: data for world in self.worlds for path, data in world.expected.items()}
            (self.base / "scratch").mkdir()
            self.load = Load(self.mount, expected, self.gate, self.base / "scratch")
            self.records = {world.service.name: [Record(path) for path in world.service.files] for world in self.worlds}
            self.writers = [
                Writer(self.gate, self.mount.path / name / SERVICES[name].folder, records, self.seed * 1000 + at)
                for at, (name, records) in enumerate(self.records.items())
            ]
            for thread in (*self.load.threads(self.seed), *self.writers):
                thread.start()
            stack.callback(self._let_go)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def _let_go(self) -> None:
        self.gate.end()
        self.gate.close(SETTLE_S)

    def _world(self, stack: ExitStack, service: Service) -> World:
        store = Store(self.base / f"store {service.name}")
        stack.callback(store.close)
        world = World(service, store, Rough(self.seed))
        world.fill(self.chance)
        return world

    @staticmethod
    def _source(stack: ExitStack, world: World) -> dict[str, object]:
        name = world.service.name
        if name == "local":
            return {"type": "local", "path": str(world.store.root)}
        lab = stack.enter_context(Lab(world.store, weather=world.weather))
        stack.callback(lab.seen.clear)
        more: dict[str, object] = {"allow-private-urls": True} if name == "vlmrun" else {}
        return service_source(name, lab.bases()[name], **{"requests-per-minute": 10**6}, **more)

    # -- measuring -------------------------------------------------------------------------------------------

    def sample(self) -> Figures:
        """Return what the mount holds now."""
        found: dict[str, int] = ask(self.mount, verb="figures")
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        found["rss_mb"] = int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) >> 10
        self.rows.append({"s": int(time.monotonic() - self.begun_at), **found})
        return found

    @contextlib.contextmanager
    def calm(self, *, calm: bool) -> Iterator[None]:
        """Have all services well while the block runs."""
        for world in self.worlds:
            world.weather.calm = calm
        yield
        for world in self.worlds:
            world.weather.calm = False

    def at_rest(self) -> Figures:
        """Return what the mount holds when nobody uses it.

        Raises:
            Wrong: something is not given back.
        """
        if not self.gate.close(SETTLE_S):
            raise Wrong("a program hangs in the mount")
        with self.calm(calm=True):
            for writer in self.writers:
                writer.clean()  # of a save that failed: a temporary file stays here until it is removed
            self.mount.artifactfs("flush", str(self.mount.path), check=False, timeout=SETTLE_S)
            end = time.monotonic() + REST_S
            while True:
                drop_caches()
                found = self.sample()
                left = {name: found[name] for name in NOTHING if found[name]}
                if not left and found["tasks"] <= self.rows[0]["tasks"] + SLACK["tasks"]:
                    return found
                if time.monotonic() > end:
                    raise Wrong(f"not given back {REST_S:.0f} s after the last use: {left}, {found}")
                time.sleep(0.5)  # noqa: TID251 - no event loop here

    def run(self, seconds: float, told: Callable[[str], None]) -> None:
        """Have the load for so many seconds.

        Raises:
            Wrong: a read was wrong, a save is lost, or something is not given back.
        """
        self.sample()
        self._under_load(seconds * WARM_SHARE, told)
        base = self.at_rest()
        told(f"at rest after warming up: {line(base)}")
        self._under_load(seconds * (1 - WARM_SHARE), told)
        end = self.at_rest()
        told(f"at rest at the end:       {line(end)}")
        self._judge(base, end)

    def _under_load(self, seconds: float, told: Callable[[str], None]) -> None:
        begun = time.monotonic()
        next_sample = begun + SAMPLE_S
        self.gate.open()
        while (now := time.monotonic()) < begun + seconds:
            phase = (now - begun) % (ONLINE_S + OFFLINE_S)
            for at, world in enumerate(self.worlds):
                # One service after the other is offline, so that it shows if one holds up the others.
                turn = int((now - begun) / (ONLINE_S + OFFLINE_S)) % len(self.worlds)
                world.weather.offline = phase > ONLINE_S and at == turn
            if now >= next_sample:
                next_sample = now + SAMPLE_S
                told(line(self.sample()))
            time.sleep(0.2)  # noqa: TID251 - no event loop here
        for world in self.worlds:
            world.weather.offline = False

    def wrong(self) -> list[str]:
        seen = [complaint for writer in self.writers for complaint in writer.wrong]
        return [*self.load.wrong, *seen]

    def _judge(self, base: Figures, end: Figures) -> None:
        wrong = self.wrong()
        wrong += [
            f"{name} is {end[name]} at the end, was {base[name]} (may be {slack} more)"
            for name, slack in SLACK.items()
            if end[name] > base[name] + slack
        ]
        for world in self.worlds:
            known = set(world.service.known) | {Path(path).name for path in world.expected}
            held = list(world.service.held(AtStore(world.store)))
            wrong += judge(self.records[world.service.name], held, known=known, keeps_all=world.service.keeps_all)
        if "unforeseen" in (log := self.mount.log_text()):
            wrong.append("the log has something unforeseen: " + log[log.index("unforeseen") - 200 :][:3000])
        if wrong:
            (self.base / "history").write_text("\n".join(line for writer in self.writers for line in writer.history))
            raise Wrong("\n".join(wrong[:20]))

    def summary(self) -> str:
        """Return the figures of the run, as a table and a line."""
        names = list(self.rows[0])
        table = [names, *([str(row[name]) for name in names] for row in thinned(self.rows))]
        widths = [max(len(row[at]) for row in table) for at in range(len(names))]
        lines = [" ".join(word.rjust(width) for word, width in zip(row, widths, strict=True)) for row in table]
        done = ", ".join(f"{count} {name}" for name, count in sorted(self.load.done.items()))
        refused = sum((writer.refused for writer in self.writers), self.load.refused)
        examples = self.load.example | {name: text for one in self.writers for name, text in one.example.items()}
        bad = sum((world.weather.counted for world in self.worlds), Counter[str]())
        text = (
            f"soak: seed {self.seed}, {time.monotonic() - self.begun_at:.0f} s; {done}; "
            f"{sum(writer.acked for writer in self.writers)} saves acknowledged; faults: {counted(bad)}; "
            f"calls that failed: {counted(refused)}; for instance {examples}"
        )
        return "\n".join([*lines, text])


def counted(things: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(things.items())) or "none"


def thinned(rows: list[dict[str, int]], most: int = 40) -> list[dict[str, int]]:
    """Return at most so many rows, evenly spread, with the last one."""
    step = -(-len(rows) // most)
    return [row for at, row in enumerate(rows) if at % step == 0 or at == len(rows) - 1]


def line(found: Figures) -> str:
    return " ".join(f"{name}={value}" for name, value in found.items())


def drop_caches() -> None:
    """Have the kernel forget the names it does not need; without root nothing happens."""
    with contextlib.suppress(PermissionError):
        Path("/proc/sys/vm/drop_caches").write_text("2\n")


def soak(base: Path, *, seconds: float, seed: int, told: Callable[[str], None] = lambda _: None) -> str:
    """Have the load below an empty directory for so long; return the figures.

    Raises:
        Wrong: see ``Soak.run``; the directory then stays as it is.
    """
    with Soak(base, seed) as run:
        try:
            run.run(seconds, told)
        except AssertionError as error:
            raise Wrong(f"{run.summary()}\n{error}\n{run.mount.log_text()[-3000:]}") from error
        text = run.summary()
    shutil.rmtree(base)
    return text
