"""``flush``: what waits for its service is published now, and waited for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artifactfs.cli import client, render


def flush(mountpoint: Path, below: str) -> list[dict[str, Any]]:
    """Publish what is below a path of a mount; return what could not be."""
    answer = client.ask(mountpoint, verb="flush", path=below)
    while answer["left"]:
        answer = client.ask(mountpoint, verb="flush", path=below, since=answer["since"])
    pending: list[dict[str, Any]] = answer["pending"]
    return pending


def run_flush(where: list[tuple[Path, str]]) -> bool:
    """Flush parts of mounts; say what is left, and return whether that is nothing."""
    left = [row for mountpoint, below in where for row in flush(mountpoint, below)]
    for row in left:
        render.complain(f"{row['path']}: {row['error'] or row['state']}")
    return not left
