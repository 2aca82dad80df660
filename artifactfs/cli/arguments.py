"""What several commands have in common: their arguments, and exit codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from artifactfs import errors
from artifactfs.cli import render

FAILED = 1
USAGE = 2
NO_MOUNT = 3
# What shells say of a program that Ctrl-C ended.
INTERRUPTED = 130


def mounted_path(text: str) -> object:
    """Take a path as it is: typer would stat it, and a directory that waits for its service would answer late."""
    return typer.Argument(help=text, parser=Path, metavar="PATH")


MountPoint = Annotated[Path | None, mounted_path("Where; ~/artifacts if left out.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="Use this configuration file.", metavar="FILE")]


AllowOther = Annotated[bool | None, typer.Option("--allow-other/--no-allow-other", help="Let other users read.")]
ReadOnly = Annotated[bool | None, typer.Option("--read-only/--writable", help="Take no writes.")]
WriteThrough = Annotated[
    bool | None,
    typer.Option("--write-through/--write-back", help="A close or fsync waits until the service has what was saved."),
]
PublishDelay = Annotated[
    float | None, typer.Option(help="Publish a save after so long without a change.", metavar="SECONDS", min=0)
]
PollInterval = Annotated[
    float | None,
    typer.Option(help="Look for what others have changed so often; 0 does without.", metavar="SECONDS", min=0),
]


@contextmanager
def answering() -> Iterator[None]:
    """Turn our errors into a sentence and an exit code."""
    try:
        yield
    except errors.NotFound as error:
        render.complain(str(error))
        raise typer.Exit(NO_MOUNT) from None
    except errors.ArtifactFSError as error:
        render.complain(str(error))
        raise typer.Exit(FAILED) from None
