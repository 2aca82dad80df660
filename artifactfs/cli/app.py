"""The commands. Each function is thin: arguments in, one call, the answer rendered.

Rules of this file: heavy modules are imported inside the command that needs them (trio, pyfuse3, the server), so that
``artifactfs status`` does not pay for them. Exit codes: 0 done, 1 it failed (the message says why), 2 wrong usage, 3 the path
is in no mount.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

import artifactfs
from artifactfs import errors
from artifactfs.cli import client, mounting, render, sources
from artifactfs.cli.options import MountOptions

FAILED = 1
NO_MOUNT = 3

app = typer.Typer(
    name="artifactfs",
    help="Mount agent artifacts of VM0, Syntropic137, VLM Run and the built-in store as files.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(sources.app, name="source", help="List and test sources.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="Use this configuration file.", metavar="FILE")]


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


def _version(wanted: bool) -> None:
    if wanted:
        render.say(f"artifactfs {artifactfs.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    del version


@app.command()
def mount(  # noqa: PLR0913 - one option, one argument
    mountpoint: Annotated[Path | None, typer.Argument(help="Where; ~/artifacts if left out.")] = None,
    source: Annotated[list[str] | None, typer.Argument(help="Which sources; see `artifactfs source list`.")] = None,
    foreground: Annotated[bool, typer.Option("--foreground", "-f", help="Stay in the foreground.")] = False,
    demo: Annotated[bool, typer.Option("--demo", help="Mount sample data of all services, served locally.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Every source there is, whatever the default.")] = False,
    show_ids: Annotated[bool, typer.Option("--show-ids", help="List artifact ids in each workflow.")] = False,
    xattrs: Annotated[bool, typer.Option("--xattrs", help="Facts as user.artifactfs.* (ls -l gets slower).")] = False,
    allow_other: Annotated[bool, typer.Option("--allow-other", help="Let other users read.")] = False,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    config: ConfigFile = None,
    ready_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Mount sources as a directory tree; returns once it is ready."""
    options = MountOptions(
        mountpoint=client.absolute(mountpoint or mounting.default_mountpoint()),
        names=source or [], demo=demo, everything=everything, show_ids=show_ids, xattrs=xattrs,
        allow_other=allow_other, log_level=log_level, config_file=config, ready_fd=ready_fd,
    )  # fmt: skip
    if foreground or ready_fd is not None:
        from artifactfs.cli import foreground as process

        raise typer.Exit(process.run(options))
    with answering():
        mounting.check_fuse()
        options.check()
        note = mounting.prepare(options.mountpoint)
        if note:
            render.say(note)
        mounting.start_in_background(["mount", *options.arguments()], mounting.log_path(options.mountpoint))
        render.say(f"mounted {options.describe()} at {options.mountpoint}")


@app.command()
def umount(
    mountpoint: Annotated[Path | None, typer.Argument(help="Where; ~/artifacts if left out.")] = None,
    lazy: Annotated[bool, typer.Option("--lazy", help="Detach now even if programs still use it.")] = False,
) -> None:
    """Unmount; returns when the mount's process has ended."""
    with answering():
        where = client.absolute(mountpoint or mounting.default_mountpoint())
        mounting.unmount(where, lazy=lazy)
        render.say(f"unmounted {where}")


@app.command()
def status(
    path: Annotated[Path | None, typer.Argument(help="Only the mount this path is in.")] = None,
    as_json: Json = False,
) -> None:
    """Show running mounts: sources, their state and requests, cache, failures."""
    from artifactfs.cli import inspect

    with answering():
        where = [client.find(path)[0]] if path else client.our_mounts()
        inspect.show_status(where, as_json=as_json)


@app.command()
def why(path: Annotated[Path, typer.Argument(help="A path in a mount.")], as_json: Json = False) -> None:
    """Explain a path: what it is, where it comes from, how fresh, what last went wrong."""
    from artifactfs.cli import inspect

    with answering():
        mountpoint, below = client.find(path)
        inspect.show_why(client.ask(mountpoint, verb="why", path=below), as_json=as_json)


@app.command()
def log(path: Annotated[Path, typer.Argument(help="A path in a mount.")], as_json: Json = False) -> None:
    """List the versions of the artifact that a path shows."""
    from artifactfs.cli import inspect

    with answering():
        mountpoint, below = client.find(path)
        inspect.show_log(client.ask(mountpoint, verb="log", path=below), as_json=as_json)


@app.command()
def serve(  # noqa: PLR0913 - one option, one argument
    store: Annotated[Path | None, typer.Option(help="Directory of the store to serve.", metavar="DIR")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the dialects; 0 takes a free one.")] = 8137,
    storage_port: Annotated[int, typer.Option(help="Port of the storage origin; 0: a free one.")] = 0,
    demo: Annotated[bool, typer.Option("--demo", help="Fill the store with sample data if it is empty.")] = False,
    token_file: Annotated[Path | None, typer.Option(help="Require the token in this file.", metavar="FILE")] = None,
    as_json: Json = False,
    until_eof: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Offer a local store over HTTP in the dialects of VM0, Syntropic137 and VLM Run."""
    from artifactfs.cli import serving

    with answering():
        serving.run(serving.Request(store, host, port, storage_port, demo, token_file, as_json, until_eof))


@app.command()
def doctor(config: ConfigFile = None, as_json: Json = False) -> None:
    """Check what this machine and the configuration need for mounting."""
    from artifactfs.cli import checks

    with answering():
        raise typer.Exit(checks.run(config, as_json=as_json))


@app.command()
def completion(shell: Annotated[str, typer.Argument(help="bash, zsh or fish.")]) -> None:
    """Print the completion script for a shell."""
    from typer._completion_shared import Shells, get_completion_script

    if shell not in {known.value for known in Shells}:
        render.complain(f"no completion for {shell!r}; there is one for bash, zsh and fish")
        raise typer.Exit(2)
    sys.stdout.write(get_completion_script(prog_name="artifactfs", complete_var="_ARTIFACTFS_COMPLETE", shell=shell))
    sys.stdout.write("\n")


def run() -> None:
    """Run the command that was typed; a reader that went away (``| head``) is no error."""
    if "_ARTIFACTFS_COMPLETE" in os.environ:
        from typer._completion_classes import completion_init

        completion_init()
    try:
        app(prog_name="artifactfs")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(FAILED) from None
