"""The only place that formats for people: tables and colour on a terminal, plain text in a pipe.

Rules of this file: whatever is shown may hold an agent's words, so control characters leave as escapes. A line for a
pipe is never folded: a script must find in it what it looks for.
"""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from artifactfs.model.text import printable as harmless

_NAMED = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
# As much of a path as fits beside a bar.
SHOWN_NAME = 50
# SGR sequences of ECMA-48.
_BOLD, _RED, _RESET = "\x1b[1m", "\x1b[1;31m", "\x1b[0m"
# As git colours a diff.
_OF_DIFFERENCE = (
    ("---", _BOLD), ("+++", _BOLD), ("@@", "\x1b[36m"), ("-", "\x1b[31m"), ("+", "\x1b[32m"),
)  # fmt: skip


def size(value: float | None) -> str:
    """Return bytes for people."""
    if value is None:
        return "-"
    for unit, name in _NAMED:
        if value >= unit:
            return f"{value / unit:.1f} {name}"
    return f"{value:.0f} B"


def printable(text: object) -> str:
    """Return anything as text with control characters shown as escapes."""
    return harmless(str(text))


def as_json(value: object) -> None:
    """Print JSON for programs."""
    _write(json.dumps(value, indent=2))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under headings."""
    cells = [[printable("-" if cell is None else cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _table_for_terminal(columns, cells)
        return
    lines = [[*columns], *cells]
    widths = [max(_cells(line[at]) for line in lines) for at in range(len(columns))]
    for line in lines:
        padded = (cell + " " * (width - _cells(cell)) for cell, width in zip(line, widths, strict=True))
        _write("  ".join(padded).rstrip())


def _cells(text: str) -> int:
    """Return how many columns a terminal uses for a text."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _table_for_terminal(columns: Sequence[str], cells: Iterable[Sequence[str]]) -> None:
    # 0.05 s that no other output needs.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in cells:
        grid.add_row(*map(Text, row))
    Console(highlight=False).print(grid)


def facts(values: Mapping[str, Any]) -> None:
    """Print name and value, a line each."""
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        if value is None or value == []:
            continue
        _write(f"{_styled(f'{name:<{width}}', _BOLD, sys.stdout)}  {printable(value)}")


def say(message: str) -> None:
    """Print a sentence."""
    _write(printable(message))


def complain(message: str) -> None:
    """Print an error, on stderr; each line of it is one."""
    for line in message.splitlines() or [""]:
        _write(f"{_styled('artifactfs:', _RED, sys.stderr)} {printable(line)}", sys.stderr)


def difference(line: str) -> None:
    """Print a line of a unified diff: as it is in a pipe, coloured and without control characters on a terminal."""
    if not sys.stdout.isatty():
        _write(line)
        return
    style = next((style for prefix, style in _OF_DIFFERENCE if line.startswith(prefix)), "")
    shown = "\t".join(printable(part) for part in line.split("\t"))
    _write(_styled(shown, style, sys.stdout) if style else shown)


def _styled(text: str, style: str, stream: TextIO) -> str:
    return f"{style}{text}{_RESET}" if stream.isatty() and not os.environ.get("NO_COLOR") else text


def _write(line: str, stream: TextIO | None = None) -> None:
    stream = stream or sys.stdout
    stream.write(line + "\n")
    stream.flush()


class Progress:
    """How far something is, on a terminal; nowhere else."""

    def __init__(self, bar: Any = None) -> None:  # noqa: ANN401 - rich is loaded only where it is shown
        """Show it by a bar of rich, or not at all."""
        self._bar = bar
        self._task = None if bar is None else bar.add_task("", total=None)

    def update(self, done: int, total: int, what: str) -> None:
        """Show that so many of all are done, and what is under way."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, description=printable(what)[:SHOWN_NAME])


@contextmanager
def progress() -> Iterator[Progress]:
    """Show progress on stderr while the block runs, if that is a terminal."""
    if not sys.stderr.isatty():
        yield Progress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("publishing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Bar(*columns, console=Console(stderr=True, highlight=False), transient=True) as bar:
        yield Progress(bar)
