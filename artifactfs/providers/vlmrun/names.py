"""From what VLM Run calls things to raw titles for the tree.

Rules of this file: pure; no name is made safe here, that is the tree's business. A name never depends on
content: the listing must show it before a byte is known and may not change it after.
"""

from __future__ import annotations

import re

from artifactfs.providers.vlmrun import refs

# `name:version`, as agents are named; a colon followed by anything else belongs to the name.
VERSIONED = re.compile(r"(.*[^:/\s]):([0-9A-Za-z][0-9A-Za-z._-]{0,63})", re.DOTALL)
UNNAMED = "unnamed agent"
# Deeper paths than this come from nobody who meant well; such a name is shown as one.
MAX_DEPTH = 32


def agent(execution_name: str | None) -> tuple[str, str | None]:
    """Return (agent's name, version) from an execution's name."""
    if not execution_name:
        return UNNAMED, None
    found = VERSIONED.fullmatch(execution_name)
    return (found.group(1), found.group(2)) if found else (execution_name, None)


def path_of(filename: str) -> tuple[str, ...]:
    """Return the raw titles of an agent's filename: a relative path if it is a sane one, else one title."""
    parts = tuple(filename.split("/"))
    sane = len(parts) <= MAX_DEPTH and all(part not in {"", ".", ".."} and "\0" not in part for part in parts)
    return parts if sane else (filename,)


def object_path(object_id: str, filename: str | None, extension: str = "") -> tuple[str, ...]:
    """Return the raw titles of an object: its filename, else its id with an extension.

    A ``url_`` object without a filename has no extension unless one was written after its id: what is
    behind the address is not known before it is fetched, and a name may not change then.
    """
    if filename:
        return path_of(filename)
    ending = extension or refs.DEFAULTS.get(refs.prefix(object_id), ("", ""))[0]
    return (f"{object_id}.{ending}" if ending else object_id,)


def can_be_sent(text: str) -> bool:
    """Tell whether a text can stand in a request; a lone surrogate, which JSON can hold, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
