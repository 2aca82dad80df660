"""Every number of a mount: what `.artifactfs/metrics` and the metrics socket show.

Rules of this file: nothing is asked of any service, and nothing is looked through that grows with the artifacts: a
scrape of a mount with a million of them costs what one of an empty mount does, but for the listings in memory. No label
has a value that a service or an agent makes up, but for HTTP statuses.
"""

from __future__ import annotations

import itertools
import os
import platform
import resource
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import trio

import artifactfs
from artifactfs import observe
from artifactfs.content.block_store import BlockStore
from artifactfs.observe.exposition import Family, exposition
from artifactfs.vfs.filesystem import FileSystem
from artifactfs.vfs.polling import LISTENING, Poller
from artifactfs.vfs.queue import queue_of

PAGE = os.sysconf("SC_PAGE_SIZE")
# What a client says of its connections, in words.
GAUGES = {
    "pool_slots": "Requests that a source may have under way at once.",
    "pool_slots_busy": "Requests under way.",
    "pool_waiting": "Requests that wait for a slot.",
    "pool_idle": "Open connections that wait for a request.",
    "circuit_failed": "Hosts of a source that could not be connected to last.",
    "circuit_open": "Hosts of a source that are left alone for a while, since nobody was there.",
    "quiet_seconds": "How long the service still wants to be left alone.",
    "budget_left": "Requests that may still be sent at once.",
}


# What the poller says of looking at a source: what the family is called, its kind, in words.
LOOKS: Mapping[str, tuple[str, Literal["counter", "gauge"], str]] = {
    "looks": ("looks", "counter", "Looks at listings for changes by others."),
    "failures": ("looks_failed", "gauge", "Looks in a row that failed."),
    "watched": ("listings_watched", "gauge", "Listings that are looked at for changes by others."),
}


def metrics_text(
    observer: observe.Observer,
    store: BlockStore,
    fs: FileSystem | None,
    poller: Poller | None = None,
    loop: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Return all numbers in the format of Prometheus; ``loop`` is what the watchdog reports."""
    found = (families(observer, store, fs), _looks(poller) if poller else (), _loop(loop) if loop else ())
    return exposition(itertools.chain(*found))


def families(observer: observe.Observer, store: BlockStore, fs: FileSystem | None) -> Iterator[Family]:
    """Return all numbers; those of the filesystem once there is one."""
    yield from _operations(observer.timings)
    yield from _requests(observer)
    yield from _connections(observer)
    if fs is not None:
        yield from _kernel(fs)
        yield from _listings(fs)
        yield from _saving(fs)
    yield from _cache(store)
    yield from _process()


def gauge(name: str, text: str, value: float) -> Family:
    """Return a number that has no labels."""
    family = Family(name, "gauge", text)
    family.add(value)
    return family


def _operations(timings: observe.Timings) -> Iterator[Family]:
    took = Family("artifactfs_operation_duration_seconds", "histogram", "Requests of the kernel until their answer.")
    for operation, histogram in sorted(timings.operations.items()):
        took.add(histogram, operation=operation)
    failed = Family("artifactfs_operation_errors", "counter", "Requests of the kernel answered by an errno.")
    for (operation, errno), count in sorted(timings.errors.items()):
        failed.add(count, operation=operation, errno=errno)
    yield took
    yield failed


def _requests(observer: observe.Observer) -> Iterator[Family]:
    totals = {
        "requests": "Requests sent, each try of one.",
        "failures": "Requests that failed for good.",
        "bytes_received": "Bytes of bodies received.",
    }
    for name, text in totals.items():
        family = Family(f"artifactfs_{name}", "counter", text)
        for source, counters in observer.sources.items():
            family.add(getattr(counters, name), source=source)
        yield family
    took = Family("artifactfs_request_duration_seconds", "histogram", "Requests until the head of their answer.")
    answers = Family("artifactfs_answers", "counter", 'Answers by HTTP status; "none" where there was none.')
    succeeded = Family("artifactfs_last_success_timestamp_seconds", "gauge", "When a source last answered well.")
    well = Family("artifactfs_source_up", "gauge", "1 unless the last thing that a source did was to fail.")
    saves = Family("artifactfs_publishes", "counter", "Tries to publish a change, by what came of them.")
    for source, counters in observer.sources.items():
        took.add(counters.latency, source=source)
        for status, count in sorted(counters.answers.items()):
            answers.add(count, source=source, status=status)
        for outcome, count in sorted(counters.saves.items()):
            saves.add(count, source=source, outcome=outcome)
        if counters.last_success is not None:
            succeeded.add(counters.last_success, source=source)
        failure = counters.last_incident
        well.add(int(failure is None or (counters.last_success or 0) > failure.at), source=source)
    yield from (took, answers, succeeded, well, saves)


def _connections(observer: observe.Observer) -> Iterator[Family]:
    found = {source: read() for source, read in observer.gauges.items()}
    for name, text in GAUGES.items():
        family = Family(f"artifactfs_{name}", "gauge", text)
        for source, values in found.items():
            if name in values:
                family.add(values[name], source=source)
        yield family


def _kernel(fs: FileSystem) -> Iterator[Family]:
    yield gauge("artifactfs_inodes", "Inodes that the kernel knows.", len(fs.inodes))
    yield gauge("artifactfs_kernel_lookups", "References that the kernel holds to them.", fs.inodes.lookups)
    yield gauge("artifactfs_open_handles", "Open files and directories.", len(fs.handles))
    told = Family("artifactfs_invalidations", "counter", "Names that the kernel was told to look up again.")
    told.add(fs.announcer.told)
    yield told


def _listings(fs: FileSystem) -> Iterator[Family]:
    sums: dict[str, list[float]] = {source: [0, 0.0, 0, 0] for source in fs.sources}
    for row in fs.directories.listings.report():
        of_source = sums[row["source"]]
        of_source[0] += 1
        of_source[1] = max(of_source[1], row["age_s"] or 0.0)
        of_source[2] += row["stale"]
        of_source[3] += row["stale_because"] is not None
    names = {
        "listings": "Listings in memory.",
        "listing_oldest_age_seconds": "Age of the oldest listing in memory.",
        "listings_stale": "Listings that are older than they are believed.",
        "listings_failed": "Listings whose last renewal failed.",
    }
    for at, (name, text) in enumerate(names.items()):
        family = Family(f"artifactfs_{name}", "gauge", text)
        for source, values in sums.items():
            family.add(values[at], source=source)
        yield family


def _looks(poller: Poller) -> Iterator[Family]:
    reports = {source: poller.report(source) for source in poller.sources}
    for name, (called, kind, text) in LOOKS.items():
        family = Family(f"artifactfs_{called}", kind, text)
        for source, report in reports.items():
            family.add(report[name], source=source)
        yield family
    told = Family("artifactfs_announcing", "gauge", "1 while a service tells of changes by itself.")
    for source, report in reports.items():
        told.add(int(report["announcing"] == LISTENING), source=source)
    yield told


def _loop(report: Mapping[str, Any]) -> Iterator[Family]:
    stalls = Family("artifactfs_loop_stalls", "counter", "How often the event loop was stuck.")
    stalls.add(report["stalls"])
    yield stalls
    last = report["last_stall"]
    if last is not None:
        yield gauge("artifactfs_loop_last_stall_seconds", "How long it was stuck last.", last["seconds"])
        yield gauge("artifactfs_loop_last_stall_timestamp_seconds", "When it was stuck last.", last["at"])


def _saving(fs: FileSystem) -> Iterator[Family]:
    waiting = Family("artifactfs_pending_changes", "gauge", "Changes that their service does not have yet.")
    dirty = Family("artifactfs_dirty_bytes", "gauge", "Bytes that their service does not have yet.")
    oldest = Family("artifactfs_pending_oldest_age_seconds", "gauge", "Age of the oldest of them.")
    rows = queue_of(fs.writer)
    for source in fs.sources:
        of_source = [row for row in rows if row.source == source]
        waiting.add(len(of_source), source=source)
        dirty.add(sum(row.size for row in of_source), source=source)
        oldest.add(max((row.age_s for row in of_source), default=0.0), source=source)
    yield from (waiting, dirty, oldest)
    journal = sum(home.used_bytes for home in fs.writer.homes.values())
    yield gauge("artifactfs_journal_bytes", "Disk that the drafts of all changes take.", journal)


def _cache(store: BlockStore) -> Iterator[Family]:
    yield gauge("artifactfs_cache_bytes", "Bytes in the cache.", store.used_bytes())
    yield gauge("artifactfs_cache_max_bytes", "Bytes that the cache may have.", store.max_bytes)
    yield gauge("artifactfs_cache_queue_bytes", "Bytes that wait for the disk of the cache.", store.queued_bytes())


def _process() -> Iterator[Family]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = Family("process_cpu_seconds", "counter", "User and system time.")
    cpu.add(used.ru_utime + used.ru_stime)
    yield cpu
    pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    yield gauge("process_resident_memory_bytes", "Memory in RAM.", pages * PAGE)
    yield gauge("process_open_fds", "Open file descriptors.", len(os.listdir("/proc/self/fd")))
    yield gauge("process_max_fds", "... and how many there may be.", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    yield gauge("process_start_time_seconds", "When the process began, since the epoch.", _began_at())
    yield gauge("artifactfs_tasks", "Tasks of the event loop.", trio.lowlevel.current_statistics().tasks_living)
    yield gauge("artifactfs_threads", "Threads of Python.", threading.active_count())
    logged = Family("artifactfs_log_records", "counter", "Records logged, by level.")
    for level, count in observe.counts().items():
        logged.add(count, level=level)
    yield logged
    info = Family("artifactfs_build_info", "gauge", "1; the labels say what runs.")
    info.add(1, version=artifactfs.__version__, python=platform.python_version())
    yield info


_STARTED = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _began_at() -> float:
    # Field 22 of /proc/self/stat: ticks since the machine started.
    ticks = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
    return _STARTED + ticks / os.sysconf("SC_CLK_TCK")
