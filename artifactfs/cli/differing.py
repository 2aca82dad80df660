"""Differences as people read them: unified diffs, counts, names.

Rules of this file: whatever is in a file may be an agent's words, so control characters leave as escapes on a terminal;
a pipe gets the bytes, for ``patch``.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from artifactfs import errors
from artifactfs.cli import render
from artifactfs.cli.versions import Compared

# Of a longer text only the sizes are told: difflib takes seconds for it.
MAX_TEXT = 8 << 20
# As git: a NUL in the beginning says that a file is no text.
LOOKED_AT = 8000
CONTEXT = 3

Row = dict[str, Any]


def show_names(found: Compared) -> None:
    """Print the paths that differ."""
    for row in found.differences:
        render.say(row["path"])


def show_stat(found: Compared) -> None:
    """Print how many lines of each path came and went."""
    rows = []
    for row in found.differences:
        old, new = _side(found.mountpoint, row, "old"), _side(found.mountpoint, row, "new")
        if _is_binary(old, row["old_size"]) or _is_binary(new, row["new_size"]):
            rows.append((row["status"], row["path"], f"{_size(row, 'old')} -> {_size(row, 'new')}", ""))
            continue
        lines = [line[0] for line in _lines(row, old, new) if not line.startswith(("---", "+++"))]
        rows.append((row["status"], row["path"], f"+{lines.count('+')}", f"-{lines.count('-')}"))
    if rows:
        render.table(("", "path", "came", "went"), rows)


def show(found: Compared) -> None:
    """Print what differs as ``diff -u`` does."""
    for row in found.differences:
        old, new = _side(found.mountpoint, row, "old"), _side(found.mountpoint, row, "new")
        if _is_binary(old, row["old_size"]) or _is_binary(new, row["new_size"]):
            render.say(
                f"{row['status']} {row['path']}: binary files differ ({_size(row, 'old')} -> {_size(row, 'new')})"
            )
            continue
        shown = False
        for line in _lines(row, old, new):
            render.difference(line)
            shown = True
        if not shown:
            render.say(f"{row['status']} {row['path']}: {_unseen(row)}")


def _unseen(row: Row) -> str:
    if row["status"] == "A":
        return "new and empty"
    return "was empty and is gone" if row["status"] == "D" else "only whether it can be executed differs"


def _size(row: Row, side: str) -> str:
    size = row[f"{side}_size"]
    return "nothing" if size is None else render.size(size)


def _side(mountpoint: Path, row: Row, side: str) -> bytes:
    """Return the beginning of one side of a difference, as long as a text is compared."""
    if row[f"{side}_link"] is not None:
        return os.fsencode(f"-> {row[f'{side}_link']}\n")
    if row[side] is None:
        return b""
    try:
        with (mountpoint / row[side]).open("rb") as file:
            data: bytes = file.read(MAX_TEXT + 1)
            return data
    except OSError as error:
        raise errors.Unavailable(f"{row['path']}: {error.strerror}") from error


def _is_binary(data: bytes, size: int | None) -> bool:
    if len(data) > MAX_TEXT or (size or 0) > MAX_TEXT or b"\0" in data[:LOOKED_AT]:
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return True
    return False


def _lines(row: Row, old: bytes, new: bytes) -> Iterator[str]:
    names = [f"{prefix}/{row['path']}" for prefix in ("a", "b")]
    if row["status"] == "A":
        names[0] = "/dev/null"
    if row["status"] == "D":
        names[1] = "/dev/null"
    before, after = (_split(data.decode()) for data in (old, new))
    for line in difflib.unified_diff(before, after, render.printable(names[0]), render.printable(names[1]), n=CONTEXT):
        yield line.removesuffix("\n")
        if not line.endswith("\n"):
            yield "\\ No newline at end of file"


def _split(text: str) -> list[str]:
    """Return lines with their ends: only a line feed ends one, as for ``diff``."""
    lines = text.split("\n")
    return [f"{line}\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
