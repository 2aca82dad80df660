"""The log: text or JSON, a line is of one record, bounded on disk, its level changed at run time.

Rules of this file: a log never harms who logs: whatever goes wrong here is swallowed. Each line begins with time,
level, logger and operation, also each line of a traceback in the text format, so that what belongs together is found by
its id. Control characters in whatever is logged leave as escapes: no title can forge a line; only a message that has
nobody else's words in it, and says so by ``extra=IN_LINES``, keeps its line ends. Secrets that were named by
``hide`` leave as a mark; they should not get here in the first place.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from artifactfs.model.text import printable
from artifactfs.observe.operations import operation

LEVELS = ("debug", "info", "warning", "error")
Format = Literal["text", "json"]
# A line longer than this is cut: a traceback takes 8 KiB at most, the rest is somebody's content.
MAX_LINE = 32 * 1024
HIDDEN = "[removed]"
IN_LINES = {"in_lines": True}
# Shorter ones would be cut out of every other word.
MIN_SECRET = 4
_OURS = "artifactfs"

_hidden: set[str] = set()


def hide(*secrets: str) -> None:
    """Take care that these never stand in the log."""
    _hidden.update(secret for secret in secrets if len(secret) >= MIN_SECRET)


def without_secrets(text: str) -> str:
    """Return text without what must not be shown."""
    for secret in _hidden:
        if secret in text:
            text = text.replace(secret, HIDDEN)
    return text


class TextLines(logging.Formatter):
    """``TIME LEVEL LOGGER [ID OPERATION FACTS] MESSAGE``."""

    form: Format = "text"

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's lines, without the last line end."""
        head = f"{_local_time(record.created)} {record.levelname} {record.name} [{_operation_in_words()}] "
        message = record.getMessage()
        said = message.rstrip("\n").split("\n") if getattr(record, "in_lines", False) else [message]
        lines = [*said, *_traceback(record)]
        return "\n".join(without_secrets(printable(head + line))[:MAX_LINE] for line in lines)


class JsonLines(logging.Formatter):
    """One JSON object a record.

    Always ``time`` (UTC), ``level``, ``logger``, ``message``; of work that has an id ``id``, ``operation``, and as far
    as they are known ``ino``, ``path``, ``fh``, ``pid`` (of who asked), ``source``; ``request`` with ``source``,
    ``method``, ``url``, ``status``, ``ms``, ``request_id`` for an answer of a service; ``traceback``.
    """

    form: Format = "json"

    def format(self, record: logging.LogRecord) -> str:
        """Return a record's line, without its end."""
        found: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        current = operation.get()
        if current is not None:
            found.update(id=current.id, operation=current.name, **current.facts())
        found["message"] = record.getMessage()[:MAX_LINE]
        request: Mapping[str, object] | None = getattr(record, "request", None)
        if request is not None:
            found["request"] = dict(request)
        if trace := _traceback(record):
            found["traceback"] = "\n".join(trace)[:MAX_LINE]
        # ASCII, so whatever is logged stays in its line. A secret has no character that JSON would escape.
        return without_secrets(json.dumps(found, default=str))


def _operation_in_words() -> str:
    current = operation.get()
    if current is None:
        return "-"
    facts = "".join(f" {name}={value}" for name, value in current.facts().items())
    return f"{current.id} {current.name}{facts}"


def _local_time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) + f",{int(at * 1000) % 1000:03d}"


def _traceback(record: logging.LogRecord) -> list[str]:
    if not record.exc_info:
        return []
    return logging.Formatter().formatException(record.exc_info).split("\n")


class _Counting(logging.Filter):
    """Counts records by level."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        self.seen[record.levelname.lower()] += 1
        return True


class BoundedLog(logging.Handler):
    """The log file of a process in the background, which is its stderr, too.

    Where it would pass ``max_bytes`` it becomes ``<path>.1``, in the place of the one before it: two of them at most
    are on the disk. Where that cannot be done it begins anew in its place.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Write to what stderr is open on, and expect it at ``path``."""
        super().__init__()
        self.path = path
        self.max_bytes = max_bytes
        self._fd = sys.stderr.fileno()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record's lines; a disk that is full or away loses them."""
        with contextlib.suppress(Exception):
            raw = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
            if os.fstat(self._fd).st_size + len(raw) > self.max_bytes:
                self._begin_anew()
            os.write(self._fd, raw)

    def _begin_anew(self) -> None:
        try:
            with contextlib.suppress(FileNotFoundError):  # somebody has taken it away
                os.replace(self.path, f"{self.path}.1")
            fresh = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:
            os.ftruncate(self._fd, 0)
            return
        try:
            for fd in {sys.stdout.fileno(), self._fd}:
                os.dup2(fresh, fd)
        finally:
            os.close(fresh)


def set_up_logging(level: str, form: Format = "text", handler: logging.Handler | None = None) -> None:
    """Send the package's log to ``handler``, by default to stderr; libraries only from WARNING up."""
    handler = handler or logging.StreamHandler(sys.stderr)
    handler.addFilter(_Counting())
    handler.setFormatter(JsonLines() if form == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    set_level(level)


def set_level(name: str) -> None:
    """Log our own records from this level on, at once."""
    logging.getLogger(_OURS).setLevel(name.upper())


def level() -> str:
    """Return the level that holds now."""
    return logging.getLevelName(logging.getLogger(_OURS).getEffectiveLevel()).lower()


def counts() -> Mapping[str, int]:
    """Return how many records were logged since the start, by level."""
    found = (one for handler in logging.getLogger().handlers for one in handler.filters)
    seen = next((one.seen for one in found if isinstance(one, _Counting)), Counter[str]())
    return dict.fromkeys(LEVELS, 0) | dict(seen)


def describe_log() -> dict[str, object]:
    """Return what ``status`` says of the log."""
    handlers = logging.getLogger().handlers
    form = next((getattr(handler.formatter, "form", None) for handler in handlers), None)
    path = next((str(handler.path) for handler in handlers if isinstance(handler, BoundedLog)), None)
    return {"level": level(), "format": form or "text", "file": path}
