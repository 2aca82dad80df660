"""What mounts that have ended left in their journals: what the next mount of each source goes on with.

Rules of this file: a journal is locked while it is looked at, as a mount locks it; one that a mount uses is left to
that mount. Nothing is dropped.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from artifactfs import config, errors
from artifactfs.journal.records import Record
from artifactfs.journal.staging import Staging
from artifactfs.vfs.intents import FILE, NAME, REMOVAL
from artifactfs.vfs.overlay import join, stays_here

Row = dict[str, Any]


def left_behind() -> tuple[list[Row], list[Path]]:
    """Return the changes that wait for a mount of their source, and drafts whose records are damaged."""
    rows: list[Row] = []
    lost: list[Path] = []
    known = _sources()
    base = config.state_dir() / "journal"
    for journal in sorted(base.glob("*")) if base.is_dir() else ():
        with Staging.for_a_look(journal) as ended:
            for staging in ended:
                rows += _rows(staging, known.get(journal.name, "?"))
                lost += staging.lost
    return rows, lost


def _sources() -> dict[str, str]:
    """Return the configured sources by the directory of their journals; a source without its token is not known."""
    found: dict[str, str] = {}
    try:
        settings = config.load()
    except errors.ConfigError:
        return found
    for name in (*config.all_sources(settings), "local"):
        try:
            fingerprint = config.resolve(settings, name).fingerprint
        except errors.ConfigError:
            continue
        found[hashlib.sha256(fingerprint.encode()).hexdigest()[:16]] = name
    return found


def _rows(staging: Staging, source: str) -> Iterator[Row]:
    records = {record.number: record for record in staging.journal.load()}
    # Bytes that were written over before they were published: the newer ones are shown.
    older = {record.what.get(key) for record in records.values() for key in ("after", "instead")}
    for number, record in records.items():
        kind = record.what.get("kind")
        if kind not in {FILE, NAME, REMOVAL} or number in older:
            continue
        tree = records.get(int(record.what["of"])) if kind == NAME else None
        path = str(record.what.get("shown") or record.what.get("name", ""))
        inside = join(str(record.what.get("path", "")), str(record.what.get("name", "")))
        if kind == NAME:
            above = str(tree.what.get("shown", "")) if tree is not None else ""
            path = join(above, inside)
        if stays_here(inside) and (kind == NAME or record.what.get("local")):
            continue
        yield _row(staging, source, path, record, tree or record)


def _row(staging: Staging, source: str, path: str, record: Record, told: Record) -> Row:
    draft = staging.root / f"{record.number}.draft"
    has_bytes = record.what.get("kind") == FILE and draft.exists()
    return {
        "number": f"{staging.root.name}/{record.number}", "source": source, "path": path, "what": _what(record),
        "state": record.state.value, "size": draft.stat().st_size if has_bytes else 0, "tries": told.tries,
        "age_s": round(max(0.0, time.time() - record.since_ns / 1e9), 1), "next_try_s": None, "error": told.error,
        "draft": str(draft) if has_bytes else None,
    }  # fmt: skip


def _what(record: Record) -> str:
    kind = record.what.get("kind")
    if kind == FILE:
        return "save"
    if kind == REMOVAL or record.what.get("is") == "gone":
        return "remove"
    return "move" if record.what.get("content") else "make"
