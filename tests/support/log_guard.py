"""Collects warnings and worse, so that those a test did not announce can fail it.

What FUSE turned into a mere errno shows here.
"""

import logging
import re
from dataclasses import dataclass, field
from typing import Self

# Our loggers may stop propagating once logging is set up, so the root alone does not see everything.
WATCHED = ("", "artifactfs")


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
        if not any(record is known for known in self.records):  # seen by the root and by our logger
            self.records.append(record)
            self._match(record)

    def _match(self, record: logging.LogRecord) -> None:
        for announcement in self.announcements:
            if announcement.covers(record) and not any(record is known for known in announcement.seen):
                announcement.seen.append(record)

    def unannounced(self) -> list[str]:
        formatter = logging.Formatter("%(levelname)s %(name)s: %(message)s")
        return [
            formatter.format(record)
            for record in self.records
            if not any(announcement.covers(record) for announcement in self.announcements)
        ]

    def __enter__(self) -> Self:
        for name in WATCHED:
            logging.getLogger(name).addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        for name in WATCHED:
            logging.getLogger(name).removeHandler(self)
