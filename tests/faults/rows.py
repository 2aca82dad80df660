"""Carries out one row of the table: a mount with a source for each cell, all of which meet the same fault.

The order: everything is brought to where the fault finds it; the fault begins; all operations side by side, as many
programs would; programs that wait, and ``artifactfs umount`` while they do; the laboratory is mended; a second mount,
which must show all of what there is and hand over what was saved.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.expectations import DEADLINE_S, OPERATIONS, SERVICES
from tests.faults.faults import Fault
from tests.faults.operations import Cell
from tests.faults.worlds import CHANGED, PLACES, SAVED, SMALL, Laboratories, make_world
from tests.support.control import ask
from tests.support.lab import TOKEN, Mounted, environment, mounted, service_source, write_config
from tests.support.leaks import fuse_mounts_below

# What was saved is published after so many seconds without a change: later than the operations of a row are over.
PUBLISH_S = 3.0
# How long what was saved may take to arrive once the service is well: it is tried at once by a new mount.
ARRIVAL_S = 30.0
# Into the kernel, and for longer than is no wait at all.
WAITING_S = 1.2
# Tries to bring about what is so before the fault.
PATIENCE = 5
# A look waits 0.3 s for a new listing, and the next one finds it.
RENEWAL_S = 0.5
CORES = os.cpu_count() or 1

Key = tuple[str, str]
"""Service and operation."""


@dataclass(frozen=True)
class Outcome:
    """What came of a cell: errno (0 is success), value, seconds, and the requests that its service saw."""

    number: int
    value: object
    took_s: float
    seen: tuple[str, ...]
    crowd: float


@dataclass
class Row:
    """What came of a row.

    Attributes:
        outcomes: of its cells.
        listed: what lists gave, with what had to be in them, and whether they were said to be incomplete.
        afterwards: what the second mount showed: names and content, by service and operation.
        arrived: what was saved and is at the service in the end.
        log: of the mount.
    """

    outcomes: dict[Key, Outcome] = field(default_factory=dict)
    listed: dict[Key, tuple[set[str], set[str], bool]] = field(default_factory=dict)
    afterwards: dict[Key, tuple[set[str], set[str], bytes]] = field(default_factory=dict)
    arrived: dict[Key, list[bytes | None]] = field(default_factory=dict)
    log: str = ""


def crowd() -> float:
    """Return how many times longer things take here now than on a machine that has nothing else to do.

    As many programs as share a core: over the last minute, and at this moment.
    """
    running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    return max(1.0, os.getloadavg()[0] / CORES, running / CORES)


def _name(key: Key) -> str:
    return " ".join(key)


@dataclass
class _Trial:
    """One row in progress."""

    fault: Fault
    cells: dict[Key, Cell]
    row: Row

    def each(self, work: Callable[[Cell], Any], only: Collection[str] = OPERATIONS) -> dict[Key, Any]:
        """Do something with cells, side by side."""
        keys = [key for key in self.cells if key[1] in only]
        with ThreadPoolExecutor(max(1, len(keys))) as pool:
            return dict(zip(keys, pool.map(lambda key: work(self.cells[key]), keys), strict=True))

    # -- under the fault ---------------------------------------------------------------------------------------

    def meet(self) -> None:
        """Have the fault begin, and do all operations under it."""
        for cell in self.cells.values():
            cell.world.before = cell.world.place.names(cell.world.store)
            cell.asked = len(cell.world.seen)
            self.fault.begin(cell.world)
        self.row.outcomes = self.each(self._attempt, [one for one in OPERATIONS if one != "umount"])
        self.each(Cell.finish)

    @staticmethod
    def _attempt(cell: Cell) -> Outcome:
        crowded, begin = crowd(), time.monotonic()
        number, value = 0, None
        try:
            value = cell.run()
        except OSError as error:
            number = error.errno or -1
        took_s = time.monotonic() - begin
        return Outcome(number, value, took_s, tuple(cell.world.seen[cell.asked :]), max(crowded, crowd()))

    def look_at_lists(self, mount: Mounted) -> None:
        """Keep what lists gave, and what they had to give: what was there before and is there still."""
        for key, cell in self.cells.items():
            outcome = self.row.outcomes.get(key)
            if key[1] == "list" and outcome is not None and not outcome.number:
                assert isinstance(outcome.value, list)
                place, store = cell.world.place, cell.world.store
                told = ask(mount, verb="why", path=f"{_name(key)}/{place.listed}")
                lasting = cell.world.before & place.names(store)
                self.row.listed[key] = (set(outcome.value), lasting, "incomplete" in json.dumps(told))

    # -- unmounting --------------------------------------------------------------------------------------------

    def unmount(self, mount: Mounted) -> None:
        """Unmount while programs wait."""
        cells = [cell for key, cell in self.cells.items() if key[1] == "umount"]
        programs = [
            subprocess.Popen(
                ["cat", str(cell.source / cell.world.place.large)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            for cell in cells
        ]
        try:
            time.sleep(WAITING_S)  # noqa: TID251 - no event loop here
            crowded, begin = crowd(), time.monotonic()
            done = mount.artifactfs("umount", str(mount.path), check=False)
            took_s = time.monotonic() - begin
            for program in programs:
                program.wait(DEADLINE_S * 5)
        finally:
            for program in programs:
                program.kill()
        for key, cell in self.cells.items():
            if key[1] == "umount":
                seen = tuple(cell.world.seen[cell.asked :])
                self.row.outcomes[key] = Outcome(done.returncode, done.stderr, took_s, seen, max(crowded, crowd()))

    # -- afterwards --------------------------------------------------------------------------------------------

    def look_afterwards(self, mount: Mounted) -> None:
        """See what the next mount shows and hands over."""
        self.row.afterwards = self.each(_shown, ("list", "stat", "open", "first read", "later read"))
        end = time.monotonic() + ARRIVAL_S * crowd()
        while True:
            there = self.each(lambda cell: cell.world.place.held(cell.world.store), ("write", "fsync", "umount"))
            # Who was told that it could not be saved has nothing to wait for.
            self.row.arrived = {
                key: held for key, held in there.items() if key[1] == "umount" or not self.row.outcomes[key].number
            }
            if all(self.row.arrived.values()) or time.monotonic() > end:
                return
            time.sleep(0.2)  # noqa: TID251 - no event loop here


def _prepare(cell: Cell) -> None:
    """Bring a cell to where the fault finds it; a machine may be too busy for the deadline, which is short here."""
    for _ in range(PATIENCE):
        with contextlib.suppress(TimeoutError):
            return cell.prepare()
    return cell.prepare()


def _shown(cell: Cell) -> tuple[set[str], set[str], bytes]:
    place = cell.world.place
    names = set(os.listdir(cell.source / place.listed))
    lasting = cell.world.before & place.names(cell.world.store)
    for _ in range(PATIENCE):
        try:
            return names, lasting, (cell.source / place.small).read_bytes()
        except OSError as error:
            # What the service has under another id now is gone once, and there for who looks again.
            if error.errno not in {errno.ENOENT, errno.ESTALE}:
                raise
            time.sleep(RENEWAL_S)  # noqa: TID251 - no event loop here
    return names, lasting, b"gone"


def carry_out(fault: Fault, keys: Collection[Key], base: Path) -> Row:
    """Carry out a row, or the part of it that these services and operations are."""
    worlds = {
        key: make_world(
            base, base.parent / "templates", PLACES[key[0]], _name(key).replace(" ", "-"),
            is_paged=fault.reaches == "pages" and key[1] in {"list", "stat"},
        )
        for key in keys
    }  # fmt: skip
    row = Row()
    with ExitStack() as stack:
        stack.enter_context(Laboratories(worlds.values()))
        sources = {
            json.dumps(_name(key)): service_source(key[0], world.base, **{"allow-private-urls": True})
            for key, world in worlds.items()
        }
        cells = {key: Cell(key[1], world, base / "mnt" / _name(key)) for key, world in worlds.items()}
        trial = _Trial(fault, cells, row)
        _first_mount(trial, base, sources)
        for world in worlds.values():
            world.heal()
        with mounted(base, sources, "--all", extra_config=config()) as mount:
            trial.look_afterwards(mount)
        row.log = mount.log_text()
    for world in worlds.values():
        world.store.close()
    return row


def config() -> str:
    """Return the mount's configuration but for its sources."""
    return f"[mount]\ntimeout = {DEADLINE_S}\npublish-delay = {PUBLISH_S}\n"


def _first_mount(trial: _Trial, base: Path, sources: Mapping[str, Mapping[str, object]]) -> None:
    with _mounted(base, sources) as mount:
        try:
            trial.each(_prepare)
            trial.meet()
            trial.look_at_lists(mount)
        finally:
            trial.each(Cell.finish)
        trial.unmount(mount)


@contextmanager
def _mounted(base: Path, sources: Mapping[str, Mapping[str, object]]) -> Iterator[Mounted]:
    """Have a mount that the block unmounts itself, if nothing goes wrong."""
    mount = Mounted(base / "mnt", base / "home", environment(base / "home", LAB_TOKEN=TOKEN))
    config_path = write_config(mount.home, sources, config())
    done = mount.artifactfs("mount", str(mount.path), "--all", "--config", str(config_path), check=False)
    assert done.returncode == 0, done.stderr
    try:
        yield mount
    finally:
        if fuse_mounts_below(base):
            mount.artifactfs("umount", "--no-wait", str(mount.path), check=False)
        if fuse_mounts_below(base):
            subprocess.run(["umount", "-l", str(mount.path)], check=False)


def contents(fault: Fault) -> set[bytes]:
    """Return what the small file may hold under a fault."""
    return {SMALL, CHANGED} if fault.name == "content changes" else {SMALL}


__all__ = ["SAVED", "SERVICES", "Outcome", "Row", "carry_out", "contents"]
