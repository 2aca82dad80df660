"""``pending``: what waits for its service, tried again, dropped, or copied away."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from artifactfs import errors
from artifactfs.cli import client, journals, render, saving
from artifactfs.cli.arguments import FAILED
from artifactfs.cli.working import worked

Row = dict[str, Any]
NUMBER = re.compile(r"(?:mount-[^/]+/)?\d+")
LOST = "lost"


# -- what there is -------------------------------------------------------------------------------------------


def show(path: Path | None, *, as_json: bool) -> None:
    """List what waits."""
    where = [client.find(path)] if path else [(mountpoint, "") for mountpoint in client.our_mounts()]
    rows, lost = _waiting(where)
    if path is None:
        ended, lost_there = journals.left_behind()
        rows += [{**row, "mount": None} for row in ended]
        lost += lost_there
    if as_json:
        render.as_json({"pending": rows, "lost": [str(draft) for draft in lost]})
        return
    if not rows and not lost:
        render.say("nothing waits")
    if rows:
        cells = [
            (row["number"], _place(row), row["what"], row["state"], render.size(row["size"]), row["tries"],
             f"{row['age_s']:.0f} s", _next(row), row["error"])
            for row in rows
        ]  # fmt: skip
        render.table(("number", "path", "for", "state", "size", "tries", "age", "next try", "last error"), cells)
    for draft in lost:
        render.say(f"the record of a save is damaged, its bytes are in {draft}; `pending export` copies them")


def _waiting(where: Sequence[saving.Part]) -> tuple[list[Row], list[Path]]:
    """Return what waits in mounts and below paths of them; a mount that does not answer is named."""
    rows: list[Row] = []
    lost: dict[Path, None] = {}
    for mountpoint, below in where:
        try:
            answer = client.ask(mountpoint, client.QUICK_S, verb="pending", paths=[below])
        except errors.ArtifactFSError as error:
            render.complain(str(error))
            continue
        rows += [{**row, "mount": str(mountpoint)} for row in answer["pending"]]
        lost.update((Path(draft), None) for draft in answer["lost"])
    return rows, list(lost)


def _place(row: Row) -> str:
    return str(Path(row["mount"]) / row["path"]) if row["mount"] else f"({row['source']}, not mounted) {row['path']}"


def _next(row: Row) -> str:
    if row["next_try_s"] is not None:
        return f"in {row['next_try_s']:.0f} s"
    return "-" if row["mount"] else "at its mount"


def _chosen(which: Sequence[str], *, also_ended: bool = False) -> tuple[list[Row], list[Path]]:
    """Return what paths and numbers name, all if there are none, and the drafts whose records are damaged.

    Raises:
        NotFound: a path is in no mount.
        InvalidRequest: no change has a number, or more than one has.
    """
    parts = [client.find(Path(one)) for one in which if not NUMBER.fullmatch(one)]
    numbers = [one for one in which if NUMBER.fullmatch(one)]
    named, _ = _waiting(parts)
    if which and not numbers:
        return list({row["number"]: row for row in named}.values()), []
    rows, lost = _waiting([(mountpoint, "") for mountpoint in client.our_mounts()])
    if also_ended:
        ended, lost_there = journals.left_behind()
        rows += [{**row, "mount": None} for row in ended]
        lost += lost_there
    if not which:
        return rows, lost
    named += [_numbered(rows, number) for number in numbers]
    return list({row["number"]: row for row in named}.values()), []


def _numbered(rows: list[Row], number: str) -> Row:
    found = [row for row in rows if row["number"] == number or row["number"].endswith(f"/{number}")]
    if len(found) != 1:
        message = f"{'more than one' if found else 'no'} waiting change has the number {number}; see `pending list`"
        raise errors.InvalidRequest(message)
    return found[0]


def _by_mount(rows: list[Row]) -> dict[Path, list[Row]]:
    found: dict[Path, list[Row]] = {}
    for row in rows:
        found.setdefault(Path(row["mount"]), []).append(row)
    return found


# -- what is done with it ------------------------------------------------------------------------------------


def retry(which: Sequence[str]) -> int:
    """Publish changes now, and wait; return the exit code."""
    rows, _ = _chosen(which)
    if not rows:
        render.say("nothing waits")
        return 0
    parts = []
    for mountpoint, own in _by_mount(rows).items():
        client.ask(mountpoint, verb="retry", numbers=[row["number"] for row in own])
        parts += [(mountpoint, row["path"]) for row in own]
    return saving.run_flush(parts)


def discard(which: Sequence[str], *, sure: bool) -> int:
    """Drop changes, once somebody has said yes; return the exit code."""
    rows, _ = _chosen(which)
    if not rows:
        render.say("nothing waits there")
        return 0
    if not sure:
        if not sys.stdin.isatty():
            render.complain(f"{saving.counted(rows)} not published yet; --yes drops what was changed")
            return FAILED
        for row in rows:
            render.say(f"{row['what']} {_place(row)}")
        if not typer.confirm(f"Drop {'these' if len(rows) > 1 else 'this'}? It cannot be taken back."):
            return FAILED
    code = 0
    for mountpoint, own in _by_mount(rows).items():
        answer = worked(mountpoint, verb="discard", numbers=[row["number"] for row in own])
        for path, why in answer["refused"].items():
            render.complain(f"{path}: not dropped: {why}")
            code = FAILED
        dropped = [row for row in answer["pending"] if row["path"] not in answer["refused"]]
        for row in dropped:
            render.say(f"dropped: {row['what']} {mountpoint / row['path']}")
    return code


def export(which: Sequence[str], directory: Path) -> int:
    """Copy bytes that wait to a directory; return the exit code."""
    rows, lost = _chosen(which, also_ended=True)
    copies = [(Path(row["draft"]), _relative(row["path"])) for row in rows if row["draft"]]
    copies += [(draft, Path(LOST) / f"{draft.parent.name}-{draft.stem}") for draft in lost]
    done = 0
    for draft, relative in copies:
        problem = _copy(draft, directory / relative)
        if problem:
            render.complain(f"{relative}: {problem}")
        else:
            done += 1
    render.say(f"{done} files copied to {directory}")
    return 0 if done == len(copies) else FAILED


def _relative(path: str) -> Path:
    return Path(*[part for part in path.split("/") if part not in {"", ".", ".."}])


def _copy(draft: Path, target: Path) -> str:
    """Copy a file to a name that nothing has; return what went wrong."""
    try:
        with draft.open("rb") as source:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as copy:
                try:
                    shutil.copyfileobj(source, copy)
                    copy.flush()
                    os.fsync(copy.fileno())
                except OSError:
                    target.unlink(missing_ok=True)
                    raise
    except FileExistsError:
        return "is there already and was left as it is"
    except FileNotFoundError:
        return "was published meanwhile"
    except OSError as error:
        return error.strerror or str(error)
    return ""
