"""What can be said of a list of tree entries without asking the catalog. Pure."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from artifactfs.store.rows import TreeFile

# Eight hex digits tell apart the few versions of one artifact that have the same files.
EXTRAS_DIGITS = 8


def parents(path: str) -> list[str]:
    """Return the directories above a path, outermost first: ``a/b/c`` gives ``a``, ``a/b``."""
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def shape(files: Iterable[TreeFile]) -> frozenset[tuple[str, str | None, bool, str | None]]:
    """Return what makes two trees equal: not times, nor directories that the files in them imply anyway."""
    files = list(files)
    implied = {parent for file in files for parent in parents(file.path)}
    return frozenset(
        (file.path, file.sha256, file.executable, file.target)
        for file in files
        if file.sha256 or file.target is not None or file.path not in implied
    )


def extras(files: Iterable[TreeFile]) -> str:
    """Hash what ``content_id`` leaves out: x bits, symlinks, empty directories; "" if there is none of it."""
    left_out = [
        [path, executable, target] for path, sha256, executable, target in shape(files) if executable or sha256 is None
    ]
    if not left_out:
        return ""
    text = json.dumps(sorted(left_out, key=lambda entry: str(entry[0])))
    return hashlib.sha256(text.encode()).hexdigest()[:EXTRAS_DIGITS]
