"""The commands about what waits for its service and about versions; thin, as all are.

Rules of this file: as of ``app``, which adds them to the others.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from artifactfs.cli import render
from artifactfs.cli.arguments import Json, MountPoint, answering, mounted_path

# How long `umount` waits where nobody sits in front of it, in seconds: a script's end should not hang on a service.
WAIT_S = 30.0

pending_app = typer.Typer(no_args_is_help=True, add_completion=False)

Paths = Annotated[list[Path] | None, mounted_path("Only what is at or below these paths.")]
Which = Annotated[
    list[str] | None, typer.Argument(help="Paths, or numbers as `pending list` has them.", metavar="PATH|NUMBER")
]
Target = Annotated[Path, mounted_path("A path in a mount.")]


def flush(paths: Paths = None) -> None:
    """Publish what waits for its service now; returns when the service has it, fails if it cannot."""
    from artifactfs.cli import saving

    with answering():
        raise typer.Exit(saving.run_flush(saving.parts(paths)))


def umount(
    mountpoint: MountPoint = None,
    lazy: Annotated[
        bool, typer.Option("--lazy", help="Detach now even if programs still use it; waits for nothing.")
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait for what is not published yet.")] = False,
    wait: Annotated[
        float | None,
        typer.Option(
            help=f"Wait at most so long; without it as long as it takes, off a terminal {WAIT_S:.0f} s.",
            metavar="SECONDS", min=0,
        ),
    ] = None,
) -> None:  # fmt: skip
    """Publish what waits, then unmount; what stays pending goes on with the next mount."""
    from artifactfs.cli import client, mounting, saving

    if no_wait and wait is not None:
        raise typer.BadParameter("says the opposite of --wait", param_hint="--no-wait")
    limit = wait if wait is not None else 0.0 if no_wait or lazy else None if sys.stderr.isatty() else WAIT_S
    with answering():
        where = client.absolute(mountpoint or mounting.default_mountpoint())
        left = saving.before_unmounting(where, limit)
        mounting.unmount(where, lazy=lazy)
        render.say(f"unmounted {where}")
        if left:
            render.complain(f"{saving.counted(left)} not published yet; the next mount goes on with that")


@pending_app.command("list")
def pending_list(
    path: Annotated[Path | None, mounted_path("Only what is at or below it.")] = None, as_json: Json = False
) -> None:
    """List what waits for its service, of running mounts and of those that have ended."""
    from artifactfs.cli import pending

    with answering():
        pending.show(path, as_json=as_json)


@pending_app.command("retry")
def pending_retry(which: Which = None) -> None:
    """Try to publish changes again now, also those that the service refused; waits for what comes of it."""
    from artifactfs.cli import pending

    with answering():
        raise typer.Exit(pending.retry(which or []))


@pending_app.command("discard")
def pending_discard(
    which: Annotated[
        list[str], typer.Argument(help="Paths, or numbers as `pending list` has them.", metavar="PATH|NUMBER...")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Drop local changes: files, names and trees are again what the service has."""
    from artifactfs.cli import pending

    with answering():
        raise typer.Exit(pending.discard(which, sure=yes))


@pending_app.command("export")
def pending_export(
    which: Annotated[
        list[str],
        typer.Argument(
            help="What to copy (all, if nothing is named), and last the directory to copy to.",
            metavar="[PATH|NUMBER...] DIRECTORY",
        ),
    ],
) -> None:
    """Copy the bytes of what waits to a directory, under their paths; nothing there is overwritten."""
    from artifactfs.cli import pending

    with answering():
        raise typer.Exit(pending.export(which[:-1], Path(which[-1])))


def commit(
    path: Target,
    message: Annotated[str | None, typer.Option("--message", "-m", help="What the version says of itself.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be in it, and what not.")] = False,
    as_json: Json = False,
) -> None:
    """Make the next version of a tree now, of everything that was changed in it."""
    from artifactfs.cli import versions

    if message is None and not dry_run:
        raise typer.BadParameter("a version needs a message", param_hint="--message")
    with answering():
        raise typer.Exit(versions.commit(path, message, dry_run=dry_run, as_json=as_json))


def diff(
    path: Target,
    old: Annotated[
        str | None, typer.Argument(help="`v3`, an id, or its beginning; the current one if left out.", metavar="V1")
    ] = None,
    new: Annotated[
        str | None, typer.Argument(help="The present, with what waits here, if left out.", metavar="V2")
    ] = None,
    stat: Annotated[bool, typer.Option("--stat", help="Only how many lines came and went.")] = False,
    name_only: Annotated[bool, typer.Option("--name-only", help="Only the paths.")] = False,
    as_json: Json = False,
) -> None:
    """Show what differs between versions, or between one and what waits here."""
    from artifactfs.cli import differing, versions

    with answering():
        found = versions.compare(path, old, new)
        if as_json:
            render.as_json(found.differences)
        elif name_only:
            differing.show_names(found)
        elif stat:
            differing.show_stat(found)
        else:
            differing.show(found)


def restore(
    path: Target,
    version: Annotated[
        str, typer.Argument(help="`v3`, an id, or its beginning; see `artifactfs log`.", metavar="VERSION")
    ],
    force: Annotated[bool, typer.Option("--force", help="Drop changes of the path that wait.")] = False,
) -> None:
    """Save what a file, a tree, or a path in a tree was in an earlier version as the next version."""
    from artifactfs.cli import versions

    with answering():
        raise typer.Exit(versions.restore(path, version, force=force))


def add_to(app: typer.Typer) -> None:
    """Add the commands to the others."""
    for command in (flush, umount, commit, diff, restore):
        app.command()(command)
    app.add_typer(pending_app, name="pending", help="List, retry, discard and export what waits for its service.")
