"""The commands about what goes on inside: how much is logged, and what to send to who is to find out; thin, as all are.

Rules of this file: as of ``app``, which adds them to the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from artifactfs import errors
from artifactfs.cli import render
from artifactfs.cli.arguments import FAILED, ConfigFile, answering, mounted_path

# What a busy mount logs in some minutes at info, and in seconds at debug.
LINES = 2000

Which = Annotated[Path | None, mounted_path("Which mount; every running one if left out.")]
TheMount = Annotated[Path | None, mounted_path("Which mount; the only one, or ~/artifacts, if left out.")]


def _levels(incomplete: str) -> list[str]:
    from artifactfs.cli.options import LEVELS

    return [level for level in LEVELS if level.startswith(incomplete)]


def set_(
    mountpoint: Which = None,
    log_level: Annotated[
        str | None,
        typer.Option(help="debug, info, warning or error.", metavar="LEVEL", autocompletion=_levels),
    ] = None,
) -> None:
    """Change a running mount, at once and until it ends: how much it logs."""
    from artifactfs.cli import client
    from artifactfs.cli.options import LEVELS

    level = log_level.lower() if log_level else None
    if level not in LEVELS:
        raise typer.BadParameter(f"should be one of {', '.join(LEVELS)}", param_hint="--log-level")
    with answering():
        where = [client.find(mountpoint)[0]] if mountpoint else client.our_mounts()
        if not where:
            raise errors.NotFound("nothing is mounted")
        raise typer.Exit(max(_set_level(one, level) for one in where))


def _set_level(mountpoint: Path, level: str) -> int:
    from artifactfs.cli import client

    try:
        log = client.ask(mountpoint, client.QUICK_S, verb="set", log_level=level)["log"]
    except errors.ArtifactFSError as error:
        render.complain(str(error))
        return FAILED
    render.say(f"{mountpoint} logs {log['level']} to {log['file'] or 'its terminal'}")
    return 0


def debug_bundle(
    mountpoint: TheMount = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it there.", metavar="FILE.tar.gz")
    ] = None,
    lines: Annotated[int, typer.Option(help="So many lines of the log.", min=0)] = LINES,
    config: ConfigFile = None,
) -> None:  # fmt: skip
    """Write a file with what helps to find out what is wrong, without secrets; also of a dead or stuck mount."""
    from artifactfs.cli import bundle

    with answering():
        bundle.write(mountpoint, output, config, lines)


def add_to(app: typer.Typer) -> None:
    """Add the commands to the others."""
    app.command("set")(set_)
    app.command("debug-bundle")(debug_bundle)
