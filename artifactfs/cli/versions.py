"""``commit``, ``restore`` and what ``diff`` compares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactfs.cli import client, render, saving
from artifactfs.cli.working import worked

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Compared:
    """What differs; the paths to be read are below ``mountpoint``."""

    mountpoint: Path
    differences: list[Row]


def commit(path: Path, message: str | None, *, dry_run: bool, as_json: bool) -> int:
    """Have the next version of a tree made, and wait for it; return the exit code."""
    mountpoint, below = client.find(path)
    answer = worked(mountpoint, verb="commit", path=below, message=message, dry_run=dry_run)
    if as_json and dry_run:
        render.as_json({"changes": answer["changes"], "staying": answer["staying"]})
        return 0
    if dry_run:
        _show(answer)
    if not answer["changes"]:
        render.say("nothing to commit")
        return 0
    return 0 if dry_run else _published(mountpoint, answer, as_json=as_json)


def _show(answer: Row) -> None:
    for row in answer["changes"]:
        was = f"{row['was']} -> " if row["was"] else ""
        size = f" ({render.size(row['new_size'])})" if row["new_size"] is not None else ""
        render.say(f"{row['status']} {was}{row['path']}{size}")
    for row in answer["staying"]:
        render.say(f"stays here: {row['path']}: {row['why']}")


def _published(mountpoint: Path, answer: Row, *, as_json: bool = False) -> int:
    """Wait until the service has what was asked for; say which version it is."""
    code = saving.run_flush([(mountpoint, answer["below"])], open_fails=False)
    if code:
        return code
    known = client.ask(mountpoint, verb="log", path=answer["below"])["versions"]
    made = next((row for row in known if row["current"]), None)
    if as_json:
        render.as_json({"version": made, "changes": answer["changes"], "staying": answer["staying"]})
    elif made is not None:
        render.say(f"{mountpoint / answer['below']} is now {made['version']} ({made['id'][:12]})")
    return code


def restore(path: Path, version: str, *, force: bool) -> int:
    """Save an earlier version as the next one, and wait for it; return the exit code."""
    mountpoint, below = client.find(path)
    answer = worked(mountpoint, verb="restore", path=below, version=version, force=force)
    if not answer["changes"]:
        render.say(f"it is the same as {version} already")
        return 0
    return _published(mountpoint, answer)


def compare(path: Path, old: str | None, new: str | None) -> Compared:
    """Return what differs at and below a path."""
    mountpoint, below = client.find(path)
    return Compared(
        mountpoint, worked(mountpoint, verb="compare", path=below, one=old, other=new)["differences"]
    )  # fmt: skip
