"""``flush``, and what ``umount`` waits for: what waits for its service is published now, and waited for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from artifactfs import errors
from artifactfs.cli import client, render
from artifactfs.cli.arguments import FAILED, INTERRUPTED

Row = dict[str, Any]
Part = tuple[Path, str]
"""A mount point and a path below it."""
OPEN, PUBLISHING = "open", "publishing"
# A mount that does not answer within this is not waited for by who ends it.
ENDING_S = 5.0


def parts(paths: Sequence[Path] | None) -> list[Part]:
    """Return what paths name; every mount if there are none.

    Raises:
        NotFound: one is in no mount.
    """
    return [client.find(path) for path in paths] if paths else [(where, "") for where in client.our_mounts()]


def flush(part: Part, until: float | None = None, quick_s: float = client.SLOW_S) -> list[Row]:
    """Publish what is below a path of a mount, or wait until some time (monotonic); return what was not published.

    Raises:
        Interrupted: Ctrl-C; what is left goes on being published.
    """
    try:
        return _flush(part, until, quick_s)
    except KeyboardInterrupt:
        mountpoint, below = part
        raise Interrupted(client.ask(mountpoint, ENDING_S, verb="pending", paths=[below])["pending"]) from None


def _flush(part: Part, until: float | None, quick_s: float) -> list[Row]:
    mountpoint, below = part
    answer = client.ask(mountpoint, quick_s, verb="flush", path=below)
    total = len(answer["pending"])
    with render.progress() as shown:
        while answer["left"] and (until is None or time.monotonic() < until):
            rows = answer["pending"]
            total = max(total, len(rows))
            name = next((row["path"] for row in rows if row["state"] == PUBLISHING), "")
            shown.update(total - len(rows), total, name)
            answer = client.ask(mountpoint, quick_s, verb="flush", path=below, since=answer["since"])
    left: list[Row] = answer["pending"]
    return left


class Interrupted(Exception):
    """Somebody who waited does so no more; ``left`` was not published then."""

    def __init__(self, left: list[Row]) -> None:
        """Keep what is left."""
        super().__init__("stopped waiting")
        self.left = left


def run_flush(where: Sequence[Part], *, open_fails: bool = True) -> int:
    """Flush parts of mounts; say what is left; return the exit code, which what is open need not spoil."""
    left: list[Row] = []
    unanswered = False
    try:
        for part in where:
            try:
                left += flush(part)
            except errors.ArtifactFSError as error:
                render.complain(str(error))
                unanswered = True
    except Interrupted as stopped:
        left += stopped.left
        render.complain(f"stopped waiting; {counted(left)} not published yet, which goes on without you:")
        complain_of(left)
        return INTERRUPTED
    complain_of(left)
    left = [row for row in left if not row["goes_along"] and (open_fails or row["state"] != OPEN)]
    return FAILED if left or unanswered else 0


def complain_of(rows: Sequence[Row]) -> None:
    """Say of each change why it is not published."""
    for row in rows:
        render.complain(f"{row['path']}: {reason(row)}")


def reason(row: Row) -> str:
    """Return why a change is not published, in words."""
    if row["state"] == OPEN:
        return "open for writing; it is published after it has been closed"
    return str(row["error"] or ("is being published" if row["state"] == PUBLISHING else "waits for its turn"))


def counted(rows: Sequence[Row]) -> str:
    """Return how many changes there are, with their verb."""
    return f"{len(rows)} changes are" if len(rows) != 1 else "1 change is"


def before_unmounting(mountpoint: Path, limit_s: float | None) -> list[Row]:
    """Publish what waits in a mount that is to end, as long as that may take; return what is left to the next mount.

    What fails is not waited for, nor is a mount that does not answer: unmounting works all the same.
    """
    if mountpoint not in client.our_mounts():
        return []
    until = None if limit_s is None else time.monotonic() + limit_s
    try:
        if limit_s != 0:
            with contextlib.suppress(Interrupted):
                flush((mountpoint, ""), until, ENDING_S)
        left: list[Row] = client.ask(mountpoint, ENDING_S, verb="leave")["pending"]
    except errors.ArtifactFSError:
        return []
    return left
