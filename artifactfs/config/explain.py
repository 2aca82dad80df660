"""Mistakes in a configuration, in words: where they are and what would be valid.

Rules of this file: pure. What was given is not repeated where it might be a secret in the wrong place.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import ErrorDetails

# A key as TOML has it: bare or quoted parts between dots.
_PART = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_KEY = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER_LINE = re.compile(rf"\[{{1,2}}\s*({_KEY})\s*\]{{1,2}}\s*(?:#.*)?")
_KEY_LINE = re.compile(rf"({_KEY})\s*=")
# What pydantic calls what TOML calls a table.
_TABLES = {"model_type", "model_attributes_type", "dict_type"}


def problem(where: Path, text: str, found: ErrorDetails, valid_keys: Callable[[Sequence[str]], Sequence[str]]) -> str:
    """Return one mistake in a file: file, line, what is wrong, what would be valid.

    Args:
        where: the file.
        text: its content.
        found: one of pydantic's errors.
        valid_keys: the keys that are valid beside the one at a place.
    """
    loc = [str(part) for part in found["loc"]]
    line = line_of(text, loc)
    place = f"{where}, line {line}" if line else str(where)
    if found["type"] == "extra_forbidden":
        return f"{place}: unknown key {loc[-1]!r}{near(loc[-1], valid_keys(loc))}"
    if found["type"] == "missing":
        return f"{place}: {'.'.join(loc[:-1])} needs the key {loc[-1]!r}"
    return f"{place}: {'.'.join(loc)}: {said(found)}"


def said(found: ErrorDetails) -> str:
    """Return what is wrong with a value."""
    if found["type"] in _TABLES:
        return "should be a table"
    if found["type"] == "path_type":
        return "should be a path"
    message: str = found["msg"].removeprefix("Value error, ")
    return re.sub(r"^Input (should|must)", r"\1", message)


def near(name: str, valid: Sequence[str], what: str = "valid here") -> str:
    """Return what might have been meant, and everything that would have been valid."""
    # Cut: difflib takes the square of a name's length.
    close = difflib.get_close_matches(name[:100].replace("_", "-"), valid, 1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{hint}; {what}: {', '.join(valid)}"


def line_of(text: str, loc: Sequence[str]) -> int | None:
    """Return the line of a key, by reading headers and keys as TOML lays them out; its table's line if it has none."""
    table: list[str] = []
    best = None
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if header := _HEADER_LINE.fullmatch(line):
            path = table = _parts(header[1])
        elif key := _KEY_LINE.match(line):
            path = [*table, *_parts(key[1])]
        else:
            continue
        if path == [*loc]:
            return number
        if path == [*loc[: len(path)]]:
            best = number
    return best


def _parts(key: str) -> list[str]:
    found: list[str] = []
    value: Any = tomllib.loads(f"{key} = 0")
    while isinstance(value, dict):
        ((part, value),) = value.items()
        found.append(part)
    return found
