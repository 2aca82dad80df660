"""``artifactfs source``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from artifactfs import config, errors
from artifactfs.cli import render

app = typer.Typer(no_args_is_help=True, add_completion=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="Use this configuration file.", metavar="FILE")]


def _row(settings: config.Config, name: str) -> dict[str, Any]:
    known = config.all_sources(settings).get(name)
    service = known.type if known else "local"
    try:
        source = config.resolve(settings, name)
    except errors.ConfigError as error:
        return {"name": name, "service": service, "where": None, "ready": False, "problem": str(error)}
    where = str(source.path) if source.service == "local" else source.url
    return {"name": name, "service": service, "where": where, "ready": True, "problem": None}


@app.command("list")
def list_(config_file: ConfigFile = None, as_json: Json = False) -> None:
    """List the sources that can be mounted, and what those that cannot are missing."""
    try:
        settings = config.load(config_file)
    except errors.ConfigError as error:
        render.complain(str(error))
        raise typer.Exit(1) from None
    names = [*config.all_sources(settings)]
    rows = [_row(settings, name) for name in (names if "local" in names else [*names, "local"])]
    chosen = config.choose(settings, [], everything=False) if not settings.default else [settings.default]
    if as_json:
        render.as_json([{**row, "mounted_by_default": row["name"] in chosen} for row in rows])
        return
    render.table(
        ("", "source", "service", "where", "problem"),
        [("*" if r["name"] in chosen else "", r["name"], r["service"], r["where"], r["problem"] or "") for r in rows],
    )


@app.command()
def test(
    names: Annotated[list[str] | None, typer.Argument(help="Which sources; all if left out.")] = None,
    config_file: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Try address, credentials and API of sources."""
    from artifactfs.cli import checks

    try:
        settings = config.load(config_file)
        chosen = config.choose(settings, names or [], everything=not names)
        raise typer.Exit(checks.test_sources(settings, chosen, as_json=as_json))
    except errors.ConfigError as error:
        render.complain(str(error))
        raise typer.Exit(1) from None
