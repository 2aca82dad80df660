"""``.artifactfs``: the state of the mount as files.

Rules of this file: what is shown is made at the moment of looking; nothing is asked of any service for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from artifactfs.model.content import Exact, Inline
from artifactfs.model.text import printable
from artifactfs.tree.inodes import number
from artifactfs.tree.layout import Level
from artifactfs.tree.nodes import Kind, Node

README = """\
This directory is not listed in its parent, so that recursive commands stay out of it.

status.json   what `artifactfs status --json` prints
metrics       counters and gauges in the text format of Prometheus
listings      how old each directory is that was looked at, and whether it is all there is
errors        the latest failures, newest last
progress      archives that are being downloaded: how far, how many files, for how long
pending       saves that have not reached their service yet

`artifactfs why PATH` explains a single path.
"""


def _text(lines: Iterable[str]) -> str:
    """Return lines that a terminal may be shown: messages and paths are others' words."""
    return "".join(printable(line.replace("\n", " ")) + "\n" for line in lines)


def errors_text(status: dict[str, Any]) -> str:
    """Return the latest failures, one a line."""
    lines = [
        f"{incident['time']} {incident['source']} {incident['message']}"
        + (f" [{incident['subject']}]" if incident["subject"] else "")
        for incident in status["errors"]
    ]
    return _text(lines)


def listings_text(status: dict[str, Any]) -> str:
    """Return what is known of directories, one a line: source, directory, age, whether it is complete, what failed."""
    lines = []
    for row in (row for source in status["sources"] for row in source["listings"]):
        age = "to be asked for again" if row["age_s"] is None else f"{row['age_s']:.0f} s old"
        whole = "complete" if row["complete"] else f"incomplete: {row['note'] or 'there may be more'}"
        why = f"; stale because {row['stale_because']}" if row["stale_because"] else ""
        lines.append(f"{row['source']} {row['directory']}: {age}, {whole}{why}")
    return _text(lines)


def progress_text(status: dict[str, Any]) -> str:
    """Return the archives on their way, one a line."""
    lines = []
    for row in status["archives"]:
        share = f" of {row['total']} bytes ({100 * row['bytes'] // row['total']}%)" if row["total"] else " bytes"
        lines.append(f"{row['archive']}: {row['bytes']}{share}, {row['files']} members, {row['seconds']:.0f} s")
    return _text(lines)


def pending_text(status: dict[str, Any]) -> str:
    """Return the changes that wait for their service, one a line."""
    lines = []
    for row in status["pending"]:
        why = f": {row['error']}" if row["error"] else ""
        lines.append(f"{row['number']} {row['state']} {row['path']} ({row['size']} bytes, {row['tries']} tries){why}")
    return _text(lines)


class ControlFiles:
    """Makes the files; ``status`` returns the whole state, ``metrics`` its numbers as text."""

    def __init__(self, status: Callable[[], dict[str, Any]], metrics: Callable[[], str] = str) -> None:
        """Keep where the state comes from."""
        self._status = status
        self._makers: dict[str, Callable[[], str]] = {
            "README": lambda: README,
            "status.json": lambda: json.dumps(self._status(), indent=2) + "\n",
            "metrics": metrics,
            "listings": lambda: listings_text(self._status()),
            "errors": lambda: errors_text(self._status()),
            "progress": lambda: progress_text(self._status()),
            "pending": lambda: pending_text(self._status()),
        }

    def level(self, node: Node) -> Level:
        """Return the directory."""
        level = Level()
        for name in self._makers:
            identity = ("control", name)
            level.children[name] = Node(
                number(identity), identity, Kind.FILE, name, content=Inline(b""), mtime_ns=node.mtime_ns
            )  # fmt: skip
            self.refresh(level.children[name])
        return level

    def refresh(self, node: Node) -> None:
        """Make a file's content what it is now."""
        data = self._makers[node.identity[1]]().encode("utf-8", "backslashreplace")
        node.content, node.size = Inline(data), Exact(len(data))


def is_control(node: Node) -> bool:
    """Tell whether a node is one of these files."""
    return node.kind is Kind.FILE and node.identity[0] == "control"
