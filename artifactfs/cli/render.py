"""The only place that formats for people: tables and colour on a terminal, plain text in a pipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

_NAMED = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def size(value: float | None) -> str:
    """Return bytes for people."""
    if value is None:
        return "-"
    for unit, name in _NAMED:
        if value >= unit:
            return f"{value / unit:.1f} {name}"
    return f"{value:.0f} B"


def printable(text: object) -> Text:
    """Return text with control characters shown as escapes: titles are an agent's words, not the terminal's."""
    return Text("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text)))


def as_json(value: object) -> None:
    """Print JSON for programs."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under headings."""
    grid = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*(printable("-" if cell is None else cell) for cell in row))
    out.print(grid)


def facts(values: Mapping[str, Any]) -> None:
    """Print name and value, a line each."""
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        if value is None or value == []:
            continue
        out.print(Text(f"{name:<{width}}  ", style="bold") + printable(value))


def say(message: str) -> None:
    """Print a sentence."""
    out.print(printable(message))


def complain(message: str) -> None:
    """Print an error, on stderr."""
    err.print(f"[bold red]artifactfs:[/] {escape(message)}")
