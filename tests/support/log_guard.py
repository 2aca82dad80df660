"""Collects warnings and worse, so that those a test did not announce can fail it.

What FUSE turned into a mere errno shows here, also what a mount in a process of its own has written to its log.
"""

import json
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import trio

# Our loggers may stop propagating once logging is set up, so the root alone does not see everything.
WATCHED = ("", "artifactfs")
# A line of a mount's log, as ``artifactfs.observe`` sets it up.
# What stands in brackets may have brackets itself: it names paths.
LINE = re.compile(r"\S+ \S+ (?P<level>WARNING|ERROR|CRITICAL) (?P<logger>[\w.]+) \[.*?\] (?P<message>.*)")
# What Python itself writes there, in no format of ours: warnings, and errors that nobody could be told of.
OF_PYTHON = re.compile(r"\S+:\d+: \w*Warning: .*|Exception ignored in.*|Fatal Python error.*")
# Where mounts have their logs, below a home directory.
LOGS = (".local/state/artifactfs/log", "run/artifactfs")
# What a mount says of what it was given, not of itself: saves that a service refuses, what it has found on a disk or in
# a store. Tests that bring that about look for what the user sees of it.
ORDINARY = re.compile(
    "refused and kept here|cannot be taken up|illegal paths in .* are not shown|cannot be read and is left as it is"
    "|is damaged and put aside"
)

# Of a client that goes away, or has said all, while it is being answered: hypercorn's reader then sends beside its
# application (`BusyResourceError` in trio's `send_all`, seen with hypercorn 0.18 when a request was answered early).
SERVER = "hypercorn.error"


class MountLogs:
    """What the processes of mounts have written to their logs since it was read last."""

    def __init__(self) -> None:
        """Know no home yet."""
        self._homes: set[Path] = set()
        self._read: dict[Path, int] = {}

    def watch(self, home: Path) -> None:
        """Read the logs of the mounts of a home directory from now on."""
        self._homes.add(home)

    def forget(self, home: Path) -> None:
        """Read them no more."""
        self._homes.discard(home)

    def records(self) -> list[logging.LogRecord]:
        """Return the warnings and worse that have come."""
        paths = [path for home in self._homes for below in LOGS for path in (home / below).glob("*.log")]
        return [record for path in sorted(paths) for line in self._lines(path) for record in _records(path, line)]

    def _lines(self, path: Path) -> list[str]:
        begin = self._read.get(path, 0)
        try:
            with path.open("rb") as file:
                file.seek(begin)
                # What has no end yet is read later.
                whole = file.read().rpartition(b"\n")[0]
        except OSError:  # removed by a test
            return []
        self._read[path] = begin + len(whole) + bool(whole)
        return whole.decode(errors="replace").splitlines()


def _records(path: Path, line: str) -> list[logging.LogRecord]:
    if OF_PYTHON.fullmatch(line):
        return [logging.LogRecord("artifactfs.stderr", logging.ERROR, str(path), 0, "%s", (line,), None)]
    found = _of_json(line) if line.startswith("{") else LINE.fullmatch(line)
    if found is None or ORDINARY.search(line):
        return []
    level = logging.getLevelNamesMapping()[found["level"].upper()]
    return [logging.LogRecord(found["logger"], level, str(path), 0, "%s", (found["message"],), None)]


def _of_json(line: str) -> dict[str, str] | None:
    found: dict[str, str] = json.loads(line)
    return found if found["level"] in {"warning", "error", "critical"} else None


MOUNTS = MountLogs()


@dataclass
class Announcement:
    """Records of `logger` and below, up to `level`, whose message matches `pattern`."""

    logger: str
    pattern: re.Pattern[str]
    level: int
    seen: list[logging.LogRecord] = field(default_factory=list)

    def covers(self, record: logging.LogRecord) -> bool:
        inside = not self.logger or record.name == self.logger or record.name.startswith(f"{self.logger}.")
        return inside and record.levelno <= self.level and bool(self.pattern.search(record.getMessage()))


class LogGuard(logging.Handler):
    """Collects records at WARNING and above. Call it, before or after the fact, to announce some."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []
        self.announcements: list[Announcement] = []

    def __call__(self, pattern: str = "", *, logger: str = "artifactfs", level: int = logging.WARNING) -> Announcement:
        """Allow, not demand, such records; `.seen` of what this returns has them once they came."""
        announcement = Announcement(logger, re.compile(pattern), level)
        self.announcements.append(announcement)
        for record in self.records:
            self._match(record)
        return announcement

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == SERVER and record.exc_info and isinstance(record.exc_info[1], trio.BusyResourceError):
            return
        if not any(record is known for known in self.records):  # seen by the root and by our logger
            self.records.append(record)
            self._match(record)

    def _match(self, record: logging.LogRecord) -> None:
        for announcement in self.announcements:
            if announcement.covers(record) and not any(record is known for known in announcement.seen):
                announcement.seen.append(record)

    def unannounced(self) -> list[str]:
        formatter = logging.Formatter("%(levelname)s %(name)s: %(message)s (%(pathname)s)")
        return [
            formatter.format(record)
            for record in self.records
            if not any(announcement.covers(record) for announcement in self.announcements)
        ]

    def __enter__(self) -> Self:
        self.read_mounts()  # of mounts that others share: they fail who is there, and say whose log it is
        for name in WATCHED:
            logging.getLogger(name).addHandler(self)
        return self

    def read_mounts(self) -> None:
        """Take in what mounts have logged."""
        for record in MOUNTS.records():
            self.emit(record)

    def __exit__(self, *_: object) -> None:
        self.read_mounts()
        for name in WATCHED:
            logging.getLogger(name).removeHandler(self)
