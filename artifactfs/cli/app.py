"""The commands. Each function is thin: arguments in, one call, the answer rendered.

Rules of this file: heavy modules are imported inside the command that needs them (trio, pydantic, pyfuse3, the server),
so that ``artifactfs --version`` and a shell's completion do not pay for them.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import artifactfs
from artifactfs import errors
from artifactfs.cli import observing_commands, render, saving_commands
from artifactfs.cli.arguments import (
    FAILED,
    AllowOther,
    ConfigFile,
    Json,
    MountPoint,
    PollInterval,
    PublishDelay,
    ReadOnly,
    WriteThrough,
    answering,
    mounted_path,
)

if TYPE_CHECKING:
    from artifactfs.cli.options import MountOptions

SHELLS = ("bash", "zsh", "fish")

app = typer.Typer(
    name="artifactfs",
    help="Mount agent artifacts of VM0, Syntropic137, VLM Run and the built-in store as files.",
    epilog="Exit codes: 0 done, 1 failed (the message says why), 2 wrong usage, 3 the path is in no mount.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
source_app = typer.Typer(no_args_is_help=True, add_completion=False)
app.add_typer(source_app, name="source", help="List and test sources.")
cache_app = typer.Typer(no_args_is_help=True, add_completion=False)
app.add_typer(cache_app, name="cache", help="Look at, verify and empty the cache.")
saving_commands.add_to(app)
observing_commands.add_to(app)


def _source_names(incomplete: str) -> list[str]:
    """Complete the names of sources; a broken configuration completes nothing."""
    from artifactfs import config

    try:
        known = config.all_sources(config.load())
    except errors.ConfigError:
        return []
    return [name for name in sorted({*known, "local"}) if name.startswith(incomplete)]


Names = Annotated[
    list[str] | None,
    typer.Argument(help="Which sources; see `artifactfs source list`.", autocompletion=_source_names),
]


Name = Annotated[str, typer.Argument(help="Whose token; see `artifactfs source list`.", autocompletion=_source_names)]


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
def mount(  # noqa: PLR0913, PLR0917 - typer reads the options from the arguments, one each
    mountpoint: MountPoint = None,
    source: Names = None,
    foreground: Annotated[bool, typer.Option("--foreground", "-f", help="Stay in the foreground.")] = False,
    demo: Annotated[bool, typer.Option("--demo", help="Mount sample data of all services, served locally.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Every source there is, whatever the default.")] = False,
    show_ids: Annotated[
        bool | None, typer.Option("--show-ids/--no-show-ids", help="List artifact ids in each workflow.")
    ] = None,
    xattrs: Annotated[
        bool | None, typer.Option("--xattrs/--no-xattrs", help="Facts as user.artifactfs.* (ls -l gets slower).")
    ] = None,
    allow_other: AllowOther = None,
    read_only: ReadOnly = None,
    write_through: WriteThrough = None,
    publish_delay: PublishDelay = None,
    poll_interval: PollInterval = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.", metavar="LEVEL")] = None,
    config: ConfigFile = None,
) -> None:
    """Mount sources as a directory tree; returns once it is ready."""
    from artifactfs.cli import client, mounting
    from artifactfs.cli.options import LEVELS, MountOptions

    if source and (demo or everything):
        raise typer.BadParameter(f"{'--demo' if demo else '--all'} says itself what is mounted", param_hint="SOURCE")
    level = log_level.lower() if log_level else None
    if level is not None and level not in LEVELS:
        raise typer.BadParameter(f"should be one of {', '.join(LEVELS)}", param_hint="--log-level")
    options = MountOptions(
        mountpoint=client.absolute(mountpoint or mounting.default_mountpoint()),
        names=source or [], demo=demo, everything=everything, show_ids=show_ids, xattrs=xattrs, log_level=level,
        allow_other=allow_other, config_file=config, read_only=read_only, write_through=write_through,
        publish_delay=publish_delay, poll_interval=poll_interval,
    )  # fmt: skip
    if foreground:
        from artifactfs.cli import foreground as process

        raise typer.Exit(process.run(options))
    _mount_in_background(options)


def _mount_in_background(options: MountOptions) -> None:
    from artifactfs.cli import mounting

    with answering():
        mounting.check_fuse()
        options.check()
        note = mounting.prepare(options.mountpoint)
        if note:
            render.say(note)
        mounting.start_in_background(options, mounting.log_path(options.mountpoint))
        render.say(f"mounted {options.describe()} at {options.mountpoint}")


@app.command()
def status(
    path: Annotated[Path | None, mounted_path("Only the mount this path is in.")] = None,
    as_json: Json = False,
) -> None:
    """Show running mounts: sources, their state and requests, cache, failures."""
    from artifactfs.cli import client, inspect

    with answering():
        where = [client.find(path)[0]] if path else client.our_mounts()
        inspect.show_status(where, as_json=as_json)


@app.command()
def why(path: Annotated[Path, mounted_path("A path in a mount.")], as_json: Json = False) -> None:
    """Explain a path: what it is, where it comes from, how fresh, what last went wrong."""
    from artifactfs.cli import client, inspect

    with answering():
        mountpoint, below = client.find(path)
        inspect.show_why(client.ask(mountpoint, verb="why", path=below), as_json=as_json)


@app.command()
def log(path: Annotated[Path, mounted_path("A path in a mount.")], as_json: Json = False) -> None:
    """List the versions of the artifact that a path shows."""
    from artifactfs.cli import client, inspect

    with answering():
        mountpoint, below = client.find(path)
        inspect.show_log(client.ask(mountpoint, verb="log", path=below), as_json=as_json)


@source_app.command("list")
def source_list(config: ConfigFile = None, as_json: Json = False) -> None:
    """List the sources that can be mounted, and what those that cannot are missing."""
    from artifactfs.cli import sources

    with answering():
        sources.show(config, as_json=as_json)


@source_app.command("test")
def source_test(names: Names = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """Try address, credentials and API of sources, of all of them if none is named."""
    from artifactfs.cli import checks

    with answering():
        raise typer.Exit(checks.test_sources(config, names or [], as_json=as_json))


@app.command()
def login(
    source: Name,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Try it at the service before it is kept.")] = True,
    user: Annotated[str | None, typer.Option(help="A password of this user (Syntropic137).", metavar="NAME")] = None,
    config: ConfigFile = None,
) -> None:
    """Keep the token of a source, typed without echo or piped in; running mounts use it at once."""
    from artifactfs.cli import logins

    with answering():
        logins.login(config, source, user, check=check)


@app.command()
def logout(
    source: Name,
    config: ConfigFile = None,
) -> None:
    """Forget the token that `artifactfs login` kept for a source, here and in running mounts."""
    from artifactfs.cli import logins

    with answering():
        logins.logout(config, source)


@cache_app.command("show")
def cache_show(config: ConfigFile = None, as_json: Json = False) -> None:
    """Show how full the cache is, what sharing saves, what is pinned."""
    from artifactfs.cli import cache

    with answering():
        cache.show(config, as_json=as_json)


@cache_app.command("check")
def cache_check(
    config: ConfigFile = None,
    repair: Annotated[bool, typer.Option("--repair", help="Forget what is damaged; it is fetched again.")] = False,
    as_json: Json = False,
) -> None:
    """Verify every block and database of the cache; fails if one is damaged and not repaired."""
    from artifactfs.cli import cache

    with answering():
        raise typer.Exit(cache.check(config, repair=repair, as_json=as_json))


@cache_app.command("clear")
def cache_clear(
    config: ConfigFile = None,
    pinned: Annotated[bool, typer.Option("--pinned", help="Also what you pinned.")] = False,
) -> None:
    """Empty the cache, also while it is mounted; what is read again is fetched again."""
    from artifactfs.cli import cache

    with answering():
        cache.clear(config, also_pinned=pinned)


@app.command()
def serve(  # noqa: PLR0913, PLR0917 - typer reads the options from the arguments, one each
    store: Annotated[Path | None, typer.Option(help="Directory of the store to serve.", metavar="DIR")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the dialects; 0 takes a free one.", min=0, max=65535)] = 8137,
    storage_port: Annotated[
        int, typer.Option(help="Port of the storage origin; 0 takes a free one.", min=0, max=65535)
    ] = 0,
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
def bench(  # noqa: PLR0913, PLR0917 - typer reads the options from the arguments, one each
    path: Annotated[Path | None, mounted_path("Read this directory instead; nothing is written there.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all numbers there.", metavar="FILE")] = None,
    svg_file: Annotated[Path | None, typer.Option("--svg", help="Write a plot there.", metavar="FILE")] = None,
    rtt: Annotated[str | None, typer.Option(help="Round trips in ms, such as 0,20,100.", metavar="MS,...")] = None,
    rounds: Annotated[int | None, typer.Option(help="How often; medians are shown.", min=1)] = None,
    peers: Annotated[str, typer.Option(help="Programs to compare with, or `all`.", metavar="NAME,...")] = "",
    only: Annotated[str, typer.Option(help="Only these services.", metavar="SERVICE,...")] = "",
    phases: Annotated[str, typer.Option(help="Only these phases, or `medium`.", metavar="NAME,...")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="A small tree, once.")] = False,
    document: Annotated[Path | None, typer.Option("--write-docs", hidden=True)] = None,
    report: Annotated[Path | None, typer.Option("--from", hidden=True)] = None,
) -> None:
    """Measure what the mount costs: on a generated store that is served and mounted for it, or on a path."""
    from artifactfs.cli import bench as benchmark

    with answering():
        benchmark.run(
            benchmark.Request(path, json_file, svg_file, rtt, rounds, peers, only, phases, quick, document, report)
        )


@app.command()
def completion(
    shell: Annotated[str, typer.Argument(help="bash, zsh or fish.", autocompletion=lambda: [*SHELLS])],
) -> None:
    """Print the completion script for a shell: `source <(artifactfs completion bash)`."""
    from typer._completion_shared import get_completion_script

    if shell not in SHELLS:
        raise typer.BadParameter(f"should be one of {', '.join(SHELLS)}", param_hint="SHELL")
    sys.stdout.write(get_completion_script(prog_name="artifactfs", complete_var="_ARTIFACTFS_COMPLETE", shell=shell))
    sys.stdout.write("\n")


def run() -> None:
    """Run the command that was typed; a reader that went away (``| head``) is no error."""
    for stream in (sys.stdout, sys.stderr):
        # A path may hold what the terminal's encoding cannot say; that is no reason to end in a traceback.
        if isinstance(stream, io.TextIOWrapper):  # a program that runs us may have put something else there
            stream.reconfigure(errors="backslashreplace")
    if "_ARTIFACTFS_COMPLETE" in os.environ:
        from typer._completion_classes import completion_init

        completion_init()
    try:
        try:
            app(prog_name="artifactfs")
        finally:
            sys.stdout.flush()  # here, where it can be answered, and not when the interpreter ends
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(FAILED) from None
